//! Phoenix: the body of `POST /v1/datasets/upload`, as parallel arrays. Example ids are those of the cases.

use bellwether_base::Result;
use serde_json::json;

use super::text::{FILE, json_file, messages};
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Phoenix;

impl Format for Phoenix {
    fn name(&self) -> &'static str {
        "phoenix"
    }

    fn about(&self) -> &'static str {
        "Phoenix: POST /v1/datasets/upload"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let of = |field: &dyn Fn(&crate::case::EvalCase) -> serde_json::Value| {
            serde_json::Value::Array(set.cases().iter().map(field).collect())
        };
        let body = json!({
            "action": "create", "name": set.name, "description": format!("{} v{}", set.name, set.version),
            "inputs": of(&|case| json!({ "messages": messages(case) })),
            "outputs": of(&|case| json!({ "answer": case.expected })),
            "metadata": of(&|case| case.metadata(set)),
            "splits": of(&|case| json!(case.split.name())),
            "example_ids": of(&|case| json!(case.id)),
        });
        Ok(vec![json_file("upload.json", &body)?])
    }
}
