//! Something of which one is too many, such as a critical policy exception.

use std::sync::Arc;

use super::{Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window, count};
use crate::weights::Arm;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// Minutes with runs and without another one, after which it is over.
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
    /// Since when, and all since then. Each one that was seen happened, whatever it stands for.
    seen: Option<(Minute, Arm)>,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Occurrence>) -> Self {
        Self { settings, now: false, seen: None }
    }
}

impl Judge for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let mut arm = Arm::default();
        window.rows.iter().for_each(|row| arm.add(&Arm::of(&row.canary)));
        self.now = arm.events > 0;
        if self.now || self.seen.is_some() {
            self.seen.get_or_insert((window.start, Arm::default())).1.add(&arm);
        }
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let signal = if self.now { Signal::Alarm } else { Signal::Clear };
        Verdict { signal, statistic: self.seen.map_or(0.0, |(_, arm)| count(arm.events) as f64), threshold: 1.0 }
    }

    fn resolved(&mut self) {
        *self = Self::new(Arc::clone(&self.settings));
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("occurrence", Baseline::Set, "events");
        if let Some((since, arm)) = self.seen {
            let (events, runs) = (count(arm.events), count(arm.runs));
            evidence.canary_counts = Some((events, runs));
            let (stand_for, of) = arm.stands_for();
            if (stand_for, of) != (events, runs) {
                evidence
                    .notes
                    .push(format!("runs are sampled: the {events} seen stand for {stand_for} among {of} runs"));
            }
            evidence.canary_value = Some(events as f64);
            evidence.effect = Some(events as f64);
            evidence.since = Some(since);
        }
        evidence.baseline_value = Some(0.0);
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
