//! Prometheus metrics of the roll-ups.

use bellwether_base::Result;
use bellwether_follow::{FollowMetrics, MetricRegistrar};
use bellwether_lake::RollUp;
use bellwether_tables::Table;
use prometheus::{IntCounter, IntGauge, Registry};

/// Name of the role.
pub(crate) const ROLE: &str = "rollup";

/// Counters and gauges of the roll-ups. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) follow: FollowMetrics,
    pub(crate) rows_read: IntCounter,
    pub(crate) rows_written: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) renewed: IntCounter,
    hours: IntGauge,
    days: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        let new = MetricRegistrar::new(registry, ROLE, None);
        Ok(Self {
            follow: FollowMetrics::register(registry, ROLE, Table::Events, None)?,
            rows_read: new.counter("rows_read_total", "Rows of metrics and metrics_hourly folded")?,
            rows_written: new.counter("rows_written_total", "Rows of metrics_hourly and metrics_daily written")?,
            commits: new.counter("commits_total", "Commits to metrics_hourly and metrics_daily")?,
            renewed: new.counter("renewed_total", "Roll-ups made again after a rebuild of metrics")?,
            hours: new.gauge("hourly_events_to", "Version of events up to which metrics_hourly holds the metrics")?,
            days: new.gauge("daily_events_to", "Version of events up to which metrics_daily holds the metrics")?,
        })
    }

    /// Shows how far a roll-up is.
    pub(crate) fn show(&self, rollup: RollUp, rolled_to: i64) {
        match rollup {
            RollUp::Hours => self.hours.set(rolled_to),
            RollUp::Days => self.days.set(rolled_to),
        }
    }
}
