//! D2: two-sample e-process for a difference between the canary's and the baseline's distribution (latency, cost,
//! tokens; finish reasons, error classes), on counts by bin.
//!
//! For distributions θ_a and θ_b fixed before the block, and θ₀ = w_a θ_a + w_b θ_b with the arms' shares w,
//!
//! > log e = Σ_k a_k ln(θ_a(k)/θ₀(k)) + b_k ln(θ_b(k)/θ₀(k))
//!
//! is an e-value for the null hypothesis "both arms have the same distribution", whatever that is (Turner, Ly,
//! Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", JSPI 230,
//! 2024, theorem 1). Here θ_b and θ_a tilt a reference π by a score v, θ_b ∝ π e^{w_a δ v} and θ_a ∝ π e^{−w_b δ v}:
//! the location score detects a shift of the whole distribution, the tail scores detect a few runs that became much
//! slower, and one indicator per category detects its growing share. The reference comes from the baseline's past and
//! stays fixed while the test runs. The test is valid with any reference; a good one makes it fast.

use crate::invalid::{Invalid, positive, tempering};
use crate::sketch::{self, Sketch};
use crate::weight::whole;

/// Tilts of the location score, in standard deviations of the ranks.
pub const LOCATION_TILTS: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];

/// Odds by which the top 5 % is tilted.
pub const TAIL_ODDS: [f64; 3] = [1.5, 2.5, 5.0];

/// Odds by which the top 1 % is tilted.
pub const FAR_TAIL_ODDS: [f64; 3] = [2.0, 4.0, 10.0];

/// Odds by which each category is tilted.
pub const CATEGORY_ODDS: [f64; 3] = [1.5, 2.5, 5.0];

/// Sketch buckets in one bin: 9 of 2 % make bins of 20 %.
const BUCKETS_PER_BIN: usize = 9;

/// Number of bins of [`histogram_of`], which cover all integers from 0 to 2⁶⁴.
pub const BINS: usize = 246;

/// The direction of a change for the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Larger is worse, as for latency.
    Up,
    /// Smaller is worse.
    Down,
}

/// A reference distribution and its tilts, the alternatives of the test.
#[derive(Clone, Debug, PartialEq)]
pub struct Tilts {
    reference: Vec<f64>,
    tilts: Vec<Tilt>,
}

/// One score vector with its strength.
#[derive(Clone, Debug, PartialEq)]
struct Tilt {
    /// δ.
    strength: f64,
    /// δ·v, by bin.
    exponents: Vec<f64>,
    name: String,
}

/// Returns the counts of a sketch by bin, lowest first, always [`BINS`] of them, so that two sketches can be compared
/// bin by bin and counts of several added. Negative counts, which a sketch can have between a row and its correction,
/// count as 0.
pub fn histogram_of(sketch: &Sketch) -> Vec<u64> {
    signed_histogram_of(sketch).into_iter().map(|count| u64::try_from(count).unwrap_or(0)).collect()
}

/// Like [`histogram_of`], but keeps the negative counts of a correction. Weighted values are added exactly before the
/// count of a bin is rounded.
pub fn signed_histogram_of(sketch: &Sketch) -> Vec<i64> {
    let mut bins = vec![0_i128; BINS];
    for (bucket, micros) in sketch.buckets() {
        let bin = &mut bins[bin_of_bucket(bucket)];
        *bin = bin.saturating_add(micros);
    }
    bins.into_iter().map(whole).collect()
}

/// Returns the bin of [`histogram_of`] that holds a bucket of a sketch.
pub fn bin_of_bucket(bucket: u16) -> usize {
    (usize::from(bucket) / BUCKETS_PER_BIN).min(BINS - 1)
}

/// Returns the bin of [`histogram_of`] that holds a value.
pub fn bin_of(value: u64) -> usize {
    bin_of_bucket(sketch::bucket_of(value))
}

