//! What ingestion says of itself, for health by freshness: what moved last, what waits, and why it does not move.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A moment of ingestion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Time of the last commit, microseconds since the epoch; none: no commit yet.
    pub committed_micros: Option<i64>,
    /// Rows committed to `events` so far.
    pub rows_committed: u64,
    /// Messages read so far.
    pub messages: u64,
    /// Messages rejected so far.
    pub quarantined: u64,
    /// Messages the broker holds that are not committed yet, over all partitions assigned.
    pub behind: i64,
    /// Partitions assigned.
    pub assigned: usize,
    /// Why the broker is out of reach.
    pub broker: Option<String>,
    /// Why storage is out of reach.
    pub storage: Option<String>,
    /// Partitions that wait for a person's decision, with the reason.
    pub halted: BTreeMap<String, String>,
}

impl Status {
    /// Why ingestion does not move, if it does not.
    pub fn trouble(&self) -> Option<String> {
        let halted = self.halted.iter().map(|(partition, why)| format!("`{partition}` is halted: {why}"));
        let broker = self.broker.iter().map(|why| format!("Kafka is unreachable: {why}"));
        let storage = self.storage.iter().map(|why| format!("storage is unreachable: {why}"));
        let all: Vec<String> = halted.chain(broker).chain(storage).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Shared by whoever works and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Health {
    status: Arc<Mutex<Status>>,
}

impl Health {
    /// The newest status.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Only plain assignments happen under the lock, so a poisoned one still guards a whole value.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
