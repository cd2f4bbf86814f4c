//! Tests docs/late-outcomes.md case by case, each with its events in order and in reverse order.

use bellwether_aggregate::AggregatorSettings;
use serde_json::{Value, json};

use super::feed::{Feed, rows};

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

const RUN: &str = "SELECT run_id, outcome_status, outcome_source, escalated, label_delay_s FROM runs ORDER BY source, attempt, run_id";

/// Commits the events of each case one by one and runs the queries, then checks that the reverse order gives the same rows. The cases
/// share the tables, because opening them takes longer than the cases.
async fn rows_of<const N: usize>(cases: &[Vec<Value>], queries: [&str; N]) -> [Vec<Value>; N] {
    let mut answers = Vec::new();
    for reverse in [false, true] {
        let mut feed = Feed::new().await;
        let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
        let in_order = |events: &Vec<Value>| {
            let mut events = events.clone();
            if reverse {
                events.reverse();
            }
            events
        };
        let cases: Vec<Vec<Value>> = cases.iter().map(in_order).collect();
        for step in 0..cases.iter().map(Vec::len).max().unwrap_or(0) {
            let events: Vec<Value> = cases.iter().filter_map(|events| events.get(step).cloned()).collect();
            feed.commit_events(&events).await;
            Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        }
        feed.folded().await;
        let session = feed.session().await;
        let mut found = Vec::new();
        for query in queries {
            found.push(rows(&session, query).await);
        }
        answers.push(found);
    }
    assert_eq!(answers[0], answers[1], "the reverse order");
    answers.swap_remove(0).try_into().expect("an answer for each query")
}

/// Returns the answers to queries about one case.
async fn answers<const N: usize>(events: &[Value], queries: [&str; N]) -> [Vec<Value>; N] {
    rows_of(&[events.to_vec()], queries).await
}

async fn answer(events: &[Value], query: &str) -> Vec<Value> {
    let [rows] = answers(events, [query]).await;
    rows
}

/// Gives each case a run id of its own, and returns the rows of each query about each case. The queries return `run_id`.
async fn each<const N: usize>(cases: &[Vec<Value>], queries: [&str; N]) -> Vec<[Vec<Value>; N]> {
    let id = |case: usize| json!(format!("r-{case}"));
    let own = |(case, events): (usize, &Vec<Value>)| -> Vec<Value> {
        events.iter().map(|event| with(event.clone(), "/run_id", id(case))).collect()
    };
    let own: Vec<Vec<Value>> = cases.iter().enumerate().map(own).collect();
    let all = rows_of(&own, queries).await;
    let of_case =
        |case: usize| all.each_ref().map(|rows| rows.iter().filter(|row| row["run_id"] == id(case)).cloned().collect());
    (0..cases.len()).map(of_case).collect()
}

/// A case about one run: its events, and the status and the source of its outcome.
type Case = (Vec<Value>, (String, Value));

async fn check(cases: &[Case]) {
    let events: Vec<Vec<Value>> = cases.iter().map(|(events, _)| events.clone()).collect();
    for ((events, expected), [rows]) in cases.iter().zip(each(&events, [RUN]).await) {
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(&outcome_of(&rows[0]), expected, "{events:#?}");
    }
}

fn outcome_of(row: &Value) -> (String, Value) {
    (row["outcome_status"].as_str().expect("a status").to_owned(), row["outcome_source"].clone())
}

fn decided(status: &str, by: &str) -> (String, Value) {
    (status.to_owned(), json!(by))
}

/// Returns the outcome that the run itself stated.
fn own(status: &str) -> (String, Value) {
    (status.to_owned(), Value::Null)
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
    let first = |count: usize| events[..count].to_vec();
    check(&[
        (first(1), own("success")),
        (first(2), decided("failure", "llm")),
        (first(3), decided("success", "rule")),
        (first(4), decided("failure", "human")),
        (first(5), decided("failure", "human")),
    ])
    .await;
    let summary = "SELECT runs, judged, success, judged_by_human, judged_by_llm, late_verdicts FROM release_summary";
    let expected =
        json!({ "runs": 1, "judged": 1, "success": 0, "judged_by_human": 1, "judged_by_llm": 0, "late_verdicts": 1 });
    assert_eq!(answer(&events, summary).await, [expected]);
}

