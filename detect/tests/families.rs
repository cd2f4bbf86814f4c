//! Tests families of releases with their detectors: detection, false alarms, and independence from the order of arrival
//! and from restarts.

use std::sync::Arc;

use bellwether_detect::budget::Spending;
use bellwether_detect::detector::{
    BurnRate, Distance, Drift, Histogram, Occurrence, Ratio, Regression, Shape, Split, Threshold,
};
use bellwether_detect::evidence::BaselineKind;
use bellwether_detect::{
    AlertState, BaselinePolicy, Budget, Cell, Change, Detector, Family, Groups, Measure, Minute, RatioTotals,
    TransitionRecord,
};
use bellwether_stats::burn_rate::WORKBOOK;
use bellwether_stats::histogram_e::{BINS, bin_of};
use proptest::prelude::*;

use crate::random::Random;

fn cell(window: Minute, release: &str, canary: bool, measure: Measure) -> Cell {
    Cell { window, release: Arc::from(release), canary, stratum: Arc::from(""), measure }
}

fn family(detector: Detector) -> (Family, Budget) {
    detector.validate().expect("settings are right");
    let budget = Budget::new(0.1, detector.spending().unwrap_or(Spending::Time), detector.update_minutes());
    let timing = detector.timing();
    (Family::new("task", detector, timing, BaselinePolicy::default()), budget)
}

fn regression() -> Detector {
    Detector::Regression(Arc::default())
}

/// The transitions that remain after all changes.
#[derive(Default)]
struct Standing(Vec<(String, TransitionRecord)>, usize);

impl Standing {
    fn apply(&mut self, updates: Vec<bellwether_detect::SeriesUpdate>) {
        for update in updates {
            let release = update.release.to_string();
            let mut remove = |at: Minute, record: &TransitionRecord| {
                let place = self.0.iter().position(|(name, old)| {
                    *name == release
                        && old.transition.at == at
                        && old.transition.to == record.transition.to
                        && old.transition.stale == record.transition.stale
                });
                self.0.remove(place.expect("only reported transitions are retracted"));
                self.1 += 1;
            };
            match update.change {
                Change::New { record, .. } => self.0.push((release, *record)),
                Change::Moved { was, record } => {
                    remove(was, &record);
                    self.0.push((release, *record));
                }
                Change::Retracted { record, .. } => remove(record.transition.at, &record),
            }
        }
        self.0.sort_by_key(|(name, record)| (name.clone(), record.transition.at, record.transition.to));
    }

    fn states(&self) -> Vec<(String, Minute, AlertState, bool)> {
        self.0
            .iter()
            .map(|(name, record)| (name.clone(), record.transition.at, record.transition.to, record.transition.stale))
            .collect()
    }

    fn first(&self, state: AlertState) -> Option<&TransitionRecord> {
        self.0.iter().map(|(_, record)| record).find(|record| record.transition.to == state)
    }
}

/// Feeds a day at a time, as when history is read.
fn whole(detector: Detector, cells: &[Cell], to: Minute) -> Standing {
    let (mut family, mut budget) = family(detector);
    let mut cells: Vec<&Cell> = cells.iter().collect();
    cells.sort_by_key(|cell| cell.window);
    let mut standing = Standing::default();
    for day in cells.chunk_by(|a, b| a.window.div_euclid(1440) == b.window.div_euclid(1440)) {
        let start = day.first().map_or(0, |cell| cell.window.div_euclid(1440) * 1440);
        let end = start + 1440;
        // Judge a day before the next one is added: the past is kept only for a limited time.
        standing.apply(family.evaluate(start.min(to), &mut budget));
        day.iter().for_each(|cell| family.add((*cell).clone()));
        standing.apply(family.evaluate(end.min(to), &mut budget));
    }
    standing.apply(family.evaluate(to, &mut budget));
    standing
}

/// Feeds minute by minute, with each cell some minutes late.
fn live(detector: Detector, cells: &[Cell], to: Minute, late: impl Fn(usize) -> Minute) -> Standing {
    let (mut family, mut budget) = family(detector);
    let mut arriving: Vec<(Minute, &Cell)> =
        cells.iter().enumerate().map(|(n, cell)| (cell.window + 1 + late(n), cell)).collect();
    arriving.sort_by_key(|(at, cell)| (*at, cell.window));
    let mut standing = Standing::default();
    let mut next = 0;
    let from = cells.iter().map(|cell| cell.window).min().unwrap_or(0);
    for now in from..=to {
        while next < arriving.len() && (arriving[next].0 <= now || now == to) {
            family.add(arriving[next].1.clone());
            next += 1;
        }
        standing.apply(family.evaluate(now, &mut budget));
    }
    assert_eq!(family.too_late(), 0);
    standing
}

