//! Descriptions of the server, of its tables and of its types, in the columns that Flight SQL defines.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array, UnionArray,
    new_empty_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::kernels::comparison::like;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UnionFields, UnionMode};
use arrow::error::ArrowError;
use bellwether_base::Error;
use bellwether_queries::TableKind;
use bytes::Bytes;

use super::call::Call;
use super::command::Catalogue;
use super::message::{CommandGetDbSchemas, CommandGetTables};
use super::rows;
use crate::refused::{Answered, Refused};

/// The one catalog and the one schema.
const CATALOG: &str = "bellwether";
const SCHEMA: &str = "public";

/// The kinds of tables.
const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";

/// A fact about the server.
enum Fact {
    Text(&'static str),
    Flag(bool),
    Number(i32),
}

/// Facts about the server, by the numbers of `SqlInfo`.
const FACTS: &[(u32, Fact)] = &[
    (0, Fact::Text(CATALOG)),
    (1, Fact::Text(env!("CARGO_PKG_VERSION"))),
    (2, Fact::Text(arrow::ARROW_VERSION)),
    (3, Fact::Flag(true)),  // It only reads.
    (4, Fact::Flag(true)),  // It takes SQL,
    (5, Fact::Flag(false)), // but not Substrait.
    (8, Fact::Number(0)),   // There are no transactions.
    (9, Fact::Flag(true)),  // Statements can be cancelled.
    (10, Fact::Flag(false)),
    (500, Fact::Flag(false)), // Catalogs, schemas and tables cannot be created.
    (501, Fact::Flag(false)),
    (502, Fact::Flag(false)),
    (503, Fact::Number(3)), // Names without quotes become lower case.
    (504, Fact::Text("\"")),
    (506, Fact::Flag(true)), // All tables may be read.
    (507, Fact::Number(0)),  // Nulls come after all values.
    (513, Fact::Text("\\")),
    (515, Fact::Flag(true)), // Columns and tables may be renamed.
    (518, Fact::Flag(true)),
    (529, Fact::Text("schema")),
    (531, Fact::Text("catalog")),
    (532, Fact::Flag(true)), // The catalog comes first in a name.
    (563, Fact::Flag(false)),
    (573, Fact::Flag(false)),
    (574, Fact::Flag(false)), // Parameters have numbers, not names.
];

/// A type of values.
struct Kind {
    name: &'static str,
    /// Its number in ODBC and JDBC.
    number: i32,
    size: i32,
    /// The mark around a literal.
    mark: Option<&'static str>,
    /// The base of its digits.
    base: Option<i32>,
}

const fn kind(name: &'static str, number: i32, size: i32, mark: Option<&'static str>, base: Option<i32>) -> Kind {
    Kind { name, number, size, mark, base }
}

/// The types.
const TYPES: &[Kind] = &[
    kind("TINYINT", -6, 3, None, Some(10)),
    kind("BIGINT", -5, 19, None, Some(10)),
    kind("VARBINARY", -3, i32::MAX, None, None),
    kind("BOOLEAN", -7, 1, None, None),
    kind("DECIMAL", 3, 38, None, Some(10)),
    kind("INTEGER", 4, 10, None, Some(10)),
    kind("SMALLINT", 5, 5, None, Some(10)),
    kind("REAL", 7, 24, None, Some(2)),
    kind("DOUBLE", 8, 53, None, Some(2)),
    kind("VARCHAR", 12, i32::MAX, Some("'"), None),
    kind("DATE", 91, 10, Some("'"), None),
    kind("TIMESTAMP", 93, 32, Some("'"), None),
];

/// Returns the columns of a description.
pub(super) fn schema(asked: &Catalogue) -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let maybe = |name| Field::new(name, DataType::Utf8, true);
    let number = |name| Field::new(name, DataType::Int32, false);
    Arc::new(Schema::new(match asked {
        Catalogue::Server(_) => {
            let value = DataType::Union(union_fields(), UnionMode::Dense);
            vec![Field::new("info_name", DataType::UInt32, false), Field::new("value", value, false)]
        }
        Catalogue::Types(_) => type_fields(),
        Catalogue::Catalogs => vec![text("catalog_name")],
        Catalogue::Schemas(_) => vec![maybe("catalog_name"), text("db_schema_name")],
        Catalogue::Tables(asked) => {
            let mut fields =
                vec![maybe("catalog_name"), maybe("db_schema_name"), text("table_name"), text("table_type")];
            if asked.include_schema {
                fields.push(Field::new("table_schema", DataType::Binary, false));
            }
            fields
        }
        Catalogue::TableTypes => vec![text("table_type")],
        Catalogue::PrimaryKeys => vec![
            maybe("catalog_name"),
            maybe("db_schema_name"),
            text("table_name"),
            text("column_name"),
            number("key_sequence"),
            maybe("key_name"),
        ],
        Catalogue::ForeignKeys => vec![
            maybe("pk_catalog_name"),
            maybe("pk_db_schema_name"),
            text("pk_table_name"),
            text("pk_column_name"),
            maybe("fk_catalog_name"),
            maybe("fk_db_schema_name"),
            text("fk_table_name"),
            text("fk_column_name"),
            number("key_sequence"),
            maybe("fk_key_name"),
            maybe("pk_key_name"),
            Field::new("update_rule", DataType::UInt8, false),
            Field::new("delete_rule", DataType::UInt8, false),
        ],
    }))
}

