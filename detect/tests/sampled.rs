//! Tests sampled runs: equal weights change nothing, weights that depend on the outcome neither raise false alarms nor
//! hide true ones, and displayed values are weighted.

use std::sync::Arc;

use bellwether_detect::budget::Spending;
use bellwether_detect::detector::{BurnRate, Distance, Drift, Histogram, Ratio, Split};
use bellwether_detect::{
    AlertState, BaselinePolicy, Budget, Cell, Change, Detector, Family, Measure, Minute, RatioTotals, TransitionRecord,
};
use bellwether_stats::burn_rate::WORKBOOK;
use bellwether_stats::histogram_e::{BINS, bin_of};

use crate::random::Random;

/// Millionths.
const ONE: i64 = 1_000_000;

/// One run in this many is kept, of failures and of successes.
#[derive(Clone, Copy)]
struct Kept {
    bad: i64,
    good: i64,
}

const ALL: Kept = Kept { bad: 1, good: 1 };
const TAIL: Kept = Kept { bad: 1, good: 50 };
/// Rare failures that are sampled, and successes that are not: the worst case for code that treats weights as counts.
const HEAD: Kept = Kept { bad: 20, good: 1 };

/// Runs with a failure rate, sampled.
fn sampled(random: &mut Random, runs: i64, rate: f64, kept: Kept) -> Measure {
    let bad = random.binomial(runs, rate);
    let seen_bad = random.binomial(bad, 1.0 / kept.bad as f64);
    let seen_good = random.binomial(runs - bad, 1.0 / kept.good as f64);
    let mut measure = Measure::from_counts(seen_bad, seen_bad).with_weight(kept.bad * ONE);
    measure.add(&Measure::from_counts(0, seen_good).with_weight(kept.good * ONE));
    measure
}

fn cell(window: Minute, release: &str, canary: bool, measure: Measure) -> Cell {
    Cell { window, release: Arc::from(release), canary, stratum: Arc::from(""), measure }
}

/// Returns the transitions, fed a day at a time.
fn transitions(detector: &Detector, cells: &[Cell], to: Minute) -> Vec<TransitionRecord> {
    detector.validate().expect("settings are right");
    let mut budget = Budget::new(0.1, detector.spending().unwrap_or(Spending::Time), detector.update_minutes());
    let mut family = Family::new("task", detector.clone(), detector.timing(), BaselinePolicy::default());
    let mut records = Vec::new();
    let mut take = |updates: Vec<bellwether_detect::SeriesUpdate>| {
        for update in updates {
            if let Change::New { record: new, .. } = update.change {
                records.push(*new);
            }
        }
    };
    for day in cells.chunk_by(|a, b| a.window.div_euclid(1440) == b.window.div_euclid(1440)) {
        let start = day.first().map_or(0, |cell| cell.window.div_euclid(1440) * 1440);
        take(family.evaluate(start.min(to), &mut budget));
        day.iter().for_each(|cell| family.add(cell.clone()));
        take(family.evaluate((start + 1440).min(to), &mut budget));
    }
    take(family.evaluate(to, &mut budget));
    records
}

fn fired(detector: &Detector, cells: &[Cell], to: Minute) -> Option<TransitionRecord> {
    transitions(detector, cells, to).into_iter().find(|record| record.transition.to == AlertState::Firing)
}

fn regression() -> Detector {
    Detector::Regression(Arc::default())
}

/// A release and a canary with 240 runs a minute.
fn canary(seed: u64, minutes: i64, [usual, bad]: [f64; 2], [old, new]: [Kept; 2]) -> Vec<Cell> {
    let mut random = Random(seed);
    let mut cells = Vec::new();
    for minute in 0..minutes {
        cells.push(cell(minute, "v1", false, sampled(&mut random, 200, usual, old)));
        cells.push(cell(minute, "v2", true, sampled(&mut random, 40, bad, new)));
    }
    cells
}

