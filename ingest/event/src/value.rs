//! Field types that check their own limits as they are read: strings, closed sets of words, patterns, times, numbers, and
//! values that are kept as sent.

use std::borrow::Cow;
use std::ops::Deref;

use crate::json::{JsonNumber, JsonReader, Malformed, Mark, Parsed};
use crate::record::FromJson;
use crate::units;

impl<'a> FromJson<'a> for bool {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        json.boolean()
    }
}

/// Defines a value that is kept as sent, except for lone surrogates, if it begins with one of these bytes.
macro_rules! raw_type {
    ($(#[$doc:meta])* $name:ident: $($first:pat_param)|+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a>(Cow<'a, str>);
        impl $name<'_> {
            /// Returns the JSON text.
            pub fn get(&self) -> &str {
                &self.0
            }
        }
        impl<'a> FromJson<'a> for $name<'a> {
            fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
                if matches!(json.peek(), $($first)|+) { json.repaired_raw().map(Self) } else { Err(Malformed) }
            }
        }
    };
}

raw_type!(
    /// An array, kept as sent.
    RawList: b'['
);
raw_type!(
    /// An object, kept as sent.
    RawObject: b'{'
);

impl RawObject<'_> {
    /// Makes an object of its JSON text.
    pub(crate) fn new(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

raw_type!(
    /// A string, an object or an array, kept as sent.
    RawContent: b'"' | b'{' | b'['
);

/// The JSON text of a value that is parsed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadJson<'a>(pub(crate) &'a str);

impl<'a> FromJson<'a> for UnreadJson<'a> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        json.raw().map(Self)
    }
}

/// The JSON text of a release, which in nearly all messages has been seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRelease<'a>(pub(crate) &'a str);

impl<'a> FromJson<'a> for RawRelease<'a> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        json.raw_or_known().map(Self)
    }
}

/// A string of MIN to MAX Unicode characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a, const MIN: usize, const MAX: usize>(pub(crate) Cow<'a, str>);

impl<const MIN: usize, const MAX: usize> Deref for Text<'_, MIN, MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

pub(crate) fn length_fits(text: &str, min: usize, max: usize) -> bool {
    if text.len() <= max && text.len() >= min && (min == 0 || !text.is_empty()) && min <= 1 {
        return true;
    }
    (min..=max).contains(&text.chars().count())
}

/// Converts a string; `None` if it is malformed.
pub(crate) trait FromText<'a>: Sized {
    fn from_text(text: Cow<'a, str>) -> Option<Self>;
}

/// Implements [`FromJson`] by [`FromText`].
macro_rules! read_as_text {
    ($name:ty, [$($generics:tt)*]) => {
        impl<'a, $($generics)*> FromJson<'a> for $name {
            #[inline]
            fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
                Self::from_text(json.text()?).ok_or(Malformed)
            }
        }
    };
}

impl<'a, const MIN: usize, const MAX: usize> FromText<'a> for Text<'a, MIN, MAX> {
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        length_fits(&text, MIN, MAX).then_some(Self(text))
    }
}

read_as_text!(Text<'a, MIN, MAX>, [const MIN: usize, const MAX: usize]);

/// A string of at least MIN Unicode characters that is cut after MAX, and noted. It dereferences to the part that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutText<'a, const MIN: usize, const MAX: usize> {
    sent: Cow<'a, str>,
    /// Length of the part that is kept, bytes.
    end: usize,
}

impl<const MIN: usize, const MAX: usize> CutText<'_, MIN, MAX> {
    /// Changes the text as it was sent, and cuts the result. A value that the limit cuts in two is only recognised in the whole text.
    pub fn changed<'t>(&'t self, change: impl FnOnce(&'t str) -> Cow<'t, str>) -> Cow<'t, str> {
        let changed = change(&self.sent);
        if self.end == self.sent.len() {
            return changed;
        }
        let end = end_of(&changed, MAX).unwrap_or(changed.len());
        until(changed, end)
    }
}

