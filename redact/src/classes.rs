//! Classes of bytes, computed for sixteen bytes at a time, or for thirty-two if the processor supports it.

#[cfg(target_arch = "x86_64")]
mod avx2;

use wide::u8x16;

/// Bytes in one vector.
const LANES: usize = 16;

/// Bytes in one block, of which each class is one number.
pub(crate) const BLOCK: usize = 64;

/// Blocks that are classified at once.
pub(crate) const CHUNK: usize = 4;

/// The bytes of a block that belong to each class: the lowest bit is that of the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) digits: u64,
    pub(crate) letters: u64,
    pub(crate) at: u64,
    /// `:` and `=`.
    pub(crate) signs: u64,
    /// The characters of keys and tokens that are no letters and no digits.
    pub(crate) marks: u64,
    /// Space, tab, parentheses, `'`, and three controls.
    pub(crate) spaces: u64,
    pub(crate) backslashes: u64,
    /// `"`.
    pub(crate) quotes: u64,
    /// Bytes of characters that are not ASCII.
    pub(crate) wide: u64,
    /// Small letters `r` and `s`.
    pub(crate) r_or_s: u64,
    /// The last bytes of words that may name a secret, and perhaps others, if the block has signs. Words that begin in the block before
    /// are left out.
    pub(crate) ends: u64,
}

/// Some classes of bytes that a text has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present {
    pub(crate) digits: bool,
    pub(crate) at: bool,
    pub(crate) signs: bool,
    pub(crate) marks: bool,
}

/// Returns the vectors of a text, and of its end one that is filled up with zeros.
fn vectors(bytes: &[u8]) -> impl Iterator<Item = u8x16> {
    let (whole, rest) = bytes.as_chunks::<LANES>();
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    whole.iter().map(|some| u8x16::new(*some)).chain((!rest.is_empty()).then(|| u8x16::new(last)))
}

fn equal(some: u8x16, byte: u8) -> u8x16 {
    some.simd_eq(u8x16::splat(byte))
}

fn within(some: u8x16, least: u8, most: u8) -> u8x16 {
    let above = some - u8x16::splat(least);
    above.min(u8x16::splat(most - least)).simd_eq(above)
}

fn letters(some: u8x16) -> u8x16 {
    within(some | u8x16::splat(0x20), b'a', b'z')
}

/// The characters of keys and tokens that are no letters and no digits.
fn marks(some: u8x16) -> u8x16 {
    within(some, b'-', b'/') | equal(some, b'+') | equal(some, b'_') | equal(some, b'~')
}

fn spaces(some: u8x16) -> u8x16 {
    within(some, b'\'', b')') | equal(some, b' ') | within(some, 7, 9) | equal(some, 0)
}

/// Returns true for the bytes that are spaces, as a class.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | 7..=9 | b' ' | b'\''..=b')')
}

/// The characters of keys and tokens: letters, digits and `_-.+/~`.
fn parts(some: u8x16) -> u8x16 {
    letters(some) | within(some, b'0', b'9') | marks(some)
}

/// Returns true for a character of keys and tokens.
pub(crate) const fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'~')
}

/// Returns the number of blocks of a text. After its end they are filled with zeros, at least [`AFTER`] of them.
pub(crate) fn count(bytes: &[u8]) -> usize {
    (bytes.len() + AFTER).div_ceil(BLOCK)
}

/// Least number of zeros after the end of a text: the end of a run is only seen at the bytes after it.
const AFTER: usize = 4;

/// Computes the classes of as many blocks of a text as `chunk` holds, from block `first` on. Returns the number of blocks.
pub(crate) fn classify(bytes: &[u8], first: usize, chunk: &mut [Masks]) -> usize {
    let blocks = chunk.len().min(count(bytes).saturating_sub(first));
    let (whole, rest) = bytes.get(first * BLOCK..).unwrap_or_default().as_chunks::<BLOCK>();
    let whole = &whole[..whole.len().min(blocks)];
    classify_whole(whole, chunk);
    for number in whole.len()..blocks {
        let mut last = [0; BLOCK];
        if number == whole.len() {
            last[..rest.len()].copy_from_slice(rest);
        }
        classify_whole(&[last], &mut chunk[number..]);
    }
    blocks
}