/// A release with ten runs a minute and a canary with four, of which a fraction fails from a time on.
fn canary(seed: u64, minutes: i64, bad: f64, from: Minute) -> Vec<Cell> {
    let mut random = Random(seed);
    let mut cells = Vec::new();
    for minute in 0..minutes {
        let usual = 0.08 + 0.04 * (minute as f64 / 200.0).sin();
        let rate = if minute >= from { bad } else { usual };
        cells.push(cell(minute, "v1", false, Measure::from_counts(random.binomial(10, usual), 10)));
        cells.push(cell(minute, "v2", true, Measure::from_counts(random.binomial(4, rate), 4)));
    }
    cells
}

#[test]
fn a_bad_canary_is_detected_with_its_numbers_and_resolves_when_withdrawn() {
    let mut cells = canary(1, 300, 0.30, 60);
    // Withdrawn at 300; the task goes on.
    cells.extend((300..420).map(|minute| cell(minute, "v1", false, Measure::from_counts(1, 14))));
    let standing = whole(regression(), &cells, 420);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((61..140).contains(&record.transition.at), "at {}", record.transition.at);
    let evidence = &record.evidence;
    assert_eq!(evidence.baseline, BaselineKind::Concurrent);
    let (sa, na) = evidence.baseline_counts.expect("counts");
    let (sb, nb) = evidence.canary_counts.expect("counts");
    assert!(na > nb && sb * na > sa * nb, "{evidence:?}");
    assert!(evidence.log_e >= evidence.threshold && evidence.effect > Some(1.15));
    let (low, high) = evidence.interval.expect("an interval");
    assert!(low < evidence.effect.expect("an effect") && evidence.effect.expect("an effect") < high);
    assert!(evidence.false_alarm.is_some_and(|(bound, _)| bound > 0.0 && bound <= 0.05));
    assert!(evidence.since.is_some_and(|since| (40..100).contains(&since)), "{:?}", evidence.since);
    let over = standing.first(AlertState::Resolved).expect("it is over");
    assert_eq!(over.transition.why, "rolled_back");
    assert!((360..370).contains(&over.transition.at), "at {}", over.transition.at);
}

#[test]
fn a_canary_that_recovers_resolves_by_evidence_and_a_twin_is_left_alone() {
    let mut cells = canary(2, 240, 0.35, 30);
    let mut random = Random(99);
    for minute in 240..700 {
        cells.push(cell(minute, "v1", false, Measure::from_counts(random.binomial(10, 0.08), 10)));
        cells.push(cell(minute, "v2", true, Measure::from_counts(random.binomial(4, 0.08), 4)));
    }
    let standing = whole(regression(), &cells, 700);
    let over = standing.first(AlertState::Resolved).expect("it is over");
    assert_eq!(over.transition.why, "recovered");
    assert!((245..500).contains(&over.transition.at), "at {}", over.transition.at);
    let twins = (0..40).filter(|seed| {
        whole(regression(), &canary(1000 + seed, 1440, 0.08, 9999), 1440).first(AlertState::Firing).is_some()
    });
    assert!(twins.count() <= 1, "twins alarm, seeds 1000 to 1040");
}

#[test]
fn missing_data_makes_an_alert_stale_and_never_resolves_it() {
    let mut cells = canary(3, 120, 0.5, 0);
    cells.extend(canary(4, 20, 0.5, 0).into_iter().map(|cell| Cell { window: cell.window + 400, ..cell }));
    let standing = whole(regression(), &cells, 420);
    let stale: Vec<_> = standing
        .0
        .iter()
        .filter(|(_, record)| record.transition.from == AlertState::Firing)
        .map(|(_, record)| record.transition)
        .collect();
    assert_eq!(
        stale.iter().map(|step| (step.at, step.to, step.why)).collect::<Vec<_>>(),
        [(180, AlertState::Firing, "no_data"), (401, AlertState::Firing, "data_again"),]
    );
}

#[test]
fn sessions_make_evidence_weigh_less() {
    // Sessions of five runs that succeed or fail together.
    let found = |groups: bool| {
        (0..60)
            .filter(|seed| {
                let mut random = Random(5000 + seed);
                let mut cells = Vec::new();
                for minute in 0..1440 {
                    for (release, canary, sessions) in [("v1", false, 2), ("v2", true, i32::from(minute >= 240))] {
                        let mut measure = Measure::default();
                        let mut lists = Groups { events: vec![0; 32], runs: vec![0; 32] };
                        for _ in 0..sessions {
                            let group = (random.uniform() * 32.0) as usize;
                            let bad = i64::from(random.uniform() < 0.1) * 5;
                            measure.add(&Measure::from_counts(bad, 5));
                            lists.events[group] += bad;
                            lists.runs[group] += 5;
                        }
                        measure.groups = groups.then(|| Box::new(lists));
                        cells.push(cell(minute, release, canary, measure));
                    }
                }
                let margin = Detector::Regression(Arc::new(Regression { margin: 1.0, ..Regression::default() }));
                whole(margin, &cells, 1440).first(AlertState::Firing).is_some()
            })
            .count()
    };
    let (blind, seeing) = (found(false), found(true));
    assert!(blind >= 5 && seeing <= 1, "{blind} of 60 false alarms blind to sessions, {seeing} seeing them");
}

