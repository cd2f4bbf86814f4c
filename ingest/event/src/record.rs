//! Field types that check their own limits while they are read, and the macro that makes records of them.
//!
//! A record keeps every field optional. Null is the same as a field that is not there. Fields are of three sorts:
//!
//! * `must`: identity, time and outcome. The record is wrong without it, and where it is wrong.
//! * `strict`: the same, but it may be left out.
//! * any other is left out where it is wrong, and noted: what describes a run does not decide whether there is one.
//!
//! Text that describes is [`Cut`] at its limit, and noted; so are lists and maps. Unknown keys are noted with their values.
//! `schema.json` says the same with `x-on-error` and `x-cut`, and tests hold the two together.

use std::borrow::Cow;
use std::ops::Deref;

use crate::json::{Fast, Mark, Number as Written, Reader, Wrong};
use crate::units;

/// A value that is read from JSON.
pub(crate) trait Read<'a>: Sized {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self>;

    /// Reads into a field that has no value yet.
    #[inline]
    fn read_into(field: &mut Option<Self>, json: &mut Reader<'a, '_>) -> Fast<()> {
        *field = Some(Self::read(json)?);
        Ok(())
    }
}

/// A record, which is filled where it stands: large ones are not moved about.
pub(crate) trait Record<'a>: Default {
    /// Reads into an empty record.
    fn fill(&mut self, json: &mut Reader<'a, '_>) -> Fast<()>;
}

impl<'a, T: Record<'a>> Read<'a> for Box<T> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let mut record = Self::default();
        record.fill(json)?;
        Ok(record)
    }
}

impl<'a> Read<'a> for bool {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        json.boolean()
    }
}

/// A value as it was sent, halves of surrogate pairs replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a>(Cow<'a, str>);

impl Raw<'_> {
    /// Its JSON.
    pub fn get(&self) -> &str {
        &self.0
    }
}

impl<'a> Read<'a> for Raw<'a> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        json.whole_raw().map(Self)
    }
}

/// Makes a value that is kept as it was sent, if it begins like that.
macro_rules! raw_type {
    ($(#[$doc:meta])* $name:ident: $($first:pat_param)|+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a>(Cow<'a, str>);
        impl $name<'_> {
            /// Its JSON.
            pub fn get(&self) -> &str {
                &self.0
            }
        }
        impl<'a> Read<'a> for $name<'a> {
            fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
                if matches!(json.peek(), $($first)|+) { json.whole_raw().map(Self) } else { Err(Wrong) }
            }
        }
    };
}

raw_type!(
    /// A list, kept as it was sent.
    RawList: b'['
);
raw_type!(
    /// An object, kept as it was sent.
    RawObject: b'{'
);
raw_type!(
    /// Text, an object or a list, kept as it was sent.
    RawContent: b'"' | b'{' | b'['
);

/// The text of a value that is read later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice<'a>(pub(crate) &'a str);

impl<'a> Read<'a> for Slice<'a> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        json.raw().map(Self)
    }
}

/// A release as it was sent, which nearly always is one that was met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRelease<'a>(pub(crate) &'a str);

impl<'a> Read<'a> for RawRelease<'a> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        json.raw_or_known().map(Self)
    }
}

/// Text of MIN to MAX Unicode characters.
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

/// Reads a value from text; what the text must look like is the type's own business.
pub(crate) trait FromText<'a>: Sized {
    fn from_text(text: Cow<'a, str>) -> Option<Self>;
}

/// Implements reading for a type that is made of a text.
macro_rules! read_as_text {
    ($name:ty, [$($generics:tt)*]) => {
        impl<'a, $($generics)*> Read<'a> for $name {
            #[inline]
            fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
                Self::from_text(json.text()?).ok_or(Wrong)
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

/// Text of at least MIN Unicode characters that is cut after MAX, and noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut<'a, const MIN: usize, const MAX: usize>(Cow<'a, str>);

impl<const MIN: usize, const MAX: usize> Deref for Cut<'_, MIN, MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a, const MIN: usize, const MAX: usize> Read<'a> for Cut<'a, MIN, MAX> {
    #[inline]
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let text = json.text()?;
        if text.len() > MAX {
            return Ok(Self(cut(text, MAX, from, json)));
        }
        if MIN == 0 || !text.is_empty() { Ok(Self(text)) } else { Err(Wrong) }
    }
}

/// The beginning of a text that began there, if it has more characters than that.
#[cold]
fn cut<'a>(text: Cow<'a, str>, most: usize, from: usize, json: &mut Reader<'a, '_>) -> Cow<'a, str> {
    let Some((end, _)) = text.char_indices().nth(most) else { return text };
    json.note(from, Mark::Cut);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// Makes a type that is read from text.
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
    /// An RFC 3339 time of the years that events are of, microseconds since the epoch.
    Time(i64), |text| if units::year_fits(text) { rfc3339(text) } else { None }
);
text_type!(
    /// An amount of money, nano-units.
    Amount(i64), units::amount_nanos
);

