//! Reads `events` version by version.

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_follow::Cursor;
use bellwether_lake::{AddedFile, Handover, Lake, LogEntry, WrittenFile};
use bellwether_tables::Table;
use prometheus::IntCounter;

use crate::sql;
use crate::statement::{StatementKind, Statements};

/// Most completed runs in one step; a version with more of them is one step. A late statement is shorter than a run but makes
/// the step read back others, so it counts as a third of a run.
pub(crate) const STEP_ROWS: usize = 50_000;

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
}

// === impl Tail ===

impl Tail {
    /// Starts at a version, and counts the files that are read back from storage.
    pub(crate) fn new(lake: &Lake, handover: Option<Handover>, read_back: IntCounter, next: i64) -> Self {
        let cursor = Cursor::new(lake.log(Table::Events), next)
            .if_gone("compute `metrics` again from all rows of `events`: `bellwether rebuild`");
        Self { lake: lake.clone(), handover, read_back, cursor }
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

    /// Reads the next versions, as many as fit into a step, and their rows.
    pub(crate) async fn gather(&self) -> Result<(Vec<LogEntry>, Vec<FileRows>)> {
        let (mut entries, mut new, mut rows) = (Vec::new(), Vec::new(), 0);
        while rows < STEP_ROWS {
            let ahead = i64::try_from(entries.len()).unwrap_or(i64::MAX);
            let Some(entry) = self.cursor.entry(ahead).await? else { break };
            // An entry that only rewrites files adds no rows.
            if entry.brings_rows() {
                for file in self.rows_of(&entry).await? {
                    rows += file.weight()?;
                    new.push(file);
                }
            }
            entries.push(entry);
        }
        Ok((entries, new))
    }

    /// Reads the entries before a version that another process has aggregated.
    pub(crate) async fn entries_to(&self, to: i64) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        for version in self.next()..to {
            let missing = || Error::unavailable(format!("version {version} of `events` does not exist yet"));
            entries.push(self.cursor.log().entry(version).await?.ok_or_else(missing)?);
        }
        Ok(entries)
    }

    async fn rows_of(&self, entry: &LogEntry) -> Result<Vec<FileRows>> {
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
