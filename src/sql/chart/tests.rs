//! Draws results that are small, odd, or large.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use unicode_width::UnicodeWidthStr;

use super::*;

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_796_000_400_000_000;

fn minutes(at: impl IntoIterator<Item = i64>) -> ArrayRef {
    let times = at.into_iter().map(|minute| START + minute * MINUTE);
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

fn result(columns: Vec<(&str, ArrayRef)>) -> Kept {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .expect("a batch");
    Kept { schema: batch.schema(), batches: vec![batch] }
}

fn drawn_as(result: &Kept, chosen: &[&str], canvas: Canvas) -> String {
    let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
    let text = draw(result, &chosen, canvas).expect("draws");
    if !canvas.colour {
        for line in text.lines() {
            assert!(line.width() <= canvas.width, "{}: {line}", canvas.width);
        }
        assert!(!text.contains('\x1b'), "{text}");
    }
    text
}

fn drawn(result: &Kept, chosen: &[&str]) -> String {
    drawn_as(result, chosen, Canvas { width: 80, height: 24, colour: false })
}

/// Returns a text on one line.
fn joined(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
}

fn dots(text: &str) -> usize {
    text.chars().filter(|letter| ('\u{2801}'..='\u{28ff}').contains(letter)).count()
}

#[test]
fn a_line_has_axes_with_times_and_units() {
    let wave = (0..61).map(|minute| Some(900.0 + 300.0 * (f64::from(minute) / 8.0).sin()));
    let text = drawn(&result(vec![("window_start", minutes(0..61)), ("latency_ms_p95", numbers(wave))]), &[]);
    insta::assert_snapshot!(text);
}

#[test]
fn each_text_is_a_line_with_a_mark_and_the_legend_says_its_newest_value() {
    let tasks: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|row| ["refunds", "invoices"][row % 2])));
    let values = (0..40).map(|row| Some(if row % 2 == 0 { 0.9 } else { 0.5 + f64::from(row) / 100.0 }));
    let result = result(vec![("at", minutes((0..40).map(|row| row / 2))), ("task", tasks), ("rate", numbers(values))]);
    let text = drawn(&result, &[]);
    insta::assert_snapshot!(text);
    let text = drawn_as(&result, &[], Canvas { width: 80, height: 24, colour: true });
    assert!(text.contains("\x1b[34m━━\x1b[0m refunds (0.9)") && text.contains("\x1b[31m"), "{text}");
}

#[test]
fn columns_of_other_magnitudes_and_units_have_a_panel_of_their_own() {
    let rows = 0..20;
    let result = result(vec![
        ("at", minutes(rows.clone().map(i64::from))),
        ("rate", numbers(rows.clone().map(|row| Some(f64::from(row) / 20.0)))),
        ("rate_low", numbers(rows.clone().map(|row| Some(f64::from(row) / 25.0)))),
        ("runs", Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| i64::from(row) * 100)))),
        ("latency_ms", numbers(rows.map(|row| Some(f64::from(row) / 20.0)))),
    ]);
    let text = drawn(&result, &[]);
    let titles: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("rate") || line.starts_with("runs") || line.starts_with("lat"))
        .collect();
    assert_eq!(titles, ["rate, rate_low", "runs (1900)", "latency_ms (950 µs)"], "{text}");
    assert!(text.contains("(4 lines over at, 20") && text.ends_with("UTC, 20 rows)"), "{text}");
    assert!(!drawn(&result, &["runs"]).contains("rate"));
}

#[test]
fn a_missing_value_and_a_missing_time_are_gaps() {
    let full = |missing: &[i64]| {
        let kept: Vec<i64> = (0..40).filter(|minute| !missing.contains(minute)).collect();
        result(vec![("at", minutes(kept.clone())), ("n", numbers(kept.into_iter().map(|_| Some(5.0))))])
    };
    let gap: Vec<i64> = (10..30).collect();
    let (whole, with_gap) = (dots(&drawn(&full(&[]), &[])), dots(&drawn(&full(&gap), &[])));
    assert!(with_gap < whole * 2 / 3, "{whole}, {with_gap}");
    let nulls = (0..40).map(|minute| Some(5.0).filter(|_| !(10..30).contains(&minute)));
    let nulls = dots(&drawn(&result(vec![("at", minutes(0..40)), ("n", numbers(nulls))]), &[]));
    assert_eq!(nulls, with_gap);
}

