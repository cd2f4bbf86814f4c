//! Tests the gate on simulated canaries: it decides rightly, as seldom wrongly as it says, and its forecasts are about right.

use std::sync::Arc;

use bellwether_detect::detector::{Ratio, Regression};
use bellwether_detect::{
    Comparison, Decision, Finding, Gate, GateVerdict, Guardrail, Measure, Minute, RatioTotals, Slice, StratumRow,
    Window,
};

use crate::random::Random;

const BEGIN: Minute = 29_459_520;

/// Odds ratio of failures up to which a release is acceptable.
const MARGIN: f64 = 1.5;

/// The rate whose odds are [`MARGIN`] times those of a rate of 10 %.
const AT_MARGIN: f64 = 1.0 / 7.0;

fn window(minute: Minute, baseline: Measure, canary: Measure) -> Window {
    let rows = vec![StratumRow { stratum: Arc::from(""), baseline, canary }];
    Window { start: BEGIN + minute, historical: false, wander: None, rows }
}

/// Windows of a baseline that fails at one rate, and of a canary with as many runs that fails at another.
fn failures(seed: u64, minutes: i64, runs: i64, [usual, new]: [f64; 2]) -> Vec<Window> {
    let mut random = Random(seed);
    let mut arm = |rate| Measure::from_counts(random.binomial(runs, rate), runs);
    (0..minutes).map(|minute| window(minute, arm(usual), arm(new))).collect()
}

/// Windows of costs that vary by half around a mean of one million, times a factor for the canary.
fn costs(seed: u64, minutes: i64, runs: i64, factor: f64) -> Vec<Window> {
    let mut random = Random(seed);
    let mut arm = |factor: f64| {
        let mut totals = RatioTotals { x: i128::from(runs), xx: i128::from(runs), ..RatioTotals::default() };
        for _ in 0..runs {
            let cost = (1e6 * factor * (0.5 + random.uniform())) as i128;
            totals.y += cost;
            totals.yy += cost * cost;
            totals.xy += cost;
        }
        Measure { ratio: Some(Box::new(totals)), ..Measure::from_counts(0, runs) }
    };
    (0..minutes).map(|minute| window(minute, arm(1.0), arm(factor))).collect()
}

fn success() -> Guardrail {
    Guardrail {
        name: "success".to_owned(),
        comparison: Comparison::Rate(Regression { margin: MARGIN, ..Regression::default() }),
        must_show: true,
        least_runs: 100,
        least_coverage: 0.8,
    }
}

fn cost() -> Guardrail {
    Guardrail {
        name: "cost".to_owned(),
        comparison: Comparison::Ratio(Ratio { margin: 1.2, scale: 1.0 }),
        must_show: true,
        least_runs: 50,
        least_coverage: 0.5,
    }
}

fn gate(guardrails: Vec<Guardrail>) -> Gate {
    let gate = Gate { guardrails, roll_back_alpha: 0.05, promote_alpha: 0.05 };
    gate.validate().expect("the guardrails are right");
    gate
}

fn all(windows: &[Window]) -> Slice<'_> {
    Slice { name: "", windows, coverage: Some(1.0) }
}

/// Asks every `every` windows. Returns the first decision that is not to hold.
fn polled(gate: &Gate, windows: &[Window], every: usize) -> Decision {
    let asked = (every..=windows.len()).step_by(every);
    let mut decisions = asked.map(|count| gate.judge(&[vec![all(&windows[..count])]]).decision);
    decisions.find(|decision| *decision != Decision::Hold).unwrap_or(Decision::Hold)
}

fn finding(verdict: &GateVerdict, place: usize) -> Finding {
    verdict.reasons[place].finding
}

