//! Prometheus metrics of aggregation.

use bellwether_lake::{Error, Result};
use prometheus::{IntCounter, IntGauge, Registry};

/// Counters and gauges of aggregation.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) rows: IntCounter,
    pub(crate) runs: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) superseded: IntCounter,
    pub(crate) late: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) read_back: IntCounter,
    pub(crate) index_runs: IntGauge,
    pub(crate) index_bytes: IntGauge,
    pub(crate) next_version: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        let wrong =
            |source: prometheus::Error| Error::bug("a metric of aggregation is defined wrongly").with_source(source);
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let counter = IntCounter::new(name, help).map_err(wrong)?;
            registry.register(Box::new(counter.clone())).map_err(wrong)?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(name, help).map_err(wrong)?;
            registry.register(Box::new(gauge.clone())).map_err(wrong)?;
            Ok(gauge)
        };
        Ok(Self {
            rows: counter("bellwether_aggregate_rows_total", "Rows of events taken in")?,
            runs: counter("bellwether_aggregate_runs_total", "Runs counted for the first time")?,
            duplicates: counter("bellwether_aggregate_duplicates_total", "Statements that changed nothing")?,
            superseded: counter("bellwether_aggregate_superseded_total", "Statements that took back another")?,
            late: counter(
                "bellwether_aggregate_late_statements_total",
                "Statements of other kinds than a completed run",
            )?,
            commits: counter("bellwether_aggregate_commits_total", "Commits to metrics")?,
            fenced: counter("bellwether_aggregate_fenced_total", "Commits lost to another aggregator")?,
            retries: counter("bellwether_aggregate_retries_total", "Steps tried again because storage did not answer")?,
            read_back: counter("bellwether_aggregate_files_read_total", "Files of events read back from storage")?,
            index_runs: gauge("bellwether_aggregate_index_runs", "Runs held in the index")?,
            index_bytes: gauge("bellwether_aggregate_index_bytes", "Bytes held by the index")?,
            next_version: gauge("bellwether_aggregate_next_version", "Version of events that is read next")?,
        })
    }
}
