//! Rows of an answer as values of a type.

use std::sync::Arc;

use bellwether_base::{Error, Result};
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::json::ArrayWriter;
use serde::de::DeserializeOwned;

use crate::session::Session;

// === impl Session ===

impl Session {
    /// Runs a statement and returns its rows as values of a type, whose fields have the names of the columns. Times are
    /// microseconds since the epoch.
    ///
    /// # Errors
    /// As [`Session::execute`]; `Bug` if the type has other fields than the statement has columns.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for batch in Box::pin(self.execute(sql)).await?.collect().await? {
            all.extend(parsed(&json(&batch)?).map_err(|source| {
                Error::bug("the answer of a statement has other columns than expected").with_source(source)
            })?);
        }
        Ok(all)
    }
}

/// Returns the rows of a batch as values of a type, whose fields have the names of the columns. Times are microseconds since the epoch.
///
/// # Errors
/// `Data` if a value has no form in JSON, or the rows do not fit the type.
pub fn values_of<T: DeserializeOwned>(batch: &RecordBatch) -> Result<Vec<T>> {
    parsed(&json(batch)?).map_err(|source| Error::data("rows cannot be read as JSON").with_source(source))
}

fn parsed<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<Vec<T>> {
    if text.is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(text) }
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
    use serde::Deserialize;

    use crate::{Session, SessionSettings};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        at: Option<i64>,
        share: f64,
        names: Vec<String>,
    }

    #[tokio::test]
    async fn rows_have_the_types_of_their_fields() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let sql = "SELECT TIMESTAMP '1970-01-01T00:00:01Z' AS at, 0.1 AS share, ['a', 'b'] AS names \
                   UNION ALL SELECT NULL, 0.5, [] ORDER BY share";
        let rows: Vec<Row> = session.rows(sql).await.expect("runs");
        let names = vec!["a".to_owned(), "b".to_owned()];
        let expected =
            [Row { at: Some(1_000_000), share: 0.1, names }, Row { at: None, share: 0.5, names: Vec::new() }];
        assert_eq!(rows, expected);
        let none: Vec<Row> = session.rows("SELECT 1 AS share WHERE false").await.expect("runs");
        assert!(none.is_empty());
        session.rows::<Row>("SELECT 1 AS other").await.expect_err("has other columns");
    }
}
