//! A log that injects faults in front of another one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Commit, CommitLog, Outcome, Snapshot};
use bellwether_base::{Clock, SystemClock};
use bellwether_base::{Error, Result};

/// Time that a slow store takes.
pub const SLOW: Duration = Duration::from_secs(5);

/// Time after which a client stops waiting for an answer.
pub const TIME_OUT: Duration = Duration::from_secs(30);

/// The fault of one call of a store or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The call succeeds.
    None,
    /// The write lands; its response is lost.
    LostResponse,
    /// The write does not land; the client cannot know that.
    LostRequest,
    /// Part of the write arrives, but not under the name of a log entry: entries are created whole or not at all.
    Partial,
    /// 409: the write is refused because of a concurrent writer, whose own write may never appear.
    Conflict,
    /// 412: the write lands, its response is lost, and the client's second attempt finds that the name exists.
    PreconditionFailed,
    /// 503: the store is overloaded.
    Overloaded,
    /// The call succeeds after [`SLOW`].
    Slow,
    /// No answer arrives within [`TIME_OUT`]; the write lands even later, or never.
    TimedOut,
    /// A read is not answered.
    Unavailable,
    /// A listing lacks recent writes.
    StaleList,
}

impl Fault {
    /// Every fault.
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

    /// Returns the faults that a call can have.
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
    /// Writes or commits.
    Write,
    /// Reads an object by name, or loads a log.
    Read,
    /// Lists names.
    List,
}

/// Returns the fault of the next call.
pub type Faults = Box<dyn Fn(Call) -> Fault + Send + Sync>;

/// A log with injected faults.
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
    /// Injects a script of faults, one per call; after its end, no call fails.
    pub fn new(inner: L, script: impl IntoIterator<Item = Fault>) -> Self {
        let script: Mutex<VecDeque<Fault>> = Mutex::new(script.into_iter().collect());
        let next = move |_| script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None);
        Self::with(inner, Box::new(next), Arc::new(SystemClock))
    }

    /// Injects the fault that a function returns for each call, and waits by a clock.
    pub fn with(inner: L, faults: Faults, clock: Arc<dyn Clock>) -> Self {
        Self { inner, faults, clock }
    }

    /// Returns the log behind the faults.
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
            // Faults of writes and listings do not affect a load.
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
            // The second call is the client's own second attempt, with the same id.
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
