//! Real agent runs (`../shared/data/tau2`) through the whole pipeline: the results equal independently computed numbers
//! (`golden_by_release.csv`).
//!
//! Every column of the golden file maps to a column of the views except `format_error_msgs`. The contract has no count of
//! malformed replies; the number is sent as an unknown field, kept in `extra`, and summed from there by this test. Times
//! without a zone are UTC. The data has a cost of 0 if the price was unknown, which is sent unchanged; a run without a cost
//! is sent without one, and the golden file has an empty cell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::reader;
use crate::common::program::KEEP_HISTORY;
use crate::common::{Setup, broker, repository, skipped};

/// Partitions the runs are spread over.
const PARTITIONS: i32 = 3;

/// Maximum relative error of a sketch's quantile.
const SKETCH_ERROR: f64 = 0.01;

/// Rounding error of money in the golden file, which has six decimal places.
const GOLDEN_MONEY_ERROR: f64 = 1e-6;

/// Rounding error of rates in the golden file, which have four decimal places.
const GOLDEN_RATE_ERROR: f64 = 1e-4;

/// The query that is compared with the golden file: the summary of releases, and sums that only `runs` has.
const BY_RELEASE: &str = "SELECT s.*, r.first_start, r.last_start \
    FROM release_summary AS s JOIN (SELECT release_id, task, min(started_at) AS first_start, max(started_at) AS last_start \
    FROM runs GROUP BY release_id, task) AS r ON s.release_id = r.release_id AND s.task = r.task";

fn data(file: &str) -> Option<PathBuf> {
    let path = repository("../shared/data/tau2").join(file);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("`{}` is missing", path.display()));
    None
}

/// Reads the recorded runs.
pub(crate) fn recorded() -> Option<Vec<Value>> {
    let lines = std::fs::read_to_string(data("tau2_runs.jsonl")?).expect("the runs can be read");
    Some(lines.lines().map(|line| serde_json::from_str(line).expect("a line is one object")).collect())
}

/// Converts the recorded runs to run events.
pub(crate) fn events() -> Option<Vec<Value>> {
    Some(recorded()?.iter().map(event).collect())
}

pub(crate) fn event(recorded: &Value) -> Value {
    let tool_calls: Vec<Value> =
        recorded["tools"].as_array().expect("tools are a list").iter().map(tool_call).collect();
    let success = recorded["success"] == true;
    let mut data = json!({
        "task": recorded["domain"],
        "environment": "benchmark",
        "release": {"id": recorded["release"], "model": {"requested": recorded["model"]}},
        "started_at": utc(&recorded["start_time"]),
        "ended_at": utc(&recorded["end_time"]),
        "outcome": {"status": if success { "success" } else { "failure" }, "source": "environment"},
        "latency": {"total_ms": recorded["duration_s"].as_f64().expect("a duration") * 1000.0},
        "tokens": {"input": recorded["input_tokens"], "output": recorded["output_tokens"]},
        "llm_calls": recorded["llm_calls"],
        "turns": recorded["turns"],
        "tool_calls": tool_calls,
        "format_errors": recorded["format_errors"],
    });
    if let Some(cost) = recorded["agent_cost_usd"].as_f64() {
        data["cost"] = json!({"amount": format!("{cost:.9}"), "currency": "USD", "source": "app"});
    }
    if recorded["escalated"] == true {
        data["escalation"] = json!({"reason_code": "transfer_to_human", "initiated_by": "model"});
    }
    json!({
        "spec": "run-event/1.0",
        // Some run ids occur in two releases. These are different runs, so each release is its own source.
        "source": format!("tau2/{}", recorded["release"].as_str().expect("a release")),
        "run_id": recorded["run_id"],
        "data": data,
    })
}

fn tool_call(recorded: &Value) -> Value {
    json!({"name": recorded["name"], "status": if recorded["error"] == true { "error" } else { "ok" }})
}

fn utc(time: &Value) -> String {
    format!("{}Z", time.as_str().expect("a time"))
}

/// Reads the golden rows by release, each a map from column to text.
fn golden() -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let lines = std::fs::read_to_string(data("golden_by_release.csv")?).expect("the golden file can be read");
    let mut lines = lines.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().expect("a line of names");
    let priced = cost_per_success(&recorded()?);
    let row = |cells: Vec<String>| {
        assert_eq!(cells.len(), columns.len(), "a row of the golden file");
        let release = cells[0].clone();
        let mut row: BTreeMap<_, _> = columns.iter().cloned().zip(cells).collect();
        // The golden file counts a run without a cost as free.
        row.insert("cost_per_success_usd".to_owned(), priced.get(&release).cloned().unwrap_or_default());
        (release, row)
    };
    Some(lines.map(row).collect())
}

/// Computes the cost per successful run by release, over the runs with a cost; empty if none of these succeeded.
fn cost_per_success(runs: &[Value]) -> BTreeMap<String, String> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for run in runs {
        let Some(cost) = run["agent_cost_usd"].as_f64() else { continue };
        let sum = sums.entry(run["release"].as_str().expect("a release").to_owned()).or_default();
        *sum = (sum.0 + cost, sum.1 + f64::from(u8::from(run["success"] == true)));
    }
    let some = sums.into_iter().filter(|(_, (_, successes))| *successes > 0.0);
    some.map(|(release, (cost, successes))| (release, (cost / successes).to_string())).collect()
}

fn close(found: f64, golden: f64, error: f64) -> bool {
    // Golden values are rounded to their last digit.
    (found - golden).abs() <= error.mul_add(0.5, 1e-12)
}

