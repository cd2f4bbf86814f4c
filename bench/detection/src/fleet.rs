//! A realistic fleet: office hours, quiet weekends, a holiday, the end of daylight saving time, nightly and weekly
//! jobs, tasks that start and end, two tenants with tasks of the same names, tail sampling, runs without cost, a gap
//! and an ingest stall; and quality that wanders from hour to hour although nothing is wrong.
//!
//! It generates counts by task and five minutes instead of runs, so that six weeks for all rules take about a second.
//! Everything is a function of the seed ([`crate::chance`]).

use crate::chance::Key;

/// Minutes in a window.
pub const WINDOW: i64 = 5;

/// Days simulated per fleet.
pub const DAYS: i64 = 42;

/// 2026-10-05 00:00 UTC, a Monday, in minutes since the epoch. Daylight saving time ends in Berlin on day 20.
pub const EPOCH: i64 = 29_852_640;

/// The time zone of the office hours.
pub const ZONE: &str = "Europe/Berlin";

/// Standard deviation of quality on the logit scale, and its correlation time in hours.
pub const DEVIATION: f64 = 0.2;
const CORRELATION: f64 = 4.0;

/// A holiday on a working day, by the wall clock.
pub const HOLIDAY: i64 = 25;

/// A gap of 20 minutes for all tasks.
const GAP: (i64, i64) = (23 * DAY + 9 * 60, 23 * DAY + 9 * 60 + 20);

/// A stall of ingest: runs of that period arrive after it, all at once.
pub const STALL: (i64, i64) = (31 * DAY + 8 * 60, 31 * DAY + 11 * 60);

/// Minutes in a day.
const DAY: i64 = 1440;

/// The schedule of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rhythm {
    /// During office hours on working days.
    Office,
    /// At all hours, fewer at night.
    Always,
    /// From one to four at night, roughly.
    Nightly,
    /// On Tuesdays from five to eight.
    Weekly,
    /// Bursts of twenty minutes at any time.
    Bursts,
}

/// A task of the fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Task {
    pub tenant: &'static str,
    pub name: &'static str,
    /// Its schedule.
    pub rhythm: Rhythm,
    /// Runs per hour while active.
    pub an_hour: f64,
    /// Failure rate.
    pub failure: f64,
    /// First and last day.
    pub days: (i64, i64),
    /// Fraction of successes kept by tail sampling; all failures are kept.
    pub kept: f64,
    /// True if its runs state a cost.
    pub priced: bool,
}

const OFFICE: Task = Task {
    tenant: "north",
    name: "",
    rhythm: Rhythm::Office,
    an_hour: 120.0,
    failure: 0.08,
    days: (0, DAYS),
    kept: 1.0,
    priced: true,
};

/// Twelve tasks of two tenants, some with the same names.
pub const TASKS: [Task; 12] = [
    Task { name: "answer", an_hour: 240.0, ..OFFICE },
    Task { name: "draft", an_hour: 90.0, failure: 0.12, ..OFFICE },
    Task { name: "triage", an_hour: 60.0, failure: 0.05, ..OFFICE },
    Task { name: "refund", an_hour: 25.0, priced: false, ..OFFICE },
    Task { name: "search", rhythm: Rhythm::Always, an_hour: 150.0, failure: 0.03, ..OFFICE },
    Task { name: "import", rhythm: Rhythm::Nightly, an_hour: 300.0, failure: 0.02, ..OFFICE },
    Task { tenant: "south", name: "answer", an_hour: 120.0, kept: 0.2, ..OFFICE },
    Task { tenant: "south", name: "draft", an_hour: 60.0, days: (15, DAYS), ..OFFICE },
    Task { tenant: "south", name: "triage", rhythm: Rhythm::Always, an_hour: 40.0, priced: false, ..OFFICE },
    Task { tenant: "south", name: "report", rhythm: Rhythm::Weekly, an_hour: 200.0, failure: 0.04, ..OFFICE },
    Task { tenant: "south", name: "batch", rhythm: Rhythm::Bursts, an_hour: 600.0, failure: 0.06, ..OFFICE },
    Task { tenant: "south", name: "rare", rhythm: Rhythm::Always, an_hour: 2.0, ..OFFICE },
];

/// Tasks with an immediate cutover to a new release, and its time.
const CUTOVERS: [(usize, i64); 4] =
    [(0, 16 * DAY + 480), (4, 30 * DAY + 600), (6, 24 * DAY + 480), (8, 37 * DAY + 540)];

/// A task with a canary that gets a tenth of the runs, and the canary's start and end.
const CANARY: (usize, i64, i64) = (1, 29 * DAY + 480, 32 * DAY);

/// A fault in a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// The affected task.
    pub task: usize,
    /// Start, in minutes since the start of the fleet.
    pub from: i64,
    /// Duration in minutes.
    pub lasts: i64,
    /// Added to the failure rate; none: the task has no runs.
    pub failure: Option<f64>,
}

