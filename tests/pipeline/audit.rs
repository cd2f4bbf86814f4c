//! `bellwether audit`: clean tables are found clean, and each thing that is broken on purpose is found and named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use bellwether_lake::{Lake, MaintainSettings, StorageOptions, Table};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::event::{run, runs};
use crate::common::program::text;
use crate::common::wait::patience;
use crate::common::{Message, Setup, bellwether, broker, python, skipped, until};

/// Lines of the recording that the tables to be broken are made of: good runs, bad lines and blank ones.
const GOOD: usize = 60;
const BAD: usize = 6;
const BLANK: usize = 3;

/// What an audit answered.
struct Answer {
    code: Option<i32>,
    body: Value,
}

/// Tables to break: a copy of whole ones.
struct Victim {
    dir: TempDir,
}

fn audit(root: &Path, more: &[&str]) -> Answer {
    let arguments = [&["audit", "--root", text(root), "--format", "json"], more].concat();
    let ended = bellwether(&arguments);
    let body = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("no JSON: {error}\n{}\n{}", ended.stdout, ended.stderr));
    Answer { code: ended.code, body }
}

/// Asserts that all is so, and returns the answer.
fn clean(root: &Path) -> Answer {
    let answer = audit(root, &["--recompute"]);
    assert_eq!((answer.code, &answer.body["ok"]), (Some(0), &json!(true)), "{:#}", answer.body);
    answer
}

// === impl Answer ===

impl Answer {
    fn check(&self, name: &str) -> &Value {
        let checks = self.body["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no `{name}`: {:#}", self.body))
    }

    fn count(&self, check: &str, name: &str) -> i64 {
        self.check(check)["counts"][name].as_i64().unwrap_or_else(|| panic!("no count `{name}`: {:#}", self.body))
    }

    /// Names of the checks that are not so.
    fn wrong(&self) -> Vec<&str> {
        let checks = self.body["checks"].as_array().expect("checks");
        checks.iter().filter(|check| check["ok"] == false).filter_map(|check| check["name"].as_str()).collect()
    }

    /// Asserts that exactly these checks found something, with an exit code, and that the first says a text.
    fn finds(&self, code: i32, checks: &[&str], says: &[&str]) {
        assert_eq!(self.code, Some(code), "{:#}", self.body);
        assert_eq!(self.wrong(), checks, "{:#}", self.body);
        assert_eq!(self.body["ok"], false);
        let findings = &self.check(checks[0])["findings"];
        let told = findings.to_string();
        for part in says {
            assert!(told.contains(part), "`{part}` is not said: {findings:#}");
        }
        let all = findings.as_array().expect("findings");
        assert!(
            all.iter().all(|finding| finding["hint"].as_str().is_some_and(|hint| !hint.is_empty())),
            "{findings:#}"
        );
    }
}

/// A recording of good, bad and blank lines.
fn recording() -> String {
    let mut lines: Vec<String> = runs("recorded", GOOD).iter().map(ToString::to_string).collect();
    (0..BAD).for_each(|n| lines.insert(n * 9 + 4, format!("bad line {n}")));
    (0..BLANK).for_each(|n| lines.insert(n * 20 + 7, String::new()));
    lines.join("\n") + "\n"
}

/// Tables of several commits each, made once. Version 1 claims the file, version 2 has the first rows.
fn whole() -> &'static Setup {
    static WHOLE: OnceLock<Setup> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let setup = Setup::new("127.0.0.1:9", "unused", "[ingest]\nflush_rows = 10\n");
        let path = setup.file("runs.ndjson");
        fs::write(&path, recording()).expect("the recording is written");
        // Some of its lines are bad.
        bellwether(&["replay", text(&path), "--to", "tables", "--config", text(&setup.config())]).exits_with(1);
        bellwether(&["aggregate", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
        setup
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the file is copied");
        }
    }
}

// === impl Victim ===

impl Victim {
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

    /// The lines of a log entry.
    fn entry(&self, table: &str, version: usize) -> Vec<Value> {
        let text = fs::read_to_string(self.entry_path(table, version)).expect("the entry is there");
        text.lines().map(|line| serde_json::from_str(line).expect("an action")).collect()
    }