#[test]
fn a_worse_canary_is_rolled_back_and_its_twin_is_promoted() {
    let gate = gate(vec![success(), cost()]);
    let [bad, twin] = [0.3, 0.1].map(|rate| failures(1, 400, 20, [0.1, rate]));
    let (even, dear) = (costs(2, 400, 20, 1.0), costs(3, 400, 20, 1.5));
    let judge = |success: &[Window], cost: &[Window]| gate.judge(&[vec![all(success)], vec![all(cost)]]);
    let verdict = judge(&twin, &even);
    assert_eq!(verdict.decision, Decision::Promote, "{verdict:?}");
    assert_eq!((finding(&verdict, 0), finding(&verdict, 1)), (Finding::Within, Finding::Within));
    let verdict = judge(&bad[..40], &even);
    assert_eq!((verdict.decision, finding(&verdict, 0)), (Decision::RollBack, Finding::Worse));
    let (events, runs) = verdict.reasons[0].evidence.canary_counts.expect("a rate has counts");
    assert!(runs == 800 && (180..300).contains(&events), "{events} of {runs}");
    let verdict = judge(&twin, &dear);
    assert_eq!((verdict.decision, finding(&verdict, 1)), (Decision::RollBack, Finding::Worse));
    assert!(verdict.reasons[1].evidence.effect.is_some_and(|effect| (effect - 1.5).abs() < 0.05));
}

#[test]
fn missing_and_thin_data_holds() {
    let gate = gate(vec![success()]);
    let twin = failures(1, 400, 20, [0.1, 0.1]);
    let judge = |slices: Vec<Slice<'_>>| gate.judge(&[slices]);
    assert_eq!(judge(vec![all(&twin)]).decision, Decision::Promote);
    assert_eq!(judge(Vec::new()).decision, Decision::Hold, "no slice");
    assert_eq!(gate.judge(&[]).decision, Decision::Hold, "no metric");
    let verdict = judge(vec![all(&[])]);
    assert_eq!((verdict.decision, finding(&verdict, 0)), (Decision::Hold, Finding::Thin { missing_runs: 100 }));
    let verdict = judge(vec![all(&twin[..3])]);
    assert_eq!((verdict.decision, finding(&verdict, 0)), (Decision::Hold, Finding::Thin { missing_runs: 40 }));
    for coverage in [None, Some(0.79), Some(f64::NAN)] {
        let verdict = judge(vec![Slice { coverage, ..all(&twin) }]);
        assert_eq!(verdict.decision, Decision::Hold);
        assert!(matches!(finding(&verdict, 0), Finding::Uncovered { .. }), "{coverage:?}");
    }
    let one_sided: Vec<Window> =
        twin.iter().map(|it| window(it.start - BEGIN, Measure::default(), it.rows[0].canary.clone())).collect();
    assert_eq!(finding(&judge(vec![all(&one_sided)]), 0), Finding::Thin { missing_runs: 100 });
}

#[test]
fn a_loss_in_one_slice_rolls_back_although_the_mean_is_better() {
    let gate = gate(vec![success()]);
    let (better, lost) = (failures(1, 300, 40, [0.2, 0.1]), failures(2, 300, 5, [0.1, 0.4]));
    let both: Vec<Window> = better
        .iter()
        .zip(&lost)
        .map(|(a, b)| {
            let sum = |mut a: Measure, b: &Measure| {
                a.add(b);
                a
            };
            let (a, b) = (&a.rows[0], &b.rows[0]);
            window(0, sum(a.baseline.clone(), &b.baseline), sum(a.canary.clone(), &b.canary))
        })
        .enumerate()
        .map(|(minute, window)| Window { start: BEGIN + minute as i64, ..window })
        .collect();
    assert_eq!(gate.judge(&[vec![all(&both)]]).decision, Decision::Promote, "the mean");
    let slices = vec![all(&both), Slice { name: "tenant-7", ..all(&lost) }];
    let verdict = gate.judge(&[slices]);
    assert_eq!(verdict.decision, Decision::RollBack);
    assert_eq!((finding(&verdict, 0), finding(&verdict, 1)), (Finding::Within, Finding::Worse));
}

