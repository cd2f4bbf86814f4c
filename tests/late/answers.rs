//! Tests docs/late-outcomes.md case by case, each with its events in order and in reverse order.

use bellwether_aggregate::AggregatorSettings;
use serde_json::{Value, json};

use super::feed::Feed;

fn run(status: &str) -> Value {
    json!({
        "spec": "run-event/1", "type": "run.completed", "run_id": "r", "source": "app",
        "data": {
            "task": "t", "release": { "id": "v1", "model": { "requested": "m" } },
            "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:00:30Z",
            "outcome": { "status": status },
        },
    })
}

fn late(event_type: &str, time: &str, data: Value) -> Value {
    json!({
        "spec": "run-event/1", "type": event_type, "run_id": "r", "source": "other",
        "time": format!("2026-11-23T{time}Z"), "data": data,
    })
}

fn score(time: &str, kind: &str, passed: bool) -> Value {
    let data = json!({ "name": "ok", "kind": kind, "evaluator": { "id": format!("judge-{kind}") }, "passed": passed, "sets_outcome": true });
    late("run.score", time, data)
}

fn review(time: &str, id: &str, person: &str, decision: &str) -> Value {
    late("run.review", time, json!({ "review_id": id, "reviewer": person, "decision": decision }))
}

fn with(mut event: Value, pointer: &str, value: Value) -> Value {
    match event.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            event.pointer_mut(parent).expect("a parent")[name] = value;
        }
    }
    event
}

const RUN: &str = "SELECT outcome_status, outcome_source, escalated, label_delay_s FROM runs ORDER BY source, attempt";

/// Commits events one by one and runs a query, then checks that the reverse order gives the same rows.
async fn answer(events: &[Value], query: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    for reverse in [false, true] {
        let mut feed = Feed::new().await;
        let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
        let mut events = events.to_vec();
        if reverse {
            events.reverse();
        }
        for event in events {
            feed.commit_events(&[event]).await;
            Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        }
        feed.folded().await;
        answers.push(feed.sql(query).await);
    }
    assert_eq!(answers[0], answers[1], "the reverse order");
    answers.swap_remove(0)
}

async fn outcome(events: &[Value]) -> (String, Value) {
    let rows = answer(events, RUN).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    (rows[0]["outcome_status"].as_str().expect("a status").to_owned(), rows[0]["outcome_source"].clone())
}

fn decided(status: &str, by: &str) -> (String, Value) {
    (status.to_owned(), json!(by))
}

#[tokio::test]
async fn the_highest_authority_decides_and_the_metrics_count_by_it() {
    let events = [
        run("success"),
        score("10:05:00", "llm", false),
        score("10:04:00", "code", true),
        review("10:03:00", "rv", "ann", "reject"),
        score("10:09:00", "llm", true),
    ];
    let as_run = |count: usize| outcome(&events[..count]);
    assert_eq!(as_run(1).await, ("success".to_owned(), Value::Null));
    assert_eq!(as_run(2).await, decided("failure", "llm"));
    assert_eq!(as_run(3).await, decided("success", "rule"));
    assert_eq!(as_run(4).await, decided("failure", "human"));
    assert_eq!(as_run(5).await, decided("failure", "human"));
    let summary = "SELECT runs, judged, success, judged_by_human, judged_by_llm, late_verdicts FROM release_summary";
    let expected =
        json!({ "runs": 1, "judged": 1, "success": 0, "judged_by_human": 1, "judged_by_llm": 0, "late_verdicts": 1 });
    assert_eq!(answer(&events, summary).await, [expected]);
}

#[tokio::test]
async fn the_later_of_two_equal_authorities_decides_and_any_verdict_replaces_unknown() {
    let own = |source: &str| with(run("success"), "/data/outcome/source", json!(source));
    assert_eq!(outcome(&[own("human"), score("10:05:00", "code", false)]).await, decided("success", "human"));
    assert_eq!(outcome(&[own("rule"), score("10:05:00", "code", false)]).await, decided("failure", "rule"));
    assert_eq!(outcome(&[own("rule"), score("09:05:00", "code", false)]).await, decided("success", "rule"));
    let unknown = with(run("unknown"), "/data/outcome/source", json!("human"));
    assert_eq!(outcome(&[unknown, score("09:05:00", "llm", true)]).await, decided("success", "llm"));
    let feedback =
        [review("10:05:00", "rv", "ann", "accept"), score("10:06:00", "user_feedback", false), run("unknown")];
    assert_eq!(outcome(&feedback).await, decided("failure", "human"));
}

