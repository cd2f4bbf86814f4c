//! Every outcome of a commit, without storage.

use std::sync::{Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bellwether_base::{Error, ErrorKind, unique_id};
use bellwether_event::Limits;
use bellwether_lake::commit::faulty::{Fault, FaultyLog};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_tables::{AppId, PartitionId};

use super::*;
use crate::batch::BatchBuilder;
use crate::decode::Message;

/// Partition and offset of each row of a file.
type Coordinates = Vec<(i32, i64)>;

/// Keeps all rows written. The first `failures` writes fail as unavailable.
#[derive(Default)]
struct FakeStore {
    failures: Mutex<u32>,
    discarded: Mutex<usize>,
    written: Mutex<Vec<(String, Coordinates)>>,
    /// The log of `quarantine`, which lists its files.
    quarantine: MemoryLog,
    /// Locked by tests to delay writes.
    gate: tokio::sync::Mutex<()>,
}

impl FakeStore {
    /// Returns the rows that readers of a table see, sorted.
    fn visible(&self, log: &MemoryLog) -> Vec<(i32, i64)> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let named: Vec<String> = log.commits().iter().flat_map(|c| c.files.iter().map(|f| f.path.clone())).collect();
        let mut found: Vec<(i32, i64)> =
            written.iter().filter(|(path, _)| named.contains(path)).flat_map(|(_, rows)| rows.clone()).collect();
        found.sort_unstable();
        found
    }
}

#[async_trait]
impl DataStore for FakeStore {
    async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        drop(self.gate.lock().await);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if *failures > 0 {
            *failures -= 1;
            return Err(Error::unavailable("the store does not answer (injected)"));
        }
        let path = unique_id().to_string();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), coordinates(rows)));
        let rows = i64::try_from(rows.rows()).expect("a small batch");
        Ok(vec![WrittenFile { file: DataFile { path, rows, ..DataFile::default() }, rows: Vec::new() }])
    }

    async fn discard(&self, _table: Table, files: &[DataFile]) {
        *self.discarded.lock().unwrap_or_else(PoisonError::into_inner) += files.len();
    }

    async fn offsets(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        assert_eq!(table, Table::Quarantine);
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // The first commit is version 1.
        let commits = (1..).zip(self.quarantine.commits()).filter(|(version, commit)| {
            let moved = commit.advances.iter().map(|advance| advance.app_id.as_str());
            (asked.after + 1..=asked.until).contains(version) && asked.matches(moved)
        });
        let files: Vec<String> = commits.flat_map(|(_, commit)| commit.files).map(|file| file.path).collect();
        let rows = written.iter().filter(|(path, _)| files.contains(path)).flat_map(|(_, rows)| rows);
        Ok(rows.filter(|row| row.0 == asked.partition && row.1 >= asked.from).map(|row| row.1).collect())
    }
}

