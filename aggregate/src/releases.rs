//! The first run of each release, by tenant, fingerprint, id and responding model, with the release's whole configuration.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_tables::Table;
use xxhash_rust::xxh3::xxh3_128;

use crate::sql;
use crate::statement::StatementKind;
use crate::tail::FileRows;

/// Identifies a release. Another fingerprint of the same id is a new release, and so is another model of the same
/// fingerprint. Two tenants may use the same id for two configurations. Rows of versions without tenants name none.
type ReleaseKey = [String; KEY_COLUMNS.len()];

/// The columns of a [`ReleaseKey`].
const KEY_COLUMNS: [&str; 4] = ["release_fingerprint", "release_id", "model_responded", "tenant"];

/// The releases in the table.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    known: HashSet<ReleaseKey>,
}

// === impl Releases ===

impl Releases {
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let (_, files) = lake.active_files(Table::Releases).await?;
        let mut releases = Self::default();
        for file in &files {
            for batch in lake.read(Table::Releases, file, Some(&KEY_COLUMNS)).await? {
                let columns = key_columns(&batch)?;
                releases.known.extend((0..batch.num_rows()).map(|row| key(columns, row)));
            }
        }
        Ok(releases)
    }

    /// Returns rows of `releases` for the releases that new rows of `events` name for the first time, and their keys. The
    /// other columns are read from the file, because new releases are rare.
    pub(crate) async fn first_seen(
        &self,
        lake: &Lake,
        new: &[FileRows],
        events_version: i64,
    ) -> Result<(RecordBatch, Vec<ReleaseKey>)> {
        let mut fresh: Vec<ReleaseKey> = Vec::new();
        // The keys of these rows, by hash, because many rows have one release.
        let mut met: HashSet<u128> = HashSet::new();
        let mut seen: HashSet<ReleaseKey> = HashSet::new();
        let (mut found, mut hashed) = (Vec::new(), Vec::new());
        for FileRows { file, rows } in new {
            let (mut place, mut places) = (0_u32, Vec::new());
            for rows in rows {
                let event_type = text(rows, "event_type")?;
                let columns = key_columns(rows)?;
                for n in 0..rows.num_rows() {
                    let here = place;
                    place += 1;
                    if StatementKind::of(event_type.value(n)) != StatementKind::Completed
                        || !met.insert(hash(columns, n, &mut hashed))
                    {
                        continue;
                    }
                    let key = key(columns, n);
                    if !self.known.contains(&key) && seen.insert(key.clone()) {
                        fresh.push(key);
                        places.push(here);
                    }
                }
            }
            if !places.is_empty() {
                let whole = lake.read(Table::Events, file, Some(&described_columns())).await?;
                let Some(first) = whole.first() else { continue };
                let whole = concat_batches(&first.schema(), &whole)?;
                found.push(take_record_batch(&whole, &UInt32Array::from(places))?);
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

    /// Notes releases whose rows are in the table now.
    pub(crate) fn note(&mut self, fresh: Vec<ReleaseKey>) {
        self.known.extend(fresh);
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringViewArray> {
    batch
        .column_by_name(name)
        .map(|column| column.as_string_view())
        .ok_or_else(|| Error::bug(format!("rows lack column `{name}`")))
}

/// Returns the columns that `events` and `releases` share, and the time of the event.
fn described_columns() -> Vec<&'static str> {
    let of_events = |name: &&str| Table::Events.columns().iter().any(|column| column.name == *name);
    let shared = Table::Releases.columns().iter().map(|column| column.name).filter(of_events);
    shared.chain(["event_time"]).collect()
}

fn key_columns(batch: &RecordBatch) -> Result<[&StringViewArray; KEY_COLUMNS.len()]> {
    let [fingerprint, id, model, tenant] = KEY_COLUMNS.map(|name| text(batch, name));
    Ok([fingerprint?, id?, model?, tenant?])
}

/// Returns the hash of a row's key; `text` is a buffer.
fn hash(columns: [&StringViewArray; KEY_COLUMNS.len()], row: usize, text: &mut Vec<u8>) -> u128 {
    text.clear();
    for column in columns {
        let value = value(column, row);
        text.extend_from_slice(&(value.len() as u64).to_le_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    xxh3_128(text)
}

fn key(columns: [&StringViewArray; KEY_COLUMNS.len()], row: usize) -> ReleaseKey {
    columns.map(|column| value(column, row).to_owned())
}

fn value(column: &StringViewArray, row: usize) -> &str {
    if column.is_valid(row) { column.value(row) } else { "" }
}
