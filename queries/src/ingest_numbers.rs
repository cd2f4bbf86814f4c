//! The read progress of each partition, as a relation. It is recorded in the log of `events`, not in rows of a table.
//!
//! The relation is internal: views such as `ingest_progress` read it.

use std::sync::Arc;

use bellwether_lake::Reading;
use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;

/// The name of the relation in SQL.
pub(crate) const NAME: &str = "ingest_numbers";

fn schema() -> SchemaRef {
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("job", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("next_offset", DataType::Int64, true),
        Field::new("end_offset", DataType::Int64, true),
        Field::new("read_to", moment, true),
    ]))
}

/// Makes the relation, with a row for each partition.
pub(crate) fn table(readings: &[Reading]) -> Result<Arc<dyn TableProvider>> {
    let followed = |reading: &Reading| reading.is_followed();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(readings.iter().map(|reading| Some(reading.job.as_str())).collect::<StringArray>()),
        Arc::new(readings.iter().map(|reading| Some(reading.topic.as_str())).collect::<StringArray>()),
        Arc::new(readings.iter().map(|reading| reading.partition).collect::<Int32Array>()),
        Arc::new(readings.iter().map(|reading| reading.next).collect::<Int64Array>()),
        Arc::new(readings.iter().map(|reading| reading.end.filter(|_| followed(reading))).collect::<Int64Array>()),
        Arc::new(
            readings
                .iter()
                .map(|reading| reading.read_to_micros)
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    ];
    let rows = RecordBatch::try_new(schema(), columns)?;
    Ok(Arc::new(MemTable::try_new(schema(), vec![vec![rows]])?))
}
