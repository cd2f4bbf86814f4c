//! Commits decoded batches to the tables: the writing half of the exactly-once protocol.
//!
//! * [`Batch`] holds rows, and the offset range by which each partition advanced, with or without rows.
//! * [`Committer`] commits it to `quarantine`, then to `events`, and reports the outcome of each partition.
//! * [`DataStore`] and [`CommitLog`] are its only access to storage, so that tests can run it without any.
//! * `ownership` transfers partitions between committers, `rows` selects rows by their offsets, and `marks` records how far
//!   partitions have been read. `retry` waits for storage.
//!
//! Rules:
//! * The first batch of a partition takes it over with a claim in both tables, and each later commit requires that claim, so
//!   nothing that an earlier owner has in flight can land in either table.
//! * A message in `quarantine` stays there. It may be accepted when it is read again, because time or the limits have changed;
//!   `events` then leaves it out, so that it is in one table only.
//! * A commit with an unknown outcome is retried unchanged, on the same snapshot, until its outcome is known.
//! * A range is committed only if its topic still has the recorded id, because a recreated topic has other messages at the same
//!   offsets. Without an id from the broker, this check is skipped.
//! * A batch stays in memory until its outcome is known. Only the stop token ends the wait, with an error.

mod marks;
mod ownership;
mod retry;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bellwether_base::{Backoff, Clock, Result, SystemClock};
use bellwether_lake::{
    Advance, Commit, CommitLog, DataFile, EncodedRows, Handover, Lake, OffsetsOf, PartitionRange, RowEncoder, Snapshot,
    WrittenFile,
};
use bellwether_tables::{AppId, Table};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

pub use marks::ReadMark;
use ownership::Claim;
use rows::{check, is_within, rows_of};

use crate::topic_partition::TopicPartition;

/// Writes durable data files, which no log entry refers to yet.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// Writes rows to their table.
    ///
    /// # Errors
    /// `Unavailable` is retried; any other kind ends the commit.
    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>>;

    /// Removes files that no log entry will refer to, as far as possible.
    async fn discard(&self, table: Table, files: &[DataFile]);

    /// Returns the offsets of the rows that an application has committed to a table for a partition.
    ///
    /// # Errors
    /// `Unavailable` is retried; any other kind ends the commit.
    async fn offsets(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>>;
}

#[async_trait]
impl DataStore for Lake {
    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        self.store(rows).await
    }

    async fn discard(&self, table: Table, files: &[DataFile]) {
        Self::discard(self, table, files).await;
    }

    async fn offsets(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        self.offsets_of(table, asked).await
    }
}

/// Looks up topic ids, which distinguish a recreated topic from the original.
#[async_trait]
pub trait TopicIds: Send + Sync {
    /// Returns the current ids of topics. A topic without a known id is left out.
    async fn ids(&self, topics: &BTreeSet<String>) -> BTreeMap<String, i64>;
}

/// Observes the progress of the committer, for health and metrics.
pub trait Observer: Send + Sync {
    /// Reports a step that failed or whose outcome is unknown, and that is retried.
    fn retrying(&self, step: &'static str, reason: &str);
    /// Reports a batch that is in `events`.
    fn committed(&self, report: &CommitReport);
}

/// The part of a batch that was read from one partition.
#[derive(Clone, Debug)]
pub struct PartitionBatch {
    pub range: PartitionRange,
    /// Next offset that `events` must record: `range.from`, or `None` for the first range of a partition that was never read.
    pub expected: Option<i64>,
}

/// Decoded rows, and the ranges that they were read from. A range without rows still advances.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Rows of `events`.
    pub events: EncodedRows,
    /// Rows of `quarantine`.
    pub quarantine: EncodedRows,
    /// One entry for each partition.
    pub partitions: Vec<PartitionBatch>,
    /// Topic ids to record if the tables lack them.
    pub topic_ids: BTreeMap<String, i64>,
    /// How far partitions have been read, once the batch is committed.
    pub marks: Vec<ReadMark>,
}

/// A partition that another owner has advanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedPartition {
    pub topic: String,
    pub partition: i32,
    /// Next offset recorded in `events`; `None` if the partition was never read.
    pub next: Option<i64>,
}

