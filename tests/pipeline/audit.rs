//! `bellwether audit`: it finds no fault in complete tables, and finds and names every fault that a test introduces.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use bellwether_base::{Clock, ManualClock, SystemClock};
use bellwether_lake::{Act, Advance, Commit, CommitLog, Lake, MaintainSettings, Outcome, StorageOptions};
use bellwether_tables::Table;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::event::{run, runs};
use crate::common::program::text;
use crate::common::{Message, Setup, bellwether, broker, python, real_broker, until};

/// Numbers of good, bad and blank lines in the recording from which the tables are made.
const GOOD: usize = 60;
const BAD: usize = 6;
const BLANK: usize = 3;

/// The result of an audit.
struct AuditResult {
    code: Option<i32>,
    body: Value,
}

/// A copy of complete tables, for a test to damage.
struct TestTables {
    dir: TempDir,
}

fn audit(root: &Path, more: &[&str]) -> AuditResult {
    let arguments = [&["audit", "--root", text(root), "--format", "json"], more].concat();
    let ended = bellwether(&arguments);
    let body = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("no JSON: {error}\n{}\n{}", ended.stdout, ended.stderr));
    AuditResult { code: ended.code, body }
}

/// Checks that an audit finds no fault, and returns its result.
fn clean(root: &Path) -> AuditResult {
    let answer = audit(root, &["--recompute"]);
    assert_eq!((answer.code, &answer.body["ok"]), (Some(0), &json!(true)), "{:#}", answer.body);
    answer
}

// === impl AuditResult ===

impl AuditResult {
    fn check(&self, name: &str) -> &Value {
        let checks = self.body["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no `{name}`: {:#}", self.body))
    }

    fn count(&self, check: &str, name: &str) -> i64 {
        self.check(check)["counts"][name].as_i64().unwrap_or_else(|| panic!("no count `{name}`: {:#}", self.body))
    }

    /// Returns the names of the failed checks.
    fn failed(&self) -> Vec<&str> {
        let checks = self.body["checks"].as_array().expect("checks");
        checks.iter().filter(|check| check["ok"] == false).filter_map(|check| check["name"].as_str()).collect()
    }

    /// Checks the exit code, that exactly these checks failed, and that the findings of the first contain some texts.
    fn finds(&self, code: i32, checks: &[&str], says: &[&str]) {
        assert_eq!(self.code, Some(code), "{:#}", self.body);
        assert_eq!(self.failed(), checks, "{:#}", self.body);
        assert_eq!(self.body["ok"], false);
        let findings = &self.check(checks[0])["findings"];
        let report = findings.to_string();
        for part in says {
            assert!(report.contains(part), "`{part}` is missing from {findings:#}");
        }
        let all = findings.as_array().expect("findings");
        assert!(
            all.iter().all(|finding| finding["hint"].as_str().is_some_and(|hint| !hint.is_empty())),
            "{findings:#}"
        );
    }
}

/// Builds a recording with good, bad and blank lines.
fn recording() -> String {
    let mut lines: Vec<String> = runs("recorded", GOOD).iter().map(ToString::to_string).collect();
    (0..BAD).for_each(|n| lines.insert(n * 9 + 4, format!("bad line {n}")));
    (0..BLANK).for_each(|n| lines.insert(n * 20 + 7, String::new()));
    lines.join("\n") + "\n"
}

/// Returns tables of several commits each, created once. Version 1 claims the file; version 2 has the first rows.
fn whole() -> &'static Setup {
    static WHOLE: OnceLock<Setup> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let setup = Setup::new("127.0.0.1:9", "unused", "[ingest]\nflush_rows = 10\n");
        let path = setup.file("runs.ndjson");
        fs::write(&path, recording()).expect("the recording is written");
        // Exit code 1, because some lines are bad.
        bellwether(&["replay", text(&path), "--to", "tables", "--config", text(&setup.config())]).exits_with(1);
        setup.catch_up_role("aggregate");
        setup
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder exists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the file is copied");
        }
    }
}

// === impl TestTables ===