/// Returns the value at a fractional bin position of [`histogram_of`]: 3.5 is the middle of the fourth bin.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
pub fn value_at(place: f64) -> f64 {
    let place = place.clamp(0.0, BINS as f64 - 0.01) * BUCKETS_PER_BIN as f64;
    let last = sketch::bucket_of(u64::MAX);
    let at = |bucket: f64| sketch::value_of((bucket as u16).min(last));
    let (low, high) = (at(place.floor()), at(place.floor() + 1.0));
    low + (high - low) * place.fract()
}

/// Returns the fractional position of a quantile in counts by bin, values spread evenly within a bin; none without
/// counts.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn place_of(counts: &[u64], q: f64) -> Option<f64> {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    let mut below = 0.0;
    for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let here = *count as f64;
        if below + here >= q * total {
            return Some(place as f64 + (q * total - below) / here);
        }
        below += here;
    }
    None
}

/// Returns the width of a bin on the logarithmic scale: ln of the ratio between its bounds.
pub fn bin_width() -> f64 {
    9.0 * ((1.0 + sketch::RELATIVE_ERROR) / (1.0 - sketch::RELATIVE_ERROR)).ln()
}

// === impl Tilts ===

impl Tilts {
    /// Creates the tilts for an ordered quantity, from counts by bin of the baseline's past.
    ///
    /// # Errors
    /// Fails if there are fewer than two bins.
    pub fn ordered(reference: &[u64], direction: Direction) -> Result<Self, Invalid> {
        let reference = smoothed(reference)?;
        let sign = match direction {
            Direction::Up => 1.0,
            Direction::Down => -1.0,
        };
        let ranks = midranks(&reference);
        let worse: Vec<f64> = ranks.iter().map(|rank| if sign > 0.0 { *rank } else { 1.0 - rank }).collect();
        let mut tilts = Vec::new();
        let mut tilt = |name: String, delta: f64, score: &dyn Fn(f64) -> f64| {
            let exponents = worse.iter().map(|rank| delta * score(*rank)).collect();
            tilts.push(Tilt { strength: delta, exponents, name });
        };
        for delta in LOCATION_TILTS {
            // A uniform rank has standard deviation 1/√12.
            tilt(format!("location {delta}"), delta, &|rank| 12_f64.sqrt() * (rank - 0.5));
        }
        for odds in TAIL_ODDS {
            tilt(format!("worst 5 % x{odds}"), odds.ln(), &|rank| f64::from(u8::from(rank > 0.95)));
        }
        for odds in FAR_TAIL_ODDS {
            tilt(format!("worst 1 % x{odds}"), odds.ln(), &|rank| f64::from(u8::from(rank > 0.99)));
        }
        Ok(Self { reference, tilts })
    }

    /// Creates the tilts for unordered categories: a growing share of each.
    ///
    /// # Errors
    /// Fails if there are fewer than two categories.
    pub fn categories(reference: &[u64]) -> Result<Self, Invalid> {
        let reference = smoothed(reference)?;
        let mut tilts = Vec::new();
        for category in 0..reference.len() {
            for odds in CATEGORY_ODDS {
                let mut exponents = vec![0.0; reference.len()];
                exponents[category] = odds.ln();
                tilts.push(Tilt { strength: odds.ln(), exponents, name: format!("category {category} x{odds}") });
            }
        }
        Ok(Self { reference, tilts })
    }

