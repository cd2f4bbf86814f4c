//! The storage that the committer uses: crash points around each call, and deliberate faults in the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use async_trait::async_trait;
use bellwether_base::{Clock, Error, Result};
use bellwether_ingest::commit_pipeline::{DataStore, app_id};
use bellwether_lake::commit::faulty::{Call, Fault, SLOW, TIME_OUT};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_lake::{Advance, Commit, CommitLog, DataFile, EncodedRows, OffsetsOf, Outcome, Snapshot, WrittenFile};
use bellwether_tables::Table;

use super::control::{Control, CrashPoint};
use super::scheduler::ProcessId;

/// The job that owns the offsets.
pub(crate) const JOB: &str = "job";
/// The only topic.
pub(crate) const TOPIC: &str = "runs";

/// A deliberate fault in the protocol, which the simulation must detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// No fault.
    None,
    /// A commit is taken without comparing offsets.
    SkipOffsetComparison,
    /// An unclear result counts as a failure.
    UnknownIsFailure,
    /// An unclear result counts as a success.
    UnknownIsSuccess,
    /// A rejected message does not advance the offset.
    PoisonDoesNotAdvance,
    /// The log names a file before it is written.
    LogBeforeData,
    /// A new owner of a partition does not read earlier rejections from `quarantine`.
    VerdictNotRemembered,
    /// A commit does not check the claims on its partitions.
    ClaimNotAsked,
}

/// The partition and offset of a row, and its run.
pub(crate) type Row = (i32, i64, Option<String>);

/// Reads the partitions and offsets of rows of `events` or `quarantine`.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let partitions = batch.column_by_name("partition").expect("partition").as_primitive::<Int32Type>();
    let offsets = batch.column_by_name("offset").expect("offset").as_primitive::<Int64Type>();
    let runs = batch.column_by_name("run_id").map(|column| column.as_string_view());
    let run = |row| runs.filter(|runs| runs.is_valid(row)).map(|runs| runs.value(row).to_owned());
    (0..batch.num_rows()).map(|row| (partitions.value(row), offsets.value(row), run(row))).collect()
}

/// Does the same for encoded rows.
fn places_of(rows: &EncodedRows) -> Result<Vec<Row>> {
    Ok(rows.batches()?.iter().flat_map(rows_of).collect())
}

/// In-memory data files; clones share them.
#[derive(Clone, Default)]
pub(crate) struct MemoryData {
    files: Arc<Mutex<BTreeMap<String, Vec<Row>>>>,
}

impl MemoryData {
    pub(crate) fn rows(&self, path: &str) -> Option<Vec<Row>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn keep(&self, path: &str, rows: &[Row]) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), rows.to_vec());
    }

    fn remove(&self, path: &str) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

/// A data store in memory, with faults.
pub(crate) struct FaultyData {
    pub(crate) data: MemoryData,
    /// The log of `quarantine`, which names its files.
    pub(crate) quarantine: MemoryLog,
    pub(crate) process: ProcessId,
    pub(crate) control: Control,
    pub(crate) mutation: Mutation,
    /// Files that [`Mutation::LogBeforeData`] has not written yet.
    pub(crate) owed: Mutex<Option<(String, Vec<Row>)>>,
}

#[async_trait]
impl DataStore for FaultyData {
    async fn write(&self, encoded: &EncodedRows) -> Result<Vec<WrittenFile>> {
        let places = places_of(encoded)?;
        let path = self.control.clock.unique_id().to_string();
        let lost = || Err(Error::unavailable("the store does not answer (injected)"));
        match self.control.fault(self.process, Call::Write) {
            Fault::None => {}
            Fault::Slow => self.control.clock.sleep(SLOW).await,
            Fault::TimedOut => {
                self.control.clock.sleep(TIME_OUT).await;
                self.data.keep(&path, &places);
                return lost();
            }
            Fault::LostResponse | Fault::PreconditionFailed => {
                self.data.keep(&path, &places);
                return lost();
            }
            _ => return lost(),
        }
        if self.mutation == Mutation::LogBeforeData {
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((path, places)) = owed.replace((path.clone(), places)) {
                self.data.keep(&path, &places);
            }
        } else {
            self.data.keep(&path, &places);
        }
        let count = i64::try_from(encoded.rows()).expect("a small batch");
        Ok(vec![WrittenFile { file: DataFile { path, rows: count, ..DataFile::default() }, rows: Vec::new() }])
    }

