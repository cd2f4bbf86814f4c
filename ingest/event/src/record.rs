//! Field types that check their own limits while they are read, and the macro that makes records of them.
//!
//! A record keeps every field optional: what is required is checked by whoever reads the record, so that one message can
//! be told all that it lacks. Unknown keys are passed over; a key that stands twice is refused.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::units;

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
    const EXPECTED: &'static str;
    fn from_text(text: Cow<'a, str>) -> Option<Self>;
}

struct TextVisitor<T>(PhantomData<T>);

impl<'de, T: FromText<'de>> Visitor<'de> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<T, E> {
        T::from_text(Cow::Borrowed(text)).ok_or_else(|| E::custom(T::EXPECTED))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(Cow::Owned(text.to_owned())).ok_or_else(|| E::custom(T::EXPECTED))
    }
}

impl<'a, const MIN: usize, const MAX: usize> FromText<'a> for Text<'a, MIN, MAX> {
    const EXPECTED: &'static str = "a text within its limits";
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        length_fits(&text, MIN, MAX).then_some(Self(text))
    }
}

impl<'de: 'a, 'a, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<'a, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::<Text<'de, MIN, MAX>>(PhantomData))
    }
}

/// Makes a type that is read from text.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expected:literal, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $inner);
        impl<'a> FromText<'a> for $name {
            const EXPECTED: &'static str = $expected;
            fn from_text(text: Cow<'a, str>) -> Option<Self> {
                let read: fn(&str) -> Option<$inner> = $read;
                read(&text).map(Self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::<Self>(PhantomData))
            }
        }
    };
}

text_type!(
    /// An RFC 3339 time, microseconds since the epoch.
    Time(i64), "an RFC 3339 time", |text| (text.len() <= 40).then(|| units::rfc3339_micros(text)).flatten()
);
text_type!(
    /// An amount of money, nano-units.
    Amount(i64), "a decimal amount", units::amount_nanos
);

/// Makes a closed set of words.
macro_rules! one_of {
    ($name:ident: $($word:literal)+) => {
        text_type!(
            /// One word of a closed set.
            $name(&'static str), "one of a closed set of words",
            |text| match text { $($word => Some($word),)+ _ => None }
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
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a>(pub Cow<'a, str>);
        impl<'a> FromText<'a> for $name<'a> {
            const EXPECTED: &'static str = $expected;
            fn from_text(text: Cow<'a, str>) -> Option<Self> {
                let check: fn(&str) -> bool = $check;
                check(&text).then_some(Self(text))
            }
        }
        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::<$name<'de>>(PhantomData))
            }
        }
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
    Sha256Text, "sha256: and 64 hexadecimal digits",
    |text| text.strip_prefix("sha256:").is_some_and(|digits| lower_hex(digits, 64))
);
form!(
    /// A W3C trace id.
    TraceId, "32 hexadecimal digits", |text| lower_hex(text, 32)
);
form!(
    /// A W3C span id.
    SpanId, "16 hexadecimal digits", |text| lower_hex(text, 16)
);
form!(
    /// An ISO 4217 code.
    Currency, "three capital letters", |text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
);

/// Reads a value from a number.
pub(crate) trait FromNumber: Sized {
    const EXPECTED: &'static str;
    fn from_number(number: f64) -> Option<Self>;
    fn from_integer(integer: i64) -> Option<Self>;
}

struct NumberVisitor<T>(PhantomData<T>);

impl<T: FromNumber> Visitor<'_> for NumberVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        i64::try_from(number).ok().and_then(T::from_integer).ok_or_else(|| E::custom(T::EXPECTED))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_integer(number).ok_or_else(|| E::custom(T::EXPECTED))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::from_number(number).ok_or_else(|| E::custom(T::EXPECTED))
    }
}

macro_rules! number_type {
    ($name:ty, [$($generics:tt)*]) => {
        impl<'de, $($generics)*> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(NumberVisitor::<Self>(PhantomData))
            }
        }
    };
}

/// A whole number from MIN to 2^53 − 1; `2.0` is one, as in JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Int<const MIN: i64>(pub i64);

impl<const MIN: i64> FromNumber for Int<MIN> {
    const EXPECTED: &'static str = "a whole number within its range";
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded by 2^53 just before")]
    fn from_number(number: f64) -> Option<Self> {
        let whole = number.fract() == 0.0 && number.abs() <= units::MAX_INTEGER as f64;
        if whole { Self::from_integer(number as i64) } else { None }
    }
    fn from_integer(integer: i64) -> Option<Self> {
        (MIN..=units::MAX_INTEGER).contains(&integer).then_some(Self(integer))
    }
}
number_type!(Int<MIN>, [const MIN: i64]);

/// A duration sent in milliseconds, kept in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub i64);