#[test]
fn a_canary_like_its_baseline_is_left_alone_however_either_is_sampled() {
    for (schemes, name) in [
        ([TAIL, TAIL], "failures are all kept"),
        ([TAIL, ALL], "only the baseline is sampled"),
        ([ALL, TAIL], "only the canary is sampled"),
        ([HEAD, HEAD], "failures are sampled"),
        ([HEAD, TAIL], "each is sampled in its own way"),
    ] {
        let alarms =
            (0..12).filter(|seed| fired(&regression(), &canary(*seed, 480, [0.02, 0.02], schemes), 480).is_some());
        assert_eq!(alarms.count(), 0, "{name}");
    }
}

#[test]
fn a_worse_canary_is_detected_with_correct_numbers_under_any_sampling() {
    for schemes in [[TAIL, TAIL], [TAIL, ALL], [ALL, TAIL]] {
        let cells = canary(77, 480, [0.02, 0.05], schemes);
        let record = fired(&regression(), &cells, 480).expect("it is detected");
        assert!(record.transition.at < 240, "at {}", record.transition.at);
        let evidence = &record.evidence;
        let (before, now) = (evidence.baseline_value.expect("a rate"), evidence.canary_value.expect("a rate"));
        assert!((0.012..0.03).contains(&before) && (0.03..0.08).contains(&now), "{before} {now}");
        let effect = evidence.effect.expect("an effect");
        assert!((1.5..4.5).contains(&effect), "{effect}");
        let (events, runs) = evidence.canary_counts.expect("counts");
        assert!((events as f64 / runs as f64 - now).abs() < 0.002, "{events} of {runs}");
        assert!(evidence.seen_runs.is_some_and(|(_, seen)| seen < runs) || schemes[1].good == 1);
        assert!(evidence.notes.iter().any(|note| note.contains("runs are sampled")), "{:?}", evidence.notes);
    }
}

/// Days of a series with sixty runs a minute, in five-minute windows.
fn past(seed: u64, days: i64, rate: impl Fn(i64) -> f64, kept: impl Fn(i64) -> Kept) -> Vec<Cell> {
    let mut random = Random(seed);
    let windows = (0..days * 1440).step_by(5);
    windows
        .map(|minute| cell(minute, "", false, sampled(&mut random, 300, rate(minute / 1440), kept(minute / 1440))))
        .collect()
}

#[test]
fn a_constant_rate_does_not_drift_when_its_sampling_changes() {
    let drift = Detector::Drift(Arc::new(Drift::default()));
    for (before, after) in [(TAIL, TAIL), (ALL, TAIL), (TAIL, ALL), (ALL, HEAD)] {
        let cells = past(5, 12, |_| 0.02, |day| if day < 8 { before } else { after });
        assert!(fired(&drift, &cells, 12 * 1440).is_none(), "from one in {} to one in {}", before.good, after.good);
    }
    let cells = past(6, 10, |day| if day < 8 { 0.02 } else { 0.06 }, |_| TAIL);
    let record = fired(&drift, &cells, 10 * 1440).expect("it is detected");
    assert!((8 * 1440..8 * 1440 + 360).contains(&record.transition.at), "at {}", record.transition.at);
    let (usual, now) = (record.evidence.baseline_value.expect("usual"), record.evidence.canary_value.expect("a rate"));
    assert!((0.015..0.035).contains(&usual) && (0.04..0.09).contains(&now), "{usual} {now}");
}

#[test]
fn a_budget_burns_by_the_weighted_rate() {
    let burn = Detector::BurnRate(Arc::new(BurnRate {
        objective: 0.95,
        windows: WORKBOOK[..2]
            .iter()
            .map(|windows| bellwether_stats::burn_rate::BurnWindows { factor: windows.factor.min(5.0), ..*windows })
            .collect(),
    }));
    let of = |rate: f64, kept: Kept| past(9, 2, |_| rate, |_| kept);
    // Half of the observed runs have failed.
    assert!(fired(&burn, &of(0.02, TAIL), 2 * 1440).is_none());
    let record = fired(&burn, &of(0.35, TAIL), 2 * 1440).expect("it is detected");
    let rate = record.evidence.canary_value.expect("a rate");
    assert!((0.3..0.4).contains(&rate), "{rate}");
}

