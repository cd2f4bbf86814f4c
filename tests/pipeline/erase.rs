//! `bellwether erase`: a subject leaves every table and every byte under the root, and every figure stays.
//!
//! The tests search the folder themselves: they decode Parquet files with the `parquet` crate, and look for the identifiers in all
//! values and bytes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use bellwether_aggregate::erase::{EraseSettings, Subject, erase, vacuum};
use bellwether_aggregate::recompute::{first_difference, folded};
use bellwether_aggregate::rollup::{Roller, RollupSettings};
use bellwether_aggregate::{Aggregate, AggregatorSettings, rebuild};
use bellwether_base::{Clock, ErrorKind, SystemClock, unique_id};
use bellwether_evals::{EvalsSettings, Sample, SampleSetup, Sampler};
use bellwether_follow::{FollowHealth, Follower, Until};
use bellwether_lake::{Act, Advance, Commit, CommitLog, DataFile, Lake, MaintainSettings, Outcome, StorageOptions};
use bellwether_tables::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prometheus::Registry;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::common::event::{rfc3339, runs};
use crate::common::program::{KEEP_HISTORY, text};
use crate::common::{Setup, bellwether};
use crate::late::feed::{Feed, NOW};

/// Returns all files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// Returns the files under a root that hold some text, in a value or in their bytes.
pub(crate) fn holding(root: &Path, what: &str) -> Vec<String> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("reads");
        let raw = bytes.windows(what.len()).any(|window| window == what.as_bytes());
        raw || path.extension().is_some_and(|extension| extension == "parquet") && in_values(bytes, what)
    };
    let relative = |path: PathBuf| path.strip_prefix(root).expect("below").display().to_string();
    files(root).into_iter().filter(holds).map(relative).collect()
}

pub(crate) fn in_values(bytes: Vec<u8>, what: &str) -> bool {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).expect("a Parquet file");
    reader.build().expect("a reader").any(|batch| {
        let batch = batch.expect("rows");
        let mut cells = (0..batch.num_columns()).flat_map(|n| (0..batch.num_rows()).map(move |row| (n, row)));
        cells.any(|(n, row)| array_value_to_string(batch.column(n), row).expect("shows").contains(what))
    })
}

fn at(seconds_ago: u64) -> String {
    let now = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"));
    rfc3339(now - Duration::from_secs(seconds_ago))
}

/// Runs of a user in a session, which ended some minutes before the feed's current time.
pub(crate) fn runs_of(prefix: &str, count: usize, user: &str, session: &str) -> Vec<Value> {
    let of = |(n, mut run): (usize, Value)| {
        let ago = 60 * (u64::try_from(n).expect("few") + 1);
        run["data"]["started_at"] = json!(at(ago + 2));
        run["data"]["ended_at"] = json!(at(ago));
        run["data"]["user_key"] = json!(user);
        run["data"]["session_id"] = json!(session);
        run["data"]["steps"] = json!([{ "name": "plan", "note": format!("step of {user}") }]);
        run
    };
    runs(prefix, count).into_iter().enumerate().map(of).collect()
}

fn review(run_id: &str, id: &str, decision: &str) -> Value {
    json!({
        "spec": "run-event/1.0", "type": "run.review", "run_id": run_id, "source": "reviews", "time": at(0),
        "data": { "review_id": id, "reviewer": "p-1", "decision": decision },
    })
}

