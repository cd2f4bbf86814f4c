//! Delta statistics of a data file: its rows, and the least value, greatest value and null count of each column that queries
//! prune by.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::kernels::aggregate::{max, max_string, max_string_view, min, min_string, min_string_view};
use arrow::datatypes::{DataType, FieldRef, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt32Type};
use bellwether_tables::{Column, Table};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Collects statistics while a file is written. They cover integers, times and some texts only: bounds of other texts would
/// have to be truncated, and readers disagree on the rules for that.
pub(crate) struct Statistics {
    rows: usize,
    columns: Vec<Option<Bounds>>,
    fields: Vec<FieldRef>,
}

/// The statistics of one column.
#[derive(Clone, Default)]
struct Bounds {
    range: Option<Range>,
    nulls: usize,
}

/// Least and greatest value; times as microseconds.
#[derive(Clone)]
enum Range {
    Numbers(i64, i64),
    Texts(String, String),
}

// === impl Statistics ===

impl Statistics {
    /// Starts without rows.
    pub(crate) fn new(table: Table, fields: &[FieldRef]) -> Self {
        let is_bounded = |field: &FieldRef| table.column(field.name()).is_some_and(Column::has_bounds);
        let columns = fields.iter().map(|field| is_bounded(field).then(Bounds::default)).collect();
        Self { rows: 0, columns, fields: fields.to_vec() }
    }

    /// Adds rows. A column that is left out is null in all of them.
    pub(crate) fn note(&mut self, rows: usize, columns: &[Option<&ArrayRef>]) {
        self.rows += rows;
        for (bounds, column) in self.columns.iter_mut().zip(columns) {
            let Some(bounds) = bounds else { continue };
            let Some(column) = column else {
                bounds.nulls += rows;
                continue;
            };
            bounds.nulls += column.logical_null_count();
            bounds.range = match (bounds.range.take(), range(column.as_ref())) {
                (known, None) => known,
                (None, found) => found,
                (Some(known), Some(found)) => Some(known.with(found)),
            };
        }
    }

    /// Returns the statistics as the JSON of an `add` action.
    pub(crate) fn json(&self) -> String {
        let mut least = Map::new();
        let mut greatest = Map::new();
        let mut nulls = Map::new();
        for (field, bounds) in self.fields.iter().zip(&self.columns) {
            let Some(Bounds { range, nulls: null_count }) = bounds else { continue };
            nulls.insert(field.name().clone(), json!(null_count));
            let (low, high) = match (range, field.data_type()) {
                (None, _) => continue,
                // Readers compare in milliseconds, so the bounds are rounded outwards.
                (Some(Range::Numbers(low, high)), DataType::Timestamp(..)) => {
                    (millis_text(low.div_euclid(1000)), millis_text(high.div_euclid(1000) + 1))
                }
                (Some(Range::Numbers(low, high)), _) => (Some(Value::from(*low)), Some(Value::from(*high))),
                (Some(Range::Texts(low, high)), _) => (Some(Value::from(&**low)), Some(Value::from(&**high))),
            };
            if let (Some(low), Some(high)) = (low, high) {
                least.insert(field.name().clone(), low);
                greatest.insert(field.name().clone(), high);
            }
        }
        json!({ "numRecords": self.rows, "minValues": least, "maxValues": greatest, "nullCount": nulls }).to_string()
    }
}

/// Returns the statistics of a batch.
pub fn statistics(table: Table, batch: &RecordBatch) -> String {
    let mut statistics = Statistics::new(table, batch.schema_ref().fields());
    statistics.note(batch.num_rows(), &batch.columns().iter().map(Some).collect::<Vec<_>>());
    statistics.json()
}

// === impl Range ===

impl Range {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Numbers(low, high), Self::Numbers(least, greatest)) => {
                Self::Numbers(low.min(least), high.max(greatest))
            }
            (Self::Texts(low, high), Self::Texts(least, greatest)) => Self::Texts(low.min(least), high.max(greatest)),
            // A column has one type.
            (known, _) => known,
        }
    }
}

/// Returns the least and greatest value, or `None` if every row is null.
fn range(column: &dyn Array) -> Option<Range> {
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            Some(Range::Numbers(i64::from(min(values)?), i64::from(max(values)?)))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            Some(Range::Numbers(min(values)?, max(values)?))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            Some(Range::Numbers(min(values)?, max(values)?))
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            Some(Range::Texts(min_string(values)?.to_owned(), max_string(values)?.to_owned()))
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_dictionary_opt::<UInt32Type>()?;
            let values = dictionary.values().as_string::<i32>();
            let mut met = vec![false; values.len()];
            dictionary.keys_iter().flatten().for_each(|key| met[key] = true);
            let met = || met.iter().zip(values).filter_map(|(met, value)| value.filter(|_| *met));
            Some(Range::Texts(met().min()?.to_owned(), met().max()?.to_owned()))
        }
        DataType::Utf8View => {
            let values = column.as_string_view();
            Some(Range::Texts(min_string_view(values)?.to_owned(), max_string_view(values)?.to_owned()))
        }
        _ => None,
    }
}

fn millis_text(millis: i64) -> Option<Value> {
    let time = DateTime::from_timestamp_millis(millis)?;
    Some(Value::from(time.to_rfc3339_opts(SecondsFormat::Millis, true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn times_are_rounded_outwards_to_milliseconds() {
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("offset", Arc::new(Int64Array::from(vec![Some(3), None, Some(1)])) as Arc<dyn Array>, true),
            (
                "event_time",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500, 2_500, -1]).with_timezone("UTC"))
                    as Arc<dyn Array>,
                true,
            ),
            ("text", Arc::new(StringViewArray::from(vec!["a", "b", "c"])) as Arc<dyn Array>, true),
            ("event_type", Arc::new(StringViewArray::from(vec!["run.score", "run.completed", "run.score"])) as _, true),
        ])
        .expect("batch");
        let stats: Value = serde_json::from_str(&statistics(Table::Events, &batch)).expect("JSON");
        assert_eq!(stats["numRecords"], 3);
        assert_eq!(
            stats["minValues"],
            json!({ "offset": 1, "event_time": "1969-12-31T23:59:59.999Z", "event_type": "run.completed" })
        );
        assert_eq!(
            stats["maxValues"],
            json!({ "offset": 3, "event_time": "1970-01-01T00:00:00.003Z", "event_type": "run.score" })
        );
        assert_eq!(stats["nullCount"], json!({ "offset": 1, "event_time": 0, "event_type": 0 }));
    }
}
