//! Tests the silence detector on fleets: fleets without a fault stay within the budget, and a producer that dies on a
//! working day is reported within half an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_detect::budget::Spending;
use bellwether_detect::crowd::ALL;
use bellwether_detect::detector::Silence;
use bellwether_detect::{
    AlertState, BaselinePolicy, Budget, Cell, Change, Crowd, CrowdMember, Detector, Family, Measure, Minute, Season,
};

use crate::random::Random;

/// Minutes in a day and in a week.
const DAY: i64 = 1440;
const WEEK: i64 = 7 * DAY;

/// 2026-10-05 00:00 UTC, a Monday; daylight saving time ends in Berlin on the third Sunday after it.
const BEGIN: i64 = 29_852_640;

/// Budget of the rule per month: a seventh of the one page allowed for all rules.
const BUDGET: f64 = 1.0 / 7.0;

/// Times on the wall clock of Berlin: day since the start, minute of the day, and whether it is a weekend.
#[derive(Clone, Copy)]
struct Clock {
    day: i64,
    minute: i64,
    weekend: bool,
}

fn berlin(minute: Minute) -> Clock {
    // Daylight saving time until 25 October 2026, 01:00 UTC.
    let offset = if minute < BEGIN + 20 * DAY + 60 { 120 } else { 60 };
    let local = minute + offset - BEGIN;
    Clock {
        day: local.div_euclid(DAY),
        minute: local.rem_euclid(DAY),
        weekend: local.div_euclid(DAY).rem_euclid(7) >= 5,
    }
}

/// Runs per minute on a working day between 8:00 and 18:00, with a ramp of an hour at either end.
fn office(clock: Clock) -> f64 {
    let hour = clock.minute as f64 / 60.0;
    if clock.weekend { 0.0 } else { ((hour - 8.0).clamp(0.0, 1.0) * (19.0 - hour).clamp(0.0, 1.0)).max(0.0) }
}

/// Alerts: series, minutes since the start.
type Fired = Vec<(String, Minute)>;

/// A fleet of the rule's series, judged as in the engine.
struct Fleet {
    detector: Detector,
    season: Season,
    families: BTreeMap<Vec<String>, Family>,
    crowd: Crowd,
    budget: Budget,
    fired: Fired,
    resolved: Fired,
}

impl Fleet {
    fn new(season: Season) -> Self {
        let detector = Detector::Silence(Arc::new(Silence::default()));
        assert_eq!(detector.spending(), Some(Spending::Time));
        let budget = Budget::new(BUDGET, Spending::Time, detector.update_minutes());
        let crowd = Crowd::new(detector.update_minutes());
        let (families, fired, resolved) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { detector, season, families, crowd, budget, fired, resolved }
    }

    fn family(&mut self, series: &[String]) -> &mut Family {
        let (detector, season) = (self.detector.clone(), self.season);
        let timing = detector.timing();
        let make = || Family::new(series.join("/"), detector, timing, BaselinePolicy::default()).with_season(season);
        self.families.entry(series.to_vec()).or_insert_with(make)
    }

    fn add(&mut self, series: &[String], window: Minute, runs: i64) {
        self.crowd.add(series, window, runs);
        let above: Vec<Vec<String>> = self.crowd.ancestors(series).into_iter().map(<[String]>::to_vec).collect();
        let cell = Cell {
            window,
            release: Arc::from(""),
            canary: false,
            stratum: Arc::from(""),
            measure: Measure::from_counts(0, runs),
        };
        for mut values in above {
            values.resize(series.len(), ALL.to_owned());
            self.family(&values).add(cell.clone());
        }
        self.family(series).add(cell);
    }

    fn evaluate(&mut self, to: Minute) {
        self.families.values_mut().for_each(|family| family.start_series(to, &mut self.budget));
        let judged = self.families.values().map(Family::evaluated).max().unwrap_or(Minute::MIN);
        let differs =
            self.crowd.update(to, judged, |series| self.families.get(series).and_then(|family| family.own_hours()));
        for (series, family) in &mut self.families {
            if let Some(from) = differs {
                family.mark_dirty(from);
            }
            let length = series.iter().rposition(|value| value != ALL).map_or(0, |place| place + 1);
            let among = self.crowd.node(&series[..length]).map(|node| CrowdMember { crowd: &self.crowd, node });
            for update in family.evaluate_among(to, &mut self.budget, among) {
                let Change::New { record, late: false } = update.change else { panic!("{:?}", update.change) };
                let to = match record.transition.to {
                    AlertState::Firing => &mut self.fired,
                    AlertState::Resolved => &mut self.resolved,
                    _ => continue,
                };
                to.push((series.join("/"), record.transition.at - BEGIN));
            }
        }
    }
}