#[derive(Default)]
struct RetriedSteps(Mutex<Vec<&'static str>>);

impl Observer for RetriedSteps {
    fn retrying(&self, step: &'static str, _reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
    fn committed(&self, _report: &CommitReport) {}
}

struct World {
    store: Arc<FakeStore>,
    events: MemoryLog,
    quarantine: MemoryLog,
    steps: Arc<RetriedSteps>,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        let store: Arc<FakeStore> = Arc::default();
        Self {
            quarantine: store.quarantine.clone(),
            store,
            events: MemoryLog::default(),
            steps: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    fn committer(&self, events: impl CommitLog + 'static, quarantine: impl CommitLog + 'static) -> Committer {
        let observer: Arc<dyn Observer> = self.steps.clone();
        let store: Arc<dyn DataStore> = self.store.clone();
        let target = CommitTarget { store, events: Arc::new(events), quarantine: Arc::new(quarantine) };
        Committer::new(target, "job", observer, self.stop.clone())
    }

    fn plain(&self) -> Committer {
        self.committer(self.events.clone(), self.quarantine.clone())
    }

    fn faulty(&self, script: &[Fault]) -> Committer {
        self.committer(FaultyLog::new(self.events.clone(), script.to_vec()), self.quarantine.clone())
    }

    /// Returns the offsets that readers of a table see, sorted.
    fn visible(&self, log: &MemoryLog) -> Vec<i64> {
        let mut found: Vec<i64> = self.store.visible(log).into_iter().map(|row| row.1).collect();
        found.sort_unstable();
        found
    }
}

fn coordinates(rows: &EncodedRows) -> Vec<(i32, i64)> {
    let of = |batch: &RecordBatch| {
        let partitions = batch.column_by_name("partition").expect("a column").as_primitive::<Int32Type>().clone();
        let offsets = batch.column_by_name("offset").expect("a column").as_primitive::<Int64Type>().clone();
        partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect::<Vec<_>>()
    };
    rows.batches().expect("rows").iter().flat_map(of).collect()
}

/// Returns rows of a table at these partitions and offsets.
fn some_rows(table: Table, places: &[(i32, i64)]) -> EncodedRows {
    let event = br#"{"spec":"run-event/1","run_id":"r","data":{"task":"t","release":{"id":"1"},
        "started_at":"2026-11-23T10:00:00Z","ended_at":"2026-11-23T10:00:01Z","outcome":{"status":"success"}}}"#;
    let mut builder = BatchBuilder::new(Limits::default());
    for (partition, offset) in places {
        let payload: &[u8] = if table == Table::Events { event } else { b"poison" };
        let (partition, offset) = (*partition, *offset);
        let message = Message { topic: "runs", partition, offset, payload: Some(payload), ..Message::default() };
        builder.push(&message, 1_795_543_200_000_000); // 2026-11-24T18:00:00Z
    }
    let (events, quarantine) = builder.finish().expect("rows");
    if table == Table::Events { events } else { quarantine }
}

fn touch(partition: i32, from: i64, next: i64, expected: Option<i64>) -> PartitionBatch {
    let range = PartitionRange {
        topic: "runs".to_owned(),
        partition,
        from,
        next,
        end_offset: None,
        newest_event_micros: None,
        passed_over: None,
    };
    PartitionBatch { range, expected }
}

fn batch(events: &[(i32, i64)], quarantine: &[(i32, i64)], partitions: &[PartitionBatch]) -> Batch {
    let (events, quarantine) = (some_rows(Table::Events, events), some_rows(Table::Quarantine, quarantine));
    Batch { events, quarantine, partitions: partitions.to_vec(), topic_ids: BTreeMap::new(), marks: Vec::new() }
}

async fn next(log: &MemoryLog, partition: i32) -> Option<i64> {
    log.load().await.expect("memory").next(&app_id("job", "runs", partition))
}

#[tokio::test]
async fn a_batch_lands_and_the_next_one_continues() {
    let world = World::new();
    let mut committer = world.plain();
    let report = committer.commit(batch(&[(0, 0), (0, 2)], &[(0, 1)], &[touch(0, 0, 3, None)])).await.expect("lands");
    assert_eq!((report.event_rows, report.quarantine_rows), (2, 1));
    committer.commit(batch(&[(0, 3)], &[], &[touch(0, 3, 4, Some(3))])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0, 2, 3]);
    assert_eq!(world.visible(&world.quarantine), [1]);
    assert_eq!((next(&world.events, 0).await, next(&world.quarantine, 0).await), (Some(4), Some(3)));
}

#[tokio::test]
async fn a_partition_with_only_poison_advances_and_is_not_quarantined_again() {
    let world = World::new();
    // The first attempt is stopped between the two tables.
    world.stop.cancel();
    let poison = || batch(&[], &[(0, 5), (0, 6)], &[touch(0, 5, 7, None)]);
    world.faulty(&[Fault::None, Fault::None, Fault::LostRequest]).commit(poison()).await.expect_err("stopped");
    assert_eq!((next(&world.events, 0).await, next(&world.quarantine, 0).await), (None, Some(7)));
    let report = world.plain().commit(poison()).await.expect("lands");
    assert_eq!(report.quarantine_rows, 0);
    assert_eq!(world.visible(&world.quarantine), [5, 6]);
    assert_eq!(next(&world.events, 0).await, Some(7));
}

