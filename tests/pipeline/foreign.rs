//! Another engine (Python's `deltalake`) works on the same tables: it rewrites, vacuums, cleans up logs, writes checkpoints
//! and upgrades the protocol while ingestion and aggregation continue.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_base::ErrorKind;
use bellwether_lake::{CommitLog, Lake, MaintainSettings, StorageOptions};
use bellwether_tables::Table;
use serde_json::Value;

use crate::common::event::{self, rfc3339};
use crate::common::program::{Running, text};
use crate::common::{bellwether, python, repository};
use crate::late::feed::{Feed, NOW};

/// Builds runs that ended a minute before the feed's current time.
pub(super) fn runs(prefix: &str, count: usize) -> Vec<Value> {
    let now = UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"));
    let at = |mut run: Value| {
        run["data"]["started_at"] = Value::from(rfc3339(now - Duration::from_secs(62)));
        run["data"]["ended_at"] = Value::from(rfc3339(now - Duration::from_secs(60)));
        run
    };
    event::runs(prefix, count).into_iter().map(at).collect()
}

/// Lets the other engine take steps on a table, and returns the state that it reports.
pub(super) fn foreign(python: &Path, root: &Path, table: Table, steps: &[&str]) -> Value {
    let (script, path) = (repository("tests/reader/foreign.py"), root.join(table.name()));
    let mut command = Command::new(python);
    command.arg(&script).arg(&path).args(steps);
    let answer = Running::spawn(&mut command, format!("another engine: {steps:?}")).end().succeeds();
    serde_json::from_str(&answer).expect("it prints an object")
}

async fn runs_of(feed: &Feed) -> i64 {
    feed.sql("SELECT count(*) AS runs FROM runs").await[0]["runs"].as_i64().expect("a number")
}

