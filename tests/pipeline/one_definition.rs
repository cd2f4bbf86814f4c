//! One definition of every metric: the view, `rolling_history`, the exported gauge, the rule and an independent computation
//! in Python agree, over runs that are sampled, have no cost or costs in several currencies, and belong to two tenants.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime};

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_alerts::Rules;
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use serde_json::{Value, json};

use crate::common::event::{now, rfc3339};
use crate::common::program::{Running, text};
use crate::common::{Setup, python, repository};

const CONTRACTS: &str = "[contracts.sampled]\nsuccess = 0.999\nescalation_most = 0.0001\n\
                         [contracts.unpriced]\ncost_ceiling = 0.08\n[contracts.money]\ncost_ceiling = 0.01\n";

/// Metrics that all of them have.
const FIGURES: [&str; 15] = [
    "runs",
    "runs_observed",
    "coverage",
    "unknown_share",
    "success_rate",
    "escalation_rate",
    "schema_adherence",
    "tool_failure_rate",
    "retrieval_empty_rate",
    "policy_exceptions_per_1000",
    "latency_ms_mean",
    "cost_coverage",
    "cost_per_completed_task",
    "tokens_coverage",
    "tokens_input_per_run",
];

/// Metrics with the rule that watches each, and the value that its observations give: the metric itself, or one minus it.
const WATCHED: [(&str, &str, bool); 9] = [
    ("slo_burn_fast", "success_rate", true),
    ("success_regression", "success_rate", true),
    ("escalation_drift", "escalation_rate", false),
    ("schema_drift", "schema_adherence", true),
    ("tool_failure_drift", "tool_failure_rate", false),
    ("policy_drift", "policy_exceptions_per_1000", false),
    ("unknown_outcome_regression", "unknown_share", false),
    ("cost_coverage_regression", "cost_coverage", true),
    ("cost_regression", "cost_per_completed_task", false),
];

type Figures = BTreeMap<String, Value>;

/// Builds a run; `more` adds optional fields.
fn run(id: &str, tenant: &str, task: &str, status: &str, ended: SystemTime, more: &Value) -> Value {
    let mut data = json!({
        "task": task, "release": {"id": "r1"}, "rollout": {"stage": "full"},
        "started_at": rfc3339(ended - Duration::from_millis(1500)), "ended_at": rfc3339(ended),
        "outcome": {"status": status},
    });
    let (data_map, more) = (data.as_object_mut().expect("an object"), more.as_object().expect("an object"));
    data_map.extend(more.clone());
    json!({ "spec": "run-event/1.0", "run_id": id, "source": "tests", "tenant": tenant, "data": data })
}

/// Builds runs of forty minutes that end four minutes before `end`, and one run in the still open minute after `end`.
fn events(end: SystemTime) -> Vec<Value> {
    let mut all = Vec::new();
    for minute in 4..40_u32 {
        for second in 0..6_u64 {
            let ended = end - Duration::from_secs(u64::from(minute) * 60 - 5 - second * 9);
            let n = u64::from(minute) * 6 + second;
            for (tenant, kept) in [("a", 0.01), ("b", 0.3)] {
                let id = format!("{tenant}-sampled-{n}");
                let (status, probability) = if second % 2 == 0 { ("failure", 1.0) } else { ("success", kept) };
                let mut more = json!({
                    "sampling": {"probability": probability},
                    "validation": {"applicable": true, "valid": n % 5 != 0},
                    "tool_calls": [{"name": "t", "status": if n % 7 == 0 { "error" } else { "ok" }}, {"name": "u", "status": "ok"}],
                    "retrieval": [{"source_id": "kb", "status": if n % 4 == 0 { "empty" } else { "ok" }, "documents": []}],
                });
                if n % 9 == 0 {
                    more["escalation"] = json!({"reason_code": "x"});
                    more["policy_exceptions"] = json!([{"policy_id": "p", "severity": "low"}]);
                }
                let status = if n % 11 == 0 { "unknown" } else { status };
                all.push(run(&id, tenant, "sampled", status, ended, &more));
            }
            // Every second run has a cost, every third has tokens; sampling keeps more of the runs without a cost.
            let mut more = json!({ "sampling": {"probability": if n % 2 == 0 { 0.5 } else { 1.0 }} });
            if n % 2 == 0 {
                more["cost"] = json!({"amount": "0.10", "currency": "USD"});
            }
            if n % 3 == 0 {
                more["tokens"] = json!({"input": 1000 + n, "output": 50});
            }
            all.push(run(&format!("unpriced-{n}"), "a", "unpriced", "success", ended, &more));
            let currency = if n % 2 == 0 { "USD" } else { "EUR" };
            let more = json!({ "cost": {"amount": "0.25", "currency": currency} });
            all.push(run(&format!("money-{n}"), "b", "money", "success", ended, &more));
        }
    }
    let after = end + Duration::from_secs(5);
    all.push(run("marker", "a", "marker", "success", after, &json!({})));
    all
}

