//! Wander: the slow variation of a rate from hour to hour that occurs although nothing is wrong, learned from the
//! series' own past.
//!
//! The logit of a rate is modelled as that of its season plus a stationary deviation u with mean 0. An hour of n runs
//! at rate p then has, in addition to its binomial variance V = n p (1 − p), a variance of V² Var(u), and nearby hours
//! deviate together: Cov(r_s, r_t) ≈ V_s V_t Cov(u_s, u_t) for residuals r = events − n p. The residuals of four weeks
//! give
//!
//! * γ_j = Σ r_t r_{t+j} / Σ V_t V_{t+j}: the autocovariance of u at a lag of j hours. Binomial noise is uncorrelated,
//!   so it drops out at every lag except 0 (method of moments, as in DerSimonian & Laird, Controlled Clinical Trials 7,
//!   1986). Its standard error without wander is s = φ / √(Σ V_t V_{t+j}).
//! * σ² = max(γ_1, γ_2) if that exceeds 2.5 s, else 0: the variance of u. In a series without wander a positive γ is
//!   chance, and taking it for wander would delay every alarm. With less than four weeks of past, s is reduced in
//!   proportion: a young series gets the benefit of the doubt.
//! * φ₀ = (Σ r² − σ² Σ V²) / Σ V (1 + n/m): the overdispersion that remains, caused by correlation within sessions. m
//!   is the number of runs, shrinkage included, that the rate of an hour was learned from; its error adds n/m.
//! * τ: the standard deviation between days, from [`crate::drift::WeeklyBaseline`].
//! * Λ = σ² − τ² + 2 f Σ_j (γ_j − τ²) over lags within a day, as long as pairs of them exceed 1.5 s (Geyer, "Practical
//!   Markov Chain Monte Carlo", Statistical Science 7, 1992: the initial positive sequence, cut where it is lost in
//!   noise): the variance that u adds to a sum over many hours, beyond the variance between days.
//!
//! The residual of an hour is taken against a rate learned without that hour; otherwise the rate would follow the hour.
//! f = 1 + 168/hours allows for the uncertainty of a short past.
//!
//! Two null hypotheses follow, and evidence is averaged over them (a mean of e-detectors is an e-detector):
//!
//! * **lasting**: "not worse by more than the margin or 2 √f τ, whichever is greater", with increments multiplied by η
//!   = 1/(φ₀ + V̄ Λ). A tempered likelihood ratio of an approximately normal sum with φ times the assumed variance has
//!   mean at most 1 at η = 1/φ: E exp(η(δS − δ²V/2)) = exp(ηδ²V(ηφ − 1)/2). This is quasi-likelihood (McCullagh &
//!   Nelder, "Generalized Linear Models", 2nd ed., 9.2) with the long-run variance as its dispersion; it finds lasting
//!   changes.
//! * **wide**: "not worse by more than the margin or 3 √f σ, whichever is greater", with increments multiplied by 1/φ₀.
//!   u hardly ever exceeds three standard deviations, so this finds obvious failures at once.

use crate::drift::{HOURS, HourCounts, SHRINK_RUNS, WeeklyBaseline, hour_of_week};

/// Number of lags, in hours.
const LAGS: usize = 24;

/// Hours in a week: with this many hours of past, f is 2.
const WEEK: f64 = 168.0;

/// Number of standard deviations that u hardly ever exceeds.
const WIDE: f64 = 3.0;

/// Standard errors that an autocovariance of the first hours must exceed to count as wander: chance exceeds them once in
/// a hundred series.
const SIGNIFICANT: f64 = 2.5;

/// Standard errors that the sum of a pair of further autocovariances must exceed to count.
const SIGNIFICANT_PAIR: f64 = 1.5;

/// Estimates of how a series wanders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wander {
    /// φ₀: variance of an hour over that of independent runs, wander excluded; at least 1.
    pub noise: f64,
    /// √f σ: standard deviation between hours, on the logit scale.
    pub hour: f64,
    /// √f τ: standard deviation between days.
    pub day: f64,
    /// Λ: variance that wander adds to long sums, per unit of V of an hour.
    pub lasting: f64,
    /// V̄: V of a typical hour.
    pub usual: f64,
}