/// The outcome of a batch.
#[derive(Clone, Debug, Default)]
pub struct CommitReport {
    /// Ranges that are in the table now.
    pub committed: Vec<PartitionRange>,
    /// Partitions whose rows were dropped because another owner commits them.
    pub fenced: Vec<FencedPartition>,
    /// Ranges whose rows were dropped because their topic was recreated.
    pub recreated: Vec<PartitionRange>,
    /// Rows added to `events`.
    pub event_rows: i64,
    /// Rows added to `quarantine`.
    pub quarantine_rows: i64,
}

/// The storage that a committer writes to.
pub struct CommitTarget {
    pub store: Arc<dyn DataStore>,
    /// Log of `events`.
    pub events: Arc<dyn CommitLog>,
    /// Log of `quarantine`.
    pub quarantine: Arc<dyn CommitLog>,
}

/// Commits batches, one at a time.
pub struct Committer {
    store: Arc<dyn DataStore>,
    events: Arc<dyn CommitLog>,
    quarantine: Arc<dyn CommitLog>,
    job: String,
    handover: Option<Handover>,
    topic_ids: Option<Arc<dyn TopicIds>>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    on_events: Option<Snapshot>,
    on_quarantine: Option<Snapshot>,
    /// Claims on the partitions that this committer has taken over.
    held: BTreeMap<TopicPartition, Claim>,
    /// Pauses while another owner takes the same partitions again and again; none after a commit.
    contest: Option<Backoff>,
}

/// Returns the application id of a partition in `events` and `quarantine`.
pub fn app_id(job: &str, topic: &str, partition: i32) -> String {
    AppId::partition(job, topic, partition).to_string()
}

/// Returns the application id that records a topic's own id.
pub fn topic_app_id(job: &str, topic: &str) -> String {
    AppId::TopicId { job: job.to_owned(), topic: topic.to_owned() }.to_string()
}

// === impl PartitionBatch ===

impl PartitionBatch {
    fn topic_partition(&self) -> TopicPartition {
        TopicPartition::of_range(&self.range)
    }
}

// === impl Committer ===

impl Committer {
    /// Creates a committer for a job. `stop` ends any wait at once.
    pub fn new(
        target: CommitTarget,
        job: impl Into<String>,
        observer: Arc<dyn Observer>,
        stop: CancellationToken,
    ) -> Self {
        let CommitTarget { store, events, quarantine } = target;
        Self {
            store,
            events,
            quarantine,
            job: job.into(),
            handover: None,
            topic_ids: None,
            observer,
            clock: Arc::new(SystemClock),
            stop,
            on_events: None,
            on_quarantine: None,
            held: BTreeMap::new(),
            contest: None,
        }
    }

    /// Creates a committer for the tables of a lake that offers the rows to a reader in the same process.
    pub fn for_lake(
        lake: &Lake,
        job: impl Into<String>,
        handover: Option<Handover>,
        observer: Arc<dyn Observer>,
        stop: CancellationToken,
    ) -> Self {
        let target = CommitTarget {
            store: Arc::new(lake.clone()),
            events: Arc::new(lake.log(Table::Events)),
            quarantine: Arc::new(lake.log(Table::Quarantine)),
        };
        let committer = Self::new(target, job, observer, stop);
        Self { handover, clock: lake.clock(), ..committer }
    }

    /// Uses another clock for waits and unique ids.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Offers the rows of each commit to a reader in the same process.
    #[must_use]
    pub fn with_handover(self, handover: Option<Handover>) -> Self {
        Self { handover, ..self }
    }

    /// Checks before each commit that no topic was recreated.
    #[must_use]
    pub fn with_topic_ids(self, topic_ids: Arc<dyn TopicIds>) -> Self {
        Self { topic_ids: Some(topic_ids), ..self }
    }

