//! Reads `events` version by version.
//!
//! Far behind the end of the log, entries and files are read several at a time; a step is bounded in rows, bytes and versions
//! in any case.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_follow::Cursor;
use bellwether_lake::{AddedFile, Handover, Lake, LogEntry, WrittenFile};
use bellwether_tables::Table;
use futures::future::try_join_all;
use prometheus::IntCounter;

use crate::sql;
use crate::statement::{StatementKind, Statements};

/// Most completed runs in one step; a version with more of them is one step. A late statement is shorter than a run but makes
/// the step read back others, so it counts as a third of a run.
pub(crate) const STEP_ROWS: usize = 50_000;

/// Bytes of Parquet that one step reads at most; a version that alone has more is one step.
const STEP_BYTES: i64 = 64 << 20;

/// Versions that one step takes at most, so that it takes seconds even if a store is slow and each version has few rows.
const STEP_VERSIONS: usize = 512;

/// Entries that are read ahead, and versions of which the files are read at the same time.
const AT_ONCE: usize = 16;

/// A file of `events` and its rows in order, with the columns of [`sql::event_columns`]. The rows stay in their batches:
/// copying them into one would hold them in memory twice.
pub(crate) struct FileRows {
    pub(crate) file: AddedFile,
    pub(crate) rows: Vec<RecordBatch>,
}

// === impl FileRows ===

impl FileRows {
    /// Returns the number of rows.
    pub(crate) fn count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// Returns how much the file counts towards [`STEP_ROWS`].
    pub(crate) fn weight(&self) -> Result<usize> {
        let mut runs = 0;
        for rows in &self.rows {
            let statements = Statements::of(rows)?;
            runs += (0..statements.rows()).filter(|n| statements.kind(*n) == StatementKind::Completed).count();
        }
        Ok(runs + (self.count() - runs) / 3)
    }
}

/// `events`, read version by version.
pub(crate) struct Tail {
    lake: Lake,
    handover: Option<Handover>,
    read_back: IntCounter,
    /// May be ahead of the version in `metrics`, if versions added no rows.
    cursor: Cursor,
    /// Entries that have been read, but belong to a later step.
    read_ahead: VecDeque<LogEntry>,
}

// === impl Tail ===

impl Tail {
    /// Starts at a version, and counts the files that are read back from storage.
    pub(crate) fn new(lake: &Lake, handover: Option<Handover>, read_back: IntCounter, next: i64) -> Self {
        let cursor = Cursor::new(lake.log(Table::Events), next)
            .if_gone("compute `metrics` again from all rows of `events`: `bellwether rebuild`");
        Self { lake: lake.clone(), handover, read_back, cursor, read_ahead: VecDeque::new() }
    }

    pub(crate) fn next(&self) -> i64 {
        self.cursor.next_version()
    }

    pub(crate) fn advance_to(&mut self, next: i64) {
        self.cursor.advance_to(next);
    }

    pub(crate) fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    /// Reads the next versions, as many as a step may have, and their rows.
    pub(crate) async fn gather(&mut self) -> Result<(Vec<LogEntry>, Vec<FileRows>)> {
        let (mut entries, mut new, mut room) = (Vec::new(), Vec::new(), Room::default());
        if self.read_ahead.front().is_some_and(|entry| entry.version != self.next()) {
            self.read_ahead.clear();
        }
        while room.is_left() {
            if self.read_ahead.is_empty() {
                let ahead = i64::try_from(entries.len()).unwrap_or(i64::MAX);
                self.read_ahead = self.cursor.entries(ahead, AT_ONCE).await?.into();
            }
            let fitting = room.take_from(&mut self.read_ahead);
            if fitting.is_empty() {
                break;
            }
            let files = try_join_all(fitting.iter().map(|entry| self.rows_of(entry))).await?;
            for file in files.into_iter().flatten() {
                room.rows = room.rows.saturating_sub(file.weight()?);
                new.push(file);
            }
            entries.extend(fitting);
        }
        Ok((entries, new))
    }

    /// Reads the entries before a version that another process has aggregated.
    pub(crate) async fn entries_to(&self, to: i64) -> Result<Vec<LogEntry>> {
        let entries = self.cursor.entries(0, usize::try_from(to - self.next()).unwrap_or(0)).await?;
        let reached = entries.last().map_or(self.next(), |entry| entry.version + 1);
        if reached < to {
            return Err(Error::unavailable(format!("version {reached} of `events` does not exist yet")));
        }
        Ok(entries)
    }

