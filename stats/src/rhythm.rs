//! D11: the weekly rhythm of a series: the usual number of runs by hour of the week, and its uncertainty.
//!
//! The question is: how improbable is it that no run arrives for a while? Three effects make silence more probable than
//! a Poisson distribution with the same mean says. Each is learned from the series' own past of up to [`WEEKS`] weeks:
//!
//! * **Runs arrive in clusters**, such as sessions and batches. The variance of an hour, given the hour before it, is φ
//!   times its mean, so φ runs carry as much information as one independent run (Kish, "Survey Sampling", 1965, 8.2:
//!   the design effect). Counts and means are multiplied by c = 1/φ. A distribution with random cluster sizes, such as
//!   NB1, would understate the probability of silence when clusters have equal size.
//! * **Weeks differ.** The level of an hour is gamma distributed around its mean with shape κ, estimated by the method
//!   of moments from the same hour of several weeks (NB2, ibid.): the predictive distribution of the counts is negative
//!   binomial, with P(0) = (1 + c μ / κ)^−κ. The mean of n weeks has an error of its own: 1/κ′ = (1 + 1/n)/κ + 1/(n μ).
//! * **Today differs.** The counts of the preceding hours, compared with their usual values, give a gamma posterior for
//!   today's level: shape κ + c x, level (κ + c x)/(κ + c m), never above 1. A day that has been quiet from its start
//!   is expected to stay quiet; a day that was normal until a moment ago is not.
//!
//! In addition, an hour is not judged at all unless its past supports an expectation. It is expected to have runs only
//! if the same hour of the week, the hour before and the hour after had runs in every known week, with at least two
//! known; or, in the second week, on every day of the first. With four or more known weeks, one quiet week is ignored
//! unless it was the last one; two quiet weeks are a habit. An hour of the day that was quiet on two days of the last
//! week is not judged either, so that a job that moved or a habit that ended does not alarm every day. The expectation
//! is the minimum over the three hours, so that a day that starts an hour late (such as after a clock change) does not
//! alarm.

use crate::drift::{HOURS, hour_of_week};
use crate::packed;
use crate::special::ln_beta;

/// Maximum number of weeks to learn from.
pub const WEEKS: usize = 8;

/// The same in hours.
pub const HISTORY_HOURS: i64 = 168 * 8;

/// An hour is quiet at or below this fraction of its usual runs.
pub const QUIET_FRACTION: f64 = 0.1;

/// Expected runs at which their absence is significant: ln 100, so that a Poisson count is 0 once in a hundred.
const SIGNIFICANT: f64 = 4.6;

/// Minimum variance between weeks: 1/κ. No past shows that all weeks are alike.
const MIN_VARIANCE: f64 = 0.02;

/// Shape of the level of an hour given the hour before, while φ is being learned.
const GUESS_SHAPE: f64 = 10.0;

/// Number of quiet days in the last week, at the same hour of the day, that make a habit.
const HABIT: usize = 2;

/// Minimum number of known weeks among which one quiet week is ignored.
const MIN_WEEKS_TO_FORGIVE: usize = 4;

/// The usual traffic of one hour of the week.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TypicalHour {
    /// Mean number of runs.
    pub mean: f64,
    /// Runs that can be expected; 0 if the hour is not judged.
    pub expected: f64,
    /// κ′: shape of the predictive distribution of the level.
    pub shape: f64,
}

/// The usual traffic by hour of the week.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    hours: Vec<TypicalHour>,
    clumping: f64,
}

/// The present level of traffic relative to the usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrafficLevel {
    /// Fraction of the usual traffic, at most 1.
    pub share: f64,
    /// Shape of its posterior distribution.
    pub shape: f64,
    /// True if the preceding hours had runs.
    pub going: bool,
}

packed!(TrafficLevel { share, shape, going });

/// A recent hour: its runs, its usual runs, and its weight as evidence about the present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentHour {
    pub runs: f64,
    pub usual: f64,
    /// 1 for the hours just before the present, less for older ones.
    pub weight: f64,
}

/// Returns ln of the probability of at most `runs` runs if `expected` are expected and the level is gamma distributed
/// with `shape`: the lower tail of the negative binomial distribution. Counts may be real.
pub fn ln_silence(runs: f64, expected: f64, shape: f64) -> f64 {
    if expected.is_nan() || expected <= 0.0 || shape.is_nan() || shape <= 0.0 {
        return 0.0;
    }
    let success = shape / (shape + expected);
    ln_beta(success, 1.0 - success, shape, runs.max(0.0) + 1.0).min(0.0)
}

/// The past, indexed by age in hours.
struct Table {
    /// Runs; index 0 is the last hour before the present.
    ago: Vec<Option<f64>>,
    /// The hour since the epoch of index 0, by the wall clock.
    last: i64,
}

// === impl Table ===