impl TestTables {
    fn new() -> Self {
        let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
        copy(&whole().root(), dir.path());
        Self { dir }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn entry_path(&self, table: &str, version: usize) -> PathBuf {
        self.root().join(table).join("_delta_log").join(format!("{version:020}.json"))
    }

    /// Reads the actions of a log entry.
    fn entry(&self, table: &str, version: usize) -> Vec<Value> {
        let text = fs::read_to_string(self.entry_path(table, version)).expect("the entry exists");
        text.lines().map(|line| serde_json::from_str(line).expect("an action")).collect()
    }

    fn write_entry(&self, table: &str, version: usize, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.entry_path(table, version), text).expect("the entry is written");
    }

    /// Changes all actions of one kind in a log entry.
    fn edit(&self, table: &str, version: usize, action: &str, change: impl Fn(&mut Value)) {
        let mut lines = self.entry(table, version);
        let actions: Vec<&mut Value> = lines.iter_mut().filter_map(|line| line.get_mut(action)).collect();
        assert!(!actions.is_empty(), "version {version} of `{table}` has no `{action}`");
        actions.into_iter().for_each(change);
        self.write_entry(table, version, &lines);
    }

    fn newest(&self, table: &str) -> usize {
        (0..).take_while(|version| self.entry_path(table, *version).exists()).last().expect("an entry exists")
    }

    /// Returns the path, relative to the table, of the first file that a version adds.
    fn file(&self, table: &str, version: usize) -> String {
        let lines = self.entry(table, version);
        let path = lines.iter().find_map(|line| line["add"]["path"].as_str());
        path.unwrap_or_else(|| panic!("version {version} of `{table}` adds no file")).to_owned()
    }

    fn path(&self, table: &str, version: usize) -> PathBuf {
        self.root().join(table).join(self.file(table, version))
    }

    /// Rewrites the first file of a version with other rows, and updates its size and row count in the log.
    fn rewrite(&self, table: &str, version: usize, change: impl FnOnce(RecordBatch) -> RecordBatch) {
        let path = self.path(table, version);
        let rows = change(read(&path));
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("a writer");
        writer.write(&rows).expect("rows are written");
        let bytes = writer.into_inner().expect("the file is closed");
        fs::write(&path, &bytes).expect("the file is written");
        let name = self.file(table, version);
        self.edit(table, version, "add", |add| {
            if add["path"] == name.as_str() {
                add["size"] = json!(bytes.len());
                add["stats"] = json!(json!({ "numRecords": rows.num_rows() }).to_string());
            }
        });
    }
}

fn read(path: &Path) -> RecordBatch {
    let file = fs::File::open(path).expect("the file exists");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

fn without_last_row(rows: RecordBatch) -> RecordBatch {
    rows.slice(0, rows.num_rows() - 1)
}

/// Returns the offset in the last row.
fn last_offset(rows: &RecordBatch) -> i64 {
    let offsets = rows.column_by_name("offset").expect("a column").as_primitive::<Int64Type>();
    offsets.value(rows.num_rows() - 1)
}

/// Lists every file below a folder with its size.
fn listing(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the folder exists") {
            let entry = entry.expect("an entry");
            if entry.path().is_dir() {
                open.push(entry.path());
            }
            all.insert(entry.path(), entry.metadata().expect("it exists").len());
        }
    }
    all
}

#[test]
fn a_replayed_file_passes_and_its_blank_lines_are_counted() {
    let before = listing(&whole().root());
    let answer = clean(&whole().root());
    let count = |name: &str| answer.count("rows", name);
    let sizes = [GOOD, BAD, BLANK, GOOD + BAD + BLANK].map(|n| i64::try_from(n).expect("small"));
    assert_eq!(["events", "quarantined", "passed_over", "offsets"].map(count), sizes);
    assert!(answer.count("offsets", "ranges") > 3, "it takes several commits: {:#}", answer.body);
    assert_eq!(answer.body["partitions"][0]["job"], "replay");
    assert_eq!(listing(&whole().root()), before, "an audit writes nothing");
    let report = bellwether(&["audit", "--root", text(&whole().root()), "--recompute"]).succeeds();
    assert!(report.contains("✓ rows") && report.contains("All checks passed."), "{report}");
}

