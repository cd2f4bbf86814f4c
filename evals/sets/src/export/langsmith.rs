//! LangSmith: examples, for `Client.create_examples`.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, jsonl, messages, uuid_of};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct LangSmith;

impl Format for LangSmith {
    fn name(&self) -> &'static str {
        "langsmith"
    }

    fn about(&self) -> &'static str {
        "LangSmith: Client.create_examples(examples=…)"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, case_bytes: 20_000_000, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let example = |case: &crate::case::EvalCase| {
            json!({
                "id": uuid_of(set, case).to_string(), "inputs": { "messages": messages(case) },
                "outputs": { "answer": case.expected }, "metadata": case.metadata(set), "split": case.split.name(),
            })
        };
        Ok(vec![jsonl("examples.jsonl", set.cases().iter().map(example))])
    }
}
