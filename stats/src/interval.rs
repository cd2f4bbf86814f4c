//! Confidence intervals for rates, ratios and means, from counts and sums.

use std::cell::Cell;

use crate::special::ln_gamma;

/// A two-sided interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Sums over units (runs, or clusters of runs), used for the interval of a ratio Σy/Σx.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RatioSums {
    /// Units.
    pub n: f64,
    /// Σ y.
    pub y: f64,
    /// Σ x.
    pub x: f64,
    /// Σ y².
    pub yy: f64,
    /// Σ x².
    pub xx: f64,
    /// Σ x·y.
    pub xy: f64,
}

/// Returns Wilson's score interval for a rate (Wilson, "Probable inference", JASA 22, 1927). Unlike the normal
/// approximation, it is accurate for small counts and for rates near 0 and 1. None without a total.
pub fn wilson(successes: f64, total: f64, confidence: f64) -> Option<Interval> {
    if total.is_nan() || total <= 0.0 || !(0.0..=total).contains(&successes) {
        return None;
    }
    let z = two_sided(confidence)?;
    let rate = successes / total;
    let shrink = 1.0 + z * z / total;
    let middle = (rate + z * z / (2.0 * total)) / shrink;
    let half = z / shrink * (rate * (1.0 - rate) / total + z * z / (4.0 * total * total)).sqrt();
    // At the ends the formula is exact in theory and off by rounding in practice.
    let low = if successes == 0.0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if successes == total { 1.0 } else { (middle + half).min(1.0) };
    Some(Interval { low, high })
}

/// Returns the interval of Σy/Σx by the delta method (Deng et al., "Applying the Delta Method in Metric Analytics", KDD
/// 2018, eq. 4): se² = n/(n−1) · Σ(y − Rx)² / (Σx)². None below two units or without a denominator.
pub fn ratio_delta(sums: &RatioSums, confidence: f64) -> Option<Interval> {
    let RatioSums { n, y, x, yy, xx, xy } = *sums;
    if n < 2.0 || x == 0.0 {
        return None;
    }
    let ratio = y / x;
    let residual = (yy - 2.0 * ratio * xy + ratio * ratio * xx).max(0.0);
    let half = two_sided(confidence)? * (n / (n - 1.0) * residual).sqrt() / x.abs();
    Some(Interval { low: ratio - half, high: ratio + half })
}

/// Returns the interval of Σy/Σx by Fieller's theorem (Fieller, "Some problems in interval estimation", JRSS B 16,
/// 1954), which also holds for an uncertain denominator. None if the denominator does not differ significantly from
/// zero: then every ratio is possible.
pub fn ratio_fieller(sums: &RatioSums, confidence: f64) -> Option<Interval> {
    let RatioSums { n, y, x, yy, xx, xy } = *sums;
    if n < 2.0 || x == 0.0 {
        return None;
    }
    let variance = |square: f64, a: f64, b: f64| (square - a * b / n) / (n - 1.0) / n;
    let (mean_y, mean_x) = (y / n, x / n);
    let (var_y, var_x, cov) = (variance(yy, y, y).max(0.0), variance(xx, x, x).max(0.0), variance(xy, x, y));
    let z2 = two_sided(confidence)?.powi(2);
    let a = mean_x * mean_x - z2 * var_x;
    let b = mean_x * mean_y - z2 * cov;
    let c = mean_y * mean_y - z2 * var_y;
    if a <= 0.0 {
        return None;
    }
    let root = (b * b - a * c).max(0.0).sqrt();
    Some(Interval { low: (b - root) / a, high: (b + root) / a })
}

/// Returns the interval of a mean by the central limit theorem. None below two values.
pub fn mean(n: f64, sum: f64, squares: f64, confidence: f64) -> Option<Interval> {
    if n < 2.0 {
        return None;
    }
    let mean = sum / n;
    let variance = ((squares - sum * mean) / (n - 1.0)).max(0.0);
    let half = two_sided(confidence)? * (variance / n).sqrt();
    Some(Interval { low: mean - half, high: mean + half })
}

/// Returns the interval of a rate of rare events, `count` in `exposure` units, by Byar's approximation to the exact
/// Poisson limits (Breslow & Day, "Statistical Methods in Cancer Research" II, 1987, p. 69). It is within 1 % of them
/// from 2 events on.
pub fn poisson_rate(count: f64, exposure: f64, confidence: f64) -> Option<Interval> {
    if exposure.is_nan() || exposure <= 0.0 || count < 0.0 {
        return None;
    }
    let z = two_sided(confidence)?;
    let limit = |count: f64, z: f64| count * (1.0 - 1.0 / (9.0 * count) + z / (3.0 * count.sqrt())).powi(3);
    let low = if count == 0.0 { 0.0 } else { limit(count, -z).max(0.0) };
    Some(Interval { low: low / exposure, high: limit(count + 1.0, z) / exposure })
}

/// Returns the z of a two-sided interval. None if the confidence is not between 0 and 1.
pub fn two_sided(confidence: f64) -> Option<f64> {
    (confidence > 0.0 && confidence < 1.0).then(|| normal_quantile(0.5 + confidence / 2.0))
}

/// Returns a quantile of the standard normal distribution: Acklam's rational approximation, refined to about 1e-15 by
/// one step of Halley's method.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    const LOW: f64 = 0.024_25;
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let x = if p < LOW {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    } else {
        let q = p - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    };
    let error = normal_tail(-x) - p;
    let step = error * (2.0 * std::f64::consts::PI).sqrt() * (x * x / 2.0).exp();
    x - step / (1.0 + x * step / 2.0)
}

