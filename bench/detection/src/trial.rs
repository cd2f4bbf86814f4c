//! Runs one seed of a release: detectors and peers on the same minutes of the same world.

use bellwether_detect::Measure;
use bellwether_stats::sequential::detector_threshold;

use crate::detector::{
    self, Cells, Series, WindowBuilder, by_release, by_time, cells, costs, latencies, single, tasks, window,
};
use crate::peer::{PeekedZ, Threshold};
use crate::world::{DAY, EPOCH, Outcome, Run, TASKS, World};

/// Minutes and runs of the canary from the change to the first alarm.
pub type Delay = Option<(f64, f64)>;

/// The parameters of a trial.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseWatch {
    /// The bad outcome.
    pub outcome: Outcome,
    /// Probability of a false alarm over the whole life of the release.
    pub alpha: f64,
    /// Largest acceptable odds ratio.
    pub margin: f64,
    /// True if the runs state their sessions.
    pub sessions: bool,
    /// Minute at which the release starts.
    pub start: i64,
    /// Minutes that it is watched.
    pub minutes: i64,
    /// Minutes after its start from which delays count.
    pub onset: i64,
}

/// The result of a trial.
#[derive(Clone, Debug)]
pub struct ReleaseResult {
    /// D1.
    pub alarm: Delay,
    /// D1 as an e-SR, for changes after the release.
    pub since: Delay,
    /// A one-sided z-test at 5 % and at 1 %, at each minute.
    pub peeked: [Delay; 2],
    /// Error rate of five minutes above 13 % three times.
    pub fixed: Delay,
    /// Tasks by evidence at the alarm, or at the end.
    pub guilty: Vec<String>,
    /// Evidence at the end.
    pub log_e: f64,
    /// True if its alert resolved before the end.
    pub resolved: bool,
}

/// Average run length of the e-SR of a release: 60 days of minutes.
const SINCE_MINUTES: f64 = 60.0 * 1440.0;

/// Threshold of the fixed rule: 5 points above the usual 8 %.
const FIXED_RATE: f64 = 0.13;

/// Runs a release next to its baseline.
pub fn release(world: &World, watch: &ReleaseWatch) -> ReleaseResult {
    release_with(world, watch, |_, _| ())
}

/// Like [`release`]; calls `each` after every minute with the series and the minute's cells.
pub fn release_with(world: &World, watch: &ReleaseWatch, mut each: impl FnMut(&Series, &Cells)) -> ReleaseResult {
    let names = tasks();
    let names = &names[..if world.traffic.tasks { TASKS } else { 1 }];
    let rule = detector::regression(watch.margin);
    let mut series = Series::new(&rule, by_release(watch.alpha), EPOCH + watch.start);
    // The detector for a change at an unknown time only runs if there is such a change.
    let ln_a = detector_threshold(1.0, SINCE_MINUTES, 1.0).unwrap_or(f64::INFINITY);
    let mut since_series = (watch.onset > 0).then(|| Series::new(&rule, by_time(ln_a), EPOCH + watch.start));
    let mut z = [PeekedZ::new(0.05), PeekedZ::new(0.01)];
    let (mut fixed, mut five) = (Threshold::new(FIXED_RATE, 1, 2), (0, 0));
    let mut found = ReleaseResult {
        alarm: None,
        since: None,
        peeked: [None; 2],
        fixed: None,
        guilty: Vec::new(),
        log_e: 0.0,
        resolved: false,
    };
    let mut canary_runs = 0_u64;
    let builder = WindowBuilder { names, world, outcome: watch.outcome, sessions: watch.sessions };
    world.minutes(watch.start, watch.start + watch.minutes, |minute, runs| {
        let window = window(&builder, minute, runs);
        let cells = cells(world, runs, watch.outcome);
        let since = minute + 1 - watch.start - watch.onset;
        let mut sums = [(0, 0); 2];
        for cell in &cells {
            for (sum, (events, runs)) in sums.iter_mut().zip(cell) {
                *sum = (sum.0 + events, sum.1 + runs);
            }
        }
        if since > 0 {
            canary_runs += sums[1].1;
        }
        #[expect(clippy::cast_precision_loss, reason = "minutes and runs of some days")]
        let now = Some((since as f64, canary_runs as f64));
        if !window.rows.is_empty() {
            series.window(&window);
            if let Some(series) = &mut since_series {
                series.window(&window);
            }
        }
        if found.alarm.is_none() && !series.fired.is_empty() {
            found.alarm = now;
            found.guilty = ranked(&series);
        }
        if found.since.is_none() && since_series.as_ref().is_some_and(|series| !series.fired.is_empty()) {
            found.since = now;
        }
        for (peeked, z) in found.peeked.iter_mut().zip(&mut z) {
            if z.alarms(sums) && peeked.is_none() {
                *peeked = now;
            }
        }
        five = (five.0 + sums[1].0, five.1 + sums[1].1);
        if since % 5 == 0 {
            if fixed.fires(five.0, five.1) && found.fixed.is_none() {
                found.fixed = now;
            }
            five = (0, 0);
        }
        each(&series, &cells);
    });
    found.log_e = series.statistic();
    found.resolved = !series.resolved.is_empty();
    if found.guilty.is_empty() {
        found.guilty = ranked(&series);
    }
    found
}

