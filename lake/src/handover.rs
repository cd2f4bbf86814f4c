//! Passes freshly committed rows to a reader in the same process, so that it need not read them back from Parquet.
//!
//! It is only a shortcut: after a miss, the reader reads the file. Its size in bytes is bounded; the oldest offer goes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::root::WrittenFile;

/// Rows of recent commits, by commit id. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Handover {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit_bytes: usize,
    columns: &'static [&'static str],
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    offers: VecDeque<Offer>,
}

#[derive(Debug)]
struct Offer {
    uuid: Uuid,
    bytes: usize,
    files: Vec<WrittenFile>,
}

impl Handover {
    /// Creates a handover that holds at most so many bytes of rows, with these columns.
    pub fn new(limit_bytes: usize, columns: &'static [&'static str]) -> Self {
        Self { inner: Arc::new(Inner { limit_bytes, columns, held: Mutex::default(), changed: Notify::new() }) }
    }

    /// Returns the columns that the reader takes.
    pub fn columns(&self) -> &'static [&'static str] {
        self.inner.columns
    }

    /// Offers the rows of a commit that has landed, and wakes the reader.
    pub fn offer(&self, uuid: Uuid, files: Vec<WrittenFile>) {
        let bytes = files.iter().flat_map(|file| &file.rows).map(RecordBatch::get_array_memory_size).sum();
        if bytes <= self.inner.limit_bytes {
            let mut held = self.held();
            held.bytes += bytes;
            held.offers.push_back(Offer { uuid, bytes, files });
            while held.bytes > self.inner.limit_bytes {
                let Some(oldest) = held.offers.pop_front() else { break };
                held.bytes -= oldest.bytes;
            }
        }
        self.inner.changed.notify_waiters();
        self.inner.changed.notify_one();
    }

    /// Takes the rows of a commit; returns `None` if the reader must read them from the files.
    pub fn take(&self, uuid: Uuid) -> Option<Vec<WrittenFile>> {
        let mut held = self.held();
        let index = held.offers.iter().position(|offer| offer.uuid == uuid)?;
        let offer = held.offers.remove(index)?;
        held.bytes -= offer.bytes;
        Some(offer.files)
    }

    /// Returns the bytes that are held now.
    pub fn held_bytes(&self) -> usize {
        self.held().bytes
    }

    /// Waits for the next offer; returns at once if one was made since the last call.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing can panic half-way through a change, so a poisoned lock still guards a consistent value.
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::DataFile;
    use arrow::array::Int64Array;
    use std::sync::Arc;

    fn file(rows: i64) -> WrittenFile {
        let column = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("n", column as _)]).expect("one column");
        WrittenFile { file: DataFile::default(), rows: vec![batch] }
    }

    #[test]
    fn the_oldest_offer_goes_first_when_the_limit_is_reached() {
        let size = file(1000).rows[0].get_array_memory_size();
        let handover = Handover::new(2 * size, &["n"]);
        let ids: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        for id in &ids {
            handover.offer(*id, vec![file(1000)]);
        }
        assert!(handover.held_bytes() <= 2 * size);
        assert!(handover.take(ids[0]).is_none());
        assert!(handover.take(ids[2]).is_some());
        assert!(handover.take(ids[2]).is_none(), "an offer is taken once");
    }

    #[test]
    fn an_offer_above_the_limit_is_not_held() {
        let handover = Handover::new(10, &["n"]);
        handover.offer(Uuid::from_u128(1), vec![file(1000)]);
        assert_eq!(handover.held_bytes(), 0);
    }
}