/// The counts of one task in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub task: usize,
    /// Start of the window, minutes since the start of the fleet.
    pub minute: i64,
    pub release: u8,
    /// True for a canary.
    pub canary: bool,
    pub runs: u64,
    /// Number that failed, violated their schema, escalated, had a failed tool call, had a policy exception.
    pub bad: [u64; 5],
    /// Key for random draws about its runs.
    pub key: u64,
}

/// A fleet with its quality deviations by task, outcome and hour.
#[derive(Clone, Debug)]
pub struct Fleet {
    key: Key,
    wander: Vec<Vec<f64>>,
    deviation: f64,
    pub faults: Vec<Fault>,
}

fn logit(rate: f64) -> f64 {
    (rate / (1.0 - rate)).ln()
}

fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the local day and minute of the day in Berlin.
fn berlin(minute: i64) -> (i64, i64) {
    let local = minute + if minute < 20 * DAY + 60 { 120 } else { 60 };
    (local.div_euclid(DAY), local.rem_euclid(DAY))
}

// === impl Fleet ===

impl Fleet {
    /// Creates a fleet without faults, with a standard deviation of quality on the logit scale.
    pub fn new(seed: u64, deviation: f64) -> Self {
        let key = Key::new(seed).at(0xf1ee7);
        let correlation = (-1.0 / CORRELATION).exp();
        let path = |which: usize| {
            let key = key.at(1).at(which as u64);
            let mut u = key.at(0).normal();
            (1..=DAYS.unsigned_abs() * 24)
                .map(|hour| {
                    u = correlation * u + (1.0 - correlation * correlation).sqrt() * key.at(hour).normal();
                    u
                })
                .collect()
        };
        let wander = (0..TASKS.len() * 5).map(path).collect();
        Self { key, wander, deviation, faults: Vec::new() }
    }

    /// Returns the expected runs per minute of a task.
    #[expect(clippy::cast_precision_loss, reason = "minutes of some weeks")]
    fn rate(&self, task: usize, minute: i64) -> f64 {
        let it = &TASKS[task];
        let (day, of_day) = berlin(minute);
        let works = day.rem_euclid(7) < 5 && day != HOLIDAY;
        let hour = of_day as f64 / 60.0;
        let today = self.key.at(2).at(task as u64).at(day.cast_unsigned());
        let lost = (GAP.0..GAP.1).contains(&minute);
        let silent = |fault: &&Fault| fault.task == task && fault.failure.is_none() && fault.holds(minute);
        if day < it.days.0 || day >= it.days.1 || lost || self.faults.iter().any(|fault| silent(&fault)) {
            return 0.0;
        }
        let shape = match it.rhythm {
            Rhythm::Office if works => (hour - 8.0).clamp(0.0, 1.0) * (18.5 - hour).clamp(0.0, 1.0),
            Rhythm::Office => 0.0,
            Rhythm::Always => 1.0 + 0.6 * (std::f64::consts::TAU * (hour / 24.0 - 8.0 / 24.0)).sin(),
            Rhythm::Nightly => {
                let late = today.at(7).uniform();
                f64::from(u8::from((1.0 + late..4.0 + late).contains(&hour)))
            }
            Rhythm::Weekly => f64::from(u8::from(day.rem_euclid(7) == 1 && (5.0..8.0).contains(&hour))),
            Rhythm::Bursts => {
                let place = self.key.at(3).at(minute.div_euclid(20).cast_unsigned());
                f64::from(u8::from(place.uniform() < 0.04))
            }
        };
        // Days differ by a fifth.
        it.an_hour / 60.0 * shape * (0.2 * today.normal()).exp()
    }

    #[expect(clippy::cast_precision_loss, reason = "minutes of some weeks")]
    fn rates(&self, task: usize, minute: i64) -> [f64; 5] {
        let season = 0.25 * (std::f64::consts::TAU * minute as f64 / DAY as f64).sin();
        let hour = usize::try_from(minute / 60).unwrap_or(0);
        let fault = self.faults.iter().filter(|fault| fault.task == task && fault.holds(minute));
        let more: f64 = fault.filter_map(|fault| fault.failure).sum();
        let mut rates = [TASKS[task].failure, 0.005, 0.05, 0.02, 1e-4];
        for (place, rate) in rates.iter_mut().enumerate() {
            let u = self.wander[task * 5 + place].get(hour).copied().unwrap_or(0.0);
            *rate = expit(logit(*rate) + season + self.deviation * u);
        }
        rates[0] = (rates[0] + more).clamp(0.0, 1.0);
        rates
    }

