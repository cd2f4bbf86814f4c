//! The clock and unique ids, which are passed in: the only non-deterministic inputs.

#![expect(clippy::disallowed_methods, reason = "this module is the replacement that the lint names")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use uuid::Uuid;

/// Provides the time, waits and creates unique ids. A simulation replaces it to make a run repeatable.
pub trait Clock: Send + Sync {
    /// Returns the time in microseconds since the epoch, UTC.
    fn now_micros(&self) -> i64;

    /// Waits for a time.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    /// Returns a unique id for a data file or a commit. Ids sort by time.
    fn unique_id(&self) -> Uuid {
        unique_id()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_micros(&self) -> i64 {
        // A clock before 1970 or after the year 294246 is broken. With zero, every event is in the future, and is therefore
        // visibly quarantined.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|elapsed| i64::try_from(elapsed.as_micros()).ok())
            .unwrap_or(0)
    }
}

/// A clock that tests advance.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at a time, microseconds since the epoch.
    pub fn at(micros: i64) -> Self {
        Self(Arc::new(AtomicI64::new(micros)))
    }

    /// Advances the clock.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Returns a unique id for a data file or a commit.
pub fn unique_id() -> Uuid {
    Uuid::now_v7()
}