    async fn discard(&self, _table: Table, files: &[DataFile]) {
        files.iter().for_each(|file| self.data.remove(&file.path));
    }

    async fn offsets(&self, _: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        match self.control.fault(self.process, Call::Read) {
            Fault::None => {}
            Fault::Slow => self.control.clock.sleep(SLOW).await,
            _ => return Err(Error::unavailable("the store does not answer (injected)")),
        }
        // The first commit is version 1.
        let commits = (1..).zip(self.quarantine.commits()).filter(|(version, commit)| {
            let moved = commit.advances.iter().map(|advance| advance.app_id.as_str());
            (asked.after + 1..=asked.until).contains(version) && asked.matches(moved)
        });
        let files = commits.flat_map(|(_, commit)| commit.files);
        let rows = files.filter_map(|file| self.data.rows(&file.path)).flatten();
        Ok(rows.filter(|row| row.0 == asked.partition && row.1 >= asked.from).map(|row| row.1).collect())
    }
}

/// A data store with crash points around it.
pub(crate) struct WatchedData {
    pub(crate) inner: Arc<dyn DataStore>,
    pub(crate) process: ProcessId,
    pub(crate) control: Control,
    pub(crate) mutation: Mutation,
    /// The written rows, for [`Mutation::PoisonDoesNotAdvance`].
    pub(crate) seen: MemoryData,
}

#[async_trait]
impl DataStore for WatchedData {
    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        self.control.pass(self.process, CrashPoint::BeforeDataWrite).await;
        self.control.clock.sleep(self.control.chance(latency)).await;
        let written = self.inner.write(rows).await;
        self.control.pass(self.process, CrashPoint::AfterDataWrite).await;
        if let (Mutation::PoisonDoesNotAdvance, Ok(files)) = (self.mutation, &written) {
            // The rows are looked up by commit, so any file of the commit can have them.
            if let Some(file) = files.first() {
                self.seen.keep(&file.file.path, &places_of(rows)?);
            }
        }
        written
    }

    async fn discard(&self, table: Table, files: &[DataFile]) {
        for file in files {
            self.control.note(self.process, format_args!("{}: discards {}", table.name(), file.path));
        }
        self.inner.discard(table, files).await;
    }

    async fn offsets(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        self.control.clock.sleep(self.control.chance(latency)).await;
        if self.mutation == Mutation::VerdictNotRemembered {
            return Ok(BTreeSet::new());
        }
        let found = self.inner.offsets(table, asked).await;
        let shown = found.as_ref().map_or_else(ToString::to_string, |offsets| format!("{offsets:?}"));
        let (partition, from) = (asked.partition, asked.from);
        self.control.note(self.process, format_args!("{} of {partition} from {from}: {shown}", table.name()));
        found
    }
}

/// Draws the duration of a call without a fault.
pub(crate) fn latency(random: &mut super::random::Random) -> std::time::Duration {
    std::time::Duration::from_micros(random.below(20_000))
}

/// A log with crash points around each call and the chosen fault in the protocol.
pub(crate) struct WatchedLog {
    pub(crate) inner: Arc<dyn CommitLog>,
    pub(crate) table: Table,
    pub(crate) process: ProcessId,
    pub(crate) control: Control,
    pub(crate) mutation: Mutation,
    /// The written rows, for [`Mutation::PoisonDoesNotAdvance`].
    pub(crate) seen: MemoryData,
}

