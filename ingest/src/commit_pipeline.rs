//! From a decoded batch to the tables: the writing half of the exactly-once protocol.
//!
//! * [`Batch`] is what was read: rows, and the offset range each partition advanced by, rows or none.
//! * [`Committer`] puts it into `quarantine`, then `events`, and says what became of each partition.
//! * [`DataStore`] and [`CommitLog`] are all it needs of storage, so that it can be driven without any.
//!
//! Rules:
//! * A partition's quarantine rows are written only while `events` stands where the range starts: everything below has
//!   then been quarantined by whoever read it, so the quarantine's own number never skips an offset.
//! * An unclear result is asked again with the same commit on the same snapshot until it is clear.
//! * A batch stays in memory until its outcome is known. Only the stop token ends the waiting, with an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use async_trait::async_trait;
use bellwether_lake::{
    Advance, Clock, Commit, CommitLog, DataFile, Error, ErrorKind, Handover, Lake, Outcome, PartitionRange, Result,
    Snapshot, SystemClock, Table, WrittenFile,
};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

/// First pause after a failure: short, since most failures are one lost response.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: progress resumes within this time after storage is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Writes durable data files that no log names yet.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// Writes the rows of a table.
    ///
    /// # Errors
    /// `Unavailable` is tried again; any other kind ends the commit.
    async fn write(&self, table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>>;

    /// Removes files that will never be named, as far as that is possible.
    async fn discard(&self, table: Table, files: &[DataFile]);
}

#[async_trait]
impl DataStore for Lake {
    async fn write(&self, table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
        Self::write(self, table, batch).await
    }

    async fn discard(&self, table: Table, files: &[DataFile]) {
        Self::discard(self, table, files).await;
    }
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
    pub events: RecordBatch,
    /// Rows of `quarantine`.
    pub quarantine: RecordBatch,
    /// One entry for each partition.
    pub touched: Vec<Touched>,
    /// Ids of topics, to be remembered where the tables do not know them yet.
    pub topic_ids: BTreeMap<String, i64>,
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
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    first_pause: Duration,
    on_events: Option<Snapshot>,
    on_quarantine: Option<Snapshot>,
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
            observer,
            clock: Arc::new(SystemClock),
            stop,
            first_pause: FIRST_PAUSE,
            on_events: None,
            on_quarantine: None,
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

