//! Damage is reported as an error of kind `Data` that names the place and the remedy; passing failures are retried.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::store::watched;
use crate::common::{commit, lake, rows};
use bellwether_base::{Error, ErrorKind};
use bellwether_lake::{AddedFile, CommitLog, Lake, MaintainSettings, Outcome, Snapshot, StorageOptions};
use bellwether_tables::Table;

fn log_path(root: &Path, name: &str) -> PathBuf {
    root.join("events/_delta_log").join(name)
}

fn entry(root: &Path, version: i64) -> PathBuf {
    log_path(root, &format!("{version:020}.json"))
}

/// Commits so many times, with one file each.
async fn commits(lake: &Lake, how_many: i64) -> Snapshot {
    let log = lake.log(Table::Events);
    let mut on = log.load().await.expect("loads");
    for n in 0..how_many {
        let batch = rows(Table::Events, n * 300..(n + 1) * 300, &[20_000]);
        let written = lake.write(Table::Events, &batch).await.expect("writes");
        let step = commit("a", on.next("a"), n + 1, &written);
        let Outcome::Committed(after) = log.try_commit(&on, &step).await.expect("commits") else { panic!() };
        on = after;
    }
    on
}

fn is_damage(error: &Error, expected: &str) {
    assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
    assert!(error.chain().contains(expected), "`{expected}` in {}", error.chain());
    assert!(error.hint().is_some(), "{error:?}");
}

async fn opened(root: &Path) -> bellwether_base::Result<Lake> {
    Lake::open(root.to_str().expect("text"), &StorageOptions::default()).await
}

/// A change of a file's content.
type Damage<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// Damage to a file.
type Harm<'a> = &'a dyn Fn(&Path);

#[tokio::test]
async fn a_log_entry_that_is_torn_or_gone_stops_readers_and_writers() {
    let whole = |bytes: &[u8]| bytes.to_vec();
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 10].to_vec();
    let garbage = |_: &[u8]| b"\x00\xff garbage".to_vec();
    let nothing = |_: &[u8]| Vec::new();
    let damages: [(Damage<'_>, bool, &str); 4] = [
        (&cut, true, "log entry 2 is not readable"),
        (&garbage, true, "log entry 2 is not readable"),
        (&nothing, true, "log entry 2 is not readable"),
        (&whole, false, "log entry 2 of table `events` is missing"),
    ];
    for (damage, there, expected) in damages {
        let (folder, lake) = lake().await;
        let root = folder.path();
        let first = commits(&lake, 1).await;
        commits(&lake, 3).await;
        let bytes = fs::read(entry(root, 2)).expect("there");
        match there {
            true => fs::write(entry(root, 2), damage(&bytes)).expect("writes"),
            false => fs::remove_file(entry(root, 2)).expect("removes"),
        }
        let log = lake.log(Table::Events);
        is_damage(&log.load().await.expect_err("damaged"), expected);
        // The Delta library accepts an empty entry; callers that list files load the log first.
        if fs::metadata(entry(root, 2)).map_or(true, |entry| entry.len() > 0) {
            let listed = lake.active_files(Table::Events).await;
            is_damage(&listed.err().unwrap_or_else(|| panic!("{expected} of {there}")), expected);
        }
        is_damage(&opened(root).await.expect_err("damaged"), expected);
        let answer = log.try_commit(&first, &commit("b", None, 1, &[])).await;
        match there {
            true => is_damage(&answer.expect_err("damaged"), expected),
            false => assert!(answer.is_ok(), "only the log's end shows a hole: {answer:?}"),
        }
        fs::write(entry(root, 2), bytes).expect("is restored");
        opened(root).await.expect("opens again");
    }
}

#[tokio::test]
async fn a_log_checkpoint_that_is_damaged_says_so() {
    let name = "00000000000000000003.checkpoint.parquet";
    let cases: [(&str, Option<&[u8]>, &str); 5] = [
        ("_last_checkpoint", Some(b"{\"versi"), "`_last_checkpoint` of table `events` is not readable"),
        ("_last_checkpoint", Some(b""), "`_last_checkpoint` of table `events` is not readable"),
        (name, Some(b"garbage"), "log checkpoint 3 of table `events` is not readable"),
        (name, Some(b""), "log checkpoint 3 of table `events` is not readable"),
        (name, None, "log checkpoint 3 of table `events` is not readable"),
    ];
    for (name, bytes, expected) in cases {
        let (folder, lake) = lake().await;
        commits(&lake, 3).await;
        lake.checkpoint(Table::Events).await.expect("checkpoints");
        let path = log_path(folder.path(), name);
        match bytes {
            Some(bytes) => fs::write(path, bytes).expect("writes"),
            None => fs::remove_file(path).expect("removes"),
        }
        is_damage(&lake.log(Table::Events).load().await.expect_err("damaged"), expected);
        is_damage(&opened(folder.path()).await.expect_err("damaged"), expected);
        if !name.starts_with('_') {
            is_damage(&lake.active_files(Table::Events).await.expect_err("damaged"), expected);
        }
    }
}

