//! Braintrust: one record a line, for `bt datasets create --file` or `Dataset.insert`.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, messages};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Braintrust;

impl Format for Braintrust {
    fn name(&self) -> &'static str {
        "braintrust"
    }

    fn about(&self) -> &'static str {
        "Braintrust: `bt datasets create --file cases.jsonl`"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, case_bytes: 6 * 1024 * 1024, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let record = |case: &crate::case::EvalCase| {
            json!({
                "id": case.id, "input": messages(case), "expected": case.expected, "tags": case.tags,
                "metadata": case.metadata(set),
            })
        };
        Ok(vec![jsonl("cases.jsonl", set.cases().iter().map(record))])
    }
}
