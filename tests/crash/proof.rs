//! Compares the tables with the ledger, without any code of `audit`, and runs `audit` as well.

use std::time::{Duration, Instant};

use bellwether_lake::{CommitLog, Lake, Snapshot, StorageOptions};
use bellwether_tables::Table;
use serde_json::Value;

use super::ledger::{Ledger, LedgerPosition, Plan, Publisher};
use crate::common::program::{Running, text};
use crate::common::wait::patience;
use crate::common::{Setup, bellwether, real_broker};

/// Time between two looks at the log: a fraction of the times that are measured with it.
const LOOK: Duration = Duration::from_millis(20);

/// The progress of `events`, read from its log while other processes write it.
pub(super) struct TableProgress {
    root: std::path::PathBuf,
    topic: String,
    runtime: tokio::runtime::Runtime,
    at: Option<(Lake, Snapshot)>,
}

// === impl TableProgress ===

impl TableProgress {
    pub(super) fn new(setup: &Setup, topic: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { root: setup.root(), topic: topic.to_owned(), runtime, at: None }
    }

    /// Returns the next offset of a partition.
    pub(super) fn next_offset(&mut self, partition: i32) -> i64 {
        self.look();
        let app = format!("main/{}/{partition}", self.topic);
        self.at.as_ref().and_then(|(_, snapshot)| snapshot.next(&app)).unwrap_or(0)
    }

    /// Returns the sum of all partitions' next offsets, which is the number of processed messages.
    pub(super) fn processed(&mut self) -> i64 {
        self.look();
        let prefix = format!("main/{}/", self.topic);
        let apps = self.at.iter().flat_map(|(_, snapshot)| snapshot.apps());
        // Claims have a path below that of their partition.
        let is_partition = |app: &str| app.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        apps.filter(|(app, _)| is_partition(app)).map(|(_, next)| next).sum()
    }

    /// Waits until more than `count` messages are processed. Returns the time since `since`.
    pub(super) fn wait_past(&mut self, count: i64, since: Instant, describe: impl FnOnce() -> String) -> Duration {
        while self.processed() <= count {
            assert!(since.elapsed() < patience(), "no commit beyond {count} messages\n{}", describe());
            std::thread::sleep(LOOK);
        }
        since.elapsed()
    }

