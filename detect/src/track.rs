//! One series folded over its windows: detector and alert together, with checkpoints.
//!
//! A correction of a window that has been judged goes back to the checkpoint before it and folds again. What comes out
//! differently is told: transitions that are new, that moved, or that would not have been.

use std::collections::VecDeque;

use crate::budget::Thresholds;
use crate::crowd::Among;
use crate::detector::{DAY, Detector, Judge, Past, Verdict};
use crate::evidence::Evidence;
use crate::hours::Hours;
use crate::machine::{Machine, Pace, State, Transition};
use crate::observation::{Minute, Window};

/// Minutes between two checkpoints, and how many are kept: corrections of the last three hours, at least, are taken in.
pub const CHECKPOINT_MINUTES: i64 = 60;
const CHECKPOINTS: usize = 5;

/// A transition with what brought it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The step.
    pub transition: Transition,
    /// What the detector said.
    pub verdict: Verdict,
    /// The numbers behind it.
    pub evidence: Evidence,
}

/// What an evaluation brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A transition; `late` where a correction brought it for a time that had been judged.
    New {
        /// It.
        told: Box<Told>,
        /// True where it comes out of a correction.
        late: bool,
    },
    /// A transition that, after a correction, is at another time.
    Moved {
        /// When it was thought to be.
        was: Minute,
        /// It, as it is now.
        told: Box<Told>,
    },
    /// A transition that, after a correction, would not have been.
    Retracted {
        /// It, as it was told.
        told: Box<Told>,
        /// State of the alert instead.
        now: State,
    },
}

/// What a series is judged by beside its windows.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Its past.
    pub hours: &'a Hours,
    /// Where it stands among others.
    pub among: Option<Among<'a>>,
}

// === impl Around ===

impl<'a> Around<'a> {
    /// A series by itself.
    pub fn alone(hours: &'a Hours) -> Self {
        Self { hours, among: None }
    }
}

/// Detector and alert at a moment.
struct Fold {
    /// All windows before it are in.
    next: Minute,
    judge: Box<dyn Judge>,
    machine: Machine,
    /// Firing from, to: left out of baselines.
    incidents: Vec<(Minute, Minute)>,
    /// Last window in which the series itself had runs.
    last_own: Minute,
}

impl Clone for Fold {
    fn clone(&self) -> Self {
        Self {
            next: self.next,
            judge: self.judge.boxed(),
            machine: self.machine,
            incidents: self.incidents.clone(),
            last_own: self.last_own,
        }
    }
}

/// One series.
pub struct Track {
    begun: Minute,
    fold: Fold,
    checkpoints: VecDeque<Fold>,
    told: Vec<Told>,
    /// What had been told of the time that is being judged again.
    before: Vec<Told>,
    judged_to: Minute,
    /// How far back corrections went since then.
    rewound_to: Option<Minute>,
}

fn past<'a>(around: Around<'a>, incidents: &'a [(Minute, Minute)]) -> Past<'a> {
    Past { hours: around.hours, incidents, among: around.among }
}

// === impl Track ===

impl Track {
    /// Before the first window, which is at `begun`.
    pub fn new(detector: &Detector, pace: Pace, begun: Minute) -> Self {
        let fold = Fold {
            next: Minute::MIN,
            judge: detector.start(),
            machine: Machine::new(pace),
            incidents: Vec::new(),
            last_own: begun,
        };
        let checkpoints = VecDeque::from([fold.clone()]);
        let judged_to = Minute::MIN;
        Self { begun, fold, checkpoints, told: Vec::new(), before: Vec::new(), judged_to, rewound_to: None }
    }

    /// A correction showed that it began at another window.
    pub fn begins(&mut self, begun: Minute) {
        self.begun = begun;
    }

    /// Its alert fires since a moment.
    pub fn resume(&mut self, at: Minute) {
        self.fold.machine.resume(at);
        self.fold.next = at;
        self.fold.incidents.push((at, Minute::MAX));
        self.checkpoints = VecDeque::from([self.fold.clone()]);
        self.judged_to = at;
    }

    /// Its first window.
    pub fn begun(&self) -> Minute {
        self.begun
    }

    /// All windows before this moment have been judged.
    pub fn next(&self) -> Minute {
        self.fold.next
    }

    /// Windows before this moment are needed no more.
    pub fn keeps_from(&self) -> Minute {
        self.checkpoints.front().map_or(self.fold.next, |fold| fold.next)
    }

    /// State of its alert.
    pub fn state(&self) -> State {
        self.fold.machine.state()
    }

    /// Firing without news.
    pub fn is_stale(&self) -> bool {
        self.fold.machine.is_stale()
    }

    /// When a firing alert, hearing no more, becomes stale.
    pub fn stale_at(&self) -> Option<Minute> {
        self.fold.machine.stale_at()
    }

    /// When its alert fired: [from, to), without an end where it still does.
    pub fn incidents(&self) -> &[(Minute, Minute)] {
        &self.fold.incidents
    }

