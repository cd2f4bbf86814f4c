//! Langfuse: bodies of `POST /api/public/dataset-items`. Ids are those of the cases, so that a second upload updates.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, messages};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Langfuse;

impl Format for Langfuse {
    fn name(&self) -> &'static str {
        "langfuse"
    }

    fn about(&self) -> &'static str {
        "Langfuse: POST /api/public/dataset-items, one line each"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, case_bytes: 4_500_000, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let item = |case: &crate::case::EvalCase| {
            json!({
                "datasetName": set.name, "id": format!("{}:{}", set.name, case.id), "input": messages(case),
                "expectedOutput": case.expected, "metadata": case.metadata(set), "status": "ACTIVE",
            })
        };
        Ok(vec![jsonl("dataset-items.jsonl", set.cases().iter().map(item))])
    }
}
