//! Confidence intervals and lost evidence for runs that are correlated within sessions: the method of random groups.
//!
//! Runs of one session are correlated, so treating them as independent gives intervals that are far too narrow (with
//! ten runs a session, a "95 %" interval of cost covers the true value 47 % of the time). A hash assigns sessions to a
//! fixed number of groups; the variance between the groups' totals then shows the true uncertainty, whatever the
//! correlation within a session (Wolter, "Introduction to Variance Estimation", 2nd ed., 2007, ch. 2; the same idea as
//! bucketed users in Chamandy et al., "Estimating Uncertainty for Massive Data Streams", Google 2012). Totals by group
//! are integers, so they can be merged over windows and subtracted again; sums of squares by session cannot.

use crate::interval::{Interval, student_quantile};

/// Number of groups. With 31 degrees of freedom, a 95 % interval is 4 % wider than the normal one.
pub const GROUPS: usize = 32;

/// Prior design effect (sessions double the variance), and its weight in events.
const GUESS_EVENTS: f64 = 30.0;
const GUESS: f64 = 2.0;

/// Minimum number of groups with runs for an estimate.
const MIN_GROUPS: usize = 16;

/// Events and runs by random group of sessions, one entry per group.
#[derive(Clone, Copy, Debug)]
pub struct GroupTotals<'a> {
    pub events: &'a [i64],
    pub runs: &'a [i64],
}

/// Returns the group of a session (or of a run without one). The hash never changes: FNV-1a, finished by MurmurHash3's
/// mixer.
pub fn group_of(key: &str) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    // The top five bits: 0 to 31.
    (hash >> 59) as usize
}

/// Returns the interval of Σy/Σx from totals by group: se² = G/(G−1) · Σ_g (y_g − R x_g)² / (Σx)², Student's t with G−1
/// degrees of freedom. None if the lists differ in length or have fewer than two entries, or without a denominator.
pub fn ratio_interval(y: &[f64], x: &[f64], confidence: f64) -> Option<Interval> {
    let total_x: f64 = x.iter().sum();
    if y.len() != x.len() || y.len() < 2 || total_x == 0.0 || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let groups = f64::from(u32::try_from(y.len()).ok()?);
    let ratio = y.iter().sum::<f64>() / total_x;
    let residual: f64 = y.iter().zip(x).map(|(y, x)| (y - ratio * x).powi(2)).sum();
    let error = (groups / (groups - 1.0) * residual).sqrt() / total_x.abs();
    let half = student_quantile(0.5 + confidence / 2.0, groups - 1.0) * error;
    Some(Interval { low: ratio - half, high: ratio + half })
}

/// Adds totals to others, place by place; the shorter list counts as one that goes on with zeros. Saturates.
pub fn add_totals(to: &mut Vec<i64>, more: &[i64]) {
    if to.len() < more.len() {
        to.resize(more.len(), 0);
    }
    for (sum, value) in to.iter_mut().zip(more) {
        *sum = sum.saturating_add(*value);
    }
}

/// Returns 1 over the design effect of the lists, at most 1; exactly 1 if none of them has sessions. Log-increments of runs
/// in sessions are multiplied by it.
pub fn session_tempering<'a>(lists: impl IntoIterator<Item = GroupTotals<'a>>) -> f64 {
    let mut weighed = (GUESS_EVENTS * GUESS, GUESS_EVENTS);
    let mut sessions = false;
    for totals in lists {
        if let Some((effect, events)) = design_effect(totals) {
            sessions = true;
            weighed = (weighed.0 + effect * events, weighed.1 + events);
        }
    }
    if sessions { 1.0 / (weighed.0 / weighed.1).max(1.0) } else { 1.0 }
}