/// Some weeks of a world: the mean of each task's runs per minute, with variation between days.
fn world(
    seed: u64,
    season: Season,
    tasks: &[&str],
    weeks: i64,
    deviation: f64,
    mean: impl Fn(usize, Minute) -> f64,
) -> Fleet {
    let mut fleet = Fleet::new(season);
    let mut random = Random(seed);
    let series: Vec<Vec<String>> = tasks.iter().map(|task| task.split('/').map(str::to_owned).collect()).collect();
    for day in 0..weeks * 7 {
        let levels: Vec<f64> = tasks.iter().map(|_| (deviation * random.normal()).exp()).collect();
        let start = BEGIN + day * DAY;
        for minute in start..start + DAY {
            for (place, series) in series.iter().enumerate() {
                let mean = mean(place, minute) * levels[place];
                let runs = if mean > 0.0 { random.poisson(mean) } else { 0 };
                if runs > 0 {
                    fleet.add(series, minute, runs);
                }
            }
        }
        fleet.evaluate(start + DAY);
    }
    fleet
}

const TWELVE: [&str; 12] = [
    "/task-01", "/task-02", "/task-03", "/task-04", "/task-05", "/task-06", "/task-07", "/task-08", "/task-09",
    "/task-10", "/task-11", "/task-12",
];

/// Runs per minute of the twelve tasks, from busy ones to some with a few per hour.
fn rate(task: usize) -> f64 {
    6.0 * 0.7_f64.powi(i32::try_from(task).unwrap_or(0))
}

fn clock_of(name: &str) -> Season {
    Season::from_name(name).expect("a zone")
}

#[test]
fn office_hours_and_quiet_weekends_are_no_news_with_the_right_clock_and_with_that_of_utc() {
    for (seed, zone) in [(1, "Europe/Berlin"), (2, "UTC"), (3, "Europe/Berlin"), (4, "UTC")] {
        let fleet = world(seed, clock_of(zone), &TWELVE, 6, 0.3, |task, minute| rate(task) * office(berlin(minute)));
        assert_eq!(fleet.fired, [], "seed {seed}, {zone}");
    }
}

#[test]
fn a_producer_that_dies_on_a_working_day_alarms_within_half_an_hour() {
    for (seed, place) in [(11, 0), (12, 1), (13, 2), (14, 3)] {
        // Wednesday of the fifth week, about 11:00 in Berlin.
        let gone = BEGIN + 4 * WEEK + 2 * DAY + 10 * 60 + 7 * i64::try_from(place).expect("small");
        let fleet = world(seed, clock_of("Europe/Berlin"), &TWELVE, 5, 0.3, |task, minute| {
            if task == place && minute >= gone && minute < gone + 180 {
                0.0
            } else {
                rate(task) * office(berlin(minute))
            }
        });
        let [(series, at)] = &fleet.fired[..] else { panic!("{:?}", fleet.fired) };
        assert_eq!(series, TWELVE[place]);
        let delay = at + BEGIN - gone;
        assert!((15..=30).contains(&delay), "{delay} minutes, seed {seed}");
        let [(_, over)] = &fleet.resolved[..] else { panic!("{:?}", fleet.resolved) };
        assert!((gone + 180..gone + 200).contains(&(over + BEGIN)), "{}", over + BEGIN - gone);
    }
}

#[test]
fn a_single_task_alarms_as_soon() {
    let gone = BEGIN + 3 * WEEK + 3 * DAY + 9 * 60 + 3;
    let fleet = world(21, clock_of("Europe/Berlin"), &["/only"], 4, 0.3, |_, minute| {
        if (gone..gone + 240).contains(&minute) { 0.0 } else { 3.0 * office(berlin(minute)) }
    });
    let [(_, at)] = &fleet.fired[..] else { panic!("{:?}", fleet.fired) };
    assert!((15..=30).contains(&(at + BEGIN - gone)), "{}", at + BEGIN - gone);
}

#[test]
fn a_holiday_is_asked_about_once_and_so_are_an_outage_of_all_and_a_long_weekend() {
    let holiday = |day: i64, from: i64, to: i64, clock: Clock| clock.day == day && (from..to).contains(&clock.minute);
    // A Thursday, all day; Friday and Monday; two hours in which nothing works.
    for (name, days) in [("a day", vec![31]), ("a long weekend", vec![32, 35]), ("two hours", vec![30])] {
        let (from, to) = if name == "two hours" { (600, 720) } else { (0, 1440) };
        let fleet = world(31, clock_of("Europe/Berlin"), &TWELVE, 6, 0.3, |task, minute| {
            let clock = berlin(minute);
            if days.iter().any(|day| holiday(*day, from, to, clock)) { 0.0 } else { rate(task) * office(clock) }
        });
        let [(series, at)] = &fleet.fired[..] else { panic!("{name}: {:?}", fleet.fired) };
        assert_eq!(series, "/(all)", "{name}");
        assert_eq!(at.div_euclid(DAY), days[0], "{name}");
        assert_eq!(fleet.resolved.len(), 1, "{name}: it is over when most are there again");
    }
}