/// Returns the strata of a series by decreasing evidence.
fn ranked(series: &Series) -> Vec<String> {
    series.evidence().strata.iter().map(|stratum| stratum.stratum.to_string()).collect()
}

/// Runs D2 on the latency of a canary; returns the delay of an alarm at `alpha`.
pub fn latency(world: &World, start: i64, minutes: i64, alpha: f64) -> Delay {
    let rule = detector::latency();
    let mut series = Series::new(&rule, by_release(alpha), EPOCH + start);
    first(world, start, minutes, |minute, runs| {
        let [baseline, canary] = latencies(world, runs);
        series.window(&single(minute, baseline, canary));
        !series.fired.is_empty()
    })
}

/// Runs D3 on the cost per completed task of a canary.
pub fn cost(world: &World, start: i64, minutes: i64, alpha: f64) -> Delay {
    let mut series = Series::new(&detector::cost(), by_release(alpha), EPOCH + start);
    first(world, start, minutes, |minute, runs| {
        let [baseline, canary] = costs(world, runs);
        series.window(&single(minute, baseline, canary));
        !series.fired.is_empty()
    })
}

/// Runs D12 on a world whose split is configured to give the canary `share`, by sessions or by runs, over the first day.
pub fn split(world: &World, start: i64, share: f64, sessions: bool, alpha: f64) -> Delay {
    let mut series = Series::new(&detector::split(share), by_release(alpha), EPOCH + start);
    first(world, start, DAY, |minute, runs| {
        let count = |canary| {
            let of = runs.iter().filter(|run| run.canary == canary && (run.first || !sessions)).count();
            Measure::from_counts(0, i64::try_from(of).unwrap_or(i64::MAX))
        };
        series.window(&single(minute, count(false), count(true)));
        !series.fired.is_empty()
    })
}

/// Returns the first minute at which `alarms` returns true.
fn first(world: &World, start: i64, minutes: i64, mut alarms: impl FnMut(i64, &[Run]) -> bool) -> Delay {
    let (mut delay, mut canary_runs) = (None, 0_usize);
    world.minutes(start, start + minutes, |minute, runs| {
        if delay.is_some() || runs.is_empty() {
            return;
        }
        canary_runs += runs.iter().filter(|run| run.canary).count();
        if alarms(minute, runs) {
            #[expect(clippy::cast_precision_loss, reason = "minutes and runs of some days")]
            let now = ((minute + 1 - start) as f64, canary_runs as f64);
            delay = Some(now);
        }
    });
    delay
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Change, DAY, NONE, Scope, Traffic};

    fn watch() -> ReleaseWatch {
        ReleaseWatch {
            outcome: Outcome::Failure,
            alpha: 0.01,
            margin: 1.0,
            sessions: false,
            start: 600,
            minutes: DAY,
            onset: 0,
        }
    }

    #[test]
    fn a_broken_canary_is_found_and_its_twin_is_not() {
        let twin = World::new(1, Traffic::new(50.0).canary(0.1));
        let broken = twin.clone().with(Change { scope: Scope::Canary, failure: 0.1, ..NONE });
        assert_eq!(release(&twin, &watch()).alarm, None);
        let (minutes, runs) = release(&broken, &watch()).alarm.expect("an alarm");
        assert!(minutes < 120.0 && runs < 600.0, "{minutes} minutes, {runs} runs");
    }

    #[test]
    fn the_same_seed_gives_the_same_trial() {
        let world = World::new(2, Traffic::new(30.0).canary(0.5));
        let evidence = || {
            let mut all = Vec::new();
            let found = release_with(&world, &watch(), |series, _| all.push(series.statistic().to_bits()));
            (all, found.log_e.to_bits())
        };
        assert_eq!(evidence(), evidence());
    }
}
