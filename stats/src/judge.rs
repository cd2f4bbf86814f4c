//! The rate of success according to a judge that errs, corrected by reviews of some of its verdicts.
//!
//! * *Naive*: the share of runs that the judge passes.
//! * *Rogan and Gladen* (American Journal of Epidemiology 107, 1978): (share + specificity − 1) / (sensitivity +
//!   specificity − 1), with the interval of Lang and Reiczigel (Preventive Veterinary Medicine 113, 2014), which counts the
//!   uncertainty of all three. Sensitivity and specificity come from the reviewed runs, with their weights.
//! * *Prediction-powered* (Angelopoulos et al., Science 382, 2023; tuned as in "PPI++", arXiv 2311.01453): λ × share +
//!   the weighted mean of (person − λ × judge) over the reviewed runs. λ is chosen from the data, between 0, which
//!   ignores the judge, and 1. It is a difference estimator (Särndal, Swensson & Wretman 1992, 6.3): unbiased whatever
//!   the judge does, as long as the reviews have their inclusion probabilities.
//!
//! The interval of the second adds a review with a difference of +1 at its upper end, and of −1 at its lower end, with the
//! greatest weight: otherwise a judge that agrees with the few reviews there are would be taken as perfect.

use std::collections::BTreeMap;

use crate::interval::{Interval, two_sided};
use crate::invalid::Invalid;
use crate::survey::{Estimate, Survey, centred};

/// Judged runs, and reviews of some of them. A multiset: any order and grouping gives the same bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// All judged runs: y is 1 if the judge passes the run.
    all: Survey,
    /// Reviewed runs by verdict of the judge and of the person, and probability.
    reviewed: BTreeMap<(bool, bool, u64), u64>,
}

/// A rate of success, naive and corrected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrected {
    /// Share of runs that the judge passes.
    pub naive: Estimate,
    /// P(judge passes | person passes); `None` without such a review.
    pub sensitivity: Option<Estimate>,
    /// P(judge fails | person fails); `None` without such a review.
    pub specificity: Option<Estimate>,
    /// Rogan and Gladen's estimate, limited to 0 to 1; `None` if the judge is no better than chance, or unreviewed.
    pub rogan_gladen: Option<Estimate>,
    /// Prediction-powered estimate, limited to 0 to 1; `None` below two reviews.
    pub prediction_powered: Option<Estimate>,
}

/// A share with the number of rows behind it, for [`rogan_gladen`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The share, 0 to 1.
    pub share: f64,
    /// Number of independent rows, effective if they are weighted.
    pub rows: f64,
}

