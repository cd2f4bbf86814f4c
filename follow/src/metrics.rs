//! Prometheus metrics that every follower has.

use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use prometheus::{IntCounter, IntGauge, Opts, Registry};

/// Counters and gauges of one follower. Clones share them.
#[derive(Clone, Debug)]
pub struct FollowMetrics {
    /// Commits lost to another process.
    pub fenced: IntCounter,
    /// Steps and commits tried again.
    pub retries: IntCounter,
    pub(crate) next_version: IntGauge,
    pub(crate) on_duty: IntGauge,
}

// === impl FollowMetrics ===

impl FollowMetrics {
    /// Registers the metrics of a role that follows a table, as `bellwether_<role>_…`. Several followers of one role, such
    /// as shards, are told apart by a label and its value.
    ///
    /// # Errors
    /// `Bug` if a metric of that name and label exists.
    pub fn register(registry: &Registry, role: &str, follows: Table, label: Option<(&str, String)>) -> Result<Self> {
        let wrong = |source: prometheus::Error| {
            Error::bug(format!("a metric of `{role}` cannot be registered")).with_source(source)
        };
        let options = |name: &str, help: &str| {
            let options = Opts::new(format!("bellwether_{role}_{name}"), help);
            match &label {
                Some((label, value)) => options.const_label(*label, value.clone()),
                None => options,
            }
        };
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
        Ok(Self {
            fenced: counter("fenced_total", "Commits lost to another process")?,
            retries: counter("retries_total", "Steps tried again because storage was unavailable")?,
            next_version: gauge("next_version", &format!("Next version of {} to read", follows.name()))?,
            on_duty: gauge("on_duty", "1 while this process works, 0 while it stands by")?,
        })
    }
}
