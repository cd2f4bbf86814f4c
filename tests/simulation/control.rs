//! Draws faults from the seed and records the trace of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_base::{Clock, Error, ErrorKind};
use bellwether_lake::commit::faulty::{Call, Fault};

use super::random::{Random, mix};
use super::scheduler::ProcessId;
use super::time::VirtualClock;

/// A point in the code at which a process may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CrashPoint {
    BeforeDataWrite,
    AfterDataWrite,
    BeforeQuarantineCommit,
    AfterQuarantineCommit,
    BeforeEventsCommit,
    AfterEventsCommit,
    BeforeAcknowledgement,
    BeforeReleasesCommit,
    AfterReleasesCommit,
    BeforeMetricsCommit,
    AfterMetricsCommit,
    BeforeHistoryCommit,
    AfterHistoryCommit,
    BeforeHoursCommit,
    AfterHoursCommit,
    BeforeDaysCommit,
    AfterDaysCommit,
    BeforeCheckpoint,
    BeforeCheckpointIsNamed,
    AfterCheckpoint,
    BeforeRewriteData,
    AfterRewriteData,
    BeforeRewriteCommit,
    AfterRewriteCommit,
}

impl CrashPoint {
    /// Crash points of ingestion.
    pub(crate) const INGEST: [Self; 7] = [
        Self::BeforeDataWrite,
        Self::AfterDataWrite,
        Self::BeforeQuarantineCommit,
        Self::AfterQuarantineCommit,
        Self::BeforeEventsCommit,
        Self::AfterEventsCommit,
        Self::BeforeAcknowledgement,
    ];

    /// Crash points of aggregation, roll-ups and maintenance.
    pub(crate) const BEYOND: [Self; 17] = [
        Self::BeforeReleasesCommit,
        Self::AfterReleasesCommit,
        Self::BeforeMetricsCommit,
        Self::AfterMetricsCommit,
        Self::BeforeHistoryCommit,
        Self::AfterHistoryCommit,
        Self::BeforeHoursCommit,
        Self::AfterHoursCommit,
        Self::BeforeDaysCommit,
        Self::AfterDaysCommit,
        Self::BeforeCheckpoint,
        Self::BeforeCheckpointIsNamed,
        Self::AfterCheckpoint,
        Self::BeforeRewriteData,
        Self::AfterRewriteData,
        Self::BeforeRewriteCommit,
        Self::AfterRewriteCommit,
    ];
}

/// A broken rule of ARCHITECTURE.md.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Why a process ends.
pub(crate) type Death = (ProcessId, String);

/// The state of a run; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    seed: u64,
    pub(crate) clock: VirtualClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    chance: Random,
    /// One in this many calls fails; 0 for none.
    one_in: u64,
    outage_until: i64,
    armed: BTreeMap<CrashPoint, u64>,
    crashed_at: BTreeSet<CrashPoint>,
    met: BTreeSet<Fault>,
    dying: Vec<Death>,
    dead: BTreeSet<ProcessId>,
    /// Calls by libraries for each path. They come from the libraries' own threads, so faults must not depend on their order.
    calls: BTreeMap<String, u64>,
    trace: Vec<String>,
    violation: Option<Violation>,
    /// The next offset of each partition that a worker saw acknowledged.
    acknowledged: BTreeMap<i32, i64>,
    landed: u64,
}

// === impl Control ===

impl Control {
    pub(crate) fn new(seed: u64, clock: VirtualClock, one_in: u64) -> Self {
        let state = State {
            chance: Random::new(seed, "faults"),
            one_in,
            outage_until: 0,
            armed: BTreeMap::new(),
            crashed_at: BTreeSet::new(),
            met: BTreeSet::new(),
            dying: Vec::new(),
            dead: BTreeSet::new(),
            calls: BTreeMap::new(),
            trace: Vec::new(),
            violation: None,
            acknowledged: BTreeMap::new(),
            landed: 0,
        };
        Self { seed, clock, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line to the trace.
    pub(crate) fn note(&self, who: ProcessId, what: impl fmt::Display) {
        let micros = self.clock.now_micros();
        let (seconds, millis) = (micros / 1_000_000 % 100_000, micros / 1000 % 1000);
        self.state().trace.push(format!("{seconds}.{millis:03} p{} {what}", who.0));
    }

    pub(crate) fn chance<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.state().chance)
    }

