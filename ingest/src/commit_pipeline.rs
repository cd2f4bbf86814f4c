//! From a decoded batch to the tables: the writing half of the exactly-once protocol.
//!
//! * [`Batch`] is what was read: rows, and the offset range each partition advanced by, rows or none.
//! * [`Committer`] puts it into `quarantine`, then `events`, and says what became of each partition.
//! * [`DataStore`] and [`CommitLog`] are all it needs of storage, so that it can be driven without any.
//! * `ownership` is how a partition changes hands; `rows` looks at coordinates of rows; `marks` says how far was read.
//!
//! Rules:
//! * A partition's first batch takes it over with a claim in both tables, and each later commit asks for that claim: what
//!   an earlier owner still has on its way can land in neither table any more.
//! * A message that `quarantine` holds stays there. The verdict on it may differ when it is read again, since time or the
//!   limits have moved on; `events` then leaves it out, so that it is in one table only.
//! * An unclear result is asked again with the same commit on the same snapshot until it is clear.
//! * What was read is committed only where its topic still has the id that the tables know: one that was deleted and made
//!   anew has other messages at the same offsets. Where no broker tells ids, or none answers, nobody can know.
//! * A batch stays in memory until its outcome is known. Only the stop token ends the waiting, with an error.

mod marks;
mod ownership;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Clock, Error, ErrorKind, Result, SystemClock};
use bellwether_lake::{
    Advance, Commit, CommitLog, DataFile, EncodedRows, Handover, Lake, OffsetsOf, Outcome, PartitionRange, RowEncoder,
    Snapshot, WrittenFile,
};
use bellwether_tables::Table;
use serde_json::Map;
use tokio_util::sync::CancellationToken;

pub use marks::Mark;
use ownership::{Held, Place, place_of};
use rows::{check, is_of, of};

/// First pause after a failure: short, since most failures are one lost response.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: progress resumes within this time after storage is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Writes durable data files that no log names yet.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// Writes rows to their table.
    ///
    /// # Errors
    /// `Unavailable` is tried again; any other kind ends the commit.
    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>>;

    /// Removes files that will never be named, as far as that is possible.
    async fn discard(&self, table: Table, files: &[DataFile]);

    /// Offsets of a partition, from one on, of which an application has committed rows to a table.
    ///
    /// # Errors
    /// `Unavailable` is tried again; any other kind ends the commit.
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

/// Tells a topic from another one that has its name.
#[async_trait]
pub trait TopicIds: Send + Sync {
    /// The id that each of these topics has at this moment. A topic whose id nobody tells is left out.
    async fn ids(&self, topics: &BTreeSet<String>) -> BTreeMap<String, i64>;
}

/// Hears what the committer waits for, for health and metrics.
pub trait Observer: Send + Sync {
    /// A step failed or is unclear, and will be tried again.
    fn retrying(&self, what: &'static str, reason: &str);
    /// `events` holds the batch.
    fn committed(&self, report: &CommitReport);
}

/// What was read from one partition.
#[derive(Clone, Debug)]
pub struct Touched {
    /// The offsets.
    pub range: PartitionRange,
    /// Where `events` must stand: `range.from`, or none for the first range of a partition that was never read.
    pub expected: Option<i64>,
}

/// Decoded rows and the ranges they were read from. A range without rows still advances.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Rows of `events`.
    pub events: EncodedRows,
    /// Rows of `quarantine`.
    pub quarantine: EncodedRows,
    /// One entry for each partition.
    pub touched: Vec<Touched>,
    /// Ids of topics, to be remembered where the tables do not know them yet.
    pub topic_ids: BTreeMap<String, i64>,
    /// How far partitions have been read, once this is committed.
    pub marks: Vec<Mark>,
}

