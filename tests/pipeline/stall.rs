//! No messages arrived, or none were read: the tables and the alerts distinguish the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use bellwether_aggregate::Aggregate;
use bellwether_alerts::current::current_alerts;
use bellwether_alerts::{Contracts, Rules, Watch, Watcher};
use bellwether_base::{Clock, SystemClock};
use bellwether_event::Limits;
use bellwether_follow::{FollowHealth, Until};
use bellwether_ingest::worker::Ingest;
use bellwether_ingest::{FlushSettings, IngestMetrics, KafkaSettings, Start};
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::common::event::{now, rfc3339, run, runs};
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Broker, Setup, bellwether, broker, real_broker, until_or};
use crate::evidence::page_of_raised;

const MINUTE: i64 = 60_000_000;

/// Days of history from which the silence detector learns.
const DAYS: u64 = 15;

/// How long ingest is stopped, in microseconds.
const GONE: i64 = 180 * MINUTE;

/// The system clock, shifted. Queries use the system clock itself.
#[derive(Clone, Default)]
struct ShiftedClock(Arc<AtomicI64>);

impl Clock for ShiftedClock {
    fn now_micros(&self) -> i64 {
        SystemClock.now_micros() + self.0.load(Ordering::SeqCst)
    }
}

/// Ingest, aggregation and the watcher in one process, by the test's own clock.
struct Roles {
    lake: Lake,
    clock: ShiftedClock,
    kafka: KafkaSettings,
    watch: Watch,
    _folder: tempfile::TempDir,
}

impl Roles {
    async fn new(broker: &Broker, topic: &str) -> Self {
        let (folder, clock) = (tempfile::tempdir().expect("a folder"), ShiftedClock(Arc::new(AtomicI64::new(-GONE))));
        let root = folder.path().to_str().expect("UTF-8");
        let options = StorageOptions::default();
        let lake = Lake::open_with_clock(root, &options, Arc::new(clock.clone())).await.expect("opens");
        let kafka = KafkaSettings {
            brokers: broker.address.clone(),
            topics: vec![topic.to_owned()],
            group: format!("tests-{topic}"),
            job: "main".to_owned(),
            instance_id: None,
            login: None,
            properties: std::collections::BTreeMap::new(),
            flush: FlushSettings::default(),
            start: Start::Earliest,
        };
        let mut rules = Rules::load(None, &[]);
        rules.rules.retain(|rule| ["lag", "silent_producer"].contains(&rule.name.as_str()));
        assert_eq!(rules.rules.len(), 2);
        let watch = Watch {
            settings: bellwether_alerts::WatchSettings::default(),
            rules,
            contracts: Contracts::new(),
            lake: lake.clone(),
            health: FollowHealth::default(),
        };
        Self { lake, clock, kafka, watch, _folder: folder }
    }

    /// Runs ingest and aggregation until they have caught up.
    async fn take_in(&self) {
        let ingest = Ingest {
            lake: self.lake.clone(),
            kafka: self.kafka.clone(),
            limits: Limits::default(),
            redactor: Arc::default(),
            handover: None,
            metrics: IngestMetrics::register(&Registry::new()).expect("registers"),
            health: bellwether_ingest::IngestHealth::default(),
        };
        let token = CancellationToken::new;
        Box::pin(ingest.run(token(), token(), true)).await.expect("reads");
        let aggregate = Aggregate::new(self.lake.clone());
        Box::pin(bellwether_aggregate::run(aggregate, Registry::new(), Until::caught_up(), token()))
            .await
            .expect("aggregates");
    }

    async fn watcher(&self) -> Watcher {
        Watcher::open(&self.watch, &Registry::new()).await.expect("opens")
    }

    /// Advances the clock minute by minute; the watcher evaluates the rules in each.
    async fn pass(&self, watcher: &mut Watcher, minutes: i64) {
        for _ in 0..minutes {
            self.clock.0.fetch_add(MINUTE, Ordering::SeqCst);
            while watcher.turn().await.expect("judges") {}
        }
    }

    /// Returns the rules that fire now.
    async fn firing(&self) -> Vec<String> {
        let all = current_alerts(&self.lake).await.expect("reads").into_iter();
        let mut firing: Vec<String> = all.filter(|alert| alert.state == "firing").map(|alert| alert.rule).collect();
        firing.sort();
        firing
    }
}

