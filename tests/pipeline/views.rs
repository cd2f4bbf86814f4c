//! Runs every view, function and example of the SQL reference.

use std::time::Duration;

use bellwether_queries::views;
use serde_json::{Value, json};

use crate::common::event::{now, rfc3339, run, runs};
use crate::common::program::{KEEP_HISTORY, text};
use crate::common::{Setup, bellwether};

/// Creates a lake with rows for every view.
pub(crate) fn full() -> Setup {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let mut events = runs("recorded", 30);
    let document = |version: &str| json!([{ "source_id": "kb", "status": "ok", "documents": [{ "id": "d", "version": version, "cited": true }] }]);
    for (n, version) in ["1", "2", "1"].iter().enumerate() {
        let mut cited = run(&format!("cites-{n}"));
        cited["data"]["retrieval"] = document(version);
        // Three consecutive minutes, so that the third cites a document that the second has replaced. They are hours ago, so that the
        // span of a week that ends at the last full hour has rows.
        let minute = now() - Duration::from_secs((120 - n as u64) * 60);
        let at = |second: u64| json!(rfc3339(minute + Duration::from_secs(second)));
        (cited["data"]["started_at"], cited["data"]["ended_at"]) = (at(0), at(1));
        events.push(cited);
    }
    // Free dimensions, a score, and fields that are not in the contract.
    for (event, region) in events.iter_mut().zip(["eu", "us"].iter().cycle()) {
        event["data"]["segments"] = json!({ "region": region });
        event["data"]["scores"] =
            json!([{ "name": "ok", "kind": "code", "evaluator": { "id": "check" }, "passed": true }]);
        event["data"]["channel"] = json!({ "kind": "web", "hops": [1, 2] });
    }
    let mut invalid = run("invalid");
    invalid["data"]["validation"] = json!({ "applicable": true, "valid": false, "fields_total": 3,
        "fields": [{ "path": "/amount", "valid": false, "rule": "type", "message": "expected number" }] });
    invalid["data"]["policy_exceptions"] = json!([{ "policy_id": "pii_v2", "severity": "critical" }]);
    events.push(invalid);
    // A verdict whose run never arrives.
    events.push(json!({ "spec": "run-event/1.0", "type": "run.score", "source": "judge", "run_id": "no-such-run", "time": "2026-01-05T00:00:00Z",
        "data": { "name": "ok", "kind": "llm", "evaluator": { "id": "judge" }, "passed": true } }));
    let mut lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    lines.push_str("not json\n");
    let file = setup.file("runs.ndjson");
    std::fs::write(&file, lines).expect("the recording is written");
    let config = setup.config();
    let body = std::fs::read_to_string(&config).expect("the configuration exists");
    std::fs::write(&config, format!("{body}{KEEP_HISTORY}")).expect("the configuration is written");
    bellwether(&["replay", text(&file), "--to", "tables", "--config", text(&config)]).exits_with(1);
    setup.catch_up_role("aggregate");
    setup
}

#[test]
fn every_view_has_rows_and_every_example_runs() {
    let setup = full();
    let (config, rules) = (setup.config(), ["task=refund_triage", "--for", "1h", "--by", "kim", "--reason", "known"]);
    bellwether(&[&["alerts", "silence", "--config", text(&config)], &rules[..]].concat()).succeeds();
    setup.catch_up_role("evals");
    // No alert fires here, and nobody reviews a run; the answers of these views are in `tests/sql`.
    let without = [
        "rule_precision",
        "reviews",
        "review_throughput",
        "reviewer_agreement",
        "overturned_verdicts",
        "judge_success",
        "judge_drift",
    ];
    for view in views() {
        let rows = setup.sql(&format!("SELECT * FROM {}", view.name));
        assert!(!rows.is_empty() || without.contains(&view.name), "view `{}` is empty", view.name);
        setup.sql(view.example.as_deref().expect("every view has an example"));
    }
    let one = |query: &str| setup.sql(query).first().cloned().unwrap_or(Value::Null);
    let rate = one("SELECT documents, stale, cited_stale FROM stale_sources");
    assert_eq!(rate, json!({ "documents": 3, "stale": 1, "cited_stale": 1 }));
    let field = one("SELECT pointer, rule, errors FROM field_errors");
    assert_eq!(field, json!({ "pointer": "/amount", "rule": "type", "errors": 1 }));
    let exception = one("SELECT policy_id, severity, derived FROM policy_exceptions");
    assert_eq!(exception, json!({ "policy_id": "pii_v2", "severity": "critical", "derived": false }));
    let quarantined = one("SELECT reason, messages FROM quarantine_summary");
    assert_eq!(quarantined, json!({ "reason": "not_json", "messages": 1 }));
    assert_eq!(setup.number("SELECT count(*) AS n FROM tool_calls WHERE failed"), 34);
    assert_eq!(setup.number("SELECT sum(runs) AS n FROM metrics_1m"), 34);
    assert_eq!(setup.number("SELECT CAST(sum(runs) AS BIGINT) AS n FROM release_summary"), 34);
    let history = setup.sql("SELECT DISTINCT span FROM rolling_history ORDER BY span");
    assert!(!history.is_empty(), "`rolling_history` has rows");
}

#[test]
fn every_view_of_empty_tables_works() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    setup.catch_up_role("aggregate");
    for view in views() {
        setup.sql(&format!("SELECT * FROM {}", view.name));
    }
}

#[test]
fn statements_that_could_write_or_read_elsewhere_are_refused() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    setup.catch_up_role("aggregate");
    for statement in [
        "DROP TABLE events",
        "INSERT INTO events SELECT * FROM events",
        "COPY events TO 'out.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/hostname'",
        "SELECT * FROM '/etc/hostname'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let ended = bellwether(&["sql", "--root", text(&setup.root()), statement]);
        assert_eq!(ended.code, Some(1), "{statement}: {}", ended.stderr);
        assert!(ended.stderr.contains("hint:"), "{statement}: {}", ended.stderr);
    }
}