/// Computes the classes of blocks.
fn classify_whole(blocks: &[[u8; BLOCK]], all: &mut [Masks]) {
    #[cfg(target_arch = "x86_64")]
    if avx2::classify(blocks, all) {
        return;
    }
    for (block, masks) in blocks.iter().zip(all) {
        *masks = Masks::of(block);
    }
}

/// Returns the bytes that a backslash before them escapes. `escape` says whether the first byte is escaped, and then the one after
/// the block.
pub(crate) fn escaped(backslashes: u64, escape: &mut bool) -> u64 {
    let carried = u64::from(std::mem::take(escape));
    let after = backslashes << 1 | carried;
    if after & backslashes == 0 {
        *escape = backslashes >> (BLOCK - 1) != 0;
        return after;
    }
    // A backslash that is escaped itself escapes nothing.
    let (mut escaped, mut left) = (carried, backslashes & !carried);
    while left != 0 {
        let at = left.trailing_zeros();
        if at as usize == BLOCK - 1 {
            *escape = true;
            return escaped;
        }
        escaped |= 2 << at;
        left &= !(3 << at);
    }
    escaped
}

/// Returns the index after the string that begins with the quotation mark at `start`, and whether it has escapes.
pub(crate) fn end_of_string(bytes: &[u8], start: usize) -> (usize, bool) {
    let (mut at, mut has_escapes) = (start + 1, false);
    // Most strings are short: the classes of a block would cost more.
    for (offset, byte) in bytes[at..].iter().take(LANES).enumerate() {
        match byte {
            b'"' => return (at + offset + 1, false),
            b'\\' => break,
            _ => {}
        }
    }
    let mut escape = false;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let filled;
        let block = match rest.first_chunk::<BLOCK>() {
            Some(block) => block,
            None => {
                let mut last = [0; BLOCK];
                last[..rest.len()].copy_from_slice(rest);
                filled = last;
                &filled
            }
        };
        let (mut quotes, backslashes) =
            (class(block, |some| equal(some, b'"')), class(block, |some| equal(some, b'\\')));
        let carried = escape;
        if escape || backslashes != 0 {
            quotes &= !escaped(backslashes, &mut escape);
        }
        if quotes != 0 {
            let end = quotes.trailing_zeros();
            return (at + end as usize + 1, has_escapes || carried || backslashes & ((1 << end) - 1) != 0);
        }
        has_escapes |= backslashes != 0;
        at += BLOCK;
    }
    (bytes.len(), has_escapes)
}

/// Returns true if the byte at `at` is in a string. Counts the quotation marks since `from`, which must be outside of all strings.
pub(crate) fn is_in_string(bytes: &[u8], from: usize, at: usize) -> bool {
    let (whole, rest) = bytes[from..at].as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let (mut escape, mut quotes) = (false, 0);
    for block in whole.iter().chain([&last]) {
        let backslashes = class(block, |some| equal(some, b'\\'));
        let mut delimiters = class(block, |some| equal(some, b'"'));
        if escape || backslashes != 0 {
            delimiters &= !escaped(backslashes, &mut escape);
        }
        quotes += delimiters.count_ones();
    }
    quotes % 2 == 1
}

fn class(block: &[u8; BLOCK], of: impl Fn(u8x16) -> u8x16) -> u64 {
    let (vectors, _) = block.as_chunks::<LANES>();
    vectors.iter().rev().fold(0, |mask, some| mask << LANES | u64::from(of(u8x16::new(*some)).to_bitmask()))
}

// === impl Present ===

impl Present {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (mut chunk, mut first, count, mut has) = ([Masks::default(); CHUNK], 0, count(bytes), Self::default());
        while first < count {
            let blocks = classify(bytes, first, &mut chunk);
            for masks in &chunk[..blocks] {
                has.digits |= masks.digits != 0;
                has.at |= masks.at != 0;
                has.signs |= masks.signs != 0;
                has.marks |= masks.marks != 0;
            }
            first += blocks;
        }
        has
    }
}