#[test]
fn the_guilty_task_of_many_is_named() {
    let mut random = Random(7);
    let mut cells = Vec::new();
    for minute in 0..400 {
        for task in 0..8 {
            for (release, canary, runs) in [("v1", false, 6), ("v2", true, 3)] {
                let rate = if canary && task == 5 { 0.4 } else { 0.03 + 0.02 * f64::from(task) };
                let mut cell = cell(minute, release, canary, Measure::from_counts(random.binomial(runs, rate), runs));
                cell.stratum = Arc::from(format!("task-{task}"));
                cells.push(cell);
            }
        }
    }
    let standing = whole(regression(), &cells, 400);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert_eq!(&*record.evidence.strata[0].stratum, "task-5");
    assert_eq!(record.evidence.stratum.as_deref(), Some("task-5"));
    // The numbers are those of the affected stratum.
    let (first, evidence) = (&record.evidence.strata[0], &record.evidence);
    assert_eq!((evidence.baseline_counts, evidence.canary_counts), (Some(first.baseline), Some(first.canary)));
    assert!(evidence.canary_value > Some(0.3) && evidence.baseline_value < Some(0.2), "{evidence:?}");
    assert!(evidence.interval.is_some_and(|(low, high)| Some(low) < evidence.effect && evidence.effect < Some(high)));
    assert!(
        record.evidence.strata[0].log_e > 4.0 * record.evidence.strata[1].log_e.max(0.5),
        "{:?}",
        record.evidence.strata
    );
}

#[test]
fn a_new_signature_is_reported_with_its_own_numbers_although_failures_in_total_become_rarer() {
    let detector =
        Detector::Regression(Arc::new(Regression { margin: 2.0, shared_runs: true, ..Regression::default() }));
    let mut random = Random(70);
    let mut cells = Vec::new();
    for minute in 0..300 {
        for (release, canary, old, new) in [("v1", false, 0.58, 0.0), ("v2", true, 0.22, 0.06)] {
            let mut of = |stratum: &str, events: i64, runs: i64| {
                let mut cell = cell(minute, release, canary, Measure::from_counts(events, runs));
                cell.stratum = Arc::from(stratum);
                cells.push(cell);
            };
            of("", 0, 4);
            of("old", random.binomial(4, old), 0);
            of("new", random.binomial(4, new), 0);
        }
    }
    let standing = whole(detector, &cells, 300);
    let evidence = &standing.first(AlertState::Firing).expect("it is detected").evidence;
    assert_eq!(evidence.stratum.as_deref(), Some("new"));
    let (baseline, canary) = (evidence.baseline_counts.expect("counts"), evidence.canary_counts.expect("counts"));
    assert!(baseline.0 == 0 && baseline.1 > 100 && canary.0 > 5, "{evidence:?}");
    assert!(evidence.effect > Some(2.0) && evidence.interval.is_some_and(|(low, _)| low > 1.0), "{evidence:?}");
    assert_eq!(evidence.also, 0);
}

#[test]
fn a_change_long_after_the_release_is_reported_with_the_numbers_since_then() {
    // Better than its baseline for most of its life, so that its whole life shows no regression.
    let mut cells = Vec::new();
    let mut random = Random(71);
    for minute in 0..3000 {
        let rate = if minute < 2000 { 0.02 } else { 0.3 };
        cells.push(cell(minute, "v1", false, Measure::from_counts(random.binomial(10, 0.12), 10)));
        cells.push(cell(minute, "v2", true, Measure::from_counts(random.binomial(4, rate), 4)));
    }
    let standing = whole(regression(), &cells, 3000);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((2000..2300).contains(&record.transition.at), "at {}", record.transition.at);
    let evidence = &record.evidence;
    assert!(evidence.recent && evidence.canary_value > Some(0.2) && evidence.effect > Some(1.5), "{evidence:?}");
    assert!(evidence.starts.iter().all(|(_, start)| *start > 1900), "{:?}", evidence.starts);
}

#[test]
fn if_the_mix_reverses_the_plain_rates_the_baseline_is_standardised() {
    // Every task is worse, but the release has mostly easy ones.
    let mut cells = Vec::new();
    let mut random = Random(72);
    for minute in 0..600 {
        for (task, a, b, usual, bad) in [("hard", 9, 2, 0.5, 0.68), ("easy", 3, 8, 0.05, 0.11)] {
            for (release, canary, runs, rate) in [("v1", false, a, usual), ("v2", true, b, bad)] {
                let mut cell = cell(minute, release, canary, Measure::from_counts(random.binomial(runs, rate), runs));
                cell.stratum = Arc::from(task);
                cells.push(cell);
            }
        }
    }
    let standing = whole(regression(), &cells, 600);
    let evidence = &standing.first(AlertState::Firing).expect("it is detected").evidence;
    assert!(evidence.effect > Some(1.0) && evidence.canary_value > evidence.baseline_value, "{evidence:?}");
}

