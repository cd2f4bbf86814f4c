//! Totals and shares of a population, estimated from a sample whose inclusion probabilities are known.
//!
//! A row with probability p stands for 1 / p rows of the population.
//!
//! * The total is Horvitz and Thompson's Σ y/p (JASA 47, 1952). Its variance is estimated by Σ (1 − p) y² / p², which is
//!   unbiased for independent draws (Poisson sampling), and too large rather than too small for draws of a fixed size.
//! * The mean is Hájek's Σ (y/p) / Σ (1/p) (in "Foundations of Statistical Inference", 1971). Its variance is
//!   linearised: n/(n−1) Σ (1 − p) (y − R)² / p² / (Σ 1/p)² (Särndal, Swensson & Wretman, "Model Assisted Survey
//!   Sampling", 1992, result 5.6.1).
//! * The interval of a total of values that are not negative is Fay and Feuer's gamma interval (Statistics in Medicine
//!   16, 1997), which holds for few events and unequal weights.
//! * The interval of a share is its counterpart for the beta distribution: the upper end adds a row with y = 1 and the
//!   greatest weight, the lower end one with y = 0. With equal weights it is Clopper and Pearson's (Biometrika 26, 1934).
//! * Other means have Student's t interval.
//!
//! Rows with p = 1 add no uncertainty, and a sample of only such rows has intervals without width.
//!
//! The state is a multiset of rows, so any order and any grouping gives the same bits.

use std::collections::BTreeMap;

use crate::interval::{Interval, student_quantile, two_sided};
use crate::invalid::Invalid;
use crate::special::{gamma_critical, ln_beta};

/// An estimate with its standard error and interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Its confidence interval.
    pub interval: Interval,
    /// Number of sampled rows.
    pub rows: u64,
}

/// Sampled rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey(BTreeMap<(u64, u64), u64>);

/// A distinct row: value, inclusion probability, number of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Value.
    pub y: f64,
    /// Inclusion probability.
    pub probability: f64,
    /// Number of rows with both.
    pub count: u64,
}

// === impl Survey ===

impl Survey {
    /// Adds rows.
    ///
    /// # Errors
    /// The value is not finite, or the probability is not above 0 and at most 1.
    pub fn add(&mut self, y: f64, probability: f64, count: u64) -> Result<(), Invalid> {
        if !y.is_finite() {
            return Err(Invalid::new("y", y, "finite"));
        }
        // A probability so small that its weight is infinite gives no estimate.
        if !(probability > 1e-300 && probability <= 1.0) {
            return Err(Invalid::new("probability", probability, "above 0 and at most 1"));
        }
        // Zero has two signs.
        let sum = self.0.entry(((y + 0.0).to_bits(), probability.to_bits())).or_default();
        *sum = sum.saturating_add(count);
        Ok(())
    }

    /// Adds the rows of another part of the sample.
    pub fn merge(&mut self, other: &Self) {
        for (row, count) in &other.0 {
            let sum = self.0.entry(*row).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Returns the distinct rows, in a fixed order.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.0.iter().map(|((y, probability), count)| Row {
            y: f64::from_bits(*y),
            probability: f64::from_bits(*probability),
            count: *count,
        })
    }

    /// Returns the number of distinct rows.
    pub fn distinct(&self) -> usize {
        self.0.len()
    }

    /// Returns Kish's effective sample size, (Σw)² / Σw² ("Survey Sampling", 1965): the number of rows with equal
    /// weights that would be as precise. 0 without rows.
    pub fn effective_rows(&self) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for row in self.rows() {
            sum += row.times() * row.weight();
            squares += row.times() * row.weight().powi(2);
        }
        if squares > 0.0 { sum * sum / squares } else { 0.0 }
    }

