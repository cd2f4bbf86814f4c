//! Tests the functions of detection in SQL.

use std::sync::Arc;

use bellwether_stats::e2x2::{Table, Test};
use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::FunctionKind;
use crate::engine::context_of_functions;

fn context(threads: usize) -> SessionContext {
    context_of_functions(threads).0
}

async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    frame.collect().await.map_err(|error| error.to_string())
}

/// Returns the first column as floats.
async fn numbers(context: &SessionContext, sql: &str) -> Vec<Option<f64>> {
    let batches = rows(context, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Float64Type>().iter());
    columns.collect()
}

async fn number(context: &SessionContext, sql: &str) -> f64 {
    let found = numbers(context, sql).await;
    let [Some(number)] = found[..] else { panic!("{sql}: {found:?}") };
    number
}

#[track_caller]
fn close(found: f64, golden: f64) {
    assert!((found - golden).abs() <= 1e-9 * golden.abs().max(1.0), "{found} instead of {golden}");
}

#[tokio::test]
async fn every_function_is_documented_and_its_example_runs() {
    let (context, functions) = context_of_functions(1);
    // Those over times need tables; the tests of views run their examples.
    let needs_tables = |name: &str| super::spans::NAMES.contains(&name);
    let own: Vec<_> = functions.iter().filter(|function| function.own && !needs_tables(&function.name)).collect();
    for kind in [FunctionKind::Scalar, FunctionKind::Aggregate, FunctionKind::Window, FunctionKind::Table] {
        assert!(own.iter().any(|function| function.kind == kind), "no {} function of our own", kind.name());
    }
    for function in own {
        let (name, example) = (&function.name, function.example.as_deref().unwrap_or_default());
        assert!(!function.doc.is_empty() && function.syntax.starts_with(&format!("{name}(")), "{name}");
        assert!(example.contains(&format!("{name}(")), "{name}: {example}");
        let batches = rows(&context, example).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let last = batches.iter().find(|batch| batch.num_rows() > 0).unwrap_or_else(|| panic!("{name}: no rows"));
        assert!(last.columns().iter().any(|column| column.is_valid(0)), "{name}: the example answers null");
    }
}

#[tokio::test]
async fn golden_values() {
    let context = context(1);
    for (sql, golden) in [
        ("SELECT e2x2(7, 120, 15, 80, 2.2, 1)", 3.385_926_222_986),
        ("SELECT e2x2(7, 120, 15, 80, 2.2, 1.15)", 2.565_842_255_429),
        ("SELECT acs_halfwidth(1 / sqrt(1000), 1000, 5000, 0.05, 1)", 0.099_688_351_038_3),
        ("SELECT acs_halfwidth(1 / sqrt(1000), 1000, 5000, 0.05, 2)", 0.106_375_470_065_6),
        ("SELECT srm([15, 85], [0.1, 0.9])", 0.199_594_910_512),
        ("SELECT psi_threshold(1000, 10000, 10, 0.01)", 0.0011 * 21.665_994_333_461_924),
        ("SELECT log_e([])", 0.0),
    ] {
        close(number(&context, sql).await, golden);
    }
    let series = "(VALUES (1, 100, 5), (2, 80, 9), (3, 120, 14), (4, 100, 16)) AS w(t, runs, failed)";
    let golden = [0.188_124_722_629, 13.091_041_164_2, 748.801_770_949, 523_617.727_004];
    // The detector, and the same in plain SQL: only log_sum_exp is not the engine's own.
    let detector = format!(
        "SELECT exp(esr([bern_llr(failed, runs, 0.05, 0.10)]) OVER (ORDER BY t)) AS sr FROM {series} ORDER BY t"
    );
    let plain = format!(
        "WITH s AS (SELECT t, sum(bern_llr(failed, runs, 0.05, 0.10)) OVER (ORDER BY t) AS s FROM {series}), \
         before AS (SELECT t, s, coalesce(lag(s) OVER (ORDER BY t), 0.0) AS before FROM s) \
         SELECT exp(s + log_sum_exp(-before) OVER (ORDER BY t)) AS sr FROM before ORDER BY t"
    );
    for sql in [detector, plain] {
        for (found, golden) in numbers(&context, &sql).await.into_iter().zip(golden) {
            let found = found.expect("a number");
            assert!((found / golden - 1.0).abs() < 2e-11, "{found} instead of {golden}: {sql}");
        }
    }
}

#[tokio::test]
async fn sql_and_rust_agree_to_the_bit() {
    let test = Test::new(1.15, 1.0).expect("a test");
    let tables = [Table::new(7, 120, 15, 80).expect("a table"), Table::new(9, 130, 12, 75).expect("a table")];
    let ours = test.evidence(&tables).log_e();
    let context = context(2);
    let blocks = "(VALUES (7, 120, 15, 80), (9, 130, 12, 75)) AS blocks(fa, ra, fb, rb)";
    for sql in [
        format!("SELECT log_e(sum_increments(e2x2_increments(fa, ra, fb, rb, 1.15))) FROM {blocks}"),
        format!("SELECT e2x2_log_e(fa, ra, fb, rb, 1.15) FROM {blocks}"),
    ] {
        assert_eq!(number(&context, &sql).await.to_bits(), ours.to_bits(), "{sql}");
    }
}

