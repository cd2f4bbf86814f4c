//! Tests that weighted quantiles and totals equal those of the individual values, however rows are divided into windows
//! and groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Decimal128Type, Float64Type};
use bellwether_stats::clusters::{GROUPS, group_of};
use bellwether_stats::sketch::RELATIVE_ERROR;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::register;

/// A run: its value, its session, and its weight in millionths.
type Run = (u32, u8, i64);

/// A run, its sign, and the window and group that it belongs to.
type Row = (Run, i64, u8);

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let weight =
        prop_oneof![Just(1_000_000_i64), 1_000_001..2_000_000_i64, Just(100_000_000), Just(1_000_000_000_000_000)];
    prop::collection::vec((0..5_000_000_u32, 0..60_u8, weight), 1..50)
}

async fn ask(rows: &[Row], threads: usize, sql: &str) -> RecordBatch {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
    register(&context);
    let longs = |get: fn(&Row) -> i64| -> ArrayRef { Arc::new(rows.iter().map(get).collect::<Int64Array>()) };
    let sessions: StringArray = rows.iter().map(|((_, session, _), _, _)| Some(format!("s-{session}"))).collect();
    let columns = [
        ("value", longs(|((value, _, _), _, _)| i64::from(*value))),
        ("weight", longs(|((_, _, weight), _, _)| *weight)),
        ("sign", longs(|(_, sign, _)| *sign)),
        ("piece", longs(|(_, _, piece)| i64::from(*piece))),
        ("session", Arc::new(sessions) as ArrayRef),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("rows");
    // Several partitions, so that states are merged too.
    let third = batch.num_rows().div_ceil(3).max(1);
    let parts: Vec<Vec<RecordBatch>> = (0..batch.num_rows())
        .step_by(third)
        .map(|from| vec![batch.slice(from, third.min(batch.num_rows() - from))])
        .collect();
    let table = MemTable::try_new(batch.schema(), parts).expect("a table");
    context.register_table("run", Arc::new(table)).expect("registers");
    let answer = context.sql(sql).await.expect("plans").collect().await.expect("runs");
    arrow::compute::concat_batches(&answer[0].schema(), &answer).expect("one batch")
}

const FIGURES: &str = "\
    SELECT sketch_quantile(s, 0.5) AS p50, sketch_quantile(s, 0.95) AS p95, s AS sketch, g AS totals, \
        clustered_low(g, n) AS low FROM (\
        SELECT sketch_merge(s, weight) AS s, random_groups_sum(g, weight) AS g, random_groups_sum(n, weight) AS n FROM (\
            SELECT weight, piece, sketch_of(value, sign) AS s, random_groups(random_group(session), sign * value) AS g, \
                random_groups(random_group(session), sign) AS n \
            FROM run GROUP BY weight, piece))";

/// Computes the quantile by its definition, from the values themselves.
fn quantile(runs: &[Run], hundredths: u128) -> f64 {
    let mut sorted: Vec<(u32, u128)> =
        runs.iter().map(|(value, _, weight)| (*value, u128::from(weight.unsigned_abs()))).collect();
    sorted.sort_unstable();
    let total: u128 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0;
    let reached = sorted.iter().find(|(_, weight)| {
        below += weight;
        below * 100 >= total * hundredths
    });
    f64::from(reached.expect("the whole is not less than a share of it").0)
}

fn totals(runs: &[Run]) -> Vec<i128> {
    let mut totals = vec![0_i128; GROUPS];
    for (value, session, weight) in runs {
        totals[group_of(&format!("s-{session}"))] += i128::from(*value) * i128::from(*weight);
    }
    totals
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_grouping_order_and_correction_gives_the_same_figures(
        runs in runs(),
        others in runs(),
        cuts in prop::collection::vec((any::<u32>(), 0..9_u8), 150),
        threads in 1..4_usize,
    ) {
        let there = runs.iter().chain(&others).map(|run| (*run, 1));
        let taken_back = others.iter().map(|run| (*run, -1));
        let mut rows: Vec<(u32, Row)> =
            there.chain(taken_back).zip(&cuts).map(|((run, sign), (order, piece))| (*order, (run, sign, *piece))).collect();
        rows.sort_unstable();
        let cut: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        let whole: Vec<Row> = runs.iter().map(|run| (*run, 1, 0)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread");
        let found = runtime.block_on(ask(&cut, threads, FIGURES));
        let plain = runtime.block_on(ask(&whole, 1, FIGURES));
        prop_assert_eq!(&found, &plain, "bit for bit");
        for (name, hundredths) in [("p50", 50), ("p95", 95)] {
            let value = found.column_by_name(name).expect("there").as_primitive::<Float64Type>().value(0);
            let exact = quantile(&runs, hundredths);
            prop_assert!((value - exact).abs() <= exact * (RELATIVE_ERROR + 1e-9), "{name} is {value} for {exact}");
        }
        let list = found.column_by_name("totals").expect("there").as_list::<i32>().value(0);
        prop_assert_eq!(list.as_primitive::<Decimal128Type>().values().to_vec(), totals(&runs));
    }
}

#[tokio::test]
async fn weighted_sketches_and_totals_add_up_once_more() {
    let rows: Vec<Row> = (0..40_u8).map(|n| ((u32::from(n) * 1000, n % 7, 1_333_333), 1, n % 5)).collect();
    let by_piece = "SELECT piece, sketch_merge(sketch_of, weight) AS s, random_groups_sum(groups, weight) AS g FROM (\
        SELECT piece, weight, sketch_of(value, sign) AS sketch_of, random_groups(random_group(session), sign) AS groups \
        FROM run GROUP BY piece, weight) GROUP BY piece";
    let twice = format!("SELECT sketch_count(sketch_merge(s)) AS n, random_groups_sum(g) AS g FROM ({by_piece})");
    let answer = ask(&rows, 2, &twice).await;
    assert_eq!(answer.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 53, "40 of 1.333333");
    let list = answer.column(1).as_list::<i32>().value(0);
    assert_eq!(list.as_primitive::<Decimal128Type>().values().iter().sum::<i128>(), 40 * 1_333_333);
}

#[tokio::test]
async fn totals_and_counts_saturate() {
    let huge = "SELECT random_groups_sum(g, 9223372036854775807) AS g, sketch_quantile(sketch_merge(s, 9223372036854775807), 0.5) AS p \
        FROM (SELECT random_groups(0, 9223372036854775807) AS g, sketch_of(7, 9223372036854775807) AS s \
            UNION ALL SELECT random_groups(0, 9223372036854775807), sketch_of(7, 9223372036854775807))";
    let answer = ask(&[((1, 1, 1_000_000), 1, 0)], 1, huge).await;
    assert_eq!(answer.column(1).as_primitive::<Float64Type>().value(0), 7.0);
    let list = answer.column(0).as_list::<i32>().value(0);
    let first = list.as_primitive::<Decimal128Type>().value(0);
    assert!(list.is_valid(0) && first > 0, "{first}");
}
