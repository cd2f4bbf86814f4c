//! Table schemas: the only definition of each table's columns, with types, meaning and storage.
//!
//! Each table is a list of [`Column`]s, from which follow the Arrow schema of batches in memory, the Delta schema that
//! readers see, and the generated reference in `docs/tables.md`.
//!
//! Rules: text is `Utf8View` in memory and a Delta `string` on disk. Times are microseconds in UTC. Money is integer
//! nano-units, with the currency in another column. Counts are `long`, and sums of quantities are `decimal(38,0)`; a sum
//! beyond that range is saturated, and the row says so.

pub mod alert_actions;
pub mod alerts;
mod app_id;
pub mod candidates;
pub mod deliveries;
pub mod events;
pub mod metrics;
pub mod quarantine;
mod reference;
pub mod releases;
pub mod rolling_history;
pub mod rollups;

pub use app_id::{AppId, ForeignAppId, PartitionId};
pub use reference::reference_markdown;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

/// Type of a column, in terms of both Arrow and Delta.
#[derive(Clone, Copy, Debug)]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// True or false.
    Boolean,
    /// Signed 32 bits.
    Integer,
    /// Signed 64 bits.
    Long,
    /// IEEE double.
    Double,
    /// Microseconds since the epoch, UTC.
    Timestamp,
    /// Days since the epoch.
    Date,
    /// Bytes.
    Binary,
    /// `decimal(38,0)`: an integer for sums that exceed 64 bits.
    BigInteger,
    /// List of 64-bit integers.
    LongList,
    /// List of records.
    List(&'static [Column]),
    /// Map from text to text.
    TextMap,
}

/// One column of a table, or one field of a record inside a list.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name in SQL.
    pub name: &'static str,
    pub kind: ColumnType,
    /// True if the column is never null.
    pub required: bool,
    /// Meaning and unit, for the generated reference.
    pub doc: &'static str,
    pub storage: Storage,
}

/// Storage properties of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Has no dictionary, because values hardly repeat, or only in neighbouring rows.
    pub distinct: bool,
    /// Has Parquet statistics, by which readers skip row groups and pages.
    pub pruned: bool,
    /// Has the least and greatest text of each file in the log. For texts of at most 32 characters, which no reader
    /// truncates; numbers and times always have these bounds.
    pub bounded: bool,
    /// Has a Parquet Bloom filter, for lookups by value.
    pub bloom: bool,
}

const USUAL: Storage = Storage { distinct: false, pruned: true, bounded: false, bloom: false };

/// Describes a column that every row has.
pub const fn required(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { name, kind, required: true, doc, storage: USUAL }
}

/// Describes a column that may be null.
pub const fn optional(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { name, kind, required: false, doc, storage: USUAL }
}

// === impl Column ===

impl Column {
    /// Marks a column with values that hardly repeat.
    pub const fn distinct(mut self) -> Self {
        self.storage.distinct = true;
        self
    }

    /// Gives the column Parquet statistics, by which readers skip rows.
    pub const fn pruned(mut self) -> Self {
        self.storage.pruned = true;
        self
    }

    /// Omits the column's Parquet statistics.
    pub const fn unpruned(mut self) -> Self {
        self.storage.pruned = false;
        self
    }

    /// Gives a text column bounds in the log.
    pub const fn bounded(mut self) -> Self {
        self.storage.bounded = true;
        self
    }

    /// Gives the column a Bloom filter.
    pub const fn bloom(mut self) -> Self {
        self.storage.bloom = true;
        self
    }

    /// Returns true if the log holds the least and the greatest value of each file.
    pub const fn has_bounds(&self) -> bool {
        self.storage.bounded || matches!(self.kind, ColumnType::Integer | ColumnType::Long | ColumnType::Timestamp)
    }
}

