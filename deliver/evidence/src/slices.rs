//! How much of a change is mix and how much is rate, and the slices of traffic that it comes from (D10).
//!
//! * Model, tenant, task and each segment divide the runs: a slice's share of the change is its part of the exact decomposition into
//!   mix and rate ([`attribution::mix_and_rate`]). Tools divide tool calls likewise, for rules about tool calls.
//! * A tool that failed and an invalid field describe bad runs, and a run may have several: the share is the part of the change that
//!   comes from bad runs with that failure, against all other bad runs.
//!
//! A share only describes. A slice is shown if it has enough runs, makes a tenth of the change, and its own change is more than
//! chance, with at most one in twenty of such slices false ([`attribution::by_evidence`]).

use std::collections::{BTreeMap, BTreeSet};

use bellwether_sinks::page::{Arm, Mix, SliceShare};
use bellwether_stats::attribution::{self, MIN_POWER, MOSTLY_MIX, Slice};
use bellwether_stats::e2x2::{Table, Test};

use crate::measure::{Kind, Measure};
use crate::runs::Run;

/// Most slices on a page.
const MOST_SLICES: usize = 5;

/// Most values of a dimension. One with more holds ids, and each has too few runs.
const MOST_VALUES: usize = 200;

/// Fewest units of a slice under judgement, and fewest bad ones.
const LEAST_UNITS: u64 = 20;
const LEAST_BAD: u64 = 5;

/// Share of false slices among those that are shown.
const FALSE_SLICES: f64 = 0.05;

/// Longest value on a page, characters.
const LONGEST_VALUE: usize = 120;

/// The decomposition of a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decomposition {
    pub(crate) mix: Option<Mix>,
    pub(crate) slices: Vec<SliceShare>,
    pub(crate) notes: Vec<String>,
}

/// Sums of one slice: weighted for figures, observed for evidence.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    weighted: Slice,
    /// Bad units and units of the baseline, then of the side under judgement.
    seen: [f64; 4],
}

/// A slice with its share of the change and its evidence.
struct Candidate {
    dimension: String,
    value: String,
    share: f64,
    sums: Sums,
    log_e: f64,
}

type Slices = BTreeMap<String, Sums>;

// === impl Sums ===

impl Sums {
    fn add(&mut self, own: bool, weight: f64, amount: f64, units: f64) {
        let (amounts, all, seen) = match own {
            false => (&mut self.weighted.amount_a, &mut self.weighted.units_a, 0),
            true => (&mut self.weighted.amount_b, &mut self.weighted.units_b, 2),
        };
        *amounts += weight * amount;
        *all += weight * units;
        self.seen[seen] += amount;
        self.seen[seen + 1] += units;
    }

    /// Returns the evidence that bad units are more common on the side under judgement, nats.
    fn log_e(&self) -> f64 {
        let [events_a, total_a, events_b, total_b] = self.seen.map(count);
        let table = Table::new(events_a, total_a, events_b, total_b);
        table.map_or(0.0, |table| Test::default().evidence([&table]).log_e())
    }

    fn is_large(&self) -> bool {
        count(self.seen[3]) >= LEAST_UNITS && count(self.seen[2]) >= LEAST_BAD
    }

    fn arms(&self) -> (Option<Arm>, Option<Arm>) {
        let arm = |name: &str, amount: f64, units: f64| {
            let value = (units > 0.0).then(|| amount / units);
            Some(Arm { name: name.to_owned(), events: Some(count(amount)), runs: Some(count(units)), value })
        };
        let Slice { amount_a, units_a, amount_b, units_b } = self.weighted;
        (arm("before", amount_a, units_a), arm("now", amount_b, units_b))
    }
}

/// Returns the nearest count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is rounded, and not negative")]
fn count(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

/// Decomposes the change between both sides.
pub(crate) fn decompose(runs: &[Run], measure: &Measure) -> Decomposition {
    let mut whole = Sums::default();
    runs.iter().for_each(|run| whole.add(run.own, run.weight, run.amount, run.units));
    let Slice { amount_a, units_a, amount_b, units_b } = whole.weighted;
    if !measure.is_rate() || units_a <= 0.0 || units_b <= 0.0 || amount_b / units_b <= amount_a / units_a {
        return Decomposition::default();
    }
    let dimensions = dimensions(runs, measure);
    let mut found = Decomposition::default();
    mix(&dimensions, measure, &mut found);
    if measure.is_share() {
        let mut candidates: Vec<Candidate> =
            dimensions.iter().flat_map(|(name, slices)| of_traffic(name, slices)).collect();
        candidates.extend(of_failures(runs, measure, whole));
        found.slices = shown(candidates);
    }
    found
}

/// Returns the dimensions that divide the runs into at least two slices.
fn dimensions(runs: &[Run], measure: &Measure) -> BTreeMap<String, Slices> {
    let mut all: BTreeMap<String, Slices> = BTreeMap::new();
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.segments.keys()).collect();
    for run in runs {
        let mut add = |dimension: &str, value: &str, amount: f64, units: f64| {
            let slices = all.entry(dimension.to_owned()).or_default();
            if slices.len() <= MOST_VALUES || slices.contains_key(value) {
                slices.entry(value.to_owned()).or_default().add(run.own, run.weight, amount, units);
            }
        };
        for (dimension, value) in [("model", &run.model), ("tenant", &run.tenant), ("task", &run.task)] {
            add(dimension, value, run.amount, run.units);
        }
        for key in &keys {
            let value = run.segments.get(*key).map_or("", String::as_str);
            add(&format!("segment {key}"), value, run.amount, run.units);
        }
        if measure.kind == Kind::ToolCalls {
            for (tool, failed) in &run.tools {
                add("tool", tool, if *failed { 1.0 } else { 0.0 }, 1.0);
            }
        }
    }
    all.retain(|_, slices| (2..=MOST_VALUES).contains(&slices.len()));
    all
}

