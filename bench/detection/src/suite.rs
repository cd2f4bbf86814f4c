//! The scenarios, their numbers of seeds, and the targets.
//!
//! Every scenario adds rows ([`TableRow`]); the targets are looked up in the rows, so that targets and tables cannot
//! differ.

mod fleet;
mod missing;
mod past;
mod release;

use std::ops::Range;

use bellwether_stats::Invalid;
use serde::Serialize;

use crate::picture::Curves;
use crate::tally::TableRow;
use crate::world::Traffic;

/// First seed that was not used while detectors and their parameters were chosen.
pub const HELD_OUT: u64 = 10_000;

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seeds of scenarios with a change.
    pub seeds: u64,
    /// Seeds of scenarios without a change.
    pub nulls: u64,
    pub first: u64,
    /// Run only the scenarios with targets.
    pub quick: bool,
}

/// A target of a scenario, and the measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Description of the target.
    pub what: String,
    /// Scenario of the figure.
    pub scenario: String,
    /// Measured figure.
    pub found: Option<f64>,
    /// Upper limit, or with `at_least` lower limit.
    pub limit: f64,
    /// True if more is better.
    pub at_least: bool,
    /// Unit of the figure.
    pub unit: &'static str,
    /// Number of seeds behind it.
    pub seeds: u64,
    /// Ends of the figure's 95 % confidence interval.
    pub interval: (Option<f64>, Option<f64>),
}

/// The results of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// Rows of releases.
    pub releases: Vec<TableRow>,
    /// Rows of change against the series' own past.
    pub past: Vec<TableRow>,
    /// Rows of many series, objectives and missing data.
    pub others: Vec<TableRow>,
    pub targets: Vec<Target>,
    /// Evidence over time, for the pictures.
    #[serde(skip)]
    pub curves: Curves,
}

/// The figure of a row that a target refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Percentage of seeds that alarmed.
    Alarmed,
    /// Median delay, minutes.
    Minutes,
    /// False alarms per series and week.
    FalseAWeek,
    /// The row's other figure.
    Other,
}

/// The required bound of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

// === impl Plan ===

impl Plan {
    /// 100 seeds, 400 without a change, all held out.
    pub const FULL: Self = Self { seeds: 100, nulls: 400, first: HELD_OUT, quick: false };

    /// The size of a test.
    pub const QUICK: Self = Self { seeds: 15, nulls: 60, first: HELD_OUT, quick: true };

    /// Returns the seeds of a scenario with a change.
    pub fn seeds(&self) -> Range<u64> {
        self.first..self.first + self.seeds
    }

    /// Returns the seeds of a scenario without a change.
    pub fn nulls(&self) -> Range<u64> {
        self.first..self.first + self.nulls
    }
}

// === impl Target ===

impl Target {
    /// Returns true if the target is met.
    pub fn holds(&self) -> bool {
        self.found.is_some_and(|found| if self.at_least { found >= self.limit } else { found <= self.limit })
    }

    /// Returns true if the target is missed significantly: the whole interval is beyond the limit.
    pub fn surely_fails(&self) -> bool {
        let (low, high) = self.interval;
        if self.holds() {
            false
        } else if self.at_least {
            high.is_some_and(|high| high < self.limit)
        } else {
            // A median with an unknown lower end was never reached at all.
            low.is_none_or(|low| low > self.limit)
        }
    }
}

// === impl Results ===

impl Results {
    fn rows(&self) -> impl Iterator<Item = &TableRow> {
        self.releases.iter().chain(&self.past).chain(&self.others)
    }

    /// Returns the row of a scenario, traffic and detector.
    pub fn row(&self, scenario: &str, traffic: &str, detector: &str) -> Option<&TableRow> {
        self.rows().find(|row| row.scenario == scenario && row.traffic == traffic && row.detector == detector)
    }

    fn require(&mut self, what: &str, place: (&str, &str, &str), metric: Metric, limit: Limit) {
        let Some(row) = self.row(place.0, place.1, place.2) else { return };
        let (figure, unit, factor) = match metric {
            Metric::Alarmed => (row.alarmed, "%", 100.0),
            Metric::Minutes => (row.minutes, "min", 1.0),
            Metric::FalseAWeek => (row.false_a_week, "a week", 1.0),
            Metric::Other => (row.other.as_ref().map(|(_, figure)| *figure), "%", 100.0),
        };
        let (at_least, limit) = match limit {
            Limit::AtLeast(limit) => (true, limit),
            Limit::AtMost(limit) => (false, limit),
        };
        let scaled = |value: Option<f64>| value.map(|value| value * factor);
        let target = Target {
            what: what.to_owned(),
            scenario: format!("{}, {}", place.0, place.1),
            found: figure.and_then(|figure| scaled(figure.value)),
            limit,
            at_least,
            unit,
            seeds: row.seeds,
            interval: figure.map_or((None, None), |figure| (scaled(figure.low), scaled(figure.high))),
        };
        self.targets.push(target);
    }
}

/// Describes the traffic.
pub(crate) fn describe_traffic(traffic: &Traffic) -> String {
    let canary = if traffic.canary > 0.0 { format!(", {:.0} % canary", 100.0 * traffic.canary) } else { String::new() };
    let icc = if traffic.icc > 0.0 { format!(", ICC {}", traffic.icc) } else { String::new() };
    let wander = if traffic.wander > 0.0 { format!(", wanders {}", traffic.wander) } else { String::new() };
    // 500 runs a day are 0.35 a minute.
    format!("{}/min{canary}{icc}{wander}", (traffic.per_minute * 100.0).round() / 100.0)
}

