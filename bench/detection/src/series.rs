//! Runs one seed of a series without a release: detectors and peers for change against the series' own past, rare
//! events, silence, objectives.

use bellwether_detect::{Invalid, Measure};
use bellwether_stats::burn_rate::{BurnCounts, BurnVerdict, Objective, WORKBOOK};
use bellwether_stats::histogram_e::{BINS, Direction, Tilts, bin_of};
use bellwether_stats::sequential::{EDetector, detector_threshold};

use crate::chance::Key;
use crate::detector::{self, PAST_DAYS, STEP_MINUTES, by_time, single};
use crate::peer::{Episodes, LastWeek, Threshold};
use crate::trial::Delay;
use crate::world::{DAY, EPOCH, Outcome, Run, World};

/// A series in steps of five minutes: events and runs.
pub type CountSeries = Vec<(u64, u64)>;

/// Returns the series of an outcome, from the world's first minute.
pub fn series(world: &World, days: i64, outcome: Outcome) -> CountSeries {
    let mut series = Vec::new();
    let mut sum = (0, 0);
    world.minutes(0, days * DAY, |minute, runs| {
        let events = runs.iter().filter(|run| world.has_outcome(run, outcome)).count();
        sum = (sum.0 + events as u64, sum.1 + runs.len() as u64);
        if (minute + 1) % STEP_MINUTES == 0 {
            series.push(sum);
            sum = (0, 0);
        }
    });
    series
}

/// Times at which detectors and peers started to fire, in minutes since the start of the world, after the four weeks of
/// the past.
#[derive(Clone, Debug)]
pub struct Fired {
    /// D4 with one false alarm in 10 and in 26 weeks.
    pub drift: [Vec<i64>; 2],
    /// D6, the anchored twin, with one false alarm in 10 weeks.
    pub anchored: Vec<i64>,
    /// Error rate of an hour above the usual by 3 and by 5 points, for 10 minutes.
    pub fixed: [Vec<i64>; 2],
    /// z against the same hour last week, p < 0.01.
    pub last_week: Vec<i64>,
}

/// Returns ln A for one false alarm in this many weeks.
fn once_in(weeks: f64, updates_a_week: f64) -> f64 {
    detector_threshold(1.0, weeks * updates_a_week, 1.0).unwrap_or(f64::INFINITY)
}

/// Updates of the drift detectors per week.
const UPDATES: f64 = 7.0 * 288.0;

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Runs a detector over a series: up to `from` the steps are the past, after it they are watched.
fn watch(series: &[(u64, u64)], step: i64, from: i64, rule: &bellwether_detect::Detector, ln_a: f64) -> Vec<i64> {
    let mut watched = detector::Series::new(rule, by_time(ln_a), EPOCH + from);
    for (end, (events, runs)) in (1..).map(|place| place * step).zip(series) {
        let measure = Measure::from_counts(whole(*events), whole(*runs));
        if end <= from {
            watched.remember(EPOCH + end - step, measure.events, measure.runs);
            continue;
        }
        if *runs > 0 {
            watched.window(&single(end - step, Measure::default(), measure));
        }
        watched.until(EPOCH + end);
    }
    watched.fired.into_iter().map(|minute| minute - EPOCH).collect()
}

/// Runs the drift detectors and their peers over a series.
pub fn drift(series: &CountSeries) -> Fired {
    let from = PAST_DAYS * DAY;
    let ours = |anchored, weeks| {
        watch(series, STEP_MINUTES, from, &detector::drift(STEP_MINUTES, anchored, false), once_in(weeks, UPDATES))
    };
    let past = usize::try_from(from / STEP_MINUTES).unwrap_or(0).min(series.len());
    let (events, runs) = series[..past].iter().fold((0, 0), |sum, window| (sum.0 + window.0, sum.1 + window.1));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let usual = events as f64 / runs.max(1) as f64;
    let mut fixed = [0.03, 0.05].map(|more| (Threshold::new(usual + more, 12, 2), Episodes::default()));
    let (mut last_week, mut weekly, mut hour) = (LastWeek::new(0.01), Episodes::default(), (0, 0));
    for (minute, (events, runs)) in (1..).map(|place| place * STEP_MINUTES).zip(series) {
        for (rule, episodes) in &mut fixed {
            let fires = rule.fires(*events, *runs);
            episodes.at(minute, fires && minute > from);
        }
        hour = (hour.0 + events, hour.1 + runs);
        if minute % 60 == 0 {
            let fires = last_week.fires(hour.0, hour.1);
            weekly.at(minute, fires && minute > from);
            hour = (0, 0);
        }
    }
    Fired {
        drift: [ours(false, 10.0), ours(false, 26.0)],
        anchored: ours(true, 10.0),
        fixed: fixed.map(|(_, episodes)| episodes.starts),
        last_week: weekly.starts,
    }
}

