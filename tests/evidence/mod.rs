//! Pages of alerts, from events that pass through ingest, aggregate and watch.
//!
//! A canary's prompt went from version 17 to 18. Its runs in the EU fail three times in ten, because a tool fails there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_aggregate::AggregatorSettings;
use bellwether_alerts::{Contracts, Rules, Watch, WatchSettings, Watcher};
use bellwether_base::ManualClock;
use bellwether_evals::{EvalsSettings, Sample, resample};
use bellwether_evidence::{AlertRecord, LinkSettings, Links, PageSource, minimal};
use bellwether_follow::{FollowHealth, Until};
use bellwether_lake::{Lake, StorageOptions};
use bellwether_sinks::Page;
use bellwether_sinks::page::Status;
use bellwether_tables::Table;
use insta::assert_json_snapshot;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::late::feed::{Feed, NOW};

/// Minutes of traffic before [`NOW`].
const MINUTES: i64 = 175;

const MINUTE: i64 = 60_000_000;

/// Rules of the tests; the others would only take time.
const RULES: [&str; 4] = ["success_regression", "cost_regression", "tool_failure_regression", "latency_regression"];

/// Names in the events, which a test may make hostile.
#[derive(Clone, Copy)]
struct Names {
    task: &'static str,
    region: &'static str,
    tool: &'static str,
    run: &'static str,
}

const NAMES: Names = Names { task: "refund_triage", region: "eu", tool: "charge", run: "run" };

const HOSTILE: Names = Names {
    task: "refund'; DROP TABLE events; -- <!channel> \"x\"",
    region: "</script><b>@here\n*eu*",
    tool: "charge') OR true --\u{202e}",
    run: "../../x?y=z#<@U1>",
};

fn rfc3339(micros: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros.unsigned_abs());
    humantime::format_rfc3339_micros(time).to_string()
}

/// A run that ends in a minute.
struct Spec {
    id: String,
    release: &'static str,
    stage: &'static str,
    minute: i64,
    region: &'static str,
    bad: bool,
    tool_failed: bool,
}

fn event(spec: &Spec, names: Names) -> Value {
    let ended = NOW - (MINUTES - spec.minute) * MINUTE + 20_000_000;
    let prompt = if spec.release == "r18" { "18" } else { "17" };
    let mut data = json!({
        "task": names.task,
        "release": {
            "id": spec.release, "prompt": {"name": "refund", "version": prompt}, "model": {"requested": "model-a"},
            "params": {"temperature": if spec.release == "r18" { 0.7 } else { 0.2 }},
        },
        "rollout": {"stage": spec.stage},
        "started_at": rfc3339(ended - 1_500_000), "ended_at": rfc3339(ended),
        "outcome": {"status": if spec.bad { "failure" } else { "success" }},
        "segments": {"region": spec.region},
        "cost": {"amount": if spec.bad { "0.03" } else { "0.01" }, "currency": "USD"},
        "trace": {"trace_id": format!("{:032x}", spec.minute * 1000 + 7)},
        "tool_calls": [
            {"name": "lookup", "status": "ok"},
            {"name": names.tool, "status": if spec.tool_failed { "error" } else { "ok" }},
        ],
        "content": {"input": "Ann Lee wants her money back"},
    });
    if spec.bad {
        data["failure_point"] = json!({"component": "tool", "error_type": "ChargeRefused"});
    }
    json!({"spec": "run-event/1.0", "type": "run.completed", "run_id": spec.id, "source": "app", "data": data})
}

