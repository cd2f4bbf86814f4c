//! Time and identity, passed in: the only two places where the outside world's randomness enters.

#![expect(clippy::disallowed_methods, reason = "this module is the replacement that the lint names")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use uuid::Uuid;

/// The time of day, waiting, and names that nobody else uses: what a simulation replaces to make a run repeatable.
pub trait Clock: Send + Sync {
    /// Microseconds since the epoch, UTC.
    fn now_micros(&self) -> i64;

    /// Waits.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    /// A name for a data file or a commit. Names are in order of time.
    fn unique_id(&self) -> Uuid {
        unique_id()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_micros(&self) -> i64 {
        // A clock before 1970 or past the year 294246 is a broken machine; zero makes every event "in the future",
        // which quarantines them visibly.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|elapsed| i64::try_from(elapsed.as_micros()).ok())
            .unwrap_or(0)
    }
}

/// A clock that tests move by hand.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at a time, microseconds since the epoch.
    pub fn at(micros: i64) -> Self {
        Self(Arc::new(AtomicI64::new(micros)))
    }

    /// Moves on.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A name that nobody else uses: for data files and for commits.
pub fn unique_id() -> Uuid {
    Uuid::now_v7()
}
