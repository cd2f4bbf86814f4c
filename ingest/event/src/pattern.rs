//! The patterns of the schema, each with its check and its description.

use crate::units;
use crate::value::{is_currency, is_sha256, lower_hex};

/// The check of a pattern, and its description.
pub(crate) type Pattern = (fn(&str) -> bool, &'static str);

const SHA256: &str = "^sha256:[0-9a-f]{64}$";
const CURRENCY: &str = "^[A-Z]{3}$";
const TRACE: &str = "^[0-9a-f]{32}$";
const SPAN: &str = "^[0-9a-f]{16}$";

/// Patterns for which a value in the wrong case is corrected.
pub(crate) const CASES: [&str; 4] = [SHA256, CURRENCY, TRACE, SPAN];

/// Returns the check and the description of a pattern of the schema.
pub(crate) fn pattern_of(pattern: &str) -> Option<Pattern> {
    Some(match pattern {
        r"^run-event/1(\.[0-9]+)?$" => (spec_is_known, "`run-event/1` or `run-event/1.N`"),
        SHA256 => (is_sha256, "`sha256:` followed by 64 lower-case hexadecimal digits"),
        r"^[0-9]{1,9}(\.[0-9]{1,12})?$" => (
            |text| units::decimal_nanos(text).is_some(),
            "a decimal string such as `0.004713`, with at most 9 digits before the point and 12 after it",
        ),
        CURRENCY => (is_currency, "an upper-case ISO 4217 code such as `USD`"),
        TRACE => (|text| lower_hex(text, 32), "32 lower-case hexadecimal digits"),
        SPAN => (|text| lower_hex(text, 16), "16 lower-case hexadecimal digits"),
        "^(19[7-9][0-9]|2[01][0-9]{2})-" => (units::year_fits, "a year from 1970 to 2199"),
        _ => return None,
    })
}

/// Returns true for `run-event/1` and its minor versions.
pub(crate) fn spec_is_known(spec: &str) -> bool {
    match spec.strip_prefix("run-event/1") {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('.')
            .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

pub(crate) fn pattern_fits(pattern: &str, text: &str) -> bool {
    pattern_of(pattern).is_some_and(|(fits, _)| fits(text))
}

pub(crate) fn pattern_words(pattern: &str) -> &str {
    pattern_of(pattern).map_or(pattern, |(_, words)| words)
}
