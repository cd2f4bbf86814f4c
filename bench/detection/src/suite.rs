//! The scenarios, on how many seeds, and what is required of them.
//!
//! Every scenario makes rows ([`Row`]); the targets are looked up in the rows, so that what is required and what the tables
//! show cannot differ.

mod fleet;
mod missing;
mod past;
mod release;

use std::ops::Range;

use bellwether_stats::Invalid;
use serde::Serialize;

use crate::picture::Curves;
use crate::tally::Row;
use crate::world::Traffic;

/// First seed that was not looked at while detectors and their parameters were chosen.
pub const HELD_OUT: u64 = 10_000;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seeds of scenarios in which something is wrong.
    pub seeds: u64,
    /// Seeds of those in which nothing is.
    pub nulls: u64,
    /// First seed.
    pub first: u64,
    /// Only what the targets need.
    pub quick: bool,
}

/// What is required of a scenario, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What has to hold.
    pub what: String,
    /// Where it was looked up.
    pub scenario: String,
    /// The figure found.
    pub found: Option<f64>,
    /// What it must not exceed, or (`at_least`) not fall below.
    pub limit: f64,
    /// True if more is better.
    pub at_least: bool,
    /// Digits and unit.
    pub unit: &'static str,
    /// Seeds it rests on.
    pub seeds: u64,
    /// Lower and upper end of the figure's 95 % interval.
    pub interval: (Option<f64>, Option<f64>),
}

/// Everything of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// Rows of releases.
    pub releases: Vec<Row>,
    /// Rows of change against one's own past.
    pub past: Vec<Row>,
    /// Rows of many series, objectives and missing data.
    pub others: Vec<Row>,
    /// What is required.
    pub targets: Vec<Target>,
    /// Evidence over time, for pictures.
    #[serde(skip)]
    pub curves: Curves,
}

/// Which figure of a row a target is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Share of seeds that alarmed, per cent.
    Alarmed,
    /// Median delay, minutes.
    Minutes,
    /// False alarms a series and week.
    FalseAWeek,
    /// The row's other figure.
    Other,
}

// === impl Plan ===

impl Plan {
    /// 100 seeds, 400 where nothing is wrong, all held out.
    pub const FULL: Self = Self { seeds: 100, nulls: 400, first: HELD_OUT, quick: false };

    /// What a test has time for.
    pub const QUICK: Self = Self { seeds: 15, nulls: 60, first: HELD_OUT, quick: true };

    /// Seeds of a scenario in which something is wrong.
    pub fn seeds(&self) -> Range<u64> {
        self.first..self.first + self.seeds
    }

    /// Seeds of one in which nothing is.
    pub fn nulls(&self) -> Range<u64> {
        self.first..self.first + self.nulls
    }
}

// === impl Target ===

impl Target {
    /// True if it holds.
    pub fn holds(&self) -> bool {
        self.found.is_some_and(|found| if self.at_least { found >= self.limit } else { found <= self.limit })
    }

    /// True if chance alone does not explain that it does not hold: its whole interval is beyond the limit.
    pub fn surely_fails(&self) -> bool {
        let (low, high) = self.interval;
        if self.holds() {
            false
        } else if self.at_least {
            high.is_some_and(|high| high < self.limit)
        } else {
            // A median whose lower end is unknown was never reached at all.
            low.is_none_or(|low| low > self.limit)
        }
    }
}

// === impl Results ===