#[tokio::test]
async fn statements_that_set_no_outcome_do_not_change_it() {
    let silent = [
        with(score("10:05:00", "human", false), "/data/sets_outcome", json!(false)),
        with(score("10:05:00", "human", false), "/data/target", json!("step")),
        with(
            score("10:05:00", "human", false),
            "/data",
            json!({ "name": "x", "kind": "human", "evaluator": { "id": "e" }, "value": 0.1, "sets_outcome": true }),
        ),
        with(review("10:05:00", "rv", "ann", "reject"), "/data/sets_outcome", json!(false)),
        review("10:05:00", "rv", "ann", "skip"),
        review("10:05:00", "rv", "ann", "escalate"),
    ];
    for event in silent {
        assert_eq!(outcome(&[run("success"), event.clone()]).await, ("success".to_owned(), Value::Null), "{event}");
    }
    let label = with(
        score("10:05:00", "llm", true),
        "/data",
        json!({ "name": "x", "kind": "llm", "evaluator": { "id": "e" }, "label": "abandoned", "sets_outcome": true }),
    );
    assert_eq!(outcome(&[run("success"), label]).await, decided("abandoned", "llm"));
    assert_eq!(outcome(&[run("success"), review("10:05:00", "rv", "ann", "edit")]).await, decided("failure", "human"));
}

#[tokio::test]
async fn a_score_for_a_run_that_never_arrives_is_listed_in_orphans() {
    let orphans = "SELECT run_id, event_type, source, score_name, passed FROM orphans ORDER BY event_type";
    let alone = [score("10:05:00", "llm", false), score("10:05:00", "llm", false)];
    let expected =
        json!({ "run_id": "r", "event_type": "run.score", "source": "other", "score_name": "ok", "passed": false });
    assert_eq!(answer(&alone, orphans).await, [expected]);
    assert_eq!(answer(&alone, "SELECT runs FROM release_summary").await, Vec::<Value>::new());
    let come = [score("10:05:00", "llm", false), run("success")];
    assert_eq!(answer(&come, orphans).await, Vec::<Value>::new());
    assert_eq!(outcome(&come).await, decided("failure", "llm"));
    let tenants =
        [with(score("10:05:00", "llm", false), "/tenant", json!("a")), with(run("success"), "/tenant", json!("b"))];
    assert_eq!(answer(&tenants, orphans).await.len(), 1, "another tenant's run is another run");
    assert_eq!(outcome(&tenants).await.0, "success");
}

#[tokio::test]
async fn an_unknown_judge_counts_by_its_kind_and_one_without_an_id_is_rejected() {
    let unknown = with(score("10:05:00", "business", false), "/data/evaluator/id", json!("unknown-judge"));
    assert_eq!(outcome(&[run("success"), unknown.clone()]).await, decided("failure", "rule"));
    for (pointer, value) in [("/data/evaluator", json!({ "version": "2" })), ("/data/kind", json!("oracle"))] {
        let mut builder = bellwether_ingest::BatchBuilder::new(bellwether_event::Limits::default());
        let body = with(unknown.clone(), pointer, value).to_string().into_bytes();
        let message = bellwether_ingest::Message { topic: "t", payload: Some(&body), ..Default::default() };
        builder.push(&message, super::feed::NOW);
        let (events, quarantine) = builder.finish().expect("rows");
        assert_eq!((events.rows(), quarantine.rows()), (0, 1), "{pointer}");
    }
}

#[tokio::test]
async fn a_persons_later_review_replaces_the_earlier_and_unsure_withdraws_it() {
    let first = review("11:00:00", "rv-1", "ann", "reject");
    let second = review("12:00:00", "rv-2", "ann", "accept");
    assert_eq!(outcome(&[run("unknown"), first.clone(), second.clone()]).await, decided("success", "human"));
    let unsure = review("13:00:00", "rv-3", "ann", "unsure");
    assert_eq!(outcome(&[run("unknown"), first.clone(), second.clone(), unsure]).await.0, "unknown");
    // A higher revision of the first review does not change its time: it is still the earlier one.
    let corrected = with(first.clone(), "/revision", json!(3));
    assert_eq!(outcome(&[run("unknown"), first.clone(), corrected, second.clone()]).await.0, "success");
    let other = review("11:30:00", "rv-9", "bob", "reject");
    assert_eq!(outcome(&[run("unknown"), first, second.clone(), other]).await.0, "success", "the later of two people");
    let revised = with(review("12:00:00", "rv-2", "ann", "reject"), "/revision", json!(1));
    assert_eq!(outcome(&[run("unknown"), second, revised]).await.0, "failure", "one review, revised");
}

