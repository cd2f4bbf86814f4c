//! One series folded over its windows: detector and alert together, with checkpoints.
//!
//! A correction of an already judged window goes back to the checkpoint before it and folds again. The differences are
//! reported: transitions that are new, that moved, or that no longer occur.
//!
//! Checkpoints are packed, and the older they are the further they lie apart (see `spacing`), back to [`REACH`]. The
//! windows since an old checkpoint are no longer in memory; the caller can feed them again if it has them. While a series
//! has nothing to judge, its newest checkpoint is all that is kept of it.

use bellwether_stats::pack::{Pack, Packed, Packer, Unpacker};

use crate::budget::Thresholds;
use crate::checkpoints::Checkpoints;
use crate::crowd::CrowdMember;
use crate::detector::{DAY, Detector, DetectorState, HOUR, Past, Verdict};
use crate::evidence::Evidence;
use crate::hours::Hours;
use crate::machine::{AlertMachine, AlertState, AlertTiming, Transition};
use crate::observation::{Minute, Window};

/// Minutes between the two newest checkpoints.
pub const CHECKPOINT_MINUTES: i64 = 60;

/// Returns the minutes between checkpoints of an age, in minutes. Of each of these periods, the first checkpoint stays.
const fn spacing(age: i64) -> i64 {
    if age < 6 * HOUR {
        3 * HOUR
    } else if age < 4 * DAY {
        2 * DAY
    } else {
        4 * DAY
    }
}

/// Minutes back to the oldest checkpoint that is kept. Older corrections judge the whole series again.
pub const REACH: i64 = 7 * DAY;

/// A transition with the verdict and the evidence that caused it.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionRecord {
    pub transition: Transition,
    /// The detector's verdict.
    pub verdict: Verdict,
    /// The numbers behind the verdict.
    pub evidence: Evidence,
}

/// A result of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new transition.
    New {
        /// The transition.
        record: Box<TransitionRecord>,
        /// True if a correction caused it at a time that had already been judged.
        late: bool,
    },
    /// A transition that a correction moved to another time.
    Moved {
        /// Its previous time.
        was: Minute,
        /// The transition as it is now.
        record: Box<TransitionRecord>,
    },
    /// A transition that a correction removed.
    Retracted {
        /// The transition as it was reported.
        record: Box<TransitionRecord>,
        /// The state of the alert now.
        now: AlertState,
    },
}

/// The context that a series is judged in, apart from its windows.
#[derive(Clone, Copy, Debug)]
pub struct TrackContext<'a> {
    /// Its past.
    pub hours: &'a Hours,
    /// Its position in its crowd.
    pub member: Option<CrowdMember<'a>>,
}

// === impl TrackContext ===

impl<'a> TrackContext<'a> {
    /// Creates the context of a series without a crowd.
    pub fn alone(hours: &'a Hours) -> Self {
        Self { hours, member: None }
    }
}

/// Detector and alert at a point in time.
struct Fold {
    /// All windows before this have been processed.
    next: Minute,
    /// None while it is that of the newest checkpoint.
    judge: Option<Box<dyn DetectorState>>,
    machine: AlertMachine,
    /// Periods of firing, excluded from baselines.
    incidents: Vec<(Minute, Minute)>,
    /// Last window in which the series itself had runs.
    last_own: Minute,
}

impl Fold {
    /// Returns a packed copy; none if the newest checkpoint is one.
    fn packed(&self) -> Option<Packed> {
        let judge = self.judge.as_ref()?;
        let mut to = Packer::default();
        self.last_own.pack(&mut to);
        self.incidents.pack(&mut to);
        self.machine.pack(&mut to);
        judge.pack(&mut to);
        Some(to.finish())
    }

    /// Goes back to a checkpoint, the newest one.
    fn restore(&mut self, next: Minute, packed: &Packed) {
        let mut from = packed.unpacker();
        self.next = next;
        self.last_own = Pack::unpack(&mut from);
        self.incidents = Pack::unpack(&mut from);
        self.machine = self.machine.unpack(&mut from);
        self.judge = None;
    }
}

