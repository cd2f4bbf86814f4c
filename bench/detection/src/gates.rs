//! The gate on canaries that are worse by some points, beside three common ways to decide.
//!
//! The peers decide on the same runs: a z-test of two proportions at a fixed time, a rule that allows ten points, and the judge of
//! Kayenta. Kayenta compares the failure rates of the minutes by a Mann–Whitney test and calls a metric high if the confidence
//! interval of the shift lies above a quarter of its Hodges–Lehmann estimate (spinnaker/kayenta, `MannWhitneyClassifier`, tolerance
//! 0.25, confidence 98 %; the interval is that of R's `wilcox.test`: normal approximation with ties and continuity correction).

use bellwether_detect::detector::Regression;
use bellwether_detect::{Comparison, Decision, Gate, Guardrail, Measure, Slice, StratumRow, Window};
use bellwether_stats::interval::normal_quantile;
use std::sync::Arc;

use crate::chance::Key;
use crate::tally::{Figure, median, over_seeds, quantile, share};

/// Start marker of the generated part of the page.
pub const BEGIN: &str = "<!-- measured: begin; written by `bellwether-detection gates` -->";
/// End marker of the generated part.
pub const END: &str = "<!-- measured: end -->";

/// Failure rate of the baseline.
const USUAL: f64 = 0.08;

/// Odds ratio up to which the gate accepts a canary, as in the shipped policy.
const MARGIN: f64 = 1.5;

/// A tighter one.
const TIGHT: f64 = 1.2;

/// Runs a minute of each release, on average.
const RUNS: f64 = 25.0;

/// Minutes after which the peers have decided.
const HORIZON: usize = 6 * 60;

/// Minutes after which the gate is not asked any more.
const LONGEST: usize = 24 * 60;

/// Minutes of the first window.
const START: i64 = 29_459_520;

/// Events and runs of baseline and canary in one minute.
type Minute = [(u64, u64); 2];

/// The decision of one trial, and the runs of the canary until then.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decided {
    decision: Decision,
    runs: f64,
}

/// One row: a method on canaries that are worse by some points.
#[derive(Clone, Debug, PartialEq)]
pub struct GateRow {
    /// Percentage points by which the failure rate of the canary is higher.
    pub points: f64,
    pub method: &'static str,
    pub promoted: Figure,
    pub rolled_back: Figure,
    /// Median runs of the canary until the decision.
    pub runs: Figure,
    /// 90th percentile of the same.
    pub runs_p90: Option<f64>,
}

/// Returns the failure rate at the margin.
fn at_margin() -> f64 {
    let odds = MARGIN * USUAL / (1.0 - USUAL);
    odds / (1.0 + odds)
}

fn minutes(seed: u64, rate: f64, count: usize) -> Vec<Minute> {
    let key = Key::new(seed);
    let arm = |minute: u64, place: u64, rate: f64| {
        let key = key.at(minute).at(place);
        let runs = key.at(1).poisson(RUNS);
        (key.at(2).binomial(runs, rate), runs)
    };
    (0..count as u64).map(|minute| [arm(minute, 1, USUAL), arm(minute, 2, rate)]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "runs of a day")]
fn decided(decision: Decision, minutes: &[Minute]) -> Decided {
    Decided { decision, runs: minutes.iter().map(|minute| minute[1].1).sum::<u64>() as f64 }
}

/// Asks the gate every quarter of an hour for two hours, then every hour.
fn by_gate(minutes: &[Minute], margin: f64) -> Decided {
    let gate = Gate {
        guardrails: vec![Guardrail {
            name: "success".to_owned(),
            comparison: Comparison::Rate(Regression { margin, ..Regression::default() }),
            must_show: true,
            least_runs: 100,
            least_coverage: 0.5,
        }],
        roll_back_alpha: 0.05,
        promote_alpha: 0.05,
    };
    let windows: Vec<Window> = (START..)
        .zip(minutes)
        .map(|(start, [baseline, canary])| {
            let measure = |(events, runs): &(u64, u64)| {
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                Measure::from_counts(count(*events), count(*runs))
            };
            let row = StratumRow { stratum: Arc::from(""), baseline: measure(baseline), canary: measure(canary) };
            Window { start, historical: false, wander: None, rows: vec![row] }
        })
        .collect();
    let asked = (15..=120).step_by(15).chain((180..=minutes.len()).step_by(60)).filter(|to| *to <= minutes.len());
    for to in asked {
        let slice = Slice { name: "", windows: &windows[..to], coverage: Some(1.0) };
        let verdict = gate.judge(&[vec![slice]]);
        if verdict.decision != Decision::Hold {
            return decided(verdict.decision, &minutes[..to]);
        }
    }
    decided(Decision::Hold, minutes)
}

#[expect(clippy::cast_precision_loss, reason = "runs of a day")]
fn rates(minutes: &[Minute]) -> [(f64, f64); 2] {
    [0, 1].map(|arm| {
        let sum = |of: fn(&(u64, u64)) -> u64| minutes.iter().map(|minute| of(&minute[arm])).sum::<u64>() as f64;
        (sum(|counts| counts.0), sum(|counts| counts.1))
    })
}