#[tokio::test]
async fn a_checkpoint_whose_files_are_not_readable_is_found_by_whoever_needs_them() {
    let (folder, lake) = lake().await;
    commits(&lake, 3).await;
    lake.checkpoint(Table::Events).await.expect("checkpoints");
    let path = log_path(folder.path(), "00000000000000000003.checkpoint.parquet");
    let mut bytes = fs::read(&path).expect("there");
    let length = bytes.len();
    // Damages the pages of all columns, but not the footer.
    bytes[4..length / 2].iter_mut().for_each(|byte| *byte = !*byte);
    fs::write(path, bytes).expect("writes");
    let error = lake.active_files(Table::Events).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Data, "{}", error.chain());
}

#[tokio::test]
async fn a_data_file_that_is_gone_or_cut_is_named() {
    let gone = |path: &Path| fs::remove_file(path).expect("removes");
    let cut = |path: &Path| {
        let bytes = fs::read(path).expect("there");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("writes");
    };
    let garbled = |path: &Path| {
        let mut bytes = fs::read(path).expect("there");
        let length = bytes.len();
        bytes[4..length - 8].iter_mut().for_each(|byte| *byte = !*byte);
        fs::write(path, bytes).expect("writes");
    };
    let damages: [(Harm<'_>, &str); 3] = [(&gone, "is missing"), (&cut, ""), (&garbled, "")];
    for (damage, expected) in damages {
        let (folder, lake) = lake().await;
        commits(&lake, 2).await;
        let (_, files) = lake.active_files(Table::Events).await.expect("lists");
        let file: &AddedFile = &files[0];
        damage(&folder.path().join("events").join(&file.path));
        let says = |error: Error| {
            is_damage(&error, expected);
            assert!(error.message().contains(&file.path), "{error:?}");
        };
        says(lake.read(Table::Events, file, None).await.expect_err("damaged"));
        says(lake.read(Table::Events, file, Some(&["offset"])).await.expect_err("damaged"));
        says(lake.read_rows(Table::Events, file, &["offset"], vec![1]).await.expect_err("damaged"));
        let values = Arc::new(["run-number-2".to_owned(), "run-number-302".to_owned()].into());
        says(lake.find_rows(Table::Events, file, &["offset"], "run_id", &values).await.expect_err("damaged"));
        let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
        says(lake.compact(Table::Events, &settings).await.expect_err("damaged"));
        assert!(lake.read(Table::Events, &files[1], None).await.is_ok(), "the other file is not concerned");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let (store, lake) = watched().await;
    commits(&lake, 2).await;
    lake.checkpoint(Table::Events).await.expect("checkpoints");
    let (_, files) = lake.active_files(Table::Events).await.expect("lists");
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    store.down.store(true, Ordering::Relaxed);
    let values = Arc::new(["run-number-2".to_owned()].into());
    let settings = MaintainSettings::default();
    let before = store.calls();
    let kinds = [
        log.load().await.expect_err("down").kind(),
        log.latest_version().await.expect_err("down").kind(),
        log.entry(1).await.expect_err("down").kind(),
        lake.active_files(Table::Events).await.expect_err("down").kind(),
        lake.files_at(Table::Events, 1).await.expect_err("down").kind(),
        lake.read(Table::Events, &files[0], None).await.expect_err("down").kind(),
        lake.read_rows(Table::Events, &files[0], &["offset"], vec![1]).await.expect_err("down").kind(),
        lake.find_rows(Table::Events, &files[0], &["offset"], "run_id", &values).await.expect_err("down").kind(),
        lake.compact(Table::Events, &settings).await.expect_err("down").kind(),
        lake.checkpoint(Table::Events).await.expect_err("down").kind(),
        Lake::on_store(store.clone(), lake.clock()).await.expect_err("down").kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Unavailable; 11]);
    let answer = log.try_commit(&on, &commit("a", Some(2), 3, &[])).await.expect("answers");
    assert!(matches!(answer, Outcome::Unknown { .. }), "{answer:?}");
    assert_eq!(store.calls(), before, "nothing came through");
    store.down.store(false, Ordering::Relaxed);
    let answer = log.try_commit(&on, &commit("a", Some(2), 3, &[])).await.expect("answers");
    assert!(matches!(answer, Outcome::Committed(_)), "{answer:?}");
}
