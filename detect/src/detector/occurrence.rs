//! An event of which one is too many, such as a critical policy exception.

use std::sync::Arc;

use bellwether_stats::pack::Packer;

use super::{DetectorState, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Minute, Window, count};
use crate::weights::Arm;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// Minutes with runs but without another event after which the alert resolves.
    pub clear: i64,
}

impl Default for Occurrence {
    fn default() -> Self {
        Self { clear: 60 }
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Occurrence>,
    now: bool,
    /// First window with an event, and all runs since then. Every observed event counts, whatever its weight.
    seen: Option<(Minute, Arm)>,
}

packed_state!(Occurrence { now, seen });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Occurrence>) -> Self {
        Self { settings, now: false, seen: None }
    }
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let mut arm = Arm::default();
        window.rows.iter().for_each(|row| arm.add(&Arm::from_measure(&row.canary)));
        self.now = arm.events > 0;
        if self.now || self.seen.is_some() {
            self.seen.get_or_insert((window.start, Arm::default())).1.add(&arm);
        }
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let signal = if self.now { Signal::Alarm } else { Signal::Clear };
        Verdict { signal, statistic: self.seen.map_or(0.0, |(_, arm)| count(arm.events) as f64), threshold: 1.0 }
    }

    fn on_resolved(&mut self) {
        *self = Self::new(Arc::clone(&self.settings));
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("occurrence", BaselineKind::Set, "events");
        if let Some((since, arm)) = self.seen {
            let (events, runs) = (count(arm.events), count(arm.runs));
            evidence.canary_counts = Some((events, runs));
            let (stand_for, of) = arm.weighted_counts();
            if (stand_for, of) != (events, runs) {
                evidence
                    .notes
                    .push(format!("runs are sampled: the {events} observed events represent {stand_for} in {of} runs"));
            }
            evidence.canary_value = Some(events as f64);
            evidence.effect = Some(events as f64);
            evidence.since = Some(since);
        }
        evidence.baseline_value = Some(0.0);
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