impl<const MIN: usize, const MAX: usize> Deref for CutText<'_, MIN, MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.sent[..self.end]
    }
}

impl<'a, const MIN: usize, const MAX: usize> FromJson<'a> for CutText<'a, MIN, MAX> {
    #[inline]
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let sent = json.text()?;
        let mut end = sent.len();
        if end > MAX {
            if let Some(cut) = end_of(&sent, MAX) {
                json.note(from, Mark::Cut);
                end = cut;
            }
        } else if MIN > 0 && sent.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { sent, end })
    }
}

/// Returns the index after this many characters of a text with more.
#[cold]
fn end_of(text: &str, characters: usize) -> Option<usize> {
    text.char_indices().nth(characters).map(|(end, _)| end)
}

fn until(text: Cow<'_, str>, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// Defines a type that is read from a string.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $inner);
        impl<'a> FromText<'a> for $name {
            fn from_text(text: Cow<'a, str>) -> Option<Self> {
                let read: fn(&str) -> Option<$inner> = $read;
                read(&text).map(Self)
            }
        }
        read_as_text!($name, []);
    };
}

text_type!(
    /// An RFC 3339 time within the accepted years, microseconds since the epoch.
    Time(i64), |text| if units::year_fits(text) { rfc3339(text) } else { None }
);
text_type!(
    /// An amount of money in nano-units.
    Amount(i64), units::amount_nanos
);

impl Time {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_text(Cow::Borrowed(text))
    }
}

fn rfc3339(text: &str) -> Option<i64> {
    (text.len() <= units::TIME_CHARACTERS).then(|| units::rfc3339_micros(text)).flatten()
}

/// The start of a run, microseconds since the epoch; `None` if it was never set: year 1 is Go's zero time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartTime(pub Option<i64>);

impl<'a> FromJson<'a> for StartTime {
    #[inline]
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let text = json.text()?;
        let micros = rfc3339(&text).ok_or(Malformed)?;
        if units::year_fits(&text) {
            return Ok(Self(Some(micros)));
        }
        json.note(from, Mark::LeftOut);
        Ok(Self(None))
    }
}

/// Defines a closed set of words.
macro_rules! one_of {
    ($name:ident: $($word:literal)+) => {
        text_type!(
            /// A word of a closed set.
            $name(&'static str), |text| match text { $($word => Some($word),)+ _ => None }
        );
    };
}

one_of!(Stage: "offline_eval" "internal" "shadow" "canary" "full");
one_of!(AssignmentUnit: "run" "session" "user" "tenant");
one_of!(Status: "success" "failure" "error" "timeout" "abandoned" "unknown");
one_of!(Risk: "low" "medium" "high");
one_of!(ApprovalDecision: "approved" "rejected" "edited" "expired" "none");
one_of!(CostSource: "provider" "gateway" "app" "derived");
one_of!(Severity: "info" "low" "medium" "high" "critical");
one_of!(ScoreKind: "human" "llm" "code" "user_feedback" "business");
one_of!(Target: "run" "step" "tool_call" "session");
one_of!(Decision: "accept" "reject" "edit" "escalate" "unsure" "skip");

/// Defines a string of a fixed form that producers may write in either case and that is stored in one.
macro_rules! text_form {
    ($(#[$doc:meta])* $name:ident, $fits:expr, $to_case:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a>(pub Cow<'a, str>);
        impl<'a> FromText<'a> for $name<'a> {
            fn from_text(text: Cow<'a, str>) -> Option<Self> {
                let fits: fn(&str) -> bool = $fits;
                let to_case: fn(&str) -> String = $to_case;
                if fits(&text) {
                    return Some(Self(text));
                }
                Some(to_case(&text)).filter(|text| fits(text)).map(|text| Self(Cow::Owned(text)))
            }
        }
        read_as_text!($name<'a>, []);
        impl Deref for $name<'_> {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
    };
}

pub(crate) fn lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn is_sha256(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| lower_hex(digits, 64))
}

pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

text_form!(
    /// `sha256:` followed by 64 hexadecimal digits.
    Sha256Text, is_sha256, str::to_ascii_lowercase
);
text_form!(
    /// A W3C trace ID.
    TraceId, |text| lower_hex(text, 32), str::to_ascii_lowercase
);
text_form!(
    /// A W3C span ID.
    SpanId, |text| lower_hex(text, 16), str::to_ascii_lowercase
);
text_form!(
    /// An ISO 4217 code.
    Currency, is_currency, str::to_ascii_uppercase
);

/// Converts a number; `None` if it is out of range.
pub(crate) trait FromNumber: Sized {
    fn from_number(number: f64) -> Option<Self>;
    fn from_integer(integer: i64) -> Option<Self>;
}

/// Implements [`FromJson`] by [`FromNumber`].
macro_rules! read_as_number {
    ($name:ty, [$($generics:tt)*]) => {
        impl<'a, $($generics)*> FromJson<'a> for $name {
            #[inline]
            fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
                match json.number()? {
                    JsonNumber::Integer(integer) => Self::from_integer(integer).ok_or(Malformed),
                    JsonNumber::Real(number) => Self::from_number(number).ok_or(Malformed),
                }
            }
        }
    };
}