#[test]
fn a_metric_that_need_not_be_shown_promotes_unless_it_is_worse() {
    let lenient = gate(vec![Guardrail { must_show: false, ..success() }]);
    let few = failures(1, 10, 20, [0.1, 0.1]);
    assert!(matches!(finding(&gate(vec![success()]).judge(&[vec![all(&few)]]), 0), Finding::Undecided { .. }));
    assert_eq!(lenient.judge(&[vec![all(&few)]]).decision, Decision::Promote);
    let bad = failures(1, 100, 20, [0.1, 0.3]);
    assert_eq!(lenient.judge(&[vec![all(&bad)]]).decision, Decision::RollBack);
}

/// Asking again and again must not raise the probability of an error above its bound, at the worst rates of each error.
#[test]
fn errors_are_as_rare_as_stated_however_often_it_is_asked() {
    let (seeds, gate) = (300, gate(vec![success()]));
    let count = |rate: f64, error: Decision| {
        let decided = |seed: u64| polled(&gate, &failures(seed, 150, 20, [0.1, rate]), 5);
        (0..seeds).filter(|seed| decided(1000 + seed) == error).count()
    };
    let (rolled_back, promoted) = (count(AT_MARGIN, Decision::RollBack), count(AT_MARGIN, Decision::Promote));
    // Three standard deviations above 5 % of 300.
    assert!(rolled_back <= 26 && promoted <= 26, "{rolled_back} rolled back, {promoted} promoted of {seeds}");
    let (wrong, right) = (count(0.1, Decision::RollBack), count(0.1, Decision::Promote));
    assert!(wrong <= 3 && right > 270, "of equal releases, {wrong} rolled back and {right} promoted of {seeds}");
    let (right, wrong) = (count(0.25, Decision::RollBack), count(0.25, Decision::Promote));
    assert!(wrong == 0 && right > 290, "of bad releases, {wrong} promoted and {right} rolled back of {seeds}");
}

