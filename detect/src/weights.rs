//! Sampling weights: a run that was kept with probability p represents w = 1/p runs.
//!
//! Rates and sums are weighted, Σw·x over Σw, as in every view. Evidence is based on the observed runs:
//!
//! * If a run's sampling probability depends on its outcome and its release, the odds of a bad outcome among kept runs
//!   are the true odds times w̄(good)/w̄(bad), whatever the true odds are (Prentice & Pyke, Biometrika 66, 1979).
//!   Observed runs are therefore judged against odds corrected by that `Factor`, and the guarantee is unchanged: if
//!   all failures are kept, all of them count in full.
//! * If weights also differ among runs with the same outcome, the factor is an estimate. Evidence is then tempered by
//!   Kish's ratio (Σw)² / (n Σw²) ("Survey Sampling", 1965), as if there were correspondingly fewer runs.
//! * If runs have more than two possible values, counts are weighted and divided by the maximum weight: a run counts
//!   w/w_max ≤ 1, and an e-value raised to such a power is still an e-value (Jensen).
//!
//! If all weights are equal, whatever their value, every number is identical to that of the plain counts.

use bellwether_stats::pack::{Pack, Packer, Unpacker};
use bellwether_stats::packed;

use crate::detector::DAY;
use crate::observation::{Measure, Minute, RatioTotals, count};

/// The weight of an unsampled run, millionths.
pub const ONE: i64 = 1_000_000;

/// Rounding error allowed around 1: equal weights must leave evidence unchanged to the last digit.
const ROUNDING: f64 = 1e-12;

/// Squared weights are kept in thousandths squared: in millionths squared, sums of squared costs would exceed 128 bits.
const THOUSANDTH: i128 = 1000;

/// Weighted sums of a [`Measure`]: exact integers that add up, like its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Σ w and Σ w² of bad runs and of runs.
    pub sums: WeightSums,
    /// Σ w by bin, millionths.
    pub bins: Vec<i128>,
    /// Σ w·y and Σ w·x by random group, of a ratio, millionths.
    pub groups: Option<Box<(Vec<i128>, Vec<i128>)>>,
    /// Sums of a ratio: of y and x times w in millionths, of products times w² in thousandths squared.
    pub ratio: Option<Box<RatioTotals>>,
    /// Maximum weight added so far, millionths.
    pub max_weight: i64,
}

/// Σ w and Σ w² of bad runs and of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightSums {
    /// Σ w of bad runs, millionths.
    pub events: i128,
    /// Σ w of runs, millionths.
    pub runs: i128,
    /// Σ w² of bad runs, millionths squared.
    pub events_squares: i128,
    /// Σ w² of runs, millionths squared.
    pub runs_squares: i128,
}

/// Runs of one arm: observed counts and weight sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Observed bad runs.
    pub events: i64,
    /// Observed runs.
    pub runs: i64,
    /// Their weight sums.
    pub sums: WeightSums,
}

/// The correction from the odds of kept runs to the true odds, and its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factor {
    /// Observed odds, or odds ratio, divided by the true one; 1 if outcomes are sampled equally.
    pub(crate) odds: f64,
    /// Fraction of the evidence that uneven weights within an outcome leave; 1 if weights are even.
    pub(crate) tempering: f64,
}

/// The maximum weight of this day and the day before, so that one run of enormous weight does not suppress evidence for
/// longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MaxWeight {
    day: i64,
    now: i64,
    before: i64,
}

/// Mean weights of bad and good runs as last observed, for windows that lack runs of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SamplingScheme {
    bad: Option<f64>,
    good: Option<f64>,
    all: Option<f64>,
    /// All observed runs.
    pool: SmallArm,
}

/// An arm in few bytes: weight sums are kept only if they are not those of runs of weight 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SmallArm {
    events: i64,
    runs: i64,
    sums: Option<Box<WeightSums>>,
}

packed!(SmallArm { events, runs, sums });
packed!(WeightSums { events, runs, events_squares, runs_squares });
packed!(Weights { sums, bins, groups, ratio, max_weight });
packed!(MaxWeight { day, now, before });
packed!(SamplingScheme { bad, good, all, pool });
packed!(Factor { odds, tempering });

