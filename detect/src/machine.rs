//! The states of an alert: inactive, pending, firing, resolved; and stale, which is firing without news.
//!
//! Rules: an alert fires once its detector says so for as many windows as it has to hold; it resolves only by evidence of
//! recovery, or because the release has been taken back while its task goes on. Missing data resolves nothing: a firing
//! alert that hears nothing becomes stale and keeps firing.

use crate::detector::Signal;
use crate::observation::Minute;

/// Where an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing to see.
    #[default]
    Inactive,
    /// On the way: evidence is half of what it needs, or the condition has not held long enough.
    Pending,
    /// Somebody has to act.
    Firing,
    /// It is over.
    Resolved,
}

/// How quickly an alert moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Minutes that an alarm has to hold before it fires. 0 for detectors whose evidence already weighs time.
    pub hold: i64,
    /// Minutes that a detector without evidence of recovery has to be quiet before it resolves.
    pub clear: i64,
    /// Minutes without any data after which a firing alert is stale.
    pub stale_after: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { hold: 0, clear: 30, stale_after: 60 }
    }
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// End of the window that brought it.
    pub at: Minute,
    /// From.
    pub from: State,
    /// To.
    pub to: State,
    /// Firing without news.
    pub stale: bool,
    /// Why, in a word: `evidence`, `held`, `faded`, `recovered`, `cleared`, `rolled_back`, `no_data`, `data_again`.
    pub why: &'static str,
}

/// The alert of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pace: Pace,
    state: State,
    stale: bool,
    /// When the present alarm or quiet began.
    since: Option<(bool, Minute)>,
    /// End of the last window with data.
    heard: Option<Minute>,
}

// === impl State ===

impl State {
    /// Its name in the table of alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }

    /// The state of a name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Inactive, Self::Pending, Self::Firing, Self::Resolved].into_iter().find(|state| state.name() == name)
    }
}

// === impl Machine ===

impl Machine {
    /// Inactive.
    pub fn new(pace: Pace) -> Self {
        Self { pace, state: State::Inactive, stale: false, since: None, heard: None }
    }

    /// It fires since a moment.
    pub fn resume(&mut self, at: Minute) {
        (self.state, self.heard) = (State::Firing, Some(at));
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Firing without news.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// When it becomes stale if nothing more is heard; none unless it fires.
    pub fn stale_at(&self) -> Option<Minute> {
        (self.state == State::Firing && !self.stale).then_some(self.heard?.saturating_add(self.pace.stale_after))
    }

    /// Time passes up to a moment without data: what was heard of last decides whether that is too long.
    pub fn wait(&mut self, until: Minute) -> Option<Transition> {
        let silent_since = self.heard?.saturating_add(self.pace.stale_after);
        if self.state == State::Firing && !self.stale && silent_since <= until {
            self.stale = true;
            return Some(Transition {
                at: silent_since,
                from: State::Firing,
                to: State::Firing,
                stale: true,
                why: "no_data",
            });
        }
        None
    }

    /// A window with data ended, and the detector says this of it.
    pub fn step(&mut self, end: Minute, signal: Signal) -> Vec<Transition> {
        let mut steps: Vec<Transition> = self.wait(end - 1).into_iter().collect();
        self.heard = Some(end);
        if self.stale {
            self.stale = false;
            steps.push(Transition { at: end, from: self.state, to: self.state, stale: false, why: "data_again" });
        }
        let alarmed = signal == Signal::Alarm;
        let begun = match self.since {
            Some((was, since)) if was == alarmed => since,
            _ => end,
        };
        self.since = Some((alarmed, begun));
        let held = end - begun;
        let next = match (self.state, signal) {
            (State::Inactive | State::Resolved, Signal::Alarm) if self.pace.hold == 0 => {
                steps.push(self.transition(end, State::Pending, "evidence"));
                Some((State::Firing, "evidence"))
            }
            (State::Inactive | State::Resolved, Signal::Alarm | Signal::Suspect) => Some((State::Pending, "evidence")),
            (State::Pending, Signal::Alarm) if held >= self.pace.hold => {
                Some((State::Firing, if self.pace.hold == 0 { "evidence" } else { "held" }))
            }
            (State::Pending, Signal::Quiet | Signal::Recovered | Signal::Gone) => Some((State::Inactive, "faded")),
            (State::Firing, Signal::Recovered) => Some((State::Resolved, "recovered")),
            (State::Firing, Signal::Gone) => Some((State::Resolved, "rolled_back")),
            (State::Firing, Signal::Clear) if held >= self.pace.clear => Some((State::Resolved, "cleared")),
            (State::Pending, Signal::Clear) => Some((State::Inactive, "faded")),
            // Evidence that stops growing is no evidence of recovery, and what is not known changes nothing.
            (State::Inactive | State::Resolved, Signal::Quiet | Signal::Clear | Signal::Recovered | Signal::Gone)
            | (State::Pending, Signal::Alarm | Signal::Suspect)
            | (State::Firing, Signal::Alarm | Signal::Suspect | Signal::Quiet | Signal::Clear)
            | (_, Signal::Unknown) => None,
        };
        if let Some((to, why)) = next {
            steps.push(self.transition(end, to, why));
        }
        steps
    }

    fn transition(&mut self, at: Minute, to: State, why: &'static str) -> Transition {
        let from = std::mem::replace(&mut self.state, to);
        Transition { at, from, to, stale: false, why }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pace: Pace, signals: &[(Minute, Signal)]) -> Vec<(Minute, State, bool, &'static str)> {
        let mut machine = Machine::new(pace);
        let steps = signals.iter().flat_map(|(at, signal)| machine.step(*at, *signal)).collect::<Vec<_>>();
        steps.into_iter().map(|step| (step.at, step.to, step.stale, step.why)).collect()
    }

    #[test]
    fn evidence_fires_at_once_and_only_recovery_resolves() {
        let steps = run(
            Pace::default(),
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
                (2, State::Pending, false, "evidence"),
                (3, State::Firing, false, "evidence"),
                (65, State::Firing, true, "no_data"),
                (500, State::Firing, false, "data_again"),
                (500, State::Resolved, false, "recovered"),
                (501, State::Pending, false, "evidence"),
                (501, State::Firing, false, "evidence"),
            ]
        );
    }