/// A one-sided z-test at 5 %, once, at the horizon.
fn by_z_test(minutes: &[Minute]) -> Decided {
    let [(s_a, n_a), (s_b, n_b)] = rates(minutes);
    let pooled = (s_a + s_b) / (n_a + n_b);
    let error = (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b)).sqrt();
    let worse = (s_b / n_b - s_a / n_a) / error > normal_quantile(0.95);
    decided(if worse { Decision::RollBack } else { Decision::Promote }, minutes)
}

/// Rolls back if the failure rate of the last quarter of an hour is ten points higher; promotes at the horizon.
fn by_rule(minutes: &[Minute]) -> Decided {
    for to in (15..=minutes.len()).step_by(15) {
        let [(s_a, n_a), (s_b, n_b)] = rates(&minutes[to - 15..to]);
        if s_b / n_b - s_a / n_a > 0.10 {
            return decided(Decision::RollBack, &minutes[..to]);
        }
    }
    decided(Decision::Promote, minutes)
}

/// Asks Kayenta's judge every hour; rolls back at the first metric that is high, promotes at the horizon.
fn by_kayenta(minutes: &[Minute]) -> Decided {
    for to in (60..=minutes.len()).step_by(60) {
        #[expect(clippy::cast_precision_loss, reason = "runs of a minute")]
        let series = |arm: usize| -> Vec<f64> {
            let known = minutes[..to].iter().map(|minute| minute[arm]).filter(|(_, runs)| *runs > 0);
            known.map(|(events, runs)| events as f64 / runs as f64).collect()
        };
        if is_high(&series(0), &series(1)) {
            return decided(Decision::RollBack, &minutes[..to]);
        }
    }
    decided(Decision::Promote, minutes)
}

/// Kayenta's classifier for metrics whose increase is bad.
fn is_high(control: &[f64], experiment: &[f64]) -> bool {
    const TOLERANCE: f64 = 0.25;
    const CONFIDENCE: f64 = 0.98;
    let quantile = normal_quantile((1.0 + CONFIDENCE) / 2.0);
    let (Some(low), Some(estimate)) = (shift(control, experiment, quantile), shift(control, experiment, 0.0)) else {
        return false;
    };
    low > TOLERANCE * estimate.abs()
}

/// Returns the shift of the experiment at which the standardised rank sum equals a quantile; none if all values are tied.
#[expect(clippy::cast_precision_loss, reason = "a few hundred minutes")]
fn shift(control: &[f64], experiment: &[f64], quantile: f64) -> Option<f64> {
    let ends = |values: &[f64]| {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (low, high) = (low.min(*value), high.max(*value));
        }
        (low, high)
    };
    let ((control_low, control_high), (low, high)) = (ends(control), ends(experiment));
    let (n, m) = (experiment.len() as f64, control.len() as f64);
    let statistic = |shift: f64| {
        let own = experiment.iter().map(|value| (value - shift, true));
        let mut all: Vec<(f64, bool)> = own.chain(control.iter().map(|value| (*value, false))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut ranks, mut ties, mut place) = (0.0, 0.0, 0.0);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let count = tied.len() as f64;
            ranks += tied.iter().filter(|(_, own)| *own).count() as f64 * (place + (count + 1.0) / 2.0);
            ties += count.powi(3) - count;
            place += count;
        }
        let centred = ranks - n * (n + 1.0) / 2.0 - n * m / 2.0;
        let correction = if centred == 0.0 { 0.0 } else { 0.5 * centred.signum() };
        let variance = n * m / 12.0 * (n + m + 1.0 - ties / ((n + m) * (n + m - 1.0)));
        (variance > 0.0).then(|| (centred - correction) / variance.sqrt() - quantile)
    };
    // It falls with the shift.
    let (mut from, mut to) = (low - control_high, high - control_low);
    if statistic(from)? <= 0.0 {
        return Some(from);
    }
    if statistic(to)? >= 0.0 {
        return Some(to);
    }
    while to - from > 1e-4 {
        let middle = f64::midpoint(from, to);
        if statistic(middle)? > 0.0 { from = middle } else { to = middle }
    }
    Some(f64::midpoint(from, to))
}

/// Returns the points by which canaries are worse: none to ten, and as many as the margin allows.
pub fn all_points() -> Vec<f64> {
    vec![0.0, 1.0, 2.0, 5.0, 10.0, 100.0 * (at_margin() - USUAL)]
}