/// Builds a run every two minutes for some days, until ingest stops.
fn steady() -> Vec<Value> {
    let end = now() - Duration::from_micros(GONE.unsigned_abs());
    let all = (0..DAYS * 720).map(|n| {
        let mut event = run(&format!("steady-{n}"));
        let ended = end - Duration::from_secs((DAYS * 720 - n) * 120);
        event["data"]["started_at"] = json!(rfc3339(ended - Duration::from_secs(1)));
        event["data"]["ended_at"] = json!(rfc3339(ended));
        event
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_ingest_is_reported_as_lag_and_not_as_silence() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("stopped", 2);
    broker.publish_events(&topic, 2, &steady());
    let roles = Roles::new(broker, &topic).await;
    roles.take_in().await;
    let mut watcher = roles.watcher().await;
    roles.pass(&mut watcher, 1).await;
    assert_eq!(roles.firing().await, Vec::<String>::new());
    // Ingest is stopped for three hours, in which runs may have arrived.
    roles.clock.0.fetch_add(GONE, Ordering::SeqCst);
    roles.pass(&mut watcher, 8).await;
    assert_eq!(roles.firing().await, ["lag"], "unread messages are not silence");
    let mut watcher = roles.watcher().await;
    roles.pass(&mut watcher, 1).await;
    assert_eq!(roles.firing().await, ["lag"], "nor after a restart of the watcher");
    // Ingest is back and found no messages: now it is silence.
    for _ in 0..6 {
        roles.take_in().await;
        roles.pass(&mut watcher, 3).await;
    }
    assert_eq!(roles.firing().await, ["silent_producer"]);

    // Its page says that runs are missing, and explains nothing by runs that are not there.
    let (record, page) = page_of_raised(&roles.lake, "silent_producer").await;
    let evidence = &page.evidence;
    assert_eq!((page.title.as_str(), page.task.as_ref()), (record.title.as_str(), record.task.as_ref()));
    assert!(evidence.baseline.is_some() && evidence.since.is_some(), "{evidence:#?}");
    assert!(evidence.notes.iter().any(|note| note.contains("are usual at this time")), "{evidence:#?}");
    assert!(evidence.slices.is_empty() && evidence.examples.is_empty() && evidence.mix.is_none(), "{evidence:#?}");
    assert_eq!((&evidence.cost, &evidence.rollback), (&None, &None));
    assert!(evidence.notes.iter().all(|note| !note.contains("cannot be shown")), "{evidence:#?}");
    assert!(evidence.reproduce.as_ref().is_some_and(|sql| sql.checked), "{evidence:#?}");
}

/// Returns the unread messages of a topic's partitions, and the earliest time in microseconds up to which one was read.
fn read_state(setup: &Setup, topic: &str) -> Option<(i64, i64)> {
    let rows = setup.sql(&format!(
        "SELECT sum(unread) AS unread, count(*) AS partitions, count(read_to) AS read, CAST(date_part('epoch', min(read_to)) * 1e6 AS BIGINT) AS read_to
         FROM ingest_progress WHERE topic = '{topic}'"
    ));
    let row = rows.first()?;
    let known = row["partitions"] == row["read"] && row["partitions"] != 0;
    known.then_some((row["unread"].as_i64()?, row["read_to"].as_i64()?))
}

#[test]
fn transaction_markers_and_empty_partitions_are_read_to_their_ends() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("marked", 3);
    let setup = Setup::new(&broker.address, &topic, "");
    let worker = setup.start("run");
    until_or(|| worker.get("/healthz"), || worker.printed());
    let (unread, before) = until_or(|| read_state(&setup, &topic), || worker.printed());
    assert_eq!(unread, 0, "the topic is empty");
    broker.transactions(&topic).publish(&runs("in-a-transaction", 20), true);
    let published = SystemClock.now_micros();
    let all_read = || {
        let (unread, read_to) = read_state(&setup, &topic)?;
        (unread == 0 && read_to > published).then_some(read_to)
    };
    let after = until_or(all_read, || format!("{:?}, {published}\n{}", read_state(&setup, &topic), worker.printed()));
    assert!(after > before);
    assert_eq!(setup.number("SELECT count(*) FROM events"), 20);
    let fresh = setup.sql(&format!("SELECT unread, read_lag_s FROM freshness WHERE topic = '{topic}'"));
    let is_fresh = |row: &Value| row["unread"] == 0 && row["read_lag_s"].as_f64().is_some_and(|lag| lag < 120.0);
    assert!(!fresh.is_empty() && fresh.iter().all(is_fresh), "{fresh:#?}");
    let ranges = setup.file("tables/events/_delta_log");
    let entries: Vec<String> = std::fs::read_dir(ranges)
        .expect("a log")
        .filter_map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).ok())
        .collect();
    assert!(entries.iter().any(|entry| entry.contains("\"end_offset\":")), "{entries:?}");
    worker.signal("TERM");
    assert_eq!(worker.end().code, Some(0));
    bellwether(&["audit", "--root", text(&setup.root())]).succeeds();
}

