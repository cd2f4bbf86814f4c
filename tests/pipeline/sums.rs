//! Events with the largest numbers that the contract allows: nothing fails, nothing wraps, and saturated sums are marked.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::common::event::rfc3339;
use crate::common::program::{KEEP_HISTORY, text};
use crate::common::{Setup, bellwether};

/// 2026-01-05 00:00 UTC.
const BEGIN_S: u64 = 1_767_571_200;

fn run(task: &str, n: u64, more: &Value) -> Value {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN_S + n % 3 * 60);
    let mut data = json!({
        "task": task, "release": {"id": if n.is_multiple_of(2) { "v1" } else { "v2" }}, "rollout": {"stage": if n.is_multiple_of(2) { "full" } else { "canary" }},
        "started_at": rfc3339(at), "ended_at": rfc3339(at + Duration::from_secs(20)),
        "outcome": {"status": if n.is_multiple_of(3) { "failure" } else { "success" }}, "session_id": format!("s{}", n % 7),
        "tokens": {"input": 100, "output": 10}, "cost": {"amount": "0.01", "currency": "USD"},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        data[name] = value.clone();
    }
    json!({"spec": "run-event/1.0", "source": "tests", "run_id": format!("{task}-{n}"), "data": data})
}

/// Builds events with extreme numbers, one kind per task. The contract rejects some; the accepted ones must do no harm.
fn hostile() -> Vec<Value> {
    let most = 9_007_199_254_740_991_i64;
    let kinds = [
        ("weight", json!({"sampling": {"probability": 1e-9}, "tokens": {"input": 9_300_000_000_i64}})),
        ("least_weight", json!({"sampling": {"probability": 1e-300}})),
        ("tokens", json!({"tokens": {"input": most, "output": most, "input_cache_read": most, "reasoning": most}})),
        ("cost", json!({"cost": {"amount": "999999999.999999999", "currency": "USD"}})),
        (
            "both",
            json!({"cost": {"amount": "999999999.999999999", "currency": "USD"}, "sampling": {"probability": 1e-9}}),
        ),
        ("year_one", json!({"started_at": "0001-01-01T00:00:00Z"})),
        ("latency", json!({"latency": {"total_ms": 9_007_199_254_740_i64, "ttft_ms": 9_007_199_254_740_i64}})),
        ("calls", json!({"llm_calls": most, "turns": most})),
        ("attempt", json!({"attempt": 2_147_483_647})),
        (
            "fields",
            json!({
                "validation": {
                    "applicable": true, "valid": false, "fields_total": most, "fields_invalid": most,
                    "fields": [{"path": "/a", "valid": false, "rule": "type"}],
                },
                "sampling": {"probability": 1e-9},
            }),
        ),
    ];
    let mut events = Vec::new();
    for (kind, more) in &kinds {
        // Enough for the sums of squared costs to exceed 38 digits, and for those by group to exceed 64 bits.
        events.extend((0..150).map(|n| run(kind, n, more)));
    }
    events.extend((0..150).map(|n| run("usual", n, &json!({}))));
    events
}

#[test]
fn no_accepted_number_breaks_anything_and_saturated_sums_are_marked() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let file = setup.recording("events.ndjson", &hostile());
    let config = setup.config();
    let config = text(&config);
    // Its exit code may report rejected events.
    drop(bellwether(&["replay", text(&file), "--to", "tables", "--config", config]));
    setup.catch_up_role("aggregate");
    setup.catch_up_role("watch");
    let root = setup.root();
    let audit = bellwether(&["audit", "--root", text(&root), "--recompute"]).succeeds();
    assert!(audit.contains("metrics"), "{audit}");
    check_views(&setup);
    let before = setup.sql("SELECT * FROM rolling ORDER BY span, task, release_id");
    bellwether(&["rebuild", "--config", config]).succeeds();
    assert_eq!(setup.sql("SELECT * FROM rolling ORDER BY span, task, release_id"), before);
    bellwether(&["audit", "--root", text(&root), "--recompute"]).succeeds();
    let checked = bellwether(&["rules", "check", "--root", text(&root)]).succeeds();
    assert!(checked.contains("rules, 0 problems"), "{checked}");
}

fn check_views(setup: &Setup) {
    let views = setup.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1");
    assert!(views.len() > 12, "{views:?}");
    for view in &views {
        let name = view["table_name"].as_str().expect("a name");
        setup.sql(&format!("SELECT * FROM {name} LIMIT 500"));
    }
    // An ordinary task is not affected by the others.
    let usual = setup.sql("SELECT * FROM rolling WHERE task = 'usual' AND span = '1h' AND release_id = 'v1'");
    assert_eq!(
        (&usual[0]["runs"], &usual[0]["tokens_input"], &usual[0]["saturated"]),
        (&json!(75), &json!(7500), &json!(false))
    );
    // No count is negative, and one at the limit of its type is marked.
    let rows = ["rolling", "rolling_at('2026-01-06')", "release_summary", "metrics_1m"];
    for row in rows.iter().flat_map(|from| setup.sql(&format!("SELECT * FROM {from}"))) {
        let Value::Object(columns) = &row else { panic!("{row}") };
        let held = columns.values().any(|value| value.as_i64() == Some(i64::MAX));
        assert!(columns.values().all(|value| value.as_f64().is_none_or(|number| number >= 0.0)), "{row:#}");
        assert!(!held || row["saturated"] == true, "{row:#}");
    }
    let accepted = setup.number("SELECT count(*) FROM events WHERE task = 'cost'");
    let flagged = setup.number("SELECT count(*) FROM metrics WHERE task = 'cost' AND saturated");
    let squares = setup
        .number("SELECT count(*) FROM metrics WHERE task = 'cost' AND at_bound(cost_nanos_squares, groups_cost_nanos)");
    assert!(accepted == 0 || flagged == squares, "{accepted} {flagged} {squares}");
}
