//! The watcher on tables of its own: versions that are gone, other watchers, restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{BEGIN, Cell, cell, default_value, rows};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bellwether_alerts::current::current_alerts;
use bellwether_alerts::{Contracts, Rule, Rules, Watch, WatchSettings, Watcher, run};
use bellwether_base::{ErrorKind, ManualClock, unique_id};
use bellwether_follow::{FollowHealth, Until};
use bellwether_lake::{
    Advance, Commit, CommitLog, Lake, Layout, MaintainSettings, Outcome, PartitionRange, StorageOptions,
};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

struct Tables {
    folder: tempfile::TempDir,
    lake: Lake,
}

/// Minutes [from, to) of a baseline and a canary; half of the canary's runs fail.
fn cells(from: i64, to: i64) -> Vec<Cell<'static>> {
    let of_minute = |minute| {
        let canary = Cell { release: "v2", stage: "canary", ..cell(minute, "checkout", 4, 2) };
        [cell(minute, "checkout", 10, 1), canary]
    };
    (from..to).flat_map(of_minute).collect()
}

impl Tables {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = Lake::open(folder.path().to_str().expect("UTF-8"), &StorageOptions::default()).await.expect("opens");
        Self { folder, lake }
    }

    /// Makes tables with a clock that the test moves.
    async fn at(clock: &ManualClock) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_str().expect("UTF-8");
        let options = StorageOptions::default();
        let lake = Lake::open_with_clock(root, &options, Arc::new(clock.clone())).await.expect("opens");
        Self { folder, lake }
    }

    async fn commit(&self, table: Table, app: &str, batch: Option<&RecordBatch>, ranges: Vec<PartitionRange>) {
        let log = self.lake.log(table);
        let on = log.load().await.expect("loads");
        let mut files = Vec::new();
        if let Some(batch) = batch {
            files =
                self.lake.write(table, batch).await.expect("writes").into_iter().map(|written| written.file).collect();
        }
        let next = on.next(app).unwrap_or(0) + 1;
        let advances = vec![Advance { app_id: app.to_owned(), expected: on.next(app), next }];
        let commit = Commit { uuid: unique_id(), advances, files, operation: "test", ranges, facts: Map::new() };
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    }

    /// Adds minutes [from, to) of [`cells`], in one commit to `events` and one to `metrics`.
    async fn add(&self, from: i64, to: i64) {
        self.add_cells(&cells(from, to), from, to).await;
    }

    /// Adds rows to `metrics`, with a commit to `events` that brings its source from a minute to another.
    async fn add_cells(&self, cells: &[Cell<'_>], from: i64, to: i64) {
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from,
            next: to,
            end_offset: Some(to),
            newest_event_micros: Some((BEGIN + to) * 60_000_000 - 1),
            passed_over: None,
        };
        self.commit(Table::Events, "job/t/0", None, vec![range]).await;
        // The number of `aggregate/0` is the version of `events` that is read next.
        let log = self.lake.log(Table::Metrics);
        let on = log.load().await.expect("loads");
        let files = self
            .lake
            .write(Table::Metrics, &rows(cells))
            .await
            .expect("writes")
            .into_iter()
            .map(|written| written.file)
            .collect();
        let next = self.lake.log(Table::Events).latest_version().await.expect("a version") + 1;
        let advances = vec![Advance { app_id: "aggregate/0".to_owned(), expected: on.next("aggregate/0"), next }];
        let commit =
            Commit { uuid: unique_id(), advances, files, operation: "test", ranges: Vec::new(), facts: Map::new() };
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    }

    /// Replaces all rows by the same rows, as a rebuild does.
    async fn rebuild(&self, to: i64) {
        let log = self.lake.log(Table::Metrics);
        let on = log.load().await.expect("loads");
        let old = self.lake.files_at(Table::Metrics, on.version).await.expect("reads");
        let written = self.lake.write(Table::Metrics, &rows(&cells(0, to))).await.expect("writes");
        let next = on.next("aggregate/0").expect("it was aggregated");
        let layout = Layout { generation: 1, shards: 1 };
        let commit = Commit {
            uuid: unique_id(),
            advances: vec![
                Advance { app_id: "aggregate/0".to_owned(), expected: Some(next), next },
                layout.advance(&on),
            ],
            files: written.into_iter().map(|written| written.file).collect(),
            operation: "REBUILD",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        assert!(matches!(log.try_replace(&on, &commit, &old).await, Ok(Outcome::Committed(_))));
    }

    fn watch(&self) -> Watch {
        let mut rules = Rules::load(None, &[]);
        rules.rules.retain(|rule| rule.name == "success_regression");
        Watch {
            settings: WatchSettings::default(),
            rules,
            contracts: Contracts::new(),
            lake: self.lake.clone(),
            health: FollowHealth::default(),
        }
    }

    async fn states(&self) -> BTreeMap<String, String> {
        current_alerts(&self.lake).await.expect("reads").into_iter().map(|alert| (alert.rule, alert.state)).collect()
    }

    async fn evaluations(&self) -> i64 {
        self.lake.log(Table::Alerts).load().await.expect("loads").next("watch/0").unwrap_or(0)
    }
}

