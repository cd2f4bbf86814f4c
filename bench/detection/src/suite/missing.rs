//! M0 to M3, and S: silence, loss, nights without traffic; objectives. M2 and M4 (late bursts, duplicates) are tested
//! on the whole system.

use bellwether_stats::Invalid;

use super::{Plan, Results};
use crate::detector::PAST_DAYS;
use crate::series::{delay_after, objective, silence};
use crate::tally::{TableRow, over_seeds, rate};
use crate::trial::Delay;
use crate::world::{Change, DAY, NONE, Traffic, World};

/// Names in the tables.
pub(crate) const D8: &str = "Bellwether D8";
const PLAIN: &str = "burn rates of the SRE workbook";
const D11: &str = "Bellwether D11";

/// Runs the scenarios.
pub(super) fn run(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    objectives(plan, results)?;
    if !plan.quick {
        silent(plan, results);
        pages(plan, results)?;
    }
    Ok(())
}

fn silent(plan: &Plan, results: &mut Results) {
    for per_minute in [0.3, 3.0, 30.0] {
        let traffic = Traffic::new(per_minute);
        let text = format!("{per_minute}/min");
        let quiet = over_seeds(plan.seeds(), |seed| silence(&World::new(seed, traffic), 14 * DAY));
        #[expect(clippy::cast_precision_loss, reason = "some hundred seeds")]
        let weeks = 2.0 * quiet.len() as f64;
        let alarms = quiet.iter().map(Vec::len).sum();
        let row = TableRow::new("M3 quiet nights", &text, D11, quiet.len());
        results.others.push(TableRow { false_a_week: Some(rate(alarms, weeks)), ..row });
        // Silence and half of the traffic, from Wednesday noon on.
        let from = PAST_DAYS * DAY + 2 * DAY + 720;
        for (name, left) in [("M0 producer silent", 0.0), ("M1 half of the events lost", 0.5)] {
            let change = Change { from, traffic: left, ..NONE };
            let delays: Vec<Delay> = over_seeds(plan.seeds(), |seed| {
                delay_after(&silence(&World::new(seed, traffic).with(change), 5 * DAY), from, 2 * DAY)
            });
            results.others.push(TableRow::new(name, &text, D11, delays.len()).delays(&delays));
        }
    }
}

/// Objectives at half of their budget, over four weeks: 90, 95, 99 and 99.9 % at 10 to 6000 runs an hour.
fn objectives(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    let rates: &[f64] = if plan.quick { &[10.0, 60.0] } else { &[10.0, 60.0, 600.0, 6000.0] };
    let seeds = plan.first..plan.first + (plan.seeds / 5).max(3);
    let mut counts = [0_usize; 2];
    let mut series = 0_usize;
    for target in [0.9, 0.95, 0.99, 0.999] {
        for runs in rates {
            let pages = over_seeds(seeds.clone(), |seed| objective(seed, target, *runs, 28, None));
            for pages in pages.into_iter().collect::<Result<Vec<_>, _>>()? {
                series += 1;
                for (count, pages) in counts.iter_mut().zip(pages) {
                    *count += pages.len();
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "some hundred series")]
    let weeks = series as f64 * 4.0;
    for (count, detector) in counts.into_iter().zip([D8, PLAIN]) {
        let row = TableRow::new("S within budget", "10 to 6000/h", detector, series);
        results.others.push(TableRow { false_a_week: Some(rate(count, weeks)), ..row });
    }
    Ok(())
}

/// A failure that must page: 30 % of runs fail.
fn pages(plan: &Plan, results: &mut Results) -> Result<(), Invalid> {
    for target in [0.95, 0.99] {
        let from = DAY;
        let found = over_seeds(plan.seeds(), |seed| objective(seed, target, 600.0, 3, Some((from, 0.30))));
        let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        for (place, detector) in [(0, D8), (1, PLAIN)] {
            let delays: Vec<Delay> = found.iter().map(|pages| delay_after(&pages[place], from, DAY)).collect();
            let name = format!("S {} %: 30 % of runs fail", 100.0 * target);
            results.others.push(TableRow::new(name, "600/h", detector, delays.len()).delays(&delays));
        }
    }
    Ok(())
}
