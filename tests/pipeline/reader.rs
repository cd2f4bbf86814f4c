//! Independent readers (Python's `deltalake`, `duckdb` and `pyarrow`) open the tables and agree with `bellwether sql`.

use std::process::Command;

use serde_json::Value;

use crate::common::event::runs;
use crate::common::program::{Running, text};
use crate::common::{Message, Setup, broker, python, repository};

/// Sums to compare: table, name, and SQL that all of them accept.
const SUMS: &[(&str, &str, &str)] = &[
    ("events", "rows", "count(*)"),
    ("events", "runs", "count(distinct run_id)"),
    ("events", "offsets", "sum(\"offset\")"),
    ("events", "cost_nanos", "coalesce(sum(cost_nanos), 0)"),
    ("events", "tokens", "coalesce(sum(tokens_input), 0) + coalesce(sum(tokens_output), 0)"),
    ("events", "tool_calls", "sum(tool_calls_total)"),
    // Texts with few distinct values, with and without nulls, and fields of records in lists, some of which no record has.
    ("events", "tasks", "count(DISTINCT task)"),
    ("events", "releases", "count(DISTINCT release_id)"),
    ("events", "outcomes", "coalesce(sum(length(outcome_status)), 0)"),
    ("events", "escalations", "coalesce(sum(length(escalation_reason_code)), 0)"),
    ("events", "second calls", "coalesce(sum(length(tool_calls[2]['name'])), 0)"),
    ("events", "failed second calls", "coalesce(sum(CAST(tool_calls[2]['failed'] AS INT)), 0)"),
    ("events", "approved calls", "count(tool_calls[1]['approver_key'])"),
    ("events", "scores", "count(scores[1]['value'])"),
    ("quarantine", "rows", "count(*)"),
    ("quarantine", "size_bytes", "coalesce(sum(size_bytes), 0)"),
    ("metrics", "rows", "count(*)"),
    ("metrics", "runs", "sum(runs)"),
    ("metrics", "success", "sum(success)"),
    ("metrics", "cost_nanos", "coalesce(sum(cost_nanos_sum), 0)"),
    ("releases", "rows", "count(*)"),
    ("rolling_history", "rows", "count(*)"),
];

/// Checks that the readers and the program agree on every sum.
pub(crate) fn agrees(setup: &Setup) {
    let Some(python) = python() else { return };
    let script = repository("tests/reader/read.py");
    let queries: Vec<Value> =
        SUMS.iter().map(|(table, name, sum)| serde_json::json!({"table": table, "name": name, "sum": sum})).collect();
    let mut command = Command::new(python);
    command.args([text(&script), text(&setup.root()), &Value::from(queries).to_string()]);
    let answer = Running::spawn(&mut command, "the independent reader".to_owned()).end().succeeds();
    let read: Value = serde_json::from_str(&answer).expect("the reader prints an object");
    for (table, name, sum) in SUMS {
        let rows = setup.sql(&format!("SELECT CAST({sum} AS VARCHAR) AS value FROM {table}"));
        let ours = rows[0]["value"].as_str().unwrap_or_default();
        assert_eq!(read[table][name], ours, "`{sum}` of `{table}`");
        if *name == "rows" {
            assert_eq!(read[table]["rows_of_pyarrow"], ours, "rows of `{table}`");
        }
    }
}

#[test]
fn independent_readers_agree_with_sql() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("reader", 2);
    broker.publish_events(&topic, 2, &runs("run", 100));
    broker.publish(&topic, [Message::new("poison")]);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    agrees(&setup);
    // A second version of each table, so that the log has more than one entry.
    broker.publish_events(&topic, 2, &runs("more", 50));
    setup.catch_up();
    agrees(&setup);
}
