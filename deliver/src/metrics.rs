//! Prometheus metrics of the role.

use bellwether_base::{Error, Result};
use bellwether_follow::FollowMetrics;
use bellwether_tables::Table;
use prometheus::core::Collector;
use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Counters and gauges of the role. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) follow: FollowMetrics,
    /// Messages by sink and result: sent, failed, refused.
    pub(crate) messages: IntCounterVec,
    pub(crate) oldest: Gauge,
    pub(crate) seconds: HistogramVec,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the metrics, with a count of 0 for each sink and result, so that the first refusal also shows as an increase.
    pub(crate) fn register<'a>(registry: &Registry, sinks: impl IntoIterator<Item = &'a String>) -> Result<Self> {
        fn made<M: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<M>) -> Result<M> {
            made.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric))
                .map_err(|source| Error::bug("a metric of the role `deliver` cannot be registered").with_source(source))
        }
        let messages = Opts::new("bellwether_deliver_messages_total", "Messages by sink and result");
        let messages = made(registry, IntCounterVec::new(messages, &["sink", "result"]))?;
        for sink in sinks {
            for result in ["sent", "failed", "refused"] {
                messages.with_label_values(&[sink.as_str(), result]).reset();
            }
        }
        let seconds = HistogramOpts::new(
            "bellwether_deliver_seconds",
            "Time from a transition in alerts to the answer of the sink that has it",
        );
        let seconds = seconds.buckets(vec![0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]);
        Ok(Self {
            follow: FollowMetrics::register(registry, "deliver", Table::Alerts, None)?,
            messages,
            oldest: made(
                registry,
                Gauge::new(
                    "bellwether_deliver_oldest_undelivered_seconds",
                    "Age of the oldest transition that is still to be delivered; 0 if there is none",
                ),
            )?,
            seconds: made(registry, HistogramVec::new(seconds, &["sink"]))?,
        })
    }
}
