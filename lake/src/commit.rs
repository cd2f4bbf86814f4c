//! The exactly-once decision, behind one small trait that covers all that the protocol needs of a table.
//!
//! A commit adds files and advances a set of *applications* (one per Kafka partition, or one per aggregate shard) from an
//! expected number to the next, in one atomic step. The expected numbers are compared **on the snapshot that the commit is
//! built on**: refreshing in between would compare with one state and commit on another.
//!
//! A commit has three possible outcomes:
//! * [`Outcome::Committed`]: the commit is in the table.
//! * [`Outcome::Fenced`]: another owner has advanced one of our applications; the commit is not in the table.
//! * [`Outcome::Unknown`]: the store's answer was lost. Calling [`CommitLog::try_commit`] again with the same snapshot and
//!   the same commit resolves it, because a commit carries its own id and is looked up by it in the log.

pub(crate) mod checkpoint;
pub mod delta;
pub mod faulty;
pub mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::form::Form;
use crate::log::{AddedFile, LogEntry};
use bellwether_base::{Backoff, Clock, Result};

/// A version of a table, and the number that each application has reached in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Version of the table.
    pub version: i64,
    next: Arc<BTreeMap<String, i64>>,
    /// Protocol and metadata of the table, if known.
    form: Arc<Form>,
}

impl Snapshot {
    /// Creates a snapshot from known content.
    pub fn new(version: i64, next: BTreeMap<String, i64>) -> Self {
        Self { version, next: Arc::new(next), form: Arc::default() }
    }

    /// Returns the number that an application has reached: its next offset, or the version that it reads next.
    pub fn next(&self, app_id: &str) -> Option<i64> {
        self.next.get(app_id).copied()
    }

    /// Returns all applications with their numbers.
    pub fn apps(&self) -> impl Iterator<Item = (&str, i64)> {
        self.next.iter().map(|(app, next)| (app.as_str(), *next))
    }

    /// Returns the snapshot after one more log entry, which advances these applications.
    #[must_use]
    pub fn after(&self, version: i64, txns: impl IntoIterator<Item = (String, i64)>) -> Self {
        let mut next = Arc::clone(&self.next);
        for (app, number) in txns {
            if next.get(&app) != Some(&number) {
                Arc::make_mut(&mut next).insert(app, number);
            }
        }
        Self { version, next, form: Arc::clone(&self.form) }
    }

    /// Applies a log entry.
    pub(crate) fn with(&self, entry: LogEntry) -> Self {
        let form = match Form::is_changed_by(&entry) {
            true => Arc::new(self.form.after(&entry)),
            false => Arc::clone(&self.form),
        };
        Self { form, ..self.after(entry.version, entry.txns) }
    }

    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Returns the applications whose numbers differ from the expected ones.
    pub(crate) fn moved(&self, advances: &[Advance]) -> Vec<String> {
        advances
            .iter()
            .filter(|advance| self.next(&advance.app_id) != advance.expected)
            .map(|advance| advance.app_id.clone())
            .collect()
    }
}

/// The advance of one application. If `next` equals `expected`, it is only a condition: it must hold, and is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    pub app_id: String,
    /// Number that it must have on the snapshot; `None` if the table must not know the application yet.
    pub expected: Option<i64>,
    /// Number that the commit gives it.
    pub next: i64,
}

/// The offset range that a commit covers in one Kafka partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    pub topic: String,
    pub partition: i32,
    /// First offset of the range.
    pub from: i64,
    /// Offset after the range.
    pub next: i64,
    /// Offset after the last message that the broker held, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<i64>,
    /// Newest event time in the range, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_event_micros: Option<i64>,
    /// Number of offsets in the range that held no message (transactions, compaction), or of blank lines of a file; `None`
    /// if the writer did not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<i64>,
}

/// A durable data file that no log entry names yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFile {
    /// Path, relative to the table.
    pub path: String,
    /// Size in bytes.
    pub size: i64,
    pub rows: i64,
    /// Value of the partition column, if the table has one.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Delta statistics as JSON.
    pub stats: String,
    /// Milliseconds since the epoch.
    pub modification_time: i64,
}

impl DataFile {
    /// Returns the file as the log will name it.
    pub fn as_added(&self) -> AddedFile {
        AddedFile {
            path: self.path.clone(),
            size: self.size,
            rows: Some(self.rows),
            partition_values: self.partition_values.clone(),
            data_change: true,
            stats: Some(self.stats.clone()),
        }
    }
}

/// One atomic change of a table.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its own id, by which it can be found in the log.
    pub uuid: Uuid,
    /// Advances of applications, and conditions.
    pub advances: Vec<Advance>,
    /// Files to add.
    pub files: Vec<DataFile>,
    /// Name of the operation, for the table's history.
    pub operation: &'static str,
    /// Offset range of each Kafka partition.
    pub ranges: Vec<PartitionRange>,
    /// Further facts for the table's history.
    pub facts: Map<String, Value>,
}

/// The outcome of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit is in the table; the snapshot is the table just after it.
    Committed(Snapshot),
    /// Another owner advanced these applications; the commit is not in the table.
    Fenced {
        apps: Vec<String>,
        /// The newest snapshot of the table.
        snapshot: Snapshot,
    },
    /// The outcome is not known yet: try again with the same snapshot and the same commit.
    Unknown { reason: String },
}

/// The access to a table that the exactly-once protocol needs.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Reads the newest version and the number of every application from storage.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the log is torn or has a gap.
    async fn load(&self) -> Result<Snapshot>;

    /// Commits on a snapshot if every application has the number that the commit expects.
    ///
    /// # Errors
    /// Fails only if the commit can never succeed: `Data` if this program can no longer write to the table, or its log is
    /// torn; `Fenced` if the outcome can no longer be found in the log. If the commit may have landed, the result is
    /// [`Outcome::Unknown`].
    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome>;
}

/// Repeats a commit with growing pauses until its outcome is known, and returns the new snapshot, or `None` if another
/// owner was first. `ask` calls [`CommitLog::try_commit`] or [`DeltaLog::try_replace`](delta::DeltaLog::try_replace) with
/// the same snapshot and the same commit each time; `unclear` receives the reason of each unknown outcome.
///
/// # Errors
/// Those of `ask`.
pub async fn settle<'a>(
    clock: &dyn Clock,
    ask: impl Fn() -> BoxFuture<'a, Result<Outcome>>,
    unclear: impl Fn(&str),
) -> Result<Option<Snapshot>> {
    let mut backoff = Backoff::new(clock);
    loop {
        match ask().await? {
            Outcome::Committed(snapshot) => return Ok(Some(snapshot)),
            Outcome::Fenced { .. } => return Ok(None),
            Outcome::Unknown { reason } => {
                unclear(&reason);
                backoff.wait(clock).await;
            }
        }
    }
}