/// Runs all methods on canaries that are worse by some percentage points.
pub fn run(seeds: std::ops::Range<u64>, points: &[f64], mut say: impl FnMut(&str)) -> Vec<GateRow> {
    let mut rows = Vec::new();
    for points in points.iter().copied() {
        let rate = USUAL + points / 100.0;
        say(&format!("gate, {points:.1} points worse"));
        let trials = over_seeds(seeds.clone(), |seed| {
            let minutes = minutes(seed, rate, LONGEST);
            let short = &minutes[..HORIZON];
            [by_gate(&minutes, MARGIN), by_gate(&minutes, TIGHT), by_z_test(short), by_rule(short), by_kayenta(short)]
        });
        let methods = [
            "Bellwether gate, margin 1.5",
            "Bellwether gate, margin 1.2",
            "z-test after 6 h",
            "10-point rule",
            "Kayenta's judge, hourly",
        ];
        for (place, method) in methods.into_iter().enumerate() {
            let all: Vec<Decided> = trials.iter().map(|trial| trial[place]).collect();
            let count = |decision: Decision| all.iter().filter(|one| one.decision == decision).count();
            let runs: Vec<Option<f64>> =
                all.iter().map(|one| (one.decision != Decision::Hold).then_some(one.runs)).collect();
            rows.push(GateRow {
                points,
                method,
                promoted: share(count(Decision::Promote), all.len()),
                rolled_back: share(count(Decision::RollBack), all.len()),
                runs: median(&runs),
                runs_p90: quantile(&runs, 0.9),
            });
        }
    }
    rows
}

/// Formats the rows as the generated part of the page.
pub fn part(rows: &[GateRow], measured: &str) -> String {
    let mut text = format!(
        "{measured} The baseline fails in {:.0} % of its runs; each release has {RUNS:.0} runs a minute. The margin of the shipped \
         policy is an odds ratio of {MARGIN}: up to {:.1} points. Ranges in parentheses are 95 % confidence intervals.\n\n\
         | canary is worse by | method | promoted | rolled back | median canary runs to decide | 90 % within |\n\
         | --- | --- | --- | --- | --- | --- |\n",
        100.0 * USUAL,
        100.0 * (at_margin() - USUAL)
    );
    let percent = |figure: &Figure| {
        let number = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{:.1}", 100.0 * value));
        format!("{} % ({}–{})", number(figure.value), number(figure.low), number(figure.high))
    };
    let runs = |runs: Option<f64>| runs.map_or_else(|| "undecided after 24 h".to_owned(), |runs| format!("{runs:.0}"));
    for row in rows {
        text.push_str(&format!(
            "| {:.1} points | {} | {} | {} | {} | {} |\n",
            row.points,
            row.method,
            percent(&row.promoted),
            percent(&row.rolled_back),
            runs(row.runs.value),
            runs(row.runs_p90)
        ));
    }
    text
}

/// Returns the page with its generated part replaced; none if it lacks the markers.
pub fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_near_the_median_of_all_differences() {
        // The Hodges–Lehmann estimate is that median; the corrected statistic changes its sign within a step of it.
        let (control, experiment) = ([1.0, 2.0, 3.0, 4.0, 5.5, 6.5], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        let mut differences: Vec<f64> =
            experiment.iter().flat_map(|one| control.iter().map(move |other| one - other)).collect();
        differences.sort_by(f64::total_cmp);
        let middle = f64::midpoint(differences[17], differences[18]);
        let estimate = shift(&control, &experiment, 0.0).expect("values differ");
        assert!((estimate - middle).abs() <= 0.51, "{estimate} and {middle}");
        let (low, high) = (shift(&control, &experiment, 2.326), shift(&control, &experiment, -2.326));
        assert!(low < Some(estimate) && high > Some(estimate), "{low:?} {high:?}");
        assert_eq!(shift(&[1.0; 5], &[1.0; 5], 0.0), None, "all values are tied");
        assert!(is_high(
            &[1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 1.01],
            &[2.0, 2.1, 1.9, 2.05, 1.95, 2.02, 1.98, 2.01]
        ));
        assert!(!is_high(&experiment, &control), "a decrease is not bad");
    }

    #[test]
    fn the_gate_is_as_seldom_wrong_as_it_says_on_few_seeds() {
        let rows = run(0..12, &[0.0, 2.0, 10.0], |_| ());
        let found = |points: f64, method: &str| {
            rows.iter().find(|row| (row.points - points).abs() < 0.05 && row.method == method).expect("it was measured")
        };
        let value = |figure: &Figure| figure.value.expect("there are seeds");
        assert!(value(&found(0.0, "Bellwether gate, margin 1.5").rolled_back) <= 0.15);
        assert!(value(&found(10.0, "Bellwether gate, margin 1.5").promoted) <= 0.15);
        assert!(value(&found(10.0, "Bellwether gate, margin 1.5").rolled_back) >= 0.9);
        assert!(value(&found(0.0, "Bellwether gate, margin 1.5").promoted) >= 0.9);
        assert!(value(&found(2.0, "10-point rule").rolled_back) <= 0.5);
        let text = part(&rows, "Measured.");
        assert!(text.contains("| 2.0 points | Kayenta's judge, hourly |"), "{text}");
        let page = format!("# Gates\n{BEGIN}\nold\n{END}\nafter\n");
        let page = replaced(&page, &text).expect("it has the markers");
        assert!(page.contains("z-test after 6 h") && page.ends_with("after\n") && !page.contains("old"), "{page}");
    }
}
