//! How much the quality of a series wanders from hour to hour though nothing is wrong, learned from its own past.
//!
//! The logit of a rate is taken for that of its season plus a stationary deviation u with mean 0. An hour of n runs at
//! rate p then has, beside its own variance V = n p (1 − p), one of V² Var(u), and hours near one another deviate
//! together: Cov(r_s, r_t) ≈ V_s V_t Cov(u_s, u_t) for residuals r = events − n p. From the residuals of four weeks follow
//!
//! * γ_j = Σ r_t r_{t+j} / Σ V_t V_{t+j}: the autocovariance of u at a lag of j hours. Chance does not correlate, so that
//!   it drops out at every lag but 0 (method of moments, as DerSimonian & Laird, Controlled Clinical Trials 7, 1986).
//! * σ² = max(γ_1, γ_2, 0): its variance; φ₀ = Σr²/ΣV − V̄ σ²: what remains is of the runs, which come in sessions.
//! * τ: the deviation of days, of [`crate::drift::Baseline`].
//! * Λ = σ² − τ² + 2 f Σ_j (γ_j − τ²) over lags within a day while pairs of them are positive (Geyer, "Practical Markov
//!   Chain Monte Carlo", Statistical Science 7, 1992: the initial positive sequence): the variance that a sum over many
//!   hours has from u, beyond that of its days.
//!
//! The residual of an hour is taken against a rate learned without that hour, which would have followed it otherwise; f =
//! 1 + 168/hours is for how little is known yet.
//!
//! Two nulls follow, over which evidence is averaged (means of e-detectors are e-detectors):
//!
//! * **lasting**: "not worse by more than the margin or 2 √f τ, whichever is more", increments times η = 1/(φ₀ + V̄ Λ). A
//!   tempered likelihood ratio of a sum whose variance is φ times what it is taken for has mean at most 1 at η = 1/φ where
//!   the sum is about normal: E exp(η(δS − δ²V/2)) = exp(ηδ²V(ηφ − 1)/2). This is quasi-likelihood (McCullagh & Nelder,
//!   "Generalized Linear Models", 2nd ed., 9.2) with the long-run variance for its dispersion; it finds what stays.
//! * **wide**: "not worse by more than the margin or 3 √f σ, whichever is more", increments times 1/φ₀. Beyond three
//!   deviations u hardly ever is; it finds what is plainly broken, at once.

use crate::drift::{Baseline, HOURS, Hour, SHRINK_RUNS, hour_of_week};

/// Lags that are looked at, hours.
const LAGS: usize = 24;

/// Hours of which so much is known as of a week.
const WEEK: f64 = 168.0;

/// Deviations beyond which u hardly ever is.
const WIDE: f64 = 3.0;

/// How a series wanders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wander {
    /// φ₀: variance of an hour over that of independent runs, without what wanders; at least 1.
    pub noise: f64,
    /// √f σ: deviation of an hour on the logit scale.
    pub hour: f64,
    /// √f τ: deviation of a day.
    pub day: f64,
    /// Λ: what wandering adds to the variance of long sums, for each V of an hour.
    pub lasting: f64,
    /// V̄: V of a typical hour.
    pub usual: f64,
}

/// A null: what is not worse yet, and how much an increment against it weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Null {
    /// Margin on the logit scale.
    pub margin: f64,
    /// η, in (0, 1].
    pub tempering: f64,
}

/// Of a series of which too little is known: it is taken to wander by 0.2 on the logit scale, for some hours.
pub const UNKNOWN: Wander = Wander { noise: 1.0, hour: 0.2, day: 0.12, lasting: 0.3, usual: 1.0 };

/// Residuals and variances by hour, without gaps.
struct Residuals {
    values: Vec<(f64, f64)>,
    hours: f64,
}

// === impl Residuals ===

impl Residuals {
    fn new(hours: &[Hour], rate: impl Fn(&Hour) -> f64, variance: impl Fn(f64, f64) -> f64) -> Self {
        let first = hours.iter().map(|hour| hour.hour).min().unwrap_or(0);
        let last = hours.iter().map(|hour| hour.hour).max().unwrap_or(first);
        let mut values = vec![(0.0, 0.0); usize::try_from(last - first + 1).unwrap_or(1)];
        let mut seen = 0.0;
        for hour in hours.iter().filter(|hour| hour.runs > 0) {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let (events, runs) = (hour.events as f64, hour.runs as f64);
            let rate = rate(hour);
            if let Some(value) = usize::try_from(hour.hour - first).ok().and_then(|place| values.get_mut(place)) {
                *value = (value.0 + events - runs * rate, value.1 + variance(runs, rate));
                seen += 1.0;
            }
        }
        Self { values, hours: seen }
    }

