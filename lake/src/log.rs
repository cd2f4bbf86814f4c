//! Writes and reads entries of a Delta log.
//!
//! The format is the Delta transaction protocol, one JSON action per line. Our own facts (the id of the commit and its
//! offset range in each Kafka partition) are in `commitInfo.bellwether`; the protocol allows free content there.
//!
//! This is our own code because the Delta library's writer cannot report whether an unclear commit landed
//! (docs/decisions/0001).

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::commit::{Advance, Commit, DataFile, PartitionRange};
use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};

/// Folder of the log under a table.
pub const LOG_FOLDER: &str = "_delta_log";

/// Name and version of this program, for the table's history.
const ENGINE: &str = concat!("bellwether/", env!("CARGO_PKG_VERSION"));

/// A data file that the log names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedFile {
    /// Path, relative to the table.
    pub path: String,
    /// Size in bytes.
    pub size: i64,
    /// Number of rows, if the statistics state it.
    pub rows: Option<i64>,
    /// Value of the partition column, if the table has one.
    pub partition_values: BTreeMap<String, Option<String>>,
    /// False if the file only rewrites existing rows.
    pub data_change: bool,
    /// Delta statistics as JSON.
    pub stats: Option<String>,
}

/// The log entry of one version of a table.
#[derive(Clone, Debug, Default)]
pub struct LogEntry {
    pub version: i64,
    /// Time of the commit, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Files added.
    pub added: Vec<AddedFile>,
    /// Paths of files removed.
    pub removed: Vec<String>,
    /// Applications advanced, with their new numbers.
    pub txns: Vec<(String, i64)>,
    /// The commit's own id, if this program wrote it.
    pub uuid: Option<Uuid>,
    /// Operation of the commit.
    pub operation: String,
    /// Offset range of each Kafka partition.
    pub ranges: Vec<PartitionRange>,
    /// Rows that the commit removed for good, by partition.
    pub removed_rows: Vec<RemovedRows>,
    /// Metadata of the table, if the entry changes it.
    pub metadata: Option<TableMetadata>,
    /// Protocol of the table, if the entry changes it.
    pub protocol: Option<Protocol>,
}

/// Metadata of a table, as stored in its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableMetadata {
    /// Delta schema as JSON.
    pub schema_string: String,
    /// Columns by which the files are partitioned.
    #[serde(default)]
    pub partition_columns: Vec<String>,
    /// Properties of the table.
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
    /// All other fields (id, name, description, format, time of creation), kept unchanged.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Versions and features that readers and writers of a table must support.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// Least reader version.
    pub min_reader_version: i32,
    /// Least writer version.
    pub min_writer_version: i32,
    /// Features that a reader must know, from reader version 3 on.
    #[serde(default)]
    pub reader_features: Option<Vec<String>>,
    /// Features that a writer must know, from writer version 7 on.
    #[serde(default)]
    pub writer_features: Option<Vec<String>>,
}

impl LogEntry {
    /// Returns true if the entry adds rows, instead of only rewriting them.
    pub fn brings_rows(&self) -> bool {
        self.added.iter().any(|file| file.data_change)
    }

    /// Returns true if the entry is an erasure in `events`, after which other erased contributions count.
    pub fn erases(&self) -> bool {
        self.txns.iter().any(|(app_id, _)| app_id.parse() == Ok(AppId::Erased))
    }

    /// Returns true if the entry removes rows for good and adds none: by retention, which removes whole files, or by an erasure,
    /// which writes the other rows of its files again.
    pub fn takes_rows(&self) -> bool {
        !self.removed.is_empty() && !self.brings_rows() && (self.added.is_empty() || !self.removed_rows.is_empty())
    }
}

/// Rows of one partition that retention or an erasure removed: how many, and between which offsets. An audit then knows them
/// from lost ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRows {
    /// Topic, or `file:NAME`.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Least offset among them.
    pub from: i64,
    /// Offset after the greatest.
    pub next: i64,
    /// Number.
    pub rows: i64,
}

