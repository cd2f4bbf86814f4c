//! How far a follower is behind the table that it follows.

use bellwether_base::Result;
use bellwether_lake::DeltaLog;

/// Measures the lag of one follower, in versions of the table. Reads each log entry once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// The unread versions before this one have no rows.
    empty_to: i64,
}

// === impl Lag ===

impl Lag {
    /// Returns how many versions a follower has still to read if it reads `next` next and the table is at version `newest`. A
    /// follower passes over versions without rows, such as rewrites and claims, and commits nothing for them: if there are no
    /// others, the lag is zero.
    ///
    /// # Errors
    /// As [`DeltaLog::entry`].
    pub async fn versions(&mut self, log: &DeltaLog, next: i64, newest: i64) -> Result<i64> {
        for version in next.max(self.empty_to)..=newest {
            if log.entry(version).await?.is_some_and(|entry| entry.brings_rows()) {
                return Ok(newest + 1 - version);
            }
            self.empty_to = version + 1;
        }
        Ok(0)
    }
}
