//! Weeks of realistic traffic without any fault, through ingest, aggregation and the watcher, by the test's own clock. The
//! views must agree with the generator, and no alert may page.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_alerts::{BudgetSettings, Contracts, Rules, Watch, Watcher};
use bellwether_base::ManualClock;
use bellwether_bench::fleet::{Fleet, Sent, Settings, Truth};
use bellwether_event::Limits;
use bellwether_ingest::replay::ToTables;
use bellwether_ingest::worker::CommitObserver;
use bellwether_ingest::{FlushSettings, IngestHealth, IngestMetrics};
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::common::program::text;
use crate::common::{bellwether, say};
use crate::late::feed::rows;

/// 2026-10-12T00:00:00Z, a Monday; winter time begins in the second night from Saturday to Sunday.
const BEGIN: i64 = 1_791_763_200 / 60;
const DAY: i64 = 24 * 60;
const DAYS: i64 = 17;

/// Minutes between two rounds of all roles.
const STEP: i64 = 720;

/// The tables after weeks of traffic.
struct World {
    folder: tempfile::TempDir,
    lake: Lake,
    truth: Vec<Truth>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| run(World::new()));

/// Runs a future on its own runtime: the world outlives the test that created it.
fn run<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(work)
        });
        work.join().expect("the work ends")
    })
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Arc::new(ManualClock::at(BEGIN * 60_000_000));
        let root = folder.path().join("lake");
        let lake = Lake::open_with_clock(text(&root), &StorageOptions::default(), Arc::clone(&clock) as _).await;
        let lake = lake.expect("opens");
        let stalled = BEGIN + 8 * DAY + 10 * 60..BEGIN + 8 * DAY + 13 * 60;
        let mut fleet = Fleet::new(7, Settings { partitions: 2, one_more_from: BEGIN + 10 * DAY + 600, stalled });
        let registry = Registry::new();
        let aggregator = Box::pin(Aggregator::open(&lake, AggregatorSettings::default(), None, &registry)).await;
        let mut aggregator = aggregator.expect("opens");
        let watch = Watch {
            settings: bellwether_alerts::WatchSettings { budget: BudgetSettings::default(), ..Default::default() },
            rules: Rules::load(None, &[]),
            contracts: Contracts::default(),
            lake: lake.clone(),
            health: bellwether_follow::FollowHealth::default(),
        };
        let mut watcher = Box::pin(Watcher::open(&watch, &registry)).await.expect("opens");
        let (mut waiting, mut truth) = (Vec::new(), Vec::new());
        for from in (BEGIN..BEGIN + DAYS * DAY).step_by(usize::try_from(STEP).expect("a count")) {
            waiting.extend((from..from + STEP).flat_map(|minute| fleet.minute(minute)));
            clock.advance(STEP * 60_000_000);
            let (come, later): (Vec<Sent>, Vec<Sent>) =
                waiting.into_iter().partition(|sent| sent.arrives_micros <= (from + STEP) * 60_000_000);
            waiting = later;
            let files = written(&folder.path().join("sent"), from, &come);
            truth.extend(come.into_iter().map(|sent| sent.truth));
            Box::pin(ingest(&lake, &files)).await;
            Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
            while Box::pin(watcher.turn()).await.expect("judges") {}
        }
        Self { folder, lake, truth }
    }

    async fn sql(&self, query: &str) -> Vec<Value> {
        let session = bellwether_queries::Session::open(&self.lake, bellwether_queries::SessionSettings::default());
        rows(&Box::pin(session).await.expect("opens"), query).await
    }
}

/// Appends to one file per partition and day, as a recorder would. Returns the files that have grown.
fn written(folder: &std::path::Path, minute: i64, sent: &[Sent]) -> Vec<PathBuf> {
    fs::create_dir_all(folder).expect("a folder");
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for sent in sent {
        let name = format!("llm.runs-{}-{}.ndjson", sent.partition, minute.div_euclid(DAY));
        let lines = files.entry(folder.join(name)).or_default();
        lines.extend_from_slice(&sent.event.payload);
        lines.push(b'\n');
    }
    for (path, lines) in &files {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opens");
        file.write_all(lines).expect("writes");
    }
    files.into_keys().collect()
}

async fn ingest(lake: &Lake, files: &[PathBuf]) {
    let metrics = IngestMetrics::register(&Registry::new()).expect("registers");
    let observer = CommitObserver { metrics, health: IngestHealth::default(), clock: lake.clock() };
    let (flush, stop) = (FlushSettings::default(), CancellationToken::new());
    let tables = ToTables {
        lake,
        limits: Limits::default(),
        redactor: Arc::default(),
        flush: &flush,
        observer: Arc::new(observer),
        stop,
    };
    assert_eq!(Box::pin(tables.run(files, |_| {})).await.expect("reads").rejected, 0);
}

