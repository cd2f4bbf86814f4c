//! D4 and D6: change of a rate against the series' own past, adjusted for seasons.
//!
//! A [`WeeklyBaseline`] holds the rate of a bad outcome by hour of the week, shrunk towards the rate of the hour of the
//! day and of the whole series, the overdispersion (φ), and the standard deviation between days (τ). The null
//! hypothesis is "not worse than the baseline by more than a margin on the logit scale". The log-increment of a window
//! with n runs, s of them bad, for an odds ratio ω over the null rate p₀ is
//!
//! > l = η (s ln ω − n ln(1 + p₀(ω − 1))),  η = 1/φ
//!
//! which is s ln(q/p₀) + (n−s) ln((1−q)/(1−p₀)) without cancellation. [`crate::sequential::EDetector`] turns the
//! increments into the e-SR and e-CUSUM of Shin, Ramdas, Rinaldo (NEJSDS 2, 2023).
//!
//! D6 applies the same test against a reference that stays fixed until a person accepts a new one: a rolling baseline
//! absorbs a slow change, an anchored one does not. [`WeeklyBaseline::anchored`] has the wider margin that this needs.

use crate::invalid::{Invalid, share, tempering};

/// The alternatives: odds ratios over the null rate.
pub const ODDS_RATIOS: [f64; 6] = [1.2, 1.4, 1.8, 2.5, 4.0, 8.0];

/// Hours in a week.
pub const HOURS: usize = 168;

/// Weight of the shrinkage of an hour of the week, in runs.
pub(crate) const SHRINK_RUNS: f64 = 300.0;

/// Minimum margin of a rolling baseline: 10 % of the odds.
const MIN_MARGIN: f64 = 0.095_310_179_804_324_87;

/// Minimum margin of an anchored baseline: 25 % of the odds.
const ANCHORED_MARGIN: f64 = 0.223_143_551_314_209_76;

/// Rates are kept this far from 0 and 1, so that evidence stays finite.
const MIN_RATE: f64 = 1e-9;

/// Minimum number of hours with runs to learn a baseline from.
const MIN_HOURS: usize = 24;

/// Counts of one hour of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourCounts {
    /// Hours since the epoch on the clock that defines the season: UTC or a time zone.
    pub hour: i64,
    pub runs: u64,
    /// Runs with the bad outcome.
    pub events: u64,
}

/// The normal behaviour of a series, by hour of the week.
#[derive(Clone, Debug, PartialEq)]
pub struct WeeklyBaseline {
    /// Rate of the bad outcome by hour of the week; index 0 is the first hour of Monday.
    pub rates: Vec<f64>,
    /// Overdispersion φ: observed variance over binomial variance, at least 1.
    pub overdispersion: f64,
    /// Standard deviation between days, on the logit scale.
    pub day_deviation: f64,
    /// Margin of the null hypothesis, on the logit scale.
    pub margin: f64,
    /// Runs that it was learned from; 0 if unknown.
    pub runs: u64,
}

/// Returns the log-increments of a window with `runs` runs, `events` of them bad, for each of [`ODDS_RATIOS`] over the
/// rate `null_rate`, multiplied by `tempering` (1/φ), in nats.
///
/// # Errors
/// Fails if there are more events than runs, the rate is not between 0 and 1, or the tempering is not in (0, 1].
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

/// Returns the log-likelihood ratio of rate `alternative` against `null`: s ln(q/p₀) + (n−s) ln((1−q)/(1−p₀)).
///
/// # Errors
/// Fails if there are more events than runs, or a rate is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn bernoulli_log_ratio(events: u64, runs: u64, null: f64, alternative: f64) -> Result<f64, Invalid> {
    if events > runs {
        return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
    }
    let (p, q) = (share("null rate", null)?, share("alternative rate", alternative)?);
    Ok(events as f64 * (q / p).ln() + (runs - events) as f64 * ((-q).ln_1p() - (-p).ln_1p()))
}