#[tokio::test]
async fn the_later_of_two_equal_authorities_decides_and_any_verdict_replaces_unknown() {
    let by = |source: &str, status: &str| with(run(status), "/data/outcome/source", json!(source));
    let feedback =
        vec![review("10:05:00", "rv", "ann", "accept"), score("10:06:00", "user_feedback", false), run("unknown")];
    check(&[
        (vec![by("human", "success"), score("10:05:00", "code", false)], decided("success", "human")),
        (vec![by("rule", "success"), score("10:05:00", "code", false)], decided("failure", "rule")),
        (vec![by("rule", "success"), score("09:05:00", "code", false)], decided("success", "rule")),
        (vec![by("human", "unknown"), score("09:05:00", "llm", true)], decided("success", "llm")),
        (feedback, decided("failure", "human")),
    ])
    .await;
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
    let mut cases: Vec<Case> = silent.into_iter().map(|event| (vec![run("success"), event], own("success"))).collect();
    let label = with(
        score("10:05:00", "llm", true),
        "/data",
        json!({ "name": "x", "kind": "llm", "evaluator": { "id": "e" }, "label": "abandoned", "sets_outcome": true }),
    );
    cases.push((vec![run("success"), label], decided("abandoned", "llm")));
    cases.push((vec![run("success"), review("10:05:00", "rv", "ann", "edit")], decided("failure", "human")));
    check(&cases).await;
}

#[tokio::test]
async fn a_score_for_a_run_that_never_arrives_is_listed_in_orphans() {
    let orphans = "SELECT run_id, event_type, source, score_name, passed FROM orphans ORDER BY event_type";
    let alone = [score("10:05:00", "llm", false), score("10:05:00", "llm", false)];
    let expected =
        json!({ "run_id": "r", "event_type": "run.score", "source": "other", "score_name": "ok", "passed": false });
    assert_eq!(answers(&alone, [orphans, "SELECT runs FROM release_summary"]).await, [vec![expected], vec![]]);
    let come = [score("10:05:00", "llm", false), run("success")];
    let [waiting, runs] = answers(&come, [orphans, RUN]).await;
    assert_eq!((waiting.len(), outcome_of(&runs[0])), (0, decided("failure", "llm")));
    let tenants =
        [with(score("10:05:00", "llm", false), "/tenant", json!("a")), with(run("success"), "/tenant", json!("b"))];
    let [waiting, runs] = answers(&tenants, [orphans, RUN]).await;
    assert_eq!(waiting.len(), 1, "another tenant's run is another run");
    assert_eq!(outcome_of(&runs[0]), own("success"));
}

#[tokio::test]
async fn an_unknown_judge_counts_by_its_kind_and_one_without_an_id_is_rejected() {
    let unknown = with(score("10:05:00", "business", false), "/data/evaluator/id", json!("unknown-judge"));
    check(&[(vec![run("success"), unknown.clone()], decided("failure", "rule"))]).await;
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
    let unsure = review("13:00:00", "rv-3", "ann", "unsure");
    // A higher revision of the first review does not change its time: it is still the earlier one.
    let corrected = with(first.clone(), "/revision", json!(3));
    // The later of two people decides.
    let other = review("11:30:00", "rv-9", "bob", "reject");
    let revised = with(review("12:00:00", "rv-2", "ann", "reject"), "/revision", json!(1));
    let reviews = |reviews: &[&Value]| {
        let reviews = reviews.iter().copied().cloned();
        [run("unknown")].into_iter().chain(reviews).collect::<Vec<_>>()
    };
    check(&[
        (reviews(&[&first, &second]), decided("success", "human")),
        (reviews(&[&first, &second, &unsure]), own("unknown")),
        (reviews(&[&first, &corrected, &second]), decided("success", "human")),
        (reviews(&[&first, &second, &other]), decided("success", "human")),
        (reviews(&[&second, &revised]), decided("failure", "human")),
    ])
    .await;
}

