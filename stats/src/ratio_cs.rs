//! D3: asymptotic confidence sequences for the difference of a ratio Σy/Σx, such as cost per completed task or mean
//! latency.
//!
//! The standard error of each arm's ratio comes from the delta method (Deng et al., "Applying the Delta Method in
//! Metric Analytics", KDD 2018, eq. 4) or, for runs in sessions, from totals by random group ([`crate::clusters`]).
//! Arms are compared on the log scale. The normal-mixture boundary (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas,
//! "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024, theorem 2.2)
//! then holds at all times simultaneously, asymptotically: not before about 30 completed tasks per arm, which is
//! enforced.

use crate::interval::{Interval, RatioSums};
use crate::invalid::{Invalid, positive, share};
use crate::special::{ln_normal_cdf, student_as_normal};

/// Minimum units of the denominator in an arm: with fewer, the normal approximation fails.
pub const MIN_DENOMINATOR: f64 = 30.0;

/// Number of units at which the boundary is tightest, by default.
pub const TIGHTEST_AT: f64 = 5000.0;

/// An estimate with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimated value.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    /// Number of units (runs or completed tasks) behind it.
    pub units: f64,
    /// Degrees of freedom of the standard error; ∞ if it is estimated from single units.
    pub degrees: f64,
}

/// A one-sided or two-sided test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// Detects a rise only.
    One,
    /// Detects a rise or a fall.
    Two,
}

/// Returns ρ² of the boundary that is tightest at `tightest_at` units: (−2 ln a + ln(1 − 2 ln a)) / N (Waudby-Smith et
/// al., appendix B.2), a = α for two sides and 2α for one.
fn rho_squared(alpha: f64, tightest_at: f64, sides: Sides) -> f64 {
    let alpha = match sides {
        Sides::One => (2.0 * alpha).min(0.999),
        Sides::Two => alpha,
    };
    (-2.0 * alpha.ln() + (1.0 - 2.0 * alpha.ln()).ln()) / tightest_at
}

/// Returns the half-width of the confidence sequence in the unit of the estimate: eq. 2.7, or the one-sided boundary of
/// the same paper. `error` is the standard error after `units` units.
///
/// # Errors
/// Fails if an argument is out of range.
pub fn half_width(error: f64, units: f64, tightest_at: f64, alpha: f64, sides: Sides) -> Result<f64, Invalid> {
    let (units, tightest_at) = (positive("units", units)?, positive("tightest at", tightest_at)?);
    let alpha = share("alpha", alpha)?;
    if !(error >= 0.0 && error.is_finite()) {
        return Err(Invalid::new("standard error", error, "a finite number, not negative"));
    }
    let rho2 = rho_squared(alpha, tightest_at, sides);
    let spread = units * rho2 + 1.0;
    let log = match sides {
        Sides::One => (spread.sqrt() / (2.0 * alpha)).ln_1p(),
        Sides::Two => (spread.sqrt() / alpha).ln(),
    };
    Ok(error * (2.0 * spread / (units * rho2) * log).sqrt())
}

/// Returns log E for "the value exceeds `margin`", from the same normal mixture: with z = (value − margin)/error, r² n
/// z² / (2(n r² + 1)) − ½ ln(n r² + 1) for two sides; for one side, the mixture over positive effects only, which adds
/// ln 2Φ(r √n z / √(n r² + 1)). Finite degrees of freedom are accounted for by the normal deviate with the same tail
/// probability. 0 without a standard error.
///
/// # Errors
/// Fails if an argument is out of range.
pub fn log_e(estimate: &Estimate, margin: f64, tightest_at: f64, alpha: f64, sides: Sides) -> Result<f64, Invalid> {
    let tightest_at = positive("tightest at", tightest_at)?;
    let alpha = share("alpha", alpha)?;
    let Estimate { value, error, units, degrees } = *estimate;
    if !(error > 0.0 && error.is_finite() && value.is_finite() && units > 0.0) {
        return Ok(0.0);
    }
    let rho2 = rho_squared(alpha, tightest_at, sides);
    let z = (value - margin) / error;
    let z = if degrees.is_finite() { student_as_normal(z, degrees) } else { z };
    let spread = units * rho2 + 1.0;
    let both = rho2 * units * z * z / (2.0 * spread) - 0.5 * spread.ln();
    Ok(match sides {
        Sides::Two => both,
        Sides::One => both + std::f64::consts::LN_2 + ln_normal_cdf((rho2 * units / spread).sqrt() * z),
    })
}

/// Returns ln(Σy/Σx) with its standard error by the delta method. None without a positive ratio, below two units, or
/// with a denominator below [`MIN_DENOMINATOR`].
pub fn log_ratio(sums: &RatioSums) -> Option<Estimate> {
    let RatioSums { n, y, x, yy, xx, xy } = *sums;
    let ratio = y / x;
    if n < 2.0 || x < MIN_DENOMINATOR || !(ratio > 0.0 && ratio.is_finite()) {
        return None;
    }
    let residual = (yy - 2.0 * ratio * xy + ratio * ratio * xx).max(0.0);
    let error = (n / (n - 1.0) * residual).sqrt() / y;
    Some(Estimate { value: ratio.ln(), error, units: n, degrees: f64::INFINITY })
}