fn bins(values: impl Iterator<Item = u64>) -> Measure {
    let mut bins = vec![0; BINS];
    values.for_each(|value| bins[bin_of(value)] += 1);
    Measure::from_histogram(bins)
}

/// Latencies: failures take ten times as long and are kept more often.
fn latencies(random: &mut Random, runs: i64, factor: f64, kept: Kept) -> Measure {
    let mut lists: [Vec<u64>; 2] = Default::default();
    for _ in 0..runs {
        let bad = random.uniform() < 0.05;
        let scale = if bad { 1e6 } else { 1e5 };
        let value = scale * factor * (0.4 * (random.uniform() + random.uniform() + random.uniform() - 1.5)).exp();
        let one_in = if bad { kept.bad } else { kept.good };
        if random.uniform() < 1.0 / one_in as f64 {
            lists[usize::from(bad)].push(value as u64);
        }
    }
    let [good, bad] = lists;
    let mut measure = bins(good.into_iter()).with_weight(kept.good * ONE);
    measure.add(&bins(bad.into_iter()).with_weight(kept.bad * ONE));
    measure
}

#[test]
fn a_release_of_which_slow_failures_are_kept_more_often_is_not_slower() {
    let histogram = Detector::Histogram(Arc::new(Histogram::default()));
    let cells = |seed: u64, factor: f64, kept: [Kept; 2]| -> Vec<Cell> {
        let mut random = Random(seed);
        let mut cells = Vec::new();
        for minute in 0..300 {
            cells.push(cell(minute, "v1", false, latencies(&mut random, 60, 1.0, kept[0])));
            cells.push(cell(minute, "v2", true, latencies(&mut random, 60, factor, kept[1])));
        }
        cells
    };
    let few = Kept { bad: 1, good: 5 };
    for kept in [[ALL, few], [few, ALL], [few, few]] {
        let alarms = (0..8).filter(|seed| fired(&histogram, &cells(*seed, 1.0, kept), 300).is_some());
        assert_eq!(alarms.count(), 0, "one in {} and one in {}", kept[0].good, kept[1].good);
    }
    let record = fired(&histogram, &cells(3, 1.6, [ALL, few]), 300).expect("it is detected");
    let effect = record.evidence.effect.expect("an effect");
    assert!((1.2..2.1).contains(&effect), "{effect}");
}

/// Costs of runs: one in ten is expensive; cheap ones are kept less often.
fn costs(random: &mut Random, runs: i64, factor: f64, one_in: i64) -> Measure {
    let mut sum = Measure::default();
    for _ in 0..runs {
        let dear = random.uniform() < 0.1;
        let weight = if dear { 1 } else { one_in };
        if random.uniform() >= 1.0 / weight as f64 {
            continue;
        }
        let cost = (if dear { 9e8 } else { 1e8 } * factor * (0.5 + random.uniform())) as i128;
        let success = i128::from(random.uniform() < 0.9);
        let ratio = RatioTotals { y: cost, x: success, yy: cost * cost, xx: success, xy: cost * success };
        let run = Measure { runs: 1, ratio: Some(Box::new(ratio)), ..Measure::default() };
        sum.add(&run.with_weight(weight * ONE));
    }
    sum
}

