//! Implements the rules of docs/late-outcomes.md as plain code over all statements, and compares the views `runs` and
//! `orphans` and the aggregator's counters with it, for random statements from several sources and tenants.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use prometheus::Registry;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::feed::Feed;
use super::order::{Statement, block_on, event, statement};

/// Tenant, source, run id.
type Run = (String, String, String);

/// The rank of a statement: revision, time, content hash.
type Rank = (i64, String, i64);

fn text(event: &Value, pointer: &str) -> String {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn run(event: &Value) -> Run {
    (text(event, "/tenant"), text(event, "/source"), text(event, "/run_id"))
}

fn rank(event: &Value) -> Rank {
    let hash = bellwether_event::content_hash(event.to_string().as_bytes());
    (event["revision"].as_i64().unwrap_or(0), text(event, "/time"), hash)
}

fn is_run(event: &&Value) -> bool {
    event["type"] == "run.completed"
}

/// Returns the completed run that counts for each run and attempt.
fn completed(events: &[Value]) -> BTreeMap<(Run, i64), &Value> {
    let mut runs: BTreeMap<(Run, i64), &Value> = BTreeMap::new();
    for event in events.iter().filter(is_run) {
        let counts = runs.entry((run(event), event["data"]["attempt"].as_i64().unwrap_or(1))).or_insert(event);
        if rank(event) > rank(counts) {
            *counts = event;
        }
    }
    runs
}

/// Returns the runs that a statement is about, or the reason why it is an orphan.
fn about(event: &Value, runs: &BTreeSet<Run>) -> Result<Vec<Run>, &'static str> {
    let (tenant, source, id) = run(event);
    let mut found: Vec<Run> = runs.iter().filter(|(_, _, other)| *other == id).cloned().collect();
    if found.is_empty() {
        return Err("no_run");
    }
    found.retain(|(other, _, _)| tenant.is_empty() || *other == tenant);
    if found.is_empty() {
        return Err("other_tenant");
    }
    if found.iter().any(|(_, other, _)| *other == source) {
        found.retain(|(_, other, _)| *other == source);
    }
    let tenants: BTreeSet<String> = found.iter().map(|(tenant, _, _)| tenant.clone()).collect();
    match tenants.first() {
        Some(first) if first.is_empty() || tenants.len() == 1 => {
            found.retain(|(tenant, _, _)| tenant == first);
            Ok(found)
        }
        _ => Err("several_tenants"),
    }
}

fn is_review(event: &Value) -> bool {
    event["type"] == "run.review"
}

/// Returns the outcome that a statement sets.
fn verdict(event: &Value) -> Option<String> {
    let data = &event["data"];
    if is_review(event) {
        let decision = text(data, "/decision");
        return match decision.as_str() {
            _ if data["sets_outcome"] == false => None,
            "accept" => Some("success".to_owned()),
            "reject" | "edit" => Some("failure".to_owned()),
            _ => None,
        };
    }
    let of_run = data.get("target").is_none_or(|target| target == "run");
    if event["type"] != "run.score" || data["sets_outcome"] != true || !of_run {
        return None;
    }
    match data["passed"].as_bool() {
        Some(true) => Some("success".to_owned()),
        Some(false) => Some("failure".to_owned()),
        None => {
            let label = text(data, "/label");
            ["success", "failure", "error", "timeout", "abandoned"].contains(&label.as_str()).then_some(label)
        }
    }
}

fn takes_part(event: &Value) -> bool {
    if is_review(event) { event["data"]["sets_outcome"] != false } else { verdict(event).is_some() }
}

/// Returns the key that two reviews or scores of a run share if one replaces the other.
fn fact(event: &Value) -> Vec<String> {
    let data = &event["data"];
    let mut key = vec![text(event, "/type"), text(event, "/source")];
    if is_review(event) {
        key.push(text(data, "/review_id"));
    } else {
        key.extend([text(data, "/name"), text(data, "/evaluator/id"), text(data, "/target")]);
    }
    key
}

fn authority(event: &Value) -> u8 {
    match text(&event["data"], "/kind").as_str() {
        _ if is_review(event) => 3,
        "human" | "user_feedback" => 3,
        "llm" => 1,
        _ => 2,
    }
}

