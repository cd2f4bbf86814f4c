//! How far partitions have been read, said in commits to `events` (see [`bellwether_lake::reading`]).
//!
//! A mark states a fact that later commits cannot make untrue: it asks for no claim, and where another worker has said more
//! of a partition, that stands.

use bellwether_base::Result;
use bellwether_lake::reading::{NOT_READ, end_app, read_app};
use bellwether_lake::{Advance, Commit, Snapshot};
use bellwether_tables::Table;

use super::{Batch, CommitReport, Committer, EncodedRows, RowEncoder, app_id};

/// How far one partition has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The job that reads it; none: the committer's own.
    pub job: Option<String>,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset after the last message that the broker holds; [`NOT_READ`]: nobody reads it any more.
    pub end: i64,
    /// All that the broker held at this moment is in the tables, microseconds since the epoch; none: that is not so yet.
    pub read_to_micros: Option<i64>,
}

impl Mark {
    /// Nobody reads a partition any more.
    pub fn not_read(job: &str, topic: &str, partition: i32) -> Self {
        let (job, topic) = (Some(job.to_owned()), topic.to_owned());
        Self { job, topic, partition, end: NOT_READ, read_to_micros: None }
    }
}

impl Batch {
    /// A batch of nothing but marks.
    ///
    /// # Errors
    /// `Bug` where nothing cannot be encoded.
    pub(crate) fn of_marks(marks: Vec<Mark>) -> Result<Self> {
        let nothing = |table| -> Result<EncodedRows> { RowEncoder::new(table).finish() };
        let (events, quarantine) = (nothing(Table::Events)?, nothing(Table::Quarantine)?);
        Ok(Self { events, quarantine, touched: Vec::new(), topic_ids: std::collections::BTreeMap::new(), marks })
    }
}

// === impl Committer ===

impl Committer {
    /// Commits marks alone.
    pub(super) async fn commit_marks(&self, mut on: Snapshot, marks: &[Mark]) -> Result<Snapshot> {
        loop {
            let advances = self.marking(&on, marks, &CommitReport::default());
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

    /// The steps of marks, but for those of partitions that a commit has dropped: its rows were to bring them there.
    pub(super) fn marking(&self, on: &Snapshot, marks: &[Mark], report: &CommitReport) -> Vec<Advance> {
        let dropped = |mark: &&Mark| {
            let fenced = report.fenced.iter().any(|one| one.topic == mark.topic && one.partition == mark.partition);
            fenced || report.remade.iter().any(|one| one.topic == mark.topic && one.partition == mark.partition)
        };
        let mut advances = Vec::new();
        for mark in marks.iter().filter(|mark| !dropped(mark)) {
            let app = app_id(mark.job.as_deref().unwrap_or(&self.job), &mark.topic, mark.partition);
            let (end, read) = (end_app(&app), read_app(&app));
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