/// Eight runs a minute of the baseline, and four of the canary; `is_bad` says which of the canary's EU runs fail.
fn traffic(names: Names, is_bad: impl Fn(i64) -> bool) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        for n in 0..8 {
            let index = minute * 8 + n;
            let region = if n % 2 == 0 { names.region } else { "us" };
            let id = format!("{}-a{index}", names.run);
            let bad = index % 16 == 5 || index % 32 == 8;
            let spec = Spec { id, release: "r17", stage: "full", minute, region, bad, tool_failed: index % 64 == 5 };
            events.push(event(&spec, names));
        }
        for n in 0..4 {
            let index = minute * 4 + n;
            let (in_eu, region) = if n % 2 == 0 { (true, names.region) } else { (false, "us") };
            let broken = in_eu && is_bad(minute * 2 + n / 2);
            let id = format!("{}-b{index}", names.run);
            let bad = broken || index % 16 == 5;
            let spec = Spec { id, release: "r18", stage: "canary", minute, region, bad, tool_failed: broken };
            events.push(event(&spec, names));
        }
    }
    events
}

/// Adds events up to `metrics`.
async fn add(feed: &mut Feed, events: &[Value]) {
    feed.newest_event_micros = Some(NOW - MINUTE);
    feed.commit_events(events).await;
    feed.aggregate(AggregatorSettings::default()).await;
}

fn watch(feed: &Feed) -> Watch {
    let mut rules = Rules::load(None, &[]);
    rules.rules.retain(|rule| RULES.contains(&rule.name.as_str()));
    Watch {
        settings: WatchSettings::default(),
        rules,
        contracts: Contracts::new(),
        lake: feed.lake.clone(),
        health: FollowHealth::default(),
    }
}

/// Returns a lake with events, up to alerts.
async fn watched(events: &[Value]) -> Feed {
    let mut feed = Feed::with_clock(Arc::new(ManualClock::at(NOW))).await;
    add(&mut feed, events).await;
    let watch = watch(&feed);
    let run = bellwether_alerts::run(watch, Registry::new(), Until::caught_up(), CancellationToken::new());
    Box::pin(run).await.expect("evaluates");
    feed
}

/// Returns the rows of `alerts` with a condition, in order.
async fn records(feed: &Feed, condition: &str) -> Vec<AlertRecord> {
    let session = feed.session().await;
    let query = format!("SELECT * FROM alerts WHERE {condition} ORDER BY evaluation, at");
    let batches = Box::pin(session.execute(&query)).await.expect("runs").collect().await.expect("runs");
    batches.iter().flat_map(|batch| AlertRecord::read(batch).expect("rows of the table")).collect()
}

fn links() -> Links {
    Links::new(&LinkSettings {
        trace: Some("https://traces.example/{trace_id}".to_owned()),
        run: Some("https://runs.example/{task}/{run_id}".to_owned()),
        dashboard: Some("https://grafana.example/d/x?task={task}&release={release}&from={from}&to={to}".to_owned()),
        runbook: Some("https://wiki.example".to_owned()),
    })
}

/// Returns the page of an alert that a watcher raised: of the last row of a rule by which one fires.
pub(crate) async fn page_of_raised(lake: &Lake, rule: &str) -> (AlertRecord, Page) {
    let (_, files) = lake.active_files(Table::Alerts).await.expect("lists");
    let mut found: Option<AlertRecord> = None;
    for file in &files {
        for batch in lake.read(Table::Alerts, file, None).await.expect("reads") {
            let rows = AlertRecord::read(&batch).expect("rows of the table");
            let fires = rows.into_iter().filter(|row| row.rule == rule && row.state == "firing");
            found = fires.chain(found).max_by_key(|row| row.evaluation);
        }
    }
    let record = found.unwrap_or_else(|| panic!("{rule} fires"));
    let page = Box::pin(PageSource::new(lake.clone(), links()).page(&record)).await.expect("reads");
    (record, page)
}

async fn page(feed: &Feed, record: &AlertRecord) -> Page {
    Box::pin(PageSource::new(feed.lake.clone(), links()).page(record)).await.expect("reads")
}