fn fires() -> BTreeMap<String, String> {
    BTreeMap::from([("success_regression".to_owned(), "firing".to_owned())])
}

#[tokio::test]
async fn after_a_version_was_vacuumed_state_is_rebuilt_from_the_newest_one() {
    let tables = Tables::new().await;
    tables.add(0, 3).await;
    let watch = tables.watch();
    let mut watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    assert_eq!(tables.states().await, BTreeMap::new());
    for hour in 0..3 {
        tables.add(3 + hour * 60, 63 + hour * 60).await;
    }
    // Small files become one, and the small ones are vacuumed.
    let log = tables.lake.log(Table::Metrics);
    let small: Vec<String> =
        log.entry(2).await.expect("reads").expect("there").added.iter().map(|file| file.path.clone()).collect();
    let settings = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert!(tables.lake.compact(Table::Metrics, &settings).await.expect("compacts") >= 4);
    for path in &small {
        std::fs::remove_file(tables.folder.path().join("metrics").join(path)).expect("it was there");
    }
    let error = watcher.turn().await.expect_err("a file is gone");
    assert_eq!(error.kind(), ErrorKind::Data, "{}", error.chain());
    // The role rebuilds its state from the newest version.
    run(watch, Registry::new(), Until::caught_up(), CancellationToken::new()).await.expect("goes on");
    assert_eq!(tables.states().await, fires());
}

#[tokio::test]
async fn after_log_entries_were_cleaned_up_state_is_rebuilt_from_the_newest_version() {
    let tables = Tables::new().await;
    tables.add(0, 3).await;
    let watch = tables.watch();
    let mut watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    tables.add(3, 120).await;
    tables.add(120, 200).await;
    tables
        .lake
        .maintain(Table::Metrics, &MaintainSettings { checkpoint_versions: 1, ..MaintainSettings::default() })
        .await
        .expect("a checkpoint");
    for version in 0..3 {
        let entry = tables.folder.path().join(format!("metrics/_delta_log/{version:020}.json"));
        std::fs::remove_file(entry).expect("it was there");
    }
    let error = watcher.turn().await.expect_err("an entry is gone");
    assert!(error.message().contains("version 2 of `metrics` is no longer in its log"), "{}", error.chain());
    run(watch, Registry::new(), Until::caught_up(), CancellationToken::new()).await.expect("goes on");
    assert_eq!(tables.states().await, fires());
}

#[tokio::test]
async fn live_restarted_and_at_once_have_the_same_alerts() {
    let live = Tables::new().await;
    let watch = live.watch();
    live.add(0, 5).await;
    let mut watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    for step in 1..30 {
        live.add(step * 5, step * 5 + 5).await;
        if step % 7 == 0 {
            watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens again");
        }
        watcher.turn().await.expect("judges");
    }
    assert_eq!(live.states().await, fires());
    let whole = Tables::new().await;
    whole.add(0, 150).await;
    run(whole.watch(), Registry::new(), Until::caught_up(), CancellationToken::new()).await.expect("judges");
    let alerts_of = |lake: &Lake| {
        let lake = lake.clone();
        async move { current_alerts(&lake).await.expect("reads") }
    };
    let (a, b) = (alerts_of(&live.lake).await, alerts_of(&whole.lake).await);
    let key = |alerts: &[bellwether_alerts::current::CurrentAlert]| {
        alerts
            .iter()
            .filter(|alert| !alert.stale)
            .map(|alert| (alert.alert_id.clone(), alert.state.clone(), alert.at))
            .collect::<Vec<_>>()
    };
    // By the time of day both are long over: the firing alert is stale, at the same moment.
    assert_eq!(
        a.iter().map(|alert| (alert.alert_id.clone(), alert.at)).collect::<Vec<_>>(),
        b.iter().map(|alert| (alert.alert_id.clone(), alert.at)).collect::<Vec<_>>()
    );
    assert_eq!(key(&a), key(&b));
}