impl Pack for Arm {
    fn pack(&self, to: &mut Packer) {
        SmallArm::from(*self).pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        SmallArm::unpack(from).arm()
    }
}

impl From<Arm> for SmallArm {
    fn from(arm: Arm) -> Self {
        let Arm { events, runs, sums } = arm;
        let plain = sums == WeightSums::uniform(events, runs, ONE);
        Self { events, runs, sums: (!plain).then(|| Box::new(sums)) }
    }
}

impl SmallArm {
    pub(crate) fn arm(&self) -> Arm {
        let Self { events, runs, sums } = self;
        let sums = sums.as_deref().copied().unwrap_or_else(|| WeightSums::uniform(*events, *runs, ONE));
        Arm { events: *events, runs: *runs, sums }
    }

    pub(crate) fn add(&mut self, more: &Arm) {
        let mut sum = self.arm();
        sum.add(more);
        *self = Self::from(sum);
    }
}

// === impl Weights ===

fn add_wide(to: &mut Vec<i128>, more: &[i128]) {
    if to.len() < more.len() {
        to.resize(more.len(), 0);
    }
    for (sum, value) in to.iter_mut().zip(more) {
        *sum = sum.saturating_add(*value);
    }
}

impl Weights {
    /// Creates the weights of counts with one common weight, millionths.
    pub(crate) fn uniform(measure: &Measure, weight: i64) -> Self {
        let (weight, wide) = (weight.max(1), i128::from(weight.max(1)));
        let by = |list: &[i64]| list.iter().map(|value| i128::from(*value).saturating_mul(wide)).collect::<Vec<_>>();
        let square = (wide / THOUSANDTH).saturating_mul(wide / THOUSANDTH).max(1);
        let groups = measure.groups.as_deref().filter(|_| measure.ratio.is_some());
        Self {
            sums: WeightSums::uniform(measure.events, measure.runs, weight),
            bins: by(&measure.bins),
            groups: groups.map(|groups| Box::new((by(&groups.events), by(&groups.runs)))),
            ratio: measure.ratio.as_deref().map(|ratio| {
                Box::new(RatioTotals {
                    y: ratio.y.saturating_mul(wide),
                    x: ratio.x.saturating_mul(wide),
                    yy: ratio.yy.saturating_mul(square),
                    xx: ratio.xx.saturating_mul(square),
                    xy: ratio.xy.saturating_mul(square),
                })
            }),
            max_weight: if measure.is_empty() { 0 } else { weight },
        }
    }

    /// Returns true if adding them changes no sum.
    pub(crate) fn changes_nothing(&self) -> bool {
        let zero = |list: &[i128]| list.iter().all(|value| *value == 0);
        self.sums == WeightSums::default()
            && zero(&self.bins)
            && self.groups.as_ref().is_none_or(|groups| zero(&groups.0) && zero(&groups.1))
            && self.ratio.as_ref().is_none_or(|ratio| **ratio == RatioTotals::default())
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.sums.add(&more.sums);
        add_wide(&mut self.bins, &more.bins);
        if let Some(more) = &more.groups {
            let groups = self.groups.get_or_insert_with(Box::default);
            add_wide(&mut groups.0, &more.0);
            add_wide(&mut groups.1, &more.1);
        }
        if let Some(more) = &more.ratio {
            self.ratio.get_or_insert_with(Box::default).add(more);
        }
        self.max_weight = self.max_weight.max(more.max_weight);
    }
}

// === impl WeightSums ===

impl WeightSums {
    /// Creates the weight sums of counts with one common weight, millionths.
    pub fn uniform(events: i64, runs: i64, weight: i64) -> Self {
        let (weight, events, runs) = (i128::from(weight), i128::from(events), i128::from(runs));
        let square = weight.saturating_mul(weight);
        Self {
            events: events.saturating_mul(weight),
            runs: runs.saturating_mul(weight),
            events_squares: events.saturating_mul(square),
            runs_squares: runs.saturating_mul(square),
        }
    }

