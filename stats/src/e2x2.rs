//! D1: the conditional 2×2 e-process for "a bad outcome is more common in the canary than in the baseline".
//!
//! In a block of runs of one stratum, `events` of `total` were bad in each arm. Given the total number of bad runs, the
//! number in the canary follows Fisher's noncentral hypergeometric distribution with odds ratio ψ (Fisher, "The logic
//! of inductive inference", JRSS 98, 1935), whatever the rate of the outcome: time of day, mix of tasks and the
//! canary's share cancel out. The likelihood ratio of ψ against ψ₀ is an e-value for the null hypothesis "odds ratio at
//! most ψ₀", because it increases with the events of the canary (monotone likelihood ratio). Its product over blocks
//! and strata is an e-process, and so is the mean over a grid of ψ (Ramdas et al. 2023, section 3.2):
//!
//! > log e(ψ) = ln P_ψ(s_b | s) − ln P_ψ₀(s_b | s),  log E = ln mean_g exp Σ_blocks log e(ψ_g)
//!
//! The increment depends on four counts only, so the sum is independent of order. Blocks must be cut by criteria that
//! do not depend on the outcomes ([`crate::block`]). A hypergeometric sum runs over the significant terms only, about
//! one standard deviation of them: 10⁹ runs take a few milliseconds, and no table needs to be split.

use crate::interval::Interval;
use crate::invalid::{Invalid, share, tempering};
use crate::sequential::EvidenceSums;
use crate::special::{NEGLIGIBLE, ln_binomial, log_mean_exp};

/// The alternatives: odds ratios beyond the margin, from barely worse to broken.
pub const ODDS_RATIOS: [f64; 6] = [1.2, 1.4, 1.7, 2.2, 3.0, 5.0];

/// Largest count: doubles represent it and its square roots without loss.
const MAX_COUNT: u64 = 1 << 50;

/// Within this distance from the mode, a term is computed by walking from the mode.
const WALK: f64 = 64.0;

/// Minimum and maximum odds ratio.
const ODDS_RANGE: (f64, f64) = (1e-6, 1e6);

/// Bad outcomes of the baseline and of the canary in one block and stratum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    events_a: u64,
    total_a: u64,
    events_b: u64,
    total_b: u64,
}

/// A test of "the odds of the event in the canary are more than `margin` times those of the baseline".
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    margin: f64,
    tempering: f64,
}

// === impl Table ===

impl Table {
    /// Creates a table: `events_a` of `total_a` runs of the baseline and `events_b` of `total_b` of the canary were
    /// bad.
    ///
    /// # Errors
    /// Fails if there are more events than runs.
    pub fn new(events_a: u64, total_a: u64, events_b: u64, total_b: u64) -> Result<Self, Invalid> {
        for (events, total) in [(events_a, total_a), (events_b, total_b)] {
            if events > total {
                return Err(Invalid::new("events", format_args!("{events} of {total}"), "at most the runs"));
            }
            if total > MAX_COUNT {
                return Err(Invalid::new("runs", total, "at most 2^50"));
            }
        }
        Ok(Self { events_a, total_a, events_b, total_b })
    }

    /// Returns the table with the arms exchanged, which gives the evidence that the canary is better.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Self { events_a: self.events_b, total_a: self.total_b, events_b: self.events_a, total_b: self.total_a }
    }

    /// Returns true if the table carries no information whatever the odds: an arm is empty, or all runs have the same
    /// outcome.
    pub fn is_uninformative(&self) -> bool {
        let (low, high) = self.support();
        low == high
    }

    /// Returns the minimum and maximum number of events in the canary, given the total number of events.
    fn support(&self) -> (u64, u64) {
        let events = self.events_a + self.events_b;
        (events.saturating_sub(self.total_a), events.min(self.total_b))
    }

    /// Returns ln P_ψ(events of the canary | total events).
    pub fn ln_probability(&self, odds_ratio: f64) -> f64 {
        if self.is_uninformative() {
            return 0.0;
        }
        Hypergeometric::new(self, odds_ratio).ln_probability(self.events_b)
    }

    /// Returns log e of one alternative against the null hypothesis "odds ratio at most `null`".
    pub fn log_e(&self, odds_ratio: f64, null: f64) -> f64 {
        self.ln_probability(odds_ratio) - self.ln_probability(null)
    }
}

