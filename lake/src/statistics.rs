//! Delta statistics of a data file: rows, and least, greatest and null count of each column that queries prune by.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::kernels::aggregate::{max, max_string_view, min, min_string_view};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Text that gets bounds: short enough that no reader truncates it (32 characters), and worth a file not opened.
const TEXT: [&str; 1] = ["event_type"];

/// Statistics as the JSON text of an `add` action. Integers, times and few texts only: other text bounds would have to be
/// truncated by rules that readers disagree on, and Parquet's own page statistics hold them anyway.
pub(crate) fn statistics(batch: &RecordBatch) -> String {
    let mut least = Map::new();
    let mut greatest = Map::new();
    let mut nulls = Map::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let found =
            if TEXT.contains(&field.name().as_str()) { text_bounds(column.as_ref()) } else { bounds(column.as_ref()) };
        let Some((low, high)) = found else { continue };
        nulls.insert(field.name().clone(), json!(column.null_count()));
        if let (Some(low), Some(high)) = (low, high) {
            least.insert(field.name().clone(), low);
            greatest.insert(field.name().clone(), high);
        }
    }
    json!({ "numRecords": batch.num_rows(), "minValues": least, "maxValues": greatest, "nullCount": nulls }).to_string()
}

/// Bounds of a column that gets statistics; the inner values are none where every row is null.
fn bounds(column: &dyn Array) -> Option<(Option<Value>, Option<Value>)> {
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            Some((min(values).map(Value::from), max(values).map(Value::from)))
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            Some((min(values).map(Value::from), max(values).map(Value::from)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            // Readers compare in milliseconds: round outwards.
            let low = min(values).and_then(|micros| millis_text(micros.div_euclid(1000)));
            let high = max(values).and_then(|micros| millis_text(micros.div_euclid(1000) + 1));
            Some((low, high))
        }
        _ => None,
    }
}

fn text_bounds(column: &dyn Array) -> Option<(Option<Value>, Option<Value>)> {
    let values = column.as_string_view_opt()?;
    Some((min_string_view(values).map(Value::from), max_string_view(values).map(Value::from)))
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
            ("event_type", Arc::new(StringViewArray::from(vec!["run.score", "run.completed", "run.score"])) as _, true),
        ])
        .expect("batch");
        let stats: Value = serde_json::from_str(&statistics(&batch)).expect("JSON");
        assert_eq!(stats["numRecords"], 3);
        assert_eq!(
            stats["minValues"],
            json!({ "n": 1, "at": "1969-12-31T23:59:59.999Z", "event_type": "run.completed" })
        );
        assert_eq!(stats["maxValues"], json!({ "n": 3, "at": "1970-01-01T00:00:00.003Z", "event_type": "run.score" }));
        assert_eq!(stats["nullCount"], json!({ "n": 1, "at": 0, "event_type": 0 }));
    }
}
