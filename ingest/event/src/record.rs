//! Records, lists and maps of the contract, and the macro that defines records. `value.rs` has the types of their fields.
//!
//! A record stores every field as an option, and treats null as absent. There are three kinds of field:
//!
//! * `must`: identity, time and outcome. The record is malformed if the field is absent or malformed.
//! * `strict`: the field may be absent, but the record is malformed if the field is.
//! * all others: a malformed value is left out and noted, because a description must not decide whether a run exists.
//!
//! Descriptive text is [`CutText`](crate::value::CutText), which cuts it at its limit and notes it; lists and maps are cut and
//! noted too. Unknown keys are noted with their values. `schema.json` states the same rules as `x-on-error` and `x-cut`, and
//! tests compare the two.

use std::borrow::Cow;

use crate::json::{JsonReader, Mark, Parsed};

/// A value that can be read from JSON.
pub(crate) trait FromJson<'a>: Sized {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self>;

    /// Reads into an empty field.
    #[inline]
    fn read_into(field: &mut Option<Self>, json: &mut JsonReader<'a, '_>) -> Parsed<()> {
        *field = Some(Self::read(json)?);
        Ok(())
    }
}

/// A record that is filled in place, because moving large records is slow.
pub(crate) trait Record<'a>: Default {
    /// Reads into an empty record.
    fn fill(&mut self, json: &mut JsonReader<'a, '_>) -> Parsed<()>;
}

impl<'a, T: Record<'a>> FromJson<'a> for Box<T> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let mut record = Self::default();
        record.fill(json)?;
        Ok(record)
    }
}

/// A list that is noted if it has more than MAX entries. Null and malformed entries are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// Returns all entries of an optional list, including those beyond its limit: totals count them all.
pub fn entries<T, const MAX: usize>(list: Option<&List<T, MAX>>) -> &[T] {
    list.map_or(&[], |list| &list.0)
}

impl<T, const MAX: usize> List<T, MAX> {
    /// Most entries that are stored.
    pub const KEPT: usize = MAX;

    /// Returns the entries that are stored: the first [`Self::KEPT`].
    pub fn kept(&self) -> &[T] {
        self.0.get(..MAX).unwrap_or(&self.0)
    }
}

/// Returns the entries of an optional list that are stored.
pub fn kept<T, const MAX: usize>(list: Option<&List<T, MAX>>) -> &[T] {
    list.map_or(&[], List::kept)
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T: FromJson<'a>, const MAX: usize> FromJson<'a> for List<T, MAX> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
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

/// An object with free keys that is noted if it has more than MAX entries. Further entries are kept like unknown fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<'a, T, const MAX: usize>(pub Vec<(Cow<'a, str>, T)>);

impl<'a, T: FromJson<'a>, const MAX: usize> FromJson<'a> for Map<'a, T, MAX> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let mut map: Vec<(Cow<'a, str>, T)> = Vec::new();
        let mut sent = 0;
        json.object(|json, name| {
            sent += 1;
            if sent > MAX {
                return json.unknown();
            }
            if map.iter().any(|(known, _)| *known == name) {
                return json.leave_out(json.savepoint());
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

/// Reads a field that may be null and must otherwise be well-formed.
#[inline]
pub(crate) fn strict<'a, T: FromJson<'a>>(field: &mut Option<T>, json: &mut JsonReader<'a, '_>) -> Parsed<()> {
    if json.null()? { Ok(()) } else { T::read_into(field, json) }
}

/// Reads a field that may be null and is left out if it is malformed.
#[inline]
pub(crate) fn lenient<'a, T: FromJson<'a>>(field: &mut Option<T>, json: &mut JsonReader<'a, '_>) -> Parsed<()> {
    if json.null()? {
        return Ok(());
    }
    let savepoint = json.savepoint();
    if T::read_into(field, json).is_ok() {
        return Ok(());
    }
    *field = None;
    json.leave_out(savepoint)
}

/// Defines a record: a struct of optional fields, read by key. The module documentation explains `must` and `strict`. If a key
/// occurs twice, the first value is kept and the second left out; a duplicate `must` or `strict` key is malformed. A record that
/// does not meet the condition after `requires` is malformed.
macro_rules! record {
    (@read $field:expr, $json:ident) => { crate::record::lenient(&mut $field, $json)? };
    (@read $field:expr, $json:ident $flag:ident) => { crate::record::strict(&mut $field, $json)? };
    (@duplicate $json:ident) => { return $json.leave_out($json.savepoint()) };
    (@duplicate $json:ident $flag:ident) => { return Err(crate::json::Malformed) };
    (@present $field:expr) => {};
    (@present $field:expr, strict) => {};
    (@present $field:expr, must) => { crate::json::ensure($field.is_some())? };
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $($flag:ident)?,)*
    } $(requires $condition:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            pub(crate) lifetime: std::marker::PhantomData<&'a ()>,
        }
        impl<'a> crate::record::Record<'a> for $name<'a> {
            fn fill(&mut self, json: &mut crate::json::JsonReader<'a, '_>) -> crate::json::Parsed<()> {
                #[expect(non_camel_case_types, reason = "the variants are named like the fields")]
                enum Key { $($field,)* }
                let mut seen = 0_u64;
                json.object(|json, key| {
                    match &*key {
                        $($key => {
                            let bit = 1 << Key::$field as u32;
                            if seen & bit != 0 {
                                record!(@duplicate json $($flag)?);
                            }
                            seen |= bit;
                            record!(@read self.$field, json $($flag)?);
                        })*
                        _ => json.unknown()?,
                    }
                    Ok(())
                })?;
                $(record!(@present self.$field $(, $flag)?);)*
                $(
                    let condition: fn(&Self) -> bool = $condition;
                    crate::json::ensure(condition(self))?;
                )?
                Ok(())
            }
        }
        impl<'a> crate::record::FromJson<'a> for $name<'a> {
            fn read(json: &mut crate::json::JsonReader<'a, '_>) -> crate::json::Parsed<Self> {
                let mut record = Self::default();
                crate::record::Record::fill(&mut record, json)?;
                Ok(record)
            }
            fn read_into(field: &mut Option<Self>, json: &mut crate::json::JsonReader<'a, '_>) -> crate::json::Parsed<()> {
                crate::record::Record::fill(field.insert(Self::default()), json)
            }
        }
    };
}
pub(crate) use record;
