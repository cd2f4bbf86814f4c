//! Tests of the crate: cases and sets, exports, results, and the tools themselves.

mod exports;
mod results;
mod sets;
mod tools;

use bellwether_base::Result;
use bellwether_evalsets::{EvalCase, EvalSet, Format, formats};
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

/// Text that makes formats stumble: quotes, line breaks, templates, right-to-left text with its marks, joined emoji, a byte order mark,
/// and the separators that JSON takes for text but JavaScript once did not.
const AWKWARD: &str = "May I return \"this\"?\r\n{{ x }} مرحبا \u{202e}abc\u{202c} 👩\u{200d}👧 \u{feff}é\u{301} \u{2028}\u{2029}\u{85}\u{1b}[0m end";

/// Returns the awkward text, with a NUL if the format can hold one.
fn text_for(format: &dyn Format) -> String {
    if format.limits().nul { AWKWARD.replace("x }}", "x\0 }}") } else { AWKWARD.to_owned() }
}

fn format(name: &str) -> &'static dyn Format {
    *formats().iter().find(|it| it.name() == name).expect(name)
}

/// Returns a set of two cases: one with the awkward text, and a conversation with rules.
fn awkward(text: &str) -> EvalSet {
    let mut two = case("case-2", "line one\nline \"two\", ends, مرحبا 🦀 {{ braces }} {% x %}");
    two.input
        .insert(0, serde_json::from_value(json!({ "role": "system", "content": "Be brief." })).expect("a message"));
    two.split = bellwether_evalsets::Split::Holdout;
    two.grading = serde_json::from_value(json!([
        { "type": "contains", "value": "{{ a }}" }, { "type": "rubric", "value": "must be polite" },
    ]))
    .expect("rules");
    EvalSet::new("refunds", 3, vec![two, case("case-1", text)]).expect("a set")
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a redactor")]
fn as_it_is(text: &str) -> Result<String> {
    Ok(text.to_owned())
}