/// A null hypothesis, and the weight of an increment against it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NullHypothesis {
    /// Margin on the logit scale.
    pub margin: f64,
    /// η, in (0, 1].
    pub tempering: f64,
}

/// Assumed for a series with too short a past: it wanders by 0.2 on the logit scale, for some hours.
pub const UNKNOWN: Wander = Wander { noise: 1.0, hour: 0.2, day: 0.12, lasting: 0.3, usual: 1.0 };

/// The rate expected of an hour, and the number of runs that it was learned from.
#[derive(Clone, Copy)]
struct LearnedRate {
    rate: f64,
    from_runs: f64,
}

/// Residuals and variances by hour, without gaps.
struct Residuals {
    values: Vec<(f64, f64)>,
    hours: f64,
    /// Sum of the squared residuals expected of independent runs, the error of the learned rates included.
    expected: f64,
}

// === impl Residuals ===

impl Residuals {
    fn new(
        hours: &[HourCounts],
        learned: impl Fn(&HourCounts) -> LearnedRate,
        variance: impl Fn(f64, f64) -> f64,
    ) -> Self {
        let first = hours.iter().map(|hour| hour.hour).min().unwrap_or(0);
        let last = hours.iter().map(|hour| hour.hour).max().unwrap_or(first);
        let mut values = vec![(0.0, 0.0); usize::try_from(last - first + 1).unwrap_or(1)];
        let (mut seen, mut expected) = (0.0, 0.0);
        for hour in hours.iter().filter(|hour| hour.runs > 0) {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let (events, runs) = (hour.events as f64, hour.runs as f64);
            let LearnedRate { rate, from_runs } = learned(hour);
            let variance = variance(runs, rate);
            expected += variance * (1.0 + runs / from_runs);
            if let Some(value) = usize::try_from(hour.hour - first).ok().and_then(|place| values.get_mut(place)) {
                *value = (value.0 + events - runs * rate, value.1 + variance);
                seen += 1.0;
            }
        }
        Self { values, hours: seen, expected }
    }

    /// Returns the autocovariance at a lag, and its standard error for independent runs without wander.
    fn covariance(&self, lag: usize) -> (f64, f64) {
        let pairs = self.values.iter().zip(self.values.iter().skip(lag));
        let (products, weights) = pairs.fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a.0 * b.0, sum.1 + a.1 * b.1));
        if weights > 0.0 { (products / weights, 1.0 / weights.sqrt()) } else { (0.0, 0.0) }
    }

    /// Estimates the wander of a series with standard deviation `day` between days.
    fn wander(&self, day: f64) -> Wander {
        let sum = self.values.iter().fold((0.0, 0.0, 0.0), |sum, (residual, variance)| {
            (sum.0 + residual * residual, sum.1 + variance, sum.2 + variance * variance)
        });
        let (squares, variance, fourth) = sum;
        if variance <= 0.0 {
            return UNKNOWN;
        }
        let usual = fourth / variance;
        let lags: Vec<(f64, f64)> = (1..=LAGS).map(|lag| self.covariance(lag)).collect();
        // A short past gets the benefit of the doubt: what little it shows counts as wander.
        let error = lags[0].1 * (squares / self.expected).max(1.0) * (self.hours / (4.0 * WEEK)).min(1.0);
        let first = lags[0].0.max(lags[1].0);
        let hourly = if first > SIGNIFICANT * error { first } else { 0.0 };
        let mut lasting = 0.0;
        for pair in lags.chunks_exact(2).take_while(|_| hourly > 0.0) {
            let both = pair.iter().map(|(covariance, _)| covariance - day * day).sum::<f64>();
            if both <= SIGNIFICANT_PAIR * error {
                break;
            }
            lasting += both;
        }
        let known = 1.0 + WEEK / self.hours.clamp(1.0, 4.0 * WEEK);
        Wander {
            noise: ((squares - fourth * hourly) / self.expected).max(1.0),
            hour: (known * hourly).sqrt(),
            day: known.sqrt() * day,
            lasting: (hourly - day * day + 2.0 * known * lasting).max(0.0),
            usual,
        }
    }
}

