//! Two aggregator processes on the same tables: one works, the other stands by and takes over.

use std::time::{Duration, Instant};

use bellwether_lake::CommitLog;
use bellwether_tables::Table;
use serde_json::{Value, json};

use super::feed::Feed;
use crate::common::program::Running;
use crate::common::{Setup, until};

/// Maximum time from the death of one aggregator until the other has caught up.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(5);

fn runs(from: usize, count: usize) -> Vec<Value> {
    let one = |n: usize| {
        json!({
            "spec": "run-event/1", "run_id": format!("run-{n}"), "source": "app",
            "data": {
                "task": "t", "release": { "id": "r", "model": { "requested": "m" } },
                "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:00:30Z", "outcome": { "status": "success" },
            },
        })
    };
    (from..from + count).map(one).collect()
}

/// Reads a metric of a process as an integer.
fn number(process: &Running, name: &str) -> Option<i64> {
    process.metric(name).map(|value| value as i64)
}

fn on_duty(process: &Running) -> Option<bool> {
    number(process, "bellwether_aggregate_on_duty").map(|number| number == 1)
}

async fn newest(feed: &Feed) -> i64 {
    feed.lake.log(Table::Events).latest_version().await.expect("answers")
}

/// Waits until `metrics` has caught up with `events`, and returns how long that took.
async fn caught_up(feed: &Feed) -> Duration {
    let (begun, version) = (Instant::now(), newest(feed).await);
    loop {
        let next = feed.lake.log(Table::Metrics).load().await.expect("loads").next("aggregate/0").unwrap_or(0);
        if next > version {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "`metrics` is at version {next} of `events`, which is at {version}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts a working aggregator and a standby that follows it.
async fn pair() -> (Setup, Feed, Running, Running) {
    let setup = Setup::new("127.0.0.1:9", "unused", "[aggregate]\npoll_interval = \"100ms\"\n");
    let mut feed = Feed::at(setup.root()).await;
    let first = setup.start("aggregate");
    until("the first works", || on_duty(&first)?.then_some(()));
    let second = setup.start("aggregate");
    feed.commit_events(&runs(0, 50)).await;
    caught_up(&feed).await;
    let version = newest(&feed).await;
    until("the second follows", || (number(&second, "bellwether_aggregate_next_version")? > version).then_some(()));
    assert_eq!((on_duty(&first), on_duty(&second)), (Some(true), Some(false)));
    (setup, feed, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_aggregator_and_counts_nothing_twice() {
    let (_setup, mut feed, first, second) = Box::pin(pair()).await;
    first.kill();
    // The dead aggregator has counted 20 of these; 30 are new.
    feed.commit_events(&runs(30, 50)).await;
    let took = caught_up(&feed).await;
    assert!(took <= TAKEOVER_LIMIT, "taking over took {took:?}");
    assert_eq!(
        number(&second, "bellwether_aggregate_duplicates_total"),
        Some(20),
        "the standby knows which runs the other had counted"
    );
    feed.folded().await;
    assert_eq!(feed.sql("SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await[0]["n"], 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_aggregator_steps_back_when_it_resumes() {
    let (_setup, mut feed, first, second) = Box::pin(pair()).await;
    first.signal("STOP");
    feed.commit_events(&runs(30, 50)).await;
    caught_up(&feed).await;
    assert_eq!(on_duty(&second), Some(true));
    first.signal("CONT");
    until("the first has stepped back", || (!on_duty(&first)?).then_some(()));
    feed.commit_events(&runs(60, 50)).await;
    caught_up(&feed).await;
    feed.folded().await;
    assert_eq!(feed.sql("SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await[0]["n"], 110);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_stops_hands_over_at_once() {
    let (_setup, mut feed, first, second) = Box::pin(pair()).await;
    first.signal("TERM");
    first.end().succeeds();
    feed.commit_events(&runs(50, 10)).await;
    let took = caught_up(&feed).await;
    assert!(took <= Duration::from_secs(3), "taking over took {took:?}");
    assert_eq!(on_duty(&second), Some(true));
}
