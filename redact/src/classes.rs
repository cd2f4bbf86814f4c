//! Classes of bytes, looked at sixteen at a time.

use wide::u8x16;

/// Bytes in one vector.
const LANES: usize = 16;

/// Bytes in one block, of which each class is one number.
pub(crate) const BLOCK: usize = 64;

/// The bytes of a block that belong to each class: the lowest bit is that of the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) digits: u64,
    pub(crate) at: u64,
    /// `:` and `=`.
    pub(crate) signs: u64,
    pub(crate) hyphens: u64,
    pub(crate) backslashes: u64,
    /// Characters of keys and tokens, [`is_part`].
    pub(crate) parts: u64,
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

/// Returns the classes of each block of a text; the last one is filled up with zeros.
pub(crate) fn blocks(bytes: &[u8]) -> impl Iterator<Item = Masks> {
    let (whole, rest) = bytes.as_chunks::<BLOCK>();
    whole.iter().map(Masks::of).chain((!rest.is_empty()).then(|| {
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        Masks::of(&last)
    }))
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

/// Returns the starts of all runs of [`LANES`]` - 1` characters of keys and tokens.
pub(crate) const fn long_runs(parts: u64) -> u64 {
    let two = parts & parts >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    eight & eight >> 7
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

fn class(block: &[u8; BLOCK], of: impl Fn(u8x16) -> u8x16) -> u64 {
    let (vectors, _) = block.as_chunks::<LANES>();
    vectors.iter().rev().fold(0, |mask, some| mask << LANES | u64::from(of(u8x16::new(*some)).to_bitmask()))
}

// === impl Masks ===

impl Masks {
    /// Returns the classes that either block has.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            digits: self.digits | other.digits,
            at: self.at | other.at,
            signs: self.signs | other.signs,
            hyphens: self.hyphens | other.hyphens,
            backslashes: self.backslashes | other.backslashes,
            parts: self.parts | other.parts,
        }
    }

    fn of(block: &[u8; BLOCK]) -> Self {
        let parts = class(block, parts);
        let (vectors, _) = block.as_chunks::<LANES>();
        let special = vectors.iter().fold(u8x16::splat(0), |special, some| {
            let some = u8x16::new(*some);
            let sign = equal(some, b'=') | equal(some, b'@') | equal(some, b'-') | equal(some, b'\\');
            special | within(some, b'0', b':') | sign
        });
        // Prose mostly has letters and spaces only.
        if special.to_bitmask() == 0 {
            return Self { parts, ..Self::default() };
        }
        Self {
            digits: class(block, |some| within(some, b'0', b'9')),
            at: class(block, |some| equal(some, b'@')),
            signs: class(block, |some| equal(some, b':') | equal(some, b'=')),
            hyphens: class(block, |some| equal(some, b'-')),
            backslashes: class(block, |some| equal(some, b'\\')),
            parts,
        }
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
    fn classes_are_those_of_each_byte_at_every_place_of_a_text() {
        for length in 0..140 {
            for at in 0..length {
                for byte in *b"7@=:-\\x/ " {
                    let mut text = vec![b' '; length];
                    text[at] = byte;
                    let found: Vec<Masks> = blocks(&text).collect();
                    let bit = |holds: bool| u64::from(holds) << (at % BLOCK);
                    let expected = Masks {
                        digits: bit(byte == b'7'),
                        at: bit(byte == b'@'),
                        signs: bit(matches!(byte, b'=' | b':')),
                        hyphens: bit(byte == b'-'),
                        backslashes: bit(byte == b'\\'),
                        parts: bit(is_part(byte)),
                    };
                    assert_eq!(found.len(), length.div_ceil(BLOCK));
                    for (number, masks) in found.into_iter().enumerate() {
                        let expected = if number == at / BLOCK { expected } else { Masks::default() };
                        assert_eq!(masks, expected, "{length} {at} {byte}");
                    }
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
            let found: Vec<u64> = blocks(text).map(|masks| escaped(masks.backslashes, &mut carried)).collect();
            for (at, expected) in expected.iter().enumerate() {
                prop_assert_eq!(found[at / BLOCK] >> (at % BLOCK) & 1 != 0, *expected, "{}", at);
            }
            let quoted = [b"\"", text].concat();
            let end = text.iter().zip(&expected).position(|(byte, escaped)| *byte == b'"' && !escaped);
            let has_escapes = text[..end.unwrap_or(text.len())].contains(&b'\\');
            prop_assert_eq!(end_of_string(&quoted, 0), (end.map_or(quoted.len(), |end| end + 2), has_escapes));
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
            for (number, masks) in blocks(&text).enumerate() {
                let block = &text[number * BLOCK..text.len().min((number + 1) * BLOCK)];
                let first = block.windows(LANES - 1).position(|run| run.iter().all(|byte| is_part(*byte)));
                let long = long_runs(masks.parts);
                prop_assert_eq!((long != 0).then(|| long.trailing_zeros() as usize), first);
            }
            for byte in &mut text {
                *byte = if *byte == b' ' { b'5' } else { b'x' };
            }
            let digit = text.get(at..).unwrap_or_default().iter().position(u8::is_ascii_digit);
            prop_assert_eq!(next_digit(&text, at), digit.map(|digit| at + digit));
        }
    }
}
