//! A log that fails in every named way, in front of another one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Commit, CommitLog, Outcome, Snapshot};
use bellwether_base::{Clock, SystemClock};
use bellwether_base::{Error, Result};

/// How long a store takes that is slow.
pub const SLOW: Duration = Duration::from_secs(5);

/// After how long a client gives up waiting for an answer.
pub const TIME_OUT: Duration = Duration::from_secs(30);

/// What goes wrong with one call of a store or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// The write lands; its response is lost.
    LostResponse,
    /// The write does not land; nobody can tell.
    LostRequest,
    /// A part of the write arrives, and not under the name of a log entry: entries are created whole or not at all.
    Partial,
    /// 409: refused because of another writer at the same moment, whose write may never appear.
    Conflict,
    /// 412: the write lands, its response is lost, and the client's own second attempt finds the name taken.
    PreconditionFailed,
    /// 503: the store has too much to do.
    Overloaded,
    /// It works, after [`SLOW`].
    Slow,
    /// No answer within [`TIME_OUT`]; the write lands even later, or never.
    TimedOut,
    /// A read is not answered.
    Unavailable,
    /// A listing does not show what was written lately.
    StaleList,
}

impl Fault {
    /// All that can go wrong.
    pub const ALL: [Self; 10] = [
        Self::LostResponse,
        Self::LostRequest,
        Self::Partial,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::Overloaded,
        Self::Slow,
        Self::TimedOut,
        Self::Unavailable,
        Self::StaleList,
    ];

    /// What can go wrong with a call.
    pub fn of(call: Call) -> &'static [Self] {
        match call {
            Call::Write => &[
                Self::LostResponse,
                Self::LostRequest,
                Self::Partial,
                Self::Conflict,
                Self::PreconditionFailed,
                Self::Overloaded,
                Self::Slow,
                Self::TimedOut,
            ],
            Call::Read => &[Self::Unavailable, Self::Overloaded, Self::Slow],
            Call::List => &[Self::StaleList, Self::Overloaded],
        }
    }
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Something is written or committed.
    Write,
    /// Something known by name is read, or a log is loaded.
    Read,
    /// Names are listed.
    List,
}

/// Says what goes wrong with the next call.
pub type Faults = Box<dyn Fn(Call) -> Fault + Send + Sync>;

/// A log with faults in front of it.
pub struct FaultyLog<L> {
    inner: L,
    faults: Faults,
    clock: Arc<dyn Clock>,
}

impl<L: fmt::Debug> fmt::Debug for FaultyLog<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyLog").field("inner", &self.inner).finish_non_exhaustive()
    }
}

// === impl FaultyLog ===

impl<L> FaultyLog<L> {
    /// Applies a script of faults, one a call; after the script nothing fails.
    pub fn new(inner: L, script: impl IntoIterator<Item = Fault>) -> Self {
        let script: Mutex<VecDeque<Fault>> = Mutex::new(script.into_iter().collect());
        let next = move |_| script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None);
        Self::with(inner, Box::new(next), Arc::new(SystemClock))
    }

    /// Asks for the fault of each call; waits by a clock.
    pub fn with(inner: L, faults: Faults, clock: Arc<dyn Clock>) -> Self {
        Self { inner, faults, clock }
    }

    /// The log behind the faults.
    pub fn inner(&self) -> &L {
        &self.inner
    }
}

#[async_trait]
impl<L: CommitLog> CommitLog for FaultyLog<L> {
    async fn load(&self) -> Result<Snapshot> {
        match (self.faults)(Call::Read) {
            Fault::Unavailable | Fault::Overloaded | Fault::TimedOut => {
                Err(Error::unavailable("the store does not answer (injected)"))
            }
            Fault::Slow => {
                self.clock.sleep(SLOW).await;
                self.inner.load().await
            }
            // What happens to writes and listings does not happen to a load.
            Fault::None
            | Fault::LostResponse
            | Fault::LostRequest
            | Fault::Partial
            | Fault::Conflict
            | Fault::PreconditionFailed
            | Fault::StaleList => self.inner.load().await,
        }
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        let unknown = |reason: &str| Ok(Outcome::Unknown { reason: format!("{reason} (injected)") });
        match (self.faults)(Call::Write) {
            Fault::None | Fault::StaleList => self.inner.try_commit(on, commit).await,
            Fault::Slow => {
                self.clock.sleep(SLOW).await;
                self.inner.try_commit(on, commit).await
            }
            Fault::LostResponse => {
                self.inner.try_commit(on, commit).await?;
                unknown("response lost")
            }
            // The client's own second attempt, by the same id.
            Fault::PreconditionFailed => {
                self.inner.try_commit(on, commit).await?;
                self.inner.try_commit(on, commit).await
            }
            Fault::TimedOut => {
                self.clock.sleep(TIME_OUT).await;
                self.inner.try_commit(on, commit).await?;
                unknown("timed out")
            }
            Fault::LostRequest | Fault::Unavailable => unknown("request lost"),
            Fault::Partial => unknown("broken off"),
            Fault::Conflict => unknown("409"),
            Fault::Overloaded => unknown("503"),
        }
    }
}
