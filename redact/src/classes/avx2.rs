//! Computes classes of bytes with AVX2 instructions, which newer processors have, for thirty-two bytes at a time.
//!
//! The classes of a byte are looked up by its upper and its lower four bits. Each half has a table with the classes that the byte may
//! belong to, and the byte belongs to the classes that both tables name.

use std::arch::x86_64::{
    __m256i, _mm_set_epi64x, _mm256_alignr_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
    _mm256_movemask_epi8, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi8, _mm256_setr_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_testz_si256,
};

use super::{BLOCK, Masks};

/// A set of bytes: all with one of these upper halves and one of these lower halves. Each set of halves has one bit for each half.
type Rectangle = (u16, u16);

const fn bits(some: &[u32]) -> u16 {
    let (mut set, mut at) = (0, 0);
    while at < some.len() {
        set |= 1 << some[at];
        at += 1;
    }
    set
}

/// Upper halves of the letters up to `o`, and of those from `p` on, in both cases.
const FIRST: u16 = bits(&[4, 6]);
const LAST: u16 = bits(&[5, 7]);

/// Digits; letters up to `o`, and from `p` on; `:=`; `+-./`; spaces and others; `_`; `~`.
const CLASSES: Tables = Tables::of(&[
    (bits(&[3]), 0x03ff),
    (FIRST, 0xfffe),
    (LAST, 0x07ff),
    (bits(&[3]), bits(&[10, 13])),
    (bits(&[2]), bits(&[11, 13, 14, 15])),
    (bits(&[0, 2]), bits(&[0, 7, 8, 9])),
    (bits(&[5]), bits(&[15])),
    (bits(&[7]), bits(&[14])),
]);

/// `@`; `rs`; `"`; backslash.
const SINGLE: Tables = Tables::of(&[
    (bits(&[4]), bits(&[0])),
    (bits(&[7]), bits(&[2, 3])),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (bits(&[2]), bits(&[2])),
    (bits(&[5]), bits(&[12])),
]);

/// Digits and signs of the one, and `@`, quotation marks and backslashes of the other: most blocks of prose have none of them.
const SPECIAL_CLASSES: i8 = 0b1001;
const SPECIAL_SINGLE: i8 = !0b11_1110;

/// The bytes before the last ones of words that name a secret, and the last ones: `rd`, `wd`; `se`; `rt`, `et`; `ha` and `ña`; `ło` and
/// `ie`; `ey`, `en`, `on`; `al`; `ls`. Some have a few more pairs than these.
const BEFORE_LAST: Tables = Tables::of(&[
    (LAST, bits(&[2, 7])),
    (LAST, bits(&[3])),
    (FIRST | LAST, bits(&[2, 5])),
    (FIRST | bits(&[11]), bits(&[1, 8])),
    (FIRST | bits(&[8]), bits(&[2, 9])),
    (FIRST, bits(&[5, 15])),
    (FIRST, bits(&[1])),
    (FIRST, bits(&[12])),
]);
const VERY_LAST: Tables = Tables::of(&[
    (FIRST, bits(&[4])),
    (FIRST, bits(&[5])),
    (LAST, bits(&[4])),
    (FIRST, bits(&[1])),
    (FIRST, bits(&[5, 15])),
    (FIRST | LAST, bits(&[9, 14])),
    (FIRST, bits(&[12])),
    (LAST, bits(&[3])),
]);

/// The bits of eight rectangles, by the upper and by the lower half of a byte.
struct Tables {
    upper: [u8; 16],
    lower: [u8; 16],
}

/// The tables, ready for use.
#[derive(Clone, Copy)]
struct Loaded {
    upper: __m256i,
    lower: __m256i,
}

/// Computes the classes of blocks. Returns false if the processor lacks the instructions.
pub(super) fn classify(blocks: &[[u8; BLOCK]], all: &mut [Masks]) -> bool {
    if !is_x86_feature_detected!("avx2") {
        return false;
    }
    // SAFETY: the processor has the instructions, as was checked above, and nothing else is required.
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    unsafe {
        classify_all(blocks, all);
    }
    true
}

