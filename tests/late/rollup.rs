//! Roll-ups of a running program: `metrics_hourly` and `metrics_daily` follow `metrics`, and `bellwether audit` and `bellwether rebuild`
//! know them.

use std::time::Duration;

use bellwether_aggregate::rollup::{Roller, RollupSettings};
use bellwether_aggregate::{AggregatorSettings, rebuild};
use bellwether_base::unique_id;
use bellwether_lake::rollup::kept_from;
use bellwether_lake::{Act, Advance, Commit, CommitLog, DataFile, Outcome, Rolled};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use crate::common::program::text;
use crate::common::{Setup, bellwether};

/// Runs that end on a day of November 2026, in several hours, and a verdict about each fourth.
fn statements(day: usize, release: &str, count: usize) -> Vec<Value> {
    let one = |n: usize| {
        let ended = format!("2026-11-{day:02}T{:02}:{:02}:30Z", n % 5, n % 7);
        let completed = json!({
            "task": (["a", "b"][n % 2]), "release": { "id": release, "model": { "requested": "m" } },
            "started_at": format!("2026-11-{day:02}T00:00:00Z"), "ended_at": ended,
            "outcome": { "status": if n.is_multiple_of(4) { "unknown" } else { "success" } },
        });
        let event = |kind: &str, time: &str, data: Value| json!({ "spec": "run-event/1", "type": kind, "run_id": format!("run-{day}-{n}"), "source": "app", "time": time, "data": data });
        let mut events = vec![event("run.completed", &ended, completed)];
        if n.is_multiple_of(4) {
            let score = json!({ "name": "ok", "kind": "llm", "evaluator": { "id": "j" }, "passed": true, "sets_outcome": true });
            // The verdict comes a day later.
            events.push(event("run.score", &format!("2026-11-{:02}T10:00:00Z", day + 1), score));
        }
        events
    };
    (0..count).flat_map(one).collect()
}

async fn roll_up(feed: &Feed) {
    let roller = Roller::open(&feed.lake, RollupSettings::default(), &Registry::new()).await;
    Box::pin(roller.expect("opens").run_until_caught_up()).await.expect("rolls up");
}

/// Totals of a table by day and release: what must never change.
async fn totals(feed: &Feed, table: &str) -> Vec<Value> {
    feed.sql(&format!(
        "SELECT date_trunc('day', window_start) AS day, release_id, CAST(sum(runs) AS BIGINT) AS runs, \
            CAST(sum(success) AS BIGINT) AS success, CAST(sum(unknown) AS BIGINT) AS unknown, \
            sketch_count(sketch_merge(latency_sketch)) AS latencies \
         FROM {table} GROUP BY 1, 2 ORDER BY 1, 2"
    ))
    .await
}

/// Fails unless an audit finds all derived tables equal to what they were made of.
fn audits_clean(feed: &Feed) -> String {
    let report = bellwether(&["audit", "--root", text(feed.root()), "--recompute"]).succeeds();
    assert!(report.contains("✓ rollups"), "{report}");
    report
}

