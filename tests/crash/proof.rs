//! Holding the tables against the ledger: nothing lost, nothing doubled, by means that share no code with `audit`; and
//! `audit` itself.

use std::time::{Duration, Instant};

use bellwether_lake::{CommitLog, Lake, Snapshot, StorageOptions, Table};
use serde_json::Value;

use super::ledger::{Ledger, Place, Plan, Publisher};
use crate::common::program::{Running, text};
use crate::common::wait::patience;
use crate::common::{Setup, bellwether};

/// Between two looks at the log: a fraction of what is measured with it.
const LOOK: Duration = Duration::from_millis(20);

/// How far `events` is, read from its log while other processes write it.
pub(super) struct Stands {
    root: std::path::PathBuf,
    topic: String,
    runtime: tokio::runtime::Runtime,
    at: Option<(Lake, Snapshot)>,
}

// === impl Stands ===

impl Stands {
    pub(super) fn new(setup: &Setup, topic: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { root: setup.root(), topic: topic.to_owned(), runtime, at: None }
    }

    /// Next offset of a partition.
    pub(super) fn partition(&mut self, partition: i32) -> i64 {
        self.look();
        let app = format!("main/{}/{partition}", self.topic);
        self.at.as_ref().and_then(|(_, snapshot)| snapshot.next(&app)).unwrap_or(0)
    }

    /// Sum of all partitions' next offsets: messages that are settled.
    pub(super) fn all(&mut self) -> i64 {
        self.look();
        let prefix = format!("main/{}/", self.topic);
        let apps = self.at.iter().flat_map(|(_, snapshot)| snapshot.apps());
        // Claims on a partition stand below it.
        let is_partition = |app: &str| app.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        apps.filter(|(app, _)| is_partition(app)).map(|(_, next)| next).sum()
    }

    /// Waits until more than so many messages are settled; says how long that took.
    pub(super) fn pass(&mut self, count: i64, since: Instant, describe: impl FnOnce() -> String) -> Duration {
        while self.all() <= count {
            assert!(since.elapsed() < patience(), "nothing is committed beyond {count} messages\n{}", describe());
            std::thread::sleep(LOOK);
        }
        since.elapsed()
    }

    fn look(&mut self) {
        // Opening a lake makes what is missing: that is left to the program.
        let made = |table: &Table| self.root.join(table.name()).join("_delta_log/00000000000000000000.json").exists();
        if self.at.is_none() && !Table::ALL.iter().all(made) {
            return;
        }
        let at = self.at.take();
        self.at = Some(self.runtime.block_on(async {
            match at {
                Some((lake, snapshot)) => {
                    let snapshot = lake.log(Table::Events).catch_up(snapshot).await.expect("the log is read");
                    (lake, snapshot)
                }
                None => {
                    let lake = Lake::open(text(&self.root), &StorageOptions::default()).await.expect("the lake opens");
                    let snapshot = lake.log(Table::Events).load().await.expect("the log is read");
                    (lake, snapshot)
                }
            }
        }));
    }
}

/// `bellwether audit` finds nothing wrong; with `recompute`, the metrics too are what the events say.
pub(super) fn audit(setup: &Setup, recompute: bool) {
    let config = setup.config();
    let mut arguments = vec!["audit", "--config", text(&config)];
    if recompute {
        arguments.push("--recompute");
    }
    bellwether(&arguments).succeeds();
}

/// The tables hold each message below where `events` stands once, as a row or in quarantine; for topics whose offsets
/// begin at 0 and have no gaps. True at any moment at which nobody writes.
pub(super) fn whole_so_far(setup: &Setup, topic: &str, stands: &[i64]) {
    let next: String = (0..).zip(stands).map(|(partition, next)| format!(" WHEN {partition} THEN {next}")).collect();
    // Quarantine is committed first and may be ahead of `events`; rows of `events` may not.
    let rows = setup.sql(&format!(
        "SELECT partition, count(*) AS stored, count(DISTINCT \"offset\") AS own, \
            count(*) FILTER (WHERE below) AS settled, count(*) FILTER (WHERE good AND NOT below) AS beyond \
         FROM (SELECT *, \"offset\" < CASE partition{next} END AS below FROM ( \
            SELECT partition, \"offset\", true AS good FROM events WHERE topic = '{topic}' \
            UNION ALL SELECT partition, \"offset\", false AS good FROM quarantine WHERE topic = '{topic}')) \
         GROUP BY partition"
    ));
    for row in &rows {
        assert!(row["stored"] == row["own"], "messages are twice in the tables: {row}");
        assert_eq!(row["beyond"], 0, "rows of `events` beyond the offsets {stands:?}: {row}");
    }
    let settled: i64 = rows.iter().filter_map(|row| row["settled"].as_i64()).sum();
    assert_eq!(settled, stands.iter().sum::<i64>(), "messages are missing below the offsets {stands:?}: {rows:?}");
}