#[test]
fn a_missing_file_is_found_in_every_table() {
    for table in Table::ALL.map(Table::name) {
        let tables = TestTables::new();
        // `rolling_history` has no rows before a window is complete, and `alerts`, `deliveries` and `alert_actions` none before the first alert.
        // `candidates` has no rows without the role `evals`.
        let Some(version) = (1..=tables.newest(table))
            .find(|version| tables.entry(table, *version).iter().any(|line| line["add"].is_object()))
        else {
            assert!(
                ["rolling_history", "alerts", "deliveries", "alert_actions", "candidates"].contains(&table),
                "`{table}` has no file"
            );
            continue;
        };
        let name = tables.file(table, version);
        fs::remove_file(tables.path(table, version)).expect("it exists");
        let answer = audit(tables.root(), &[]);
        // The checks that count rows notice it too.
        let checks: &[&str] = if ["events", "quarantine"].contains(&table) { &["files", "rows"] } else { &["files"] };
        answer.finds(1, checks, &[&format!("{table}/{name}"), "it does not exist"]);
    }
}

#[test]
fn a_truncated_file_is_found() {
    let tables = TestTables::new();
    let path = tables.path("events", 3);
    let bytes = fs::read(&path).expect("it exists");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("it is written");
    audit(tables.root(), &[]).finds(
        1,
        &["files", "rows"],
        &[&tables.file("events", 3), "the log says", "cannot be read"],
    );
}

#[test]
fn an_overwritten_page_is_found() {
    let tables = TestTables::new();
    let path = tables.path("events", 3);
    let mut bytes = fs::read(&path).expect("it exists");
    let end = bytes.len() / 2;
    bytes[64..end].fill(0xA5);
    fs::write(&path, &bytes).expect("it is written");
    audit(tables.root(), &[]).finds(1, &["files", "rows"], &[&tables.file("events", 3), "cannot be read"]);
}

#[test]
fn swapped_files_are_found() {
    let tables = TestTables::new();
    let (one, other) = (tables.path("events", 2), tables.path("events", 4));
    let (a, b) = (fs::read(&one).expect("there"), fs::read(&other).expect("there"));
    fs::write(&one, &b).expect("written");
    fs::write(&other, &a).expect("written");
    // Even with the right sizes, their rows are not those of their commits.
    let (size_a, size_b) = (a.len(), b.len());
    tables.edit("events", 2, "add", |add| add["size"] = json!(size_b));
    tables.edit("events", 4, "add", |add| add["size"] = json!(size_a));
    let answer = audit(tables.root(), &[]);
    assert_eq!(answer.code, Some(1), "{:#}", answer.body);
    let report = answer.check("duplicates")["findings"].to_string();
    assert!(
        report.contains(&tables.file("events", 2)) && report.contains("its commit (version 2) does not cover all"),
        "{report}"
    );
}

#[test]
fn a_missing_or_damaged_log_entry_is_found_and_the_table_is_not_checked_further() {
    let tables = TestTables::new();
    fs::remove_file(tables.entry_path("events", 3)).expect("it exists");
    let answer = audit(tables.root(), &["--recompute"]);
    let all = ["tables", "offsets", "duplicates", "rows", "progress", "metrics", "rollups"];
    answer.finds(4, &all, &["log entry 3 is missing"]);
    assert_eq!(answer.body["auditable"], false);

    let tables = TestTables::new();
    let path = tables.entry_path("events", tables.newest("events"));
    let text = fs::read_to_string(&path).expect("it exists");
    fs::write(&path, &text[..text.len() / 2]).expect("it is written");
    audit(tables.root(), &[]).finds(4, &["tables", "offsets", "duplicates", "rows", "progress"], &["is not readable"]);

    let tables = TestTables::new();
    fs::remove_dir_all(tables.root().join("events/_delta_log")).expect("it exists");
    audit(tables.root(), &[]).finds(
        4,
        &["tables", "offsets", "duplicates", "rows", "progress"],
        &["its log is missing, but its folder is not empty"],
    );
}