    fn write_entry(&self, table: &str, version: usize, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.entry_path(table, version), text).expect("the entry is written");
    }

    /// Changes the actions of one kind in a log entry.
    fn edit(&self, table: &str, version: usize, action: &str, change: impl Fn(&mut Value)) {
        let mut lines = self.entry(table, version);
        let actions: Vec<&mut Value> = lines.iter_mut().filter_map(|line| line.get_mut(action)).collect();
        assert!(!actions.is_empty(), "version {version} of `{table}` has no `{action}`");
        actions.into_iter().for_each(change);
        self.write_entry(table, version, &lines);
    }

    fn newest(&self, table: &str) -> usize {
        (0..).take_while(|version| self.entry_path(table, *version).exists()).last().expect("there is an entry")
    }

    /// The path under the table of the first file that a version adds.
    fn file(&self, table: &str, version: usize) -> String {
        let lines = self.entry(table, version);
        let path = lines.iter().find_map(|line| line["add"]["path"].as_str());
        path.unwrap_or_else(|| panic!("version {version} of `{table}` adds no file")).to_owned()
    }

    fn path(&self, table: &str, version: usize) -> PathBuf {
        self.root().join(table).join(self.file(table, version))
    }

    /// Rewrites the first file of a version with other rows, and makes the log agree about its size and rows.
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
    let file = fs::File::open(path).expect("the file is there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

fn without_last_row(rows: RecordBatch) -> RecordBatch {
    rows.slice(0, rows.num_rows() - 1)
}

/// The offset in the last row.
fn last_offset(rows: &RecordBatch) -> i64 {
    let offsets = rows.column_by_name("offset").expect("a column").as_primitive::<Int64Type>();
    offsets.value(rows.num_rows() - 1)
}

/// Every file below a folder, with its size.
fn listing(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let entry = entry.expect("an entry");
            if entry.path().is_dir() {
                open.push(entry.path());
            }
            all.insert(entry.path(), entry.metadata().expect("it is there").len());
        }
    }
    all
}

#[test]
fn a_replayed_file_is_clean_and_its_blank_lines_are_explained() {
    let before = listing(&whole().root());
    let answer = clean(&whole().root());
    let count = |name: &str| answer.count("rows", name);
    let sizes = [GOOD, BAD, BLANK, GOOD + BAD + BLANK].map(|n| i64::try_from(n).expect("small"));
    assert_eq!(["events", "quarantined", "passed_over", "offsets"].map(count), sizes);
    assert!(answer.count("offsets", "ranges") > 3, "it takes several commits: {:#}", answer.body);
    assert_eq!(answer.body["partitions"][0]["job"], "replay");
    assert_eq!(listing(&whole().root()), before, "an audit writes nothing");
    let told = bellwether(&["audit", "--root", text(&whole().root()), "--recompute"]).succeeds();
    assert!(told.contains("✓ rows") && told.contains("All is so."), "{told}");
}

#[test]
fn a_file_that_is_gone_is_found_in_every_table() {
    for table in Table::ALL.map(Table::name) {
        let victim = Victim::new();
        // `rolling_history` has rows only once a window is complete, and `alerts` once there is one.
        let Some(version) = (1..=victim.newest(table))
            .find(|version| victim.entry(table, *version).iter().any(|line| line["add"].is_object()))
        else {
            assert!(["rolling_history", "alerts"].contains(&table), "`{table}` has no file");
            continue;
        };
        let name = victim.file(table, version);
        fs::remove_file(victim.path(table, version)).expect("it is there");
        let answer = audit(victim.root(), &[]);
        // Rows that are gone are missed, too, where they are counted.
        let checks: &[&str] = if ["events", "quarantine"].contains(&table) { &["files", "rows"] } else { &["files"] };
        answer.finds(1, checks, &[&format!("{table}/{name}"), "it is not there"]);
    }
}

#[test]
fn a_file_cut_short_is_found() {
    let victim = Victim::new();
    let path = victim.path("events", 3);
    let bytes = fs::read(&path).expect("it is there");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("it is written");
    audit(victim.root(), &[]).finds(
        1,
        &["files", "rows"],
        &[&victim.file("events", 3), "the log says", "cannot be read"],
    );
}

#[test]
fn a_page_that_was_overwritten_is_found() {
    let victim = Victim::new();
    let path = victim.path("events", 3);
    let mut bytes = fs::read(&path).expect("it is there");
    let end = bytes.len() / 2;
    bytes[64..end].fill(0xA5);
    fs::write(&path, &bytes).expect("it is written");
    audit(victim.root(), &[]).finds(1, &["files", "rows"], &[&victim.file("events", 3), "cannot be read"]);
}