/// Fisher's noncentral hypergeometric distribution of one table.
struct Hypergeometric {
    events: f64,
    total_a: f64,
    total_b: f64,
    odds_ratio: f64,
    low: f64,
    high: f64,
    mode: f64,
}

impl Hypergeometric {
    #[expect(clippy::cast_precision_loss, reason = "counts are at most 2^50")]
    fn new(table: &Table, odds_ratio: f64) -> Self {
        let (low, high) = table.support();
        let (low, high) = (low as f64, high as f64);
        let events = (table.events_a + table.events_b) as f64;
        let (total_a, total_b) = (table.total_a as f64, table.total_b as f64);
        // The mode is where the ratio of neighbouring terms passes 1 (Liao & Rosen, The American Statistician 55, 2001,
        // eq. 3): the smaller root of a k² − b k + c, in the form that does not cancel.
        let a = odds_ratio - 1.0;
        let b = (total_b + events + 2.0) * odds_ratio + total_a - events;
        let c = (total_b + 1.0) * (events + 1.0) * odds_ratio;
        let mode = (2.0 * c / (b + (b * b - 4.0 * a * c).max(0.0).sqrt())).floor().clamp(low, high);
        Self { events, total_a, total_b, odds_ratio, low, high, mode }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are at most 2^50")]
    fn ln_probability(&self, events_b: u64) -> f64 {
        self.ln_relative(events_b as f64) - self.sum().ln()
    }

    /// Returns ln of the term at `k` relative to the term at the mode.
    fn ln_relative(&self, k: f64) -> f64 {
        if (k - self.mode).abs() <= WALK { self.ln_walked(k) } else { self.ln_saddle(k) }
    }

    /// Multiplies the ratios on the way from the mode, which is exact and quick near it.
    fn ln_walked(&self, k: f64) -> f64 {
        let (mut step, end) = (k.min(self.mode), k.max(self.mode));
        let (mut ln, mut product) = (0.0, 1.0_f64);
        while step < end {
            product *= self.ratio(step);
            step += 1.0;
            // One ratio is between 1e-56 and 1e56: the product cannot overflow or underflow between two checks.
            if !(1e-200..1e200).contains(&product) {
                ln += product.ln();
                product = 1.0;
            }
        }
        let up = ln + product.ln();
        if k < self.mode { -up } else { up }
    }

    /// Uses, far from the mode, the product of two binomial probabilities with rates that have this odds ratio and means
    /// near the mode, so that nothing cancels.
    fn ln_saddle(&self, k: f64) -> f64 {
        let odds_b = (self.mode + 0.5) / (self.total_b - self.mode + 0.5);
        let odds_a = odds_b / self.odds_ratio;
        let (p_b, q_b) = (odds_b / (1.0 + odds_b), 1.0 / (1.0 + odds_b));
        let (p_a, q_a) = (odds_a / (1.0 + odds_a), 1.0 / (1.0 + odds_a));
        let at = |k: f64| ln_binomial(k, self.total_b, p_b, q_b) + ln_binomial(self.events - k, self.total_a, p_a, q_a);
        at(k) - at(self.mode)
    }

    /// Returns the term at `k + 1` relative to the term at `k`.
    fn ratio(&self, k: f64) -> f64 {
        (self.total_b - k) * (self.events - k) * self.odds_ratio / ((k + 1.0) * (self.total_a - self.events + k + 1.0))
    }

    /// Returns the sum of all terms relative to the term at the mode.
    fn sum(&self) -> f64 {
        let (mut sum, mut term, mut k) = (1.0, 1.0, self.mode);
        while k < self.high {
            term *= self.ratio(k);
            k += 1.0;
            sum += term;
            if term < NEGLIGIBLE * sum {
                break;
            }
        }
        (term, k) = (1.0, self.mode);
        while k > self.low {
            k -= 1.0;
            term /= self.ratio(k);
            sum += term;
            if term < NEGLIGIBLE * sum {
                break;
            }
        }
        sum
    }
}

// === impl Test ===

impl Test {
    /// Creates a test of the null hypothesis "odds ratio at most `margin`" (1: not worse at all; 1.15: not worse by
    /// more than 15 % of the odds). Every increment is multiplied by `tempering`: 1 for independent runs, 1/m for runs
    /// in clusters of m that may be fully correlated ([`kish_tempering`]).
    ///
    /// # Errors
    /// Fails if the margin is not between 10⁻⁶ and 10⁵, or the tempering is not in (0, 1].
    pub fn new(margin: f64, tempering_factor: f64) -> Result<Self, Invalid> {
        if !(ODDS_RANGE.0..=ODDS_RANGE.1 / 10.0).contains(&margin) {
            return Err(Invalid::new("margin", margin, "an odds ratio from 0.000001 to 100000, such as 1.15"));
        }
        Ok(Self { margin, tempering: tempering(tempering_factor)? })
    }