    /// Returns the sums with every run counted as bad.
    pub(crate) fn with_all_bad(self) -> Self {
        Self { events: self.runs, events_squares: self.runs_squares, ..self }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        for (sum, value) in [
            (&mut self.events, more.events),
            (&mut self.runs, more.runs),
            (&mut self.events_squares, more.events_squares),
            (&mut self.runs_squares, more.runs_squares),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

// === impl Arm ===

/// Number, weight sum and squared weight sum of some runs.
#[derive(Clone, Copy)]
struct WeightTotals {
    seen: f64,
    weight: f64,
    squares: f64,
}

impl WeightTotals {
    /// Returns Kish's ratio: 1 if all weights are equal or there are no runs.
    fn kish(self) -> f64 {
        let share = self.weight * self.weight / (self.seen * self.squares);
        if share.is_finite() && share < 1.0 - ROUNDING { share } else { 1.0 }
    }

    fn mean(self) -> f64 {
        self.weight / self.seen
    }
}

#[expect(clippy::cast_precision_loss, reason = "weights need no more than a double has")]
impl Arm {
    /// Creates an arm from a measure.
    pub fn from_measure(measure: &Measure) -> Self {
        Self { events: measure.events, runs: measure.runs, sums: measure.weight_sums() }
    }

    /// Combines the bad runs of one arm with the runs of another.
    pub(crate) fn joined(events: Self, runs: Self) -> Self {
        let sums = WeightSums { events: events.sums.events, events_squares: events.sums.events_squares, ..runs.sums };
        Self { events: events.events, runs: runs.runs, sums }
    }

    /// Adds runs.
    pub fn add(&mut self, more: &Self) {
        self.events = self.events.saturating_add(more.events);
        self.runs = self.runs.saturating_add(more.runs);
        self.sums.add(&more.sums);
    }

    /// Returns observed bad runs and runs, with no more bad runs than runs.
    pub fn seen_counts(&self) -> (u64, u64) {
        let runs = count(self.runs);
        (count(self.events).min(runs), runs)
    }

    /// Returns the common weight of all runs, millionths; none if weights differ.
    pub fn weight(&self) -> Option<i64> {
        let of = |seen: i64, sum: i128, squares: i128| {
            let seen = i128::from(seen);
            if seen <= 0 {
                return (sum == 0).then_some(0);
            }
            let weight = sum / seen;
            let even = weight.checked_mul(seen) == Some(sum)
                && weight.checked_mul(weight).and_then(|square| square.checked_mul(seen)) == Some(squares);
            even.then_some(weight)
        };
        let runs = of(self.runs, self.sums.runs, self.sums.runs_squares)?;
        let events = of(self.events, self.sums.events, self.sums.events_squares)?;
        (events == 0 || runs == 0 || events == runs).then(|| i64::try_from(runs.max(events)).unwrap_or(i64::MAX))
    }

    /// Returns the weighted numbers of bad runs and runs, rounded.
    pub fn weighted_counts(&self) -> (u64, u64) {
        let whole = |sum: i128| {
            let rounded = sum.max(0).saturating_add(i128::from(ONE) / 2) / i128::from(ONE);
            u64::try_from(rounded).unwrap_or(u64::MAX)
        };
        (whole(self.sums.events), whole(self.sums.runs))
    }

    /// Returns the weighted rate of bad runs.
    pub fn rate(&self) -> Option<f64> {
        (self.sums.runs > 0).then(|| self.sums.events as f64 / self.sums.runs as f64)
    }

    /// Returns the weighted number of runs, not rounded.
    pub fn weighted_runs(&self) -> f64 {
        self.sums.runs as f64 / ONE as f64
    }

    /// Returns the effective number of runs, Kish's (Σw)² / Σw²; the observed number if all weights are equal.
    pub fn effective_runs(&self) -> f64 {
        let seen = count(self.runs) as f64;
        if self.weight().is_some() { seen } else { (seen * self.run_totals().kish()).max(0.0) }
    }

    fn run_totals(&self) -> WeightTotals {
        WeightTotals { seen: self.runs as f64, weight: self.sums.runs as f64, squares: self.sums.runs_squares as f64 }
    }

    fn bad(&self) -> Option<WeightTotals> {
        let Self { events, sums, .. } = self;
        (*events > 0).then_some(WeightTotals {
            seen: *events as f64,
            weight: sums.events as f64,
            squares: sums.events_squares as f64,
        })
    }

    fn good(&self) -> Option<WeightTotals> {
        let seen = self.runs.saturating_sub(self.events);
        (seen > 0).then(|| WeightTotals {
            seen: seen as f64,
            weight: self.sums.runs.saturating_sub(self.sums.events) as f64,
            squares: self.sums.runs_squares.saturating_sub(self.sums.events_squares) as f64,
        })
    }

    /// Returns an arm with the given numbers of bad runs and runs, each with the average weight of its kind in this
    /// arm.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    pub(crate) fn subset(&self, (events, runs): (u64, u64)) -> Self {
        let held = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (events, runs) = (held(events), held(runs));
        if let Some(weight) = self.weight().filter(|weight| *weight > 0) {
            return Self { events, runs, sums: WeightSums::uniform(events, runs, weight) };
        }
        let of = |seen: i64, share: Option<WeightTotals>| {
            let part = share.map_or(0.0, |share| seen as f64 / share.seen);
            share.map_or((0, 0), |share| ((share.weight * part) as i128, (share.squares * part) as i128))
        };
        let (bad, good) = (of(events, self.bad()), of(runs.saturating_sub(events), self.good()));
        let sums = WeightSums {
            events: bad.0,
            runs: bad.0.saturating_add(good.0),
            events_squares: bad.1,
            runs_squares: bad.1.saturating_add(good.1),
        };
        Self { events, runs, sums }
    }

    /// Returns the weighted counts of a subset of these runs.
    pub(crate) fn weighted_subset(&self, (events, runs): (u64, u64)) -> (u64, u64) {
        if self.weight().is_some_and(|weight| weight == ONE || weight == 0) {
            return (events, runs);
        }
        self.subset((events, runs)).weighted_counts()
    }

    /// Returns the smaller of Kish's ratios of bad and of good runs.
    fn evenness(&self) -> f64 {
        let of = |share: Option<WeightTotals>| share.map_or(1.0, WeightTotals::kish);
        of(self.bad()).min(of(self.good()))
    }

    /// Returns counts in which `by` millionths count as one run: Σw/by. `left` carries the rounding remainder from one
    /// call to the next.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    pub(crate) fn scaled(&self, by: f64, left: &mut (f64, f64)) -> (u64, u64) {
        let take = |sum: i128, left: &mut f64| {
            *left += sum.max(0) as f64 / by;
            let whole = left.round().max(0.0);
            *left -= whole;
            whole as u64
        };
        let (events, runs) = (take(self.sums.events, &mut left.0), take(self.sums.runs, &mut left.1));
        if events > runs {
            // Both are rounded; the excess is carried over.
            left.0 += (events - runs) as f64;
        }
        (events.min(runs), runs)
    }

    /// Returns the weight, in millionths, of one run of equally weighted runs with the same variance: the design effect
    /// of the weighted rate, (1 − p)·Σw²/Σw of bad runs + p·Σw²/Σw of good ones (Kish; Särndal, Swensson, Wretman 1992,
    /// ch. 5.5).
    pub(crate) fn unit_weight(&self) -> f64 {
        let rate = self.rate().unwrap_or(0.0).clamp(0.0, 1.0);
        let mean = |share: Option<WeightTotals>| share.map_or(0.0, |share| share.squares / share.weight);
        let unit = (1.0 - rate) * mean(self.bad()) + rate * mean(self.good());
        if unit > 0.0 && unit.is_finite() {
            unit
        } else {
            self.run_totals().squares / self.run_totals().weight.max(1.0)
        }
    }
}

// === impl Heaviest ===

impl MaxWeight {
    /// Records the maximum weight, in millionths, of a window that begins at `start`.
    pub(crate) fn note(&mut self, start: Minute, weight: i64) {
        let day = start.div_euclid(DAY);
        if day != self.day {
            self.before = if day == self.day + 1 { self.now } else { 0 };
            (self.day, self.now) = (day, 0);
        }
        self.now = self.now.max(weight);
    }

