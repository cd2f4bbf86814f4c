//! D3: a ratio, such as cost per completed task, of a release increased against its baseline. It uses the asymptotic
//! confidence sequences of [`bellwether_stats::ratio_cs`] on the log scale, with random groups of sessions if there are
//! any.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::interval::RatioSums;
use bellwether_stats::pack::Packer;
use bellwether_stats::ratio_cs::{
    Estimate, Sides, TIGHTEST_AT, decompose, difference, interval, log_e, log_ratio, log_ratio_of_groups,
};

use super::{Absence, DetectorState, Past, RECOVERED, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Measure, Minute, RatioTotals, SmallMeasure, Window, count};
use crate::weights::{Arm, ONE};

/// Fraction of an increase that falling success must explain to be reported as its cause.
const MIN_EXPLAINED: f64 = 0.7;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// Largest acceptable ratio of canary to baseline.
    pub margin: f64,
    /// Factor from the stored to the displayed unit (1e-9 for nano-units of money).
    pub scale: f64,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { margin: 1.05, scale: 1.0 }
    }
}

impl Ratio {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if !(self.margin >= 1.0 && self.margin.is_finite()) {
            return Err(Invalid::new("margin", self.margin, "a ratio of at least 1, such as 1.05"));
        }
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Invalid::new("scale", self.scale, "finite and greater than 0"));
        }
        Ok(())
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Ratio>,
    arms: [SmallMeasure; 2],
    /// Sums since the alert fired.
    after: Option<[SmallMeasure; 2]>,
    absence: Absence,
    since: Option<Minute>,
    /// α is spent once: after an alert has resolved, the release is no longer judged by this detector.
    spent: bool,
}

packed_state!(Ratio { arms, after, absence, since, spent });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Ratio>) -> Self {
        Self { settings, arms: Default::default(), after: None, absence: Absence::default(), since: None, spent: false }
    }
}

/// Returns the weighted sums of a measure, if weights differ.
fn uneven(measure: &Measure) -> Option<(&RatioTotals, &crate::weights::Weights)> {
    let weights = measure.weights.as_deref().filter(|_| Arm::from_measure(measure).weight().is_none())?;
    Some((weights.ratio.as_deref()?, weights))
}

#[expect(clippy::cast_precision_loss, reason = "sums of quantities need no more than a double has")]
fn estimate(measure: &Measure) -> Option<Estimate> {
    if let Some((totals, weights)) = uneven(measure) {
        return weighted_estimate(measure, totals, weights.groups.as_deref());
    }
    let totals = measure.ratio.as_deref()?;
    let units = count(measure.runs) as f64;
    if let Some(groups) = &measure.groups {
        let floats = |list: &[i64]| list.iter().map(|value| *value as f64).collect::<Vec<_>>();
        return log_ratio_of_groups(&floats(&groups.events), &floats(&groups.runs), units);
    }
    let sums = RatioSums {
        n: units,
        y: totals.y as f64,
        x: totals.x as f64,
        yy: totals.yy as f64,
        xx: totals.xx as f64,
        xy: totals.xy as f64,
    };
    log_ratio(&sums)
}

/// Estimates from weighted sums: Σw·y/Σw·x, with the variance by the delta method, Σw²(y − Rx)² / (Σw·x)². Everything
/// is divided by Kish's Σw²/Σw, so that the denominator is an effective number of runs.
#[expect(clippy::cast_precision_loss, reason = "sums of quantities need no more than a double has")]
fn weighted_estimate(
    measure: &Measure,
    totals: &RatioTotals,
    groups: Option<&(Vec<i128>, Vec<i128>)>,
) -> Option<Estimate> {
    let arm = Arm::from_measure(measure);
    let unit = arm.sums.runs_squares as f64 / arm.sums.runs as f64;
    let units = arm.effective_runs();
    if let Some((y, x)) = groups {
        let floats = |list: &[i128]| list.iter().map(|value| *value as f64 / unit).collect::<Vec<_>>();
        return log_ratio_of_groups(&floats(y), &floats(x), units);
    }
    // Squared weights are in thousandths squared.
    let square = (unit / 1e3).powi(2);
    let sums = RatioSums {
        n: units,
        y: totals.y as f64 / unit,
        x: totals.x as f64 / unit,
        yy: totals.yy as f64 / square,
        xx: totals.xx as f64 / square,
        xy: totals.xy as f64 / square,
    };
    log_ratio(&sums)
}