/// Reads a number from a row; decimals and 64-bit integers may be text.
fn number(row: &Value, column: &str) -> Option<f64> {
    let value = row.get(column)?;
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Formats a time like the golden file, without trailing zeros, so that it compares with any number of digits.
fn bare_time(text: &str) -> &str {
    let text = text.trim_end_matches('Z');
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Lists every difference between a row and the golden row.
fn differences(found: &Value, golden: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |golden_column: &str, column: &str, fits: &dyn Fn(f64, f64) -> bool| {
        let (expected, got) = (golden[golden_column].as_str(), number(found, column));
        let right = match (expected.parse::<f64>(), got) {
            (Ok(expected), Some(got)) => fits(got, expected),
            (Err(_), None) => expected.is_empty(),
            _ => false,
        };
        if !right {
            wrong.push(format!("{golden_column}: expected `{expected}`, `{column}` is {got:?}"));
        }
    };
    let exact = |found: f64, golden: f64| close(found, golden, 0.0);
    for (golden_column, column) in [
        ("runs", "runs"),
        ("success", "success"),
        ("escalated", "escalated"),
        ("tool_calls", "tool_calls"),
        ("tool_errors", "tool_calls_failed"),
        ("input_tokens", "tokens_input"),
        ("output_tokens", "tokens_output"),
    ] {
        compare(golden_column, column, &exact);
    }
    let rate = |found: f64, golden: f64| close(found, golden, GOLDEN_RATE_ERROR);
    compare("success_rate", "success_rate", &rate);
    compare("escalation_rate", "escalation_rate", &rate);
    let money = |found: f64, golden: f64| close(found, golden, GOLDEN_MONEY_ERROR);
    compare("agent_cost_usd", "cost_total", &money);
    compare("cost_per_success_usd", "cost_per_completed_task", &money);
    // Both use the value of rank ⌈q·n⌉, so that they differ by the sketch's error only.
    let quantile = |ms: f64, s: f64| (ms / 1e3 - s).abs() <= SKETCH_ERROR * s + 1e-6;
    compare("duration_p50_s", "latency_ms_p50", &quantile);
    compare("duration_p95_s", "latency_ms_p95", &quantile);
    for (golden_column, column) in [("model", "model"), ("domain", "task")] {
        if found[column] != golden[golden_column].as_str() {
            wrong.push(format!("{golden_column}: expected `{}`, is {}", golden[golden_column], found[column]));
        }
    }
    for column in ["first_start", "last_start"] {
        if bare_time(found[column].as_str().unwrap_or_default()) != bare_time(&golden[column]) {
            wrong.push(format!("{column}: expected `{}`, is {}", golden[column], found[column]));
        }
    }
    wrong
}

/// Sums the field that is not in the contract, by release.
fn format_errors(setup: &Setup) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for row in setup.sql("SELECT release_id, extra FROM runs") {
        let extra: Value = serde_json::from_str(row["extra"].as_str().expect("`extra` is kept")).expect("an object");
        let release = row["release_id"].as_str().expect("a release").to_owned();
        let count = find(&extra, "format_errors").and_then(Value::as_i64).expect("`format_errors` is kept");
        *sums.entry(release).or_default() += count;
    }
    sums
}

/// Finds a field by name, at the top or one level down.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    let by_pointer = object.iter().find(|(key, _)| key.rsplit('/').next() == Some(name)).map(|(_, value)| value);
    by_pointer.or_else(|| object.values().find_map(|inner| inner.get(name)))
}

fn equals_golden(setup: &Setup, golden: &BTreeMap<String, BTreeMap<String, String>>) {
    let found = setup.sql(BY_RELEASE);
    let names: BTreeSet<&str> = found.iter().filter_map(|row| row["release_id"].as_str()).collect();
    assert_eq!(names, golden.keys().map(String::as_str).collect(), "the releases");
    assert_eq!(found.len(), golden.len(), "one row per release: {found:#?}");
    let mut wrong = Vec::new();
    for row in &found {
        let release = row["release_id"].as_str().expect("a release");
        wrong.extend(differences(row, &golden[release]).into_iter().map(|what| format!("{release}: {what}")));
    }
    assert!(wrong.is_empty(), "{} numbers differ:\n{}", wrong.len(), wrong.join("\n"));
    let errors = format_errors(setup);
    for (release, row) in golden {
        assert_eq!(errors[release].to_string(), row["format_error_msgs"], "format errors of {release}");
    }
    assert_eq!(setup.sql("SELECT reason FROM quarantine"), Vec::<Value>::new(), "no event is rejected");
}

#[test]
fn numbers_through_kafka_equal_the_golden_file() {
    let Some(broker) = broker() else { return };
    let (Some(events), Some(golden)) = (events(), golden()) else { return };
    let topic = broker.topic("tau2", PARTITIONS);
    broker.publish_events(&topic, PARTITIONS, &events);
    let setup = Setup::new(&broker.address, &topic, KEEP_HISTORY);
    setup.catch_up();
    equals_golden(&setup, &golden);
    reader::agrees(&setup);
}

#[test]
fn numbers_replayed_from_a_file_equal_the_golden_file() {
    let (Some(events), Some(golden)) = (events(), golden()) else { return };
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    setup.replay(&setup.recording("tau2.ndjson", &events));
    // A replay writes events only; this computes the metrics.
    setup.catch_up_role("aggregate");
    equals_golden(&setup, &golden);
}
