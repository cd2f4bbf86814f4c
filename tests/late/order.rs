//! `metrics` folds to the same bytes, and every view has the same rows, regardless of the order of statements, repeats,
//! cuts into commits, partitions, restarts and the horizon.

use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_aggregate::recompute::first_difference;
use bellwether_aggregate::{AggregatorSettings, event_columns};
use bellwether_lake::{Handover, MaintainSettings};
use bellwether_tables::Table;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::feed::Feed;

/// One statement about one of a few runs, as numbers from which [`event`] builds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    kind: u8,
    run: u8,
    by: u8,
    revision: u8,
    variant: u8,
}

pub(super) fn statement() -> impl Strategy<Value = Statement> {
    (0..9_u8, 0..6_u8, 0..3_u8, 0..2_u8, 0..5_u8).prop_map(|(kind, run, by, revision, variant)| Statement {
        kind,
        run,
        by,
        revision,
        variant,
    })
}

/// Returns the source: two have runs of the same ids, and a third has no runs.
fn source(statement: &Statement) -> &'static str {
    ["app", "other-app", "judge"][usize::from(statement.by)]
}

fn completed(statement: &Statement) -> Value {
    let Statement { run, revision, variant, .. } = statement;
    let mut data = json!({
        "task": if run % 2 == 0 { "a" } else { "b" },
        "release": { "id": format!("r{}", (run + revision) % 3), "model": { "requested": "m" } },
        "attempt": 1 + variant % 2,
        "started_at": "2026-11-23T10:00:00Z",
        "ended_at": format!("2026-11-23T10:0{revision}:{:02}.5Z", run * 4),
        "outcome": {
            "status": (["success", "failure", "unknown", "error", "unknown"][usize::from(*variant)]),
            "source": (["app", "rule", "llm", "human", "app"][usize::from(variant + run) % 5]),
        },
        "tokens": { "input": 100 + u32::from(*run), "output": 7 * u32::from(*variant) },
        "tool_calls": [{ "name": "t", "status": if *variant == 1 { "error" } else { "ok" } }],
    });
    if variant % 2 == 0 {
        data["cost"] = json!({ "amount": format!("0.00{run}{variant}3"), "currency": "USD" });
        data["latency"] = json!({ "total_ms": 100.5 * f64::from(*run) + f64::from(*variant), "ttft_ms": 33.25 });
    }
    if run % 4 == 0 {
        data["session_id"] = json!(format!("s-{run}"));
        data["sampling"] = json!({ "probability": 0.3 });
    }
    if *variant == 3 {
        data["escalation"] = json!({ "reason_code": "x" });
        data["policy_exceptions"] = json!([{ "policy_id": "own", "severity": "low" }]);
        data["validation"] = json!({ "applicable": true, "valid": false, "fields_total": 4,
            "fields": [{ "path": "/a", "valid": false }] });
    }
    data
}

/// Returns the tenant: two have runs of the same ids, and some runs and statements have none.
fn tenant(statement: &Statement) -> &'static str {
    let Statement { kind, run, by, variant, .. } = statement;
    match (run, kind) {
        (0 | 1, _) => "",
        (_, 0..=3) => ["", "t1", "t2"][usize::from(variant + by + run) % 3],
        _ => ["", "t1", "t2"][usize::from(variant + kind) % 3],
    }
}

