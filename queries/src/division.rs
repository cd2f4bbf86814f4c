//! Division in queries: division by zero returns null. Division of whole numbers drops the remainder, which is seldom intended;
//! `bellwether rules check` reports it.
//!
//! DataFusion fails on a whole number or decimal divided by zero, so one idle task would hide the figures of all others.
//! Doubles follow IEEE 754: x / 0.0 is infinite, 0.0 / 0.0 is not a number.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::functions::expr_fn::nullif;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

/// Makes division of whole numbers and decimals by zero return null.
pub(crate) fn register(context: &SessionContext) -> Result<()> {
    context.state_ref().write().register_function_rewrite(Arc::new(NullByZero))
}

/// Rewrites `a / b` and `a % b` to `a / nullif(b, 0)` and `a % nullif(b, 0)`.
#[derive(Debug)]
struct NullByZero;

impl FunctionRewrite for NullByZero {
    fn name(&self) -> &str {
        "null_by_zero"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right }) = expr else {
            return Ok(Transformed::no(expr));
        };
        // A divisor that was rewritten before, as in the plan of a view, or that cannot be zero, is not changed.
        let zero = match right.as_ref() {
            Expr::Literal(value, _) if !value.is_null() && !is_zero(value) => None,
            Expr::ScalarFunction(call) if call.name() == "nullif" => None,
            divisor => divisor.get_type(schema).ok().filter(|kind| kind.is_integer() || kind.is_decimal()),
        };
        // Beside a double, the divisor is cast to a double.
        let zero = zero.filter(|_| !left.get_type(schema).is_ok_and(|kind| kind.is_floating()));
        let zero = zero.and_then(|kind| ScalarValue::new_zero(&kind).ok());
        let Some(zero) = zero else {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        };
        let right = Box::new(nullif(*right, lit(zero)));
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
    }
}

fn is_zero(value: &ScalarValue) -> bool {
    ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero == *value)
}

/// Returns the divisions of whole numbers by whole numbers in a plan, as texts, each once.
pub(crate) fn of_whole_numbers(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = part {
                    let whole = |side: &Expr| side.get_type(&schema).is_ok_and(|kind| kind.is_integer());
                    let text = part.human_display().to_string();
                    if whole(left) && whole(right) && !found.contains(&text) {
                        found.push(text);
                    }
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
    use datafusion::arrow::util::pretty::pretty_format_batches;

    async fn answer(sql: &str) -> String {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let batches = session.execute(sql).await.expect(sql).collect().await.expect(sql);
        pretty_format_batches(&batches).expect("prints").to_string()
    }

    #[tokio::test]
    async fn one_idle_task_does_not_fail_the_others() {
        let text = answer(
            "SELECT task, sum(bad) / sum(runs) AS whole, CAST(sum(bad) AS DECIMAL(20, 2)) / sum(runs) AS exact, \
             sum(bad) % sum(runs) AS rest, CAST(sum(bad) AS DOUBLE) / sum(runs) AS share, 1 / 0 AS one \
             FROM (VALUES ('idle', 0, 0), ('down', 3, 0), ('busy', 6, 4)) AS t(task, bad, runs) GROUP BY task ORDER BY task",
        )
        .await;
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(3)
            .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(rows[0], ["busy", "1", "1.500000", "2", "1.5"], "{text}");
        assert_eq!(rows[1], ["down", "inf"], "{text}");
        assert_eq!(rows[2], ["idle", "NaN"], "{text}");
    }

    #[tokio::test]
    async fn a_division_by_zero_in_any_clause_is_null() {
        for sql in [
            "SELECT x FROM (VALUES (1)) AS t(x) WHERE 1 / (x - 1) > 0",
            "SELECT x / 0 FROM (VALUES (1)) AS t(x) GROUP BY x / 0",
            "SELECT sum(1 / x) FROM (VALUES (0)) AS t(x) HAVING sum(1 / x) IS NULL",
            "SELECT x FROM (VALUES (0)) AS t(x) ORDER BY 1 / x",
            "SELECT sum(1 / x) OVER (ORDER BY 1 % x) FROM (VALUES (0)) AS t(x)",
            "SELECT a.x FROM (VALUES (0)) AS a(x) JOIN (VALUES (0)) AS b(x) ON 1 / a.x = 1 / b.x",
            "SELECT CASE WHEN 1 / x > 0 THEN 1 ELSE 2 / x END FROM (VALUES (0)) AS t(x)",
            "SELECT (SELECT max(1 / x) FROM (VALUES (0)) AS t(x)) AS worst",
            "SELECT x FROM (VALUES (1)) AS t(x) WHERE x IN (SELECT 1 / y FROM (VALUES (0)) AS u(y))",
        ] {
            answer(sql).await;
        }
        assert!(answer("SELECT 7 / 2 AS q, 7 % 2 AS r, -7 / 2 AS n").await.contains("| 3 | 1 | -3 |"));
    }

    #[tokio::test]
    async fn a_column_is_named_as_it_was_written() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let answer = session.execute("SELECT a / b FROM (VALUES (1, 0)) AS t(a, b)").await.expect("runs");
        assert_eq!(answer.schema.field(0).name(), "t.a / t.b");
    }

    #[tokio::test]
    async fn divisions_of_whole_numbers_are_found_in_the_plan() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let found = |sql: &'static str| {
            let session = &session;
            async move { session.whole_divisions(sql).await.expect(sql) }
        };
        let rate = "SELECT task, sum(failure) / sum(runs) AS value FROM metrics GROUP BY task";
        assert_eq!(found(rate).await, ["sum(metrics.failure) / sum(metrics.runs)"]);
        let hidden = "WITH a AS (SELECT task, sum(failure) AS f, sum(runs) AS r FROM metrics GROUP BY task) \
                      SELECT task, coalesce(f / r, 0) AS value FROM a WHERE f / r > 0";
        assert_eq!(found(hidden).await.len(), 1);
        for right in [
            "SELECT task, CAST(sum(failure) AS DOUBLE) / sum(runs) AS value FROM metrics GROUP BY task",
            "SELECT task, 1.0 * sum(failure) / sum(runs) AS value FROM metrics GROUP BY task",
            "SELECT task, sum(cost_nanos_sum) / 1e9 AS value FROM metrics GROUP BY task",
        ] {
            assert_eq!(found(right).await, Vec::<String>::new(), "{right}");
        }
    }
}
