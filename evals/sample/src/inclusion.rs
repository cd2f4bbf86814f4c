//! The probability with which a group takes a run.
//!
//! A group takes the `k` smallest of independent exponential ranks with rates w. A run of weight w is among them if at
//! most k − 1 of the other ranks are smaller: p(w) = ∫ w e^(−wt) P(N(t) ≤ k − 1) dt, with N(t) the number of other ranks
//! below t, a sum of binomials by weight. The integral is taken over ln t by the trapezoidal rule, which converges
//! exponentially there (Trefethen & Weideman, SIAM Review 56, 2014). With equal weights p = k / n, and with k = 1 it is
//! w / Σw.

use bellwether_stats::special::ln_gamma;

use crate::weight::{LEVELS, Weight};

/// Takes of a group above which the probability is that of the limit for large groups, 1 − e^(−wt) with t such that the
/// probabilities add up to k (Rosén, "Asymptotic theory for order sampling", JSPI 62, 1997).
const LARGE: u64 = 96;

/// Range of ln t about the middle, in which all of the integral lies up to 1e-14.
const BELOW: f64 = 34.0;
const ABOVE: f64 = 9.0;

/// Returns the inclusion probability by weight, for a group with `members` by weight that takes `take` of them.
///
/// Weights without members have probability 0. The probabilities add up to `take` over all members.
pub fn probabilities(members: &[u64; LEVELS], take: u64) -> [f64; LEVELS] {
    let total: u64 = members.iter().sum();
    let used = || (0..LEVELS).filter(|level| members[*level] > 0);
    let mut found = [0.0; LEVELS];
    if take >= total {
        used().for_each(|level| found[level] = 1.0);
    } else if take == 0 {
        return found;
    } else if used().count() == 1 {
        used().for_each(|level| found[level] = number(take) / number(total));
    } else {
        let middle = limit(members, take);
        if take > LARGE {
            used().for_each(|level| found[level] = -(-rate(level) * middle).exp_m1());
        } else {
            found = integrated(members, take, middle);
        }
        // What the integration left over is below 1e-9; adding up exactly makes counts from the sample exact.
        let sum: f64 = used().map(|level| number(members[level]) * found[level]).sum();
        found.iter_mut().for_each(|probability| *probability = (*probability * number(take) / sum).min(1.0));
    }
    found
}

/// Returns the t at which the expected number of ranks below it is `take`, by bisection.
fn limit(members: &[u64; LEVELS], take: u64) -> f64 {
    let expected =
        |t: f64| -> f64 { (0..LEVELS).map(|level| -number(members[level]) * (-rate(level) * t).exp_m1()).sum() };
    let (mut low, mut high) = (0.0, 1.0);
    while expected(high) < number(take) && high < 1e6 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if expected(middle) < number(take) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

fn integrated(members: &[u64; LEVELS], take: u64, middle: f64) -> [f64; LEVELS] {
    let used: Vec<usize> = (0..LEVELS).filter(|level| members[*level] > 0).collect();
    let places = usize::try_from(take).unwrap_or(usize::MAX);
    let step = (0.25 / number(take).sqrt()).min(0.1);
    let (first, last) = (middle.ln() - BELOW, middle.ln() + ABOVE);
    let all: Vec<Coefficients> = used.iter().map(|level| Coefficients::new(members[*level], places)).collect();
    let others: Vec<Coefficients> = used.iter().map(|level| Coefficients::new(members[*level] - 1, places)).collect();
    let mut found = [0.0; LEVELS];
    let mut position = first;
    while position <= last {
        let t = position.exp();
        let pmf: Vec<Vec<f64>> = used.iter().zip(&all).map(|(level, known)| known.pmf(rate(*level) * t)).collect();
        // Products of the levels before and after each one.
        let mut before = vec![vec![1.0]];
        for one in &pmf {
            let next = product(&before[before.len() - 1], one, places);
            before.push(next);
        }
        let mut after = vec![1.0];
        for place in (0..used.len()).rev() {
            let level = used[place];
            let rest = product(&before[place], &after, places);
            let own = others[place].pmf(rate(level) * t);
            let below: f64 = product(&rest, &own, places).iter().sum();
            found[level] += step * rate(level) * t * (-rate(level) * t).exp() * below.min(1.0);
            after = product(&after, &pmf[place], places);
        }
        position += step;
    }
    found
}

/// ln of the binomial coefficients of `n`, for the first counts.
struct Coefficients {
    n: u64,
    ln: Vec<f64>,
}

impl Coefficients {
    fn new(n: u64, places: usize) -> Self {
        let counts = (0..=n).take(places);
        let ln = counts.map(|j| ln_gamma(number(n) + 1.0) - ln_gamma(number(j) + 1.0) - ln_gamma(number(n - j) + 1.0));
        Self { n, ln: ln.collect() }
    }

    /// Returns P(count = j) of ranks below t for the first counts; `x` is w t, so that each is below with 1 − e^(−x).
    fn pmf(&self, x: f64) -> Vec<f64> {
        let ln_below = (-(-x).exp_m1()).ln();
        let terms = self.ln.iter().zip(0_u64..).map(|(coefficient, j)| {
            let below = if j == 0 { 0.0 } else { number(j) * ln_below };
            (coefficient + below - number(self.n - j) * x).exp()
        });
        terms.collect()
    }
}

/// Returns the first `places` terms of the distribution of a sum.
fn product(left: &[f64], right: &[f64], places: usize) -> Vec<f64> {
    let mut sums = vec![0.0; (left.len() + right.len() - 1).min(places)];
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate().take(places.saturating_sub(i)) {
            sums[i + j] += a * b;
        }
    }
    sums
}