#[test]
fn files_that_changed_places_are_found() {
    let victim = Victim::new();
    let (one, other) = (victim.path("events", 2), victim.path("events", 4));
    let (a, b) = (fs::read(&one).expect("there"), fs::read(&other).expect("there"));
    fs::write(&one, &b).expect("written");
    fs::write(&other, &a).expect("written");
    // The sizes may be told right: what is in them is still not what their commits took.
    let (size_a, size_b) = (a.len(), b.len());
    victim.edit("events", 2, "add", |add| add["size"] = json!(size_b));
    victim.edit("events", 4, "add", |add| add["size"] = json!(size_a));
    let answer = audit(victim.root(), &[]);
    assert_eq!(answer.code, Some(1), "{:#}", answer.body);
    let told = answer.check("duplicates")["findings"].to_string();
    assert!(told.contains(&victim.file("events", 2)) && told.contains("its commit (version 2) took"), "{told}");
}

#[test]
fn a_log_entry_that_is_gone_or_torn_is_found_and_the_table_is_not_judged() {
    let victim = Victim::new();
    fs::remove_file(victim.entry_path("events", 3)).expect("it is there");
    let answer = audit(victim.root(), &["--recompute"]);
    let all = ["tables", "offsets", "duplicates", "rows", "progress", "metrics"];
    answer.finds(4, &all, &["log entry 3 is gone"]);
    assert_eq!(answer.body["auditable"], false);

    let victim = Victim::new();
    let path = victim.entry_path("events", victim.newest("events"));
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, &text[..text.len() / 2]).expect("it is written");
    audit(victim.root(), &[]).finds(4, &["tables", "offsets", "duplicates", "rows", "progress"], &["is not readable"]);

    let victim = Victim::new();
    fs::remove_dir_all(victim.root().join("events/_delta_log")).expect("it is there");
    audit(victim.root(), &[]).finds(
        4,
        &["tables", "offsets", "duplicates", "rows", "progress"],
        &["its log is gone, though its folder is not empty"],
    );
}

#[test]
fn newest_entries_that_are_gone_are_missed_by_who_has_read_them() {
    let victim = Victim::new();
    fs::remove_file(victim.entry_path("events", victim.newest("events"))).expect("it is there");
    let answer = audit(victim.root(), &[]);
    answer.finds(1, &["progress"], &["ends at version"]);
}

#[test]
fn a_range_that_was_changed_is_found() {
    let change = |key: &'static str, by: i64| {
        let victim = Victim::new();
        victim.edit("events", 3, "commitInfo", |info| {
            let range = &mut info["bellwether"]["ranges"][0];
            range[key] = json!(range[key].as_i64().expect("a number") + by);
        });
        audit(victim.root(), &[])
    };
    let answer = change("from", 1);
    assert!(answer.wrong().contains(&"offsets"), "{:#}", answer.body);
    let told = answer.check("offsets")["findings"].to_string();
    assert!(told.contains("no commit took offset") && told.contains("file:runs.ndjson"), "{told}");
    let told = change("from", -1).check("offsets")["findings"].to_string();
    assert!(told.contains("again"), "{told}");
    let told = change("next", 1).check("offsets")["findings"].to_string();
    assert!(told.contains("but stands at"), "{told}");
    change("passed_over", 1).finds(1, &["rows"], &["version 3 took"]);
}

#[test]
fn a_number_without_a_range_is_found() {
    let victim = Victim::new();
    victim.edit("events", 3, "commitInfo", |info| info["bellwether"]["ranges"] = json!([]));
    let answer = audit(victim.root(), &[]);
    let told = answer.check("offsets")["findings"].to_string();
    assert!(told.contains("without saying which offsets it took"), "{told}");
}

