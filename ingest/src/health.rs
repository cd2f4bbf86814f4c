//! The state of ingestion as health reports it: its last progress, its backlog, and the reasons that it is stuck.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A snapshot of the state of ingestion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestStatus {
    /// Time of the last commit, microseconds since the epoch; `None` before the first.
    pub committed_micros: Option<i64>,
    /// Rows committed to `events` so far.
    pub rows_committed: u64,
    /// Messages read so far.
    pub messages: u64,
    /// Messages rejected so far.
    pub quarantined: u64,
    /// Messages in the broker that are not committed yet, over all assigned partitions.
    pub behind: i64,
    /// Number of assigned partitions.
    pub assigned: usize,
    /// Why the broker is unreachable.
    pub broker: Option<String>,
    /// Why storage is unreachable.
    pub storage: Option<String>,
    /// Partitions that are halted until an operator decides, with the reason.
    pub halted: BTreeMap<String, String>,
}

impl IngestStatus {
    /// Returns why ingestion is stuck, if it is.
    pub fn trouble(&self) -> Option<String> {
        let halted = self.halted.iter().map(|(partition, why)| format!("`{partition}` is halted: {why}"));
        let broker = self.broker.iter().map(|why| format!("Kafka is unreachable: {why}"));
        let storage = self.storage.iter().map(|why| format!("storage is unreachable: {why}"));
        let all: Vec<String> = halted.chain(broker).chain(storage).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The status of ingestion, shared between the worker and the health endpoint.
#[derive(Clone, Debug, Default)]
pub struct IngestHealth {
    status: Arc<Mutex<IngestStatus>>,
}

impl IngestHealth {
    /// Returns the current status.
    pub fn status(&self) -> IngestStatus {
        self.lock().clone()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut IngestStatus)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, IngestStatus> {
        // Only plain assignments happen under the lock, so a poisoned one still guards a whole value.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
