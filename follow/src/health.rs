//! The part of a follower's condition that the tables do not show.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The condition of a follower, for the process's health report. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FollowHealth(Arc<Condition>);

#[derive(Debug, Default)]
struct Condition {
    next_version: AtomicI64,
    degraded: Mutex<Option<String>>,
}

// === impl FollowHealth ===

impl FollowHealth {
    /// Returns the version of the followed table that is read next.
    pub fn next_version(&self) -> i64 {
        self.0.next_version.load(Ordering::Relaxed)
    }

    /// Returns what fails while the role goes on; none if everything works.
    pub fn degraded(&self) -> Option<String> {
        self.0.degraded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the version that is read next.
    pub fn set_next_version(&self, next: i64) {
        self.0.next_version.store(next, Ordering::Relaxed);
    }

    /// Sets what fails while the role goes on; none if everything works.
    pub fn set_degraded(&self, why: Option<String>) {
        *self.0.degraded.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