/// Every table of a lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Accepted events, flattened, with their Kafka coordinates.
    Events,
    /// Rejected messages.
    Quarantine,
    /// Additive partials per one-minute window and group.
    Metrics,
    /// The partials of `metrics`, folded by hour.
    MetricsHourly,
    /// The partials of `metrics_hourly`, folded by UTC day.
    MetricsDaily,
    /// The first appearance of each release fingerprint.
    Releases,
    /// The rolling metrics as they were known at the time.
    RollingHistory,
    /// Every transition of every alert.
    Alerts,
    /// Every action of a person on alerts.
    AlertActions,
    /// Each step of each delivery of an alert.
    Deliveries,
    /// Runs that were sampled for review.
    Candidates,
}

impl Table {
    /// All tables, in the order in which data flows through them.
    pub const ALL: [Self; 11] = [
        Self::Events,
        Self::Quarantine,
        Self::Metrics,
        Self::MetricsHourly,
        Self::MetricsDaily,
        Self::Releases,
        Self::RollingHistory,
        Self::Alerts,
        Self::AlertActions,
        Self::Deliveries,
        Self::Candidates,
    ];

    /// Returns the name, which is also the folder under the root and the name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Quarantine => "quarantine",
            Self::Metrics => "metrics",
            Self::MetricsHourly => "metrics_hourly",
            Self::MetricsDaily => "metrics_daily",
            Self::Releases => "releases",
            Self::RollingHistory => "rolling_history",
            Self::Alerts => "alerts",
            Self::AlertActions => "alert_actions",
            Self::Deliveries => "deliveries",
            Self::Candidates => "candidates",
        }
    }

    /// Describes a row, for the reference.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::Events => events::DOC,
            Self::Quarantine => quarantine::DOC,
            Self::Metrics => metrics::DOC,
            Self::MetricsHourly => rollups::HOURLY_DOC,
            Self::MetricsDaily => rollups::DAILY_DOC,
            Self::Releases => releases::DOC,
            Self::RollingHistory => rolling_history::DOC,
            Self::Alerts => alerts::DOC,
            Self::AlertActions => alert_actions::DOC,
            Self::Deliveries => deliveries::DOC,
            Self::Candidates => candidates::DOC,
        }
    }

    /// Returns the columns in order.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Events => events::COLUMNS,
            Self::Quarantine => quarantine::COLUMNS,
            Self::Metrics => metrics::COLUMNS,
            Self::MetricsHourly => rollups::HOURLY_COLUMNS,
            Self::MetricsDaily => rollups::DAILY_COLUMNS,
            Self::Releases => releases::COLUMNS,
            Self::RollingHistory => rolling_history::COLUMNS,
            Self::Alerts => alerts::COLUMNS,
            Self::AlertActions => alert_actions::COLUMNS,
            Self::Deliveries => deliveries::COLUMNS,
            Self::Candidates => candidates::COLUMNS,
        }
    }

    /// Returns the column by which the table's files are partitioned, if any.
    pub const fn partition_column(self) -> Option<&'static str> {
        match self {
            Self::Events => Some("event_date"),
            _ => None,
        }
    }

    /// Returns a column by its name.
    pub fn column(self, name: &str) -> Option<&'static Column> {
        self.columns().iter().find(|column| column.name == name)
    }

    /// Returns the schema of a batch in memory, including the partition column.
    pub fn arrow_schema(self) -> SchemaRef {
        Arc::new(Schema::new(self.columns().iter().map(arrow_field).collect::<Vec<_>>()))
    }

    /// Returns the Delta schema for a `metaData` action.
    pub fn delta_schema(self) -> Value {
        delta_struct(self.columns())
    }
}

/// Returns the Arrow field of a column.
pub fn arrow_field(column: &Column) -> Field {
    Field::new(column.name, arrow_type(column.kind), !column.required)
}

/// Returns the Arrow fields of the records in a list column.
pub fn arrow_fields(columns: &[Column]) -> Fields {
    columns.iter().map(arrow_field).collect()
}

