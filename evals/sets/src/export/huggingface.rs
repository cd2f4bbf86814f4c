//! Hugging Face datasets: a folder for `load_dataset`, with one file for each split and a dataset card that names them.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, messages};
use super::{ExportFile, Format, Limits};
use crate::case::{EvalCase, Split};
use crate::set::EvalSet;

pub(super) struct HuggingFace;

impl Format for HuggingFace {
    fn name(&self) -> &'static str {
        "huggingface"
    }

    fn about(&self) -> &'static str {
        "Hugging Face: datasets.load_dataset(FOLDER)"
    }

    fn limits(&self) -> Limits {
        FILE
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        // Readers infer a type from the values: all rows have all fields, and nested provenance is text.
        let row = |case: &EvalCase| {
            json!({
                "id": case.id, "messages": messages(case), "expected": case.expected, "task": case.task,
                "kind": case.kind.name(), "failure_class": case.failure_class, "metadata": case.metadata(set).to_string(),
            })
        };
        let mut files = Vec::new();
        let mut card = String::from("---\nconfigs:\n- config_name: default\n  data_files:\n");
        for split in [Split::Regression, Split::Holdout] {
            let path = format!("data/{}.jsonl", split.name());
            let file = jsonl(&path, set.cases().iter().filter(|case| case.split == split).map(row));
            if !file.bytes.is_empty() {
                card.push_str(&format!("  - split: {}\n    path: {path}\n", split.name()));
                files.push(file);
            }
        }
        card.push_str(&format!("---\n\n# {} v{}\n\nEval cases from production runs.\n", set.name, set.version));
        files.insert(0, ExportFile { path: "README.md".to_owned(), bytes: card.into_bytes() });
        Ok(files)
    }
}
