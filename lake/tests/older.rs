//! Tables of earlier and later versions of the program, with missing columns and unknown columns.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{commit, lake, rows};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use bellwether_base::ErrorKind;
use bellwether_lake::{AddedFile, CommitLog, DataFile, Lake, MaintainSettings, Outcome, StorageOptions, WrittenFile};
use bellwether_tables::Table;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

const DAY: i32 = 20_000;

fn entry_path(root: &Path, table: Table, version: i64) -> PathBuf {
    root.join(table.name()).join(format!("_delta_log/{version:020}.json"))
}

/// Returns the actions of a log entry.
fn actions(root: &Path, table: Table, version: i64) -> Vec<Value> {
    let text = fs::read_to_string(entry_path(root, table, version)).expect("the entry is there");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Changes the fields of the schema in a table's first entry.
fn change_schema(root: &Path, table: Table, change: impl FnOnce(&mut Vec<Value>)) {
    let mut lines = actions(root, table, 0);
    let metadata = lines.iter_mut().find_map(|line| line.get_mut("metaData")).expect("says what the table is");
    let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().expect("text")).expect("JSON");
    change(schema["fields"].as_array_mut().expect("fields"));
    metadata["schemaString"] = Value::String(schema.to_string());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(entry_path(root, table, 0), text).expect("writes");
}

/// Removes every second optional column, including the last one, and a field of the records in `tool_calls`.
fn make_older(root: &Path, table: Table) -> Vec<String> {
    let mut gone = Vec::new();
    change_schema(root, table, |fields| {
        let optional = fields.iter().filter(|field| field["nullable"] == true);
        let names: Vec<String> = optional.map(|field| field["name"].as_str().expect("a name").to_owned()).collect();
        gone = names.into_iter().rev().step_by(2).collect();
        fields.retain(|field| !gone.iter().any(|name| field["name"] == *name.as_str()));
        for field in fields.iter_mut().filter(|field| field["type"]["elementType"].is_object()) {
            field["type"]["elementType"]["fields"].as_array_mut().expect("fields").retain(|of| of["name"] != "risk");
        }
    });
    gone
}

async fn reopened(root: &Path) -> bellwether_base::Result<Lake> {
    Lake::open(root.to_str().expect("text"), &StorageOptions::default()).await
}

/// Returns a column with one tool call in each row, with these fields.
fn tool_calls(rows: usize, fields: &Fields) -> ArrayRef {
    let columns = fields.iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("theirs", _) => Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("theirs {row}")))),
            (_, DataType::Boolean) if !field.is_nullable() => {
                Arc::new(arrow::array::BooleanArray::from(vec![true; rows]))
            }
            (_, DataType::Utf8View) if !field.is_nullable() => {
                Arc::new(arrow::array::StringViewArray::from_iter_values((0..rows).map(|row| format!("call {row}"))))
            }
            (_, other) => arrow::array::new_null_array(other, rows),
        }
    });
    let records = StructArray::new(fields.clone(), columns.collect(), None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields.clone()), false));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(1, rows));
    Arc::new(ListArray::new(element, offsets, Arc::new(records), None))
}

fn call_fields() -> Fields {
    let schema = Table::Events.arrow_schema();
    let DataType::List(element) = schema.field_with_name("tool_calls").expect("there").data_type() else { panic!() };
    let DataType::Struct(fields) = element.data_type() else { panic!() };
    fields.clone()
}

/// Writes rows to a file of `events` as another program would, with other columns than ours.
fn foreign_file(root: &Path, name: &str, batch: &RecordBatch) -> WrittenFile {
    let path = format!("event_date=2024-10-04/{name}");
    let full = root.join("events").join(&path);
    fs::create_dir_all(full.parent().expect("a folder")).expect("makes");
    let file = fs::File::create(&full).expect("creates");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(batch).expect("writes");
    writer.close().expect("closes");
    let size = fs::metadata(&full).expect("there").len();
    let file = DataFile {
        path,
        size: i64::try_from(size).expect("small"),
        rows: i64::try_from(batch.num_rows()).expect("few"),
        partition_values: [("event_date".to_owned(), Some("2024-10-04".to_owned()))].into(),
        stats: format!(r#"{{"numRecords":{}}}"#, batch.num_rows()),
        modification_time: 0,
    };
    WrittenFile { file, rows: Vec::new() }
}

/// Returns rows of `events` without the partition column, with other tool calls, and optionally with an extra column.
fn extended(offsets: std::ops::Range<i64>, calls: &Fields, more: bool) -> RecordBatch {
    let batch = rows(Table::Events, offsets, &[DAY]);
    let count = batch.num_rows();
    let mut columns: Vec<(Arc<Field>, ArrayRef)> = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| field.name() != "event_date")
        .map(|(field, column)| match field.name().as_str() {
            "tool_calls" => {
                let column = tool_calls(count, calls);
                (Arc::new(Field::new("tool_calls", column.data_type().clone(), false)), column)
            }
            _ => (Arc::clone(field), Arc::clone(column)),
        })
        .collect();
    if more {
        let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("more {row}"))));
        columns.insert(3, (Arc::new(Field::new("more", DataType::Utf8, true)), values));
    }
    let (fields, columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows")
}