/// An integer from MIN to MAX. `2.0` counts as an integer, as in JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Int<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> FromNumber for Int<MIN, MAX> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded by 2^53 just before")]
    fn from_number(number: f64) -> Option<Self> {
        let whole = number.fract() == 0.0 && number.abs() <= units::MAX_INTEGER as f64;
        if whole { Self::from_integer(number as i64) } else { None }
    }
    fn from_integer(integer: i64) -> Option<Self> {
        (MIN..=MAX).contains(&integer).then_some(Self(integer))
    }
}
read_as_number!(Int<MIN, MAX>, [const MIN: i64, const MAX: i64]);

/// A duration that is sent in milliseconds and stored in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub i64);

impl FromNumber for Millis {
    fn from_number(number: f64) -> Option<Self> {
        units::millis_to_micros(number).map(Self)
    }
    #[expect(clippy::cast_precision_loss, reason = "the bound is below 2^53")]
    fn from_integer(integer: i64) -> Option<Self> {
        Self::from_number(integer as f64)
    }
}
read_as_number!(Millis, []);

/// Any number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Number(pub f64);

impl FromNumber for Number {
    fn from_number(number: f64) -> Option<Self> {
        Some(Self(number))
    }
    #[expect(clippy::cast_precision_loss, reason = "JSON numbers are doubles")]
    fn from_integer(integer: i64) -> Option<Self> {
        Some(Self(integer as f64))
    }
}

read_as_number!(Number, []);

/// Defines a number within a range.
macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name(pub f64);
        impl FromNumber for $name {
            fn from_number(number: f64) -> Option<Self> {
                let fits: fn(f64) -> bool = $fits;
                fits(number).then_some(Self(number))
            }
            #[expect(clippy::cast_precision_loss, reason = "JSON numbers are doubles")]
            fn from_integer(integer: i64) -> Option<Self> {
                Self::from_number(integer as f64)
            }
        }
        read_as_number!($name, []);
    };
}

number_type!(
    /// A number from 0 to 1.
    Fraction, |number| (0.0..=1.0).contains(&number)
);
number_type!(
    /// A number above 0.
    Positive, |number| number > 0.0
);
number_type!(
    /// A number of at least 1.
    AtLeastOne, |number| number >= 1.0
);

/// A sampling probability: above 0, at most 1. A value below [`units::MIN_PROBABILITY`] counts as that minimum and is noted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probability {
    /// The probability as sent.
    pub sent: f64,
}

impl<'a> FromJson<'a> for Probability {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let Number(sent) = Number::read(json)?;
        if !(sent > 0.0 && sent <= 1.0) {
            return Err(Malformed);
        }
        if sent < units::MIN_PROBABILITY {
            json.note(from, Mark::Bounded);
        }
        Ok(Self { sent })
    }
}
