//! D4 and D6: change against one's own past, with its seasons.
//!
//! A [`Baseline`] holds the rate of a bad outcome by hour of the week, shrunk to the hour of the day and to the whole,
//! how much more it varies than chance would have it (φ), and how much days differ (τ). The null is "not worse than the
//! baseline by more than a margin on the logit scale"; the log-increment of a window with n runs, s of them bad, for an
//! odds ratio ω over the null's rate p₀ is
//!
//! > l = η (s ln ω − n ln(1 + p₀(ω − 1))),  η = 1/φ
//!
//! which is s ln(q/p₀) + (n−s) ln((1−q)/(1−p₀)) without cancellation. [`crate::sequential::Detector`] turns these into
//! the e-SR and e-CUSUM of Shin, Ramdas, Rinaldo (NEJSDS 2, 2023).
//!
//! D6 is the same against a reference that is frozen until somebody accepts a new one: a rolling baseline absorbs a slow
//! change, an anchored one does not. [`Baseline::anchored`] has its wider margin.

use crate::invalid::{Invalid, share, tempering};

/// Odds ratios over the null that are looked for.
pub const ODDS_RATIOS: [f64; 6] = [1.2, 1.4, 1.8, 2.5, 4.0, 8.0];

/// Hours of a week.
pub const HOURS: usize = 168;

/// Runs that an hour of the week is shrunk by.
const SHRINK_RUNS: f64 = 300.0;

/// Least margin of a rolling baseline: 10 % of the odds.
const LEAST_MARGIN: f64 = 0.095_310_179_804_324_87;

/// Least margin of an anchored one: 25 % of the odds.
const ANCHORED_MARGIN: f64 = 0.223_143_551_314_209_76;

/// Rates are held away from 0 and 1 by as much: no evidence may be infinite.
const LEAST_RATE: f64 = 1e-9;

/// Fewest hours with runs from which a baseline is made.
const LEAST_HOURS: usize = 24;

/// An hour of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Hours since the epoch, UTC.
    pub hour: i64,
    /// Runs.
    pub runs: u64,
    /// Runs with the bad outcome.
    pub events: u64,
}

/// What a series was like.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// Rate of the bad outcome by hour of the week; 0 is the first hour of a Monday, UTC.
    pub rates: Vec<f64>,
    /// Variance beyond chance, at least 1.
    pub overdispersion: f64,
    /// Standard deviation of days on the logit scale.
    pub day_deviation: f64,
    /// Margin of the null on the logit scale.
    pub margin: f64,
    /// Runs it was made from.
    pub runs: u64,
}

/// Log-increments of a window with `runs` runs, `events` of them bad, for each of [`ODDS_RATIOS`] over the rate
/// `null_rate`, times `tempering` (1/φ), in nats.
///
/// # Errors
/// Where there are more events than runs, or the rate is no share, or the tempering is out of (0, 1].
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn bernoulli_increments(
    events: u64,
    runs: u64,
    null_rate: f64,
    tempering_factor: f64,
) -> Result<[f64; ODDS_RATIOS.len()], Invalid> {
    if events > runs {
        return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
    }
    let (rate, tempering) = (held(null_rate)?, tempering(tempering_factor)?);
    let (events, runs) = (events as f64, runs as f64);
    Ok(ODDS_RATIOS.map(|ratio: f64| tempering * (events * ratio.ln() - runs * (rate * (ratio - 1.0)).ln_1p())))
}

/// The log-likelihood ratio of rate `alternative` against `null`: s ln(q/p₀) + (n−s) ln((1−q)/(1−p₀)).
///
/// # Errors
/// Where there are more events than runs, or a rate is no share.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn bernoulli_log_ratio(events: u64, runs: u64, null: f64, alternative: f64) -> Result<f64, Invalid> {
    if events > runs {
        return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
    }
    let (p, q) = (share("null rate", null)?, share("alternative rate", alternative)?);
    Ok(events as f64 * (q / p).ln() + (runs - events) as f64 * ((-q).ln_1p() - (-p).ln_1p()))
}

/// A rate from 0 to 1, held away from its ends.
fn held(rate: f64) -> Result<f64, Invalid> {
    if (0.0..=1.0).contains(&rate) {
        Ok(rate.clamp(LEAST_RATE, 1.0 - LEAST_RATE))
    } else {
        Err(Invalid::new("rate", rate, "from 0 to 1"))
    }
}

fn logit(rate: f64) -> f64 {
    (rate / (1.0 - rate)).ln()
}