#[tokio::test]
async fn after_a_rebuild_no_row_counts_twice() {
    let tables = Tables::new().await;
    tables.add(0, 180).await;
    let watch = tables.watch();
    let mut watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    watcher.turn().await.expect("judges");
    let before = current_alerts(&tables.lake).await.expect("reads");
    assert_eq!(tables.states().await, fires());
    tables.rebuild(180).await;
    watcher.turn().await.expect("reads");
    assert!(watcher.is_outdated());
    run(watch, Registry::new(), Until::caught_up(), CancellationToken::new()).await.expect("goes on");
    assert_eq!(current_alerts(&tables.lake).await.expect("reads"), before, "there are no new transitions");
}

#[tokio::test]
async fn of_two_watchers_one_is_fenced() {
    let tables = Tables::new().await;
    tables.add(0, 3).await;
    let watch = tables.watch();
    let mut first = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    let mut second = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    tables.add(3, 180).await;
    first.turn().await.expect("judges");
    let evaluations = tables.evaluations().await;
    assert!(evaluations >= 1);
    assert_eq!(second.turn().await.expect_err("fenced").kind(), ErrorKind::Fenced);
    // Opened again, it appends nothing twice.
    let mut second = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    second.turn().await.expect("judges");
    assert_eq!(tables.evaluations().await, evaluations);
}

/// A rule `mine` over `metrics`.
fn own_rule(sql: &str) -> Rule {
    let text = format!(
        "name = \"mine\"\ndoc = \"Mine.\"\nseverity = \"page\"\nsource = \"metrics\"\nseries = [\"task\"]\nvalue = \"rate\"\n\
         sql = \"{sql}\"\ndetector = {{ kind = \"occurrence\" }}\n"
    );
    Rule::parse(&text, "test").unwrap_or_else(|broken| panic!("{}", broken.why))
}

/// State and title of each row about failures of the rule `mine`.
async fn failures_of_mine(lake: &Lake) -> Vec<(String, String)> {
    let (_, files) = lake.active_files(Table::Alerts).await.expect("lists");
    let mut told = Vec::new();
    for file in &files {
        for batch in
            lake.read(Table::Alerts, file, Some(&["rule", "state", "title", "evaluation"])).await.expect("reads")
        {
            for row in 0..batch.num_rows() {
                let text = |column: usize| batch.column(column).as_string_view().value(row).to_owned();
                let evaluation = batch.column(3).as_primitive::<Int64Type>().value(row);
                if text(0) == "rule_failing" {
                    told.push((evaluation, row, text(1), text(2)));
                }
            }
        }
    }
    told.sort();
    told.into_iter().map(|(_, _, state, title)| (state, title)).collect()
}

