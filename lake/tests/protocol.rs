//! Tests the exactly-once protocol and the files in a real folder.

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use bellwether_base::ErrorKind;
use bellwether_lake::commit::faulty::{Fault, FaultyLog};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_lake::{
    Advance, CommitLog, DataFile, Lake, MaintainSettings, Maintained, OffsetsOf, Outcome, StorageOptions,
};
use bellwether_tables::Table;

use crate::common::{commit, lake, rows};

#[tokio::test]
async fn rows_read_back_as_written_and_are_split_by_day() {
    let (_folder, lake) = lake().await;
    let batch = rows(Table::Events, 0..10, &[20_000, 20_001]);
    let written = lake.write(Table::Events, &batch).await.expect("writes");
    assert_eq!(written.iter().map(|file| file.file.rows).collect::<Vec<_>>(), [5, 5]);
    assert!(written[0].file.path.starts_with("event_date=2024-10-04/"), "{}", written[0].file.path);

    let log = lake.log(Table::Events);
    let before = log.load().await.expect("loads");
    let outcome = log.try_commit(&before, &commit("j/t/0", None, 10, &written)).await.expect("commits");
    let Outcome::Committed(after) = outcome else { panic!("{outcome:?}") };
    assert_eq!((after.version, after.next("j/t/0")), (1, Some(10)));
    assert_eq!(log.load().await.expect("loads"), after);

    let (version, files) = lake.active_files(Table::Events).await.expect("lists");
    assert_eq!((version, files.len()), (1, 2));
    let entry = log.entry(1).await.expect("reads").expect("there");
    assert_eq!(entry.added.len(), 2);
    for (file, parity) in entry.added.iter().zip([0, 1]) {
        let read = lake.read(Table::Events, file, None).await.expect("reads");
        assert_eq!(read.len(), 1);
        let of_the_day = take_record_batch(&batch, &UInt32Array::from_iter_values((0..5).map(|n| 2 * n + parity)));
        assert_eq!(read[0], of_the_day.expect("rows"), "every column of every row is as it was");
    }
    let narrow = lake.read(Table::Events, &entry.added[1], Some(&["event_date", "offset"])).await.expect("reads");
    assert_eq!(narrow[0].num_columns(), 2);
    assert_eq!(narrow[0].column(1).as_primitive::<Int64Type>().values(), &[1, 3, 5, 7, 9]);
}

#[tokio::test]
async fn of_two_owners_of_a_partition_the_second_is_fenced_and_others_are_not() {
    let (_folder, lake) = lake().await;
    let log = lake.log(Table::Events);
    let snapshot = log.load().await.expect("loads");
    let first = log.try_commit(&snapshot, &commit("j/t/0", None, 5, &[])).await.expect("commits");
    assert!(matches!(first, Outcome::Committed(_)), "{first:?}");
    let zombie = log.try_commit(&snapshot, &commit("j/t/0", None, 7, &[])).await.expect("answers");
    let Outcome::Fenced { apps, snapshot: now } = zombie else { panic!("{zombie:?}") };
    assert_eq!(apps, ["j/t/0"]);
    assert_eq!(now.next("j/t/0"), Some(5));
    let other = log.try_commit(&snapshot, &commit("j/t/1", None, 3, &[])).await.expect("commits");
    let Outcome::Committed(after) = other else { panic!("{other:?}") };
    assert_eq!((after.version, after.next("j/t/0"), after.next("j/t/1")), (2, Some(5), Some(3)));
}

