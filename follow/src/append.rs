//! Appending rows to a table together with the advances that say how far their writer has read.

use arrow::array::RecordBatch;
use bellwether_base::{Clock, Error, Result};
use bellwether_lake::{Advance, Commit, CommitLog, DataFile, Lake, Snapshot, settle};
use bellwether_tables::Table;
use serde_json::{Map, Value};

use crate::metrics::FollowMetrics;

/// Rows for one table, and what the commit asks of it.
pub struct Append<'a> {
    /// The table.
    pub table: Table,
    /// The snapshot of the table that the rows and advances follow from.
    pub on: &'a Snapshot,
    /// The rows; none if only the advances move.
    pub rows: Option<&'a RecordBatch>,
    /// How far the writer has read once this is committed.
    pub advances: Vec<Advance>,
    /// Name of the operation in the table's history.
    pub operation: &'static str,
    /// Further facts for the table's history.
    pub facts: Map<String, Value>,
}

// === impl Append ===

impl Append<'_> {
    /// Writes the rows to storage, then commits them. Returns the table just after the commit.
    ///
    /// # Errors
    /// `Fenced` if another process has moved one of the applications: nothing was committed, and the files are removed.
    /// `Unavailable` if the files could not be written. An unclear commit is asked about until it is clear.
    pub async fn commit(self, lake: &Lake, metrics: &FollowMetrics) -> Result<Snapshot> {
        self.commit_files(lake, metrics, Vec::new()).await
    }

    /// As [`Append::commit`], together with files of the table that were written before.
    ///
    /// # Errors
    /// As [`Append::commit`].
    pub async fn commit_files(
        self,
        lake: &Lake,
        metrics: &FollowMetrics,
        mut files: Vec<DataFile>,
    ) -> Result<Snapshot> {
        if let Some(rows) = self.rows {
            files.extend(lake.write(self.table, rows).await?.into_iter().map(|written| written.file));
        }
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances: self.advances,
            files,
            operation: self.operation,
            ranges: Vec::new(),
            facts: self.facts,
        };
        match land(&lake.log(self.table), self.on, &commit, &*lake.clock(), metrics).await? {
            Some(snapshot) => Ok(snapshot),
            None => {
                lake.discard(self.table, &commit.files).await;
                Err(Error::fenced(format!("another process has committed to `{}`", self.table.name())))
            }
        }
    }
}

/// Asks a log to take a commit until the answer is clear. Returns the table just after it; none if the writer is fenced.
///
/// # Errors
/// As [`CommitLog::try_commit`].
pub async fn land(
    log: &dyn CommitLog,
    on: &Snapshot,
    commit: &Commit,
    clock: &dyn Clock,
    metrics: &FollowMetrics,
) -> Result<Option<Snapshot>> {
    let unclear = |reason: &str| {
        metrics.retries.inc();
        tracing::warn!(operation = commit.operation, reason, "the outcome of a commit is unknown; trying again");
    };
    settle(clock, || log.try_commit(on, commit), unclear).await
}
