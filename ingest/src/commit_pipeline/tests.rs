//! Every outcome of a commit, driven without storage.

use std::sync::{Mutex, PoisonError};

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringViewArray};
use bellwether_lake::commit::faulty::{Fault, FaultyLog};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_lake::unique_id;

use super::*;

/// Keeps what was written; the first `failures` writes find storage out of reach.
#[derive(Default)]
struct FakeStore {
    failures: Mutex<u32>,
    discarded: Mutex<usize>,
    written: Mutex<Vec<(String, Vec<i64>)>>,
}

#[async_trait]
impl DataStore for FakeStore {
    async fn write(&self, _table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if *failures > 0 {
            *failures -= 1;
            return Err(Error::unavailable("the store does not answer (injected)"));
        }
        let path = unique_id().to_string();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), offsets(batch)));
        let rows = i64::try_from(batch.num_rows()).expect("a small batch");
        Ok(vec![WrittenFile { file: DataFile { path, rows, ..DataFile::default() }, batch: batch.clone() }])
    }

    async fn discard(&self, _table: Table, files: &[DataFile]) {
        *self.discarded.lock().unwrap_or_else(PoisonError::into_inner) += files.len();
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<&'static str>>);

impl Observer for Heard {
    fn retrying(&self, what: &'static str, _reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
    fn committed(&self, _report: &CommitReport) {}
}

struct World {
    store: Arc<FakeStore>,
    events: MemoryLog,
    quarantine: MemoryLog,
    heard: Arc<Heard>,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::default(),
            events: MemoryLog::default(),
            quarantine: MemoryLog::default(),
            heard: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    fn committer(&self, events: impl CommitLog + 'static, quarantine: impl CommitLog + 'static) -> Committer {
        let observer: Arc<dyn Observer> = self.heard.clone();
        let store: Arc<dyn DataStore> = self.store.clone();
        let logs = (Arc::new(events), Arc::new(quarantine));
        let committer = Committer::new(store, logs.0, logs.1, "job", observer, self.stop.clone());
        Committer { first_pause: Duration::from_millis(1), ..committer }
    }

    fn plain(&self) -> Committer {
        self.committer(self.events.clone(), self.quarantine.clone())
    }

    fn faulty(&self, script: &[Fault]) -> Committer {
        self.committer(FaultyLog::new(self.events.clone(), script.to_vec()), self.quarantine.clone())
    }

    /// Offsets that readers of a table see, sorted.
    fn visible(&self, log: &MemoryLog) -> Vec<i64> {
        let written = self.store.written.lock().unwrap_or_else(PoisonError::into_inner);
        let named: Vec<String> = log.commits().iter().flat_map(|c| c.files.iter().map(|f| f.path.clone())).collect();
        let mut found: Vec<i64> =
            written.iter().filter(|(path, _)| named.contains(path)).flat_map(|(_, offsets)| offsets.clone()).collect();
        found.sort_unstable();
        found
    }
}

fn offsets(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("offset").expect("a column").as_primitive::<Int64Type>().values().to_vec()
}

fn rows(of: &[(i32, i64)]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("topic", Arc::new(StringViewArray::from_iter_values(of.iter().map(|_| "runs")))),
        ("partition", Arc::new(Int32Array::from_iter_values(of.iter().map(|row| row.0)))),
        ("offset", Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.1)))),
    ];
    RecordBatch::try_from_iter(columns).expect("three columns")
}

fn touch(partition: i32, from: i64, next: i64, expected: Option<i64>) -> Touched {
    let range = PartitionRange {
        topic: "runs".to_owned(),
        partition,
        from,
        next,
        end_offset: None,
        newest_event_micros: None,
        passed_over: None,
    };
    Touched { range, expected }
}

fn batch(events: &[(i32, i64)], quarantine: &[(i32, i64)], touched: &[Touched]) -> Batch {
    Batch { events: rows(events), quarantine: rows(quarantine), touched: touched.to_vec(), topic_ids: BTreeMap::new() }
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
    world.faulty(&[Fault::None, Fault::LostRequest]).commit(poison()).await.expect_err("stopped");
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
    let script = [Fault::None, Fault::LostResponse, Fault::LostRequest];
    world.faulty(&script).commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0]);
    assert_eq!(world.events.commits().len(), 1);
    assert_eq!(world.heard.0.lock().expect("not poisoned").as_slice(), ["events", "events"]);
}

#[tokio::test]
async fn an_unknown_commit_that_did_not_land_is_repeated() {
    let world = World::new();
    let script = [Fault::Unavailable, Fault::None, Fault::LostRequest, Fault::LostRequest];
    world.faulty(&script).commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    assert_eq!(world.visible(&world.events), [0]);
    assert_eq!(world.heard.0.lock().expect("not poisoned").as_slice(), ["load", "events", "events"]);
}

#[tokio::test]
async fn the_batch_is_kept_while_storage_is_out_of_reach() {
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
    first.commit(batch(&[(7, 0)], &[], &[touch(7, 0, 1, None)])).await.expect("lands");
    second.commit(batch(&[(0, 0), (0, 1)], &[], &[touch(0, 0, 2, None)])).await.expect("lands");
    // `first` still holds a snapshot from before, so only the commit itself can notice.
    let both = batch(&[(0, 0), (1, 10)], &[], &[touch(0, 0, 1, None), touch(1, 10, 11, None)]);
    let report = first.commit(both).await.expect("the rest lands");
    let fenced = FencedPartition { topic: "runs".to_owned(), partition: 0, next: Some(2) };
    assert_eq!(report.fenced, [fenced]);
    assert_eq!(report.committed.iter().map(|range| range.partition).collect::<Vec<_>>(), [1]);
    assert_eq!(world.visible(&world.events), [0, 0, 1, 10], "offset 0 of partitions 0 and 7, once each");
    assert_eq!(*world.store.discarded.lock().expect("not poisoned"), 1);
}

#[tokio::test]
async fn a_stale_range_quarantines_nothing() {
    let world = World::new();
    world.plain().commit(batch(&[(0, 0)], &[], &[touch(0, 0, 1, None)])).await.expect("lands");
    let report = world.plain().commit(batch(&[], &[(0, 8)], &[touch(0, 5, 9, Some(5))])).await.expect("fenced only");
    assert_eq!(report.fenced[0].next, Some(1));
    assert_eq!(next(&world.quarantine, 0).await, None);
}

#[tokio::test]
async fn a_batch_that_contradicts_itself_is_refused() {
    let world = World::new();
    let outside = batch(&[(0, 9)], &[], &[touch(0, 0, 1, None)]);
    let behind = batch(&[], &[], &[touch(0, 3, 4, Some(2))]);
    for wrong in [outside, behind] {
        let error = world.plain().commit(wrong).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Bug);
    }
}