/// Returns the minutes from a change to the first alarm after it.
pub fn delay_after(alarms: &[i64], change: i64, within: i64) -> Delay {
    let first = alarms.iter().find(|alarm| (change + 1..=change + within).contains(*alarm))?;
    #[expect(clippy::cast_precision_loss, reason = "minutes of some weeks")]
    Some(((first - change) as f64, 0.0))
}

/// The quantity for drift of a distribution (D4 for quantities and categories), hourly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Finish,
    Tokens,
}

/// Margin of the drift of a distribution: an acceptable tilt.
const SHAPE_MARGIN: f64 = 0.1;

/// Returns the times at which a distribution was found to differ from its past, in minutes since the start of the
/// world, with one false alarm in 10 weeks.
///
/// # Errors
/// Fails if the world has no past.
pub fn shape(world: &World, days: i64, shape: Shape) -> Result<Vec<i64>, Invalid> {
    let bins = if shape == Shape::Finish { 4 } else { BINS };
    let bin = |run: &Run| match shape {
        Shape::Finish => world.finish(run),
        Shape::Tokens => bin_of(world.tokens(run)),
    };
    let mut past = vec![0_u64; bins];
    let mut now = vec![0_u64; bins];
    let mut tilts = None;
    let mut detector = EDetector::new(0);
    let (threshold, mut alarms, mut error) = (detector_threshold(1.0, 10.0 * 168.0, 1.0)?, Vec::new(), None);
    world.minutes(0, days * DAY, |minute, runs| {
        let counts = if minute < PAST_DAYS * DAY { &mut past } else { &mut now };
        runs.iter().for_each(|run| counts[bin(run)] += 1);
        if minute < PAST_DAYS * DAY || (minute + 1) % 60 != 0 || error.is_some() {
            return;
        }
        let made = match tilts.take() {
            Some(tilts) => Ok(tilts),
            None if shape == Shape::Finish => Tilts::categories(&past),
            None => Tilts::ordered(&past, Direction::Up),
        };
        match made.and_then(|made| made.drift_increments(&now, SHAPE_MARGIN, 1.0).map(|step| (made, step))) {
            Ok((made, step)) => {
                if detector == EDetector::new(0) {
                    detector = EDetector::new(step.len());
                }
                detector.update(&step);
                if detector.log_shiryaev_roberts() >= threshold {
                    alarms.push(minute + 1);
                    detector = EDetector::new(step.len());
                }
                tilts = Some(made);
            }
            Err(problem) => error = Some(problem),
        }
        now.fill(0);
    });
    error.map_or(Ok(alarms), Err)
}

/// Runs D5 on rare events, with one false alarm in 10 weeks, and a fixed rule: a day's count above twice the usual,
/// hourly.
pub fn rare(world: &World, days: i64) -> [Vec<i64>; 2] {
    let series = series(world, days, Outcome::Exception);
    let from = PAST_DAYS * DAY;
    let rule = detector::drift(STEP_MINUTES, false, true);
    let alarms = watch(&series, STEP_MINUTES, from, &rule, once_in(10.0, UPDATES));
    let hours: Vec<u64> = series.chunks(12).map(|chunk| chunk.iter().map(|step| step.0).sum()).collect();
    let past = usize::try_from(PAST_DAYS * 24).unwrap_or(0).min(hours.len());
    #[expect(clippy::cast_precision_loss, reason = "some hundred events")]
    let usual_a_day = hours[..past].iter().sum::<u64>() as f64 / PAST_DAYS as f64;
    let mut fixed = Episodes::default();
    for place in past..hours.len() {
        let day: u64 = hours[place.saturating_sub(23)..=place].iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "some hundred events")]
        let often = day as f64 > 2.0 * usual_a_day;
        fixed.at(i64::try_from(place + 1).unwrap_or(0) * 60, often);
    }
    [alarms, fixed.starts]
}

/// Returns the times at which a producer was found silent (D11), after four weeks of the past.
pub fn silence(world: &World, minutes: i64) -> Vec<i64> {
    let from = PAST_DAYS * DAY;
    // The only series of a rule with one false page in seven months, like the shipped rule among the others.
    let threshold = detector_threshold(1.0, 8640.0, 1.0 / 7.0).unwrap_or(f64::INFINITY);
    let mut watched = detector::Series::new(&detector::silence(), by_time(threshold), EPOCH + from);
    world.minutes(0, from + minutes, |minute, runs| {
        let count = i64::try_from(runs.len()).unwrap_or(i64::MAX);
        if minute < from {
            watched.remember(EPOCH + minute, 0, count);
            return;
        }
        if count > 0 {
            watched.window(&single(minute, Measure::default(), Measure::from_counts(0, count)));
        }
        watched.until(EPOCH + minute + 1);
    });
    watched.fired.into_iter().map(|minute| minute - EPOCH).collect()
}

