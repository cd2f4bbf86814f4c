//! Sampling weights: a run that was kept with probability p stands for w = 1/p runs.
//!
//! Rates and sums are weighted: Σw·x over Σw, as in every view. Evidence rests on the runs that were seen:
//!
//! * Where a run is kept with a probability that depends on its outcome and its release, the odds of a bad outcome among
//!   kept runs are the true odds times w̄(good)/w̄(bad), whatever the true odds are (Prentice & Pyke, Biometrika 66, 1979).
//!   So observed runs are judged against odds that are corrected by that [`Factor`], and the guarantee stays as it is:
//!   failures that are all kept count in full.
//! * Where weights differ among runs of one outcome too, the factor is an estimate. Evidence is then tempered by Kish's
//!   share (Σw)² / (n Σw²) ("Survey Sampling", 1965), as if there were as many runs as that.
//! * Where runs are told apart by more than two values, counts are weighted and divided by the greatest weight: a run
//!   counts w/w_max ≤ 1, and an e-value to such a power is one still (Jensen).
//!
//! Where all weights are equal, whatever they are, every number is that of the plain counts, to the last digit.

use crate::detector::DAY;
use crate::observation::{Measure, Minute, RatioTotals, count};

/// The weight of a run that stands for itself, millionths.
pub const ONE: i64 = 1_000_000;

/// What a double may be off 1 by after a few steps: equal weights must leave evidence as it is, to the last digit.
const ROUNDING: f64 = 1e-12;

/// Of a weight squared, thousandths squared are kept: sums of squares of money would leave 128 bits.
const THOUSANDTH: i128 = 1000;

/// Weighted sums of a [`Measure`]. Exact integers that add up, as its counts do.
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
    /// Greatest weight that was ever added, millionths.
    pub heaviest: i64,
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

/// Runs of one side: how many were seen, and what they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Bad runs seen.
    pub events: i64,
    /// Runs seen.
    pub runs: i64,
    /// What they stand for.
    pub sums: WeightSums,
}

/// By what odds of kept runs differ from true odds, and how far that is an estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factor {
    /// Observed odds, or ratio of odds, over the true one; 1 where outcomes are sampled alike.
    pub(crate) odds: f64,
    /// Share of the evidence that uneven weights within an outcome leave; 1 where there are none.
    pub(crate) tempering: f64,
}

/// The greatest weight of this day and the one before: one run that stands for millions weighs down evidence no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heaviest {
    day: i64,
    now: i64,
    before: i64,
}

/// Mean weights of bad and good runs as they were last seen: what a window without runs of a kind says nothing about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scheme {
    bad: Option<f64>,
    good: Option<f64>,
    all: Option<f64>,
    /// Every run that was seen.
    pool: Arm,
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
    /// Of counts whose runs all have one weight, millionths.
    pub(crate) fn of(measure: &Measure, weight: i64) -> Self {
        let (weight, wide) = (weight.max(1), i128::from(weight.max(1)));
        let by = |list: &[i64]| list.iter().map(|value| i128::from(*value).saturating_mul(wide)).collect::<Vec<_>>();
        let square = (wide / THOUSANDTH).saturating_mul(wide / THOUSANDTH).max(1);
        let groups = measure.groups.as_deref().filter(|_| measure.ratio.is_some());
        Self {
            sums: WeightSums::of(measure.events, measure.runs, weight),
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
            heaviest: if measure.is_empty() { 0 } else { weight },
        }
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
        self.heaviest = self.heaviest.max(more.heaviest);
    }
}

// === impl WeightSums ===

impl WeightSums {
    /// Of counts of one weight, millionths.
    pub fn of(events: i64, runs: i64, weight: i64) -> Self {
        let (weight, events, runs) = (i128::from(weight), i128::from(events), i128::from(runs));
        let square = weight.saturating_mul(weight);
        Self {
            events: events.saturating_mul(weight),
            runs: runs.saturating_mul(weight),
            events_squares: events.saturating_mul(square),
            runs_squares: runs.saturating_mul(square),
        }
    }