/// Returns the rows of a description, as the caller may see it.
pub(super) async fn rows(call: &Call, asked: &Catalogue) -> Answered<RecordBatch> {
    let columns = match asked {
        Catalogue::Server(asked) => facts(&asked.info),
        Catalogue::Types(asked) => Ok(types(asked.data_type)),
        Catalogue::Catalogs => Ok(vec![texts(&[CATALOG])]),
        Catalogue::Schemas(CommandGetDbSchemas { catalog, db_schema_filter_pattern }) => {
            let is_there = has_schema(catalog.as_deref(), db_schema_filter_pattern.as_deref())?;
            let count = usize::from(is_there);
            Ok(vec![texts(&[CATALOG][..count]), texts(&[SCHEMA][..count])])
        }
        Catalogue::Tables(asked) => Ok(tables(call, asked).await?),
        Catalogue::TableTypes => Ok(vec![texts(&[TABLE, VIEW])]),
        Catalogue::PrimaryKeys | Catalogue::ForeignKeys => return Ok(RecordBatch::new_empty(schema(asked))),
    };
    columns.and_then(|columns| RecordBatch::try_new(schema(asked), columns)).map_err(broken)
}

fn broken(source: ArrowError) -> Refused {
    Error::bug("the description cannot be made").with_source(source).into()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Returns true if the one schema is among those that a client asks for.
fn has_schema(catalog: Option<&str>, pattern: Option<&str>) -> Answered<bool> {
    Ok(catalog.is_none_or(|catalog| catalog == CATALOG) && matches(SCHEMA, pattern)?)
}

/// Returns true if a name has the form of a pattern of LIKE.
fn matches(name: &str, pattern: Option<&str>) -> Answered<bool> {
    let Some(pattern) = pattern else { return Ok(true) };
    let matched = like(&StringArray::new_scalar(name), &StringArray::new_scalar(pattern));
    Ok(matched.map_err(|error| Refused::bad(format!("the pattern `{pattern}` is wrong: {error}")))?.value(0))
}

/// Returns the tables and views that a client asks for, in the order of their kinds and names.
async fn tables(call: &Call, asked: &CommandGetTables) -> Answered<Vec<ArrayRef>> {
    let _place = call.flight.server.reading().await?;
    let asker = call.asker();
    let session = asker.session()?;
    let mut found = Vec::new();
    if has_schema(asked.catalog.as_deref(), asked.db_schema_filter_pattern.as_deref())? {
        let (tables, views) = (Box::pin(session.tables()).await?, Box::pin(session.views()).await?);
        for table in tables.into_iter().chain(views) {
            let kind = if table.kind == TableKind::Table { TABLE } else { VIEW };
            let is_of_kind = asked.table_types.is_empty() || asked.table_types.iter().any(|name| name == kind);
            if is_of_kind && matches(&table.name, asked.table_name_filter_pattern.as_deref())? {
                found.push((kind, table.name));
            }
        }
    }
    found.sort();
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    let kinds: Vec<&str> = found.iter().map(|(kind, _)| *kind).collect();
    let (catalogs, schemas) = (vec![CATALOG; found.len()], vec![SCHEMA; found.len()]);
    let mut columns = vec![texts(&catalogs), texts(&schemas), texts(&names), texts(&kinds)];
    if asked.include_schema {
        let mut all: Vec<Bytes> = Vec::new();
        for name in names {
            let prepared = Box::pin(asker.prepare(&session, &format!("SELECT * FROM {name}"), &[])).await?;
            all.push(rows::schema_bytes(&rows::sent(prepared.schema()))?);
        }
        columns.push(Arc::new(BinaryArray::from_iter_values(all)));
    }
    Ok(columns)
}

/// Returns the kinds of values of facts, of which the server needs the first four.
fn union_fields() -> UnionFields {
    let list = |kind, nullable| DataType::List(Arc::new(Field::new_list_field(kind, nullable)));
    let numbers = Field::new("values", list(DataType::Int32, true), true);
    let entries = DataType::Struct(vec![Field::new("keys", DataType::Int32, false), numbers].into());
    UnionFields::from_fields([
        Field::new("string_value", DataType::Utf8, false),
        Field::new("bool_value", DataType::Boolean, false),
        Field::new("bigint_value", DataType::Int64, false),
        Field::new("int32_bitmask", DataType::Int32, false),
        Field::new("string_list", list(DataType::Utf8, true), true),
        Field::new(
            "int32_to_int32_list_map",
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false),
            true,
        ),
    ])
}