/// A feed with three users' runs in several files, two reviews, and the rewrites and checkpoints that maintenance makes.
pub(crate) async fn fed() -> Feed {
    let mut feed = Feed::new().await;
    Box::pin(feed.commit_events(&runs_of("run-ada", 4, "usr-ada", "ses-one"))).await;
    Box::pin(feed.commit_events(&runs_of("run-bob", 5, "usr-bob", "ses-two"))).await;
    Box::pin(feed.commit_events(&[review("run-ada-1", "r-1", "reject"), review("run-bob-1", "r-2", "reject")])).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(feed.lake.compact(Table::Events, &few).await.expect("compacts"), 3);
    feed.lake.checkpoint(Table::Events).await.expect("a checkpoint");
    Box::pin(feed.commit_events(&runs_of("run-more", 3, "usr-ada", "ses-three"))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    roll_up(&feed.lake).await;
    feed
}

async fn roll_up(lake: &Lake) {
    let roller = Roller::open(lake, RollupSettings::default(), &Registry::new()).await;
    Box::pin(roller.expect("opens").run_until_caught_up()).await.expect("rolls up");
}

async fn counted(feed: &Feed) -> RecordBatch {
    folded(&feed.lake).await.expect("folds")
}

async fn number(feed: &Feed, query: &str) -> i64 {
    feed.sql(query).await[0]["n"].as_i64().expect("a number")
}

/// Erases by the program, and returns what it printed and its exit code.
pub(crate) fn erased(root: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let ended = bellwether(&[&["erase", "--root", text(root)], arguments].concat());
    (format!("{}{}", ended.stdout, ended.stderr), ended.code)
}

/// Checks the tables: an audit and a rebuild find nothing that differs.
pub(crate) async fn is_exact(feed: &Feed) {
    bellwether(&["audit", "--recompute", "--root", text(feed.root())]).succeeds();
    let before = feed.folded().await;
    let stop = CancellationToken::new();
    Box::pin(rebuild(&feed.lake, AggregatorSettings::default(), |_| {}, &stop)).await.expect("rebuilds");
    assert_eq!(first_difference(&feed.folded().await, &before), None, "a rebuild changes no figure");
    roll_up(&feed.lake).await;
    bellwether(&["audit", "--recompute", "--root", text(feed.root())]).succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_leaves_every_byte_and_every_figure_stays() {
    let feed = fed().await;
    let root = feed.root().to_owned();
    let before = feed.folded().await;
    let releases = number(&feed, "SELECT count(*) AS n FROM releases").await;
    let names = ["usr-ada", "run-ada-", "run-more-", "ses-three"];
    assert!(names.iter().all(|name| !holding(&root, name).is_empty()), "the search finds what is there");
    let listing = files(&root);
    let (plan, code) = erased(&root, &["--user-key", "usr-ada", "--dry-run"]);
    assert!(plan.contains("7 runs, 1 statement about them (dry run") && code == Some(0), "{plan}");
    assert!(plan.contains("would remove 8 rows, in 2 files"), "{plan}");
    assert_eq!(files(&root), listing, "a dry run changes nothing");
    let (done, code) = erased(&root, &["--user-key", "usr-ada"]);
    assert!(done.contains("  events           removed 8 rows, in 2 files") && code == Some(5), "{done}");
    assert!(done.contains("replaced files of events, to be removed at the earliest at 20"), "{done}");
    assert_eq!(first_difference(&feed.folded().await, &before), None, "with what the runs contributed");
    bellwether(&["audit", "--recompute", "--root", text(&root)]).succeeds();
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM runs").await, 5);
    let (done, code) = erased(&root, &["--user-key", "usr-ada", "--now"]);
    assert!(done.contains("nothing is left") && code == Some(0), "{done}");
    for name in names {
        assert_eq!(holding(&root, name), [""; 0], "{name}");
    }
    assert!(!holding(&root, "run-bob-1").is_empty(), "others stay");
    let (again, code) = erased(&root, &["--user-key", "usr-ada"]);
    assert!(again.contains("nothing was found in the tables") && code == Some(0), "{again}");
    is_exact(&feed).await;
    assert_eq!(number(&feed, "SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await, 12);
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM releases").await, releases);
    let answer = bellwether(&["audit", "--format", "json", "--root", text(&root)]).succeeds();
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let rows = answer["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "rows");
    assert_eq!(rows.expect("the check")["counts"]["removed"], json!(8), "{rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_or_a_session_leaves_likewise_and_an_unknown_one_changes_nothing() {
    let feed = fed().await;
    let root = feed.root().to_owned();
    let before = feed.folded().await;
    let listing = files(&root);
    let (nothing, code) = erased(&root, &["--run-id", "run-nobody", "--now"]);
    assert!(nothing.contains("run `run-nobody`: nothing was found") && code == Some(0), "{nothing}");
    assert_eq!(files(&root), listing);
    let (other, code) = erased(&root, &["--run-id", "run-bob-1", "--source", "elsewhere"]);
    assert!(other.contains("nothing was found in the tables") && code == Some(5), "{other}");
    assert!(
        other.contains("2 files of events in use: other rows name it in") || other.contains("1 file of events"),
        "{other}"
    );
    let (done, code) = erased(&root, &["--run-id", "run-bob-1", "--now"]);
    assert!(done.contains("1 run, 1 statement") && done.contains("removed 2 rows") && code == Some(0), "{done}");
    assert_eq!(holding(&root, "run-bob-1"), [""; 0]);
    let (done, code) = erased(&root, &["--session-id", "ses-one", "--now"]);
    assert!(done.contains("4 runs, 1 statement") && code == Some(0), "{done}");
    for name in ["ses-one", "run-ada-"] {
        assert_eq!(holding(&root, name), [""; 0], "{name}");
    }
    assert_eq!(first_difference(&feed.folded().await, &before), None);
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM runs").await, 7);
    is_exact(&feed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_leaves_all_tables_with_its_figures() {
    let mut feed = Feed::new().await;
    let of = |prefix: &str, tenant: &str| {
        let mut runs = runs_of(prefix, 4, "usr-1", "ses-1");
        runs.iter_mut().for_each(|run| run["tenant"] = json!(tenant));
        runs
    };
    for n in 0..2 {
        Box::pin(feed.commit_events(&of(&format!("run-a{n}"), "acme-corp"))).await;
        Box::pin(feed.commit_events(&of(&format!("run-b{n}"), "beta-corp"))).await;
        Box::pin(feed.commit_events(&[review(&format!("run-a{n}-1"), "r-1", "reject")])).await;
        Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    }
    roll_up(&feed.lake).await;
    let root = feed.root().to_owned();
    // The contributions of the tenant's erased runs go, too.
    erased(&root, &["--run-id", "run-a0-2", "--now"]);
    let (refused, code) = erased(&root, &["--tenant", "acme-corp"]);
    assert!(refused.contains("--yes") && code == Some(2), "{refused}");
    let (plan, _) = erased(&root, &["--tenant", "acme-corp", "--dry-run"]);
    for table in ["events", "metrics", "metrics_hourly", "metrics_daily", "releases"] {
        assert!(plan.contains(&format!("  {table:<15}  would remove ")), "{table}: {plan}");
    }
    assert_eq!(number(&feed, "SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await, 16);
    // As if an erasure was killed after its commit to `events`.
    let log = feed.lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let advance = Advance { app_id: "erase/tenants".to_owned(), expected: None, next: 1 };
    let commit = commit_of(Vec::new(), vec![advance]);
    assert!(matches!(log.try_commit(&on, &commit).await.expect("answers"), Outcome::Committed(_)));
    let audit = bellwether(&["audit", "--recompute", "--root", text(&root)]).exits_with(1);
    assert!(audit.contains("a tenant is being erased"), "{audit}");
    let (done, code) = erased(&root, &["--tenant", "acme-corp", "--yes", "--now"]);
    assert!(done.contains("nothing is left") && code == Some(0), "{done}");
    for name in ["acme-corp", "run-a0", "run-a1"] {
        assert_eq!(holding(&root, name), [""; 0], "{name}");
    }
    for table in ["metrics", "metrics_hourly", "metrics_daily"] {
        let sum = format!("SELECT CAST(sum(runs) AS BIGINT) AS n FROM {table}");
        assert_eq!(number(&feed, &sum).await, 8, "{table}");
    }
    is_exact(&feed).await;
    // The tenant may come back.
    Box::pin(feed.commit_events(&of("run-c", "acme-corp"))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    roll_up(&feed.lake).await;
    is_exact(&feed).await;
    assert_eq!(number(&feed, "SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await, 12);
}

fn commit_of(files: Vec<DataFile>, advances: Vec<Advance>) -> Commit {
    Commit { uuid: unique_id(), advances, files, operation: "test", ranges: Vec::new(), facts: Map::new() }
}

/// Puts a row into `alerts` that quotes a run in a title, a label and a note.
async fn alert_about(lake: &Lake, run_id: &str) {
    let mut row = Map::new();
    for column in Table::Alerts.columns().iter().filter(|column| column.required) {
        let value = match column.name {
            "title" => json!(format!("run {run_id} took too long")),
            "labels" => json!({ "run": run_id, "task": "refund_triage" }),
            "notes" => json!(format!("slowest: `{run_id}`.\nsecond: `run-bob-0`")),
            "strata" => json!([]),
            "stale" => json!(false),
            _ if matches!(column.kind, bellwether_tables::ColumnType::Text) => json!("x"),
            _ => json!(0),
        };
        row.insert(column.name.to_owned(), value);
    }
    let schema = Table::Alerts.arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(schema).build_decoder().expect("a decoder");
    decoder.serialize(&[row]).expect("rows");
    let rows = decoder.flush().expect("rows").expect("some");
    let written = lake.write(Table::Alerts, &rows).await.expect("writes");
    let log = lake.log(Table::Alerts);
    let on = log.load().await.expect("loads");
    let commit = commit_of(written.into_iter().map(|written| written.file).collect(), Vec::new());
    assert!(matches!(log.try_commit(&on, &commit).await.expect("answers"), Outcome::Committed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_and_texts_of_alerts_no_longer_name_the_user() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let mut events = runs_of("run-ada", 3, "usr-ada", "ses-one");
    events.extend(runs_of("run-bob", 3, "usr-bob", "ses-two"));
    // Keys of a rejected message are stored; its values are masked.
    events.push(json!({ "spec": "run-event/1.0", "data": { "run-ada-1": { "usr-bob": 1 } } }));
    events.push(json!({ "spec": "run-event/1.0", "data": { "usr-bob": 1 } }));
    let recording = setup.recording("events.ndjson", &events);
    let config = setup.config();
    bellwether(&["replay", text(&recording), "--to", "tables", "--config", text(&config)]).exits_with(1);
    setup.catch_up_role("aggregate");
    let root = setup.root();
    let lake = Lake::open(text(&root), &StorageOptions::default()).await.expect("opens");
    alert_about(&lake, "run-ada-1").await;
    lake.checkpoint(Table::Alerts).await.expect("a checkpoint");
    lake.checkpoint(Table::Quarantine).await.expect("a checkpoint");
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 2);
    let ended = bellwether(&["erase", "--config", text(&config), "--user-key", "usr-ada", "--now"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    for line in ["  quarantine       removed 1 row, in 1 file", "  alerts           changed texts of 1 row, in 1 file"]
    {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
    for name in ["usr-ada", "run-ada-"] {
        assert_eq!(holding(&root, name), [""; 0], "{name}");
    }
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 1);
    let alert = setup.sql("SELECT title, labels['run'] AS run, labels['task'] AS task, notes FROM alerts");
    let expected = json!({
        "title": "run erased took too long", "run": "erased", "task": "refund_triage",
        "notes": "slowest: `erased`.\nsecond: `run-bob-0`",
    });
    assert_eq!(alert, [expected]);
    bellwether(&["audit", "--recompute", "--root", text(&root)]).succeeds();
    assert_eq!(setup.number("SELECT CAST(sum(runs) AS BIGINT) FROM metrics"), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_about_an_erased_run_changes_no_figure_and_stops_nothing() {
    let mut feed = Feed::new().await;
    let mut standing = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    Box::pin(feed.commit_events(&runs_of("run-ada", 4, "usr-ada", "ses-one"))).await;
    Box::pin(feed.commit_events(&runs_of("run-bob", 4, "usr-bob", "ses-one"))).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    feed.lake.compact(Table::Events, &few).await.expect("compacts");
    let before = feed.folded().await;
    let settings = EraseSettings { patience: Duration::from_secs(5), dry_run: false };
    let ada = Subject::User("usr-ada".to_owned());
    let done = Box::pin(erase(&feed.lake, &ada, settings, |_| {})).await.expect("erases");
    assert_eq!((done.runs, done.tables.len()), (4, 1), "{done:?}");
    // The old files are still there, but the aggregator no longer knows them.
    Box::pin(feed.commit_events(&[review("run-ada-1", "r-1", "reject")])).await;
    Box::pin(standing.run_until_caught_up()).await.expect("goes on");
    assert_eq!(first_difference(&feed.folded().await, &before), None, "the verdict has no run");
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM orphans").await, 1);
    // With the old files gone, too; and a run that stays is corrected as ever.
    let waiting = vacuum(&feed.lake, &[Table::Events], Duration::from_secs(5)).await.expect("removes");
    assert_eq!(waiting, []);
    Box::pin(feed.commit_events(&[review("run-ada-2", "r-2", "reject"), review("run-bob-1", "r-3", "reject")])).await;
    let ended = Box::pin(standing.run_until_caught_up()).await;
    if ended.is_err() {
        Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    }
    feed.folded().await;
    assert_eq!(number(&feed, "SELECT CAST(sum(judged_by_human) AS BIGINT) AS n FROM metrics").await, 1);
    // The late verdicts carry the ids again.
    assert!(!holding(feed.root(), "run-ada-1").is_empty());
    for id in ["run-ada-1", "run-ada-2"] {
        let (done, code) = erased(feed.root(), &["--run-id", id, "--now"]);
        assert!(done.contains("0 runs, 1 statement about them") && code == Some(0), "{done}");
        assert_eq!(holding(feed.root(), id), [""; 0]);
    }
    is_exact(&feed).await;
}

/// The machine's clock, which can hold up a writer when it gives its next commit or file a name.
struct HoldingClock {
    holds: AtomicBool,
    reached: Sender<()>,
    released: Mutex<Receiver<()>>,
}

impl Clock for HoldingClock {
    fn now_micros(&self) -> i64 {
        SystemClock.now_micros()
    }

    fn unique_id(&self) -> Uuid {
        if self.holds.swap(false, Ordering::SeqCst) {
            self.reached.send(()).expect("the test waits");
            self.released.lock().expect("one writer").recv().expect("the test goes on");
        }
        SystemClock.unique_id()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampler_between_its_last_look_and_its_commit_adds_no_erased_run() {
    let ((reached, reaches), (release, released)) = (channel(), channel());
    let clock = Arc::new(HoldingClock { holds: AtomicBool::new(false), reached, released: Mutex::new(released) });
    let mut feed = Feed::with_clock(clock.clone()).await;
    let mut standing = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    Box::pin(feed.commit_events(&runs_of("run-ada", 4, "usr-ada", "ses-one"))).await;
    Box::pin(feed.commit_events(&runs_of("run-bob", 3, "usr-bob", "ses-two"))).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    let sample =
        Sample { settings: EvalsSettings::default(), lake: feed.lake.clone(), health: FollowHealth::default() };
    let setup = SampleSetup::new(sample, &Registry::new()).expect("once");
    let mut sampler = Box::pin(Sampler::open(&setup)).await.expect("opens");
    clock.holds.store(true, Ordering::SeqCst);
    let drawing = tokio::spawn(async move { Box::pin(sampler.finish()).await });
    tokio::task::spawn_blocking(move || reaches.recv().expect("the sampler has drawn")).await.expect("waits");
    let settings = EraseSettings { patience: Duration::from_secs(5), dry_run: false };
    let ada = Subject::User("usr-ada".to_owned());
    let done = Box::pin(erase(&feed.lake, &ada, settings, |_| {})).await.expect("erases");
    assert_eq!(done.runs, 4);
    release.send(()).expect("the sampler waits");
    let error = drawing.await.expect("ends").expect_err("its rows name erased runs");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.chain());
    let candidates = "SELECT run_id FROM candidates ORDER BY run_id";
    assert_eq!(feed.sql(candidates).await, [json!(null); 0]);
    let mut sampler = Box::pin(Sampler::open(&setup)).await.expect("opens again");
    Box::pin(sampler.finish()).await.expect("draws again");
    let expected = ["run-bob-0", "run-bob-1", "run-bob-2"].map(|run_id| json!({ "run_id": run_id }));
    assert_eq!(feed.sql(candidates).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_that_share_an_id_only_one_leaves_and_figures_stay_exact() {
    let mut feed = Feed::new().await;
    let of = |source: &str, user: &str| {
        let mut run = runs_of("run-shared", 1, user, "ses-1").remove(0);
        run["source"] = json!(source);
        run["data"]["task"] = json!(format!("task_of_{source}"));
        run
    };
    Box::pin(feed.commit_events(&[of("one", "usr-ada"), of("two", "usr-bob")])).await;
    // From a source without a run of this id: it judges both.
    Box::pin(feed.commit_events(&[review("run-shared-0", "r-1", "reject")])).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    let before = feed.folded().await;
    let (done, code) = erased(feed.root(), &["--user-key", "usr-ada", "--now"]);
    assert!(done.contains("1 run, 1 statement") && done.contains("other rows name it in") && code == Some(5), "{done}");
    assert_eq!(holding(feed.root(), "usr-ada"), [""; 0]);
    assert_eq!(first_difference(&feed.folded().await, &before), None);
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM runs").await, 1);
    Box::pin(feed.commit_events(&[review("run-shared-0", "r-2", "accept")])).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    is_exact(&feed).await;
    assert_eq!(number(&feed, "SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_killed_between_its_commits_is_done_by_the_next_one() {
    let feed = fed().await;
    let before = feed.folded().await;
    // Only the contributions were written, which no version of `events` names; they may even be wrong.
    let rows: Vec<RecordBatch> = vec![
        feed.lake
            .read(Table::Metrics, &feed.lake.active_files(Table::Metrics).await.expect("lists").1[0], None)
            .await
            .expect("reads")
            .remove(0),
    ];
    let unused = feed.lake.store_erased(None, &rows).await.expect("writes");
    assert_eq!(first_difference(&feed.folded().await, &before), None, "they do not count");
    bellwether(&["audit", "--recompute", "--root", text(feed.root())]).succeeds();
    let (done, code) = erased(feed.root(), &["--session-id", "ses-one", "--now"]);
    assert!(done.contains("removed 5 rows") && code == Some(0), "{done}");
    assert_eq!(first_difference(&feed.folded().await, &before), None);
    let on = feed.lake.log(Table::Events).load().await.expect("loads");
    let counts = Lake::erased_number(&on).expect("a number");
    assert!(counts != unused && feed.lake.erased_rows(Some(counts)).await.is_ok());
    is_exact(&feed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_counted_yet_are_not_erased() {
    let mut feed = fed().await;
    Box::pin(feed.commit_events(&runs_of("run-late", 2, "usr-ada", "ses-one"))).await;
    let (refused, code) = erased(feed.root(), &["--user-key", "usr-ada", "--wait", "1s"]);
    assert!(refused.contains("no aggregator reads `events`") && code == Some(3), "{refused}");
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM runs").await, 14, "nothing was erased");
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    let (done, code) = erased(feed.root(), &["--user-key", "usr-ada", "--now"]);
    assert!(done.contains("9 runs") && code == Some(0), "{done}");
    is_exact(&feed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_shards_have_read_an_erasure_before_the_figures_are_compared() {
    let mut feed = Feed::new().await;
    let shard = |shard| AggregatorSettings { shard, shards: 2, ..AggregatorSettings::default() };
    Box::pin(feed.commit_events(&runs_of("run-ada", 8, "usr-ada", "ses-one"))).await;
    Box::pin(feed.commit_events(&runs_of("run-bob", 8, "usr-bob", "ses-one"))).await;
    let both = async |feed: &Feed| {
        for number in 0..2 {
            Box::pin(feed.aggregate(shard(number))).await;
        }
    };
    both(&feed).await;
    let before = feed.folded().await;
    let (done, code) = erased(feed.root(), &["--user-key", "usr-ada"]);
    assert!(done.contains("removed 8 rows") && code == Some(5), "{done}");
    let audit = bellwether(&["audit", "--recompute", "--root", text(feed.root())]).exits_with(1);
    assert!(audit.contains("has not read an erasure yet"), "{audit}");
    both(&feed).await;
    assert_eq!(first_difference(&feed.folded().await, &before), None);
    bellwether(&["audit", "--recompute", "--root", text(feed.root())]).succeeds();
    let (done, code) = erased(feed.root(), &["--user-key", "usr-ada", "--now"]);
    assert!(done.contains("nothing is left") && code == Some(0), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_beside_ingest_aggregate_compaction_and_each_other_lose_nothing() {
    let mut feed = fed().await;
    let settings = AggregatorSettings { poll_interval: Duration::from_millis(20), ..AggregatorSettings::default() };
    let aggregate = Aggregate { settings, ..Aggregate::new(feed.lake.clone()) };
    let stop = CancellationToken::new();
    let role = tokio::spawn(bellwether_aggregate::run(aggregate, Registry::new(), Until::Stopped, stop.clone()));
    let lake = feed.lake.clone();
    let compacting = stop.clone();
    let compaction = tokio::spawn(async move {
        let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
        while !compacting.is_cancelled() {
            for table in [Table::Events, Table::Metrics] {
                lake.compact(table, &few).await.expect("compacts");
            }
            lake.clean_up(Table::Events, &few, Act::Do).await.expect("cleans up");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let root = feed.root().to_owned();
    let erase_all = tokio::task::spawn_blocking(move || {
        let spawn = |subject: [&'static str; 2]| {
            let root = root.clone();
            std::thread::spawn(move || erased(&root, &[&subject[..], &["--now"]].concat()))
        };
        let both = [spawn(["--user-key", "usr-ada"]), spawn(["--user-key", "usr-bob"])];
        both.map(|one| one.join().expect("no panic"))
    });
    let mut n = 0_i64;
    while !erase_all.is_finished() || n < 10 {
        Box::pin(feed.commit_events(&runs_of(&format!("run-new{n}"), 3, "usr-carl", "ses-nine"))).await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    for (done, code) in erase_all.await.expect("no panic") {
        assert!(code == Some(0) || code == Some(5), "{done}");
    }
    stop.cancel();
    role.await.expect("no panic").expect("it goes on");
    compaction.await.expect("no panic");
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    for user in ["usr-ada", "usr-bob"] {
        let (done, code) = erased(feed.root(), &["--user-key", user, "--now"]);
        assert!(code == Some(0), "{done}");
        assert_eq!(holding(feed.root(), user), [""; 0]);
    }
    let total = 12 + 3 * n;
    let counts = counted(&feed).await;
    assert!(counts.num_rows() > 0);
    assert_eq!(number(&feed, "SELECT CAST(sum(runs) AS BIGINT) AS n FROM metrics").await, total);
    assert_eq!(number(&feed, "SELECT count(*) AS n FROM runs").await, total - 12);
    is_exact(&feed).await;
}
