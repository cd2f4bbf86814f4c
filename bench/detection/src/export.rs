//! Exports the same series as JSON for peers that are Python packages, and reads their answers as rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chance::Key;
use crate::detector::{PAST_DAYS, cells};
use crate::series::{CountSeries, series};
use crate::suite::{Plan, Results};
use crate::tally::{TableRow, over_seeds, rate};
use crate::trial::Delay;
use crate::world::{Change, DAY, NONE, Outcome, Scope, Traffic, WEEK, World};

/// A release: cumulative counts of both arms every five minutes, `[runs, failed, runs, failed]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReleaseSeries {
    scenario: &'static str,
    traffic: &'static str,
    seeds: Vec<Vec<[u64; 4]>>,
}

/// A series in steps of five minutes: `[failed, runs]`, and the minute of the change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PastSeries {
    scenario: &'static str,
    traffic: &'static str,
    past_minutes: i64,
    within_minutes: i64,
    seeds: Vec<(Option<i64>, CountSeries)>,
}

/// The input of the peers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Export {
    releases: Vec<ReleaseSeries>,
    past: Vec<PastSeries>,
}

/// The result of a peer.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerAnswer {
    scenario: String,
    traffic: String,
    detector: String,
    /// Minutes to the first alarm, one per seed.
    delays: Option<Vec<Option<f64>>>,
    /// Number of alarms of each series, and weeks that each was watched.
    alarms: Option<Vec<usize>>,
    weeks: Option<f64>,
}

/// Results of one environment of packages.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerAnswers {
    /// Packages with their versions.
    pub packages: BTreeMap<String, String>,
    answers: Vec<PeerAnswer>,
}

/// Builds the export.
pub fn export(plan: &Plan) -> Export {
    let half = |hard| Traffic { canary_hard: hard, ..Traffic::new(50.0).canary(0.5) };
    let main = Traffic::new(50.0).canary(0.1);
    let releases = [
        ("R0 no change", crate::suite::MAIN, main, 0.0),
        ("R1 -5 pp", crate::suite::MAIN, main, 0.05),
        ("R1 -10 pp", crate::suite::MAIN, main, 0.10),
        ("R9 harder traffic", crate::suite::HALF, half(2.84), 0.0),
        ("R10 easier traffic hides -3 pp", crate::suite::HALF, half(0.22), 0.03),
    ];
    let releases = releases.map(|(scenario, words, traffic, failure)| ReleaseSeries {
        scenario,
        traffic: words,
        seeds: over_seeds(plan.seeds(), |seed| release_series(seed, traffic, failure)),
    });
    let past = [
        ("D0 no change", NONE, 28),
        ("D1 -5 pp", Change { failure: 0.05, ..NONE }, 7),
        ("D1 -10 pp", Change { failure: 0.10, ..NONE }, 7),
        ("D3 2 h +20 pp", Change { failure: 0.20, lasts: Some(120), ..NONE }, 1),
    ];
    let seeds = plan.first..plan.first + (plan.seeds / 10).max(2);
    let past = past.map(|(scenario, change, days)| PastSeries {
        scenario,
        traffic: "3/min",
        past_minutes: PAST_DAYS * DAY,
        within_minutes: days * DAY,
        seeds: over_seeds(seeds.clone(), |seed| {
            let from = PAST_DAYS * DAY + Key::new(seed).at(78).below(WEEK.unsigned_abs()).cast_signed();
            let nothing = change == NONE;
            let world = World::new(seed, Traffic::new(3.0)).with(Change { from, ..change });
            let to = if nothing { 2 * PAST_DAYS } else { (from + days * DAY) / DAY + 1 };
            ((!nothing).then_some(from), series(&world, to, Outcome::Failure))
        }),
    });
    Export { releases: releases.into(), past: past.into() }
}

fn release_series(seed: u64, traffic: Traffic, failure: f64) -> Vec<[u64; 4]> {
    let start = World::release_start(seed);
    let world = World::new(seed, traffic).with(Change { scope: Scope::Canary, from: start, failure, ..NONE });
    let (mut sums, mut series) = ([0; 4], Vec::new());
    world.minutes(start, start + DAY, |minute, runs| {
        for cell in cells(&world, runs, Outcome::Failure) {
            for (arm, (events, runs)) in cell.into_iter().enumerate() {
                sums[2 * arm] += runs;
                sums[2 * arm + 1] += events;
            }
        }
        if (minute + 1 - start) % 5 == 0 {
            series.push(sums);
        }
    });
    series
}

/// Adds a peer's results to the tables.
pub fn add(results: &mut Results, answers: PeerAnswers) {
    for answer in answers.answers {
        let of_release = answer.scenario.starts_with('R');
        let seeds = answer.delays.as_ref().map_or_else(|| answer.alarms.as_ref().map_or(0, Vec::len), Vec::len);
        let mut row = TableRow::new(answer.scenario, answer.traffic, answer.detector, seeds);
        if let Some(delays) = answer.delays {
            let delays: Vec<Delay> = delays.into_iter().map(|minutes| minutes.map(|minutes| (minutes, 0.0))).collect();
            row = row.delays(&delays);
        }
        if let (Some(alarms), Some(weeks)) = (answer.alarms, answer.weeks) {
            #[expect(clippy::cast_precision_loss, reason = "some series")]
            let exposure = alarms.len() as f64 * weeks;
            row.false_a_week = Some(rate(alarms.iter().sum(), exposure));
        }
        let rows = if of_release { &mut results.releases } else { &mut results.past };
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_get_the_counts_that_the_detectors_get() {
        let plan = Plan { seeds: 2, nulls: 2, first: 1, quick: true };
        let export = export(&plan);
        assert!(export.releases.iter().all(|series| series.seeds.iter().all(|steps| steps.len() == 288)));
        let null = &export.releases[0].seeds[0];
        assert!(null.windows(2).all(|pair| (0..4).all(|place| pair[0][place] <= pair[1][place])));
        let last = null[287].map(|count| count as f64);
        assert!((last[2] / (last[0] + last[2]) - 0.1).abs() < 0.02, "{last:?}");
        assert!(
            export
                .past
                .iter()
                .all(|past| past.seeds.iter().all(|(change, _)| change.is_some() == (past.scenario != "D0 no change")))
        );
    }

    #[test]
    fn answers_become_rows() {
        let text = r#"{"packages":{"river":"0.1"},"answers":[{"scenario":"D0 no change","traffic":"3/min","detector":"x","alarms":[1,0],"weeks":4},
            {"scenario":"R1 -5 pp","traffic":"50/min","detector":"y","delays":[5.0,null,15.0]}]}"#;
        let mut results = Results::default();
        add(&mut results, serde_json::from_str(text).expect("answers"));
        let figure = results.past[0].false_a_week.expect("a rate");
        assert_eq!(figure.value, Some(0.125));
        assert_eq!(results.releases[0].minutes.expect("a median").value, Some(15.0));
    }
}