    /// The same where each run is an event.
    pub(crate) fn of_all(self) -> Self {
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

/// What some runs stand for, of how many.
#[derive(Clone, Copy)]
struct Share {
    seen: f64,
    weight: f64,
    squares: f64,
}

impl Share {
    /// Kish's share: 1 where all weights are equal, or there is nothing to tell them apart by.
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
    /// What a measure counts.
    pub fn of(measure: &Measure) -> Self {
        Self { events: measure.events, runs: measure.runs, sums: measure.weight_sums() }
    }

    /// Bad runs of one measure among the runs of another.
    pub(crate) fn joined(events: Self, runs: Self) -> Self {
        let sums = WeightSums { events: events.sums.events, events_squares: events.sums.events_squares, ..runs.sums };
        Self { events: events.events, runs: runs.runs, sums }
    }

    /// Adds more runs.
    pub fn add(&mut self, more: &Self) {
        self.events = self.events.saturating_add(more.events);
        self.runs = self.runs.saturating_add(more.runs);
        self.sums.add(&more.sums);
    }

    /// Bad runs and runs that were seen, never more bad ones than there are.
    pub fn seen(&self) -> (u64, u64) {
        let runs = count(self.runs);
        (count(self.events).min(runs), runs)
    }

    /// The weight that all of them have, millionths; none where they differ.
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

    /// Bad runs and runs that they stand for, to whole ones.
    pub fn stands_for(&self) -> (u64, u64) {
        let whole = |sum: i128| {
            let rounded = sum.max(0).saturating_add(i128::from(ONE) / 2) / i128::from(ONE);
            u64::try_from(rounded).unwrap_or(u64::MAX)
        };
        (whole(self.sums.events), whole(self.sums.runs))
    }

    /// Share of bad runs, weighted.
    pub fn rate(&self) -> Option<f64> {
        (self.sums.runs > 0).then(|| self.sums.events as f64 / self.sums.runs as f64)
    }

    /// Runs that they stand for, not rounded.
    pub fn weighted_runs(&self) -> f64 {
        self.sums.runs as f64 / ONE as f64
    }

    /// Runs of equal weight that would say as much: Kish's (Σw)² / Σw²; those seen where all weights are equal.
    pub fn effective_runs(&self) -> f64 {
        let seen = count(self.runs) as f64;
        if self.weight().is_some() { seen } else { (seen * self.of_runs().kish()).max(0.0) }
    }

    fn of_runs(&self) -> Share {
        Share { seen: self.runs as f64, weight: self.sums.runs as f64, squares: self.sums.runs_squares as f64 }
    }

    fn bad(&self) -> Option<Share> {
        let Self { events, sums, .. } = self;
        (*events > 0).then_some(Share {
            seen: *events as f64,
            weight: sums.events as f64,
            squares: sums.events_squares as f64,
        })
    }

    fn good(&self) -> Option<Share> {
        let seen = self.runs.saturating_sub(self.events);
        (seen > 0).then(|| Share {
            seen: seen as f64,
            weight: self.sums.runs.saturating_sub(self.sums.events) as f64,
            squares: self.sums.runs_squares.saturating_sub(self.sums.events_squares) as f64,
        })
    }

    /// Some of these runs, bad ones and all, each of which stands for as many as all of these do on average.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    pub(crate) fn of_these(&self, (events, runs): (u64, u64)) -> Self {
        let held = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (events, runs) = (held(events), held(runs));
        if let Some(weight) = self.weight().filter(|weight| *weight > 0) {
            return Self { events, runs, sums: WeightSums::of(events, runs, weight) };
        }
        let of = |seen: i64, share: Option<Share>| {
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

    /// Some of these runs, weighted as all of them are.
    pub(crate) fn weighed(&self, (events, runs): (u64, u64)) -> (u64, u64) {
        if self.weight().is_some_and(|weight| weight == ONE || weight == 0) {
            return (events, runs);
        }
        self.of_these((events, runs)).stands_for()
    }

    /// Least share of information that uneven weights of bad or of good runs leave.
    fn evenness(&self) -> f64 {
        let of = |share: Option<Share>| share.map_or(1.0, Share::kish);
        of(self.bad()).min(of(self.good()))
    }

    /// Runs for which `by` millionths count one: Σw/by, with what is left over from those before and to be carried on.
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
            // Both are rounded; what is too much waits.
            left.0 += (events - runs) as f64;
        }
        (events.min(runs), runs)
    }

    /// What one run of those that vary as these would has to weigh, millionths: the design effect of the weighted rate,
    /// (1 − p)·Σw²/Σw of bad runs + p·Σw²/Σw of good ones (Kish; Särndal, Swensson, Wretman 1992, ch. 5.5).
    pub(crate) fn unit(&self) -> f64 {
        let rate = self.rate().unwrap_or(0.0).clamp(0.0, 1.0);
        let mean = |share: Option<Share>| share.map_or(0.0, |share| share.squares / share.weight);
        let unit = (1.0 - rate) * mean(self.bad()) + rate * mean(self.good());
        if unit > 0.0 && unit.is_finite() { unit } else { self.of_runs().squares / self.of_runs().weight.max(1.0) }
    }
}

// === impl Heaviest ===

impl Heaviest {
    /// Takes in the greatest weight of a window, millionths, that began at a minute.
    pub(crate) fn note(&mut self, start: Minute, weight: i64) {
        let day = start.div_euclid(DAY);
        if day != self.day {
            self.before = if day == self.day + 1 { self.now } else { 0 };
            (self.day, self.now) = (day, 0);
        }
        self.now = self.now.max(weight);
    }

