//! `bellwether rebuild` and shards: rebuilding everything downstream of `events`, in one commit per table.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_aggregate::recompute::{Sources, compare, first_difference, folded, folded_files};
use bellwether_aggregate::{Aggregate, Aggregator, AggregatorSettings, rebuild, run};
use bellwether_base::{ErrorKind, unique_id};
use bellwether_follow::Until;
use bellwether_lake::{Advance, Commit, CommitLog, Outcome};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, rows};
use crate::common::bellwether;
use crate::common::program::text;

const TOTAL: &str = "SELECT CAST(sum(runs) AS BIGINT) AS runs, CAST(sum(success) AS BIGINT) AS success FROM metrics";

fn statements(from: usize, count: usize) -> Vec<Value> {
    let one = |n: usize| {
        let completed = json!({
            "task": (["a", "b"][n % 2]), "release": { "id": format!("r{}", n % 3), "model": { "requested": "m" } },
            "started_at": "2026-11-23T10:00:00Z", "ended_at": format!("2026-11-23T10:{:02}:30Z", n % 7),
            "outcome": { "status": if n.is_multiple_of(4) { "unknown" } else { "success" } },
        });
        let score = json!({ "name": "ok", "kind": "llm", "evaluator": { "id": "j" }, "passed": n.is_multiple_of(8), "sets_outcome": true });
        let event = |event_type: &str, data: Value| {
            json!({ "spec": "run-event/1", "type": event_type, "run_id": format!("run-{n}"), "source": "app",
                "time": "2026-11-23T11:00:00Z", "data": data })
        };
        let mut events = vec![event("run.completed", completed)];
        if n.is_multiple_of(4) {
            events.push(event("run.score", score));
        }
        events
    };
    (from..from + count).flat_map(one).collect()
}

async fn rebuilt(feed: &Feed, settings: AggregatorSettings) {
    let stop = CancellationToken::new();
    Box::pin(rebuild(&feed.lake, settings, |_| {}, &stop)).await.expect("rebuilds");
}

fn shard(number: u32, of: u32) -> AggregatorSettings {
    AggregatorSettings { shards: of, shard: number, ..AggregatorSettings::default() }
}

