//! Classes of bytes, looked at sixteen at a time: most texts contain nothing that a detector begins with, and end here.

use wide::u8x16;

/// Bytes in one vector.
const LANES: usize = 16;

/// The bytes that a text contains of those that detectors begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    pub(crate) digit: bool,
    pub(crate) at: bool,
    /// `:` or `=`.
    pub(crate) sign: bool,
    pub(crate) hyphen: bool,
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

/// The characters of keys and tokens: letters, digits and `_-.+/~`.
fn parts(some: u8x16) -> u8x16 {
    let letter = within(some | u8x16::splat(0x20), b'a', b'z');
    letter | within(some, b'-', b'9') | equal(some, b'_') | equal(some, b'+') | equal(some, b'~')
}

/// Returns true for a character of keys and tokens.
pub(crate) const fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'~')
}

impl Signs {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let zero = u8x16::splat(0);
        let (mut digit, mut at, mut sign, mut hyphen) = (zero, zero, zero, zero);
        for some in vectors(bytes) {
            digit |= within(some, b'0', b'9');
            at |= equal(some, b'@');
            sign |= equal(some, b':') | equal(some, b'=');
            hyphen |= equal(some, b'-');
        }
        let any = |lanes: u8x16| lanes.to_bitmask() != 0;
        Self { digit: any(digit), at: any(at), sign: any(sign), hyphen: any(hyphen) }
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

    #[test]
    fn signs_are_found_at_every_place_of_a_text() {
        for length in 0..70 {
            for at in 0..length {
                let mut text = vec![b'x'; length];
                for (sign, expected) in [
                    (b'7', Signs { digit: true, ..Signs::default() }),
                    (b'@', Signs { at: true, ..Signs::default() }),
                    (b'=', Signs { sign: true, ..Signs::default() }),
                    (b':', Signs { sign: true, ..Signs::default() }),
                    (b'-', Signs { hyphen: true, ..Signs::default() }),
                ] {
                    text[at] = sign;
                    assert_eq!(Signs::of(&text), expected, "{length} {at}");
                }
            }
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