#[test]
fn a_missing_newest_entry_is_found_by_the_progress_of_its_readers() {
    let tables = TestTables::new();
    fs::remove_file(tables.entry_path("events", tables.newest("events"))).expect("it exists");
    let answer = audit(tables.root(), &[]);
    answer.finds(1, &["progress"], &["ends at version"]);
}

#[test]
fn a_changed_offset_range_is_found() {
    let change = |key: &'static str, by: i64| {
        let tables = TestTables::new();
        tables.edit("events", 3, "commitInfo", |info| {
            let range = &mut info["bellwether"]["ranges"][0];
            range[key] = json!(range[key].as_i64().expect("a number") + by);
        });
        audit(tables.root(), &[])
    };
    let answer = change("from", 1);
    assert!(answer.failed().contains(&"offsets"), "{:#}", answer.body);
    let report = answer.check("offsets")["findings"].to_string();
    assert!(report.contains("no commit covers offset") && report.contains("file:runs.ndjson"), "{report}");
    let report = change("from", -1).check("offsets")["findings"].to_string();
    assert!(report.contains("again"), "{report}");
    let report = change("next", 1).check("offsets")["findings"].to_string();
    assert!(report.contains("but records"), "{report}");
    change("passed_over", 1).finds(1, &["rows"], &["version 3 covers"]);
}

#[test]
fn progress_without_an_offset_range_is_found() {
    let tables = TestTables::new();
    tables.edit("events", 3, "commitInfo", |info| info["bellwether"]["ranges"] = json!([]));
    let answer = audit(tables.root(), &[]);
    let report = answer.check("offsets")["findings"].to_string();
    assert!(report.contains("without stating an offset range"), "{report}");
}

#[test]
fn duplicate_rows_are_found_with_their_offsets_and_files() {
    let tables = TestTables::new();
    let (name, offset) = (tables.file("events", 3), last_offset(&read(&tables.path("events", 3))));
    let twin = name.replace("part-", "part-twin-");
    fs::copy(tables.path("events", 3), tables.root().join("events").join(&twin)).expect("it is copied");
    let mut lines = tables.entry("events", 3);
    let mut add = lines.iter().find(|line| line["add"]["path"] == name.as_str()).expect("the file").clone();
    add["add"]["path"] = json!(twin);
    lines.push(add);
    tables.write_entry("events", 3, &lines);
    let answer = audit(tables.root(), &[]);
    answer.finds(1, &["duplicates"], &[&name, &twin, "in `events` 2 times", "file:runs.ndjson"]);
    assert!(answer.check("duplicates")["findings"].to_string().contains(&offset.to_string()), "{:#}", answer.body);
    // `events` now has them twice, and `metrics` counts them once.
    let report = audit(tables.root(), &["--recompute"]);
    assert!(report.failed().contains(&"duplicates"), "{:#}", report.body);
}

#[test]
fn a_message_in_both_events_and_quarantine_is_found() {
    let tables = TestTables::new();
    let accepted = last_offset(&read(&tables.path("events", 2)));
    tables.rewrite("quarantine", 2, |rows| {
        let index = rows.schema().index_of("offset").expect("a column");
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let offsets = rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        let changed = offsets.iter().enumerate().map(|(row, offset)| if row == 0 { accepted } else { *offset });
        columns[index] = Arc::new(Int64Array::from_iter_values(changed));
        RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
    });
    audit(tables.root(), &[]).finds(1, &["duplicates", "rows"], &["in `events` and in `quarantine`"]);
}

#[test]
fn a_missing_row_is_found_even_if_the_log_agrees_with_the_file() {
    for table in ["events", "quarantine"] {
        let tables = TestTables::new();
        let lost = last_offset(&read(&tables.path(table, 2)));
        tables.rewrite(table, 2, without_last_row);
        audit(tables.root(), &[]).finds(1, &["rows"], &["file:runs.ndjson", "in no row:", &format!("offset {lost}")]);
    }
}