#[tokio::test]
async fn an_empty_range_advances_without_a_file() {
    let world = World::new();
    world.plain().commit(batch(&[], &[], &[touch(0, 0, 9, None)])).await.expect("lands");
    assert_eq!(next(&world.events, 0).await, Some(9));
    assert!(world.store.written.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn an_unknown_commit_that_landed_is_not_repeated() {
    let world = World::new();
    let script = [Fault::None, Fault::None, Fault::LostResponse, Fault::LostRequest];
    world.faulty(&script).commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0]);
    assert_eq!(world.events.commits().len(), 2, "the claim and the commit");
    assert_eq!(world.steps.0.lock().expect("not poisoned").as_slice(), ["events", "events"]);
}

#[tokio::test]
async fn an_unknown_commit_that_did_not_land_is_repeated() {
    let world = World::new();
    let script = [Fault::Unavailable, Fault::None, Fault::None, Fault::LostRequest, Fault::LostRequest];
    world.faulty(&script).commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0]);
    assert_eq!(world.steps.0.lock().expect("not poisoned").as_slice(), ["load", "events", "events"]);
}

#[tokio::test]
async fn the_batch_is_kept_while_storage_is_unreachable() {
    let world = World::new();
    *world.store.failures.lock().expect("not poisoned") = 3;
    world.plain().commit(batch(&[(0, 0)], &[(0, 1)], &[touch(0, 0, 2, None)])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0]);
    assert_eq!(world.visible(&world.quarantine), [1]);
}

#[tokio::test]
async fn of_two_committers_one_is_fenced_and_keeps_its_other_partitions() {
    let world = World::new();
    let (mut first, mut second) = (world.plain(), world.plain());
    first.commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    second.commit(batch(&[(0, 1), (0, 2)], &[], &[touch(0, 1, 3, Some(1))])).await.expect("lands");
    // `first` still holds a snapshot from before, so only the commit itself can notice.
    let both = batch(&[(0, 1), (1, 10)], &[], &[touch(0, 1, 2, Some(1)), touch(1, 10, 11, None)]);
    let report = first.commit(both).await.expect("the rest lands");
    let fenced = FencedPartition { topic: "runs".to_owned(), partition: 0, next: Some(3) };
    assert_eq!(report.fenced, [fenced]);
    assert_eq!(report.committed.iter().map(|range| range.partition).collect::<Vec<_>>(), [1]);
    assert_eq!(world.visible(&world.events), [0, 1, 2, 10]);
    assert_eq!(*world.store.discarded.lock().expect("not poisoned"), 1);
}

/// A broker with topic ids that counts requests for them.
#[derive(Default)]
struct Broker {
    ids: BTreeMap<String, i64>,
    requests: Mutex<usize>,
}

#[async_trait]
impl TopicIds for Broker {
    async fn ids(&self, topics: &BTreeSet<String>) -> BTreeMap<String, i64> {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.ids.iter().filter(|(topic, _)| topics.contains(*topic)).map(|(topic, id)| (topic.clone(), *id)).collect()
    }
}

/// Returns a broker with this topic id, or without topic ids.
fn broker(id: Option<i64>) -> Arc<Broker> {
    Arc::new(Broker { ids: id.map(|id| ("runs".to_owned(), id)).into_iter().collect(), requests: Mutex::default() })
}

#[tokio::test]
async fn messages_of_a_recreated_topic_go_to_neither_table() {
    let world = World::new();
    let seen = |id| BTreeMap::from([("runs".to_owned(), id)]);
    let first = Batch { topic_ids: seen(7), ..batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)]) };
    // Recreated between the assignment, which saw 7, and the first commit.
    let report = world.plain().with_topic_ids(broker(Some(8))).commit(first.clone()).await.expect("nothing to do");
    assert_eq!(report.recreated.iter().map(|range| (range.partition, range.from)).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!((next(&world.events, 0).await, report.committed.len()), (None, 0));
    let mut committer = world.plain().with_topic_ids(broker(Some(7)));
    assert!(committer.commit(first).await.expect("lands").recreated.is_empty());
    // From now on the tables record the id, regardless of what an assignment sees.
    let then = || Batch {
        topic_ids: seen(8),
        ..batch(&[(0, 1)], &[(0, 2), (1, 0)], &[touch(0, 1, 3, Some(1)), touch(1, 0, 1, None)])
    };
    let report = world.plain().with_topic_ids(broker(Some(8))).commit(then()).await.expect("nothing to do");
    assert_eq!(report.recreated.len(), 2);
    assert_eq!((report.committed.len(), report.fenced.len()), (0, 0));
    assert_eq!((world.visible(&world.events), world.visible(&world.quarantine)), (vec![0], vec![]));
    // A broker without topic ids, or without a reply, does not stop commits.
    let silent = world.plain().with_topic_ids(broker(None)).commit(then()).await.expect("lands");
    assert_eq!((silent.recreated.len(), silent.committed.len()), (0, 2));
}

