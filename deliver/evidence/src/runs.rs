//! The runs of both sides of an alert in the examined span, as the view `runs` defines them.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bellwether_base::{Error, Result};
use bellwether_queries::{Session, views};

use crate::ask::{batches, moment};
use crate::comparison::Comparison;
use crate::measure::Measure;

/// How much earlier than the end of its run a statement may be dated by the clock of its producer, microseconds.
const SKEW: i64 = 3_600_000_000;

/// How much later than its run a new statement of an earlier span is still found, microseconds.
const LATER: i64 = 24 * 3_600_000_000;

/// A run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Run {
    /// True if it is of the side under judgement.
    pub(crate) own: bool,
    pub(crate) weight: f64,
    pub(crate) amount: f64,
    pub(crate) units: f64,
    pub(crate) tenant: String,
    pub(crate) task: String,
    pub(crate) model: String,
    pub(crate) segments: BTreeMap<String, String>,
    /// Names of its tool calls, each with whether it failed.
    pub(crate) tools: Vec<(String, bool)>,
    /// Invalid fields of its answer, each a pointer without the places in lists, and a rule.
    pub(crate) field_errors: Vec<String>,
    pub(crate) run_id: String,
    pub(crate) source: String,
    pub(crate) attempt: i64,
    pub(crate) trace_id: Option<String>,
    pub(crate) release_id: String,
    pub(crate) ended_at: i64,
    pub(crate) status: String,
    pub(crate) component: Option<String>,
    pub(crate) error_type: Option<String>,
    pub(crate) latency_micros: Option<i64>,
    pub(crate) cost: Option<f64>,
    pub(crate) currency: Option<String>,
    /// Policy exceptions of severity critical and high.
    pub(crate) critical: i64,
    pub(crate) high: i64,
}

/// Returns the runs of both sides that have units of a measure.
pub(crate) async fn runs(session: &Session, comparison: &Comparison, measure: &Measure) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for batch in batches(session, &query(comparison, measure)?).await? {
        read(&batch, &mut runs)?;
    }
    Ok(runs)
}

/// Returns the query. The view reads only the events that can matter: statements about a run are dated when it ends or later.
fn query(comparison: &Comparison, measure: &Measure) -> Result<String> {
    let view = views().iter().find(|view| view.name == "runs");
    let view = view.ok_or_else(|| Error::bug("there is no view `runs`"))?;
    let (from, to) = comparison.other_span();
    let since = |from: i64| moment(from.saturating_sub(SKEW));
    let mut spans = format!("event_time >= {}", since(comparison.from));
    if comparison.earlier > 0 {
        spans = format!(
            "({spans} OR event_type <> 'run.completed' OR (event_time >= {} AND event_time < {}))",
            since(from),
            moment(to.saturating_add(LATER))
        );
    }
    let (own, other) = (comparison.is_own("window_start"), comparison.is_other("window_start"));
    Ok(format!(
        "WITH events AS (SELECT * FROM events WHERE event_date >= CAST({first} AS DATE) AND {spans})
SELECT own, weight, CAST(amount AS DOUBLE) AS amount, CAST(units AS DOUBLE) AS units, tenant, task, coalesce(model, '') AS model,
    segments, tool_calls, field_errors, run_id, source, CAST(attempt AS BIGINT) AS attempt, trace_id, release_id,
    CAST(ended_at AS BIGINT) AS ended_at, outcome_status, failure_component, failure_error_type, latency_total_micros, cost,
    cost_currency, policy_exceptions_critical, policy_exceptions_high
FROM (
    SELECT *, {amount} AS amount, {units} AS units, {own} AS own
    FROM ({view}) AS run
    WHERE ({own} OR {other}) AND {sampled}
) AS sided
WHERE units > 0 OR amount <> 0",
        first = since(from),
        amount = measure.amount,
        units = measure.units,
        view = view.sql,
        sampled = comparison.sampled(),
    ))
}

/// The columns of a batch by name, each as one type.
struct Columns<'a>(&'a RecordBatch);

// === impl Columns ===

