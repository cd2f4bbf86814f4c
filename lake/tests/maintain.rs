//! Maintenance over a long time: logs and folders stay small, nothing that anyone needs is removed, and a maintainer may be
//! killed, run twice, or have a wrong clock.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::store::Watched;
use crate::common::{commit, rows};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use bellwether_base::{Clock, ErrorKind, ManualClock, SystemClock};
use bellwether_lake::{
    Act, Advance, CommitLog, Fold, Lake, MaintainSettings, Maintained, OffsetsOf, Outcome, PartitionRange,
    StorageOptions, Waits,
};
use bellwether_tables::Table;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use uuid::{NoContext, Timestamp, Uuid};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const DATE: i32 = 20_000;

fn settings() -> MaintainSettings {
    MaintainSettings {
        checkpoint_versions: 10,
        compact_files: 5,
        keep_replaced: Duration::from_secs(3600),
        ..MaintainSettings::default()
    }
}

async fn on_disk() -> (tempfile::TempDir, ManualClock, Lake) {
    let folder = tempfile::tempdir().expect("temp folder");
    let clock = ManualClock::at(SystemClock.now_micros());
    let lake = open(folder.path(), &clock).await;
    (folder, clock, lake)
}

async fn open(root: &FilePath, clock: &ManualClock) -> Lake {
    let root = root.to_str().expect("text");
    Lake::open_with_clock(root, &StorageOptions::default(), Arc::new(clock.clone())).await.expect("opens")
}

/// Appends three rows that a job took of a partition.
async fn append(lake: &Lake, table: Table) {
    let log = lake.log(table);
    let on = log.load().await.expect("loads");
    let from = on.next("j/x/1").unwrap_or(0);
    let written = lake.write(table, &rows(table, from..from + 3, &[DATE])).await.expect("writes");
    let range = PartitionRange {
        topic: "x".to_owned(),
        partition: 1,
        from,
        next: from + 3,
        end_offset: None,
        newest_event_micros: None,
        passed_over: Some(0),
    };
    let mut step = commit("j/x/1", on.next("j/x/1"), from + 3, &written);
    step.ranges = vec![range];
    assert!(matches!(log.try_commit(&on, &step).await, Ok(Outcome::Committed(_))));
}

/// A clock that names files by its own time.
struct Naming(ManualClock);

impl Clock for Naming {
    fn now_micros(&self) -> i64 {
        self.0.now_micros()
    }

    fn unique_id(&self) -> Uuid {
        let micros = u64::try_from(self.now_micros()).expect("after 1970");
        let nanos = u32::try_from(micros % 1_000_000 * 1000).expect("below a second");
        Uuid::new_v7(Timestamp::from_unix(NoContext, micros / 1_000_000, nanos))
    }
}

/// Records how far an aggregator has read `events`.
async fn aggregated(lake: &Lake, next: i64) {
    let log = lake.log(Table::Metrics);
    let on = log.load().await.expect("loads");
    let step = commit("aggregate/0", on.next("aggregate/0"), next, &[]);
    assert!(matches!(log.try_commit(&on, &step).await, Ok(Outcome::Committed(_))));
}

/// The offsets of all rows of a table, in order.
async fn offsets(lake: &Lake, table: Table) -> Vec<i64> {
    let mut all = Vec::new();
    for file in lake.active_files(table).await.expect("lists").1 {
        for batch in lake.read(table, &file, Some(&["offset"])).await.expect("reads") {
            all.extend(batch.column(0).as_primitive::<Int64Type>().values().iter().copied());
        }
    }
    all.sort_unstable();
    all
}

/// Cleans up until nothing is left to do.
async fn clean(lake: &Lake, table: Table) -> Maintained {
    let mut all = Maintained::default();
    loop {
        let done = lake.clean_up(table, &settings(), Act::Do).await.expect("cleans up");
        if !done.is_some() {
            return Maintained { waits: done.waits, ..all };
        }
        all.add(done);
    }
}

