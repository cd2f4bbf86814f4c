//! Something of which one is too many, such as a critical policy exception.

use std::sync::Arc;

use super::{Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window, count};

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
    seen: Option<(Minute, u64, u64)>,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Occurrence>) -> Self {
        Self { settings, now: false, seen: None }
    }
}

impl Judge for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let (mut events, mut runs) = (0, 0);
        for row in &window.rows {
            (events, runs) = (events + count(row.canary.events), runs + count(row.canary.runs));
        }
        self.now = events > 0;
        if self.now || self.seen.is_some() {
            let (since, before, all) = self.seen.unwrap_or((window.start, 0, 0));
            self.seen = Some((since, before + events, all + runs));
        }
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let signal = if self.now { Signal::Alarm } else { Signal::Clear };
        Verdict { signal, statistic: self.seen.map_or(0.0, |(_, events, _)| events as f64), threshold: 1.0 }
    }

    fn resolved(&mut self) {
        *self = Self::new(Arc::clone(&self.settings));
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("occurrence", Baseline::Set, "events");
        if let Some((since, events, runs)) = self.seen {
            evidence.canary_counts = Some((events, runs));
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
