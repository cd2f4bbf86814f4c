//! D7: the distribution of a day is further from that of the preceding week than chance explains. For tickets.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::distance::{pooled, psi_threshold};
use bellwether_stats::pack::Packer;
use bellwether_stats::packed;

use super::{DAY, DetectorState, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Measure, Minute, SmallMeasure, Window};
use crate::weights::Arm;

/// Days of the reference.
const DAYS: usize = 7;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Population stability index below which no alert fires, however significant.
    pub least: f64,
    /// Minimum number of runs of a day.
    pub least_runs: u64,
}

impl Default for Distance {
    fn default() -> Self {
        Self { least: 0.05, least_runs: 200 }
    }
}

impl Distance {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.least >= 0.0 && self.least.is_finite() {
            Ok(())
        } else {
            Err(Invalid::new("least", self.least, "a finite number, not negative"))
        }
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Distance>,
    day: Option<i64>,
    today: SmallMeasure,
    /// The days before, packed.
    before: VecDeque<Arc<SmallMeasure>>,
    found: Option<Found>,
}

/// The result of the last complete day.
#[derive(Clone, Copy, Debug)]
struct Found {
    start: Minute,
    psi: f64,
    reference_runs: u64,
    runs: u64,
    /// Arms of reference and day, with weights.
    arms: [Arm; 2],
    bins: usize,
}

packed!(Found { start, psi, reference_runs, runs, arms, bins });
packed_state!(Distance { day, today, before, found });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Distance>) -> Self {
        Self { settings, day: None, today: SmallMeasure::default(), before: VecDeque::new(), found: None }
    }

    fn close(&mut self, day: i64) {
        let today = std::mem::take(&mut self.today).measure();
        let mut reference = Measure::default();
        self.before.iter().for_each(|day| reference.add(&day.measure()));
        let (mut a, mut b) = (reference.effective_bins(), today.effective_bins());
        let bins = a.len().max(b.len());
        a.resize(bins, 0);
        b.resize(bins, 0);
        let runs = |counts: &[u64]| counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let enough =
            self.before.len() >= 3 && runs(&b) >= self.settings.least_runs && runs(&a) >= self.settings.least_runs;
        self.found = enough.then(|| pooled(&a, &b).ok()).flatten().map(|pooled| Found {
            start: day * DAY,
            psi: pooled.psi(),
            reference_runs: runs(&a),
            runs: runs(&b),
            bins: pooled.bins(),
            arms: [Arm::from_measure(&reference), Arm::from_measure(&today)],
        });
        self.before.push_back(Arc::new(SmallMeasure::from(&today)));
        if self.before.len() > DAYS {
            self.before.pop_front();
        }
    }

    /// Returns the threshold of the index: its quantile at the budget's level for a day, or the configured floor.
    fn limit(&self, found: &Found, thresholds: &Thresholds) -> f64 {
        let alpha = (-thresholds.detector).exp().clamp(1e-12, 0.5);
        psi_threshold(found.reference_runs, found.runs, found.bins.max(2), alpha)
            .unwrap_or(f64::INFINITY)
            .max(self.settings.least)
    }
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        let day = window.start.div_euclid(DAY);
        if let Some(before) = self.day.replace(day)
            && before != day
        {
            self.close(before);
        }
        for row in &window.rows {
            self.today.add(&row.canary);
        }
    }

    fn advance(&mut self, until: Minute, _: &Past<'_>) -> Option<Minute> {
        let day = self.day.filter(|day| (day + 1) * DAY <= until)?;
        self.close(day);
        self.day = None;
        Some((day + 1) * DAY)
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let Some(found) = &self.found else {
            return Verdict { signal: Signal::Unknown, statistic: 0.0, threshold: self.settings.least };
        };
        let threshold = self.limit(found, thresholds);
        let signal = if found.bins > 1 && found.psi >= threshold { Signal::Alarm } else { Signal::Clear };
        Verdict { signal, statistic: found.psi, threshold }
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("distance", BaselineKind::Past, "psi");
        if let Some(found) = &self.found {
            evidence = evidence.with_arms(Some(&found.arms[0]), &found.arms[1], 1.0);
            (evidence.baseline_value, evidence.canary_value) = (Some(self.limit(found, thresholds)), Some(found.psi));
            evidence.effect = Some(found.psi);
            evidence.since = Some(found.start);
        }
        evidence.false_alarm = Some((thresholds.alarms_per_month, "a_month"));
        evidence.notes.push(
            "baseline_value is the index that chance alone exceeds at the budget's level, or the configured floor"
                .to_owned(),
        );
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