#[test]
fn a_shift_of_the_mix_of_tasks_is_no_regression() {
    // The canary gets twice as many runs of the hard task.
    let mut random = Random(8);
    let mut cells = Vec::new();
    for minute in 0..1440 {
        for (release, canary, hard) in [("v1", false, 2), ("v2", true, 5)] {
            for (task, runs, rate) in [("hard", hard, 0.4), ("easy", 8 - hard, 0.05)] {
                let mut cell = cell(minute, release, canary, Measure::from_counts(random.binomial(runs, rate), runs));
                cell.stratum = Arc::from(task);
                cells.push(cell);
            }
        }
    }
    assert!(whole(regression(), &cells, 1440).first(AlertState::Pending).is_none());
}

#[test]
fn a_cutover_is_compared_with_the_same_hours_of_earlier_weeks() {
    let mut random = Random(9);
    let week = 7 * 24 * 60;
    let rate = |minute: i64, bad: f64| bad + 0.1 * f64::from(u8::from(minute.rem_euclid(1440) > 720));
    let mut cells: Vec<Cell> = (0..3 * week / 5)
        .map(|n| cell(n * 5, "v1", false, Measure::from_counts(random.binomial(20, rate(n * 5, 0.05)), 20)))
        .collect();
    let pinned_elsewhere = cells.clone();
    cells.extend(
        (3 * week / 5..(3 * week + 2880) / 5)
            .map(|n| cell(n * 5, "v2", false, Measure::from_counts(random.binomial(20, rate(n * 5, 0.12)), 20))),
    );
    let standing = whole(regression(), &cells, 3 * week + 2880);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert_eq!(record.evidence.baseline, BaselineKind::Historical);
    assert!(record.evidence.notes.iter().any(|note| note.contains("earlier weeks")));
    assert!(record.transition.at > 3 * week && record.transition.at < 3 * week + 1440, "{}", record.transition.at);
    // The same rate after a cutover does not alarm, whatever the season.
    let mut same = pinned_elsewhere;
    same.extend(
        (3 * week / 5..4 * week / 5)
            .map(|n| cell(n * 5, "v2", false, Measure::from_counts(random.binomial(20, rate(n * 5, 0.05)), 20))),
    );
    assert!(whole(regression(), &same, 4 * week).first(AlertState::Firing).is_none());
}

#[test]
fn a_pinned_baseline_is_the_only_one() {
    let mut cells = canary(11, 200, 0.3, 0);
    let mut random = Random(12);
    cells.extend((0..200).map(|minute| cell(minute, "v0", false, Measure::from_counts(random.binomial(10, 0.30), 10))));
    let run = |pinned: Option<&str>| {
        let policy = BaselinePolicy { pinned: pinned.map(Arc::from) };
        let (mut family, mut budget) =
            (Family::new("task", regression(), Default::default(), policy), Budget::new(0.1, Spending::Both, 1));
        cells.iter().for_each(|cell| family.add(cell.clone()));
        let mut standing = Standing::default();
        standing.apply(family.evaluate(200, &mut budget));
        standing.0.iter().filter(|(name, record)| name == "v2" && record.transition.to == AlertState::Firing).count()
    };
    assert_eq!((run(Some("v1")), run(Some("v0"))), (1, 0));
}

#[test]
fn a_release_in_one_window_only_and_a_baseline_of_three_runs_are_no_news() {
    let once = [cell(5, "v1", false, Measure::from_counts(0, 30)), cell(5, "v2", true, Measure::from_counts(30, 30))];
    let standing = whole(regression(), &once, 100);
    assert!(standing.first(AlertState::Firing).is_some(), "thirty of thirty against none of thirty is plain");
    let little: Vec<Cell> = (0..300)
        .map(|minute| cell(minute, "v2", true, Measure::from_counts(2, 2)))
        .chain([cell(10, "v1", false, Measure::from_counts(0, 3))])
        .collect();
    assert!(whole(regression(), &little, 300).first(AlertState::Firing).is_none());
}

#[test]
fn series_of_zeros_and_of_ones_are_no_news_and_clock_gaps_do_no_harm() {
    for bad in [0, 1] {
        for detector in [
            regression(),
            Detector::Drift(Arc::default()),
            Detector::Drift(Arc::new(Drift { rare: true, ..Drift::default() })),
            Detector::Silence(Arc::default()),
        ] {
            let mut cells = Vec::new();
            // Twelve days, a gap of a century, and more.
            for start in [0, 52_560_000] {
                for n in 0..12 * 288 {
                    for (release, canary) in [("v1", false), ("v2", true)] {
                        cells.push(cell(start + n * 5, release, canary, Measure::from_counts(bad * 6, 6)));
                    }
                }
            }
            let standing = whole(detector.clone(), &cells, 52_560_000 + 12 * 1440);
            // A hundred years without a run are a silence, and nothing else.
            let silent = matches!(detector, Detector::Silence(_));
            assert_eq!(standing.first(AlertState::Firing).is_some(), silent, "{} of {bad}", detector.name());
        }
    }
}

