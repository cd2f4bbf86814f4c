//! L-7: the configuration bounds the memory in use. Observed from outside: the sizes of commits in the log, and the metrics
//! of the run index while many times more runs pass than it may hold.

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_base::{Clock, SystemClock, unique_id};
use bellwether_bench::events::{Event, Generator, Size};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message as Decoded};
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome, StorageOptions};
use bellwether_tables::Table;
use prometheus::Registry;

use crate::common::{Broker, Message, Setup, broker};

/// Memory that a batch counts for each row in addition to its message; see `ingest/src/batch.rs`.
const ROW_BYTES: usize = 1200;

fn events(seed: u64, count: usize) -> Vec<Event> {
    let mut generator = Generator::new(seed, Size::Small);
    let now = SystemClock.now_micros();
    (0..count).map(|_| generator.next(now)).collect()
}

/// Ingests a backlog with these settings and returns the rows of each commit to `events`.
async fn commits(broker: &Broker, events: &[Event], ingest: &str) -> Vec<usize> {
    let topic = broker.topic("bounds", 1);
    broker.publish(&topic, events.iter().map(|event| Message::new(event.payload.clone())));
    // A batch never reaches this age, so only the other limit ends it.
    let setup = Setup::new(&broker.address, &topic, &format!("[ingest]\nflush_interval = \"60s\"\n{ingest}\n"));
    setup.catch_up();
    let root = setup.root();
    let lake = Lake::open(root.to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    let log = lake.log(Table::Events);
    let mut rows = Vec::new();
    for version in 1..=log.latest_version().await.expect("answers") {
        let entry = log.entry(version).await.expect("readable").expect("there");
        let added = entry.added.iter().filter(|file| file.data_change).filter_map(|file| file.rows);
        rows.push(usize::try_from(added.sum::<i64>()).expect("a count"));
    }
    rows.retain(|rows| *rows > 0);
    assert_eq!(rows.iter().sum::<usize>(), events.len(), "every event is stored: {rows:?}");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_has_at_most_the_configured_number_of_rows() {
    let Some(broker) = broker() else { return };
    let rows = Box::pin(commits(broker, &events(1, 2500), "flush_rows = 400")).await;
    assert!(rows.iter().all(|rows| *rows <= 400), "{rows:?}");
    assert!(rows.contains(&400), "no commit reached the limit: {rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_exceeds_the_configured_bytes_by_at_most_one_message() {
    let Some(broker) = broker() else { return };
    let events = events(2, 2500);
    let limit = 1 << 20;
    let rows = Box::pin(commits(broker, &events, &format!("flush_bytes = {limit}"))).await;
    let (mut from, mut fullest) = (0, 0);
    for rows in &rows {
        let sizes = events[from..from + rows].iter().map(|event| event.payload.len() + ROW_BYTES);
        let bytes: usize = sizes.clone().sum();
        assert!(bytes < limit + sizes.max().unwrap_or(0), "a commit of {bytes} bytes: {rows:?}");
        (from, fullest) = (from + rows, fullest.max(bytes));
    }
    assert!(fullest >= limit, "no commit reached the limit: {rows:?}");
}

/// Commits new runs to `events`.
async fn commit(lake: &Lake, events: &[Event], from: i64) {
    let mut builder = BatchBuilder::new(Limits::default());
    for (offset, event) in (from..).zip(events) {
        let message = Decoded { topic: "t", offset, payload: Some(&event.payload), ..Decoded::default() };
        builder.push(&message, SystemClock.now_micros());
    }
    let (rows, _) = builder.finish().expect("rows");
    let files = lake.store(&rows).await.expect("writes");
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let next = from + i64::try_from(events.len()).expect("few");
    let commit = Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: "j/t/0".to_owned(), expected: on.next("j/t/0"), next }],
        files: files.into_iter().map(|file| file.file).collect(),
        operation: "ingest",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    let outcome = log.try_commit(&on, &commit).await.expect("answers");
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

/// Reads a metric of the aggregator.
fn gauge(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name().ends_with(name)).expect("the metric exists");
    family.get_metric()[0].get_gauge().get_value()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_index_stays_within_its_bound_while_many_more_runs_pass() {
    const BOUND: usize = 400 << 10;
    const COMMITS: usize = 20;
    const RUNS: usize = 1000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lake = Lake::open(folder.path().to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    let registry = Registry::new();
    let settings = AggregatorSettings { index_memory_bytes: BOUND, ..AggregatorSettings::default() };
    let mut aggregator = Box::pin(Aggregator::open(&lake, settings, None, &registry)).await.expect("opens");
    let mut generator = Generator::new(3, Size::Small);
    let begin = SystemClock.now_micros() - 3_600_000_000;
    let (mut most_bytes, mut most_runs) = (0.0_f64, 0.0_f64);
    for index in 0..COMMITS {
        let at = begin + i64::try_from(index * RUNS).expect("few") * 10_000;
        let events: Vec<Event> = (0..RUNS).map(|_| generator.next(at)).collect();
        Box::pin(commit(&lake, &events, i64::try_from(index * RUNS).expect("few"))).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        most_bytes = most_bytes.max(gauge(&registry, "index_bytes"));
        most_runs = most_runs.max(gauge(&registry, "index_runs"));
    }
    assert!(most_bytes <= BOUND as f64, "the index used {most_bytes} bytes; the bound is {BOUND}");
    assert!(
        most_runs < (COMMITS * RUNS / 2) as f64,
        "the index held {most_runs} runs: the test did not reach its bound"
    );
    assert!(most_bytes > BOUND as f64 / 8.0, "the index used only {most_bytes} bytes of its memory");
}
