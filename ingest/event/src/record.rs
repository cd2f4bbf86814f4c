//! Field types that check their own limits while they are read, and the macro that makes records of them.
//!
//! A record keeps every field optional: what is required is checked by whoever reads the record, so that one message can
//! be told all that it lacks. Unknown keys are passed over; a key that stands twice is refused.

use std::borrow::Cow;
use std::ops::Deref;

use crate::json::{Fast, Number as Written, Reader, Wrong, right};
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

/// A value or null.
impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        if json.null()? { Ok(None) } else { T::read(json).map(Some) }
    }
}

impl<'a> Read<'a> for bool {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        json.boolean()
    }
}

/// A value as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Its JSON.
    pub fn get(self) -> &'a str {
        self.0
    }
}

impl<'a> Read<'a> for Raw<'a> {
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

/// A value that is kept as it was sent, and what it says.
#[derive(Clone, Debug)]
pub struct Kept<'a, T> {
    /// As it was sent.
    pub raw: Raw<'a>,
    /// What it says.
    pub value: T,
}

impl<'a, T: Read<'a>> Read<'a> for Kept<'a, T> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let from = json.start();
        let value = T::read(json)?;
        Ok(Self { raw: Raw(json.since(from)), value })
    }
}

/// Keys that the contract does not know, and their values.
pub type Unknown<'a> = Vec<(Cow<'a, str>, Raw<'a>)>;

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
    /// An RFC 3339 time, microseconds since the epoch.
    Time(i64), |text| (text.len() <= 40).then(|| units::rfc3339_micros(text)).flatten()
);
text_type!(
    /// An amount of money, nano-units.
    Amount(i64), units::amount_nanos
);

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

/// Text of one form.
macro_rules! form {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a>(pub Cow<'a, str>);
        impl<'a> FromText<'a> for $name<'a> {
            fn from_text(text: Cow<'a, str>) -> Option<Self> {
                let check: fn(&str) -> bool = $check;
                check(&text).then_some(Self(text))
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

fn lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

form!(
    /// `sha256:` and 64 hexadecimal digits.
    Sha256Text, |text| text.strip_prefix("sha256:").is_some_and(|digits| lower_hex(digits, 64))
);
form!(
    /// A W3C trace id.
    TraceId, |text| lower_hex(text, 32)
);
form!(
    /// A W3C span id.
    SpanId, |text| lower_hex(text, 16)
);
form!(
    /// An ISO 4217 code.
    Currency, |text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
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

/// A whole number from MIN to 2^53 − 1; `2.0` is one, as in JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Int<const MIN: i64>(pub i64);

impl<const MIN: i64> FromNumber for Int<MIN> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded by 2^53 just before")]
    fn from_number(number: f64) -> Option<Self> {
        let whole = number.fract() == 0.0 && number.abs() <= units::MAX_INTEGER as f64;
        if whole { Self::from_integer(number as i64) } else { None }
    }
    fn from_integer(integer: i64) -> Option<Self> {
        (MIN..=units::MAX_INTEGER).contains(&integer).then_some(Self(integer))
    }
}
read_as_number!(Int<MIN>, [const MIN: i64]);

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

/// A list of at most MAX entries.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

/// The entries of a list that may have been left out.
pub fn entries<T, const MAX: usize>(list: Option<&List<T, MAX>>) -> &[T] {
    list.map_or(&[], |list| &list.0)
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T: Read<'a>, const MAX: usize> Read<'a> for List<T, MAX> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let mut list = Vec::new();
        json.list(|json| {
            right(list.len() < MAX)?;
            let mut entry = None;
            T::read_into(&mut entry, json)?;
            list.extend(entry);
            Ok(())
        })?;
        Ok(Self(list))
    }
}

/// An object of at most MAX entries of free names.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<'a, T, const MAX: usize>(pub Vec<(Cow<'a, str>, T)>);

impl<'a, T: Read<'a>, const MAX: usize> Read<'a> for Map<'a, T, MAX> {
    fn read(json: &mut Reader<'a, '_>) -> Fast<Self> {
        let mut map: Vec<(Cow<'a, str>, T)> = Vec::new();
        json.object(|json, name| {
            right(map.len() < MAX && map.iter().all(|(known, _)| *known != name))?;
            map.push((name, T::read(json)?));
            Ok(())
        })?;
        Ok(Self(map))
    }
}

/// Makes a record: a struct of optional fields, read by key. With `unknown`, keys that are not known are kept as they
/// were sent.
macro_rules! record {
    (@unknown $out:ident $json:ident $key:ident) => {{
        $json.raw()?;
    }};
    (@unknown $out:ident $json:ident $key:ident unknown) => {{
        $out.unknown.push(($key, crate::record::Read::read($json)?));
    }};
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)* } $($unknown:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            $(
                /// Keys that the contract does not know, as they were sent.
                pub $unknown: crate::record::Unknown<'a>,
            )?
            pub(crate) lifetime: std::marker::PhantomData<&'a ()>,
        }
        impl<'a> crate::record::Record<'a> for $name<'a> {
            fn fill(&mut self, json: &mut crate::json::Reader<'a, '_>) -> crate::json::Fast<()> {
                json.object(|json, key| {
                    match &*key {
                        $($key => {
                            crate::json::right(self.$field.is_none())?;
                            crate::record::Read::read_into(&mut self.$field, json)?;
                        })*
                        _ => record!(@unknown self json key $($unknown)?),
                    }
                    Ok(())
                })
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