#[tokio::test]
async fn an_escalation_before_and_another_after_completion_count_once() {
    let events = [
        late("run.escalated", "09:59:00", json!({ "reason_code": "early" })),
        run("success"),
        late("run.escalated", "12:00:00", json!({ "reason_code": "reopened", "ticket_id": "T-1" })),
    ];
    let summary = "SELECT escalated, runs FROM release_summary";
    let fields = "SELECT escalated, escalation_reason_code, escalation_ticket_id FROM runs";
    let expected = json!({ "escalated": true, "escalation_reason_code": "reopened", "escalation_ticket_id": "T-1" });
    let [summary, fields] = answers(&events, [summary, fields]).await;
    assert_eq!((summary, fields), (vec![json!({ "escalated": 1, "runs": 1 })], vec![expected]));
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
    let listed = "SELECT policy_id, severity FROM policy_exceptions ORDER BY policy_id, severity";
    let expected = [("own", "low"), ("pii", "critical"), ("pii", "high")];
    let expected = expected.map(|(policy, severity)| json!({ "policy_id": policy, "severity": severity }));
    let [summary, listed] = answers(&events, [summary, listed]).await;
    assert_eq!(summary, [json!({ "policy_exceptions": 3, "high": 1, "critical": 1 })]);
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_lower_revision_changes_nothing() {
    let revision = |n: u32, status: &str| with(run(status), "/revision", json!(n));
    let summary = "SELECT runs, success FROM release_summary";
    let events = [revision(2, "success"), revision(1, "failure"), revision(0, "error")];
    let [runs, summary] = answers(&events, [RUN, summary]).await;
    assert_eq!(outcome_of(&runs[0]), own("success"));
    assert_eq!(summary, [json!({ "runs": 1, "success": 1 })]);
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
    let [first, again] = [("error", 1), ("success", 2)].map(|(status, n)| with(run(status), "/data/attempt", json!(n)));
    let cases = [
        vec![run("success"), other.clone(), judged("other-app")],
        vec![run("success"), other, judged("a-judge")],
        vec![first, judged("a-judge"), again],
    ];
    let expected = [["success", "failure"], ["failure", "failure"], ["error", "failure"]];
    for ([rows], expected) in each(&cases, [RUN]).await.into_iter().zip(expected) {
        assert_eq!(statuses(rows), expected);
    }
}

fn of_tenant(tenant: &str, event: Value) -> Value {
    with(event, "/tenant", json!(tenant))
}

const BY_TENANT: &str =
    "SELECT run_id, tenant, outcome_status AS status, escalated FROM runs ORDER BY tenant, source, attempt, run_id";

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
    let summary =
        "SELECT tenant, runs, success, escalated, tool_calls_failed AS failed FROM release_summary ORDER BY tenant";
    let calls = "SELECT tenant, count(*) AS calls FROM tool_calls GROUP BY tenant";
    let releases = "SELECT DISTINCT tenant, release_id FROM releases ORDER BY tenant";
    let [runs, summary, calls, releases] = answers(&events, [BY_TENANT, summary, calls, releases]).await;
    let expected = [
        json!({ "run_id": "r", "tenant": "a", "status": "success", "escalated": true }),
        json!({ "run_id": "r", "tenant": "b", "status": "failure", "escalated": false }),
    ];
    assert_eq!(runs, expected);
    let expected = [
        json!({ "tenant": "a", "runs": 1, "success": 1, "escalated": 1, "failed": 0 }),
        json!({ "tenant": "b", "runs": 1, "success": 0, "escalated": 0, "failed": 1 }),
    ];
    assert_eq!(summary, expected);
    assert_eq!(calls, [json!({ "tenant": "b", "calls": 1 })]);
    assert_eq!(releases, ["a", "b"].map(|tenant| json!({ "tenant": tenant, "release_id": "v1" })));
}