/// Returns Rogan and Gladen's estimate with Lang and Reiczigel's interval. `None` if sensitivity + specificity is at most
/// 1, if a share has no rows, or if the confidence is not between 0 and 1.
pub fn rogan_gladen(apparent: Share, sensitivity: Share, specificity: Share, confidence: f64) -> Option<Estimate> {
    let z = two_sided(confidence)?;
    let enough = [apparent, sensitivity, specificity].iter().all(|share| share.rows > 0.0);
    let power = sensitivity.share + specificity.share - 1.0;
    if !enough || power <= 0.0 {
        return None;
    }
    let value = ((apparent.share + specificity.share - 1.0) / power).clamp(0.0, 1.0);
    let rows = apparent.rows + z * z;
    let share = (apparent.rows * apparent.share + z * z / 2.0) / rows;
    let adjusted = |of: Share| (of.rows * of.share + 1.0) / (of.rows + 2.0);
    let (sensitive, specific) = (adjusted(sensitivity), adjusted(specificity));
    let power = sensitive + specific - 1.0;
    if power <= 0.0 {
        return None;
    }
    let middle = (share + specific - 1.0) / power;
    let of_sensitivity = sensitive * (1.0 - sensitive) / (sensitivity.rows + 2.0);
    let of_specificity = specific * (1.0 - specific) / (specificity.rows + 2.0);
    let shift = 2.0 * z * z * (middle * of_sensitivity - (1.0 - middle) * of_specificity);
    let variance =
        share * (1.0 - share) / rows + middle.powi(2) * of_sensitivity + (1.0 - middle).powi(2) * of_specificity;
    let error = variance.sqrt() / power;
    let low = (middle + shift - z * error).clamp(0.0, 1.0).min(value);
    let high = (middle + shift + z * error).clamp(0.0, 1.0).max(value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rows, rounded")]
    let count = (sensitivity.rows + specificity.rows).round() as u64;
    Some(Estimate { value, standard_error: error, interval: Interval { low, high }, rows: count })
}

// === impl Judged ===

impl Judged {
    /// Adds judged runs, each reported with a probability.
    ///
    /// # Errors
    /// The probability is not above 0 and at most 1.
    pub fn add(&mut self, judge: bool, probability: f64, count: u64) -> Result<(), Invalid> {
        self.all.add(f64::from(u8::from(judge)), probability, count)
    }

    /// Adds reviews; each run has to be added as judged as well. The probability is that of being reported, sampled and
    /// reviewed.
    ///
    /// # Errors
    /// The probability is not above 0 and at most 1.
    pub fn review(&mut self, judge: bool, person: bool, probability: f64, count: u64) -> Result<(), Invalid> {
        Survey::default().add(0.0, probability, count)?;
        let sum = self.reviewed.entry((judge, person, probability.to_bits())).or_default();
        *sum = sum.saturating_add(count);
        Ok(())
    }

    /// Adds another part.
    pub fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        for (key, count) in &other.reviewed {
            let sum = self.reviewed.entry(*key).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Returns the distinct judged rows, in a fixed order: verdict, probability, count.
    pub fn judged(&self) -> impl Iterator<Item = (bool, f64, u64)> {
        self.all.rows().map(|row| (row.y == 1.0, row.probability, row.count))
    }

    /// Returns the distinct reviews, in a fixed order: judge, person, probability, count.
    pub fn reviews(&self) -> impl Iterator<Item = (bool, bool, f64, u64)> {
        self.reviewed.iter().map(|((judge, person, bits), count)| (*judge, *person, f64::from_bits(*bits), *count))
    }

    /// Returns the number of reviews.
    pub fn reviewed(&self) -> u64 {
        self.reviewed.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// Returns the rate of success. `None` without judged runs, or if the confidence is not between 0 and 1.
    pub fn corrected(&self, confidence: f64) -> Option<Corrected> {
        let naive = self.all.mean(confidence)?;
        let (passed, failed) = (self.given(true), self.given(false));
        let share =
            |of: &Survey| of.mean(confidence).map(|found| Share { share: found.value, rows: of.effective_rows() });
        let apparent = Share { share: naive.value, rows: self.all.effective_rows() };
        Some(Corrected {
            naive,
            sensitivity: passed.mean(confidence),
            specificity: failed.mean(confidence),
            rogan_gladen: share(&passed)
                .zip(share(&failed))
                .and_then(|(sensitivity, specificity)| rogan_gladen(apparent, sensitivity, specificity, confidence)),
            prediction_powered: self.prediction_powered(&naive, confidence),
        })
    }

    /// Returns whether the judge was right, by the runs that the person passed or failed.
    fn given(&self, person: bool) -> Survey {
        let mut found = Survey::default();
        for (judge, _, probability, count) in self.reviews().filter(|review| review.1 == person) {
            let right = f64::from(u8::from(judge == person));
            // The probability was checked when the review was added.
            found.add(right, probability, count).unwrap_or_default();
        }
        found
    }

    /// Returns the prediction-powered estimate.
    fn prediction_powered(&self, naive: &Estimate, confidence: f64) -> Option<Estimate> {
        two_sided(confidence)?;
        let reviews: Vec<Review> = self.reviews().map(Review::new).collect();
        let n: f64 = reviews.iter().map(|review| review.count).sum();
        if n < 2.0 {
            return None;
        }
        let lambda = tuning(&reviews, naive.standard_error.powi(2));
        let differences = Differences::new(&reviews, lambda);
        let (mean, variance) = differences.about(0.0, n);
        let judge = lambda * lambda * naive.standard_error.powi(2);
        let value = (lambda * naive.value + mean).clamp(0.0, 1.0);
        let end = |step: f64| {
            let (mean, variance) = differences.about(step, n);
            centred(lambda * naive.value + mean, (variance + judge).sqrt(), n, confidence)
        };
        let interval =
            Interval { low: end(-1.0).low.clamp(0.0, 1.0).min(value), high: end(1.0).high.clamp(0.0, 1.0).max(value) };
        Some(Estimate { value, standard_error: (variance + judge).sqrt(), interval, rows: self.reviewed() })
    }
}

/// A distinct review, as numbers.
struct Review {
    judge: f64,
    person: f64,
    weight: f64,
    unseen: f64,
    count: f64,
}

impl Review {
    fn new((judge, person, probability, count): (bool, bool, f64, u64)) -> Self {
        let number = |fact: bool| f64::from(u8::from(fact));
        #[expect(clippy::cast_precision_loss, reason = "counts of reviews are far below 2^53")]
        let count = count as f64;
        Self {
            judge: number(judge),
            person: number(person),
            weight: 1.0 / probability,
            unseen: 1.0 - probability,
            count,
        }
    }
}

/// Returns the λ with the least variance: Cov / (Var + the judge's variance over all runs), both over the reviews'
/// errors of estimation, limited to 0 to 1.
fn tuning(reviews: &[Review], judge_variance: f64) -> f64 {
    let weights: f64 = reviews.iter().map(|review| review.count * review.weight).sum();
    let mean = |of: fn(&Review) -> f64| -> f64 {
        reviews.iter().map(|review| review.count * review.weight * of(review)).sum::<f64>() / weights
    };
    let (judge, person) = (mean(|review| review.judge), mean(|review| review.person));
    let sum = |of: &dyn Fn(&Review) -> f64| -> f64 {
        let each = |review: &Review| review.count * review.weight.powi(2) * review.unseen * of(review);
        reviews.iter().map(each).sum::<f64>() / (weights * weights)
    };
    let covariance = sum(&|review| (review.judge - judge) * (review.person - person));
    let variance = sum(&|review| (review.judge - judge).powi(2));
    if variance + judge_variance > 0.0 { (covariance / (variance + judge_variance)).clamp(0.0, 1.0) } else { 1.0 }
}

/// Weighted differences person − λ × judge.
struct Differences<'a> {
    reviews: &'a [Review],
    lambda: f64,
    weights: f64,
    heaviest: f64,
}

impl<'a> Differences<'a> {
    fn new(reviews: &'a [Review], lambda: f64) -> Self {
        let weights = reviews.iter().map(|review| review.count * review.weight).sum();
        let heaviest = reviews.iter().map(|review| review.weight * review.unseen).fold(0.0, f64::max);
        Self { reviews, lambda, weights, heaviest }
    }

    /// Returns Hájek's mean and its variance, with one more review of the difference `step` and the greatest weight; none
    /// if `step` is 0.
    fn about(&self, step: f64, n: f64) -> (f64, f64) {
        let more = if step == 0.0 { 0.0 } else { self.heaviest };
        let all = self.weights + more;
        let difference = |review: &Review| review.person - self.lambda * review.judge;
        let sum: f64 = self.reviews.iter().map(|review| review.count * review.weight * difference(review)).sum();
        let mean = (sum + more * step) / all;
        let squares: f64 = self
            .reviews
            .iter()
            .map(|review| review.count * review.unseen * (review.weight * (difference(review) - mean)).powi(2))
            .sum();
        (mean, n / (n - 1.0) * (squares + (more * (step - mean)).powi(2)) / (all * all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close};

    fn share(share: f64, rows: f64) -> Share {
        Share { share, rows }
    }

    #[test]
    fn rogan_and_gladens_estimate_inverts_the_error_of_the_judge() {
        // 0.3 × 0.9 + 0.7 × 0.2 = 0.41 of all runs pass.
        let found = rogan_gladen(share(0.41, 1e9), share(0.9, 1e9), share(0.8, 1e9), 0.95).expect("an estimate");
        close(found.value, 0.3);
        assert!(found.interval.high - found.interval.low < 1e-3, "{found:?}");
        assert_eq!(rogan_gladen(share(0.4, 100.0), share(0.5, 10.0), share(0.5, 10.0), 0.95), None);
        assert_eq!(rogan_gladen(share(0.4, 100.0), share(0.9, 0.0), share(0.8, 10.0), 0.95), None);
    }

    #[test]
    fn without_reviews_there_is_only_the_naive_share() {
        let mut judged = Judged::default();
        judged.add(true, 1.0, 80).expect("valid");
        judged.add(false, 1.0, 20).expect("valid");
        let found = judged.corrected(0.95).expect("runs");
        close(found.naive.value, 0.8);
        assert_eq!((found.rogan_gladen, found.prediction_powered, found.sensitivity), (None, None, None));
        assert_eq!(Judged::default().corrected(0.95), None);
        assert!(judged.review(true, true, 0.0, 1).is_err());
    }

    /// Simulates judged runs of which some are reviewed, more often those that the judge fails; returns how often the naive
    /// share, Rogan–Gladen and prediction-powered intervals cover the truth.
    fn coverage(rate: f64, sensitivity: f64, specificity: f64, seed: u64) -> [f64; 3] {
        let mut random = Random(seed);
        let mut covered = [0.0; 3];
        let repetitions = 1_000;
        for _ in 0..repetitions {
            let mut judged = Judged::default();
            let mut truth = 0.0;
            let runs = 1_500;
            for _ in 0..runs {
                let person = random.uniform() < rate;
                truth += f64::from(u8::from(person)) / f64::from(runs);
                let right = random.uniform() < if person { sensitivity } else { specificity };
                let judge = person == right;
                judged.add(judge, 1.0, 1).expect("valid");
                let probability = if judge { 0.05 } else { 0.25 };
                if random.uniform() < probability {
                    judged.review(judge, person, probability, 1).expect("valid");
                }
            }
            let found = judged.corrected(0.95).expect("runs");
            let estimates = [Some(found.naive), found.rogan_gladen, found.prediction_powered];
            for (sum, estimate) in covered.iter_mut().zip(estimates) {
                let interval = estimate.expect("an estimate").interval;
                *sum += f64::from(u8::from(interval.low <= truth && truth <= interval.high));
            }
        }
        covered.map(|count| count / f64::from(repetitions))
    }

    #[test]
    fn corrected_intervals_cover_the_truth_where_the_naive_one_does_not() {
        for (case, (rate, sensitivity, specificity)) in
            [(0.7, 0.9, 0.8), (0.9, 0.95, 0.7), (0.3, 0.8, 0.95), (0.95, 0.99, 0.9)].into_iter().enumerate()
        {
            let [naive, rogan_gladen, powered] = coverage(rate, sensitivity, specificity, 400 + case as u64);
            assert!(naive < 0.5, "case {case}: the naive share covers {naive}");
            assert!(rogan_gladen >= 0.935, "case {case}: Rogan and Gladen's interval covers {rogan_gladen}");
            assert!(powered >= 0.935, "case {case}: the prediction-powered interval covers {powered}");
        }
    }

    #[test]
    fn a_good_judge_makes_the_interval_narrower_than_reviews_alone() {
        let (mut judged, mut alone) = (Judged::default(), Survey::default());
        for (judge, person, runs, reviews) in
            [(true, true, 7_000, 140), (true, false, 300, 6), (false, false, 2_500, 50), (false, true, 200, 4)]
        {
            judged.add(judge, 1.0, runs).expect("valid");
            judged.review(judge, person, 0.02, reviews).expect("valid");
            alone.add(f64::from(u8::from(person)), 0.02, reviews).expect("valid");
        }
        let width = |interval: Interval| interval.high - interval.low;
        let powered = judged.corrected(0.95).and_then(|found| found.prediction_powered).expect("an estimate");
        let alone = alone.mean(0.95).expect("reviews");
        close(powered.value, 0.72);
        assert!(width(powered.interval) < 0.7 * width(alone.interval), "{powered:?} {alone:?}");
    }
}