#[test]
fn sampling_of_cheap_runs_does_not_make_a_release_more_expensive() {
    let ratio = Detector::Ratio(Arc::new(Ratio { scale: 1e-9, ..Ratio::default() }));
    let cells = |seed: u64, factor: f64| -> Vec<Cell> {
        let mut random = Random(seed);
        let mut cells = Vec::new();
        for minute in 0..300 {
            cells.push(cell(minute, "v1", false, costs(&mut random, 40, 1.0, 1)));
            cells.push(cell(minute, "v2", true, costs(&mut random, 40, factor, 10)));
        }
        cells
    };
    assert_eq!((0..12).filter(|seed| fired(&ratio, &cells(*seed, 1.0), 300).is_some()).count(), 0);
    let record = fired(&ratio, &cells(50, 1.5), 300).expect("it is detected");
    let (before, now) =
        (record.evidence.baseline_value.expect("a cost"), record.evidence.canary_value.expect("a cost"));
    assert!((0.17..0.23).contains(&before) && (0.25..0.36).contains(&now), "{before} {now}");
}

#[test]
fn a_split_is_of_the_runs_and_not_of_those_that_were_kept() {
    let split = Detector::Split(Arc::new(Split { share: Some(0.2) }));
    let cells = |share: f64| -> Vec<Cell> {
        let mut random = Random(4);
        let mut cells = Vec::new();
        for minute in 0..200 {
            let newer = random.binomial(100, share);
            let kept = random.binomial(newer, 0.25);
            cells.push(cell(minute, "v1", false, Measure::from_counts(0, 100 - newer)));
            cells.push(cell(minute, "v2", true, Measure::from_counts(0, kept).with_weight(4 * ONE)));
        }
        cells
    };
    assert!(fired(&split, &cells(0.2), 200).is_none());
    let record = fired(&split, &cells(0.3), 200).expect("it is detected");
    let share = record.evidence.canary_value.expect("a share");
    assert!((0.25..0.35).contains(&share), "{share}");
}

#[test]
fn equal_weights_change_no_digit() {
    let mut random = Random(21);
    let rates = canary(3, 400, [0.05, 0.15], [ALL, ALL]);
    let mut slower = Vec::new();
    let mut dearer = Vec::new();
    for minute in 0..200 {
        for (release, canary, factor) in [("v1", false, 1.0), ("v2", true, 1.6)] {
            slower.push(cell(minute, release, canary, latencies(&mut random, 20, factor, ALL)));
            dearer.push(cell(minute, release, canary, costs(&mut random, 20, factor, 1)));
        }
    }
    let days = past(8, 10, |day| if day < 8 { 0.02 } else { 0.08 }, |_| ALL);
    let one = |measure: &Measure| Measure { weights: None, ..measure.clone() };
    for (detector, cells, to) in [
        (regression(), &rates, 400),
        (Detector::Split(Arc::new(Split { share: Some(0.3) })), &rates, 400),
        (Detector::Histogram(Arc::default()), &slower, 200),
        (Detector::Distance(Arc::new(Distance { least: 0.0, least_runs: 10 })), &slower, 200),
        (Detector::Ratio(Arc::default()), &dearer, 200),
        (Detector::Drift(Arc::default()), &days, 10 * 1440),
        (Detector::BurnRate(Arc::new(BurnRate { objective: 0.999, windows: WORKBOOK.to_vec() })), &days, 10 * 1440),
    ] {
        let with_weight = |weight: i64| -> Vec<Cell> {
            cells.iter().map(|cell| Cell { measure: one(&cell.measure).with_weight(weight), ..cell.clone() }).collect()
        };
        let plain = transitions(&detector, &with_weight(ONE), to);
        for weight in [3 * ONE, 3_333_333, 100 * ONE] {
            let other = transitions(&detector, &with_weight(weight), to);
            assert_eq!(plain.len(), other.len(), "{}", detector.name());
            for (a, b) in plain.iter().zip(&other) {
                assert_eq!(a.transition, b.transition, "{}", detector.name());
                assert_eq!(a.verdict, b.verdict, "{}", detector.name());
                assert_eq!((a.evidence.log_e, a.evidence.interval), (b.evidence.log_e, b.evidence.interval));
            }
        }
    }
}
