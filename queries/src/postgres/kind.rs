//! Types: those of the engine as Postgres knows them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};

/// A type of Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// Its object id, by which the protocol names it.
    pub oid: u32,
    /// Its name in the catalogue.
    pub name: &'static str,
    /// Its name in SQL.
    pub sql: &'static str,
    /// Bytes of a value in binary form; -1 if it varies.
    pub bytes: i16,
    /// The letter of its category.
    category: char,
}

/// Types of lists, which only parameters have, each with the type of its items.
const LISTS: [(u32, u32); 17] = [
    (1000, 16),
    (1001, 17),
    (1002, 18),
    (1003, 19),
    (1005, 21),
    (1007, 23),
    (1009, 25),
    (1014, 1042),
    (1015, 1043),
    (1016, 20),
    (1021, 700),
    (1022, 701),
    (1028, 26),
    (1115, 1114),
    (1182, 1082),
    (1185, 1184),
    (1231, 1700),
];

const fn kind(oid: u32, name: &'static str, sql: &'static str, bytes: i16, category: char) -> PgType {
    PgType { oid, name, sql, bytes, category }
}

// === impl PgType ===

impl PgType {
    /// `true` and `false`.
    pub const BOOL: Self = kind(16, "bool", "boolean", 1, 'B');
    /// Bytes.
    pub const BYTEA: Self = kind(17, "bytea", "bytea", -1, 'U');
    /// A whole number of 64 bits.
    pub const INT8: Self = kind(20, "int8", "bigint", 8, 'N');
    /// A whole number of 16 bits.
    pub const INT2: Self = kind(21, "int2", "smallint", 2, 'N');
    /// A whole number of 32 bits.
    pub const INT4: Self = kind(23, "int4", "integer", 4, 'N');
    /// Text.
    pub const TEXT: Self = kind(25, "text", "text", -1, 'S');
    /// A JSON value. Lists, maps and structs are such.
    pub const JSON: Self = kind(114, "json", "json", -1, 'U');
    /// A number of single precision.
    pub const FLOAT4: Self = kind(700, "float4", "real", 4, 'N');
    /// A number of double precision.
    pub const FLOAT8: Self = kind(701, "float8", "double precision", 8, 'N');
    /// A day.
    pub const DATE: Self = kind(1082, "date", "date", 4, 'D');
    /// A time without a zone.
    pub const TIMESTAMP: Self = kind(1114, "timestamp", "timestamp without time zone", 8, 'D');
    /// A moment.
    pub const TIMESTAMPTZ: Self = kind(1184, "timestamptz", "timestamp with time zone", 8, 'D');
    /// A decimal number.
    pub const NUMERIC: Self = kind(1700, "numeric", "numeric", -1, 'N');

    /// Types that only clients name: the type of names, that of object ids, and text with a length.
    const OTHER: [Self; 5] = [
        kind(18, "char", "\"char\"", 1, 'Z'),
        kind(19, "name", "name", 64, 'S'),
        kind(26, "oid", "oid", 4, 'N'),
        kind(1042, "bpchar", "character", -1, 'S'),
        kind(1043, "varchar", "character varying", -1, 'S'),
    ];

