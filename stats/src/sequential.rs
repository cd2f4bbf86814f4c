//! Evidence that remains valid however often it is inspected: e-processes, e-detectors, and the sums they are built
//! from.
//!
//! An e-process E has expectation at most 1 at every stopping time under the null hypothesis, so P(E ever ≥ 1/α) ≤ α
//! (Ville's inequality; Ramdas, Grünwald, Vovk, Shafer, "Game-Theoretic Statistics and Safe Anytime-Valid Inference",
//! Statistical Science 38, 2023). All values here are logarithms, in nats.
//!
//! An e-process of this crate is a mixture over a grid of alternatives: each block of runs contributes a list of
//! log-increments, one per grid point; the lists of all blocks and strata are summed; E is the mean of the
//! exponentials. [`EvidenceSums`] holds these sums exactly, as integers, so that any order and grouping give the same
//! bits and a correction cancels exactly what it replaces.
//!
//! [`EDetector`] detects a change at an unknown time: the e-SR and e-CUSUM procedures of Shin, Ramdas, Rinaldo
//! ("E-detectors: a nonparametric framework for sequential change detection", NEJSDS 2, 2023, eq. 10 and 11). With
//! threshold A, the mean number of updates between false alarms is at least A.

use crate::invalid::{Invalid, positive, share};
use crate::pack::{Pack, Packer, Unpacker};
use crate::packed;
use crate::special::{ln_add, log_mean_exp, log_sum_exp};

/// 2⁶⁴: evidence is summed in units of 2⁻⁶⁴ nats.
const UNITS: f64 = 18_446_744_073_709_551_616.0;

/// Bound of a log-increment, about 10¹³ nats: sums stay within the 38 decimal digits of Arrow's decimals.
const LIMIT: i128 = 1 << 108;

/// A real number in units of 2⁻⁶⁴, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FixedPoint(pub i128);

/// Sums of log-increments over a grid of alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceSums {
    sums: Vec<FixedPoint>,
}

/// An e-SR and an e-CUSUM over the same increments, as logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct EDetector {
    components: Vec<Component>,
}

/// One grid point of a detector.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Component {
    /// ln of the Shiryaev–Roberts statistic: the sum over possible change points of the product since then.
    shiryaev_roberts: f64,
    /// ln of Page's statistic: the maximum over possible change points of the product since then.
    cusum: f64,
    /// Updates since the most likely change point according to the CUSUM.
    since: u64,
}

packed!(EvidenceSums { sums });
packed!(EDetector { components });
packed!(Component { shiryaev_roberts, cusum, since });

impl Pack for FixedPoint {
    fn pack(&self, to: &mut Packer) {
        self.0.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Self(i128::unpack(from))
    }
}

/// Returns the log E at which an e-process of level `alpha` alarms: ln(1/α).
///
/// # Errors
/// Fails if `alpha` is not between 0 and 1.
pub fn alarm_threshold(alpha: f64) -> Result<f64, Invalid> {
    Ok(-share("alpha", alpha)?.ln())
}

/// Returns the threshold of a detector, ln A with A = series × updates / alarms, so that `series` detectors, each
/// updated `updates_a_month` times a month, give at most `false_alarms_a_month` false alarms together on average.
///
/// # Errors
/// Fails if an argument is not above 0.
pub fn detector_threshold(series: f64, updates_a_month: f64, false_alarms_a_month: f64) -> Result<f64, Invalid> {
    let updates = positive("series", series)? * positive("updates a month", updates_a_month)?;
    Ok((updates / positive("false alarms a month", false_alarms_a_month)?).ln().max(0.0))
}

/// Returns an anytime-valid p-value for an e-value: min(1, 1/E).
pub fn p_value(log_e: f64) -> f64 {
    (-log_e).exp().min(1.0)
}

/// Returns ln(½ E_common + ½ mean of E_stratum), which finds a small change in all strata as well as a large change in
/// one. A mean of e-processes is an e-process under any dependence. The order of the strata affects only rounding;
/// callers keep one order.
pub fn stratified_log_e<'a>(strata: impl IntoIterator<Item = &'a EvidenceSums>) -> f64 {
    let mut common = EvidenceSums::default();
    let mut alone = Vec::new();
    for stratum in strata {
        common.merge(stratum);
        alone.push(stratum.log_e());
    }
    if alone.is_empty() {
        return 0.0;
    }
    log_mean_exp(&[common.log_e(), log_mean_exp(&alone)])
}

// === impl FixedPoint ===