/// Runs all scenarios; `say` is called with the name of each step.
///
/// # Errors
/// Fails if a detector rejects its parameters.
pub fn run(plan: &Plan, mut say: impl FnMut(&str)) -> Result<Results, Invalid> {
    let mut results = Results::default();
    say("releases");
    release::run(plan, &mut results);
    say("change against the series' own past");
    past::run(plan, &mut results)?;
    say("missing data and objectives");
    missing::run(plan, &mut results)?;
    say("many series");
    fleet::run(plan, &mut results)?;
    require(&mut results);
    Ok(results)
}

/// Names of the main traffic of releases, and of the same with half of it on the canary.
pub(crate) const MAIN: &str = "50/min, 10 % canary";
pub(crate) const HALF: &str = "50/min, 50 % canary";

/// Adds the targets.
fn require(results: &mut Results) {
    for traffic in [MAIN, "30/min, 50 % canary", "3/min, 50 % canary", "0.3/min, 50 % canary"] {
        let what = "a release without a change: at most 1 % alarm, however often it is inspected";
        results.require(what, ("R0 no change", traffic, release::D1), Metric::Alarmed, Limit::AtMost(1.0));
    }
    let clustered = ("R0 no change", "30/min, 50 % canary, ICC 0.4", release::D1);
    results.require("the same, with correlated runs in sessions", clustered, Metric::Alarmed, Limit::AtMost(1.0));
    results.require("-5 points are detected", ("R1 -5 pp", MAIN, release::D1), Metric::Minutes, Limit::AtMost(90.0));
    results.require("-10 points are detected", ("R1 -10 pp", MAIN, release::D1), Metric::Minutes, Limit::AtMost(30.0));
    results.require(
        "30 points in one of twenty tasks are detected",
        ("R8 one task +30 pp", HALF, release::D1),
        Metric::Minutes,
        Limit::AtMost(90.0),
    );
    results.require(
        "the task is named first",
        ("R8 one task +30 pp", HALF, release::D1),
        Metric::Other,
        Limit::AtLeast(95.0),
    );
    results.require(
        "harder traffic is not a regression",
        ("R9 harder traffic", HALF, release::D1),
        Metric::Alarmed,
        Limit::AtMost(1.0),
    );
    let hidden = ("R10 easier traffic hides -3 pp", HALF, release::D1);
    results.require("easier traffic hides nothing", hidden, Metric::Alarmed, Limit::AtLeast(95.0));
    results.require(
        "an improvement does not alarm",
        ("R13 +5 pp", MAIN, release::D1),
        Metric::Alarmed,
        Limit::AtMost(1.0),
    );
    for traffic in ["0.3/min", "3/min", "30/min"] {
        let what = "no change: at most 0.1 false alarms a week";
        results.require(what, ("D0 no change", traffic, past::D4), Metric::FalseAWeek, Limit::AtMost(0.1));
    }
    let sessions = ("D0 no change", "3/min, ICC 0.3", past::D4);
    results.require("the same, with correlated runs in sessions", sessions, Metric::FalseAWeek, Limit::AtMost(0.1));
    let wanders = ("D0 no change", "3/min, wanders 0.2", past::D4);
    results.require(
        "the same, with quality that wanders from hour to hour",
        wanders,
        Metric::FalseAWeek,
        Limit::AtMost(0.1),
    );
    results.require(
        "-5 points at 27,000 runs a week",
        ("D1 -5 pp", "3/min", past::D4),
        Metric::Minutes,
        Limit::AtMost(300.0),
    );
    results.require(
        "-5 points at 268,000 runs a week",
        ("D1 -5 pp", "30/min", past::D4),
        Metric::Minutes,
        Limit::AtMost(60.0),
    );
    results.require(
        "two hours of +20 points",
        ("D3 2 h +20 pp", "3/min", past::D4),
        Metric::Minutes,
        Limit::AtMost(30.0),
    );
    results.require(
        "rare events ten times as frequent",
        ("D8 exceptions x10", "20/min", past::D5),
        Metric::Minutes,
        Limit::AtMost(360.0),
    );
    results.require(
        "false discovery rate, 200 series",
        (fleet::SCENARIO, fleet::TRAFFIC, fleet::FALSE),
        Metric::Other,
        Limit::AtMost(5.0),
    );
    results.require(
        "detected series, of 20",
        (fleet::SCENARIO, fleet::TRAFFIC, fleet::FOUND),
        Metric::Other,
        Limit::AtLeast(95.0),
    );
    results.require(
        "objectives within budget never page",
        ("S within budget", "10 to 6000/h", missing::D8),
        Metric::FalseAWeek,
        Limit::AtMost(0.0),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(found: f64, limit: f64, at_least: bool, interval: (f64, f64)) -> Target {
        Target {
            what: String::new(),
            scenario: String::new(),
            found: Some(found),
            limit,
            at_least,
            unit: "%",
            seeds: 10,
            interval: (Some(interval.0), Some(interval.1)),
        }
    }

    #[test]
    fn a_target_is_missed_significantly_only_beyond_its_interval() {
        assert!(target(1.0, 1.0, false, (0.2, 3.0)).holds());
        let chance = target(2.0, 1.0, false, (0.5, 5.0));
        assert!(!chance.holds() && !chance.surely_fails());
        assert!(target(9.0, 1.0, false, (5.0, 15.0)).surely_fails());
        assert!(target(50.0, 95.0, true, (40.0, 60.0)).surely_fails());
        assert!(!target(90.0, 95.0, true, (80.0, 97.0)).surely_fails());
    }
}