fn rate(level: usize) -> f64 {
    Weight::of_level(u8::try_from(level).unwrap_or(u8::MAX)).value()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, golden: f64) {
        assert!((found - golden).abs() < 1e-9, "{found} instead of {golden}");
    }

    /// Returns the probability of the first run by adding up all orders in which runs can be taken.
    fn by_orders(weights: &[f64], take: usize) -> f64 {
        fn taken(weights: &mut Vec<(bool, f64)>, take: usize) -> f64 {
            if take == 0 {
                return 0.0;
            }
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            let mut sum = 0.0;
            for place in 0..weights.len() {
                let (first, weight) = weights.remove(place);
                sum += weight / total * if first { 1.0 } else { taken(weights, take - 1) };
                weights.insert(place, (first, weight));
            }
            sum
        }
        taken(&mut weights.iter().enumerate().map(|(place, weight)| (place == 0, *weight)).collect(), take)
    }

    #[test]
    fn small_groups_match_the_sum_over_all_orders() {
        let members = [2, 0, 1, 0, 1, 0, 0, 1];
        for take in 1..5 {
            let found = probabilities(&members, take);
            for (level, others) in
                [(0, [1.0, 4.0, 16.0, 128.0]), (2, [1.0, 1.0, 16.0, 128.0]), (7, [1.0, 1.0, 4.0, 16.0])]
            {
                let mut weights = vec![rate(level)];
                weights.extend(others);
                close(found[level], by_orders(&weights, usize::try_from(take).expect("small")));
            }
        }
    }

    #[test]
    fn one_place_is_proportional_to_weight_and_equal_weights_share_the_places() {
        let found = probabilities(&[1_000, 0, 0, 50, 0, 0, 0, 0], 1);
        close(found[0], 1.0 / 1_400.0);
        close(found[3], 8.0 / 1_400.0);
        close(probabilities(&[0, 400, 0, 0, 0, 0, 0, 0], 5)[1], 5.0 / 400.0);
        assert_eq!(probabilities(&[3, 1, 0, 0, 0, 0, 0, 0], 9), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(probabilities(&[3, 1, 0, 0, 0, 0, 0, 0], 0), [0.0; LEVELS]);
    }

    #[test]
    fn the_limit_for_large_groups_continues_the_exact_probabilities() {
        let members = [5_000, 900, 0, 300, 0, 40, 0, 3];
        let exact = probabilities(&members, LARGE);
        let mut limited = [0.0; LEVELS];
        let middle = limit(&members, LARGE);
        (0..LEVELS)
            .filter(|level| members[*level] > 0)
            .for_each(|level| limited[level] = -(-rate(level) * middle).exp_m1());
        for level in [0, 1, 3, 5, 7] {
            assert!((exact[level] / limited[level] - 1.0).abs() < 0.01, "{level}: {exact:?} {limited:?}");
        }
    }

    #[test]
    fn a_group_of_which_nearly_all_are_taken_has_exact_probabilities() {
        let members = [1, 0, 0, 0, 0, 0, 0, 30];
        let found = probabilities(&members, 30);
        // The light run is left out unless it comes before one of the heavy ones: all 30 come first.
        let last: f64 = (1..=30).map(|n| 128.0 * f64::from(n) / (128.0 * f64::from(n) + 1.0)).product();
        close(found[0], 1.0 - last);
    }
}