// === impl Wander ===

impl Wander {
    /// Learns from the hours that `baseline` was learned from.
    pub fn learn(hours: &[HourCounts], baseline: &WeeklyBaseline) -> Self {
        let mut week = vec![(0.0, 0.0); HOURS];
        for hour in hours {
            let slot = &mut week[hour_of_week(hour.hour)];
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let more = (hour.events as f64, hour.runs as f64);
            *slot = (slot.0 + more.0, slot.1 + more.1);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let without = |hour: &HourCounts| {
            let place = hour_of_week(hour.hour);
            let (events, runs) = week[place];
            // The baseline's rate is (events + k day) / (runs + k); this is the same formula without this hour.
            let shrunk_to = baseline.rates[place] * (runs + SHRINK_RUNS) - events;
            let from_runs = runs - hour.runs as f64 + SHRINK_RUNS;
            let rate = ((events - hour.events as f64 + shrunk_to) / from_runs).clamp(1e-9, 1.0 - 1e-9);
            LearnedRate { rate, from_runs }
        };
        Residuals::new(hours, without, |runs, rate| runs * rate * (1.0 - rate)).wander(baseline.day_deviation)
    }

    /// Learns from hours of rare events, which have no season, using counts instead of fractions and the logarithm of a
    /// rate instead of its logit.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn learn_counts(hours: &[HourCounts]) -> Self {
        let (events, runs) = hours.iter().fold((0, 0), |sum, hour| (sum.0 + hour.events, sum.1 + hour.runs));
        if events == 0 || runs == 0 {
            // Without events there is no rate that could wander.
            return Self { noise: 1.0, hour: 0.0, day: 0.0, lasting: 0.0, usual: 1.0 };
        }
        let rate = events as f64 / runs as f64;
        // The rate comes from so many hours that its error does not count.
        let learned = LearnedRate { rate, from_runs: f64::INFINITY };
        Residuals::new(hours, |_| learned, |runs, rate| runs * rate).wander(0.0)
    }

    /// Returns the variance of long sums of events over that of independent runs: φ₀ + V Λ for hours of variance
    /// `variance`.
    pub fn inflation(&self, variance: f64) -> f64 {
        (self.noise + variance * self.lasting).max(1.0)
    }

    /// Returns the lasting and the wide null hypothesis, each with a margin of at least `least` on the logit scale.
    pub fn nulls(&self, least: f64) -> [NullHypothesis; 2] {
        [
            NullHypothesis { margin: least.max(2.0 * self.day), tempering: 1.0 / self.inflation(self.usual) },
            NullHypothesis { margin: least.max(WIDE * self.hour), tempering: 1.0 / self.noise },
        ]
    }

    /// Returns the null hypothesis for an hour compared with the mean of `weeks` hours of the past, in a table of
    /// variance `variance`.
    pub fn against_history(&self, least: f64, weeks: f64, variance: f64) -> NullHypothesis {
        // Both sides wander.
        let both = 1.0 + 1.0 / weeks.max(1.0);
        NullHypothesis {
            margin: least.max(2.0 * self.day * both.sqrt()),
            tempering: 1.0 / self.inflation(variance * both),
        }
    }

    /// Returns the greater estimate of each field.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            noise: self.noise.max(other.noise),
            hour: self.hour.max(other.hour),
            day: self.day.max(other.day),
            lasting: self.lasting.max(other.lasting),
            usual: self.usual.max(other.usual),
        }
    }
}