    /// Returns the greatest odds ratio that satisfies the null hypothesis.
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// Returns the alternatives.
    pub fn alternatives(&self) -> [f64; ODDS_RATIOS.len()] {
        ODDS_RATIOS.map(|ratio| ratio * self.margin)
    }

    /// Returns the log-increments of a block, one for each of [`Test::alternatives`], in nats.
    pub fn increments(&self, table: &Table) -> [f64; ODDS_RATIOS.len()] {
        if table.is_uninformative() {
            return [0.0; ODDS_RATIOS.len()];
        }
        let null = table.ln_probability(self.margin);
        self.alternatives().map(|ratio| self.tempering * (table.ln_probability(ratio) - null))
    }

    /// Sums the evidence of blocks of one stratum.
    pub fn evidence<'a>(&self, tables: impl IntoIterator<Item = &'a Table>) -> EvidenceSums {
        let mut evidence = EvidenceSums::default();
        tables.into_iter().for_each(|table| evidence.add(&self.increments(table)));
        evidence
    }
}

impl Default for Test {
    fn default() -> Self {
        Self { margin: 1.0, tempering: 1.0 }
    }
}

/// Returns the tempering factor for runs in clusters: 1 / (1 + (m − 1)·icc) with m = Σ size² / Σ size (Kish, "Survey
/// Sampling", 1965, section 8.2). With `icc` 1 it is valid for any correlation within equal clusters (AM–GM); smaller
/// values rely on the stated intra-cluster correlation. 1 without clusters.
///
/// # Errors
/// Fails if `icc` is not from 0 to 1, or the sums are not possible for cluster sizes.
pub fn kish_tempering(sizes_sum: f64, sizes_squares: f64, icc: f64) -> Result<f64, Invalid> {
    if !(0.0..=1.0).contains(&icc) {
        return Err(Invalid::new("icc", icc, "from 0 to 1"));
    }
    if sizes_sum == 0.0 && sizes_squares == 0.0 {
        return Ok(1.0);
    }
    if !(sizes_sum > 0.0 && sizes_squares >= sizes_sum && sizes_squares.is_finite()) {
        return Err(Invalid::new("sum of squared cluster sizes", sizes_squares, "at least the sum of the sizes"));
    }
    Ok(1.0 / (1.0 + (sizes_squares / sizes_sum - 1.0) * icc))
}