/// Returns P(Z > x) for any x: by the continued fraction of Mills' ratio in the tail (Abramowitz & Stegun 26.2.14), by
/// the series (26.2.11) near the middle.
pub(crate) fn normal_tail(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - normal_tail(-x);
    }
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let fraction = (1..=120).rev().fold(0.0, |rest, n| f64::from(n) / (x + rest));
    density / (x + fraction)
}

thread_local! {
    /// The last quantile of Student's t distribution: probability, degrees of freedom and quantile. Statements ask for the same
    /// one for each of their rows, and it takes thousands of powers.
    static LAST_QUANTILE: Cell<[f64; 3]> = const { Cell::new([f64::NAN; 3]) };
}

/// Returns a quantile of Student's t distribution: Hill's expansion (Algorithm 396, CACM 13, 1970) refined by Newton's
/// method on the exact distribution function; within 1e-9 from 3 degrees of freedom on.
pub fn student_quantile(p: f64, degrees: f64) -> f64 {
    if p < 0.5 {
        return -student_quantile(1.0 - p, degrees);
    }
    let [known_p, known_degrees, known] = LAST_QUANTILE.get();
    if known_p.to_bits() == p.to_bits() && known_degrees.to_bits() == degrees.to_bits() {
        return known;
    }
    let found = upper_student_quantile(p, degrees);
    LAST_QUANTILE.set([p, degrees, found]);
    found
}

fn upper_student_quantile(p: f64, degrees: f64) -> f64 {
    let z = normal_quantile(p);
    let mut t = z
        + (z.powi(3) + z) / (4.0 * degrees)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * degrees * degrees);
    let scale =
        (ln_gamma((degrees + 1.0) / 2.0) - ln_gamma(degrees / 2.0)).exp() / (degrees * std::f64::consts::PI).sqrt();
    let density = |t: f64| scale * (1.0 + t * t / degrees).powf(-(degrees + 1.0) / 2.0);
    for _ in 0..8 {
        // Simpson's rule from 0 to t: smooth and short, so 400 steps give 1e-12.
        let steps = 400;
        let width = t / f64::from(steps);
        let inner: f64 = (1..steps).map(|n| density(f64::from(n) * width) * if n % 2 == 1 { 4.0 } else { 2.0 }).sum();
        let below = 0.5 + (density(0.0) + inner + density(t)) * width / 3.0;
        t -= (below - p) / density(t);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, golden: f64) {
        assert!((found - golden).abs() <= 1e-9 * golden.abs().max(1.0), "{found} instead of {golden}");
    }

    #[test]
    fn quantiles_of_the_normal_and_students_distribution_match_tables() {
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(0.995), 2.575_829_303_548_901);
        close(normal_quantile(1e-6), -4.753_424_308_822_899);
        close(normal_quantile(0.5), 0.0);
        close(student_quantile(0.975, 31.0), 2.039_513_446_396_408);
        close(student_quantile(0.975, 10.0), 2.228_138_851_964_939);
        close(student_quantile(0.95, 5.0), 2.015_048_372_669_157);
        close(student_quantile(0.05, 5.0), -2.015_048_372_669_157);
        close(student_quantile(0.975, 31.0), 2.039_513_446_396_408);
    }

    #[test]
    fn wilson_matches_its_worked_example_and_holds_at_the_ends() {
        // Newcombe, Statistics in Medicine 17, 1998, table I: 81/263, 15/148, 0/20, 1/29 (method 3).
        for (s, n, low, high) in [
            (81.0, 263.0, 0.2553, 0.3662),
            (15.0, 148.0, 0.0624, 0.1605),
            (0.0, 20.0, 0.0, 0.1611),
            (1.0, 29.0, 0.0061, 0.1718),
        ] {
            let found = wilson(s, n, 0.95).expect("an interval");
            assert!((found.low - low).abs() < 5e-5 && (found.high - high).abs() < 5e-5, "{s}/{n}: {found:?}");
        }
        assert_eq!(wilson(5.0, 5.0, 0.95).map(|interval| interval.high), Some(1.0));
        assert_eq!(wilson(0.0, 0.0, 0.95), None);
        assert_eq!(wilson(3.0, 2.0, 0.95), None);
    }

    #[test]
    fn delta_and_fieller_agree_if_the_denominator_is_precise() {
        let mut sums = RatioSums::default();
        for n in 0..1000 {
            let (y, x) = (f64::from(n % 7) + 1.0, f64::from(n % 3) + 1.0);
            sums.n += 1.0;
            sums.y += y;
            sums.x += x;
            sums.yy += y * y;
            sums.xx += x * x;
            sums.xy += x * y;
        }
        let delta = ratio_delta(&sums, 0.95).expect("delta");
        let fieller = ratio_fieller(&sums, 0.95).expect("Fieller");
        assert!((delta.low - fieller.low).abs() < 5e-3 && (delta.high - fieller.high).abs() < 5e-3);
        let ratio = sums.y / sums.x;
        assert!(delta.low < ratio && ratio < delta.high);
    }

    #[test]
    fn a_denominator_that_may_be_zero_has_no_fieller_interval() {
        let sums = RatioSums { n: 10.0, y: 5.0, x: 1.0, yy: 5.0, xx: 1.0, xy: 0.0 };
        assert_eq!(ratio_fieller(&sums, 0.95), None);
    }

    #[test]
    fn poisson_limits_are_near_the_exact_ones() {
        // Exact 95 % limits of 10 events: 4.7954, 18.3904 (Garwood 1936).
        let found = poisson_rate(10.0, 1.0, 0.95).expect("an interval");
        assert!((found.low / 4.7954 - 1.0).abs() < 0.01 && (found.high / 18.3904 - 1.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn a_mean_of_equal_values_has_no_width() {
        assert_eq!(mean(4.0, 8.0, 16.0, 0.95), Some(Interval { low: 2.0, high: 2.0 }));
    }
}
