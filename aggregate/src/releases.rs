//! First sight of each release: (fingerprint, id, model that answered), with its whole configuration.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use bellwether_lake::{Error, Lake, Result, Table};

use crate::sql;
use crate::statement::Kind;

/// What makes a release another one: a fingerprint that changes under an id, and a model that changes under a
/// fingerprint, are both worth knowing.
type Key = (String, String, String);

/// Releases that the table has.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    known: HashSet<Key>,
}

// === impl Releases ===

impl Releases {
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let (_, files) = lake.active_files(Table::Releases).await?;
        let mut releases = Self::default();
        for file in &files {
            let columns = ["release_fingerprint", "release_id", "model_responded"];
            for batch in lake.read(Table::Releases, file, Some(&columns)).await? {
                for row in 0..batch.num_rows() {
                    releases.known.insert(key(&batch, row)?);
                }
            }
        }
        Ok(releases)
    }

    /// Rows of `releases` for releases that are seen for the first time in rows of `events`.
    pub(crate) fn first_seen(&self, rows: &[RecordBatch], events_version: i64) -> Result<(RecordBatch, Vec<Key>)> {
        let mut fresh: Vec<Key> = Vec::new();
        let mut seen: HashSet<Key> = HashSet::new();
        let mut found = Vec::new();
        for batch in rows {
            let event_type = text(batch, "event_type")?;
            let mut places = Vec::new();
            for (row, n) in (0_u32..).zip(0..batch.num_rows()) {
                if Kind::of(event_type.value(n)) != Kind::Completed {
                    continue;
                }
                let key = key(batch, n)?;
                if !self.known.contains(&key) && seen.insert(key.clone()) {
                    fresh.push(key);
                    places.push(row);
                }
            }
            if !places.is_empty() {
                found.push(take_record_batch(batch, &UInt32Array::from(places))?);
            }
        }
        let count = found.iter().map(RecordBatch::num_rows).sum();
        let times: Vec<_> = found.iter().filter_map(|batch| batch.column_by_name("event_time").cloned()).collect();
        let times: Vec<&dyn Array> = times.iter().map(AsRef::as_ref).collect();
        if times.is_empty() {
            return Ok((RecordBatch::new_empty(Table::Releases.arrow_schema()), fresh));
        }
        let first_seen = arrow::compute::concat(&times)?;
        let more = [("first_seen", first_seen), ("events_version", sql::constant(events_version, count))];
        Ok((sql::rows_of(Table::Releases, &found, &more)?, fresh))
    }

    /// The rows are in the table.
    pub(crate) fn note(&mut self, fresh: Vec<Key>) {
        self.known.extend(fresh);
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::StringViewArray> {
    batch
        .column_by_name(name)
        .map(|column| column.as_string_view())
        .ok_or_else(|| Error::bug(format!("rows lack column `{name}`")))
}

fn key(batch: &RecordBatch, row: usize) -> Result<Key> {
    let value = |name: &str| {
        let column = text(batch, name)?;
        Ok::<_, Error>(if column.is_valid(row) { column.value(row).to_owned() } else { String::new() })
    };
    Ok((value("release_fingerprint")?, value("release_id")?, value("model_responded")?))
}
