//! Compares one data file with the log: it must exist, be readable to its last page, and have the rows and bounds that its
//! statistics state. Also collects the offsets of its rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use serde_json::Value;

use super::coordinates::{Run, runs};
use super::history::ActiveFile;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::Lake;
use bellwether_lake::inspect::batches;
use bellwether_lake::inspect::statistics;
use bellwether_tables::Table;

/// A partition of a topic.
pub(crate) type PlaceKey = (Arc<str>, i32);

/// Columns that state the source of a row.
const COORDINATES: [&str; 3] = ["topic", "partition", "offset"];

/// The result of reading a file.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    /// Differences from the log.
    pub(crate) wrong: Vec<String>,
    /// Rows outside the ranges of its commit.
    pub(crate) astray: Vec<String>,
    /// Offsets of its rows, by partition.
    pub(crate) places: Vec<(PlaceKey, Vec<Run>)>,
}

/// The content of a file.
#[derive(Default)]
struct Gathered {
    rows: i64,
    offsets: Vec<(PlaceKey, Vec<i64>)>,
    nulls: BTreeMap<String, i64>,
    out_of_bounds: Option<String>,
}

/// Returns true if the rows of a table state their source.
pub(crate) fn has_coordinates(table: Table) -> bool {
    COORDINATES.iter().all(|name| table.columns().iter().any(|column| column.name == *name))
}

/// Reads a whole file. Damage to the file is part of the result.
///
/// # Errors
/// `Unavailable` if storage does not answer.
pub(crate) async fn look(lake: &Lake, table: Table, active: &ActiveFile) -> Result<Looked> {
    let file = &active.file;
    let mut looked = Looked::default();
    let bytes = match lake.file_bytes(table, &file.path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::Data => {
            looked.wrong.push("it does not exist".to_owned());
            return Ok(looked);
        }
        Err(error) => return Err(error),
    };
    looked.bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    if looked.bytes != file.size {
        looked.wrong.push(format!("it has {} bytes, but the log says {}", looked.bytes, file.size));
    }
    let gathered = match gather(table, active.clone(), bytes).await {
        Ok(gathered) => gathered,
        Err(error) => {
            looked.wrong.push(format!("it cannot be read: {}", error.chain()));
            return Ok(looked);
        }
    };
    looked.rows = gathered.rows;
    if let Some(stated) = file.rows.filter(|stated| *stated != gathered.rows) {
        looked.wrong.push(format!("it has {} rows, but the log says {stated}", gathered.rows));
    }
    looked.wrong.extend(gathered.out_of_bounds);
    looked.wrong.extend(wrong_nulls(file.stats.as_deref(), &gathered.nulls));
    for (place, offsets) in gathered.offsets {
        let runs = runs(offsets);
        looked.astray.extend(astray(active, &place, &runs));
        looked.places.push((place, runs));
    }
    Ok(looked)
}

/// Returns the number of rows with an offset in a file.
///
/// # Errors
/// As [`Lake::read`].
pub(crate) async fn count_of(
    lake: &Lake,
    table: Table,
    active: &ActiveFile,
    (topic, partition): &PlaceKey,
    offset: i64,
) -> Result<usize> {
    let mut count = 0;
    for batch in lake.read(table, &active.file, Some(&COORDINATES)).await? {
        let (topics, partitions, offsets) = coordinates(&batch)?;
        count += (0..batch.num_rows())
            .filter(|row| {
                offsets.value(*row) == offset && partitions.value(*row) == *partition && topics.value(*row) == &**topic
            })
            .count();
    }
    Ok(count)
}

async fn gather(table: Table, active: ActiveFile, bytes: Bytes) -> Result<Gathered> {
    let work = move || {
        let stated: Option<Value> = active.file.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok());
        let mut gathered = Gathered::default();
        for batch in batches(table, &active.file, bytes, None)? {
            let batch = batch?;
            gathered.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
            if let Some(stated) = &stated {
                gathered.hold_against(table, stated, &batch);
            }
            if has_coordinates(table) {
                gathered.note(&batch)?;
            }
        }
        Ok(gathered)
    };
    // A corrupt page may even make the decoder panic; that is a finding and does not end the audit.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::data("the Parquet reader panicked").with_source(source))?
}

// === impl Gathered ===

impl Gathered {
    /// Compares rows with the bounds that the log states, by which readers skip files.
    fn hold_against(&mut self, table: Table, stated: &Value, batch: &RecordBatch) {
        let Ok(found) = serde_json::from_str::<Value>(&statistics(table, batch)) else { return };
        for (side, name) in [("minValues", "least"), ("maxValues", "greatest")] {
            for (column, value) in found[side].as_object().into_iter().flatten() {
                let bound = &stated[side][column];
                let outside = match side {
                    "minValues" => less(value, bound),
                    _ => less(bound, value),
                };
                if outside && self.out_of_bounds.is_none() {
                    let what = format!("its {name} `{column}` is {value}, but the log says {bound}");
                    self.out_of_bounds = Some(what);
                }
            }
        }
        for (column, nulls) in found["nullCount"].as_object().into_iter().flatten() {
            *self.nulls.entry(column.clone()).or_default() += nulls.as_i64().unwrap_or_default();
        }
    }