impl Table {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn new(hours: &[(i64, u64)], end: i64) -> Self {
        let mut ago = vec![None; HOURS * WEEKS];
        for (hour, runs) in hours {
            // Of two values for the same hour, the later one counts.
            if let Some(slot) = usize::try_from(end - 1 - hour).ok().and_then(|place| ago.get_mut(place)) {
                *slot = Some(*runs as f64);
            }
        }
        Self { ago, last: end - 1 }
    }

    fn at(&self, place: usize) -> Option<f64> {
        self.ago.get(place).copied().flatten()
    }

    fn of_week(&self, place: usize) -> usize {
        hour_of_week(self.last - i64::try_from(place).unwrap_or(0))
    }

    fn of_day(&self, place: usize) -> usize {
        self.of_week(place) % 24
    }

    /// Returns the hour itself and its two neighbours.
    fn trio(place: usize) -> impl Iterator<Item = usize> {
        [place.checked_sub(1), Some(place), Some(place + 1)].into_iter().flatten()
    }

    /// Returns true if one of the three hours, or all of them together, had next to no runs although their mean is
    /// significant.
    fn quiet(&self, place: usize, mean: impl Fn(usize) -> f64) -> bool {
        let (mut runs, mut usual) = (0.0, 0.0);
        for near in Self::trio(place) {
            let Some(found) = self.at(near) else { continue };
            let mean = mean(near);
            if mean >= SIGNIFICANT && found <= QUIET_FRACTION * mean {
                return true;
            }
            (runs, usual) = (runs + found, usual + mean);
        }
        usual >= SIGNIFICANT && runs <= QUIET_FRACTION * usual
    }

    /// Returns the mean and the number of hours for each key.
    fn means(&self, keys: usize, key: impl Fn(usize) -> usize) -> Vec<(f64, f64)> {
        let mut sums = vec![(0.0, 0.0); keys];
        for (place, runs) in self.ago.iter().enumerate() {
            if let Some(runs) = runs {
                let sum = &mut sums[key(place)];
                *sum = (sum.0 + runs, sum.1 + 1.0);
            }
        }
        sums.into_iter().map(|(sum, count): (f64, f64)| (if count > 0.0 { sum / count } else { 0.0 }, count)).collect()
    }

    /// Estimates φ: the variance of an hour given the one before, over its mean.
    fn clumping(&self, mean: impl Fn(usize) -> f64) -> f64 {
        let (mut squares, mut count) = (0.0, 0.0);
        for place in 0..self.ago.len() {
            let (Some(runs), Some(before)) = (self.at(place), self.at(place + 1)) else { continue };
            let shape = GUESS_SHAPE + before;
            let expected = mean(place) * shape / (GUESS_SHAPE + mean(place + 1));
            if expected >= 1.0 {
                // Variance of the count itself, plus that of the level inferred from the hour before.
                squares += (runs - expected).powi(2) / (expected * (1.0 + expected / shape));
                count += 1.0;
            }
        }
        if count > 0.0 { (squares / count).max(1.0) } else { 1.0 }
    }

    /// Estimates 1/κ by the method of moments from hours with the same key; at least [`MIN_VARIANCE`].
    fn variance(&self, phi: f64, means: &[(f64, f64)], key: impl Fn(usize) -> usize) -> f64 {
        let (mut excess, mut weight) = (0.0, 0.0);
        for (place, runs) in self.ago.iter().enumerate() {
            let (mean, count) = means[key(place)];
            if let Some(runs) = runs.filter(|_| count >= 2.0) {
                excess += (runs - mean).powi(2) * count / (count - 1.0) - phi * mean;
                weight += mean * mean;
            }
        }
        if weight > 0.0 { (excess / weight).max(MIN_VARIANCE) } else { 1.0 }
    }
}

// === impl Rhythm ===

