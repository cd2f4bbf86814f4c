//! A cursor far behind the end of a log, and at its end.

use std::sync::Arc;

use bellwether_base::{ErrorKind, ManualClock, unique_id};
use bellwether_follow::Cursor;
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome};
use bellwether_tables::Table;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Map;

const APP: &str = "toy/t/0";

/// Makes a log with so many versions after the first.
async fn log_of(versions: i64) -> (Lake, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::at(1_795_543_200_000_000));
    let lake = Lake::on_store(Arc::clone(&store) as Arc<dyn ObjectStore>, clock).await.expect("opens");
    let log = lake.log(Table::Events);
    let mut on = log.load().await.expect("loads");
    for next in 1..=versions {
        let commit = Commit {
            uuid: unique_id(),
            advances: vec![Advance { app_id: APP.to_owned(), expected: on.next(APP), next }],
            files: Vec::new(),
            operation: "toy",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        match log.try_commit(&on, &commit).await.expect("answers") {
            Outcome::Committed(snapshot) => on = snapshot,
            other => panic!("{other:?}"),
        }
    }
    (lake, store)
}

async fn versions(cursor: &Cursor, ahead: i64, most: usize) -> Vec<i64> {
    cursor.entries(ahead, most).await.expect("reads").into_iter().map(|entry| entry.version).collect()
}

#[tokio::test]
async fn entries_come_in_order_up_to_the_end_of_the_log() {
    let (lake, _) = log_of(40).await;
    let mut cursor = Cursor::new(lake.log(Table::Events), 0);
    assert_eq!(versions(&cursor, 0, 1000).await, (0..=40).collect::<Vec<_>>());
    assert_eq!(versions(&cursor, 7, 5).await, [7, 8, 9, 10, 11]);
    assert_eq!(versions(&cursor, 41, 5).await, [] as [i64; 0]);
    cursor.advance_to(39);
    assert_eq!(versions(&cursor, 0, 1000).await, [39, 40]);
    cursor.advance_to(41);
    assert_eq!(versions(&cursor, 0, 1000).await, [] as [i64; 0]);
}

#[tokio::test]
async fn entries_that_were_cleaned_up_are_noticed_at_the_first_look_and_again_later() {
    let (lake, store) = log_of(4).await;
    lake.checkpoint(Table::Events).await.expect("writes a checkpoint");
    let gone = |version: i64| Path::from(format!("events/_delta_log/{version:020}.json"));
    for version in 0..=3 {
        store.delete(&gone(version)).await.expect("deletes");
    }
    let behind = Cursor::new(lake.log(Table::Events), 2);
    assert_eq!(behind.entries(0, 10).await.expect_err("it is gone").kind(), ErrorKind::Data);
    // One that had read everything, and slept while entries came and went.
    let asleep = Cursor::new(lake.log(Table::Events), 5);
    assert_eq!(asleep.entry(0).await.expect("reads").map(|entry| entry.version), None);
    let log = lake.log(Table::Events);
    let mut on = log.load().await.expect("loads");
    for _ in 0..3 {
        let commit = Commit {
            uuid: unique_id(),
            advances: vec![Advance { app_id: APP.to_owned(), expected: on.next(APP), next: on.version + 1 }],
            files: Vec::new(),
            operation: "toy",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        match log.try_commit(&on, &commit).await.expect("answers") {
            Outcome::Committed(snapshot) => on = snapshot,
            other => panic!("{other:?}"),
        }
    }
    lake.checkpoint(Table::Events).await.expect("writes a checkpoint");
    for version in 4..=6 {
        store.delete(&gone(version)).await.expect("deletes");
    }
    let mut looks = 0;
    let error = loop {
        looks += 1;
        assert!(looks < 100, "it waits for ever");
        match asleep.entry(0).await {
            Ok(found) => assert!(found.is_none()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Data);
}