    /// What its detector says.
    pub fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        self.fold.judge.verdict(thresholds)
    }

    /// The numbers behind it.
    pub fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        self.fold.judge.evidence(thresholds)
    }

    /// Goes back before a window that was corrected. False where it is older than every checkpoint: it then counts for
    /// baselines only.
    pub fn rewind(&mut self, corrected: Minute) -> bool {
        if corrected >= self.fold.next {
            return true;
        }
        if self.keeps_from() > corrected {
            return false;
        }
        while self.checkpoints.len() > 1 && self.checkpoints.back().is_some_and(|fold| fold.next > corrected) {
            self.checkpoints.pop_back();
        }
        if let Some(fold) = self.checkpoints.back() {
            self.fold = fold.clone();
        }
        let keep = self.told.partition_point(|told| told.transition.at <= self.fold.next);
        let mut again = self.told.split_off(keep);
        again.append(&mut self.before);
        self.before = again;
        self.rewound_to = Some(self.rewound_to.map_or(self.fold.next, |to| to.min(self.fold.next)));
        true
    }

    /// Takes in a window from before it began.
    pub fn prime(&mut self, window: &Window) {
        self.fold.judge.prime(window);
    }

    /// Judges the next window.
    pub fn feed(&mut self, window: &Window, around: Around<'_>, thresholds: &Thresholds) {
        self.wait(window.start, around, thresholds);
        // An hour of history stands at the end of its hour, whose last window may be in already.
        if !window.historical {
            self.checkpoint(window.start);
        }
        if window.rows.iter().any(|row| row.canary.runs > 0) {
            self.fold.last_own = window.start;
        }
        let incidents = std::mem::take(&mut self.fold.incidents);
        self.fold.judge.step(window, &past(around, &incidents));
        self.fold.incidents = incidents;
        self.judge(window.start + 1, thresholds);
        self.fold.next = self.fold.next.max(window.start + 1);
    }

    /// Keeps a copy from time to time. Everything up to its moment is in it, so that what is told after it is of later.
    fn checkpoint(&mut self, start: Minute) {
        if self.checkpoints.back().is_some_and(|last| start.saturating_sub(last.next) < CHECKPOINT_MINUTES) {
            return;
        }
        self.fold.next = self.fold.next.max(start);
        self.checkpoints.push_back(self.fold.clone());
        if self.checkpoints.len() > CHECKPOINTS {
            self.checkpoints.pop_front();
        }
    }

    /// True where the series has had no runs for a day and no alert is open: there is nothing to judge.
    pub fn is_dormant(&self, start: Minute) -> bool {
        self.state() != State::Firing && start - self.fold.last_own > DAY
    }

    /// Passes over a window of a dormant series.
    pub fn pass(&mut self, start: Minute) {
        self.checkpoint(start);
        self.fold.next = self.fold.next.max(start + 1);
    }

    /// Time passes up to a moment without a window.
    fn wait(&mut self, until: Minute, around: Around<'_>, thresholds: &Thresholds) {
        self.advance(until, around, thresholds);
        if let Some(transition) = self.fold.machine.wait(until) {
            let verdict = self.fold.judge.verdict(thresholds);
            self.tell(transition, verdict, thresholds);
        }
    }

    fn advance(&mut self, until: Minute, around: Around<'_>, thresholds: &Thresholds) {
        loop {
            let incidents = std::mem::take(&mut self.fold.incidents);
            let at = self.fold.judge.advance(until, &past(around, &incidents));
            self.fold.incidents = incidents;
            match at {
                Some(at) => self.judge(at, thresholds),
                None => break,
            }
        }
    }

    fn judge(&mut self, at: Minute, thresholds: &Thresholds) {
        let verdict = self.fold.judge.verdict(thresholds);
        for transition in self.fold.machine.step(at, verdict.signal) {
            self.tell(transition, verdict, thresholds);
        }
    }

    fn tell(&mut self, transition: Transition, verdict: Verdict, thresholds: &Thresholds) {
        let evidence = self.fold.judge.evidence(thresholds);
        match (transition.from, transition.to) {
            (State::Pending, State::Firing) => {
                let since = evidence.since.unwrap_or(transition.at).min(transition.at);
                self.fold.incidents.push((since, Minute::MAX));
                self.fold.judge.fired();
            }
            (State::Firing, State::Resolved) => {
                if let Some(last) = self.fold.incidents.last_mut() {
                    last.1 = transition.at;
                }
                self.fold.judge.resolved();
            }
            _ => {}
        }
        self.told.push(Told { transition, verdict, evidence });
    }

    /// All windows before `to` have been fed. Returns what is new, and what a correction has changed.
    pub fn finish(&mut self, to: Minute, around: Around<'_>, thresholds: &Thresholds) -> Vec<Change> {
        self.wait(to, around, thresholds);
        self.fold.next = self.fold.next.max(to);
        let judged_to = self.judged_to;
        self.judged_to = judged_to.max(self.fold.next);
        let stands = self.rewound_to.take().map_or(judged_to, |to| to.min(judged_to));
        let mut before = std::mem::take(&mut self.before);
        let mut changes = Vec::new();
        for told in self.told.iter().filter(|told| told.transition.at > stands) {
            let same = before.iter().position(|old| old.transition == told.transition);
            if let Some(place) = same {
                before.remove(place);
                continue;
            }
            let alike = |old: &Told| {
                let (old, new) = (old.transition, told.transition);
                (old.from, old.to, old.stale) == (new.from, new.to, new.stale)
            };
            let told_box = Box::new(told.clone());
            match before.iter().position(alike) {
                Some(place) => {
                    let old = before.remove(place);
                    changes.push(Change::Moved { was: old.transition.at, told: told_box });
                }
                None => changes.push(Change::New { late: told.transition.at <= judged_to, told: told_box }),
            }
        }
        let now = self.state();
        changes.extend(before.into_iter().map(|told| Change::Retracted { told: Box::new(told), now }));
        // What no correction can reach any more need not be remembered.
        let from = self.keeps_from();
        self.told.retain(|told| told.transition.at > from);
        changes
    }
}