    /// The greatest weight, millionths.
    pub(crate) fn weight(&self) -> i64 {
        self.now.max(self.before).max(1)
    }
}

// === impl Scheme ===

impl Scheme {
    /// Takes in what was seen; kinds of which nothing was seen are weighted as before.
    pub(crate) fn note(&mut self, arm: &Arm) {
        self.bad = arm.bad().map(Share::mean).or(self.bad);
        self.good = arm.good().map(Share::mean).or(self.good);
        self.all = (arm.runs > 0).then(|| arm.of_runs().mean()).or(self.all);
        self.pool.add(arm);
    }

    /// As [`Scheme::note`], for what is not known yet only.
    pub(crate) fn presume(&mut self, arm: &Arm) {
        self.bad = self.bad.or(arm.bad().map(Share::mean));
        self.good = self.good.or(arm.good().map(Share::mean));
        self.all = self.all.or((arm.runs > 0).then(|| arm.of_runs().mean()));
    }

    /// True where each run stands for itself.
    pub(crate) fn is_plain(&self) -> bool {
        self.pool.weight().is_some_and(|weight| weight == ONE || weight == 0)
    }

    /// All that was seen.
    pub(crate) fn pool(&self) -> &Arm {
        &self.pool
    }

    /// Odds of kept runs over true odds: w̄(good)/w̄(bad).
    pub(crate) fn factor(&self) -> Factor {
        Factor::new(self.good.zip(self.bad).map(|(good, bad)| good / bad), self.pool.evenness())
    }

    /// As [`Scheme::factor`] of rates of events over runs: w̄(runs)/w̄(events).
    pub(crate) fn rate_factor(&self) -> Factor {
        let ratio = self.all.zip(self.bad).map(|(all, bad)| all / bad);
        Factor::new(ratio, self.pool.bad().map_or(1.0, Share::kish))
    }

    /// Ratio of odds of kept runs, second to first, over the true one. 1 where either has shown no run of a kind: it is taken
    /// to be sampled as the other is.
    pub(crate) fn against(&self, baseline: &Self) -> Factor {
        let known = |scheme: &Self| scheme.good.zip(scheme.bad).map(|(good, bad)| good / bad);
        let ratio = known(self).zip(known(baseline)).map(|(own, others)| own / others);
        Factor::new(ratio, self.pool.evenness().min(baseline.pool.evenness()))
    }
}

// === impl Factor ===

impl Factor {
    /// Of runs that are all sampled alike.
    pub(crate) const EVEN: Self = Self { odds: 1.0, tempering: 1.0 };

