//! Prometheus metrics of aggregation.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use bellwether_lake::{Error, Result};
use prometheus::{IntCounter, IntGauge, Opts, Registry};

use crate::exported::Exported;

/// Counters and gauges of aggregation.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) rows: IntCounter,
    pub(crate) runs: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) corrected: IntCounter,
    pub(crate) late: IntCounter,
    pub(crate) waiting: IntCounter,
    pub(crate) waited: IntCounter,
    pub(crate) looked_up: IntCounter,
    pub(crate) saturated: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) read_back: IntCounter,
    pub(crate) index_runs: IntGauge,
    pub(crate) index_bytes: IntGauge,
    pub(crate) next_version: IntGauge,
    pub(crate) on_duty: IntGauge,
    /// The rolling metrics; of the shard that keeps their history.
    tasks: Option<Arc<Mutex<Exported>>>,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        Self::register_shard(registry, 0, 1)
    }

    /// Of several shards each has numbers of its own.
    pub(crate) fn register_shard(registry: &Registry, shard: u32, of: u32) -> Result<Self> {
        let options = |name: &str, help: &str| {
            let options = Opts::new(name, help);
            if of > 1 { options.const_label("shard", shard.to_string()) } else { options }
        };
        let wrong =
            |source: prometheus::Error| Error::bug("a metric of aggregation is defined wrongly").with_source(source);
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let counter = IntCounter::with_opts(options(name, help)).map_err(wrong)?;
            registry.register(Box::new(counter.clone())).map_err(wrong)?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::with_opts(options(name, help)).map_err(wrong)?;
            registry.register(Box::new(gauge.clone())).map_err(wrong)?;
            Ok(gauge)
        };
        let tasks = if shard == 0 { Some(Arc::new(Mutex::new(Exported::register(registry)?))) } else { None };
        Ok(Self {
            tasks,
            rows: counter("bellwether_aggregate_rows_total", "Rows of events taken in")?,
            runs: counter("bellwether_aggregate_runs_total", "Runs counted for the first time")?,
            duplicates: counter("bellwether_aggregate_duplicates_total", "Statements that changed nothing")?,
            corrected: counter(
                "bellwether_aggregate_corrected_total",
                "Runs whose contribution was taken back for another",
            )?,
            late: counter(
                "bellwether_aggregate_late_statements_total",
                "Scores, reviews, escalations and policy exceptions that came after or before their run",
            )?,
            waiting: counter(
                "bellwether_aggregate_waiting_total",
                "Late statements that are about no run that has come",
            )?,
            waited: counter("bellwether_aggregate_waited_total", "Late statements that waited and whose run has come")?,
            looked_up: counter(
                "bellwether_aggregate_looked_up_total",
                "Runs looked for in files beyond the run index",
            )?,
            saturated: counter(
                "bellwether_aggregate_saturated_total",
                "Rows of metrics in which a sum left what its column holds and stands at its end",
            )?,
            commits: counter("bellwether_aggregate_commits_total", "Commits to metrics")?,
            fenced: counter("bellwether_aggregate_fenced_total", "Commits lost to another aggregator")?,
            retries: counter("bellwether_aggregate_retries_total", "Steps tried again because storage did not answer")?,
            read_back: counter("bellwether_aggregate_files_read_total", "Files of events read back from storage")?,
            index_runs: gauge("bellwether_aggregate_index_runs", "Statements held in the index")?,
            index_bytes: gauge("bellwether_aggregate_index_bytes", "Bytes held by the index")?,
            on_duty: gauge("bellwether_aggregate_on_duty", "1 where this aggregator works, 0 where it stands by")?,
            next_version: gauge("bellwether_aggregate_next_version", "Version of events that is read next")?,
        })
    }

    /// Shows rows of `rolling_history` as gauges.
    pub(crate) fn show(&self, rows: &RecordBatch) -> Result<()> {
        match &self.tasks {
            Some(tasks) => tasks.lock().unwrap_or_else(PoisonError::into_inner).show(rows),
            None => Ok(()),
        }
    }
}
