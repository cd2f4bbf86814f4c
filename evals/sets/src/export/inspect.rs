//! Inspect AI: samples, for `json_dataset`. `target` is what `match`, `includes` and model graders compare with.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, messages};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Inspect;

impl Format for Inspect {
    fn name(&self) -> &'static str {
        "inspect"
    }

    fn about(&self) -> &'static str {
        "Inspect AI: inspect_ai.dataset.json_dataset"
    }

    fn limits(&self) -> Limits {
        Limits { needs_expected: true, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let sample = |case: &crate::case::EvalCase| {
            json!({
                "id": case.id, "input": messages(case), "target": case.expected.as_deref().unwrap_or(""),
                "metadata": case.metadata(set),
            })
        };
        Ok(vec![jsonl("samples.jsonl", set.cases().iter().map(sample))])
    }
}
