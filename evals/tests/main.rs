//! The role over tables on disk: replays, restarts, corrections and late statements lead to the same candidates.

mod reviews;

use std::collections::BTreeMap;

use bellwether_base::Week;
use bellwether_evals::row::CandidateRow;
use bellwether_evals::{EvalsSettings, Sample, SampleSetup, Sampler, evaluate, resample};
use bellwether_follow::{FollowHealth, FollowMetrics, Follower, Runner, Until};
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::{AppId, ColumnType, Table};
use prometheus::Registry;
use serde_json::{Map, Value, json};

/// Monday, 23 November 2026, 00:00 UTC.
const MONDAY: i64 = 1_795_392_000_000_000;
const HOUR: i64 = 3_600_000_000;

struct Tables {
    lake: Lake,
    folder: tempfile::TempDir,
    version: i64,
}

impl Tables {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_str().expect("UTF-8");
        let lake = Lake::open(root, &StorageOptions::default()).await.expect("opens");
        Self { lake, folder, version: 0 }
    }

    /// Appends events in one commit.
    async fn append(&mut self, events: &[Value]) {
        let usual = |kind: ColumnType| match kind {
            ColumnType::Text => json!(""),
            ColumnType::Boolean => json!(false),
            ColumnType::List(_) => json!([]),
            ColumnType::TextMap => json!({}),
            ColumnType::Date => json!("2026-11-23"),
            _ => json!(0),
        };
        let required = Table::Events.columns().iter().filter(|column| column.required);
        let base: Map<String, Value> = required.map(|column| (column.name.to_owned(), usual(column.kind))).collect();
        let rows: Vec<Map<String, Value>> = events
            .iter()
            .enumerate()
            .map(|(place, event)| {
                let mut row = base.clone();
                row.insert("offset".to_owned(), json!(self.version * 10_000 + i64::try_from(place).expect("few")));
                row.extend(event.as_object().expect("an object").clone());
                row
            })
            .collect();
        let reader = arrow::json::ReaderBuilder::new(Table::Events.arrow_schema());
        let mut decoder = reader.build_decoder().expect("a decoder");
        decoder.serialize(&rows).expect("rows");
        let batch = decoder.flush().expect("rows").expect("some");
        let files = self.lake.write(Table::Events, &batch).await.expect("writes");
        let log = self.lake.log(Table::Events);
        let on = log.load().await.expect("loads");
        let app_id = "main/t/0".to_owned();
        let commit = Commit {
            uuid: self.lake.clock().unique_id(),
            advances: vec![Advance { expected: on.next(&app_id), app_id, next: self.version + 1 }],
            files: files.into_iter().map(|written| written.file).collect(),
            operation: "test",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
        self.version += 1;
    }

    fn sample(&self) -> Sample {
        let settings = EvalsSettings { weekly_budget: 12, ..EvalsSettings::default() };
        Sample { settings, lake: self.lake.clone(), health: FollowHealth::default() }
    }

    /// Runs the role until it has caught up.
    async fn follow(&self) {
        let registry = Registry::new();
        let setup = SampleSetup::new(self.sample(), &registry).expect("once");
        let metrics = FollowMetrics::register(&Registry::new(), "evals", Table::Events, None).expect("once");
        let runner = Runner { until: Until::caught_up(), ..Runner::new("evals", self.lake.clock(), metrics) };
        runner.run::<Sampler>(&setup).await.expect("runs");
    }

    async fn known(&self) -> BTreeMap<String, CandidateRow> {
        let session = Session::open(&self.lake, SessionSettings::default()).await.expect("opens");
        let known = evaluate::known(&session, Week::of(MONDAY)).await.expect("reads");
        let bare = |row: CandidateRow| CandidateRow { number: 0, events_version: 0, written_at: 0, ..row };
        known.into_values().map(|row| (row.run_id.clone(), bare(row))).collect()
    }
}

fn run(number: i64, outcome: &str) -> Value {
    let at = MONDAY + number * HOUR / 10;
    json!({
        "event_type": "run.completed", "event_id": format!("e{number}"), "run_id": format!("r{number}"), "source": "app",
        "attempt": 1, "task": "refund", "release_id": "v1", "stage": "full", "outcome_status": outcome, "event_time": at,
        "started_at": at, "ended_at": at, "ingested_at": at, "weight_micros": 1_000_000, "content_hash": number,
        "failure_error_type": if outcome == "success" { Value::Null } else { json!(format!("E{}", number % 3)) },
    })
}

fn score(run: i64, passed: bool, revision: i64) -> Value {
    let at = MONDAY + 200 * HOUR;
    json!({
        "event_type": "run.score", "event_id": format!("s{run}-{revision}"), "run_id": format!("r{run}"), "source": "judge",
        "event_time": at, "ingested_at": at, "revision": revision, "content_hash": 7,
        "scores": [{ "name": "quality", "kind": "llm", "evaluator_id": "j", "sets_outcome": false, "passed": passed }],
    })
}