impl Rhythm {
    /// Learns from past hours on the wall clock and their runs, including hours without runs; `end` is the first hour
    /// to judge. None if less than a week is known.
    pub fn learn(hours: &[(i64, u64)], end: i64) -> Option<Self> {
        let first = hours.iter().map(|(hour, _)| *hour).min()?;
        if end - first < 168 {
            return None;
        }
        let table = Table::new(hours, end);
        let weekly = table.means(HOURS, |place| table.of_week(place));
        let daily = table.means(24, |place| table.of_day(place));
        let phi = table.clumping(|place| weekly[table.of_week(place)].0);
        let by_week = table.variance(phi, &weekly, |place| table.of_week(place));
        let by_day = table.variance(phi, &daily, |place| table.of_day(place));
        let quiet: Vec<bool> =
            (0..table.ago.len()).map(|place| table.quiet(place, |near| weekly[table.of_week(near)].0)).collect();
        let habits = habits(&table, &quiet);
        let mut usual = vec![TypicalHour::default(); HOURS];
        for place in 0..HOURS {
            let (week, day) = (table.of_week(place), table.of_day(place));
            let (mean, count) = weekly[week];
            let near = [(week + HOURS - 1) % HOURS, week, (week + 1) % HOURS];
            let least = near.iter().map(|hour| weekly[*hour].0).fold(f64::INFINITY, f64::min);
            let (expected, shape) = if count >= 2.0 {
                let carried = is_carried(&table, &quiet, place) && !habits[day];
                (
                    if carried { least } else { 0.0 },
                    1.0 / (by_week * (1.0 + 1.0 / count) + 1.0 / (count * mean.max(1e-9))),
                )
            } else {
                let days = daily[day];
                let carried = is_daily(&table, &daily, day);
                let least = Table::trio(day + 1).map(|hour| daily[(hour + 23) % 24].0).fold(least, f64::min);
                (
                    if carried { least } else { 0.0 },
                    1.0 / (by_day * (1.0 + 1.0 / days.1.max(1.0)) + 1.0 / mean.max(1e-9)),
                )
            };
            let together = near.iter().map(|hour| weekly[*hour].0).sum::<f64>();
            usual[week] = TypicalHour { mean, expected: if together < SIGNIFICANT { 0.0 } else { expected }, shape };
        }
        Some(Self { hours: usual, clumping: 1.0 / phi })
    }

    /// Returns the usual traffic in an hour of the wall clock.
    pub fn usual(&self, hour: i64) -> TypicalHour {
        self.hours.get(hour_of_week(hour)).copied().unwrap_or_default()
    }

    /// Returns c: the number of independent runs that one run is worth.
    pub fn clumping(&self) -> f64 {
        self.clumping
    }

    /// Returns the present level of traffic, from the recent hours and the shape of its prior.
    pub fn level(&self, shape: f64, recent: &[RecentHour]) -> TrafficLevel {
        let (mut runs, mut usual, mut now, mut usual_now) = (0.0, 0.0, 0.0, 0.0);
        for hour in recent {
            let weight = self.clumping * hour.weight;
            (runs, usual) = (runs + weight * hour.runs, usual + weight * hour.usual);
            if hour.weight >= 1.0 {
                (now, usual_now) = (now + hour.runs, usual_now + hour.usual);
            }
        }
        let share = ((shape + runs) / (shape + usual)).min(1.0);
        let going = now > 0.0 && usual_now >= SIGNIFICANT && now > QUIET_FRACTION * usual_now;
        // Only the most recent hours inform the level right now, whatever yesterday was like.
        TrafficLevel { share, shape: if going { shape + self.clumping * now } else { shape }, going }
    }
}

/// Returns true if the past supports an expectation: the hour was quiet in no week, or in one of several that was not
/// the last.
fn is_carried(table: &Table, quiet: &[bool], place: usize) -> bool {
    let weeks: Vec<bool> = (place..quiet.len())
        .step_by(HOURS)
        .filter(|place| table.at(*place).is_some())
        .map(|place| quiet[place])
        .collect();
    let count = weeks.iter().filter(|quiet| **quiet).count();
    count == 0 || (count == 1 && weeks.len() >= MIN_WEEKS_TO_FORGIVE && !weeks[0])
}

/// Returns true if an hour of the day was quiet on no day of the first week.
fn is_daily(table: &Table, daily: &[(f64, f64)], day: usize) -> bool {
    let mut places = (0..table.ago.len()).filter(|place| table.at(*place).is_some() && table.of_day(*place) == day);
    daily[day].1 >= 7.0 && places.all(|place| !table.quiet(place, |near| daily[table.of_day(near)].0))
}