    async fn rows_of(&self, entry: &LogEntry) -> Result<Vec<FileRows>> {
        // An entry that only rewrites files brings no new rows.
        if !entry.brings_rows() {
            return Ok(Vec::new());
        }
        let offered = entry.uuid.and_then(|uuid| self.handover.as_ref()?.take(uuid));
        // An offer may name a file without its rows.
        let is_whole = |file: &WrittenFile| {
            usize::try_from(file.file.rows) == Ok(file.rows.iter().map(RecordBatch::num_rows).sum())
        };
        if let Some(written) = offered.filter(|written| written.iter().all(is_whole)) {
            let file_rows = |WrittenFile { file, rows }: WrittenFile| FileRows { file: file.as_added(), rows };
            return Ok(written.into_iter().map(file_rows).collect());
        }
        let mut new = Vec::new();
        for file in entry.added.iter().filter(|file| file.data_change) {
            new.push(self.read(file).await?);
        }
        Ok(new)
    }

    /// Reads a file back from storage.
    pub(crate) async fn read(&self, file: &AddedFile) -> Result<FileRows> {
        let rows = self.lake.read(Table::Events, file, Some(sql::event_columns())).await?;
        self.read_back.inc();
        Ok(FileRows { file: file.clone(), rows })
    }
}

/// The rows, bytes and versions that a step may still take.
struct Room {
    rows: usize,
    bytes: i64,
    versions: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { rows: STEP_ROWS, bytes: STEP_BYTES, versions: STEP_VERSIONS }
    }
}

// === impl Room ===

impl Room {
    fn is_left(&self) -> bool {
        self.rows > 0 && self.bytes > 0 && self.versions > 0
    }

    /// Takes the first entries that certainly fit, to be read at the same time; the first in any case. One that takes rows is a
    /// step of its own: the rows of earlier entries are counted before it, and those of later ones after it.
    fn take_from(&mut self, entries: &mut VecDeque<LogEntry>) -> Vec<LogEntry> {
        let (mut fitting, mut rows) = (Vec::new(), 0_usize);
        if entries.front().is_some_and(LogEntry::takes_rows) && self.versions == STEP_VERSIONS {
            self.versions = 0;
            return Vec::from_iter(entries.pop_front());
        }
        while let Some(entry) = entries.front().filter(|entry| !entry.takes_rows()) {
            let files = entry.added.iter().filter(|file| file.data_change && entry.brings_rows());
            // An entry of another program may not say how many rows a file has.
            let listed = files.clone().map(|file| file.rows.and_then(|rows| usize::try_from(rows).ok()));
            let listed = listed.fold(0, |sum, rows| rows.map_or(STEP_ROWS, |rows| rows.saturating_add(sum)));
            let bytes: i64 = files.map(|file| file.size).sum();
            rows = rows.saturating_add(listed);
            let fits = rows <= self.rows && bytes <= self.bytes && self.versions > 0;
            if !fits && !fitting.is_empty() {
                break;
            }
            self.bytes -= bytes;
            self.versions = self.versions.saturating_sub(1);
            fitting.extend(entries.pop_front());
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entries(sizes: &[(i64, i64)]) -> VecDeque<LogEntry> {
        let entry = |(version, (rows, size)): (i64, &(i64, i64))| {
            let file = AddedFile {
                path: String::new(),
                size: *size,
                rows: Some(*rows),
                partition_values: BTreeMap::new(),
                data_change: true,
                stats: None,
            };
            LogEntry { version, added: vec![file], ..LogEntry::default() }
        };
        (0..).zip(sizes).map(entry).collect()
    }

    fn taken(sizes: &[(i64, i64)]) -> usize {
        Room::default().take_from(&mut entries(sizes)).len()
    }

    #[test]
    fn versions_are_read_together_as_far_as_they_certainly_fit() {
        let half = i64::try_from(STEP_ROWS / 2).expect("small");
        assert_eq!(taken(&[(half, 1), (half, 1), (1, 1)]), 2, "rows");
        assert_eq!(taken(&[(1, STEP_BYTES - 1), (1, 2)]), 1, "bytes");
        assert_eq!(taken(&[(10 * half, 10 * STEP_BYTES), (1, 1)]), 1, "the first one in any case");
        assert_eq!(taken(&vec![(0, 0); STEP_VERSIONS + 5]), STEP_VERSIONS, "versions");
        assert_eq!(taken(&[]), 0);
        let mut entries = entries(&[(1, 1), (1, 1), (1, 1)]);
        let takes = LogEntry { version: 3, removed: vec!["x".to_owned()], ..LogEntry::default() };
        entries.insert(2, takes);
        let mut room = Room::default();
        assert_eq!((room.take_from(&mut entries).len(), room.take_from(&mut entries).len()), (2, 0), "before it");
        let mut room = Room::default();
        assert_eq!((room.take_from(&mut entries).len(), room.is_left()), (1, false), "alone");
        assert_eq!(Room::default().take_from(&mut entries).len(), 1);
    }
}
