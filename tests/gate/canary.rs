//! Canaries in production.

use bellwether_alerts::gate::{BaselineChoice, GateDecision, Goal, Metric};
use serde_json::json;

use super::{Arm, MINUTE, NOW, add, ask, ask_with, comparison, policy, question, runs_of, tables};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_canary_is_rolled_back_and_its_twin_promoted_or_told_how_many_runs_are_missing() {
    let thin = Arm { minutes: (15, 10), per_minute: 8, ..Arm::canary("thin", 3) };
    let young = Arm { minutes: (20, 10), ..Arm::canary("young", 3) };
    let feed = tables(runs_of(&[
        Arm { minutes: (300, 10), ..Arm::default() },
        Arm::canary("bad", 6),
        Arm::canary("twin", 3),
        young,
        thin,
    ]))
    .await;

    let answer = ask(&feed, question("bad")).await;
    assert_eq!(answer.decision, GateDecision::RollBack, "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.finding, success.goal), ("worse", Goal::NonInferiority));
    assert_eq!((success.canary.runs, success.baseline.runs), (2200, 2200), "both releases, in the same windows");
    assert!(success.canary.events > 1300 && success.baseline.events < 670, "{success:?}");
    assert!(success.effect.as_ref().is_some_and(|effect| effect.low.is_some_and(|low| low > 1.5)), "{success:?}");
    assert!(answer.summary.contains("worse than the margin: success"), "{}", answer.summary);
    assert_eq!((answer.baseline.as_str(), answer.baseline_choice), ("v1", Some(BaselineChoice::Traffic)));

    let answer = ask(&feed, question("twin")).await;
    assert_eq!(answer.decision, GateDecision::Promote, "{answer:#?}");
    assert_eq!(comparison(&answer, "latency_p95", "").finding, "within");
    let cost = comparison(&answer, "cost", "");
    assert_eq!(cost.canary.runs, 2200);
    let per_task = cost.canary.value.expect("it has a cost");
    assert!((per_task - 0.01 / 0.7).abs() < 2e-4, "{per_task} for each completed task, failed runs included");
    let left_out: Vec<&str> = answer.left_out.iter().map(|it| it.metric.name()).collect();
    assert_eq!(left_out, ["schema", "tool_failures"], "no answer has a schema, and no run calls a tool");

    let answer = ask(&feed, question("young")).await;
    assert_eq!(answer.decision, GateDecision::Hold, "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.finding, success.canary.runs), ("undecided", 200));
    assert!(success.more_runs.is_some_and(|more| (50..2000).contains(&more)), "{success:?}");
    assert_eq!(answer.more_runs(), success.more_runs);

    let answer = ask(&feed, question("thin")).await;
    assert_eq!(answer.decision, GateDecision::Hold, "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.finding, success.more_runs), ("thin", Some(60)), "40 of 100 runs");
    assert!(success.words.contains("60 more"), "{}", success.words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_severe_loss_in_one_slice_rolls_back_although_the_mean_is_better() {
    let acme = |stage: &Arm, failing: i64| Arm {
        per_minute: 4,
        failing,
        data: json!({
            "tenant": "acme", "segments": { "region": "eu" },
            "tool_calls": [{ "name": "issue_refund", "status": "ok" }],
        }),
        ..stage.clone()
    };
    let (usual, new) = (Arm::default(), Arm::canary("v2", 1));
    let arms = [usual.clone(), acme(&usual, 2), new.clone(), acme(&new, 7)];
    let mut runs = runs_of(&arms);
    for run in &mut runs {
        // The tenant is part of the envelope.
        if let Some(tenant) = run["data"].as_object_mut().and_then(|data| data.remove("tenant")) {
            run["tenant"] = tenant;
        }
    }
    let feed = tables(runs).await;
    let answer = ask(&feed, question("v2")).await;
    assert_ne!(answer.decision, GateDecision::RollBack, "the mean is better: {answer:#?}");
    let success = comparison(&answer, "success", "");
    assert!(success.canary.value < success.baseline.value, "{success:?}");
    for (from, to, slice) in [
        ("tenants = []", "tenants = [\"acme\"]", "tenant acme"),
        ("tools = []", "tools = [\"issue_refund\"]", "tool issue_refund"),
        ("[slices.segments]", "[slices.segments]\nregion = [\"eu\"]", "region eu"),
    ] {
        let answer = ask_with(&feed, policy(from, to), question("v2")).await;
        assert_eq!(answer.decision, GateDecision::RollBack, "{slice}: {answer:#?}");
        let lost = comparison(&answer, "success", slice);
        assert_eq!((lost.finding, lost.canary.runs, lost.baseline.runs), ("worse", 440, 440), "{slice}");
        assert_eq!((lost.canary.events, lost.goal), (308, Goal::NoRegression), "{slice}");
        assert_eq!(comparison(&answer, "success", "").canary.runs, 2640);
        assert!(answer.summary.contains(&format!("success of {slice}")), "{}", answer.summary);
    }
    // A slice without runs is thin: it holds.
    let answer = ask_with(&feed, policy("tenants = []", "tenants = [\"nobody\"]"), question("v2")).await;
    assert_eq!(comparison(&answer, "success", "tenant nobody").finding, "thin");
    assert_eq!(answer.decision, GateDecision::Hold);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_keeps_every_failure_and_half_of_its_successes_is_not_worse() {
    let mut kept = 0;
    let canary = Arm::canary("v2", 3).runs("v2").into_iter().filter_map(|mut run| {
        if run["data"]["outcome"]["status"] == "success" {
            kept += 1;
            run["data"]["sampling"] = json!({ "probability": 0.5 });
            return (kept % 2 == 0).then_some(run);
        }
        Some(run)
    });
    let mut runs: Vec<serde_json::Value> = canary.collect();
    runs.extend(Arm::default().runs("v1"));
    let answer = ask(&tables(runs).await, question("v2")).await;
    assert_ne!(answer.decision, GateDecision::RollBack, "{answer:#?}");
    let success = comparison(&answer, "success", "");
    assert_eq!((success.canary.events, success.canary.runs), (660, 1430), "observed runs");
    assert!(success.canary.value.is_some_and(|rate| (rate - 0.3).abs() < 0.01), "each by its weight: {success:?}");
    assert!(success.effect.as_ref().is_some_and(|effect| (effect.value - 1.0).abs() < 0.1), "{success:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_correction_counts_a_run_once() {
    let mut feed = tables(runs_of(&[Arm::default(), Arm::canary("v2", 3)])).await;
    let before = ask(&feed, question("v2")).await;
    let success = comparison(&before, "success", "");
    let (runs, failed) = (success.canary.runs, success.canary.events);
    let session = feed.session().await;
    let successes = crate::late::feed::rows(
        &session,
        "SELECT run_id FROM runs WHERE release_id = 'v2' AND outcome_status = 'success' ORDER BY run_id LIMIT 5",
    )
    .await;
    let review = |(number, run): (usize, &serde_json::Value)| {
        json!({
            "spec": "run-event/1", "type": "run.review", "run_id": run["run_id"], "source": "people",
            "time": super::text_of(*NOW),
            "data": { "review_id": format!("r-{number}"), "reviewer": "p", "decision": "reject" },
        })
    };
    let reviews: Vec<serde_json::Value> = successes.iter().enumerate().map(review).collect();
    // The same statements once more change nothing.
    for _ in 0..2 {
        add(&mut feed, reviews.clone()).await;
        let after = ask(&feed, question("v2")).await;
        let success = comparison(&after, "success", "");
        assert_eq!((success.canary.runs, success.canary.events), (runs, failed + 5));
        assert_eq!(success.baseline, comparison(&before, "success", "").baseline);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_metric_finds_the_loss_that_it_is_about() {
    let high_risk = |decision: &str| {
        json!([{ "name": "pay", "status": "ok", "risk": "high", "side_effect": true,
            "approval": { "required": true, "decision": decision } }])
    };
    let of = |release: &'static str, change: serde_json::Value| {
        let arm = if release == "v1" { Arm::default() } else { Arm::canary(release, 3) };
        let mut data =
            json!({ "validation": { "applicable": true, "valid": true }, "tool_calls": high_risk("approved") });
        super::merge(&mut data, &change);
        let mut arm = Arm { per_minute: 10, ..arm };
        super::merge(&mut arm.data, &data);
        arm
    };
    let feed = tables(runs_of(&[
        of("v1", json!({})),
        of("schema", json!({ "validation": { "valid": false } })),
        of("escalation", json!({ "escalation": { "reason_code": "unsure" } })),
        of("policy_exceptions", json!({ "policy_exceptions": [{ "policy_id": "pii", "severity": "low" }] })),
        of("unapproved_actions", json!({ "tool_calls": high_risk("none") })),
        of("tool_failures", json!({ "tool_calls": [{ "name": "pay", "status": "error" }] })),
        of("latency_p95", json!({ "latency": { "total_ms": 9000 } })),
        of("cost", json!({ "cost": { "amount": "0.02" } })),
    ]))
    .await;
    let expected: [(&str, &[&str]); 7] = [
        ("schema", &["schema"]),
        ("escalation", &["escalation"]),
        ("policy_exceptions", &["policy_exceptions"]),
        // It is a policy exception, too.
        ("unapproved_actions", &["policy_exceptions", "unapproved_actions"]),
        ("tool_failures", &["tool_failures"]),
        ("latency_p95", &["latency_p50", "latency_p95"]),
        ("cost", &["cost"]),
    ];
    for (release, metrics) in expected {
        let answer = ask(&feed, question(release)).await;
        assert_eq!(answer.decision, GateDecision::RollBack, "{release}: {answer:#?}");
        let mut worse: Vec<&str> =
            answer.comparisons.iter().filter(|it| it.finding == "worse").map(|it| it.metric.name()).collect();
        worse.sort_unstable();
        assert_eq!(worse, metrics, "{release}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_statements_hold() {
    // Outcomes that are not known, costs that are no longer stated, and answers that are no longer checked are no improvement.
    let silent = |release: &'static str, data: serde_json::Value| {
        let mut arm = Arm::canary(release, 3);
        super::merge(&mut arm.data, &json!({ "validation": { "applicable": true, "valid": true } }));
        super::merge(&mut arm.data, &data);
        arm
    };
    let mut usual = silent("v1", json!({}));
    usual.stage = "full";
    let feed = tables(runs_of(&[
        usual,
        silent("outcome", json!({ "outcome": { "status": "unknown" } })),
        silent("cost", json!({ "cost": null })),
        silent("schema", json!({ "validation": null })),
    ]))
    .await;
    for (release, metric, finding) in
        [("outcome", "success", "thin"), ("cost", "cost", "thin"), ("schema", "schema", "thin")]
    {
        let answer = ask(&feed, question(release)).await;
        assert_eq!(answer.decision, GateDecision::Hold, "{release}: {answer:#?}");
        assert_eq!(comparison(&answer, metric, "").finding, finding, "{release}");
    }
    // With fewer runs required, the coverage holds.
    let lenient = policy("least_runs = 100\nleast_coverage = 0.5", "least_runs = 1\nleast_coverage = 0.99");
    let answer = ask_with(&feed, lenient, question("outcome")).await;
    assert_eq!(answer.decision, GateDecision::Hold);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_complete_windows_and_runs_since_a_time_count() {
    let feed = tables(runs_of(&[Arm::default(), Arm::canary("v2", 3)])).await;
    let since =
        |minutes: i64| bellwether_alerts::gate::Question { since: Some(*NOW - minutes * MINUTE), ..question("v2") };
    let answer = ask(&feed, since(40)).await;
    assert_eq!(comparison(&answer, "success", "").canary.runs, 31 * 20);
    let moment = |minutes: i64| Some(super::text_of(*NOW - minutes * MINUTE).replace(".000000", ""));
    assert_eq!((answer.from, answer.to), (moment(40), moment(9)));
    let answer = ask(&feed, since(-10)).await;
    assert_eq!(answer.decision, GateDecision::Hold, "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_task_or_release_holds_and_lists_the_names_that_are_near() {
    let feed = tables(runs_of(&[
        Arm { per_minute: 1, ..Arm::default() },
        Arm { per_minute: 1, ..Arm::canary("2026-11-12.2", 3) },
    ]))
    .await;
    let answer = ask(&feed, bellwether_alerts::gate::Question { task: "refund".to_owned(), ..question("v2") }).await;
    assert_eq!(answer.decision, GateDecision::Hold);
    let unknown = answer.unknown.expect("there is no such task");
    assert_eq!((unknown.what, unknown.near), ("task", vec!["refunds".to_owned()]));
    let answer = ask(&feed, question("2026-11-12.3")).await;
    let unknown = answer.unknown.expect("there is no such release");
    assert_eq!((unknown.what, unknown.near[0].as_str()), ("canary", "2026-11-12.2"));
    let named = bellwether_alerts::gate::Question { baseline: Some("v0".to_owned()), ..question("2026-11-12.2") };
    let answer = ask(&feed, named).await;
    let unknown = answer.unknown.expect("there is no such release");
    assert_eq!((unknown.what, unknown.near, answer.decision), ("baseline", vec!["v1".to_owned()], GateDecision::Hold));
    // Without a name, the newest canary is meant.
    let answer = ask(&feed, bellwether_alerts::gate::Question { canary: None, ..question("") }).await;
    assert_eq!(answer.canary, "2026-11-12.2");
    assert_eq!(comparison(&answer, Metric::Success.name(), "").canary.runs, 110);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_names_the_baseline() {
    let feed = tables(runs_of(&[
        Arm::default(),
        Arm { per_minute: 5, release: "old", ..Arm::default() },
        Arm { per_minute: 5, ..Arm::canary("v2", 3) },
    ]))
    .await;
    let contracts = bellwether_alerts::contract::parse("[contracts.refunds]\nbaseline = \"old\"\n").expect("valid");
    let reader = bellwether_alerts::gate::GateReader {
        policy: bellwether_alerts::gate::Policy::default(),
        contracts,
        settings: bellwether_alerts::gate::GateSettings::default(),
    };
    let answer = Box::pin(reader.ask(&feed.lake, &question("v2"))).await.expect("answers");
    assert_eq!((answer.baseline.as_str(), answer.baseline_choice), ("old", Some(BaselineChoice::Contract)));
    let equal = bellwether_alerts::gate::Question { baseline: Some("v2".to_owned()), ..question("v2") };
    let error = Box::pin(reader.ask(&feed.lake, &equal)).await.expect_err("equal releases");
    assert!(error.message().contains("are the same release `v2`"), "{}", error.message());
}