impl FixedPoint {
    /// Rounds to the nearest multiple of 2⁻⁶⁴. Values beyond about ±10¹³ are clamped; NaN becomes 0.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, and is clamped after")]
    pub fn new(value: f64) -> Self {
        Self(((value * UNITS).round() as i128).clamp(-LIMIT, LIMIT))
    }

    /// Converts to a float.
    #[expect(clippy::cast_precision_loss, reason = "rounding to a double is intended")]
    pub fn value(self) -> f64 {
        self.0 as f64 / UNITS
    }

    /// Adds and saturates at the ends of the range.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

// === impl EvidenceSums ===

impl EvidenceSums {
    /// Restores stored sums.
    pub fn from_sums(sums: Vec<FixedPoint>) -> Self {
        Self { sums }
    }

    /// Returns the sums, one per grid point; empty before the first increment.
    pub fn sums(&self) -> &[FixedPoint] {
        &self.sums
    }

    /// Adds the increments of a block. A shorter list counts as padded with 0, which is no evidence.
    pub fn add(&mut self, increments: &[f64]) {
        self.merge_sums(increments.iter().map(|value| FixedPoint::new(*value)));
    }

    /// Subtracts the increments of a block.
    pub fn remove(&mut self, increments: &[f64]) {
        self.merge_sums(increments.iter().map(|value| FixedPoint(-FixedPoint::new(*value).0)));
    }

    /// Adds the sums of another.
    pub fn merge(&mut self, other: &Self) {
        self.merge_sums(other.sums.iter().copied());
    }

    fn merge_sums(&mut self, other: impl Iterator<Item = FixedPoint>) {
        for (place, value) in other.enumerate() {
            match self.sums.get_mut(place) {
                Some(sum) => *sum = sum.plus(value),
                None => self.sums.push(value),
            }
        }
    }

    /// Returns ln E, the mean over the grid; 0 without evidence.
    pub fn log_e(&self) -> f64 {
        log_mean_exp(&self.sums.iter().map(|sum| sum.value()).collect::<Vec<_>>())
    }

    /// Returns the index of the grid point that explains the runs best; none before the first increment.
    pub fn likeliest(&self) -> Option<usize> {
        (0..self.sums.len()).max_by_key(|place| (self.sums[*place], std::cmp::Reverse(*place)))
    }
}

// === impl EDetector ===

impl EDetector {
    /// Creates a detector over a grid of `points` alternatives.
    pub fn new(points: usize) -> Self {
        let none = f64::NEG_INFINITY;
        let start = Component { shiryaev_roberts: none, cusum: none, since: 0 };
        Self { components: vec![start; points] }
    }

    /// Adds the increments of the next block. A missing or non-finite increment counts as 0.
    pub fn update(&mut self, increments: &[f64]) {
        for (place, component) in self.components.iter_mut().enumerate() {
            let increment = increments.get(place).copied().filter(|value| value.is_finite()).unwrap_or(0.0);
            component.update(increment);
        }
    }

    /// Returns ln of the mixture e-SR, which alarms when it reaches [`detector_threshold`]; −∞ before the first block.
    pub fn log_shiryaev_roberts(&self) -> f64 {
        self.mixture(|component| component.shiryaev_roberts)
    }

    /// Returns ln of the mixture e-CUSUM, which never exceeds the e-SR; −∞ before the first block.
    pub fn log_cusum(&self) -> f64 {
        self.mixture(|component| component.cusum)
    }

    /// Returns the number of blocks since the most likely change point, by the grid point with the greatest CUSUM; none
    /// if no change is more likely than any.
    pub fn blocks_since_change(&self) -> Option<u64> {
        let best = self.components.iter().max_by(|a, b| a.cusum.total_cmp(&b.cusum))?;
        (best.cusum > 0.0).then_some(best.since)
    }

    fn mixture(&self, statistic: impl Fn(&Component) -> f64) -> f64 {
        if self.components.is_empty() {
            return f64::NEG_INFINITY;
        }
        log_mean_exp(&self.components.iter().map(statistic).collect::<Vec<_>>())
    }
}

// === impl Component ===

impl Component {
    fn update(&mut self, increment: f64) {
        self.shiryaev_roberts = ln_add(0.0, self.shiryaev_roberts) + increment;
        // A product below 1 is worse than starting again.
        self.since = if self.cusum > 0.0 { self.since + 1 } else { 1 };
        self.cusum = self.cusum.max(0.0) + increment;
    }
}

/// Accumulates ln Σ e^x over any number of values, accurate to the last few bits and independent of their order: values
/// are rounded to integers by binade, and the integers are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSum {
    /// Binary exponent and sum of mantissas in units of 2⁻⁶², ascending; at most [`BINADES`] below the greatest.
    binades: std::collections::BTreeMap<i64, i128>,
    /// Number of values added, including −∞.
    count: u64,
    /// True once +∞ was added.
    infinite: bool,
}

