//! The states of an alert: inactive, pending, firing, resolved; and stale, which is firing without recent data.
//!
//! Rules: an alert fires once its detector has alarmed for the required number of windows. It resolves only on evidence
//! of recovery, or because the release was withdrawn while its task goes on. Missing data resolves nothing: a firing
//! alert without data becomes stale and keeps firing.

use bellwether_stats::pack::{Pack, Packer, Unpacker};

use crate::detector::Signal;
use crate::observation::Minute;

/// The state of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// No evidence.
    #[default]
    Inactive,
    /// Evidence is at least half of the threshold, or the condition has not held long enough.
    Pending,
    /// Needs action.
    Firing,
    /// The problem is over.
    Resolved,
}

/// The timing of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertTiming {
    /// Minutes that an alarm must last before the alert fires. 0 for detectors with evidence that accumulates over
    /// time.
    pub hold: i64,
    /// Minutes that a detector without evidence of recovery must be quiet before the alert resolves.
    pub clear: i64,
    /// Minutes without data after which a firing alert is stale.
    pub stale_after: i64,
}

impl Default for AlertTiming {
    fn default() -> Self {
        Self { hold: 0, clear: 30, stale_after: 60 }
    }
}

/// A transition from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// End of the window that caused it.
    pub at: Minute,
    /// Previous state.
    pub from: AlertState,
    /// New state.
    pub to: AlertState,
    /// True if it fires without recent data.
    pub stale: bool,
    /// Reason, in a word: `evidence`, `held`, `faded`, `recovered`, `cleared`, `rolled_back`, `no_data`, `data_again`.
    pub why: &'static str,
}

/// The alert of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertMachine {
    timing: AlertTiming,
    state: AlertState,
    stale: bool,
    /// The verdict of the detector, true for an alarm, and the start of it.
    since: Option<(bool, Minute)>,
    /// End of the last window with data.
    heard: Option<Minute>,
}

impl Pack for AlertState {
    fn pack(&self, to: &mut Packer) {
        (*self as u8).pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let place = u8::unpack(from);
        let all = [Self::Inactive, Self::Pending, Self::Firing, Self::Resolved];
        all.into_iter().find(|state| *state as u8 == place).unwrap_or_default()
    }
}

// === impl AlertState ===

impl AlertState {
    /// Returns its name in the table of alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }

    /// Returns the state with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Inactive, Self::Pending, Self::Firing, Self::Resolved].into_iter().find(|state| state.name() == name)
    }
}

// === impl Transition ===

impl Transition {
    /// Returns true if the table of alerts takes the two for the same: of one time, into one state.
    pub fn is_reported_as(&self, other: &Self) -> bool {
        (self.at, self.to, self.stale) == (other.at, other.to, other.stale)
    }
}

// === impl AlertMachine ===

impl AlertMachine {
    /// Creates an inactive alert.
    pub fn new(timing: AlertTiming) -> Self {
        Self { timing, state: AlertState::Inactive, stale: false, since: None, heard: None }
    }

    /// Appends a copy, without its timing.
    pub(crate) fn pack(&self, to: &mut Packer) {
        let Self { timing: _, state, stale, since, heard } = self;
        (*state, *stale).pack(to);
        (*since, *heard).pack(to);
    }

    /// Restores the copy of an alert with this one's timing.
    pub(crate) fn unpack(self, from: &mut Unpacker<'_>) -> Self {
        let (state, stale) = Pack::unpack(from);
        let (since, heard) = Pack::unpack(from);
        Self { timing: self.timing, state, stale, since, heard }
    }

    /// Sets it to firing since `at`.
    pub fn resume(&mut self, at: Minute) {
        (self.state, self.heard) = (AlertState::Firing, Some(at));
    }

    /// Returns its state.
    pub fn state(&self) -> AlertState {
        self.state
    }

    /// Returns true if it fires without recent data.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Returns the time at which it becomes stale unless data arrives; none unless it fires.
    pub fn stale_at(&self) -> Option<Minute> {
        (self.state == AlertState::Firing && !self.stale).then_some(self.heard?.saturating_add(self.timing.stale_after))
    }

    /// Advances time to `until` without data: a firing alert becomes stale if the last data is too old.
    pub fn wait(&mut self, until: Minute) -> Option<Transition> {
        let silent_since = self.heard?.saturating_add(self.timing.stale_after);
        if self.state == AlertState::Firing && !self.stale && silent_since <= until {
            self.stale = true;
            return Some(Transition {
                at: silent_since,
                from: AlertState::Firing,
                to: AlertState::Firing,
                stale: true,
                why: "no_data",
            });
        }
        None
    }

