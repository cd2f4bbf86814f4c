//! Finds queries that count sampled runs without their weights.

use bellwether_tables::Table;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Columns that state the number of runs for which a row stands; one of them is enough.
const WEIGHTS: [&str; 2] = ["weight_micros", "sampling_probability"];

/// Column of `candidates` by which reviewed runs are weighted. It includes the sampling of the producer.
const INCLUSION: &str = "inclusion_probability";

/// Aggregates that add rows up, so that weights matter.
const ADDING: [&str; 3] = ["sum", "count", "avg"];

/// Returns, each once, the tables of runs that an optimised plan reads without a weight. A view scans its table several times,
/// to join and to rank; one scan with the weight is enough.
pub(crate) fn unweighted(plan: &LogicalPlan) -> Result<Vec<&'static str>> {
    let (mut read, mut weighted) = (Vec::new(), Vec::new());
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let tables = [Table::Metrics, Table::MetricsHourly, Table::MetricsDaily, Table::Events];
            let table = tables.into_iter().find(|table| scan.table_name.table() == table.name());
            let has = WEIGHTS.iter().any(|name| scan.projected_schema.has_column_with_unqualified_name(name));
            if scan.table_name.table() == Table::Candidates.name()
                && scan.projected_schema.has_column_with_unqualified_name(INCLUSION)
            {
                weighted.push(Table::Events.name());
            }
            if let Some(table) = table {
                let list = if has { &mut weighted } else { &mut read };
                list.push(table.name());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    read.retain(|table| !weighted.contains(table));
    read.sort_unstable();
    read.dedup();
    Ok(read)
}

/// Returns true if a plan adds rows up.
pub(crate) fn adds_up(plan: &LogicalPlan) -> Result<bool> {
    let mut adds = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::AggregateFunction(call) = part {
                    adds |= ADDING.contains(&call.func.name());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(adds)
}

#[cfg(test)]
mod tests {
    use crate::{Session, SessionSettings};

    #[tokio::test]
    async fn queries_that_count_runs_without_their_weight_are_found() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        for (sql, tables, adds) in [
            ("SELECT window_start, failure AS events, runs FROM metrics", &["metrics"][..], false),
            ("SELECT window_start, weight_micros, failure AS events, runs FROM metrics", &[], false),
            ("SELECT task, sum(failure) AS value FROM metrics GROUP BY task", &["metrics"], true),
            ("SELECT task, sum(failure * weight_micros) AS value FROM metrics GROUP BY task", &[], true),
            ("SELECT task, success_rate AS value FROM rolling WHERE span = '1h'", &[], true),
            ("SELECT task, escalation_rate AS value FROM last_day", &[], true),
            ("SELECT topic, max(kafka_timestamp) AS value FROM events GROUP BY topic", &["events"], false),
            ("SELECT count(*) AS value FROM runs", &["events"], true),
            ("SELECT sum(weight) AS value FROM runs", &[], true),
            ("SELECT max(evidence) AS value, sum(errors) FROM judge_drift", &[], true),
            ("SELECT count(*) AS value FROM judge_verdicts", &["events"], true),
            ("SELECT task, count(*) AS value FROM releases GROUP BY task", &[], true),
        ] {
            assert_eq!(session.unweighted(sql, false).await.expect(sql), tables, "{sql}");
            let adding = session.unweighted(sql, true).await.expect(sql);
            assert_eq!(adding, if adds { tables } else { &[] }, "{sql}");
        }
    }
}