    /// Commits a batch to the tables, waiting for storage without limit.
    ///
    /// # Errors
    /// `Unavailable` if stopped while waiting; `Data` or `Bug` if retrying cannot help. Whether the batch has landed is then
    /// unknown; the next owner reads it from the table.
    pub async fn commit(&mut self, batch: Batch) -> Result<CommitReport> {
        check(&batch)?;
        let Batch { events: event_rows, quarantine: quarantine_rows, mut partitions, topic_ids, marks } = batch;
        let mut report = CommitReport::default();
        let mut on = match self.on_events.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.events).await?,
        };
        if partitions.is_empty() {
            self.on_events = Some(self.commit_marks(on, &marks).await?);
            self.observer.committed(&report);
            return Ok(report);
        }
        self.drop_recreated(&on, &mut partitions, &mut report, &topic_ids).await;
        if partitions.iter().any(|part| !self.is_at(&on, part)) {
            on = self.load(&self.events).await?;
        }
        self.drop_lost(&on, &mut partitions, &mut report, |part| self.is_at(&on, part));
        on = self.take_over(on, &mut partitions, &mut report).await?;
        let event_rows = self.without_rejected(&event_rows, &partitions)?;
        let quarantine_rows = self.without_rejected(&quarantine_rows, &partitions)?;
        if quarantine_rows.rows() > 0 && !partitions.is_empty() {
            let lost = self.commit_quarantine(&quarantine_rows, &partitions, &mut report).await?;
            if !lost.is_empty() {
                on = self.load(&self.events).await?;
                self.drop_lost(&on, &mut partitions, &mut report, |part| !lost.contains(&part.topic_partition()));
            }
        }
        while !partitions.is_empty() {
            let files = self.write(&rows_of(&event_rows, &partitions)?).await?;
            let mut commit = self.commit_of("ingest", &files, &partitions, |part| (part.expected, part.range.next));
            commit.advances.extend(self.unknown_topics(&on, &partitions, &topic_ids));
            commit.advances.extend(self.mark_advances(&on, &marks, &report));
            match self.settle(&self.events, &on, &commit, "events").await? {
                (snapshot, true) => {
                    on = snapshot;
                    report.event_rows = commit.files.iter().map(|file| file.rows).sum();
                    if let Some(handover) = &self.handover {
                        handover.offer(commit.uuid, files);
                    }
                    break;
                }
                (snapshot, false) => {
                    on = snapshot;
                    self.store.discard(Table::Events, &commit.files).await;
                    let keeps = |part: &PartitionBatch| self.is_at(&on, part) && self.holds(&on, part);
                    self.drop_lost(&on, &mut partitions, &mut report, keeps);
                }
            }
        }
        self.on_events = Some(on);
        self.forget_passed(&partitions);
        report.committed = partitions.into_iter().map(|part| part.range).collect();
        self.contest = None;
        self.observer.committed(&report);
        Ok(report)
    }

    /// Commits the rejected messages, and returns the partitions that another owner has taken over meanwhile.
    async fn commit_quarantine(
        &mut self,
        rows: &EncodedRows,
        partitions: &[PartitionBatch],
        report: &mut CommitReport,
    ) -> Result<BTreeSet<TopicPartition>> {
        let mut on = match self.on_quarantine.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.quarantine).await?,
        };
        let present = |part: &&PartitionBatch| rows.spans().iter().any(|span| is_within(span, &part.range));
        let affected = partitions.iter().filter(present).cloned();
        // If an earlier owner has rejected messages beyond the range, the recorded offset stays, and the rows belong to no
        // range: they get a commit of their own.
        let behind = |part: &PartitionBatch| on.next(&self.app_of(part)) >= Some(part.range.next);
        let (behind, ahead): (Vec<PartitionBatch>, Vec<PartitionBatch>) = affected.partition(behind);
        let mut lost = BTreeSet::new();
        for (mut mine, moves) in [(ahead, true), (behind, false)] {
            while !mine.is_empty() {
                let files = self.write(&rows_of(rows, &mine)?).await?;
                let commit = self.rejecting(&files, &mine, &on, moves);
                let (snapshot, landed) = self.settle(&self.quarantine, &on, &commit, "quarantine").await?;
                if landed {
                    on = snapshot;
                    report.quarantine_rows += commit.files.iter().map(|file| file.rows).sum::<i64>();
                    break;
                }
                self.store.discard(Table::Quarantine, &commit.files).await;
                let keeps = |part: &PartitionBatch| {
                    self.holds(&snapshot, part) && snapshot.next(&self.app_of(part)) == on.next(&self.app_of(part))
                };
                let gone: Vec<TopicPartition> =
                    mine.iter().filter(|part| !keeps(part)).map(PartitionBatch::topic_partition).collect();
                mine.retain(|part| !gone.contains(&part.topic_partition()));
                self.held.retain(|place, _| !gone.contains(place));
                lost.extend(gone);
                on = snapshot;
            }
        }
        self.on_quarantine = Some(on);
        Ok(lost)
    }

    /// Returns the advances that record topic ids missing in a snapshot.
    fn unknown_topics(
        &self,
        on: &Snapshot,
        partitions: &[PartitionBatch],
        ids: &BTreeMap<String, i64>,
    ) -> Vec<Advance> {
        let read = |topic: &str| partitions.iter().any(|part| part.range.topic == topic);
        ids.iter()
            .map(|(topic, id)| (topic, topic_app_id(&self.job, topic), *id))
            .filter(|(topic, app_id, _)| read(topic) && on.next(app_id).is_none())
            .map(|(_, app_id, next)| Advance { app_id, expected: None, next })
            .collect()
    }

    fn app_of(&self, part: &PartitionBatch) -> String {
        app_id(&self.job, &part.range.topic, part.range.partition)
    }

    fn is_at(&self, on: &Snapshot, part: &PartitionBatch) -> bool {
        on.next(&self.app_of(part)) == part.expected
    }

    /// Moves partitions of recreated topics into the report. The batch was read before this check, so if a topic still has its
    /// id, all messages are from that topic.
    async fn drop_recreated(
        &self,
        on: &Snapshot,
        partitions: &mut Vec<PartitionBatch>,
        report: &mut CommitReport,
        first_seen: &BTreeMap<String, i64>,
    ) {
        let Some(topic_ids) = &self.topic_ids else { return };
        let known = |topic: &str| on.next(&topic_app_id(&self.job, topic)).or_else(|| first_seen.get(topic).copied());
        let topics: BTreeSet<String> =
            partitions.iter().map(|part| &part.range.topic).filter(|topic| known(topic).is_some()).cloned().collect();
        if topics.is_empty() {
            return;
        }
        let ids = tokio::select! {
            biased; // Stopping wins over waiting.
            () = self.stop.cancelled() => return,
            ids = topic_ids.ids(&topics) => ids,
        };
        let recreated = |part: &mut PartitionBatch| {
            ids.get(&part.range.topic).is_some_and(|id| known(&part.range.topic) != Some(*id))
        };
        report.recreated.extend(partitions.extract_if(.., recreated).map(|part| part.range));
    }

    /// Moves partitions lost to another owner into the report.
    fn drop_lost(
        &self,
        on: &Snapshot,
        partitions: &mut Vec<PartitionBatch>,
        report: &mut CommitReport,
        keeps: impl Fn(&PartitionBatch) -> bool,
    ) {
        partitions.retain(|part| {
            let kept = keeps(part);
            if !kept {
                let next = on.next(&self.app_of(part));
                report.fenced.push(FencedPartition {
                    topic: part.range.topic.clone(),
                    partition: part.range.partition,
                    next,
                });
            }
            kept
        });
    }

    /// Returns a commit of partitions that requires the claims on them.
    fn commit_of(
        &self,
        operation: &'static str,
        files: &[WrittenFile],
        partitions: &[PartitionBatch],
        advance: impl Fn(&PartitionBatch) -> (Option<i64>, i64),
    ) -> Commit {
        let advances = partitions.iter().map(|part| {
            let (expected, next) = advance(part);
            Advance { app_id: self.app_of(part), expected, next }
        });
        Commit {
            uuid: self.clock.unique_id(),
            advances: advances.chain(self.claims(partitions)).collect(),
            files: files.iter().map(|file| file.file.clone()).collect(),
            operation,
            ranges: partitions.iter().map(|part| part.range.clone()).collect(),
            facts: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests;