    fn covariance(&self, lag: usize) -> f64 {
        let pairs = self.values.iter().zip(self.values.iter().skip(lag));
        let (products, weights) = pairs.fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a.0 * b.0, sum.1 + a.1 * b.1));
        if weights > 0.0 { products / weights } else { 0.0 }
    }

    /// The wandering of a series whose days deviate by `day`.
    fn wander(&self, day: f64) -> Wander {
        let sum = self.values.iter().fold((0.0, 0.0, 0.0), |sum, (residual, variance)| {
            (sum.0 + residual * residual, sum.1 + variance, sum.2 + variance * variance)
        });
        let (squares, variance, fourth) = sum;
        if variance <= 0.0 {
            return UNKNOWN;
        }
        let usual = fourth / variance;
        let lags: Vec<f64> = (1..=LAGS).map(|lag| self.covariance(lag)).collect();
        let hourly = lags[0].max(lags[1]).max(0.0);
        let mut lasting = 0.0;
        for pair in lags.chunks_exact(2) {
            let both = pair.iter().map(|covariance| covariance - day * day).sum::<f64>();
            if both <= 0.0 {
                break;
            }
            lasting += both;
        }
        let known = 1.0 + WEEK / self.hours.clamp(1.0, 4.0 * WEEK);
        Wander {
            noise: (squares / variance - usual * hourly).max(1.0),
            hour: (known * hourly).sqrt(),
            day: known.sqrt() * day,
            lasting: (hourly - day * day + 2.0 * known * lasting).max(0.0),
            usual,
        }
    }
}

// === impl Wander ===

impl Wander {
    /// Learns from the hours that a baseline was learned from.
    pub fn learn(hours: &[Hour], baseline: &Baseline) -> Self {
        let mut week = vec![(0.0, 0.0); HOURS];
        for hour in hours {
            let slot = &mut week[hour_of_week(hour.hour)];
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            let more = (hour.events as f64, hour.runs as f64);
            *slot = (slot.0 + more.0, slot.1 + more.1);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let without = |hour: &Hour| {
            let place = hour_of_week(hour.hour);
            let (events, runs) = week[place];
            // The baseline's rate is (events + k day) / (runs + k): the same without this hour.
            let shrunk_to = baseline.rates[place] * (runs + SHRINK_RUNS) - events;
            ((events - hour.events as f64 + shrunk_to) / (runs - hour.runs as f64 + SHRINK_RUNS))
                .clamp(1e-9, 1.0 - 1e-9)
        };
        Residuals::new(hours, without, |runs, rate| runs * rate * (1.0 - rate)).wander(baseline.day_deviation)
    }

    /// Learns from hours of rare events, whose rate has no season: counts instead of shares, a rate's logarithm instead
    /// of its logit.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn of_counts(hours: &[Hour]) -> Self {
        let (events, runs) = hours.iter().fold((0, 0), |sum, hour| (sum.0 + hour.events, sum.1 + hour.runs));
        if events == 0 || runs == 0 {
            // There is nothing that could wander.
            return Self { noise: 1.0, hour: 0.0, day: 0.0, lasting: 0.0, usual: 1.0 };
        }
        let rate = events as f64 / runs as f64;
        Residuals::new(hours, |_| rate, |runs, rate| runs * rate).wander(0.0)
    }

    /// Variance of long sums of events over that of independent runs: φ₀ + V Λ for hours of variance `variance`.
    pub fn inflation(&self, variance: f64) -> f64 {
        (self.noise + variance * self.lasting).max(1.0)
    }

    /// What stays, and what is plain: nulls with a margin of at least `least`, on the logit scale.
    pub fn nulls(&self, least: f64) -> [Null; 2] {
        [
            Null { margin: least.max(2.0 * self.day), tempering: 1.0 / self.inflation(self.usual) },
            Null { margin: least.max(WIDE * self.hour), tempering: 1.0 / self.noise },
        ]
    }

