//! Turns the rows that a rule's query returns into observations.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use bellwether_detect::detector::MICRO;
use bellwether_detect::weights::ONE;
use bellwether_detect::{Cell, Groups, Measure, Minute, RatioTotals, total_of};
use bellwether_stats::Sketch;
use bellwether_stats::histogram_e::signed_histogram_of;

use crate::rule::{DetectorSettings, Rule};

/// Microseconds in a minute.
pub(crate) const MINUTE_MICROS: i64 = 60_000_000;

/// The largest value of `decimal(38,0)`.
const GREATEST: i128 = 10_i128.pow(38) - 1;

/// Separates the values of a series in its name.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// The column with the number of runs that each run of a row represents, in millionths.
pub(crate) const WEIGHT: &str = "weight_micros";

/// One observation: the values of its series, and the cell that it adds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observation {
    pub(crate) series: Vec<String>,
    pub(crate) cell: Cell,
}

/// Checks that a query returns the columns that a rule needs.
///
/// # Errors
/// Names the missing columns and those that the query returns.
pub(crate) fn check_columns(rule: &Rule, schema: &Schema) -> Result<(), String> {
    let has = |name: &str| schema.field_with_name(name).is_ok();
    let needs = rule.needs();
    let mut missing: Vec<String> = Vec::new();
    if needs.windows && !has("window_start") {
        missing.push("`window_start`".to_owned());
    }
    if needs.releases {
        missing.extend(["release_id", "stage"].iter().filter(|name| !has(name)).map(|name| format!("`{name}`")));
    }
    for column in rule.series.iter().chain(&rule.strata).filter(|name| !has(name)) {
        missing.push(format!("`{column}`"));
    }
    for choice in needs.columns.iter().filter(|choice| !choice.iter().any(|name| has(name))) {
        missing.push(choice.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(format!(
        "the query does not return {}, which `{}` needs; it returns {}",
        missing.join(", "),
        rule.settings_name(),
        there.join(", ")
    ))
}

/// Returns the observations of a batch. Values without a window get the window `now`.
///
/// # Errors
/// Names a column whose type does not fit.
pub(crate) fn observations(rule: &Rule, batch: &RecordBatch, now: Minute) -> Result<Vec<Observation>, String> {
    let columns = Columns::of(rule, batch)?;
    let mut found = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let window = match &columns.window {
            None => now,
            Some(windows) if windows.is_valid(row) => {
                windows.as_primitive::<TimestampMicrosecondType>().value(row).div_euclid(MINUTE_MICROS)
            }
            Some(_) => return Err("a row of the query has a null `window_start`".to_owned()),
        };
        let Some(measure) = columns.measure(row)? else { continue };
        let text = |column: &ArrayRef| {
            if column.is_valid(row) { column.as_string::<i32>().value(row).to_owned() } else { String::new() }
        };
        let stratum: Vec<String> = columns.strata.iter().map(text).collect();
        found.push(Observation {
            series: columns.series.iter().map(text).collect(),
            cell: Cell {
                window,
                release: columns.release.as_ref().map_or_else(|| Arc::from(""), |column| Arc::from(text(column))),
                canary: columns.stage.as_ref().is_some_and(|column| text(column) != "full"),
                stratum: Arc::from(stratum.join(" ").trim()),
                measure,
            },
        });
    }
    Ok(found)
}

/// Adds up observations of one cell, so that a rule's query need not.
pub(crate) fn folded(observations: Vec<Observation>) -> Vec<Observation> {
    type CellKey = (Minute, String, Arc<str>, bool, Arc<str>);
    let mut sums: BTreeMap<CellKey, Observation> = BTreeMap::new();
    for observation in observations {
        let cell = &observation.cell;
        let series = observation.series.join(&SEPARATOR.to_string());
        let key = (cell.window, series, Arc::clone(&cell.release), cell.canary, Arc::clone(&cell.stratum));
        match sums.entry(key) {
            std::collections::btree_map::Entry::Occupied(mut sum) => sum.get_mut().cell.measure.add(&cell.measure),
            std::collections::btree_map::Entry::Vacant(sum) => {
                sum.insert(observation);
            }
        }
    }
    sums.into_values().collect()
}

/// The columns of a batch, each cast to the type of its purpose.
struct Columns {
    window: Option<ArrayRef>,
    series: Vec<ArrayRef>,
    strata: Vec<ArrayRef>,
    release: Option<ArrayRef>,
    stage: Option<ArrayRef>,
    events: Option<ArrayRef>,
    good: Option<ArrayRef>,
    runs: Option<ArrayRef>,
    groups_events: Option<ArrayRef>,
    groups_good: Option<ArrayRef>,
    groups_runs: Option<ArrayRef>,
    ratio: Option<[ArrayRef; 5]>,
    sketch: Option<ArrayRef>,
    bins: Option<ArrayRef>,
    share: Option<ArrayRef>,
    value: Option<ArrayRef>,
    weight: Option<ArrayRef>,
    /// Runs count as arrivals: each as often as the runs that it represents.
    arrivals: bool,
}

// === impl Columns ===

impl Columns {
    fn of(rule: &Rule, batch: &RecordBatch) -> Result<Self, String> {
        let as_type = |name: &str, kind: &DataType| -> Result<Option<ArrayRef>, String> {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            let wrong = || format!("column `{name}` is {}, which cannot be read as {kind}", column.data_type());
            // The query engine would read text as a number if it looks like one, and as null if it does not.
            let text = matches!(column.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
            if text && *kind != DataType::Utf8 {
                return Err(wrong());
            }
            saturating_cast(column, kind).map(Some).map_err(|_| wrong())
        };
        let lists = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
        let needed =
            |name: &String| as_type(name, &DataType::Utf8)?.ok_or_else(|| format!("there is no column `{name}`"));
        let whole = DataType::Decimal128(38, 0);
        let ratio = match ["y", "x", "yy", "xx", "xy"].map(|name| as_type(name, &whole)) {
            [y, x, yy, xx, xy] => match (y?, x?, yy?, xx?, xy?) {
                (Some(y), Some(x), Some(yy), Some(xx), Some(xy)) => Some([y, x, yy, xx, xy]),
                _ => None,
            },
        };
        let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Ok(Self {
            window: if rule.needs().windows { as_type("window_start", &moment)? } else { None },
            series: rule.series.iter().map(needed).collect::<Result<_, _>>()?,
            strata: rule.strata.iter().map(needed).collect::<Result<_, _>>()?,
            release: as_type("release_id", &DataType::Utf8)?,
            stage: as_type("stage", &DataType::Utf8)?,
            events: as_type("events", &DataType::Int64)?,
            good: as_type("good", &DataType::Int64)?,
            runs: as_type("runs", &DataType::Int64)?,
            groups_events: as_type("groups_events", &lists)?,
            groups_good: as_type("groups_good", &lists)?,
            groups_runs: as_type("groups_runs", &lists)?,
            ratio,
            sketch: as_type("sketch", &DataType::Binary)?,
            bins: as_type("bins", &lists)?,
            share: as_type("share", &DataType::Float64)?,
            value: as_type("value", &DataType::Float64)?,
            weight: as_type(WEIGHT, &DataType::Int64)?,
            arrivals: matches!(rule.settings, DetectorSettings::Silence { .. }),
        })
    }

    /// Returns the measure of a row; none if it has no value.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    fn measure(&self, row: usize) -> Result<Option<Measure>, String> {
        if let Some(value) = &self.value {
            // Null and NaN are no value. An infinite value is beyond every bound: the cast saturates at the end of 64 bits, which
            // represents it.
            let known = value
                .is_valid(row)
                .then(|| value.as_primitive::<Float64Type>().value(row))
                .filter(|value| !value.is_nan());
            return Ok(known.map(|value| Measure::from_counts((value * MICRO).round() as i64, 1)));
        }
        let runs = long(self.runs.as_ref(), row);
        let events = match (&self.events, &self.good) {
            (None, Some(good)) => runs.saturating_sub(long(Some(good), row)),
            (events, _) => long(events.as_ref(), row),
        };
        let mut measure = Measure::from_counts(events, runs);
        if let Some(share) = self.share.as_ref().filter(|share| share.is_valid(row)) {
            measure.share_micros = (share.as_primitive::<Float64Type>().value(row) * MICRO).round() as i64;
        }
        if let Some(of_runs) = list(self.groups_runs.as_ref(), row) {
            let events = match (list(self.groups_events.as_ref(), row), list(self.groups_good.as_ref(), row)) {
                (Some(events), _) => Some(events),
                (None, Some(good)) => {
                    Some(of_runs.iter().zip(&good).map(|(runs, good)| runs.saturating_sub(*good)).collect())
                }
                (None, None) => None,
            };
            measure.groups = events.map(|events| Box::new(Groups { events, runs: of_runs }));
        }
        if let Some(columns) = &self.ratio {
            let of = |column: &ArrayRef| {
                if column.is_valid(row) { column.as_primitive::<Decimal128Type>().value(row) } else { 0 }
            };
            let [y, x, yy, xx, xy] = columns.each_ref().map(of);
            measure.ratio = Some(Box::new(RatioTotals { y, x, yy, xx, xy }));
        }
        if let Some(bins) = list(self.bins.as_ref(), row) {
            measure = Measure { runs: total_of(&bins), bins, ..measure };
        } else if let Some(sketch) = self.sketch.as_ref().filter(|sketch| sketch.is_valid(row)) {
            let bins = signed_bins(sketch.as_binary::<i32>().value(row))?;
            measure = Measure { runs: total_of(&bins), bins, ..measure };
        }
        let weight = self.weight.as_ref().filter(|weights| weights.is_valid(row));
        let weight = weight.map_or(ONE, |weights| weights.as_primitive::<Int64Type>().value(row).max(1));
        Ok(Some(if self.arrivals { arrivals(&measure, weight) } else { measure.with_weight(weight) }))
    }
}

/// Casts a column to a type. Fractions are rounded and numbers out of range saturate: the query engine's own cast would make them
/// null, which means no runs at all.
fn saturating_cast(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    let plain = cast(column, kind)?;
    let whole = matches!(kind, DataType::Int64 | DataType::Decimal128(..));
    let fractions = column.data_type().is_floating();
    if !whole || (plain.null_count() == column.null_count() && !fractions) {
        return Ok(plain);
    }
    let numbers = cast(column, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    let keep = |row: usize| plain.is_valid(row) && !fractions;
    let number = |row: usize| {
        let known = numbers.is_valid(row).then(|| numbers.value(row).round());
        known.filter(|number| !number.is_nan())
    };
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, as intended")]
    Ok(match kind {
        DataType::Int64 => {
            let exact = plain.as_primitive::<Int64Type>();
            let values = (0..column.len())
                .map(|row| if keep(row) { Some(exact.value(row)) } else { number(row).map(|number| number as i64) });
            Arc::new(values.collect::<Int64Array>())
        }
        _ => {
            let exact = plain.as_primitive::<Decimal128Type>();
            let values = (0..column.len()).map(|row| {
                if keep(row) {
                    Some(exact.value(row))
                } else {
                    number(row).map(|n| (n as i128).clamp(-GREATEST, GREATEST))
                }
            });
            Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(38, 0)?)
        }
    })
}

/// Returns runs as they reached the producer, which sampled them. Weights are rounded to whole numbers, so that parts add up
/// however they are divided. A change of the sampling rate is no silence.
fn arrivals(measure: &Measure, weight: i64) -> Measure {
    let times = ((weight + ONE / 2) / ONE).max(1);
    Measure::from_counts(measure.events.saturating_mul(times), measure.runs.saturating_mul(times))
}

fn long(column: Option<&ArrayRef>, row: usize) -> i64 {
    column.filter(|column| column.is_valid(row)).map_or(0, |column| column.as_primitive::<Int64Type>().value(row))
}

fn list(column: Option<&ArrayRef>, row: usize) -> Option<Vec<i64>> {
    let column = column.filter(|column| column.is_valid(row))?;
    let values = column.as_list::<i32>().value(row);
    Some(values.as_primitive::<Int64Type>().values().to_vec())
}

/// Returns the counts of a sketch by bin; those of a correction are negative.
fn signed_bins(bytes: &[u8]) -> Result<Vec<i64>, String> {
    let sketch = Sketch::decode(bytes).map_err(|error| format!("column `sketch`: {error}"))?;
    Ok(signed_histogram_of(&sketch))
}