#[tokio::test]
async fn an_escalation_before_and_another_after_completion_count_once() {
    let events = [
        late("run.escalated", "09:59:00", json!({ "reason_code": "early" })),
        run("success"),
        late("run.escalated", "12:00:00", json!({ "reason_code": "reopened", "ticket_id": "T-1" })),
    ];
    let summary = "SELECT escalated, runs FROM release_summary";
    assert_eq!(answer(&events, summary).await, [json!({ "escalated": 1, "runs": 1 })]);
    let fields = "SELECT escalated, escalation_reason_code, escalation_ticket_id FROM runs";
    let expected = json!({ "escalated": true, "escalation_reason_code": "reopened", "escalation_ticket_id": "T-1" });
    assert_eq!(answer(&events, fields).await, [expected]);
}

#[tokio::test]
async fn a_policy_exception_counts_once_for_each_event_id() {
    let raise = |id: &str, severity: &str| {
        let event = late("run.policy_exception", "10:20:00", json!({ "policy_id": "pii", "severity": severity }));
        with(event, "/id", json!(id))
    };
    let again = with(with(raise("a", "critical"), "/revision", json!(1)), "/data/severity", json!("high"));
    let own = with(run("success"), "/data/policy_exceptions", json!([{ "policy_id": "own", "severity": "low" }]));
    let events = [raise("a", "critical"), own, raise("b", "critical"), raise("b", "critical"), again];
    let summary = "SELECT policy_exceptions, policy_exceptions_high AS high, policy_exceptions_critical AS critical FROM release_summary";
    assert_eq!(answer(&events, summary).await, [json!({ "policy_exceptions": 3, "high": 1, "critical": 1 })]);
    let listed = "SELECT policy_id, severity FROM policy_exceptions ORDER BY policy_id, severity";
    let expected = [("own", "low"), ("pii", "critical"), ("pii", "high")];
    let expected = expected.map(|(policy, severity)| json!({ "policy_id": policy, "severity": severity }));
    assert_eq!(answer(&events, listed).await, expected);
}

#[tokio::test]
async fn a_lower_revision_changes_nothing() {
    let revision = |n: u32, status: &str| with(run(status), "/revision", json!(n));
    assert_eq!(outcome(&[revision(2, "success"), revision(1, "failure"), revision(0, "error")]).await.0, "success");
    let summary = "SELECT runs, success FROM release_summary";
    let events = [revision(2, "success"), revision(1, "failure")];
    assert_eq!(answer(&events, summary).await, [json!({ "runs": 1, "success": 1 })]);
}

#[tokio::test]
async fn a_correction_of_task_and_release_moves_the_run_with_its_verdicts_and_escalations() {
    let moved = with(with(run("success"), "/data/task", json!("u")), "/data/release/id", json!("v2"));
    let moved = with(moved, "/revision", json!(1));
    let events = [
        run("success"),
        score("10:05:00", "llm", false),
        late("run.escalated", "12:00:00", json!({ "reason_code": "reopened" })),
        moved,
    ];
    let summary = "SELECT task, release_id, runs, success, escalated FROM release_summary";
    let expected = json!({ "task": "u", "release_id": "v2", "runs": 1, "success": 0, "escalated": 1 });
    assert_eq!(answer(&events, summary).await, [expected]);
}

#[tokio::test]
async fn a_verdict_dated_before_its_run_counts_with_a_delay_of_zero() {
    let rows = answer(&[run("success"), score("09:00:00", "llm", false)], RUN).await;
    assert_eq!(rows[0]["outcome_status"], "failure");
    assert_eq!(rows[0]["label_delay_s"], 0.0);
    let summary = "SELECT label_delay_s_p50, label_delay_s_p95, coverage, unknown_share FROM release_summary";
    let rows = answer(&[run("unknown"), score("11:00:30", "llm", true)], summary).await;
    let delay = rows[0]["label_delay_s_p50"].as_f64().expect("a delay");
    assert!((delay - 3600.0).abs() <= 36.0 && rows[0]["label_delay_s_p95"] == rows[0]["label_delay_s_p50"], "{rows:?}");
    assert_eq!((&rows[0]["coverage"], &rows[0]["unknown_share"]), (&json!(1.0), &json!(0.0)));
    let rows =
        answer(&[run("unknown")], "SELECT coverage, unknown_share, label_delay_s_p50 FROM release_summary").await;
    assert_eq!((&rows[0]["coverage"], &rows[0]["unknown_share"]), (&json!(0.0), &json!(1.0)));
    assert_eq!(rows[0].get("label_delay_s_p50"), None, "there is no late verdict");
}

