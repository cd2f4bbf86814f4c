//! The first run of each release, by tenant, fingerprint, id and responding model, with the release's whole configuration.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use bellwether_base::{Error, Result};
use bellwether_lake::{DataFile, Lake};
use bellwether_tables::Table;
use xxhash_rust::xxh3::xxh3_128;

use crate::kept::before;
use crate::sql;
use crate::statement::StatementKind;
use crate::tail::FileRows;

/// The columns that identify a release. Another fingerprint of the same id is a new release, and so is another model of the same
/// fingerprint. Two tenants may use the same id for two configurations. Rows of versions without tenants name none.
const KEY_COLUMNS: [&str; 4] = ["release_fingerprint", "release_id", "model_responded", "tenant"];

/// Most releases that are held, 32 bytes each. There are more only if applications state another release for each run.
const MOST_KNOWN: usize = 1 << 20;

/// The releases in the table, by the hashes of their keys.
#[derive(Debug)]
pub(crate) struct Releases {
    known: HashSet<u128>,
    /// True if all releases in the table are known. Otherwise the table is asked about those that are not.
    is_complete: bool,
    most: usize,
}

impl Default for Releases {
    fn default() -> Self {
        Self { known: HashSet::new(), is_complete: true, most: MOST_KNOWN }
    }
}

// === impl Releases ===

impl Releases {
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let mut releases = Self::default();
        for_each(lake, |hash| releases.know(hash)).await?;
        Ok(releases)
    }

    /// Holds a release, and forgets the others if there are too many.
    fn know(&mut self, hash: u128) {
        if self.known.len() >= self.most && !self.known.contains(&hash) {
            self.known = HashSet::new();
            self.is_complete = false;
        }
        self.known.insert(hash);
    }

    /// Returns true if all releases are held: no more than [`MOST_KNOWN`] have been noted or loaded.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns the releases in the table that were first seen before a moment, microseconds since the epoch, and their rows as
    /// new files that no log names yet.
    pub(crate) async fn seen_before(lake: &Lake, micros: i64) -> Result<(Self, Vec<DataFile>)> {
        let (_, files) = lake.active_files(Table::Releases).await?;
        let (mut releases, mut kept, mut hashed) = (Self::default(), Vec::new(), Vec::new());
        for file in &files {
            for batch in lake.read(Table::Releases, file, None).await? {
                let batch = before(&batch, "first_seen", micros)?;
                let columns = key_columns(&batch)?;
                (0..batch.num_rows()).for_each(|row| releases.know(hash(columns, row, &mut hashed)));
                kept.push(batch);
            }
        }
        let kept = concat_batches(&Table::Releases.arrow_schema(), &kept)?;
        let written = lake.write(Table::Releases, &kept).await?;
        Ok((releases, written.into_iter().map(|written| written.file).collect()))
    }

    /// Returns rows of `releases` for the releases that new rows of `events` name for the first time, and the hashes of their keys.
    /// The other columns are read from the file, because new releases are rare.
    pub(crate) async fn first_seen(
        &self,
        lake: &Lake,
        new: &[FileRows],
        events_version: i64,
    ) -> Result<(RecordBatch, Vec<u128>)> {
        let fresh = self.unknown(lake, new).await?;
        let mut found = Vec::new();
        for (n, FileRows { file, .. }) in new.iter().enumerate() {
            let places: Vec<u32> = fresh.iter().filter(|fresh| fresh.file == n).map(|fresh| fresh.place).collect();
            if !places.is_empty() {
                let whole = lake.read(Table::Events, file, Some(&described_columns())).await?;
                let Some(first) = whole.first() else { continue };
                let whole = concat_batches(&first.schema(), &whole)?;
                found.push(take_record_batch(&whole, &UInt32Array::from(places))?);
            }
        }
        let fresh = fresh.iter().map(|fresh| fresh.hash).collect();
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

    /// Returns the first row of each release that is not in the table, in the order of the rows.
    async fn unknown(&self, lake: &Lake, new: &[FileRows]) -> Result<Vec<First>> {
        let (mut fresh, mut met, mut hashed) = (Vec::new(), HashSet::new(), Vec::new());
        for (file, FileRows { rows, .. }) in new.iter().enumerate() {
            let mut place = 0_u32;
            for rows in rows {
                let event_type = text(rows, "event_type")?;
                let columns = key_columns(rows)?;
                for n in 0..rows.num_rows() {
                    let here = place;
                    place += 1;
                    if StatementKind::of(event_type.value(n)) != StatementKind::Completed {
                        continue;
                    }
                    let hash = hash(columns, n, &mut hashed);
                    // Many rows have one release.
                    if met.insert(hash) && !self.known.contains(&hash) {
                        fresh.push(First { file, place: here, hash });
                    }
                }
            }
        }
        if !self.is_complete && !fresh.is_empty() {
            let wanted: HashSet<u128> = fresh.iter().map(|fresh| fresh.hash).collect();
            let mut there = HashSet::new();
            for_each(lake, |hash| {
                if wanted.contains(&hash) {
                    there.insert(hash);
                }
            })
            .await?;
            fresh.retain(|fresh| !there.contains(&fresh.hash));
        }
        Ok(fresh)
    }

    /// Notes releases whose rows are in the table now.
    pub(crate) fn note(&mut self, fresh: Vec<u128>) {
        fresh.into_iter().for_each(|hash| self.know(hash));
    }
}

/// The first row of a release: number of the file, place in it, hash of the key.
struct First {
    file: usize,
    place: u32,
    hash: u128,
}

/// Reads the hash of every release in the table.
async fn for_each(lake: &Lake, mut look: impl FnMut(u128)) -> Result<()> {
    let (_, files) = lake.active_files(Table::Releases).await?;
    let mut hashed = Vec::new();
    for file in &files {
        for batch in lake.read(Table::Releases, file, Some(&KEY_COLUMNS)).await? {
            let columns = key_columns(&batch)?;
            (0..batch.num_rows()).for_each(|row| look(hash(columns, row, &mut hashed)));
        }
    }
    Ok(())
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

fn value(column: &StringViewArray, row: usize) -> &str {
    if column.is_valid(row) { column.value(row) } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_releases_than_fit_are_forgotten_and_not_taken_for_new_ones_without_asking() {
        let mut releases = Releases { most: 3, ..Releases::default() };
        releases.note(vec![1, 2, 3, 2]);
        assert!(releases.is_complete() && releases.known.len() == 3);
        releases.note(vec![4]);
        assert!(!releases.is_complete(), "the table must be asked from now on");
        releases.note((5..1000).collect());
        assert!(releases.known.len() <= 3 && !releases.is_complete());
    }
}