/// Four weeks and some days of one series with a daily season; the rate changes at the end.
fn past(seed: u64, days: i64, change: impl Fn(Minute) -> f64, rate: f64, runs: i64) -> Vec<Cell> {
    let mut random = Random(seed);
    (0..days * 288)
        .map(|n| {
            let minute = n * 5;
            let season = 1.0 + 0.3 * (minute as f64 / 1440.0 * std::f64::consts::TAU).sin();
            cell(
                minute,
                "v1",
                false,
                Measure::from_counts(random.binomial(runs, (rate * season * change(minute)).min(1.0)), runs),
            )
        })
        .collect()
}

#[test]
fn drift_is_found_within_hours_and_seasons_are_not() {
    let change = 30 * 1440;
    let cells = past(21, 34, |minute| if minute >= change { 1.8 } else { 1.0 }, 0.08, 13);
    let standing = whole(Detector::Drift(Arc::default()), &cells, 34 * 1440);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((change..change + 600).contains(&record.transition.at), "{} min after", record.transition.at - change);
    assert!(record.evidence.since.is_some_and(|since| (since - change).abs() < 300), "{:?}", record.evidence.since);
    assert_eq!(standing.first(AlertState::Resolved), None, "the baseline does not follow while the alert is open");
    let quiet = whole(Detector::Drift(Arc::default()), &past(22, 34, |_| 1.0, 0.08, 13), 34 * 1440);
    assert_eq!(quiet.first(AlertState::Firing), None);
}

#[test]
fn a_drift_that_ends_resolves_and_its_hours_are_left_out_of_later_baselines() {
    let bad = 30 * 1440..31 * 1440;
    let change = |minute: Minute| if bad.contains(&minute) || minute >= 40 * 1440 { 2.5 } else { 1.0 };
    let standing = whole(Detector::Drift(Arc::default()), &past(23, 41, change, 0.08, 13), 41 * 1440);
    let fired: Vec<_> = standing
        .0
        .iter()
        .filter(|(_, record)| record.transition.to == AlertState::Firing)
        .map(|(_, record)| record)
        .collect();
    let resolved = standing.first(AlertState::Resolved).expect("it is over");
    assert!((bad.end..bad.end + 720).contains(&resolved.transition.at), "{}", resolved.transition.at);
    assert_eq!(fired.len(), 2);
    // If the bad day were part of the baseline, the second one would be allowed three more points.
    let (first, second) = (fired[0].evidence.baseline_value, fired[1].evidence.baseline_value);
    assert!(second < first.map(|rate| rate * 1.15), "{first:?} {second:?}");
}

#[test]
fn a_slow_change_is_found_by_the_anchored_twin() {
    let change = |minute: Minute| 1.0 + 1.2 * ((minute - 56 * 1440).max(0) as f64 / (28.0 * 1440.0)).min(1.0);
    let cells = past(24, 84, change, 0.08, 5);
    let anchored = Detector::Drift(Arc::new(Drift { anchored: true, ..Drift::default() }));
    let record = whole(anchored, &cells, 84 * 1440);
    let record = record.first(AlertState::Firing).expect("it is detected");
    assert_eq!(record.evidence.baseline, BaselineKind::Anchored);
    assert!(record.transition.at > 57 * 1440);
    let named = Detector::Drift(Arc::new(Drift { reference: Some((0, 28 * 24)), ..Drift::default() }));
    assert!(whole(named, &cells, 84 * 1440).first(AlertState::Firing).is_some());
}

#[test]
fn rare_events_that_become_tenfold_are_found() {
    let change = 20 * 1440;
    let cells = past(25, 22, |minute| if minute >= change { 10.0 } else { 1.0 }, 0.0002, 100);
    let rare = Detector::Drift(Arc::new(Drift { rare: true, ..Drift::default() }));
    let standing = whole(rare, &cells, 22 * 1440);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((change..change + 480).contains(&record.transition.at), "{}", record.transition.at - change);
    assert!(record.evidence.interval.is_some_and(|(low, _)| low > 1.0), "{:?}", record.evidence);
}

#[test]
fn a_silent_producer_alarms_and_a_quiet_night_does_not() {
    let traffic = |minute: Minute| if minute.rem_euclid(1440) < 360 { 0 } else { 6 };
    let mut cells: Vec<Cell> = (0..9 * 1440)
        .filter(|minute| traffic(*minute) > 0)
        .map(|minute| cell(minute, "", false, Measure::from_counts(0, traffic(minute))))
        .collect();
    let silence = || Detector::Silence(Arc::default());
    assert!(whole(silence(), &cells, 9 * 1440 + 300).first(AlertState::Pending).is_none(), "the night is usual");
    let gone = 8 * 1440 + 700;
    cells.retain(|cell| cell.window < gone);
    cells.extend(
        (8 * 1440 + 800..9 * 1440).map(|minute| cell(minute, "", false, Measure::from_counts(0, traffic(minute)))),
    );
    let standing = whole(silence(), &cells, 9 * 1440);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((gone + 15..=gone + 60).contains(&record.transition.at), "{}", record.transition.at - gone);
    assert!(
        standing
            .first(AlertState::Resolved)
            .is_some_and(|over| (8 * 1440 + 800..8 * 1440 + 840).contains(&over.transition.at))
    );
    assert!(record.evidence.notes[0].contains("are usual"), "{:?}", record.evidence);
}

