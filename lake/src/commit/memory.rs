//! A log in memory with the same rules, for tests and simulation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Commit, CommitLog, Outcome, Snapshot};
use bellwether_base::Result;

/// A log in memory. Cloning shares it, as two processes share a table.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Snapshot,
    commits: Vec<Commit>,
}

impl MemoryLog {
    /// Returns all commits, oldest first.
    pub fn commits(&self) -> Vec<Commit> {
        self.state().commits.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere in a test must not hide the commits.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CommitLog for MemoryLog {
    async fn load(&self) -> Result<Snapshot> {
        Ok(self.state().snapshot.clone())
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        let mut state = self.state();
        if state.commits.iter().any(|landed| landed.uuid == commit.uuid) {
            return Ok(Outcome::Committed(state.snapshot.clone()));
        }
        let mut apps = on.moved(&commit.advances);
        if apps.is_empty() {
            apps = state.snapshot.moved(&commit.advances);
        }
        if !apps.is_empty() {
            return Ok(Outcome::Fenced { apps, snapshot: state.snapshot.clone() });
        }
        let txns = commit.advances.iter().map(|advance| (advance.app_id.clone(), advance.next));
        state.snapshot = state.snapshot.after(state.snapshot.version + 1, txns);
        state.commits.push(commit.clone());
        Ok(Outcome::Committed(state.snapshot.clone()))
    }
}