/// Objects under a table.
async fn objects(lake: &Lake, table: Table) -> usize {
    let found: Vec<_> = lake.objects().list(Some(&lake.table_path(table))).try_collect().await.expect("lists");
    found.len()
}

#[tokio::test]
async fn the_folder_of_a_table_that_is_written_for_days_does_not_grow() {
    let (_folder, clock, lake) = on_disk().await;
    let mut most = [0, 0];
    // A commit each three minutes, for ten hours.
    for n in 0..200_i64 {
        append(&lake, Table::Events).await;
        let version = lake.log(Table::Events).latest_version().await.expect("loads");
        aggregated(&lake, version + 1).await;
        clock.advance(180 * SECOND);
        if n % 5 == 4 {
            for table in [Table::Events, Table::Metrics] {
                lake.maintain(table, &settings()).await.expect("maintains");
            }
        }
        if n == 60 {
            most = [objects(&lake, Table::Events).await, objects(&lake, Table::Metrics).await];
        }
    }
    for (table, most) in [Table::Events, Table::Metrics].into_iter().zip(most) {
        let now = objects(&lake, table).await;
        assert!(now <= most + most / 4, "{}: {now} objects, {most} after 3 hours", table.name());
        assert!(now < 120, "{}: {now} objects", table.name());
    }
    assert_eq!(offsets(&lake, Table::Events).await, (0..600).collect::<Vec<_>>());
    let record = lake.cleaned_log(Table::Events).await.expect("reads").expect("there is one");
    let [partition] = record.partitions.as_slice() else { panic!("{record:?}") };
    let [taken] = partition.taken.as_slice() else { panic!("{record:?}") };
    assert_eq!((taken.from, taken.passed_over), (0, Some(0)));
    assert!(taken.next > 450 && i64::try_from(taken.commits).expect("few") * 3 == taken.next, "{record:?}");
    // Rewrites are entries, too.
    assert!(i64::try_from(record.entries).expect("few") > record.version, "every entry up to it: {record:?}");
    let error = lake.delta_table_at(Table::Events, 3).await.expect_err("its log is gone");
    assert!(error.message().contains("cannot be read as of version 3"), "{}", error.chain());
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn what_an_aggregator_has_not_read_stays_however_old_it_is() {
    let (_folder, clock, lake) = on_disk().await;
    for _ in 0..20 {
        append(&lake, Table::Events).await;
    }
    lake.compact(Table::Events, &settings()).await.expect("compacts");
    for _ in 0..20 {
        append(&lake, Table::Events).await;
    }
    lake.checkpoint(Table::Events).await.expect("a checkpoint");
    lake.clean_up(Table::Events, &settings(), Act::Do).await.expect("a round");
    clock.advance(2 * DAY);
    let waits = |version| Some(Waits::Follower { name: "aggregate", version });
    assert_eq!(clean(&lake, Table::Events).await, Maintained { waits: waits(0), ..Maintained::default() });
    aggregated(&lake, 21).await;
    assert_eq!(clean(&lake, Table::Events).await, Maintained { waits: waits(21), ..Maintained::default() });
    // The state before its next version, and the files of each version from there on.
    for file in lake.files_at(Table::Events, 20).await.expect("is there") {
        lake.read(Table::Events, &file, None).await.expect("is there");
    }
    aggregated(&lake, 42).await;
    let done = clean(&lake, Table::Events).await;
    assert_eq!((done.replaced.count, done.waits), (20, None), "{done:?}");
    assert_eq!(offsets(&lake, Table::Events).await.len(), 120);
}

#[tokio::test]
async fn a_wrong_clock_removes_nothing_that_is_in_use() {
    let (_folder, clock, lake) = on_disk().await;
    let round = || async { lake.clean_up(Table::Quarantine, &settings(), Act::Do).await.expect("a round") };
    for _ in 0..10 {
        append(&lake, Table::Quarantine).await;
    }
    // `events` has all of it, so that no owner needs the entries.
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    log.try_commit(&on, &commit("j/x/1", None, 30, &[])).await.expect("commits");
    lake.compact(Table::Quarantine, &settings()).await.expect("compacts");
    lake.checkpoint(Table::Quarantine).await.expect("a checkpoint");
    round().await;
    clock.advance(HOUR / 2);
    round().await;
    clock.advance(400 * DAY);
    let jumped = round().await;
    assert!(!jumped.is_some(), "{jumped:?}");
    let Some(Waits::Clock { until_micros, moved_micros: Some(moved) }) = jumped.waits else { panic!("{jumped:?}") };
    assert_eq!((until_micros, moved), (clock.now_micros() + HOUR, 400 * DAY));
    clock.advance(-400 * DAY);
    assert!(!round().await.is_some(), "nor when it is set back");
    clock.advance(HOUR);
    let done = round().await;
    assert_eq!(done.replaced.count, 10, "after an hour of rounds it is believed: {done:?}");
    assert_eq!(offsets(&lake, Table::Quarantine).await, (0..30).collect::<Vec<_>>());
}

/// A table in memory with something to clean up: ten small files that were replaced by two.
async fn cleanable() -> (Arc<Watched>, ManualClock, Lake) {
    let store = Arc::new(Watched::default());
    let clock = ManualClock::at(SystemClock.now_micros());
    let lake = Lake::on_store(Arc::clone(&store) as _, Arc::new(clock.clone())).await.expect("opens");
    for _ in 0..10 {
        append(&lake, Table::Events).await;
    }
    lake.compact(Table::Events, &settings()).await.expect("compacts");
    lake.checkpoint(Table::Events).await.expect("a checkpoint");
    let version = lake.log(Table::Events).latest_version().await.expect("loads");
    aggregated(&lake, version + 1).await;
    append(&lake, Table::Events).await;
    lake.clean_up(Table::Events, &settings(), Act::Do).await.expect("a first round");
    clock.advance(2 * HOUR);
    (store, clock, lake)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_that_is_killed_at_any_point_is_finished_by_the_next() {
    let (store, _, lake) = cleanable().await;
    let puts = store.calls().0;
    let plan = lake.clean_up(Table::Events, &settings(), Act::Plan).await.expect("plans");
    assert_eq!((plan.replaced.count, plan.log.count), (10, 11), "{plan:?}");
    let again = lake.clean_up(Table::Events, &settings(), Act::Plan).await.expect("plans");
    assert_eq!((again, store.calls().0), (plan, puts), "a plan changes nothing");
    assert_eq!(clean(&lake, Table::Events).await, plan, "what was planned is done");
    let left = objects(&lake, Table::Events).await;
    for killed_after in [0, 9, 10, 11, 20] {
        let (store, clock, lake) = cleanable().await;
        *store.deletes_left.lock().expect("whole") = Some(killed_after);
        let error = lake.clean_up(Table::Events, &settings(), Act::Do).await.expect_err("killed");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        *store.deletes_left.lock().expect("whole") = None;
        store.down.store(false, Ordering::Relaxed);
        let again = Lake::on_store(Arc::clone(&store) as _, Arc::new(clock)).await.expect("opens");
        assert_eq!(offsets(&again, Table::Events).await, (0..33).collect::<Vec<_>>(), "killed after {killed_after}");
        append(&again, Table::Events).await;
        clean(&again, Table::Events).await;
        assert_eq!(offsets(&again, Table::Events).await, (0..36).collect::<Vec<_>>());
        // The new commit is an entry and a file; its property is an entry.
        assert_eq!(objects(&again, Table::Events).await, left + 2, "killed after {killed_after}");
        let record = again.cleaned_log(Table::Events).await.expect("reads").expect("there is one");
        assert_eq!((record.version, record.partitions[0].taken[0].next), (11, 30), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_does_not_hold_what_its_log_says_stands_for_nothing() {
    let (_, _, lake) = cleanable().await;
    let path = |version: i64| {
        let name = format!("{version:020}.checkpoint.parquet");
        lake.table_path(Table::Events).join("_delta_log").join(name)
    };
    // The checkpoint of another table under its name: it names other files.
    let (_, _, other) = cleanable().await;
    let bytes = other.objects().get(&path(11)).await.expect("there").bytes().await.expect("bytes");
    lake.objects().put(&path(11), bytes.into()).await.expect("puts");
    let before = objects(&lake, Table::Events).await;
    let error = lake.clean_up(Table::Events, &settings(), Act::Do).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("log checkpoint of version 11 of table `events`"), "{}", error.chain());
    assert_eq!(objects(&lake, Table::Events).await, before, "nothing was removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_maintainers_beside_a_writer_and_a_reader_lose_nothing() {
    let (folder, clock, lake) = on_disk().await;
    let mut maintainers = Vec::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for _ in 0..2 {
        let (lake, stop) = (open(folder.path(), &clock).await, stop.clone());
        maintainers.push(tokio::spawn(async move {
            let mut cleaned = 0;
            while !stop.is_cancelled() {
                for table in [Table::Events, Table::Metrics] {
                    match lake.maintain(table, &settings()).await {
                        Ok(done) => cleaned += done.log.count,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain()),
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cleaned
        }));
    }
    for n in 0..120 {
        append(&lake, Table::Events).await;
        let version = lake.log(Table::Events).latest_version().await.expect("loads");
        aggregated(&lake, version + 1).await;
        clock.advance(120 * SECOND);
        if n % 10 == 0 {
            assert_eq!(offsets(&lake, Table::Events).await, (0..3 * (n + 1)).collect::<Vec<_>>());
        }
    }
    stop.cancel();
    let mut cleaned = 0;
    for maintainer in maintainers {
        cleaned += maintainer.await.expect("no panic");
    }
    assert!(cleaned > 20, "{cleaned} entries");
    clean(&lake, Table::Events).await;
    assert_eq!(offsets(&lake, Table::Events).await, (0..360).collect::<Vec<_>>());
    let record = lake.cleaned_log(Table::Events).await.expect("reads").expect("there is one");
    assert_eq!(record.partitions[0].taken.len(), 1, "{record:?}");
}

#[tokio::test]
async fn a_file_without_a_commit_goes_and_a_commit_that_comes_too_late_is_refused() {
    let folder = tempfile::tempdir().expect("temp folder");
    let clock = ManualClock::at(SystemClock.now_micros());
    let root = folder.path().to_str().expect("text");
    let named = Arc::new(Naming(clock.clone()));
    let lake = Lake::open_with_clock(root, &StorageOptions::default(), named).await.expect("opens");
    append(&lake, Table::Events).await;
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let written = lake.write(Table::Events, &rows(Table::Events, 3..6, &[DATE])).await.expect("writes");
    // Its writer is suspended for nine days, while others go on.
    let late = commit("j/x/1", Some(3), 6, &written);
    for round in 0..18 {
        let plan = lake.remove_unnamed(Table::Events, &settings(), Act::Plan).await.expect("plans");
        let is_there = lake.file_bytes(Table::Events, &written[0].file.path).await.is_ok();
        assert!(is_there || round > 14, "it stays for seven days, and is planned for before it goes");
        let done = lake.remove_unnamed(Table::Events, &settings(), Act::Do).await.expect("a round");
        assert_eq!(done, plan);
        clock.advance(DAY / 2);
        let before = log.load().await.expect("loads");
        let read = commit("j/x/1/read", before.next("j/x/1/read"), clock.now_micros(), &[]);
        log.try_commit(&before, &read).await.expect("commits");
    }
    assert!(lake.file_bytes(Table::Events, &written[0].file.path).await.is_err(), "it is gone");
    let refused = log.try_commit(&on, &late).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{}", refused.chain());
    assert_eq!(offsets(&lake, Table::Events).await, [0, 1, 2]);
    // Read again, its rows are committed.
    append(&lake, Table::Events).await;
    assert_eq!(offsets(&lake, Table::Events).await, (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_owner_learns_what_was_rejected_from_a_log_that_was_cleaned_up() {
    let (_folder, clock, lake) = on_disk().await;
    for table in [Table::Quarantine, Table::Events] {
        let log = lake.log(table);
        log.try_commit(&log.load().await.expect("loads"), &commit("j/x/2", None, 5, &[])).await.expect("commits");
    }
    for _ in 0..10 {
        append(&lake, Table::Quarantine).await;
    }
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    log.try_commit(&on, &commit("j/x/1", None, 33, &[])).await.expect("commits");
    lake.checkpoint(Table::Quarantine).await.expect("a checkpoint");
    lake.clean_up(Table::Quarantine, &settings(), Act::Do).await.expect("a round");
    clock.advance(2 * HOUR);
    append(&lake, Table::Quarantine).await;
    let done = clean(&lake, Table::Quarantine).await;
    assert_eq!(done.log.count, 11, "{done:?}");
    let asked = |partition, from| OffsetsOf {
        app_id: format!("j/x/{partition}"),
        aside: format!("j/x/{partition}/late"),
        after: -1,
        until: 12,
        topic: "x".to_owned(),
        partition,
        from,
    };
    let found = lake.offsets_of(Table::Quarantine, &asked(1, 30)).await.expect("its entry is there");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [30, 31, 32]);
    let found = lake.offsets_of(Table::Quarantine, &asked(2, 5)).await.expect("the checkpoint says so");
    assert!(found.is_empty(), "{found:?}");
    let unknown = lake.offsets_of(Table::Quarantine, &asked(1, 27)).await.expect_err("nobody can tell");
    assert_eq!(unknown.kind(), ErrorKind::Data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_nothing_is_lost_and_work_goes_on_once_there_is_space() {
    let store = Arc::new(Watched::default());
    let clock = ManualClock::at(SystemClock.now_micros());
    let lake = Lake::on_store(Arc::clone(&store) as _, Arc::new(clock.clone())).await.expect("opens");
    for _ in 0..10 {
        append(&lake, Table::Events).await;
    }
    store.full.store(true, Ordering::Relaxed);
    let error = lake.compact(Table::Events, &settings()).await.expect_err("no file can be written");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    lake.checkpoint(Table::Events).await.expect_err("nor a checkpoint");
    assert_eq!(offsets(&lake, Table::Events).await, (0..30).collect::<Vec<_>>());
    store.full.store(false, Ordering::Relaxed);
    assert_eq!(lake.compact(Table::Events, &settings()).await.expect("compacts"), 10);
    lake.checkpoint(Table::Events).await.expect("a checkpoint");
    let version = lake.log(Table::Events).latest_version().await.expect("loads");
    aggregated(&lake, version + 1).await;
    lake.clean_up(Table::Events, &settings(), Act::Do).await.expect("a first round");
    clock.advance(2 * HOUR);
    store.full.store(true, Ordering::Relaxed);
    lake.clean_up(Table::Events, &settings(), Act::Do).await.expect_err("the record cannot be written");
    store.full.store(false, Ordering::Relaxed);
    assert_eq!(offsets(&lake, Table::Events).await, (0..30).collect::<Vec<_>>());
    assert!(lake.log(Table::Events).entry(0).await.expect("reads").is_some(), "no entry goes without a record");
    let done = clean(&lake, Table::Events).await;
    assert_eq!((done.replaced.count, done.log.count), (10, 11), "files that are gone are no obstacle: {done:?}");
}

/// Rows with all their times at one moment.
fn rows_at(table: Table, offsets: std::ops::Range<i64>, micros: i64) -> RecordBatch {
    let day = i32::try_from(micros.div_euclid(DAY)).expect("a day");
    let rows = rows(table, offsets, &[day]);
    let (count, schema) = (rows.num_rows(), rows.schema());
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
        "event_time" | "quarantined_at" | "window_start" => {
            Arc::new(TimestampMicrosecondArray::from(vec![micros; count]).with_timezone("UTC")) as ArrayRef
        }
        "events_to" => Arc::new(Int64Array::from(vec![micros.div_euclid(DAY); count])),
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(rows.schema(), columns.collect()).expect("the same columns")
}

/// Appends a row for each of some days before now, each in a file.
async fn append_days(lake: &Lake, table: Table, now: i64, days: std::ops::Range<i64>) {
    let log = lake.log(table);
    for day in days.rev() {
        let on = log.load().await.expect("loads");
        let from = on.next("j/x/1").unwrap_or(0);
        let batch = rows_at(table, from..from + 1, now - day * DAY);
        let written = lake.write(table, &batch).await.expect("writes");
        let step = commit("j/x/1", on.next("j/x/1"), from + 1, &written);
        assert!(matches!(log.try_commit(&on, &step).await, Ok(Outcome::Committed(_))));
    }
}

async fn kept_from(lake: &Lake, table: Table) -> i64 {
    bellwether_lake::rollup::kept_from(&lake.log(table).load().await.expect("loads"))
}

#[tokio::test]
async fn files_go_once_all_their_rows_are_old_enough_and_read() {
    let (_folder, clock, lake) = on_disk().await;
    let keep = Duration::from_secs(10 * 86_400);
    let now = clock.now_micros();
    append_days(&lake, Table::Events, now, 0..15).await;
    let unread = lake.retain(Table::Events, keep, false, Act::Do).await.expect("looks");
    assert!(!unread.is_some(), "nothing that an aggregator has not read: {unread:?}");
    let version = lake.log(Table::Events).latest_version().await.expect("loads");
    aggregated(&lake, version + 1).await;
    let plan = lake.retain(Table::Events, keep, false, Act::Plan).await.expect("plans");
    assert_eq!((plan.expired.count, plan.expired_rows, plan.refused_days), (4, 4, 0), "days 11 to 14: {plan:?}");
    assert_eq!(lake.retain(Table::Events, keep, false, Act::Do).await.expect("removes"), plan);
    assert_eq!(offsets(&lake, Table::Events).await, (4..15).collect::<Vec<_>>());
    let cutoff = (now - 10 * DAY).div_euclid(DAY) * DAY;
    assert_eq!(kept_from(&lake, Table::Events).await, cutoff);
    let log = lake.log(Table::Events);
    let entry = log.entry(log.latest_version().await.expect("loads")).await.expect("reads").expect("there");
    assert_eq!(entry.removed.len(), 4);
    assert_eq!(
        serde_json::to_value(&entry.removed_rows).expect("JSON"),
        serde_json::json!([
            { "topic": "x", "partition": 1, "from": 0, "next": 4, "rows": 4 },
        ])
    );
    let again = lake.retain(Table::Events, keep, false, Act::Do).await.expect("looks");
    assert!(!again.is_some(), "{again:?}");
    // A longer time from now on brings nothing back, and never moves the moment back.
    lake.retain(Table::Events, 2 * keep, false, Act::Do).await.expect("looks");
    assert_eq!(kept_from(&lake, Table::Events).await, cutoff);
}

#[tokio::test]
async fn minutes_go_once_they_are_in_hours_and_hours_once_they_are_in_days() {
    let (_folder, clock, lake) = on_disk().await;
    let keep = Duration::from_secs(2 * 86_400);
    let now = clock.now_micros();
    let today = now.div_euclid(DAY);
    for table in [Table::Metrics, Table::MetricsHourly] {
        append_days(&lake, table, now, 0..6).await;
    }
    aggregated(&lake, today + 1).await;
    let rolled = async |table: Table, to: i64| {
        let log = lake.log(table);
        let on = log.load().await.expect("loads");
        let mut step = commit("rollup/to", on.next("rollup/to"), to, &[]);
        let known = on.next("rollup/generation");
        step.advances.push(Advance { app_id: "rollup/generation".to_owned(), expected: known, next: 0 });
        assert!(matches!(log.try_commit(&on, &step).await, Ok(Outcome::Committed(_))));
    };
    let retained = async |table| lake.retain(table, keep, false, Act::Do).await.expect("looks").expired.count;
    assert_eq!((retained(Table::Metrics).await, retained(Table::MetricsHourly).await), (0, 0));
    // `events_to` is the day here: the rows of days 5 and 4 ago are rolled.
    rolled(Table::MetricsHourly, today - 4).await;
    assert_eq!((retained(Table::Metrics).await, retained(Table::MetricsHourly).await), (2, 0));
    rolled(Table::MetricsDaily, today - 5).await;
    assert_eq!((retained(Table::Metrics).await, retained(Table::MetricsHourly).await), (0, 1));
    rolled(Table::MetricsHourly, today).await;
    assert_eq!(retained(Table::Metrics).await, 1, "the last one that is older than two days");
}

#[tokio::test]
async fn a_clock_that_jumps_a_year_removes_no_history() {
    let (_folder, clock, lake) = on_disk().await;
    let keep = Duration::from_secs(10 * 86_400);
    let now = clock.now_micros();
    append_days(&lake, Table::Quarantine, now, 0..9).await;
    let retained = async |confirmed| lake.retain(Table::Quarantine, keep, confirmed, Act::Do).await.expect("looks");
    assert!(!retained(false).await.is_some());
    // The clock alone: the newest row says how late it is.
    clock.advance(365 * DAY);
    assert_eq!(retained(false).await, Maintained::default());
    assert_eq!(offsets(&lake, Table::Quarantine).await.len(), 9);
    // The clock and all writers.
    append_days(&lake, Table::Quarantine, clock.now_micros(), 0..1).await;
    let refused = retained(false).await;
    assert_eq!((refused.refused_days, refused.is_some()), (365, false), "{refused:?}");
    assert_eq!(offsets(&lake, Table::Quarantine).await.len(), 10);
    let done = retained(true).await;
    assert_eq!((done.expired.count, done.refused_days), (9, 0), "a person has confirmed it: {done:?}");
    assert_eq!(offsets(&lake, Table::Quarantine).await, [9]);
}

/// Loses a row whenever it is asked, after some times.
struct Forgetful(AtomicUsize);

#[async_trait::async_trait]
impl Fold for Forgetful {
    async fn fold(&self, _: Table, rows: Vec<RecordBatch>) -> bellwether_base::Result<Vec<RecordBatch>> {
        if self.0.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(rows);
        }
        Ok(rows.iter().map(|batch| batch.slice(0, batch.num_rows().saturating_sub(1))).collect())
    }
}

#[tokio::test]
async fn a_file_that_does_not_hold_the_fold_of_its_rows_is_not_used() {
    let (_folder, _, lake) = on_disk().await;
    for _ in 0..6 {
        append(&lake, Table::Metrics).await;
    }
    aggregated(&lake, 9).await;
    let log = lake.log(Table::MetricsHourly);
    let mut step = commit("rollup/to", None, 5, &[]);
    step.advances.push(Advance { app_id: "rollup/generation".to_owned(), expected: None, next: 0 });
    log.try_commit(&log.load().await.expect("loads"), &step).await.expect("commits");
    for calls in [1, 2] {
        let fold = Forgetful(AtomicUsize::new(calls + 1));
        let error = lake.maintain_with(Table::Metrics, &settings(), Some(&fold)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains("does not hold the rows it replaces"), "{}", error.chain());
        assert_eq!(lake.active_files(Table::Metrics).await.expect("lists").1.len(), 6);
    }
    let whole = Forgetful(AtomicUsize::new(usize::MAX));
    let done = lake.maintain_with(Table::Metrics, &settings(), Some(&whole)).await.expect("maintains");
    assert_eq!((done.files_compacted, done.rows_folded), (6, 0));
}
