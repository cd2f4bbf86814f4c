//! SQL that returns the numbers of an alert again, and whether it does.
//!
//! The statement of the row is run over the tables as the alert saw them, at the time of its evaluation. Its answer is compared with
//! the row: either the columns of the same names, or the sums of the observations since the change.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use bellwether_base::Result;
use bellwether_queries::{Present, Session, SessionSettings};
use bellwether_sinks::page::Reproduce;

use crate::ask::batches;
use crate::record::AlertRecord;

/// Relative difference up to which two doubles are the same number, computed in another order.
const SAME: f64 = 1e-9;

/// Millionths in a weight of one.
const MILLION: f64 = 1e6;

/// Longest time for a statement about whole tables.
const LONGEST: Duration = Duration::from_secs(5);

/// The result of running the statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Checked {
    Same,
    /// Why the numbers are not known to be the same, in one sentence.
    No(String),
}

/// Runs the statement of a row in a session that sees the tables as the alert did.
pub(crate) async fn check(session: &Session, record: &AlertRecord) -> Result<Checked> {
    // Only a rule on whole tables depends on the time at which it is asked.
    let timed = if record.effect_kind == "value" {
        let present = Present::default();
        present.set(record.evaluated_at);
        let settings = SessionSettings { present: Some(present), timeout: Some(LONGEST), ..SessionSettings::default() };
        Some(session.engine().session(settings)?)
    } else {
        None
    };
    let answer = batches(timed.as_ref().unwrap_or(session), &record.sql).await?;
    Ok(compare(&answer, record))
}

/// Returns the part of the page.
pub(crate) fn reproduce(record: &AlertRecord, checked: bool) -> Option<Reproduce> {
    (!record.sql.is_empty()).then(|| Reproduce {
        sql: record.sql.clone(),
        metrics_version: record.metrics_version,
        checked,
    })
}

/// Compares an answer with the numbers of a row.
fn compare(answer: &[RecordBatch], record: &AlertRecord) -> Checked {
    let named = numbers(record);
    let columns: Vec<(&str, f64, f64)> =
        named.iter().filter_map(|(name, stated)| Some((*name, *stated, only(answer, name)?))).collect();
    let same = |of: &[(&str, f64, f64)]| match of.iter().find(|(_, stated, found)| !is_same(*stated, *found)) {
        None => Checked::Same,
        Some((name, stated, found)) => {
            Checked::No(format!("The SQL returns {found} for `{name}`, and the alert states {stated}."))
        }
    };
    if !columns.is_empty() {
        return same(&columns);
    }
    if let (Some(value), "value") = (record.canary_value, record.effect_kind.as_str())
        && let Some(found) = only(answer, "value")
    {
        return same(&[("value", value, found)]);
    }
    if let (Some(events), Some(runs), Some(sums)) =
        (record.canary_events, record.canary_runs, sums(answer, record.since.unwrap_or(i64::MIN), record.at))
    {
        return same(&[
            ("canary_events", double(events), sums.0.round()),
            ("canary_runs", double(runs), sums.1.round()),
        ]);
    }
    Checked::No(
        "The SQL returns the observations behind the numbers, which are not compared with the alert.".to_owned(),
    )
}

/// Returns the numbers of a row by the columns in which its SQL returns them.
fn numbers(record: &AlertRecord) -> Vec<(&'static str, f64)> {
    let counts = [
        ("baseline_events", record.baseline_events),
        ("baseline_runs", record.baseline_runs),
        ("canary_events", record.canary_events),
        ("canary_runs", record.canary_runs),
    ];
    let values =
        [("baseline_value", record.baseline_value), ("canary_value", record.canary_value), ("log_e", record.log_e)];
    let counts = counts.into_iter().filter_map(|(name, value)| Some((name, double(value?))));
    counts.chain(values.into_iter().filter_map(|(name, value)| Some((name, value?)))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn double(count: i64) -> f64 {
    count as f64
}

fn is_same(a: f64, b: f64) -> bool {
    (a - b).abs() <= SAME * a.abs().max(b.abs()).max(1.0)
}

/// Returns a column of an answer of one row.
fn only(answer: &[RecordBatch], name: &str) -> Option<f64> {
    if answer.iter().map(RecordBatch::num_rows).sum::<usize>() != 1 {
        return None;
    }
    let batch = answer.iter().find(|batch| batch.num_rows() == 1)?;
    let column = cast(batch.column_by_name(name)?, &DataType::Float64).ok()?;
    let column = column.as_primitive::<Float64Type>();
    column.is_valid(0).then(|| column.value(0))
}

/// Returns the weighted sums of the events and runs of observations from a moment to another.
fn sums(answer: &[RecordBatch], from: i64, to: i64) -> Option<(f64, f64)> {
    let mut sums = (0.0, 0.0);
    for batch in answer.iter().filter(|batch| batch.num_rows() > 0) {
        let doubles = |name: &str| cast(batch.column_by_name(name)?, &DataType::Float64).ok();
        let (events, runs) = (doubles("events")?, doubles("runs")?);
        let weight = doubles("weight_micros");
        let starts = cast(batch.column_by_name("window_start")?, &DataType::Int64).ok()?;
        for row in 0..batch.num_rows() {
            if !(from..to).contains(&starts.as_primitive::<Int64Type>().value(row)) {
                continue;
            }
            let value = |column: &arrow::array::ArrayRef| column.as_primitive::<Float64Type>().value(row);
            let weight = weight.as_ref().map_or(1.0, |weight| value(weight) / MILLION);
            sums.0 += weight * value(&events);
            sums.1 += weight * value(&runs);
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array};

    use super::*;

    fn record() -> AlertRecord {
        AlertRecord {
            canary_events: Some(7),
            canary_runs: Some(20),
            log_e: Some(4.605),
            since: Some(60),
            at: 180,
            ..AlertRecord::default()
        }
    }

    fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, Arc::clone(column)))).expect("a batch")
    }

    fn longs(of: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(of.to_vec()))
    }

    #[test]
    fn an_answer_with_the_same_numbers_is_the_same_and_no_other() {
        let answer = |events, log_e: f64| {
            let log_e: ArrayRef = Arc::new(Float64Array::from(vec![log_e]));
            [batch(&[("canary_events", longs(&[events])), ("canary_runs", longs(&[20])), ("log_e", log_e)])]
        };
        assert_eq!(compare(&answer(7, 4.605), &record()), Checked::Same);
        assert_eq!(compare(&answer(7, 4.605 + 1e-12), &record()), Checked::Same, "the last digits depend on the order");
        for other in [answer(8, 4.605), answer(7, 4.606)] {
            assert!(matches!(compare(&other, &record()), Checked::No(_)), "{other:?}");
        }
        assert!(matches!(compare(&[], &record()), Checked::No(_)), "no answer");
    }

    #[test]
    fn observations_are_added_up_since_the_change() {
        let weight = longs(&[1_000_000, 1_000_000, 2_000_000]);
        let answer = |last| {
            let starts = longs(&[0, 60, 120]);
            let columns = [
                ("window_start", starts),
                ("events", longs(&[9, 1, 3])),
                ("runs", longs(&[9, 4, last])),
                ("weight_micros", Arc::clone(&weight)),
            ];
            [batch(&columns)]
        };
        assert_eq!(compare(&answer(8), &record()), Checked::Same);
        assert!(matches!(compare(&answer(9), &record()), Checked::No(_)));
    }
}
