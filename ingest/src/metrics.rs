//! Prometheus metrics of ingestion. Labels are bounded: topic, partition and reason, never a run id.

use bellwether_base::{Error, Result};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Counters and gauges of ingestion.
#[derive(Clone, Debug)]
pub struct IngestMetrics {
    /// Messages read.
    pub messages: IntCounter,
    /// Bytes of message bodies read.
    pub bytes: IntCounter,
    /// Messages rejected, by reason.
    pub quarantined: IntCounterVec,
    /// Rows committed to `events`.
    pub rows_committed: IntCounter,
    /// Rows in a commit.
    pub commit_rows: Histogram,
    /// Seconds to commit a batch.
    pub commit_seconds: Histogram,
    /// Messages in the broker that are not committed yet, by topic and partition.
    pub lag: IntGaugeVec,
    /// Bytes held for the next commit.
    pub held_bytes: IntGauge,
    /// Partition assignments and revocations.
    pub rebalances: IntCounter,
    /// Partitions whose rows were dropped because another owner commits them.
    pub fenced: IntCounter,
    /// Partitions that are halted until an operator decides.
    pub halted: IntGauge,
    /// Offsets that hold no message (transactions, compaction).
    pub gaps: IntCounter,
    /// Retried steps, by step.
    pub retries: IntCounterVec,
}

// === impl IngestMetrics ===

impl IngestMetrics {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// `Bug` if a name is registered twice.
    pub fn register(registry: &Registry) -> Result<Self> {
        Self::make(registry)
            .map_err(|source| Error::bug("cannot register the metrics of ingestion").with_source(source))
    }

    fn make(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let lag = IntGaugeVec::new(
            Opts::new("bellwether_ingest_lag_messages", "Messages in the broker that are not committed yet"),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            messages: counter("bellwether_ingest_messages_total", "Messages read")?,
            bytes: counter("bellwether_ingest_bytes_total", "Bytes of message bodies read")?,
            quarantined: counters("bellwether_ingest_quarantined_total", "Messages rejected, by reason", "reason")?,
            rows_committed: counter("bellwether_ingest_rows_committed_total", "Rows committed to events")?,
            commit_rows: histogram(
                "bellwether_ingest_commit_rows",
                "Rows in a commit",
                exponential_buckets(1.0, 4.0, 10)?,
            )?,
            commit_seconds: histogram(
                "bellwether_ingest_commit_seconds",
                "Seconds to commit a batch",
                exponential_buckets(0.005, 2.0, 13)?,
            )?,
            lag,
            held_bytes: gauge("bellwether_ingest_held_bytes", "Bytes held for the next commit")?,
            rebalances: counter("bellwether_ingest_rebalances_total", "Partition assignments and revocations")?,
            fenced: counter(
                "bellwether_ingest_fenced_total",
                "Partitions whose rows were dropped because another owner commits them",
            )?,
            halted: gauge(
                "bellwether_ingest_halted_partitions",
                "Partitions that are halted until an operator decides",
            )?,
            gaps: counter("bellwether_ingest_offset_gaps_total", "Offsets that hold no message")?,
            retries: counters("bellwether_ingest_retries_total", "Retried steps, by step", "what")?,
        })
    }
}