fn commit_of(files: Vec<DataFile>, advances: Vec<Advance>) -> Commit {
    Commit { uuid: unique_id(), advances, files, operation: "test", ranges: Vec::new(), facts: Map::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_keeps_the_windows_of_which_events_were_removed() {
    let mut feed = Feed::new().await;
    for (day, release) in [(10, "old"), (20, "r1"), (22, "r1"), (23, "r2")] {
        feed.commit_events(&statements(day, release, 30)).await;
        feed.aggregate(AggregatorSettings::default()).await;
        roll_up(&feed).await;
    }
    let tables = ["metrics", "metrics_hourly", "metrics_daily"];
    let before = totals(&feed, "metrics").await;
    assert_eq!(before.len(), 4, "{before:?}");
    let releases = feed.sql("SELECT release_id, first_seen FROM releases ORDER BY 1").await;
    // The newest verdict is of the 24th: the runs of the 10th and the 20th go.
    let keep = Duration::from_secs(2 * 86_400);
    let removed = feed.lake.retain(Table::Events, keep, true, Act::Do).await.expect("removes");
    assert_eq!(removed.expired_rows, 76, "{removed:?}");
    audits_clean(&feed);
    let stop = CancellationToken::new();
    for generation in 1..=2 {
        let rebuilt =
            Box::pin(rebuild(&feed.lake, AggregatorSettings::default(), |_| {}, &stop)).await.expect("rebuilds");
        assert_eq!(rebuilt.generation, generation);
        let load = async |table| feed.lake.log(table).load().await.expect("loads");
        let (daily, hourly, metrics) =
            (load(Table::MetricsDaily).await, load(Table::MetricsHourly).await, load(Table::Metrics).await);
        assert_eq!(Rolled::of(&daily, &hourly, &metrics), Rolled::default(), "the roll-ups are of the rebuild before");
        assert_eq!(kept_from(&metrics), i64::MIN, "nothing was removed from `metrics`");
        let report = audits_clean(&feed);
        assert!(report.contains("was made from another rebuild"), "{report}");
        roll_up(&feed).await;
        for table in tables {
            assert_eq!(totals(&feed, table).await, before, "{table}");
        }
        assert!(!audits_clean(&feed).contains("was made from another rebuild"));
        assert_eq!(feed.sql("SELECT release_id, first_seen FROM releases ORDER BY 1").await, releases);
    }
    // Life goes on in the windows that were kept and in those that were rebuilt.
    feed.commit_events(&statements(21, "r1", 8)).await;
    feed.aggregate(AggregatorSettings::default()).await;
    roll_up(&feed).await;
    let after = totals(&feed, "metrics").await;
    assert_eq!(after.len(), 5);
    for table in tables {
        assert_eq!(totals(&feed, table).await, after, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_rolls_up_and_an_audit_finds_a_roll_up_that_was_changed() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let mut feed = Feed::at(setup.root()).await;
    feed.commit_events(&statements(23, "r1", 40)).await;
    let config = setup.config();
    bellwether(&["aggregate", "--until-caught-up", "--config", text(&config)]).succeeds();
    let before = totals(&feed, "metrics").await;
    for table in ["metrics_hourly", "metrics_daily"] {
        assert_eq!(totals(&feed, table).await, before, "{table}");
    }
    audits_clean(&feed);
    // A roll-up that holds its rows twice.
    let log = feed.lake.log(Table::MetricsHourly);
    let on = log.load().await.expect("loads");
    let mut files = Vec::new();
    for file in feed.lake.files_at(Table::MetricsHourly, on.version).await.expect("lists") {
        for rows in feed.lake.read(Table::MetricsHourly, &file, None).await.expect("reads") {
            files.extend(feed.lake.write(Table::MetricsHourly, &rows).await.expect("writes"));
        }
    }
    let advance = Advance { app_id: "test".to_owned(), expected: None, next: 1 };
    let commit = commit_of(files.into_iter().map(|written| written.file).collect(), vec![advance]);
    assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    let ended = bellwether(&["audit", "--root", text(feed.root()), "--recompute"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    for said in ["✗ rollups", "metrics_hourly: column `runs` is", "metrics_daily: column `runs` is"] {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
    let report = bellwether(&["rebuild", "--config", text(&config)]).succeeds();
    assert!(report.contains("its roll-ups"), "{report}");
    for table in ["metrics", "metrics_hourly", "metrics_daily"] {
        assert_eq!(totals(&feed, table).await, before, "{table}");
    }
    audits_clean(&feed);
    // Alone, with nothing to do.
    bellwether(&["rollup", "--until-caught-up", "--config", text(&config)]).succeeds();
    // Days whose hours are gone. Hours that are made again are divided otherwise, so that some would count twice.
    std::fs::remove_dir_all(setup.root().join("metrics_hourly")).expect("it exists");
    let ended = bellwether(&["audit", "--root", text(feed.root()), "--recompute"]);
    let says = "metrics_daily: it holds rows up to";
    assert!(ended.code == Some(1) && ended.stdout.contains(says), "{}", ended.stdout);
    let ended = bellwether(&["rollup", "--until-caught-up", "--config", text(&config)]);
    assert!(ended.code == Some(4) && ended.stderr.contains("bellwether rebuild"), "{}", ended.stderr);
    bellwether(&["rebuild", "--config", text(&config)]).succeeds();
    for table in ["metrics", "metrics_hourly", "metrics_daily"] {
        assert_eq!(totals(&feed, table).await, before, "{table}");
    }
    audits_clean(&feed);
}
