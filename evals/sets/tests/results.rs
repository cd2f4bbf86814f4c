//! Results of tools, as events.

use bellwether_evalsets::{Imported, ResultFormat, import};
use serde_json::{Value, json};

pub(super) fn of() -> Imported {
    Imported { source: "offline".to_owned(), release: "v18".to_owned(), task: None }
}

/// Checks an event against the published schema.
pub(super) fn valid(event: &Value) {
    let problems = bellwether_event::problems(event);
    assert!(problems.is_empty(), "{problems:?}\n{event:#}");
}

fn inspect(value: &Value) -> Value {
    json!({ "eval": { "run_id": "r", "model": "m" }, "samples": [{
        "epoch": 1, "metadata": { "case_id": "c".repeat(128), "task": "refunds" }, "scores": { "exact": { "value": value } },
        "started_at": "2026-11-30T06:46:00+00:00", "completed_at": "2026-11-30T06:46:01+00:00", "total_time": 1.0,
    }] })
}

#[test]
fn grades_of_inspect_become_outcomes() {
    for (value, status) in [
        (json!("C"), "success"),
        (json!("I"), "failure"),
        (json!("P"), "failure"),
        (json!(true), "success"),
        (json!(0.9), "failure"),
    ] {
        let events = import(&inspect(&value).to_string(), ResultFormat::Inspect, &of()).expect("events");
        valid(&events[0]);
        assert_eq!(events[0]["data"]["outcome"]["status"], status, "{value}");
    }
    assert!(import(&inspect(&json!("maybe")).to_string(), ResultFormat::Inspect, &of()).is_err());
}

#[test]
fn a_result_without_a_case_or_a_file_of_another_form_is_refused() {
    let mut log = inspect(&json!("C"));
    log["samples"][0]["metadata"] = json!({});
    let error = import(&log.to_string(), ResultFormat::Inspect, &of()).expect_err("no case");
    assert!(error.message().contains("names no case"), "{error}");
    assert!(import("{}", ResultFormat::Promptfoo, &of()).is_err());
    assert!(
        import("PK\u{3}", ResultFormat::Inspect, &of())
            .expect_err("a zip")
            .hint()
            .expect("one")
            .contains("log convert")
    );
}

#[test]
fn a_provider_that_failed_is_an_error_and_a_failed_assertion_a_failure() {
    let result = |reason: u64| {
        json!({ "testIdx": 0, "promptIdx": reason, "id": "u", "success": reason == 0, "failureReason": reason, "latencyMs": 12, "score": 0,
            "tokenUsage": { "prompt": 5, "completion": 2 }, "testCase": { "metadata": { "case_id": "c1", "task": "refunds" } },
            "provider": { "id": "openai:m" } })
    };
    let file = json!({ "evalId": "e", "results": { "timestamp": "2026-11-30T06:44:54.839Z", "results": [result(0), result(1), result(2)] } });
    let events = import(&file.to_string(), ResultFormat::Promptfoo, &of()).expect("events");
    let found: Vec<&str> = events.iter().filter_map(|event| event["data"]["outcome"]["status"].as_str()).collect();
    assert_eq!(found, ["success", "failure", "error"]);
    for event in &events {
        valid(event);
        assert_eq!(
            (&event["data"]["segments"]["case_id"], &event["data"]["rollout"]["stage"]),
            (&json!("c1"), &json!("offline_eval"))
        );
    }
    assert_eq!(events[0]["data"]["tokens"], json!({ "input": 5, "output": 2 }));
    assert_eq!(events, import(&file.to_string(), ResultFormat::Promptfoo, &of()).expect("again"), "the same ids again");
}
