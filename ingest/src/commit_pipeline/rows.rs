//! Rows by their coordinates: topic, partition and offset.

use std::collections::BTreeSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use bellwether_lake::{Error, Result};

use super::{Batch, Touched};

/// Refuses a batch that would break the protocol: it can only come from a mistake in the source.
pub(super) fn check(batch: &Batch) -> Result<()> {
    let mut seen = BTreeSet::new();
    for Touched { range, expected } in &batch.touched {
        let place = format!("`{}/{}`", range.topic, range.partition);
        if !seen.insert((range.topic.as_str(), range.partition)) {
            return Err(Error::bug(format!("partition {place} is twice in a batch")));
        }
        if range.next <= range.from || expected.is_some_and(|expected| expected != range.from) {
            return Err(Error::bug(format!("range [{}, {}) of {place} does not advance", range.from, range.next)));
        }
    }
    let inside = |topic: &str, partition: i32, offset: i64| {
        batch.touched.iter().any(|Touched { range, .. }| {
            range.topic == topic && range.partition == partition && (range.from..range.next).contains(&offset)
        })
    };
    for rows in [&batch.events, &batch.quarantine] {
        if keep_rows(rows, inside)?.num_rows() != rows.num_rows() {
            return Err(Error::bug("a row of the batch is outside its offset ranges"));
        }
    }
    Ok(())
}

pub(super) fn owns(touched: &[Touched], topic: &str, partition: i32) -> bool {
    touched.iter().any(|one| one.range.topic == topic && one.range.partition == partition)
}

pub(super) fn partitions(rows: &RecordBatch) -> Result<BTreeSet<(String, i32)>> {
    let mut found = BTreeSet::new();
    each_row(rows, |topic, partition, _| {
        found.insert((topic.to_owned(), partition));
    })?;
    Ok(found)
}

pub(crate) fn keep_rows(rows: &RecordBatch, keep: impl Fn(&str, i32, i64) -> bool) -> Result<RecordBatch> {
    let mut mask = Vec::with_capacity(rows.num_rows());
    each_row(rows, |topic, partition, offset| mask.push(keep(topic, partition, offset)))?;
    if mask.iter().all(|kept| *kept) {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &BooleanArray::from(mask))
        .map_err(|error| Error::bug("rows cannot be filtered").with_source(error))
}

fn each_row(rows: &RecordBatch, mut visit: impl FnMut(&str, i32, i64)) -> Result<()> {
    let column = |name: &str, kind: &DataType| match rows.column_by_name(name) {
        Some(column) if column.data_type() == kind => Ok(column),
        _ => Err(Error::bug(format!("a batch has no column `{name}` of type {kind}"))),
    };
    let topics = column("topic", &DataType::Utf8View)?.as_string_view();
    let partitions = column("partition", &DataType::Int32)?.as_primitive::<Int32Type>();
    let offsets = column("offset", &DataType::Int64)?.as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        visit(topics.value(row), partitions.value(row), offsets.value(row));
    }
    Ok(())
}
