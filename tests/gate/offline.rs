//! Offline evaluations: runs of the same cases by two releases, before any traffic.

use bellwether_alerts::gate::{GateDecision, GateMode, Question};
use serde_json::{Value, json};

use super::{MINUTE, NOW, ask, comparison, question, tables, text_of};

/// Returns a run of a case by a release.
fn run(release: &str, case: usize, named: bool, fails: bool) -> Value {
    let offset = if release == "v1" { 600 } else { 300 };
    let ended = *NOW - offset * MINUTE + i64::try_from(case).expect("few") * 100_000;
    let mut data = json!({
        "task": "refunds",
        "release": { "id": release, "model": { "requested": "m" } },
        "rollout": { "stage": "offline_eval" },
        "started_at": text_of(ended - 1_000_000), "ended_at": text_of(ended),
        "outcome": { "status": if fails { "failure" } else { "success" } },
        "latency": { "total_ms": 500 },
    });
    if named {
        data["segments"] = json!({ "case_id": format!("case-{case}") });
    }
    json!({ "spec": "run-event/1", "type": "run.completed", "run_id": format!("{release}-{case}-{named}"), "source": "eval", "data": data })
}

/// Runs of `cases` cases of which a third is hard: both releases fail these, and the canary one of `also` others. One of `flips`
/// cases changes by chance, in each direction.
fn evaluation(cases: usize, also: usize, flips: usize, named: bool) -> Vec<Value> {
    let hard = |case: usize| case.is_multiple_of(3);
    let flips = |case: usize, by: usize| case % flips == by;
    let baseline = (0..cases).map(|case| run("v1", case, named, hard(case) != flips(case, 1)));
    let canary = (0..cases).map(|case| {
        let worse = also > 0 && !hard(case) && case % also == 2;
        run("v2", case, named, (hard(case) != flips(case, 2)) || worse)
    });
    baseline.chain(canary).collect()
}

fn offline() -> Question {
    Question { offline: true, ..question("v2") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_of_the_same_cases_decide_where_unpaired_runs_do_not() {
    let feed = tables(evaluation(1200, 12, 40, true)).await;
    let answer = ask(&feed, offline()).await;
    assert_eq!((answer.decision, answer.mode), (GateDecision::RollBack, GateMode::OfflinePaired), "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.finding, success.canary.runs, success.baseline.runs), ("worse", 1200, 1200));
    let left_out: Vec<&str> = answer.left_out.iter().map(|it| it.metric.name()).collect();
    assert!(left_out.contains(&"latency_p95"), "{left_out:?}");
    assert_eq!(answer.from, None, "cases have no windows");

    // The same runs without their cases are two samples: the small difference does not suffice.
    let feed = tables(evaluation(1200, 12, 40, false)).await;
    let answer = ask(&feed, offline()).await;
    assert_eq!((answer.decision, answer.mode), (GateDecision::Hold, GateMode::OfflineUnpaired), "{answer:#?}");
    assert_eq!(comparison(&answer, "success", "").canary.runs, 1200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_is_promoted_and_runs_without_a_counterpart_are_not_covered() {
    let feed = tables(evaluation(1600, 0, 10, true)).await;
    let answer = ask(&feed, offline()).await;
    assert_eq!(answer.decision, GateDecision::Promote, "{answer:#?}");
    // Three quarters of the canary's runs are of cases that the baseline never ran.
    let mut runs = evaluation(300, 0, 10, true);
    runs.extend((300..1200).map(|case| run("v2", case, true, false)));
    let feed = tables(runs).await;
    let answer = ask(&feed, offline()).await;
    assert_eq!((answer.decision, answer.mode), (GateDecision::Hold, GateMode::OfflinePaired), "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.finding, success.canary.runs), ("uncovered", 300));
    assert!(success.coverage.is_some_and(|share| (share - 0.25).abs() < 1e-9), "{success:?}");
    // Runs before any traffic are no runs in production.
    let answer = ask(&feed, question("v2")).await;
    assert!(answer.summary.contains("has no runs in production"), "{}", answer.summary);
    // Two versions of a case expect different answers.
    let mut runs = evaluation(300, 0, 10, true);
    for run in &mut runs {
        let version = if run["data"]["release"]["id"] == "v1" { "1" } else { "2" };
        run["data"]["segments"]["case_version"] = json!(version);
    }
    let feed = tables(runs).await;
    assert_eq!(ask(&feed, offline()).await.mode, GateMode::OfflineUnpaired);
}
