//! Delta statistics of a data file: rows, and least, greatest and null count of each column that queries prune by.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::kernels::aggregate::{max, min};
use arrow::datatypes::{DataType, FieldRef, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Statistics that grow with the rows of a file. Integers and times only: text bounds would have to be truncated by rules
/// that readers disagree on, and Parquet's own statistics hold them anyway.
pub(crate) struct Statistics {
    rows: usize,
    columns: Vec<Option<Bounds>>,
    fields: Vec<FieldRef>,
}

/// Of one column; times as microseconds.
#[derive(Clone, Copy, Default)]
struct Bounds {
    range: Option<(i64, i64)>,
    nulls: usize,
}

// === impl Statistics ===

impl Statistics {
    /// Of no rows yet.
    pub(crate) fn of(fields: &[FieldRef]) -> Self {
        let columns = fields.iter().map(|field| has_statistics(field.data_type()).then(Bounds::default)).collect();
        Self { rows: 0, columns, fields: fields.to_vec() }
    }

    /// Takes rows in. A column that is left out is null in all of them.
    pub(crate) fn note(&mut self, rows: usize, columns: &[Option<&ArrayRef>]) {
        self.rows += rows;
        for (bounds, column) in self.columns.iter_mut().zip(columns) {
            let Some(bounds) = bounds else { continue };
            let Some(column) = column else {
                bounds.nulls += rows;
                continue;
            };
            bounds.nulls += column.null_count();
            if let Some((low, high)) = range(column.as_ref()) {
                let (least, greatest) = bounds.range.unwrap_or((low, high));
                bounds.range = Some((least.min(low), greatest.max(high)));
            }
        }
    }

    /// The JSON text of an `add` action.
    pub(crate) fn json(&self) -> String {
        let mut least = Map::new();
        let mut greatest = Map::new();
        let mut nulls = Map::new();
        for (field, bounds) in self.fields.iter().zip(&self.columns) {
            let Some(Bounds { range, nulls: null_count }) = bounds else { continue };
            nulls.insert(field.name().clone(), json!(null_count));
            let Some((low, high)) = *range else { continue };
            let (low, high) = match field.data_type() {
                // Readers compare in milliseconds: round outwards.
                DataType::Timestamp(..) => (millis_text(low.div_euclid(1000)), millis_text(high.div_euclid(1000) + 1)),
                _ => (Some(Value::from(low)), Some(Value::from(high))),
            };
            if let (Some(low), Some(high)) = (low, high) {
                least.insert(field.name().clone(), low);
                greatest.insert(field.name().clone(), high);
            }
        }
        json!({ "numRecords": self.rows, "minValues": least, "maxValues": greatest, "nullCount": nulls }).to_string()
    }
}

/// Statistics of whole rows.
pub(crate) fn statistics(batch: &RecordBatch) -> String {
    let mut statistics = Statistics::of(batch.schema_ref().fields());
    statistics.note(batch.num_rows(), &batch.columns().iter().map(Some).collect::<Vec<_>>());
    statistics.json()
}

fn has_statistics(kind: &DataType) -> bool {
    matches!(kind, DataType::Int32 | DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// Least and greatest value; none where every row is null.
fn range(column: &dyn Array) -> Option<(i64, i64)> {
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            Some((i64::from(min(values)?), i64::from(max(values)?)))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            Some((min(values)?, max(values)?))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            Some((min(values)?, max(values)?))
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
            ("n", Arc::new(Int64Array::from(vec![Some(3), None, Some(1)])) as Arc<dyn Array>, true),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![1_500, 2_500, -1]).with_timezone("UTC"))
                    as Arc<dyn Array>,
                true,
            ),
            ("text", Arc::new(StringViewArray::from(vec!["a", "b", "c"])) as Arc<dyn Array>, true),
        ])
        .expect("batch");
        let stats: Value = serde_json::from_str(&statistics(&batch)).expect("JSON");
        assert_eq!(stats["numRecords"], 3);
        assert_eq!(stats["minValues"], json!({ "n": 1, "at": "1969-12-31T23:59:59.999Z" }));
        assert_eq!(stats["maxValues"], json!({ "n": 3, "at": "1970-01-01T00:00:00.003Z" }));
        assert_eq!(stats["nullCount"], json!({ "n": 1, "at": 0 }));
    }
}