#[test]
fn silence_of_a_task_with_few_runs_alarms_after_some_empty_slots() {
    // 0.3 runs a minute: an empty slot of fifteen minutes is not rare, a series of them is.
    let mut random = Random(5);
    let gone = 8 * 1440 + 600;
    let cells: Vec<Cell> = (0..9 * 1440)
        .filter(|minute| random.uniform() < 0.3 && !(gone..gone + 300).contains(minute))
        .map(|minute| cell(minute, "", false, Measure::from_counts(0, 1)))
        .collect();
    let standing = whole(Detector::Silence(Arc::default()), &cells, 9 * 1440);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!((gone + 45..=gone + 150).contains(&record.transition.at), "{}", record.transition.at - gone);
    assert_eq!(standing.0.iter().filter(|(_, record)| record.transition.to == AlertState::Firing).count(), 1);
    assert!(standing.first(AlertState::Resolved).is_some_and(|over| over.transition.at >= gone + 300));
}

#[test]
fn a_small_canary_between_two_of_its_runs_has_not_left() {
    // One run in twenty is the canary's, and the task has one run every two minutes: an hour without one is normal.
    let mut random = Random(11);
    let mut cells: Vec<Cell> = (0..6000)
        .filter(|_| random.uniform() < 0.5)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|minute| {
            let canary = random.uniform() < 0.05;
            let bad = i64::from(random.uniform() < if canary { 0.8 } else { 0.05 });
            cell(minute, if canary { "v2" } else { "v1" }, canary, Measure::from_counts(bad, 1))
        })
        .collect();
    let standing = whole(regression(), &cells, 6000);
    assert!(standing.first(AlertState::Firing).is_some());
    assert!(standing.first(AlertState::Resolved).is_none(), "{:?}", standing.states());
    cells.extend((6000..7500).map(|minute| cell(minute, "v1", false, Measure::from_counts(0, 1))));
    let over = whole(regression(), &cells, 7500);
    assert_eq!(over.first(AlertState::Resolved).map(|over| over.transition.why), Some("rolled_back"));
}

#[test]
fn a_regression_that_lasts_does_not_resolve() {
    let resolved = (0..20).filter(|seed| {
        let standing = whole(regression(), &canary(300 + seed, 4 * 1440, 0.2, 30), 4 * 1440);
        assert!(standing.first(AlertState::Firing).is_some(), "seed {}", 300 + seed);
        standing.first(AlertState::Resolved).is_some()
    });
    assert!(resolved.count() <= 1, "of twenty, seeds 300 to 319");
}

#[test]
fn assignment_by_session_is_not_a_broken_split() {
    // With sessions of twenty runs, three in ten on the canary, the observed share deviates from 0.3 by chance.
    let cells = |seed: u64, share: f64| -> Vec<Cell> {
        let mut random = Random(seed);
        let deal = |minute: Minute, random: &mut Random| {
            let canary = random.uniform() < share;
            let group = (random.uniform() * 32.0) as usize;
            let mut runs = vec![0; 32];
            runs[group] = 20;
            let groups = Some(Box::new(Groups { events: runs.clone(), runs }));
            let measure = Measure { groups, ..Measure::from_counts(0, 20) };
            cell(minute, if canary { "v2" } else { "v1" }, canary, measure)
        };
        (0..600).map(|minute| deal(minute, &mut random)).collect()
    };
    let split = || Detector::Split(Arc::new(Split { share: Some(0.3) }));
    let found = |share: f64| {
        (0..20)
            .filter(move |seed| whole(split(), &cells(*seed, share), 600).first(AlertState::Firing).is_some())
            .count()
    };
    assert!(found(0.3) <= 1, "{} of twenty", found(0.3));
    assert!(found(0.15) >= 19, "{} of twenty", found(0.15));
}

