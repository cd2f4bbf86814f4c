//! Corrections that are older than the windows in memory, and releases that were dropped: judged again from the windows,
//! a family has the transitions that it would have had if everything had come in time and nothing had been dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_detect::budget::Spending;
use bellwether_detect::detector::{BurnRate, Distance, Drift, Histogram, Occurrence, Ratio, Regression};
use bellwether_detect::{
    BaselinePolicy, Budget, Cell, Change, Detector, Family, Groups, Measure, Minute, RatioTotals, SeriesUpdate,
    TransitionRecord,
};
use bellwether_stats::burn_rate::WORKBOOK;
use bellwether_stats::histogram_e::{BINS, bin_of};
use proptest::prelude::*;

use crate::random::Random;

const DAY: Minute = 1440;

/// A Monday.
const BEGIN: Minute = 29_459_520;

/// A transition: release, time, state, and whether it is stale.
type Seen = (String, Minute, u8, bool);

/// A family, and the transitions that stand.
struct Judged {
    family: Family,
    budget: Budget,
    seen: BTreeSet<Seen>,
}

fn seen(release: &str, at: Minute, record: &TransitionRecord) -> Seen {
    (release.to_owned(), at, record.transition.to as u8, record.transition.stale)
}

impl Judged {
    fn new(detector: &Detector) -> Self {
        let budget = Budget::new(0.5, detector.spending().unwrap_or(Spending::Time), detector.update_minutes());
        let family = Family::new("task", detector.clone(), detector.timing(), BaselinePolicy::default());
        Self { family, budget, seen: BTreeSet::new() }
    }

    fn apply(&mut self, updates: Vec<SeriesUpdate>) {
        for SeriesUpdate { release, change, .. } in updates {
            match change {
                Change::New { record, .. } => {
                    self.seen.insert(seen(&release, record.transition.at, &record));
                }
                Change::Moved { was, record } => {
                    self.take_back(&release, was, &record);
                    self.seen.insert(seen(&release, record.transition.at, &record));
                }
                Change::Retracted { record, .. } => self.take_back(&release, record.transition.at, &record),
            }
        }
    }

    fn take_back(&mut self, release: &str, at: Minute, record: &TransitionRecord) {
        let there = self.seen.remove(&seen(release, at, record));
        assert!(there, "only a reported transition is taken back");
    }

    fn evaluate(&mut self, to: Minute) {
        let updates = self.family.evaluate(to, &mut self.budget);
        self.apply(updates);
    }

    /// Adds windows hour by hour and judges them.
    fn feed(&mut self, cells: &[Cell], to: Minute) {
        let mut cells: Vec<&Cell> = cells.iter().collect();
        cells.sort_by_key(|cell| cell.window);
        for hour in cells.chunk_by(|a, b| a.window.div_euclid(60) == b.window.div_euclid(60)) {
            hour.iter().for_each(|cell| self.family.add((*cell).clone()));
            self.evaluate((hour[0].window.div_euclid(60) * 60 + 60).min(to));
        }
        self.evaluate(to);
    }

    /// Judges again what the family wants, from all cells; returns the first window that it read.
    fn again(&mut self, cells: &[Cell]) -> Minute {
        let from = self.family.wants().expect("there is something to judge again");
        let to = self.family.begin_again(&mut self.budget).expect("it goes back");
        if from == Minute::MIN {
            // All transitions are reported once more; the ledger of alerts takes back those that are not.
            self.seen.clear();
        }
        let mut cells: Vec<&Cell> = cells.iter().filter(|cell| cell.window >= from).collect();
        cells.sort_by_key(|cell| cell.window);
        for day in cells.chunk_by(|a, b| a.window.div_euclid(DAY) == b.window.div_euclid(DAY)) {
            day.iter().for_each(|cell| self.family.add((*cell).clone()));
            let part = if to == Minute::MIN { Minute::MAX } else { to - 1 };
            self.evaluate((day[0].window.div_euclid(DAY) * DAY + DAY).min(part));
        }
        self.evaluate(to);
        assert_eq!(self.family.wants(), None);
        from
    }
}

fn latency(random: &mut Random, runs: i64, factor: f64) -> Measure {
    let mut bins = vec![0; BINS];
    for _ in 0..runs {
        bins[bin_of((2e6 * (0.5 + random.uniform()) * factor) as u64)] += 1;
    }
    Measure::from_histogram(bins)
}

/// The counts that a detector reads, of some runs of which a fraction is bad.
fn measure(detector: &Detector, random: &mut Random, runs: i64, bad: f64) -> Measure {
    let events = random.binomial(runs, bad);
    let counts = Measure::from_counts(events, runs);
    match detector {
        Detector::Histogram(_) | Detector::Distance(_) => latency(random, runs, 1.0 + bad),
        Detector::Ratio(_) => {
            let y = i128::from(runs) * (1_000_000.0 * (1.0 + bad) * (0.9 + 0.2 * random.uniform())) as i128;
            let x = i128::from(runs);
            let ratio = RatioTotals { y, x, yy: y * y / x, xx: x, xy: y };
            Measure { ratio: Some(Box::new(ratio)), ..counts }
        }
        Detector::Occurrence(_) => Measure::from_counts(i64::from(random.uniform() < bad / 300.0), runs),
        _ => {
            let group = (random.uniform() * 32.0) as usize;
            let mut lists = Groups { events: vec![0; 32], runs: vec![0; 32] };
            (lists.events[group], lists.runs[group]) = (events, runs);
            Measure { groups: Some(Box::new(lists)), ..counts }
        }
    }
}