#[test]
fn the_forecast_of_runs_is_about_right() {
    for (guardrail, make) in [
        (success(), (|seed| failures(seed, 400, 20, [0.1, 0.1])) as fn(u64) -> Vec<Window>),
        (cost(), |seed| costs(seed, 60, 5, 1.0)),
        (paired(MARGIN), |seed| pairs(seed, 3000, 1.0)),
    ] {
        let gate = gate(vec![guardrail]);
        let early = match gate.guardrails[0].comparison {
            Comparison::Rate(_) => 10,
            Comparison::Ratio(_) => 12,
            Comparison::Paired { .. } => 200,
        };
        let mut ratios: Vec<f64> = (0..41)
            .filter_map(|seed| {
                let windows = make(seed);
                let runs = windows[0].rows[0].canary.runs as f64;
                let Finding::Undecided { more_runs } = finding(&gate.judge(&[vec![all(&windows[..early])]]), 0) else {
                    return None;
                };
                let promoted =
                    |count: &usize| gate.judge(&[vec![all(&windows[..*count])]]).decision == Decision::Promote;
                let took = ((early + 1..=windows.len()).find(promoted)? - early) as f64 * runs;
                Some(more_runs.expect("there are runs") as f64 / took)
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        assert!(ratios.len() > 20 && (0.5..2.0).contains(&median), "{}: {ratios:?}", gate.guardrails[0].name);
    }
}

/// Pairs of runs of the same cases. Cases differ in difficulty: the runs of a pair are alike. `worse` is the odds ratio.
fn pairs(seed: u64, cases: i64, worse: f64) -> Vec<Window> {
    let mut random = Random(seed);
    (0..cases)
        .map(|case| {
            let difficulty = [0.02, 0.1, 0.5, 0.9][usize::try_from(random.binomial(3, 0.3)).expect("few")];
            let odds = worse * difficulty / (1.0 - difficulty);
            let mut run = |rate| Measure::from_counts(random.binomial(1, rate), 1);
            window(case, run(difficulty), run(odds / (1.0 + odds)))
        })
        .collect()
}

fn paired(margin: f64) -> Guardrail {
    Guardrail { comparison: Comparison::Paired { margin }, ..success() }
}

#[test]
fn pairs_are_judged_by_those_that_differ() {
    let windows = pairs(5, 1000, 5.0);
    let differing = |bad: [i64; 2]| {
        windows.iter().filter(|it| [it.rows[0].baseline.events, it.rows[0].canary.events] == bad).count() as f64
    };
    let (only_baseline, only_canary) = (differing([1, 0]), differing([0, 1]));
    // The formula of the pairs that differ, with the alternatives of the 2x2 test: ψ times the margin.
    let share = |odds: f64| odds / (1.0 + odds);
    let of_alternative = |ratio: f64| {
        let (odds, null) = (share(ratio * MARGIN), share(MARGIN));
        only_canary * (odds / null).ln() + only_baseline * ((1.0 - odds) / (1.0 - null)).ln()
    };
    let evidence: Vec<f64> = bellwether_stats::e2x2::ODDS_RATIOS.iter().map(|ratio| of_alternative(*ratio)).collect();
    let expected = bellwether_stats::special::log_mean_exp(&evidence);
    let verdict = gate(vec![paired(MARGIN)]).judge(&[vec![all(&windows)]]);
    let found = verdict.reasons[0].evidence.log_e.expect("it has evidence");
    assert!((found - expected).abs() < 1e-3, "{found} and {expected} of {only_baseline} and {only_canary}");
    assert_eq!(verdict.decision, Decision::RollBack);
}

#[test]
fn pairs_are_as_seldom_judged_wrongly_as_stated() {
    let (seeds, gate) = (100, gate(vec![paired(MARGIN)]));
    let count = |worse: f64, decision: Decision| {
        (0..seeds).filter(|seed| polled(&gate, &pairs(4000 + seed, 2000, worse), 200) == decision).count()
    };
    let (rolled_back, promoted) = (count(MARGIN, Decision::RollBack), count(MARGIN, Decision::Promote));
    // Three standard deviations above 5 % of 100.
    assert!(rolled_back <= 11 && promoted <= 11, "{rolled_back} rolled back, {promoted} promoted of {seeds}");
    let (twins, bad) = (count(1.0, Decision::Promote), count(4.0, Decision::RollBack));
    assert!(twins > 60 && bad > 95, "{twins} twins promoted and {bad} bad releases rolled back of {seeds}");
}

#[test]
fn a_gate_that_could_not_decide_is_refused() {
    let refused = |gate: Gate, why: &str| {
        let error = gate.validate().expect_err(why);
        assert!(error.contains(why), "{error}");
    };
    let whole = gate(vec![success()]);
    refused(Gate { guardrails: Vec::new(), ..whole.clone() }, "needs a metric");
    refused(Gate { roll_back_alpha: 0.0, ..whole.clone() }, "roll_back_alpha");
    refused(Gate { promote_alpha: 0.9, ..whole.clone() }, "promote_alpha");
    let with = |guardrail| Gate { guardrails: vec![guardrail], ..whole.clone() };
    refused(with(Guardrail { least_coverage: 1.1, ..success() }), "least coverage");
    let even = Comparison::Rate(Regression { margin: 1.0, ..Regression::default() });
    refused(with(Guardrail { comparison: even.clone(), ..success() }), "a margin above 1");
    assert_eq!(with(Guardrail { comparison: even, must_show: false, ..success() }).validate(), Ok(()));
    let negative = Comparison::Ratio(Ratio { margin: f64::NAN, scale: 1.0 });
    refused(with(Guardrail { comparison: negative, must_show: false, ..cost() }), "cost");
}