/// Decomposes the change along the dimension with the greatest mix, and names it.
fn mix(dimensions: &BTreeMap<String, Slices>, measure: &Measure, found: &mut Decomposition) {
    let effects = dimensions.iter().filter_map(|(name, slices)| {
        let slices: Vec<Slice> = slices.values().map(|sums| sums.weighted).collect();
        let effects = attribution::mix_and_rate(&slices).ok()??;
        let sum = |of: fn(&attribution::Effect) -> f64| effects.iter().map(of).sum::<f64>();
        Some((
            name,
            Mix { mix: sum(|effect| effect.mix), rate: sum(|effect| effect.rate) },
            attribution::mix_share(&effects),
        ))
    });
    let Some((name, mut mix, share)) = effects.max_by(|a, b| a.1.mix.abs().total_cmp(&b.1.mix.abs())) else { return };
    if share > MOSTLY_MIX {
        found.notes.push(format!(
            "Most of the change comes from another mix of runs by {name}: the traffic changed, not the quality."
        ));
    } else {
        found.notes.push(format!("Mix and rate are by {name}, the dimension in which the mix of runs changed most."));
    }
    if measure.kind == Kind::Cost {
        (mix.mix, mix.rate) = (mix.mix / 1e9, mix.rate / 1e9);
    }
    found.mix = Some(mix);
}

/// Returns the slices of a dimension that divides the runs, with their shares of the change.
fn of_traffic(dimension: &str, slices: &Slices) -> Vec<Candidate> {
    let weighted: Vec<Slice> = slices.values().map(|sums| sums.weighted).collect();
    let Ok(Some(effects)) = attribution::mix_and_rate(&weighted) else { return Vec::new() };
    let change: f64 = effects.iter().map(|effect| effect.mix + effect.rate).sum();
    let candidate = |((value, sums), effect): ((&String, &Sums), &attribution::Effect)| Candidate {
        dimension: dimension.to_owned(),
        value: value.clone(),
        share: (effect.mix + effect.rate) / change,
        sums: *sums,
        log_e: sums.log_e(),
    };
    slices.iter().zip(&effects).map(candidate).collect()
}

/// Returns the failures of bad runs, with the part of the change that comes from bad runs with each.
fn of_failures(runs: &[Run], measure: &Measure, whole: Sums) -> Vec<Candidate> {
    if matches!(measure.kind, Kind::ToolCalls | Kind::Calls) {
        return Vec::new();
    }
    let mut bad: BTreeMap<(&str, &str), Sums> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.amount > 0.0) {
        let tools = run.tools.iter().filter(|(_, failed)| *failed).map(|(tool, _)| ("tool", tool.as_str()));
        let fields = run.field_errors.iter().map(|error| ("field error", error.trim_end()));
        for key in tools.chain(fields).collect::<BTreeSet<_>>() {
            bad.entry(key).or_default().add(run.own, run.weight, run.amount, 0.0);
        }
    }
    let candidate = |((dimension, value), with): ((&str, &str), Sums)| {
        // Bad runs with the failure and without it, each among all runs.
        let all = whole.weighted;
        let inside = Slice { units_a: all.units_a, units_b: all.units_b, ..with.weighted };
        let outside = Slice {
            amount_a: (all.amount_a - inside.amount_a).max(0.0),
            amount_b: (all.amount_b - inside.amount_b).max(0.0),
            ..all
        };
        let effects = attribution::mix_and_rate(&[inside, outside]).ok()??;
        let mut seen = with.seen;
        (seen[1], seen[3]) = (whole.seen[1], whole.seen[3]);
        let sums = Sums { weighted: inside, seen };
        let share = effects[0].rate / (effects[0].rate + effects[1].rate);
        Some(Candidate { dimension: dimension.to_owned(), value: value.to_owned(), share, sums, log_e: sums.log_e() })
    };
    bad.into_iter().filter_map(candidate).collect()
}

