//! Records how far partitions have been read, in commits to `events` (see [`bellwether_lake::reading`]).
//!
//! A mark states a fact that later commits cannot invalidate, so it requires no claim. A later mark of another worker takes
//! precedence.

use bellwether_base::Result;
use bellwether_lake::reading::NOT_READ;
use bellwether_lake::{Advance, Commit, Snapshot};
use bellwether_tables::{AppId, PartitionId, Table};

use super::{Batch, CommitReport, Committer, EncodedRows, RowEncoder};

/// How far one partition has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// The job that reads it; `None` for the committer's own.
    pub job: Option<String>,
    pub topic: String,
    pub partition: i32,
    /// Offset after the last message in the broker, or [`NOT_READ`] if the partition is no longer read.
    pub end: i64,
    /// The tables hold every message that the broker held at this time, microseconds since the epoch; `None` if unknown.
    pub read_to_micros: Option<i64>,
}

impl ReadMark {
    /// Creates the mark of a partition that is no longer read.
    pub fn not_read(job: &str, topic: &str, partition: i32) -> Self {
        let (job, topic) = (Some(job.to_owned()), topic.to_owned());
        Self { job, topic, partition, end: NOT_READ, read_to_micros: None }
    }
}

impl Batch {
    /// Creates a batch of marks without rows.
    ///
    /// # Errors
    /// `Bug` if an empty table cannot be encoded.
    pub(crate) fn of_marks(marks: Vec<ReadMark>) -> Result<Self> {
        let nothing = |table| -> Result<EncodedRows> { RowEncoder::new(table).finish() };
        let (events, quarantine) = (nothing(Table::Events)?, nothing(Table::Quarantine)?);
        Ok(Self { events, quarantine, partitions: Vec::new(), topic_ids: std::collections::BTreeMap::new(), marks })
    }
}

// === impl Committer ===

impl Committer {
    /// Commits marks without a batch.
    pub(super) async fn commit_marks(&self, mut on: Snapshot, marks: &[ReadMark]) -> Result<Snapshot> {
        loop {
            let advances = self.mark_advances(&on, marks, &CommitReport::default());
            if advances.is_empty() {
                return Ok(on);
            }
            let commit = Commit { advances, ..self.commit_of("mark", &[], &[], |_| (None, 0)) };
            let (snapshot, landed) = self.settle(&self.events, &on, &commit, "mark").await?;
            on = snapshot;
            if landed {
                return Ok(on);
            }
        }
    }

    /// Returns the advances of marks. Marks of dropped partitions are left out, because they count on the dropped rows.
    pub(super) fn mark_advances(&self, on: &Snapshot, marks: &[ReadMark], report: &CommitReport) -> Vec<Advance> {
        let dropped = |mark: &&ReadMark| {
            let fenced = report.fenced.iter().any(|part| part.topic == mark.topic && part.partition == mark.partition);
            fenced || report.recreated.iter().any(|part| part.topic == mark.topic && part.partition == mark.partition)
        };
        let mut advances = Vec::new();
        for mark in marks.iter().filter(|mark| !dropped(mark)) {
            let job = mark.job.as_deref().unwrap_or(&self.job);
            let partition = PartitionId::new(job, &mark.topic, mark.partition);
            let (end, read) = (AppId::End(partition.clone()).to_string(), AppId::Read(partition).to_string());
            let known = on.next(&end);
            if known != Some(mark.end) {
                advances.push(Advance { app_id: end, expected: known, next: mark.end });
            }
            let known = on.next(&read);
            if let Some(micros) = mark.read_to_micros.filter(|micros| known.is_none_or(|known| known < *micros)) {
                advances.push(Advance { app_id: read, expected: known, next: micros });
            }
        }
        advances
    }
}
