//! D7: the distance between two distributions, and its distribution without a change. For tickets, never for pages.
//!
//! Fixed thresholds are meaningless: without any change, the population stability index of 100 runs in 10 bins exceeds
//! 0.1 four times in ten, and at 10,000 runs it stays blind to a shift of 30 %. Its null distribution is (1/n + 1/m) χ²
//! with B − 1 degrees of freedom (Yurdakul, "Statistical properties of population stability index", 2018, theorem 1),
//! and that of the Jensen–Shannon divergence is an eighth of it (Lin, "Divergence measures based on the Shannon
//! entropy", IEEE Trans. Inf. Theory 37, 1991, with both expanded to second order). Wasserstein's W₁ is the L₁ norm of
//! a Brownian bridge with exactly known first two moments (del Barrio, Giné, Matrán, Annals of Probability 27, 1999); a
//! Nakagami distribution with these moments approximates it.
//!
//! All of them rely on the normal approximation: [`pooled`] first merges neighbouring bins until each expects 5 runs.

use std::f64::consts::PI;

use crate::invalid::{Invalid, share};
use crate::special::{chi_square_critical, chi_square_tail, gamma_tail, ln_gamma};

/// Minimum expected runs of a bin on each side.
pub const MIN_EXPECTED: f64 = 5.0;

/// Half a run is added to each bin, so that an empty bin is not infinitely far away.
const PSEUDO_COUNT: f64 = 0.5;

/// Counts of two sides by bin, pooled so that the null distributions of their distances are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    reference: Vec<f64>,
    current: Vec<f64>,
    totals: (f64, f64),
}

/// Merges neighbouring bins until each expects [`MIN_EXPECTED`] runs of both sides under one common distribution.
/// Categories have no order, so any neighbours will do.
///
/// # Errors
/// Fails if the numbers of bins differ, or either side has no runs.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn pooled(reference: &[u64], current: &[u64]) -> Result<Pooled, Invalid> {
    if reference.len() != current.len() {
        let found = format!("{} and {}", reference.len(), current.len());
        return Err(Invalid::new("numbers of bins", found, "equal"));
    }
    let total = |counts: &[u64]| counts.iter().map(|count| *count as f64).sum::<f64>();
    let totals = (total(reference), total(current));
    let fewer = totals.0.min(totals.1);
    if fewer < 1.0 {
        return Err(Invalid::new("runs of a side", fewer, "at least 1"));
    }
    let mut merged = Pooled { reference: Vec::new(), current: Vec::new(), totals };
    let mut open = (0.0, 0.0);
    for (r, c) in reference.iter().zip(current) {
        open = (open.0 + *r as f64, open.1 + *c as f64);
        if fewer * (open.0 + open.1) / (totals.0 + totals.1) >= MIN_EXPECTED {
            merged.reference.push(open.0);
            merged.current.push(open.1);
            open = (0.0, 0.0);
        }
    }
    // The remainder goes to the last bin; if there is none, it becomes the only bin.
    match (merged.reference.last_mut(), merged.current.last_mut()) {
        (Some(reference), Some(current)) => (*reference, *current) = (*reference + open.0, *current + open.1),
        _ => (merged.reference, merged.current) = (vec![open.0], vec![open.1]),
    }
    Ok(merged)
}

// === impl Pooled ===

impl Pooled {
    /// Returns the number of pooled bins.
    pub fn bins(&self) -> usize {
        self.reference.len()
    }

    /// Returns the fractions of both sides by bin, none of them 0.
    #[expect(clippy::cast_precision_loss, reason = "a list in memory is shorter than 2^53")]
    fn shares(&self) -> impl Iterator<Item = (f64, f64)> {
        let extra = PSEUDO_COUNT * self.bins() as f64;
        let (n, m) = (self.totals.0 + extra, self.totals.1 + extra);
        self.reference.iter().zip(&self.current).map(move |(r, c)| ((r + PSEUDO_COUNT) / n, (c + PSEUDO_COUNT) / m))
    }

    /// Returns the population stability index: Σ (p − q) ln(p/q), at least 0, dimensionless.
    pub fn psi(&self) -> f64 {
        self.shares().map(|(p, q)| (p - q) * (p / q).ln()).sum()
    }