/// Windows of ten minutes of some days: a release in full rollout, and a canary within `canary` whose runs get worse on
/// the last day but one.
fn cells(detector: &Detector, seed: u64, days: i64, canary: &[std::ops::Range<i64>]) -> Vec<Cell> {
    let mut random = Random(seed);
    let mut cells = Vec::new();
    for n in 0..days * 144 {
        let (window, worse) = (BEGIN + n * 10, n >= (days - 2) * 144);
        let mut add = |release: &str, canary: bool, runs: i64, bad: f64| {
            let measure = measure(detector, &mut random, runs, bad);
            let (release, stratum) = (Arc::from(release), Arc::from(""));
            cells.push(Cell { window, release, canary, stratum, measure });
        };
        let own_past = !detector.compares_releases();
        add("v1", false, 20, if worse && own_past { 0.35 } else { 0.1 });
        if canary.iter().any(|days| days.contains(&(n / 144))) {
            add("v2", true, 8, if worse { 0.4 } else { 0.1 });
        }
    }
    cells
}

fn detectors() -> Vec<Detector> {
    vec![
        Detector::Regression(Arc::new(Regression::default())),
        Detector::Histogram(Arc::new(Histogram::default())),
        Detector::Ratio(Arc::new(Ratio::default())),
        Detector::Drift(Arc::new(Drift { least_hours: 24, ..Drift::default() })),
        Detector::Drift(Arc::new(Drift { least_hours: 24, rare: true, ..Drift::default() })),
        Detector::Distance(Arc::new(Distance::default())),
        Detector::BurnRate(Arc::new(BurnRate { objective: 0.95, windows: WORKBOOK.to_vec() })),
        Detector::Occurrence(Arc::new(Occurrence::default())),
    ]
}

/// The same runs, all bad: a late verdict on each.
fn correction(cell: &Cell) -> Cell {
    let mut measure = Measure::from_counts(cell.measure.runs - cell.measure.events, 0);
    if let Some(ratio) = &cell.measure.ratio {
        measure.ratio =
            Some(Box::new(RatioTotals { y: ratio.y / 2, yy: ratio.yy, xy: ratio.xy / 2, ..RatioTotals::default() }));
    }
    if !cell.measure.bins.is_empty() {
        let mut bins = cell.measure.bins.clone();
        bins.rotate_right(12);
        bins.iter_mut().zip(&cell.measure.bins).for_each(|(new, old)| *new -= old);
        measure = Measure { bins, ..Measure::default() };
    }
    Cell { measure, ..cell.clone() }
}

#[test]
fn corrections_of_days_ago_lead_to_the_transitions_that_they_would_have_led_to_in_time() {
    let mut changed = 0;
    for detector in detectors() {
        for (seed, ago) in [(1, 1), (2, 3), (3, 6), (4, 12)] {
            let days = 15;
            let to = BEGIN + days * DAY;
            let all = cells(&detector, seed, days, std::slice::from_ref(&(2..days)));
            let name = format!("{}, {ago} days ago", detector.name());
            let mut live = Judged::new(&detector);
            live.feed(&all, to);
            let before = live.seen.clone();
            // Six hours of late verdicts.
            let bad = to - ago * DAY..to - ago * DAY + 360;
            let own = |cell: &&Cell| cell.canary || !detector.compares_releases();
            let late: Vec<Cell> =
                all.iter().filter(own).filter(|cell| bad.contains(&cell.window)).map(correction).collect();
            late.iter().for_each(|cell| live.family.add(cell.clone()));
            live.evaluate(to);
            let with: Vec<Cell> = all.iter().chain(&late).cloned().collect();
            let from = live.again(&with);
            // A checkpoint is near: not everything is read.
            assert!(ago > 7 || from > bad.start - 5 * DAY, "{name}: from {} min before", bad.start - from);
            let mut whole = Judged::new(&detector);
            whole.feed(&with, to);
            assert_eq!(live.seen, whole.seen, "{name}");
            changed += usize::from(before != whole.seen);
            // A statement that changes nothing which the rule reads is no correction.
            let nothing = Cell { measure: Measure::default(), ..late[0].clone() };
            live.family.add(nothing);
            assert_eq!(live.family.wants(), None, "{name}");
        }
    }
    assert!(changed >= 2, "the corrections changed {changed} of 32 results");
}

