//! MLflow: records, for `EvaluationDataset.merge_records`.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, json_file, messages, rubrics};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Mlflow;

impl Format for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn about(&self) -> &'static str {
        "MLflow: mlflow.genai.datasets.create_dataset(…).merge_records"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let record = |case: &crate::case::EvalCase| {
            let mut expectations = json!({});
            if let Some(expected) = &case.expected {
                expectations["expected_response"] = json!(expected);
            }
            let rubrics = rubrics(case);
            if !rubrics.is_empty() {
                expectations["guidelines"] = json!(rubrics);
            }
            json!({
                "inputs": { "messages": messages(case) }, "expectations": expectations,
                "tags": { "case_id": case.id, "case_version": case.version.to_string(), "task": case.task,
                    "split": case.split.name(), "kind": case.kind.name(), "set": set.name,
                    "set_version": set.version.to_string(), "grading": json!(case.rules()).to_string(),
                    "provenance": json!(case.provenance).to_string() },
            })
        };
        let records: Vec<_> = set.cases().iter().map(record).collect();
        Ok(vec![json_file("records.json", &records)?])
    }
}