// === impl Masks ===

impl Masks {
    /// Computes the classes of a block with instructions that every processor has.
    fn of(block: &[u8; BLOCK]) -> Self {
        let letters = class(block, letters);
        let wide = class(block, |some| !within(some, 0, 0x7f));
        Self {
            digits: class(block, |some| within(some, b'0', b'9')),
            letters,
            at: class(block, |some| equal(some, b'@')),
            signs: class(block, |some| equal(some, b':') | equal(some, b'=')),
            marks: class(block, marks),
            spaces: class(block, spaces),
            backslashes: class(block, |some| equal(some, b'\\')),
            quotes: class(block, |some| equal(some, b'"')),
            wide,
            r_or_s: class(block, |some| within(some, b'r', b's')),
            ends: letters | wide,
        }
    }

    /// Returns the characters of keys and tokens.
    pub(crate) fn parts(&self) -> u64 {
        self.digits | self.letters | self.marks
    }
}

/// Returns the index of the next digit from `at` on.
pub(crate) fn next_digit(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    vectors(rest).enumerate().find_map(|(number, some)| {
        let found = within(some, b'0', b'9').to_bitmask();
        (found != 0).then(|| at + number * LANES + found.trailing_zeros() as usize)
    })
}

/// Returns the start of the next run of at least `LANES - 1` characters of keys and tokens, from `at` on.
pub(crate) fn next_long_word(bytes: &[u8], at: usize) -> Option<usize> {
    const WHOLE: u32 = (1 << LANES) - 1;
    let rest = bytes.get(at..)?;
    // Characters at the end of the vectors so far that belong to one run.
    let mut before = 0;
    for (number, some) in vectors(rest).enumerate() {
        let start = at + number * LANES;
        let found = parts(some).to_bitmask();
        let first = (!found).trailing_zeros() as usize;
        if before + first >= LANES - 1 {
            return Some(start - before);
        }
        if found == WHOLE - 1 {
            return Some(start + 1);
        }
        before = if found == WHOLE { before + LANES } else { (found << LANES).leading_ones() as usize };
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the classes of a block, by the definition of each.
    fn expected(block: &[u8; BLOCK]) -> Masks {
        let of = |is: fn(u8) -> bool| (0..).zip(block).fold(0, |mask, (at, byte)| mask | u64::from(is(*byte)) << at);
        Masks {
            digits: of(|byte| byte.is_ascii_digit()),
            letters: of(|byte| byte.is_ascii_alphabetic()),
            at: of(|byte| byte == b'@'),
            signs: of(|byte| matches!(byte, b':' | b'=')),
            marks: of(|byte| is_part(byte) && !byte.is_ascii_alphanumeric()),
            spaces: of(is_space),
            backslashes: of(|byte| byte == b'\\'),
            quotes: of(|byte| byte == b'"'),
            wide: of(|byte| !byte.is_ascii()),
            r_or_s: of(|byte| matches!(byte, b'r' | b's')),
            ends: 0,
        }
    }

    #[test]
    fn every_byte_has_its_classes_at_every_place_by_whatever_instructions() {
        for byte in 0..=u8::MAX {
            for at in 0..BLOCK {
                let mut block = [b' '; BLOCK];
                block[at] = byte;
                let expected = expected(&block);
                let mut found = [Masks::default()];
                classify_whole(&[block], &mut found);
                for found in [found[0], Masks::of(&block)] {
                    assert_eq!(Masks { ends: 0, ..found }, expected, "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_words_that_name_a_secret_are_found_beside_a_sign() {
        let words =
            ["password", "passwd", "passphrase", "passwort", "secret", "senha", "contraseña", "hasło", "api_key"];
        let others = ["access token", "credential", "credentials", "authorization", "Set-Cookie"];
        for word in words.into_iter().chain(others).flat_map(|word| [word.to_owned(), word.to_ascii_uppercase()]) {
            for at in 0..BLOCK - word.len() {
                let mut block = [b' '; BLOCK];
                block[at..at + word.len()].copy_from_slice(word.as_bytes());
                block[at + word.len()] = b':';
                let mut found = [Masks::default()];
                classify_whole(&[block], &mut found);
                for found in [found[0], Masks::of(&block)] {
                    assert_ne!(found.ends >> (at + word.len() - 1) & 1, 0, "{word} at {at}");
                }
            }
        }
    }

    #[test]
    fn blocks_go_beyond_the_end_of_a_text_and_have_zeros_there() {
        for length in 0..140 {
            let text = vec![b'7'; length];
            let (mut chunk, mut first, mut digits) = ([Masks::default(); 2], 0, 0);
            while first < count(&text) {
                let blocks = classify(&text, first, &mut chunk);
                digits += chunk[..blocks].iter().map(|masks| masks.digits.count_ones() as usize).sum::<usize>();
                assert!(chunk[..blocks].iter().all(|masks| masks.letters == 0 && masks.wide == 0));
                first += blocks;
            }
            assert_eq!(digits, length);
            assert!(first * BLOCK >= length + AFTER, "{length}");
        }
    }

    #[test]
    fn every_byte_has_the_class_that_its_definition_says() {
        for byte in 0..=u8::MAX {
            let found = parts(u8x16::splat(byte)).to_bitmask() != 0;
            assert_eq!(found, is_part(byte), "{byte}");
            assert_eq!(next_digit(&[byte], 0), byte.is_ascii_digit().then_some(0), "{byte}");
        }
    }

    proptest! {
        #[test]
        fn escapes_and_ends_of_strings_are_found_as_one_byte_after_another_would(
            text in "([ a]{0,70}|[\\\\]{1,3}|\"){0,12}",
        ) {
            let text = text.as_bytes();
            let (mut expected, mut escape) = (Vec::new(), false);
            for byte in text {
                expected.push(escape);
                escape = !escape && *byte == b'\\';
            }
            let mut carried = false;
            let mut chunk = [Masks::default(); 32];
            let blocks = classify(text, 0, &mut chunk);
            let found: Vec<u64> =
                chunk[..blocks].iter().map(|masks| escaped(masks.backslashes, &mut carried)).collect();
            for (at, expected) in expected.iter().enumerate() {
                prop_assert_eq!(found[at / BLOCK] >> (at % BLOCK) & 1 != 0, *expected, "{}", at);
            }
            let quoted = [b"\"", text].concat();
            let end = text.iter().zip(&expected).position(|(byte, escaped)| *byte == b'"' && !escaped);
            let has_escapes = text[..end.unwrap_or(text.len())].contains(&b'\\');
            prop_assert_eq!(end_of_string(&quoted, 0), (end.map_or(quoted.len(), |end| end + 2), has_escapes));
            let quotes = |to: usize| text[..to].iter().zip(&expected).filter(|(byte, escaped)| **byte == b'"' && !**escaped);
            for at in [0, text.len() / 2, text.len()] {
                prop_assert_eq!(is_in_string(text, 0, at), quotes(at).count() % 2 == 1, "{}", at);
            }
        }

        #[test]
        fn digits_and_long_words_are_found_as_one_byte_after_another_would(
            runs in prop::collection::vec((0..40_usize, 0..4_usize), 0..8),
            at in 0..40_usize,
        ) {
            let mut text = Vec::new();
            for (word, gap) in runs {
                text.extend(std::iter::repeat_n(b'w', word));
                text.extend(std::iter::repeat_n(b' ', gap));
            }
            let rest = text.get(at..).unwrap_or_default();
            let starts = rest.windows(LANES - 1).position(|run| run.iter().all(|byte| is_part(*byte)));
            prop_assert_eq!(next_long_word(&text, at), starts.map(|start| at + start));
            for byte in &mut text {
                *byte = if *byte == b' ' { b'5' } else { b'x' };
            }
            let digit = text.get(at..).unwrap_or_default().iter().position(u8::is_ascii_digit);
            prop_assert_eq!(next_digit(&text, at), digit.map(|digit| at + digit));
        }
    }
}