#[target_feature(enable = "avx2")]
fn classify_all(blocks: &[[u8; BLOCK]], all: &mut [Masks]) {
    let (classes, single) = (CLASSES.loaded(), SINGLE.loaded());
    let (before_last, very_last) = (BEFORE_LAST.loaded(), VERY_LAST.loaded());
    for (block, masks) in blocks.iter().zip(all) {
        let (vectors, _) = block.as_chunks::<32>();
        let some = [load(&vectors[0]), load(&vectors[1])];
        let halves = [halves(some[0]), halves(some[1])];
        let class = [classes.of(halves[0]), classes.of(halves[1])];
        let one = [single.of(halves[0]), single.of(halves[1])];
        *masks = Masks {
            letters: letters(class[0]) | letters(class[1]) << 32,
            marks: marks(class[0]) | marks(class[1]) << 32,
            spaces: bit::<5>(class),
            wide: mask(some[0]) | mask(some[1]) << 32,
            r_or_s: bit::<1>(one),
            ..Masks::default()
        };
        let special = _mm256_or_si256(
            _mm256_and_si256(_mm256_or_si256(class[0], class[1]), _mm256_set1_epi8(SPECIAL_CLASSES)),
            _mm256_and_si256(_mm256_or_si256(one[0], one[1]), _mm256_set1_epi8(SPECIAL_SINGLE)),
        );
        if _mm256_testz_si256(special, special) != 0 {
            continue;
        }
        masks.digits = bit::<0>(class);
        masks.signs = bit::<3>(class);
        masks.at = bit::<0>(one);
        masks.quotes = bit::<6>(one);
        masks.backslashes = mask(one[0]) | mask(one[1]) << 32;
        if masks.signs != 0 {
            let next = [before_last.of(halves[0]), before_last.of(halves[1])];
            let low = pairs(_mm256_setzero_si256(), next[0], very_last.of(halves[0]));
            masks.ends = low | pairs(next[0], next[1], very_last.of(halves[1])) << 32;
        }
    }
}

/// Returns the bytes of which `last` has a bit that the byte before has in `next`, or in `previous`, which has the bytes before.
#[target_feature(enable = "avx2")]
fn pairs(previous: __m256i, next: __m256i, last: __m256i) -> u64 {
    // The bits of the byte before each one: across the two lanes, and from the vector before.
    let carried = _mm256_permute2x128_si256::<0x21>(previous, next);
    let found = _mm256_and_si256(_mm256_alignr_epi8::<15>(next, carried), last);
    !mask(_mm256_cmpeq_epi8(found, _mm256_setzero_si256())) & u64::from(u32::MAX)
}

#[target_feature(enable = "avx2")]
fn letters(class: __m256i) -> u64 {
    mask(_mm256_or_si256(_mm256_slli_epi16::<6>(class), _mm256_slli_epi16::<5>(class)))
}

#[target_feature(enable = "avx2")]
fn marks(class: __m256i) -> u64 {
    let low = _mm256_or_si256(_mm256_slli_epi16::<1>(class), class);
    mask(_mm256_or_si256(_mm256_slli_epi16::<3>(class), low))
}

#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    let (words, _) = bytes.as_chunks::<8>();
    let word = |at: usize| i64::from_le_bytes(words[at]);
    _mm256_setr_epi64x(word(0), word(1), word(2), word(3))
}

/// Returns the upper and the lower halves of bytes.
#[target_feature(enable = "avx2")]
fn halves(some: __m256i) -> [__m256i; 2] {
    let half = _mm256_set1_epi8(15);
    [_mm256_and_si256(_mm256_srli_epi16::<4>(some), half), _mm256_and_si256(some, half)]
}

/// Returns the highest bit of each byte.
#[target_feature(enable = "avx2")]
fn mask(some: __m256i) -> u64 {
    u64::from(_mm256_movemask_epi8(some).cast_unsigned())
}

/// Returns one bit of each byte of a block.
#[target_feature(enable = "avx2")]
fn bit<const AT: i32>([low, high]: [__m256i; 2]) -> u64 {
    // The bits that a shift of two bytes moves from the lower into the upper one are below the highest.
    let [low, high] = match AT {
        0 => [_mm256_slli_epi16::<7>(low), _mm256_slli_epi16::<7>(high)],
        1 => [_mm256_slli_epi16::<6>(low), _mm256_slli_epi16::<6>(high)],
        3 => [_mm256_slli_epi16::<4>(low), _mm256_slli_epi16::<4>(high)],
        5 => [_mm256_slli_epi16::<2>(low), _mm256_slli_epi16::<2>(high)],
        _ => [_mm256_slli_epi16::<1>(low), _mm256_slli_epi16::<1>(high)],
    };
    mask(low) | mask(high) << 32
}

// === impl Tables ===

impl Tables {
    const fn of(rectangles: &[Rectangle; 8]) -> Self {
        let mut tables = Self { upper: [0; 16], lower: [0; 16] };
        let mut at = 0;
        while at < 128 {
            let (class, half) = (at / 16, at % 16);
            tables.upper[half] |= ((rectangles[class].0 >> half & 1) as u8) << class;
            tables.lower[half] |= ((rectangles[class].1 >> half & 1) as u8) << class;
            at += 1;
        }
        tables
    }

    #[target_feature(enable = "avx2")]
    fn loaded(&self) -> Loaded {
        let both = |table: &[u8; 16]| {
            let (words, _) = table.as_chunks::<8>();
            let [low, high] = [words[0], words[1]].map(i64::from_le_bytes);
            _mm256_broadcastsi128_si256(_mm_set_epi64x(high, low))
        };
        Loaded { upper: both(&self.upper), lower: both(&self.lower) }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Returns the classes of bytes by their halves.
    #[target_feature(enable = "avx2")]
    fn of(self, [upper, lower]: [__m256i; 2]) -> __m256i {
        _mm256_and_si256(_mm256_shuffle_epi8(self.upper, upper), _mm256_shuffle_epi8(self.lower, lower))
    }
}
