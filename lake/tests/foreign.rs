//! Other programs that write to the same tables: protocol changes, and rewrites and clean-ups between our commits.

use std::sync::PoisonError;

use crate::common::store::{Watched, watched};
use crate::common::{commit, lake, rows};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bellwether_base::ErrorKind;
use bellwether_lake::{AddedFile, CommitLog, DeltaLog, Lake, MaintainSettings, Outcome, Snapshot, StorageOptions};
use bellwether_tables::Table;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

fn entry_path(table: Table, version: i64) -> Path {
    Path::from(format!("{}/_delta_log/{version:020}.json", table.name()))
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Writes an entry of another program to a log.
async fn put(store: &Watched, table: Table, version: i64, lines: &[Value]) {
    store.inner.put(&entry_path(table, version), PutPayload::from(text(lines))).await.expect("puts");
}

async fn committed(log: &DeltaLog, on: &Snapshot, app: &str, next: i64) -> Snapshot {
    match log.try_commit(on, &commit(app, on.next(app), next, &[])).await.expect("answers") {
        Outcome::Committed(after) => after,
        other => panic!("{other:?}"),
    }
}

/// Returns the metadata in a table's first entry.
async fn metadata(store: &Watched, table: Table) -> Value {
    let bytes = store.inner.get(&entry_path(table, 0)).await.expect("there").bytes().await.expect("bytes");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.find(|line| line["metaData"].is_object()).expect("there")
}

fn protocol(features: &[&str]) -> Value {
    json!({ "protocol": {
        "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features,
    }})
}

#[tokio::test]
async fn an_upgrade_of_the_protocol_is_seen_before_the_next_commit_and_in_open() {
    let (store, lake) = watched().await;
    let log = lake.log(Table::Events);
    let on = committed(&log, &log.load().await.expect("loads"), "a", 1).await;
    // Harmless features are accepted, although the snapshot is older.
    put(&store, Table::Events, 2, &[protocol(&["appendOnly", "invariants", "changeDataFeed"])]).await;
    let on = committed(&log, &on, "a", 2).await;
    assert_eq!(on.version, 3);
    put(&store, Table::Events, 4, &[protocol(&["appendOnly", "rowTracking", "domainMetadata"])]).await;
    let puts = store.calls().0;
    let refused = log.try_commit(&on, &commit("a", Some(2), 3, &[])).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(refused.message().contains("table `events` uses `domainMetadata`, `rowTracking`"), "{refused:?}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("DROP FEATURE domainMetadata")), "{refused:?}");
    assert_eq!(store.calls().0, puts + 1, "the one attempt that showed it");
    let on = log.load().await.expect("loads");
    assert!(log.try_commit(&on, &commit("a", Some(2), 3, &[])).await.is_err());
    assert_eq!(store.calls().0, puts + 1, "none at all where it is known");
    let opened = Lake::on_store(store.clone(), lake.clock()).await.expect_err("refused");
    assert!(opened.message().contains("rowTracking"), "{opened:?}");
    // The newest protocol counts: once the feature is dropped, commits succeed again.
    put(&store, Table::Events, 5, &[protocol(&["appendOnly"])]).await;
    Lake::on_store(store.clone(), lake.clock()).await.expect("opens");
    assert_eq!(committed(&log, &on, "a", 3).await.version, 6);
}

#[tokio::test]
async fn a_commit_that_landed_before_an_upgrade_is_found_after_it() {
    let (store, lake) = watched().await;
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let ours = commit("a", None, 1, &[]);
    log.try_commit(&on, &ours).await.expect("lands; the answer is thrown away");
    put(&store, Table::Events, 2, &[protocol(&["deletionVectors"])]).await;
    let again = log.try_commit(&on, &ours).await.expect("answers");
    assert!(matches!(&again, Outcome::Committed(after) if after.version == 1), "{again:?}");
}

#[tokio::test]
async fn a_constraint_is_refused_and_append_only_keeps_rows_from_being_replaced() {
    let (store, lake) = watched().await;
    let log = lake.log(Table::Metrics);
    let mut changed = metadata(&store, Table::Metrics).await;
    changed["metaData"]["configuration"] = json!({ "delta.constraints.some": "runs > 0" });
    put(&store, Table::Metrics, 1, &[changed.clone()]).await;
    let on = log.load().await.expect("loads");
    let refused = log.try_commit(&on, &commit("a", None, 1, &[])).await.expect_err("refused");
    assert!(refused.message().contains("checkConstraints"), "{refused:?}");
    changed["metaData"]["configuration"] = json!({ "delta.appendOnly": "true" });
    put(&store, Table::Metrics, 2, &[changed]).await;
    let on = committed(&log, &log.load().await.expect("loads"), "a", 1).await;
    let old = AddedFile {
        path: "x".to_owned(),
        size: 1,
        rows: None,
        partition_values: [].into(),
        data_change: true,
        stats: None,
    };
    let refused = log.try_replace(&on, &commit("a", Some(1), 2, &[]), &[old]).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.message().contains("delta.appendOnly") && refused.hint().is_some(), "{refused:?}");
}

#[tokio::test]
async fn who_is_a_thousand_versions_behind_reads_on_and_writes_once() {
    let (store, lake) = watched().await;
    let log = lake.log(Table::Events);
    let stale = log.load().await.expect("loads");
    let mut on = stale.clone();
    for next in 1..=1000 {
        on = committed(&log, &on, "others", next).await;
    }
    let (puts, gets) = store.calls();
    let after = committed(&log, &stale, "ours", 1).await;
    assert_eq!((after.version, after.next("others")), (1001, Some(1000)));
    let (more_puts, more_gets) = store.calls();
    assert_eq!(more_puts - puts, 2, "one attempt shows that others were first, the next one lands");
    assert!(more_gets - gets < 1100, "{}", more_gets - gets);
    // If another writer has advanced our application, no attempt is made.
    let fenced = log.try_commit(&stale, &commit("others", Some(7), 8, &[])).await.expect("answers");
    assert!(matches!(fenced, Outcome::Fenced { snapshot, .. } if snapshot.version == 1001));
    assert_eq!(store.calls().0, more_puts);
}

#[tokio::test]
async fn a_version_that_was_cleaned_up_is_not_written_again() {
    let (store, lake) = watched().await;
    let log = lake.log(Table::Events);
    let stale = committed(&log, &log.load().await.expect("loads"), "a", 1).await;
    let mut on = stale.clone();
    for next in 1..=9 {
        on = committed(&log, &on, "b", next).await;
    }
    lake.checkpoint(Table::Events).await.expect("checkpoints");
    for version in 0..10 {
        store.inner.delete(&entry_path(Table::Events, version)).await.expect("is cleaned up");
    }
    let after = committed(&log, &stale, "a", 2).await;
    assert_eq!((after.version, after.next("b")), (11, Some(9)));
    assert!(log.entry(2).await.expect("reads").is_none(), "nobody would ever read it");
    // If our entry may be among the removed ones, the commit is never repeated.
    let gone = log.try_commit(&stale, &commit("b", None, 1, &[])).await;
    assert!(matches!(&gone, Ok(Outcome::Fenced { .. })) || gone.is_err_and(|error| error.kind() == ErrorKind::Fenced));
    let moved = log.try_commit(&stale, &commit("a", Some(1), 3, &[])).await.expect_err("the outcome is unknown");
    assert_eq!(moved.kind(), ErrorKind::Fenced);
    assert_eq!(log.load().await.expect("loads"), after);
}

/// Returns the offsets of all rows of a table, in order.
async fn offsets(lake: &Lake, table: Table) -> Vec<i64> {
    let mut offsets = Vec::new();
    for file in lake.active_files(table).await.expect("lists").1 {
        for batch in lake.read(table, &file, Some(&["offset"])).await.expect("reads") {
            offsets.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
    }
    offsets.sort_unstable();
    offsets
}

/// Returns the entry of another program that combines all files of a table.
async fn optimized(lake: &Lake, table: Table, rows: &[bellwether_lake::WrittenFile]) -> String {
    let removed = lake.active_files(table).await.expect("lists").1.into_iter().map(|file| {
        json!({ "remove": {
            "path": file.path, "dataChange": false, "deletionTimestamp": 1, "size": file.size,
            "partitionValues": file.partition_values,
        }})
    });
    let added = rows.iter().map(|written| {
        json!({ "add": {
            "path": written.file.path, "partitionValues": written.file.partition_values, "size": written.file.size,
            "modificationTime": 1, "dataChange": false, "stats": written.file.stats,
        }})
    });
    text(
        &std::iter::once(json!({ "commitInfo": { "operation": "OPTIMIZE" } }))
            .chain(removed)
            .chain(added)
            .collect::<Vec<_>>(),
    )
}

#[tokio::test]
async fn of_two_rewrites_of_the_same_files_only_the_first_counts() {
    let (store, lake) = watched().await;
    let (table, log) = (Table::Quarantine, lake.log(Table::Quarantine));
    let mut on = log.load().await.expect("loads");
    for n in 0..4 {
        let written = lake.write(table, &rows(table, n * 2..n * 2 + 2, &[])).await.expect("writes");
        let step = commit("a", on.next("a"), n + 1, &written);
        let Outcome::Committed(after) = log.try_commit(&on, &step).await.expect("commits") else { panic!() };
        on = after;
    }
    let before = on.clone();
    let old = lake.active_files(table).await.expect("lists").1;
    let merged = lake.write(table, &rows(table, 0..8, &[])).await.expect("writes");
    let theirs = optimized(&lake, table, &merged).await;
    // It lands after our rewrite has read the files, and before it commits.
    *store.behind_a_file.lock().unwrap_or_else(PoisonError::into_inner) = Some((entry_path(table, 5), theirs));
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(lake.compact(table, &settings).await.expect("steps back"), 0);
    assert_eq!(offsets(&lake, table).await, (0..8).collect::<Vec<_>>(), "each row once");
    assert_eq!(log.load().await.expect("loads").version, 5);
    // A rebuild that replaces the old files would leave their rows in the combined file.
    let replaced = log.try_replace(&before, &commit("a", Some(4), 5, &[]), &old).await.expect("answers");
    assert!(matches!(replaced, Outcome::Fenced { .. }), "{replaced:?}");
    // Ingest continues from a snapshot before the rewrite.
    assert_eq!(committed(&log, &before, "a", 5).await.version, 6);
    assert_eq!(offsets(&lake, table).await.len(), 8);
}

#[tokio::test]
async fn a_checkpoint_of_the_second_form_says_the_same() {
    let (folder, lake) = lake().await;
    let (root, table) = (folder.path(), Table::Events);
    let log = lake.log(table);
    let written = lake.write(table, &rows(table, 0..4, &[20_000])).await.expect("writes");
    let step = commit("a", None, 4, &written);
    let Outcome::Committed(on) = log.try_commit(&log.load().await.expect("loads"), &step).await.expect("commits")
    else {
        panic!()
    };
    let entry = |version: i64| root.join(format!("events/_delta_log/{version:020}.json"));
    let first = std::fs::read_to_string(entry(0)).expect("there");
    let metadata: Value = serde_json::from_str(first.lines().nth(2).expect("a line")).expect("JSON");
    let features = json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["v2Checkpoint"],
        "writerFeatures": ["v2Checkpoint", "appendOnly", "invariants"],
    }});
    std::fs::write(entry(2), text(std::slice::from_ref(&features))).expect("writes");
    let file = &written[0].file;
    let lines = [
        json!({ "checkpointMetadata": { "version": 2 } }),
        features,
        metadata,
        json!({ "txn": { "appId": "a", "version": 4 } }),
        json!({ "add": {
            "path": file.path, "partitionValues": file.partition_values, "size": file.size, "modificationTime": 1,
            "dataChange": false, "stats": file.stats,
        }}),
    ];
    let name = "00000000000000000002.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json";
    let text = text(&lines);
    std::fs::write(root.join("events/_delta_log").join(name), &text).expect("writes");
    let pointer = json!({ "version": 2, "size": 5, "v2Checkpoint": {
        "path": name, "sizeInBytes": text.len(), "modificationTime": 1, "nonFileActions": [], "sidecarFiles": [],
    }});
    std::fs::write(root.join("events/_delta_log/_last_checkpoint"), pointer.to_string()).expect("writes");
    (0..2).for_each(|version| std::fs::remove_file(entry(version)).expect("there"));
    let lake = Lake::open(root.to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    let log = lake.log(table);
    let loaded = log.load().await.expect("loads");
    assert_eq!((loaded.version, loaded.next("a")), (2, on.next("a")));
    assert_eq!(committed(&log, &loaded, "a", 5).await.version, 3);
    assert_eq!(offsets(&lake, table).await, [0, 1, 2, 3]);
    lake.checkpoint(table).await.expect("checkpoints in the same form");
    assert_eq!(log.load().await.expect("loads").next("a"), Some(5));
}