/// The tables hold what the ledger says: every good message a row with its own run, every bad one in quarantine, nothing
/// else, and the metrics count each run.
pub(super) fn exactly_once(setup: &Setup, topic: &str, ledger: &Ledger) {
    let events = places(setup, "events", topic);
    same("events", &events, &ledger.good());
    let bad: Vec<Place> = places(setup, "quarantine", topic).into_iter().map(|(place, _)| place).collect();
    same("quarantine", &bad, &ledger.bad());
    let counted = setup.number("SELECT CAST(sum(runs) AS BIGINT) FROM metrics_1m");
    assert_eq!(usize::try_from(counted), Ok(ledger.good().len()), "runs that the metrics count");
}

/// How a test under load ends: no more messages come, the worker stops well, what is left is read, and the tables are whole
/// and hold what the ledger says. Returns that.
pub(super) fn ends_whole(setup: &Setup, topic: &str, publisher: Publisher, worker: Option<Running>) -> Ledger {
    let ledger = publisher.finish();
    if let Some(worker) = worker {
        worker.signal("TERM");
        let ended = worker.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    setup.catch_up();
    audit(setup, true);
    exactly_once(setup, topic, &ledger);
    ledger
}

/// Compares sorted rows with what was sent, and says the first few that differ.
fn same<T: Ord + std::fmt::Debug>(table: &str, found: &[T], sent: &[T]) {
    let lost: Vec<_> = sent.iter().filter(|one| found.binary_search(one).is_err()).take(5).collect();
    let strange: Vec<_> = found.iter().filter(|one| sent.binary_search(one).is_err()).take(5).collect();
    let doubled: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).take(5).collect();
    assert!(
        lost.is_empty() && strange.is_empty() && doubled.is_empty() && found.len() == sent.len(),
        "`{table}` has {} rows of {} messages; lost {lost:?}, never sent {strange:?}, doubled {doubled:?}",
        found.len(),
        sent.len()
    );
}

/// Coordinates of a table's rows in order, with the run of each where the table has runs.
fn places(setup: &Setup, table: &str, topic: &str) -> Vec<(Place, String)> {
    let run = if table == "events" { "run_id" } else { "''" };
    let query =
        format!("SELECT partition, \"offset\", {run} AS run_id FROM {table} WHERE topic = '{topic}' ORDER BY 1, 2, 3");
    let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    let rows = setup.sql(&query);
    rows.iter()
        .map(|row| {
            let run = row["run_id"].as_str().unwrap_or_default().to_owned();
            ((number(row, "partition"), number(row, "offset")), run)
        })
        .collect()
}

#[test]
fn the_proof_itself_sees_what_is_lost_doubled_or_never_sent() {
    let Some(broker) = super::real_broker() else { return };
    let topic = broker.topic("proof", 2);
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 4 });
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let mut ledger = publisher.finish();
    setup.catch_up();
    exactly_once(&setup, &topic, &ledger);
    let mut stands = Stands::new(&setup, &topic);
    let next = [stands.partition(0), stands.partition(1)];
    whole_so_far(&setup, &topic, &next);

    let fails = |judge: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).is_err();
    assert!(fails(&|| whole_so_far(&setup, &topic, &[next[0] + 1, next[1]])), "a message that is lost");
    // A bad message beyond the offsets is no fault: the last good one is.
    let last_good =
        ledger.good().into_iter().filter(|((partition, _), _)| *partition == 0).map(|((_, at), _)| at).max();
    let before = last_good.expect("something good was sent");
    assert!(fails(&|| whole_so_far(&setup, &topic, &[before, next[1]])), "a row beyond the offsets");
    let (place, run) = ledger.sent.pop_last().expect("something was sent");
    assert!(fails(&|| exactly_once(&setup, &topic, &ledger)), "a row of a message that was never sent");
    ledger.sent.insert(place, run.map(|run| run + "x").or(Some("x".to_owned())));
    assert!(fails(&|| exactly_once(&setup, &topic, &ledger)), "a row with another message's run");
}