#[tokio::test]
async fn a_rule_that_fails_is_an_alert_of_its_own_until_it_works_or_is_gone() {
    const MINUTE: i64 = 60_000_000;
    let clock = ManualClock::at((BEGIN + 181) * MINUTE);
    let tables = Tables::at(&clock).await;
    tables.add(0, 180).await;
    let with = |rule: Option<Rule>| {
        let mut watch = tables.watch();
        watch.rules.rules.extend(rule);
        watch
    };
    let broken = with(Some(own_rule("SELECT window_start, task, nope AS events, runs FROM metrics")));
    let registry = Registry::new();
    let mut watcher = Watcher::open(&broken, &registry).await.expect("opens");
    let mut minute = 180;
    for _ in 0..6 {
        tables.add(minute, minute + 5).await;
        minute += 5;
        clock.advance(5 * MINUTE);
        watcher.turn().await.expect("the other rules go on");
    }
    let states = |told: &[(String, String)]| told.iter().map(|(state, _)| state.clone()).collect::<Vec<_>>();
    let told = failures_of_mine(&tables.lake).await;
    assert_eq!(states(&told), ["pending", "firing"], "{told:?}");
    assert!(told[1].1.contains("mine: rule fails") && told[1].1.contains("there is no column `nope`"), "{told:?}");
    assert_eq!(tables.states().await.get("success_regression").map(String::as_str), Some("firing"));
    let why = broken.health.degraded().expect("health knows");
    assert!(why.contains("rule `mine` fails") && why.contains("nope"), "{why}");
    let counted = registry.gather().into_iter().find(|family| family.name() == "bellwether_watch_rule_failures_total");
    let counted = counted.expect("it is counted");
    let of_mine =
        counted.get_metric().iter().find(|metric| metric.get_label().iter().any(|label| label.value() == "mine"));
    assert!(of_mine.is_some_and(|metric| metric.get_counter().get_value() >= 4.0));
    // After a restart it still fails, which is no transition. Once it is mended, the alert resolves.
    watcher = Watcher::open(&broken, &Registry::new()).await.expect("opens");
    watcher.turn().await.expect("judges");
    assert_eq!(failures_of_mine(&tables.lake).await.len(), 2);
    let mended = with(Some(own_rule("SELECT window_start, task, failure AS events, runs FROM metrics")));
    watcher = Watcher::open(&mended, &Registry::new()).await.expect("opens");
    clock.advance(MINUTE);
    watcher.turn().await.expect("judges");
    assert_eq!(states(&failures_of_mine(&tables.lake).await), ["pending", "firing", "resolved"]);
    assert_eq!(mended.health.degraded(), None);
    // Broken once more, and then removed.
    watcher = Watcher::open(&broken, &Registry::new()).await.expect("opens");
    clock.advance(MINUTE);
    watcher.turn().await.expect("judges");
    let without = with(None);
    watcher = Watcher::open(&without, &Registry::new()).await.expect("opens");
    clock.advance(MINUTE);
    watcher.turn().await.expect("judges");
    let last = failures_of_mine(&tables.lake).await;
    assert!(["resolved", "inactive"].contains(&last.last().expect("rows").0.as_str()), "{last:?}");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_stops_the_rules_that_read_it_and_no_others() {
    const MINUTE: i64 = 60_000_000;
    let clock = ManualClock::at((BEGIN + 181) * MINUTE);
    let tables = Tables::at(&clock).await;
    tables.add(0, 180).await;
    let of = |name: &str, table: &str| {
        let text = format!(
            "name = \"{name}\"\ndoc = \"Mine.\"\nseverity = \"ticket\"\nsource = \"tables\"\nvalue = \"rows\"\n\
             sql = \"SELECT count(*) + max(length(task)) AS value FROM {table}\"\n\
             detector = {{ kind = \"threshold\", above = 0.0, hold = 0 }}\n"
        );
        Rule::parse(&text, "test").unwrap_or_else(|broken| panic!("{}", broken.why))
    };
    let history = RecordBatch::new_empty(Table::Releases.arrow_schema());
    let mut row: Map<String, Value> = Map::new();
    for column in Table::Releases.columns().iter().filter(|column| column.required) {
        row.insert(column.name.to_owned(), default_value(column.name, column.kind));
    }
    let mut decoder = arrow::json::ReaderBuilder::new(history.schema()).build_decoder().expect("a decoder");
    decoder.serialize(&[row]).expect("rows");
    let releases = decoder.flush().expect("rows").expect("some");
    tables.commit(Table::Releases, "aggregate/0", Some(&releases), Vec::new()).await;
    let mut watch = tables.watch();
    watch.rules.rules.extend([of("of_metrics", "metrics"), of("of_releases", "releases")]);
    let mut watcher = Watcher::open(&watch, &Registry::new()).await.expect("opens");
    let (_, files) = tables.lake.active_files(Table::Releases).await.expect("lists");
    std::fs::remove_file(tables.folder.path().join("releases").join(&files[0].path)).expect("it was there");
    for _ in 0..4 {
        clock.advance(15 * MINUTE);
        watcher.turn().await.expect("the role goes on");
    }
    let states = tables.states().await;
    assert_eq!(states.get("of_metrics").map(String::as_str), Some("firing"), "{states:?}");
    assert_eq!(states.get("success_regression").map(String::as_str), Some("firing"), "{states:?}");
    assert_eq!(states.get("of_releases"), None, "{states:?}");
    assert_eq!(states.get("rule_failing").map(String::as_str), Some("firing"), "{states:?}");
    assert!(watch.health.degraded().is_some_and(|why| why.contains("`of_releases`") && !why.contains("`of_metrics`")));
}

/// Every transition that stands in `alerts`: rule, labels of its series, time, state, and whether it is stale.
async fn standing(lake: &Lake) -> Vec<(String, String, i64, String)> {
    let (_, files) = lake.active_files(Table::Alerts).await.expect("lists");
    let mut told = Vec::new();
    for file in &files {
        let columns = ["rule", "alert_id", "state", "change", "at", "was", "evaluation", "stale", "state_from"];
        for batch in lake.read(Table::Alerts, file, Some(&columns)).await.expect("reads") {
            let text = |name: &str, row: usize| {
                let column = batch.column_by_name(name).expect("a column");
                let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).expect("text");
                column.as_string::<i32>().value(row).to_owned()
            };
            let moment = |name: &str, row: usize| {
                let column = batch.column_by_name(name).expect("a column");
                let column = column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
                arrow::array::Array::is_valid(column, row).then(|| column.value(row) / 60_000_000 - BEGIN)
            };
            let evaluation = batch.column_by_name("evaluation").expect("a column").as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let state = |name| (text("rule", row), text("alert_id", row), text(name, row), text("stale", row));
                let at = moment("at", row).expect("a time");
                let from = state("state_from");
                told.push((
                    evaluation.value(row),
                    row,
                    text("change", row),
                    at,
                    moment("was", row),
                    state("state"),
                    from,
                ));
            }
        }
    }
    told.sort();
    let mut standing = Vec::new();
    for (_, _, change, at, was, state, from) in told {
        let gone = match change.as_str() {
            "moved" => Some((was.unwrap_or(at), state.clone())),
            // A retraction names the state that is taken back as the one that the alert was in.
            "retracted" => Some((at, from)),
            _ => None,
        };
        if let Some(gone) = gone {
            let place = standing.iter().position(|other| *other == gone).expect("only what stands is taken back");
            standing.remove(place);
        }
        if change != "retracted" {
            standing.push((at, state));
        }
    }
    let mut standing: Vec<_> = standing
        .into_iter()
        .filter(|(_, state)| state.3 == "false")
        .map(|(at, (rule, id, state, _))| (rule, id, at, state))
        .collect();
    standing.sort();
    standing
}