/// Returns the slices that deserve a place on the page, the largest share first.
fn shown(candidates: Vec<Candidate>) -> Vec<SliceShare> {
    let log_e: Vec<f64> = candidates.iter().map(|candidate| candidate.log_e).collect();
    let Ok(ranked) = attribution::by_evidence(&log_e, FALSE_SLICES) else { return Vec::new() };
    let mut kept: Vec<&Candidate> = ranked
        .iter()
        .filter(|slice| slice.believed)
        .map(|slice| &candidates[slice.slice])
        .filter(|slice| !slice.value.is_empty() && slice.share >= MIN_POWER && slice.sums.is_large())
        .collect();
    // The sort is stable: of equal shares, the one with more evidence comes first.
    kept.sort_by(|a, b| b.share.total_cmp(&a.share));
    let page = |slice: &Candidate| {
        let (baseline, canary) = slice.sums.arms();
        SliceShare { dimension: cut(&slice.dimension), value: cut(&slice.value), share: slice.share, baseline, canary }
    };
    kept.into_iter().take(MOST_SLICES).map(page).collect()
}

/// Cuts a text that is too long for a page.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::AlertRecord;

    fn measure(rule: &str) -> Measure {
        Measure::of(&AlertRecord { rule: rule.to_owned(), ..AlertRecord::default() }).expect("a measure")
    }

    /// Returns runs of one side in a region; every `bad`th is bad, because of a tool.
    fn runs(own: bool, region: &str, number: usize, bad: usize) -> Vec<Run> {
        let run = |n: usize| {
            let is_bad = n.is_multiple_of(bad);
            Run {
                own,
                weight: 1.0,
                amount: if is_bad { 1.0 } else { 0.0 },
                units: 1.0,
                model: "m".to_owned(),
                segments: BTreeMap::from([("region".to_owned(), region.to_owned())]),
                tools: vec![("charge".to_owned(), is_bad && own), ("lookup".to_owned(), false)],
                ..Run::default()
            }
        };
        (0..number).map(run).collect()
    }

    fn named(found: &Decomposition) -> Vec<(&str, &str)> {
        found.slices.iter().map(|slice| (slice.dimension.as_str(), slice.value.as_str())).collect()
    }

    #[test]
    fn the_tool_and_the_segment_that_broke_are_named_and_their_shares_are_of_the_change() {
        let all = [
            runs(false, "eu", 600, 20),
            runs(false, "us", 600, 20),
            runs(true, "eu", 300, 2),
            runs(true, "us", 300, 20),
        ];
        let found = decompose(&all.concat(), &measure("success_regression"));
        let mut of = named(&found);
        of.sort_unstable();
        assert_eq!(of, [("segment region", "eu"), ("tool", "charge")], "{found:#?}");
        let segment = found.slices.iter().find(|slice| slice.value == "eu").expect("found");
        assert!((segment.share - 1.0).abs() < 1e-9, "all of it is in the EU: {segment:?}");
        let counts = |arm: &Option<Arm>| arm.as_ref().map(|arm| (arm.events, arm.runs));
        assert_eq!(counts(&segment.baseline), Some((Some(30), Some(600))));
        assert_eq!(counts(&segment.canary), Some((Some(150), Some(300))));
        let mix = found.mix.expect("a mix");
        assert!(mix.mix.abs() < 1e-9 && (mix.rate - (165.0 / 600.0 - 0.05)).abs() < 1e-9, "{mix:?}");
    }

    #[test]
    fn another_mix_of_the_same_rates_is_said_to_be_mix() {
        let all = [
            runs(false, "easy", 900, 50),
            runs(false, "hard", 100, 2),
            runs(true, "easy", 100, 50),
            runs(true, "hard", 900, 2),
        ];
        let found = decompose(&all.concat(), &measure("success_regression"));
        let mix = found.mix.expect("a mix");
        assert!(mix.rate.abs() < 1e-9 && mix.mix > 0.3, "{mix:?}");
        assert!(
            found.notes[0].starts_with("Most of the change comes from another mix of runs by segment region"),
            "{:?}",
            found.notes
        );
    }

    #[test]
    fn small_unsupported_and_improved_slices_are_not_shown() {
        let small =
            [runs(false, "eu", 40, 20), runs(true, "eu", 8, 2), runs(false, "us", 40, 20), runs(true, "us", 8, 20)];
        assert_eq!(named(&decompose(&small.concat(), &measure("success_regression"))), []);
        let better =
            [runs(false, "eu", 600, 2), runs(true, "eu", 600, 20), runs(false, "us", 9, 2), runs(true, "us", 9, 2)];
        assert_eq!(decompose(&better.concat(), &measure("success_regression")), Decomposition::default());
        assert_eq!(decompose(&[], &measure("success_regression")), Decomposition::default());
    }

    #[test]
    fn a_dimension_of_ids_is_left_out() {
        let mut all = [runs(false, "eu", 600, 20), runs(true, "eu", 600, 2)].concat();
        for (place, run) in all.iter_mut().enumerate() {
            run.segments.insert("request".to_owned(), place.to_string());
        }
        assert!(named(&decompose(&all, &measure("success_regression"))).iter().all(|(name, _)| *name == "tool"));
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(cut(&"é".repeat(200)).chars().count(), LONGEST_VALUE + 1);
        assert_eq!(cut("eu"), "eu");
    }
}
