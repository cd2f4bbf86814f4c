//! How the role of watching does, for those who ask after its health.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Least time between two rebuilds for rules that fell behind, at first.
const REBUILD_PAUSE_MICROS: i64 = 60 * 1_000_000;

/// How the role does, for health.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    next_version: AtomicI64,
    failing: Mutex<Option<String>>,
    /// Rebuilds for rules that had fallen behind: how many, and the time of the last, microseconds.
    forced: AtomicU32,
    forced_at: AtomicI64,
}

impl Health {
    /// Version of `metrics` that is read next.
    pub fn next_version(&self) -> i64 {
        self.0.next_version.load(Ordering::Relaxed)
    }

    /// Which rules fail again and again, and why; none where all work.
    pub fn failing(&self) -> Option<String> {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn moved(&self, next_version: i64) {
        self.0.next_version.store(next_version, Ordering::Relaxed);
    }

    pub(crate) fn fails(&self, why: Option<String>) {
        *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// True where state may be rebuilt because a rule fell behind: ever more rarely, since what fails on old rows may do so
    /// each time.
    pub(crate) fn may_rebuild(&self, now: i64) -> bool {
        let (forced, at) = (self.0.forced.load(Ordering::Relaxed), self.0.forced_at.load(Ordering::Relaxed));
        let may = forced == 0 || now.saturating_sub(at) >= REBUILD_PAUSE_MICROS << forced.min(10);
        if may {
            self.0.forced.store(forced.saturating_add(1), Ordering::Relaxed);
            self.0.forced_at.store(now, Ordering::Relaxed);
        }
        may
    }
}
