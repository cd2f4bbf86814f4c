//! Runs of one session are alike, so that they say less than as many independent ones. How much less follows from totals
//! by random group of sessions (Wolter, "Introduction to Variance Estimation", ch. 2).

use crate::observation::Groups;

/// Events that are worth as much as the guess that sessions make runs twice as uncertain.
const GUESS_EVENTS: f64 = 30.0;
const GUESS: f64 = 2.0;

/// Fewest groups with runs that tell anything.
const LEAST_GROUPS: usize = 16;

/// 1 over the design effect of the lists, at most 1; exactly 1 where none of them has sessions.
pub(super) fn tempering<'a>(lists: impl IntoIterator<Item = &'a Groups>) -> f64 {
    let mut weighed = (GUESS_EVENTS * GUESS, GUESS_EVENTS);
    let mut sessions = false;
    for groups in lists {
        if let Some((effect, events)) = design_effect(groups) {
            sessions = true;
            weighed = (weighed.0 + effect * events, weighed.1 + events);
        }
    }
    if sessions { 1.0 / (weighed.0 / weighed.1).max(1.0) } else { 1.0 }
}

/// Variance of a rate between random groups of sessions over that of independent runs, with the events it rests on.
/// Where too few groups have runs to tell, or none or all of them are events: as if each group were one session.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn design_effect(groups: &Groups) -> Option<(f64, f64)> {
    let filled = groups.runs.iter().filter(|runs| **runs > 0).count();
    // As doubles: totals that were held at the end of their type must not wrap here.
    let sum = |totals: &[i64]| totals.iter().map(|total| *total as f64).sum::<f64>();
    let (events, runs) = (sum(&groups.events), sum(&groups.runs));
    if filled == 0 || runs <= 0.0 {
        return None;
    }
    let (rate, rests_on) = (events / runs, events.min(runs - events).max(0.0));
    if filled < LEAST_GROUPS || !(rate > 0.0 && rate < 1.0) {
        return Some((runs / filled as f64, rests_on));
    }
    let count = groups.runs.len() as f64;
    let squares: f64 =
        groups.events.iter().zip(&groups.runs).map(|(y, x)| (*y as f64 - rate * *x as f64).powi(2)).sum();
    Some((count / (count - 1.0) * squares / (runs * rate * (1.0 - rate)), rests_on))
}
