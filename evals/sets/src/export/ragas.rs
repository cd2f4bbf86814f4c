//! Ragas: single-turn samples, for `EvaluationDataset.from_jsonl`. A conversation is one text: multi-turn samples of Ragas have no system messages.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, rubrics, transcript};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Ragas;

impl Format for Ragas {
    fn name(&self) -> &'static str {
        "ragas"
    }

    fn about(&self) -> &'static str {
        "Ragas: EvaluationDataset.from_jsonl"
    }

    fn limits(&self) -> Limits {
        Limits { needs_expected: true, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let sample = |case: &crate::case::EvalCase| {
            let mut sample = json!({ "user_input": transcript(case), "reference": case.expected });
            let rubrics = rubrics(case);
            if !rubrics.is_empty() {
                sample["rubrics"] = json!({ "score1_description": format!("violates: {}", rubrics.join("; ")),
                    "score5_description": format!("fulfils: {}", rubrics.join("; ")) });
            }
            sample
        };
        let index = |case: &crate::case::EvalCase| case.metadata(set);
        Ok(vec![
            jsonl("samples.jsonl", set.cases().iter().map(sample)),
            jsonl("cases.jsonl", set.cases().iter().map(index)),
        ])
    }
}