fn review(run: i64, decision: &str) -> Value {
    let at = MONDAY + 210 * HOUR;
    json!({
        "event_type": "run.review", "event_id": format!("v{run}"), "run_id": format!("r{run}"), "source": "people",
        "event_time": at, "ingested_at": at, "review_id": format!("v{run}"), "reviewer": "ada", "review_decision": decision,
        "review_sets_outcome": true,
    })
}

fn traffic() -> Vec<Value> {
    let outcome = |number: i64| match number % 4 {
        0 => "failure",
        1 if number % 8 == 1 => "timeout",
        _ => "success",
    };
    (0..40).map(|number| run(number, outcome(number))).collect()
}

/// Returns successful runs. Two took or cost much more than the others, and one got a document in a version that was superseded.
fn successes() -> Vec<Value> {
    let mut runs: Vec<Value> = (0..40).map(|number| run(number, "success")).collect();
    for (number, run) in runs.iter_mut().enumerate() {
        run["latency_total_micros"] = json!(if number == 5 { 500 } else { 100 });
        // No median is computed of ten runs: those in dollars are no outliers.
        run["cost_currency"] = json!(if number < 30 { "EUR" } else { "USD" });
        run["cost_nanos"] = json!(if [5, 7, 35].contains(&number) { 5_000 } else { 1_000 });
    }
    for (number, version) in [(9, "a"), (10, "a"), (11, "b"), (12, "a"), (13, "b")] {
        let documents = json!([{ "id": "doc", "version": version }, { "id": "other", "version": "c" }]);
        runs[number]["retrieval"] = json!([{ "source_id": "wiki", "documents": documents }]);
        runs[number]["retrieval_calls"] = json!(1);
    }
    runs
}

// Each evaluation plans a long statement, which takes far longer than reading a few rows: each test makes few.

#[tokio::test]
async fn batches_order_restarts_and_reviews_do_not_change_the_candidates() {
    let (mut at_once, mut in_parts) = (Tables::new().await, Tables::new().await);
    at_once.append(&traffic()).await;
    at_once.follow().await;
    let mut backwards = traffic();
    backwards.reverse();
    for part in backwards.chunks(25) {
        in_parts.append(part).await;
        in_parts.follow().await;
    }
    let known = at_once.known().await;
    assert_eq!(known.len(), 12, "the budget");
    assert_eq!(known, in_parts.known().await);
    in_parts.append(&[review(0, "accept"), review(2, "reject")]).await;
    in_parts.follow().await;
    assert_eq!(resample(in_parts.sample(), &Registry::new()).await.expect("draws"), 0, "a rebuild changes nothing");
    assert!(in_parts.folder.path().join("candidates").is_dir());
}

#[tokio::test]
async fn a_sample_that_was_drawn_beside_an_erasure_is_not_written() {
    let mut tables = Tables::new().await;
    tables.append(&traffic()).await;
    let setup = SampleSetup::new(tables.sample(), &Registry::new()).expect("once");
    let mut sampler = Sampler::open(&setup).await.expect("opens");
    let log = tables.lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let erasure = Commit {
        uuid: tables.lake.clock().unique_id(),
        advances: vec![Advance { expected: None, app_id: AppId::Erased.to_string(), next: 2 }],
        files: Vec::new(),
        operation: "erase",
        ranges: Vec::new(),
        facts: Map::new(),
    };
    assert!(matches!(log.try_commit(&on, &erasure).await, Ok(Outcome::Committed(_))));
    let error = sampler.finish().await.expect_err("has read runs that may be erased");
    assert!(error.message().contains("runs were erased"), "{}", error.chain());
    assert!(tables.known().await.is_empty());
    sampler.finish().await.expect("draws again");
    assert_eq!(tables.known().await.len(), 12);
}

#[tokio::test]
async fn late_verdicts_add_and_withdraw_candidates() {
    let mut tables = Tables::new().await;
    tables.append(&successes()).await;
    tables.follow().await;
    let known = tables.known().await;
    // The rest of the budget goes to successes.
    let failures: Vec<_> = known.values().filter(|row| row.class != "success").collect();
    let classes: BTreeMap<&str, &str> =
        failures.iter().map(|row| (row.run_id.as_str(), row.classes.as_str())).collect();
    let expected = [("r12", "stale_source"), ("r5", "latency_outlier,cost_outlier"), ("r7", "cost_outlier")];
    assert_eq!((known.len(), classes), (12, expected.into()));
    tables.append(&[score(17, false, 0)]).await;
    tables.follow().await;
    let judged = tables.known().await;
    assert_eq!((judged["r17"].class.as_str(), judged["r17"].kind.as_str()), ("judged_bad", "failure"));
    assert_eq!(judged["r17"].inclusion_probability, 1.0, "the only one of its signature");
    tables.append(&[score(17, true, 1)]).await;
    tables.follow().await;
    assert!(tables.known().await.get("r17").is_none_or(|row| row.class == "success"));
    let mut fresh = Tables::new().await;
    fresh.append(&[score(17, true, 1), score(17, false, 0)]).await;
    fresh.append(&successes()).await;
    fresh.follow().await;
    assert_eq!(fresh.known().await, tables.known().await, "statements before their runs");
}

