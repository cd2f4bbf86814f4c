//! DeepEval: goldens, for `EvaluationDataset.add_goldens_from_json_file`.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, json_file, transcript};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct DeepEval;

impl Format for DeepEval {
    fn name(&self) -> &'static str {
        "deepeval"
    }

    fn about(&self) -> &'static str {
        "DeepEval: EvaluationDataset().add_goldens_from_json_file"
    }

    fn limits(&self) -> Limits {
        FILE
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let golden = |case: &crate::case::EvalCase| {
            json!({
                "name": case.id, "input": transcript(case), "actual_output": null, "expected_output": case.expected,
                "additional_metadata": case.metadata(set),
            })
        };
        let goldens: Vec<_> = set.cases().iter().map(golden).collect();
        Ok(vec![json_file("goldens.json", &goldens)?])
    }
}