#[test]
fn a_tenant_that_falls_silent_is_asked_about_once_and_so_is_a_fleet_of_tenants() {
    let tasks = ["a/x", "a/y", "a/z", "b/x", "b/y", "c/x", "c/y", "c/z"];
    let (tenant, all) = (BEGIN + 4 * WEEK + DAY + 600, BEGIN + 4 * WEEK + 2 * DAY + 600);
    let fleet = world(41, clock_of("Europe/Berlin"), &tasks, 5, 0.2, |task, minute| {
        let off = (task < 3 && (tenant..tenant + 120).contains(&minute)) || (all..all + 120).contains(&minute);
        if off { 0.0 } else { 2.0 * office(berlin(minute)) }
    });
    let fired: Vec<&str> = fleet.fired.iter().map(|(series, _)| series.as_str()).collect();
    assert_eq!(fired, ["a/(all)", "(all)/(all)"]);
}

#[test]
fn a_saturday_that_becomes_quiet_alarms_at_most_once_and_is_learned() {
    // Work on Saturdays ends after four weeks.
    for tasks in [&TWELVE[..1], &TWELVE[..]] {
        let fleet = world(51, clock_of("Europe/Berlin"), tasks, 10, 0.3, |task, minute| {
            let clock = berlin(minute);
            let works = clock.day.rem_euclid(7) == 5 && clock.day < 28;
            rate(task) * office(Clock { weekend: clock.weekend && !works, ..clock })
        });
        assert!(fleet.fired.len() <= 1, "{:?}", fleet.fired);
    }
}

#[test]
fn jobs_bursts_new_tasks_and_those_that_end_are_within_the_budget() {
    let tasks =
        ["/nightly", "/weekly", "/burst", "/rare", "/new", "/tested", "/moved", "/fading", "/steady", "/fortnight"];
    for seed in [61, 62, 63] {
        let burst = |minute: i64| Random(minute.div_euclid(20).cast_unsigned() ^ seed).uniform() < 0.05;
        let fleet = world(seed, clock_of("Europe/Berlin"), &tasks, 8, 0.3, |task, minute| {
            let clock = berlin(minute);
            // The start of the job varies between nights.
            let jitter = (60.0 * Random(clock.day.cast_unsigned() ^ (seed << 9)).uniform()) as i64;
            let night = |from: i64, to: i64| f64::from(u8::from((from + jitter..to + jitter).contains(&clock.minute)));
            match tasks[task] {
                "/nightly" => 8.0 * night(60, 240),
                "/weekly" if clock.day.rem_euclid(7) == 1 => 20.0 * night(300, 330),
                "/burst" if burst(minute) => 30.0,
                "/rare" => 0.01,
                "/new" if clock.day >= 30 => 2.0 * office(clock),
                "/tested" if (20..23).contains(&clock.day) => 5.0 * office(clock),
                // A job that moves from the night to the afternoon.
                "/moved" if clock.day < 37 => 5.0 * night(0, 300),
                "/moved" => 5.0 * night(840, 1140),
                "/fading" => 3.0 * office(clock) * (1.0 - clock.day as f64 / 60.0).max(0.0),
                "/steady" => 1.0,
                "/fortnight" if clock.day.rem_euclid(14) < 7 => 4.0 * office(clock),
                _ => 0.0,
            }
        });
        // Only the moved job is silent at an unusual time; by the third day this is learned.
        assert!(
            fleet.fired.len() <= 2 && fleet.fired.iter().all(|(series, _)| series == "/moved"),
            "{:?}",
            fleet.fired
        );
    }
}

#[test]
fn a_quiet_day_with_a_fifth_of_the_traffic_is_no_silence() {
    let fleet = world(71, clock_of("Europe/Berlin"), &TWELVE, 6, 0.3, |task, minute| {
        let clock = berlin(minute);
        rate(task) * office(clock) * if (36..39).contains(&clock.day) { 0.2 } else { 1.0 }
    });
    assert_eq!(fleet.fired, []);
}

#[test]
fn sessions_that_come_together_are_no_news() {
    // Four of ten periods of ten minutes have no runs by chance.
    for seed in [81, 82] {
        let fleet = world(seed, clock_of("UTC"), &TWELVE[..6], 6, 0.3, |task, minute| {
            let on = Random((minute.div_euclid(10).cast_unsigned() << 8) ^ task as u64 ^ (seed << 40)).uniform() < 0.6;
            if on { 2.0 * rate(task) * office(berlin(minute)) } else { 0.0 }
        });
        assert_eq!(fleet.fired, [], "seed {seed}");
    }
}