    /// Returns the cells of a day, in order of time.
    pub fn day(&self, day: i64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for minute in (day * DAY..(day + 1) * DAY).step_by(5) {
            for task in 0..TASKS.len() {
                let rate = self.rate(task, minute);
                if rate <= 0.0 {
                    continue;
                }
                let key = self.key.at(4).at(task as u64).at(minute.cast_unsigned());
                let release = CUTOVERS.iter().filter(|(of, at)| *of == task && minute >= *at).count();
                let on_trial = CANARY.0 == task && (CANARY.1..CANARY.2).contains(&minute);
                for canary in [false, true].into_iter().take(1 + usize::from(on_trial)) {
                    let share = match (on_trial, canary) {
                        (true, true) => 0.1,
                        (true, false) => 0.9,
                        _ => 1.0,
                    };
                    let release = u8::try_from(release).unwrap_or(0) + 10 * u8::from(canary);
                    #[expect(clippy::cast_precision_loss, reason = "five minutes")]
                    let cell = self.cell(task, minute, rate * WINDOW as f64 * share, key.at(u64::from(canary)));
                    if cell.runs > 0 {
                        cells.push(Cell { release, canary, ..cell });
                    }
                }
            }
        }
        cells
    }

    fn cell(&self, task: usize, minute: i64, mean: f64, key: Key) -> Cell {
        let sent = key.at(1).poisson(mean);
        let rates = self.rates(task, minute);
        let failed = key.at(2).binomial(sent, rates[0]);
        // Failures are always kept.
        let kept =
            if TASKS[task].kept < 1.0 { key.at(3).binomial(sent - failed, TASKS[task].kept) } else { sent - failed };
        let runs = failed + kept;
        let mut bad = [failed, 0, 0, 0, 0];
        for (place, count) in bad.iter_mut().enumerate().skip(1) {
            *count = key.at(10 + place as u64).binomial(runs, rates[place]);
        }
        Cell { task, minute, runs, bad, key: key.bits(), ..Cell::default() }
    }
}

impl Fault {
    fn holds(&self, minute: i64) -> bool {
        (self.from..self.from + self.lasts).contains(&minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn office_hours_weekends_holidays_and_time_changes_are_as_stated() {
        let fleet = Fleet::new(1, DEVIATION);
        let at = |day: i64, hour: i64| fleet.rate(0, day * DAY + hour * 60);
        // Half past nine in summer is 7:30 UTC, and 8:30 in winter.
        assert!(at(0, 7) > 0.0 && at(21, 7) <= 0.0 && at(21, 8) > 0.0, "{} {}", at(0, 7), at(21, 7));
        assert_eq!((at(5, 12), at(6, 12), at(HOLIDAY, 12)), (0.0, 0.0, 0.0));
        assert_eq!(fleet.rate(0, GAP.0 + 5), 0.0);
        assert!(fleet.rate(7, 10 * DAY + 600) <= 0.0 && fleet.rate(7, 16 * DAY + 600) > 0.0);
        let names =
            |tenant| TASKS.iter().filter(|task| task.tenant == tenant).map(|task| task.name).collect::<Vec<_>>();
        assert!(names("north").iter().filter(|name| names("south").contains(name)).count() >= 3);
    }

    #[test]
    fn quality_wanders_as_stated_and_faults_add_to_it() {
        let fleet = Fleet::new(2, DEVIATION);
        let all: Vec<f64> = fleet.wander.iter().flatten().copied().collect();
        let mean_square = all.iter().map(|u| u * u).sum::<f64>() / all.len() as f64;
        assert!((mean_square - 1.0).abs() < 0.1, "{mean_square}");
        let products: f64 = fleet.wander.iter().flat_map(|path| path.windows(2)).map(|pair| pair[0] * pair[1]).sum();
        assert!((products / all.len() as f64 - (-0.25_f64).exp()).abs() < 0.1);
        let mut worse = fleet.clone();
        worse.faults.push(Fault { task: 2, from: 100, lasts: 50, failure: Some(0.1) });
        assert!((worse.rates(2, 120)[0] - fleet.rates(2, 120)[0] - 0.1).abs() < 1e-12);
        worse.faults.push(Fault { task: 0, from: 9 * 60, lasts: 60, failure: None });
        assert!(worse.rate(0, 9 * 60 + 5) <= 0.0 && fleet.rate(0, 9 * 60 + 5) > 0.0);
    }

    #[test]
    fn tail_sampling_raises_the_share_of_failures_and_the_same_seed_gives_the_same_day() {
        let fleet = Fleet::new(3, 0.0);
        let share = |task: usize| {
            let cells: Vec<Cell> = (0..5).flat_map(|day| fleet.day(day)).filter(|cell| cell.task == task).collect();
            let sum = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>() as f64;
            sum(|cell| cell.bad[0]) / sum(|cell| cell.runs)
        };
        assert!((0.05..0.11).contains(&share(0)) && (0.22..0.42).contains(&share(6)), "{} {}", share(0), share(6));
        assert_eq!(fleet.day(4), Fleet::new(3, 0.0).day(4));
    }
}