/// Returns the detector's state in a packed copy of a [`Fold`].
fn judge_in(packed: &Packed, machine: AlertMachine, detector: &Detector) -> Box<dyn DetectorState> {
    let mut from: Unpacker<'_> = packed.unpacker();
    let (_, _): (Minute, Vec<(Minute, Minute)>) = Pack::unpack(&mut from);
    machine.unpack(&mut from);
    detector.unpack(&mut from)
}

/// One series.
pub struct Track {
    detector: Detector,
    started: Minute,
    fold: Fold,
    checkpoints: Checkpoints,
    records: Vec<TransitionRecord>,
    /// Transitions reported earlier for the time that is being judged again.
    previous: Vec<TransitionRecord>,
    judged_to: Minute,
    /// The earliest point that corrections since then rewound to.
    rewound_to: Option<Minute>,
}

/// Returns which checkpoints stay, by their times: not those that lie too close together for their age, nor those beyond
/// the reach but the last of them. The newest two stay.
fn kept(times: &[Minute]) -> Vec<bool> {
    let newest = times.last().copied().unwrap_or(Minute::MIN);
    let mut before = None;
    let mut stay: Vec<bool> = Vec::with_capacity(times.len());
    for (place, at) in times.iter().enumerate() {
        let period = spacing(newest.saturating_sub(*at));
        let first = before.is_none_or(|before: Minute| before.div_euclid(period) != at.div_euclid(period));
        let stays = place == 0 || place + 2 >= times.len() || first;
        if stays {
            before = Some(*at);
        }
        stay.push(stays);
    }
    // Of those beyond the reach, the last one stays.
    let places: Vec<usize> = (0..times.len()).filter(|place| stay[*place]).collect();
    let beyond = places.iter().skip(1).take_while(|place| times[**place] <= newest.saturating_sub(REACH)).count();
    places.iter().take(beyond).for_each(|place| stay[*place] = false);
    stay
}

fn past<'a>(context: TrackContext<'a>, incidents: &'a [(Minute, Minute)]) -> Past<'a> {
    Past { hours: context.hours, incidents, member: context.member }
}

// === impl Track ===

impl Track {
    /// Creates the track of a series with its first window at `started`.
    pub fn new(detector: &Detector, timing: AlertTiming, started: Minute) -> Self {
        let fold = Fold {
            next: Minute::MIN,
            judge: Some(detector.start()),
            machine: AlertMachine::new(timing),
            incidents: Vec::new(),
            last_own: started,
        };
        let mut track = Self {
            detector: detector.clone(),
            started,
            fold,
            checkpoints: Checkpoints::default(),
            records: Vec::new(),
            previous: Vec::new(),
            judged_to: Minute::MIN,
            rewound_to: None,
        };
        track.add_checkpoint();
        track
    }

    /// Changes the first window, after a correction.
    pub fn set_start(&mut self, started: Minute) {
        self.started = started;
    }

    /// Resumes an alert that has been firing since `at`.
    pub fn resume(&mut self, at: Minute) {
        self.fold.machine.resume(at);
        self.fold.next = at;
        self.fold.incidents.push((at, Minute::MAX));
        self.open();
        self.checkpoints = Checkpoints::default();
        self.add_checkpoint();
        self.judged_to = at;
    }

    /// Returns its first window.
    pub fn started(&self) -> Minute {
        self.started
    }

    /// Returns the time before which all windows have been judged.
    pub fn next(&self) -> Minute {
        self.fold.next
    }

    /// Returns the time of the earliest checkpoint.
    pub fn earliest_checkpoint(&self) -> Minute {
        self.checkpoints.times().next().unwrap_or(self.fold.next)
    }

    /// Returns the time of the checkpoint that a correction of a window goes back to, the present if it was not judged
    /// yet; none if it is older than every checkpoint.
    pub fn checkpoint_before(&self, corrected: Minute) -> Option<Minute> {
        if corrected >= self.fold.next {
            return Some(self.fold.next);
        }
        self.checkpoints.times().rev().find(|next| *next <= corrected)
    }

    /// Returns the last window in which the series itself had runs.
    pub fn last_own(&self) -> Minute {
        self.fold.last_own
    }