#[tokio::test]
async fn a_statement_applies_to_the_run_of_its_own_source_and_to_the_last_attempt() {
    let other = with(run("success"), "/source", json!("other-app"));
    let judged = |source: &str| with(score("10:05:00", "llm", false), "/source", json!(source));
    let statuses = |rows: Vec<Value>| -> Vec<String> {
        rows.iter().map(|row| row["outcome_status"].as_str().expect("a status").to_owned()).collect()
    };
    let rows = answer(&[run("success"), other.clone(), judged("other-app")], RUN).await;
    assert_eq!(statuses(rows), ["success", "failure"]);
    let rows = answer(&[run("success"), other, judged("a-judge")], RUN).await;
    assert_eq!(statuses(rows), ["failure", "failure"]);
    let again = with(run("success"), "/data/attempt", json!(2));
    let rows = answer(&[with(run("error"), "/data/attempt", json!(1)), judged("a-judge"), again], RUN).await;
    assert_eq!(statuses(rows), ["error", "failure"]);
}

fn of_tenant(tenant: &str, event: Value) -> Value {
    with(event, "/tenant", json!(tenant))
}

const BY_TENANT: &str = "SELECT tenant, outcome_status AS status, escalated FROM runs ORDER BY tenant, source, attempt";

#[tokio::test]
async fn runs_of_two_tenants_with_the_same_id_have_separate_verdicts() {
    let own = with(of_tenant("b", run("success")), "/data/tool_calls", json!([{ "name": "t", "status": "error" }]));
    let events = [
        of_tenant("a", run("unknown")),
        own,
        of_tenant("a", review("11:00:00", "rv", "ann", "accept")),
        of_tenant("b", review("12:00:00", "rv", "ann", "reject")),
        of_tenant("a", late("run.escalated", "12:00:00", json!({ "reason_code": "x" }))),
        of_tenant("b", score("11:30:00", "llm", true)),
    ];
    let expected = [
        json!({ "tenant": "a", "status": "success", "escalated": true }),
        json!({ "tenant": "b", "status": "failure", "escalated": false }),
    ];
    assert_eq!(answer(&events, BY_TENANT).await, expected);
    let summary =
        "SELECT tenant, runs, success, escalated, tool_calls_failed AS failed FROM release_summary ORDER BY tenant";
    let expected = [
        json!({ "tenant": "a", "runs": 1, "success": 1, "escalated": 1, "failed": 0 }),
        json!({ "tenant": "b", "runs": 1, "success": 0, "escalated": 0, "failed": 1 }),
    ];
    assert_eq!(answer(&events, summary).await, expected);
    let calls = "SELECT tenant, count(*) AS calls FROM tool_calls GROUP BY tenant";
    assert_eq!(answer(&events, calls).await, [json!({ "tenant": "b", "calls": 1 })]);
    let releases = "SELECT DISTINCT tenant, release_id FROM releases ORDER BY tenant";
    let expected = ["a", "b"].map(|tenant| json!({ "tenant": tenant, "release_id": "v1" }));
    assert_eq!(answer(&events, releases).await, expected);
}