/// Returns, for each hour of the day, whether it was quiet on two days of the last week although it used to be busy on
/// them.
fn habits(table: &Table, quiet: &[bool]) -> Vec<bool> {
    let mut found = vec![0; 24];
    for place in (0..HOURS).filter(|place| quiet[*place]) {
        let earlier: Vec<bool> = (place + HOURS..quiet.len())
            .step_by(HOURS)
            .filter(|place| table.at(*place).is_some())
            .map(|place| quiet[place])
            .collect();
        let busy = earlier.iter().filter(|quiet| !**quiet).count();
        if busy * 3 >= earlier.len() * 2 && busy > 0 {
            found[table.of_day(place)] += 1;
        }
    }
    found.into_iter().map(|count| count >= HABIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    /// Hours from 96 on, which is the first hour of a Monday, for some weeks.
    fn hours(weeks: i64, runs: impl Fn(i64, i64, i64) -> u64) -> (Vec<(i64, u64)>, i64) {
        let end = 96 + weeks * 168;
        let of = |hour: i64| runs((hour - 96) / 168, (hour - 96).rem_euclid(168) / 24, (hour - 96).rem_euclid(24));
        ((96..end).map(|hour| (hour, of(hour))).collect(), end)
    }

    fn learned(weeks: i64, runs: impl Fn(i64, i64, i64) -> u64) -> (Rhythm, i64) {
        let (hours, end) = hours(weeks, runs);
        (Rhythm::learn(&hours, end).expect("a week is known"), end)
    }

    fn office(day: i64, hour: i64) -> u64 {
        if day < 5 && (9..18).contains(&hour) { 60 } else { 0 }
    }

    #[test]
    fn silence_is_the_tail_of_a_negative_binomial_distribution() {
        // (1 + 20/5)^−5, and scipy.stats.nbinom.logcdf(3, 5, 5/25).
        close(ln_silence(0.0, 20.0, 5.0), -5.0 * 5_f64.ln());
        let by_hand: f64 = [1.0, 5.0, 15.0, 35.0]
            .into_iter()
            .zip(0..)
            .map(|(ways, k)| ways * 0.2_f64.powi(5) * 0.8_f64.powi(k))
            .sum::<f64>();
        close(ln_silence(3.0, 20.0, 5.0), by_hand.ln());
        assert_eq!(
            (ln_silence(0.0, 0.0, 5.0), ln_silence(0.0, f64::NAN, 5.0), ln_silence(0.0, 3.0, 0.0)),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn only_hours_busy_in_every_week_are_expected_to_be_busy() {
        let (rhythm, end) = learned(4, |_, day, hour| office(day, hour));
        let expected = |day: i64, hour: i64| rhythm.usual(end + day * 24 + hour).expected;
        assert_eq!((expected(0, 12), expected(5, 12), expected(6, 3)), (60.0, 0.0, 0.0));
        // Nor are the first and the last hour of a day, which may shift by an hour.
        assert_eq!((expected(1, 9), expected(1, 10), expected(1, 17)), (0.0, 60.0, 0.0));
        // One week of office hours supports no expectation; one week of a task that never rests does.
        let (first, end) = learned(1, |_, day, hour| office(day, hour));
        assert!((0..168).all(|hour| first.usual(end + hour).expected == 0.0));
        let (first, end) = learned(1, |_, _, _| 60);
        assert!((0..168).all(|hour| first.usual(end + hour).expected > 50.0));
        assert_eq!(Rhythm::learn(&hours(1, |_, _, _| 60).0[1..], 96 + 168), None);
    }

    #[test]
    fn one_quiet_week_is_ignored_unless_it_was_the_last_and_two_are_a_habit() {
        let saturday = |weeks: i64, quiet: &'static [i64]| {
            let works = move |week: i64, day: i64, hour: i64| {
                if day == 5 && !quiet.contains(&week) { office(0, hour) } else { office(day, hour) }
            };
            let (rhythm, end) = learned(weeks, works);
            rhythm.usual(end + 5 * 24 + 12).expected > 0.0
        };
        assert!(saturday(5, &[]) && saturday(5, &[2]));
        assert!(!saturday(5, &[4]) && !saturday(5, &[0, 2]) && !saturday(3, &[0]));
    }

    #[test]
    fn two_quiet_days_of_the_last_week_are_a_habit_and_one_is_not() {
        let noon = |days: i64| {
            let (rhythm, end) =
                learned(4, |week, day, hour| if week == 3 && day < days && hour >= 12 { 0 } else { office(day, hour) });
            rhythm.usual(end + 3 * 24 + 14).expected > 0.0
        };
        assert!(noon(1) && !noon(2));
    }

    #[test]
    fn clustered_runs_and_variable_weeks_count_less() {
        let steady = learned(4, |_, _, _| 60).0;
        let together = learned(4, |week, day, hour| if (week + day + hour) % 3 == 0 { 150 } else { 15 }).0;
        assert!(steady.clumping() > 0.9 && together.clumping() < 0.1, "{} {}", steady.clumping(), together.clumping());
        let differing = learned(6, |week, _, _| if week % 2 == 0 { 90 } else { 30 }).0;
        assert!(differing.usual(500).shape < 6.0 && steady.usual(500).shape > 20.0);
    }

    #[test]
    fn a_quiet_day_is_expected_to_stay_quiet_and_a_busy_one_to_stay_busy() {
        let (rhythm, _) = learned(4, |_, _, _| 60);
        let now = |runs: f64| rhythm.level(10.0, &[RecentHour { runs, usual: 60.0, weight: 1.0 }; 3]);
        let (quiet, going, none) = (now(6.5), now(60.0), now(0.0));
        assert!(quiet.share < 0.2 && quiet.going && going.share > 0.99 && going.shape > 100.0, "{quiet:?} {going:?}");
        assert!(!none.going && none.share < 0.1);
        assert_eq!(rhythm.level(10.0, &[]), TrafficLevel { share: 1.0, shape: 10.0, going: false });
    }
}