/// Blocks of many strata in batches of seven rows, forwards or backwards.
fn blocks(backwards: bool) -> Arc<MemTable> {
    let mut cells: Vec<[i64; 5]> =
        (0..700_i64).map(|n| [n, (n * 7919) % 9, 40 + n % 13, (n * 104_729) % 11, 30 + n % 7]).collect();
    if backwards {
        cells.reverse();
    }
    let batches: Vec<Vec<RecordBatch>> = cells
        .chunks(7)
        .map(|chunk| {
            let column = |place: usize| {
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(|row| row[place]))) as Arc<dyn Array>
            };
            let names = ["n", "fa", "ra", "fb", "rb"].into_iter().enumerate();
            vec![RecordBatch::try_from_iter(names.map(|(place, name)| (name, column(place)))).expect("a batch")]
        })
        .collect();
    Arc::new(MemTable::try_new(batches[0][0].schema(), batches).expect("a table"))
}

#[tokio::test]
async fn any_order_and_any_grouping_of_rows_gives_the_same_bits() {
    const QUERIES: [&str; 6] = [
        "SELECT log_e(sum_increments(e2x2_increments(fa, ra, fb, rb, 1.1, 0.7))) FROM blocks",
        "SELECT stratified_log_e('t' || (n % 5), e2x2_increments(fa, ra, fb, rb)) FROM blocks",
        "SELECT log_sum_exp(fa * 1.7 - fb * 13.1) FROM blocks",
        "SELECT log_mean_exp(fa * 1.7 - fb * 13.1) FROM blocks",
        "SELECT session_tempering(n % 3 = 0, [fa, fb], [ra, rb]) FROM blocks",
        "SELECT unnest(b) FROM (SELECT seasonal_baseline(to_timestamp(n * 3600), fa, ra) AS b FROM blocks)",
    ];
    let mut answers: Vec<Vec<Vec<Option<u64>>>> = Vec::new();
    for (threads, backwards) in [(1, false), (1, true), (4, false), (4, true)] {
        let context = context(threads);
        let memory = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
        let catalog = context.catalog("bellwether").expect("a catalog");
        catalog.register_schema("public", memory).expect("a schema");
        context.register_table("blocks", blocks(backwards)).expect("a table");
        let mut all = Vec::new();
        for query in QUERIES {
            let found = numbers(&context, query).await;
            assert!(found.iter().all(|value| value.is_some_and(f64::is_finite)), "{query}: {found:?}");
            all.push(found.into_iter().map(|value| value.map(f64::to_bits)).collect());
        }
        answers.push(all);
    }
    for other in &answers[1..] {
        assert_eq!(&answers[0], other);
    }
}

#[tokio::test]
async fn slices_add_up_to_the_change_within_each_dimension() {
    let context = context(2);
    let counts = "(VALUES ('a', 'x', 400, 20, 40, 2), ('a', 'y', 400, 22, 40, 12), ('b', 'x', 600, 24, 90, 3), \
                  ('b', 'y', 600, 27, 60, 17)) AS c(task, model, ra, fa, rb, fb)";
    let slices = format!(
        "(SELECT grouping(task) AS dimension, coalesce(task, model) AS slice, sum(fa) AS fa, sum(ra) AS ra, \
         sum(fb) AS fb, sum(rb) AS rb FROM {counts} GROUP BY GROUPING SETS ((task), (model)))"
    );
    let over = "(fa, ra, fb, rb) OVER (PARTITION BY dimension)";
    let change = 34.0 / 230.0 - 93.0 / 2000.0;
    for (parts, whole) in
        [(format!("mix_effect{over} + rate_effect{over}"), change), (format!("explanatory_power{over}"), 1.0)]
    {
        let sql = format!(
            "SELECT sum(part) FROM (SELECT dimension, {parts} AS part FROM {slices}) GROUP BY dimension ORDER BY 1"
        );
        let sums = numbers(&context, &sql).await;
        assert_eq!(sums.len(), 2, "{sql}");
        sums.into_iter().for_each(|sum| close(sum.expect("a sum"), whole));
    }
    // Model y broke for both tasks; the tasks look alike.
    let sql = format!(
        "SELECT CAST(count(*) AS DOUBLE) FROM (SELECT dimension, slice, explains{over} AS explains FROM {slices}) \
         WHERE explains AND slice = 'y'"
    );
    close(number(&context, &sql).await, 1.0);
}

#[tokio::test]
async fn sliding_frames_remove_rows_exactly() {
    let context = context(1);
    let series = "(VALUES (1, 7, 120, 15, 80), (2, 9, 130, 12, 75), (3, 1, 20, 4, 20)) AS b(t, fa, ra, fb, rb)";
    let sliding = numbers(
        &context,
        &format!(
            "SELECT e2x2_log_e(fa, ra, fb, rb) OVER (ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS e \
             FROM {series} ORDER BY t"
        ),
    )
    .await;
    let last = number(&context, &format!("SELECT e2x2_log_e(fa, ra, fb, rb) FROM {series} WHERE t >= 2")).await;
    assert_eq!(sliding[2].map(f64::to_bits), Some(last.to_bits()));
}