/// True for an advance that only checks an application's number.
fn is_condition(advance: &Advance) -> bool {
    advance.expected == Some(advance.next)
}

impl WatchedLog {
    async fn broken(&self, on: &Snapshot, commit: &Commit) -> Result<(Snapshot, Commit)> {
        let mut commit = commit.clone();
        match self.mutation {
            Mutation::SkipOffsetComparison => {
                let on = self.inner.load().await?;
                for advance in &mut commit.advances {
                    let stands = on.next(&advance.app_id);
                    if is_condition(advance) {
                        advance.next = stands.unwrap_or(advance.next);
                    }
                    advance.expected = stands;
                }
                return Ok((on, commit));
            }
            Mutation::ClaimNotAsked => commit.advances.retain(|advance| !is_condition(advance)),
            Mutation::PoisonDoesNotAdvance if self.table == Table::Events && commit.operation != "claim" => {
                let rows: Vec<Row> =
                    commit.files.iter().filter_map(|file| self.seen.rows(&file.path)).flatten().collect();
                commit.advances.retain_mut(|advance| {
                    let ours = rows.iter().filter(|row| app_id(JOB, TOPIC, row.0) == advance.app_id);
                    let accepted = ours.map(|row| row.1).max();
                    accepted.inspect(|last| advance.next = last + 1).is_some() || is_condition(advance)
                });
            }
            _ => {}
        }
        Ok((on.clone(), commit))
    }

    fn misread(&self, on: &Snapshot, commit: &Commit, outcome: Outcome) -> Outcome {
        match (self.mutation, outcome) {
            (Mutation::UnknownIsFailure, Outcome::Unknown { .. }) => {
                Outcome::Fenced { apps: Vec::new(), snapshot: on.clone() }
            }
            (Mutation::UnknownIsSuccess, Outcome::Unknown { .. }) => {
                let mut next: BTreeMap<String, i64> = on.apps().map(|(app, next)| (app.to_owned(), next)).collect();
                next.extend(commit.advances.iter().map(|advance| (advance.app_id.clone(), advance.next)));
                Outcome::Committed(Snapshot::new(on.version + 1, next))
            }
            (_, outcome) => outcome,
        }
    }
}

#[async_trait]
impl CommitLog for WatchedLog {
    async fn load(&self) -> Result<Snapshot> {
        self.control.clock.sleep(self.control.chance(latency)).await;
        self.inner.load().await
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        let (before, after) = match self.table {
            Table::Quarantine => (CrashPoint::BeforeQuarantineCommit, CrashPoint::AfterQuarantineCommit),
            _ => (CrashPoint::BeforeEventsCommit, CrashPoint::AfterEventsCommit),
        };
        self.control.pass(self.process, before).await;
        self.control.clock.sleep(self.control.chance(latency)).await;
        let (on, commit) = self.broken(on, commit).await?;
        let outcome = self.inner.try_commit(&on, &commit).await?;
        self.control.landed();
        let outcome = self.misread(&on, &commit, outcome);
        let steps: BTreeSet<String> = commit
            .advances
            .iter()
            .map(|advance| format!("{} {:?}->{}", advance.app_id, advance.expected, advance.next))
            .collect();
        let result = match &outcome {
            Outcome::Committed(snapshot) => format!("committed as version {}", snapshot.version),
            Outcome::Fenced { apps, .. } => format!("fenced {apps:?}"),
            Outcome::Unknown { reason } => format!("unknown, {reason}"),
        };
        self.control.note(self.process, format_args!("{}: {} {steps:?}: {result}", self.table.name(), commit.uuid));
        if matches!(outcome, Outcome::Committed(_)) {
            self.control.pass(self.process, after).await;
        }
        self.control.clock.sleep(self.control.chance(latency)).await;
        Ok(outcome)
    }
}