/// Returns the facts with these numbers; without numbers, all.
fn facts(numbers: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
    let found: Vec<&(u32, Fact)> =
        FACTS.iter().filter(|(number, _)| numbers.is_empty() || numbers.contains(number)).collect();
    let (mut words, mut flags, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kinds, mut places) = (Vec::new(), Vec::new());
    for (_, fact) in &found {
        let (kind, place) = match fact {
            Fact::Text(text) => {
                words.push(*text);
                (0, words.len())
            }
            Fact::Flag(flag) => {
                flags.push(*flag);
                (1, flags.len())
            }
            Fact::Number(number) => {
                numbers.push(*number);
                (3, numbers.len())
            }
        };
        kinds.push(kind);
        places.push(i32::try_from(place - 1).unwrap_or(i32::MAX));
    }
    let fields = union_fields();
    let mut children: Vec<ArrayRef> = fields.iter().map(|(_, field)| new_empty_array(field.data_type())).collect();
    children[0] = texts(&words);
    children[1] = Arc::new(BooleanArray::from(flags));
    children[2] = Arc::new(Int64Array::from(Vec::<i64>::new()));
    children[3] = Arc::new(Int32Array::from(numbers));
    let values = UnionArray::try_new(fields, ScalarBuffer::from(kinds), Some(ScalarBuffer::from(places)), children)?;
    let names = UInt32Array::from_iter_values(found.iter().map(|(number, _)| *number));
    Ok(vec![Arc::new(names), Arc::new(values)])
}

fn type_fields() -> Vec<Field> {
    let parameters = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, false)));
    vec![
        Field::new("type_name", DataType::Utf8, false),
        Field::new("data_type", DataType::Int32, false),
        Field::new("column_size", DataType::Int32, true),
        Field::new("literal_prefix", DataType::Utf8, true),
        Field::new("literal_suffix", DataType::Utf8, true),
        Field::new("create_params", parameters, true),
        Field::new("nullable", DataType::Int32, false),
        Field::new("case_sensitive", DataType::Boolean, false),
        Field::new("searchable", DataType::Int32, false),
        Field::new("unsigned_attribute", DataType::Boolean, true),
        Field::new("fixed_prec_scale", DataType::Boolean, false),
        Field::new("auto_increment", DataType::Boolean, true),
        Field::new("local_type_name", DataType::Utf8, true),
        Field::new("minimum_scale", DataType::Int32, true),
        Field::new("maximum_scale", DataType::Int32, true),
        Field::new("sql_data_type", DataType::Int32, false),
        Field::new("datetime_subcode", DataType::Int32, true),
        Field::new("num_prec_radix", DataType::Int32, true),
        Field::new("interval_precision", DataType::Int32, true),
    ]
}

