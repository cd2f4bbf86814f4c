//! Prometheus metrics of aggregation.

use arrow::array::{ArrayRef, RecordBatch};
use bellwether_base::Result;
use bellwether_follow::{FollowMetrics, MetricRegistrar};
use bellwether_tables::Table;
use prometheus::{IntCounter, IntGauge, Registry};

use crate::exported::Exported;
use crate::runs::Counts;
use crate::settings::AggregatorSettings;
use crate::tail::FileRows;

/// Counters and gauges of aggregation. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) follow: FollowMetrics,
    rows: IntCounter,
    runs: IntCounter,
    duplicates: IntCounter,
    corrected: IntCounter,
    late: IntCounter,
    waiting: IntCounter,
    waited: IntCounter,
    looked_up: IntCounter,
    saturated: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) read_back: IntCounter,
    pub(crate) index_runs: IntGauge,
    pub(crate) index_bytes: IntGauge,
    /// The rolling metrics; only of the shard that writes `rolling_history`.
    tasks: Option<Exported>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics of a shard, with its number as a label if there are several.
    pub(crate) fn register(registry: &Registry, settings: &AggregatorSettings) -> Result<Self> {
        let label = (settings.shards > 1).then(|| ("shard", settings.shard.to_string()));
        let new = MetricRegistrar::new(registry, "aggregate", label.clone());
        let exports = settings.shard == 0 && settings.rolling_history;
        let tasks = exports.then(|| Exported::register(registry, settings.exported_series)).transpose()?;
        Ok(Self {
            tasks,
            follow: FollowMetrics::register(registry, "aggregate", Table::Events, label)?,
            rows: new.counter("rows_total", "Rows of events read")?,
            runs: new.counter("runs_total", "Runs counted for the first time")?,
            duplicates: new.counter("duplicates_total", "Statements that changed nothing")?,
            corrected: new.counter("corrected_total", "Runs with a corrected contribution")?,
            late: new.counter(
                "late_statements_total",
                "Scores, reviews, escalations and policy exceptions in events of their own",
            )?,
            waiting: new.counter("waiting_total", "Late statements that arrived before their run")?,
            waited: new.counter("waited_total", "Late statements that waited until their run arrived")?,
            looked_up: new.counter("looked_up_total", "Runs looked up in files outside the run index")?,
            saturated: new.counter("saturated_total", "Rows of metrics with a sum that does not fit its column")?,
            commits: new.counter("commits_total", "Commits to metrics")?,
            read_back: new.counter("files_read_total", "Files of events read back from storage")?,
            index_runs: new.gauge("index_runs", "Statements held in the run index")?,
            index_bytes: new.gauge("index_bytes", "Bytes of the run index")?,
        })
    }

    /// Counts the new rows of a step, and the rows of `metrics` that are saturated.
    pub(crate) fn count(&self, new: &[FileRows], counts: &Counts, saturated: usize) {
        self.rows.inc_by(new.iter().map(|file| file.count() as u64).sum());
        self.runs.inc_by(counts.runs);
        self.duplicates.inc_by(counts.duplicates);
        self.corrected.inc_by(counts.corrected);
        self.late.inc_by(counts.late);
        self.waiting.inc_by(counts.waiting);
        self.waited.inc_by(counts.waited);
        self.looked_up.inc_by(counts.looked_up);
        if saturated > 0 {
            tracing::warn!(rows = saturated, "sums do not fit their columns; `saturated` is true in these rows");
            self.saturated.inc_by(saturated as u64);
        }
    }

    /// Shows rows of `rolling_history`, with the sketches of their latencies.
    pub(crate) fn show(&self, rows: &RecordBatch, latency_sketches: &ArrayRef) -> Result<()> {
        self.tasks.as_ref().map_or(Ok(()), |tasks| tasks.show(rows, latency_sketches))
    }

    /// Shows no rows of `rolling_history` any more, because another process writes newer ones.
    pub(crate) fn hide(&self) {
        if let Some(tasks) = &self.tasks {
            tasks.hide();
        }
    }
}