/// Returns the interval of the odds ratio that covers the true value at all times with probability 1 − `alpha`: the
/// margins that neither one-sided e-process rejects at α/2. An end is 0 or ∞ if nothing bounds it. For `tempering` see
/// [`Test::new`].
///
/// # Errors
/// Fails if `alpha` or the tempering is out of range.
pub fn odds_ratio_interval(tables: &[Table], tempering_factor: f64, alpha: f64) -> Result<Interval, Invalid> {
    let threshold = -(share("alpha", alpha)? / 2.0).ln();
    let tempering = tempering(tempering_factor)?;
    let swapped: Vec<Table> = tables.iter().map(Table::swapped).collect();
    let low = refuted_up_to(tables, tempering, threshold).unwrap_or(0.0);
    let high = refuted_up_to(&swapped, tempering, threshold).map_or(f64::INFINITY, |inverse| 1.0 / inverse);
    Ok(Interval { low, high })
}

/// Returns the greatest margin that its e-process rejects; evidence decreases as the margin grows.
fn refuted_up_to(tables: &[Table], tempering: f64, threshold: f64) -> Option<f64> {
    let passes = |ln_margin: f64| {
        let test = Test { margin: ln_margin.exp(), tempering };
        test.evidence(tables).log_e() >= threshold
    };
    let (mut low, mut high) = (ODDS_RANGE.0.ln(), (ODDS_RANGE.1 / 10.0).ln());
    if !passes(low) {
        return None;
    }
    while high - low > 1e-4 {
        let middle = f64::midpoint(low, high);
        if passes(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low.exp())
}

/// Returns log E of the Turner–Ly–Grünwald 2×2 e-variable ("Generic E-variables for exact sequential k-sample tests
/// that allow for optional stopping", JSPI 230, 2024, eq. 3), a cross-check of [`Table::log_e`]. It is valid for rates
/// `rate_a` and `rate_b` fixed before the block.
///
/// # Errors
/// Fails if a rate is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts are at most 2^50")]
pub fn unconditional_log_e(table: &Table, rate_a: f64, rate_b: f64) -> Result<f64, Invalid> {
    let (rate_a, rate_b) = (share("baseline rate", rate_a)?, share("canary rate", rate_b)?);
    let (total_a, total_b) = (table.total_a as f64, table.total_b as f64);
    if total_a == 0.0 || total_b == 0.0 {
        return Ok(0.0);
    }
    let null = (total_a * rate_a + total_b * rate_b) / (total_a + total_b);
    let arm = |events: u64, total: f64, rate: f64| {
        let events = events as f64;
        events * (rate / null).ln() + (total - events) * ((1.0 - rate) / (1.0 - null)).ln()
    };
    Ok(arm(table.events_a, total_a, rate_a) + arm(table.events_b, total_b, rate_b))
}

/// Returns ln of the mean over the grid, like [`EvidenceSums::log_e`], for sums held as floats.
pub fn log_e_of_sums(sums: &[f64]) -> f64 {
    log_mean_exp(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sequential::stratified_log_e;
    use crate::testing::{Random, close};

    fn table(events_a: u64, total_a: u64, events_b: u64, total_b: u64) -> Table {
        Table::new(events_a, total_a, events_b, total_b).expect("a table")
    }

    #[test]
    fn golden_values() {
        let golden = table(7, 120, 15, 80);
        close(golden.log_e(2.2, 1.0), 3.385_926_222_986);
        close(golden.log_e(2.2, 1.15), 2.565_842_255_429);
        // Rates around 0.1 with the log odds ratio split by the shares of the arms: logit 0.1 − 0.4 ln 2.2 and logit 0.1 + 0.6 ln 2.2.
        let rate = |part: f64| {
            let odds = 0.1 / 0.9 * (part * 2.2_f64.ln()).exp();
            odds / (1.0 + odds)
        };
        close(unconditional_log_e(&golden, rate(-0.4), rate(0.6)).expect("log e"), 3.393_392_372_317);
    }

    #[test]
    fn the_mean_of_e_is_one_at_the_margin_exactly_and_below_one_inside() {
        for (events, total_a, total_b) in [(9, 40, 7), (22, 120, 80), (3, 500, 5), (60, 50, 50)] {
            for (null, truth, limit) in [(1.0, 1.0, 1.0), (1.15, 1.15, 1.0), (1.15, 0.7, 0.999)] {
                for ratio in ODDS_RATIOS {
                    let low = u64::saturating_sub(events, total_a);
                    let tables = (low..=events.min(total_b)).map(|b| table(events - b, total_a, b, total_b));
                    let mean: f64 = tables.map(|t| (t.ln_probability(truth) + t.log_e(ratio * null, null)).exp()).sum();
                    assert!(mean <= limit + 1e-9, "{events} of {total_a}+{total_b}, {ratio}: {mean}");
                    assert!(limit < 1.0 || mean > 1.0 - 1e-9, "{events} of {total_a}+{total_b}, {ratio}: {mean}");
                }
            }
        }
    }

    #[test]
    fn extreme_tables_are_numbers() {
        let test = Test::new(1.15, 0.2).expect("a test");
        const HUGE: u64 = 1_000_000_000;
        for (a, total_a, b, total_b) in [
            (0, 0, 0, 0),
            (0, 10, 0, 0),
            (0, 0, 5, 5),
            (0, 10, 0, 10),
            (10, 10, 10, 10),
            (10, 10, 0, 10),
            (0, 10, 10, 10),
            (0, HUGE, 0, HUGE),
            (HUGE, HUGE, HUGE, HUGE),
            (0, HUGE, HUGE, HUGE),
            (HUGE, HUGE, 0, HUGE),
            (HUGE / 2, HUGE, HUGE / 2, HUGE),
            (1, HUGE, 1, 1),
            (0, 1, HUGE, HUGE),
        ] {
            let increments = test.increments(&table(a, total_a, b, total_b));
            assert!(increments.iter().all(|value| value.is_finite()), "{a}/{total_a} {b}/{total_b}: {increments:?}");
        }
        assert_eq!(test.increments(&table(0, 10, 0, 10)), [0.0; 6]);
        assert_eq!(test.increments(&table(0, 0, 5, 5)), [0.0; 6]);
        assert!(Table::new(2, 1, 0, 0).is_err() && Table::new(0, u64::MAX, 0, 0).is_err());
        assert!(Test::new(f64::NAN, 1.0).is_err() && Test::new(0.0, 1.0).is_err() && Test::new(1.0, 0.0).is_err());
    }

    #[test]
    fn large_tables_keep_their_digits() {
        // The normal limit: θ(s_b − mean) − θ²·variance/2 with θ of two deviates and s_b two deviates above the mean.
        let (n, p) = (1_000_000_000_u64, 0.1_f64);
        let events = |z: f64| (n as f64 * p + z * (n as f64 * p * (1.0 - p) / 2.0).sqrt()) as u64;
        let t = table(events(-2.0), n, events(2.0), n);
        let step = (2.0 / (n as f64 * p * (1.0 - p))).sqrt() * 2.0;
        let found = t.log_e(step.exp(), 1.0);
        assert!((found - 2.0).abs() < 1e-4, "{found} instead of about 2");
    }

    #[test]
    fn tempering_follows_kish() {
        close(kish_tempering(100.0, 500.0, 1.0).expect("a factor"), 0.2);
        close(kish_tempering(100.0, 500.0, 0.25).expect("a factor"), 0.5);
        close(kish_tempering(100.0, 100.0, 1.0).expect("a factor"), 1.0);
        close(kish_tempering(0.0, 0.0, 1.0).expect("a factor"), 1.0);
        assert!(kish_tempering(100.0, 50.0, 1.0).is_err() && kish_tempering(1.0, 1.0, 2.0).is_err());
    }

    #[test]
    fn the_interval_of_the_odds_ratio_covers_the_true_value_and_narrows() {
        let few: Vec<Table> = (0..4).map(|_| table(10, 100, 20, 100)).collect();
        let many: Vec<Table> = (0..40).map(|_| table(10, 100, 20, 100)).collect();
        let (wide, narrow) = (
            odds_ratio_interval(&few, 1.0, 0.05).expect("an interval"),
            odds_ratio_interval(&many, 1.0, 0.05).expect("an interval"),
        );
        let truth = (20.0 / 80.0) / (10.0 / 90.0);
        for interval in [wide, narrow] {
            assert!(interval.low < truth && truth < interval.high, "{interval:?}");
        }
        assert!(wide.low < narrow.low && narrow.high < wide.high && narrow.low > 1.0, "{wide:?} {narrow:?}");
        let nothing = odds_ratio_interval(&[table(0, 10, 0, 10)], 1.0, 0.05).expect("an interval");
        assert_eq!((nothing.low, nothing.high), (0.0, f64::INFINITY));
    }

    /// Returns whether 12 hours of five-minute blocks, with rates by block from `rates`, alarm at `alpha` when
    /// inspected after each.
    fn alarms(random: &mut Random, test: &Test, alpha: f64, rates: impl Fn(f64) -> (f64, f64)) -> bool {
        let mut evidence = EvidenceSums::default();
        for block in 0..144_u32 {
            let (rate_a, rate_b) = rates(f64::from(block) / 144.0);
            let t = table(random.binomial(20, rate_a), 20, random.binomial(10, rate_b), 10);
            evidence.add(&test.increments(&t));
            if evidence.log_e() >= -alpha.ln() {
                return true;
            }
        }
        false
    }

    #[test]
    fn the_false_alarm_rate_holds_with_a_look_after_every_block() {
        let (alpha, trials) = (0.05, 600);
        // The rate varies through the day: no test of pooled counts is valid for that.
        let season = |day: f64| 0.1 + 0.08 * (2.0 * std::f64::consts::PI * day).sin();
        let test = Test::default();
        let wrong = (0..trials)
            .filter(|seed| alarms(&mut Random(*seed), &test, alpha, |day| (season(day), season(day))))
            .count();
        // At most 30 are expected, standard deviation 5.4.
        assert!(wrong <= 46, "{wrong} of {trials} at alpha {alpha}, seeds 0 to {trials}");
        let right = (0..100)
            .filter(|seed| alarms(&mut Random(*seed), &test, alpha, |day| (season(day), season(day) + 0.08)))
            .count();
        assert!(right >= 95, "{right} of 100 regressions found, seeds 0 to 100");
    }

    #[test]
    fn a_change_within_the_margin_does_not_alarm() {
        let (alpha, trials) = (0.05, 300);
        let test = Test::new(1.3, 1.0).expect("a test");
        let odds = 0.1 / 0.9 * 1.3;
        let rate = odds / (1.0 + odds);
        let wrong = (0..trials).filter(|seed| alarms(&mut Random(*seed), &test, alpha, |_| (0.1, rate))).count();
        assert!(wrong <= 27, "{wrong} of {trials} at alpha {alpha}, seeds 0 to {trials}");
    }

    #[test]
    fn a_shift_of_the_mix_of_tasks_is_not_a_regression() {
        // Task 0 fails at 2 %, task 1 at 40 %; the canary gets mostly task 1. Pooled, it looks ten times worse.
        let (alpha, trials, mut wrong) = (0.05, 300, 0);
        let test = Test::default();
        for seed in 0..trials {
            let mut random = Random(seed);
            let mut strata = [EvidenceSums::default(), EvidenceSums::default()];
            let mut alarmed = false;
            for _ in 0..60 {
                for (task, (rate, runs_a, runs_b)) in [(0.02, 40, 4), (0.4, 10, 16)].into_iter().enumerate() {
                    let t = table(random.binomial(runs_a, rate), runs_a, random.binomial(runs_b, rate), runs_b);
                    strata[task].add(&test.increments(&t));
                }
                alarmed |= stratified_log_e(&strata) >= -f64::ln(alpha);
            }
            wrong += u32::from(alarmed);
        }
        assert!(wrong <= 27, "{wrong} of {trials} at alpha {alpha}, seeds 0 to {trials}");
    }

    #[test]
    fn clusters_cause_false_alarms_unless_tempered() {
        // Five runs a session that all fail or all succeed.
        let (alpha, trials) = (0.05, 300);
        let count = |tempering: f64| {
            let test = Test::new(1.0, tempering).expect("a test");
            let wrong = (0..trials).filter(|seed| {
                let mut random = Random(*seed);
                let mut evidence = EvidenceSums::default();
                (0..100).any(|_| {
                    let mut arm = || (5 * random.binomial(6, 0.15), 30);
                    let ((a, total_a), (b, total_b)) = (arm(), arm());
                    evidence.add(&test.increments(&table(a, total_a, b, total_b)));
                    evidence.log_e() >= -f64::ln(alpha)
                })
            });
            wrong.count()
        };
        let (naive, tempered) = (count(1.0), count(0.2));
        assert!(naive > 60 && tempered <= 15, "{naive} and {tempered} of {trials}, seeds 0 to {trials}");
    }

    fn any_table() -> impl Strategy<Value = Table> {
        (0_u64..400, 0_u64..400, 0.0..1.0_f64, 0.0..1.0_f64)
            .prop_map(|(a, b, x, y)| table((a as f64 * x) as u64, a, (b as f64 * y) as u64, b))
    }

    proptest! {
        #[test]
        fn the_sum_is_independent_of_order_and_grouping(
            tables in prop::collection::vec(any_table(), 1..20), cut in 0_usize..20, turn in 0_usize..20,
        ) {
            let test = Test::new(1.1, 0.7).expect("a test");
            let all = test.evidence(&tables);
            let cut = cut % tables.len();
            let mut parts = test.evidence(&tables[cut..]);
            parts.merge(&test.evidence(&tables[..cut]));
            prop_assert_eq!(&all, &parts);
            let mut turned = tables.clone();
            turned.rotate_left(turn % tables.len());
            prop_assert_eq!(all.log_e().to_bits(), test.evidence(&turned).log_e().to_bits());
            // A late correction cancels exactly what it replaces.
            let mut corrected = all.clone();
            corrected.remove(&test.increments(&tables[cut]));
            let others: Vec<Table> = tables.iter().enumerate().filter(|(n, _)| *n != cut).map(|(_, t)| *t).collect();
            prop_assert_eq!(corrected.log_e().to_bits(), if others.is_empty() { 0.0_f64 } else { test.evidence(&others).log_e() }.to_bits());
        }

        #[test]
        fn one_more_failure_of_the_canary_is_never_less_evidence(t in any_table(), margin in 0.8..2.0_f64) {
            prop_assume!(t.events_b < t.total_b && t.events_a > 0);
            let test = Test::new(margin, 1.0).expect("a test");
            let worse = table(t.events_a - 1, t.total_a, t.events_b + 1, t.total_b);
            for (before, after) in test.increments(&t).iter().zip(test.increments(&worse)) {
                prop_assert!(after >= before - 1e-9, "{} then {}", before, after);
            }
        }

        #[test]
        fn both_methods_give_the_same_term(t in any_table(), ratio in 0.01..100.0_f64) {
            prop_assume!(!t.is_uninformative());
            let distribution = Hypergeometric::new(&t, ratio);
            let k = t.events_b as f64;
            let (walked, saddle) = (distribution.ln_walked(k), distribution.ln_saddle(k));
            prop_assert!((walked - saddle).abs() < 1e-9 * walked.abs().max(1.0), "{} and {}", walked, saddle);
        }

        #[test]
        fn probabilities_sum_to_one(t in any_table(), ratio in 0.01..100.0_f64) {
            let events = t.events_a + t.events_b;
            let (low, high) = t.support();
            let sum: f64 = (low..=high).map(|b| table(events - b, t.total_a, b, t.total_b).ln_probability(ratio).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
        }
    }
}