    fn look(&mut self) {
        // Opening a lake would create missing tables, which only the program should do.
        let exists = |table: &Table| self.root.join(table.name()).join("_delta_log/00000000000000000000.json").exists();
        if self.at.is_none() && !Table::ALL.iter().all(exists) {
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

/// Checks that `bellwether audit` finds no fault; with `recompute`, it also compares the metrics with the events.
pub(super) fn audit(setup: &Setup, recompute: bool) {
    let config = setup.config();
    let mut arguments = vec!["audit", "--config", text(&config)];
    if recompute {
        arguments.push("--recompute");
    }
    bellwether(&arguments).succeeds();
}

/// Checks that each message below the next offsets of `events` is stored once, in `events` or in `quarantine`. That holds
/// whenever no process writes, for topics whose offsets begin at 0 and have no gaps.
pub(super) fn assert_complete_below(setup: &Setup, topic: &str, next_offsets: &[i64]) {
    let next: String =
        (0..).zip(next_offsets).map(|(partition, next)| format!(" WHEN {partition} THEN {next}")).collect();
    // `quarantine` is committed first, so it may be ahead of the offsets; `events` may not.
    let rows = setup.sql(&format!(
        "SELECT partition, count(*) AS stored, count(DISTINCT \"offset\") AS own, \
            count(*) FILTER (WHERE below) AS settled, count(*) FILTER (WHERE good AND NOT below) AS beyond \
         FROM (SELECT *, \"offset\" < CASE partition{next} END AS below FROM ( \
            SELECT partition, \"offset\", true AS good FROM events WHERE topic = '{topic}' \
            UNION ALL SELECT partition, \"offset\", false AS good FROM quarantine WHERE topic = '{topic}')) \
         GROUP BY partition"
    ));
    for row in &rows {
        assert!(row["stored"] == row["own"], "the tables have duplicate messages: {row}");
        assert_eq!(row["beyond"], 0, "`events` has rows beyond the offsets {next_offsets:?}: {row}");
    }
    let settled: i64 = rows.iter().filter_map(|row| row["settled"].as_i64()).sum();
    let expected = next_offsets.iter().sum::<i64>();
    assert_eq!(settled, expected, "messages are missing below the offsets {next_offsets:?}: {rows:?}");
}

/// Checks that the tables agree with the ledger: a row with its run for every good message, every bad one in `quarantine`,
/// nothing else, and every run counted in the metrics.
pub(super) fn assert_exactly_once(setup: &Setup, topic: &str, ledger: &Ledger) {
    let events = positions(setup, "events", topic);
    assert_same("events", &events, &ledger.good());
    let bad: Vec<LedgerPosition> =
        positions(setup, "quarantine", topic).into_iter().map(|(position, _)| position).collect();
    assert_same("quarantine", &bad, &ledger.bad());
    let counted = setup.number("SELECT CAST(sum(runs) AS BIGINT) FROM metrics_1m");
    assert_eq!(usize::try_from(counted), Ok(ledger.good().len()), "runs counted by the metrics");
}

/// Ends a test under load: stops the publisher and the worker, processes the rest, and checks the tables. Returns the
/// ledger.
pub(super) fn finish_and_verify(setup: &Setup, topic: &str, publisher: Publisher, worker: Option<Running>) -> Ledger {
    let ledger = publisher.finish();
    if let Some(worker) = worker {
        worker.stop();
    }
    setup.catch_up();
    audit(setup, true);
    assert_exactly_once(setup, topic, &ledger);
    ledger
}

/// Compares sorted rows with the sent messages; the failure lists the first few differences.
fn assert_same<T: Ord + std::fmt::Debug>(table: &str, found: &[T], sent: &[T]) {
    let lost: Vec<_> = sent.iter().filter(|one| found.binary_search(one).is_err()).take(5).collect();
    let unknown: Vec<_> = found.iter().filter(|one| sent.binary_search(one).is_err()).take(5).collect();
    let duplicates: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).take(5).collect();
    assert!(
        lost.is_empty() && unknown.is_empty() && duplicates.is_empty() && found.len() == sent.len(),
        "`{table}` has {} rows for {} messages; lost {lost:?}, never sent {unknown:?}, duplicates {duplicates:?}",
        found.len(),
        sent.len()
    );
}

/// Returns the positions of a table's rows in order, with the run of each if the table has runs.
fn positions(setup: &Setup, table: &str, topic: &str) -> Vec<(LedgerPosition, String)> {
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
fn the_comparison_with_the_ledger_finds_lost_and_foreign_rows() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("proof", 2);
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 4 });
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let mut ledger = publisher.finish();
    setup.catch_up();
    assert_exactly_once(&setup, &topic, &ledger);
    let mut progress = TableProgress::new(&setup, &topic);
    let next = [progress.next_offset(0), progress.next_offset(1)];
    assert_complete_below(&setup, &topic, &next);

    let fails = |check: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err();
    assert!(fails(&|| assert_complete_below(&setup, &topic, &[next[0] + 1, next[1]])), "a lost message");
    // Only good messages beyond the offsets are a fault.
    let last_good =
        ledger.good().into_iter().filter(|((partition, _), _)| *partition == 0).map(|((_, at), _)| at).max();
    let before = last_good.expect("a good message was sent");
    assert!(fails(&|| assert_complete_below(&setup, &topic, &[before, next[1]])), "a row beyond the offsets");
    let (position, run) = ledger.sent.pop_last().expect("a message was sent");
    assert!(fails(&|| assert_exactly_once(&setup, &topic, &ledger)), "a row of a message that was never sent");
    ledger.sent.insert(position, run.map(|run| run + "x").or(Some("x".to_owned())));
    assert!(fails(&|| assert_exactly_once(&setup, &topic, &ledger)), "a row with another message's run");
}
