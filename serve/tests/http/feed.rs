//! Commits runs to `events` as ingest does, and aggregates them.

use std::sync::Arc;

use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_base::{ManualClock, unique_id};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message};
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome, PartitionRange, StorageOptions};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::Value;

/// Tables with the runs of one partition.
pub(crate) struct Feed {
    pub(crate) lake: Lake,
    next: i64,
    now: i64,
    _folder: tempfile::TempDir,
}

// === impl Feed ===

impl Feed {
    /// Makes empty tables, whose clock stands still an hour after `now`, microseconds since the epoch.
    pub(crate) async fn new(now: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, clock) =
            (folder.path().to_str().expect("text"), Arc::new(ManualClock::at(now + 60 * super::MINUTE)));
        let lake = Lake::open_with_clock(root, &StorageOptions::default(), clock).await.expect("opens");
        Self { lake, next: 0, now, _folder: folder }
    }

    /// Commits runs in one commit, and brings the metrics up to date.
    pub(crate) async fn commit(&mut self, runs: &[Value]) {
        let mut builder = BatchBuilder::new(Limits::default());
        let from = self.next;
        for run in runs {
            let body = run.to_string().into_bytes();
            let message =
                Message { topic: "t", partition: 0, offset: self.next, payload: Some(&body), ..Message::default() };
            builder.push(&message, self.now);
            self.next += 1;
        }
        let (events, quarantine) = builder.finish().expect("rows");
        assert_eq!(quarantine.rows(), 0, "every event is valid");
        let files = self.lake.store(&events).await.expect("writes");
        let log = self.lake.log(Table::Events);
        let on = log.load().await.expect("loads");
        let app_id = "j/t/0".to_owned();
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from,
            next: self.next,
            end_offset: None,
            newest_event_micros: Some(self.now),
            passed_over: Some(0),
        };
        let commit = Commit {
            uuid: unique_id(),
            advances: vec![Advance { expected: on.next(&app_id), app_id, next: self.next }],
            files: files.iter().map(|file| file.file.clone()).collect(),
            operation: "ingest",
            ranges: vec![range],
            facts: serde_json::Map::new(),
        };
        let outcome = log.try_commit(&on, &commit).await.expect("answers");
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
        let registry = Registry::new();
        let opened = Aggregator::open(&self.lake, AggregatorSettings::default(), None, &registry);
        let mut aggregator = Box::pin(opened).await.expect("opens");
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    }
}