#[tokio::test]
async fn a_condition_must_hold_and_moves_nothing() {
    let (_folder, lake) = lake().await;
    let log = lake.log(Table::Events);
    let snapshot = log.load().await.expect("loads");
    let on_condition = |number| {
        let mut step = commit("j/t/0", None, 5, &[]);
        step.advances.push(Advance { app_id: "owner".to_owned(), expected: Some(number), next: number });
        step
    };
    log.try_commit(&snapshot, &commit("owner", None, 7, &[])).await.expect("commits");
    // The snapshot is older; the commit reads the later entries.
    let snapshot = log.load().await.expect("loads");
    log.try_commit(&snapshot, &commit("owner", Some(7), 8, &[])).await.expect("commits");
    let fenced = log.try_commit(&snapshot, &on_condition(7)).await.expect("answers");
    assert!(matches!(&fenced, Outcome::Fenced { apps, .. } if apps == &["owner"]), "{fenced:?}");
    let snapshot = log.load().await.expect("loads");
    let taken = log.try_commit(&snapshot, &on_condition(8)).await.expect("answers");
    let Outcome::Committed(after) = taken else { panic!("{taken:?}") };
    assert_eq!((after.next("owner"), after.next("j/t/0")), (Some(8), Some(5)));
    let entry = log.entry(after.version).await.expect("reads").expect("there");
    assert_eq!(entry.txns, [("j/t/0".to_owned(), 5)]);
}

#[tokio::test]
async fn offsets_are_those_that_an_application_has_committed_since_it_stood_below_them() {
    let (folder, lake) = lake().await;
    let log = lake.log(Table::Quarantine);
    let mut snapshot = log.load().await.expect("loads");
    // All rows are of topic `x` and partition 1.
    let steps = [("a/x/1", 0..5), ("a/x/1", 5..10), ("b/x/1", 10..12), ("a/x/1/late", 12..13), ("a/x/1", 13..15)];
    for (version, (app, range)) in (1..).zip(steps) {
        let written =
            lake.write(Table::Quarantine, &rows(Table::Quarantine, range.clone(), &[])).await.expect("writes");
        let step = commit(app, snapshot.next(app), range.end, &written);
        let Outcome::Committed(after) = log.try_commit(&snapshot, &step).await.expect("commits") else { panic!() };
        assert_eq!(after.version, version);
        snapshot = after;
    }
    let asked = |from, after, topic: &str, partition| OffsetsOf {
        app_id: "a/x/1".to_owned(),
        aside: "a/x/1/late".to_owned(),
        after,
        until: 5,
        topic: topic.to_owned(),
        partition,
        from,
    };
    let of = async |asked: OffsetsOf| -> Result<Vec<i64>, ErrorKind> {
        let found = lake.offsets_of(Table::Quarantine, &asked).await;
        found.map(|offsets| offsets.into_iter().collect()).map_err(|error| error.kind())
    };
    assert_eq!(of(asked(7, -1, "x", 1)).await, Ok(vec![7, 8, 9, 12, 13, 14]), "those of job `b` are not asked for");
    assert_eq!(of(asked(7, 2, "x", 1)).await, Ok(vec![12, 13, 14]));
    assert_eq!(of(asked(7, -1, "y", 1)).await, Ok(vec![]));
    assert_eq!(of(asked(7, -1, "x", 2)).await, Ok(vec![]));
    // A rewrite moves the rows to other files; the log still names the committed files.
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(lake.compact(Table::Quarantine, &settings).await.expect("rewrites"), 5);
    assert_eq!(of(asked(7, -1, "x", 1)).await, Ok(vec![7, 8, 9, 12, 13, 14]));
    let entry = |version: i64| folder.path().join(format!("quarantine/_delta_log/{version:020}.json"));
    std::fs::remove_file(entry(0)).expect("it is there");
    assert_eq!(of(asked(5, -1, "x", 1)).await.map(|found| found.len()), Ok(8), "nothing before version 1 is looked at");
    assert_eq!(of(asked(4, -1, "x", 1)).await, Err(ErrorKind::Data), "an entry is missing");
}

#[tokio::test]
async fn a_rewrite_is_compared_whole_and_column_by_column() {
    for compare_bytes in [usize::MAX, 1] {
        let (_folder, lake) = lake().await;
        let log = lake.log(Table::Events);
        // These rows have nested columns, and the day, which is in no file: it forms a group of its own.
        for (version, range) in (1..).zip([0..500, 500..2000]) {
            let snapshot = log.load().await.expect("loads");
            let written =
                lake.write(Table::Events, &rows(Table::Events, range.clone(), &[20_000])).await.expect("writes");
            let step = commit("a/x/1", snapshot.next("a/x/1"), range.end, &written);
            let Outcome::Committed(after) = log.try_commit(&snapshot, &step).await.expect("commits") else { panic!() };
            assert_eq!(after.version, version);
        }
        let settings = MaintainSettings { compact_files: 2, compare_bytes, ..MaintainSettings::default() };
        assert_eq!(lake.compact(Table::Events, &settings).await.expect("rewrites"), 2);
        assert_eq!(lake.compact(Table::Events, &settings).await.expect("has nothing to do"), 0);
    }
}

