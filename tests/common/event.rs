//! Run events as an application would send them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "ingest rejects old events, so tests need current ones")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Formats a time as events write it.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

/// Builds a successful run that has just ended.
pub(crate) fn run(run_id: &str) -> Value {
    let ended = now();
    json!({
        "spec": "run-event/1.0",
        "run_id": run_id,
        "source": "tests",
        "data": {
            "task": "refund_triage",
            "release": {"id": "2026-11-20.3", "model": {"requested": "model-a"}},
            "started_at": rfc3339(ended - Duration::from_millis(1500)),
            "ended_at": rfc3339(ended),
            "outcome": {"status": "success"},
            "cost": {"amount": "0.0125", "currency": "USD"},
            "tokens": {"input": 1200, "output": 80},
            "tool_calls": [{"name": "lookup_order", "status": "ok"}, {"name": "issue_refund", "status": "error"}],
        },
    })
}

/// Builds several runs: every third failed, every fifth was escalated.
pub(crate) fn runs(prefix: &str, count: usize) -> Vec<Value> {
    let one = |index: usize| {
        let mut event = run(&format!("{prefix}-{index}"));
        if index.is_multiple_of(3) {
            event["data"]["outcome"]["status"] = json!("failure");
        }
        if index.is_multiple_of(5) {
            event["data"]["escalation"] = json!({"reason_code": "low_confidence"});
        }
        event
    };
    (0..count).map(one).collect()
}
