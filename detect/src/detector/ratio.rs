//! D3: has a ratio, such as cost per completed task, grown in a release against its baseline? Asymptotic confidence
//! sequences of [`bellwether_stats::ratio_cs`], on the log scale, by random groups of sessions where there are any.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::interval::RatioSums;
use bellwether_stats::ratio_cs::{
    Estimate, Sides, TIGHTEST_AT, decompose, difference, interval, log_e, log_ratio, log_ratio_of_groups,
};

use super::{Absence, Judge, Past, RECOVERED, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Measure, Minute, RatioTotals, Window, count};
use crate::weights::{Arm, ONE};

/// Share of a rise that falling success has to explain for it to be told so.
const EXPLAINED: f64 = 0.7;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// Ratio of the ratios up to which all is well.
    pub margin: f64,
    /// What one unit of the ratio is worth in the unit shown (1e-9 of nano-units of money).
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
            return Err(Invalid::new("margin", self.margin, "a ratio of at least 1, as 1.05"));
        }
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Invalid::new("scale", self.scale, "a finite number above 0"));
        }
        Ok(())
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Ratio>,
    arms: [Measure; 2],
    /// Sums since the alert fired.
    after: Option<[Measure; 2]>,
    absence: Absence,
    since: Option<Minute>,
    /// α is spent once: after an alert has resolved, the release is not judged by this again.
    spent: bool,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Ratio>) -> Self {
        Self { settings, arms: Default::default(), after: None, absence: Absence::default(), since: None, spent: false }
    }
}

/// The weighted sums of a measure, where weights differ.
fn uneven(measure: &Measure) -> Option<(&RatioTotals, &crate::weights::Weights)> {
    let weights = measure.weights.as_deref().filter(|_| Arm::of(measure).weight().is_none())?;
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

/// The same from weighted sums: Σw·y/Σw·x, whose variance by the delta method is Σw²(y − Rx)² / (Σw·x)². All is divided by
/// Kish's Σw²/Σw, so that the denominator is of runs of equal weight that say as much.
#[expect(clippy::cast_precision_loss, reason = "sums of quantities need no more than a double has")]
fn weighted_estimate(
    measure: &Measure,
    totals: &RatioTotals,
    groups: Option<&(Vec<i128>, Vec<i128>)>,
) -> Option<Estimate> {
    let arm = Arm::of(measure);
    let unit = arm.sums.runs_squares as f64 / arm.sums.runs as f64;
    let units = arm.effective_runs();
    if let Some((y, x)) = groups {
        let floats = |list: &[i128]| list.iter().map(|value| *value as f64 / unit).collect::<Vec<_>>();
        return log_ratio_of_groups(&floats(y), &floats(x), units);
    }
    // Squares of weights are in thousandths squared.
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

/// Σ y, runs and Σ x, weighted.
#[expect(clippy::cast_precision_loss, reason = "sums of quantities need no more than a double has")]
fn totals(measure: &Measure) -> Option<[f64; 3]> {
    let runs = Arm::of(measure).weighted_runs();
    if let Some(totals) = measure.weights.as_deref().and_then(|weights| weights.ratio.as_deref()) {
        return Some([totals.y as f64 / ONE as f64, runs, totals.x as f64 / ONE as f64]);
    }
    let totals = measure.ratio.as_deref()?;
    Some([totals.y as f64, runs, totals.x as f64])
}

fn compared(arms: &[Measure; 2]) -> Option<Estimate> {
    Some(difference(&estimate(&arms[0])?, &estimate(&arms[1])?))
}

impl Judge for State {
    fn step(&mut self, window: &Window, _: &Past<'_>) {
        if window.historical {
            return; // Hours of the past have no squares.
        }
        let mut arms: [Measure; 2] = Default::default();
        for row in &window.rows {
            arms[0].add(&row.baseline);
            arms[1].add(&row.canary);
        }
        self.absence.note(window.start, arms[0].pair().1, arms[1].pair().1);
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
        let Some(estimate) = compared(&self.arms).filter(|_| !self.spent) else { return unknown };
        let mut verdict = weigh(evidence(&estimate, margin), thresholds.e);
        let better = self.after.as_ref().and_then(compared);
        if self.absence.is_gone() {
            verdict.signal = Signal::Gone;
        } else if better.is_some_and(|it| evidence(&Estimate { value: -it.value, ..it }, -margin) >= RECOVERED) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    fn fired(&mut self) {
        self.after = Some(Default::default());
    }

    fn resolved(&mut self) {
        *self = Self { spent: true, ..Self::new(Arc::clone(&self.settings)) };
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let arms = [Arm::of(&self.arms[0]), Arm::of(&self.arms[1])];
        let mut evidence =
            Evidence::new("ratio", Baseline::Concurrent, "ratio").with_arms(Some(&arms[0]), &arms[1], 1.0);
        // Completed among all.
        let counts = |measure: &Measure| {
            let completed = totals(measure).map_or(0, |[_, _, x]| x.round().max(0.0) as u64);
            Some((completed, Arm::of(measure).stands_for().1))
        };
        (evidence.baseline_counts, evidence.canary_counts) = (counts(&self.arms[0]), counts(&self.arms[1]));
        let value = |measure: &Measure| {
            let [y, _, x] = totals(measure)?;
            (x > 0.0).then(|| y / x * self.settings.scale)
        };
        evidence.baseline_value = value(&self.arms[0]);
        evidence.canary_value = value(&self.arms[1]);
        if let Some(estimate) = compared(&self.arms) {
            evidence.effect = Some(estimate.value.exp());
            evidence.interval =
                interval(&estimate, TIGHTEST_AT, 0.05).ok().map(|interval| (interval.low.exp(), interval.high.exp()));
        }
        let verdict = self.verdict(thresholds);
        evidence.log_e = Some(verdict.statistic);
        evidence.threshold = Some(verdict.threshold);
        evidence.false_alarm = Some((thresholds.alpha, "per_release"));
        evidence.since = self.since;
        if let (Some(a), Some(b)) = (totals(&self.arms[0]), totals(&self.arms[1]))
            && let Some((by_size, by_success)) = decompose(a, b)
        {
            let percent = |change: f64| (change.exp() - 1.0) * 100.0;
            evidence.notes.push(format!(
                "of the change, {:+.1} % is a dearer run and {:+.1} % fewer completed tasks",
                percent(by_size),
                percent(by_success)
            ));
            if by_success > EXPLAINED * (by_size + by_success) && by_success > 0.0 {
                evidence.notes.push("falling success explains most of it: look at that alert first".to_owned());
            }
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