    /// Returns the maximum weight, millionths.
    pub(crate) fn weight(&self) -> i64 {
        self.now.max(self.before).max(1)
    }
}

// === impl Scheme ===

impl SamplingScheme {
    /// Records observed runs; the mean weight of a kind without runs is unchanged.
    pub(crate) fn note(&mut self, arm: &Arm) {
        self.bad = arm.bad().map(WeightTotals::mean).or(self.bad);
        self.good = arm.good().map(WeightTotals::mean).or(self.good);
        self.all = (arm.runs > 0).then(|| arm.run_totals().mean()).or(self.all);
        self.pool.add(arm);
    }

    /// Like [`SamplingScheme::note`], but only for kinds that are still unknown.
    pub(crate) fn presume(&mut self, arm: &Arm) {
        self.bad = self.bad.or(arm.bad().map(WeightTotals::mean));
        self.good = self.good.or(arm.good().map(WeightTotals::mean));
        self.all = self.all.or((arm.runs > 0).then(|| arm.run_totals().mean()));
    }

    /// Returns true if every run has weight 1.
    pub(crate) fn is_plain(&self) -> bool {
        self.pool().weight().is_some_and(|weight| weight == ONE || weight == 0)
    }

    /// Returns all observed runs.
    pub(crate) fn pool(&self) -> Arm {
        self.pool.arm()
    }

