//! Special functions and exact tail probabilities in the log domain, accurate for counts from 0 to 10⁹ and
//! probabilities down to e^−700 and below.
//!
//! Binomial and Poisson probabilities use Loader's saddle-point form ("Fast and Accurate Computation of Binomial
//! Probabilities", 2000), which keeps the digits that differences of ln Γ would lose. Tails are summed outward from
//! their largest term, so the number of steps is about the standard deviation.

use std::f64::consts::{LN_2, PI};

use crate::interval::{normal_quantile, normal_tail};

/// Terms smaller than this fraction of a sum no longer change it.
pub(crate) const NEGLIGIBLE: f64 = 1e-18;

/// ln √(2π).
const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// Returns δ(x) = ln Γ(x+1) − [(x+½) ln x − x + ln √(2π)] for x > 0: the error of Stirling's formula. From 15 on it
/// uses the series, below that the recurrence δ(x) = δ(x+1) + (x+½) ln(1+1/x) − 1.
pub(crate) fn stirling_error(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 15.0 {
        below += (x + 0.5) * (1.0 / x).ln_1p() - 1.0;
        x += 1.0;
    }
    let square = x * x;
    let series = (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / (1188.0 * square)) / square) / square) / square)
        / x;
    series + below
}

/// Returns ln Γ(x) for x > 0 with a relative error of about 1e-15.
pub fn ln_gamma(x: f64) -> f64 {
    (x - 0.5) * x.ln() - x + LN_SQRT_2PI + stirling_error(x)
}

/// Returns x ln(x/mean) + mean − x, the deviance of a count, without cancellation near its mean (Loader's `bd0`).
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = x - mean;
    if difference.abs() < 0.1 * (x + mean) {
        let v = difference / (x + mean);
        let (mut sum, mut power) = (difference * v, 2.0 * x * v);
        for odd in 1..1000_u32 {
            power *= v * v;
            let next = sum + power / f64::from(2 * odd + 1);
            if next == sum {
                break;
            }
            sum = next;
        }
        return sum;
    }
    x * (x / mean).ln() + mean - x
}

/// Returns ln of the probability of `k` in `n` at a rate `p`: ln C(n,k) p^k q^(n−k). The complement `q` is passed
/// separately to keep its digits. `k` and `n` may be real.
pub(crate) fn ln_binomial(k: f64, n: f64, p: f64, q: f64) -> f64 {
    if k <= 0.0 {
        return if n <= 0.0 { 0.0 } else { n * if p < 0.5 { (-p).ln_1p() } else { q.ln() } };
    }
    if k >= n {
        return n * if q < 0.5 { (-q).ln_1p() } else { p.ln() };
    }
    let rest = n - k;
    let errors = stirling_error(n) - stirling_error(k) - stirling_error(rest);
    errors - deviance(k, n * p) - deviance(rest, n * q) - 0.5 * (2.0 * PI * k * (rest / n)).ln()
}

/// Returns ln of the Poisson probability of `k`: ln(mean^k e^−mean / k!). `k` may be real.
pub(crate) fn ln_poisson(k: f64, mean: f64) -> f64 {
    if k <= 0.0 {
        return -mean;
    }
    -stirling_error(k) - deviance(k, mean) - 0.5 * (2.0 * PI * k).ln()
}

/// Returns ln(e^a + e^b).
pub fn ln_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Returns ln Σ e^x; −∞ for an empty list.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if greatest.is_infinite() {
        return greatest;
    }
    greatest + values.iter().map(|value| (value - greatest).exp()).sum::<f64>().ln()
}

/// Returns ln of the mean of e^x; 0, which is no evidence, for an empty list.
#[expect(clippy::cast_precision_loss, reason = "a list in memory is shorter than 2^53")]
pub fn log_mean_exp(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { log_sum_exp(values) - (values.len() as f64).ln() }
}

/// Returns ln(1 − e^x) for x ≤ 0, accurate at both ends (Mächler 2012).
pub(crate) fn ln_complement(x: f64) -> f64 {
    if x >= 0.0 {
        f64::NEG_INFINITY
    } else if x > -LN_2 {
        (-x.exp_m1()).ln()
    } else {
        (-x.exp()).ln_1p()
    }
}

/// Sums 1 + r₁ + r₁r₂ + … until the terms are negligible; the ratios must decrease.
fn outward(mut ratio: impl FnMut(f64) -> f64) -> f64 {
    let (mut sum, mut term, mut step) = (1.0, 1.0, 0.0);
    loop {
        term *= ratio(step);
        if term.is_nan() || term <= NEGLIGIBLE * sum {
            return sum;
        }
        sum += term;
        step += 1.0;
    }
}

