//! Lakes for tests: rows of tables from a few stated values, written by the crate that writes data.

use bellwether_base::{Result, unique_id};
use bellwether_lake::{Commit, CommitLog, Lake, Outcome, StorageOptions};
use bellwether_queries::Session;
use bellwether_stats::Sketch;
use bellwether_tables::{ColumnType, Table};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value, json};

/// Makes a lake in a folder, which is removed with it.
pub(crate) async fn lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(folder.path().to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    (folder, lake)
}

/// Returns a value for a required column that a test does not state.
fn unstated(name: &str, kind: ColumnType) -> Value {
    match (name, kind) {
        ("weight_micros", _) => json!(1_000_000),
        ("stage", _) => json!("full"),
        (_, ColumnType::Binary) => {
            json!(Sketch::new().encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        (_, ColumnType::Text) => json!(""),
        (_, ColumnType::LongList) => json!(vec![0; 32]),
        (_, ColumnType::List(_)) => json!([]),
        (_, ColumnType::TextMap) => json!({}),
        (_, ColumnType::BigInteger) => json!("0"),
        (_, ColumnType::Boolean) => json!(false),
        _ => json!(0),
    }
}

/// Returns rows of a table; unstated columns are empty.
pub(crate) fn rows(table: Table, stated: &[Value]) -> RecordBatch {
    let made: Vec<Map<String, Value>> = stated
        .iter()
        .map(|stated| {
            let required = table.columns().iter().filter(|column| column.required);
            let mut row: Map<String, Value> =
                required.map(|column| (column.name.to_owned(), unstated(column.name, column.kind))).collect();
            row.extend(stated.as_object().expect("an object").clone());
            row
        })
        .collect();
    let mut decoder =
        ReaderBuilder::new(table.arrow_schema()).with_batch_size(made.len()).build_decoder().expect("a decoder");
    decoder.serialize(&made).expect("rows");
    decoder.flush().expect("rows").expect("some")
}

/// Commits rows to a table.
pub(crate) async fn append(lake: &Lake, table: Table, stated: &[Value]) {
    let written = lake.write(table, &rows(table, stated)).await.expect("writes");
    let commit = Commit {
        uuid: unique_id(),
        advances: Vec::new(),
        files: written.into_iter().map(|written| written.file).collect(),
        operation: "WRITE",
        ranges: Vec::new(),
        facts: Map::new(),
    };
    let log = lake.log(table);
    let outcome = log.try_commit(&log.load().await.expect("loads"), &commit).await.expect("answers");
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

/// Returns all rows of an answer as text, with a bar between cells.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("∅");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("can be shown"))
            .collect();
        let row = |row: usize| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

/// Runs a statement and returns its rows as text.
pub(crate) async fn ask(session: &Session, sql: &str) -> Result<Vec<String>> {
    Ok(text(&session.execute(sql).await?.collect().await?))
}