#[test]
fn a_changed_metric_is_found_by_recomputation() {
    let tables = TestTables::new();
    let version = tables.newest("metrics");
    tables.rewrite("metrics", version, |rows| {
        let index = rows.schema().index_of("runs").expect("a column");
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let runs = rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        columns[index] = Arc::new(Int64Array::from_iter_values(runs.iter().map(|runs| runs + 1)));
        RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
    });
    assert_eq!(audit(tables.root(), &[]).code, Some(0), "no other check fails");
    let answer = audit(tables.root(), &["--recompute"]);
    answer.finds(1, &["metrics", "rollups"], &["column `runs` is", "task `refund_triage`"]);
}

#[test]
fn wrong_file_statistics_are_found() {
    let tables = TestTables::new();
    tables.edit("events", 2, "add", |add| {
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().expect("text")).expect("JSON");
        stats["maxValues"]["offset"] = json!(0);
        add["stats"] = json!(stats.to_string());
    });
    audit(tables.root(), &[]).finds(1, &["files"], &["its greatest `offset` is"]);
}

/// Copies the tables, compacts `compact_files` files or more into one, writes log checkpoints, and runs an audit.
async fn maintained(compact_files: usize) -> (TestTables, AuditResult) {
    let tables = TestTables::new();
    let lake = Lake::open(text(tables.root()), &StorageOptions::default()).await.expect("opens");
    let settings = MaintainSettings { checkpoint_versions: 1, compact_files, ..MaintainSettings::default() };
    for table in Table::ALL {
        lake.maintain(table, &settings).await.expect("is done");
    }
    let answer = clean(tables.root());
    (tables, answer)
}

/// Copies the tables and writes log checkpoints only.
async fn with_checkpoints() -> TestTables {
    maintained(usize::MAX).await.0
}