/// Returns ln(Σy/Σx) from totals by random group, which is valid for runs in sessions; `units` is the number of runs.
/// None as for [`log_ratio`], or if the lists differ in length.
#[expect(clippy::cast_precision_loss, reason = "a list of groups is short")]
pub fn log_ratio_of_groups(y: &[f64], x: &[f64], units: f64) -> Option<Estimate> {
    let (total_y, total_x) = (y.iter().sum::<f64>(), x.iter().sum::<f64>());
    let ratio = total_y / total_x;
    if y.len() != x.len() || y.len() < 2 || total_x < MIN_DENOMINATOR || !(ratio > 0.0 && ratio.is_finite()) {
        return None;
    }
    let groups = y.len() as f64;
    let residual: f64 = y.iter().zip(x).map(|(y, x)| (y - ratio * x).powi(2)).sum();
    let error = (groups / (groups - 1.0) * residual).sqrt() / total_y;
    Some(Estimate { value: ratio.ln(), error, units, degrees: groups - 1.0 })
}

/// Returns the mean of n values with its standard error.
pub fn mean(n: f64, sum: f64, squares: f64) -> Option<Estimate> {
    if n < 2.0 {
        return None;
    }
    let mean = sum / n;
    let variance = ((squares - sum * mean) / (n - 1.0)).max(0.0);
    Some(Estimate { value: mean, error: (variance / n).sqrt(), units: n, degrees: f64::INFINITY })
}

/// Returns canary minus baseline: variances add, units add, and degrees of freedom follow Welch and Satterthwaite.
pub fn difference(baseline: &Estimate, canary: &Estimate) -> Estimate {
    let (a, b) = (baseline.error.powi(2), canary.error.powi(2));
    let part = |square: f64, degrees: f64| if degrees.is_finite() { square * square / degrees } else { 0.0 };
    let parts = part(a, baseline.degrees) + part(b, canary.degrees);
    Estimate {
        value: canary.value - baseline.value,
        error: (a + b).sqrt(),
        units: baseline.units + canary.units,
        degrees: if parts > 0.0 { (a + b).powi(2) / parts } else { f64::INFINITY },
    }
}

/// Returns the interval that covers the true value at all times with probability 1 − `alpha`, asymptotically.
///
/// # Errors
/// Fails if an argument is out of range.
pub fn interval(estimate: &Estimate, tightest_at: f64, alpha: f64) -> Result<Interval, Invalid> {
    let half = half_width(estimate.error, estimate.units, tightest_at, alpha, Sides::Two)?;
    // Widens the boundary by the ratio of the Student and normal deviates with the same tail probability.
    let z = half / estimate.error.max(f64::MIN_POSITIVE);
    let wider =
        if estimate.degrees.is_finite() && z.is_finite() { z / student_as_normal(z, estimate.degrees) } else { 1.0 };
    Ok(Interval { low: estimate.value - half * wider, high: estimate.value + half * wider })
}