    /// Returns the names of the tilts, in the order of the increments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tilts.iter().map(|tilt| tilt.name.as_str())
    }

    /// Returns the log-increments of a block, one per tilt, in nats; 0 if an arm is empty. For `tempering` see
    /// [`crate::e2x2::Test::new`].
    ///
    /// # Errors
    /// Fails if the numbers of bins differ from the reference, or the tempering is out of range.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn increments(&self, baseline: &[u64], canary: &[u64], tempering_factor: f64) -> Result<Vec<f64>, Invalid> {
        let tempering = tempering(tempering_factor)?;
        self.same_bins(baseline)?;
        self.same_bins(canary)?;
        let total = |counts: &[u64]| counts.iter().map(|count| *count as f64).sum::<f64>();
        let (total_a, total_b) = (total(baseline), total(canary));
        if total_a == 0.0 || total_b == 0.0 {
            return Ok(vec![0.0; self.tilts.len()]);
        }
        let shares = (total_a / (total_a + total_b), total_b / (total_a + total_b));
        Ok(self.tilts.iter().map(|tilt| tempering * self.two_sample(tilt, baseline, canary, shares)).collect())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn two_sample(&self, tilt: &Tilt, baseline: &[u64], canary: &[u64], (share_a, share_b): (f64, f64)) -> f64 {
        let (norm_a, norm_b) = (self.ln_mean(tilt, -share_b), self.ln_mean(tilt, share_a));
        let mut log_e = 0.0;
        for (bin, exponent) in tilt.exponents.iter().enumerate() {
            let (a, b) = (baseline[bin] as f64, canary[bin] as f64);
            if a + b > 0.0 {
                let (x_a, x_b) = (-share_b * exponent - norm_a, share_a * exponent - norm_b);
                let null = (share_a * x_a.exp() + share_b * x_b.exp()).ln();
                log_e += a * (x_a - null) + b * (x_b - null);
            }
        }
        log_e
    }

    /// Returns ln of the mean of e^(factor·δ·v) over the reference.
    fn ln_mean(&self, tilt: &Tilt, factor: f64) -> f64 {
        let terms = self.reference.iter().zip(&tilt.exponents);
        terms.map(|(share, exponent)| share * (factor * exponent).exp()).sum::<f64>().ln()
    }

    /// Returns the log-increments of a block against the reference itself, the form of D4 for a quantity. The null
    /// hypothesis is the reference tilted by at most `margin` along each score; the alternatives are tilted by one more
    /// step of the grid: Σ_k c_k ln(alternative_k / null_k), multiplied by `tempering`. The margin is a tilt: ln of the
    /// odds of a tail or a category, or about a third of the standard deviations of a shift; 0.05 to 0.2 are usual.
    ///
    /// # Errors
    /// Fails like [`Tilts::increments`], or if the margin is not from 0 to 2.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn drift_increments(&self, counts: &[u64], margin: f64, tempering_factor: f64) -> Result<Vec<f64>, Invalid> {
        let tempering = tempering(tempering_factor)?;
        self.same_bins(counts)?;
        if !(0.0..=2.0).contains(&margin) {
            return Err(Invalid::new("margin", margin, "from 0 to 2"));
        }
        let total: f64 = counts.iter().map(|count| *count as f64).sum();
        let increments = self.tilts.iter().map(|tilt| {
            let null = margin / tilt.strength;
            let step = self.ln_mean(tilt, 1.0 + null) - self.ln_mean(tilt, null);
            let scored: f64 = counts.iter().zip(&tilt.exponents).map(|(count, x)| *count as f64 * x).sum();
            tempering * (scored - total * step)
        });
        Ok(increments.collect())
    }

    fn same_bins(&self, counts: &[u64]) -> Result<(), Invalid> {
        if counts.len() == self.reference.len() {
            return Ok(());
        }
        let found = format_args!("{} against {}", counts.len(), self.reference.len()).to_string();
        Err(Invalid::new("number of bins", found, "equal to that of the reference"))
    }
}

/// Returns fractions by bin, none of them 0: one extra run is spread over all bins.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn smoothed(counts: &[u64]) -> Result<Vec<f64>, Invalid> {
    if counts.len() < 2 {
        return Err(Invalid::new("number of bins", counts.len(), "at least 2"));
    }
    let bins = counts.len() as f64;
    let total = positive("runs", counts.iter().map(|count| *count as f64).sum::<f64>() + 1.0)?;
    Ok(counts.iter().map(|count| (*count as f64 + 1.0 / bins) / total).collect())
}

