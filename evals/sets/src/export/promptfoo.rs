//! promptfoo: a configuration with a test for each case. The provider is chosen with `--providers`.
//!
//! promptfoo renders variables and values as Nunjucks templates, and reads values that begin with `file://` from disk.
//! Braces of a text are therefore escaped, and values that cannot be are refused.

use bellwether_base::{Error, Result};
use serde_json::{Value, json};

use super::text::{FILE, json_file, messages};
use super::{ExportFile, Format, Limits};
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

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let tests = set.cases().iter().map(test).collect::<Result<Vec<_>>>()?;
        let config = json!({
            "description": format!("{} v{}", set.name, set.version), "prompts": ["{{messages}}"], "providers": ["echo"],
            "tests": tests,
        });
        Ok(vec![json_file("promptfooconfig.json", &config)?])
    }
}

fn test(case: &EvalCase) -> Result<Value> {
    let asserts = case.rules().iter().map(|rule| assertion(case, rule)).collect::<Result<Vec<_>>>()?;
    // Only texts can hold two braces in a row: a message is a flat object.
    let messages = ["{{", "{%", "{#"]
        .iter()
        .fold(messages(case).to_string(), |text, opening| text.replace(opening, &opening.replace('{', "\\u007b")));
    Ok(json!({
        "description": case.id, "vars": { "messages": messages }, "assert": asserts,
        "metadata": { "case_id": case.id, "case_version": case.version, "task": case.task, "split": case.split.name(),
            "kind": case.kind.name(), "provenance": json!(case.provenance).to_string().replace("{{", "{ {") },
    }))
}

fn assertion(case: &EvalCase, rule: &Grading) -> Result<Value> {
    let (kind, value) = match rule {
        Grading::Equals(value) => ("equals", value),
        Grading::Contains(value) => ("contains", value),
        Grading::NotContains(value) => ("not-contains", value),
        Grading::Regex(value) => ("regex", value),
        Grading::Rubric(value) => ("llm-rubric", value),
    };
    Ok(json!({ "type": kind, "value": literal(case, value)? }))
}

/// Returns a value that promptfoo takes as it stands.
fn literal(case: &EvalCase, value: &str) -> Result<String> {
    let refuse = |what: &str| {
        Err(Error::config(format!("cannot export case `{}` as promptfoo: {what}", case.id))
            .with_hint("reword the rule, or export as inspect"))
    };
    if ["file://", "package:", "python:", "javascript:"].iter().any(|prefix| value.starts_with(prefix)) {
        return refuse("promptfoo would read its value from a file or run it");
    }
    if !["{{", "{%", "{#"].iter().any(|opening| value.contains(opening)) {
        return Ok(value.to_owned());
    }
    if value.contains("endraw") {
        return refuse("its value has braces and `endraw`, which promptfoo would render as a template");
    }
    Ok(format!("{{% raw %}}{value}{{% endraw %}}"))
}