    /// Returns the Jensen–Shannon distance: the square root of the divergence in nats, from 0 to √ln 2 = 0.83.
    pub fn js(&self) -> f64 {
        let half = |p: f64, middle: f64| p * (p / middle).ln() / 2.0;
        let divergence: f64 = self
            .shares()
            .map(|(p, q)| {
                let middle = f64::midpoint(p, q);
                half(p, middle) + half(q, middle)
            })
            .sum();
        divergence.max(0.0).sqrt()
    }

    /// 1/n + 1/m.
    fn scale(&self) -> f64 {
        1.0 / self.totals.0 + 1.0 / self.totals.1
    }

    #[expect(clippy::cast_precision_loss, reason = "a list in memory is shorter than 2^53")]
    fn degrees(&self) -> Option<f64> {
        (self.bins() > 1).then(|| self.bins() as f64 - 1.0)
    }

    /// Returns the probability of a population stability index at least this large without a change. 1 with a single
    /// bin.
    pub fn psi_p_value(&self) -> f64 {
        self.degrees().map_or(1.0, |degrees| chi_square_tail(self.psi() / self.scale(), degrees))
    }

    /// Returns the probability of a Jensen–Shannon distance at least this large without a change. 1 with a single bin.
    pub fn js_p_value(&self) -> f64 {
        self.degrees().map_or(1.0, |degrees| chi_square_tail(8.0 * self.js().powi(2) / self.scale(), degrees))
    }
}

/// Returns the population stability index that is exceeded with probability `alpha` without a change: (1/n + 1/m)
/// χ²_{B−1,1−α}.
///
/// # Errors
/// Fails if a side has no runs, there are fewer than 2 bins, or `alpha` is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn psi_threshold(reference_runs: u64, current_runs: u64, bins: usize, alpha: f64) -> Result<f64, Invalid> {
    let alpha = share("alpha", alpha)?;
    if reference_runs == 0 || current_runs == 0 {
        return Err(Invalid::new("runs of a side", 0, "at least 1"));
    }
    if bins < 2 {
        return Err(Invalid::new("number of bins", bins, "at least 2"));
    }
    let scale = 1.0 / reference_runs as f64 + 1.0 / current_runs as f64;
    Ok(scale * chi_square_critical(alpha, bins as f64 - 1.0))
}

/// Returns Wasserstein's distance W₁ of two histograms with bins of equal width (on the logarithmic scale, for those of
/// [`crate::histogram_e::histogram_of`]) in standard deviations of the reference, and the probability of one at least
/// as large without a change.
///
/// # Errors
/// Same as [`pooled`].
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn w1(reference: &[u64], current: &[u64]) -> Result<(f64, f64), Invalid> {
    let pooled = pooled(reference, current)?;
    let (n, m) = pooled.totals;
    let mean: f64 = reference.iter().enumerate().map(|(bin, count)| bin as f64 * *count as f64).sum::<f64>() / n;
    let square =
        reference.iter().enumerate().map(|(bin, count)| (bin as f64 - mean).powi(2) * *count as f64).sum::<f64>();
    // A reference with a single bin has no spread: use the width of the bin.
    let deviation = if square > 0.0 { (square / n).sqrt() } else { 1.0 };
    let (mut below, mut distance, mut common) = ((0.0, 0.0), 0.0, Vec::with_capacity(reference.len()));
    for (r, c) in reference.iter().zip(current) {
        below = (below.0 + *r as f64, below.1 + *c as f64);
        distance += (below.0 / n - below.1 / m).abs();
        common.push((below.0 + below.1) / (n + m));
    }
    common.retain(|share| *share > 0.0 && *share < 1.0 - 1e-12);
    Ok((distance / deviation, l1_norm_tail(distance / pooled.scale().sqrt(), &common)))
}

/// Returns P(Σ |bridge at F_k| > x) for a Brownian bridge at the given fractions: a Nakagami distribution with the
/// exact first two moments.
fn l1_norm_tail(x: f64, shares: &[f64]) -> f64 {
    let deviations: Vec<f64> = shares.iter().map(|share| (share * (1.0 - share)).sqrt()).collect();
    let mean = (2.0 / PI).sqrt() * deviations.iter().sum::<f64>();
    if mean <= 0.0 {
        return if x > 0.0 { 0.0 } else { 1.0 };
    }
    let mut square = 0.0;
    for (j, (low, deviation)) in shares.iter().zip(&deviations).enumerate() {
        square += deviation * deviation;
        for (high, other) in shares[j + 1..].iter().zip(&deviations[j + 1..]) {
            // E|XY| of two normal variables with correlation ρ: (2/π) σ σ' (√(1−ρ²) + ρ asin ρ).
            let correlation = (low * (1.0 - high) / (deviation * other)).min(1.0);
            let root = (1.0 - correlation * correlation).sqrt();
            square += 2.0 * (2.0 / PI) * deviation * other * (root + correlation * correlation.asin());
        }
    }
    let shape = nakagami_shape(mean * mean / square);
    gamma_tail(shape, shape * x * x / square)
}