    /// Puts a batch into the tables, waiting for storage as long as it takes.
    ///
    /// # Errors
    /// `Unavailable` when stopped while waiting; `Data` or `Bug` where no waiting can help. The batch may then have
    /// landed or not, and the next owner finds out from the table.
    pub async fn commit(&mut self, batch: Batch) -> Result<CommitReport> {
        check(&batch)?;
        let Batch { events: event_rows, quarantine: quarantine_rows, mut touched, topic_ids } = batch;
        let mut report = CommitReport::default();
        let mut on = match self.on_events.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.events).await?,
        };
        if touched.iter().any(|one| !self.stands(&on, one)) {
            on = self.load(&self.events).await?;
        }
        self.drop_moved(&on, &mut touched, &mut report);
        if quarantine_rows.num_rows() > 0 && !touched.is_empty() {
            report.quarantine_rows = self.commit_quarantine(&quarantine_rows, &touched).await?;
        }
        while !touched.is_empty() {
            let rows = keep_rows(&event_rows, |topic, partition, _| owns(&touched, topic, partition))?;
            let files = self.write(Table::Events, &rows).await?;
            let mut commit = self.commit_of("ingest", &files, &touched, |one| (one.expected, one.range.next));
            commit.advances.extend(self.unknown_topics(&on, &touched, &topic_ids));
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
                    self.drop_moved(&on, &mut touched, &mut report);
                }
            }
        }
        self.on_events = Some(on);
        report.committed = touched.into_iter().map(|one| one.range).collect();
        self.observer.committed(&report);
        Ok(report)
    }

    /// Writes the rejected messages that no earlier attempt has written, and returns their number.
    async fn commit_quarantine(&mut self, rows: &RecordBatch, touched: &[Touched]) -> Result<i64> {
        let mut on = match self.on_quarantine.take() {
            Some(snapshot) => snapshot,
            None => self.load(&self.quarantine).await?,
        };
        loop {
            let next_of = |topic: &str, partition| on.next(&app_id(&self.job, topic, partition));
            let fresh = keep_rows(rows, |topic, partition, offset| {
                owns(touched, topic, partition) && next_of(topic, partition).is_none_or(|next| offset >= next)
            })?;
            if fresh.num_rows() == 0 {
                self.on_quarantine = Some(on);
                return Ok(0);
            }
            let present = partitions(&fresh)?;
            let moving: Vec<Touched> = touched
                .iter()
                .filter(|one| present.contains(&(one.range.topic.clone(), one.range.partition)))
                .cloned()
                .collect();
            let files = self.write(Table::Quarantine, &fresh).await?;
            let commit = self.commit_of("quarantine", &files, &moving, |one| {
                (next_of(&one.range.topic, one.range.partition), one.range.next)
            });
            let (snapshot, landed) = self.settle(&self.quarantine, &on, &commit, "quarantine").await?;
            on = snapshot;
            if landed {
                self.on_quarantine = Some(on);
                return Ok(commit.files.iter().map(|file| file.rows).sum());
            }
            self.store.discard(Table::Quarantine, &commit.files).await;
        }
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

    async fn write(&self, table: Table, rows: &RecordBatch) -> Result<Vec<WrittenFile>> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let mut pause = self.first_pause;
        loop {
            match self.store.write(table, rows).await {
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
                Err(Error::unavailable(format!("stopped while `{what}` was being tried again: {reason}")))
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

    fn stands(&self, on: &Snapshot, one: &Touched) -> bool {
        on.next(&app_id(&self.job, &one.range.topic, one.range.partition)) == one.expected
    }

    /// Moves partitions that are not where their range starts from `touched` into the report.
    fn drop_moved(&self, on: &Snapshot, touched: &mut Vec<Touched>, report: &mut CommitReport) {
        touched.retain(|one| {
            let stands = self.stands(on, one);
            if !stands {
                let PartitionRange { topic, partition, .. } = &one.range;
                let next = on.next(&app_id(&self.job, topic, *partition));
                report.fenced.push(FencedPartition { topic: topic.clone(), partition: *partition, next });
            }
            stands
        });
    }

    fn commit_of(
        &self,
        operation: &'static str,
        files: &[WrittenFile],
        touched: &[Touched],
        step: impl Fn(&Touched) -> (Option<i64>, i64),
    ) -> Commit {
        let advances = touched.iter().map(|one| {
            let (expected, next) = step(one);
            Advance { app_id: app_id(&self.job, &one.range.topic, one.range.partition), expected, next }
        });
        Commit {
            uuid: self.clock.unique_id(),
            advances: advances.collect(),
            files: files.iter().map(|file| file.file.clone()).collect(),
            operation,
            ranges: touched.iter().map(|one| one.range.clone()).collect(),
            facts: Map::new(),
        }
    }
}

/// Refuses a batch that would break the protocol: it can only come from a mistake in the source.
fn check(batch: &Batch) -> Result<()> {
    let mut seen = BTreeSet::new();
    for Touched { range, expected } in &batch.touched {
        let place = format!("`{}/{}`", range.topic, range.partition);
        if !seen.insert((range.topic.as_str(), range.partition)) {
            return Err(Error::bug(format!("partition {place} is twice in a batch")));
        }
        if range.next <= range.from || expected.is_some_and(|expected| expected != range.from) {
            return Err(Error::bug(format!("range [{}, {}) of {place} does not advance", range.from, range.next)));
        }
    }
    let inside = |topic: &str, partition: i32, offset: i64| {
        batch.touched.iter().any(|Touched { range, .. }| {
            range.topic == topic && range.partition == partition && (range.from..range.next).contains(&offset)
        })
    };
    for rows in [&batch.events, &batch.quarantine] {
        if keep_rows(rows, inside)?.num_rows() != rows.num_rows() {
            return Err(Error::bug("a row of the batch is outside its offset ranges"));
        }
    }
    Ok(())
}

fn owns(touched: &[Touched], topic: &str, partition: i32) -> bool {
    touched.iter().any(|one| one.range.topic == topic && one.range.partition == partition)
}

fn partitions(rows: &RecordBatch) -> Result<BTreeSet<(String, i32)>> {
    let mut found = BTreeSet::new();
    each_row(rows, |topic, partition, _| {
        found.insert((topic.to_owned(), partition));
    })?;
    Ok(found)
}

pub(crate) fn keep_rows(rows: &RecordBatch, keep: impl Fn(&str, i32, i64) -> bool) -> Result<RecordBatch> {
    let mut mask = Vec::with_capacity(rows.num_rows());
    each_row(rows, |topic, partition, offset| mask.push(keep(topic, partition, offset)))?;
    if mask.iter().all(|kept| *kept) {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &BooleanArray::from(mask))
        .map_err(|error| Error::bug("rows cannot be filtered").with_source(error))
}

fn each_row(rows: &RecordBatch, mut visit: impl FnMut(&str, i32, i64)) -> Result<()> {
    let column = |name: &str, kind: &DataType| match rows.column_by_name(name) {
        Some(column) if column.data_type() == kind => Ok(column),
        _ => Err(Error::bug(format!("a batch has no column `{name}` of type {kind}"))),
    };
    let topics = column("topic", &DataType::Utf8View)?.as_string_view();
    let partitions = column("partition", &DataType::Int32)?.as_primitive::<Int32Type>();
    let offsets = column("offset", &DataType::Int64)?.as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        visit(topics.value(row), partitions.value(row), offsets.value(row));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
