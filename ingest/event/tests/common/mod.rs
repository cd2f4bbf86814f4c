//! Helpers shared by the contract tests.

use bellwether_event::{Decoder, Envelope, Event, Limits, Reason, schema};
use serde_json::{Value, json};

pub(crate) const NOW: i64 = 1_795_543_200_000_000; // 2026-11-24T18:00:00Z

pub(crate) fn wide_open() -> Limits {
    Limits {
        max_future_micros: i64::MAX / 4,
        max_age_micros: i64::MAX / 4,
        content_bytes: Some(usize::MAX),
        ..Limits::default()
    }
}

pub(crate) fn examples() -> Vec<Value> {
    serde_json::from_str(include_str!("../golden/examples.json")).expect("the examples are JSON")
}

pub(crate) fn rejected(body: &str, limits: Limits) -> Vec<(Reason, String)> {
    let rejection = Decoder::new(limits)
        .decode(body.as_bytes(), &Envelope::default(), NOW)
        .expect_err(&format!("accepted: {body}"));
    rejection.problems.into_iter().map(|problem| (problem.reason, problem.pointer)).collect()
}

/// Returns the smallest valid event, after a change.
pub(crate) fn minimal_with(change: impl FnOnce(&mut Value)) -> String {
    let mut event = json!({
        "spec": "run-event/1", "run_id": "r-1",
        "data": {
            "task": "t", "release": { "id": "1" }, "started_at": "2026-11-23T10:00:00Z",
            "ended_at": "2026-11-23T10:00:01.5Z", "outcome": { "status": "success" },
        },
    });
    change(&mut event);
    event.to_string()
}

pub(crate) fn accepted<T>(body: &str, look: impl FnOnce(&Event<'_>) -> T) -> T {
    let mut decoder = Decoder::new(wide_open());
    let event = decoder.decode(body.as_bytes(), &Envelope::default(), NOW);
    look(&event.unwrap_or_else(|rejection| panic!("{rejection}: {body}")))
}

pub(crate) fn truncated(event: &Event<'_>) -> Vec<(String, &'static str)> {
    event.truncated.iter().map(|(pointer, done)| (pointer.to_string(), *done)).collect()
}

pub(crate) fn published_schema() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(schema()).expect("the schema is JSON");
    jsonschema::options().should_validate_formats(true).build(&schema).expect("the schema is a schema")
}
