//! Facts about a statement from its plan: the columns that it returns, the columns of tables that it reads, and the stored
//! column behind a column of its answer.
//!
//! Nothing here looks at SQL text: an alias, a comment or a view changes the text of a statement but not its plan.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_tables::Table;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TableScan, TryCast, Volatility};

/// Aggregates that return a sum of their argument.
const SUMS: [&str; 2] = ["sum", "whole_sum"];

/// Facts about one statement.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    returned: Vec<String>,
    read: BTreeMap<&'static str, BTreeSet<String>>,
    origins: BTreeMap<String, (Table, String)>,
}

// === impl Analysis ===

impl Analysis {
    /// Derives the facts from two plans: `planned` names the returned columns, and `optimized` scans only the required ones.
    pub(crate) fn new(planned: &LogicalPlan, optimized: &LogicalPlan) -> Result<Self> {
        let returned: Vec<String> = planned.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut read: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        optimized.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(table) = table_of(scan)
            {
                let columns = scan.projected_schema.fields().iter().map(|field| field.name().clone());
                read.entry(table.name()).or_default().extend(columns);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let origins = returned
            .iter()
            .enumerate()
            .filter_map(|(place, name)| Some((name.clone(), origin(planned, place)?)))
            .collect();
        Ok(Self { returned, read, origins })
    }

    /// Returns true if the answer has a column of this name.
    pub fn returns(&self, column: &str) -> bool {
        self.returned.iter().any(|name| name == column)
    }

    /// Returns true if the statement reads a table, even if it needs none of its columns.
    pub fn reads(&self, table: Table) -> bool {
        self.read.contains_key(table.name())
    }

    /// Returns the columns of a table that the statement needs, in the table's order.
    pub fn columns(&self, table: Table) -> Vec<&'static str> {
        let Some(read) = self.read.get(table.name()) else { return Vec::new() };
        table.columns().iter().map(|column| column.name).filter(|name| read.contains(*name)).collect()
    }

    /// Returns the stored column behind a column of the answer that holds its values or their sum; `None` for any other.
    pub fn origin(&self, column: &str) -> Option<(Table, &str)> {
        self.origins.get(column).map(|(table, name)| (*table, name.as_str()))
    }
}

fn table_of(scan: &TableScan) -> Option<Table> {
    Table::ALL.into_iter().find(|table| scan.table_name.table() == table.name())
}

/// Follows a column of a plan's output down to the table that stores it.
fn origin(plan: &LogicalPlan, place: usize) -> Option<(Table, String)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            Some((table_of(scan)?, scan.projected_schema.fields().get(place)?.name().clone()))
        }
        LogicalPlan::Projection(projection) => through(&projection.input, projection.expr.get(place)?),
        LogicalPlan::Aggregate(aggregate) => {
            let expr = match place.checked_sub(aggregate.group_expr.len()) {
                None => aggregate.group_expr.get(place)?,
                Some(place) => match without_names(aggregate.aggr_expr.get(place)?) {
                    Expr::AggregateFunction(call) if SUMS.contains(&call.func.name()) => call.params.args.first()?,
                    _ => return None,
                },
            };
            through(&aggregate.input, expr)
        }
        LogicalPlan::Filter(filter) => origin(&filter.input, place),
        LogicalPlan::Sort(sort) => origin(&sort.input, place),
        LogicalPlan::Limit(limit) => origin(&limit.input, place),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, place),
        LogicalPlan::Union(union) => {
            let mut origins = union.inputs.iter().map(|input| origin(input, place));
            let first = origins.next()??;
            origins.all(|other| other.as_ref() == Some(&first)).then_some(first)
        }
        _ => None,
    }
}

fn through(input: &LogicalPlan, expr: &Expr) -> Option<(Table, String)> {
    let Expr::Column(Column { relation, name, .. }) = without_names(expr) else { return None };
    origin(input, input.schema().index_of_column_by_name(relation.as_ref(), name)?)
}

