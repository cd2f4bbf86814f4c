//! Bellwether's detectors as configured in its rules, and windows built from simulated runs.

use std::sync::Arc;

use bellwether_detect::detector::{Drift, Histogram, Ratio, Regression, Silence, Split};
use bellwether_detect::{
    AlertState, Detector, Evidence, Groups, Hours, Measure, Minute, RatioTotals, StratumRow, Thresholds, Track,
    TrackContext, Window,
};
use bellwether_stats::clusters::GROUPS;
use bellwether_stats::histogram_e::{BINS, bin_of};

use crate::world::{EPOCH, Outcome, Run, TASKS, World};

/// Runs of the smaller arm at which a block closes.
///
/// A block of n runs uses (n − 1)/n of their information, so small blocks lose much when a canary has few runs per
/// baseline run; an open block contributes nothing yet, so longer blocks delay detection.
pub const BLOCK_RUNS: u64 = 3;

/// Minutes after which a block closes in any case.
pub const BLOCK_MINUTES: i64 = 60;

/// Returns D1 with a margin, by task.
pub fn regression(margin: f64) -> Detector {
    Detector::Regression(Arc::new(Regression {
        margin,
        block_runs: BLOCK_RUNS,
        block_minutes: BLOCK_MINUTES,
        ..Regression::default()
    }))
}

/// Returns D2 for latency.
pub fn latency() -> Detector {
    Detector::Histogram(Arc::new(Histogram::default()))
}

/// Returns D3 for cost per completed task, with a margin of 5 %.
pub fn cost() -> Detector {
    Detector::Ratio(Arc::new(Ratio::default()))
}

/// Returns D12 for a configured share.
pub fn split(share: f64) -> Detector {
    Detector::Split(Arc::new(Split { share: Some(share) }))
}

/// Returns D4, or D6 if `anchored`; D5 if `rare`.
pub fn drift(minutes: i64, anchored: bool, rare: bool) -> Detector {
    Detector::Drift(Arc::new(Drift { minutes, anchored, rare, ..Drift::default() }))
}

/// Returns D11.
pub fn silence() -> Detector {
    Detector::Silence(Arc::new(Silence::default()))
}

/// Returns thresholds for a release: `alpha` over its whole life, without an e-detector.
pub fn by_release(alpha: f64) -> Thresholds {
    Thresholds { e: -alpha.ln(), alpha, detector: f64::INFINITY, alarms_per_month: 0.0 }
}

/// Returns thresholds for a change at an unknown time: ln A.
pub fn by_time(ln_a: f64) -> Thresholds {
    Thresholds { e: f64::INFINITY, alpha: 0.5, detector: ln_a, alarms_per_month: 0.0 }
}

/// One series with one detector, from its first window on.
pub struct Series {
    track: Track,
    hours: Hours,
    keep: i64,
    thresholds: Thresholds,
    state: AlertState,
    /// Times at which its alert fired, minutes since the epoch.
    pub fired: Vec<Minute>,
    /// Times at which it resolved.
    pub resolved: Vec<Minute>,
}

// === impl Series ===