    /// Processes the detector's signal for a window with data.
    pub fn step(&mut self, end: Minute, signal: Signal) -> Vec<Transition> {
        let mut steps: Vec<Transition> = self.wait(end - 1).into_iter().collect();
        self.heard = Some(end);
        if self.stale {
            self.stale = false;
            steps.push(Transition { at: end, from: self.state, to: self.state, stale: false, why: "data_again" });
        }
        let alarmed = signal == Signal::Alarm;
        let started = match self.since {
            Some((was, since)) if was == alarmed => since,
            _ => end,
        };
        self.since = Some((alarmed, started));
        let held = end - started;
        let next = match (self.state, signal) {
            (AlertState::Inactive | AlertState::Resolved, Signal::Alarm) if self.timing.hold == 0 => {
                steps.push(self.transition(end, AlertState::Pending, "evidence"));
                Some((AlertState::Firing, "evidence"))
            }
            (AlertState::Inactive | AlertState::Resolved, Signal::Alarm | Signal::Suspect) => {
                Some((AlertState::Pending, "evidence"))
            }
            (AlertState::Pending, Signal::Alarm) if held >= self.timing.hold => {
                Some((AlertState::Firing, if self.timing.hold == 0 { "evidence" } else { "held" }))
            }
            (AlertState::Pending, Signal::Quiet | Signal::Recovered | Signal::Gone) => {
                Some((AlertState::Inactive, "faded"))
            }
            (AlertState::Firing, Signal::Recovered) => Some((AlertState::Resolved, "recovered")),
            (AlertState::Firing, Signal::Gone) => Some((AlertState::Resolved, "rolled_back")),
            (AlertState::Firing, Signal::Clear) if held >= self.timing.clear => Some((AlertState::Resolved, "cleared")),
            (AlertState::Pending, Signal::Clear) => Some((AlertState::Inactive, "faded")),
            // Evidence that stops growing is no evidence of recovery, and an unknown signal changes nothing.
            (
                AlertState::Inactive | AlertState::Resolved,
                Signal::Quiet | Signal::Clear | Signal::Recovered | Signal::Gone,
            )
            | (AlertState::Pending, Signal::Alarm | Signal::Suspect)
            | (AlertState::Firing, Signal::Alarm | Signal::Suspect | Signal::Quiet | Signal::Clear)
            | (_, Signal::Unknown) => None,
        };
        if let Some((to, why)) = next {
            steps.push(self.transition(end, to, why));
        }
        steps
    }

    fn transition(&mut self, at: Minute, to: AlertState, why: &'static str) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        Transition { at, from, to, stale: false, why }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(timing: AlertTiming, signals: &[(Minute, Signal)]) -> Vec<(Minute, AlertState, bool, &'static str)> {
        let mut machine = AlertMachine::new(timing);
        let steps = signals.iter().flat_map(|(at, signal)| machine.step(*at, *signal)).collect::<Vec<_>>();
        steps.into_iter().map(|step| (step.at, step.to, step.stale, step.why)).collect()
    }

    #[test]
    fn evidence_fires_at_once_and_only_recovery_resolves() {
        let steps = run(
            AlertTiming::default(),
            &[
                (1, Signal::Quiet),
                (2, Signal::Suspect),
                (3, Signal::Alarm),
                (4, Signal::Quiet),
                (5, Signal::Suspect),
                (500, Signal::Recovered),
                (501, Signal::Alarm),
            ],
        );
        assert_eq!(
            steps,
            [
                (2, AlertState::Pending, false, "evidence"),
                (3, AlertState::Firing, false, "evidence"),
                (65, AlertState::Firing, true, "no_data"),
                (500, AlertState::Firing, false, "data_again"),
                (500, AlertState::Resolved, false, "recovered"),
                (501, AlertState::Pending, false, "evidence"),
                (501, AlertState::Firing, false, "evidence"),
            ]
        );
    }

    #[test]
    fn a_plain_condition_must_hold_before_firing_and_clear_before_resolving() {
        let timing = AlertTiming { hold: 5, clear: 10, stale_after: 60 };
        let mut signals = vec![(0, Signal::Alarm), (3, Signal::Clear), (4, Signal::Alarm), (9, Signal::Alarm)];
        signals.extend([(10, Signal::Clear), (15, Signal::Alarm), (16, Signal::Clear), (26, Signal::Clear)]);
        let expected = [
            (0, AlertState::Pending, false, "evidence"),
            (3, AlertState::Inactive, false, "faded"),
            (4, AlertState::Pending, false, "evidence"),
            (9, AlertState::Firing, false, "held"),
            (26, AlertState::Resolved, false, "cleared"),
        ];
        assert_eq!(run(timing, &signals), expected);
    }

    #[test]
    fn the_alert_of_a_withdrawn_release_resolves() {
        let steps = run(AlertTiming::default(), &[(1, Signal::Alarm), (2, Signal::Gone)]);
        assert_eq!(steps.last(), Some(&(2, AlertState::Resolved, false, "rolled_back")));
    }

    proptest! {
        #[test]
        fn missing_data_never_resolves(gaps in proptest::collection::vec(0_i64..500, 1..20)) {
            let mut machine = AlertMachine::new(AlertTiming::default());
            machine.step(0, Signal::Alarm);
            let mut now = 0;
            for gap in gaps {
                now += gap;
                machine.wait(now);
                prop_assert_eq!(machine.state(), AlertState::Firing);
                prop_assert_eq!(machine.is_stale(), now >= 60);
            }
            prop_assert!(machine.step(now + 1, Signal::Unknown).iter().all(|step| step.to == AlertState::Firing));
        }

        #[test]
        fn every_step_begins_where_the_last_one_ended(signals in proptest::collection::vec(0_usize..7, 0..60)) {
            const ALL: [Signal; 7] = [Signal::Unknown, Signal::Quiet, Signal::Suspect, Signal::Alarm, Signal::Clear,
                Signal::Recovered, Signal::Gone];
            let mut machine = AlertMachine::new(AlertTiming { hold: 2, clear: 3, stale_after: 5 });
            let mut state = AlertState::Inactive;
            for (at, signal) in signals.into_iter().enumerate() {
                for step in machine.step(at as i64, ALL[signal]) {
                    prop_assert_eq!(step.from, state);
                    prop_assert!(!(step.from == AlertState::Inactive && step.to == AlertState::Resolved));
                    state = step.to;
                }
                prop_assert_eq!(machine.state(), state);
            }
        }
    }
}
