//! Requests to storage that are retried until they succeed or the committer is stopped.

use std::sync::Arc;

use bellwether_base::{Backoff, Error, ErrorKind, Result};
use bellwether_lake::{Commit, CommitLog, EncodedRows, Outcome, Snapshot, WrittenFile};

use super::Committer;

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
        let mut backoff = Backoff::new(&*self.clock);
        loop {
            let reason = match log.try_commit(on, commit).await {
                Ok(Outcome::Committed(snapshot)) => return Ok((snapshot, true)),
                Ok(Outcome::Fenced { snapshot, .. }) => return Ok((snapshot, false)),
                Ok(Outcome::Unknown { reason }) => reason,
                Err(error) if error.kind() == ErrorKind::Unavailable => error.chain(),
                Err(error) => return Err(error),
            };
            self.wait(step, &reason, &mut backoff).await?;
        }
    }

    /// Writes rows to their table, retrying while storage is unavailable.
    pub(super) async fn write(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        if rows.rows() == 0 {
            return Ok(Vec::new());
        }
        let mut backoff = Backoff::new(&*self.clock);
        loop {
            match self.store.write(rows).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("write", &error.chain(), &mut backoff).await?;
                }
                done => return done,
            }
        }
    }

    /// Loads a snapshot, retrying while storage is unavailable.
    pub(super) async fn load(&self, log: &Arc<dyn CommitLog>) -> Result<Snapshot> {
        let mut backoff = Backoff::new(&*self.clock);
        loop {
            match log.load().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("load", &error.chain(), &mut backoff).await?;
                }
                done => return done,
            }
        }
    }

    /// Reports a failed step, and waits before its next attempt.
    pub(super) async fn wait(&self, step: &'static str, reason: &str, backoff: &mut Backoff) -> Result<()> {
        self.observer.retrying(step, reason);
        tokio::select! {
            biased; // Stopping wins over waiting.
            () = self.stop.cancelled() => {
                Err(Error::unavailable(format!("stopped while retrying `{step}`: {reason}")))
            }
            () = backoff.wait(&*self.clock) => Ok(()),
        }
    }
}