#[tokio::test]
async fn bad_arguments_have_clear_messages() {
    let context = context(1);
    for (sql, message) in [
        (
            "SELECT e2x2(1, 2, 3)",
            "e2x2 takes 6, not 3 arguments; hint: e2x2(events_a, total_a, events_b, total_b, psi, psi0)",
        ),
        ("SELECT histogram_quantile(sketch_of(1, 1), 1.5)", "q is `1.5`; it must be between 0 and 1"),
        ("SELECT e2x2_increments(1, 2)", "takes 4 to 6, not 2 arguments"),
        ("SELECT e2x2_increments('a', 2, 3, 4)", "`events_a` is a whole number, not Utf8"),
        ("SELECT e2x2_increments(3, 2, 3, 4)", "events is `3 of 2`; it must be at most the runs"),
        ("SELECT e2x2_increments(-1, 2, 3, 4)", "`-1` is negative; it must be a count"),
        ("SELECT e2x2_increments(1, 2, 3, 4, 0)", "margin is `0`"),
        ("SELECT log_e(1)", "`increments` is a list of numbers, not Int64"),
        ("SELECT psi([1, 2], [1])", "numbers of bins is `2 and 1`; it must be equal"),
        ("SELECT burn_verdict(1, 2, 3, 4, 0.9, 14.4)", "requires 144 % of runs to fail, which is impossible"),
        ("SELECT * FROM burn_rate_windows('x')", "takes an objective such as 0.95"),
        ("SELECT * FROM burn_rate_windows(95)", "objective is `95`; it must be between 0 and 1"),
        ("SELECT * FROM alternatives('z')", "takes 'e2x2', 'bernoulli' or 'poisson'"),
        ("SELECT srm([1, 2], [1.0])", "numbers of counts and shares"),
        ("SELECT e_bh(x, a) OVER () FROM (VALUES (1.0, 0.1), (1.0, 0.2)) AS t(x, a)", "alpha differs between rows"),
        ("SELECT baseline_increments([1.0], timestamp '2026-01-01', 1, 2)", "made by seasonal_baseline"),
        ("SELECT acs_ratio([1.0], [2.0])", "it must be [n, Σy, Σx, Σy², Σx², Σxy]"),
        ("SELECT histogram_of(X'ff')", "not a sketch"),
        ("SELECT risk_ratio(2, 1, 0, 1)", "events is `2 of 1`; it must be at most the runs"),
        ("SELECT mix_effect(-1, 1, 1, 1) OVER ()", "mix_effect: amount before is `-1`"),
    ] {
        let error = rows(&context, sql).await.expect_err(sql);
        assert!(error.contains(message), "{sql}: {error}");
    }
}

#[tokio::test]
async fn nulls_and_empty_input_are_answered() {
    let context = context(1);
    for sql in [
        "SELECT e2x2(NULL, 2, 3, 4, 2, 1)",
        "SELECT burn_rate(0, 0, 0.9)",
        "SELECT risk_ratio(0, 1, 0, 1)",
        "SELECT mix_effect(0, 0, 1, 1) OVER ()",
        "SELECT explanatory_power(NULL, 1, 1, 1) OVER ()",
        "SELECT log_mean_exp(x) FROM (VALUES (CAST(NULL AS DOUBLE))) AS t(x)",
        "SELECT acs_ratio([10, 10, 10, 10, 10, 10], [10, 10, 10, 10, 10, 10])",
    ] {
        assert_eq!(numbers(&context, sql).await, [None], "{sql}");
    }
    for (sql, expected) in [
        ("SELECT e2x2_log_e(0, 0, 0, 0)", 0.0),
        ("SELECT e2x2_log_e(fa, 1, 0, 1) FROM (VALUES (1)) AS t(fa) WHERE fa > 1", 0.0),
        ("SELECT e2x2(0, 1000000000, 0, 1000000000, 5, 1)", 0.0),
        ("SELECT log_sum_exp(x) FROM (VALUES (-1e15), (-1e15)) AS t(x)", -1e15),
    ] {
        close(number(&context, sql).await, expected);
    }
    let state = |watermark: &str, runs: u64| {
        format!(
            "SELECT liveness(timestamp '2026-01-31 12:00:00', {watermark}, timestamp '2026-01-31 12:30:00', 300, {runs}, 20)"
        )
    };
    for (watermark, runs, expected) in [
        ("NULL", 0, "no_data"),
        ("timestamp '2026-01-31 11:59:00'", 90, "no_data"),
        ("timestamp '2026-01-31 12:00:00'", 0, "no_traffic"),
        ("timestamp '2026-01-31 12:00:00'", 19, "insufficient"),
        ("timestamp '2026-01-31 12:00:00'", 20, "enough"),
    ] {
        let batches = rows(&context, &state(watermark, runs)).await.expect("a state");
        assert_eq!(batches[0].column(0).as_string::<i32>().value(0), expected, "{watermark} {runs}");
    }
}
