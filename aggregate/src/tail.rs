//! Reading `events` on by version.

use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_lake::{AddedFile, Error, Handover, Lake, LogEntry, Result, Table, WrittenFile};
use prometheus::IntCounter;

use crate::contribution::FileRows;
use crate::sql;
use crate::statement::{Kind, Statements};

/// Completed runs that one step takes at most, but for a version that alone has more. What is said of a run later is
/// shorter than a run, and a step that has much of it reads back much at once: it counts a third.
pub(crate) const STEP_ROWS: usize = 50_000;

pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// `events`, read on by version.
pub(crate) struct Tail {
    lake: Lake,
    handover: Option<Handover>,
    read_back: IntCounter,
    /// Version to read next; may be ahead of what was committed where versions brought no rows.
    pub(crate) next: i64,
}

// === impl Tail ===

impl Tail {
    pub(crate) fn new(lake: Lake, handover: Option<Handover>, read_back: IntCounter, next: i64) -> Self {
        Self { lake, handover, read_back, next }
    }

    pub(crate) fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    /// The next versions, within the bound of a step, and the rows they bring.
    pub(crate) async fn gather(&self) -> Result<(Vec<LogEntry>, Vec<FileRows>)> {
        let log = self.lake.log(Table::Events);
        let (mut entries, mut new, mut rows) = (Vec::new(), Vec::new(), 0);
        while rows < STEP_ROWS {
            let version = self.next + i64::try_from(entries.len()).unwrap_or(i64::MAX);
            let Some(entry) = log.entry(version).await? else {
                if entries.is_empty() && log.is_cleaned_up_at(version).await? {
                    return Err(Error::data(format!(
                        "log entry {version} of `events` is gone, and was not read before"
                    ))
                    .with_hint("have `metrics` made again from all that `events` holds: `bellwether rebuild`"));
                }
                break;
            };
            // An entry that only rewrites files brings nothing new.
            if entry.brings_rows() {
                for file in self.rows_of(&entry).await? {
                    rows += weight(&file)?;
                    new.push(file);
                }
            }
            entries.push(entry);
        }
        Ok((entries, new))
    }

    /// The entries up to a version that others have taken in.
    pub(crate) async fn passed(&self, to: i64) -> Result<Vec<LogEntry>> {
        let log = self.lake.log(Table::Events);
        let mut entries = Vec::new();
        for version in self.next..to {
            let gone = || Error::unavailable(format!("version {version} of `events` is not there yet"));
            entries.push(log.entry(version).await?.ok_or_else(gone)?);
        }
        Ok(entries)
    }

    async fn rows_of(&self, entry: &LogEntry) -> Result<Vec<FileRows>> {
        let handed = entry.uuid.and_then(|uuid| self.handover.as_ref()?.take(uuid));
        // Who offers a file without its rows has only said that it is there.
        let all_there = |file: &WrittenFile| {
            usize::try_from(file.file.rows) == Ok(file.rows.iter().map(RecordBatch::num_rows).sum())
        };
        if let Some(written) = handed.filter(|written| written.iter().all(all_there)) {
            let of = |WrittenFile { file, rows }: WrittenFile| FileRows { file: file.as_added(), rows };
            return Ok(written.into_iter().map(of).collect());
        }
        let mut new = Vec::new();
        for file in entry.added.iter().filter(|file| file.data_change) {
            new.push(self.read(file).await?);
        }
        Ok(new)
    }

    /// Reads a file back.
    pub(crate) async fn read(&self, file: &AddedFile) -> Result<FileRows> {
        let rows = self.lake.read(Table::Events, file, Some(sql::event_columns())).await?;
        self.read_back.inc();
        Ok(FileRows { file: file.clone(), rows })
    }
}

/// What the rows of a file count for towards the bound of a step.
pub(crate) fn weight(file: &FileRows) -> Result<usize> {
    let mut runs = 0;
    for rows in &file.rows {
        let statements = Statements::of(rows)?;
        runs += (0..statements.rows()).filter(|n| statements.kind(*n) == Kind::Completed).count();
    }
    Ok(runs + (file.count() - runs) / 3)
}