    /// The null of an hour that is compared with the mean of `weeks` hours of the past in a table of variance `variance`.
    pub fn against(&self, least: f64, weeks: f64, variance: f64) -> Null {
        // Both sides wander.
        let both = 1.0 + 1.0 / weeks.max(1.0);
        Null { margin: least.max(2.0 * self.day * both.sqrt()), tempering: 1.0 / self.inflation(variance * both) }
    }

    /// Whichever wanders more.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            noise: self.noise.max(other.noise),
            hour: self.hour.max(other.hour),
            day: self.day.max(other.day),
            lasting: self.lasting.max(other.lasting),
            usual: self.usual.max(other.usual),
        }
    }
}

/// Variance of the events of the second arm, given those of both: that of the hypergeometric law.
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

    /// Four weeks of hours whose logit wanders by `deviation`, from hour to hour with a correlation.
    fn hours(seed: u64, runs: u64, deviation: f64, correlation: f64) -> Vec<Hour> {
        let mut random = Random(seed);
        let mut u = deviation * random.normal();
        (0..672)
            .map(|hour| {
                u = correlation * u + deviation * (1.0 - correlation * correlation).sqrt() * random.normal();
                let logit = (0.08_f64 / 0.92).ln() + u;
                Hour { hour, runs, events: random.binomial(runs, 1.0 / (1.0 + (-logit).exp())) }
            })
            .collect()
    }

    fn mean(runs: u64, deviation: f64, correlation: f64, of: impl Fn(&Wander) -> f64) -> f64 {
        let found = (0..30).map(|seed| {
            let hours = hours(seed, runs, deviation, correlation);
            of(&Wander::learn(&hours, &Baseline::learn(&hours).expect("a baseline")))
        });
        found.sum::<f64>() / 30.0
    }

    #[test]
    fn the_deviation_of_hours_and_of_long_sums_is_found() {
        // √f is 1.12 with four weeks; days take a part of what is slow.
        let hour = mean(200, 0.2, 0.8, |wander| wander.hour);
        assert!((0.15..0.27).contains(&hour), "{hour}");
        let (all, noise) =
            (mean(200, 0.2, 0.8, |wander| wander.inflation(wander.usual)), mean(200, 0.2, 0.8, |wander| wander.noise));
        assert!(all > 1.5 && noise < 1.3, "{all} {noise}");
        // Where nothing wanders, little is found.
        let (none, still) =
            (mean(200, 0.0, 0.0, |wander| wander.inflation(wander.usual)), mean(200, 0.0, 0.0, |wander| wander.hour));
        assert!(none < 1.4 && still < 0.08, "{none} {still}");
    }

    #[test]
    fn nulls_are_at_least_as_wide_as_asked_for_and_weigh_at_most_one() {
        for seed in 0..10 {
            let hours = hours(seed, 60, 0.3, 0.5);
            let wander = Wander::learn(&hours, &Baseline::learn(&hours).expect("a baseline"));
            for null in
                wander.nulls(0.1).into_iter().chain([wander.against(0.1, 4.0, 3.0), UNKNOWN.against(0.1, 1.0, 0.0)])
            {
                assert!(null.margin >= 0.1 && null.tempering > 0.0 && null.tempering <= 1.0, "{null:?}");
            }
            assert!(wander.nulls(0.1)[1].margin > 0.4, "{wander:?}");
        }
        let both = UNKNOWN.or(&Wander { lasting: 0.1, hour: 0.5, ..UNKNOWN });
        assert_eq!((both.lasting, both.hour), (0.3, 0.5));
    }

    #[test]
    fn counts_that_vary_by_chance_do_not_wander_and_none_is_none() {
        let mut random = Random(3);
        let rare: Vec<Hour> = (0..672).map(|hour| Hour { hour, runs: 1000, events: random.poisson(0.3) }).collect();
        let found = Wander::of_counts(&rare);
        assert!(found.inflation(found.usual) < 1.5, "{found:?}");
        close(Wander::of_counts(&[Hour { hour: 0, runs: 5, events: 0 }]).inflation(1.0), 1.0);
        assert_eq!(Wander::of_counts(&[]).nulls(0.1)[0].tempering, 1.0);
        close(table_variance((5, 10), (5, 10)), 100.0 * 100.0 / (400.0 * 19.0));
        close(table_variance((0, 1), (0, 0)), 0.0);
    }
}