/// Returns an expression without its alias and casts, which do not change the origin of its values.
fn without_names(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_names(&alias.expr),
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => without_names(expr),
        other => other,
    }
}

/// Returns true if a plan calls a function that depends on the time of execution, such as `now()`. The optimizer replaces
/// such calls by their values, so a plan that is kept would also keep the time at which it was made.
pub(crate) fn depends_on_time(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    found |= call.func.signature().volatility == Volatility::Stable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::{Session, SessionSettings};

    use super::*;

    async fn analyse(sql: &str) -> Analysis {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        session.analyse(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()))
    }

    #[tokio::test]
    async fn the_columns_that_a_statement_needs_are_found_whatever_its_text() {
        for (sql, columns) in [
            ("SELECT window_start, failure AS events, runs FROM metrics", &["window_start", "runs", "failure"][..]),
            ("SELECT window_start /* task */ FROM metrics -- model\n WHERE '' <> 'stage'", &["window_start"]),
            ("SELECT task FROM (SELECT * FROM metrics) WHERE stage = 'full'", &["task", "stage"]),
            ("WITH m AS (SELECT task AS t, runs AS n FROM metrics) SELECT sum(n) FROM m", &["runs"]),
            ("SELECT count(*) FROM metrics", &[]),
            ("SELECT 1 AS task", &[]),
            ("SELECT task FROM releases WHERE task IN (SELECT task FROM metrics WHERE error > 0)", &["task", "error"]),
        ] {
            assert_eq!(analyse(sql).await.columns(Table::Metrics), columns, "{sql}");
        }
        assert!(analyse("SELECT count(*) FROM metrics").await.reads(Table::Metrics));
        assert!(!analyse("SELECT count(*) FROM metrics").await.reads(Table::Events));
        let view = analyse("SELECT tool FROM tool_calls").await;
        assert!(view.columns(Table::Events).contains(&"tool_calls"), "{view:?}");
    }

    #[tokio::test]
    async fn a_returned_column_is_followed_to_the_column_that_is_stored() {
        for (sql, from) in [
            ("SELECT escalated AS events FROM metrics", Some("escalated")),
            ("SELECT sum(escalated) AS events FROM metrics GROUP BY task", Some("escalated")),
            (
                "SELECT n AS events FROM (SELECT task, sum(m.escalated) AS n FROM metrics AS m GROUP BY task)",
                Some("escalated"),
            ),
            (
                "WITH e AS (SELECT escalated FROM metrics WHERE runs > 0) SELECT CAST(escalated AS INT) AS events FROM e",
                Some("escalated"),
            ),
            ("SELECT failure AS events FROM metrics UNION ALL SELECT escalated FROM metrics", None),
            ("SELECT escalated + 1 AS events FROM metrics", None),
            ("SELECT count(escalated) AS events FROM metrics", None),
            ("SELECT 'escalated AS events', failure AS events FROM metrics", Some("failure")),
        ] {
            let analysis = analyse(sql).await;
            assert_eq!(analysis.origin("events"), from.map(|name| (Table::Metrics, name)), "{sql}");
            assert!(analysis.returns("events") && !analysis.returns("escalated"), "{sql}");
        }
    }

    #[tokio::test]
    async fn a_statement_that_asks_for_the_time_is_recognised_in_any_spelling() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        for (sql, depends) in [
            ("SELECT task FROM metrics WHERE window_start < NOW()", true),
            ("SELECT task FROM metrics WHERE window_start < now ( )", true),
            ("SELECT current_date AS day FROM metrics", true),
            ("SELECT task FROM last_hour", true),
            ("SELECT 'now()' AS current_task FROM metrics", false),
            ("SELECT task AS current_task FROM metrics", false),
        ] {
            let plan = session.plan(sql).await.expect(sql);
            assert_eq!(depends_on_time(&plan).expect(sql), depends, "{sql}");
            assert_eq!(session.plan_once(sql).await.expect(sql).is_none(), depends, "{sql}");
        }
    }
}