/// Our facts inside `commitInfo`.
#[derive(Serialize, Deserialize)]
struct Facts {
    commit: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<PartitionRange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<RemovedRows>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<AddLine>,
    remove: Option<RemoveLine>,
    txn: Option<TxnLine>,
    commit_info: Option<CommitInfoLine>,
    meta_data: Option<TableMetadata>,
    protocol: Option<Protocol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddLine {
    path: String,
    size: i64,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
    data_change: bool,
    stats: Option<String>,
    deletion_vector: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RemoveLine {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TxnLine {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct CommitInfoLine {
    timestamp: Option<i64>,
    operation: Option<String>,
    bellwether: Option<Facts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    num_records: Option<i64>,
}

/// Returns the path of a version's entry.
pub fn entry_path(table: &Path, version: i64) -> Path {
    table.clone().join(LOG_FOLDER).join(format!("{version:020}.json"))
}

/// Writes the entry that creates a table, with its protocol and schema.
pub(crate) fn creation(table: Table, now_ms: i64, id: Uuid) -> String {
    let partition_columns: Vec<&str> = table.partition_column().into_iter().collect();
    let lines = [
        json!({ "commitInfo": {
            "timestamp": now_ms, "operation": "CREATE TABLE", "operationParameters": {}, "engineInfo": ENGINE,
        }}),
        json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
        json!({ "metaData": {
            "id": id,
            "name": table.name(),
            "description": table.doc(),
            "format": { "provider": "parquet", "options": {} },
            "schemaString": table.delta_schema().to_string(),
            "partitionColumns": partition_columns,
            "configuration": {},
            "createdTime": now_ms,
        }}),
    ];
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Writes the entry that adds columns to a table, with the new metadata.
pub(crate) fn widening(metadata: &TableMetadata, added: &[String], now_ms: i64, id: Uuid) -> Result<String> {
    described(metadata, "ADD COLUMNS", json!({ "columns": json!(added).to_string() }), now_ms, id)
}

/// Returns the entry that gives a table a property: the metadata as it is to be.
pub(crate) fn with_property(
    metadata: &TableMetadata,
    name: &str,
    value: &str,
    now_ms: i64,
    id: Uuid,
) -> Result<String> {
    let properties = json!({ "properties": json!({ name: value }).to_string() });
    described(metadata, "SET TBLPROPERTIES", properties, now_ms, id)
}

/// Returns the entry that changes the metadata of a table.
fn described(metadata: &TableMetadata, operation: &str, parameters: Value, now_ms: i64, id: Uuid) -> Result<String> {
    let bug = |source| Error::bug("a table's metadata cannot be written as JSON").with_source(source);
    let metadata = serde_json::to_value(metadata).map_err(bug)?;
    let lines = [
        json!({ "commitInfo": {
            "timestamp": now_ms, "operation": operation, "operationParameters": parameters,
            "isBlindAppend": false, "engineInfo": ENGINE, "bellwether": { "commit": id },
        }}),
        json!({ "metaData": metadata }),
    ];
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// Writes the entry of a commit.
pub(crate) fn write_entry(commit: &Commit, now_ms: i64) -> Result<String> {
    entry_of(commit, now_ms, true)
}

fn entry_of(commit: &Commit, now_ms: i64, data_change: bool) -> Result<String> {
    let bug = |source| Error::bug("a commit cannot be written as JSON").with_source(source);
    let (ranges, removed) = (commit.ranges.clone(), Vec::new());
    let facts = Facts { commit: commit.uuid, ranges, removed, more: commit.facts.clone() };
    let facts = serde_json::to_value(facts).map_err(bug)?;
    let mut text = format!(
        "{}\n",
        json!({ "commitInfo": {
            "timestamp": now_ms, "operation": commit.operation, "operationParameters": {},
            "isBlindAppend": true, "engineInfo": ENGINE, "bellwether": facts,
        }})
    );
    for advance in commit.advances.iter().filter(|advance| advance.expected != Some(advance.next)) {
        let line = json!({ "txn": { "appId": advance.app_id, "version": advance.next, "lastUpdated": now_ms } });
        text.push_str(&format!("{line}\n"));
    }
    for file in &commit.files {
        let line = json!({ "add": {
            "path": file.path, "partitionValues": file.partition_values, "size": file.size,
            "modificationTime": file.modification_time, "dataChange": data_change, "stats": file.stats,
        }});
        text.push_str(&format!("{line}\n"));
    }
    Ok(text)
}

/// Writes the entry of a commit that also removes files. `data_change` is false if readers that follow the log have nothing to
/// read in the added files.
pub(crate) fn replace_entry(commit: &Commit, removed: &[AddedFile], data_change: bool, now_ms: i64) -> Result<String> {
    let text = entry_of(commit, now_ms, data_change)?;
    let mut text = text.replacen("\"isBlindAppend\":true", "\"isBlindAppend\":false", 1);
    for file in removed {
        text.push_str(&format!("{}\n", remove_line(file, now_ms, data_change)));
    }
    Ok(text)
}

fn remove_line(file: &AddedFile, now_ms: i64, data_change: bool) -> Value {
    json!({ "remove": {
        "path": file.path, "deletionTimestamp": now_ms, "dataChange": data_change, "extendedFileMetadata": true,
        "partitionValues": file.partition_values, "size": file.size,
    }})
}

/// A rewrite of several files as one with the same rows. Readers that follow the log by version skip it.
pub(crate) struct Rewrite<'a> {
    /// Its own id.
    pub(crate) uuid: Uuid,
    /// The advance that prevents two concurrent rewrites of one table.
    pub(crate) advance: &'a Advance,
    /// Files to remove.
    pub(crate) removed: &'a [AddedFile],
    /// The new file with their rows.
    pub(crate) added: &'a DataFile,
}

/// Writes the entry of a rewrite.
pub(crate) fn rewrite_entry(rewrite: &Rewrite<'_>, now_ms: i64) -> String {
    let Rewrite { uuid, advance, removed, added } = rewrite;
    let mut lines = vec![
        json!({ "commitInfo": {
            "timestamp": now_ms, "operation": "OPTIMIZE", "operationParameters": {}, "isBlindAppend": false,
            "engineInfo": ENGINE, "bellwether": { "commit": uuid },
        }}),
        json!({ "txn": { "appId": advance.app_id, "version": advance.next, "lastUpdated": now_ms } }),
    ];
    lines.extend(removed.iter().map(|file| remove_line(file, now_ms, false)));
    lines.push(json!({ "add": {
        "path": added.path, "partitionValues": added.partition_values, "size": added.size,
        "modificationTime": added.modification_time, "dataChange": false, "stats": added.stats,
    }}));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Reads an entry.
///
/// # Errors
/// `Data` if a line is not an action of the protocol, there is no line, or a file has a deletion vector.
pub(crate) fn read_entry(version: i64, text: &[u8]) -> Result<LogEntry> {
    let mut entry = LogEntry { version, ..LogEntry::default() };
    let mut lines = 0;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|source| torn(version).with_source(source))?;
        lines += 1;
        if let Some(add) = line.add {
            if add.deletion_vector.is_some() {
                return Err(deleted_rows(&add.path));
            }
            entry.added.push(added_file(add));
        }
        if let Some(remove) = line.remove {
            entry.removed.push(remove.path);
        }
        if let Some(txn) = line.txn {
            entry.txns.push((txn.app_id, txn.version));
        }
        if line.meta_data.is_some() {
            entry.metadata = line.meta_data;
        }
        if line.protocol.is_some() {
            entry.protocol = line.protocol;
        }
        if let Some(info) = line.commit_info {
            entry.timestamp_ms = info.timestamp.unwrap_or_default();
            entry.operation = info.operation.unwrap_or_default();
            if let Some(facts) = info.bellwether {
                entry.uuid = Some(facts.commit);
                entry.ranges = facts.ranges;
                entry.removed_rows = facts.removed;
            }
        }
    }
    if lines == 0 {
        return Err(torn(version));
    }
    Ok(entry)
}

fn torn(version: i64) -> Error {
    Error::data(format!("log entry {version} is not readable"))
        .with_hint("restore the table's log from a backup; `bellwether audit` lists all damage")
}

/// Reports a file with deleted rows, which reading the file would restore.
pub(crate) fn deleted_rows(path: &str) -> Error {
    Error::data(format!("file `{path}` has a deletion vector, which bellwether does not read")).with_hint(
        "purge deletion vectors with the engine that wrote them (`REORG TABLE ... APPLY (PURGE)`), and turn them off",
    )
}

fn added_file(add: AddLine) -> AddedFile {
    let rows = add.stats.as_deref().and_then(rows_in_statistics);
    AddedFile {
        path: add.path,
        size: add.size,
        rows,
        partition_values: add.partition_values,
        data_change: add.data_change,
        stats: add.stats,
    }
}

/// Returns the number of rows that a file's statistics state.
pub(crate) fn rows_in_statistics(stats: &str) -> Option<i64> {
    serde_json::from_str::<Statistics>(stats).ok()?.num_records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_reads_back_as_it_was_written() {
        let commit = Commit {
            uuid: Uuid::from_u128(7),
            advances: vec![
                Advance { app_id: "j/t/0".to_owned(), expected: Some(5), next: 9 },
                Advance { app_id: "a condition".to_owned(), expected: Some(3), next: 3 },
            ],
            files: vec![DataFile {
                path: "event_date=2026-11-23/part-1.parquet".to_owned(),
                size: 10,
                rows: 4,
                partition_values: BTreeMap::from([("event_date".to_owned(), Some("2026-11-23".to_owned()))]),
                stats: r#"{"numRecords":4}"#.to_owned(),
                modification_time: 1,
            }],
            operation: "WRITE",
            ranges: vec![PartitionRange {
                topic: "t".to_owned(),
                partition: 0,
                from: 5,
                next: 9,
                end_offset: Some(9),
                newest_event_micros: None,
                passed_over: Some(1),
            }],
            facts: Map::from_iter([("worker".to_owned(), json!("w-1"))]),
        };
        let text = write_entry(&commit, 42).expect("writes");
        let entry = read_entry(3, text.as_bytes()).expect("reads");
        assert_eq!(entry.uuid, Some(commit.uuid));
        assert_eq!(entry.ranges, commit.ranges);
        assert_eq!(entry.txns, [("j/t/0".to_owned(), 9)]);
        assert_eq!(entry.added[0].rows, Some(4));
        assert_eq!(entry.timestamp_ms, 42);
        assert!(entry.brings_rows());
    }

    #[test]
    fn a_torn_entry_is_an_error_of_the_data() {
        let error = read_entry(3, br#"{"add":{"path":"x","#).expect_err("torn");
        assert_eq!(error.kind(), bellwether_base::ErrorKind::Data);
        assert!(error.message().contains("log entry 3"));
        let empty = read_entry(3, b"").expect_err("cut to nothing");
        assert_eq!(empty.kind(), bellwether_base::ErrorKind::Data);
    }

    #[test]
    fn a_file_with_deleted_rows_is_not_taken_for_a_whole_one() {
        let add = |vector: &str| format!(r#"{{"add":{{"path":"x","size":1,"dataChange":true{vector}}}}}"#);
        assert!(read_entry(3, add(r#","deletionVector":null"#).as_bytes()).is_ok());
        let error = read_entry(3, add(r#","deletionVector":{"storageType":"u"}"#).as_bytes()).expect_err("refused");
        assert_eq!(error.kind(), bellwether_base::ErrorKind::Data);
        assert!(error.hint().is_some_and(|hint| hint.contains("PURGE")), "{error:?}");
    }

    #[test]
    fn metadata_is_written_again_with_all_that_others_put_there() {
        let text =
            br#"{"metaData":{"id":"a-b","name":null,"format":{"provider":"parquet","options":{}},"schemaString":"{}",
"partitionColumns":["d"],"configuration":{"delta.appendOnly":"true"},"createdTime":5,"later":{"x":[1]}}}"#;
        let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\n').collect();
        let metadata = read_entry(0, &text).expect("reads").metadata.expect("there");
        let again = widening(&metadata, &["c".to_owned()], 7, Uuid::from_u128(1)).expect("writes");
        let mut lines = again.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        assert_eq!(lines.next().expect("a line")["commitInfo"]["operation"], "ADD COLUMNS");
        assert_eq!(lines.next().expect("a line"), serde_json::from_slice::<Value>(&text).expect("JSON"));
    }

    #[test]
    fn entries_of_other_engines_are_read_too() {
        let text = br#"{"commitInfo":{"timestamp":1,"operation":"OPTIMIZE","operationMetrics":{"x":1}}}
{"remove":{"path":"a","dataChange":false,"deletionTimestamp":1}}
{"add":{"path":"b","size":3,"partitionValues":{},"modificationTime":1,"dataChange":false,"stats":null}}"#;
        let entry = read_entry(1, text).expect("reads");
        assert!(!entry.brings_rows());
        assert_eq!(entry.removed, ["a"]);
        assert_eq!(entry.uuid, None);
    }
}