    /// Returns the Horvitz–Thompson estimate of the population's total. `None` without rows, or if the confidence is not
    /// between 0 and 1. If all values are 0, the upper end is that of a total of ones.
    pub fn total(&self, confidence: f64) -> Option<Estimate> {
        two_sided(confidence)?;
        let (mut n, mut total, mut seen, mut variance) = (0.0, 0.0, 0.0, 0.0);
        let (mut greatest, mut heaviest, mut negative) = (0.0_f64, 0.0_f64, false);
        for row in self.rows() {
            n += row.times();
            seen += row.times() * row.y;
            total += row.times() * row.y * row.weight();
            variance += row.times() * (row.y * row.weight()).powi(2) * (1.0 - row.probability);
            greatest = greatest.max(row.y.abs());
            heaviest = heaviest.max(row.unseen());
            negative |= row.y < 0.0;
        }
        if n == 0.0 {
            return None;
        }
        let interval = if negative {
            centred(total, variance.sqrt(), n, confidence)
        } else {
            let step = heaviest * if greatest > 0.0 { greatest } else { 1.0 };
            let Interval { low, high } = gamma_interval(total, variance, step, confidence);
            // What was seen exists.
            Interval { low: low.max(seen).min(total), high }
        };
        Some(Estimate { value: total, standard_error: variance.sqrt(), interval, rows: self.count() })
    }

    /// Returns Hájek's estimate of the population's mean; a share if all values are 0 or 1. `None` without rows, below two
    /// rows of other values, or if the confidence is not between 0 and 1.
    pub fn mean(&self, confidence: f64) -> Option<Estimate> {
        two_sided(confidence)?;
        let (mut n, mut weights, mut sum, mut heaviest, mut share) = (0.0, 0.0, 0.0, 0.0_f64, true);
        for row in self.rows() {
            n += row.times();
            weights += row.times() * row.weight();
            sum += row.times() * row.weight() * row.y;
            heaviest = heaviest.max(row.unseen());
            share &= row.y == 0.0 || row.y == 1.0;
        }
        if n == 0.0 || (n < 2.0 && !share) {
            return None;
        }
        let mean = sum / weights;
        let variance = n / (n - 1.0).max(1.0) * self.squares_about(mean) / (weights * weights);
        let interval = if share {
            let end = |y: f64| {
                let all = weights + heaviest;
                let middle = (sum + heaviest * y) / all;
                let square = (self.squares_about(middle) + (heaviest * (y - middle)).powi(2)) / (all * all);
                (middle, square)
            };
            Interval {
                low: beta_end(end(0.0), (1.0 - confidence) / 2.0).min(mean),
                high: beta_end(end(1.0), f64::midpoint(1.0, confidence)).max(mean),
            }
        } else {
            centred(mean, variance.sqrt(), n, confidence)
        };
        Some(Estimate { value: mean, standard_error: variance.sqrt(), interval, rows: self.count() })
    }

    /// Returns Σ w² (1 − p) (y − mean)².
    fn squares_about(&self, mean: f64) -> f64 {
        self.rows().map(|row| row.times() * (row.weight() * (row.y - mean)).powi(2) * (1.0 - row.probability)).sum()
    }

