//! The contents of a window of one series: exact integers that add up, so that a correction is an addition too.

use std::sync::Arc;

use bellwether_stats::clusters::{GroupTotals, add_totals};
use bellwether_stats::pack::{Pack, Packed, Packer, Unpacker};
use bellwether_stats::packed;
use bellwether_stats::wander::Wander;

use crate::weights::{Arm, ONE, WeightSums, Weights};

/// Minutes since the epoch: the start of a one-minute window.
pub type Minute = i64;

/// Sums over the runs of one arm, window and stratum. Each detector uses some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Runs with the bad outcome.
    pub events: i64,
    /// Runs that could have had the bad outcome.
    pub runs: i64,
    /// Traffic share configured for the arm, in millionths; 0 if not stated. The latest value counts.
    pub share_micros: i64,
    /// Totals by random group of sessions.
    pub groups: Option<Box<Groups>>,
    /// Sums of a ratio.
    pub ratio: Option<Box<RatioTotals>>,
    /// Runs by bin or category.
    pub bins: Vec<i64>,
    /// Weighted sums of the same, for sampled runs; none if every run has weight 1.
    pub weights: Option<Box<Weights>>,
}

/// Totals by random group of sessions, used to estimate the correlation within sessions.
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

/// One stratum of a window: the arm that is judged and its baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StratumRow {
    /// Name of the stratum; empty if there is only one.
    pub stratum: Arc<str>,
    /// Baseline; empty for detectors that use the series' own past.
    pub baseline: Measure,
    /// Canary, or the series itself.
    pub canary: Measure,
}

/// A window of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub start: Minute,
    /// True if the baseline is from the same hour of earlier weeks instead of the same window.
    pub historical: bool,
    /// Wander of the baseline, if the baseline is from earlier weeks.
    pub wander: Option<Wander>,
    /// Its strata, ordered by name.
    pub rows: Vec<StratumRow>,
}

impl Pack for Measure {
    fn pack(&self, to: &mut Packer) {
        let Self { events, runs, share_micros, groups, ratio, bins, weights } = self;
        (*events, *runs, *share_micros).pack(to);
        groups.pack(to);
        ratio.pack(to);
        weights.pack(to);
        // Most bins are empty, at both ends.
        let first = bins.iter().position(|bin| *bin != 0).unwrap_or(bins.len());
        let end = bins.iter().rposition(|bin| *bin != 0).map_or(first, |last| last + 1);
        (bins.len(), first, end - first).pack(to);
        bins[first..end].iter().for_each(|bin| bin.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let (events, runs, share_micros) = Pack::unpack(from);
        let (groups, ratio, weights) = (Pack::unpack(from), Pack::unpack(from), Pack::unpack(from));
        let (length, first, some): (usize, usize, usize) = Pack::unpack(from);
        let mut bins = vec![0; first];
        bins.extend((0..some).map(|_| i64::unpack(from)));
        bins.resize(length, 0);
        Self { events, runs, share_micros, groups, ratio, bins, weights }
    }
}

/// A measure in few bytes, for sums that are seldom read.
#[derive(Clone, Debug)]
pub(crate) struct SmallMeasure(Box<[u8]>);

impl Default for SmallMeasure {
    fn default() -> Self {
        Self::from(&Measure::default())
    }
}

impl From<&Measure> for SmallMeasure {
    fn from(measure: &Measure) -> Self {
        Self(Packed::of(measure).bytes)
    }
}

impl SmallMeasure {
    pub(crate) fn measure(&self) -> Measure {
        Measure::unpack(&mut Unpacker::new(&self.0, &[]))
    }

    pub(crate) fn add(&mut self, more: &Measure) {
        let mut sum = self.measure();
        sum.add(more);
        *self = Self::from(&sum);
    }
}

impl Pack for SmallMeasure {
    fn pack(&self, to: &mut Packer) {
        self.measure().pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Self::from(&Measure::unpack(from))
    }
}

/// Totals by group in few bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SmallGroups(Box<[u8]>);

impl SmallGroups {
    pub(crate) fn groups(&self) -> Groups {
        if self.0.is_empty() { Groups::default() } else { Groups::unpack(&mut Unpacker::new(&self.0, &[])) }
    }

    pub(crate) fn add(&mut self, more: &Groups) {
        let mut sum = self.groups();
        sum.add(&more.events, &more.runs);
        self.0 = Packed::of(&sum).bytes;
    }
}

impl Pack for SmallGroups {
    fn pack(&self, to: &mut Packer) {
        self.groups().pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let groups = Groups::unpack(from);
        if groups == Groups::default() { Self::default() } else { Self(Packed::of(&groups).bytes) }
    }
}

packed!(Groups { events, runs });
packed!(RatioTotals { y, x, yy, xx, xy });

/// Returns the sum of counts by bin, saturating at 64 bits.
pub fn total_of(bins: &[i64]) -> i64 {
    let total: i128 = bins.iter().map(|bin| i128::from(*bin)).sum();
    i64::try_from(total).unwrap_or(if total < 0 { i64::MIN } else { i64::MAX })
}

/// Maximum count of one window. No traffic reaches it, and the sums over years of windows stay within 64 bits.
const MAX_COUNT: u64 = 1 << 44;

/// Clamps a count that corrections may have made temporarily negative.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0).min(MAX_COUNT)
}