async fn append(lake: &Lake, table: Table, app: &str, next: i64, files: &[WrittenFile]) -> i64 {
    let log = lake.log(table);
    let on = log.load().await.expect("loads");
    let step = commit(app, on.next(app), next, files);
    let Outcome::Committed(after) = log.try_commit(&on, &step).await.expect("commits") else { panic!("not committed") };
    after.version
}

fn added(file: &WrittenFile) -> AddedFile {
    file.file.as_added()
}

#[tokio::test]
async fn a_table_of_an_earlier_version_gets_its_columns_once_and_goes_on() {
    let (folder, first) = lake().await;
    let root = folder.path();
    for table in Table::ALL {
        let gone = make_older(root, table);
        let identity = actions(root, table, 0).remove(2)["metaData"].clone();
        let log = first.log(table);
        let days = if table == Table::Events { vec![DAY] } else { vec![] };
        let before = first.write(table, &rows(table, 0..4, &days)).await.expect("writes");
        append(&first, table, "j/t/0", 4, &before).await;
        let snapshot = log.load().await.expect("loads");

        let lake = reopened(root).await.expect("opens a table of an earlier version");
        let widened = log.load().await.expect("loads");
        let nested = table == Table::Events;
        assert_eq!(widened.version, if gone.is_empty() && !nested { 1 } else { 2 }, "{table:?}");
        assert_eq!(widened.next("j/t/0"), Some(4));
        if widened.version == 2 {
            let metadata = actions(root, table, 2).remove(1)["metaData"].clone();
            for key in ["id", "name", "description", "createdTime", "partitionColumns", "configuration", "format"] {
                assert_eq!(metadata[key], identity[key], "{key}");
            }
            let schema: Value = serde_json::from_str(metadata["schemaString"].as_str().expect("text")).expect("JSON");
            assert_eq!(schema, table.delta_schema());
        }
        reopened(root).await.expect("opens again");
        assert_eq!(log.load().await.expect("loads").version, widened.version, "once is enough");

        // A writer that has not seen the change continues from its snapshot.
        let more = lake.write(table, &rows(table, 4..8, &days)).await.expect("writes");
        let outcome = log.try_commit(&snapshot, &commit("j/t/0", Some(4), 8, &more)).await.expect("commits");
        assert!(matches!(&outcome, Outcome::Committed(after) if after.version == widened.version + 1), "{outcome:?}");
        let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
        assert_eq!(lake.compact(table, &settings).await.expect("rewrites"), 2);
        let (_, files) = lake.active_files(table).await.expect("lists");
        let read = lake.read(table, &files[0], None).await.expect("reads");
        assert_eq!(
            read[0],
            arrow::compute::concat_batches(
                &table.arrow_schema(),
                [&rows(table, 0..4, &days), &rows(table, 4..8, &days)]
            )
            .expect("rows")
        );
    }
}