/// Returns the design effect, the variance of a rate between random groups of sessions over that of independent runs,
/// and the number of events behind it. With too few groups, or without both events and other runs, each group counts as
/// one session. None without runs.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn design_effect(totals: GroupTotals<'_>) -> Option<(f64, f64)> {
    let GroupTotals { events: events_by_group, runs: runs_by_group } = totals;
    let filled = runs_by_group.iter().filter(|runs| **runs > 0).count();
    // Use doubles: saturated totals must not wrap here.
    let sum = |totals: &[i64]| totals.iter().map(|total| *total as f64).sum::<f64>();
    let (events, runs) = (sum(events_by_group), sum(runs_by_group));
    if filled == 0 || runs <= 0.0 {
        return None;
    }
    let (rate, rests_on) = (events / runs, events.min(runs - events).max(0.0));
    if filled < MIN_GROUPS || !(rate > 0.0 && rate < 1.0) {
        return Some((runs / filled as f64, rests_on));
    }
    let count = runs_by_group.len() as f64;
    let squares: f64 =
        events_by_group.iter().zip(runs_by_group).map(|(y, x)| (*y as f64 - rate * *x as f64).powi(2)).sum();
    Some((count / (count - 1.0) * squares / (runs * rate * (1.0 - rate)), rests_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_never_change_and_are_evenly_filled() {
        assert_eq!(["", "s_91", "session-1"].map(group_of), GOLDEN);
        let mut filled = [0_u32; GROUPS];
        (0..32_000).for_each(|n| filled[group_of(&format!("session-{n}"))] += 1);
        assert!(filled.iter().all(|count| (850..1150).contains(count)), "{filled:?}");
    }

    #[test]
    fn evidence_of_sessions_is_divided_by_their_design_effect() {
        let tempering = |events: &[i64], runs: &[i64]| session_tempering([GroupTotals { events, runs }]);
        assert_eq!(tempering(&[], &[]), 1.0);
        // In half of the groups all ten runs fail: 32/31 · 32 · 5² / (320 / 4) = 10.3, beside a guess of 2 for 30 events.
        let events: Vec<i64> = (0..32).map(|group| if group % 2 == 0 { 10 } else { 0 }).collect();
        let effect = 32.0 / 31.0 * 800.0 / 80.0;
        let expected = (30.0 + 160.0) / (60.0 + effect * 160.0);
        assert!((tempering(&events, &[10; 32]) - expected).abs() < 1e-12);
        // Groups that differ less than those of independent runs add no evidence.
        assert_eq!(tempering(&[1000; 32], &[2000; 32]), 1.0);
        // Too few groups: each counts as one session.
        let few = (30.0 + 4.0) / (60.0 + 8.0 * 4.0);
        assert!((tempering(&[4, 0], &[8, 8]) - few).abs() < 1e-12);
    }

    const GOLDEN: [usize; 3] = [29, 13, 30];

    /// A generator good enough to place a few thousand numbers (Knuth's MMIX constants).
    fn random(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn coverage_is_ninety_five_per_cent_with_runs_in_sessions() {
        let (mut state, mut held, trials) = (7_u64, 0, 400);
        for trial in 0..trials {
            let (mut y, mut x) = ([0.0; GROUPS], [0.0; GROUPS]);
            for session in 0..300 {
                // All ten runs of a session cost about the same: mean 1 over sessions.
                let cost = 2.0 * random(&mut state);
                let group = group_of(&format!("{trial}/{session}"));
                y[group] += 10.0 * cost;
                x[group] += 10.0;
            }
            let interval = ratio_interval(&y, &x, 0.95).expect("an interval");
            held += u32::from(interval.low <= 1.0 && 1.0 <= interval.high);
        }
        let share = f64::from(held) / f64::from(trials);
        assert!((0.92..=0.985).contains(&share), "{share}");
    }

    #[test]
    fn without_a_denominator_there_is_no_interval() {
        assert_eq!(ratio_interval(&[1.0, 2.0], &[0.0, 0.0], 0.95), None);
        assert_eq!(ratio_interval(&[1.0], &[1.0], 0.95), None);
    }
}