    /// Draws the fault of a call.
    pub(crate) fn fault(&self, who: ProcessId, call: Call) -> Fault {
        let now = self.clock.now_micros();
        let mut state = self.state();
        if state.one_in == 0 {
            return Fault::None;
        }
        let fault = if now < state.outage_until {
            Fault::Overloaded
        } else {
            let times = state.one_in;
            if !state.chance.one_in(times) {
                return Fault::None;
            }
            state.chance.of(Fault::of(call))
        };
        state.met.insert(fault);
        drop(state);
        self.note(who, format_args!("fault {fault:?} of a {call:?}"));
        fault
    }

    /// Returns the fault of a call from a library's thread, or of one that must not wait.
    pub(crate) fn fault_aside(&self, call: Call, path: &str) -> Fault {
        let now = self.clock.now_micros();
        let mut state = self.state();
        if state.one_in == 0 {
            return Fault::None;
        }
        if now < state.outage_until {
            return Fault::Overloaded;
        }
        let count = state.calls.entry(format!("{call:?} {path}")).or_default();
        *count += 1;
        let number = path.bytes().fold(mix(self.seed ^ *count), |sum, byte| mix(sum ^ u64::from(byte)));
        if !number.is_multiple_of(4 * state.one_in) {
            return Fault::None;
        }
        let all = Fault::of(call);
        let fault = all[(mix(number) % all.len() as u64) as usize];
        state.met.insert(fault);
        fault
    }

    /// Makes the store unavailable until a time.
    pub(crate) fn outage(&self, until: i64) {
        self.state().outage_until = until;
    }

    /// Ends all faults.
    pub(crate) fn end_of_faults(&self) {
        let mut state = self.state();
        state.one_in = 0;
        state.outage_until = 0;
        state.armed.clear();
    }

    /// Lets a process die when it passes a point for the nth time, counted from 1.
    pub(crate) fn arm(&self, point: CrashPoint, passes: u64) {
        self.state().armed.insert(point, passes);
    }

    /// True if the process dies at this point.
    pub(crate) fn dies_at(&self, who: ProcessId, point: CrashPoint) -> bool {
        let mut state = self.state();
        let Some(passes) = state.armed.get_mut(&point) else { return false };
        *passes -= 1;
        if *passes > 0 {
            return false;
        }
        state.armed.remove(&point);
        state.crashed_at.insert(point);
        state.dead.insert(who);
        state.dying.push((who, format!("crash {point:?}")));
        true
    }

    /// Passes a crash point; never returns if the process dies there.
    pub(crate) async fn pass(&self, who: ProcessId, point: CrashPoint) {
        if self.dies_at(who, point) {
            std::future::pending::<()>().await;
        }
    }

    /// Records that a process ended with an error. `Unavailable` and `Fenced` are allowed; any other kind breaks a rule, and
    /// `Data` means that something is lost.
    pub(crate) fn stopped(&self, who: ProcessId, error: &Error) {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Fenced) {
            let rule = if error.kind() == ErrorKind::Data { "L-1" } else { "L-6" };
            self.violated(rule, format!("process {} stopped for good: {}", who.0, error.chain()));
        }
        self.state().dying.push((who, format!("stopped: {}", error.message())));
    }

    pub(crate) fn is_dead(&self, who: ProcessId) -> bool {
        self.state().dead.contains(&who)
    }

    pub(crate) fn take_dying(&self) -> Vec<Death> {
        let mut state = self.state();
        let dying = std::mem::take(&mut state.dying);
        state.dead.extend(dying.iter().map(|(who, _)| *who));
        dying
    }

    /// Kills a process from outside.
    pub(crate) fn kill(&self, who: ProcessId) {
        self.state().dying.push((who, "killed".to_owned()));
    }

    pub(crate) fn violated(&self, rule: &'static str, what: String) {
        self.state().violation.get_or_insert(Violation { rule, what });
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state().violation.clone()
    }

    /// Records that a worker saw everything below an offset acknowledged.
    pub(crate) fn acknowledge(&self, partition: i32, next: i64) {
        let mut state = self.state();
        let known = state.acknowledged.entry(partition).or_insert(next);
        *known = (*known).max(next);
    }

    pub(crate) fn acknowledged(&self) -> BTreeMap<i32, i64> {
        self.state().acknowledged.clone()
    }

    /// Counts a commit that landed in a log.
    pub(crate) fn landed(&self) {
        self.state().landed += 1;
    }

    pub(crate) fn landings(&self) -> u64 {
        self.state().landed
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    pub(crate) fn crashed_at(&self) -> BTreeSet<CrashPoint> {
        self.state().crashed_at.clone()
    }

    pub(crate) fn faults_met(&self) -> BTreeSet<Fault> {
        self.state().met.clone()
    }
}
