//! Multiple series: 200 releases for a day, 20 of them worse by 5 points.

use bellwether_stats::Invalid;
use bellwether_stats::ebh::e_bh;

use super::{Plan, Results};
use crate::tally::{Figure, TableRow, over_seeds};
use crate::trial::{ReleaseWatch, release};
use crate::world::{Change, DAY, NONE, Outcome, Scope, Traffic, World};

pub(crate) const SCENARIO: &str = "200 releases, 20 worse by 5 pp";
pub(crate) const TRAFFIC: &str = "5/min, 50 % canary";
pub(crate) const FALSE: &str = "e-BH at 5 %: false discoveries";
pub(crate) const FOUND: &str = "e-BH at 5 %: detected";

const SERIES: u64 = 200;
const WORSE: u64 = 20;

/// For one fleet: false discovery proportion and fraction detected, by e-BH and by z-tests at each minute.
type Shares = [f64; 4];

/// Runs the scenario.
pub(super) fn run(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    let fleets = if plan.quick { 2 } else { (plan.seeds / 5).max(2) };
    let shares: Vec<Shares> =
        over_seeds(plan.first..plan.first + fleets, fleet).into_iter().collect::<Result<_, _>>()?;
    for (place, detector) in [
        (0, FALSE),
        (1, FOUND),
        (2, "z-test p < 1 %, each minute: false discoveries"),
        (3, "z-test p < 1 %, each minute: detected"),
    ] {
        let figure = mean(&shares.iter().map(|shares| shares[place]).collect::<Vec<_>>());
        let row = TableRow::new(SCENARIO, TRAFFIC, detector, shares.len());
        results.others.push(TableRow { other: Some(("share".to_owned(), figure)), ..row });
    }
    Ok(())
}

fn fleet(seed: u64) -> Result<Shares, Invalid> {
    let traffic = Traffic { tasks: false, ..Traffic::new(5.0).canary(0.5) };
    let (mut evidence, mut peeked) = (Vec::new(), Vec::new());
    for number in 0..SERIES {
        let own = seed * SERIES + number;
        let start = World::release_start(own);
        let failure = if number < WORSE { 0.05 } else { 0.0 };
        let world = World::new(own, traffic).with(Change { from: start, scope: Scope::Canary, failure, ..NONE });
        let watch = ReleaseWatch {
            outcome: Outcome::Failure,
            // Never alarms: only the evidence at the end counts.
            alpha: 1e-300,
            margin: 1.0,
            sessions: false,
            start,
            minutes: DAY,
            onset: 0,
        };
        let found = release(&world, &watch);
        evidence.push(found.log_e);
        peeked.push(found.peeked[1].is_some());
    }
    let shares = |alarms: &[bool]| {
        let worse = usize::try_from(WORSE).unwrap_or(0);
        let (right, all) =
            (alarms[..worse].iter().filter(|alarm| **alarm).count(), alarms.iter().filter(|a| **a).count());
        #[expect(clippy::cast_precision_loss, reason = "at most 200")]
        let of = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        (of(all - right, all), of(right, worse))
    };
    let ((a, b), (c, d)) = (shares(&e_bh(&evidence, 0.05)?), shares(&peeked));
    Ok([a, b, c, d])
}

/// Returns the mean of proportions with a normal confidence interval, clamped to 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "fleets are few")]
fn mean(shares: &[f64]) -> Figure {
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let half = 1.96 * (variance / n).sqrt();
    Figure { value: Some(mean), low: Some((mean - half).max(0.0)), high: Some((mean + half).min(1.0)) }
}
