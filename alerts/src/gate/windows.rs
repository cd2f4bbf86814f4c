//! Windows with the runs of baseline and canary, from the observations of the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bellwether_base::{Error, Result};
use bellwether_detect::weights::ONE;
use bellwether_detect::{Measure, Minute, StratumRow, Window};
use bellwether_queries::Session;
use bellwether_tables::Table;

use super::metric::Metric;
use super::stated::{self, Stated};
use crate::engine::ask_rows;
use crate::observe::Observation;
use crate::rule::Rule;

/// Runs of the baseline from whose latencies quantiles come. They are no evidence themselves.
const REFERENCE_RUNS: f64 = 200.0;

/// Measures of baseline and canary by window.
type Arms = BTreeMap<Minute, [Measure; 2]>;

/// Latencies of the baseline, by bin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Latencies(Vec<f64>);

/// The rows of one slice.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    /// By metric, and currency for costs.
    arms: BTreeMap<Metric, BTreeMap<String, Arms>>,
    pub(super) stated: [Stated; 2],
}

/// The quantity to observe.
pub(super) struct Observer<'a> {
    /// For rows in memory.
    pub(super) memory: &'a Session,
    /// Baseline and canary.
    pub(super) releases: [&'a str; 2],
    /// The metrics with their rules, and for latencies the bin above which runs are slow.
    pub(super) metrics: Vec<(Metric, &'a Rule, Option<usize>)>,
}

// === impl Latencies ===

impl Latencies {
    /// Adds the latencies of the baseline in some observations.
    pub(super) fn add(&mut self, found: &[Observation], baseline: &str) {
        for cell in found.iter().map(|found| &found.cell).filter(|cell| &*cell.release == baseline) {
            let weight = weight_of(&cell.measure);
            if self.0.len() < cell.measure.bins.len() {
                self.0.resize(cell.measure.bins.len(), 0.0);
            }
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            self.0.iter_mut().zip(&cell.measure.bins).for_each(|(sum, more)| *sum += *more as f64 * weight as f64);
        }
    }

    /// Returns true if there are enough for a quantile.
    #[expect(clippy::cast_precision_loss, reason = "a weight needs no more digits than a double has")]
    pub(super) fn suffice(&self) -> bool {
        self.0.iter().sum::<f64>() >= REFERENCE_RUNS * ONE as f64
    }

    /// Returns the bin with a quantile; none without runs.
    pub(super) fn bin_at(&self, quantile: f64) -> Option<usize> {
        let total: f64 = self.0.iter().sum();
        let mut below = 0.0;
        self.0.iter().position(|bin| {
            below += bin;
            total > 0.0 && *bin > 0.0 && below >= quantile * total
        })
    }
}

// === impl Observer ===

impl Observer<'_> {
    /// Puts rows of `metrics` into memory.
    pub(super) fn put(&self, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<()> {
        self.memory.put(Table::Metrics, schema, rows)
    }

    /// Adds the observations of the rows in memory to a slice.
    pub(super) async fn take(&self, slice: &mut Slice) -> Result<()> {
        for (metric, rule, slow) in &self.metrics {
            for found in rows_of(self.memory, rule).await? {
                let measure = match (metric.quantile(), slow) {
                    (None, _) => found.cell.measure,
                    (Some(_), Some(bin)) => slow_runs(&found.cell.measure, *bin),
                    (Some(_), None) => continue,
                };
                let Some(place) = self.releases.iter().position(|known| *known == &*found.cell.release) else {
                    continue;
                };
                let currency = if *metric == Metric::Cost { found.series.get(2).cloned() } else { None };
                let arms = slice.arms.entry(*metric).or_default().entry(currency.unwrap_or_default()).or_default();
                arms.entry(found.cell.window).or_default()[place].add(&measure);
            }
        }
        let answer = self.memory.execute(stated::SQL).await?.collect().await?;
        Stated::add(&mut slice.stated, self.releases, &answer)
    }
}

/// Returns the observations of a shipped rule over the rows in memory.
pub(super) async fn rows_of(memory: &Session, rule: &Rule) -> Result<Vec<Observation>> {
    Box::pin(ask_rows(memory, rule)).await.map_err(|why| {
        Error::unavailable(format!("the query of rule `{}` failed: {why}", rule.name))
            .with_hint("if memory or time did not suffice, ask about a shorter time with --since")
    })
}

/// Returns the weight of the runs of one row, which all have the same.
fn weight_of(measure: &Measure) -> i64 {
    measure.weights.as_deref().map_or(ONE, |weights| weights.max_weight.max(1))
}

/// Returns the runs above a bin as bad runs.
fn slow_runs(measure: &Measure, bin: usize) -> Measure {
    let slow = measure.bins.iter().skip(bin + 1).fold(0_i64, |sum, more| sum.saturating_add(*more));
    Measure::from_counts(slow, measure.runs).with_weight(weight_of(measure))
}

// === impl Slice ===

impl Slice {
    /// Returns the currency in which the baseline has most runs with a cost.
    pub(super) fn currency(&self) -> String {
        let costs = self.arms.get(&Metric::Cost);
        let runs = |arms: &Arms, place: usize| arms.values().map(|both| both[place].runs).sum::<i64>();
        let most = costs.into_iter().flatten().max_by_key(|(_, arms)| (runs(arms, 0), runs(arms, 1)));
        most.map(|(currency, _)| currency.clone()).unwrap_or_default()
    }

    /// Returns true if a release states a metric.
    pub(super) fn states(&self, metric: Metric) -> bool {
        match metric.quantile() {
            Some(_) => self.stated.iter().any(|arm| arm.latency > 0.0),
            None => !self.windows(metric).is_empty(),
        }
    }

    /// Returns the windows of a metric. Without a run of either release there is none.
    pub(super) fn windows(&self, metric: Metric) -> Vec<Window> {
        let currency = if metric == Metric::Cost { self.currency() } else { String::new() };
        let arms = self.arms.get(&metric).and_then(|by_currency| by_currency.get(&currency));
        let window = |(start, [baseline, canary]): (&Minute, &[Measure; 2])| Window {
            start: *start,
            historical: false,
            wander: None,
            rows: vec![StratumRow { stratum: Arc::from(""), baseline: baseline.clone(), canary: canary.clone() }],
        };
        let has_runs = |both: &&[Measure; 2]| both.iter().any(|measure| measure.runs > 0 || measure.events > 0);
        arms.into_iter().flatten().filter(|(_, both)| has_runs(both)).map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use bellwether_detect::Cell;

    use super::*;

    fn observed(release: &str, bins: Vec<i64>, weight: i64) -> Observation {
        let measure = Measure::from_histogram(bins).with_weight(weight);
        let cell = Cell { window: 1, release: Arc::from(release), canary: false, stratum: Arc::from(""), measure };
        Observation { series: Vec::new(), cell }
    }

    #[test]
    fn a_quantile_counts_each_run_by_its_weight_and_only_those_of_the_baseline() {
        let mut latencies = Latencies::default();
        latencies.add(&[observed("v1", vec![0, 60, 30, 9], ONE), observed("v2", vec![0, 0, 0, 0, 900], ONE)], "v1");
        assert_eq!((latencies.bin_at(0.5), latencies.bin_at(0.95), latencies.suffice()), (Some(1), Some(3), false));
        latencies.add(&[observed("v1", vec![0, 0, 0, 0, 101], 10 * ONE)], "v1");
        assert_eq!((latencies.bin_at(0.5), latencies.suffice()), (Some(4), true));
        assert_eq!(Latencies::default().bin_at(0.5), None);
    }

    #[test]
    fn slow_runs_are_those_above_the_bin_with_their_weight() {
        let of = |weight| slow_runs(&Measure::from_histogram(vec![5, 4, 3, 2]).with_weight(weight), 1);
        assert_eq!(of(ONE), Measure::from_counts(5, 14));
        assert_eq!(of(2 * ONE), Measure::from_counts(5, 14).with_weight(2 * ONE));
        // A correction takes back what it corrects.
        assert_eq!(slow_runs(&Measure::from_histogram(vec![0, 1, -1]), 1), Measure::from_counts(-1, 0));
    }
}
