//! R0 to R14: a release next to its baseline.

use super::{Plan, Results, describe_traffic};
use crate::picture::Curve;
use crate::tally::{TableRow, over_seeds, share};
use crate::trial::{self, Delay, ReleaseResult, ReleaseWatch, release, release_with};
use crate::world::{Change, DAY, NONE, Outcome, Scope, Traffic, World};

/// Name of the detector in the tables.
pub(crate) const D1: &str = "Bellwether D1, α 1 %";

const Z05: &str = "z-test p < 5 %, each minute";
const Z01: &str = "z-test p < 1 %, each minute";
const FIXED: &str = "5 min of errors > 13 %, three times";

/// A scenario of D1.
struct Case {
    name: &'static str,
    change: Change,
    outcome: Outcome,
    traffic: Traffic,
    days: i64,
    /// Minutes from the start to the change.
    onset: i64,
}

fn main_traffic() -> Traffic {
    Traffic::new(50.0).canary(0.1)
}

fn half() -> Traffic {
    Traffic::new(50.0).canary(0.5)
}

fn watch(seed: u64, case: &Case) -> ReleaseWatch {
    ReleaseWatch {
        outcome: case.outcome,
        alpha: 0.01,
        margin: 1.0,
        sessions: case.traffic.icc > 0.0,
        start: World::release_start(seed),
        minutes: case.days * DAY + case.onset,
        onset: case.onset,
    }
}

fn world(seed: u64, case: &Case) -> World {
    let from = World::release_start(seed) + case.onset;
    World::new(seed, case.traffic).with(Change { from, ..case.change })
}

fn found(seeds: std::ops::Range<u64>, case: &Case) -> Vec<ReleaseResult> {
    over_seeds(seeds, |seed| release(&world(seed, case), &watch(seed, case)))
}

fn row(case: &Case, detector: &str, delays: &[Delay]) -> TableRow {
    TableRow::new(case.name, describe_traffic(&case.traffic), detector, delays.len()).delays(delays)
}

fn failure(name: &'static str, failure: f64, traffic: Traffic, days: i64) -> Case {
    let change = Change { scope: Scope::Canary, failure, ..NONE };
    Case { name, change, outcome: Outcome::Failure, traffic, days, onset: 0 }
}

fn rate(name: &'static str, outcome: Outcome, factor: f64) -> Case {
    let mut rates = [1.0; 4];
    rates[outcome as usize - 1] = factor;
    let change = Change { scope: Scope::Canary, rates, ..NONE };
    Case { name, change, outcome, traffic: main_traffic(), days: 1, onset: 0 }
}

/// Runs the scenarios.
pub(super) fn run(plan: &Plan, results: &mut Results) {
    nulls(plan, results);
    regressions(plan, results);
    one_task(plan, results);
    mixes(plan, results);
    if !plan.quick {
        others(plan, results);
        quantities(plan, results);
        splits(plan, results);
        results.curves = curves(plan);
    }
}

fn nulls(plan: &Plan, results: &mut Results) {
    let clustered = Traffic { icc: 0.4, ..Traffic::new(30.0).canary(0.5) };
    for traffic in [
        main_traffic(),
        Traffic::new(30.0).canary(0.5),
        Traffic::new(3.0).canary(0.5),
        Traffic::new(0.3).canary(0.5),
        clustered,
    ] {
        let case = failure("R0 no change", 0.0, traffic, 1);
        let all = found(plan.nulls(), &case);
        let of = |delay: fn(&ReleaseResult) -> Delay| all.iter().map(delay).collect::<Vec<_>>();
        results.releases.push(row(&case, D1, &of(|found| found.alarm)));
        results.releases.push(row(&case, Z05, &of(|found| found.peeked[0])));
        results.releases.push(row(&case, Z01, &of(|found| found.peeked[1])));
        results.releases.push(row(&case, FIXED, &of(|found| found.fixed)));
        if traffic.icc > 0.0 && !plan.quick {
            let untempered =
                |seed| release(&world(seed, &case), &ReleaseWatch { sessions: false, ..watch(seed, &case) }).alarm;
            let delays = over_seeds(plan.nulls(), untempered);
            results.releases.push(row(&case, "D1 assuming independent runs", &delays));
        }
    }
}