impl Results {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.releases.iter().chain(&self.past).chain(&self.others)
    }

    /// The row of a scenario, traffic and detector.
    pub fn row(&self, scenario: &str, traffic: &str, detector: &str) -> Option<&Row> {
        self.rows().find(|row| row.scenario == scenario && row.traffic == traffic && row.detector == detector)
    }

    fn require(&mut self, what: &str, place: (&str, &str, &str), of: Of, at_least: bool, limit: f64) {
        let Some(row) = self.row(place.0, place.1, place.2) else { return };
        let (figure, unit, factor) = match of {
            Of::Alarmed => (row.alarmed, "%", 100.0),
            Of::Minutes => (row.minutes, "min", 1.0),
            Of::FalseAWeek => (row.false_a_week, "a week", 1.0),
            Of::Other => (row.other.as_ref().map(|(_, figure)| *figure), "%", 100.0),
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

/// Traffic in words.
pub(crate) fn traffic_text(traffic: &Traffic) -> String {
    let canary = if traffic.canary > 0.0 { format!(", {:.0} % canary", 100.0 * traffic.canary) } else { String::new() };
    let icc = if traffic.icc > 0.0 { format!(", ICC {}", traffic.icc) } else { String::new() };
    let wander = if traffic.wander > 0.0 { format!(", wanders {}", traffic.wander) } else { String::new() };
    // 500 runs a day are 0.35 a minute.
    format!("{}/min{canary}{icc}{wander}", (traffic.per_minute * 100.0).round() / 100.0)
}

/// Runs all of it; `say` is told what is being done.
///
/// # Errors
/// Fails if a detector refuses its parameters.
pub fn run(plan: &Plan, mut say: impl FnMut(&str)) -> Result<Results, Invalid> {
    let mut results = Results::default();
    say("releases");
    release::run(plan, &mut results);
    say("change against one's own past");
    past::run(plan, &mut results)?;
    say("missing data and objectives");
    missing::run(plan, &mut results)?;
    say("many series");
    fleet::run(plan, &mut results)?;
    require(&mut results);
    Ok(results)
}

/// Name of the main traffic of releases, and of the same with half of it on the canary.
pub(crate) const MAIN: &str = "50/min, 10 % canary";
pub(crate) const HALF: &str = "50/min, 50 % canary";

/// What is required.
fn require(results: &mut Results) {
    for traffic in [MAIN, "30/min, 50 % canary", "3/min, 50 % canary", "0.3/min, 50 % canary"] {
        let what = "a release without a change: at most 1 % alarm, however often one looks";
        results.require(what, ("R0 no change", traffic, release::D1), Of::Alarmed, false, 1.0);
    }
    let clustered = ("R0 no change", "30/min, 50 % canary, ICC 0.4", release::D1);
    results.require("the same where runs of a session fail together", clustered, Of::Alarmed, false, 1.0);
    results.require("-5 points are found", ("R1 -5 pp", MAIN, release::D1), Of::Minutes, false, 90.0);
    results.require("-10 points are found", ("R1 -10 pp", MAIN, release::D1), Of::Minutes, false, 30.0);
    results.require(
        "one task of twenty by 30 points",
        ("R8 one task +30 pp", HALF, release::D1),
        Of::Minutes,
        false,
        90.0,
    );
    results.require("the task is named first", ("R8 one task +30 pp", HALF, release::D1), Of::Other, true, 95.0);
    results.require(
        "other traffic is no regression",
        ("R9 harder traffic", HALF, release::D1),
        Of::Alarmed,
        false,
        1.0,
    );
    let hidden = ("R10 easier traffic hides -3 pp", HALF, release::D1);
    results.require("easier traffic hides nothing", hidden, Of::Alarmed, true, 95.0);
    results.require("an improvement is no alarm", ("R13 +5 pp", MAIN, release::D1), Of::Alarmed, false, 1.0);
    for traffic in ["0.3/min", "3/min", "30/min"] {
        let what = "nothing changes: at most 0.1 false alarms a week";
        results.require(what, ("D0 no change", traffic, past::D4), Of::FalseAWeek, false, 0.1);
    }
    let sessions = ("D0 no change", "3/min, ICC 0.3", past::D4);
    results.require("the same where runs of a session fail together", sessions, Of::FalseAWeek, false, 0.1);
    let wanders = ("D0 no change", "3/min, wanders 0.2", past::D4);
    results.require("the same where quality wanders from hour to hour", wanders, Of::FalseAWeek, false, 0.1);
    results.require("-5 points at 27,000 runs a week", ("D1 -5 pp", "3/min", past::D4), Of::Minutes, false, 300.0);
    results.require("-5 points at 268,000 runs a week", ("D1 -5 pp", "30/min", past::D4), Of::Minutes, false, 60.0);
    results.require("two hours of +20 points", ("D3 2 h +20 pp", "3/min", past::D4), Of::Minutes, false, 30.0);
    results.require(
        "rare events ten times as common",
        ("D8 exceptions x10", "20/min", past::D5),
        Of::Minutes,
        false,
        360.0,
    );
    results.require(
        "false alarms among all, of 200 series",
        (fleet::SCENARIO, fleet::TRAFFIC, fleet::FALSE),
        Of::Other,
        false,
        5.0,
    );
    results.require("series found, of 20", (fleet::SCENARIO, fleet::TRAFFIC, fleet::FOUND), Of::Other, true, 95.0);
    results.require(
        "objectives within budget never page",
        ("S within budget", "10 to 6000/h", missing::D8),
        Of::FalseAWeek,
        false,
        0.0,
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
    fn a_target_fails_surely_only_beyond_chance() {
        assert!(target(1.0, 1.0, false, (0.2, 3.0)).holds());
        let chance = target(2.0, 1.0, false, (0.5, 5.0));
        assert!(!chance.holds() && !chance.surely_fails());
        assert!(target(9.0, 1.0, false, (5.0, 15.0)).surely_fails());
        assert!(target(50.0, 95.0, true, (40.0, 60.0)).surely_fails());
        assert!(!target(90.0, 95.0, true, (80.0, 97.0)).surely_fails());
    }
}