/// Returns ln P(Binomial(n, p) ≥ k), exactly; equals ln I_p(k, n−k+1).
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn ln_binomial_tail(k: u64, n: u64, p: f64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    if k <= 0.0 || p >= 1.0 {
        return if k > n { f64::NEG_INFINITY } else { 0.0 };
    }
    if k > n || p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let q = 1.0 - p;
    let odds = p / q;
    if k > n * p {
        let sum = outward(|step| (n - k - step) / (k + step + 1.0) * odds);
        return (ln_binomial(k, n, p, q) + sum.ln()).min(0.0);
    }
    let last = k - 1.0;
    let sum = outward(|step| (last - step) / (n - last + step + 1.0) / odds);
    ln_complement(ln_binomial(last, n, p, q) + sum.ln())
}

/// Returns ln P(Poisson(mean) ≤ k), exactly.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn ln_poisson_lower_tail(k: u64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    let k = k as f64;
    if k < mean {
        let sum = outward(|step| (k - step) / mean);
        return (ln_poisson(k, mean) + sum.ln()).min(0.0);
    }
    let sum = outward(|step| mean / (k + step + 2.0));
    ln_complement(ln_poisson(k + 1.0, mean) + sum.ln())
}

/// Returns P(Gamma(shape) > x) at scale 1, the regularised upper incomplete gamma function Q(shape, x), by its series
/// or its continued fraction (Numerical Recipes, 3rd ed., 6.2).
pub fn gamma_tail(shape: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = ln_poisson(shape, x);
    if x < shape + 1.0 {
        let sum = outward(|step| x / (shape + step + 1.0));
        return 1.0 - (front + sum.ln()).exp().min(1.0);
    }
    let (mut b, mut c) = (x + 1.0 - shape, 1.0 / f64::MIN_POSITIVE);
    let mut d = 1.0 / b;
    let mut fraction = d;
    for step in 1..100_000_u32 {
        let step = f64::from(step);
        let a = -step * (step - shape);
        b += 2.0;
        d = 1.0 / nonzero(a * d + b);
        c = nonzero(b + a / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (front + (shape * fraction).ln()).exp()
}

fn nonzero(x: f64) -> f64 {
    if x.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { x }
}

/// Returns P(χ² > x) for `degrees` degrees of freedom.
pub fn chi_square_tail(x: f64, degrees: f64) -> f64 {
    gamma_tail(degrees / 2.0, x / 2.0)
}

/// Returns the x that χ² exceeds with probability `p`, by bisection.
pub fn chi_square_critical(p: f64, degrees: f64) -> f64 {
    2.0 * gamma_critical(p, degrees / 2.0)
}

/// Returns the x that Gamma(shape) exceeds with probability `p`, by bisection.
pub fn gamma_critical(p: f64, shape: f64) -> f64 {
    let (mut low, mut high) = (0.0, shape + 10.0);
    while gamma_tail(shape, high) > p {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if gamma_tail(shape, middle) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Returns ln P(Z ≤ x) for the standard normal distribution.
pub(crate) fn ln_normal_cdf(x: f64) -> f64 {
    if x > -35.0 {
        return normal_tail(-x).ln();
    }
    // Below -35 the tail underflows: use the continued fraction of Mills' ratio, in logs.
    let x = -x;
    let fraction = (1..=30_u32).rev().fold(0.0, |rest, n| f64::from(n) / (x + rest));
    -x * x / 2.0 - LN_SQRT_2PI - (x + fraction).ln()
}

/// Returns ln I_x(a, b), the regularised incomplete beta function, by its continued fraction (Numerical Recipes, 3rd
/// ed., 6.4). `y` is 1 − x, passed separately to keep its digits.
pub(crate) fn ln_beta(x: f64, y: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if y <= 0.0 {
        return 0.0;
    }
    // x^a y^b / B(a, b), written as a binomial probability of a in a + b.
    let front = ln_binomial(a, a + b, x, y) + (a * (b / (a + b))).ln();
    if x < (a + 1.0) / (a + b + 2.0) {
        (front + (beta_fraction(x, a, b) / a).ln()).min(0.0)
    } else {
        ln_complement(front + (beta_fraction(y, b, a) / b).ln())
    }
}

/// Returns P(T > t) for Student's t distribution: ½ I_{ν/(ν+t²)}(ν/2, ½) for t ≥ 0.
pub(crate) fn student_tail(t: f64, degrees: f64) -> f64 {
    if t < 0.0 {
        return 1.0 - student_tail(-t, degrees);
    }
    let (x, y) = (degrees / (degrees + t * t), t * t / (degrees + t * t));
    0.5 * ln_beta(x, y, degrees / 2.0, 0.5).exp()
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let (mut c, mut d) = (1.0, 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    // The number of steps is about the square root of the larger parameter.
    for m in 1..1_000_000_u32 {
        let m = f64::from(m);
        for numerator in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / nonzero(1.0 + numerator * d);
            c = nonzero(1.0 + numerator / c);
            fraction *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// Returns the normal deviate with the same tail probability as Student's `t` with `degrees` degrees of freedom.
pub fn student_as_normal(t: f64, degrees: f64) -> f64 {
    let tail = student_tail(t.abs(), degrees).max(1e-300);
    -normal_quantile(tail) * t.signum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    #[test]
    fn gamma_matches_known_values() {
        close(ln_gamma(0.5), PI.sqrt().ln());
        close(ln_gamma(1.0), 0.0);
        close(ln_gamma(7.0), 720_f64.ln());
        close(ln_gamma(100.5), 361.435_540_467_777_4);
        close(ln_gamma(1e9), 19_723_265_827.503_716);
    }

    #[test]
    fn tails_match_scipy() {
        // scipy 1.17: binom.logsf(k-1, n, p), poisson.logcdf, chi2.isf, chi2.sf, t.sf.
        close(ln_binomial_tail(60, 1000, 0.04), -6.492_138_648_799_278);
        close(ln_binomial_tail(10, 1000, 0.04), -2.382_604_671_953_953_6e-9);
        close(ln_poisson_lower_tail(3, 20.0), -12.651_197_991_859_789);
        close(chi_square_critical(0.01, 9.0), 21.665_994_333_461_924);
        close(chi_square_tail(21.665_994_333_461_924, 9.0), 0.01);
    }

    #[test]
    fn tails_of_extreme_counts_are_numbers() {
        for n in [0, 1, 2, 1_000_000_000] {
            for k in [0, 1, 2, n / 2, n] {
                for p in [0.0, 1e-12, 0.5, 1.0 - 1e-12, 1.0] {
                    let tail = ln_binomial_tail(k, n, p);
                    assert!(!tail.is_nan() && tail <= 0.0, "P(Bin({n}, {p}) >= {k}): {tail}");
                }
            }
        }
        for mean in [0.0, 1e-9, 1.0, 1e9] {
            for k in [0, 1, 1_000_000_000, 2_000_000_000] {
                let tail = ln_poisson_lower_tail(k, mean);
                assert!(!tail.is_nan() && tail <= 0.0, "P(Poisson({mean}) <= {k}): {tail}");
            }
        }
    }

    #[test]
    fn tails_are_sums_of_probabilities() {
        let (n, p) = (30_u64, 0.2);
        let mut tail = 0.0;
        for k in (0..=n).rev() {
            tail += ln_binomial(f64::from(u32::try_from(k).unwrap()), 30.0, p, 1.0 - p).exp();
            close(ln_binomial_tail(k, n, p).exp(), tail);
        }
    }

    #[test]
    fn an_empty_log_sum_is_minus_infinity_and_nothing_overflows() {
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_mean_exp(&[]), 0.0);
        close(log_sum_exp(&[1e6, 1e6]), 1e6 + LN_2);
        close(log_mean_exp(&[-1e6, -1e6]), -1e6);
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        close(ln_add(f64::NEG_INFINITY, 3.0), 3.0);
    }

    #[test]
    fn student_becomes_normal() {
        close(student_as_normal(0.0, 31.0), 0.0);
        // scipy: norm.isf(t.sf(4.0, 31)) and t.sf(4, 31).
        close(student_tail(4.0, 31.0), 1.826_525_267_823_217e-4);
        assert!((student_as_normal(3.0, 1e7) - 3.0).abs() < 1e-5);
        assert!(student_as_normal(5.0, 31.0) < 5.0 && student_as_normal(-5.0, 31.0) > -5.0);
        close(ln_normal_cdf(-40.0), -804.608_442_013_753_8);
        close(ln_normal_cdf(-34.0), -582.446_162_246_871_8);
    }
}