/// Sums over some runs.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    observed: u64,
    runs: u64,
    judged: u64,
    success: u64,
    cost_micros: u64,
    with_cost: u64,
    tokens: u64,
}

fn of_truth(truth: &[Truth]) -> BTreeMap<(String, String), Sums> {
    let mut all: BTreeMap<(String, String), Sums> = BTreeMap::new();
    for run in truth {
        let sums = all.entry((run.tenant.to_owned(), run.task.to_owned())).or_default();
        let weight = u64::from(run.weight);
        sums.observed += 1;
        sums.runs += weight;
        sums.judged += weight * u64::from(run.success.is_some());
        sums.success += weight * u64::from(run.success == Some(true));
        sums.cost_micros += weight * run.cost_micros.unwrap_or(0);
        sums.with_cost += weight * u64::from(run.cost_micros.is_some());
        sums.tokens += weight * run.tokens.unwrap_or(0);
    }
    all
}

/// Reads the same sums from rows.
fn of_rows(rows: &[Value]) -> BTreeMap<(String, String), Sums> {
    let sums = |row: &Value| {
        let number = |name: &str| {
            let number = row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
            assert!((number - number.round()).abs() < 1e-3 && number >= 0.0, "{name} in {row}");
            number.round() as u64
        };
        let name = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let sums = Sums {
            observed: number("observed"),
            runs: number("runs"),
            judged: number("judged"),
            success: number("success"),
            cost_micros: number("cost_micros"),
            with_cost: number("with_cost"),
            tokens: number("tokens"),
        };
        ((name("tenant"), name("task")), sums)
    };
    rows.iter().map(sums).collect()
}

#[test]
fn the_views_of_weeks_of_traffic_agree_with_the_generator() {
    let world = &*WORLD;
    let expected = of_truth(&world.truth);
    assert_eq!(expected.len(), 8, "{expected:?}");
    let of_runs = "SELECT tenant, task, count(*) AS observed, sum(weight) AS runs, \
         coalesce(sum(weight) FILTER (WHERE judged), 0) AS judged, coalesce(sum(weight) FILTER (WHERE completed), 0) AS success, \
         coalesce(sum(weight * cost * 1e6), 0) AS cost_micros, coalesce(sum(weight) FILTER (WHERE cost IS NOT NULL), 0) AS with_cost, \
         coalesce(sum(weight * (tokens_input + tokens_output)), 0) AS tokens FROM runs GROUP BY tenant, task";
    let found = of_rows(&run(world.sql(of_runs)));
    assert_eq!(found, expected, "the view `runs`");
    let of_metrics = "SELECT tenant, task, sum(runs) AS observed, sum(CAST(runs AS DOUBLE) * weight_micros) / 1e6 AS runs, \
         sum(CAST(runs - unknown AS DOUBLE) * weight_micros) / 1e6 AS judged, \
         sum(CAST(success AS DOUBLE) * weight_micros) / 1e6 AS success, \
         sum(CAST(cost_nanos_sum AS DOUBLE) / 1e3 * weight_micros) / 1e6 AS cost_micros, \
         sum(CAST(cost_runs AS DOUBLE) * weight_micros) / 1e6 AS with_cost, \
         sum(CAST(tokens_input + tokens_output AS DOUBLE) * weight_micros) / 1e6 AS tokens FROM metrics GROUP BY tenant, task";
    let found = of_rows(&run(world.sql(of_metrics)));
    assert_eq!(found, expected, "`metrics`");
}

#[test]
fn the_tables_of_weeks_of_traffic_pass_the_audit() {
    let root = WORLD.folder.path().join("lake");
    bellwether(&["audit", "--recompute", "--root", text(&root)]).succeeds();
}

#[test]
fn traffic_without_faults_pages_nobody() {
    let fired = "SELECT rule, task, tenant, title, CAST(at AS VARCHAR) AS at FROM alerts \
         WHERE severity = 'page' AND state = 'firing' AND NOT stale AND was IS NULL ORDER BY at";
    let fired = run(WORLD.sql(fired));
    fired.iter().for_each(|row| say(&row.to_string()));
    // The budget allows one page a month; these weeks are less.
    assert!(fired.len() <= 1, "{} pages without a fault", fired.len());
}
