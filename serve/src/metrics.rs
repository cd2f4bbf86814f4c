//! Prometheus metrics of the server.

use bellwether_base::{Error, Result};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters and gauges of the server. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Requests by endpoint and status.
    pub(crate) requests: IntCounterVec,
    pub(crate) statements: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) cut: IntCounter,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// `Bug` if metrics of these names exist.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let make = || -> prometheus::Result<Self> {
            fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            }
            let options = Opts::new("bellwether_serve_requests_total", "Requests by endpoint and status");
            Ok(Self {
                requests: registered(registry, IntCounterVec::new(options, &["endpoint", "status"])?)?,
                statements: registered(
                    registry,
                    IntGauge::new(
                        "bellwether_serve_statements",
                        "SQL statements that run, or whose answer is being sent",
                    )?,
                )?,
                connections: registered(registry, IntGauge::new("bellwether_serve_connections", "Open connections")?)?,
                cut: registered(
                    registry,
                    IntCounter::new(
                        "bellwether_serve_cut_total",
                        "Answers that ended early: cancelled, beyond a limit, or not read",
                    )?,
                )?,
            })
        };
        make().map_err(|source| Error::bug("a metric of the server cannot be registered").with_source(source))
    }
}