/// Returns the weighted Σ y, runs and Σ x.
#[expect(clippy::cast_precision_loss, reason = "sums of quantities need no more than a double has")]
fn totals(measure: &Measure) -> Option<[f64; 3]> {
    let runs = Arm::from_measure(measure).weighted_runs();
    if let Some(totals) = measure.weights.as_deref().and_then(|weights| weights.ratio.as_deref()) {
        return Some([totals.y as f64 / ONE as f64, runs, totals.x as f64 / ONE as f64]);
    }
    let totals = measure.ratio.as_deref()?;
    Some([totals.y as f64, runs, totals.x as f64])
}

fn compared(arms: &[Measure; 2]) -> Option<Estimate> {
    Some(difference(&estimate(&arms[0])?, &estimate(&arms[1])?))
}

fn opened(arms: &[SmallMeasure; 2]) -> [Measure; 2] {
    arms.each_ref().map(SmallMeasure::measure)
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        if window.historical {
            return; // Historical hours have no squares.
        }
        let mut arms: [Measure; 2] = Default::default();
        for row in &window.rows {
            arms[0].add(&row.baseline);
            arms[1].add(&row.canary);
        }
        self.absence.note(window.start, arms[0].clamped_counts().1, arms[1].clamped_counts().1);
        if arms[1].runs > 0 {
            self.since.get_or_insert(window.start);
        }
        for (sum, more) in self.arms.iter_mut().zip(&arms) {
            sum.add(more);
        }
        if let Some(after) = &mut self.after {
            after.iter_mut().zip(&arms).for_each(|(sum, more)| sum.add(more));
        }
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let margin = self.settings.margin.ln();
        let evidence = |estimate: &Estimate, margin: f64| {
            log_e(estimate, margin, TIGHTEST_AT, thresholds.alpha, Sides::One).unwrap_or(0.0)
        };
        let unknown = Verdict { signal: Signal::Unknown, statistic: 0.0, threshold: thresholds.e };
        let Some(estimate) = compared(&opened(&self.arms)).filter(|_| !self.spent) else { return unknown };
        let mut verdict = weigh(evidence(&estimate, margin), thresholds.e);
        let better = self.after.as_ref().and_then(|after| compared(&opened(after)));
        if self.absence.has_left() {
            verdict.signal = Signal::Gone;
        } else if better.is_some_and(|it| evidence(&Estimate { value: -it.value, ..it }, -margin) >= RECOVERED) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    fn on_fired(&mut self) {
        self.after = Some(Default::default());
    }

    fn on_resolved(&mut self) {
        *self = Self { spent: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let measures = opened(&self.arms);
        let arms = measures.each_ref().map(Arm::from_measure);
        let mut evidence =
            Evidence::new("ratio", BaselineKind::Concurrent, "ratio").with_arms(Some(&arms[0]), &arms[1], 1.0);
        // Completed runs among all runs.
        let counts = |measure: &Measure| {
            let completed = totals(measure).map_or(0, |[_, _, x]| x.round().max(0.0) as u64);
            Some((completed, Arm::from_measure(measure).weighted_counts().1))
        };
        (evidence.baseline_counts, evidence.canary_counts) = (counts(&measures[0]), counts(&measures[1]));
        let value = |measure: &Measure| {
            let [y, _, x] = totals(measure)?;
            (x > 0.0).then(|| y / x * self.settings.scale)
        };
        evidence.baseline_value = value(&measures[0]);
        evidence.canary_value = value(&measures[1]);
        if let Some(estimate) = compared(&measures) {
            evidence.effect = Some(estimate.value.exp());
            evidence.interval =
                interval(&estimate, TIGHTEST_AT, 0.05).ok().map(|interval| (interval.low.exp(), interval.high.exp()));
        }
        let verdict = self.verdict(thresholds);
        evidence.log_e = Some(verdict.statistic);
        evidence.threshold = Some(verdict.threshold);
        evidence.false_alarm = Some((thresholds.alpha, "per_release"));
        evidence.since = self.since;
        if let (Some(a), Some(b)) = (totals(&measures[0]), totals(&measures[1]))
            && let Some((by_size, by_success)) = decompose(a, b)
        {
            let percent = |change: f64| (change.exp() - 1.0) * 100.0;
            evidence.notes.push(format!(
                "of the change, {:+.1} % comes from the cost per run and {:+.1} % from fewer completed tasks",
                percent(by_size),
                percent(by_success)
            ));
            if by_success > MIN_EXPLAINED * (by_size + by_success) && by_success > 0.0 {
                evidence.notes.push("falling success explains most of the change: see that alert first".to_owned());
            }
        }
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