/// A partition that another owner has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedPartition {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Where `events` truly stands; none: never read.
    pub next: Option<i64>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct CommitReport {
    /// Ranges that are in the table now.
    pub committed: Vec<PartitionRange>,
    /// Partitions whose rows were dropped, because another owner commits them.
    pub fenced: Vec<FencedPartition>,
    /// Ranges whose rows were dropped, because they may be another topic's than the one that the tables know by its name.
    pub remade: Vec<PartitionRange>,
    /// Rows that reached `events`.
    pub event_rows: i64,
    /// Rows that reached `quarantine`.
    pub quarantine_rows: i64,
}

/// Commits batches, one after the other.
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
    first_pause: Duration,
    on_events: Option<Snapshot>,
    on_quarantine: Option<Snapshot>,
    /// Partitions that this committer has taken over.
    held: BTreeMap<Place, Held>,
}

/// The application id of a partition in `events` and `quarantine`.
pub fn app_id(job: &str, topic: &str, partition: i32) -> String {
    format!("{job}/{topic}/{partition}")
}

/// The application id under which a topic's own id is kept.
pub fn topic_app_id(job: &str, topic: &str) -> String {
    format!("{job}/{topic}#id")
}

// === impl Committer ===

impl Committer {
    /// Commits for a job. `stop` ends any waiting at once.
    pub fn new(
        store: Arc<dyn DataStore>,
        events: Arc<dyn CommitLog>,
        quarantine: Arc<dyn CommitLog>,
        job: impl Into<String>,
        observer: Arc<dyn Observer>,
        stop: CancellationToken,
    ) -> Self {
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
            first_pause: FIRST_PAUSE,
            on_events: None,
            on_quarantine: None,
            held: BTreeMap::new(),
        }
    }

    /// Commits to the tables of a lake, and offers the rows to a reader in the same process.
    pub fn for_lake(
        lake: &Lake,
        job: impl Into<String>,
        handover: Option<Handover>,
        observer: Arc<dyn Observer>,
        stop: CancellationToken,
    ) -> Self {
        let events = Arc::new(lake.log(Table::Events));
        let quarantine = Arc::new(lake.log(Table::Quarantine));
        let committer = Self::new(Arc::new(lake.clone()), events, quarantine, job, observer, stop);
        Self { handover, clock: lake.clock(), ..committer }
    }

    /// Waits and takes names by a clock of the caller's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Offers the rows of each commit to a reader in the same process.
    #[must_use]
    pub fn with_handover(self, handover: Option<Handover>) -> Self {
        Self { handover, ..self }
    }

    /// Asks before each commit whether topics are still those that were read.
    #[must_use]
    pub fn with_topic_ids(self, topic_ids: Arc<dyn TopicIds>) -> Self {
        Self { topic_ids: Some(topic_ids), ..self }
    }

    /// Puts a batch into the tables, waiting for storage as long as it takes.
    ///
    /// # Errors
    /// `Unavailable` when stopped while waiting; `Data` or `Bug` where no waiting can help. The batch may then have
    /// landed or not, and the next owner finds out from the table.
    pub async fn commit(&mut self, batch: Batch) -> Result<CommitReport> {
        check(&batch)?;
        let Batch { events: event_rows, quarantine: quarantine_rows, mut touched, topic_ids, marks } = batch;
        let mut report = CommitReport::default();
        let mut on = match self.on_events.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.events).await?,
        };
        if touched.is_empty() {
            self.on_events = Some(self.commit_marks(on, &marks).await?);
            self.observer.committed(&report);
            return Ok(report);
        }
        self.drop_remade(&on, &mut touched, &mut report, &topic_ids).await;
        if touched.iter().any(|one| !self.stands(&on, one)) {
            on = self.load(&self.events).await?;
        }
        self.drop_lost(&on, &mut touched, &mut report, |one| self.stands(&on, one));
        on = self.take_over(on, &mut touched, &mut report).await?;
        let event_rows = self.without_rejected(&event_rows, &touched)?;
        let quarantine_rows = self.without_rejected(&quarantine_rows, &touched)?;
        if quarantine_rows.rows() > 0 && !touched.is_empty() {
            let lost = self.commit_quarantine(&quarantine_rows, &touched, &mut report).await?;
            if !lost.is_empty() {
                on = self.load(&self.events).await?;
                self.drop_lost(&on, &mut touched, &mut report, |one| !lost.contains(&place_of(one)));
            }
        }
        while !touched.is_empty() {
            let files = self.write(&of(&event_rows, &touched)?).await?;
            let mut commit = self.commit_of("ingest", &files, &touched, |one| (one.expected, one.range.next));
            commit.advances.extend(self.unknown_topics(&on, &touched, &topic_ids));
            commit.advances.extend(self.marking(&on, &marks, &report));
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
                    let keeps = |one: &Touched| self.stands(&on, one) && self.holds(&on, one);
                    self.drop_lost(&on, &mut touched, &mut report, keeps);
                }
            }
        }
        self.on_events = Some(on);
        self.passed(&touched);
        report.committed = touched.into_iter().map(|one| one.range).collect();
        self.observer.committed(&report);
        Ok(report)
    }

    /// Writes the rejected messages, and returns the partitions that another owner has taken over meanwhile.
    async fn commit_quarantine(
        &mut self,
        rows: &EncodedRows,
        touched: &[Touched],
        report: &mut CommitReport,
    ) -> Result<BTreeSet<Place>> {
        let mut on = match self.on_quarantine.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.quarantine).await?,
        };
        let present = |one: &&Touched| rows.spans().iter().any(|span| is_of(span, &one.range));
        let concerned = touched.iter().filter(present).cloned();
        // Where an earlier owner has rejected messages beyond the range, the number stays where it is, and such rows
        // are no range's: they get a commit of their own.
        let behind = |one: &Touched| on.next(&self.app_of(one)) >= Some(one.range.next);
        let (behind, ahead): (Vec<Touched>, Vec<Touched>) = concerned.partition(behind);
        let mut lost = BTreeSet::new();
        for (mut mine, moves) in [(ahead, true), (behind, false)] {
            while !mine.is_empty() {
                let files = self.write(&of(rows, &mine)?).await?;
                let commit = self.rejecting(&files, &mine, &on, moves);
                let (snapshot, landed) = self.settle(&self.quarantine, &on, &commit, "quarantine").await?;
                if landed {
                    on = snapshot;
                    report.quarantine_rows += commit.files.iter().map(|file| file.rows).sum::<i64>();
                    break;
                }
                self.store.discard(Table::Quarantine, &commit.files).await;
                let keeps = |one: &Touched| {
                    self.holds(&snapshot, one) && snapshot.next(&self.app_of(one)) == on.next(&self.app_of(one))
                };
                let gone: Vec<Place> = mine.iter().filter(|one| !keeps(one)).map(place_of).collect();
                mine.retain(|one| !gone.contains(&place_of(one)));
                self.held.retain(|place, _| !gone.contains(place));
                lost.extend(gone);
                on = snapshot;
            }
        }
        self.on_quarantine = Some(on);
        Ok(lost)
    }

    /// Asks until the outcome is clear: the newest snapshot, and whether the commit is in it.
    async fn settle(
        &self,
        log: &Arc<dyn CommitLog>,
        on: &Snapshot,
        commit: &Commit,
        what: &'static str,
    ) -> Result<(Snapshot, bool)> {
        let mut pause = self.first_pause;
        loop {
            let reason = match log.try_commit(on, commit).await {
                Ok(Outcome::Committed(snapshot)) => return Ok((snapshot, true)),
                Ok(Outcome::Fenced { snapshot, .. }) => return Ok((snapshot, false)),
                Ok(Outcome::Unknown { reason }) => reason,
                Err(error) if error.kind() == ErrorKind::Unavailable => error.chain(),
                Err(error) => return Err(error),
            };
            self.wait(what, &reason, &mut pause).await?;
        }
    }

    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        if rows.rows() == 0 {
            return Ok(Vec::new());
        }
        let mut pause = self.first_pause;
        loop {
            match self.store.write(rows).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("write", &error.chain(), &mut pause).await?;
                }
                done => return done,
            }
        }
    }

    async fn load(&self, log: &Arc<dyn CommitLog>) -> Result<Snapshot> {
        let mut pause = self.first_pause;
        loop {
            match log.load().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("load", &error.chain(), &mut pause).await?;
                }
                done => return done,
            }
        }
    }

    async fn wait(&self, what: &'static str, reason: &str, pause: &mut Duration) -> Result<()> {
        self.observer.retrying(what, reason);
        tokio::select! {
            biased; // Stopping wins over waiting.
            () = self.stop.cancelled() => {
                Err(Error::unavailable(format!("stopped while retrying `{what}`: {reason}")))
            }
            () = self.clock.sleep(*pause) => {
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                Ok(())
            }
        }
    }

    /// Steps that remember the ids of topics that a snapshot does not know.
    fn unknown_topics(&self, on: &Snapshot, touched: &[Touched], ids: &BTreeMap<String, i64>) -> Vec<Advance> {
        let read = |topic: &str| touched.iter().any(|one| one.range.topic == topic);
        ids.iter()
            .map(|(topic, id)| (topic, topic_app_id(&self.job, topic), *id))
            .filter(|(topic, app_id, _)| read(topic) && on.next(app_id).is_none())
            .map(|(_, app_id, next)| Advance { app_id, expected: None, next })
            .collect()
    }

    fn app_of(&self, one: &Touched) -> String {
        app_id(&self.job, &one.range.topic, one.range.partition)
    }

    fn stands(&self, on: &Snapshot, one: &Touched) -> bool {
        on.next(&self.app_of(one)) == one.expected
    }

    /// Moves partitions of topics that were deleted and made anew from `touched` into the report. All of a batch was read
    /// before this: what comes of a topic that still has its id is of that topic.
    async fn drop_remade(
        &self,
        on: &Snapshot,
        touched: &mut Vec<Touched>,
        report: &mut CommitReport,
        first_seen: &BTreeMap<String, i64>,
    ) {
        let Some(topic_ids) = &self.topic_ids else { return };
        let known = |topic: &str| on.next(&topic_app_id(&self.job, topic)).or_else(|| first_seen.get(topic).copied());
        let topics: BTreeSet<String> =
            touched.iter().map(|one| &one.range.topic).filter(|topic| known(topic).is_some()).cloned().collect();
        if topics.is_empty() {
            return;
        }
        let ids = tokio::select! {
            biased; // Stopping wins over waiting.
            () = self.stop.cancelled() => return,
            ids = topic_ids.ids(&topics) => ids,
        };
        let remade =
            |one: &mut Touched| ids.get(&one.range.topic).is_some_and(|id| known(&one.range.topic) != Some(*id));
        report.remade.extend(touched.extract_if(.., remade).map(|one| one.range));
    }

    /// Moves partitions that are lost to another owner from `touched` into the report.
    fn drop_lost(
        &self,
        on: &Snapshot,
        touched: &mut Vec<Touched>,
        report: &mut CommitReport,
        keeps: impl Fn(&Touched) -> bool,
    ) {
        touched.retain(|one| {
            let kept = keeps(one);
            if !kept {
                let next = on.next(&self.app_of(one));
                let (topic, partition) = place_of(one);
                report.fenced.push(FencedPartition { topic, partition, next });
            }
            kept
        });
    }

    /// A commit of what was read, which asks for the claims on its partitions.
    fn commit_of(
        &self,
        operation: &'static str,
        files: &[WrittenFile],
        touched: &[Touched],
        step: impl Fn(&Touched) -> (Option<i64>, i64),
    ) -> Commit {
        let advances = touched.iter().map(|one| {
            let (expected, next) = step(one);
            Advance { app_id: self.app_of(one), expected, next }
        });
        Commit {
            uuid: self.clock.unique_id(),
            advances: advances.chain(self.claims(touched)).collect(),
            files: files.iter().map(|file| file.file.clone()).collect(),
            operation,
            ranges: touched.iter().map(|one| one.range.clone()).collect(),
            facts: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests;