#[tokio::test]
async fn a_run_that_a_correction_moves_to_another_week_leaves_its_sample() {
    let mut tables = Tables::new().await;
    let mut offline = run(2, "failure");
    offline["stage"] = json!("offline_eval");
    tables.append(&[run(0, "failure"), run(1, "success"), offline]).await;
    tables.follow().await;
    assert_eq!(tables.known().await.keys().collect::<Vec<_>>(), ["r0", "r1"], "offline evaluations are not sampled");
    let mut moved = run(0, "failure");
    (moved["revision"], moved["ended_at"]) = (json!(1), json!(MONDAY + 200 * HOUR));
    tables.append(&[moved]).await;
    tables.follow().await;
    assert_eq!(tables.known().await.keys().collect::<Vec<_>>(), ["r1"]);
}

#[tokio::test]
async fn a_release_is_new_in_the_week_in_which_it_is_first_seen_however_late_an_event_says_so() {
    const WEEK: i64 = 168 * HOUR;
    let of = |number: i64, release: &str, weeks: i64| {
        let mut run = run(number, "failure");
        run["release_id"] = json!(release);
        run["ended_at"] = json!(MONDAY + number * HOUR / 10 + weeks * WEEK);
        run
    };
    let this_week = || vec![of(0, "v1", 0), of(1, "v2", 0), of(2, "v1", 0)];
    let weights = |known: BTreeMap<String, CandidateRow>| -> BTreeMap<String, f64> {
        known.into_iter().map(|(run, row)| (run, row.draw_weight)).collect()
    };
    let expected =
        |weight: f64| BTreeMap::from([("r0", 4.0), ("r1", weight), ("r2", 4.0)].map(|(id, w)| (id.to_owned(), w)));
    let mut tables = Tables::new().await;
    tables.append(&this_week()).await;
    tables.follow().await;
    assert_eq!(weights(tables.known().await), expected(16.0), "four times that of the release before it");
    // Late events about earlier weeks: it ran three weeks ago, and then last week.
    tables.append(&[of(3, "v2", -3)]).await;
    tables.follow().await;
    let mut returned = expected(8.0);
    returned.extend(["r0", "r2"].map(|id| (id.to_owned(), 16.0)));
    assert_eq!(weights(tables.known().await), returned, "now the other one is new, and this one has returned");
    tables.append(&[of(4, "v2", -1), of(5, "v1", -1), of(6, "v1", -6)]).await;
    tables.follow().await;
    assert_eq!(weights(tables.known().await), expected(4.0), "both are known");
    let mut at_once = Tables::new().await;
    let late = [of(6, "v1", -6), of(5, "v1", -1), of(4, "v2", -1), of(3, "v2", -3)];
    at_once.append(&late.into_iter().chain(this_week()).collect::<Vec<_>>()).await;
    at_once.follow().await;
    assert_eq!(tables.known().await, at_once.known().await);
    assert_eq!(resample(tables.sample(), &Registry::new()).await.expect("draws"), 0, "a rebuild changes nothing");
}

#[tokio::test]
async fn a_failure_is_new_back_or_known_by_the_samples_that_have_it() {
    let of = |number: i64, error: &str, release: &str, weeks: i64| {
        let mut run = run(number, "failure");
        (run["failure_error_type"], run["release_id"]) = (json!(error), json!(release));
        run["ended_at"] = json!(MONDAY + number * HOUR + weeks * 168 * HOUR);
        run
    };
    let mut tables = Tables::new().await;
    let mut other = of(9, "New", "r1", 0);
    other["tenant"] = json!("acme");
    tables
        .append(&[
            of(0, "Back", "r140", -4),
            of(1, "Steady", "r140", -1),
            of(2, "Back", "r142", 0),
            of(3, "Back", "r141", 0),
            of(4, "Steady", "r142", 0),
            of(5, "New", "r142", 0),
            of(6, "New", "r143", 0),
            other,
        ])
        .await;
    tables.follow().await;
    let session = Session::open(&tables.lake, SessionSettings::default()).await.expect("opens");
    let sql = "SELECT concat_ws(' ', nullif(tenant, ''), split_part(signature, 'error=', 2), history, first_release, last_release, \
               weeks, weeks_absent, candidates) AS line FROM failure_signatures ORDER BY line";
    let rows: Vec<Value> = session.rows(sql).await.expect("reads");
    let lines: Vec<&str> = rows.iter().map(|row| row["line"].as_str().expect("a text")).collect();
    let expected = [
        "Back back r140 r141 2 3 3",
        "New new r142 r143 1 0 2",
        "Steady known r140 r142 2 0 2",
        // Its tenant has no earlier samples, in which it could have been.
        "acme New known r1 r1 1 0 1",
    ];
    assert_eq!(lines, expected);
}