pub(super) fn event(statement: &Statement) -> Value {
    let Statement { kind, run, by, revision, variant } = statement;
    let (event_type, data) = match kind {
        0..=3 => ("run.completed", completed(statement)),
        4 | 5 => (
            "run.score",
            json!({
                "name": "task_success",
                "kind": (["llm", "human", "code", "business", "user_feedback"][usize::from(variant + by) % 5]),
                "evaluator": { "id": format!("judge-{by}") },
                "passed": ([json!(true), json!(false), Value::Null][usize::from(variant % 3)]),
                "label": if *variant == 2 { "timeout" } else { "n/a" },
                "sets_outcome": *variant != 4,
                "target": if *variant == 3 && *kind == 5 { "step" } else { "run" },
            }),
        ),
        6 => (
            "run.review",
            json!({
                "review_id": format!("rv-{}", variant % 2),
                "reviewer": format!("person-{by}"),
                "decision": (["accept", "reject", "edit", "unsure", "skip", "escalate"][usize::from(variant + run) % 6]),
                "sets_outcome": (variant + by + revision) % 4 != 1,
            }),
        ),
        7 => ("run.escalated", json!({ "reason_code": format!("late-{variant}") })),
        _ => (
            "run.policy_exception",
            json!({ "policy_id": format!("p{}", variant % 2), "severity": (["info", "critical"][usize::from(by % 2)]) }),
        ),
    };
    let mut event = json!({
        "spec": "run-event/1", "type": event_type, "run_id": format!("run-{run}"), "source": source(statement),
        "revision": revision, "data": data,
        // Some are dated before the run, and some at the same time.
        "time": format!("2026-11-23T1{}:0{}:30Z", if *variant == 4 { 9 } else { variant % 3 }, variant / 2),
    });
    if !tenant(statement).is_empty() {
        event["tenant"] = json!(tenant(statement));
    }
    if matches!(kind, 7 | 8) && variant % 2 == 0 {
        event["id"] = json!(format!("e-{run}-{kind}-{by}"));
    }
    event
}

/// How statements reach the tables.
#[derive(Clone, Debug)]
struct Delivery {
    cuts: Vec<(u8, u8)>,
    horizon: Duration,
    index_memory_bytes: usize,
    hand_over: bool,
    partitions: u8,
    corrected_at_once: usize,
}

/// Commits statements in pieces. After each piece the aggregator catches up, or is opened again, or compaction runs, or
/// nothing happens.
async fn run(statements: &[Statement], delivery: &Delivery) -> (RecordBatch, Vec<String>) {
    let mut feed = Feed::new().await;
    let settings = AggregatorSettings {
        index_memory_bytes: delivery.index_memory_bytes,
        horizon: delivery.horizon,
        corrected_at_once: delivery.corrected_at_once,
        ..AggregatorSettings::default()
    };
    let handover = delivery.hand_over.then(|| Handover::new(1 << 20, event_columns()));
    let mut aggregator = Box::pin(feed.aggregator(settings, handover.clone())).await;
    let mut from = 0;
    for (size, then) in delivery.cuts.iter().chain(std::iter::repeat(&(255, 0))) {
        let to = (from + 1 + usize::from(*size)).min(statements.len());
        if from == to {
            break;
        }
        let partition = |n: usize| (n * 7 + usize::from(statements[n].run)) % usize::from(delivery.partitions.max(1));
        let messages: Vec<_> =
            (from..to).map(|n| (partition(n), event(&statements[n]).to_string().into_bytes())).collect();
        Box::pin(feed.commit(&messages, handover.as_ref())).await;
        from = to;
        match then % 4 {
            0 => Box::pin(aggregator.run_until_caught_up()).await.expect("catches up"),
            1 => aggregator = Box::pin(feed.aggregator(settings, handover.clone())).await,
            2 => {
                let small = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
                Box::pin(feed.lake.compact(Table::Events, &small)).await.expect("compacts");
            }
            _ => {}
        }
    }
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    (feed.folded().await, Box::pin(feed.views()).await)
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let horizon = prop_oneof![Just(Duration::from_secs(86_400)), Just(Duration::ZERO), Just(Duration::from_secs(600))];
    let cuts = prop::collection::vec((0..15_u8, any::<u8>()), 0..6);
    let at_once = prop_oneof![Just(1_usize), Just(2), Just(1000)];
    (cuts, horizon, prop_oneof![Just(1_usize << 20), Just(0)], any::<bool>(), 1..4_u8, at_once).prop_map(
        |(cuts, horizon, index_memory_bytes, hand_over, partitions, corrected_at_once)| Delivery {
            cuts,
            horizon,
            index_memory_bytes,
            hand_over,
            partitions,
            corrected_at_once,
        },
    )
}

/// Returns the same statements in another order, some of them twice.
fn shuffled(statements: &[Statement], keys: &[u32]) -> Vec<Statement> {
    let all: Vec<(u32, Statement)> = keys.iter().copied().zip(statements.iter().chain(statements).copied()).collect();
    let (sure, spare) = all.split_at(statements.len());
    let mut other: Vec<(u32, Statement)> = sure.to_vec();
    other.extend(spare.iter().filter(|(key, _)| key % 2 == 0));
    other.sort_by_key(|(key, _)| *key);
    other.into_iter().map(|(_, statement)| statement).collect()
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads")
        .block_on(future)
}