/// Clamps counts by bin that corrections may have made temporarily negative.
pub(crate) fn counts_of(bins: &[i64]) -> Vec<u64> {
    bins.iter().map(|value| count(*value)).collect()
}

// === impl Measure ===

impl Measure {
    /// Creates a measure from a number of bad runs and runs.
    pub fn from_counts(events: i64, runs: i64) -> Self {
        Self { events, runs, ..Self::default() }
    }

    /// Creates a measure from the counts of an arm.
    pub fn from_arm(arm: &Arm) -> Self {
        let mut measure = Self::from_counts(arm.events, arm.runs);
        if arm.weight() != Some(ONE) {
            measure.weights = Some(Box::new(Weights { sums: arm.sums, ..Weights::default() }));
        }
        measure
    }

    /// Creates a measure from runs by bin or category; the number of runs is their sum.
    pub fn from_histogram(bins: Vec<i64>) -> Self {
        Self { runs: total_of(&bins), bins, ..Self::default() }
    }

    /// Gives every run the same weight, in millionths.
    #[must_use]
    pub fn with_weight(mut self, weight_micros: i64) -> Self {
        if weight_micros != ONE {
            self.weights = Some(Box::new(Weights::uniform(&self, weight_micros)));
        }
        self
    }

    /// Returns the weight sums of bad runs and runs.
    pub fn weight_sums(&self) -> WeightSums {
        match &self.weights {
            Some(weights) => weights.sums,
            None => WeightSums::uniform(self.events, self.runs, ONE),
        }
    }

    /// Adds another measure; a correction is the new one minus the old one.
    pub fn add(&mut self, more: &Self) {
        if self.weights.is_some() || more.weights.is_some() {
            let mut sum = self.weights.take().unwrap_or_else(|| Box::new(Weights::uniform(self, ONE)));
            match &more.weights {
                Some(weights) => sum.add(weights),
                None => sum.add(&Weights::uniform(more, ONE)),
            }
            self.weights = Some(sum);
        }
        self.events = self.events.saturating_add(more.events);
        self.runs = self.runs.saturating_add(more.runs);
        if more.share_micros != 0 {
            self.share_micros = more.share_micros;
        }
        add_totals(&mut self.bins, &more.bins);
        if let Some(more) = &more.groups {
            self.groups.get_or_insert_with(Box::default).add(&more.events, &more.runs);
        }
        if let Some(more) = &more.ratio {
            let ratio = self.ratio.get_or_insert_with(Box::default);
            ratio.add(more);
        }
    }

    /// Returns bad runs and runs, both non-negative, with no more bad runs than runs.
    pub fn clamped_counts(&self) -> (u64, u64) {
        let runs = count(self.runs);
        (count(self.events).min(runs), runs)
    }

    /// Returns the weight sums by bin, in millionths.
    pub(crate) fn weighted_bins(&self) -> Vec<u64> {
        let held = |sum: i128| u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
        match &self.weights {
            None => self.bins.iter().map(|bin| held(i128::from(*bin) * i128::from(ONE))).collect(),
            Some(weights) => weights.bins.iter().map(|sum| held(*sum)).collect(),
        }
    }

    /// Returns weighted runs by bin, scaled to the effective number of runs; the plain counts if all weights are equal.
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

    /// Returns the counts with their weight sums.
    pub fn arm(&self) -> Arm {
        Arm::from_measure(self)
    }

    /// Returns the maximum weight of its runs, in millionths.
    pub(crate) fn max_weight(&self) -> i64 {
        self.weights.as_ref().map_or(ONE, |weights| weights.max_weight.max(ONE))
    }

    /// Returns true if adding it changes no sum.
    pub(crate) fn changes_nothing(&self) -> bool {
        let Self { events, runs, share_micros, groups, ratio, bins, weights } = self;
        let zero = |list: &[i64]| list.iter().all(|value| *value == 0);
        *events == 0
            && *runs == 0
            && *share_micros == 0
            && groups.as_ref().is_none_or(|groups| zero(&groups.events) && zero(&groups.runs))
            && ratio.as_ref().is_none_or(|ratio| **ratio == RatioTotals::default())
            && zero(bins)
            && weights.as_ref().is_none_or(|weights| weights.changes_nothing())
    }

    /// Returns true if it has no runs, events or totals.
    pub fn is_empty(&self) -> bool {
        self.runs == 0 && self.events == 0 && self.ratio.is_none() && self.bins.iter().all(|bin| *bin == 0)
    }
}

impl Groups {
    pub(crate) fn totals(&self) -> GroupTotals<'_> {
        GroupTotals { events: &self.events, runs: &self.runs }
    }

    /// Adds totals by group.
    pub(crate) fn add(&mut self, events: &[i64], runs: &[i64]) {
        add_totals(&mut self.events, events);
        add_totals(&mut self.runs, runs);
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
    fn a_correction_cancels_what_it_corrects() {
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
        let weighted = |factor: i64| whole(factor).with_weight(4_000_000);
        let mut sum = whole(1);
        for factor in [3, -1, -2] {
            sum.add(&weighted(factor));
        }
        assert_eq!((sum.weight_sums(), sum.events), (whole(1).weight_sums(), 3));
        assert_eq!(Measure::from_counts(5, 3).clamped_counts(), (3, 3));
        assert_eq!(Measure::from_counts(-1, -2).clamped_counts(), (0, 0));
    }
}