/// What a case is about, its events, the statuses of its runs, and the reasons why statements have none.
type Meant<'a> = (&'a str, Vec<Value>, &'a [&'a str], &'a [&'a str]);

#[tokio::test]
async fn a_statement_without_a_tenant_counts_only_if_one_tenant_can_be_meant() {
    let (a, b) = (of_tenant("a", run("success")), of_tenant("b", run("success")));
    let no = score("10:05:00", "llm", false);
    let own = with(no.clone(), "/source", json!("elsewhere"));
    let elsewhere = with(b.clone(), "/source", json!("elsewhere"));
    let there_too = with(a.clone(), "/source", json!("elsewhere"));
    let other = of_tenant("c", no.clone());
    // Reviews by one person with and without the tenant are about one run, so the later replaces the earlier.
    let first = review("11:00:00", "rv-1", "ann", "reject");
    let second = of_tenant("a", review("12:00:00", "rv-2", "ann", "unsure"));
    let cases: [Meant<'_>; 8] = [
        ("only one tenant has the run", vec![a.clone(), no.clone()], &["failure"], &[]),
        ("two have it", vec![a.clone(), b.clone(), no.clone()], &["success", "success"], &["several_tenants"]),
        (
            "the run without a tenant is meant",
            vec![run("success"), a.clone(), b, no.clone()],
            &["failure", "success", "success"],
            &[],
        ),
        ("the run of its own source", vec![a.clone(), elsewhere.clone(), own.clone()], &["success", "failure"], &[]),
        (
            "two of its own source",
            vec![run("success"), there_too, elsewhere, own],
            &["success", "success", "success"],
            &["several_tenants"],
        ),
        ("another tenant", vec![a.clone(), other], &["success"], &["other_tenant"]),
        ("no run", vec![no], &[], &["no_run"]),
        ("one person", vec![a, first, second], &["success"], &[]),
    ];
    let text = |rows: &[Value], name: &str| -> Vec<String> {
        rows.iter().map(|row| row[name].as_str().expect("text").to_owned()).collect()
    };
    let events: Vec<Vec<Value>> = cases.iter().map(|(_, events, ..)| events.clone()).collect();
    let found = each(&events, [BY_TENANT, "SELECT run_id, reason FROM orphans ORDER BY run_id"]).await;
    for ((what, _, statuses, reasons), [runs, orphans]) in cases.into_iter().zip(found) {
        assert_eq!((text(&runs, "status"), text(&orphans, "reason")), (owned(statuses), owned(reasons)), "{what}");
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
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
    let mut cases: Vec<Case> = Vec::new();
    for note in [later("rv-2", "accept"), later("rv-2", "unsure"), later("rv-1", "accept")] {
        cases.push((vec![run("success"), no.clone(), note], decided("failure", "human")));
    }
    for gone in [later("rv-1", "reject"), review("10:00:00", "rv-1", "ann", "skip")] {
        cases.push((vec![run("success"), no.clone(), revised(gone)], own("success")));
    }
    for decision in ["unsure", "skip", "escalate"] {
        let withdrawn = review("12:00:00", "rv-2", "ann", decision);
        cases.push((vec![run("success"), no.clone(), withdrawn], own("success")));
    }
    // The same holds for scores of the same judge and name.
    let no = score("11:00:00", "llm", false);
    let value =
        json!({ "name": "ok", "kind": "llm", "evaluator": { "id": "judge-llm" }, "value": 0.1, "sets_outcome": true });
    let label = with(value.clone(), "/label", json!("so-so"));
    let shadow = silent(score("12:00:00", "llm", true));
    for note in [shadow, late("run.score", "12:00:00", value), late("run.score", "12:00:00", label)] {
        cases.push((vec![run("success"), no.clone(), note.clone()], decided("failure", "llm")));
        cases.push((vec![run("success"), no.clone(), revised(note)], own("success")));
    }
    // A person's note does not block a judge of lower authority either.
    let note = silent(review("12:00:00", "rv", "ann", "accept"));
    cases.push((vec![run("success"), note, no], decided("failure", "llm")));
    check(&cases).await;
}
