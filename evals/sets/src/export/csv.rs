//! CSV by RFC 4180, one row for each case: CRLF ends a row, and a field with a separator, quote or line break is quoted.

use bellwether_base::Result;

use super::text::{FILE, transcript};
use super::{ExportFile, Format, Limits};
use crate::case::EvalCase;
use crate::set::EvalSet;

/// Columns of the flat formats.
pub(super) const COLUMNS: [&str; 11] = [
    "case_id",
    "case_version",
    "task",
    "split",
    "kind",
    "failure_class",
    "input",
    "messages",
    "expected",
    "tags",
    "metadata",
];

/// Returns the fields of a case of a set, in the order of [`COLUMNS`]. Absent ones are none.
pub(super) fn fields(set: &EvalSet, case: &EvalCase) -> [Option<String>; 11] {
    [
        Some(case.id.clone()),
        Some(case.version.to_string()),
        Some(case.task.clone()),
        Some(case.split.name().to_owned()),
        Some(case.kind.name().to_owned()),
        case.failure_class.clone(),
        Some(transcript(case)),
        Some(super::text::messages(case).to_string()),
        case.expected.clone(),
        Some(serde_json::json!(case.tags).to_string()),
        Some(case.metadata(set).to_string()),
    ]
}

pub(super) struct Csv;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn about(&self) -> &'static str {
        "CSV by RFC 4180"
    }

    fn limits(&self) -> Limits {
        Limits { nul: false, ..FILE }
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        let mut text = COLUMNS.join(",") + "\r\n";
        for case in set.cases() {
            let row: Vec<String> =
                fields(set, case).iter().map(|field| quoted(field.as_deref().unwrap_or(""))).collect();
            text.push_str(&row.join(","));
            text.push_str("\r\n");
        }
        Ok(vec![ExportFile { path: "cases.csv".to_owned(), bytes: text.into_bytes() }])
    }
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