fn micros(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_micros()).expect("in range")
}

/// Computes the figures by group in Python.
fn reference(
    setup: &Setup,
    python: &std::path::Path,
    as_of: i64,
    minutes: i64,
    key: &[&str],
) -> BTreeMap<String, Figures> {
    let script = repository("tests/reader/figures.py");
    let mut command = Command::new(python);
    command.args([text(&script), text(&setup.root()), &as_of.to_string(), &minutes.to_string()]).args(key);
    let answer = Running::spawn(&mut command, "the reference in Python".to_owned()).end().succeeds();
    serde_json::from_str(&answer).expect("the reference prints an object")
}

/// Groups rows of SQL by the values of some columns.
fn by(rows: Vec<Value>, key: &[&str]) -> BTreeMap<String, Figures> {
    let name = |row: &Value| key.iter().map(|column| row[*column].as_str().unwrap_or("")).collect::<Vec<_>>().join("|");
    rows.into_iter().map(|row| (name(&row), row.as_object().expect("a row").clone().into_iter().collect())).collect()
}

#[track_caller]
fn same(what: &str, found: &Value, wanted: &Value, tolerance: f64) {
    let (found, wanted) = (found.as_f64(), wanted.as_f64());
    let near = match (found, wanted) {
        (Some(found), Some(wanted)) => (found - wanted).abs() <= tolerance * wanted.abs().max(1.0),
        (found, wanted) => found == wanted,
    };
    assert!(near, "{what} is {found:?}; the reference has {wanted:?}");
}

fn compare(what: &str, found: &BTreeMap<String, Figures>, wanted: &BTreeMap<String, Figures>, but: &str) {
    for (group, wanted) in wanted.iter().filter(|(group, _)| !group.contains(but)) {
        let found = found.get(group).unwrap_or_else(|| panic!("{what} has no `{group}`: {:?}", found.keys()));
        for figure in FIGURES {
            // Weighted counts are rounded to whole runs.
            let tolerance = if figure == "runs" { 0.51 / wanted[figure].as_f64().unwrap_or(1.0) } else { 1e-9 };
            let none = Value::Null;
            same(
                &format!("{what}: {figure} of {group}"),
                found.get(figure).unwrap_or(&none),
                &wanted[figure],
                tolerance,
            );
        }
    }
}

