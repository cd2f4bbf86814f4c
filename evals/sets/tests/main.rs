//! Tests of the crate: cases and sets, exports, results, and the tools themselves.

mod exports;
mod results;
mod sets;
mod tools;

use bellwether_base::Result;
use bellwether_evalsets::{EvalCase, EvalSet};
use serde_json::json;

/// Returns a case with an answer.
fn case(id: &str, text: &str) -> EvalCase {
    serde_json::from_value(json!({
        "id": id, "task": "refunds", "expected": "yes",
        "input": [{ "role": "user", "content": text }],
        "provenance": {
            "run": { "source": "app", "run_id": "r1" }, "release_fingerprint": "abc", "reviewer": "ana",
            "inclusion_probability": 0.25,
        },
    }))
    .expect("a case")
}

/// A set with all that makes formats stumble: quotes, line breaks, templates, emoji, right-to-left text, a conversation.
fn awkward() -> EvalSet {
    let mut two = case("case-2", "line one\nline \"two\", ends, مرحبا 🦀 {{ braces }} {% x %}");
    two.input
        .insert(0, serde_json::from_value(json!({ "role": "system", "content": "Be brief." })).expect("a message"));
    two.split = bellwether_evalsets::Split::Holdout;
    two.grading = serde_json::from_value(json!([
        { "type": "contains", "value": "{{ a }}" }, { "type": "rubric", "value": "must be polite" },
    ]))
    .expect("rules");
    EvalSet::new("refunds", 3, vec![two, case("case-1", "May I return \"this\"?\r\n{{ x }}")]).expect("a set")
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a redactor")]
fn as_it_is(text: &str) -> Result<String> {
    Ok(text.to_owned())
}