impl Columns<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.0.column_by_name(name).ok_or_else(|| Error::bug(format!("the answer has no column `{name}`")))
    }

    fn texts(&self, name: &str) -> Result<StringArray> {
        texts(self.column(name)?)
    }

    fn longs(&self, name: &str) -> Result<Int64Array> {
        Ok(cast(self.column(name)?, &DataType::Int64)?.as_primitive().clone())
    }

    fn doubles(&self, name: &str) -> Result<Float64Array> {
        Ok(cast(self.column(name)?, &DataType::Float64)?.as_primitive().clone())
    }
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn text(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn read(batch: &RecordBatch, runs: &mut Vec<Run>) -> Result<()> {
    let columns = Columns(batch);
    let own = columns.column("own")?.as_boolean().clone();
    let doubles = |name| columns.doubles(name);
    let (weight, amount, units, cost) = (doubles("weight")?, doubles("amount")?, doubles("units")?, doubles("cost")?);
    let named = ["tenant", "task", "model", "run_id", "source", "release_id", "outcome_status"];
    let named: Vec<StringArray> = named.iter().map(|name| columns.texts(name)).collect::<Result<_>>()?;
    let optional = ["trace_id", "failure_component", "failure_error_type", "cost_currency"];
    let optional: Vec<StringArray> = optional.iter().map(|name| columns.texts(name)).collect::<Result<_>>()?;
    let counts =
        ["attempt", "ended_at", "latency_total_micros", "policy_exceptions_critical", "policy_exceptions_high"];
    let counts: Vec<Int64Array> = counts.iter().map(|name| columns.longs(name)).collect::<Result<_>>()?;
    let long = |place: usize, row: usize| counts[place].is_valid(row).then(|| counts[place].value(row));
    let (segments, tools, fields) = (segments(&columns)?, tools(&columns)?, field_errors(&columns)?);
    let parts = segments.into_iter().zip(tools).zip(fields);
    for (row, ((segments, tools), field_errors)) in parts.enumerate() {
        let name = |place: usize| text(&named[place], row).unwrap_or_default();
        runs.push(Run {
            own: own.is_valid(row) && own.value(row),
            weight: weight.value(row),
            amount: amount.value(row),
            units: units.value(row),
            tenant: name(0),
            task: name(1),
            model: name(2),
            segments,
            tools,
            field_errors,
            run_id: name(3),
            source: name(4),
            attempt: long(0, row).unwrap_or(1),
            trace_id: text(&optional[0], row),
            release_id: name(5),
            ended_at: long(1, row).unwrap_or(0),
            status: name(6),
            component: text(&optional[1], row),
            error_type: text(&optional[2], row),
            latency_micros: long(2, row),
            cost: cost.is_valid(row).then(|| cost.value(row)),
            currency: text(&optional[3], row),
            critical: long(3, row).unwrap_or(0),
            high: long(4, row).unwrap_or(0),
        });
    }
    Ok(())
}

/// Returns the segments of each row.
fn segments(columns: &Columns<'_>) -> Result<Vec<BTreeMap<String, String>>> {
    let column = columns.column("segments")?.as_map();
    let (keys, values) = (texts(column.keys())?, texts(column.values())?);
    let of_row = |row: usize| {
        if column.is_null(row) {
            return BTreeMap::new();
        }
        let range = place(column.value_offsets(), row);
        range.filter_map(|entry| Some((text(&keys, entry)?, text(&values, entry)?))).collect()
    };
    Ok((0..column.len()).map(of_row).collect())
}

/// Returns the tool calls of each row.
fn tools(columns: &Columns<'_>) -> Result<Vec<Vec<(String, bool)>>> {
    let column = columns.column("tool_calls")?.as_list::<i32>();
    let calls = Records(column.values());
    let (names, failed) = (calls.texts("name")?, calls.facts("failed")?);
    let call = |entry: usize| Some((text(&names, entry)?, failed.is_valid(entry) && failed.value(entry)));
    Ok(lists(column, call))
}

/// Returns the invalid fields of each row. The place in a list does not matter: `/items/3/price` is `/items/*/price`.
fn field_errors(columns: &Columns<'_>) -> Result<Vec<Vec<String>>> {
    let column = columns.column("field_errors")?.as_list::<i32>();
    let errors = Records(column.values());
    let (paths, rules) = (errors.texts("path")?, errors.texts("rule")?);
    let error = |entry: usize| {
        let path = text(&paths, entry)?;
        let steps = path.split('/').map(|step| {
            let is_place = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
            if is_place { "*" } else { step }
        });
        let path = steps.collect::<Vec<_>>().join("/");
        Some(format!("{path} {}", text(&rules, entry).unwrap_or_default()))
    };
    Ok(lists(column, error))
}

fn lists<T>(column: &arrow::array::ListArray, value: impl Fn(usize) -> Option<T>) -> Vec<Vec<T>> {
    let of_row = |row: usize| match column.is_null(row) {
        true => Vec::new(),
        false => place(column.value_offsets(), row).filter_map(&value).collect(),
    };
    (0..column.len()).map(of_row).collect()
}

/// Returns the places of the entries of a row.
fn place(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |place: usize| usize::try_from(offsets[place]).unwrap_or(0);
    at(row)..at(row + 1)
}

/// The records in a list.
struct Records<'a>(&'a ArrayRef);

// === impl Records ===

impl Records<'_> {
    fn field(&self, name: &str) -> Result<&ArrayRef> {
        let records = self.0.as_struct_opt().and_then(|records| records.column_by_name(name));
        records.ok_or_else(|| Error::bug(format!("records of the answer have no field `{name}`")))
    }

    fn texts(&self, name: &str) -> Result<StringArray> {
        texts(self.field(name)?)
    }

    fn facts(&self, name: &str) -> Result<BooleanArray> {
        Ok(self.field(name)?.as_boolean().clone())
    }
}