#[tokio::test]
async fn a_statement_without_a_tenant_counts_only_if_one_tenant_can_be_meant() {
    let statuses = |events: Vec<Value>| async move {
        let rows = answer(&events, BY_TENANT).await;
        let reasons = answer(&events, "SELECT reason FROM orphans").await;
        let text = |rows: Vec<Value>, name: &str| -> Vec<String> {
            rows.iter().map(|row| row[name].as_str().expect("text").to_owned()).collect()
        };
        (text(rows, "status"), text(reasons, "reason"))
    };
    let found = |statuses: &[&str], reasons: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        (owned(statuses), owned(reasons))
    };
    let (a, b) = (of_tenant("a", run("success")), of_tenant("b", run("success")));
    let no = score("10:05:00", "llm", false);
    assert_eq!(statuses(vec![a.clone(), no.clone()]).await, found(&["failure"], &[]), "only one tenant has the run");
    let several = found(&["success", "success"], &["several_tenants"]);
    assert_eq!(statuses(vec![a.clone(), b.clone(), no.clone()]).await, several);
    let none = statuses(vec![run("success"), a.clone(), b.clone(), no.clone()]).await;
    assert_eq!(none, found(&["failure", "success", "success"], &[]), "the run without a tenant is meant");
    let own = with(no.clone(), "/source", json!("elsewhere"));
    let elsewhere = with(b.clone(), "/source", json!("elsewhere"));
    let by_source = statuses(vec![a.clone(), elsewhere.clone(), own.clone()]).await;
    assert_eq!(by_source, found(&["success", "failure"], &[]), "the run of its own source");
    let there_too = with(a.clone(), "/source", json!("elsewhere"));
    let by_source = statuses(vec![run("success"), there_too, elsewhere, own]).await;
    assert_eq!(by_source, found(&["success", "success", "success"], &["several_tenants"]), "two of its own source");
    let other = of_tenant("c", no.clone());
    assert_eq!(statuses(vec![a.clone(), other]).await, found(&["success"], &["other_tenant"]));
    assert_eq!(statuses(vec![no.clone()]).await, found(&[], &["no_run"]));
    // Reviews by one person with and without the tenant are about one run, so the later replaces the earlier.
    let first = review("11:00:00", "rv-1", "ann", "reject");
    let second = of_tenant("a", review("12:00:00", "rv-2", "ann", "unsure"));
    assert_eq!(statuses(vec![a, first, second]).await, found(&["success"], &[]));
}

#[tokio::test]
async fn one_persons_verdicts_on_the_runs_of_two_sources_are_independent() {
    let other = with(run("unknown"), "/source", json!("app-2"));
    let by = |source: &str, event: Value| with(event, "/source", json!(source));
    let events = [
        run("unknown"),
        other,
        by("app", review("11:00:00", "rv-1", "ann", "accept")),
        by("app-2", review("12:00:00", "rv-2", "ann", "reject")),
    ];
    let rows = answer(&events, "SELECT source, outcome_status AS status FROM runs ORDER BY source").await;
    let expected = [("app", "success"), ("app-2", "failure")];
    assert_eq!(rows, expected.map(|(source, status)| json!({ "source": source, "status": status })));
}

#[tokio::test]
async fn a_statement_that_sets_no_outcome_withdraws_one_only_as_a_higher_revision() {
    let silent = |event: Value| with(event, "/data/sets_outcome", json!(false));
    let revised = |event: Value| with(event, "/revision", json!(1));
    let no = review("11:00:00", "rv-1", "ann", "reject");
    let later = |id: &str, decision: &str| silent(review("12:00:00", id, "ann", decision));
    for note in [later("rv-2", "accept"), later("rv-2", "unsure"), later("rv-1", "accept")] {
        assert_eq!(outcome(&[run("success"), no.clone(), note.clone()]).await, decided("failure", "human"), "{note}");
    }
    for gone in [later("rv-1", "reject"), review("10:00:00", "rv-1", "ann", "skip")] {
        let found = outcome(&[run("success"), no.clone(), revised(gone.clone())]).await;
        assert_eq!(found, ("success".to_owned(), Value::Null), "{gone}");
    }
    for decision in ["unsure", "skip", "escalate"] {
        let withdrawn = review("12:00:00", "rv-2", "ann", decision);
        assert_eq!(outcome(&[run("success"), no.clone(), withdrawn]).await.0, "success", "{decision}");
    }
    // The same holds for scores of the same judge and name.
    let no = score("11:00:00", "llm", false);
    let value =
        json!({ "name": "ok", "kind": "llm", "evaluator": { "id": "judge-llm" }, "value": 0.1, "sets_outcome": true });
    let label = with(value.clone(), "/label", json!("so-so"));
    let shadow = silent(score("12:00:00", "llm", true));
    let (value, label) = (late("run.score", "12:00:00", value), late("run.score", "12:00:00", label));
    for note in [shadow, value, label] {
        let found = outcome(&[run("success"), no.clone(), note.clone()]).await;
        assert_eq!(found, decided("failure", "llm"), "{note}");
        let found = outcome(&[run("success"), no.clone(), revised(note.clone())]).await;
        assert_eq!(found, ("success".to_owned(), Value::Null), "revised: {note}");
    }
    // A person's note does not block a judge of lower authority either.
    let note = silent(review("12:00:00", "rv", "ann", "accept"));
    assert_eq!(outcome(&[run("success"), note, no]).await, decided("failure", "llm"));
}
