//! Rows of `metrics` for the tests of rules and of the watcher.

use arrow::array::RecordBatch;
use bellwether_tables::{ColumnType, Table};
use serde_json::{Map, Value, json};

/// 2026-01-05 00:00 UTC, minutes since the epoch.
pub(crate) const BEGIN: i64 = 29_459_520;

/// A row of `metrics`.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) minute: i64,
    pub(crate) task: &'a str,
    pub(crate) release: &'a str,
    pub(crate) stage: &'a str,
    pub(crate) model: &'a str,
    pub(crate) runs: i64,
    pub(crate) failures: i64,
}

/// A row of release `v1` in full rollout. Its model is `0`, which a query can read as a number.
pub(crate) fn cell(minute: i64, task: &str, runs: i64, failures: i64) -> Cell<'_> {
    Cell { minute, task, release: "v1", stage: "full", model: "0", runs, failures }
}

/// The value of a column that a row leaves out.
pub(crate) fn default_value(name: &str, kind: ColumnType) -> Value {
    match (name, kind) {
        ("weight_micros", _) => json!(1_000_000),
        (_, ColumnType::Text | ColumnType::Binary) => json!(""),
        (_, ColumnType::LongList) => json!(vec![0; 32]),
        (_, ColumnType::BigInteger) => json!("0"),
        (_, ColumnType::Boolean) => json!(false),
        _ => json!(0),
    }
}

pub(crate) fn rows(cells: &[Cell<'_>]) -> RecordBatch {
    let full_row = |cell: &Cell<'_>| {
        let columns = Table::Metrics.columns().iter();
        let mut row: Map<String, Value> =
            columns.map(|column| (column.name.to_owned(), default_value(column.name, column.kind))).collect();
        let stated = [
            ("window_start", json!((BEGIN + cell.minute) * 60_000_000)),
            ("task", json!(cell.task)),
            ("release_id", json!(cell.release)),
            ("stage", json!(cell.stage)),
            ("model", json!(cell.model)),
            ("runs", json!(cell.runs)),
            ("failure", json!(cell.failures)),
            ("success", json!(cell.runs - cell.failures)),
        ];
        row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
        row
    };
    let rows: Vec<Map<String, Value>> = cells.iter().map(full_row).collect();
    let reader = arrow::json::ReaderBuilder::new(Table::Metrics.arrow_schema()).with_batch_size(rows.len());
    let mut decoder = reader.build_decoder().expect("a decoder");
    decoder.serialize(&rows).expect("rows");
    decoder.flush().expect("rows").expect("some")
}
