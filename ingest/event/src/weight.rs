//! The weight of a sampled run: 1 / sampling probability, with a bounded number of different values.
//!
//! The metrics keep the runs of each weight apart, because they count the runs that were observed as well as the runs that
//! these represent. If each run had a probability of its own, each would have a row of its own. A weight is therefore kept as it
//! is only if it or the probability has at most two significant digits, as for probabilities of 1/3, 0.35 and 0.01. A run with
//! another weight takes one of the two nearest such weights, at most 3.2 % apart, so that the expected weight is the true one: sums
//! stay unbiased, whatever the weights depend on. The choice follows from the id of the run, so every reader of the message makes
//! the same choice. There are at most 180 weights for each power of ten.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::units;

/// Weight of an unsampled run, in millionths.
pub(crate) const ONE_MICROS: i64 = 1_000_000;

/// Seed of the choice between two weights. It never changes.
const SEED: u64 = 0x5745_4947_4854;

/// A number with more digits than two differs from those with two by more than this share; less is an error of rounding.
const SAME: f64 = 1e-9;

/// Returns the weight, in millionths, of a run that was kept with this probability. Lower probabilities than
/// [`units::MIN_PROBABILITY`] count as that.
pub(crate) fn weight_micros(probability: f64, run_id: &str) -> i64 {
    let probability = probability.clamp(units::MIN_PROBABILITY, 1.0);
    let weight = 1.0 / probability;
    let ((less, more), (rarer, likelier)) = (two_digits(weight), two_digits(probability));
    let (low, high) = (micros(less.max(1.0 / likelier)), micros(more.min(1.0 / rarer)));
    let share = (weight * 1e6 - double(low)) / double(high - low).max(1.0);
    if unit(run_id) < share { high } else { low }
}

/// Returns the nearest numbers with two significant digits, below and above; the number itself if it has no more.
fn two_digits(number: f64) -> (f64, f64) {
    // Whole powers of ten are exact, unlike fractions of one.
    let (mut factor, mut divisor) = (1.0, 1.0);
    while number * factor < 10.0 {
        factor *= 10.0;
    }
    while number / divisor >= 100.0 {
        divisor *= 10.0;
    }
    let scaled = number * factor / divisor;
    let unscaled = |scaled: f64| scaled * divisor / factor;
    let nearest = scaled.round();
    if (scaled - nearest).abs() <= SAME * scaled {
        return (unscaled(nearest), unscaled(nearest));
    }
    (unscaled(scaled.floor()), unscaled(scaled.ceil()))
}

/// Returns a number from 0 to 1, without 1, that follows from a run's id.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
fn unit(run_id: &str) -> f64 {
    let bits = xxh3_64_with_seed(run_id.as_bytes(), SEED) >> 11;
    bits as f64 / 9_007_199_254_740_992.0
}

#[expect(clippy::cast_possible_truncation, reason = "weights are at most 10^12 millionths")]
fn micros(weight: f64) -> i64 {
    (weight * 1e6).round() as i64
}

#[expect(clippy::cast_precision_loss, reason = "weights are at most 10^12 millionths")]
fn double(micros: i64) -> f64 {
    micros as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_digits_of_the_probability_or_of_the_weight_are_kept() {
        let cases = [
            (1.0, 1_000_000),
            (0.5, 2_000_000),
            (1.0 / 3.0, 3_000_000),
            (0.35, 2_857_143),
            (0.1, 10_000_000),
            (0.01, 100_000_000),
            (0.0035, 285_714_286),
            (1.0 / 70.0, 70_000_000),
            (1.0 / 1200.0, 1_200_000_000),
            (1e-6, 1_000_000_000_000),
            (1e-300, 1_000_000_000_000),
        ];
        for (probability, weight) in cases {
            for run_id in ["a", "b", "c", "d"] {
                assert_eq!(weight_micros(probability, run_id), weight, "{probability}");
            }
        }
    }

    #[test]
    fn other_weights_are_right_on_average_and_follow_from_the_run() {
        for probability in [0.123, 0.999, 0.5001, 1.0 / 128.0, 0.000_012_345] {
            let weights: Vec<f64> =
                (0..40_000).map(|n| double(weight_micros(probability, &format!("r-{n}")))).collect();
            let distinct: BTreeSet<i64> = weights.iter().map(|weight| micros(weight / 1e6)).collect();
            assert_eq!(distinct.len(), 2, "{probability}: {distinct:?}");
            let mean = weights.iter().sum::<f64>() / 4e10;
            assert!((mean * probability - 1.0).abs() < 0.002, "{probability}: {mean}");
        }
        let golden = ["", "r-1", "r-2", "r-3", "r-4", "r-5"].map(|run_id| weight_micros(1.0 / 8.15, run_id));
        assert_eq!(golden, GOLDEN, "a message has the same weight whenever it is read");
    }

    /// Weights of six runs that each represent 8.15 runs.
    const GOLDEN: [i64; 6] = [8_100_000, 8_200_000, 8_100_000, 8_100_000, 8_200_000, 8_100_000];

    #[test]
    fn probabilities_of_their_own_make_a_bounded_number_of_weights() {
        let mut weights = BTreeSet::new();
        for n in 0..200_000 {
            let probability = 10_f64.powf(-3.0 * f64::from(n) / 200_000.0);
            weights.insert(weight_micros(probability, &n.to_string()));
        }
        assert!(weights.len() <= 3 * 180 + 1, "{}", weights.len());
    }

    proptest! {
        #[test]
        fn a_weight_is_close_to_the_true_one(probability in 1e-6..=1.0_f64, run_id in "[a-z]{0,9}") {
            let share = double(weight_micros(probability, &run_id)) * probability / 1e6;
            prop_assert!((0.968..=1.033).contains(&share), "{share}");
        }
    }
}