/// Returns the row by which an alert began to fire.
async fn fired(feed: &Feed, rule: &str) -> AlertRecord {
    let condition = format!("rule = '{rule}' AND state = 'firing' AND state_from <> 'firing'");
    records(feed, &condition).await.into_iter().next().unwrap_or_else(|| panic!("{rule} fires"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_of_an_alert_about_runs_in_sessions_returns_its_numbers() {
    // The canary is bad from its start, or only in its last hour: evidence since its start, or that of the e-detector.
    returns_its_numbers(in_sessions(traffic(NAMES, |n| n % 10 < 4)), "per_release").await;
    returns_its_numbers(in_sessions(traffic(NAMES, |n| n >= 2 * (MINUTES - 60))), "a_month").await;
}

/// Places runs in sessions, and makes those of the canary slower.
fn in_sessions(mut events: Vec<Value>) -> Vec<Value> {
    let mut numbers = BTreeMap::<String, i64>::new();
    for event in &mut events {
        let release = event["data"]["release"]["id"].as_str().expect("a release").to_owned();
        let number = numbers.entry(release.clone()).or_default();
        *number += 1;
        // Of each 40 runs, one session has all that failed.
        let failed = event["data"]["outcome"]["status"] == "failure";
        let session = if failed { *number / 40 } else { 1000 + *number / 5 };
        event["data"]["session_id"] = json!(format!("{release}-{session}"));
        let slower = if release == "r18" { 1.4 } else { 1.0 };
        let took = (800.0 + f64::from(i32::try_from(*number * 37 % 211).expect("small")) * 30.0) * slower * 1000.0;
        let ended = event["data"]["ended_at"].as_str().expect("a time");
        let ended = humantime::parse_rfc3339(ended).expect("a time");
        let started = ended - std::time::Duration::from_secs_f64(took / 1e6);
        event["data"]["started_at"] = json!(humantime::format_rfc3339_micros(started).to_string());
    }
    events
}

/// Checks that the SQL of the alerts about success and latency returns their numbers; `bound` is the unit of the bound on
/// false alarms of the first.
async fn returns_its_numbers(events: Vec<Value>, bound: &str) {
    let feed = watched(&events).await;
    for rule in ["success_regression", "latency_regression"] {
        let record = fired(&feed, rule).await;
        let of_sessions = record.notes.contains("runs of one session are correlated");
        assert_eq!(of_sessions, rule == "success_regression", "{:?}", record.notes);
        assert!(!of_sessions || record.false_alarm_unit.as_deref() == Some(bound), "{:?}", record.false_alarm_unit);
        let page = page(&feed, &record).await;
        assert!(page.evidence.reproduce.as_ref().is_some_and(|sql| sql.checked), "{:#?}", page.evidence.notes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_says_what_broke_where_since_when_and_what_to_do() {
    let feed = watched(&traffic(NAMES, |n| n % 10 < 3)).await;
    let record = fired(&feed, "success_regression").await;
    let found = page(&feed, &record).await;
    let changed: Vec<_> = found
        .evidence
        .changes
        .iter()
        .map(|change| (change.part.as_str(), change.before.as_deref(), change.after.as_deref()))
        .collect();
    assert_eq!(changed, [("prompt", Some("17"), Some("18")), ("params.temperature", Some("0.2"), Some("0.7"))]);
    let mut slices: Vec<_> =
        found.evidence.slices.iter().map(|slice| (slice.dimension.as_str(), slice.value.as_str())).collect();
    slices.sort_unstable();
    assert_eq!(slices, [("segment region", "eu"), ("tool", "charge")], "{:#?}", found.evidence);
    assert!(found.evidence.reproduce.as_ref().is_some_and(|sql| sql.checked), "{:#?}", found.evidence.notes);
    assert_eq!(found.evidence.rollback.as_ref().map(|back| back.release.as_str()), Some("r17"));
    assert!((3..=5).contains(&found.evidence.examples.len()), "{:#?}", found.evidence.examples);
    // The cost of failed runs by the events themselves, up to the transition.
    let cost = found.evidence.cost.as_ref().expect("costs are stated");
    let sums = feed
        .sql(&format!(
            "SELECT sum(cost) FILTER (WHERE NOT completed AND release_id = 'r18') - sum(cost) FILTER (WHERE NOT completed AND release_id = 'r17') \
             * count(*) FILTER (WHERE release_id = 'r18') / count(*) FILTER (WHERE release_id = 'r17') AS amount \
             FROM runs WHERE ended_at >= to_timestamp_micros({}) AND ended_at < to_timestamp_micros({})",
            record.since.expect("a start"),
            record.at
        ))
        .await;
    assert!((cost.amount - sums[0]["amount"].as_f64().expect("a number")).abs() < 1e-9, "{cost:?} {sums:?}");
    // Nothing of the content of a run is on the page.
    let text = serde_json::to_string(&found).expect("JSON");
    assert!(!text.contains("Ann Lee") && !text.contains("money"), "{text}");
    assert_json_snapshot!("canary", found);
    // The row alone gives the same numbers.
    let small = minimal(&record, &links());
    assert_eq!((&small.title, &small.evidence.canary), (&found.title, &found.evidence.canary));
    assert!(small.evidence.slices.is_empty() && !small.evidence.reproduce.expect("SQL").checked);

    // Another alert of the same release, with another measure.
    let tools = page(&feed, &fired(&feed, "tool_failure_regression").await).await;
    let named: Vec<&str> = tools.evidence.slices.iter().map(|slice| slice.value.as_str()).collect();
    assert!(named.contains(&"charge") && named.contains(&"eu") && !named.contains(&"lookup"), "{named:?}");
    assert!(tools.evidence.reproduce.is_some_and(|sql| sql.checked), "{:#?}", tools.evidence.notes);

    // A caller that keeps incidents keeps its own fields.
    let mut draft = minimal(&record, &links());
    (draft.incident, draft.status, draft.title) = ("own".to_owned(), Status::Acknowledged, "corrected".to_owned());
    draft.evidence.notes.push("Acknowledged by Ada.".to_owned());
    let source = PageSource::new(feed.lake.clone(), links());
    let kept = Box::pin(source.complete(draft, &record)).await.expect("reads");
    assert_eq!((kept.incident.as_str(), kept.status, kept.title.as_str()), ("own", Status::Acknowledged, "corrected"));
    assert_eq!(kept.evidence.slices, found.evidence.slices);
    assert!(kept.evidence.notes.contains(&"Acknowledged by Ada.".to_owned()));

    other_alerts(&feed, &record).await;
    sampled(&feed, &record).await;
}

/// Failed runs of the release that were sampled for review are named, once there are any.
async fn sampled(feed: &Feed, record: &AlertRecord) {
    assert!(page(feed, record).await.evidence.eval_candidates.is_empty());
    let sample =
        Sample { settings: EvalsSettings::default(), lake: feed.lake.clone(), health: FollowHealth::default() };
    assert!(Box::pin(resample(sample, &Registry::new())).await.expect("draws") > 0);
    let named = page(feed, record).await.evidence.eval_candidates;
    let query = format!(
        "SELECT candidate_id FROM current_candidates WHERE kind = 'failure' AND release_id = 'r18' \
         AND ended_at >= to_timestamp_micros({}) AND ended_at < to_timestamp_micros({})",
        record.since.expect("a start"),
        record.at
    );
    let failed: Vec<Value> = feed.sql(&query).await.into_iter().map(|mut row| row["candidate_id"].take()).collect();
    assert!(!named.is_empty() && named.len() == failed.len().min(5), "{named:?} {failed:?}");
    assert!(named.iter().all(|id| failed.contains(&json!(id))), "{named:?} {failed:?}");
}

#[tokio::test]
async fn a_page_without_its_tables_is_an_error_and_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("tables");
    let lake = Lake::open(root.to_str().expect("UTF-8"), &StorageOptions::default()).await.expect("opens");
    let source = PageSource::new(lake, links());
    let record = AlertRecord { alert_id: "a".to_owned(), state: "firing".to_owned(), ..AlertRecord::default() };
    let away = folder.path().join("away");
    std::fs::rename(&root, &away).expect("moves");
    Box::pin(source.complete(minimal(&record, &links()), &record)).await.expect_err("no tables");
    std::fs::rename(&away, &root).expect("moves");
    Box::pin(source.complete(minimal(&record, &links()), &record)).await.expect("reads");
}

/// Alerts about data and rules, and alerts without a baseline: what does not apply is absent.
async fn other_alerts(feed: &Feed, record: &AlertRecord) {
    let bare = |rule: &str, baseline: &str, kind: &str| AlertRecord {
        rule: rule.to_owned(),
        alert_id: "other".to_owned(),
        baseline: baseline.to_owned(),
        effect_kind: kind.to_owned(),
        release_id: None,
        baseline_release: None,
        baseline_events: None,
        baseline_runs: None,
        labels: BTreeMap::from([("task".to_owned(), NAMES.task.to_owned())]),
        ..record.clone()
    };
    let silent = AlertRecord {
        canary_events: None,
        canary_runs: None,
        effect: Some(0.0),
        effect_low: None,
        effect_high: None,
        log_e: Some(14.0),
        sql: "SELECT window_start, sum(runs) AS runs FROM metrics GROUP BY window_start ORDER BY window_start"
            .to_owned(),
        title: "refund_triage: runs 40.0 → 0".to_owned(),
        ..bare("silent_producer", "past", "runs")
    };
    let found = page(feed, &silent).await;
    assert!(found.evidence.slices.is_empty() && found.evidence.examples.is_empty() && found.evidence.mix.is_none());
    assert_eq!((found.evidence.cost, found.evidence.rollback), (None, None));
    assert!(!found.evidence.reproduce.expect("SQL").checked);
    assert_eq!(found.evidence.effect.expect("an effect").words, "0 runs");

    let failing = AlertRecord {
        tenant: None,
        task: None,
        since: None,
        false_alarm: None,
        false_alarm_unit: None,
        detector: "rule".to_owned(),
        title: "ours: rule fails (3 in a row): no such column".to_owned(),
        notes: "no such column".to_owned(),
        sql: "SELECT no_such_column FROM metrics".to_owned(),
        ..bare("rule_failing", "set", "failures")
    };
    let found = page(feed, &failing).await;
    assert!(found.evidence.changes.is_empty() && found.evidence.slices.is_empty());
    let notes = found.evidence.notes.join(" ");
    assert!(notes.contains("The check of the SQL cannot be shown:"), "{notes}");
    assert!(!found.evidence.reproduce.expect("SQL").checked);

    // Without a baseline, the release that ran before and the hours of the day before are compared, as far as they exist.
    let drift = AlertRecord { baseline_value: Some(0.05), ..bare("success_drift", "past", "odds_ratio") };
    let found = page(feed, &drift).await;
    assert_eq!(found.evidence.rollback, None, "no release is implicated");
    assert!(found.evidence.mix.is_none() && found.evidence.slices.is_empty(), "there is no earlier traffic");
    assert!(!found.evidence.examples.is_empty());

    // Numbers that the SQL does not return are not called reproduced.
    let forged = AlertRecord { canary_events: record.canary_events.map(|events| events + 1), ..record.clone() };
    let found = page(feed, &forged).await;
    assert!(!found.evidence.reproduce.expect("SQL").checked);
    assert!(found.evidence.notes.iter().any(|note| note.contains("`canary_events`")), "{:?}", found.evidence.notes);

    // A version that no longer exists: the newest tables, and no claim about the SQL.
    let gone = AlertRecord { metrics_version: 4711, evaluation: 4711, ..record.clone() };
    let found = page(feed, &gone).await;
    assert!(!found.evidence.reproduce.expect("SQL").checked && !found.evidence.slices.is_empty());
    assert!(found.evidence.notes.iter().any(|note| note.contains("no longer exist")), "{:?}", found.evidence.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_inject_nothing_and_missing_costs_are_left_out() {
    let mut events = traffic(HOSTILE, |n| n % 10 < 3);
    for event in &mut events {
        event["data"].as_object_mut().expect("an object").remove("cost");
    }
    let feed = watched(&events).await;
    let found = page(&feed, &fired(&feed, "success_regression").await).await;
    assert_eq!(found.task.as_deref(), Some(HOSTILE.task));
    let mut slices: Vec<_> =
        found.evidence.slices.iter().map(|slice| (slice.dimension.as_str(), slice.value.as_str())).collect();
    slices.sort_unstable();
    assert_eq!(slices, [("segment region", HOSTILE.region), ("tool", HOSTILE.tool)]);
    assert!(found.evidence.reproduce.as_ref().is_some_and(|sql| sql.checked), "{:#?}", found.evidence.notes);
    assert_eq!(found.evidence.cost, None);
    let example = &found.evidence.examples[0];
    assert!(!example.summary.contains(HOSTILE.tool) && !example.summary.contains("USD"), "{}", example.summary);
    let run = example.links.iter().find(|link| link.name == "run").expect("a link");
    assert!(run.url.starts_with("https://runs.example/refund%27%3B%20DROP"), "{}", run.url);
    assert!(run.url.contains("/..%2F..%2Fx%3Fy%3Dz%23%3C%40U1%3E-b"), "{}", run.url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_correction_is_said_and_its_numbers_are_those_of_its_own_version() {
    let mut feed = Feed::with_clock(Arc::new(ManualClock::at(NOW))).await;
    add(&mut feed, &traffic(NAMES, |_| false)).await;
    let mut watcher = Box::pin(Watcher::open(&watch(&feed), &Registry::new())).await.expect("opens");
    Box::pin(watcher.turn()).await.expect("evaluates");
    assert_eq!(records(&feed, "state = 'firing'").await, []);
    // Failures of the second hour arrive last.
    let late = |n: i64| {
        let spec = Spec {
            id: format!("late-{n}"),
            release: "r18",
            stage: "canary",
            minute: 60 + n % 60,
            region: "eu",
            bad: true,
            tool_failed: true,
        };
        event(&spec, NAMES)
    };
    add(&mut feed, &(0..200).map(late).collect::<Vec<_>>()).await;
    Box::pin(watcher.turn()).await.expect("evaluates");
    let record = fired(&feed, "success_regression").await;
    let found = page(&feed, &record).await;
    assert_eq!(record.change, "late");
    assert!(
        found.evidence.notes.iter().any(|note| note.starts_with("A late correction caused this")),
        "{:?}",
        found.evidence.notes
    );
    // The evidence is that of a change long after the release began, and the SQL returns it.
    assert!(record.false_alarm_unit.as_deref() == Some("a_month"), "{:?}", record.false_alarm_unit);
    let checked = found.evidence.reproduce.as_ref().is_some_and(|sql| sql.checked);
    assert!(checked, "{:#?}", found.evidence.notes);
    let is_charge = |slice: &bellwether_sinks::page::SliceShare| slice.value == "charge";
    assert!(found.evidence.slices.iter().any(is_charge), "{:#?}", found.evidence.slices);
    // The alert resolves when the failures end: that page explains nothing any more, and knows when it began.
    let resolved = records(&feed, "rule = 'success_regression' AND state = 'resolved'").await;
    for record in resolved.iter().take(1) {
        let page = page(&feed, record).await;
        assert_eq!((page.status, page.ended_at), (Status::Resolved, Some(record.at)));
        assert!(page.started_at < record.at && page.incident == found.incident, "{} {}", page.incident, found.incident);
        assert!(page.evidence.slices.is_empty() && page.evidence.examples.is_empty());
    }
}