/// Binades below the greatest that can still change a double: 64 bits of mantissa, 64 bits of count, and a reserve.
const BINADES: i64 = 160;

/// 2⁶².
const MANTISSA: f64 = 4_611_686_018_427_387_904.0;

// === impl LogSum ===

impl LogSum {
    /// Adds a value. NaN is ignored; values beyond ±6·10¹⁸ are clamped, which no real evidence reaches.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        self.count += 1;
        if value == f64::INFINITY {
            self.infinite = true;
        }
        if value.is_infinite() {
            return;
        }
        let doublings = value * std::f64::consts::LOG2_E;
        let binade = doublings.floor();
        let mantissa = ((doublings - binade).exp2() * MANTISSA).round() as i128;
        *self.binades.entry(binade as i64).or_insert(0) += mantissa;
        self.prune();
    }

    /// Adds the values of another.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.infinite |= other.infinite;
        for (binade, mantissas) in &other.binades {
            let sum = self.binades.entry(*binade).or_insert(0);
            *sum = sum.saturating_add(*mantissas);
        }
        self.prune();
    }

    /// Binades too small to matter next to the greatest can be dropped at any time: the result ignores them as well.
    fn prune(&mut self) {
        if let Some((greatest, _)) = self.binades.last_key_value() {
            let least = greatest.saturating_sub(BINADES);
            while self.binades.first_key_value().is_some_and(|(binade, _)| *binade < least) {
                self.binades.pop_first();
            }
        }
    }

    /// Returns the number of values added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns ln Σ e^x; −∞ without values.
    #[expect(clippy::cast_precision_loss, reason = "rounding to a double is intended")]
    pub fn log_sum(&self) -> f64 {
        if self.infinite {
            return f64::INFINITY;
        }
        let terms: Vec<f64> = self
            .binades
            .iter()
            .map(|(binade, mantissas)| (*binade as f64) * std::f64::consts::LN_2 + (*mantissas as f64 / MANTISSA).ln())
            .collect();
        log_sum_exp(&terms)
    }

    /// Returns ln of the mean of e^x; none without values.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn log_mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.log_sum() - (self.count as f64).ln())
    }

    /// Returns the state, from which [`LogSum::from_parts`] restores it: count, whether +∞ was added, and pairs of
    /// binade and mantissas.
    pub fn parts(&self) -> (u64, bool, Vec<(i64, i128)>) {
        (self.count, self.infinite, self.binades.iter().map(|(binade, sum)| (*binade, *sum)).collect())
    }

    /// Restores the state that [`LogSum::parts`] returned.
    pub fn from_parts(count: u64, infinite: bool, binades: impl IntoIterator<Item = (i64, i128)>) -> Self {
        Self { binades: binades.into_iter().collect(), count, infinite }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::close;

    #[test]
    fn thresholds_are_those_of_ville_and_of_the_run_length() {
        close(alarm_threshold(0.01).expect("a threshold"), 100_f64.ln());
        // 100 series with 8,640 five-minute blocks a month each, and two false alarms together.
        close(detector_threshold(100.0, 8640.0, 2.0).expect("a threshold"), 432_000_f64.ln());
        assert!(alarm_threshold(0.0).is_err() && alarm_threshold(f64::NAN).is_err());
        assert!(detector_threshold(0.0, 1.0, 1.0).is_err() && detector_threshold(1.0, 1.0, 0.0).is_err());
        close(p_value(100_f64.ln()), 0.01);
        close(p_value(-3.0), 1.0);
    }

    #[test]
    fn fixed_point_sums_saturate() {
        close(FixedPoint::new(1.25).value(), 1.25);
        assert_eq!(FixedPoint::new(f64::NAN), FixedPoint(0));
        let mut evidence = EvidenceSums::default();
        (0..3).for_each(|_| evidence.add(&[f64::INFINITY, f64::NEG_INFINITY]));
        assert!(evidence.log_e().is_finite() && evidence.log_e() > 1e12, "{}", evidence.log_e());
        // Arrow's decimals hold 38 digits.
        assert!(evidence.sums()[0].0 < 10_i128.pow(38));
        assert_eq!(EvidenceSums::default().log_e(), 0.0);
        assert_eq!(EvidenceSums::default().likeliest(), None);
    }

    #[test]
    fn strata_are_found_together_and_alone() {
        let one = EvidenceSums::from_sums(vec![FixedPoint::new(10.0)]);
        let none = EvidenceSums::from_sums(vec![FixedPoint::new(-1.0)]);
        let found = stratified_log_e([&one, &none, &none]);
        let by_hand = (0.5 * 8_f64.exp() + 0.5 * (10_f64.exp() + 2.0 * (-1_f64).exp()) / 3.0).ln();
        close(found, by_hand);
        assert_eq!(stratified_log_e([]), 0.0);
    }

    #[test]
    fn the_cusum_locates_the_change_point() {
        let mut detector = EDetector::new(1);
        assert_eq!(detector.log_shiryaev_roberts(), f64::NEG_INFINITY);
        assert_eq!(detector.blocks_since_change(), None);
        for increment in [-1.0, -1.0, -1.0, 2.0, 2.0, 2.0] {
            detector.update(&[increment]);
        }
        close(detector.log_cusum(), 6.0);
        assert_eq!(detector.blocks_since_change(), Some(3));
        detector.update(&[f64::NAN]);
        close(detector.log_cusum(), 6.0);
        assert!(EDetector::new(0).log_cusum().is_infinite());
    }

    proptest! {
        #[test]
        fn a_log_sum_is_accurate_in_any_order(
            values in prop::collection::vec(-2000.0..2000.0_f64, 0..50), cut in 0_usize..50,
        ) {
            let of = |values: &[f64]| {
                let mut sum = LogSum::default();
                values.iter().for_each(|value| sum.add(*value));
                sum
            };
            let all = of(&values);
            let cut = cut.min(values.len());
            let mut parts = of(&values[cut..]);
            parts.merge(&of(&values[..cut]));
            prop_assert_eq!(all.log_sum().to_bits(), parts.log_sum().to_bits());
            let (count, infinite, binades) = all.parts();
            prop_assert_eq!(&LogSum::from_parts(count, infinite, binades), &all);
            if !values.is_empty() {
                prop_assert!((all.log_sum() - log_sum_exp(&values)).abs() < 1e-9);
                prop_assert!((all.log_mean().unwrap() - log_mean_exp(&values)).abs() < 1e-9);
            }
        }

        #[test]
        fn a_detector_that_was_packed_goes_on(values in prop::collection::vec(-3.0..3.0_f64, 1..60), cut in 0_usize..60) {
            let (mut whole, cut) = (EDetector::new(2), cut.min(values.len()));
            let mut parts = whole.clone();
            let feed = |detector: &mut EDetector, values: &[f64]| {
                values.iter().for_each(|value| detector.update(&[*value, value * 0.5 - 0.1]));
            };
            feed(&mut whole, &values);
            feed(&mut parts, &values[..cut]);
            parts = EDetector::unpack(&mut crate::pack::Packed::of(&parts).unpacker());
            feed(&mut parts, &values[cut..]);
            prop_assert_eq!(&whole, &parts);
            prop_assert!(whole.log_cusum() <= whole.log_shiryaev_roberts() + 1e-9);
        }

        #[test]
        fn the_statistic_is_the_sum_over_starts(values in prop::collection::vec(-3.0..3.0_f64, 1..30)) {
            let mut detector = EDetector::new(1);
            values.iter().for_each(|value| detector.update(&[*value]));
            let starts: Vec<f64> = (0..values.len()).map(|start| values[start..].iter().sum()).collect();
            prop_assert!((detector.log_shiryaev_roberts() - log_sum_exp(&starts)).abs() < 1e-9);
            let greatest = starts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((detector.log_cusum() - greatest).abs() < 1e-9);
        }
    }

    #[test]
    fn a_log_sum_ignores_nan() {
        let mut sum = LogSum::default();
        [f64::NAN, f64::NEG_INFINITY, 0.0].into_iter().for_each(|value| sum.add(value));
        assert_eq!(sum.count(), 2);
        close(sum.log_sum(), 0.0);
        close(sum.log_mean().expect("a mean"), -2_f64.ln());
        sum.add(f64::INFINITY);
        assert_eq!(sum.log_sum(), f64::INFINITY);
        assert_eq!(LogSum::default().log_sum(), f64::NEG_INFINITY);
        assert_eq!(LogSum::default().log_mean(), None);
    }
}
