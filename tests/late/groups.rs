//! Thousands of groups in one commit: their sums, their files, and `rolling_history` within a bound on memory or without it.

use bellwether_aggregate::AggregatorSettings;
use bellwether_tables::Table;
use serde_json::{Value, json};

use super::feed::Feed;

const TASKS: usize = 130;
const RELEASES: usize = 100;

/// Builds two runs for each task and release, far apart among the events, and one run that ends their minute.
fn runs() -> Vec<Value> {
    let run = |id: String, task: usize, release: usize, n: usize, ended: &str| {
        json!({
            "spec": "run-event/1", "type": "run.completed", "run_id": id, "source": "app",
            "data": {
                "task": format!("t-{task}"), "release": { "id": format!("v{release}") },
                "started_at": "2026-11-24T10:00:00Z", "ended_at": ended,
                "outcome": { "status": (["success", "failure"][n % 2]) },
                "session_id": format!("s-{}", n % 50),
                "latency": { "total_ms": 10 + (task * 31 + release * 7 + n) % 900 },
                "cost": { "amount": "0.01", "currency": "USD" },
            },
        })
    };
    let mut all = Vec::new();
    for n in 0..2 {
        for group in 0..TASKS * RELEASES {
            let (task, release) = (group / RELEASES, group % RELEASES);
            all.push(run(format!("r-{group}-{n}"), task, release, n + group, "2026-11-24T10:01:30Z"));
        }
    }
    all.push(run("last".to_owned(), 0, 0, 0, "2026-11-24T10:06:30Z"));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_groups_are_summed_in_parts_and_have_a_history() {
    let mut feed = Feed::new().await;
    feed.commit_events(&runs()).await;
    let groups = TASKS * RELEASES;
    // A third of what a span of all groups takes (117 MB): the rest is spilled.
    let settings = AggregatorSettings { rolling_history_memory_bytes: 32 << 20, ..AggregatorSettings::default() };
    feed.aggregate(settings).await;

    let counts = feed.sql("SELECT count(*) AS rows, sum(runs) AS runs FROM metrics").await;
    assert_eq!(counts, [json!({ "rows": groups + 1, "runs": 2 * groups + 1 })], "one row for each group");
    let (_, files) = feed.lake.active_files(Table::Metrics).await.expect("lists");
    assert!(files.len() > 1, "the rows are in several files of one commit");
    feed.folded().await;

    let columns =
        "task, release_id, runs, success_rate, success_rate_low, latency_ms_p95, cost_per_completed_task_high";
    let figures = async |table: &str, condition: &str| {
        feed.sql(&format!("SELECT {columns} FROM {table} WHERE {condition} ORDER BY task, release_id")).await
    };
    let history = figures("rolling_history", "span = '5m'").await;
    assert_eq!(history.len(), groups);
    assert_eq!(history, figures("rolling_at('2026-11-24 10:06:00')", "span = '5m'").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_that_does_not_fit_its_memory_is_left_out_and_aggregation_goes_on() {
    let all = runs();
    let some: Vec<Value> = all[..200].iter().chain(all.last()).cloned().collect();
    let enough = AggregatorSettings::default();
    for (settings, rows) in [(AggregatorSettings { rolling_history_memory_bytes: 1 << 10, ..enough }, 0), (enough, 200)]
    {
        let mut feed = Feed::new().await;
        feed.commit_events(&some).await;
        feed.aggregate(settings).await;
        let found = feed.sql("SELECT count(*) AS n FROM rolling_history WHERE span = '5m'").await;
        assert_eq!(found, [json!({ "n": rows })]);
        feed.folded().await;
    }
}
