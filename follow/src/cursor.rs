//! Reading a table's log entry by entry.

use bellwether_base::{Error, Result};
use bellwether_lake::{DeltaLog, LogEntry};

/// The log of a table, and the version to read next.
pub struct Cursor {
    log: DeltaLog,
    next: i64,
    hint: Option<&'static str>,
}

// === impl Cursor ===

impl Cursor {
    /// Starts at a version.
    pub fn new(log: DeltaLog, next: i64) -> Self {
        Self { log, next, hint: None }
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
        self.next = next;
    }

    /// Reads the entry so many versions after the next one; none if that version does not exist yet.
    ///
    /// # Errors
    /// `Data` if the next version did exist and its entry has been cleaned up: waiting for it would never end.
    /// `Unavailable` if storage does not answer.
    pub async fn entry(&self, ahead: i64) -> Result<Option<LogEntry>> {
        let entry = self.log.entry(self.next + ahead).await?;
        if entry.is_none() && ahead == 0 && self.log.is_cleaned_up_at(self.next).await? {
            let table = self.log.table().name();
            let error = Error::data(format!("version {} of `{table}` is no longer in its log", self.next));
            return Err(match self.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        Ok(entry)
    }
}
