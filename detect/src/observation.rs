//! What a window of one series holds: exact integers that add up, so that a correction is an addition too.

use std::sync::Arc;

use bellwether_stats::wander::Wander;

use crate::weights::{Arm, ONE, WeightSums, Weights};

/// Minutes since the epoch: the start of a one-minute window.
pub type Minute = i64;

/// Sums over the runs of one arm, window and stratum. Which of them are used is the detector's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Runs with the bad outcome.
    pub events: i64,
    /// Runs that could have had it.
    pub runs: i64,
    /// Share of the traffic that the arm was to get, millionths; 0 where nobody said. The newest counts.
    pub share_micros: i64,
    /// The same by random group of sessions.
    pub groups: Option<Box<Groups>>,
    /// Sums of a ratio.
    pub ratio: Option<Box<RatioTotals>>,
    /// Runs by bin or category.
    pub bins: Vec<i64>,
    /// What all of these stand for, where runs were sampled; none: each run stands for itself.
    pub weights: Option<Box<Weights>>,
}

/// Totals by random group of sessions, from which follows how alike the runs of a session are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Runs with the bad outcome (of a ratio: Σ y), by group.
    pub events: Vec<i64>,
    /// Runs (of a ratio: Σ x), by group.
    pub runs: Vec<i64>,
}

/// Sums of a ratio Σy/Σx over runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatioTotals {
    /// Σ y.
    pub y: i128,
    /// Σ x.
    pub x: i128,
    /// Σ y².
    pub yy: i128,
    /// Σ x².
    pub xx: i128,
    /// Σ x·y.
    pub xy: i128,
}

/// One stratum of a window: what is judged, and what it is judged against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the stratum; empty where there is one only.
    pub stratum: Arc<str>,
    /// Baseline; empty for detectors that look at one's own past.
    pub baseline: Measure,
    /// Canary, or the series itself.
    pub canary: Measure,
}

/// A window of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Its start.
    pub start: Minute,
    /// True where the baseline is not of this moment but of the same hour of earlier weeks.
    pub historical: bool,
    /// How the baseline wanders, where it is of earlier weeks.
    pub wander: Option<Wander>,
    /// Its strata, in order of their names.
    pub rows: Vec<Row>,
}

fn add_lists(to: &mut Vec<i64>, more: &[i64]) {
    if to.len() < more.len() {
        to.resize(more.len(), 0);
    }
    for (sum, value) in to.iter_mut().zip(more) {
        *sum = sum.saturating_add(*value);
    }
}

/// Σ of counts by bin, held at the ends of 64 bits.
pub fn total_of(bins: &[i64]) -> i64 {
    let total: i128 = bins.iter().map(|bin| i128::from(*bin)).sum();
    i64::try_from(total).unwrap_or(if total < 0 { i64::MIN } else { i64::MAX })
}

/// Greatest count of one window: no traffic has as many, and the sums of years of windows stay within 64 bits.
const GREATEST_COUNT: u64 = 1 << 44;

/// A count that corrections may have made negative for a moment.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0).min(GREATEST_COUNT)
}

/// Counts by bin without what corrections may have made negative for a moment.
pub(crate) fn counts_of(bins: &[i64]) -> Vec<u64> {
    bins.iter().map(|value| count(*value)).collect()
}

// === impl Measure ===

impl Measure {
    /// Bad runs of all.
    pub fn counts(events: i64, runs: i64) -> Self {
        Self { events, runs, ..Self::default() }
    }

    /// The counts of an arm.
    pub fn of(arm: &Arm) -> Self {
        let mut measure = Self::counts(arm.events, arm.runs);
        if arm.weight() != Some(ONE) {
            measure.weights = Some(Box::new(Weights { sums: arm.sums, ..Weights::default() }));
        }
        measure
    }

    /// Runs by bin or category; the runs are their sum.
    pub fn histogram(bins: Vec<i64>) -> Self {
        Self { runs: total_of(&bins), bins, ..Self::default() }
    }

    /// The same, where each run stands for as many as its weight says, millionths.
    #[must_use]
    pub fn weighing(mut self, weight_micros: i64) -> Self {
        if weight_micros != ONE {
            self.weights = Some(Box::new(Weights::of(&self, weight_micros)));
        }
        self
    }

    /// What bad runs and runs stand for.
    pub fn weight_sums(&self) -> WeightSums {
        match &self.weights {
            Some(weights) => weights.sums,
            None => WeightSums::of(self.events, self.runs, ONE),
        }
    }