#[test]
fn rows_that_are_there_twice_are_found_with_their_offsets_and_files() {
    let victim = Victim::new();
    let (name, offset) = (victim.file("events", 3), last_offset(&read(&victim.path("events", 3))));
    let twin = name.replace("part-", "part-twin-");
    fs::copy(victim.path("events", 3), victim.root().join("events").join(&twin)).expect("it is copied");
    let mut lines = victim.entry("events", 3);
    let mut add = lines.iter().find(|line| line["add"]["path"] == name.as_str()).expect("the file").clone();
    add["add"]["path"] = json!(twin);
    lines.push(add);
    victim.write_entry("events", 3, &lines);
    let answer = audit(victim.root(), &[]);
    answer.finds(1, &["duplicates"], &[&name, &twin, "in `events` 2 times", "file:runs.ndjson"]);
    assert!(answer.check("duplicates")["findings"].to_string().contains(&offset.to_string()), "{:#}", answer.body);
    // What `metrics` has read holds them now, and `metrics` does not.
    let told = audit(victim.root(), &["--recompute"]);
    assert!(told.wrong().contains(&"duplicates"), "{:#}", told.body);
}

#[test]
fn a_message_that_is_accepted_and_rejected_is_found() {
    let victim = Victim::new();
    let accepted = last_offset(&read(&victim.path("events", 2)));
    victim.rewrite("quarantine", 2, |rows| {
        let index = rows.schema().index_of("offset").expect("a column");
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let offsets = rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        let changed = offsets.iter().enumerate().map(|(row, offset)| if row == 0 { accepted } else { *offset });
        columns[index] = Arc::new(Int64Array::from_iter_values(changed));
        RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
    });
    audit(victim.root(), &[]).finds(1, &["duplicates", "rows"], &["in `events` and in `quarantine`"]);
}

#[test]
fn a_row_that_is_gone_is_found_though_the_log_agrees_with_the_file() {
    for table in ["events", "quarantine"] {
        let victim = Victim::new();
        let lost = last_offset(&read(&victim.path(table, 2)));
        victim.rewrite(table, 2, without_last_row);
        audit(victim.root(), &[]).finds(1, &["rows"], &["file:runs.ndjson", "in no row:", &format!("offset {lost}")]);
    }
}

#[test]
fn a_number_of_metrics_that_was_changed_is_found_by_computing_it_anew() {
    let victim = Victim::new();
    let version = victim.newest("metrics");
    victim.rewrite("metrics", version, |rows| {
        let index = rows.schema().index_of("runs").expect("a column");
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let runs = rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        columns[index] = Arc::new(Int64Array::from_iter_values(runs.iter().map(|runs| runs + 1)));
        RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
    });
    assert_eq!(audit(victim.root(), &[]).code, Some(0), "nothing else is wrong");
    let answer = audit(victim.root(), &["--recompute"]);
    answer.finds(1, &["metrics"], &["column `runs` is", "task `refund_triage`"]);
}

#[test]
fn bounds_that_do_not_hold_are_found() {
    let victim = Victim::new();
    victim.edit("events", 2, "add", |add| {
        let mut stats: Value = serde_json::from_str(add["stats"].as_str().expect("text")).expect("JSON");
        stats["maxValues"]["offset"] = json!(0);
        add["stats"] = json!(stats.to_string());
    });
    audit(victim.root(), &[]).finds(1, &["files"], &["its greatest `offset` is"]);
}

/// A copy of the tables with log checkpoints, and with so many files or more put together; and what an audit says of it.
async fn maintained(compact_files: usize) -> (Victim, Answer) {
    let victim = Victim::new();
    let lake = Lake::open(text(victim.root()), &StorageOptions::default()).await.expect("opens");
    let settings = MaintainSettings { checkpoint_versions: 1, compact_files, ..MaintainSettings::default() };
    for table in Table::ALL {
        lake.maintain(table, &settings).await.expect("is done");
    }
    let answer = clean(victim.root());
    (victim, answer)
}

/// The same with log checkpoints, and nothing else of maintenance.
async fn with_checkpoints() -> Victim {
    maintained(usize::MAX).await.0
}