    fn count(&self) -> u64 {
        self.0.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

// === impl Row ===

impl Row {
    /// Returns the number of rows of the population that one of these stands for.
    pub fn weight(&self) -> f64 {
        1.0 / self.probability
    }

    /// Returns the number of unseen rows that one of these stands for.
    pub fn unseen(&self) -> f64 {
        (1.0 - self.probability) / self.probability
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^53")]
    pub(crate) fn times(&self) -> f64 {
        self.count as f64
    }
}

/// Returns Student's t interval with n − 1 degrees of freedom, which are those of the normal distribution from 200 on.
pub(crate) fn centred(value: f64, error: f64, n: f64, confidence: f64) -> Interval {
    let p = f64::midpoint(1.0, confidence);
    let quantile = match two_sided(confidence) {
        Some(z) if n > 200.0 => z,
        _ => student_quantile(p, (n - 1.0).max(1.0)),
    };
    Interval { low: value - quantile * error, high: value + quantile * error }
}

/// Returns Fay and Feuer's interval for a weighted sum of counts with the given variance; `step` is what one more
/// event could add.
fn gamma_interval(total: f64, variance: f64, step: f64, confidence: f64) -> Interval {
    let gamma = |mean: f64, variance: f64, tail: f64| {
        if variance <= 0.0 { mean } else { variance / mean * gamma_critical(tail, mean * mean / variance) }
    };
    let below = (1.0 - confidence) / 2.0;
    let low = if total <= 0.0 { 0.0 } else { gamma(total, variance, 1.0 - below) };
    Interval { low, high: gamma(total + step, variance + step * step, below) }
}

/// Returns a quantile of the beta distribution with the given mean m and, up to Clopper and Pearson's convention, the
/// given variance: a + b = m (1 − m) / variance.
fn beta_end((mean, variance): (f64, f64), p: f64) -> f64 {
    if variance <= 0.0 || mean <= 0.0 || mean >= 1.0 {
        return mean.clamp(0.0, 1.0);
    }
    let sum = mean * (1.0 - mean) / variance;
    beta_quantile(p, mean * sum, (1.0 - mean) * sum)
}

/// Returns the x with I_x(a, b) = p, by bisection.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    let target = p.ln();
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if ln_beta(middle, 1.0 - middle, a, b) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use proptest::prelude::*;

    fn survey(rows: &[(f64, f64)]) -> Survey {
        let mut survey = Survey::default();
        rows.iter().for_each(|(y, p)| survey.add(*y, *p, 1).expect("a valid row"));
        survey
    }

    fn near(found: f64, golden: f64, room: f64) {
        assert!((found - golden).abs() < room, "{found} instead of {golden}");
    }

    #[test]
    fn equal_weights_give_clopper_and_pearsons_interval() {
        // 81 of 263, Newcombe (Statistics in Medicine 17, 1998), table I, method 5: 0.2527 to 0.3676. Of a population so
        // large that its size does not count.
        let mut shares = Survey::default();
        shares.add(1.0, 1e-9, 81).expect("valid");
        shares.add(0.0, 1e-9, 182).expect("valid");
        let found = shares.mean(0.95).expect("rows");
        near(found.value, 81.0 / 263.0, 1e-12);
        near(found.interval.low, 0.2527, 5e-5);
        near(found.interval.high, 0.3676, 5e-5);
        let mut none = Survey::default();
        none.add(0.0, 1e-9, 20).expect("valid");
        let found = none.mean(0.95).expect("rows");
        assert_eq!(found.interval.low, 0.0);
        near(found.interval.high, 1.0 - 0.025_f64.powf(1.0 / 20.0), 1e-6);
    }

    #[test]
    fn equal_weights_give_garwoods_interval_of_a_count() {
        // 10 events: 4.7954 to 18.3904 (Garwood, Biometrika 28, 1936).
        let mut counts = Survey::default();
        counts.add(1.0, 1e-9, 10).expect("valid");
        let found = counts.total(0.95).expect("rows");
        near(found.interval.low * 1e-9, 4.7954, 1e-4);
        near(found.interval.high * 1e-9, 18.3904, 1e-4);
    }

    #[test]
    fn a_complete_count_is_certain() {
        let all = survey(&[(1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (0.0, 1.0)]);
        let total = all.total(0.95).expect("rows");
        assert_eq!((total.value, total.interval), (2.0, Interval { low: 2.0, high: 2.0 }));
        let share = all.mean(0.95).expect("rows");
        assert_eq!((share.value, share.interval), (0.5, Interval { low: 0.5, high: 0.5 }));
    }

    #[test]
    fn invalid_rows_and_empty_samples_have_no_estimate() {
        let mut survey = Survey::default();
        assert!(survey.add(1.0, 0.0, 1).is_err() && survey.add(1.0, 1.1, 1).is_err());
        assert!(survey.add(f64::NAN, 0.5, 1).is_err() && survey.add(1.0, f64::NAN, 1).is_err());
        assert_eq!((survey.total(0.95), survey.mean(0.95)), (None, None));
        survey.add(3.5, 0.5, 1).expect("valid");
        assert_eq!((survey.mean(0.95), survey.total(1.0)), (None, None));
        assert_eq!(survey.total(0.95).expect("a row").value, 7.0);
    }

    /// Draws each of a population's rows with its probability, many times, and returns how often total and mean cover.
    fn coverage(population: &[(f64, f64)], seed: u64) -> (f64, f64) {
        let mut random = Random(seed);
        let total: f64 = population.iter().map(|row| row.0).sum();
        let mean = total / population.len() as f64;
        let (mut totals, mut means, mut samples) = (0.0, 0.0, 0.0);
        for _ in 0..2_000 {
            let drawn: Vec<(f64, f64)> = population.iter().filter(|row| random.uniform() < row.1).copied().collect();
            let sample = survey(&drawn);
            let (Some(found), Some(share)) = (sample.total(0.95), sample.mean(0.95)) else { continue };
            samples += 1.0;
            let covers =
                |interval: Interval, truth: f64| f64::from(u8::from(interval.low <= truth && truth <= interval.high));
            totals += covers(found.interval, total);
            means += covers(share.interval, mean);
        }
        (totals / samples, means / samples)
    }

    #[test]
    fn intervals_cover_the_truth_at_the_stated_rate() {
        let mut random = Random(5);
        // Common, rare, and unrelated to weight; common where weights are small, and only where they are large.
        let rates: [[f64; 3]; 5] =
            [[0.3, 0.3, 0.3], [0.01, 0.01, 0.01], [0.9, 0.5, 0.02], [0.5, 0.1, 0.0], [0.0, 0.0, 0.05]];
        for (case, rate) in rates.iter().enumerate() {
            let population: Vec<(f64, f64)> = (0..1_500)
                .map(|n| {
                    let group = [0, 1, 1, 2, 2, 2][n % 6];
                    (f64::from(u8::from(random.uniform() < rate[group])), [0.5, 0.1, 0.02][group])
                })
                .collect();
            let (total, mean) = coverage(&population, 77 + case as u64);
            assert!(total >= 0.94 && mean >= 0.94, "case {case}: {total} and {mean}");
            eprintln!("case {case}: total {total}, mean {mean}");
        }
    }

    #[test]
    fn estimates_are_unbiased() {
        let population: Vec<(f64, f64)> =
            (0..300_u32).map(|n| (f64::from(n % 7), [0.9, 0.3, 0.1][n as usize % 3])).collect();
        let truth: f64 = population.iter().map(|row| row.0).sum();
        let mut random = Random(9);
        let mut sum = 0.0;
        for _ in 0..4_000 {
            let drawn: Vec<(f64, f64)> = population.iter().filter(|row| random.uniform() < row.1).copied().collect();
            sum += survey(&drawn).total(0.95).expect("rows").value;
        }
        near(sum / 4_000.0 / truth, 1.0, 0.01);
    }

    proptest! {
        #[test]
        fn any_order_and_grouping_gives_the_same_bits(
            rows in prop::collection::vec((-3_i8..4, 1_u8..=8), 0..40), cut in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<(f64, f64)> = rows.into_iter().map(|(y, p)| (f64::from(y), f64::from(p) / 8.0)).collect();
            let (left, right) = rows.split_at(cut.index(rows.len() + 1));
            let mut parts = survey(right);
            parts.merge(&survey(left));
            let mut backwards = rows.clone();
            backwards.reverse();
            prop_assert_eq!(&parts, &survey(&backwards));
            prop_assert_eq!(parts.mean(0.9), survey(&rows).mean(0.9));
        }

        #[test]
        fn an_interval_contains_its_estimate(
            rows in prop::collection::vec((0_u8..2, 1_u8..=8), 1..40),
        ) {
            let rows: Vec<(f64, f64)> = rows.into_iter().map(|(y, p)| (f64::from(y), f64::from(p) / 8.0)).collect();
            let sample = survey(&rows);
            for found in [sample.total(0.95), sample.mean(0.95)].into_iter().flatten() {
                prop_assert!(found.interval.low <= found.value && found.value <= found.interval.high, "{:?}", found);
            }
        }
    }
}