    #[test]
    fn a_bare_condition_has_to_hold_and_to_clear() {
        let pace = Pace { hold: 5, clear: 10, stale_after: 60 };
        let mut signals = vec![(0, Signal::Alarm), (3, Signal::Clear), (4, Signal::Alarm), (9, Signal::Alarm)];
        signals.extend([(10, Signal::Clear), (15, Signal::Alarm), (16, Signal::Clear), (26, Signal::Clear)]);
        let expected = [
            (0, State::Pending, false, "evidence"),
            (3, State::Inactive, false, "faded"),
            (4, State::Pending, false, "evidence"),
            (9, State::Firing, false, "held"),
            (26, State::Resolved, false, "cleared"),
        ];
        assert_eq!(run(pace, &signals), expected);
    }

    #[test]
    fn a_release_that_is_taken_back_is_over() {
        let steps = run(Pace::default(), &[(1, Signal::Alarm), (2, Signal::Gone)]);
        assert_eq!(steps.last(), Some(&(2, State::Resolved, false, "rolled_back")));
    }

    proptest! {
        #[test]
        fn missing_data_never_resolves(gaps in proptest::collection::vec(0_i64..500, 1..20)) {
            let mut machine = Machine::new(Pace::default());
            machine.step(0, Signal::Alarm);
            let mut now = 0;
            for gap in gaps {
                now += gap;
                machine.wait(now);
                prop_assert_eq!(machine.state(), State::Firing);
                prop_assert_eq!(machine.is_stale(), now >= 60);
            }
            prop_assert!(machine.step(now + 1, Signal::Unknown).iter().all(|step| step.to == State::Firing));
        }

        #[test]
        fn every_step_begins_where_the_last_one_ended(signals in proptest::collection::vec(0_usize..7, 0..60)) {
            const ALL: [Signal; 7] = [Signal::Unknown, Signal::Quiet, Signal::Suspect, Signal::Alarm, Signal::Clear,
                Signal::Recovered, Signal::Gone];
            let mut machine = Machine::new(Pace { hold: 2, clear: 3, stale_after: 5 });
            let mut state = State::Inactive;
            for (at, signal) in signals.into_iter().enumerate() {
                for step in machine.step(at as i64, ALL[signal]) {
                    prop_assert_eq!(step.from, state);
                    prop_assert!(!(step.from == State::Inactive && step.to == State::Resolved));
                    state = step.to;
                }
                prop_assert_eq!(machine.state(), state);
            }
        }
    }
}