    fn new(odds: Option<f64>, tempering: f64) -> Self {
        let odds = odds.filter(|odds| odds.is_finite() && (odds - 1.0).abs() > ROUNDING).unwrap_or(1.0);
        Self { odds, tempering }
    }

    /// The share that is seen among kept runs where the true one is this.
    pub(crate) fn seen_rate(self, rate: f64) -> f64 {
        if self.odds == 1.0 {
            return rate;
        }
        let odds = rate / (1.0 - rate) * self.odds;
        if odds.is_finite() { odds / (1.0 + odds) } else { rate }
    }
}

/// How an alert tells that runs are weighted; none where each stands for itself.
pub(crate) fn note(arms: &[Arm], tempering: f64) -> Option<String> {
    let mut all = Arm::default();
    arms.iter().for_each(|arm| all.add(arm));
    let weight = all.weight();
    if weight == Some(ONE) || all.runs <= 0 {
        return None;
    }
    let stands = all.stands_for().1;
    let mut text = format!("runs are sampled: the {} seen stand for {stands}, and rates are weighted", all.runs);
    if weight.is_none() {
        text.push_str(&format!(
            "; as runs of equal weight {:.0} would say as much of a share of all",
            all.effective_runs()
        ));
    }
    if tempering < 1.0 - 1e-9 {
        text.push_str(&format!(
            ". Weights differ among runs of one outcome, so that the bound of false alarms holds approximately: evidence is weighed by {tempering:.2}"
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
            sum.add(&Arm { events: *events, runs: *runs, sums: WeightSums::of(*events, *runs, *weight) });
        }
        sum
    }

    #[test]
    fn equal_weights_leave_counts_as_they_are_and_a_correction_cancels() {
        for weight in [ONE, 3_333_333, 100 * ONE] {
            let even = arm(&[(3, 40, weight), (1, 7, weight)]);
            assert_eq!(even.weight(), Some(weight));
            assert_eq!((even.seen(), even.effective_runs()), ((4, 47), 47.0));
        }
        let mut mixed = arm(&[(3, 40, ONE), (1, 7, 2 * ONE)]);
        assert_eq!(mixed.weight(), None);
        mixed.add(&arm(&[(-1, -7, 2 * ONE)]));
        assert_eq!(mixed, arm(&[(3, 40, ONE)]));
        assert_eq!(arm(&[(2, 10, ONE)]).weighed((2, 10)), (2, 10));
    }

    #[test]
    fn failures_that_are_all_kept_weigh_as_they_should() {
        // One per cent of 10,000 fail; failures are all kept, of the others one in a hundred.
        let tail = arm(&[(100, 100, ONE), (0, 99, 100 * ONE)]);
        assert_eq!(tail.stands_for(), (100, 10_000));
        assert_eq!(tail.rate(), Some(0.01));
        // (Σw)² / Σw² of all runs.
        assert!((tail.effective_runs() - 1e8 / 990_100.0).abs() < 1e-9);
        let mut scheme = Scheme::default();
        scheme.note(&tail);
        let factor = scheme.factor();
        assert_eq!((factor.odds, factor.tempering), (100.0, 1.0));
        assert!((factor.seen_rate(0.01) - 100.0 / 199.0).abs() < 1e-12);
        // A window of failures alone says nothing of how the others are sampled.
        scheme.note(&arm(&[(5, 5, ONE)]));
        assert_eq!(scheme.factor().odds, 100.0);
        let mut even = Scheme::default();
        even.note(&arm(&[(10, 1000, ONE)]));
        assert_eq!(scheme.against(&even).odds, 100.0);
        assert_eq!(scheme.against(&Scheme::default()).odds, 1.0);
    }

    #[test]
    fn weights_that_differ_within_an_outcome_temper() {
        let mut scheme = Scheme::default();
        scheme.note(&arm(&[(10, 100, ONE), (10, 100, 9 * ONE)]));
        // (1 + 9)² / (2 (1 + 81)).
        assert!((scheme.factor().tempering - 100.0 / 164.0).abs() < 1e-12);
        assert!(note(&[*scheme.pool()], scheme.factor().tempering).is_some_and(|text| text.contains("approximately")));
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