impl Series {
    /// Creates the state before the first window.
    pub fn new(detector: &Detector, thresholds: Thresholds, start: Minute) -> Self {
        Self {
            track: Track::new(detector, detector.timing(), start),
            hours: Hours::default(),
            keep: detector.history_hours(),
            thresholds,
            state: AlertState::Inactive,
            fired: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// Adds counts from before the series is watched.
    pub fn remember(&mut self, window: Minute, events: i64, runs: i64) {
        self.hours.add(window.div_euclid(60), events, runs, self.keep);
    }

    /// Processes the next window.
    pub fn window(&mut self, window: &Window) {
        let own = window.rows.iter().fold((0, 0), |sum, row| (sum.0 + row.canary.events, sum.1 + row.canary.runs));
        if self.keep > 0 {
            self.remember(window.start, own.0, own.1);
        }
        self.track.feed(window, TrackContext::alone(&self.hours), &self.thresholds);
        self.note(window.start + 1);
    }

    /// Advances time; all windows before `to` have been processed.
    pub fn until(&mut self, to: Minute) {
        // Changes are visible in the state.
        drop(self.track.finish(to, TrackContext::alone(&self.hours), &self.thresholds));
        self.note(to);
    }

    fn note(&mut self, at: Minute) {
        let state = self.track.state();
        match (self.state, state) {
            (AlertState::Firing, AlertState::Firing) => (),
            (_, AlertState::Firing) => self.fired.push(at),
            (AlertState::Firing, _) => self.resolved.push(at),
            _ => (),
        }
        self.state = state;
    }

    /// Returns its current evidence, nats.
    pub fn statistic(&self) -> f64 {
        self.track.verdict(&self.thresholds).statistic
    }

    /// Returns the numbers behind it.
    pub fn evidence(&self) -> Evidence {
        self.track.evidence(&self.thresholds)
    }
}

/// Bad outcomes of one minute: events and runs by task and arm.
pub type Cells = [[(u64, u64); 2]; TASKS];

/// Counts a minute's runs.
pub fn cells(world: &World, runs: &[Run], outcome: Outcome) -> Cells {
    let mut cells = [[(0, 0); 2]; TASKS];
    for run in runs {
        let cell = &mut cells[run.task][usize::from(run.canary)];
        cell.0 += u64::from(world.has_outcome(run, outcome));
        cell.1 += 1;
    }
    cells
}

/// Returns the names of the tasks, which are the strata.
pub fn tasks() -> Vec<Arc<str>> {
    (1..=TASKS).map(|task| Arc::from(format!("task-{task:02}"))).collect()
}

/// Returns the random group of a session; any fixed assignment works.
fn group(run: &Run) -> usize {
    (run.session.bits() >> 59) as usize % GROUPS
}

/// Builds the windows of D1 from a world's runs.
#[derive(Clone, Copy)]
pub struct WindowBuilder<'a> {
    /// Names of the tasks.
    pub names: &'a [Arc<str>],
    /// The world that the runs come from.
    pub world: &'a World,
    /// The bad outcome.
    pub outcome: Outcome,
    /// True if the runs' sessions are known.
    pub sessions: bool,
}

/// Builds the window of a minute for D1: one row per task, with totals by random group if the sessions are known.
pub fn window(builder: &WindowBuilder<'_>, minute: i64, runs: &[Run]) -> Window {
    let WindowBuilder { names, world, outcome, sessions } = *builder;
    let cells = cells(world, runs, outcome);
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut rows: Vec<StratumRow> = names
        .iter()
        .zip(&cells)
        .filter(|(_, cell)| cell[0].1 + cell[1].1 > 0)
        .map(|(name, cell)| StratumRow {
            stratum: Arc::clone(name),
            baseline: Measure::from_counts(count(cell[0].0), count(cell[0].1)),
            canary: Measure::from_counts(count(cell[1].0), count(cell[1].1)),
        })
        .collect();
    if let Some(first) = rows.first_mut().filter(|_| sessions) {
        // Totals belong to the window, whichever row holds them.
        let mut groups = [0, 1].map(|_| Groups { events: vec![0; GROUPS], runs: vec![0; GROUPS] });
        for run in runs {
            let (arm, group) = (&mut groups[usize::from(run.canary)], group(run));
            arm.events[group] += i64::from(world.has_outcome(run, outcome));
            arm.runs[group] += 1;
        }
        let [baseline, canary] = groups;
        (first.baseline.groups, first.canary.groups) = (Some(Box::new(baseline)), Some(Box::new(canary)));
    }
    Window { start: EPOCH + minute, historical: false, wander: None, rows }
}

/// Builds a window with one unnamed row.
pub fn single(minute: i64, baseline: Measure, canary: Measure) -> Window {
    Window {
        start: EPOCH + minute,
        historical: false,
        wander: None,
        rows: vec![StratumRow { stratum: Arc::from(""), baseline, canary }],
    }
}

/// Returns the latencies of a minute by bin, for baseline and canary.
pub fn latencies(world: &World, runs: &[Run]) -> [Measure; 2] {
    let mut bins = [vec![0_i64; BINS], vec![0_i64; BINS]];
    for run in runs {
        bins[usize::from(run.canary)][bin_of(world.latency_micros(run))] += 1;
    }
    bins.map(Measure::from_histogram)
}

/// Returns cost and completed tasks of a minute by random group of sessions, for baseline and canary.
pub fn costs(world: &World, runs: &[Run]) -> [Measure; 2] {
    let empty = || Groups { events: vec![0; GROUPS], runs: vec![0; GROUPS] };
    let mut arms = [(empty(), RatioTotals::default(), 0), (empty(), RatioTotals::default(), 0)];
    for run in runs {
        let (groups, totals, count) = &mut arms[usize::from(run.canary)];
        let cost = i64::try_from(world.cost_micros(run)).unwrap_or(i64::MAX);
        let completed = i64::from(!world.has_outcome(run, Outcome::Failure));
        groups.events[group(run)] += cost;
        groups.runs[group(run)] += completed;
        totals.y += i128::from(cost);
        totals.x += i128::from(completed);
        *count += 1;
    }
    arms.map(|(groups, totals, runs)| Measure {
        runs,
        groups: Some(Box::new(groups)),
        ratio: Some(Box::new(totals)),
        ..Measure::default()
    })
}

/// Minutes between two updates of the drift detectors.
pub const STEP_MINUTES: i64 = 5;

/// Days of the past that a baseline is learned from.
pub const PAST_DAYS: i64 = 28;
