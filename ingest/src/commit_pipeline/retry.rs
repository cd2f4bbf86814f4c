//! Requests to storage that are retried until they succeed or the committer is stopped.

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{Commit, CommitLog, EncodedRows, Outcome, Snapshot, WrittenFile};

use super::Committer;

/// First pause after a failure: short, because most failures are a single lost response.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause: progress resumes within this time after storage is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

// === impl Committer ===

impl Committer {
    /// Retries a commit until its outcome is known. Returns the newest snapshot, and whether the commit is in it.
    pub(super) async fn settle(
        &self,
        log: &Arc<dyn CommitLog>,
        on: &Snapshot,
        commit: &Commit,
        step: &'static str,
    ) -> Result<(Snapshot, bool)> {
        let mut pause = self.first_pause;
        loop {
            let reason = match log.try_commit(on, commit).await {
                Ok(Outcome::Committed(snapshot)) => return Ok((snapshot, true)),
                Ok(Outcome::Fenced { snapshot, .. }) => return Ok((snapshot, false)),
                Ok(Outcome::Unknown { reason }) => reason,
                Err(error) if error.kind() == ErrorKind::Unavailable => error.chain(),
                Err(error) => return Err(error),
            };
            self.wait(step, &reason, &mut pause).await?;
        }
    }

    /// Writes rows to their table, retrying while storage is unavailable.
    pub(super) async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        if rows.rows() == 0 {
            return Ok(Vec::new());
        }
        let mut pause = self.first_pause;
        loop {
            match self.store.write(rows).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("write", &error.chain(), &mut pause).await?;
                }
                done => return done,
            }
        }
    }

    /// Loads a snapshot, retrying while storage is unavailable.
    pub(super) async fn load(&self, log: &Arc<dyn CommitLog>) -> Result<Snapshot> {
        let mut pause = self.first_pause;
        loop {
            match log.load().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("load", &error.chain(), &mut pause).await?;
                }
                done => return done,
            }
        }
    }

    /// Reports a failed step, and waits before its next attempt.
    pub(super) async fn wait(&self, step: &'static str, reason: &str, pause: &mut Duration) -> Result<()> {
        self.observer.retrying(step, reason);
        tokio::select! {
            biased; // Stopping wins over waiting.
            () = self.stop.cancelled() => {
                Err(Error::unavailable(format!("stopped while retrying `{step}`: {reason}")))
            }
            () = self.clock.sleep(*pause) => {
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                Ok(())
            }
        }
    }
}