#[tokio::test]
async fn topic_ids_are_not_requested_if_none_is_recorded() {
    let world = World::new();
    let broker = broker(Some(7));
    let mut committer = world.plain().with_topic_ids(broker.clone());
    committer.commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    assert_eq!(*broker.requests.lock().expect("not poisoned"), 0);
}

#[tokio::test]
async fn a_fenced_range_quarantines_nothing() {
    let world = World::new();
    world.plain().commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    let report = world.plain().commit(batch(&[], &[(0, 8)], &[touch(0, 5, 9, Some(5))])).await.expect("fenced only");
    assert_eq!(report.fenced[0].next, Some(1));
    assert_eq!(next(&world.quarantine, 0).await, None);
}

/// Runs a committer that has read offsets 0 to 3, rejects some of them, and dies between `quarantine` and `events`.
async fn dies_between_the_tables(world: &World, rejected: &[(i32, i64)]) {
    world.stop.cancel();
    let script = [Fault::None, Fault::None, Fault::LostRequest];
    let accepted: Vec<(i32, i64)> = (0..4).map(|offset| (0, offset)).filter(|row| !rejected.contains(row)).collect();
    let first = batch(&accepted, rejected, &[touch(0, 0, 4, None)]);
    world.faulty(&script).commit(first).await.expect_err("stopped");
    assert_eq!((next(&world.events, 0).await, next(&world.quarantine, 0).await), (None, Some(4)));
}

#[tokio::test]
async fn a_message_that_was_rejected_and_is_accepted_when_read_again_stays_rejected() {
    let world = World::new();
    dies_between_the_tables(&world, &[(0, 1), (0, 3)]).await;
    // The next owner reads batches of another size, at a later time.
    let mut heir = world.plain();
    let report = heir.commit(batch(&[(0, 0), (0, 1)], &[], &[touch(0, 0, 2, None)])).await.expect("lands");
    assert_eq!((report.event_rows, report.quarantine_rows), (1, 0));
    heir.commit(batch(&[(0, 2), (0, 3), (0, 4)], &[], &[touch(0, 2, 5, Some(2))])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0, 2, 4]);
    assert_eq!(world.visible(&world.quarantine), [1, 3]);
}

#[tokio::test]
async fn a_message_that_was_accepted_and_is_rejected_when_read_again_is_quarantined() {
    let world = World::new();
    dies_between_the_tables(&world, &[(0, 3)]).await;
    // First below the recorded offset of `quarantine`, then beyond it.
    let mut heir = world.plain();
    let report = heir.commit(batch(&[(0, 1)], &[(0, 0)], &[touch(0, 0, 2, None)])).await.expect("lands");
    assert_eq!((report.event_rows, report.quarantine_rows), (1, 1));
    assert_eq!(next(&world.quarantine, 0).await, Some(4), "the recorded offset stays");
    let late = world.quarantine.commits().pop().expect("a commit");
    assert!(late.ranges.is_empty(), "rows below the recorded offset belong to no range: {late:?}");
    let report = heir.commit(batch(&[(0, 4)], &[(0, 2), (0, 3)], &[touch(0, 2, 5, Some(2))])).await.expect("lands");
    assert_eq!((report.event_rows, report.quarantine_rows), (1, 1));
    assert_eq!(world.visible(&world.events), [1, 4]);
    assert_eq!(world.visible(&world.quarantine), [0, 2, 3]);
    assert_eq!(next(&world.quarantine, 0).await, Some(5));
}