/// Checks a rate from 0 to 1 and clamps it away from both ends.
fn held(rate: f64) -> Result<f64, Invalid> {
    if (0.0..=1.0).contains(&rate) {
        Ok(rate.clamp(MIN_RATE, 1.0 - MIN_RATE))
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

/// Returns the hour of the week for an hour since the epoch, which began on a Thursday.
pub fn hour_of_week(hour: i64) -> usize {
    usize::try_from((hour + 72).rem_euclid(168)).unwrap_or(0)
}

// === impl WeeklyBaseline ===

impl WeeklyBaseline {
    /// Learns a baseline from hours of the past, in any order. The caller leaves out hours inside incidents and the
    /// current day.
    ///
    /// # Errors
    /// Fails if fewer than 24 hours have runs, or an hour has more events than runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn learn(hours: &[HourCounts]) -> Result<Self, Invalid> {
        let mut week = vec![(0.0, 0.0); HOURS];
        let mut seen = 0;
        for HourCounts { hour, runs, events } in hours {
            if events > runs {
                return Err(Invalid::new("events", format_args!("{events} of {runs}"), "at most the runs"));
            }
            seen += usize::from(*runs > 0);
            let slot = &mut week[hour_of_week(*hour)];
            slot.0 += *events as f64;
            slot.1 += *runs as f64;
        }
        if seen < MIN_HOURS {
            return Err(Invalid::new("hours with runs", seen, "at least 24 to learn a baseline from"));
        }
        let rates = shrunk(&week);
        let (overdispersion, day_deviation) = dispersion(hours, &rates);
        let margin = MIN_MARGIN.max(2.0 * day_deviation);
        let runs = hours.iter().map(|hour| hour.runs).fold(0, u64::saturating_add);
        Ok(Self { rates, overdispersion, day_deviation, margin, runs })
    }

    /// Returns the same reference with the margin of its anchored twin (D6), which stays in force until a person
    /// accepts another.
    #[must_use]
    pub fn anchored(&self) -> Self {
        Self { margin: self.margin.max(ANCHORED_MARGIN), ..self.clone() }
    }

    /// Returns the baseline as a list: 168 rates, overdispersion, standard deviation between days, margin.
    pub fn to_numbers(&self) -> Vec<f64> {
        let mut numbers = self.rates.clone();
        numbers.extend([self.overdispersion, self.day_deviation, self.margin]);
        numbers
    }

    /// Reads the list that [`WeeklyBaseline::to_numbers`] returns.
    ///
    /// # Errors
    /// Fails if the list has a different length or a number is out of range.
    pub fn from_numbers(numbers: &[f64]) -> Result<Self, Invalid> {
        let limit = "171 numbers made by seasonal_baseline";
        let Some((rates, [overdispersion, day_deviation, margin])) = numbers.split_at_checked(HOURS) else {
            return Err(Invalid::new("baseline", format_args!("{} numbers", numbers.len()), limit));
        };
        let sound = rates.iter().all(|rate| (0.0..=1.0).contains(rate))
            && (1.0..f64::INFINITY).contains(overdispersion)
            && (0.0..f64::INFINITY).contains(day_deviation)
            && (0.0..f64::INFINITY).contains(margin);
        if !sound {
            return Err(Invalid::new("baseline", "a list with numbers out of range", limit));
        }
        let (rates, runs) = (rates.to_vec(), 0);
        Ok(Self { rates, overdispersion: *overdispersion, day_deviation: *day_deviation, margin: *margin, runs })
    }

    /// Returns the highest rate that still satisfies the null hypothesis in an hour since the epoch.
    pub fn null_rate(&self, hour: i64) -> f64 {
        self.rate_beyond(hour, self.margin)
    }

    /// Returns the rate of an hour since the epoch, raised by a margin on the logit scale.
    pub fn rate_beyond(&self, hour: i64, margin: f64) -> f64 {
        let rate = self.rates.get(hour_of_week(hour)).copied().unwrap_or(0.5);
        expit(logit(rate.clamp(MIN_RATE, 1.0 - MIN_RATE)) + margin)
    }

    /// Returns the log-increments of a window that lies in an hour since the epoch.
    ///
    /// # Errors
    /// Fails if there are more events than runs.
    pub fn increments(&self, hour: i64, events: u64, runs: u64) -> Result<[f64; ODDS_RATIOS.len()], Invalid> {
        bernoulli_increments(events, runs, self.null_rate(hour), 1.0 / self.overdispersion.max(1.0))
    }
}

/// Returns rates by hour of the week, shrunk towards the rate of the hour of the day, which is itself shrunk towards
/// the overall rate (empirical Bayes).
fn shrunk(week: &[(f64, f64)]) -> Vec<f64> {
    let add = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
    let whole = week.iter().fold((0.0, 0.0), add);
    // Half an event: even a series without any bad outcome gets a rate above 0.
    let whole = (whole.0 + 0.5) / (whole.1 + 1.0);
    let shrink = |(events, runs): (f64, f64), to: f64| (events + SHRINK_RUNS * to) / (runs + SHRINK_RUNS);
    let days: Vec<f64> =
        (0..24).map(|hour| shrink(week.iter().skip(hour).step_by(24).fold((0.0, 0.0), add), whole)).collect();
    week.iter().enumerate().map(|(hour, counts)| shrink(*counts, days[hour % 24])).collect()
}

/// Estimates φ from the hours, and τ from the variation between days that φ does not explain.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn dispersion(hours: &[HourCounts], rates: &[f64]) -> (f64, f64) {
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
    // A day's residual has variance φV + τ²V². Summing over days gives busy days, which are more precise, more weight.
    let excess: f64 = days.values().map(|(residual, variance)| residual * residual - overdispersion * variance).sum();
    let weight: f64 = days.values().map(|(_, variance)| variance * variance).sum();
    (overdispersion, (excess / weight).max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequential::{EDetector, detector_threshold};
    use crate::testing::{Random, close};

    #[test]
    fn golden_values_of_the_detector() {
        let mut detector = EDetector::new(1);
        let golden = [0.188_124_722_629, 13.091_041_164_2, 748.801_770_949, 523_617.727_004];
        for ((runs, events), golden) in [(100, 5), (80, 9), (120, 14), (100, 16)].into_iter().zip(golden) {
            detector.update(&[bernoulli_log_ratio(events, runs, 0.05, 0.10).expect("an increment")]);
            let found = detector.log_shiryaev_roberts().exp();
            // The golden values have twelve digits.
            assert!((found / golden - 1.0).abs() < 2e-11, "{found} instead of {golden}");
        }
    }

    #[test]
    fn increments_are_those_of_the_ratio_of_likelihoods() {
        let increments = bernoulli_increments(9, 80, 0.05, 0.5).expect("increments");
        for (ratio, found) in ODDS_RATIOS.into_iter().zip(increments) {
            let odds = 0.05 / 0.95 * ratio;
            close(found, 0.5 * bernoulli_log_ratio(9, 80, 0.05, odds / (1.0 + odds)).expect("an increment"));
        }
    }

    #[test]
    fn extreme_series_are_numbers() {
        const HUGE: u64 = 1_000_000_000;
        for (events, runs) in [(0, 0), (0, HUGE), (HUGE, HUGE), (1, 1)] {
            for rate in [0.0, 1e-12, 0.5, 1.0] {
                let increments = bernoulli_increments(events, runs, rate, 1.0).expect("increments");
                assert!(increments.iter().all(|x| x.is_finite()), "{events}/{runs} at {rate}: {increments:?}");
            }
        }
        assert!(bernoulli_increments(2, 1, 0.5, 1.0).is_err() && bernoulli_increments(1, 2, f64::NAN, 1.0).is_err());
        for events in [0, 50] {
            let hours: Vec<HourCounts> = (0..672).map(|hour| HourCounts { hour, runs: 50, events }).collect();
            let baseline = WeeklyBaseline::learn(&hours).expect("a baseline");
            let increments = baseline.increments(700, events, 50).expect("increments");
            assert!(increments.iter().all(|x| x.is_finite() && *x <= 1e-3), "{increments:?}");
        }
    }

    #[test]
    fn hours_of_the_week_begin_on_monday() {
        // 1970-01-05 00:00 UTC was a Monday.
        assert_eq!(hour_of_week(96), 0);
        assert_eq!(hour_of_week(0), 72);
        assert_eq!(hour_of_week(-1), 71);
    }

    #[test]
    fn a_past_that_is_too_short_gives_no_baseline() {
        let hours: Vec<HourCounts> = (0..23).map(|hour| HourCounts { hour, runs: 10, events: 1 }).collect();
        let error = WeeklyBaseline::learn(&hours).expect_err("refused").to_string();
        assert!(error.contains("at least 24"), "{error}");
        assert!(WeeklyBaseline::learn(&[HourCounts { hour: 0, runs: 1, events: 2 }]).is_err());
    }

    #[test]
    fn the_twin_has_the_same_rates_and_a_wider_margin() {
        let baseline = WeeklyBaseline::learn(&series(1, 0, 672)).expect("a baseline");
        let twin = baseline.anchored();
        let read = WeeklyBaseline::from_numbers(&baseline.to_numbers()).expect("a baseline");
        assert_eq!(read, WeeklyBaseline { runs: 0, ..baseline.clone() });
        assert!(
            WeeklyBaseline::from_numbers(&[0.5; 170]).is_err()
                && WeeklyBaseline::from_numbers(&[f64::NAN; 171]).is_err()
        );
        assert_eq!(twin.rates, baseline.rates);
        assert!(twin.margin >= 1.25_f64.ln() && twin.null_rate(5) > baseline.null_rate(5));
    }

    fn logit_rate(hour: i64, day_shift: f64) -> f64 {
        let day = 2.0 * std::f64::consts::PI * (hour.rem_euclid(24)) as f64 / 24.0;
        let weekend = if hour_of_week(hour) >= 120 { 0.2 } else { 0.0 };
        expit(logit(0.08) + 0.25 * day.sin() + weekend + day_shift)
    }

    /// Hours with a daily and weekly season, and days that differ a little.
    fn series(seed: u64, from: i64, hours: i64) -> Vec<HourCounts> {
        let mut random = Random(seed);
        let mut shift = 0.0;
        (from..from + hours)
            .map(|hour| {
                if hour % 24 == 0 {
                    shift = 0.04 * random.normal();
                }
                let runs = if hour % 24 < 6 { 60 } else { 200 };
                HourCounts { hour, runs, events: random.binomial(runs, logit_rate(hour, shift)) }
            })
            .collect()
    }

    #[test]
    fn seasons_do_not_alarm_and_a_shift_does() {
        let (trials, weeks) = (60, 2);
        // At most one false alarm in 26 weeks of hours: 4.6 are expected at most over 60 series of two weeks.
        let threshold = detector_threshold(1.0, 26.0 * 168.0, 1.0).expect("a threshold");
        let (mut wrong, mut found) = (0, 0);
        for seed in 0..trials {
            let past = series(seed, 0, 4 * 168);
            let baseline = WeeklyBaseline::learn(&past).expect("a baseline");
            let mut detector = EDetector::new(ODDS_RATIOS.len());
            let mut random = Random(seed ^ 0xffff);
            let alarmed = series(seed + 1000, 4 * 168, weeks * 168).iter().any(|hour| {
                detector.update(&baseline.increments(hour.hour, hour.events, hour.runs).expect("increments"));
                detector.log_shiryaev_roberts() >= threshold
            });
            wrong += u32::from(alarmed);
            let mut detector = EDetector::new(ODDS_RATIOS.len());
            let delay = (4 * 168..4 * 168 + 48).position(|hour| {
                let events = random.binomial(200, logit_rate(hour, 0.0) + 0.05);
                detector.update(&baseline.increments(hour, events, 200).expect("increments"));
                detector.log_shiryaev_roberts() >= threshold
            });
            found += u32::from(delay.is_some_and(|hours| hours < 24));
        }
        assert!(wrong <= 10, "{wrong} of {trials} series alarm, seeds 0 to {trials}");
        assert!(found >= 54, "{found} of {trials} shifts of 5 points found in a day, seeds 0 to {trials}");
    }

    #[test]
    fn the_average_run_length_is_at_least_the_promised_one() {
        // At the boundary of the null hypothesis with A = 200, the mean time to the first alarm must be at least 200.
        let (trials, mut updates) = (200, 0_u64);
        for seed in 0..trials {
            let mut random = Random(seed);
            let mut detector = EDetector::new(ODDS_RATIOS.len());
            for block in 1..=4000_u64 {
                detector.update(&bernoulli_increments(random.binomial(30, 0.1), 30, 0.1, 1.0).expect("increments"));
                if detector.log_shiryaev_roberts() >= 200_f64.ln() || block == 4000 {
                    updates += block;
                    break;
                }
            }
        }
        let mean = updates / trials;
        assert!(mean >= 200, "{mean} blocks between false alarms, seeds 0 to {trials}");
    }
}