/// Returns the pages of an objective over some weeks, with and without the significance test (D8). Runs arrive at
/// random; a run is bad at half of the budget, and from `trouble` on at rate `bad`.
///
/// # Errors
/// Fails if the objective is not between 0 and 1.
pub fn objective(
    seed: u64,
    objective: f64,
    runs_an_hour: f64,
    days: i64,
    trouble: Option<(i64, f64)>,
) -> Result<[Vec<i64>; 2], Invalid> {
    let key = Key::new(seed).at(objective.to_bits()).at(runs_an_hour.to_bits());
    let judge = Objective::new(objective)?;
    let steps = usize::try_from(days * DAY / STEP_MINUTES).unwrap_or(0);
    let (mut sums, mut episodes) = (vec![(0_u64, 0_u64)], [Episodes::default(), Episodes::default()]);
    for step in 0..steps {
        let minute = i64::try_from(step + 1).unwrap_or(0) * STEP_MINUTES;
        let rate = match trouble {
            Some((from, bad)) if minute > from => bad,
            _ => judge.budget() / 2.0,
        };
        let good = key.at(2 * step as u64).poisson(runs_an_hour / 12.0 * (1.0 - rate));
        let bad = key.at(2 * step as u64 + 1).poisson(runs_an_hour / 12.0 * rate);
        let last = sums.last().copied().unwrap_or_default();
        sums.push((last.0 + bad, last.1 + good + bad));
        let over = |minutes: u32| {
            let windows = usize::try_from(i64::from(minutes) / STEP_MINUTES).unwrap_or(1);
            let before = sums[(step + 1).saturating_sub(windows)];
            let now = sums[step + 1];
            BurnCounts { events: now.0 - before.0, runs: now.1 - before.1 }
        };
        let mut fires = [false; 2];
        for windows in &WORKBOOK[..2] {
            let (long, short) = (over(windows.long_minutes), over(windows.short_minutes));
            // Windows that can never fire are rejected when rules are loaded.
            fires[0] |= matches!(judge.judge(long, short, windows.factor), Ok(BurnVerdict::Fires));
            let burns = |counts| judge.burn_rate(counts).is_some_and(|rate| rate > windows.factor);
            fires[1] |= burns(long) && burns(short);
        }
        for (episodes, fires) in episodes.iter_mut().zip(fires) {
            episodes.at(minute, fires);
        }
    }
    Ok(episodes.map(|episodes| episodes.starts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Change, NONE, Traffic};

    #[test]
    fn a_sudden_shift_of_a_series_is_found_after_it() {
        let change = (PAST_DAYS + 1) * DAY;
        let world = World::new(3, Traffic::new(3.0)).with(Change { from: change, failure: 0.1, ..NONE });
        let fired = drift(&series(&world, PAST_DAYS + 2, Outcome::Failure));
        let (minutes, _) = delay_after(&fired.drift[0], change, DAY).expect("an alarm");
        assert!(minutes < 600.0, "{minutes}");
        assert_eq!(delay_after(&[5, 90], 10, 79), None);
    }

    #[test]
    fn a_producer_that_falls_silent_is_found_and_a_quiet_night_is_not() {
        let mut world = World::new(4, Traffic::new(30.0));
        assert_eq!(silence(&world, 3 * DAY), Vec::<i64>::new());
        let noon = (PAST_DAYS + 1) * DAY + 720;
        world.gap = Some((noon, noon + 120));
        let found = silence(&world, 3 * DAY);
        assert!(found.len() == 1 && (noon..noon + 60).contains(&found[0]), "{found:?}");
    }

    #[test]
    fn an_objective_pages_on_trouble_and_not_by_chance() {
        let [gated, plain] = objective(5, 0.999, 60.0, 28, None).expect("a trial");
        assert!(gated.is_empty() && plain.len() > 3, "{gated:?} {plain:?}");
        let [gated, _] = objective(5, 0.99, 600.0, 3, Some((DAY, 0.3))).expect("a trial");
        assert!(gated.first().is_some_and(|moment| (DAY..DAY + 90).contains(moment)), "{gated:?}");
    }

    #[test]
    fn a_growing_share_and_a_frequent_exception_are_detected() {
        let change = (PAST_DAYS + 1) * DAY;
        let world = World::new(6, Traffic::new(3.0)).with(Change { from: change, truncated: 0.05, ..NONE });
        let found = shape(&world, PAST_DAYS + 3, Shape::Finish).expect("a trial");
        assert!(delay_after(&found, change, 2 * DAY).is_some(), "{found:?}");
        let often = Change { from: change, rates: [1.0, 1.0, 1.0, 30.0], ..NONE };
        let world = World::new(6, Traffic::new(10.0)).with(often);
        let [found, _] = rare(&world, PAST_DAYS + 3);
        assert!(delay_after(&found, change, 2 * DAY).is_some(), "{found:?}");
    }
}