fn latency(random: &mut Random, runs: i64, factor: f64) -> Measure {
    let mut bins = vec![0; BINS];
    for _ in 0..runs {
        let normal: f64 = (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        bins[bin_of((2e6 * (0.6 * normal).exp() * factor) as u64)] += 1;
    }
    Measure::from_histogram(bins)
}

#[test]
fn a_release_with_a_longer_tail_is_reported_by_its_tail() {
    let mut random = Random(73);
    let detector = || Detector::Histogram(Arc::new(Histogram::default()));
    let mut cells = Vec::new();
    for minute in 0..600 {
        for (release, canary, slow) in [("v1", false, 0.02), ("v2", true, 0.15)] {
            let mut measure = Measure::from_histogram(vec![0; BINS]);
            for _ in 0..8 {
                let micros =
                    if random.uniform() < slow { 9_000_000.0 } else { 900_000.0 } * (0.8 + 0.4 * random.uniform());
                measure.add(&Measure::from_histogram(one_of(bin_of(micros as u64))));
            }
            cells.push(cell(minute, release, canary, measure));
        }
    }
    let standing = whole(detector(), &cells, 600);
    let evidence = &standing.first(AlertState::Firing).expect("it is detected").evidence;
    assert_eq!(evidence.of, Some("95th percentile"));
    let (before, now) = (evidence.baseline_value.expect("a value"), evidence.canary_value.expect("a value"));
    let effect = evidence.effect.expect("an effect");
    assert!(effect > 2.0 && (now / before / effect - 1.0).abs() < 0.3, "{before} {now} {effect}");
}

fn one_of(bin: usize) -> Vec<i64> {
    let mut bins = vec![0; BINS];
    bins[bin] = 1;
    bins
}

#[test]
fn a_slower_release_is_found_and_an_equal_one_is_not() {
    let histogram = || Detector::Histogram(Arc::new(Histogram { shape: Shape::Up, ..Histogram::default() }));
    let cells = |seed: u64, factor: f64| {
        let mut random = Random(seed);
        (0..600)
            .flat_map(|minute| {
                [
                    cell(minute, "v1", false, latency(&mut random, 10, 1.0)),
                    cell(minute, "v2", true, latency(&mut random, 5, factor)),
                ]
            })
            .collect::<Vec<_>>()
    };
    let standing = whole(histogram(), &cells(31, 1.5), 600);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!(record.transition.at < 150, "{}", record.transition.at);
    let effect = record.evidence.effect.expect("an effect");
    assert!((1.25..2.0).contains(&effect), "{effect}");
    let median = record.evidence.baseline_value.expect("a median");
    assert!((1.5e6..2.6e6).contains(&median), "{median}");
    assert!((0..10).all(|seed| whole(histogram(), &cells(100 + seed, 1.0), 600).first(AlertState::Firing).is_none()));
}

#[test]
fn a_more_expensive_release_is_detected_and_its_cost_decomposed() {
    let cells = |factor: f64| {
        let mut random = Random(41);
        (0..400)
            .flat_map(|minute| {
                [("v1", false, 10, 1.0), ("v2", true, 5, factor)].map(|(release, canary, runs, factor)| {
                    let mut ratio = RatioTotals::default();
                    for _ in 0..runs {
                        let cost = (1e6 * factor * (0.5 + random.uniform())) as i128;
                        let done = i128::from(random.uniform() < 0.9);
                        ratio = RatioTotals {
                            y: ratio.y + cost,
                            x: ratio.x + done,
                            yy: ratio.yy + cost * cost,
                            xx: ratio.xx + done,
                            xy: ratio.xy + cost * done,
                        };
                    }
                    cell(minute, release, canary, Measure { runs, ratio: Some(Box::new(ratio)), ..Measure::default() })
                })
            })
            .collect::<Vec<_>>()
    };
    let ratio = || Detector::Ratio(Arc::new(Ratio { scale: 1e-9, ..Ratio::default() }));
    let standing = whole(ratio(), &cells(1.4), 400);
    let record = standing.first(AlertState::Firing).expect("it is detected");
    assert!(record.evidence.effect.is_some_and(|effect| (1.3..1.5).contains(&effect)));
    assert!(record.evidence.notes[0].contains("the cost per run"), "{:?}", record.evidence.notes);
    assert!(whole(ratio(), &cells(1.0), 400).first(AlertState::Firing).is_none());
}

#[test]
fn burn_rates_splits_bounds_and_single_events_alarm() {
    let burn = BurnRate { objective: 0.99, windows: WORKBOOK.to_vec() };
    let cells: Vec<Cell> = (0..600)
        .map(|minute| cell(minute, "", false, Measure::from_counts(if minute >= 300 { 3 } else { 0 }, 10)))
        .collect();
    let standing = whole(Detector::BurnRate(Arc::new(burn)), &cells, 600);
    let record = standing.first(AlertState::Firing).expect("it burns");
    assert!((300..=345).contains(&record.transition.at), "{}", record.transition.at);
    let loose = Detector::BurnRate(Arc::new(BurnRate { objective: 0.9, windows: WORKBOOK.to_vec() }));
    assert!(loose.validate().expect_err("refused").contains("which is impossible"));

    let split = Detector::Split(Arc::new(Split { share: Some(0.3) }));
    let unequal: Vec<Cell> = (0..200)
        .flat_map(|minute| {
            [
                cell(minute, "v1", false, Measure::from_counts(0, 9)),
                cell(minute, "v2", true, Measure::from_counts(0, 1)),
            ]
        })
        .collect();
    assert!(whole(split.clone(), &unequal, 200).first(AlertState::Firing).is_some());
    let right: Vec<Cell> = (0..200)
        .flat_map(|minute| {
            [
                cell(minute, "v1", false, Measure::from_counts(0, 7)),
                cell(minute, "v2", true, Measure::from_counts(0, 3)),
            ]
        })
        .collect();
    assert!(whole(split, &right, 200).first(AlertState::Pending).is_none());
    // Without a stated share there is nothing to compare with.
    assert!(whole(Detector::Split(Arc::default()), &unequal, 200).first(AlertState::Pending).is_none());

    let bound = Detector::Threshold(Arc::new(Threshold { above: Some(0.5), ..Threshold::default() }));
    let values: Vec<Cell> = (0..60)
        .map(|minute| {
            cell(minute, "", false, Measure::from_counts(if (10..30).contains(&minute) { 600_000 } else { 400_000 }, 1))
        })
        .collect();
    let states: Vec<_> = whole(bound, &values, 60).states().into_iter().map(|(_, at, state, _)| (at, state)).collect();
    assert_eq!(states, [(11, AlertState::Pending), (16, AlertState::Firing), (46, AlertState::Resolved)]);
    for impossible in [
        Threshold::default(),
        Threshold { above: Some(f64::NAN), ..Threshold::default() },
        Threshold { above: Some(0.5), below: Some(1.0), ..Threshold::default() },
    ] {
        let why = Detector::Threshold(Arc::new(impossible)).validate().expect_err("refused");
        assert!(why.contains("never fire") || why.contains("always fire"), "{why}");
    }

    let occurrence = Detector::Occurrence(Arc::new(Occurrence { clear: 30 }));
    let events: Vec<Cell> =
        (0..90).map(|minute| cell(minute, "", false, Measure::from_counts(i64::from(minute == 20), 10))).collect();
    let states: Vec<_> =
        whole(occurrence, &events, 90).states().into_iter().map(|(_, at, state, _)| (at, state)).collect();
    assert_eq!(states, [(21, AlertState::Pending), (21, AlertState::Firing), (52, AlertState::Resolved)]);
}

#[test]
fn a_day_that_differs_from_the_week_before_is_a_ticket() {
    let mut random = Random(51);
    let cells: Vec<Cell> = (0..12 * 24)
        .map(|hour| cell(hour * 60, "", false, latency(&mut random, 40, if hour >= 10 * 24 { 1.6 } else { 1.0 })))
        .collect();
    let standing = whole(Detector::Distance(Arc::new(Distance::default())), &cells, 12 * 1440);
    assert_eq!(standing.first(AlertState::Firing).map(|record| record.transition.at), Some(11 * 1440));
}

#[test]
fn a_late_correction_upgrades_or_retracts_visibly() {
    let occurrence = || Detector::Occurrence(Arc::new(Occurrence { clear: 30 }));
    let (mut family, mut budget) = family(occurrence());
    (0..50).for_each(|minute| family.add(cell(minute, "", false, Measure::from_counts(i64::from(minute == 40), 10))));
    let fired = family.evaluate(50, &mut budget);
    assert!(fired.iter().all(|update| matches!(update.change, Change::New { late: false, .. })) && fired.len() == 2);
    // The one exception was a mistake.
    family.add(cell(40, "", false, Measure::from_counts(-1, 0)));
    let back = family.evaluate(51, &mut budget);
    assert!(
        back.iter().all(|update| matches!(&update.change, Change::Retracted { now: AlertState::Inactive, .. }))
            && back.len() == 2,
        "{back:?}"
    );
    // Another one arrives late.
    family.add(cell(30, "", false, Measure::from_counts(1, 0)));
    let late = family.evaluate(52, &mut budget);
    assert!(
        late.iter()
            .all(|update| matches!(&update.change, Change::New { late: true, record } if record.transition.at == 31))
            && late.len() == 2
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 20, ..ProptestConfig::default() })]
    #[test]
    fn the_result_is_the_same_in_any_order_and_with_any_delay(seed in 0_u64..1000, bad in 0.05_f64..0.5, delays in proptest::collection::vec(0_i64..45, 7)) {
        let cells = canary(seed, 260, bad, 50);
        let at_once = whole(regression(), &cells, 320);
        let in_order = live(regression(), &cells, 320, |_| 0);
        prop_assert_eq!(at_once.states(), in_order.states());
        let late = live(regression(), &cells, 320, |n| delays[n * 31 % delays.len()]);
        prop_assert_eq!(at_once.states(), late.states());
        let drift = || Detector::Drift(Arc::new(Drift { least_hours: 24, ..Drift::default() }));
        let series: Vec<Cell> = past(seed, 3, |minute| if minute > 2 * 1440 + 300 { 1.0 + 4.0 * bad } else { 1.0 }, 0.1, 12);
        let (a, b) = (whole(drift(), &series, 3 * 1440), live(drift(), &series, 3 * 1440, |n| delays[n % delays.len()]));
        prop_assert_eq!(a.states(), b.states());
    }
}
