//! Tests quality that wanders from hour to hour although nothing is wrong: drift and comparisons with earlier weeks
//! stay within their part of the budget over months, and still detect failures.

use std::sync::Arc;

use bellwether_detect::budget::Spending;
use bellwether_detect::{AlertState, BaselinePolicy, Budget, Cell, Change, Detector, Family, Measure, Minute};

use crate::random::Random;

/// Tasks, weeks and seeds of the world.
const TASKS: u64 = 8;
const WEEKS: i64 = 6;
const SEEDS: u64 = 5;

/// Minutes in a window and in a day.
const WINDOW: i64 = 5;
const DAY: i64 = 1440;

/// Some weeks of a task with 120 runs an hour, 8 % of which fail; the logit wanders by 0.2 with a correlation time of
/// four hours. From `worse` on, `more` is added to the rate; from `cutover` on, another release serves.
fn task(seed: u64, weeks: i64, cutover: Minute, worse: Minute, more: f64) -> Vec<Cell> {
    let mut random = Random(seed);
    let correlation = (-0.25_f64).exp();
    let mut u = random.normal();
    let mut cells = Vec::new();
    for hour in 0..weeks * 168 {
        u = correlation * u + (1.0 - correlation * correlation).sqrt() * random.normal();
        let season = 0.25 * (std::f64::consts::TAU * hour as f64 / 24.0).sin();
        let logit = (0.08_f64 / 0.92).ln() + season + 0.2 * u;
        for window in (hour * 60..(hour + 1) * 60).step_by(5) {
            let rate = 1.0 / (1.0 + (-logit).exp()) + if window >= worse { more } else { 0.0 };
            let runs = 120 / 60 * WINDOW;
            cells.push(Cell {
                window,
                release: Arc::from(if window >= cutover { "v2" } else { "v1" }),
                canary: false,
                stratum: Arc::from(""),
                measure: Measure::from_counts(random.binomial(runs, rate), runs),
            });
        }
    }
    cells
}

/// Returns the times at which alerts of some tasks fired, with a budget shared by all of them.
fn fired(detector: &Detector, part: f64, tasks: &[Vec<Cell>]) -> Vec<Minute> {
    let mut budget = Budget::new(part, detector.spending().unwrap_or(Spending::Time), detector.update_minutes());
    let mut families: Vec<Family> = (0..tasks.len())
        .map(|task| Family::new(format!("task-{task}"), detector.clone(), detector.timing(), BaselinePolicy::default()))
        .collect();
    let (mut moments, mut next) = (Vec::new(), vec![0; tasks.len()]);
    let last = tasks.iter().filter_map(|cells| cells.last()).map(|cell| cell.window).max().unwrap_or(0);
    for day in 0..=last / DAY {
        let to = (day + 1) * DAY;
        for ((family, cells), next) in families.iter_mut().zip(tasks).zip(&mut next) {
            while let Some(cell) = cells.get(*next).filter(|cell| cell.window < to) {
                family.add(cell.clone());
                *next += 1;
            }
            family.start_series(to, &mut budget);
        }
        for family in &mut families {
            for update in family.evaluate(to, &mut budget) {
                if let Change::New { record, .. } = update.change
                    && (record.transition.from, record.transition.to) == (AlertState::Pending, AlertState::Firing)
                {
                    moments.push(record.transition.at);
                }
            }
        }
    }
    moments
}

fn world(seed: u64, cutover: Minute) -> Vec<Vec<Cell>> {
    (0..TASKS).map(|place| task(1000 * seed + place, WEEKS, cutover, Minute::MAX, 0.0)).collect()
}

#[test]
fn drift_pages_within_its_budget_over_seven_months_of_wandering_quality() {
    // Two sevenths of a page a month, as for the shipped rule: two pages in seven months are allowed.
    let drift = Detector::Drift(Arc::default());
    let pages: usize = (0..SEEDS).map(|seed| fired(&drift, 2.0 / 7.0, &world(seed, Minute::MAX)).len()).sum();
    assert!(pages <= 2, "{pages} pages");
}

#[test]
fn releases_against_earlier_weeks_page_within_their_budget_over_wandering_quality() {
    // Three sevenths; every task gets a new release after four weeks, which is no worse.
    let regression = Detector::Regression(Arc::default());
    let pages: usize = (0..SEEDS).map(|seed| fired(&regression, 3.0 / 7.0, &world(10 + seed, 28 * DAY)).len()).sum();
    assert!(pages <= 1, "{pages} pages of 40 releases");
}

#[test]
fn failures_are_detected_although_quality_wanders() {
    let worse = 29 * DAY + 600;
    let delay = |detector: &Detector, part: f64, cutover: Minute, more: f64| {
        let found = (0..10).map(|seed| {
            let cells = task(500 + seed, 5, cutover, worse, more);
            fired(detector, part, &[cells]).into_iter().find(|at| *at > worse).map_or(Minute::MAX, |at| at - worse)
        });
        let mut delays: Vec<Minute> = found.collect();
        delays.sort_unstable();
        delays[5]
    };
    let drift = Detector::Drift(Arc::default());
    let (ten, thirty) = (delay(&drift, 0.04, Minute::MAX, 0.10), delay(&drift, 0.04, Minute::MAX, 0.30));
    assert!(ten <= DAY && thirty <= 90, "{ten} and {thirty} minutes");
    // Compared with the same hours of earlier weeks; the release was fine for a day.
    let historical = delay(&Detector::Regression(Arc::default()), 0.4, 28 * DAY + 600, 0.10);
    assert!(historical <= 2 * DAY, "{historical} minutes");
}
