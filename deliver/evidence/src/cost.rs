//! The money that a change costs, from the partials of `metrics` from which cost per completed task is computed.
//!
//! * Rules about outcomes: the cost of the runs that did not succeed, over the cost of such runs in as much traffic of the baseline.
//! * Rules about cost: the cost of the completed tasks, over the cost of as many completed tasks of the baseline.
//!
//! Runs that state no cost are left out. With several currencies, or none, there is no figure.

use bellwether_base::Result;
use bellwether_queries::Session;
use bellwether_sinks::page::CostImpact;
use bellwether_stats::figure;
use serde::Deserialize;

use crate::ask::shown;
use crate::comparison::Comparison;
use crate::measure::{Kind, Measure};

/// Sums of one side, of the runs that state a cost in one currency.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Costs {
    own: bool,
    currency: String,
    /// Cost of all runs and of the successful ones, units of the currency.
    spent: f64,
    succeeded: f64,
    runs: f64,
    completed: f64,
}

/// Returns the cost of the change; `None` if costs are not stated, or it costs nothing.
pub(crate) async fn impact(
    session: &Session,
    comparison: &Comparison,
    measure: &Measure,
) -> Result<Option<CostImpact>> {
    if !matches!(measure.kind, Kind::Outcome | Kind::Cost) {
        return Ok(None);
    }
    let own = comparison.is_own("window_start");
    let query = format!(
        "SELECT {own} AS own, cost_currency AS currency, weighted_sum(cost_nanos_sum, weight_micros) / 1e9 AS spent, \
         weighted_sum(cost_success_nanos_sum, weight_micros) / 1e9 AS succeeded, weighted_sum(cost_runs, weight_micros) AS runs, \
         weighted_sum(success, weight_micros) AS completed \
         FROM metrics WHERE cost_currency <> '' AND ({own} OR {}) GROUP BY 1, 2",
        comparison.is_other("window_start")
    );
    let costs: Vec<Costs> = session.rows(&query).await?;
    Ok(estimate(&costs, measure.kind, comparison))
}

fn estimate(costs: &[Costs], kind: Kind, comparison: &Comparison) -> Option<CostImpact> {
    let side = |own: bool| {
        let mut of = costs.iter().filter(|costs| costs.own == own && costs.runs > 0.0);
        of.next().filter(|_| of.next().is_none())
    };
    let (own, other) = (side(true)?, side(false)?);
    if own.currency != other.currency {
        return None;
    }
    let (spent, expected, what) = match kind {
        Kind::Cost => {
            let usual = Some(other.completed).filter(|completed| *completed > 0.0)?;
            let what = format!("{:.0} completed tasks", own.completed);
            (own.spent, other.spent / usual * own.completed, what)
        }
        _ => {
            let failed = |costs: &Costs| (costs.spent - costs.succeeded).max(0.0);
            let what = format!("The runs without success among {:.0}", own.runs);
            (failed(own), failed(other) / other.runs * own.runs, what)
        }
    };
    let amount = spent - expected;
    let money = |amount: f64| format!("{} {}", short(amount), own.currency);
    (amount > 0.0).then(|| CostImpact {
        currency: own.currency.clone(),
        amount,
        words: format!(
            "{what} since {} cost {}; at the rate of {} they would have cost {}.",
            shown(comparison.from),
            money(spent),
            comparison.against(),
            money(expected)
        ),
    })
}

/// Returns an amount of money with two decimals, and more if it is small.
fn short(amount: f64) -> String {
    if amount >= 1.0 { format!("{amount:.2}") } else { figure::number((amount * 1e6).round() / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::AlertRecord;

    fn costs(own: bool, currency: &str, spent: f64, succeeded: f64, runs: f64, completed: f64) -> Costs {
        Costs { own, currency: currency.to_owned(), spent, succeeded, runs, completed }
    }

    fn amount(of: &[Costs], kind: Kind) -> Option<f64> {
        let record = AlertRecord { baseline: "concurrent".to_owned(), ..AlertRecord::default() };
        estimate(of, kind, &Comparison::of(&record)).map(|impact| impact.amount)
    }

    #[test]
    fn the_cost_of_failed_runs_is_counted_over_the_expected() {
        let both = [costs(false, "USD", 100.0, 90.0, 1000.0, 950.0), costs(true, "USD", 12.0, 6.0, 100.0, 60.0)];
        assert_eq!(amount(&both, Kind::Outcome), Some(5.0), "6 spent, 1 expected");
        let expected = 12.0 - 100.0 / 950.0 * 60.0;
        assert!((amount(&both, Kind::Cost).expect("an amount") - expected).abs() < 1e-12);
    }

    #[test]
    fn without_costs_or_with_several_currencies_there_is_no_figure() {
        let (usual, worse) =
            (costs(false, "USD", 100.0, 90.0, 1000.0, 950.0), costs(true, "USD", 12.0, 6.0, 100.0, 60.0));
        assert_eq!(amount(&[], Kind::Outcome), None);
        assert_eq!(amount(std::slice::from_ref(&worse), Kind::Outcome), None, "the baseline states none");
        let euro = costs(true, "EUR", 12.0, 6.0, 100.0, 60.0);
        assert_eq!(amount(&[usual.clone(), euro.clone()], Kind::Outcome), None, "another currency");
        assert_eq!(amount(&[usual.clone(), worse, euro], Kind::Outcome), None, "two currencies");
        let better = costs(true, "USD", 9.0, 8.9, 100.0, 99.0);
        assert_eq!(amount(&[usual, better], Kind::Outcome), None, "it costs no more");
    }
}