/// Decomposes the change of cost per completed task: d ln R = d ln(mean cost) − d ln(success rate). The arguments are
/// total cost, runs and completed tasks of the baseline and of the canary. None if one of them is not positive.
pub fn decompose(baseline: [f64; 3], canary: [f64; 3]) -> Option<(f64, f64)> {
    if baseline.iter().chain(&canary).any(|value| !(*value > 0.0 && value.is_finite())) {
        return None;
    }
    let change = |value: fn([f64; 3]) -> f64| (value(canary) / value(baseline)).ln();
    Some((change(|[cost, runs, _]| cost / runs), -change(|[_, runs, completed]| completed / runs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::GROUPS;
    use crate::testing::{Random, close};

    #[test]
    fn golden_values() {
        let half = |sides| half_width(1.0 / 1000_f64.sqrt(), 1000.0, 5000.0, 0.05, sides).expect("a width");
        close(half(Sides::One), 0.099_688_351_038_3);
        close(half(Sides::Two), 0.106_375_470_065_6);
    }

    #[test]
    fn evidence_passes_its_threshold_when_the_interval_leaves_the_margin() {
        let half = half_width(0.02, 3000.0, TIGHTEST_AT, 0.05, Sides::Two).expect("a width");
        let at = |value: f64| {
            let estimate = Estimate { value, error: 0.02, units: 3000.0, degrees: f64::INFINITY };
            log_e(&estimate, 0.0, TIGHTEST_AT, 0.05, Sides::Two).expect("log E")
        };
        close(at(half), 20_f64.ln());
        assert!(at(half * 0.99) < 20_f64.ln());
    }

    #[test]
    fn the_delta_method_is_that_of_the_plain_interval() {
        let sums = RatioSums { n: 500.0, y: 1300.0, x: 400.0, yy: 4200.0, xx: 400.0, xy: 1050.0 };
        let estimate = log_ratio(&sums).expect("an estimate");
        let plain = crate::interval::ratio_delta(&sums, 0.95).expect("an interval");
        close(estimate.error * (1300.0 / 400.0) * 1.959_963_984_540_054, (plain.high - plain.low) / 2.0);
    }

    #[test]
    fn without_an_estimate_there_is_no_evidence() {
        let few = RatioSums { n: 29.0, y: 100.0, x: 29.0, yy: 400.0, xx: 29.0, xy: 100.0 };
        assert_eq!(log_ratio(&few), None);
        assert_eq!(log_ratio(&RatioSums { n: 90.0, x: 90.0, xx: 90.0, ..RatioSums::default() }), None);
        assert_eq!(log_ratio_of_groups(&[1.0], &[50.0], 50.0), None);
        for estimate in [
            Estimate { value: 1.0, error: 0.0, units: 100.0, degrees: 31.0 },
            Estimate { value: f64::NAN, error: 1.0, units: 100.0, degrees: 31.0 },
            Estimate { value: 1.0, error: f64::INFINITY, units: 100.0, degrees: 31.0 },
        ] {
            close(log_e(&estimate, 0.0, TIGHTEST_AT, 0.05, Sides::One).expect("log E"), 0.0);
        }
        for value in [-1e6, -50.0, 0.0, 50.0, 1e6] {
            for degrees in [31.0, f64::INFINITY] {
                let estimate = Estimate { value, error: 1.0, units: 1e9, degrees };
                let found = log_e(&estimate, 0.0, TIGHTEST_AT, 0.01, Sides::One).expect("log E");
                assert!(found.is_finite(), "{value} at {degrees}: {found}");
            }
        }
        assert!(half_width(1.0, 0.0, 1.0, 0.05, Sides::One).is_err());
        assert!(half_width(-1.0, 1.0, 1.0, 0.05, Sides::One).is_err());
    }

    #[test]
    fn a_change_is_decomposed_exactly() {
        let (cost, success) = decompose([100.0, 1000.0, 900.0], [150.0, 1000.0, 600.0]).expect("parts");
        close(cost + success, (150.0_f64 / 600.0).ln() - (100.0_f64 / 900.0).ln());
        close(cost, 1.5_f64.ln());
        assert_eq!(decompose([0.0, 1.0, 1.0], [1.0; 3]), None);
    }

    #[test]
    fn few_degrees_of_freedom_widen_the_interval() {
        let of = |degrees| Estimate { value: 0.4, error: 0.1, units: 2000.0, degrees };
        let evidence = |degrees| log_e(&of(degrees), 0.0, TIGHTEST_AT, 0.01, Sides::One).expect("log E");
        assert!(evidence(31.0) < evidence(f64::INFINITY) - 0.5);
        let width = |degrees| interval(&of(degrees), TIGHTEST_AT, 0.01).expect("an interval").high;
        assert!(width(31.0) > width(f64::INFINITY));
        let both = difference(&of(31.0), &of(31.0));
        close(both.degrees, 62.0);
        close(both.error, 0.02_f64.sqrt());
    }

    /// Cost per completed task of an arm after `sessions` of ten identical runs each: totals by random group.
    struct Arm {
        cost: [f64; GROUPS],
        completed: [f64; GROUPS],
        runs: f64,
    }

    impl Arm {
        fn new() -> Self {
            Self { cost: [0.0; GROUPS], completed: [0.0; GROUPS], runs: 0.0 }
        }

        fn session(&mut self, random: &mut Random, factor: f64) {
            let group = (random.next() >> 59) as usize;
            let (level, success) = ((0.7 * random.normal()).exp(), 0.6 + 0.4 * random.uniform());
            for _ in 0..10 {
                self.cost[group] += factor * level * (0.3 * random.normal()).exp();
                self.completed[group] += f64::from(u8::from(random.uniform() < success));
                self.runs += 1.0;
            }
        }

        fn estimate(&self) -> Option<Estimate> {
            log_ratio_of_groups(&self.cost, &self.completed, self.runs)
        }
    }

    fn alarms(seed: u64, factor: f64) -> bool {
        let mut random = Random(seed);
        let (mut baseline, mut canary) = (Arm::new(), Arm::new());
        (0..100).any(|_| {
            for _ in 0..4 {
                baseline.session(&mut random, 1.0);
                canary.session(&mut random, factor);
            }
            let (Some(a), Some(b)) = (baseline.estimate(), canary.estimate()) else { return false };
            log_e(&difference(&a, &b), 0.0, TIGHTEST_AT, 0.05, Sides::One).expect("log E") >= 20_f64.ln()
        })
    }

    #[test]
    fn repeated_looks_at_runs_in_sessions_keep_the_false_alarm_rate() {
        let wrong = (0..300).filter(|seed| alarms(*seed, 1.0)).count();
        assert!(wrong <= 27, "{wrong} of 300 at alpha 0.05, seeds 0 to 300");
        let right = (0..30).filter(|seed| alarms(*seed, 1.4)).count();
        assert!(right >= 29, "{right} of 30, seeds 0 to 30");
    }
}