#[tokio::test]
async fn rejections_of_another_job_do_not_count_for_this_one() {
    let world = World::new();
    let other = Committer { job: "other".to_owned(), ..world.plain() };
    let of_other = batch(&[(0, 0), (0, 1)], &[(0, 2), (0, 3)], &[touch(0, 0, 4, None)]);
    { other }.commit(of_other).await.expect("lands");
    dies_between_the_tables(&world, &[(0, 3)]).await;
    // Both jobs have rejected offset 3, but this job has not rejected offset 2 yet.
    let again = batch(&[(0, 0), (0, 1)], &[(0, 2), (0, 3)], &[touch(0, 0, 4, None)]);
    let report = world.plain().commit(again).await.expect("lands");
    assert_eq!((report.event_rows, report.quarantine_rows), (2, 1));
    assert_eq!(world.visible(&world.events), [0, 0, 1, 1]);
    assert_eq!(world.visible(&world.quarantine), [2, 2, 3, 3]);
}

#[tokio::test]
async fn only_versions_with_rows_beyond_events_are_searched() {
    let world = World::new();
    let mut first = world.plain();
    for n in 0..5 {
        let expected = (n > 0).then_some(n);
        first.commit(batch(&[], &[(0, n)], &[touch(0, n, n + 1, expected)])).await.expect("lands");
    }
    let snapshot = world.quarantine.load().await.expect("memory");
    let since = snapshot.next(&AppId::Since(PartitionId::new("job", "runs", 0)).to_string());
    assert_eq!(since, Some(snapshot.version - 1), "before the last commit, `quarantine` held nothing beyond `events`");
}

#[tokio::test]
async fn rejections_below_and_beyond_the_recorded_offset_take_two_commits() {
    let world = World::new();
    dies_between_the_tables(&world, &[(0, 3)]).await;
    let both = batch(&[], &[(0, 0), (1, 7)], &[touch(0, 0, 1, None), touch(1, 7, 8, None)]);
    let report = world.plain().commit(both).await.expect("lands");
    assert_eq!((report.committed.len(), report.quarantine_rows), (2, 2));
    assert_eq!(world.visible(&world.quarantine), [0, 3, 7]);
    assert_eq!((next(&world.quarantine, 0).await, next(&world.quarantine, 1).await), (Some(4), Some(8)));
}

#[tokio::test]
async fn a_late_rejection_of_an_earlier_owner_lands_in_no_table() {
    let world = World::new();
    let mut zombie = world.plain();
    zombie.commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    // It has rejected offset 1, and stalls before writing that.
    let closed = world.store.gate.lock().await;
    let late = tokio::spawn(async move { zombie.commit(batch(&[], &[(0, 1)], &[touch(0, 1, 2, Some(1))])).await });
    tokio::task::yield_now().await;
    let mut heir = world.plain();
    let read = batch(&[(0, 1)], &[], &[touch(0, 1, 2, Some(1))]);
    let (heir, late) = tokio::join!(heir.commit(read), async {
        tokio::task::yield_now().await;
        drop(closed);
        late.await.expect("it does not panic")
    });
    assert_eq!(heir.expect("lands").event_rows, 1);
    let fenced = late.expect("fenced only").fenced;
    assert_eq!(fenced.iter().map(|one| one.partition).collect::<Vec<_>>(), [0]);
    assert_eq!(world.visible(&world.events), [0, 1]);
    assert_eq!(world.visible(&world.quarantine), [0; 0]);
}

#[tokio::test]
async fn an_owner_that_comes_back_claims_again() {
    let world = World::new();
    let (mut first, mut second) = (world.plain(), world.plain());
    first.commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    second.commit(batch(&[(0, 1)], &[], &[touch(0, 1, 2, Some(1))])).await.expect("lands");
    first.commit(batch(&[(0, 2)], &[(0, 3)], &[touch(0, 2, 4, Some(2))])).await.expect("lands");
    first.commit(batch(&[(0, 4)], &[(0, 5)], &[touch(0, 4, 6, Some(4))])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0, 1, 2, 4]);
    assert_eq!(world.visible(&world.quarantine), [3, 5]);
    let claims = |log: &MemoryLog| log.commits().iter().filter(|commit| commit.operation == "claim").count();
    assert_eq!((claims(&world.events), claims(&world.quarantine)), (3, 3), "once for each change of owner");
}

