//! Parts that several formats share.

use bellwether_base::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ExportFile, Limits};
use crate::case::{EvalCase, Grading};
use crate::set::EvalSet;

/// Limits of a format that only files bound.
pub(super) const FILE: Limits = Limits { needs_expected: false, nul: true, case_bytes: usize::MAX };

/// Writes one JSON value a line.
pub(super) fn jsonl(path: &str, values: impl Iterator<Item = Value>) -> ExportFile {
    let mut text = String::new();
    for value in values {
        text.push_str(&value.to_string());
        text.push('\n');
    }
    ExportFile { path: path.to_owned(), bytes: text.into_bytes() }
}

/// Writes JSON for people, with a newline at its end.
pub(super) fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::bug("cannot write JSON").with_source(source))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a JSON file.
pub(super) fn json_file(path: &str, value: &impl Serialize) -> Result<ExportFile> {
    Ok(ExportFile { path: path.to_owned(), bytes: pretty(value)? })
}

/// Returns the messages of a case as an array of `role` and `content`.
pub(super) fn messages(case: &EvalCase) -> Value {
    json!(case.input)
}

/// Returns the input as one text: the message itself if there is one, otherwise each with its author.
pub(super) fn transcript(case: &EvalCase) -> String {
    if let [only] = case.input.as_slice() {
        return only.content.clone();
    }
    let line =
        |message: &crate::case::Message| format!("{}: {}", json!(message.role).as_str().unwrap_or(""), message.content);
    case.input.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the id of a case in a set, as a UUID. It is the same in each export, so that a second upload updates.
pub(super) fn uuid_of(set: &EvalSet, case: &EvalCase) -> uuid::Uuid {
    let digest = Sha256::digest(format!("{}\0{}", set.name, case.id));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Returns the rules that compare the answer with a text.
pub(super) fn comparisons(case: &EvalCase) -> Vec<Grading> {
    case.rules().into_iter().filter(|rule| !matches!(rule, Grading::Rubric(_))).collect()
}

/// Returns the texts of the rules that are instructions.
pub(super) fn rubrics(case: &EvalCase) -> Vec<&str> {
    fn rubric(rule: &Grading) -> Option<&str> {
        if let Grading::Rubric(text) = rule { Some(text) } else { None }
    }
    case.grading.iter().filter_map(rubric).collect()
}

/// Returns whether a text of the case holds U+0000.
pub(super) fn has_nul(case: &EvalCase) -> bool {
    fn any(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(any),
            Value::Object(fields) => fields.values().any(any),
            _ => false,
        }
    }
    any(&json!(case))
}
