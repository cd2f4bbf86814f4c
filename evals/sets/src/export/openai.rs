//! OpenAI evals: samples and a registry for the open-source runner, items and a request for the API.

use bellwether_base::Result;
use serde_json::{Value, json};

use super::text::{FILE, json_file, jsonl, messages, rubrics};
use super::{ExportFile, Format, Limits};
use crate::case::{EvalCase, Grading};
use crate::set::EvalSet;

/// The open-source runner `oaieval`.
pub(super) struct OpenAiEvals;

/// The Evals API.
pub(super) struct OpenAiApi;

impl Format for OpenAiEvals {
    fn name(&self) -> &'static str {
        "openai-evals"
    }

    fn about(&self) -> &'static str {
        "OpenAI Evals: oaieval MODEL NAME --registry_path registry"
    }

    fn limits(&self) -> Limits {
        Limits { needs_expected: true, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let sample =
            |case: &EvalCase| json!({ "input": messages(case), "ideal": case.expected, "metadata": case.metadata() });
        let (name, id) = (&set.name, format!("{}.v{}.match-v0", set.name, set.version));
        let class =
            if set.cases().iter().any(|case| contains(&case.rules())) { "includes:Includes" } else { "match:Match" };
        // Every JSON document is YAML.
        let registry = json!({
            name.as_str(): { "id": id, "metrics": ["accuracy"], "description": format!("{name} v{}", set.version) },
            id.as_str(): {
                "class": format!("evals.elsuite.basic.{class}"),
                "args": { "samples_jsonl": format!("{name}/samples.jsonl") },
            },
        });
        Ok(vec![
            json_file(&format!("registry/evals/{name}.yaml"), &registry)?,
            jsonl(&format!("registry/data/{name}/samples.jsonl"), set.cases().iter().map(sample)),
        ])
    }
}

fn contains(rules: &[Grading]) -> bool {
    rules.iter().any(|rule| matches!(rule, Grading::Contains(_)))
}

impl Format for OpenAiApi {
    fn name(&self) -> &'static str {
        "openai-api"
    }

    fn about(&self) -> &'static str {
        "OpenAI Evals API: client.evals.create(**eval.json), then items.jsonl as the data of a run"
    }

    fn limits(&self) -> Limits {
        Limits { needs_expected: true, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let item = |case: &EvalCase| {
            json!({ "item": {
                "case_id": case.id, "messages": messages(case), "expected": case.expected, "rubric": rubrics(case).join("\n"),
                "metadata": case.metadata().to_string(),
            } })
        };
        let text = json!({ "type": "string" });
        let message: Value = json!({ "type": "object", "properties": { "role": text, "content": text }, "required": ["role", "content"] });
        let eval = json!({
            "name": format!("{} v{}", set.name, set.version),
            "data_source_config": {
                "type": "custom",
                "item_schema": {
                    "type": "object",
                    "properties": { "case_id": text, "messages": { "type": "array", "items": message }, "expected": text,
                        "rubric": text, "metadata": text },
                    "required": ["case_id", "messages", "expected"],
                },
                "include_sample_schema": true,
            },
            "testing_criteria": [{
                "type": "string_check", "name": "expected answer", "input": "{{sample.output_text}}",
                "reference": "{{item.expected}}", "operation": "eq",
            }],
        });
        Ok(vec![json_file("eval.json", &eval)?, jsonl("items.jsonl", set.cases().iter().map(item))])
    }
}
