//! Which differences between two weeks are clear.
//!
//! The views give each figure with a 95 % interval. The interval of a difference follows from those of its two terms by the
//! method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008): the distance from each estimate to
//! the end of its interval is its error in that direction. A report makes many comparisons, so each is made at the level that
//! keeps the probability of even one false finding below 5 % (Bonferroni).

use bellwether_stats::interval::normal_quantile;
use serde_json::{Map, Value};

/// Probability that a report without any true change lists one.
const ALPHA: f64 = 0.05;

/// Quantile of the normal distribution behind the intervals of the views, which hold with 95 %.
const OF_VIEWS: f64 = 0.975;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The unit of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Share,
    PerThousand,
    Milliseconds,
    Money,
}

/// A metric that is compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Its column in the views.
    pub(crate) column: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) more_is_better: bool,
}

/// The metrics that are compared, the most important one first.
pub(crate) const MEASURES: [Measure; 7] = [
    measure("success_rate", "task success", Unit::Share, true),
    measure("policy_exceptions_per_1000", "policy exceptions per 1,000 runs", Unit::PerThousand, false),
    measure("schema_adherence", "schema adherence", Unit::Share, true),
    measure("escalation_rate", "escalation rate", Unit::Share, false),
    measure("tool_failure_rate", "tool failure rate", Unit::Share, false),
    measure("cost_per_completed_task", "cost per completed task", Unit::Money, false),
    measure("latency_ms_mean", "mean latency", Unit::Milliseconds, false),
];

const fn measure(column: &'static str, name: &'static str, unit: Unit, more_is_better: bool) -> Measure {
    Measure { column, name, unit, more_is_better }
}

/// A difference between two weeks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) delta: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

// === impl Figure ===

impl Figure {
    /// Reads a column and its interval from a row of a view; none if there is no value.
    pub(crate) fn of(row: &Map<String, Value>, column: &str) -> Option<Self> {
        let number = |name: &str| row.get(name).and_then(Value::as_f64);
        let value = number(column)?;
        Some(Self {
            value,
            low: number(&format!("{column}_low")).unwrap_or(f64::NEG_INFINITY),
            high: number(&format!("{column}_high")).unwrap_or(f64::INFINITY),
        })
    }

    /// Returns the difference to an earlier figure, with an interval for one of `comparisons` that are made together.
    pub(crate) fn since(self, before: Self, comparisons: usize) -> Difference {
        let wider = widening(comparisons);
        let error = |later: f64, earlier: f64| wider * later.hypot(earlier);
        let delta = self.value - before.value;
        Difference {
            delta,
            low: delta - error(self.value - self.low, before.high - before.value),
            high: delta + error(self.high - self.value, before.value - before.low),
        }
    }
}

/// Returns how much wider than the views' an interval is that holds for all of `comparisons` together.
#[expect(clippy::cast_precision_loss, reason = "a report has few comparisons")]
fn widening(comparisons: usize) -> f64 {
    normal_quantile(1.0 - ALPHA / (2.0 * comparisons.max(1) as f64)) / normal_quantile(OF_VIEWS)
}

// === impl Difference ===

impl Difference {
    /// Returns true if the interval excludes that nothing changed.
    pub(crate) fn is_clear(self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Returns true if the figure of a measure got better.
    pub(crate) fn is_better(self, measure: &Measure) -> bool {
        (self.delta > 0.0) == measure.more_is_better
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_stats::interval::wilson;

    fn share(events: f64, runs: f64) -> Figure {
        let interval = wilson(events, runs, 0.95).expect("an interval");
        Figure { value: events / runs, low: interval.low, high: interval.high }
    }

    /// Newcombe, Statistics in Medicine 17, 1998, table II, method 10: 56/70 and 48/80 differ by 0.2, from 0.0524 to 0.3339.
    #[test]
    fn a_difference_of_shares_has_the_published_interval() {
        let difference = share(56.0, 70.0).since(share(48.0, 80.0), 1);
        assert!((difference.delta - 0.2).abs() < 1e-9);
        assert!((difference.low - 0.0524).abs() < 5e-5, "{difference:?}");
        assert!((difference.high - 0.3339).abs() < 5e-5, "{difference:?}");
        assert!(difference.is_clear() && difference.is_better(&MEASURES[0]) && !difference.is_better(&MEASURES[3]));
    }

    #[test]
    fn many_comparisons_need_a_clearer_difference() {
        let (later, before) = (share(56.0, 70.0), share(48.0, 80.0));
        assert!(later.since(before, 1).is_clear());
        assert!(!later.since(before, 50).is_clear());
        // The level of 50 comparisons is 0.001, of which the two-sided quantile is 3.290527.
        assert!((widening(50) - 3.290_527 / 1.959_964).abs() < 1e-5);
    }

    #[test]
    fn a_figure_without_an_interval_is_never_clear() {
        let row: Map<String, Value> = serde_json::from_str(r#"{"x": 0.5, "y": null}"#).expect("JSON");
        let figure = Figure::of(&row, "x").expect("a value");
        assert!(!figure.since(share(1.0, 1_000_000.0), 1).is_clear());
        assert_eq!((Figure::of(&row, "y"), Figure::of(&row, "z")), (None, None));
    }
}
