//! Arithmetic of whole numbers that saturates instead of wrapping: a sum of weights that wrapped would look like any other
//! number, and could be negative.
//!
//! `a + b`, `a - b` and `a * b` of BIGINT, and `sum` of whole numbers, saturate at the bounds of their type; `at_bound` returns
//! true for a number at a bound. Window sums and sums of DISTINCT values are DataFusion's own, and wrap.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::compute::kernels::arity::binary;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarUDF, Volatility, create_udf,
};
use datafusion::prelude::SessionContext;

/// Makes arithmetic of whole numbers saturate.
pub(crate) fn register(context: &SessionContext) -> Result<()> {
    context.state_ref().write().register_function_rewrite(Arc::new(Saturate))
}

#[derive(Debug)]
struct Saturate;

static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(bellwether_metrics::whole_sum()));
static PLUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| operation("held_plus", i64::saturating_add));
static MINUS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| operation("held_minus", i64::saturating_sub));
static TIMES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| operation("held_times", i64::saturating_mul));

fn operation(name: &str, compute: fn(i64, i64) -> i64) -> Arc<ScalarUDF> {
    let implementation = Arc::new(move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let longs = |array: &ArrayRef| array.as_primitive::<Int64Type>().clone();
        let answer: Int64Array = binary(&longs(&arrays[0]), &longs(&arrays[1]), compute)?;
        Ok(ColumnarValue::Array(Arc::new(answer)))
    });
    let long = DataType::Int64;
    Arc::new(create_udf(name, vec![long.clone(), long.clone()], long, Volatility::Immutable, implementation))
}

impl FunctionRewrite for Saturate {
    fn name(&self) -> &str {
        "held_arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let operation = match op {
                    Operator::Plus => &PLUS,
                    Operator::Minus => &MINUS,
                    Operator::Multiply => &TIMES,
                    _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                };
                let kind = |side: &Expr| side.get_type(schema).ok().filter(DataType::is_signed_integer);
                let long = |kind: &DataType| *kind == DataType::Int64;
                Ok(match (kind(&left), kind(&right)) {
                    (Some(one), Some(other)) if long(&one) || long(&other) => {
                        Transformed::yes(operation.call(vec![*left, *right]))
                    }
                    _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
                })
            }
            Expr::AggregateFunction(mut call) if call.func.name() == "sum" && !call.params.distinct => {
                let kind = call.params.args.first().and_then(|argument| argument.get_type(schema).ok());
                let whole =
                    kind.is_some_and(|kind| kind.is_signed_integer() || matches!(kind, DataType::Decimal128(38, 0)));
                if !whole {
                    return Ok(Transformed::no(Expr::AggregateFunction(call)));
                }
                call.func = Arc::clone(&SUM);
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Session, SessionSettings};
    use datafusion::arrow::util::display::array_value_to_string;

    async fn answer(sql: &str) -> Vec<String> {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let batches = session.execute(sql).await.expect(sql).collect().await.expect(sql);
        let batch = batches.iter().find(|batch| batch.num_rows() > 0).expect(sql);
        batch.columns().iter().map(|column| array_value_to_string(column, 0).expect("prints")).collect()
    }

    const MOST: &str = "9223372036854775807";
    const LEAST: &str = "-9223372036854775808";

    #[tokio::test]
    async fn no_sum_of_whole_numbers_wraps() {
        let rows = "FROM (VALUES (9223372036854775807, 3), (9223372036854775807, 4)) AS t(x, n)";
        assert_eq!(
            answer(&format!("SELECT sum(x), sum(x * n), max(x + n), min(-1 - x - n), sum(n) {rows}")).await,
            [MOST, MOST, MOST, LEAST, "7"]
        );
        assert_eq!(
            answer(&format!("SELECT sum(x) FILTER (WHERE n < 0), sum(DISTINCT n), at_bound(sum(x)) {rows}")).await,
            ["", "7", "true"]
        );
        let squares = "FROM (VALUES (CAST('99999999999999999999999999999999999998' AS DECIMAL(38, 0)))) AS a(x) \
                       CROSS JOIN (VALUES (1), (2), (3)) AS b(n)";
        assert_eq!(answer(&format!("SELECT sum(x) {squares}")).await, ["99999999999999999999999999999999999999"]);
    }

    #[tokio::test]
    async fn plans_of_every_shape_still_work() {
        for (sql, expected) in [
            (
                "SELECT n % 2 + 1 AS k, sum(n) FROM (VALUES (1), (3)) AS t(n) GROUP BY n % 2 + 1 HAVING sum(n) > 1",
                "2 4",
            ),
            ("SELECT sum(n) + 1 FROM (VALUES (1), (3)) AS t(n) ORDER BY sum(n) * 2", "5"),
            ("SELECT sum(n) OVER (ORDER BY n) FROM (VALUES (1), (3)) AS t(n) ORDER BY n LIMIT 1", "1"),
            ("SELECT a.n FROM (VALUES (1)) AS a(n) JOIN (VALUES (2)) AS b(n) ON a.n + 1 = b.n", "1"),
            ("SELECT (SELECT sum(n * 2) FROM (VALUES (4)) AS t(n)) - 1", "7"),
            ("SELECT grouping(n), sum(n) FROM (VALUES (4)) AS t(n) GROUP BY ROLLUP (n) ORDER BY 1 DESC", "1 4"),
            ("SELECT 2 + 3 * 4 - 1", "13"),
            ("SELECT 1.5 * 2, 1 - 0.5", "3.0 0.5"),
        ] {
            assert_eq!(answer(sql).await.join(" "), expected, "{sql}");
        }
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let named =
            session.execute("SELECT sum(a) + 1, a * 2 FROM (VALUES (1)) AS t(a) GROUP BY a").await.expect("runs");
        let names: Vec<&str> = named.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["sum(t.a) + Int64(1)", "t.a * Int64(2)"]);
    }
}
