//! Opik: items, for `Dataset.insert`.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, json_file, messages};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Opik;

impl Format for Opik {
    fn name(&self) -> &'static str {
        "opik"
    }

    fn about(&self) -> &'static str {
        "Opik: Opik().get_or_create_dataset(…).insert"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let item = |case: &crate::case::EvalCase| json!({ "input": messages(case), "expected_output": case.expected, "metadata": case.metadata(set) });
        let items: Vec<_> = set.cases().iter().map(item).collect();
        Ok(vec![json_file("items.json", &items)?])
    }
}
