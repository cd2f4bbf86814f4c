//! D0 to D9: change against the series' own past, without a release.

use bellwether_stats::Invalid;
use bellwether_stats::attribution::{Slice, blame, by_evidence};
use bellwether_stats::e2x2::{Table, Test};

use super::{Plan, Results, describe_traffic};
use crate::chance::Key;
use crate::detector::PAST_DAYS;
use crate::series::{Fired, Shape, delay_after, drift, rare, series, shape};
use crate::tally::{TableRow, over_seeds, rate, share};
use crate::trial::Delay;
use crate::world::{Change, DAY, NONE, Outcome, Scope, Traffic, WEEK, World};

/// Names of the detectors in the tables.
pub(crate) const D4: &str = "Bellwether D4, 1 false in 10 weeks";
pub(crate) const D5: &str = "Bellwether D5, 1 false in 10 weeks";

/// Names of the detectors that [`drift`] runs, and their alarms in the result.
type Named = (&'static str, fn(&Fired) -> &[i64]);

const DETECTORS: [Named; 6] = [
    (D4, |fired| &fired.drift[0]),
    ("Bellwether D4, 1 false in 26 weeks", |fired| &fired.drift[1]),
    ("Bellwether D6, 1 false in 10 weeks", |fired| &fired.anchored),
    ("1 h of errors > usual + 3 pp for 10 min", |fired| &fired.fixed[0]),
    ("1 h of errors > usual + 5 pp for 10 min", |fired| &fired.fixed[1]),
    ("z vs the same hour last week, p < 1 %", |fired| &fired.last_week),
];

/// Returns the minute of a change: at a random time in the fifth week.
fn onset(seed: u64) -> i64 {
    PAST_DAYS * DAY + Key::new(seed).at(78).below(WEEK.unsigned_abs()).cast_signed()
}

/// A scenario: a change, the time within which an alarm counts, and whether the change is benign.
struct Case {
    name: &'static str,
    traffic: Traffic,
    change: Change,
    within: i64,
    quiet: bool,
}

/// Runs the scenarios.
pub(super) fn run(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    nulls(plan, results);
    let worse = |failure| Change { failure, ..NONE };
    let case = |name, per_minute, change, days| Case {
        name,
        traffic: Traffic::new(per_minute),
        change,
        within: days * DAY,
        quiet: false,
    };
    let mut cases = vec![
        case("D1 -5 pp", 3.0, worse(0.05), 7),
        case("D1 -5 pp", 30.0, worse(0.05), 7),
        case("D3 2 h +20 pp", 3.0, Change { lasts: Some(120), ..worse(0.20) }, 1),
    ];
    if !plan.quick {
        let ramp = |days| Change { ramp: days * DAY, ..worse(0.05) };
        cases.extend([
            Case { traffic: Traffic { icc: 0.3, ..Traffic::new(3.0) }, ..case("D1 -5 pp", 3.0, worse(0.05), 7) },
            Case { traffic: Traffic { wander: 0.2, ..Traffic::new(3.0) }, ..case("D1 -5 pp", 3.0, worse(0.05), 7) },
            Case { traffic: Traffic { wander: 0.2, ..Traffic::new(3.0) }, ..case("D1 -10 pp", 3.0, worse(0.10), 7) },
            Case { traffic: Traffic { wander: 0.2, ..Traffic::new(30.0) }, ..case("D1 -10 pp", 30.0, worse(0.10), 7) },
            case("D1 -2 pp", 3.0, worse(0.02), 7),
            case("D1 -10 pp", 3.0, worse(0.10), 7),
            case("D1 -2 pp", 30.0, worse(0.02), 7),
            case("D1 -10 pp", 30.0, worse(0.10), 7),
            case("D1 -10 pp", 0.3, worse(0.10), 7),
            case("D2 -5 pp over 7 days", 3.0, ramp(7), 14),
            case("D2 -5 pp over 28 days", 3.0, ramp(28), 28),
            case("D3 2 h +20 pp", 30.0, Change { lasts: Some(120), ..worse(0.20) }, 1),
            Case { quiet: true, ..case("D4 weekend as busy as weekdays", 3.0, weekend(), 14) },
            Case {
                quiet: true,
                ..case(
                    "D5 holiday, a fifth of the traffic",
                    3.0,
                    Change { traffic: 0.2, lasts: Some(3 * DAY), ..NONE },
                    7,
                )
            },
        ]);
    }
    for case in cases {
        changes(plan, results, &case);
    }
    rares(plan, results);
    if !plan.quick {
        shapes(plan, results)?;
        tenants(plan, results)?;
    }
    Ok(())
}

/// A change of two days from the fifth Saturday on.
fn weekend() -> Change {
    Change { traffic: 1.0 / 0.6, lasts: Some(2 * DAY), ..NONE }
}

fn nulls(plan: &Plan, results: &mut Results) {
    // Include correlated runs in sessions, with overdispersion that must be learned, and quality that wanders.
    for (per_minute, icc, wander) in
        [(0.3, 0.0, 0.0), (3.0, 0.0, 0.0), (30.0, 0.0, 0.0), (3.0, 0.3, 0.0), (3.0, 0.0, 0.2), (30.0, 0.0, 0.2)]
    {
        if plan.quick && icc > 0.0 {
            continue;
        }
        let traffic = Traffic { icc, wander, ..Traffic::new(per_minute) };
        let seeds = plan.first..plan.first + plan.nulls / 4;
        let fired = over_seeds(seeds, |seed| {
            let mut world = World::new(seed, traffic);
            let gap = onset(seed);
            world.gap = Some((gap, gap + 20));
            drift(&series(&world, 2 * PAST_DAYS, Outcome::Failure))
        });
        #[expect(clippy::cast_precision_loss, reason = "some hundred seeds")]
        let weeks = fired.len() as f64 * 4.0;
        for (name, of) in DETECTORS {
            let alarms = fired.iter().map(|fired| of(fired).len()).sum();
            let row = TableRow::new("D0 no change", describe_traffic(&traffic), name, fired.len());
            results.past.push(TableRow { false_a_week: Some(rate(alarms, weeks)), ..row });
        }
    }
}

fn changes(plan: &Plan, results: &mut Results, case: &Case) {
    let traffic = case.traffic;
    let start = |seed| if case.change == weekend() { PAST_DAYS * DAY + 5 * DAY } else { onset(seed) };
    let fired = over_seeds(plan.seeds(), |seed| {
        let world = World::new(seed, traffic).with(Change { from: start(seed), ..case.change });
        let days = (start(seed) + case.within) / DAY + 1;
        (seed, drift(&series(&world, days, Outcome::Failure)))
    });
    for (name, of) in DETECTORS {
        let delays: Vec<Delay> =
            fired.iter().map(|(seed, fired)| delay_after(of(fired), start(*seed), case.within)).collect();
        let row = TableRow::new(case.name, describe_traffic(&traffic), name, fired.len()).delays(&delays);
        // For a benign change, delays are meaningless.
        let row = if case.quiet { TableRow { minutes: None, minutes_p90: None, ..row } } else { row };
        results.past.push(row);
    }
}

fn rares(plan: &Plan, results: &mut Results) {
    let traffic = Traffic::new(20.0);
    let factors: &[f64] = if plan.quick { &[10.0] } else { &[1.0, 2.0, 3.0, 5.0, 10.0] };
    for factor in factors {
        let fired = over_seeds(plan.seeds(), |seed| {
            let from = onset(seed);
            let world = World::new(seed, traffic).with(Change { from, rates: [1.0, 1.0, 1.0, *factor], ..NONE });
            rare(&world, from / DAY + 8).map(|alarms| delay_after(&alarms, from, WEEK))
        });
        let name = if *factor > 1.0 { format!("D8 exceptions x{factor}") } else { "D8 no change".to_owned() };
        for (place, detector) in [(0, D5), (1, "a day's count > 2x the usual")] {
            let delays: Vec<Delay> = fired.iter().map(|delays| delays[place]).collect();
            let row = TableRow::new(&name, describe_traffic(&traffic), detector, delays.len()).delays(&delays);
            results.past.push(if *factor > 1.0 { row } else { TableRow { minutes: None, minutes_p90: None, ..row } });
        }
    }
}

fn shapes(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    let traffic = Traffic::new(3.0);
    for (name, kind, change) in [
        ("D6 no change of finish reasons", Shape::Finish, NONE),
        ("D6 finish reason `length` 2 -> 5 %", Shape::Finish, Change { truncated: 0.03, ..NONE }),
        ("D7 no change of input length", Shape::Tokens, NONE),
        ("D7 input length +20 %", Shape::Tokens, Change { tokens: 1.2, ..NONE }),
    ] {
        let fired = over_seeds(plan.seeds(), |seed| {
            let from = onset(seed);
            let world = World::new(seed, traffic).with(Change { from, ..change });
            shape(&world, from / DAY + 8, kind).map(|alarms| delay_after(&alarms, from, WEEK))
        });
        let delays = fired.into_iter().collect::<Result<Vec<_>, _>>()?;
        let row = TableRow::new(name, describe_traffic(&traffic), "Bellwether D4 of distributions", delays.len())
            .delays(&delays);
        results.past.push(if change == NONE { TableRow { minutes: None, minutes_p90: None, ..row } } else { row });
    }
    Ok(())
}

/// The tenant that goes down: 11 % of the traffic.
const DOWN: u64 = 4;

/// Minutes that it is down.
const DOWN_MINUTES: i64 = 180;

/// All runs of one tenant fail for three hours. Measures detection, and whether the explanation names the tenant.
fn tenants(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    let traffic = Traffic::new(3.0);
    let found = over_seeds(plan.seeds(), |seed| {
        let from = onset(seed);
        let world = World::new(seed, traffic).with(Change {
            from,
            lasts: Some(DOWN_MINUTES),
            scope: Scope::Tenant(DOWN),
            failure: 1.0,
            ..NONE
        });
        let fired = drift(&series(&world, (from + DOWN_MINUTES) / DAY + 1, Outcome::Failure));
        // These hours and the day before them, by tenant.
        let mut slices = [(0_u64, 0_u64, 0_u64, 0_u64); 10];
        world.minutes(from - DAY, from + DOWN_MINUTES, |minute, runs| {
            for run in runs {
                let failed = u64::from(world.has_outcome(run, Outcome::Failure));
                let slice = &mut slices[usize::try_from(run.tenant()).unwrap_or(0)];
                if minute < from {
                    (slice.0, slice.1) = (slice.0 + failed, slice.1 + 1);
                } else {
                    (slice.2, slice.3) = (slice.2 + failed, slice.3 + 1);
                }
            }
        });
        let named = named(&slices)?;
        Ok::<_, Invalid>((delay_after(&fired.drift[0], from, DOWN_MINUTES), named))
    });
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    let delays: Vec<Delay> = found.iter().map(|(delay, _)| *delay).collect();
    for (place, what) in [(0, "named first by evidence (D10)"), (1, "named first by surprise (D10)")] {
        let hits = found.iter().filter(|(_, named)| named[place] == Some(DOWN)).count();
        let row = TableRow::new("D9 one of ten tenants down for 3 h", describe_traffic(&traffic), what, found.len())
            .delays(&delays);
        results.past.push(TableRow { other: Some(("named first".to_owned(), share(hits, found.len()))), ..row });
    }
    Ok(())
}

/// Returns the tenant with the most evidence, if significant, and the most surprising one.
fn named(slices: &[(u64, u64, u64, u64)]) -> Result<[Option<u64>; 2], Invalid> {
    let test = Test::default();
    let mut evidence = Vec::new();
    for (events_a, runs_a, events_b, runs_b) in slices {
        evidence.push(test.evidence([&Table::new(*events_a, *runs_a, *events_b, *runs_b)?]).log_e());
    }
    let first =
        by_evidence(&evidence, 0.05)?.first().filter(|ranked| ranked.believed).map(|ranked| ranked.slice as u64);
    #[expect(clippy::cast_precision_loss, reason = "runs of a day")]
    let as_slices: Vec<Slice> = slices
        .iter()
        .map(|slice| Slice {
            amount_a: slice.0 as f64,
            units_a: slice.1 as f64,
            amount_b: slice.2 as f64,
            units_b: slice.3 as f64,
        })
        .collect();
    let blames = blame(&as_slices)?.unwrap_or_default();
    let surprising = (0..blames.len()).max_by(|a, b| blames[*a].surprise.total_cmp(&blames[*b].surprise));
    Ok([first, surprising.map(|place| place as u64)])
}