#[tokio::test]
async fn a_file_without_a_field_of_its_records_is_read_with_nulls_and_rewritten_with_it() {
    let (folder, lake) = lake().await;
    let older: Fields = call_fields().iter().filter(|field| field.name() != "risk").cloned().collect();
    let old = foreign_file(folder.path(), "old.parquet", &extended(0..3, &older, false));
    append(&lake, Table::Events, "j/t/0", 3, std::slice::from_ref(&old)).await;
    let new = lake.write(Table::Events, &rows(Table::Events, 3..5, &[DAY])).await.expect("writes");
    append(&lake, Table::Events, "j/t/0", 5, &new).await;
    let columns = ["tool_calls", "offset"];
    let read = lake.read(Table::Events, &added(&old), Some(&columns)).await.expect("reads");
    let calls = read[0].column(0).as_list::<i32>();
    let field = |name: &str| Arc::clone(calls.values().as_struct().column_by_name(name).expect("a field"));
    assert_eq!(field("risk").null_count(), 3);
    assert_eq!(field("name").as_string_view().iter().flatten().collect::<Vec<_>>(), ["call 0", "call 1", "call 2"]);
    let found = lake.read_rows(Table::Events, &added(&old), &columns, vec![1]).await.expect("reads");
    assert_eq!(found.column(1).as_primitive::<Int64Type>().values(), &[1]);
    let values = Arc::new(["run-number-2".to_owned()].into());
    let found = lake.find_rows(Table::Events, &added(&old), &columns, "run_id", &values).await.expect("reads");
    assert_eq!(found.expect("there").column(1).as_primitive::<Int64Type>().values(), &[2]);
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(lake.compact(Table::Events, &settings).await.expect("rewrites"), 2);
    let (_, files) = lake.active_files(Table::Events).await.expect("lists");
    let rewritten = lake.read(Table::Events, &files[0], Some(&["tool_calls"])).await.expect("reads");
    let calls = rewritten[0].column(0).as_list::<i32>();
    assert_eq!((0..5).map(|row| calls.value(row).len()).collect::<Vec<_>>(), [1, 1, 1, 0, 0]);
}

#[tokio::test]
async fn who_only_reads_writes_nothing_and_finds_nulls() {
    let (folder, first) = lake().await;
    let root = folder.path();
    make_older(root, Table::Metrics);
    let files = first.write(Table::Metrics, &rows(Table::Metrics, 0..2, &[])).await.expect("writes");
    append(&first, Table::Metrics, "a", 1, &files).await;
    let text = root.to_str().expect("text");
    for lake in [
        Lake::open_as_it_is(text, &StorageOptions::default()).await.expect("opens"),
        Lake::open_to_read(text, &StorageOptions::default()).await.expect("opens"),
    ] {
        let (version, files) = lake.active_files(Table::Metrics).await.expect("lists");
        assert_eq!((version, files.len()), (1, 1));
        let read = lake.read(Table::Metrics, &files[0], None).await.expect("reads");
        assert_eq!(read[0], rows(Table::Metrics, 0..2, &[]));
    }
    assert!(!entry_path(root, Table::Metrics, 2).exists());
    fs::remove_dir_all(root.join("alerts")).expect("it is there");
    Lake::open_to_read(text, &StorageOptions::default()).await.expect("opens");
    assert!(entry_path(root, Table::Alerts, 0).exists(), "a table that is missing is made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_open_at_once_one_adds_the_columns_while_a_writer_goes_on() {
    let (folder, first) = lake().await;
    let root = folder.path();
    make_older(root, Table::Events);
    let writer = async {
        for next in 1..=20 {
            append(&first, Table::Events, "j/t/0", next, &[]).await;
        }
    };
    let openers = futures::future::join_all((0..8).map(|_| reopened(root)));
    let (opened, ()) = futures::future::join(openers, writer).await;
    assert!(opened.into_iter().all(|lake| lake.is_ok()));
    let end = first.log(Table::Events).load().await.expect("loads");
    assert_eq!((end.version, end.next("j/t/0")), (21, Some(20)), "20 commits and one more");
    let widening = (1..=21).filter(|version| {
        actions(root, Table::Events, *version).iter().any(|line| line["commitInfo"]["operation"] == "ADD COLUMNS")
    });
    assert_eq!(widening.count(), 1);
}

#[tokio::test]
async fn columns_are_added_on_a_log_checkpoint_whose_entries_are_gone() {
    let (folder, first) = lake().await;
    let root = folder.path();
    let gone = make_older(root, Table::Quarantine);
    for next in 1..=5 {
        append(&first, Table::Quarantine, "j/t/0", next, &[]).await;
    }
    first.checkpoint(Table::Quarantine).await.expect("checkpoints");
    (0..5).for_each(|version| fs::remove_file(entry_path(root, Table::Quarantine, version)).expect("there"));
    let lake = reopened(root).await.expect("opens");
    let on = lake.log(Table::Quarantine).load().await.expect("loads");
    assert_eq!((on.version, on.next("j/t/0")), (6, Some(5)));
    let entry = lake.log(Table::Quarantine).entry(6).await.expect("reads").expect("there");
    let schema: Value = serde_json::from_str(&entry.metadata.expect("metadata").schema_string).expect("JSON");
    assert_eq!(schema, Table::Quarantine.delta_schema(), "{gone:?}");
    lake.checkpoint(Table::Quarantine).await.expect("checkpoints");
    assert_eq!(reopened(root).await.expect("opens").log(Table::Quarantine).load().await.expect("loads"), on);
}

#[tokio::test]
async fn a_table_in_which_our_rows_cannot_be_is_refused_in_open_and_append() {
    let change = |name: &'static str, key: &'static str, value: Value| {
        move |fields: &mut Vec<Value>| {
            fields.iter_mut().find(|field| field["name"] == name).expect("there")[key] = value;
        }
    };
    type Change = Box<dyn FnOnce(&mut Vec<Value>)>;
    let theirs = json!({ "name": "theirs", "type": "long", "nullable": false, "metadata": {} });
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(change("offset", "type", json!("integer"))), "column `offset` is integer, not long"),
        (Box::new(|fields: &mut Vec<Value>| fields.retain(|field| field["name"] != "reason")), "no column `reason`"),
        (Box::new(|fields: &mut Vec<Value>| fields.push(theirs)), "must not be null"),
    ];
    for (change, expected) in cases {
        let (folder, first) = lake().await;
        change_schema(folder.path(), Table::Quarantine, change);
        let error = reopened(folder.path()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(expected) && error.hint().is_some(), "{error:?}");
        let log = first.log(Table::Quarantine);
        let on = log.load().await.expect("loads");
        let error = log.try_commit(&on, &commit("a", None, 1, &[])).await.expect_err("refused");
        assert!(error.message().contains(expected), "{error:?}");
        assert!(!entry_path(folder.path(), Table::Quarantine, 1).exists(), "nothing is written");
    }
}

