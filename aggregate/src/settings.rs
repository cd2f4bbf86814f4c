//! Settings of aggregation.

use std::time::Duration;

/// Settings of the role, for one shard.
#[derive(Clone, Copy, Debug)]
pub struct AggregatorSettings {
    /// Bytes of the run index.
    pub index_memory_bytes: usize,
    /// Time for which the index holds a run; older runs are looked up in `events`.
    pub horizon: Duration,
    /// Time between two polls of `events` for new versions; commits of the same process are seen at once.
    pub poll_interval: Duration,
    /// Writes the rolling metrics to `rolling_history`.
    pub rolling_history: bool,
    /// Most Prometheus series of the rolling metrics; the groups with the most runs have them.
    pub exported_series: usize,
    /// Records in `metrics` that versions of `events` without rows were read, too: heartbeats wait for that.
    pub record_progress: bool,
    /// Memory of the queries that compute contributions and metrics; beyond it, they spill to disk.
    pub memory_bytes: usize,
    /// Memory of the query that computes a span of `rolling_history`; beyond it, the query spills to disk.
    pub rolling_history_memory_bytes: usize,
    /// Number of shards that the runs are divided into.
    pub shards: u32,
    /// Number of this shard. Shard 0 also writes `releases` and `rolling_history`.
    pub shard: u32,
    /// Most runs that are read back and corrected at once. A step may have late statements about many more, and a run takes far
    /// more memory than a late statement.
    pub corrected_at_once: usize,
}

impl Default for AggregatorSettings {
    fn default() -> Self {
        Self {
            index_memory_bytes: 128 << 20,
            horizon: Duration::from_secs(24 * 3600),
            poll_interval: Duration::from_millis(500),
            rolling_history: true,
            exported_series: 50_000,
            record_progress: false,
            memory_bytes: 128 << 20,
            rolling_history_memory_bytes: 128 << 20,
            shards: 1,
            shard: 0,
            corrected_at_once: 50_000,
        }
    }
}