/// Returns the variance of the events of the second arm given the events of both: that of the hypergeometric
/// distribution.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn table_variance(baseline: (u64, u64), canary: (u64, u64)) -> f64 {
    let (na, nb) = (baseline.1 as f64, canary.1 as f64);
    let (all, events) = (na + nb, (baseline.0 + canary.0) as f64);
    if all < 2.0 { 0.0 } else { na * nb * events * (all - events) / (all * all * (all - 1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close};

    /// Four weeks of hours with an autocorrelated deviation of the logit.
    fn hours(seed: u64, runs: u64, deviation: f64, correlation: f64) -> Vec<HourCounts> {
        let mut random = Random(seed);
        let mut u = deviation * random.normal();
        (0..672)
            .map(|hour| {
                u = correlation * u + deviation * (1.0 - correlation * correlation).sqrt() * random.normal();
                let logit = (0.08_f64 / 0.92).ln() + u;
                HourCounts { hour, runs, events: random.binomial(runs, 1.0 / (1.0 + (-logit).exp())) }
            })
            .collect()
    }

    fn mean(runs: u64, deviation: f64, correlation: f64, of: impl Fn(&Wander) -> f64) -> f64 {
        let found = (0..30).map(|seed| {
            let hours = hours(seed, runs, deviation, correlation);
            of(&Wander::learn(&hours, &WeeklyBaseline::learn(&hours).expect("a baseline")))
        });
        found.sum::<f64>() / 30.0
    }

    #[test]
    fn the_deviation_of_hours_and_of_long_sums_is_found() {
        // √f is 1.12 with four weeks; the variance between days absorbs the slow part.
        let hour = mean(200, 0.2, 0.8, |wander| wander.hour);
        assert!((0.15..0.27).contains(&hour), "{hour}");
        let (all, noise) =
            (mean(200, 0.2, 0.8, |wander| wander.inflation(wander.usual)), mean(200, 0.2, 0.8, |wander| wander.noise));
        assert!(all > 1.5 && noise < 1.3, "{all} {noise}");
        // Without wander, the estimate is small.
        let (none, still) =
            (mean(200, 0.0, 0.0, |wander| wander.inflation(wander.usual)), mean(200, 0.0, 0.0, |wander| wander.hour));
        assert!(none < 1.4 && still < 0.08, "{none} {still}");
    }

    #[test]
    fn nulls_are_at_least_as_wide_as_asked_for_and_weigh_at_most_one() {
        for seed in 0..10 {
            let hours = hours(seed, 60, 0.3, 0.5);
            let wander = Wander::learn(&hours, &WeeklyBaseline::learn(&hours).expect("a baseline"));
            for null in wander
                .nulls(0.1)
                .into_iter()
                .chain([wander.against_history(0.1, 4.0, 3.0), UNKNOWN.against_history(0.1, 1.0, 0.0)])
            {
                assert!(null.margin >= 0.1 && null.tempering > 0.0 && null.tempering <= 1.0, "{null:?}");
            }
            assert!(wander.nulls(0.1)[1].margin > 0.4, "{wander:?}");
        }
        let both = UNKNOWN.max(&Wander { lasting: 0.1, hour: 0.5, ..UNKNOWN });
        assert_eq!((both.lasting, both.hour), (0.3, 0.5));
    }

    #[test]
    fn counts_that_vary_by_chance_do_not_wander() {
        let mut random = Random(3);
        let rare: Vec<HourCounts> =
            (0..672).map(|hour| HourCounts { hour, runs: 1000, events: random.poisson(0.3) }).collect();
        let found = Wander::learn_counts(&rare);
        assert!(found.inflation(found.usual) < 1.5, "{found:?}");
        close(Wander::learn_counts(&[HourCounts { hour: 0, runs: 5, events: 0 }]).inflation(1.0), 1.0);
        assert_eq!(Wander::learn_counts(&[]).nulls(0.1)[0].tempering, 1.0);
        close(table_variance((5, 10), (5, 10)), 100.0 * 100.0 / (400.0 * 19.0));
        close(table_variance((0, 1), (0, 0)), 0.0);
    }
}