fn assert_same(first: &(RecordBatch, Vec<String>), second: &(RecordBatch, Vec<String>)) {
    assert_eq!(first_difference(&second.0, &first.0), None);
    for (first, second) in first.1.iter().zip(&second.1) {
        assert_eq!(first, second, "rows of a view");
    }
    assert_eq!(first.1.len(), second.1.len(), "rows of all views");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn any_order_repeats_cuts_partitions_restarts_and_horizons_give_the_same_bytes_and_views(
        statements in prop::collection::vec(statement(), 1..60),
        keys in prop::collection::vec(any::<u32>(), 140),
        one in delivery(),
        other in delivery(),
    ) {
        block_on(async {
            let plain = Delivery {
                cuts: Vec::new(),
                horizon: Duration::from_secs(86_400),
                index_memory_bytes: 1 << 20,
                hand_over: false,
                partitions: 1,
                corrected_at_once: 1000,
            };
            let first = Box::pin(run(&statements, &plain)).await;
            let second = Box::pin(run(&statements, &one)).await;
            assert_same(&first, &second);
            let third = Box::pin(run(&shuffled(&statements, &keys), &other)).await;
            assert_same(&first, &third);
        });
    }
}

#[test]
fn a_horizon_that_holds_nothing_gives_the_same_bytes() {
    block_on(async {
        let statements: Vec<Statement> = (0..60_u8)
            .map(|n| Statement { kind: n % 9, run: n % 5, by: n % 3, revision: u8::from(n > 40), variant: (n / 7) % 5 })
            .collect();
        let cuts: Vec<(u8, u8)> = vec![(5, 0); 10];
        let delivery = |horizon, index_memory_bytes| Delivery {
            cuts: cuts.clone(),
            horizon,
            index_memory_bytes,
            hand_over: false,
            partitions: 2,
            corrected_at_once: 3,
        };
        let held = Box::pin(run(&statements, &delivery(Duration::from_secs(86_400), 1 << 20))).await;
        let looked_up = Box::pin(run(&statements, &delivery(Duration::ZERO, 0))).await;
        assert_same(&held, &looked_up);
    });
}

/// A large file is read in several batches; a late verdict must find the right row, whether it was handed over or read back.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_finds_its_run_in_a_file_of_several_batches() {
    const RUNS: usize = 20_000;
    let run = |n: usize| {
        json!({
            "spec": "run-event/1", "type": "run.completed", "run_id": format!("r-{n}"), "source": "app",
            "data": {
                "task": format!("t{}", n % 7), "release": { "id": "v1", "model": { "requested": "m" } },
                "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:00:30Z",
                "outcome": { "status": "success" }, "tokens": { "input": n },
            },
        })
    };
    let verdict = |n: usize| {
        json!({
            "spec": "run-event/1", "type": "run.review", "run_id": format!("r-{n}"), "source": "people",
            "time": "2026-11-23T11:00:00Z",
            "data": { "review_id": format!("q-{n}"), "reviewer": "p", "decision": "reject" },
        })
    };
    let messages = |events: Vec<Value>| events.iter().map(|event| (0, event.to_string().into_bytes())).collect();
    for hand_over in [true, false] {
        let mut feed = Feed::new().await;
        let handover = hand_over.then(|| Handover::new(64 << 20, event_columns()));
        let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), handover.clone())).await;
        let runs: Vec<_> = messages((0..RUNS).map(run).collect());
        Box::pin(feed.commit(&runs, handover.as_ref())).await;
        assert!(handover.as_ref().is_none_or(|handover| handover.held_bytes() > 0), "the rows are handed over");
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        let about: Vec<usize> = (0..RUNS).step_by(997).collect();
        feed.commit_events(&about.iter().copied().map(verdict).collect::<Vec<_>>()).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        let failed = feed.sql("SELECT sum(runs - success) AS n FROM metrics").await;
        assert_eq!(failed[0]["n"].to_string().trim_matches('"'), about.len().to_string(), "{failed:?}");
        feed.folded().await;
    }
}