    /// Returns all types.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let own = [
            Self::BOOL,
            Self::BYTEA,
            Self::INT8,
            Self::INT2,
            Self::INT4,
            Self::TEXT,
            Self::JSON,
            Self::FLOAT4,
            Self::FLOAT8,
            Self::DATE,
            Self::TIMESTAMP,
            Self::TIMESTAMPTZ,
            Self::NUMERIC,
        ];
        own.into_iter().chain(Self::OTHER)
    }

    /// Returns the type of a column. A type that Postgres does not have is text.
    pub fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Boolean => Self::BOOL,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::INT2,
            DataType::Int32 | DataType::UInt16 => Self::INT4,
            DataType::Int64 | DataType::UInt32 => Self::INT8,
            DataType::Float16 | DataType::Float32 => Self::FLOAT4,
            DataType::Float64 => Self::FLOAT8,
            DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Self::NUMERIC,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::BYTEA
            }
            DataType::Date32 | DataType::Date64 => Self::DATE,
            DataType::Timestamp(_, None) => Self::TIMESTAMP,
            DataType::Timestamp(_, Some(_)) => Self::TIMESTAMPTZ,
            DataType::Dictionary(_, value) => Self::of(value),
            nested if nested.is_nested() => Self::JSON,
            _ => Self::TEXT,
        }
    }

    /// Returns the type of the engine in which a parameter of this type is passed; `None` if there is none.
    pub fn parameter(oid: u32) -> Option<DataType> {
        Some(match oid {
            16 => DataType::Boolean,
            17 => DataType::Binary,
            21 => DataType::Int16,
            23 => DataType::Int32,
            20 | 26 => DataType::Int64,
            18 | 19 | 25 | 114 | 1042 | 1043 => DataType::Utf8,
            700 => DataType::Float32,
            701 | 1700 => DataType::Float64,
            1082 => DataType::Date32,
            1114 => DataType::Timestamp(TimeUnit::Microsecond, None),
            1184 => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00"))),
            list => DataType::new_list(Self::parameter(Self::item(list)?)?, true),
        })
    }

    /// Returns the type of the items of a list; `None` if the type is none of lists.
    pub fn item(oid: u32) -> Option<u32> {
        LISTS.into_iter().find(|(list, _)| *list == oid).map(|(_, item)| item)
    }

    /// Returns the object id of the type of a parameter: a list of values is one, other than in the columns of an answer.
    pub fn of_parameter(kind: &DataType) -> u32 {
        let list = match kind {
            DataType::List(field) => {
                let item = Self::of(field.data_type()).oid;
                LISTS.into_iter().find(|(_, of)| *of == item).map(|(list, _)| list)
            }
            _ => None,
        };
        list.unwrap_or_else(|| Self::of(kind).oid)
    }

    /// Returns the letter of its category.
    pub(crate) fn category(self) -> String {
        self.category.to_string()
    }

    /// Returns the type of a name as SQL writes it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.trim().trim_start_matches("pg_catalog.").to_lowercase();
        Self::all().find(|kind| kind.name == name || kind.sql == name || kind.sql.trim_matches('"') == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn types_have_their_own_ids_and_names() {
        let oids: HashSet<u32> = PgType::all().map(|kind| kind.oid).collect();
        let names: HashSet<&str> = PgType::all().map(|kind| kind.name).collect();
        assert_eq!((oids.len(), names.len()), (PgType::all().count(), PgType::all().count()));
        for kind in PgType::all() {
            assert_eq!((PgType::named(kind.name), PgType::named(kind.sql)), (Some(kind), Some(kind)));
        }
        assert_eq!(PgType::named("pg_catalog.TEXT"), Some(PgType::TEXT));
        assert_eq!(PgType::named("hstore"), None);
    }

    #[test]
    fn a_parameter_comes_back_as_the_type_that_it_was_declared_with() {
        for kind in PgType::all().filter(|kind| !matches!(kind.oid, 18 | 19 | 26 | 114 | 1042 | 1043 | 1700)) {
            assert_eq!(PgType::parameter(kind.oid).map(|passed| PgType::of(&passed)), Some(kind));
        }
        for (list, item) in LISTS.into_iter().filter(|(_, item)| ![18, 19, 26, 1042, 1043, 1700].contains(item)) {
            let passed = PgType::parameter(list).expect("a list");
            assert_eq!((PgType::item(list), PgType::of_parameter(&passed)), (Some(item), list));
        }
        assert_eq!(PgType::of_parameter(&DataType::new_list(DataType::Float64, true)), 1022);
        assert_eq!(PgType::parameter(0), None);
        assert_eq!(PgType::of(&DataType::UInt64), PgType::NUMERIC, "a signed whole number would not hold it");
        assert_eq!(PgType::of(&DataType::new_list(DataType::Utf8, true)), PgType::JSON);
    }
}
