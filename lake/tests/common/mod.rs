//! Creates a lake in a folder, rows and commits.

pub(crate) mod store;

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::array::{AsArray, MapArray, new_empty_array, new_null_array};
use arrow::array::{ListArray, StringViewArray, StringViewBuilder, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use bellwether_base::{ManualClock, unique_id};
use bellwether_lake::{Advance, Commit, Lake, StorageOptions, WrittenFile};
use bellwether_tables::Table;

const DAY_MICROS: i64 = 86_400_000_000;

pub(crate) async fn lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().expect("temp folder");
    let root = folder.path().to_str().expect("text").to_owned();
    let clock = Arc::new(ManualClock::at(1_764_000_000_000_000));
    let lake = Lake::open_with_clock(&root, &StorageOptions::default(), clock).await.expect("opens");
    (folder, lake)
}

pub(crate) fn commit(app: &str, expected: Option<i64>, next: i64, files: &[WrittenFile]) -> Commit {
    Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: app.to_owned(), expected, next }],
        files: files.iter().map(|written| written.file.clone()).collect(),
        operation: "WRITE",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    }
}

/// Returns rows of a table that differ only in offsets, days and run ids; every other column has its least value or null.
pub(crate) fn rows(table: Table, offsets: std::ops::Range<i64>, days: &[i32]) -> RecordBatch {
    let count = (offsets.end - offsets.start) as usize;
    let schema = table.arrow_schema();
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match (field.name().as_str(), field.data_type()) {
                ("offset", _) => Arc::new(Int64Array::from_iter_values(offsets.clone())),
                ("run_id", _) => {
                    Arc::new(StringViewArray::from_iter_values(offsets.clone().map(|n| format!("run-number-{n}"))))
                }
                (_, DataType::Date32) => {
                    Arc::new(arrow::array::Date32Array::from_iter_values((0..count).map(|row| days[row % days.len()])))
                }
                (_, data_type) if field.is_nullable() => new_null_array(data_type, count),
                (_, DataType::Int64) => Arc::new(Int64Array::from(vec![0; count])),
                (_, DataType::Int32) => Arc::new(Int32Array::from(vec![1; count])),
                (_, DataType::Decimal128(38, 0)) => Arc::new(
                    Decimal128Array::from(vec![0; count]).with_precision_and_scale(38, 0).expect("a type of ours"),
                ),
                (_, DataType::Float64) => Arc::new(Float64Array::from(vec![0.5; count])),
                (_, DataType::Binary) => Arc::new(BinaryArray::from_iter_values((0..count).map(|_| b"x"))),
                (_, DataType::Boolean) => Arc::new(arrow::array::BooleanArray::from(vec![false; count])),
                (_, DataType::Timestamp(TimeUnit::Microsecond, _)) => Arc::new(
                    TimestampMicrosecondArray::from_iter_values((0..count).map(|n| 20_000 * DAY_MICROS + n as i64))
                        .with_timezone("UTC"),
                ),
                (_, DataType::Utf8View) => {
                    let mut text = StringViewBuilder::new();
                    (0..count).for_each(|_| text.append_value("x"));
                    Arc::new(text.finish())
                }
                (_, DataType::List(element)) => {
                    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(0, count));
                    Arc::new(ListArray::new(Arc::clone(element), offsets, new_empty_array(element.data_type()), None))
                }
                (_, DataType::Map(entries, sorted)) => {
                    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(0, count));
                    let empty = new_empty_array(entries.data_type()).as_struct().clone();
                    Arc::new(MapArray::new(Arc::clone(entries), offsets, empty, None, *sorted))
                }
                (name, other) => panic!("column {name} has the type {other}"),
            }
        })
        .collect();
    RecordBatch::try_new(schema, columns).expect("rows of the table")
}