    /// Returns the ratio of the odds of kept runs to the true odds: w̄(good)/w̄(bad).
    pub(crate) fn factor(&self) -> Factor {
        Factor::new(self.good.zip(self.bad).map(|(good, bad)| good / bad), self.pool().evenness())
    }

    /// Like [`SamplingScheme::factor`] for rates of events per run: w̄(runs)/w̄(events).
    pub(crate) fn rate_factor(&self) -> Factor {
        let ratio = self.all.zip(self.bad).map(|(all, bad)| all / bad);
        Factor::new(ratio, self.pool().bad().map_or(1.0, WeightTotals::kish))
    }

    /// Returns the ratio of the odds ratio of kept runs, this arm to the baseline, to the true one. 1 if either arm has
    /// shown no run of a kind: it is then assumed to be sampled like the other.
    pub(crate) fn against(&self, baseline: &Self) -> Factor {
        let known = |scheme: &Self| scheme.good.zip(scheme.bad).map(|(good, bad)| good / bad);
        let ratio = known(self).zip(known(baseline)).map(|(own, others)| own / others);
        Factor::new(ratio, self.pool().evenness().min(baseline.pool().evenness()))
    }
}

// === impl Factor ===

impl Factor {
    /// The factor of runs that are all sampled equally.
    pub(crate) const EVEN: Self = Self { odds: 1.0, tempering: 1.0 };

    fn new(odds: Option<f64>, tempering: f64) -> Self {
        let odds = odds.filter(|odds| odds.is_finite() && (odds - 1.0).abs() > ROUNDING).unwrap_or(1.0);
        Self { odds, tempering }
    }

