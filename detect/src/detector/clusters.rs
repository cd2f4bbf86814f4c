//! Runs of one session are correlated, so they carry less information than independent runs. The loss is estimated from
//! totals by random group of sessions (Wolter, "Introduction to Variance Estimation", ch. 2).

use crate::observation::Groups;

/// Prior design effect (sessions double the variance), and its weight in events.
const GUESS_EVENTS: f64 = 30.0;
const GUESS: f64 = 2.0;

/// Minimum number of groups with runs for an estimate.
const MIN_GROUPS: usize = 16;

/// Returns 1 over the design effect of the lists, at most 1; exactly 1 if none of them has sessions.
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

/// Returns the design effect, the variance of a rate between random groups of sessions over that of independent runs,
/// and the number of events behind it. With too few groups, or without both events and other runs, each group counts as
/// one session.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn design_effect(groups: &Groups) -> Option<(f64, f64)> {
    let filled = groups.runs.iter().filter(|runs| **runs > 0).count();
    // Use doubles: saturated totals must not wrap here.
    let sum = |totals: &[i64]| totals.iter().map(|total| *total as f64).sum::<f64>();
    let (events, runs) = (sum(&groups.events), sum(&groups.runs));
    if filled == 0 || runs <= 0.0 {
        return None;
    }
    let (rate, rests_on) = (events / runs, events.min(runs - events).max(0.0));
    if filled < MIN_GROUPS || !(rate > 0.0 && rate < 1.0) {
        return Some((runs / filled as f64, rests_on));
    }
    let count = groups.runs.len() as f64;
    let squares: f64 =
        groups.events.iter().zip(&groups.runs).map(|(y, x)| (*y as f64 - rate * *x as f64).powi(2)).sum();
    Some((count / (count - 1.0) * squares / (runs * rate * (1.0 - rate)), rests_on))
}
