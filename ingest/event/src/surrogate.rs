//! Lone surrogates in JSON. Producers create them by cutting a string within a character beyond the basic plane.

use std::borrow::Cow;

pub(crate) fn is_high(unit: u32) -> bool {
    (0xD800..0xDC00).contains(&unit)
}

pub(crate) fn is_low(unit: u32) -> bool {
    (0xDC00..0xE000).contains(&unit)
}

/// Returns the character that a surrogate pair encodes.
pub(crate) fn pair(high: u32, low: u32) -> Option<char> {
    char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
}

/// Replaces each lone surrogate escape of a JSON text by that of U+FFFD. The length does not change, so byte indices stay
/// valid.
pub fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let unit_at = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    };
    let mut replaced: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        match unit_at(at) {
            Some(high) if is_high(high) && unit_at(at + 6).is_some_and(is_low) => at += 12,
            Some(half) if is_high(half) || is_low(half) => {
                replaced.get_or_insert_with(|| bytes.to_vec())[at + 2..at + 6].copy_from_slice(b"fffd");
                at += 6;
            }
            // Skip the escaped character, which may be a backslash itself.
            _ => at += 2,
        }
    }
    match replaced.map(String::from_utf8) {
        Some(Ok(replaced)) => Cow::Owned(replaced),
        _ => Cow::Borrowed(text),
    }
}