    fn note(&mut self, batch: &RecordBatch) -> Result<()> {
        let (topics, partitions, offsets) = coordinates(batch)?;
        let mut index = 0;
        for row in 0..batch.num_rows() {
            let (topic, partition) = (topics.value(row), partitions.value(row));
            let here = |(place, _): &(PlaceKey, Vec<i64>)| &*place.0 == topic && place.1 == partition;
            // Rows of one partition are mostly adjacent, so the last partition is tried first.
            if !self.offsets.get(index).is_some_and(here) {
                index = self.offsets.iter().position(here).unwrap_or(self.offsets.len());
                if index == self.offsets.len() {
                    self.offsets.push(((topic.into(), partition), Vec::new()));
                }
            }
            self.offsets[index].1.push(offsets.value(row));
        }
        Ok(())
    }
}

type Coordinates<'a> = (&'a arrow::array::StringViewArray, &'a arrow::array::Int32Array, &'a arrow::array::Int64Array);

fn coordinates(batch: &RecordBatch) -> Result<Coordinates<'_>> {
    let column =
        |name: &str| batch.column_by_name(name).ok_or_else(|| Error::bug(format!("a batch has no column `{name}`")));
    Ok((
        column("topic")?.as_string_view(),
        column("partition")?.as_primitive::<Int32Type>(),
        column("offset")?.as_primitive::<Int64Type>(),
    ))
}

/// Returns true if one bound is certainly less than another. Texts are times in the same format, which sort as text.
fn less(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_i64().zip(other.as_i64()).is_some_and(|(a, b)| a < b),
        (Value::String(one), Value::String(other)) => one.len() == other.len() && one < other,
        _ => false,
    }
}

fn wrong_nulls(stats: Option<&str>, found: &BTreeMap<String, i64>) -> Option<String> {
    let stated: Value = serde_json::from_str(stats?).ok()?;
    found.iter().find_map(|(column, nulls)| {
        let stated = stated["nullCount"][column].as_i64()?;
        (stated != *nulls).then(|| format!("its column `{column}` is null in {nulls} rows, but the log says {stated}"))
    })
}

/// Describes rows outside the ranges of the file's own commit.
fn astray(active: &ActiveFile, (topic, partition): &PlaceKey, runs: &[Run]) -> Option<String> {
    if active.ranges.is_empty() {
        return None;
    }
    let ranges = || active.ranges.iter().filter(|range| range.topic == **topic && range.partition == *partition);
    let inside = |run: &Run| ranges().any(|range| range.from <= run.start && run.end <= range.next);
    let run = runs.iter().find(|run| !inside(run))?;
    Some(format!(
        "it has {} of `{topic}/{partition}`, but its commit (version {}) does not cover all of them",
        super::ranges::offsets(run.start, run.end),
        active.version
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_lake::AddedFile;
    use bellwether_lake::PartitionRange;
    use serde_json::json;

    fn active(from: i64, next: i64) -> ActiveFile {
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 1,
            from,
            next,
            end_offset: None,
            newest_event_micros: None,
            passed_over: None,
        };
        let file = AddedFile {
            path: "f".to_owned(),
            size: 1,
            rows: None,
            partition_values: BTreeMap::new(),
            data_change: true,
            stats: None,
        };
        ActiveFile { file, ranges: Arc::from([range]), version: 7 }
    }

    #[test]
    fn rows_outside_the_offsets_of_their_own_commit_are_astray() {
        let place: PlaceKey = ("t".into(), 1);
        assert_eq!(astray(&active(0, 10), &place, &[Run { start: 3, end: 10 }]), None);
        let text = astray(&active(0, 10), &place, &[Run { start: 3, end: 11 }]).expect("astray");
        assert!(text.contains("offsets 3 to 10 of `t/1`") && text.contains("version 7"), "{text}");
        assert!(astray(&active(0, 10), &("other".into(), 1), &[Run { start: 3, end: 4 }]).is_some());
    }

    #[test]
    fn only_like_bounds_are_compared() {
        assert!(less(&json!(1), &json!(2)) && !less(&json!(2), &json!(2)));
        assert!(less(&json!("2026-11-23T10:00:00.000Z"), &json!("2026-11-23T10:00:00.001Z")));
        assert!(!less(&json!("2026"), &json!("2027-01-01")), "of another form");
        assert!(!less(&json!(1), &Value::Null));
    }

    #[test]
    fn empty_values_are_held_against_their_stated_number() {
        let found = BTreeMap::from([("a".to_owned(), 2)]);
        assert_eq!(wrong_nulls(Some(r#"{"nullCount":{"a":2}}"#), &found), None);
        assert!(wrong_nulls(Some(r#"{"nullCount":{"a":1}}"#), &found).is_some());
        assert_eq!(wrong_nulls(Some("{}"), &found), None, "not stated");
        assert_eq!(wrong_nulls(None, &found), None);
    }
}
