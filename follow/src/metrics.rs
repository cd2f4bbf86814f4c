//! Prometheus metrics that every follower has.

use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use prometheus::core::Collector;
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

/// Registers the metrics of one role, as `bellwether_<role>_<name>`.
pub struct MetricRegistrar<'a> {
    registry: &'a Registry,
    role: &'a str,
    label: Option<(&'a str, String)>,
}

// === impl MetricRegistrar ===

impl<'a> MetricRegistrar<'a> {
    /// Makes the metrics. Each carries the label, if there is one.
    pub fn new(registry: &'a Registry, role: &'a str, label: Option<(&'a str, String)>) -> Self {
        Self { registry, role, label }
    }

    /// Registers a counter.
    ///
    /// # Errors
    /// `Bug` if a metric of that name and label exists.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.registered(IntCounter::with_opts(self.options(name, help)))
    }

    /// Registers a gauge.
    ///
    /// # Errors
    /// `Bug` if a metric of that name and label exists.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.registered(IntGauge::with_opts(self.options(name, help)))
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        let options = Opts::new(format!("bellwether_{}_{name}", self.role), help);
        match &self.label {
            Some((label, value)) => options.const_label(*label, value.clone()),
            None => options,
        }
    }

    fn registered<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> Result<M> {
        made.and_then(|metric| self.registry.register(Box::new(metric.clone())).map(|()| metric)).map_err(|source| {
            Error::bug(format!("a metric of `{}` cannot be registered", self.role)).with_source(source)
        })
    }
}

// === impl FollowMetrics ===

impl FollowMetrics {
    /// Registers the metrics of a role that follows a table, as `bellwether_<role>_…`. A label and
    /// its value distinguish several followers of one role, such as shards.
    ///
    /// # Errors
    /// `Bug` if a metric of that name and label exists.
    pub fn register(registry: &Registry, role: &str, follows: Table, label: Option<(&str, String)>) -> Result<Self> {
        let new = MetricRegistrar::new(registry, role, label);
        Ok(Self {
            fenced: new.counter("fenced_total", "Commits lost to another process")?,
            retries: new.counter("retries_total", "Steps tried again because storage was unavailable")?,
            next_version: new.gauge("next_version", &format!("Next version of {} to read", follows.name()))?,
            on_duty: new.gauge("on_duty", "1 while this process works, 0 while it stands by")?,
        })
    }
}
