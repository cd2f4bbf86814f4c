//! A log that fails in every named way, in front of another one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{Commit, CommitLog, Outcome, Snapshot};
use crate::error::{Error, Result};

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The commit lands; its response is lost.
    LostResponse,
    /// The commit does not land; nobody can tell.
    LostRequest,
    /// Storage does not answer a load.
    Unavailable,
}

/// Applies a script of faults, one a call; after the script nothing fails.
#[derive(Debug)]
pub struct FaultyLog<L> {
    inner: L,
    script: Mutex<VecDeque<Fault>>,
}

impl<L> FaultyLog<L> {
    /// Puts faults in front of a log.
    pub fn new(inner: L, script: impl IntoIterator<Item = Fault>) -> Self {
        Self { inner, script: Mutex::new(script.into_iter().collect()) }
    }

    /// The log behind the faults.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    fn next_fault(&self) -> Fault {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None)
    }
}

#[async_trait]
impl<L: CommitLog> CommitLog for FaultyLog<L> {
    async fn load(&self) -> Result<Snapshot> {
        match self.next_fault() {
            Fault::Unavailable => Err(Error::unavailable("the store does not answer (injected)")),
            Fault::None | Fault::LostResponse | Fault::LostRequest => self.inner.load().await,
        }
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        match self.next_fault() {
            Fault::None => self.inner.try_commit(on, commit).await,
            Fault::LostResponse => {
                self.inner.try_commit(on, commit).await?;
                Ok(Outcome::Unknown { reason: "response lost (injected)".to_owned() })
            }
            Fault::LostRequest | Fault::Unavailable => {
                Ok(Outcome::Unknown { reason: "request lost (injected)".to_owned() })
            }
        }
    }
}