#[test]
fn a_release_that_was_dropped_comes_back_as_if_it_had_stayed() {
    for detector in detectors().into_iter().filter(Detector::compares_releases) {
        for pause in [4, 9] {
            let days = 4 + pause + 3;
            let to = BEGIN + days * DAY;
            let all = cells(&detector, 7, days, &[1..4, 4 + pause..days]);
            let back = BEGIN + (4 + pause) * DAY;
            let (first, second): (Vec<Cell>, Vec<Cell>) = all.iter().cloned().partition(|cell| cell.window < back);
            let mut live = Judged::new(&detector);
            live.feed(&first, back);
            assert_eq!(
                live.family.tracks().filter(|(release, _)| &***release == "v2").count(),
                1,
                "{}",
                detector.name()
            );
            live.family.drop_idle(back - 3 * DAY);
            assert_eq!(
                live.family.tracks().filter(|(release, _)| &***release == "v2").count(),
                0,
                "{}",
                detector.name()
            );
            assert_eq!(live.family.wants(), None);
            live.feed(&second, to);
            assert_eq!(live.again(&all), Minute::MIN);
            let mut whole = Judged::new(&detector);
            whole.feed(&all, to);
            assert_eq!(live.seen, whole.seen, "{}, pause of {pause} days", detector.name());
            assert!(whole.seen.iter().any(|seen| seen.0 == "v2" && seen.1 > back), "{}", detector.name());
        }
    }
}

#[test]
fn a_family_that_was_dropped_comes_back_as_if_it_had_stayed_and_keeps_its_place_in_the_budget() {
    for detector in detectors() {
        let (days, pause) = (6, 20);
        let mut all = cells(&detector, 9, days, std::slice::from_ref(&(1..days)));
        let later = cells(&detector, 10, days, std::slice::from_ref(&(0..days)));
        let shift = (days + pause) * DAY;
        let later: Vec<Cell> = later.into_iter().map(|cell| Cell { window: cell.window + shift, ..cell }).collect();
        let (end, to) = (BEGIN + days * DAY, BEGIN + shift + days * DAY);
        let mut live = Judged::new(&detector);
        live.feed(&all, end + 15 * DAY);
        let series = live.budget.series();
        let active = live.family.tracks().any(|(_, track)| {
            matches!(track.state(), bellwether_detect::AlertState::Firing | bellwether_detect::AlertState::Pending)
        });
        assert_eq!(live.family.is_idle(end + DAY), !active, "{}", detector.name());
        if active {
            continue;
        }
        let fresh = Judged::new(&detector).family;
        let retired = std::mem::replace(&mut live.family, fresh).retire();
        live.family.come_back(retired);
        later.iter().for_each(|cell| live.family.add(cell.clone()));
        all.extend(later);
        live.again(&all);
        live.evaluate(to);
        let mut whole = Judged::new(&detector);
        whole.feed(&all, to);
        assert_eq!(
            (live.seen, live.budget.series()),
            (whole.seen, series.max(whole.budget.series())),
            "{}",
            detector.name()
        );
    }
}

#[test]
fn half_way_given_up_it_is_judged_from_the_beginning() {
    let detector = Detector::Regression(Arc::default());
    let all = cells(&detector, 3, 6, std::slice::from_ref(&(1..6)));
    let to = BEGIN + 6 * DAY;
    let mut live = Judged::new(&detector);
    live.feed(&all, to);
    let late = correction(&all[2 * 144]);
    live.family.add(late.clone());
    live.family.begin_again(&mut live.budget).expect("it goes back");
    live.family.start_over();
    let with: Vec<Cell> = all.iter().cloned().chain([late]).collect();
    assert_eq!(live.again(&with), Minute::MIN);
    let mut whole = Judged::new(&detector);
    whole.feed(&with, to);
    assert_eq!(live.seen, whole.seen);
}

/// Judges late cells one by one, after what has no runs any more was dropped, and compares with all cells in time.
fn late_cells_lead_to_the_same(detector: &Detector, seed: u64, late: &[usize]) {
    let days = 8;
    let to = BEGIN + days * DAY;
    let all = cells(detector, seed, days, &[1..3, 5..days]);
    let late: Vec<Cell> = late.iter().map(|place| correction(&all[place % all.len()])).collect();
    let mut live = Judged::new(detector);
    live.feed(&all, to);
    live.family.drop_idle(to - 3 * DAY);
    for cell in &late {
        live.family.add(cell.clone());
        live.evaluate(to);
    }
    let with: Vec<Cell> = all.iter().chain(&late).cloned().collect();
    if live.family.wants().is_some() {
        live.again(&with);
    }
    let mut whole = Judged::new(detector);
    whole.feed(&with, to);
    assert_eq!(live.seen, whole.seen, "{}, seed {seed}, late {late:?}", detector.name());
}

#[test]
fn a_transition_that_stands_but_comes_from_another_state_is_not_taken_back() {
    late_cells_lead_to_the_same(
        &Detector::Drift(Arc::new(Drift { least_hours: 24, ..Drift::default() })),
        665,
        &[0, 11, 1100],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 6, ..ProptestConfig::default() })]
    #[test]
    fn any_late_cells_of_any_release_lead_to_the_same(
        seed in 0_u64..1000, late in prop::collection::vec(0_usize..1500, 1..6), kind in 0_usize..8,
    ) {
        late_cells_lead_to_the_same(&detectors()[kind], seed, &late);
    }
}
