//! Commits statements to `events` as ingest would, and queries the tables.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use bellwether_aggregate::recompute::{first_difference, folded, recompute};
use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_base::{Clock, unique_id};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message};
use bellwether_lake::{Advance, Commit, CommitLog, Handover, Lake, Outcome, PartitionRange, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::Value;

/// 2026-11-24T18:00:00Z.
pub(crate) const NOW: i64 = 1_795_543_200_000_000;

const PARTITIONS: usize = 3;

/// Views that depend on the statements only. Kafka coordinates and arrival times are excluded.
const VIEWS: [(&str, &str); 9] = [
    ("runs", "* EXCEPT (topic, partition, \"offset\", kafka_timestamp, ingested_at)"),
    ("rolling", "*"),
    ("metrics_1m", "*"),
    ("release_summary", "*"),
    ("tool_calls", "*"),
    ("field_errors", "*"),
    ("policy_exceptions", "*"),
    ("stale_sources", "*"),
    ("orphans", "* EXCEPT (waits_since, waited_s)"),
];

/// A lake to which a test commits events itself.
pub(crate) struct Feed {
    pub(crate) lake: Lake,
    next: [i64; PARTITIONS],
    root: std::path::PathBuf,
    /// The newest event time that commits state, for the role `watch`.
    pub(crate) newest_event_micros: Option<i64>,
    _folder: Option<tempfile::TempDir>,
}

// === impl Feed ===

impl Feed {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut feed = Self::at(folder.path().to_owned()).await;
        feed._folder = Some(folder);
        feed
    }

    /// Opens a lake under the caller's root.
    pub(crate) async fn at(root: std::path::PathBuf) -> Self {
        let lake = Lake::open(root.to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
        Self { lake, next: [0; PARTITIONS], root, newest_event_micros: None, _folder: None }
    }

    /// Opens a lake with a clock of the caller.
    pub(crate) async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (root, options) = (folder.path().to_owned(), StorageOptions::default());
        let lake = Lake::open_with_clock(root.to_str().expect("text"), &options, clock).await.expect("opens");
        Self { lake, next: [0; PARTITIONS], root, newest_event_micros: None, _folder: Some(folder) }
    }

    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Commits messages, each with its partition, in one commit.
    pub(crate) async fn commit(&mut self, messages: &[(usize, Vec<u8>)], handover: Option<&Handover>) {
        let handed_on = handover.map_or(&[] as &[_], Handover::columns);
        let builder = BatchBuilder::new(Limits {
            max_age_micros: i64::MAX,
            content_bytes: Some(usize::MAX),
            ..Limits::default()
        });
        let mut builder = builder.handing_on(handed_on).expect("columns of events");
        let before = self.next;
        for (partition, body) in messages {
            let offset = self.next[*partition];
            self.next[*partition] += 1;
            let partition = i32::try_from(*partition).expect("few");
            builder.push(&Message { topic: "t", partition, offset, payload: Some(body), ..Message::default() }, NOW);
        }
        let (events, quarantine) = builder.finish().expect("rows");
        assert_eq!(quarantine.rows(), 0, "every event is valid");
        let files = self.lake.store(&events).await.expect("writes");
        let log = self.lake.log(Table::Events);
        let on = log.load().await.expect("loads");
        let moved = (0..PARTITIONS).filter(|n| self.next[*n] > before[*n]).map(|n| {
            let app_id = format!("j/t/{n}");
            Advance { expected: on.next(&app_id), app_id, next: self.next[n] }
        });
        let range = |n: usize| PartitionRange {
            topic: "t".to_owned(),
            partition: i32::try_from(n).expect("few"),
            from: before[n],
            next: self.next[n],
            end_offset: None,
            newest_event_micros: self.newest_event_micros,
            passed_over: Some(0),
        };
        let ranges = (0..PARTITIONS).filter(|n| self.next[*n] > before[*n]).map(range).collect();
        let commit = Commit {
            uuid: unique_id(),
            advances: moved.collect(),
            files: files.iter().map(|file| file.file.clone()).collect(),
            operation: "ingest",
            ranges,
            facts: serde_json::Map::new(),
        };
        let outcome = log.try_commit(&on, &commit).await.expect("answers");
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
        if let Some(handover) = handover {
            handover.offer(commit.uuid, files);
        }
    }

    /// Commits events of partition 0 in one commit.
    pub(crate) async fn commit_events(&mut self, events: &[Value]) {
        let messages: Vec<_> = events.iter().map(|event| (0, event.to_string().into_bytes())).collect();
        Box::pin(self.commit(&messages, None)).await;
    }

    pub(crate) async fn aggregator(&self, settings: AggregatorSettings, handover: Option<Handover>) -> Aggregator {
        Box::pin(Aggregator::open(&self.lake, settings, handover, &Registry::new())).await.expect("opens")
    }

    /// Runs a new aggregator until it has caught up.
    pub(crate) async fn aggregate(&self, settings: AggregatorSettings) {
        let mut aggregator = Box::pin(self.aggregator(settings, None)).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    }

    /// Returns `metrics` with corrections folded, after checking that it equals the recomputation from `events` (L-4).
    pub(crate) async fn folded(&self) -> RecordBatch {
        let table = folded(&self.lake).await.expect("folds");
        let computed = Box::pin(recompute(&self.lake)).await.expect("computes");
        assert_eq!(first_difference(&table, &computed), None);
        table
    }

    pub(crate) async fn session(&self) -> Session {
        Box::pin(Session::open(&self.lake, SessionSettings::default())).await.expect("opens")
    }

    /// Runs a query and returns its rows as JSON.
    pub(crate) async fn sql(&self, query: &str) -> Vec<Value> {
        rows(&self.session().await, query).await
    }

    /// Returns the rows of every view as sorted text.
    pub(crate) async fn views(&self) -> Vec<String> {
        let session = self.session().await;
        let mut all = Vec::new();
        for (view, columns) in VIEWS {
            let query = format!("SELECT {columns} FROM {view}");
            let answer = session.execute(&query).await.unwrap_or_else(|error| panic!("{view}: {}", error.chain()));
            let answer = answer.collect().await.unwrap_or_else(|error| panic!("{view}: {}", error.chain()));
            let mut lines: Vec<String> = answer.iter().flat_map(lines_of).collect();
            lines.sort_unstable();
            all.extend(lines.into_iter().map(|line| format!("{view}: {line}")));
        }
        all
    }
}

pub(crate) async fn rows(session: &Session, query: &str) -> Vec<Value> {
    let answer = Box::pin(session.execute(query)).await.unwrap_or_else(|error| panic!("{query}: {}", error.chain()));
    let answer = answer.collect().await.unwrap_or_else(|error| panic!("{query}: {}", error.chain()));
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&answer.iter().collect::<Vec<_>>()).expect("writes");
    writer.finish().expect("writes");
    let text = writer.into_inner();
    if text.is_empty() { Vec::new() } else { serde_json::from_slice(&text).expect("JSON") }
}

/// Formats rows as text. Doubles are rounded: their sums depend on the order of addition in the last digits.
fn lines_of(batch: &RecordBatch) -> Vec<String> {
    let cell = |row: usize, n: usize| {
        let column = batch.column(n);
        let text = array_value_to_string(column, row).expect("shows");
        let text = match (column.data_type(), text.parse::<f64>()) {
            (DataType::Float64, Ok(number)) => format!("{number:.10e}"),
            _ => text,
        };
        format!("{}={text}", batch.schema().field(n).name())
    };
    (0..batch.num_rows())
        .map(|row| (0..batch.num_columns()).map(|n| cell(row, n)).collect::<Vec<_>>().join(" "))
        .collect()
}
