//! The characters of one word, and whether it looks drawn at random.

use crate::classes::is_part;

/// Least length of a random word with digits, and of one of letters alone.
const RANDOM: usize = 20;
const RANDOM_LETTERS: usize = 24;

/// Least length of base64 with slashes.
const BASE64: usize = 32;

/// Least capitals, and least small letters, of a random word.
pub(crate) const CASES: usize = 3;

/// Least entropy of a random word, bits a character.
const BITS: f64 = 3.6;

/// Most bytes of a piece of a word that are judged: the first bytes of a longer piece say enough.
const PIECE: usize = 256;

/// Bits of one count of [`FIELDS`], and the greatest count.
const FIELD_BITS: u32 = 10;
const FIELD: usize = (1 << FIELD_BITS) - 1;

/// For each byte, a one in the count of its class: digits, capitals, small letters, and other characters of a word, from the lowest bits
/// on. Zero for a byte that is no character of a word.
static FIELDS: [u64; 256] = {
    let (mut fields, mut byte) = ([0; 256], 0_u8);
    loop {
        let field = match byte {
            b'0'..=b'9' => 0,
            b'A'..=b'Z' => 1,
            b'a'..=b'z' => 2,
            _ => 3,
        };
        if is_part(byte) {
            fields[byte as usize] = 1 << (FIELD_BITS * field);
        }
        if byte == u8::MAX {
            break fields;
        }
        byte += 1;
    }
};

/// Characters of a word: all, digits, capitals, small letters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) length: usize,
    pub(crate) digits: usize,
    pub(crate) upper: usize,
    pub(crate) lower: usize,
}

/// Returns true if a part of a word looks drawn at random, or all of it, as base64 with slashes.
pub(crate) fn has_random(word: &[u8]) -> bool {
    let short = |piece: &[u8]| is_random(&piece[..piece.len().min(PIECE)]);
    if word.split(|byte| matches!(byte, b'/' | b'.')).any(short) {
        return true;
    }
    // The folders of a path are words in small letters.
    let small = |letters: &[u8]| letters.iter().all(u8::is_ascii_lowercase);
    word.contains(&b'/') && !word.contains(&b'.') && !word.windows(5).any(small) && word.len() >= BASE64 && short(word)
}

/// Returns true if a word has letters of both cases, and digits or many changes between cases, and looks drawn at random.
fn is_random(word: &[u8]) -> bool {
    let word = word.strip_suffix(b"==").unwrap_or(word);
    if word.len() < RANDOM {
        return false;
    }
    let count = |of: fn(&u8) -> bool| word.iter().filter(|byte| of(byte)).count();
    let upper = count(u8::is_ascii_uppercase);
    if upper < CASES {
        return false;
    }
    let (digits, lower) = (count(u8::is_ascii_digit), count(u8::is_ascii_lowercase));
    if lower < CASES {
        return false;
    }
    // Names in camel case have few digits, and change between classes only at the start of their words.
    if digits >= 2 {
        return changes(word) * 5 >= word.len() * 2 && entropy(word) >= BITS;
    }
    // Of letters alone, a quarter of all pairs is of two capitals, and a quarter of two small letters.
    let pairs = |of: fn(&u8) -> bool| word.windows(2).filter(|pair| pair.iter().all(of)).count();
    word.len() >= RANDOM_LETTERS
        && digits + lower + upper == word.len()
        && changes(word) * 3 >= word.len()
        && pairs(u8::is_ascii_uppercase) * 12 >= word.len()
        && pairs(u8::is_ascii_lowercase) * 12 >= word.len()
        && entropy(word) >= BITS
}

/// Returns how often neighbouring bytes differ in class: digit, capital, small letter, other.
pub(crate) fn changes(word: &[u8]) -> usize {
    let class = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase(), byte.is_ascii_lowercase());
    word.windows(2).filter(|pair| class(&pair[0]) != class(&pair[1])).count()
}

/// Returns the entropy of the bytes of a word, bits a byte.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes are far below 2^52")]
fn entropy(word: &[u8]) -> f64 {
    let mut counts = [0_usize; 256];
    for byte in word {
        counts[usize::from(*byte)] += 1;
    }
    let total = word.len() as f64;
    let share = |count: &usize| *count as f64 / total;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

// === impl Counts ===

impl Counts {
    /// Counts the characters of the word that begins a text.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut counts = Self::default();
        for bytes in text.chunks(FIELD) {
            let mut sum = 0;
            let mut length = 0;
            for byte in bytes {
                let one = FIELDS[usize::from(*byte)];
                if one == 0 {
                    break;
                }
                sum += one;
                length += 1;
            }
            counts.length += length;
            for (count, at) in [(&mut counts.digits, 0), (&mut counts.upper, 1), (&mut counts.lower, 2)] {
                *count += (sum >> (FIELD_BITS * at)) as usize & FIELD;
            }
            if length < bytes.len() {
                break;
            }
        }
        counts
    }
}
