//! Columns come with new versions: programs of different versions work on the same tables, and lose nothing of each other's.
//!
//! A later version is played by another engine, which adds a column and writes values into it; an earlier one by tables that
//! lack columns.

use std::path::Path;

use bellwether_aggregate::AggregatorSettings;
use bellwether_lake::{Lake, MaintainSettings, StorageOptions};
use bellwether_tables::Table;
use serde_json::Value;

use super::foreign::{audited, foreign, make_older, runs};
use crate::common::program::{Running, text};
use crate::common::{bellwether, python, repository};
use crate::late::feed::Feed;

/// The column of the later version.
const LATER: &str = "later_note";

/// Returns how many values an independent reader finds in a column.
fn values_of(python: &Path, root: &Path, table: Table, column: &str) -> String {
    let query = serde_json::json!([{"table": table.name(), "name": "values", "sum": format!("count({column})")}]);
    let mut command = std::process::Command::new(python);
    command.args([text(&repository("tests/reader/read.py")), text(root), &query.to_string()]);
    let read = Running::spawn(&mut command, "the independent reader".to_owned()).end().succeeds();
    let read: Value = serde_json::from_str(&read).expect("JSON");
    read[table.name()]["values"].as_str().expect("a number").to_owned()
}

/// Returns the paths of a table's files.
async fn files(lake: &Lake, table: Table) -> Vec<String> {
    lake.active_files(table).await.expect("lists").1.into_iter().map(|file| file.path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_program_works_on_beside_a_later_one_and_keeps_its_values() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    Box::pin(feed.commit_events(&runs("before", 20))).await;
    let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    // The later version adds its column to both tables and writes values, while this one has them open.
    for table in [Table::Events, Table::Metrics] {
        foreign(&python, &root, table, &[&format!("add-column={LATER}"), &format!("fill={LATER}")]);
    }
    let later = [Table::Events, Table::Metrics].map(|table| values_of(&python, &root, table, LATER));
    assert_eq!(later[0], "20");
    assert_ne!(later[1], "0");
    // Both go on: this one writes, aggregates, maintains and queries.
    for n in 0..6 {
        Box::pin(feed.commit_events(&runs(&format!("after-{n}"), 10))).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    }
    let eager = MaintainSettings { compact_files: 2, checkpoint_versions: 1, ..MaintainSettings::default() };
    for table in [Table::Events, Table::Metrics] {
        let before = files(&feed.lake, table).await;
        while feed.lake.maintain(table, &eager).await.expect("maintains").files_compacted > 0 {}
        let after = files(&feed.lake, table).await;
        assert!(after.len() < before.len(), "files of this version are combined: {after:?}");
    }
    feed.folded().await;
    assert_eq!([Table::Events, Table::Metrics].map(|table| values_of(&python, &root, table, LATER)), later);
    assert_eq!(feed.sql("SELECT count(*) AS runs FROM runs").await[0]["runs"], 80);
    let found = feed.sql(&format!("SELECT count({LATER}) AS noted FROM events")).await;
    assert_eq!(found[0]["noted"], 20, "what is in a table can be queried");
    audited(&root);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_program_refuses_to_rebuild_what_a_later_one_wrote() {
    let Some(python) = python() else { return };
    let mut feed = Feed::new().await;
    let root = feed.root().to_owned();
    Box::pin(feed.commit_events(&runs("some", 20))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    foreign(&python, &root, Table::Metrics, &[&format!("add-column={LATER}"), &format!("fill={LATER}")]);
    let later = values_of(&python, &root, Table::Metrics, LATER);
    let config = root.with_extension("toml");
    std::fs::write(&config, format!("[tables]\nroot = {:?}\n", text(&root))).expect("writes");
    let ended = bellwether(&["rebuild", "--config", text(&config)]);
    std::fs::remove_file(&config).expect("it exists");
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("`metrics`") && ended.stderr.contains("hint: "), "{}", ended.stderr);
    assert_eq!(values_of(&python, &root, Table::Metrics, LATER), later);
    audited(&root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_program_adds_its_columns_without_rewriting_while_an_earlier_one_writes() {
    let Some(python) = python() else { return };
    let mut earlier = Feed::new().await;
    let root = earlier.root().to_owned();
    // Optional columns of both tables, as if this program were the first version to have them.
    let (new, totals) = (["cost_nanos", "cost_currency", "tokens_input"], ["tokens_runs", "saturated"]);
    make_older(&root, Table::Events, &new);
    make_older(&root, Table::Metrics, &totals);
    Box::pin(earlier.commit_events(&runs("before", 20))).await;
    // The earlier program holds the tables open as they were.
    // Its own queries name no later column, as those of `rolling_history` here would.
    let settings = AggregatorSettings { rolling_history: false, ..AggregatorSettings::default() };
    let mut aggregator = Box::pin(earlier.aggregator(settings, None)).await;
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    let before = [files(&earlier.lake, Table::Events).await, files(&earlier.lake, Table::Metrics).await];
    let later = Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
    assert_eq!(
        [files(&later, Table::Events).await, files(&later, Table::Metrics).await],
        before,
        "nothing is rewritten"
    );
    for table in [Table::Events, Table::Metrics] {
        let columns: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
        assert_eq!(foreign(&python, &root, table, &[])["columns"], serde_json::json!(columns), "{table:?}");
    }
    // Opening it again changes nothing more.
    let version = foreign(&python, &root, Table::Events, &[])["version"].clone();
    Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
    assert_eq!(foreign(&python, &root, Table::Events, &[])["version"], version);
    // The earlier program commits on, and neither its rows nor those of the later one are lost.
    Box::pin(earlier.commit_events(&runs("beside", 20))).await;
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    drop(aggregator);
    Box::pin(earlier.commit_events(&runs("after", 20))).await;
    Box::pin(earlier.aggregate(AggregatorSettings::default())).await;
    earlier.folded().await;
    assert_eq!(earlier.sql("SELECT count(*) AS runs FROM runs").await[0]["runs"], 60);
    let counted = earlier.sql("SELECT CAST(sum(runs_observed) AS BIGINT) AS runs FROM release_summary").await;
    assert_eq!(counted[0]["runs"], 60);
    audited(&root);
}
