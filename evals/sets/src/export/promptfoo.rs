//! promptfoo: a configuration with a test for each case. The provider is chosen with `--providers`.
//!
//! promptfoo renders variables and values as Nunjucks templates, and reads values that begin with `file://` from disk.
//! Braces of a text are therefore escaped, and values that cannot be are refused.

use bellwether_base::{Error, Result};
use serde_json::{Value, json};

use super::text::{FILE, json_file, messages};
use super::{ExportFile, Format, Limits, Refusal};
use crate::case::{EvalCase, Grading};
use crate::set::EvalSet;

pub(super) struct Promptfoo;

impl Format for Promptfoo {
    fn name(&self) -> &'static str {
        "promptfoo"
    }

    fn about(&self) -> &'static str {
        "promptfoo: promptfoo eval -c promptfooconfig.json --providers PROVIDER"
    }

    fn limits(&self) -> Limits {
        FILE
    }

    fn refusal(&self, case: &EvalCase) -> Option<Refusal> {
        let what = case.rules().iter().find_map(|rule| literal(rule.text()).err())?;
        Some(Refusal { what: what.to_owned(), hint: "reword the rule, or export as inspect".to_owned() })
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let tests = set.cases().iter().map(|case| test(set, case)).collect::<Result<Vec<_>>>()?;
        let config = json!({
            "description": format!("{} v{}", set.name, set.version), "prompts": ["{{messages}}"], "providers": ["echo"],
            "tests": tests,
        });
        Ok(vec![json_file("promptfooconfig.json", &config)?])
    }
}

fn test(set: &EvalSet, case: &EvalCase) -> Result<Value> {
    let mut asserts = Vec::new();
    for rule in &case.rules() {
        let value =
            literal(rule.text()).map_err(|what| Error::bug(format!("case `{}` was not refused: {what}", case.id)))?;
        asserts.push(json!({ "type": kind(rule), "value": value }));
    }
    // Only texts can hold two braces in a row: a message is a flat object.
    let messages = ["{{", "{%", "{#"]
        .iter()
        .fold(messages(case).to_string(), |text, opening| text.replace(opening, &opening.replace('{', "\\u007b")));
    // Values of metadata are rendered as well.
    let plain = |value: Value| value.to_string().replace("{{", "{ {").replace("{%", "{ %").replace("{#", "{ #");
    Ok(json!({
        "description": case.id, "vars": { "messages": messages }, "assert": asserts,
        "metadata": { "set": set.name, "set_version": set.version, "case_id": case.id, "case_version": case.version,
            "task": case.task, "split": case.split.name(), "kind": case.kind.name(),
            "failure_class": case.failure_class, "tags": plain(json!(case.tags)), "provenance": plain(json!(case.provenance)) },
    }))
}

/// Returns the type of an assertion.
fn kind(rule: &Grading) -> &'static str {
    match rule {
        Grading::Equals(_) => "equals",
        Grading::Contains(_) => "contains",
        Grading::NotContains(_) => "not-contains",
        Grading::Regex(_) => "regex",
        Grading::Rubric(_) => "llm-rubric",
    }
}

/// Returns a value that promptfoo takes as it stands, or why there is none.
fn literal(value: &str) -> std::result::Result<String, &'static str> {
    if ["file://", "package:", "python:", "javascript:"].iter().any(|prefix| value.starts_with(prefix)) {
        return Err("promptfoo would read the value of a rule from a file or run it");
    }
    if !["{{", "{%", "{#"].iter().any(|opening| value.contains(opening)) {
        return Ok(value.to_owned());
    }
    if value.contains("endraw") {
        return Err("the value of a rule has braces and `endraw`, which promptfoo would render as a template");
    }
    Ok(format!("{{% raw %}}{value}{{% endraw %}}"))
}