#[tokio::test]
async fn columns_that_nobody_here_knows_stay_with_their_values() {
    let (folder, _) = lake().await;
    let root = folder.path();
    let theirs = json!({ "name": "theirs", "type": "string", "nullable": true, "metadata": { "comment": "theirs" } });
    let more = json!({ "name": "more", "type": "string", "nullable": true, "metadata": {} });
    change_schema(root, Table::Events, |fields| {
        fields.insert(2, more);
        let calls = fields.iter_mut().find(|field| field["name"] == "tool_calls").expect("there");
        calls["type"]["elementType"]["fields"].as_array_mut().expect("fields").push(theirs);
    });
    let lake = reopened(root).await.expect("opens");
    assert!(!entry_path(root, Table::Events, 1).exists(), "nothing is missing");
    let mut calls: Vec<Arc<Field>> = call_fields().iter().cloned().collect();
    let with_column = foreign_file(root, "column.parquet", &extended(0..2, &call_fields(), true));
    calls.push(Arc::new(Field::new("theirs", DataType::Utf8, true)));
    let with_field = foreign_file(root, "field.parquet", &extended(2..4, &calls.into(), false));
    append(&lake, Table::Events, "j/t/0", 4, &[with_column.clone(), with_field.clone()]).await;
    for n in 2..5 {
        let ours = lake.write(Table::Events, &rows(Table::Events, 2 * n..2 * n + 2, &[DAY])).await.expect("writes");
        append(&lake, Table::Events, "j/t/0", 2 * n + 2, &ours).await;
    }
    // All files are read; only ours are combined.
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(lake.compact(Table::Events, &settings).await.expect("rewrites"), 3);
    assert_eq!(lake.compact(Table::Events, &settings).await.expect("leaves them"), 0);
    let (_, files) = lake.active_files(Table::Events).await.expect("lists");
    let mut offsets = Vec::new();
    for file in &files {
        for batch in lake.read(Table::Events, file, Some(&["offset", "tool_calls"])).await.expect("reads") {
            offsets.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
    }
    offsets.sort_unstable();
    assert_eq!((files.len(), offsets), (3, (0..10).collect::<Vec<i64>>()));
    for (file, column) in [(&with_column, "more"), (&with_field, "tool_calls")] {
        assert!(files.iter().any(|active| active.path == file.file.path));
        let bytes = fs::File::open(root.join("events").join(&file.file.path)).expect("there");
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("opens").build().expect("reads");
        let batch = reader.next().expect("rows").expect("readable");
        assert!(batch.column_by_name(column).is_some_and(|values| values.null_count() == 0));
    }
    lake.checkpoint(Table::Events).await.expect("checkpoints");
    let after = reopened(root).await.expect("opens").log(Table::Events).load().await.expect("loads");
    assert_eq!(after.next("j/t/0"), Some(10));
}