fn regressions(plan: &Plan, results: &mut Results) {
    let mut cases = vec![
        failure("R1 -5 pp", 0.05, main_traffic(), 1),
        failure("R1 -10 pp", 0.10, main_traffic(), 1),
        failure("R13 +5 pp", -0.05, main_traffic(), 1),
    ];
    if !plan.quick {
        cases.extend([
            failure("R1 -2 pp", 0.02, main_traffic(), 1),
            failure("R1 -5 pp", 0.05, half(), 1),
            failure("R1 -5 pp", 0.05, Traffic { icc: 0.4, ..Traffic::new(30.0).canary(0.5) }, 1),
            failure("R1 -5 pp", 0.05, Traffic::new(3.0).canary(0.5), 2),
            failure("R1 -10 pp", 0.10, Traffic::new(0.3).canary(0.5), 7),
        ]);
    }
    for case in cases {
        let all = found(plan.seeds(), &case);
        let of = |delay: fn(&ReleaseResult) -> Delay| all.iter().map(delay).collect::<Vec<_>>();
        let resolved = all.iter().filter(|found| found.resolved).count();
        let resolved = ("resolved while still worse".to_owned(), share(resolved, all.len()));
        let other = (case.change.failure > 0.0).then_some(resolved);
        results.releases.push(TableRow { other, ..row(&case, D1, &of(|found| found.alarm)) });
        results.releases.push(row(&case, Z01, &of(|found| found.peeked[1])));
        results.releases.push(row(&case, FIXED, &of(|found| found.fixed)));
        if !plan.quick && case.name == "R1 -5 pp" && case.traffic.icc == 0.0 {
            // As in the rules if runs state their sessions: the correlation must be learned.
            let known =
                |seed| release(&world(seed, &case), &ReleaseWatch { sessions: true, ..watch(seed, &case) }).alarm;
            results.releases.push(row(&case, "Bellwether D1, sessions known", &over_seeds(plan.seeds(), known)));
        }
    }
}

fn others(plan: &Plan, results: &mut Results) {
    let day = Traffic::new(500.0 / 1440.0).canary(0.1);
    for case in [
        rate("R2 schema 99.5 -> 98.5 %", Outcome::Schema, 3.0),
        rate("R2 schema 99.5 -> 97 %", Outcome::Schema, 6.0),
        rate("R3 escalation 5 -> 7 %", Outcome::Escalation, 1.4),
        rate("R3 escalation 5 -> 10 %", Outcome::Escalation, 2.0),
        rate("R4 tool failures 2 -> 4 %", Outcome::Tool, 2.0),
        rate("R4 tool failures 2 -> 8 %", Outcome::Tool, 4.0),
        failure("R14 50 canary runs a day, -10 pp", 0.10, day, 21),
        failure("R14 50 canary runs a day, -20 pp", 0.20, day, 21),
    ] {
        let delays: Vec<Delay> = found(plan.seeds(), &case).iter().map(|found| found.alarm).collect();
        results.releases.push(row(&case, D1, &delays));
    }
    let late = Case { onset: DAY, ..failure("R11 -5 pp, a day after the release", 0.05, main_traffic(), 1) };
    let all = found(plan.seeds(), &late);
    results.releases.push(row(&late, D1, &all.iter().map(|found| found.alarm).collect::<Vec<_>>()));
    results.releases.push(row(
        &late,
        "Bellwether D1 as e-SR",
        &all.iter().map(|found| found.since).collect::<Vec<_>>(),
    ));
}

/// The task that breaks: the fifth, 5.6 % of the traffic.
const BROKEN: usize = 4;

fn one_task(plan: &Plan, results: &mut Results) {
    for traffic in [half(), main_traffic()] {
        let change = Change { scope: Scope::CanaryTask(BROKEN), failure: 0.30, ..NONE };
        let case = Case { name: "R8 one task +30 pp", change, outcome: Outcome::Failure, traffic, days: 1, onset: 0 };
        let all = found(plan.seeds(), &case);
        let hits = all
            .iter()
            .filter(|found| found.guilty.first().is_some_and(|task| *task == format!("task-{:02}", BROKEN + 1)))
            .count();
        let delays: Vec<Delay> = all.iter().map(|found| found.alarm).collect();
        let named = ("named first".to_owned(), share(hits, all.len()));
        results.releases.push(TableRow { other: Some(named), ..row(&case, D1, &delays) });
        let z: Vec<Delay> = all.iter().map(|found| found.peeked[1]).collect();
        results.releases.push(row(&case, Z01, &z));
    }
}

fn mixes(plan: &Plan, results: &mut Results) {
    // Hard tasks: 19 % of the baseline's traffic, 40 % and 5 % of the canary's.
    for (name, canary_hard, worse, seeds) in
        [("R9 harder traffic", 2.84, 0.0, plan.nulls()), ("R10 easier traffic hides -3 pp", 0.22, 0.03, plan.seeds())]
    {
        let case = failure(name, worse, Traffic { canary_hard, ..half() }, 1);
        let all = found(seeds, &case);
        let of = |delay: fn(&ReleaseResult) -> Delay| all.iter().map(delay).collect::<Vec<_>>();
        results.releases.push(row(&case, D1, &of(|found| found.alarm)));
        results.releases.push(row(&case, Z01, &of(|found| found.peeked[1])));
    }
}

