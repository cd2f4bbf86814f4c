//! Reads the groups to show from rows of `rolling_history`.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use bellwether_base::{Error, Result};
use bellwether_stats::sketch::Sketch;
use bellwether_stats::weight::{ONE, whole};

use super::{BOUNDS, COSTS, FIGURES, QUANTILES, Span};

/// Labels of the series of a group: columns of the same names.
const LABELS: [&str; 5] = ["span", "tenant", "task", "release_id", "stage"];

/// The metrics of a tenant, task, release and stage in one span. Unknown ones are `None`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) labels: [(&'static str, String); 5],
    pub(crate) figures: Vec<Option<f64>>,
    pub(crate) costs: Vec<Option<f64>>,
    pub(crate) currency: Option<String>,
    pub(crate) latencies: Option<Latencies>,
}

/// The latencies of a group. Their counts are weighted as the figures are, and rounded.
#[derive(Debug)]
pub(crate) struct Latencies {
    /// Runs up to each bound.
    pub(crate) up_to: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) seconds_sum: f64,
    pub(crate) quantile_seconds: Vec<Option<f64>>,
}

/// The columns that are read.
struct Columns {
    labels: Vec<StringArray>,
    as_of: ArrayRef,
    figures: Vec<Float64Array>,
    costs: Vec<Float64Array>,
    currency: StringArray,
    quantiles_ms: Vec<Float64Array>,
    latency_ms_mean: Float64Array,
    sketches: BinaryArray,
}

/// Returns the groups with the most runs of each span in `rows`.
pub(super) fn read(
    rows: &RecordBatch,
    latency_sketches: &ArrayRef,
    most_groups: usize,
) -> Result<BTreeMap<String, Span>> {
    let columns = Columns::of(rows, latency_sketches)?;
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    let runs = &columns.figures[0];
    order.sort_by(|a, b| {
        runs.value(*b).total_cmp(&runs.value(*a)).then_with(|| columns.labels(*a).cmp(&columns.labels(*b)))
    });
    let mut spans: BTreeMap<String, Span> = BTreeMap::new();
    for row in order {
        let as_of_micros = columns.as_of.as_primitive::<Int64Type>().value(row);
        let empty = || Span { as_of_micros, hidden: 0, groups: Vec::new() };
        let span = spans.entry(columns.labels[0].value(row).to_owned()).or_insert_with(empty);
        if span.groups.len() < most_groups {
            span.groups.push(columns.group(row)?);
        } else {
            span.hidden += 1;
        }
    }
    Ok(spans)
}

// === impl Columns ===

impl Columns {
    fn of(rows: &RecordBatch, latency_sketches: &ArrayRef) -> Result<Self> {
        let column = |name: &str, kind: &DataType| {
            let column = rows.column_by_name(name);
            let column = column.ok_or_else(|| Error::bug(format!("`rolling_history` lacks column `{name}`")))?;
            Ok::<_, Error>(cast(column, kind)?)
        };
        let text = |name: &str| Ok::<_, Error>(column(name, &DataType::Utf8)?.as_string::<i32>().clone());
        let number = |name: &str| {
            let column = column(name, &DataType::Float64)?;
            Ok::<_, Error>(column.as_primitive::<Float64Type>().clone())
        };
        Ok(Self {
            labels: LABELS.iter().map(|name| text(name)).collect::<Result<_>>()?,
            as_of: column("as_of", &DataType::Int64)?,
            figures: FIGURES.iter().map(|(_, name, _)| number(name)).collect::<Result<_>>()?,
            costs: COSTS.iter().map(|(_, name, _)| number(name)).collect::<Result<_>>()?,
            currency: text("cost_currency")?,
            quantiles_ms: QUANTILES.iter().map(|(_, name)| number(name)).collect::<Result<_>>()?,
            latency_ms_mean: number("latency_ms_mean")?,
            sketches: cast(latency_sketches, &DataType::Binary)?.as_binary::<i32>().clone(),
        })
    }

    fn labels(&self, row: usize) -> [&str; 5] {
        std::array::from_fn(|place| self.labels[place].value(row))
    }

    fn group(&self, row: usize) -> Result<Group> {
        let values = |columns: &[Float64Array]| columns.iter().map(|column| known(column, row)).collect();
        let labels = self.labels(row);
        Ok(Group {
            labels: std::array::from_fn(|place| (LABELS[place], labels[place].to_owned())),
            figures: values(&self.figures),
            costs: values(&self.costs),
            currency: self.currency.is_valid(row).then(|| self.currency.value(row).to_owned()),
            latencies: self.latencies(row)?,
        })
    }

    fn latencies(&self, row: usize) -> Result<Option<Latencies>> {
        let Some(mean_ms) = known(&self.latency_ms_mean, row).filter(|_| self.sketches.is_valid(row)) else {
            return Ok(None);
        };
        let sketch = Sketch::decode(self.sketches.value(row))
            .map_err(|source| Error::data("a sketch of latencies is damaged").with_source(source))?;
        let total = sketch.counts_up_to(&[u64::MAX])[0];
        let rounded = |micros: i128| u64::try_from(whole(micros)).unwrap_or(0);
        Ok(Some(Latencies {
            up_to: sketch.counts_up_to(&BOUNDS).into_iter().map(rounded).collect(),
            count: rounded(total),
            seconds_sum: mean_ms / 1e3 * (total as f64 / ONE as f64),
            quantile_seconds: self.quantiles_ms.iter().map(|column| known(column, row).map(|ms| ms / 1e3)).collect(),
        }))
    }
}

/// Returns a value that is not null.
fn known(column: &Float64Array, row: usize) -> Option<f64> {
    column.is_valid(row).then(|| column.value(row))
}
