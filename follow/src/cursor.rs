//! Reading a table's log entry by entry.

use std::sync::atomic::{AtomicU32, Ordering};

use bellwether_base::{Error, Result};
use bellwether_lake::{DeltaLog, LogEntry};
use futures::{StreamExt, TryStreamExt, stream};

/// Entries that are read at the same time far behind the end of a log.
const AT_ONCE: usize = 16;

/// Vain looks for the next version between two checks that it has not been cleaned up. The check costs a request of its own; a
/// version that was not there a moment ago can be gone only after a long pause.
const CHECKED_EVERY: u32 = 60;

/// The log of a table, and the version to read next.
pub struct Cursor {
    log: DeltaLog,
    next: i64,
    hint: Option<&'static str>,
    /// Looks for the next version that found nothing.
    vain: AtomicU32,
}

// === impl Cursor ===

impl Cursor {
    /// Starts at a version.
    pub fn new(log: DeltaLog, next: i64) -> Self {
        Self { log, next, hint: None, vain: AtomicU32::new(0) }
    }

    /// Adds what a person can do if the next version is gone from the log.
    #[must_use]
    pub fn if_gone(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// Returns the version to read next.
    pub fn next_version(&self) -> i64 {
        self.next
    }

    /// Returns the log.
    pub fn log(&self) -> &DeltaLog {
        &self.log
    }

    /// Moves to a version, once everything before it has been taken in.
    pub fn advance_to(&mut self, next: i64) {
        debug_assert!(next >= self.next, "a cursor moves forwards only");
        if next != self.next {
            *self.vain.get_mut() = 0;
        }
        self.next = next;
    }

    /// Reads the entry so many versions after the next one; none if that version does not exist yet.
    ///
    /// # Errors
    /// `Data` if the next version did exist and its entry has been cleaned up: waiting for it would never end.
    /// `Unavailable` if storage does not answer.
    pub async fn entry(&self, ahead: i64) -> Result<Option<LogEntry>> {
        let entry = self.log.entry(self.next + ahead).await?;
        let in_vain = entry.is_none() && ahead == 0;
        let is_due = || self.vain.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKED_EVERY);
        if in_vain && is_due() && self.log.is_cleaned_up_at(self.next).await? {
            let table = self.log.table().name();
            let error = Error::data(format!("version {} of `{table}` is no longer in its log", self.next));
            return Err(match self.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        Ok(entry)
    }

    /// Reads the entries from the one so many versions after the next one: at most `most`, and fewer if the log ends before.
    /// The further behind the end, the more it reads at the same time, because a store may take tens of milliseconds for each;
    /// at the end it asks for one version that does not exist yet, and no more.
    ///
    /// # Errors
    /// As [`Cursor::entry`].
    pub async fn entries(&self, ahead: i64, most: usize) -> Result<Vec<LogEntry>> {
        let mut found: Vec<LogEntry> = Vec::new();
        while found.len() < most {
            let from = ahead + i64::try_from(found.len()).unwrap_or(i64::MAX);
            let wanted = found.len().clamp(1, AT_ONCE).min(most - found.len());
            let wanted = (from..).take(wanted).map(|ahead| self.entry(ahead));
            let mut read = stream::iter(wanted).buffered(AT_ONCE);
            while let Some(entry) = read.try_next().await? {
                let Some(entry) = entry else { return Ok(found) };
                found.push(entry);
            }
        }
        Ok(found)
    }
}