pub(super) fn audited(root: &Path) {
    bellwether(&["audit", "--recompute", "--root", text(root)]).succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_vacuum_and_clean_up_by_another_engine_lose_nothing() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    let mut standing = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    for n in 0..6 {
        Box::pin(feed.commit_events(&runs(&format!("first-{n}"), 20))).await;
        Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    }
    for table in [Table::Events, Table::Metrics] {
        let left = foreign(&python, &root, table, &["optimize"]);
        assert_eq!(left["files"], 1, "{left}");
    }
    audited(&root);
    // The aggregator has caught up; it continues from its last version.
    Box::pin(feed.commit_events(&runs("second", 20))).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    for table in [Table::Events, Table::Metrics] {
        foreign(&python, &root, table, &["optimize", "vacuum", "checkpoint"]);
    }
    // It reads these versions, which have no new rows, before their entries are removed.
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    for table in [Table::Events, Table::Metrics] {
        foreign(&python, &root, table, &["clean-up"]);
        assert!(
            !root.join(table.name()).join("_delta_log/00000000000000000003.json").exists(),
            "the entry is cleaned up"
        );
    }
    Box::pin(feed.commit_events(&runs("third", 20))).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    assert_eq!(runs_of(&feed).await, 160);
    feed.folded().await;
    // Compaction merges files of the other engine with ours.
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    feed.lake.maintain(Table::Events, &settings).await.expect("maintains");
    feed.lake.checkpoint(Table::Events).await.expect("checkpoints");
    assert_eq!(runs_of(&feed).await, 160);
    audited(&root);
    assert_eq!(foreign(&python, &root, Table::Events, &[])["rows"], 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_reports_removed_versions_and_a_rebuild_recovers() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    Box::pin(feed.commit_events(&runs("first", 20))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    for n in 0..4 {
        Box::pin(feed.commit_events(&runs(&format!("second-{n}"), 20))).await;
    }
    foreign(&python, &root, Table::Events, &["optimize", "vacuum", "clean-up"]);
    let registry = prometheus::Registry::new();
    let error = match Box::pin(Aggregator::open(&feed.lake, AggregatorSettings::default(), None, &registry)).await {
        Ok(mut late) => Box::pin(late.run_until_caught_up()).await.expect_err("its versions are gone"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.hint().is_some_and(|hint| hint.contains("bellwether rebuild")), "{error:?}");
    let stop = tokio_util::sync::CancellationToken::new();
    Box::pin(bellwether_aggregate::rebuild(&feed.lake, AggregatorSettings::default(), |_| {}, &stop))
        .await
        .expect("rebuilds");
    assert_eq!(runs_of(&feed).await, 100);
    feed.folded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_upgrade_by_another_engine_is_followed_or_refused_by_name() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    Box::pin(feed.commit_events(&runs("first", 10))).await;
    for steps in [
        &["feature=AppendOnly"][..],
        &["feature=ChangeDataFeed"],
        &["constraint=partition >= 0", "drop-constraint"],
        &["feature=V2Checkpoint", "checkpoint"],
    ] {
        foreign(&python, &root, Table::Events, steps);
        Box::pin(feed.commit_events(&runs(&format!("after {steps:?}"), 10))).await;
    }
    feed.lake.checkpoint(Table::Events).await.expect("checkpoints");
    Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    feed.folded().await;
    audited(&root);
    assert_eq!(runs_of(&feed).await, 50);

    for (table, step, named) in [
        (Table::Quarantine, "constraint=size_bytes >= 0", "checkConstraints"),
        (Table::Metrics, "feature=DeletionVectors", "deletionVectors"),
        (Table::Alerts, "feature=RowTracking", "rowTracking"),
        (Table::Releases, "feature=DomainMetadata", "domainMetadata"),
    ] {
        let log = feed.lake.log(table);
        let stands = log.load().await.expect("loads").version;
        foreign(&python, &root, table, &[step]);
        let error = Lake::open(text(&root), &StorageOptions::default()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(&format!("table `{}` uses `{named}`", table.name())), "{error:?}");
        let ended = bellwether(&["audit", "--root", text(&root)]);
        assert!(ended.code == Some(4) && ended.stdout.contains(named), "{}{}", ended.stdout, ended.stderr);
        // Undo the upgrade for the next case.
        let version = log.load().await.expect("loads").version;
        assert!(version > stands);
        for version in stands + 1..=version {
            let entry = root.join(table.name()).join(format!("_delta_log/{version:020}.json"));
            std::fs::remove_file(entry).expect("it exists");
        }
    }
    Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
}

/// Removes columns from the schema in a table's log.
pub(super) fn make_older(root: &Path, table: Table, names: &[&str]) {
    let entry = root.join(table.name()).join("_delta_log/00000000000000000000.json");
    let lines = std::fs::read_to_string(&entry).expect("it exists");
    let older = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        if let Some(text) = line["metaData"]["schemaString"].as_str() {
            let mut schema: Value = serde_json::from_str(text).expect("JSON");
            let fields = schema["fields"].as_array_mut().expect("fields");
            fields.retain(|field| !names.iter().any(|name| field["name"] == *name));
            line["metaData"]["schemaString"] = Value::String(schema.to_string());
        }
        format!("{line}\n")
    });
    let older: String = older.collect();
    std::fs::write(entry, older).expect("writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_earlier_version_is_queried_upgraded_and_read_by_other_engines() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    let gone = ["tokens_input", "cost_nanos", "cost_currency"];
    make_older(&root, Table::Events, &gone);
    Box::pin(feed.commit_events(&runs("before", 20))).await;
    // The files have the columns and the schema does not: queries do not see them, and nothing fails.
    let sql = "SELECT count(*) AS runs, count(cost) AS priced FROM runs";
    let asked = bellwether(&["sql", "--root", text(&root), "--format", "json", sql]).succeeds();
    let asked: Value = serde_json::from_str(&asked).expect("JSON");
    assert_eq!((&asked[0]["runs"], &asked[0]["priced"]), (&Value::from(20), &Value::from(0)));
    let left = foreign(&python, &root, Table::Events, &[]);
    assert_eq!((&left["version"], &left["rows"]), (&Value::from(1), &Value::from(20)), "a query writes nothing");

    Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
    Box::pin(feed.commit_events(&runs("after", 20))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    feed.folded().await;
    let left = foreign(&python, &root, Table::Events, &[]);
    assert_eq!((&left["version"], &left["rows"]), (&Value::from(3), &Value::from(40)));
    let columns: Vec<&str> = Table::Events.columns().iter().map(|column| column.name).collect();
    assert_eq!(left["columns"], serde_json::json!(columns));
    let queries = r#"[{"table": "events", "name": "rows", "sum": "count(*)"},
        {"table": "events", "name": "tokens", "sum": "count(tokens_input)"}]"#;
    let mut command = Command::new(&python);
    command.args([text(&repository("tests/reader/read.py")), text(&root), queries]);
    let read = Running::spawn(&mut command, "the independent reader".to_owned()).end().succeeds();
    let read: Value = serde_json::from_str(&read).expect("JSON");
    assert_eq!((&read["events"]["rows"], &read["events"]["rows_of_pyarrow"]), (&Value::from("40"), &Value::from("40")));
    assert_eq!(
        read["events"]["tokens"],
        feed.sql("SELECT count(tokens_input) AS n FROM events").await[0]["n"].to_string()
    );
    audited(&root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_reads_a_damaged_file_ends_with_exit_code_4() {
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    Box::pin(feed.commit_events(&runs("some", 400))).await;
    let file = feed.lake.active_files(Table::Events).await.expect("lists").1.remove(0);
    let path = root.join("events").join(&file.path);
    let bytes = std::fs::read(&path).expect("it exists");
    let asked = || bellwether(&["sql", "--root", text(&root), "SELECT count(DISTINCT run_id) FROM events"]);
    asked().succeeds();
    let mut garbled = bytes.clone();
    let length = garbled.len();
    garbled[4..length / 2].iter_mut().for_each(|byte| *byte = !*byte);
    for damaged in [None, Some(&bytes[..length / 2]), Some(&garbled[..])] {
        match damaged {
            None => std::fs::remove_file(&path).expect("removes"),
            Some(bytes) => std::fs::write(&path, bytes).expect("writes"),
        }
        let ended = asked();
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        assert!(ended.stderr.contains("hint:") && ended.stderr.contains("audit"), "{}", ended.stderr);
    }
    std::fs::write(&path, &bytes).expect("is brought back");
    asked().succeeds();
}
