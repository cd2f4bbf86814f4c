//! Records, lists and maps of the contract, and the macro that makes records; their fields are in `value.rs`.
//!
//! A record keeps every field optional. Null is the same as a field that is not there. Fields are of three sorts:
//!
//! * `must`: identity, time and outcome. The record is wrong without it, and where it is wrong.
//! * `strict`: the same, but it may be left out.
//! * any other is left out where it is wrong, and noted: what describes a run does not decide whether there is one.
//!
//! Text that describes is [`Cut`](crate::value::Cut) at its limit, and noted; so are lists and maps. Unknown keys are noted with
//! their values.
//! `schema.json` says the same with `x-on-error` and `x-cut`, and tests hold the two together.

use std::borrow::Cow;

use crate::json::{Fast, Mark, Reader};

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