fn quantities(plan: &Plan, results: &mut Results) {
    // For one task, as in the rules.
    let traffic = Traffic { tasks: false, ..Traffic::new(20.0).canary(0.5) };
    let canary = Change { scope: Scope::Canary, ..NONE };
    for (name, change, cost) in [
        ("R0 no change", canary, false),
        ("R5 latency x1.1", Change { latency: 1.1, ..canary }, false),
        ("R5 latency x1.3", Change { latency: 1.3, ..canary }, false),
        ("R5 latency x2", Change { latency: 2.0, ..canary }, false),
        ("R6 3 % of runs 10x slower", Change { slow: 0.03, ..canary }, false),
        ("R0 no change", canary, true),
        ("R7 cost per completed +5 % (the margin)", Change { tokens: 1.05, ..canary }, true),
        ("R7 cost per completed +15 %", Change { tokens: 1.15, ..canary }, true),
        ("R7 cost per completed +40 %", Change { tokens: 1.4, ..canary }, true),
        ("R7 -15 pp success, same tokens", Change { failure: 0.15, ..canary }, true),
    ] {
        let name_of = if cost { "Bellwether D3, cost, margin 5 %" } else { "Bellwether D2, latency" };
        let one = |seed| {
            let start = World::release_start(seed) + DAY;
            let world = World::new(seed, traffic).with(Change { from: start, ..change });
            if cost { trial::cost(&world, start, DAY, 0.01) } else { trial::latency(&world, start, DAY, 0.01) }
        };
        let seeds = if change == canary { plan.first..plan.first + 2 * plan.seeds } else { plan.seeds() };
        let delays = over_seeds(seeds, one);
        results.releases.push(TableRow::new(name, describe_traffic(&traffic), name_of, delays.len()).delays(&delays));
    }
}

fn splits(plan: &Plan, results: &mut Results) {
    for (name, share, seeds) in [("R0 no change", 0.10, plan.nulls()), ("R12 13 % instead of 10 %", 0.13, plan.seeds())]
    {
        for sessions in [true, false] {
            let traffic = Traffic::new(50.0).canary(share);
            let one = |seed| trial::split(&World::new(seed, traffic), World::release_start(seed), 0.10, sessions, 0.01);
            let delays = over_seeds(seeds.clone(), one);
            let detector = if sessions { "Bellwether D12, sessions" } else { "D12 ignoring sessions" };
            results.releases.push(TableRow::new(name, "50/min", detector, delays.len()).delays(&delays));
        }
    }
}

/// Returns evidence over a day, without a change and with -5 points, for the first seeds.
fn curves(plan: &Plan) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (name, worse) in [("no change", 0.0), ("-5 points", 0.05)] {
        let case = failure(name, worse, main_traffic(), 1);
        for seed in plan.first..plan.first + plan.seeds.min(30) {
            let (mut points, mut minute) = (Vec::new(), 0.0);
            // The alert never fires, so that its evidence continues.
            let watch = ReleaseWatch { alpha: 1e-300, ..watch(seed, &case) };
            release_with(&world(seed, &case), &watch, |series, _| {
                minute += 1.0;
                points.push((minute, series.statistic()));
            });
            curves.push(Curve { name: name.to_owned(), points });
        }
    }
    // The same day with harder traffic and no change: the pooled rate, and the evidence.
    let harder = failure("harder traffic", 0.0, Traffic { canary_hard: 2.84, ..half() }, 1);
    let (mut pooled, mut evidence) = (Vec::new(), Vec::new());
    let (mut minute, mut sums) = (0.0, [(0_u64, 0_u64); 2]);
    release_with(&world(plan.first, &harder), &watch(plan.first, &harder), |series, cells| {
        minute += 1.0;
        for cell in cells {
            for (sum, (events, runs)) in sums.iter_mut().zip(cell) {
                *sum = (sum.0 + events, sum.1 + runs);
            }
        }
        evidence.push((minute, series.statistic()));
        if sums[0].1.min(sums[1].1) >= 200 {
            #[expect(clippy::cast_precision_loss, reason = "runs of a day")]
            let rates = sums.map(|(events, runs)| 100.0 * events as f64 / runs as f64);
            pooled.push((minute, rates[1] - rates[0]));
        }
    });
    curves.push(Curve { name: "mix pooled".to_owned(), points: pooled });
    curves.push(Curve { name: "mix evidence".to_owned(), points: evidence });
    curves
}
