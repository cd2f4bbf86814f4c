//! The exactly-once decision: everything the protocol needs of a table, behind one small trait.
//!
//! A commit adds files and moves a set of *applications* (one per Kafka partition, or one per aggregate shard) from an
//! expected number to the next, in one atomic step. The expectation is compared **on the snapshot the commit is built
//! on**: refreshing in between would compare with one state and commit on another.
//!
//! Three answers are possible, and the third is the one that others get wrong:
//! * [`Outcome::Committed`]: it is in the table.
//! * [`Outcome::Fenced`]: another owner has moved one of our applications; nothing of ours is in the table.
//! * [`Outcome::Unknown`]: nobody can tell yet. Calling [`CommitLog::try_commit`] again with the same snapshot and the
//!   same commit finds out, because a commit carries its own id and is looked up by it in the log.

pub(crate) mod checkpoint;
pub mod delta;
pub mod faulty;
pub mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::form::Form;
use crate::log::{AddedFile, LogEntry};
use bellwether_base::Clock;
use bellwether_base::Result;

/// Pauses between two questions about one commit.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A table's version and the number each application has reached in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Version of the table.
    pub version: i64,
    next: Arc<BTreeMap<String, i64>>,
    /// Protocol and metadata of the table, if known.
    form: Arc<Form>,
}

impl Snapshot {
    /// A snapshot of known content.
    pub fn new(version: i64, next: BTreeMap<String, i64>) -> Self {
        Self { version, next: Arc::new(next), form: Arc::default() }
    }

    /// The number an application has reached: its next offset, or the next version it will read.
    pub fn next(&self, app_id: &str) -> Option<i64> {
        self.next.get(app_id).copied()
    }

    /// All applications.
    pub fn apps(&self) -> impl Iterator<Item = (&str, i64)> {
        self.next.iter().map(|(app, next)| (app.as_str(), *next))
    }

    /// The snapshot after one more log entry.
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

    /// The snapshot after what is said in a log entry.
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

    /// The applications that are not where a commit's steps expect them.
    pub(crate) fn moved(&self, advances: &[Advance]) -> Vec<String> {
        advances
            .iter()
            .filter(|advance| self.next(&advance.app_id) != advance.expected)
            .map(|advance| advance.app_id.clone())
            .collect()
    }
}

/// One application's step. One that ends where it begins is a condition: it must hold, and nothing is written of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The application.
    pub app_id: String,
    /// Where it must be on the snapshot; none: never seen.
    pub expected: Option<i64>,
    /// Where the commit puts it.
    pub next: i64,
}

/// What a commit took from one Kafka partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset of the range.
    pub from: i64,
    /// Offset after the range.
    pub next: i64,
    /// Offset after the last message the broker held, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<i64>,
    /// Newest event time in the range, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_event_micros: Option<i64>,
    /// Offsets of the range that held no message (transactions, compaction), or blank lines of a file; none where the
    /// writer did not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<i64>,
}

/// A data file, written and durable, not yet named by the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFile {
    /// Path under the table.
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// Rows.
    pub rows: i64,
    /// Value of the partition column, where the table has one.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Delta statistics, JSON text.
    pub stats: String,
    /// Milliseconds since the epoch.
    pub modification_time: i64,
}

impl DataFile {
    /// The file as the log will name it.
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

/// One atomic step of a table.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its own id, by which it is found again in the log.
    pub uuid: Uuid,
    /// Applications it moves.
    pub advances: Vec<Advance>,
    /// Files it adds.
    pub files: Vec<DataFile>,
    /// What it is, for the table's history.
    pub operation: &'static str,
    /// What it took from each Kafka partition.
    pub ranges: Vec<PartitionRange>,
    /// Further facts for the table's history.
    pub facts: Map<String, Value>,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table; the snapshot is the table just after it.
    Committed(Snapshot),
    /// Another owner moved these applications; nothing was committed.
    Fenced {
        /// The applications that moved.
        apps: Vec<String>,
        /// The table as it is now.
        snapshot: Snapshot,
    },
    /// Nobody can tell yet: ask again with the same snapshot and commit.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Everything the exactly-once protocol needs of a table.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Reads the newest version and every application's number, from storage.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the log is torn or has a hole.
    async fn load(&self) -> Result<Snapshot>;

    /// Commits on a snapshot if every application is where the commit expects it.
    ///
    /// # Errors
    /// Only for a commit that can never succeed: `Data` where the table has become one that this program does not write,
    /// or its log is torn; `Fenced` where the log no longer tells what became of it. What may have happened is
    /// [`Outcome::Unknown`].
    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome>;
}

/// Asks until it is clear what became of a commit, the longer apart the longer it takes: `ask` calls
/// [`CommitLog::try_commit`] or [`DeltaLog::try_replace`](delta::DeltaLog::try_replace) with the same snapshot and the same
/// commit each time; `unclear` is told why it is not clear yet. None where another owner was first.
///
/// # Errors
/// As what it asks.
pub async fn settle<'a>(
    clock: &dyn Clock,
    ask: impl Fn() -> BoxFuture<'a, Result<Outcome>>,
    unclear: impl Fn(&str),
) -> Result<Option<Snapshot>> {
    let mut pause = FIRST_PAUSE;
    loop {
        match ask().await? {
            Outcome::Committed(snapshot) => return Ok(Some(snapshot)),
            Outcome::Fenced { .. } => return Ok(None),
            Outcome::Unknown { reason } => {
                unclear(&reason);
                clock.sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