/// Returns a run's status and who decided it, given the statements about the run.
fn outcome(own: &Value, statements: &[&Value]) -> (String, String) {
    let mut facts: BTreeMap<Vec<String>, &Value> = BTreeMap::new();
    let greatness = |event: &Value| {
        let (revision, time, hash) = rank(event);
        (revision, takes_part(event), time, hash)
    };
    for event in statements.iter().filter(|event| is_review(event) || event["type"] == "run.score") {
        let counts = facts.entry(fact(event)).or_insert(event);
        if greatness(event) > greatness(counts) {
            *counts = event;
        }
    }
    let when = |event: &Value| {
        let (revision, time, hash) = rank(event);
        (time, revision, hash)
    };
    let mut voices: BTreeMap<Vec<String>, &Value> = BTreeMap::new();
    for (key, event) in facts.into_iter().filter(|(_, event)| takes_part(event)) {
        let voice = if is_review(event) { vec![text(event, "/data/reviewer")] } else { key };
        let counts = voices.entry(voice).or_insert(event);
        if when(event) > when(counts) {
            *counts = event;
        }
    }
    let (status, source) = (text(own, "/data/outcome/status"), text(own, "/data/outcome/source"));
    let late = voices.into_values().filter(|event| verdict(event).is_some());
    let Some(late) = late.max_by_key(|event| (authority(event), when(event))) else { return (status, source) };
    let of_run = match source.as_str() {
        "human" => 3,
        "rule" => 2,
        "llm" => 1,
        _ => 0,
    };
    let decides = authority(late) > of_run || authority(late) == of_run && text(late, "/time") >= text(own, "/time");
    if status == "unknown" || decides {
        let by = ["app", "llm", "rule", "human"][usize::from(authority(late))];
        return (verdict(late).expect("a verdict"), by.to_owned());
    }
    (status, source)
}

/// Returns the rows of `runs` and the number of `orphans` by reason.
fn expected(events: &[Value]) -> (Vec<Value>, BTreeMap<String, usize>) {
    let runs = completed(events);
    let known: BTreeSet<Run> = runs.keys().map(|(run, _)| run.clone()).collect();
    let mut of: BTreeMap<Run, Vec<&Value>> = BTreeMap::new();
    let mut orphans: BTreeMap<String, usize> = BTreeMap::new();
    let mut once = BTreeSet::new();
    for event in events.iter().filter(|event| !is_run(event) && once.insert(event.to_string())) {
        match about(event, &known) {
            Ok(runs) => runs.into_iter().for_each(|run| of.entry(run).or_default().push(event)),
            Err(reason) => *orphans.entry(reason.to_owned()).or_default() += 1,
        }
    }
    let mut rows = Vec::new();
    for ((run, attempt), own) in &runs {
        let last = runs.keys().filter(|(other, _)| other == run).all(|(_, other)| other <= attempt);
        let statements: &[&Value] = of.get(run).filter(|_| last).map_or(&[], Vec::as_slice);
        let (status, source) = outcome(own, statements);
        let escalated =
            own["data"].get("escalation").is_some() || statements.iter().any(|event| event["type"] == "run.escalated");
        rows.push(json!({ "tenant": run.0, "source": run.1, "run_id": run.2, "attempt": attempt,
            "status": status, "by": source, "escalated": escalated }));
    }
    (rows, orphans)
}

fn total(registry: &Registry, name: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("a counter");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let count = family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum();
    count
}

async fn compare(statements: &[Statement], cut: usize, looked_up: bool) {
    let events: Vec<Value> = statements.iter().map(event).collect();
    let (rows, orphans) = expected(&events);
    let mut feed = Feed::new().await;
    let bounds =
        if looked_up { (0, std::time::Duration::ZERO) } else { (1 << 20, std::time::Duration::from_secs(86_400)) };
    let settings =
        AggregatorSettings { index_memory_bytes: bounds.0, horizon: bounds.1, ..AggregatorSettings::default() };
    let registry = Registry::new();
    let mut aggregator = Box::pin(Aggregator::open(&feed.lake, settings, None, &registry)).await.expect("opens");
    for part in events.chunks(cut) {
        feed.commit_events(part).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    }
    feed.folded().await;
    let found = feed
        .sql(
            "SELECT tenant, source, run_id, attempt, outcome_status AS status, outcome_source AS by, escalated FROM runs \
             ORDER BY tenant, source, run_id, attempt",
        )
        .await;
    assert_eq!(found, rows, "runs after {events:#?}");
    let reasons = feed.sql("SELECT reason, count(*) AS n FROM orphans GROUP BY reason").await;
    let reasons: BTreeMap<String, usize> =
        reasons.iter().map(|row| (text(row, "/reason"), row["n"].as_u64().expect("a count") as usize)).collect();
    assert_eq!(reasons, orphans, "orphans after {events:#?}");
    let waiting = total(&registry, "bellwether_aggregate_waiting_total");
    let waited = total(&registry, "bellwether_aggregate_waited_total");
    assert_eq!(waiting - waited, orphans.values().sum::<usize>() as u64, "waiting after {events:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_tables_agree_with_the_rules(
        statements in prop::collection::vec(statement(), 1..120),
        cut in 1..60_usize,
        looked_up in any::<bool>(),
    ) {
        block_on(compare(&statements, cut, looked_up));
    }
}