#[test]
fn a_topic_that_is_no_longer_read_is_not_awaited() {
    let Some(broker) = broker() else { return };
    let (kept, dropped) = (broker.topic("kept", 2), broker.topic("dropped", 1));
    broker.publish_events(&kept, 2, &runs("kept", 6));
    broker.publish_events(&dropped, 1, &runs("dropped", 4));
    let setup =
        Setup::with(&ConfigText { brokers: &broker.address, topics: &[&kept, &dropped], ..ConfigText::default() });
    setup.catch_up();
    for topic in [&kept, &dropped] {
        assert!(read_state(&setup, topic).is_some_and(|(unread, _)| unread == 0), "every message was read");
    }
    let fewer = setup.other("fewer.toml", |text| text.replace(&format!(", \"{dropped}\""), ""));
    let worker = Running::role("ingest", &fewer);
    let ends =
        |topic: &str| setup.number(&format!("SELECT count(end_offset) FROM ingest_progress WHERE topic = '{topic}'"));
    until_or(|| (ends(&dropped) == 0).then_some(()), || worker.printed());
    assert_eq!(ends(&kept), 2);
    // Its progress is kept: reading it again continues from there.
    worker.signal("TERM");
    assert_eq!(worker.end().code, Some(0));
    setup.catch_up();
    assert_eq!((ends(&dropped), setup.number("SELECT count(*) FROM events")), (1, 10));
}

/// Builds a run that ended `ago_s` seconds ago by its producer's clock.
fn ended(run_id: String, source: &str, ago_s: i64) -> Value {
    let mut event = run(&run_id);
    let shift = Duration::from_secs(ago_s.unsigned_abs());
    let at: SystemTime = if ago_s >= 0 { now() - shift } else { now() + shift };
    event["source"] = json!(source);
    event["data"]["started_at"] = json!(rfc3339(at - Duration::from_secs(1)));
    event["data"]["ended_at"] = json!(rfc3339(at));
    event
}

#[test]
fn a_producer_clock_that_runs_ahead_hides_no_other_runs_and_is_reported() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let mut events: Vec<Value> = (0..40).map(|n| ended(format!("right-{n}"), "right", 5 + n * 5)).collect();
    events.extend((0..3).map(|n| ended(format!("late-{n}"), "slow", 7200)));
    events.push(ended("fast".to_owned(), "fast", -290));
    setup.replay(&setup.recording("runs.ndjson", &events));
    setup.catch_up_role("aggregate");
    let runs = setup.number("SELECT CAST(sum(runs) AS BIGINT) FROM rolling WHERE span = '5m'");
    assert!((38..=40).contains(&runs), "the last five minutes have {runs} runs");
    assert_eq!(setup.number("SELECT count(*) FROM rolling WHERE as_of > now() + INTERVAL '1 minute'"), 0);
    assert_eq!(setup.number("SELECT count(*) FROM rolling_history WHERE as_of > written_at"), 0);
    assert!(setup.number("SELECT count(*) FROM rolling_history WHERE span = '5m'") > 0);
    assert_eq!(setup.number("SELECT count(*) FROM completeness WHERE partitions_past > 0 AND window_end > now()"), 0);
    let fresh = setup.sql("SELECT table_name, event_lag_s, ahead_seconds, ahead_source FROM freshness");
    for row in &fresh {
        assert!(row["event_lag_s"].as_f64().is_some_and(|lag| lag >= -60.0), "{fresh:#?}");
    }
    let ours = fresh.iter().find(|row| row["table_name"] == "events").expect("a row");
    assert!(ours["event_lag_s"].as_f64().is_some_and(|lag| lag >= 0.0), "{ours}");
    assert_eq!(ours["ahead_source"], "fast");
    for (filter, rows) in [("partition = 0", 1), ("topic = 'no such'", 0), ("topic IS NULL", 1), ("true", 2)] {
        let found = setup.number(&format!("SELECT count(*) FROM (SELECT * FROM freshness WHERE {filter})"));
        assert_eq!(found, rows, "{filter}");
    }
    assert!(ours["ahead_seconds"].as_f64().is_some_and(|ahead| (280.0..=290.5).contains(&ahead)), "{ours}");
}