/// Corrupts `metrics` by appending all its rows a second time.
async fn duplicate_rows(feed: &Feed) {
    let log = feed.lake.log(Table::Metrics);
    let on = log.load().await.expect("loads");
    let (_, files) = feed.lake.active_files(Table::Metrics).await.expect("lists");
    let mut written = Vec::new();
    for file in &files {
        for batch in feed.lake.read(Table::Metrics, file, None).await.expect("reads") {
            written.extend(feed.lake.write(Table::Metrics, &batch).await.expect("writes"));
        }
    }
    let commit = Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: "test".to_owned(), expected: None, next: 1 }],
        files: written.into_iter().map(|written| written.file).collect(),
        operation: "WRITE",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    assert!(matches!(log.try_commit(&on, &commit).await.expect("answers"), Outcome::Committed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_recomputed_in_many_parts_as_in_one() {
    let mut feed = Feed::new().await;
    feed.commit_events(&statements(0, 40)).await;
    // Statements about runs of the first commit, which belong to the same parts.
    feed.commit_events(&statements(20, 40)).await;
    feed.aggregate(AggregatorSettings::default()).await;
    let groups = feed.folded().await.num_rows();
    let compared = async |part_rows: i64, files: usize| {
        let metrics = feed.lake.active_files(Table::Metrics).await.expect("lists").1;
        let events = feed.lake.active_files(Table::Events).await.expect("lists").1;
        let shards = vec![events.into_iter().take(files).collect()];
        let sources = Sources { shards, erased: None, kept_from: i64::MIN, part_rows };
        Box::pin(compare(&feed.lake, metrics, &sources)).await.expect("compares")
    };
    for part_rows in [1, 7, 1_000_000] {
        let whole = compared(part_rows, usize::MAX).await;
        assert_eq!((whole.difference, whole.groups), (None, groups), "{part_rows} rows a part");
        assert!(compared(part_rows, 1).await.difference.is_some(), "{part_rows} rows a part, one file is left out");
    }
    duplicate_rows(&feed).await;
    let found = compared(7, usize::MAX).await.difference.expect("every row stands twice");
    assert!(found.starts_with("column `runs` is"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_repairs_a_table_in_one_commit() {
    let mut feed = Feed::new().await;
    feed.commit_events(&statements(0, 40)).await;
    feed.aggregate(AggregatorSettings::default()).await;
    let right = feed.folded().await;
    let history = feed.sql("SELECT count(*) AS n FROM rolling_history").await;
    duplicate_rows(&feed).await;
    let wrong = folded(&feed.lake).await.expect("folds");
    assert!(first_difference(&wrong, &right).is_some());
    let reader = feed.session().await;
    let before = rows(&reader, TOTAL).await;
    let old = feed.lake.active_files(Table::Metrics).await.expect("lists");
    rebuilt(&feed, AggregatorSettings::default()).await;
    let new = feed.lake.active_files(Table::Metrics).await.expect("lists");
    assert_eq!(new.0, old.0 + 1, "one commit");
    assert!(new.1.iter().all(|file| !old.1.contains(file)), "no old file among the new");
    let at_the_old_version = feed.lake.files_at(Table::Metrics, old.0).await.expect("lists");
    let seen = folded_files(&feed.lake, at_the_old_version).await.expect("folds");
    assert_eq!(first_difference(&seen, &wrong), None, "the old version still reads as it was");
    assert_eq!(first_difference(&feed.folded().await, &right), None);
    assert_ne!(rows(&reader, TOTAL).await, before, "an open reader moves on to the new version");
    assert_eq!(feed.sql("SELECT count(*) AS n FROM rolling_history").await, history, "`rolling_history` is kept");
    let releases = feed.sql("SELECT release_id, events_version FROM releases ORDER BY release_id").await;
    assert_eq!(releases.len(), 3, "{releases:?}");
}

/// Polls a future `polls` times, then drops it, as a kill would. Returns true if it ended before.
async fn killed_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_killed_at_any_point_leaves_the_old_or_the_new_rows_and_can_be_repeated() {
    let mut feed = Feed::new().await;
    for part in 0..4 {
        feed.commit_events(&statements(part * 20, 20)).await;
    }
    feed.aggregate(AggregatorSettings::default()).await;
    let right = feed.folded().await;
    duplicate_rows(&feed).await;
    let wrong = folded(&feed.lake).await.expect("folds");
    let (mut ended, mut killed) = (false, 0);
    for polls in [2, 5, 9, 14, 20, 30, 45, 70, 100, 150, 220, 330, 500, 750, 1100, 1700, 2500, 4000] {
        let stop = CancellationToken::new();
        ended = killed_after(polls, Box::pin(rebuild(&feed.lake, AggregatorSettings::default(), |_| {}, &stop))).await;
        let table = folded(&feed.lake).await.expect("folds");
        if first_difference(&table, &right).is_none() {
            break; // It may have been killed just after its commit.
        }
        assert!(!ended, "a rebuild that ended has repaired the table");
        assert_eq!(first_difference(&table, &wrong), None, "after {polls} polls");
        killed += 1;
    }
    assert!(killed > 2, "killed only {killed} times before it ended ({ended})");
    rebuilt(&feed, AggregatorSettings::default()).await;
    assert_eq!(first_difference(&feed.folded().await, &right), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_aggregator_continues_after_a_rebuild_and_counts_nothing_twice() {
    let mut feed = Feed::new().await;
    feed.commit_events(&statements(0, 30)).await;
    let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    // The rebuild reads beyond the aggregator, which does not notice.
    feed.commit_events(&statements(30, 10)).await;
    rebuilt(&feed, AggregatorSettings::default()).await;
    feed.commit_events(&statements(20, 30)).await;
    let fenced = Box::pin(aggregator.run_until_caught_up()).await.expect_err("its run index is older than the rebuild");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    let aggregate = Aggregate::new(feed.lake.clone());
    Box::pin(run(aggregate, Registry::new(), Until::caught_up(), CancellationToken::new())).await.expect("catches up");
    feed.folded().await;
    assert_eq!(feed.sql(TOTAL).await[0]["runs"], 50);
}

async fn sharded(feed: &Feed, shards: u32) -> RecordBatch {
    for number in 0..shards {
        feed.aggregate(shard(number, shards)).await;
    }
    feed.folded().await
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_have_the_same_totals_and_a_rebuild_changes_their_number() {
    let mut one = Feed::new().await;
    let mut feed = Feed::new().await;
    for part in 0..4 {
        one.commit_events(&statements(part * 20, 40)).await;
        feed.commit_events(&statements(part * 20, 40)).await;
        let expected = Box::pin(sharded(&one, 1)).await;
        let shards = [3, 3, 2, 1][part];
        if part > 1 {
            let error = Aggregator::open(&feed.lake, shard(0, shards), None, &Registry::new()).await.err();
            let error = error.expect("the tables have another number of shards");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.hint().is_some_and(|hint| hint.contains("bellwether rebuild")), "{error}");
            rebuilt(&feed, shard(0, shards)).await;
        }
        let found = Box::pin(sharded(&feed, shards)).await;
        assert_eq!(first_difference(&found, &expected), None, "{shards} shards");
        bellwether(&["audit", "--root", text(feed.root()), "--recompute"]).succeeds();
    }
    // Each of the three shards had rows to count.
    let log = feed.lake.log(Table::Metrics);
    let mut apps = std::collections::BTreeSet::new();
    for version in 1..=log.latest_version().await.expect("answers") {
        let entry = log.entry(version).await.expect("readable").expect("there");
        if entry.operation == "aggregate" && entry.added.iter().any(|file| file.data_change) {
            apps.extend(entry.txns.into_iter().map(|(app, _)| app));
        }
    }
    assert!(apps.contains("aggregate/0") && apps.contains("aggregate/1") && apps.contains("aggregate/2"), "{apps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_changes_the_number_of_shards() {
    let setup = crate::common::Setup::new("127.0.0.1:9", "unused", "[aggregate]\nshards = 2\n");
    let mut feed = Feed::at(setup.root()).await;
    feed.commit_events(&statements(0, 40)).await;
    feed.aggregate(AggregatorSettings::default()).await;
    let right = feed.folded().await;
    let refused = bellwether(&["aggregate", "--until-caught-up", "--config", text(&setup.config())]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("bellwether rebuild"), "{}", refused.stderr);
    let output = bellwether(&["rebuild", "--config", text(&setup.config())]).succeeds();
    assert!(output.contains("2 shards"), "{output}");
    feed.commit_events(&statements(40, 10)).await;
    setup.catch_up_role("aggregate");
    let table = feed.folded().await;
    assert!(first_difference(&table, &right).is_some(), "it has counted the new events");
    bellwether(&["audit", "--root", text(&setup.root()), "--recompute"]).succeeds();
}