    /// Returns the expected rate among kept runs for a true rate.
    pub(crate) fn seen_rate(self, rate: f64) -> f64 {
        if self.odds == 1.0 {
            return rate;
        }
        let odds = rate / (1.0 - rate) * self.odds;
        if odds.is_finite() { odds / (1.0 + odds) } else { rate }
    }
}

/// Returns the note of an alert about weighted runs; none if every run has weight 1.
pub(crate) fn note(arms: &[Arm], tempering: f64) -> Option<String> {
    let mut all = Arm::default();
    arms.iter().for_each(|arm| all.add(arm));
    let weight = all.weight();
    if weight == Some(ONE) || all.runs <= 0 {
        return None;
    }
    let stands = all.weighted_counts().1;
    let mut text = format!("runs are sampled: {} observed runs represent {stands}, and rates are weighted", all.runs);
    if weight.is_none() {
        text.push_str(&format!("; they are as informative as {:.0} runs of equal weight", all.effective_runs()));
    }
    if tempering < 1.0 - 1e-9 {
        text.push_str(&format!(
            ". Weights differ among runs with the same outcome, so the false alarm rate is controlled approximately: evidence is multiplied by {tempering:.2}"
        ));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(cells: &[(i64, i64, i64)]) -> Arm {
        let mut sum = Arm::default();
        for (events, runs, weight) in cells {
            sum.add(&Arm { events: *events, runs: *runs, sums: WeightSums::uniform(*events, *runs, *weight) });
        }
        sum
    }

    #[test]
    fn equal_weights_leave_counts_as_they_are_and_a_correction_cancels() {
        for weight in [ONE, 3_333_333, 100 * ONE] {
            let even = arm(&[(3, 40, weight), (1, 7, weight)]);
            assert_eq!(even.weight(), Some(weight));
            assert_eq!((even.seen_counts(), even.effective_runs()), ((4, 47), 47.0));
        }
        let mut mixed = arm(&[(3, 40, ONE), (1, 7, 2 * ONE)]);
        assert_eq!(mixed.weight(), None);
        mixed.add(&arm(&[(-1, -7, 2 * ONE)]));
        assert_eq!(mixed, arm(&[(3, 40, ONE)]));
        assert_eq!(arm(&[(2, 10, ONE)]).weighted_subset((2, 10)), (2, 10));
    }

    #[test]
    fn failures_that_are_all_kept_have_the_correct_weight() {
        // One per cent of 10,000 runs fail; all failures are kept, and one in a hundred of the others.
        let tail = arm(&[(100, 100, ONE), (0, 99, 100 * ONE)]);
        assert_eq!(tail.weighted_counts(), (100, 10_000));
        assert_eq!(tail.rate(), Some(0.01));
        // (Σw)² / Σw² of all runs.
        assert!((tail.effective_runs() - 1e8 / 990_100.0).abs() < 1e-9);
        let mut scheme = SamplingScheme::default();
        scheme.note(&tail);
        let factor = scheme.factor();
        assert_eq!((factor.odds, factor.tempering), (100.0, 1.0));
        assert!((factor.seen_rate(0.01) - 100.0 / 199.0).abs() < 1e-12);
        // A window of failures alone does not show how the others are sampled.
        scheme.note(&arm(&[(5, 5, ONE)]));
        assert_eq!(scheme.factor().odds, 100.0);
        let mut even = SamplingScheme::default();
        even.note(&arm(&[(10, 1000, ONE)]));
        assert_eq!(scheme.against(&even).odds, 100.0);
        assert_eq!(scheme.against(&SamplingScheme::default()).odds, 1.0);
    }

    #[test]
    fn weights_that_differ_within_an_outcome_temper() {
        let mut scheme = SamplingScheme::default();
        scheme.note(&arm(&[(10, 100, ONE), (10, 100, 9 * ONE)]));
        // (1 + 9)² / (2 (1 + 81)).
        assert!((scheme.factor().tempering - 100.0 / 164.0).abs() < 1e-12);
        assert!(note(&[scheme.pool()], scheme.factor().tempering).is_some_and(|text| text.contains("approximately")));
        assert_eq!(note(&[arm(&[(1, 5, ONE)])], 1.0), None);
    }

    #[test]
    fn scaled_counts_lose_nothing_on_the_way() {
        let (mut left, mut sum) = ((0.0, 0.0), (0, 0));
        let window = arm(&[(1, 1, ONE), (0, 2, 10 * ONE)]);
        for _ in 0..1000 {
            let (events, runs) = window.scaled(7e6, &mut left);
            sum = (sum.0 + events, sum.1 + runs);
        }
        assert_eq!(sum, (143, 3000));
    }
}
