//! Real agent runs (`../shared/data/tau2`) with invented late verdicts: any order gives the same bytes and the same rows.

use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_aggregate::AggregatorSettings;
use bellwether_aggregate::recompute::first_difference;
use serde_json::{Value, json};

use super::feed::Feed;
use crate::pipeline::tau2;

/// Invents late statements about the `n`th run.
fn later(n: usize, run: &Value) -> Vec<Value> {
    let statement = |event_type: &str, time: &str, data: Value| {
        json!({
            "spec": "run-event/1", "type": event_type, "run_id": run["run_id"], "source": run["source"],
            "time": time, "data": data,
        })
    };
    let mut events = Vec::new();
    if n.is_multiple_of(3) {
        let judge = json!({ "id": "judge", "version": "1" });
        let data = json!({ "name": "ok", "kind": "llm", "evaluator": judge, "passed": n.is_multiple_of(2), "sets_outcome": true });
        events.push(statement("run.score", "2026-11-20T03:00:00Z", data));
        let data = json!({ "name": "state", "kind": "code", "evaluator": { "id": "replay" }, "passed": !n.is_multiple_of(4), "sets_outcome": true });
        events.push(statement("run.score", "2026-11-20T02:00:00Z", data));
    }
    if n.is_multiple_of(5) {
        let decision = ["accept", "reject", "edit", "unsure"][n % 4];
        let data = json!({ "review_id": format!("rv-{n}"), "reviewer": (["ann", "bob"][n % 2]), "decision": decision });
        events.push(statement("run.review", "2026-11-21T10:00:00Z", data));
    }
    if n.is_multiple_of(7) {
        events.push(statement("run.escalated", "2026-11-21T11:00:00Z", json!({ "reason_code": "reopened" })));
        let data = json!({ "policy_id": "refund_limit", "severity": "high" });
        events.push(statement("run.policy_exception", "2026-11-21T11:00:00Z", data));
    }
    if n.is_multiple_of(11) {
        let mut corrected = run.clone();
        corrected["revision"] = json!(1);
        corrected["data"]["release"]["id"] = json!("corrected");
        events.push(corrected);
    }
    events
}

async fn answers(events: &[Value], cut: usize, horizon: Duration) -> (RecordBatch, Vec<String>) {
    let mut feed = Feed::new().await;
    let settings = AggregatorSettings { horizon, ..AggregatorSettings::default() };
    let mut aggregator = Box::pin(feed.aggregator(settings, None)).await;
    for (n, part) in events.chunks(cut).enumerate() {
        feed.commit_events(part).await;
        if n % 3 == 2 {
            aggregator = Box::pin(feed.aggregator(settings, None)).await;
        }
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    }
    (feed.folded().await, Box::pin(feed.views()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn late_verdicts_on_real_runs_give_the_same_rows_in_any_order() {
    let Some(runs) = tau2::events() else { return };
    let verdicts: Vec<Value> = runs.iter().enumerate().flat_map(|(n, run)| later(n, run)).collect();
    assert!(verdicts.len() > 800, "{}", verdicts.len());
    let in_order: Vec<Value> = runs.iter().chain(&verdicts).cloned().collect();
    // Verdicts first, runs backwards, and every fourth statement twice.
    let mut other: Vec<Value> = verdicts.iter().rev().chain(runs.iter().rev()).cloned().collect();
    other.extend(in_order.iter().step_by(4).cloned());
    let first = Box::pin(answers(&in_order, 700, Duration::from_secs(86_400))).await;
    let second = Box::pin(answers(&other, 450, Duration::ZERO)).await;
    assert_eq!(first_difference(&second.0, &first.0), None);
    for (one, other) in first.1.iter().zip(&second.1) {
        assert_eq!(one, other, "rows of a view");
    }
    assert_eq!(first.1.len(), second.1.len(), "rows of all views");
}