#[tokio::test]
async fn a_log_checkpoint_that_disagrees_with_the_log_is_found() {
    let tables = with_checkpoints().await;
    // The file gets another name, in the folder and in the log.
    let (name, path) = (tables.file("events", 3), tables.path("events", 3));
    let renamed = name.replace("part-", "part-renamed-");
    fs::rename(path, tables.root().join("events").join(&renamed)).expect("it exists");
    tables.edit("events", 3, "add", |add| {
        if add["path"] == name.as_str() {
            add["path"] = json!(renamed);
        }
    });
    let says = ["events: log checkpoint of version", "it names file", &name, "it does not name file", &renamed];
    audit(tables.root(), &[]).finds(1, &["log"], &says);

    // Progress of an application that only the log has.
    let tables = with_checkpoints().await;
    let mut lines = tables.entry("metrics", 1);
    lines.push(json!({"txn": {"appId": "somebody", "version": 7}}));
    tables.write_entry("metrics", 1, &lines);
    audit(tables.root(), &[]).finds(1, &["log"], &["it lacks `somebody`, which the log has at 7"]);

    let tables = with_checkpoints().await;
    let log = tables.root().join("quarantine/_delta_log");
    let checkpoints: Vec<PathBuf> = fs::read_dir(&log)
        .expect("the log exists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    assert!(!checkpoints.is_empty(), "there is a log checkpoint");
    for path in checkpoints {
        fs::write(path, "no Parquet").expect("it is written");
    }
    audit(tables.root(), &[]).finds(1, &["log"], &["quarantine: log checkpoint of version", "it cannot be read"]);
}

#[test]
fn findings_for_people_name_the_place_and_the_remedy() {
    let report = |tables: &TestTables, code: i32, parts: &[&str]| {
        let ended = bellwether(&["audit", "--root", text(tables.root())]);
        assert_eq!(ended.code, Some(code), "{}", ended.stdout);
        for part in parts {
            assert!(ended.stdout.contains(part), "`{part}` is missing from\n{}", ended.stdout);
        }
    };
    let tables = TestTables::new();
    let name = tables.file("events", 2);
    fs::remove_file(tables.path("events", 2)).expect("it exists");
    report(
        &tables,
        1,
        &[
            "✓ tables",
            "✗ files       1 finding",
            &format!("events/{name}: it does not exist"),
            "hint: ",
            "Some checks failed.",
        ],
    );
    let tables = TestTables::new();
    fs::remove_dir_all(tables.root().join("metrics")).expect("it exists");
    report(
        &tables,
        4,
        &["✗ tables      1 finding", "? progress    not checked: ", "Some checks could not be completed."],
    );
}

#[test]
fn any_missing_table_is_found() {
    for table in Table::ALL.map(Table::name) {
        let tables = TestTables::new();
        fs::remove_dir_all(tables.root().join(table)).expect("it exists");
        let answer = audit(tables.root(), &[]);
        // A roll-up can be made from its source again, but not if another one was made from it.
        if let Some(code) = [("metrics_hourly", 1), ("metrics_daily", 0)].iter().find(|(name, _)| *name == table) {
            let notes = answer.check("tables")["notes"].to_string();
            assert!(notes.contains(&format!("`{table}` does not exist yet")), "{:#}", answer.body);
            assert_eq!(answer.code, Some(code.1), "{:#}", answer.body);
            continue;
        }
        let others = i64::try_from(Table::ALL.len() - 1).expect("few");
        assert_eq!((answer.code, answer.count("tables", "tables")), (Some(4), others), "{:#}", answer.body);
        let findings = &answer.check("tables")["findings"];
        assert_eq!(
            (&findings[0]["place"], findings.as_array().map(Vec::len)),
            (&json!(table), Some(1)),
            "{findings:#}"
        );
        assert!(!tables.root().join(table).exists(), "an audit creates no tables");
    }
}

#[test]
fn a_table_of_another_program_is_reported_as_one() {
    let Some(python) = python() else { return };
    let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    let write = |path: &Path| {
        let program = "import sys, pyarrow, deltalake\n\
                       deltalake.write_deltalake(sys.argv[1], pyarrow.table({'x': [1, 2, 3]}))";
        let written = Command::new(&python).args(["-c", program, text(path)]).output().expect("Python starts");
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    };
    let foreign = dir.path().join("foreign");
    write(&foreign);
    let ended = bellwether(&["audit", "--root", text(&foreign)]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("is a Delta table itself") && ended.stderr.contains("hint:"), "{}", ended.stderr);
    // One of our own tables as the root gives the same error.
    let ended = bellwether(&["audit", "--root", text(&whole().root().join("events"))]);
    assert!(ended.stderr.contains("is a Delta table itself"), "{}", ended.stderr);

    let tables = TestTables::new();
    fs::remove_dir_all(tables.root().join("metrics")).expect("it exists");
    write(&tables.root().join("metrics"));
    let answer = audit(tables.root(), &["--recompute"]);
    answer.finds(4, &["tables", "progress", "metrics", "rollups"], &["is not a table of bellwether: it has no column"]);
}

#[test]
fn a_foreign_table_a_missing_one_and_an_empty_folder_have_different_errors() {
    let tables = TestTables::new();
    tables.edit("metrics", 0, "metaData", |metadata| {
        metadata["schemaString"] = json!(r#"{"type":"struct","fields":[{"name":"x","type":"long"}]}"#);
    });
    let answer = audit(tables.root(), &["--recompute"]);
    answer.finds(4, &["tables", "progress", "metrics", "rollups"], &["is not a table of bellwether"]);

    let tables = TestTables::new();
    fs::remove_dir_all(tables.root().join("quarantine")).expect("it exists");
    let answer = audit(tables.root(), &[]);
    answer.finds(4, &["tables", "duplicates", "rows"], &["quarantine", "the table does not exist"]);

    let empty = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    for (root, says) in [
        (empty.path().to_owned(), "there are no tables under `"),
        (empty.path().join("nowhere"), "there is no folder `"),
    ] {
        let ended = bellwether(&["audit", "--root", text(&root)]);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(says) && ended.stderr.contains("hint: name the root"), "{}", ended.stderr);
    }
    assert!(listing(empty.path()).is_empty(), "an audit creates nothing");
    let ended = bellwether(&["audit"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[test]
fn an_unreachable_store_is_not_reported_as_missing_tables() {
    let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    let config = dir.path().join("bellwether.toml");
    let options = "aws_endpoint = \"http://127.0.0.1:9\"\naws_allow_http = \"true\"\naws_region = \"us-east-1\"\n\
                   aws_access_key_id = \"a\"\naws_secret_access_key = \"b\"\n";
    let text_of = format!(
        "[tables]\nroot = \"s3://nowhere/x\"\n[tables.options]\n{options}\
         [kafka]\nbrokers = [\"127.0.0.1:9\"]\ntopics = [\"unused\"]\ngroup = \"unused\"\n"
    );
    fs::write(&config, text_of).expect("it is written");
    let ended = bellwether(&["audit", "--config", text(&config)]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("does not answer"), "{}", ended.stderr);
}

#[test]
fn a_first_start_that_stopped_half_way_passes() {
    let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    let log = dir.path().join("events/_delta_log");
    fs::create_dir_all(&log).expect("a folder");
    fs::copy(whole().root().join("events/_delta_log/00000000000000000000.json"), log.join("00000000000000000000.json"))
        .expect("the entry is copied");
    let answer = clean(dir.path());
    assert!(answer.check("tables")["notes"].to_string().contains("`metrics` does not exist yet"), "{:#}", answer.body);
}

#[tokio::test]
async fn tables_after_compaction_and_log_clean_up_pass() {
    let (tables, answer) = maintained(2).await;
    assert!(answer.count("files", "files") < 10, "files were compacted: {:#}", answer.body);
    let path = tables.root().join("events");
    // The log is cleaned up to its checkpoint, except for the last entry before it.
    for version in 0..tables.newest("events") - 1 {
        fs::remove_file(tables.entry_path("events", version)).expect("it exists");
    }
    let answer = clean(tables.root());
    assert!(answer.check("log")["notes"].to_string().contains("have been cleaned up"), "{:#}", answer.body);
    // Without its checkpoint, such a log is unreadable.
    fs::remove_file(path.join("_delta_log/_last_checkpoint")).expect("it exists");
    let answer = audit(tables.root(), &[]);
    answer.finds(4, &["tables", "offsets", "duplicates", "rows", "progress"], &["no log checkpoint covers"]);
}

/// Writes log checkpoints, rewrites small files, and cleans up the logs once everything is old enough.
async fn clean_up(root: &Path) {
    let clock = ManualClock::at(SystemClock.now_micros());
    let lake = Lake::open_with_clock(text(root), &StorageOptions::default(), Arc::new(clock.clone())).await;
    let lake = lake.expect("opens");
    let settings = MaintainSettings { checkpoint_versions: 1, compact_files: 2, ..MaintainSettings::default() };
    // The last entries may have no rows. Whoever passes over them does not record that.
    let (newest, metrics) = (lake.log(Table::Events).latest_version().await.expect("loads"), lake.log(Table::Metrics));
    let on = metrics.load().await.expect("loads");
    let read = Advance { app_id: "aggregate/0".to_owned(), expected: on.next("aggregate/0"), next: newest + 1 };
    let commit = Commit {
        uuid: bellwether_base::unique_id(),
        advances: vec![read],
        files: Vec::new(),
        operation: "aggregate",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    assert!(matches!(metrics.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    for table in Table::ALL {
        lake.checkpoint(table).await.expect("a checkpoint");
        lake.clean_up(table, &settings, Act::Do).await.expect("a first round");
        lake.compact(table, &settings).await.expect("compacts");
    }
    clock.advance(3 * 3600 * 1_000_000);
    let done = lake.clean_up(Table::Events, &settings, Act::Do).await.expect("cleans up");
    assert!(done.log.count > 3, "{done:?}");
    for table in Table::ALL {
        lake.clean_up(table, &settings, Act::Do).await.expect("cleans up");
    }
}

#[tokio::test]
async fn all_rows_are_held_against_all_offsets_after_the_log_was_cleaned_up() {
    for lost in [false, true] {
        let tables = TestTables::new();
        if lost {
            tables.rewrite("events", 2, without_last_row);
        }
        let before = audit(tables.root(), &[]);
        clean_up(tables.root()).await;
        assert!(!tables.entry_path("events", 2).exists(), "the entry that took these offsets is gone");
        let answer = audit(tables.root(), &[]);
        assert!(answer.check("log")["notes"].to_string().contains("are on record"), "{:#}", answer.body);
        for name in ["offsets", "events", "quarantined", "passed_over"] {
            assert_eq!(answer.count("rows", name), before.count("rows", name), "{name}: {:#}", answer.body);
        }
        assert_eq!(answer.body["partitions"], before.body["partitions"]);
        match lost {
            false => drop(clean(tables.root())),
            true => answer.finds(1, &["rows"], &["file:runs.ndjson", "in no row:"]),
        }
    }
}

#[test]
fn tables_of_two_jobs_with_bad_messages_pass() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("audit", 2);
    broker.publish_events(&topic, 2, &runs("run", 40));
    broker.publish(&topic, (0..6).map(|n| Message { partition: n % 2, ..Message::new("poison") }));
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    broker.publish_events(&topic, 2, &runs("more", 20));
    broker.publish(&topic, [Message::new("poison")]);
    setup.catch_up();
    let answer = clean(&setup.root());
    assert_eq!([answer.count("rows", "events"), answer.count("rows", "quarantined")], [60, 7]);
    // Another job reads the topic again into the same tables, as after a topic was recreated.
    let config = fs::read_to_string(setup.config()).expect("it exists");
    let other = setup.file("other.toml");
    let group = format!("other-{}", bellwether_base::unique_id().simple());
    let changed = config.replace("[kafka]\n", "[kafka]\njob = \"other\"\n");
    let lines: Vec<String> = changed
        .lines()
        .map(|line| if line.starts_with("group = ") { format!("group = \"{group}\"") } else { line.to_owned() })
        .collect();
    fs::write(&other, lines.join("\n")).expect("it is written");
    bellwether(&["run", "--until-caught-up", "--config", text(&other)]).succeeds();
    let answer = clean(&setup.root());
    assert_eq!([answer.count("offsets", "jobs"), answer.count("rows", "events")], [2, 120]);
}

#[test]
fn every_audit_beside_running_roles_passes() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("audit", 2);
    let setup = Setup::new(&broker.address, &topic, "[ingest]\nflush_interval = \"20ms\"\n");
    broker.publish_events(&topic, 2, &runs("first", 20));
    let running = setup.start("run");
    until("the tables have the first events", || {
        (setup.root().join("rolling_history/_delta_log").exists()
            && audit(&setup.root(), &[]).count("rows", "events") >= 20)
            .then_some(())
    });
    let mut sent = 20;
    for round in 0..4 {
        broker.publish_events(&topic, 2, &runs(&format!("round-{round}"), 40));
        broker.publish(&topic, [Message::new("poison")]);
        sent += 40;
        clean(&setup.root());
    }
    until("the tables have all events", || (clean(&setup.root()).count("rows", "events") >= sent).then_some(()));
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
    assert_eq!(clean(&setup.root()).count("rows", "events"), sent);
}

#[test]
fn every_gap_left_by_transactions_is_counted() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("audit", 1);
    let transactions = broker.transactions(&topic);
    let transaction = |name: &str, count: usize, commit: bool| transactions.publish(&runs(name, count), commit);
    transaction("one", 3, true);
    transaction("two", 2, false);
    transaction("three", 4, true);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    // Before the last message there are two markers and the two messages of the aborted transaction.
    let answer = clean(&setup.root());
    assert_eq!([answer.count("rows", "events"), answer.count("rows", "passed_over")], [7, 4]);
    transaction("four", 1, false);
    broker.publish(&topic, [Message::new(run("last").to_string())]);
    setup.catch_up();
    // The marker of the third transaction, and the fourth with its marker.
    let answer = clean(&setup.root());
    assert_eq!([answer.count("rows", "events"), answer.count("rows", "passed_over")], [8, 7]);
}
