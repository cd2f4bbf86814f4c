//! Rows of a batch as values of a type.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ArrayWriter;
use bellwether_base::{Error, Result};
use serde::de::DeserializeOwned;

/// Returns the rows of a batch as values of a type, whose fields have the names of the columns. Times are microseconds since the epoch.
///
/// # Errors
/// `Data` if a value has no form in JSON, or the rows do not fit the type.
pub fn values_of<T: DeserializeOwned>(batch: &RecordBatch) -> Result<Vec<T>> {
    let text = json(batch)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&text).map_err(|source| Error::data("rows cannot be read as JSON").with_source(source))
}

/// Writes the rows of a batch as a JSON array of objects, with times as microseconds since the epoch; nothing for no rows.
fn json(batch: &RecordBatch) -> Result<Vec<u8>> {
    let refused = |source| Error::data("rows cannot be read as JSON").with_source(source);
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = match field.data_type() {
            DataType::Timestamp(_, zone) => {
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                cast(&cast(column, &micros).map_err(refused)?, &DataType::Int64).map_err(refused)?
            }
            _ => Arc::clone(column),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(refused)?;
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(&batch).and_then(|()| writer.finish()).map_err(refused)?;
    Ok(writer.into_inner())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, TimestampMillisecondArray};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        at: Option<i64>,
        share: f64,
    }

    fn batch() -> RecordBatch {
        let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1_000), None]).with_timezone("UTC"));
        let share: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 0.5]));
        RecordBatch::try_from_iter_with_nullable([("at", at, true), ("share", share, false)]).expect("fits")
    }

    #[test]
    fn times_are_microseconds_and_rows_have_the_types_of_their_fields() {
        let expected = [Row { at: Some(1_000_000), share: 0.1 }, Row { at: None, share: 0.5 }];
        assert_eq!(values_of::<Row>(&batch()).expect("reads"), expected);
        assert_eq!(values_of::<Row>(&batch().slice(0, 0)).expect("reads"), []);
    }

    #[test]
    fn a_missing_column_is_an_error_of_the_data() {
        let error = values_of::<Row>(&batch().project(&[0]).expect("a column")).expect_err("no share");
        assert!(error.chain().contains("missing field `share`"), "{}", error.chain());
    }
}
