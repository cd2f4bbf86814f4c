//! The health of the process: the latest condition of each role, and of storage.
//!
//! A role is fresh while it makes progress or has nothing to do, and ready once it has reported for the first time. It is
//! degraded if a part of it fails while the rest goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellwether_base::Error;
use serde::Serialize;

/// Name under which health reports whether the tables can be read.
pub(crate) const STORAGE: &str = "storage";

/// The report of a role about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleReport {
    /// A number that grows with the work done.
    pub(crate) progress: i64,
    /// Waiting work: messages for ingest, versions for roles that follow a table.
    pub(crate) behind: i64,
    /// Longest time that work may wait for its turn without being late.
    pub(crate) pace: Duration,
    /// Why the role cannot go on for now.
    pub(crate) error: Option<String>,
    /// A failure in spite of which the role continues.
    pub(crate) degraded: Option<String>,
}

/// The condition of one role, as the health endpoints report it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Condition {
    /// The role, or `storage`.
    pub(crate) name: &'static str,
    /// It has reported at least once.
    pub(crate) ready: bool,
    /// It makes progress, or has nothing to do.
    pub(crate) fresh: bool,
    /// Waiting work.
    pub(crate) behind: i64,
    /// Why it is not fresh, not ready, or degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// The latest conditions of all roles. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    roles: Arc<Mutex<Vec<RoleState>>>,
    stale_after: Duration,
}

#[derive(Debug)]
struct RoleState {
    name: &'static str,
    ready: bool,
    moved: Instant,
    report: RoleReport,
}

// === impl Health ===

impl Health {
    /// Creates health without roles. A role becomes stale if it makes no progress for `stale_after` although work waits.
    pub(crate) fn new(stale_after: Duration) -> Self {
        Self { roles: Arc::default(), stale_after }
    }

    /// Records a role's report. A report with an error is no sign of progress.
    pub(crate) fn record(&self, name: &'static str, report: RoleReport) {
        let mut roles = self.lock();
        let state = state_of(&mut roles, name);
        if report.error.is_some() {
            state.report.error = report.error;
            return;
        }
        if !state.ready || state.report.progress != report.progress || report.behind == 0 {
            state.moved = Instant::now();
        }
        state.ready = true;
        state.report = report;
    }

    /// Records that a role's report could not be obtained.
    pub(crate) fn record_error(&self, name: &'static str, error: &Error) {
        state_of(&mut self.lock(), name).report.error = Some(error.chain());
    }

    /// Returns the progress that a role reported last, zero if it has not reported yet.
    pub(crate) fn progress(&self, name: &str) -> i64 {
        self.lock().iter().find(|state| state.name == name).map_or(0, |state| state.report.progress)
    }

    /// Returns the conditions of all roles at this moment.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.lock().iter().map(|state| self.condition(state)).collect()
    }

    /// Returns true if a role is stale and nothing says why, so that a restart may help. A role that waits for Kafka or for storage is
    /// not stuck, and neither is one whose progress cannot be read because storage fails.
    pub(crate) fn is_stuck(&self) -> bool {
        let roles = self.lock();
        let storage_fails = roles.iter().any(|state| state.name == STORAGE && state.report.error.is_some());
        !storage_fails && roles.iter().any(|state| state.report.error.is_none() && !self.is_fresh(state))
    }

    fn is_fresh(&self, state: &RoleState) -> bool {
        state.moved.elapsed() <= self.stale_after + state.report.pace
    }

    fn condition(&self, state: &RoleState) -> Condition {
        let (report, idle) = (&state.report, state.moved.elapsed());
        let fresh = self.is_fresh(state);
        let why = match (&report.error, fresh) {
            (Some(error), _) => Some(error.clone()),
            (None, false) => Some(format!("no progress for {} s with {} waiting", idle.as_secs(), report.behind)),
            (None, true) => report.degraded.clone(),
        };
        Condition { name: state.name, ready: state.ready, fresh, behind: report.behind, why }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RoleState>> {
        // Only plain assignments happen under the lock, so a poisoned one still guards valid values.
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the state of a role, which is added if it is new.
fn state_of<'a>(roles: &'a mut Vec<RoleState>, name: &'static str) -> &'a mut RoleState {
    let index = roles.iter().position(|state| state.name == name).unwrap_or_else(|| {
        roles.push(RoleState { name, ready: false, moved: Instant::now(), report: RoleReport::default() });
        roles.len() - 1
    });
    &mut roles[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(progress: i64, behind: i64) -> RoleReport {
        RoleReport { progress, behind, ..RoleReport::default() }
    }

    #[test]
    fn a_role_that_has_work_and_makes_no_progress_is_stale() {
        let health = Health::new(Duration::ZERO);
        health.record("ingest", report(1, 5));
        std::thread::sleep(Duration::from_millis(2));
        health.record("ingest", report(1, 5));
        let stale = health.conditions().remove(0);
        assert!(!stale.fresh);
        assert!(stale.why.is_some_and(|why| why.contains("5 waiting")));
        let patient = Health::new(Duration::ZERO);
        patient.record("watch", RoleReport { pace: Duration::from_secs(60), ..report(1, 5) });
        std::thread::sleep(Duration::from_millis(2));
        assert!(patient.conditions()[0].fresh, "its turn has not come yet");
    }

    #[test]
    fn a_role_without_work_is_fresh() {
        let health = Health::new(Duration::from_secs(1));
        health.record("aggregate", report(1, 0));
        assert!(health.conditions()[0].fresh);
        health.record_error("aggregate", &Error::unavailable("storage does not respond"));
        assert!(health.conditions()[0].why.is_some());
        assert_eq!((health.progress("aggregate"), health.progress("ingest")), (1, 0));
    }

    #[test]
    fn a_role_that_reports_errors_only_is_not_ready_and_becomes_stale() {
        let health = Health::new(Duration::ZERO);
        health.record("ingest", RoleReport { error: Some("Kafka is unreachable".to_owned()), ..report(7, 0) });
        std::thread::sleep(Duration::from_millis(2));
        let condition = health.conditions().remove(0);
        assert!(!condition.ready && !condition.fresh);
        assert_eq!(condition.why.as_deref(), Some("Kafka is unreachable"));
    }

    #[test]
    fn a_role_is_stuck_if_it_is_stale_and_nothing_says_why() {
        let health = Health::new(Duration::from_millis(50));
        assert!(!health.is_stuck(), "no role has reported yet");
        health.record(STORAGE, report(1, 0));
        health.record("aggregate", report(1, 5));
        assert!(!health.is_stuck(), "it has just moved");
        std::thread::sleep(Duration::from_millis(60));
        health.record(STORAGE, report(1, 0));
        assert!(health.is_stuck());
        health.record_error(STORAGE, &Error::unavailable("storage does not respond"));
        assert!(!health.is_stuck(), "nobody knows whether it moves");
        health.record(STORAGE, report(1, 0));
        health.record_error("aggregate", &Error::unavailable("Kafka is unreachable"));
        assert!(!health.is_stuck(), "it says what it waits for");
    }

    #[test]
    fn a_degraded_role_says_why_until_everything_works() {
        let health = Health::new(Duration::from_secs(1));
        let degraded = RoleReport { degraded: Some("rule `mine` fails".to_owned()), ..report(1, 0) };
        health.record("watch", degraded);
        let condition = health.conditions().remove(0);
        assert!(condition.fresh && condition.ready);
        assert_eq!(condition.why.as_deref(), Some("rule `mine` fails"));
        health.record("watch", report(2, 0));
        assert_eq!(health.conditions().remove(0).why, None);
    }
}