    /// Returns the state of its alert.
    pub fn state(&self) -> AlertState {
        self.fold.machine.state()
    }

    /// Returns true if the alert fires without recent data.
    pub fn is_stale(&self) -> bool {
        self.fold.machine.is_stale()
    }

    /// Returns the time at which a firing alert becomes stale unless data arrives.
    pub fn stale_at(&self) -> Option<Minute> {
        self.fold.machine.stale_at()
    }

    /// Returns the periods in which its alert fired, [from, to); an alert that still fires has no end.
    pub fn incidents(&self) -> &[(Minute, Minute)] {
        &self.fold.incidents
    }

    /// Returns the verdict of its detector.
    pub fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        match &self.fold.judge {
            Some(judge) => judge.verdict(thresholds),
            None => self.judge_now().verdict(thresholds),
        }
    }

    /// Returns the numbers behind the verdict.
    pub fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        match &self.fold.judge {
            Some(judge) => judge.evidence(thresholds),
            None => self.judge_now().evidence(thresholds),
        }
    }

    /// Returns the detector's state in the newest checkpoint.
    fn judge_now(&self) -> Box<dyn DetectorState> {
        let newest = self.checkpoints.newest();
        newest.map_or_else(|| self.detector.start(), |(_, packed)| judge_in(&packed, self.fold.machine, &self.detector))
    }

    /// Returns the detector's state, for a change.
    fn open(&mut self) -> &mut dyn DetectorState {
        let judge = self.fold.judge.take().unwrap_or_else(|| self.judge_now());
        self.fold.judge.insert(judge).as_mut()
    }

    /// Rewinds to before a corrected window. Returns false if the window is older than every checkpoint: it then
    /// affects baselines only.
    pub fn rewind(&mut self, corrected: Minute) -> bool {
        if corrected >= self.fold.next {
            return true;
        }
        if self.earliest_checkpoint() > corrected {
            return false;
        }
        self.checkpoints.drop_after(corrected);
        if let Some((next, packed)) = self.checkpoints.newest() {
            self.fold.restore(next, &packed);
        }
        let keep = self.records.partition_point(|record| record.transition.at <= self.fold.next);
        let mut again = self.records.split_off(keep);
        again.append(&mut self.previous);
        self.previous = again;
        self.rewound_to = Some(self.rewound_to.map_or(self.fold.next, |to| to.min(self.fold.next)));
        true
    }

    /// Processes a window from before the series began.
    pub fn prime(&mut self, window: &Window) {
        self.open().prime(window);
    }

    /// Judges the next window.
    pub fn feed(&mut self, window: &Window, context: TrackContext<'_>, thresholds: &Thresholds) {
        self.wait(window.start, context, thresholds);
        // A historical hour is placed at the end of its hour, after the last window, which may already be processed.
        if !window.historical {
            self.checkpoint(window.start);
        }
        if window.rows.iter().any(|row| row.canary.runs > 0) {
            self.fold.last_own = window.start;
        }
        let incidents = std::mem::take(&mut self.fold.incidents);
        self.open().step(window, &past(context, &incidents));
        self.fold.incidents = incidents;
        self.judge(window.start + 1, thresholds);
        self.fold.next = self.fold.next.max(window.start + 1);
    }

    /// Keeps a copy from time to time. It includes everything up to its time, so transitions recorded after it are
    /// later. Returns true if there is a new one.
    fn checkpoint(&mut self, start: Minute) -> bool {
        if self.checkpoints.times().next_back().is_some_and(|last| start.saturating_sub(last) < CHECKPOINT_MINUTES) {
            return false;
        }
        self.fold.next = self.fold.next.max(start);
        self.add_checkpoint();
        true
    }

    fn add_checkpoint(&mut self) {
        match self.fold.packed() {
            Some(packed) => self.checkpoints.add(self.fold.next, packed, kept),
            None => self.checkpoints.repeat(self.fold.next, kept),
        }
    }

    /// Returns true if the series has had no runs for a day and no alert is firing: there is nothing to judge.
    pub fn is_dormant(&self, start: Minute) -> bool {
        self.state() != AlertState::Firing && start - self.fold.last_own > DAY
    }

    /// Skips a window of a dormant series.
    pub fn pass(&mut self, start: Minute) {
        if self.checkpoint(start) {
            self.fold.judge = None;
        }
        self.fold.next = self.fold.next.max(start + 1);
    }

    /// Advances time to `until` without a window.
    fn wait(&mut self, until: Minute, context: TrackContext<'_>, thresholds: &Thresholds) {
        self.advance(until, context, thresholds);
        if let Some(transition) = self.fold.machine.wait(until) {
            let verdict = self.open().verdict(thresholds);
            self.record(transition, verdict, thresholds);
        }
    }

    fn advance(&mut self, until: Minute, context: TrackContext<'_>, thresholds: &Thresholds) {
        // A comparison of releases has nothing to judge without a window.
        if self.fold.judge.is_none() && self.detector.compares_releases() {
            return;
        }
        loop {
            let incidents = std::mem::take(&mut self.fold.incidents);
            let at = self.open().advance(until, &past(context, &incidents));
            self.fold.incidents = incidents;
            match at {
                Some(at) => self.judge(at, thresholds),
                None => break,
            }
        }
    }

    fn judge(&mut self, at: Minute, thresholds: &Thresholds) {
        let verdict = self.open().verdict(thresholds);
        for transition in self.fold.machine.step(at, verdict.signal) {
            self.record(transition, verdict, thresholds);
        }
    }

    fn record(&mut self, transition: Transition, verdict: Verdict, thresholds: &Thresholds) {
        let evidence = self.open().evidence(thresholds);
        match (transition.from, transition.to) {
            (AlertState::Pending, AlertState::Firing) => {
                let since = evidence.since.unwrap_or(transition.at).min(transition.at);
                self.fold.incidents.push((since, Minute::MAX));
                self.open().on_fired();
            }
            (AlertState::Firing, AlertState::Resolved) => {
                if let Some(last) = self.fold.incidents.last_mut() {
                    last.1 = transition.at;
                }
                self.open().on_resolved();
            }
            _ => {}
        }
        self.records.push(TransitionRecord { transition, verdict, evidence });
    }

    /// Returns the bytes that it takes, roughly: without the allocations of its present state.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.checkpoints.bytes() + self.records.len() * size_of::<TransitionRecord>()
    }

    /// Finishes an evaluation after all windows before `to` have been fed. Returns new transitions and those that
    /// corrections changed.
    pub fn finish(&mut self, to: Minute, context: TrackContext<'_>, thresholds: &Thresholds) -> Vec<Change> {
        self.wait(to, context, thresholds);
        self.fold.next = self.fold.next.max(to);
        let judged_to = self.judged_to;
        self.judged_to = judged_to.max(self.fold.next);
        let unaffected_to = self.rewound_to.take().map_or(judged_to, |to| to.min(judged_to));
        let mut previous = std::mem::take(&mut self.previous);
        let mut changed = Vec::new();
        for record in self.records.iter().filter(|record| record.transition.at > unaffected_to) {
            // The alert may have come from another state than before: the transition stands all the same.
            let same = previous.iter().position(|old| old.transition.is_reported_as(&record.transition));
            match same {
                Some(place) => drop(previous.remove(place)),
                None => changed.push(record),
            }
        }
        let mut changes = Vec::new();
        for record in changed {
            let alike = |old: &TransitionRecord| {
                let (old, new) = (old.transition, record.transition);
                (old.from, old.to, old.stale) == (new.from, new.to, new.stale)
            };
            let boxed = Box::new(record.clone());
            match previous.iter().position(alike) {
                Some(place) => {
                    let old = previous.remove(place);
                    changes.push(Change::Moved { was: old.transition.at, record: boxed });
                }
                None => changes.push(Change::New { late: record.transition.at <= judged_to, record: boxed }),
            }
        }
        let now = self.state();
        changes.extend(previous.into_iter().map(|record| Change::Retracted { record: Box::new(record), now }));
        // Transitions that no correction can reach are forgotten.
        let from = self.earliest_checkpoint();
        self.records.retain(|record| record.transition.at > from);
        self.records.shrink_to_fit();
        changes
    }
}