/// Returns the shape m of a Nakagami distribution from the ratio of its squared mean to its second moment,
/// Γ(m+½)²/(Γ(m)² m), by bisection.
fn nakagami_shape(squared_mean: f64) -> f64 {
    let share = |ln_shape: f64| {
        let shape: f64 = ln_shape.exp();
        2.0 * (ln_gamma(shape + 0.5) - ln_gamma(shape)) - ln_shape
    };
    let (mut low, mut high) = (0.05_f64.ln(), 1e6_f64.ln());
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if share(middle) < squared_mean.ln() {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close};

    #[test]
    fn golden_values() {
        let threshold = psi_threshold(1000, 10_000, 10, 0.01).expect("a threshold");
        close(threshold, 0.0011 * 21.665_994_333_461_924);
        assert!((threshold - 0.02383).abs() < 5e-6, "{threshold}");
        let same = pooled(&[50, 50], &[100, 100]).expect("bins");
        close(same.psi(), (0.0_f64).powi(2));
        close(same.js(), 0.0);
        // scipy.spatial.distance.jensenshannon([50.5, 100.5, 150.5], [150.5, 100.5, 50.5]).
        let far = pooled(&[50, 100, 150], &[150, 100, 50]).expect("bins");
        close(far.js(), 0.293_768_302_702_465_1);
    }

    #[test]
    fn sparse_bins_are_merged_and_one_bin_has_no_distance() {
        let merged = pooled(&[1, 1, 1, 100, 0, 0], &[0, 0, 0, 100, 1, 0]).expect("bins");
        assert_eq!(merged.bins(), 1);
        close(merged.psi_p_value(), 1.0);
        assert!(pooled(&[1], &[1, 2]).is_err() && pooled(&[0, 0], &[1, 2]).is_err() && pooled(&[], &[]).is_err());
        let (distance, p_value) = w1(&[0, 10, 0], &[0, 10, 0]).expect("a distance");
        close(distance, 0.0);
        close(p_value, 1.0);
        let huge = w1(&[1_000_000_000, 0], &[0, 1_000_000_000]).expect("a distance");
        assert!(huge.0.is_finite() && huge.1 < 1e-12, "{huge:?}");
    }

    /// Counts of `runs` values of a skewed distribution over 12 bins.
    fn counts(random: &mut Random, runs: u64, shift: f64) -> Vec<u64> {
        let mut counts = vec![0; 12];
        for _ in 0..runs {
            let value = (6.0 + 2.0 * random.normal() + shift).clamp(0.0, 11.0);
            counts[value as usize] += 1;
        }
        counts
    }

    #[test]
    fn p_values_are_calibrated_without_a_change() {
        let (trials, mut small) = (2000, [0_u32; 3]);
        for seed in 0..trials {
            let mut random = Random(seed);
            let (reference, current) = (counts(&mut random, 2000, 0.0), counts(&mut random, 400, 0.0));
            let bins = pooled(&reference, &current).expect("bins");
            let p_values = [bins.psi_p_value(), bins.js_p_value(), w1(&reference, &current).expect("a distance").1];
            (0..3).for_each(|n| small[n] += u32::from(p_values[n] < 0.05));
        }
        // 100 of 2,000 expected, standard deviation 10.
        assert!(small.iter().all(|small| (60..=140).contains(small)), "{small:?} of seeds 0 to {trials}");
    }

    #[test]
    fn a_shift_that_fixed_thresholds_miss_is_found() {
        let mut random = Random(1);
        let (reference, current) = (counts(&mut random, 10_000, 0.0), counts(&mut random, 2000, 0.3));
        let bins = pooled(&reference, &current).expect("bins");
        assert!(bins.psi() < 0.1 && bins.psi_p_value() < 1e-4 && bins.js_p_value() < 1e-4);
        assert!(w1(&reference, &current).expect("a distance").1 < 1e-4);
    }
}