fn expit(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The hour of the week of an hour since the epoch, which began on a Thursday.
pub fn hour_of_week(hour: i64) -> usize {
    usize::try_from((hour + 72).rem_euclid(168)).unwrap_or(0)
}

// === impl Baseline ===

impl Baseline {
    /// Learns from hours of the past, in any order; those inside alerts and the current day are left out by the caller.
    ///
    /// # Errors
    /// Where fewer than 24 hours have runs, or an hour has more events than runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn learn(hours: &[Hour]) -> Result<Self, Invalid> {
        let mut week = vec![(0.0, 0.0); HOURS];
        let mut seen = 0;
        for Hour { hour, runs, events } in hours {
            if events > runs {
                return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
            }
            seen += usize::from(*runs > 0);
            let slot = &mut week[hour_of_week(*hour)];
            slot.0 += *events as f64;
            slot.1 += *runs as f64;
        }
        if seen < LEAST_HOURS {
            return Err(Invalid::new("hours with runs", seen, "at least 24 to learn a baseline from"));
        }
        let rates = shrunk(&week);
        let (overdispersion, day_deviation) = dispersion(hours, &rates);
        let margin = LEAST_MARGIN.max(2.0 * day_deviation);
        let runs = hours.iter().map(|hour| hour.runs).fold(0, u64::saturating_add);
        Ok(Self { rates, overdispersion, day_deviation, margin, runs })
    }

    /// The same reference with the margin of an anchored twin (D6), which is kept until somebody accepts another.
    #[must_use]
    pub fn anchored(&self) -> Self {
        Self { margin: self.margin.max(ANCHORED_MARGIN), ..self.clone() }
    }

    /// The greatest rate that is not worse, in an hour since the epoch.
    pub fn null_rate(&self, hour: i64) -> f64 {
        let rate = self.rates.get(hour_of_week(hour)).copied().unwrap_or(0.5);
        expit(logit(rate.clamp(LEAST_RATE, 1.0 - LEAST_RATE)) + self.margin)
    }

    /// Log-increments of a window that lies in an hour since the epoch.
    ///
    /// # Errors
    /// Where there are more events than runs.
    pub fn increments(&self, hour: i64, events: u64, runs: u64) -> Result<[f64; ODDS_RATIOS.len()], Invalid> {
        bernoulli_increments(events, runs, self.null_rate(hour), 1.0 / self.overdispersion.max(1.0))
    }
}

/// Rates by hour of the week, shrunk to the hour of the day, which are shrunk to the whole (empirical Bayes).
fn shrunk(week: &[(f64, f64)]) -> Vec<f64> {
    let add = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
    let whole = week.iter().fold((0.0, 0.0), add);
    // Half an event: a series without any bad outcome has a rate above 0 nevertheless.
    let whole = (whole.0 + 0.5) / (whole.1 + 1.0);
    let shrink = |(events, runs): (f64, f64), to: f64| (events + SHRINK_RUNS * to) / (runs + SHRINK_RUNS);
    let days: Vec<f64> =
        (0..24).map(|hour| shrink(week.iter().skip(hour).step_by(24).fold((0.0, 0.0), add), whole)).collect();
    week.iter().enumerate().map(|(hour, counts)| shrink(*counts, days[hour % 24])).collect()
}

/// φ from the hours, and τ from the days: what the days vary beyond φ.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn dispersion(hours: &[Hour], rates: &[f64]) -> (f64, f64) {
    let (mut squares, mut count) = (0.0, 0.0);
    let mut days = std::collections::BTreeMap::<i64, (f64, f64)>::new();
    for hour in hours.iter().filter(|hour| hour.runs > 0) {
        let rate = rates[hour_of_week(hour.hour)];
        let runs = hour.runs as f64;
        let (residual, variance) = (hour.events as f64 - runs * rate, runs * rate * (1.0 - rate));
        squares += residual * residual / variance;
        count += 1.0;
        let day = days.entry(hour.hour.div_euclid(24)).or_default();
        day.0 += residual;
        day.1 += variance;
    }
    let overdispersion = (squares / count).max(1.0);
    // A day's residual has variance φV + τ²V²; sums over days weigh busy days more, which know more.
    let excess: f64 = days.values().map(|(residual, variance)| residual * residual - overdispersion * variance).sum();
    let weight: f64 = days.values().map(|(_, variance)| variance * variance).sum();
    (overdispersion, (excess / weight).max(0.0).sqrt())
}