impl FromNumber for Millis {
    const EXPECTED: &'static str = "milliseconds, not negative";
    fn from_number(number: f64) -> Option<Self> {
        units::millis_to_micros(number).map(Self)
    }
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the bound refuses it anyway")]
    fn from_integer(integer: i64) -> Option<Self> {
        Self::from_number(integer as f64)
    }
}
number_type!(Millis, []);

/// Any number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Number(pub f64);

impl FromNumber for Number {
    const EXPECTED: &'static str = "a number";
    fn from_number(number: f64) -> Option<Self> {
        Some(Self(number))
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of JSON is a double")]
    fn from_integer(integer: i64) -> Option<Self> {
        Some(Self(integer as f64))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

/// A list of at most MAX entries.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::custom("too many entries"));
                    }
                    list.push(entry);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// An object of at most MAX entries of free names.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<'a, T, const MAX: usize>(pub Vec<(Cow<'a, str>, T)>);

impl<'de: 'a, 'a, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Map<'a, T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for EntriesVisitor<T, MAX> {
            type Value = Vec<(Cow<'de, str>, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MAX} entries")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut map: Self::Value = Vec::new();
                while let Some(Key(name)) = entries.next_key()? {
                    if map.len() == MAX {
                        return Err(A::Error::custom("too many entries"));
                    }
                    if map.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                    map.push((name, entries.next_value()?));
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(EntriesVisitor::<T, MAX>(PhantomData)).map(Self)
    }
}

/// A key of an object, borrowed where it has no escapes.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'a> FromText<'a> for Key<'a> {
    const EXPECTED: &'static str = "a key";
    fn from_text(text: Cow<'a, str>) -> Option<Self> {
        Some(Self(text))
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::<Self>(PhantomData))
    }
}

thread_local! {
    /// Bytes of the longest value of unknown fields that was passed over since the last reset: by it the decoder rules out
    /// that one of them is nested deeply. It stands beside the records because their readers take no context.
    static LONGEST_SKIPPED: Cell<usize> = const { Cell::new(0) };
}

/// Forgets what was passed over.
pub(crate) fn reset_skipped() {
    LONGEST_SKIPPED.set(0);
}

/// Notes a value that is passed over.
pub(crate) fn note_skipped(value: &RawValue) {
    LONGEST_SKIPPED.set(LONGEST_SKIPPED.get().max(value.get().len()));
}

/// Nesting that no value passed over can exceed: each level takes two bytes.
pub(crate) fn deepest_skipped() -> usize {
    LONGEST_SKIPPED.get() / 2
}

/// Makes a record: a struct of optional fields, read by key. With `unknown`, keys that are not known are kept as they
/// were sent.
macro_rules! record {
    (@unknown $out:ident $map:ident $key:ident) => {{
        let value: &'de serde_json::value::RawValue = $map.next_value()?;
        crate::record::note_skipped(value);
    }};
    (@unknown $out:ident $map:ident $key:ident unknown) => {{
        let value: &'de serde_json::value::RawValue = $map.next_value()?;
        $out.unknown.push(($key.0, value));
    }};
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)* } $($unknown:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            $(
                /// Keys that the contract does not know, as they were sent.
                pub $unknown: Vec<(std::borrow::Cow<'a, str>, &'a serde_json::value::RawValue)>,
            )?
            pub(crate) lifetime: std::marker::PhantomData<&'a ()>,
        }
        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut record = Self::default();
                Self::deserialize_in_place(deserializer, &mut record)?;
                Ok(record)
            }

            /// Into an empty record: fields that are there already count as sent.
            fn deserialize_in_place<D: serde::Deserializer<'de>>(
                deserializer: D,
                place: &mut Self,
            ) -> Result<(), D::Error> {
                struct RecordVisitor<'p, 'a>(&'p mut $name<'a>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for RecordVisitor<'_, 'a> {
                    type Value = ();
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object (", stringify!($name), ")"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                        let out = self.0;
                        while let Some(key) = map.next_key::<crate::record::Key<'de>>()? {
                            match &*key.0 {
                                $($key => {
                                    if out.$field.is_some() {
                                        return Err(serde::de::Error::duplicate_field($key));
                                    }
                                    out.$field = Some(map.next_value()?);
                                })*
                                _ => record!(@unknown out map key $($unknown)?),
                            }
                        }
                        Ok(())
                    }
                }
                deserializer.deserialize_map(RecordVisitor(place))
            }
        }
    };
}
/// A record of its own on the heap, filled where it stands: large records are not moved about.
#[derive(Clone, Debug, Default)]
pub struct Large<T>(pub Box<T>);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Large<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut record = Box::<T>::default();
        T::deserialize_in_place(deserializer, &mut record)?;
        Ok(Self(record))
    }
}

pub(crate) use record;