#[tokio::test]
async fn an_inconsistent_batch_is_refused() {
    let world = World::new();
    let outside = batch(&[(0, 9)], &[], &[touch(0, 0, 1, None)]);
    let behind = batch(&[], &[], &[touch(0, 3, 4, Some(2))]);
    for wrong in [outside, behind] {
        let error = world.plain().commit(wrong).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Bug);
    }
}

fn mark(partition: i32, end: i64, read_to_micros: Option<i64>) -> ReadMark {
    ReadMark { job: None, topic: "runs".to_owned(), partition, end, read_to_micros }
}

/// Returns the recorded end offset of a partition, and the time up to which it is read.
async fn recorded(log: &MemoryLog, partition: i32) -> (Option<i64>, Option<i64>) {
    let snapshot = log.load().await.expect("memory");
    let app = PartitionId::new("job", "runs", partition);
    let read = snapshot.next(&AppId::Read(app.clone()).to_string());
    (snapshot.next(&AppId::End(app).to_string()), read)
}

#[tokio::test]
async fn read_marks_are_committed_with_a_batch_or_alone_and_only_advance() {
    let world = World::new();
    let mut committer = world.plain();
    let marks = vec![mark(0, 3, Some(100)), mark(1, 7, None)];
    let along = Batch { marks, ..batch(&[(0, 0)], &[], &[touch(0, 0, 3, None)]) };
    committer.commit(along).await.expect("lands");
    assert_eq!(recorded(&world.events, 0).await, (Some(3), Some(100)));
    assert_eq!(recorded(&world.events, 1).await, (Some(7), None));
    let commits = world.events.commits().len();
    let alone = |marks: Vec<ReadMark>| Batch { marks, ..batch(&[], &[], &[]) };
    committer.commit(alone(vec![mark(0, 3, Some(90)), mark(1, 7, None)])).await.expect("nothing to commit");
    assert_eq!(world.events.commits().len(), commits, "recorded marks are not written again");
    // Another worker has recorded marks meanwhile; the later time counts.
    world.plain().commit(alone(vec![mark(0, 9, Some(200))])).await.expect("lands");
    committer.commit(alone(vec![mark(0, 5, Some(150)), mark(1, 8, Some(150))])).await.expect("lands");
    assert_eq!(recorded(&world.events, 0).await, (Some(5), Some(200)));
    assert_eq!(recorded(&world.events, 1).await, (Some(8), Some(150)));
    let last = world.events.commits().pop().expect("some");
    assert!(last.files.is_empty() && last.ranges.is_empty() && last.operation == "mark");
    committer.commit(alone(vec![ReadMark::not_read("other", "runs", 4)])).await.expect("lands");
    let snapshot = world.events.load().await.expect("memory");
    assert_eq!(snapshot.next("other/runs/4/end"), Some(bellwether_lake::reading::NOT_READ));
    assert!(world.quarantine.commits().iter().all(|commit| commit.operation == "claim"));
}

#[tokio::test]
async fn marks_of_a_lost_partition_are_dropped_with_its_rows() {
    let world = World::new();
    world.plain().commit(batch(&[(0, 0)], &[], &[touch(0, 0, 5, None)])).await.expect("lands");
    // This worker still believes that nothing was read of partition 0.
    let partitions = [touch(0, 0, 9, None), touch(1, 0, 2, None)];
    let marks = vec![mark(0, 9, Some(100)), mark(1, 2, Some(100))];
    let report =
        world.plain().commit(Batch { marks, ..batch(&[(0, 0), (1, 0)], &[], &partitions) }).await.expect("lands");
    assert_eq!(report.fenced.len(), 1);
    assert_eq!(recorded(&world.events, 0).await, (None, None));
    assert_eq!(recorded(&world.events, 1).await, (Some(2), Some(100)));
}