impl Time {
    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::from_text(Cow::Borrowed(text))
    }
}

fn rfc3339(text: &str) -> Option<i64> {
    (text.len() <= units::TIME_CHARACTERS).then(|| units::rfc3339_micros(text)).flatten()
}

/// When a run began, microseconds since the epoch; none where the time was never set, as year 1 is Go's zero time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start(pub Option<i64>);

impl<'a> Read<'a> for Start {
    #[inline]
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let text = json.text()?;
        let micros = rfc3339(&text).ok_or(Wrong)?;
        if units::year_fits(&text) {
            return Ok(Self(Some(micros)));
        }
        json.note(from, Mark::LeftOut);
        Ok(Self(None))
    }
}

/// Makes a closed set of words.
macro_rules! one_of {
    ($name:ident: $($word:literal)+) => {
        text_type!(
            /// One word of a closed set.
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

/// Makes text of one form, which may be written in either case and is kept in one.
macro_rules! form {
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

form!(
    /// `sha256:` and 64 hexadecimal digits.
    Sha256Text, is_sha256, str::to_ascii_lowercase
);
form!(
    /// A W3C trace id.
    TraceId, |text| lower_hex(text, 32), str::to_ascii_lowercase
);
form!(
    /// A W3C span id.
    SpanId, |text| lower_hex(text, 16), str::to_ascii_lowercase
);
form!(
    /// An ISO 4217 code.
    Currency, is_currency, str::to_ascii_uppercase
);

/// Reads a value from a number.
pub(crate) trait FromNumber: Sized {
    fn from_number(number: f64) -> Option<Self>;
    fn from_integer(integer: i64) -> Option<Self>;
}

macro_rules! read_as_number {
    ($name:ty, [$($generics:tt)*]) => {
        impl<'a, $($generics)*> Read<'a> for $name {
            #[inline]
            fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
                match json.number()? {
                    Written::Integer(integer) => Self::from_integer(integer).ok_or(Wrong),
                    Written::Real(number) => Self::from_number(number).ok_or(Wrong),
                }
            }
        }
    };
}

/// A whole number from MIN to MAX; `2.0` is one, as in JSON Schema.
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

/// A duration sent in milliseconds, kept in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub i64);

impl FromNumber for Millis {
    fn from_number(number: f64) -> Option<Self> {
        units::millis_to_micros(number).map(Self)
    }
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the bound refuses it anyway")]
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
    #[expect(clippy::cast_precision_loss, reason = "a number of JSON is a double")]
    fn from_integer(integer: i64) -> Option<Self> {
        Some(Self(integer as f64))
    }
}

read_as_number!(Number, []);

/// Makes a number of a range.
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
            #[expect(clippy::cast_precision_loss, reason = "a number of JSON is a double")]
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
    /// A number from 1.
    AtLeastOne, |number| number >= 1.0
);

/// A sampling probability: above 0, at most 1. One below [`units::MIN_PROBABILITY`] counts as that, and is noted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probability {
    /// As it was sent.
    pub sent: f64,
}

impl<'a> Read<'a> for Probability {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let Number(sent) = Number::read(json)?;
        if !(sent > 0.0 && sent <= 1.0) {
            return Err(Wrong);
        }
        if sent < units::MIN_PROBABILITY {
            json.note(from, Mark::Bounded);
        }
        Ok(Self { sent })
    }
}

/// A list, noted where it has more than MAX entries. Entries that are wrong are left out, as nulls are.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// All entries of a list that may have been left out, those beyond its limit too: totals are of all.
pub fn entries<T, const MAX: usize>(list: Option<&List<T, MAX>>) -> &[T] {
    list.map_or(&[], |list| &list.0)
}

impl<T, const MAX: usize> List<T, MAX> {
    /// How many entries are kept.
    pub const KEPT: usize = MAX;

    /// The entries that are kept: the first.
    pub fn kept(&self) -> &[T] {
        self.0.get(..MAX).unwrap_or(&self.0)
    }
}