    /// Adds another; a correction is new less old.
    pub fn add(&mut self, more: &Self) {
        if self.weights.is_some() || more.weights.is_some() {
            let mut sum = self.weights.take().unwrap_or_else(|| Box::new(Weights::of(self, ONE)));
            match &more.weights {
                Some(weights) => sum.add(weights),
                None => sum.add(&Weights::of(more, ONE)),
            }
            self.weights = Some(sum);
        }
        self.events = self.events.saturating_add(more.events);
        self.runs = self.runs.saturating_add(more.runs);
        if more.share_micros != 0 {
            self.share_micros = more.share_micros;
        }
        add_lists(&mut self.bins, &more.bins);
        if let Some(more) = &more.groups {
            self.groups.get_or_insert_with(Box::default).add(&more.events, &more.runs);
        }
        if let Some(more) = &more.ratio {
            let ratio = self.ratio.get_or_insert_with(Box::default);
            ratio.add(more);
        }
    }

    /// Bad runs and runs, as a table wants them: never more bad ones than there are.
    pub fn pair(&self) -> (u64, u64) {
        let runs = count(self.runs);
        (count(self.events).min(runs), runs)
    }

    /// Runs by bin, in millionths of what they stand for.
    pub(crate) fn weighted_bins(&self) -> Vec<u64> {
        let held = |sum: i128| u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
        match &self.weights {
            None => self.bins.iter().map(|bin| held(i128::from(*bin) * i128::from(ONE))).collect(),
            Some(weights) => weights.bins.iter().map(|sum| held(*sum)).collect(),
        }
    }

    /// Runs by bin, weighted, as many of them as say as much with equal weights: those seen where all weights are equal.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are far below 2^53"
    )]
    pub(crate) fn effective_bins(&self) -> Vec<u64> {
        let arm = self.arm();
        if arm.weight().is_some() {
            return counts_of(&self.bins);
        }
        let bins = self.weighted_bins();
        let total: f64 = bins.iter().map(|bin| *bin as f64).sum();
        bins.iter().map(|bin| (*bin as f64 / total * arm.effective_runs()).round() as u64).collect()
    }

    /// Runs seen, and what they stand for.
    pub fn arm(&self) -> Arm {
        Arm::of(self)
    }

    /// Greatest weight of its runs, millionths.
    pub(crate) fn heaviest(&self) -> i64 {
        self.weights.as_ref().map_or(ONE, |weights| weights.heaviest.max(ONE))
    }

    /// True where nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.runs == 0 && self.events == 0 && self.ratio.is_none() && self.bins.iter().all(|bin| *bin == 0)
    }
}

impl Groups {
    /// Adds totals by group.
    pub(crate) fn add(&mut self, events: &[i64], runs: &[i64]) {
        add_lists(&mut self.events, events);
        add_lists(&mut self.runs, runs);
    }
}

impl RatioTotals {
    pub(crate) fn add(&mut self, more: &Self) {
        for (sum, value) in [
            (&mut self.y, more.y),
            (&mut self.x, more.x),
            (&mut self.yy, more.yy),
            (&mut self.xx, more.xx),
            (&mut self.xy, more.xy),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_takes_back_what_it_corrects() {
        let whole = |factor: i64| Measure {
            events: 3 * factor,
            runs: 9 * factor,
            share_micros: 0,
            groups: Some(Box::new(Groups { events: vec![factor, 2 * factor], runs: vec![4 * factor, 5 * factor] })),
            ratio: Some(Box::new(RatioTotals { y: 7 * i128::from(factor), ..RatioTotals::default() })),
            bins: vec![factor, 0, 8 * factor],
            weights: None,
        };
        let mut sum = Measure::default();
        sum.add(&whole(1));
        sum.add(&whole(2));
        sum.add(&whole(-2));
        assert_eq!(sum, whole(1));
        let weighted = |factor: i64| whole(factor).weighing(4_000_000);
        let mut sum = whole(1);
        for factor in [3, -1, -2] {
            sum.add(&weighted(factor));
        }
        assert_eq!((sum.weight_sums(), sum.events), (whole(1).weight_sums(), 3));
        assert_eq!(Measure::counts(5, 3).pair(), (3, 3));
        assert_eq!(Measure::counts(-1, -2).pair(), (0, 0));
    }
}