/// Returns the Arrow type of a column type.
pub fn arrow_type(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Text => DataType::Utf8View,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Integer => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Double => DataType::Float64,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Date => DataType::Date32,
        ColumnType::Binary => DataType::Binary,
        ColumnType::BigInteger => DataType::Decimal128(38, 0),
        ColumnType::LongList => DataType::List(Arc::new(Field::new("element", DataType::Int64, false))),
        ColumnType::List(columns) => {
            DataType::List(Arc::new(Field::new("element", DataType::Struct(arrow_fields(columns)), false)))
        }
        ColumnType::TextMap => DataType::Map(Arc::new(map_entries()), false),
    }
}

/// Returns the Arrow field of a text map's entries: `key_value` with `key` and `value`.
pub fn map_entries() -> Field {
    let entries =
        Fields::from(vec![Field::new("key", DataType::Utf8View, false), Field::new("value", DataType::Utf8View, true)]);
    Field::new("key_value", DataType::Struct(entries), false)
}

/// Returns the Delta field of a column.
pub fn delta_field(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": delta_type(column.kind),
        "nullable": !column.required,
        "metadata": { "comment": column.doc },
    })
}

fn delta_struct(columns: &[Column]) -> Value {
    let fields: Vec<Value> = columns.iter().map(delta_field).collect();
    json!({ "type": "struct", "fields": fields })
}

/// Returns the Delta type of a column type.
pub fn delta_type(kind: ColumnType) -> Value {
    match kind {
        ColumnType::Text => json!("string"),
        ColumnType::Boolean => json!("boolean"),
        ColumnType::Integer => json!("integer"),
        ColumnType::Long => json!("long"),
        ColumnType::Double => json!("double"),
        ColumnType::Timestamp => json!("timestamp"),
        ColumnType::Date => json!("date"),
        ColumnType::Binary => json!("binary"),
        ColumnType::BigInteger => json!("decimal(38,0)"),
        ColumnType::LongList => json!({ "type": "array", "elementType": "long", "containsNull": false }),
        ColumnType::List(columns) => {
            json!({ "type": "array", "elementType": delta_struct(columns), "containsNull": false })
        }
        ColumnType::TextMap => json!({
            "type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true
        }),
    }
}

/// Returns the name of a column type in the reference.
pub fn kind_name(kind: ColumnType) -> String {
    match kind {
        ColumnType::List(columns) => {
            let fields: Vec<String> =
                columns.iter().map(|column| format!("{} {}", column.name, kind_name(column.kind))).collect();
            format!("list of ({})", fields.join(", "))
        }
        ColumnType::LongList => "list of long".to_owned(),
        ColumnType::TextMap => "map of text by text".to_owned(),
        ColumnType::BigInteger => "decimal(38,0)".to_owned(),
        ColumnType::Text => "text".to_owned(),
        ColumnType::Boolean => "boolean".to_owned(),
        ColumnType::Integer => "integer".to_owned(),
        ColumnType::Long => "long".to_owned(),
        ColumnType::Double => "double".to_owned(),
        ColumnType::Timestamp => "timestamp (UTC, µs)".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Binary => "binary".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_names_are_unique_in_each_table() {
        for table in Table::ALL {
            let mut names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{} repeats a column", table.name());
        }
    }

    #[test]
    fn partition_columns_exist() {
        for table in Table::ALL {
            let name = table.partition_column();
            assert!(name.is_none_or(|name| table.column(name).is_some()), "{} has no {name:?}", table.name());
        }
    }

    #[test]
    fn only_short_texts_are_bounded_and_only_top_level_columns_have_filters() {
        for table in Table::ALL {
            for column in table.columns() {
                let text = matches!(column.kind, ColumnType::Text);
                assert!(text || !(column.storage.bounded || column.storage.bloom), "{}.{}", table.name(), column.name);
                if let ColumnType::List(fields) = column.kind {
                    assert!(
                        fields.iter().all(|field| !field.storage.bounded && !field.storage.bloom),
                        "{}",
                        column.name
                    );
                }
            }
        }
    }
}