/// The entries that are kept of a list that may have been left out.
pub fn kept<T, const MAX: usize>(list: Option<&List<T, MAX>>) -> &[T] {
    list.map_or(&[], List::kept)
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T: Read<'a>, const MAX: usize> Read<'a> for List<T, MAX> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let (mut list, mut sent) = (Vec::new(), 0);
        json.list(|json| {
            sent += 1;
            let mut entry = None;
            lenient(&mut entry, json)?;
            list.extend(entry);
            Ok(())
        })?;
        if sent > MAX {
            json.note(from, Mark::Cut);
        }
        Ok(Self(list))
    }
}

/// An object of free names, noted where it has more than MAX entries: the others are kept as unknown fields are.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<'a, T, const MAX: usize>(pub Vec<(Cow<'a, str>, T)>);

impl<'a, T: Read<'a>, const MAX: usize> Read<'a> for Map<'a, T, MAX> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let mut map: Vec<(Cow<'a, str>, T)> = Vec::new();
        let mut sent = 0;
        json.object(|json, name| {
            sent += 1;
            if sent > MAX {
                return json.unknown();
            }
            if map.iter().any(|(known, _)| *known == name) {
                return json.leave_out(json.place());
            }
            let mut value = None;
            lenient(&mut value, json)?;
            map.extend(value.map(|value| (name, value)));
            Ok(())
        })?;
        if sent > MAX {
            json.note(from, Mark::Cut);
        }
        Ok(Self(map))
    }
}

/// Reads a field that may be absent or null, and otherwise must be right.
#[inline]
pub(crate) fn strict<'a, T: Read<'a>>(field: &mut Option<T>, json: &mut Reader<'a, '_>) -> Fast<()> {
    if json.null()? { Ok(()) } else { T::read_into(field, json) }
}

/// Reads a field that may be absent or null, and is left out where it is wrong.
#[inline]
pub(crate) fn lenient<'a, T: Read<'a>>(field: &mut Option<T>, json: &mut Reader<'a, '_>) -> Fast<()> {
    if json.null()? {
        return Ok(());
    }
    let place = json.place();
    if T::read_into(field, json).is_ok() {
        return Ok(());
    }
    *field = None;
    json.leave_out(place)
}

/// Makes a record: a struct of optional fields, read by key; see the top of this file for `must` and `strict`. Of a key
/// that stands twice the first is kept and the other left out, unless it must be right.
macro_rules! record {
    (@read $field:expr, $json:ident) => { crate::record::lenient(&mut $field, $json)? };
    (@read $field:expr, $json:ident $flag:ident) => { crate::record::strict(&mut $field, $json)? };
    (@twice $json:ident) => { return $json.leave_out($json.place()) };
    (@twice $json:ident $flag:ident) => { return Err(crate::json::Wrong) };
    (@there $field:expr) => {};
    (@there $field:expr, strict) => {};
    (@there $field:expr, must) => { crate::json::right($field.is_some())? };
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $($flag:ident)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            pub(crate) lifetime: std::marker::PhantomData<&'a ()>,
        }
        impl<'a> crate::record::Record<'a> for $name<'a> {
            fn fill(&mut self, json: &mut crate::json::Reader<'a, '_>) -> crate::json::Fast<()> {
                /// Fields by number.
                #[expect(non_camel_case_types, reason = "they are the names of the fields")]
                enum Key { $($field,)* }
                let mut seen = 0_u64;
                json.object(|json, key| {
                    match &*key {
                        $($key => {
                            let bit = 1 << Key::$field as u32;
                            if seen & bit != 0 {
                                record!(@twice json $($flag)?);
                            }
                            seen |= bit;
                            record!(@read self.$field, json $($flag)?);
                        })*
                        _ => json.unknown()?,
                    }
                    Ok(())
                })?;
                $(record!(@there self.$field $(, $flag)?);)*
                Ok(())
            }
        }
        impl<'a> crate::record::Read<'a> for $name<'a> {
            fn read(json: &mut crate::json::Reader<'a, '_>) -> crate::json::Fast<Self> {
                let mut record = Self::default();
                crate::record::Record::fill(&mut record, json)?;
                Ok(record)
            }
            fn read_into(field: &mut Option<Self>, json: &mut crate::json::Reader<'a, '_>) -> crate::json::Fast<()> {
                crate::record::Record::fill(field.insert(Self::default()), json)
            }
        }
    };
}
pub(crate) use record;