/// Returns the fraction of the reference below the middle of each bin.
fn midranks(reference: &[f64]) -> Vec<f64> {
    let mut below = 0.0;
    let ranks = reference.iter().map(|share| {
        below += share;
        below - share / 2.0
    });
    ranks.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sequential::EvidenceSums;
    use crate::testing::{Random, close};

    #[test]
    fn a_bin_position_maps_back_to_the_value() {
        for value in [1_u64, 60, 1000, 2_500_000, 7_000_000_000] {
            let place = bin_of(value) as f64 + 0.5;
            let ratio = value_at(place) / value as f64;
            assert!((0.8..1.25).contains(&ratio) || value < 50, "{value}: {}", value_at(place));
        }
        assert!(value_at(0.0) < 1.0 && value_at(1e9).is_finite());
    }

    /// Counts of latencies by bin: lognormal with a factor, and a fraction of them ten times slower.
    fn latencies(random: &mut Random, runs: u64, factor: f64, slow: f64) -> Vec<u64> {
        let mut sketch = Sketch::new();
        for _ in 0..runs {
            let tail = if random.uniform() < slow { 10.0 } else { 1.0 };
            sketch.add((2000.0 * random.normal().exp() * factor * tail) as u64, 1);
        }
        histogram_of(&sketch)
    }

    #[test]
    fn bins_hold_every_value_and_both_arms_line_up() {
        assert_eq!(bin_of(0), 0);
        assert!(bin_of(u64::MAX) < BINS);
        let mut sketch = Sketch::new();
        for value in [0, 1, 1000, u64::MAX] {
            sketch.add(value, 1);
        }
        sketch.add(1 << 40, -2);
        let counts = histogram_of(&sketch);
        assert_eq!(counts.len(), BINS);
        assert_eq!(counts.iter().sum::<u64>(), 4, "a negative count counts as 0");
        assert_eq!(counts[bin_of(1000)], 1);
        assert!((bin_width().exp() - 1.197).abs() < 1e-3);
    }

    #[test]
    fn the_mean_of_e_is_at_most_one_exactly() {
        // One run per arm over three categories: all nine outcomes, under several distributions.
        for tilts in [Tilts::categories(&[5, 3, 1]), Tilts::ordered(&[5, 3, 1], Direction::Up)] {
            let tilts = tilts.expect("tilts");
            for truth in [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]] {
                let mut means = vec![0.0; tilts.names().count()];
                for a in 0..3 {
                    for b in 0..3 {
                        let one = |category: usize| (0..3).map(|n| u64::from(n == category)).collect::<Vec<_>>();
                        let increments = tilts.increments(&one(a), &one(b), 1.0).expect("increments");
                        means.iter_mut().zip(increments).for_each(|(mean, x)| *mean += truth[a] * truth[b] * x.exp());
                    }
                }
                assert!(means.iter().all(|mean| *mean <= 1.0 + 1e-12), "{truth:?}: {means:?}");
            }
        }
    }

    #[test]
    fn it_agrees_with_the_formula_by_hand() {
        let tilts = Tilts::categories(&[8, 2]).expect("tilts");
        let found = tilts.increments(&[90, 10], &[40, 20], 1.0).expect("increments")[4];
        // Category 1, odds 2.5; reference (8.5, 2.5)/11, shares 100/160 and 60/160.
        let (reference, delta, w_a, w_b) = ([8.5 / 11.0, 2.5 / 11.0], 2.5_f64.ln(), 0.625, 0.375);
        let tilted = |factor: f64| {
            let raw = [reference[0], reference[1] * (factor * delta).exp()];
            [raw[0] / (raw[0] + raw[1]), raw[1] / (raw[0] + raw[1])]
        };
        let (a, b) = (tilted(-w_b), tilted(w_a));
        let by_hand: f64 = (0..2)
            .map(|k| {
                let null = w_a * a[k] + w_b * b[k];
                [90.0, 10.0][k] * (a[k] / null).ln() + [40.0, 20.0][k] * (b[k] / null).ln()
            })
            .sum();
        close(found, by_hand);
    }

    #[test]
    fn extreme_counts_are_numbers() {
        let tilts = Tilts::ordered(&[0; BINS], Direction::Down).expect("tilts");
        let (mut low, mut high) = (vec![0; BINS], vec![0; BINS]);
        (low[0], high[BINS - 1]) = (1_000_000_000, 1_000_000_000);
        for (a, b) in [(&low, &high), (&high, &low), (&low, &low), (&vec![0; BINS], &low), (&low, &vec![0; BINS])] {
            let increments = tilts.increments(a, b, 1.0).expect("increments");
            assert!(increments.iter().all(|x| x.is_finite()), "{increments:?}");
            let drift = tilts.drift_increments(b, 0.1, 1.0).expect("increments");
            assert!(drift.iter().all(|x| x.is_finite()), "{drift:?}");
        }
        assert!(tilts.increments(&[1], &low, 1.0).is_err() && tilts.drift_increments(&low, -1.0, 1.0).is_err());
        assert!(Tilts::categories(&[1]).is_err());
    }

    /// Returns whether the evidence alarms within 60 blocks, inspected after each.
    fn alarms(seed: u64, factor: f64, slow: f64) -> bool {
        let mut random = Random(seed);
        let reference = latencies(&mut random, 2000, 1.0, 0.0);
        let tilts = Tilts::ordered(&reference, Direction::Up).expect("tilts");
        let mut evidence = EvidenceSums::default();
        (0..60).any(|_| {
            let (a, b) = (latencies(&mut random, 50, 1.0, 0.0), latencies(&mut random, 50, factor, slow));
            evidence.add(&tilts.increments(&a, &b, 1.0).expect("increments"));
            evidence.log_e() >= 20_f64.ln()
        })
    }

    #[test]
    fn the_false_alarm_rate_holds_with_a_look_after_every_block() {
        let wrong = (0..200).filter(|seed| alarms(*seed, 1.0, 0.0)).count();
        // 10 expected at most, standard deviation 3.1.
        assert!(wrong <= 19, "{wrong} of 200 at alpha 0.05, seeds 0 to 200");
    }

    #[test]
    fn a_shift_and_a_slow_tail_are_found() {
        let shifted = (0..20).filter(|seed| alarms(*seed, 1.3, 0.0)).count();
        let slow = (0..20).filter(|seed| alarms(*seed, 1.0, 0.05)).count();
        let faster = (0..20).filter(|seed| alarms(*seed, 0.7, 0.0)).count();
        assert!(shifted >= 19 && slow >= 18 && faster == 0, "{shifted}, {slow} and {faster} of 20, seeds 0 to 20");
    }

    #[test]
    fn drift_of_a_quantity_is_found_and_its_margin_is_kept() {
        let alarms = |seed: u64, factor: f64| {
            let mut random = Random(seed);
            let reference = latencies(&mut random, 20_000, 1.0, 0.0);
            let tilts = Tilts::ordered(&reference, Direction::Up).expect("tilts");
            let mut detector = crate::sequential::EDetector::new(tilts.names().count());
            (0..200).any(|_| {
                let counts = latencies(&mut random, 40, factor, 0.0);
                detector.update(&tilts.drift_increments(&counts, 0.1, 1.0).expect("increments"));
                detector.log_shiryaev_roberts() >= 4000_f64.ln()
            })
        };
        // 200 of 4,000 blocks between false alarms: at most 5 % of seeds.
        let wrong = (0..60).filter(|seed| alarms(*seed, 1.0)).count();
        let right = (0..20).filter(|seed| alarms(*seed, 1.5)).count();
        assert!(wrong <= 8 && right == 20, "{wrong} of 60 and {right} of 20");
    }

    proptest! {
        #[test]
        fn sums_of_blocks_are_independent_of_order(blocks in prop::collection::vec((0_u64..50, 0_u64..50, 0_u64..50, 0_u64..50), 1..10)) {
            let tilts = Tilts::categories(&[20, 10]).expect("tilts");
            let sum = |blocks: &mut dyn Iterator<Item = &(u64, u64, u64, u64)>| {
                let mut evidence = EvidenceSums::default();
                blocks.for_each(|(a, b, c, d)| evidence.add(&tilts.increments(&[*a, *b], &[*c, *d], 0.5).expect("increments")));
                evidence
            };
            prop_assert_eq!(sum(&mut blocks.iter()), sum(&mut blocks.iter().rev()));
        }
    }
}