#[tokio::test]
async fn asking_again_after_a_lost_response_finds_the_commit_and_does_not_double_it() {
    let (_folder, lake) = lake().await;
    let log = FaultyLog::new(lake.log(Table::Quarantine), [Fault::LostResponse, Fault::None]);
    let snapshot = lake.log(Table::Quarantine).load().await.expect("loads");
    let commit = commit("j/t/0", None, 5, &[]);
    let unknown = log.try_commit(&snapshot, &commit).await.expect("answers");
    assert!(matches!(unknown, Outcome::Unknown { .. }), "{unknown:?}");
    let found = log.try_commit(&snapshot, &commit).await.expect("answers");
    let Outcome::Committed(after) = found else { panic!("{found:?}") };
    assert_eq!(after.version, 1, "one version, not two");
    assert!(log.inner().entry(2).await.expect("reads").is_none());
}

#[tokio::test]
async fn a_lost_response_behind_somebody_elses_commit_is_found_too() {
    let (_folder, lake) = lake().await;
    let log = lake.log(Table::Events);
    let snapshot = log.load().await.expect("loads");
    let ours = commit("j/t/0", None, 5, &[]);
    log.try_commit(&snapshot, &commit("j/t/1", None, 1, &[])).await.expect("another's");
    log.try_commit(&snapshot, &ours).await.expect("lands at version 2; the answer is thrown away");
    log.try_commit(&snapshot, &commit("j/t/1", Some(1), 2, &[])).await.expect("answers");
    let again = log.try_commit(&snapshot, &ours).await.expect("answers");
    assert!(matches!(&again, Outcome::Committed(after) if after.version == 2), "{again:?}");
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing_and_double_nothing() {
    let (_folder, lake) = lake().await;
    let writers = (0..6).map(|writer| {
        let log = lake.log(Table::Events);
        async move {
            let app = format!("j/t/{writer}");
            let mut snapshot = log.load().await.expect("loads");
            for next in 1..=10 {
                let step = commit(&app, snapshot.next(&app), next, &[]);
                match log.try_commit(&snapshot, &step).await.expect("answers") {
                    Outcome::Committed(after) => snapshot = after,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    let end = lake.log(Table::Events).load().await.expect("loads");
    assert_eq!(end.version, 60);
    assert!(end.apps().all(|(_, next)| next == 10), "{end:?}");
}

#[tokio::test]
async fn a_checkpoint_keeps_every_application() {
    let (folder, lake) = lake().await;
    let log = lake.log(Table::Events);
    let written = lake.write(Table::Events, &rows(Table::Events, 0..4, &[20_000])).await.expect("writes");
    let mut snapshot = log.load().await.expect("loads");
    for (app, files) in [("j/t/0", written.as_slice()), ("j/t/1", &[])] {
        let outcome = log.try_commit(&snapshot, &commit(app, None, 4, files)).await.expect("commits");
        let Outcome::Committed(after) = outcome else { panic!("{outcome:?}") };
        snapshot = after;
    }
    lake.checkpoint(Table::Events).await.expect("checkpoints");
    assert!(folder.path().join("events/_delta_log/_last_checkpoint").exists());
    assert_eq!(lake.log(Table::Events).load().await.expect("loads"), snapshot);
    let (_, files) = lake.active_files(Table::Events).await.expect("lists");
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].rows, Some(4));
}

/// Lists a table with more log entries than are read at once, and with more files in an entry than a batch has rows.
async fn a_table_of_many_entries_and_files_is_listed_whole() {
    let (_folder, lake) = lake().await;
    let log = lake.log(Table::Quarantine);
    let mut snapshot = log.load().await.expect("loads");
    let written = lake.write(Table::Quarantine, &rows(Table::Quarantine, 0..1, &[20_000])).await.expect("writes");
    let mut committed = Vec::new();
    for n in 0..50 {
        let mut step = commit("j/t/0", snapshot.next("j/t/0"), n + 1, &[]);
        step.files = (0..if n == 20 { 700 } else { 1 })
            .map(|file| DataFile { path: format!("{n}-{file}.parquet"), ..written[0].file.clone() })
            .collect();
        committed.extend(step.files.iter().map(|file| file.path.clone()));
        let Outcome::Committed(after) = log.try_commit(&snapshot, &step).await.expect("commits") else { panic!() };
        snapshot = after;
    }
    committed.sort();
    for checkpointed in [false, true] {
        if checkpointed {
            lake.checkpoint(Table::Quarantine).await.expect("checkpoints");
        }
        let (version, files) = lake.active_files(Table::Quarantine).await.expect("lists");
        let mut listed: Vec<String> = files.into_iter().map(|file| file.path).collect();
        listed.sort();
        assert_eq!((version, &listed), (50, &committed));
    }
}

#[tokio::test]
async fn on_one_thread_a_table_of_many_entries_and_files_is_listed_whole() {
    a_table_of_many_entries_and_files_is_listed_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_a_table_of_many_entries_and_files_is_listed_whole() {
    a_table_of_many_entries_and_files_is_listed_whole().await;
}

#[tokio::test]
async fn compaction_keeps_every_row_and_says_that_nothing_changed() {
    let (_folder, lake) = lake().await;
    let log = lake.log(Table::Events);
    let mut snapshot = log.load().await.expect("loads");
    for n in 0..5 {
        let written =
            lake.write(Table::Events, &rows(Table::Events, n * 3..n * 3 + 3, &[20_000])).await.expect("writes");
        let step = commit("j/t/0", snapshot.next("j/t/0"), n * 3 + 3, &written);
        let Outcome::Committed(after) = log.try_commit(&snapshot, &step).await.expect("commits") else { panic!() };
        snapshot = after;
    }
    let settings = MaintainSettings { checkpoint_versions: 6, compact_files: 5, ..MaintainSettings::default() };
    let done = lake.maintain(Table::Events, &settings).await.expect("maintains");
    assert!(done.checkpointed && done.files_compacted == 5 && done.bytes_compacted > 0, "{done:?}");
    let (_, files) = lake.active_files(Table::Events).await.expect("lists");
    assert_eq!(files.len(), 1);
    let read = lake.read(Table::Events, &files[0], Some(&["offset"])).await.expect("reads");
    let offsets: Vec<i64> = read[0].column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(offsets, (0..15).collect::<Vec<_>>());
    let entry = log.entry(6).await.expect("reads").expect("there");
    assert!(!entry.brings_rows());
    assert_eq!(log.load().await.expect("loads").next("j/t/0"), Some(15));
    let idle = lake.maintain(Table::Events, &settings).await.expect("maintains");
    assert_eq!(idle, Maintained::default());
}

#[tokio::test]
async fn every_table_opens_empty_and_opening_twice_changes_nothing() {
    let (folder, lake) = lake().await;
    let again = Lake::open(folder.path().to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    for table in Table::ALL {
        let (version, files) = again.active_files(table).await.expect("lists");
        assert_eq!((version, files.len()), (0, 0), "{}", table.name());
        assert!(lake.write(table, &RecordBatch::new_empty(table.arrow_schema())).await.expect("writes").is_empty());
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_made_is_an_error_of_the_configuration() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("a-file");
    std::fs::write(&file, "x").expect("writes");
    let error =
        Lake::open(file.join("below").to_str().expect("text"), &StorageOptions::default()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn the_memory_log_keeps_the_same_rules() {
    let log = MemoryLog::default();
    let start = log.load().await.expect("loads");
    let step = commit("a", None, 1, &[]);
    let landed = log.try_commit(&start, &step).await.expect("answers");
    assert!(matches!(landed, Outcome::Committed(_)));
    assert!(matches!(log.try_commit(&start, &step).await.expect("answers"), Outcome::Committed(_)), "found again");
    let late = log.try_commit(&start, &commit("a", None, 2, &[])).await.expect("answers");
    assert!(matches!(late, Outcome::Fenced { .. }), "{late:?}");
    assert_eq!(log.commits().len(), 1);
}