#[tokio::test]
async fn a_log_checkpoint_that_does_not_say_what_the_log_says_is_found() {
    let victim = with_checkpoints().await;
    // The log has the rows under another name, and so has the folder.
    let (name, path) = (victim.file("events", 3), victim.path("events", 3));
    let renamed = name.replace("part-", "part-renamed-");
    fs::rename(path, victim.root().join("events").join(&renamed)).expect("it is there");
    victim.edit("events", 3, "add", |add| {
        if add["path"] == name.as_str() {
            add["path"] = json!(renamed);
        }
    });
    let says = ["events: log checkpoint of version", "it names file", &name, "it does not name file", &renamed];
    audit(victim.root(), &[]).finds(1, &["log"], &says);

    // An application whose steps only the log knows.
    let victim = with_checkpoints().await;
    let mut lines = victim.entry("metrics", 1);
    lines.push(json!({"txn": {"appId": "somebody", "version": 7}}));
    victim.write_entry("metrics", 1, &lines);
    audit(victim.root(), &[]).finds(1, &["log"], &["it has `somebody` not at all, the log at 7"]);

    let victim = with_checkpoints().await;
    let log = victim.root().join("quarantine/_delta_log");
    let checkpoints: Vec<PathBuf> = fs::read_dir(&log)
        .expect("the log is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    assert!(!checkpoints.is_empty(), "there is a log checkpoint");
    for path in checkpoints {
        fs::write(path, "no Parquet").expect("it is written");
    }
    audit(victim.root(), &[]).finds(1, &["log"], &["quarantine: log checkpoint of version", "it cannot be read"]);
}

#[test]
fn what_is_wrong_is_told_to_a_person_with_its_place_and_what_to_do() {
    let told = |victim: &Victim, code: i32, parts: &[&str]| {
        let ended = bellwether(&["audit", "--root", text(victim.root())]);
        assert_eq!(ended.code, Some(code), "{}", ended.stdout);
        for part in parts {
            assert!(ended.stdout.contains(part), "`{part}` is not said:\n{}", ended.stdout);
        }
    };
    let victim = Victim::new();
    let name = victim.file("events", 2);
    fs::remove_file(victim.path("events", 2)).expect("it is there");
    told(
        &victim,
        1,
        &[
            "✓ tables",
            "✗ files       1 finding",
            &format!("events/{name}: it is not there"),
            "hint: ",
            "Not all is so.",
        ],
    );
    let victim = Victim::new();
    fs::remove_dir_all(victim.root().join("metrics")).expect("it is there");
    told(&victim, 4, &["✗ tables      1 finding", "? progress    not checked: ", "Not all of it can be judged."]);
}

#[test]
fn a_table_that_is_gone_is_found_whichever_it_is() {
    for table in Table::ALL.map(Table::name) {
        let victim = Victim::new();
        fs::remove_dir_all(victim.root().join(table)).expect("it is there");
        let answer = audit(victim.root(), &[]);
        assert_eq!((answer.code, answer.count("tables", "tables")), (Some(4), 5), "{:#}", answer.body);
        let findings = &answer.check("tables")["findings"];
        assert_eq!(
            (&findings[0]["place"], findings.as_array().map(Vec::len)),
            (&json!(table), Some(1)),
            "{findings:#}"
        );
        assert!(!victim.root().join(table).exists(), "an audit makes no tables");
    }
}

#[test]
fn a_table_of_another_program_is_told_as_one() {
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
    // The same is said of one of our own tables.
    let ended = bellwether(&["audit", "--root", text(&whole().root().join("events"))]);
    assert!(ended.stderr.contains("is a Delta table itself"), "{}", ended.stderr);

    let victim = Victim::new();
    fs::remove_dir_all(victim.root().join("metrics")).expect("it is there");
    write(&victim.root().join("metrics"));
    let answer = audit(victim.root(), &["--recompute"]);
    answer.finds(4, &["tables", "progress", "metrics"], &["it is not a table of bellwether: it has no column"]);
}

#[test]
fn a_foreign_table_a_missing_one_and_an_empty_folder_are_told_apart() {
    let victim = Victim::new();
    victim.edit("metrics", 0, "metaData", |metadata| {
        metadata["schemaString"] = json!(r#"{"type":"struct","fields":[{"name":"x","type":"long"}]}"#);
    });
    let answer = audit(victim.root(), &["--recompute"]);
    answer.finds(4, &["tables", "progress", "metrics"], &["it is not a table of bellwether"]);

    let victim = Victim::new();
    fs::remove_dir_all(victim.root().join("quarantine")).expect("it is there");
    let answer = audit(victim.root(), &[]);
    answer.finds(4, &["tables", "duplicates", "rows"], &["quarantine", "the table is not there"]);

    let empty = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    for (root, says) in [
        (empty.path().to_owned(), "there are no tables under `"),
        (empty.path().join("nowhere"), "there is no folder `"),
    ] {
        let ended = bellwether(&["audit", "--root", text(&root)]);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(says) && ended.stderr.contains("hint: name the root"), "{}", ended.stderr);
    }
    assert!(listing(empty.path()).is_empty(), "an audit makes nothing");
    let ended = bellwether(&["audit"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[test]
fn a_store_that_does_not_answer_is_not_taken_for_one_without_tables() {
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
fn a_first_start_that_was_stopped_half_way_has_lost_nothing() {
    let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
    let log = dir.path().join("events/_delta_log");
    fs::create_dir_all(&log).expect("a folder");
    fs::copy(whole().root().join("events/_delta_log/00000000000000000000.json"), log.join("00000000000000000000.json"))
        .expect("the entry is copied");
    let answer = clean(dir.path());
    assert!(answer.check("tables")["notes"].to_string().contains("`metrics` is not made yet"), "{:#}", answer.body);
}

#[tokio::test]
async fn maintenance_and_a_log_whose_beginning_is_gone_stay_clean() {
    let (victim, answer) = maintained(2).await;
    assert!(answer.count("files", "files") < 10, "files were put together: {:#}", answer.body);
    let path = victim.root().join("events");
    // The log is cleaned up to its checkpoint; the last entry before it is left.
    for version in 0..victim.newest("events") - 1 {
        fs::remove_file(victim.entry_path("events", version)).expect("it is there");
    }
    let answer = clean(victim.root());
    assert!(answer.check("log")["notes"].to_string().contains("have been cleaned up"), "{:#}", answer.body);
    // Without its checkpoint such a log says nothing.
    fs::remove_file(path.join("_delta_log/_last_checkpoint")).expect("it is there");
    let answer = audit(victim.root(), &[]);
    answer.finds(4, &["tables", "offsets", "duplicates", "rows", "progress"], &["no log checkpoint stands for"]);
}

#[test]
fn catching_up_with_bad_messages_under_two_jobs_is_clean() {
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
    // Another job reads all of it once more into the same tables, as after a topic was made anew.
    let config = fs::read_to_string(setup.config()).expect("it is there");
    let other = setup.file("other.toml");
    let group = format!("other-{}", bellwether_lake::unique_id().simple());
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
fn an_audit_beside_running_roles_is_clean_every_time() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("audit", 2);
    let setup = Setup::new(&broker.address, &topic, "[ingest]\nflush_interval = \"20ms\"\n");
    broker.publish_events(&topic, 2, &runs("first", 20));
    let running = setup.start("run");
    until("the first are in the tables", || {
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
    until("all are in the tables", || (clean(&setup.root()).count("rows", "events") >= sent).then_some(()));
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
    assert_eq!(clean(&setup.root()).count("rows", "events"), sent);
}

#[test]
fn the_gaps_of_transactions_are_explained_to_the_offset() {
    let Some(broker) = broker() else { return };
    if broker.is_mock() {
        skipped("the embedded broker writes no markers of transactions; a real one is needed");
        return;
    }
    let topic = broker.topic("audit", 1);
    let id = format!("audit-{}", bellwether_lake::unique_id().simple());
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("transactional.id", &id)
        .create()
        .expect("a producer");
    producer.init_transactions(patience()).expect("transactions are there");
    let transaction = |name: &str, count: usize, commit: bool| {
        producer.begin_transaction().expect("it begins");
        for event in runs(name, count) {
            let body = event.to_string();
            let record = BaseRecord::<(), str>::to(&topic).partition(0).payload(&body);
            producer.send(record).map_err(|(error, _)| error).expect("it is queued");
        }
        producer.flush(patience()).expect("it is taken");
        let ended =
            if commit { producer.commit_transaction(patience()) } else { producer.abort_transaction(patience()) };
        ended.expect("it ends");
    };
    transaction("one", 3, true);
    transaction("two", 2, false);
    transaction("three", 4, true);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    // Two markers and the two messages that were taken back lie before the last message.
    let answer = clean(&setup.root());
    assert_eq!([answer.count("rows", "events"), answer.count("rows", "passed_over")], [7, 4]);
    transaction("four", 1, false);
    broker.publish(&topic, [Message::new(run("last").to_string())]);
    setup.catch_up();
    // The marker of the third, and the fourth with its own.
    let answer = clean(&setup.root());
    assert_eq!([answer.count("rows", "events"), answer.count("rows", "passed_over")], [8, 7]);
}