/// The value of a counter or gauge of the watcher.
fn counted(registry: &Registry, name: &str) -> f64 {
    let family = registry.gather().into_iter().find(|family| family.name() == name);
    let metric = family.and_then(|family| family.get_metric().first().cloned()).expect("it is registered");
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

/// Minutes [from, to) of a task with a baseline and a canary that is as good.
fn healthy(task: &'static str, from: i64, to: i64, every: usize) -> Vec<Cell<'static>> {
    let of_minute = |minute| {
        let canary = Cell { release: "v2", stage: "canary", ..cell(minute, task, 6, i64::from(minute % 7 == 0)) };
        [cell(minute, task, 12, i64::from(minute % 4 == 0)), canary]
    };
    (from..to).step_by(every).flat_map(of_minute).collect()
}

/// Rules that judge by the same rows: releases, the past, an objective.
fn some_rules(watch: &mut Watch) {
    let names = ["success_regression", "release_success", "success_drift", "slo_burn_fast", "cost_regression"];
    watch.rules = Rules::load(None, &[]);
    watch.rules.rules.retain(|rule| names.contains(&rule.name.as_str()));
    let contract = bellwether_alerts::Contract { success: Some(0.9), ..Default::default() };
    watch.contracts = Contracts::from([("a".to_owned(), contract.clone()), ("b".to_owned(), contract)]);
}

#[tokio::test]
async fn late_verdicts_judge_only_their_own_task_again_and_as_if_they_had_come_in_time() {
    const MINUTE: i64 = 60_000_000;
    let (days, step) = (3, 240);
    let end = days * 1440;
    // Five runs of the canary of `a` in each minute of two hours turn out to be failures, a day and more later.
    let late: Vec<Cell<'_>> = (1500..1620)
        .step_by(2)
        .map(|minute| Cell { release: "v2", stage: "canary", ..cell(minute, "a", 0, 5) })
        .collect();
    let of = |from: i64, to: i64| [healthy("a", from, to, 2), healthy("b", from, to, 2)].concat();
    let clock = ManualClock::at((BEGIN + end + 1) * MINUTE);
    let live = Tables::at(&clock).await;
    live.add_cells(&of(0, step), 0, step).await;
    let mut watch = live.watch();
    some_rules(&mut watch);
    let registry = Registry::new();
    let mut watcher = Watcher::open(&watch, &registry).await.expect("opens");
    for from in (step..end).step_by(step as usize) {
        live.add_cells(&of(from, from + step), from, from + step).await;
        watcher.turn().await.expect("judges");
    }
    assert_eq!(standing(&live.lake).await, [], "nothing is wrong yet");
    live.add_cells(&late, end, end).await;
    watcher.turn().await.expect("judges");
    let again = counted(&registry, "bellwether_watch_series_judged_again_total");
    // The two rules that read outcomes of canaries by task; `release_success` is not of one task, and waits for its turn.
    assert_eq!(again, 2.0);
    clock.advance(2 * MINUTE);
    watcher.turn().await.expect("judges");
    assert_eq!(counted(&registry, "bellwether_watch_series_waiting"), 0.0);
    assert_eq!(counted(&registry, "bellwether_watch_rebuilds_total"), 0.0);
    let whole = Tables::at(&clock).await;
    whole.add_cells(&[of(0, end), late].concat(), 0, end).await;
    let mut watch_whole = whole.watch();
    some_rules(&mut watch_whole);
    Watcher::open(&watch_whole, &Registry::new()).await.expect("opens").turn().await.expect("judges");
    let (found, wanted) = (standing(&live.lake).await, standing(&whole.lake).await);
    assert_eq!(found, wanted);
    assert!(found.iter().any(|row| row.0 == "success_regression" && row.3 == "firing"), "{found:?}");
    // Reviews that change nothing which these rules read are no work.
    let review = Cell { release: "v2", stage: "canary", ..cell(1500, "b", 0, 0) };
    live.add_cells(&[review], end, end).await;
    clock.advance(2 * MINUTE);
    watcher.turn().await.expect("judges");
    assert_eq!(counted(&registry, "bellwether_watch_series_judged_again_total"), again + 1.0);
}

#[tokio::test]
async fn series_without_runs_are_dropped_and_come_back_as_if_they_had_stayed() {
    const MINUTE: i64 = 60_000_000;
    let (gone, back, days) = (4, 20, 23);
    let every = 15;
    // Task `b` pauses from day 4 to 20, and is bad when it comes back; the canary of `a` pauses as well.
    let of_day = |day: i64| {
        let (from, to) = (day * 1440, (day + 1) * 1440);
        let mut cells = healthy("a", from, to, every);
        if (gone..back).contains(&day) {
            cells.retain(|cell| cell.release == "v1");
        } else {
            cells.extend(healthy("b", from, to, every));
        }
        if day >= back {
            cells.iter_mut().filter(|cell| cell.release == "v2").for_each(|cell| cell.failures = 4);
        }
        cells
    };
    let clock = ManualClock::at((BEGIN + days * 1440 + 1) * MINUTE);
    let live = Tables::at(&clock).await;
    live.add_cells(&of_day(0), 0, 1440).await;
    let mut watch = live.watch();
    some_rules(&mut watch);
    let registry = Registry::new();
    let mut watcher = Watcher::open(&watch, &registry).await.expect("opens");
    let mut series = Vec::new();
    for day in 1..days {
        live.add_cells(&of_day(day), day * 1440, (day + 1) * 1440).await;
        for _ in 0..3 {
            watcher.turn().await.expect("judges");
            clock.advance(3 * MINUTE);
        }
        series.push(counted(&registry, "bellwether_watch_series"));
    }
    let (before, least) = (series[2], series.iter().copied().fold(f64::INFINITY, f64::min));
    assert!(least <= before / 2.0, "{series:?}");
    assert!(*series.last().expect("days") >= before, "{series:?}");
    assert!(counted(&registry, "bellwether_watch_series_judged_again_total") > 0.0);
    assert_eq!(counted(&registry, "bellwether_watch_rebuilds_total"), 0.0);
    let whole = Tables::at(&clock).await;
    for day in 0..days {
        whole.add_cells(&of_day(day), day * 1440, (day + 1) * 1440).await;
    }
    let mut watch_whole = whole.watch();
    some_rules(&mut watch_whole);
    Watcher::open(&watch_whole, &Registry::new()).await.expect("opens").turn().await.expect("judges");
    let (found, wanted) = (standing(&live.lake).await, standing(&whole.lake).await);
    assert_eq!(found, wanted);
    assert!(found.iter().any(|row| row.2 > back * 1440 && row.3 == "firing"), "{found:?}");
}