/// Returns the gauges of a span by tenant, task, release and stage.
fn gauges(registry: &Registry, span: &str) -> BTreeMap<String, Figures> {
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for family in registry.gather() {
        let Some(figure) = family.name().strip_prefix("bellwether_task_").map(str::to_owned) else { continue };
        for metric in family.get_metric() {
            let label = |name: &str| {
                metric.get_label().iter().find(|pair| pair.name() == name).map_or("", |pair| pair.value()).to_owned()
            };
            if label("span") == span {
                let group = ["tenant", "task", "release_id", "stage"].map(label).join("|");
                all.entry(group).or_default().insert(figure.clone(), json!(metric.get_gauge().get_value()));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_has_the_same_value_everywhere() {
    let Some(python) = python() else { return };
    let setup = Setup::new("127.0.0.1:9", "unused", CONTRACTS);
    let step = Duration::from_secs(15 * 60);
    let last = now() - Duration::from_secs(60);
    let end = last
        - Duration::from_nanos(
            u64::try_from(
                last.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() % step.as_nanos(),
            )
            .expect("fits"),
        );
    setup.replay(&setup.recording("events.ndjson", &events(end)));
    let lake = Lake::open(text(&setup.root()), &StorageOptions::default()).await.expect("opens");
    let registry = Registry::new();
    let mut aggregator =
        Box::pin(Aggregator::open(&lake, AggregatorSettings::default(), None, &registry)).await.expect("opens");
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");

    let release = ["tenant", "task", "release_id", "stage"];
    let as_of = micros(end);
    let wanted = reference(&setup, &python, as_of, 24 * 60, &release);
    assert_eq!(wanted.len(), 4, "{:?}", wanted.keys());
    // Of ten thousand runs a hundred fail, and sampling keeps all of these.
    let sampled = wanted["a|sampled|r1|full"]["success_rate"].as_f64().expect("a rate");
    assert!((0.98..0.995).contains(&sampled), "{sampled}");
    for (what, query) in [
        ("view `rolling`", "SELECT * FROM rolling WHERE span = '24h'".to_owned()),
        ("view `rolling` of an hour", "SELECT * FROM rolling WHERE span = '1h'".to_owned()),
        ("view `release_summary`", "SELECT * FROM release_summary".to_owned()),
        (
            "table `rolling_history`",
            format!("SELECT * FROM rolling_history WHERE span = '24h' AND as_of = to_timestamp_micros({as_of})"),
        ),
    ] {
        compare(what, &by(setup.sql(&query), &release), &wanted, "marker");
    }
    let exported = gauges(&registry, "24h");
    for (group, wanted) in &wanted {
        for (figure, found) in &exported[group] {
            if let Some(wanted) = wanted.get(figure) {
                let tolerance = if figure == "runs" { 0.51 / wanted.as_f64().unwrap_or(1.0) } else { 1e-9 };
                same(&format!("gauge: {figure} of {group}"), found, wanted, tolerance);
            }
        }
        assert_eq!(
            exported[group].contains_key("cost_per_completed_task"),
            !wanted["cost_per_completed_task"].is_null()
        );
    }
    latencies_agree(&setup, &registry, as_of);
    for view in ["last_hour", "last_day"] {
        let wanted = reference(&setup, &python, as_of, 24 * 60, &["tenant", "task"]);
        compare(view, &by(setup.sql(&format!("SELECT * FROM {view}")), &["tenant", "task"]), &wanted, "marker");
    }
    rules_agree(&setup, &wanted);
    alerts_agree(&setup, &python);
}

/// Checks that the histograms of latency have the runs, the mean and the quantiles of the rows of the same span.
fn latencies_agree(setup: &Setup, registry: &Registry, as_of: i64) {
    let all = registry.gather();
    let family = |name: &str| all.iter().find(|family| family.name() == name).expect("it is exported").get_metric();
    let rows = setup
        .sql(&format!("SELECT * FROM rolling_history WHERE span = '24h' AND as_of = to_timestamp_micros({as_of})"));
    assert_eq!(rows.len(), 4, "{rows:?}");
    let is_of = |metric: &prometheus::proto::Metric, row: &Value| {
        let same = |name: &str, value: &str| row.get(name).is_none_or(|wanted| wanted.as_str() == Some(value));
        metric.get_label().iter().all(|pair| same(pair.name(), pair.value()))
    };
    for row in &rows {
        let metrics = family("bellwether_task_latency_seconds");
        let histogram =
            metrics.iter().find(|metric| is_of(metric, row)).expect("the group is exported").get_histogram();
        let count = histogram.get_sample_count();
        assert_eq!(json!(count), row["latency_runs"], "{row}");
        same("mean latency", &json!(histogram.get_sample_sum() * 1e3 / count as f64), &row["latency_ms_mean"], 1e-2);
        // Every run takes 1.5 s.
        let up_to = |bound: f64| histogram.get_bucket().iter().find(|bucket| bucket.upper_bound() == bound);
        assert_eq!(
            [1.0, 2.0].map(|bound| up_to(bound).map(|bucket| bucket.cumulative_count())),
            [Some(0), Some(count)]
        );
        let summaries = family("bellwether_task_latency_quantiles_seconds");
        let summary = summaries.iter().find(|metric| is_of(metric, row)).expect("the group is exported").get_summary();
        let found: Vec<f64> = summary.get_quantile().iter().map(|quantile| quantile.value() * 1e3).collect();
        let wanted = ["latency_ms_p50", "latency_ms_p90", "latency_ms_p95", "latency_ms_p99"];
        assert_eq!(found.len(), wanted.len(), "{row}");
        for (column, found) in wanted.iter().zip(found) {
            same(column, &json!(found), &row[*column], 1e-9);
        }
    }
}

/// Checks that the observations of the rules give the metrics.
fn rules_agree(setup: &Setup, wanted: &BTreeMap<String, Figures>) {
    let rules = Rules::shipped();
    for (name, figure, rest) in WATCHED {
        let rule = rules.rules.iter().find(|rule| rule.name == name).expect("the rule is shipped");
        let (bad, all) = match name {
            "cost_regression" => ("CAST(y AS DOUBLE) / 1e9", "x"),
            _ if rule.sql.contains("AS events") => ("events", "runs"),
            _ => ("runs - good", "runs"),
        };
        let sql = format!(
            "SELECT tenant, task, sum({bad} * CAST(weight_micros AS DOUBLE)) / nullif(sum({all} * CAST(weight_micros AS DOUBLE)), 0) AS value \
             FROM ({}) AS o GROUP BY tenant, task",
            rule.sql
        );
        let found = by(setup.sql(&sql), &["tenant", "task"]);
        for (group, figures) in wanted.iter().filter(|(group, _)| !group.contains("money") || name != "cost_regression")
        {
            let wanted = match (figures[figure].as_f64(), figure) {
                (Some(value), "policy_exceptions_per_1000") => json!(value / 1000.0),
                (Some(value), _) if rest => json!(1.0 - value),
                (value, _) => json!(value),
            };
            let group = group.split('|').take(2).collect::<Vec<_>>().join("|");
            let value = found.get(&group).and_then(|row| row.get("value")).cloned().unwrap_or(Value::Null);
            same(&format!("rule `{name}` of {group}"), &value, &wanted, 1e-9);
        }
    }
}

/// Checks that alerts show the metrics at the time at which they were raised.
fn alerts_agree(setup: &Setup, python: &std::path::Path) {
    setup.catch_up_role("watch");
    let alerts = setup.sql(
        "SELECT rule, tenant, task, title, canary_value, canary_events, canary_runs, notes, \
         CAST(date_part('epoch', at) * 1000000 AS BIGINT) AS micros FROM alerts WHERE state IN ('pending', 'firing')",
    );
    let mut met = Vec::new();
    for alert in &alerts {
        let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
        let group = format!("{}|{}", text("tenant"), text("task"));
        let as_of = alert["micros"].as_i64().expect("a time");
        let wanted = &reference(setup, python, as_of, 24 * 60, &["tenant", "task"])[&group];
        let wanted = match text("rule").as_str() {
            "slo_burn_fast" | "slo_burn_slow" => json!(1.0 - wanted["success_rate"].as_f64().expect("a rate")),
            "escalation_bounds" => wanted["escalation_rate"].clone(),
            "cost_ceiling" => wanted["cost_per_completed_task"].clone(),
            _ => continue,
        };
        // Values of rules on whole tables are stored in millionths.
        same(&format!("alert `{}`", text("title")), &alert["canary_value"], &wanted, 1e-6);
        if let (Some(bad), Some(runs)) = (alert["canary_events"].as_f64(), alert["canary_runs"].as_f64()) {
            // Counts are rounded to whole runs.
            same(&format!("counts of `{}`", text("title")), &json!(bad / runs), &wanted, 1.0 / runs);
            assert!(text("notes").contains("runs are sampled"), "{}", text("notes"));
        }
        met.push((text("rule"), text("task")));
    }
    for (rule, task) in [("slo_burn_fast", "sampled"), ("escalation_bounds", "sampled"), ("cost_ceiling", "unpriced")] {
        assert!(met.contains(&(rule.to_owned(), task.to_owned())), "{rule} of {task} is not among {alerts:#?}");
    }
    assert!(!met.iter().any(|(_, task)| task == "money"), "costs in two currencies have no sum: {alerts:#?}");
}