/// Returns the types, or the one with a number.
fn types(number: Option<i32>) -> Vec<ArrayRef> {
    let found: Vec<_> = TYPES.iter().filter(|kind| number.is_none_or(|number| number == kind.number)).collect();
    let names: Vec<&str> = found.iter().map(|kind| kind.name).collect();
    let numbers = || Arc::new(Int32Array::from_iter_values(found.iter().map(|kind| kind.number)));
    let marks = || Arc::new(found.iter().map(|kind| kind.mark).collect::<StringArray>());
    let of_all = |value: i32| Arc::new(Int32Array::from(vec![value; found.len()]));
    let flags =
        |value: &dyn Fn(&str) -> bool| Arc::new(names.iter().map(|name| Some(value(name))).collect::<BooleanArray>());
    let is_of_time = |name: &str| name == "DATE" || name == "TIMESTAMP";
    let subcodes = found.iter().map(|kind| is_of_time(kind.name).then_some(kind.number - 90));
    let general = found.iter().map(|kind| if is_of_time(kind.name) { 9 } else { kind.number });
    let filled: Vec<(usize, ArrayRef)> = vec![
        (0, texts(&names)),
        (1, numbers()),
        (2, Arc::new(Int32Array::from_iter_values(found.iter().map(|kind| kind.size)))),
        (3, marks()),
        (4, marks()),
        (6, of_all(1)), // Each may be null.
        (7, flags(&|name| name == "VARCHAR")),
        (8, of_all(3)), // Each may be in a condition.
        (10, flags(&|_| false)),
        (12, texts(&names)),
        (15, Arc::new(Int32Array::from_iter_values(general))),
        (16, Arc::new(subcodes.collect::<Int32Array>())),
        (17, Arc::new(found.iter().map(|kind| kind.base).collect::<Int32Array>())),
    ];
    let nothing = |field: &Field| arrow::array::new_null_array(field.data_type(), found.len());
    let mut columns: Vec<ArrayRef> = type_fields().iter().map(nothing).collect();
    for (place, column) in filled {
        columns[place] = column;
    }
    columns
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::super::message::{CommandGetSqlInfo, CommandGetXdbcTypeInfo};
    use super::*;

    #[test]
    fn facts_and_types_have_the_columns_of_flight_sql() {
        let server = Catalogue::Server(CommandGetSqlInfo { info: vec![8, 3, 999] });
        let rows = RecordBatch::try_new(schema(&server), facts(&[8, 3, 999]).expect("facts")).expect("fits");
        assert_eq!(rows.num_rows(), 2);
        let all = Catalogue::Types(CommandGetXdbcTypeInfo { data_type: None });
        let rows = RecordBatch::try_new(schema(&all), types(None)).expect("fits");
        assert_eq!(rows.num_rows(), TYPES.len());
        assert_eq!(types(Some(93))[0].len(), 1);
        assert_eq!(types(Some(1))[0].len(), 0);
    }

    #[test]
    fn a_schema_and_a_name_are_found_by_their_pattern() {
        assert!(has_schema(None, None).expect("found") && has_schema(Some(CATALOG), Some("pub%")).expect("found"));
        assert!(!has_schema(Some(""), None).expect("another") && !has_schema(None, Some("p_")).expect("another"));
        assert!(matches("tool_calls", Some("tool\\_calls")).expect("found"));
        assert!(!matches("toolxcalls", Some("tool\\_calls")).expect("another"));
    }
}
