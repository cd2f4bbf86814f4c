//! Reads the lines of a chart off the rows of a result.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bellwether_base::{Error, Result};
use bellwether_queries::nearest;

use super::scale::Unit;
use crate::screen;
use crate::sql::output::Kept;

/// Lines over one axis of time.
#[derive(Debug)]
pub(super) struct Plot {
    /// Name of the column of times.
    pub(super) time: String,
    /// Number of rows of the result.
    pub(super) rows: usize,
    pub(super) columns: Vec<Column>,
}

/// A column of numbers.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) unit: Unit,
    /// One line for each combination of texts, that with most points first.
    pub(super) series: Vec<Series>,
}

/// A line.
#[derive(Debug)]
pub(super) struct Series {
    /// The texts that tell it from the other lines of the column; empty if there is only one.
    pub(super) label: String,
    /// Times in microseconds since the epoch, in order, and values; a gap if a value is missing.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

// === impl Plot ===

impl Plot {
    /// Returns the first and the last time, microseconds since the epoch.
    pub(super) fn times(&self) -> (f64, f64) {
        let series = self.columns.iter().flat_map(|column| &column.series);
        series
            .flat_map(|series| &series.points)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(first, last), (time, _)| (first.min(*time), last.max(*time)))
    }
}

// === impl Series ===

impl Series {
    /// Returns true if the line has several values at one time.
    pub(super) fn repeats(&self) -> bool {
        self.points.windows(2).any(|pair| pair[0].0 == pair[1].0)
    }
}

// === impl Column ===

impl Column {
    /// Returns the largest size of a value.
    pub(super) fn largest(&self) -> f64 {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.filter_map(|(_, value)| *value).fold(0.0, |largest: f64, value| largest.max(value.abs()))
    }
}

/// Reads the lines; `chosen` names columns of numbers, of texts, and of times.
pub(super) fn read(result: &Kept, chosen: &[String]) -> Result<Plot> {
    let names: Vec<&str> = result.schema.fields().iter().map(|field| field.name().as_str()).collect();
    for name in chosen {
        if !names.contains(&name.as_str()) {
            let error = Error::config(format!("the result has no column `{name}`"));
            return Err(match nearest(name, names.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint(format!("its columns are {}", names.join(", "))),
            });
        }
    }
    let columns = columns(result).map_err(|source| Error::bug("cannot read the result").with_source(source))?;
    let of = |is: fn(&DataType) -> bool| -> Vec<(&str, &ArrayRef)> {
        let all = names.iter().copied().zip(&columns).filter(|(_, column)| is(column.data_type()));
        let all: Vec<_> = all.collect();
        let some: Vec<_> = all.iter().filter(|(name, _)| chosen.iter().any(|it| it == name)).copied().collect();
        if some.is_empty() { all } else { some }
    };
    let (times, numbers) = (of(is_time), of(DataType::is_numeric));
    let Some((time, at)) = times.first().copied() else {
        return Err(Error::config("the result has no column of times").with_hint("select one, such as window_start"));
    };
    if numbers.is_empty() {
        return Err(Error::config("the result has no column of numbers").with_hint("select one, such as success_rate"));
    }
    let unusable = |source: ArrowError| Error::bug("cannot read the columns of the chart").with_source(source);
    let at = micros(at).map_err(unusable)?;
    let labels = labels(&of(is_text), at.len()).map_err(unusable)?;
    let mut plot = Plot { time: time.to_owned(), rows: at.len(), columns: Vec::new() };
    for (name, column) in numbers {
        let values = cast(column, &DataType::Float64).map_err(unusable)?;
        plot.columns.push(Column { name: name.to_owned(), unit: Unit::of(name), series: lines(&at, &values, &labels) });
    }
    // A column without any value would take a panel, and leave it empty.
    plot.columns.retain(|column| column.series.iter().any(|line| line.points.iter().any(|(_, value)| value.is_some())));
    if plot.columns.is_empty() {
        let what = if plot.rows == 0 { "the result has no rows" } else { "no row has both a time and a number" };
        return Err(Error::config(format!("nothing to draw: {what}")));
    }
    Ok(plot)
}

/// Returns the columns of a result, each in one piece.
fn columns(result: &Kept) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
    let fields = result.schema.fields().iter().enumerate();
    fields
        .map(|(place, field)| {
            let pieces: Vec<&dyn Array> = result.batches.iter().map(|batch| batch.column(place).as_ref()).collect();
            if pieces.is_empty() { Ok(arrow::array::new_empty_array(field.data_type())) } else { concat(&pieces) }
        })
        .collect()
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Returns times in microseconds since the epoch.
fn micros(column: &ArrayRef) -> std::result::Result<Vec<Option<f64>>, ArrowError> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let column = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(column.as_primitive::<TimestampMicrosecondType>().iter().map(|time| time.map(|time| time as f64)).collect())
}

/// Returns the label of each row: its values of the columns whose values differ.
fn labels(texts: &[(&str, &ArrayRef)], rows: usize) -> std::result::Result<Vec<String>, ArrowError> {
    let mut labels = vec![String::new(); rows];
    for (_, column) in texts {
        let column = cast(column, &DataType::Utf8)?;
        let values: Vec<Option<&str>> = column.as_string::<i32>().iter().collect();
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        for (label, value) in labels.iter_mut().zip(values) {
            if !label.is_empty() {
                label.push_str(" · ");
            }
            label.push_str(&screen::one_line(value.unwrap_or("∅")));
        }
    }
    Ok(labels)
}

/// Returns the lines of a column, that with most values first.
fn lines(at: &[Option<f64>], values: &ArrayRef, labels: &[String]) -> Vec<Series> {
    let values = values.as_primitive::<Float64Type>();
    let mut series: Vec<Series> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (row, (time, label)) in at.iter().zip(labels).enumerate() {
        let Some(time) = *time else { continue };
        let place = *places.entry(label).or_insert_with(|| {
            series.push(Series { label: label.clone(), points: Vec::new() });
            series.len() - 1
        });
        let value = values.is_valid(row).then(|| values.value(row)).filter(|value| value.is_finite());
        series[place].points.push((time, value));
    }
    for line in &mut series {
        line.points.sort_by(|left, right| left.0.total_cmp(&right.0));
    }
    let known = |line: &Series| line.points.iter().filter(|(_, value)| value.is_some()).count();
    series.sort_by_key(|line| std::cmp::Reverse(known(line)));
    series
}