#[test]
fn one_point_constants_and_negative_numbers_are_drawn() {
    let one = drawn(&result(vec![("at", minutes([0])), ("n", numbers([Some(3.0)]))]), &[]);
    assert!(one.contains('•') && one.contains("n (3)") && one.contains("2026-11-30"), "{one}");
    let constant = drawn(&result(vec![("at", minutes(0..10)), ("n", numbers([Some(0.0); 10]))]), &[]);
    assert!(dots(&constant) > 20, "{constant}");
    let negative = (0..10).map(|row| Some(f64::from(row) - 7.0));
    let negative = drawn(&result(vec![("at", minutes(0..10)), ("n", numbers(negative))]), &[]);
    assert!(negative.contains("-7.5") && negative.contains("2.5"), "{negative}");
    let days: ArrayRef = Arc::new(Date32Array::from_iter_values(20_780..20_785));
    let dates = drawn(&result(vec![("day", days), ("n", numbers([Some(1.0); 5]))]), &[]);
    assert!(dates.contains("2026-11-23") && dates.contains("2026-11-27"), "{dates}");
}

#[test]
fn lines_and_columns_that_do_not_fit_are_counted() {
    let tasks: ArrayRef = Arc::new(StringArray::from_iter_values((0..600).map(|row| format!("task {}", row % 30))));
    let values = (0..600).map(|row| Some(f64::from(row)));
    let many = result(vec![("at", minutes((0..600).map(|row| row / 30))), ("task", tasks), ("n", numbers(values))]);
    let text = joined(&drawn(&many, &[]));
    assert!(
        text.contains("(8 lines over at, ") && text.ends_with("600 rows, 22 more lines left out: narrow the query)"),
        "{text}"
    );
    let mut columns = vec![("at".to_owned(), minutes(0..3))];
    for place in 0..7 {
        columns.push((format!("n{place}"), numbers([Some(1000_f64.powi(place)); 3])));
    }
    let wide = result(columns.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))).collect());
    let text = joined(&drawn(&wide, &[]));
    assert!(text.contains("3 more columns left out: \\chart COLUMN... draws"), "{text}");
}

#[test]
fn values_at_the_same_time_are_pointed_out() {
    let twice = result(vec![("at", minutes([0, 0, 1, 1])), ("n", numbers((0..4).map(|row| Some(f64::from(row)))))]);
    assert!(joined(&drawn(&twice, &[])).contains("several values at one time"));
    let once = result(vec![("at", minutes([0, 1])), ("n", numbers([Some(1.0), Some(2.0)]))]);
    assert!(!drawn(&once, &[]).contains("several"));
}

#[test]
fn a_chart_fits_narrow_and_wide_terminals() {
    let values = (0..200).map(|row| Some(f64::from(row)));
    let result = result(vec![("at", minutes(0..200)), ("a_column_with_a_long_name", numbers(values))]);
    for (width, height) in [(20, 10), (40, 24), (80, 24), (250, 70)] {
        drawn_as(&result, &[], Canvas { width, height, colour: false });
    }
}

#[test]
fn what_cannot_be_drawn_is_an_error_that_says_why() {
    let error = |result: &Kept, chosen: &[String]| {
        let error = draw(result, chosen, Canvas { width: 80, height: 24, colour: false }).expect_err("cannot be drawn");
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    let runs = || ("runs", numbers([Some(1.0)]));
    let no_time = result(vec![runs()]);
    assert_eq!(error(&no_time, &[]), "the result has no column of times; select one, such as window_start");
    let no_number = result(vec![("at", minutes([0]))]);
    assert_eq!(error(&no_number, &[]), "the result has no column of numbers; select one, such as success_rate");
    let fine = result(vec![("at", minutes([0])), runs()]);
    assert_eq!(error(&fine, &["rums".to_owned()]), "the result has no column `rums`; did you mean `runs`?");
    let empty = result(vec![("at", minutes([])), ("n", numbers([]))]);
    assert_eq!(error(&empty, &[]), "nothing to draw: the result has no rows; ");
    let nulls = result(vec![("at", minutes([0, 1])), ("n", numbers([None, Some(f64::NAN)]))]);
    assert_eq!(error(&nulls, &[]), "nothing to draw: no row has both a time and a number; ");
}
