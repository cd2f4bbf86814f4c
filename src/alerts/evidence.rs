//! The evidence of an alert for people: times with their age, numbers with their units.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_alerts::Rules;
use bellwether_alerts::title::MeasuredValue;
use bellwether_base::Result;
use bellwether_stats::figure;

use super::when;
use crate::screen;

/// One row of a batch, with access to columns by name.
struct EvidenceRow<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

// === impl EvidenceRow ===

impl<'a> EvidenceRow<'a> {
    fn rows(batches: &'a [RecordBatch]) -> impl Iterator<Item = Self> {
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| Self { batch, row }))
    }

    /// Returns a column, or `None` if it is null in this row.
    fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        self.batch.column_by_name(name).filter(|column| column.is_valid(self.row))
    }

    fn text(&self, name: &str) -> Result<String> {
        let Some(column) = self.column(name) else { return Ok(String::new()) };
        Ok(ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())?.value(self.row).to_string())
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.column(name)?.as_primitive_opt::<Float64Type>().map(|column| column.value(self.row))
    }

    fn moment(&self, name: &str) -> Option<i64> {
        self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>().map(|column| column.value(self.row))
    }
}

/// Formats the transitions of an alert, one line each, and the title where it changes.
pub(super) fn transitions(batches: &[RecordBatch], now: i64, width: Option<usize>) -> Result<String> {
    let (mut lines, mut before) = (Vec::new(), String::new());
    for row in EvidenceRow::rows(batches) {
        let at = row.moment("at").unwrap_or(0);
        let stale = if row.text("stale")? == "true" { ", stale" } else { "" };
        let change = match row.text("change")?.as_str() {
            "new" => String::new(),
            other => format!(", {other}"),
        };
        let line = format!(
            "{}: {} → {}{stale} ({}{change})",
            when::with_age(at, now),
            row.text("state_from")?,
            row.text("state")?,
            row.text("why")?
        );
        lines.extend(indented(&line, 2, width));
        let title = row.text("title")?;
        if title != before {
            lines.extend(indented(&title, 6, width));
        }
        before = title;
    }
    Ok(lines.join("\n"))
}

fn indented(text: &str, by: usize, width: Option<usize>) -> impl Iterator<Item = String> {
    let blank = " ".repeat(by);
    let lines = screen::wrap(text, width.map_or(usize::MAX, |width| width.saturating_sub(by)));
    lines.into_iter().map(move |line| format!("{blank}{line}"))
}

/// Formats all columns of the first row that have a value, except the title and the SQL.
pub(super) fn fields(batches: &[RecordBatch], now: i64, width: Option<usize>) -> Result<String> {
    let Some(row) = EvidenceRow::rows(batches).next() else { return Ok(String::new()) };
    let mut pairs = Vec::new();
    let schema = row.batch.schema();
    for field in schema.fields() {
        let name = field.name().as_str();
        if ["sql", "title"].contains(&name) || row.column(name).is_none() {
            continue;
        }
        pairs.push((name, formatted(&row, name, now)?));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Ok(screen::pairs(pairs, width))
}

/// Returns the SQL of the first row.
pub(super) fn sql(batches: &[RecordBatch]) -> Result<String> {
    EvidenceRow::rows(batches).next().map_or_else(|| Ok(String::new()), |row| row.text("sql"))
}

/// Formats one column.
fn formatted(row: &EvidenceRow<'_>, name: &str, now: i64) -> Result<String> {
    if let Some(moment) = row.moment(name) {
        return Ok(when::with_age(moment, now));
    }
    let Some(column) = row.column(name) else { return Ok(String::new()) };
    if let Some(value) = row.number(name) {
        let (rule, kind) = (row.text("rule")?, row.text("effect_kind")?);
        return Ok(match name {
            "baseline_value" | "canary_value" => {
                let rules = Rules::shipped();
                let named =
                    rules.rules.iter().find(|known| known.name == rule).map_or("", |known| known.value.as_str());
                MeasuredValue::new(named, &kind).shown(value)
            }
            "false_alarm" if row.text("false_alarm_unit")? == "per_release" => figure::percent(value),
            "log_e" | "threshold" => format!("{} nats", figure::number((value * 1e4).round() / 1e4)),
            _ => figure::number(value),
        });
    }
    match (name, column.data_type()) {
        ("strata", DataType::List(_)) => Ok(strata(&column.as_list::<i32>().value(row.row))),
        (_, DataType::Map(..)) => {
            let entries = column.as_map().value(row.row);
            let text = |place: usize, entry: usize| -> Result<String> {
                let formatter = ArrayFormatter::try_new(entries.column(place).as_ref(), &FormatOptions::default())?;
                Ok(formatter.value(entry).to_string())
            };
            let pairs = (0..entries.len()).map(|entry| Ok(format!("{} = {}", text(0, entry)?, text(1, entry)?)));
            Ok(pairs.collect::<Result<Vec<_>>>()?.join("\n"))
        }
        _ => row.text(name),
    }
}

/// Formats strata, one line each: counts and rates of both sides, and the evidence.
fn strata(list: &ArrayRef) -> String {
    let Some(fields) = list.as_struct_opt() else { return String::new() };
    let count = |name: &str, row: usize| {
        let column = fields.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
    };
    let side = |who: &str, row: usize| {
        let (events, runs) = (count(&format!("{who}_events"), row), count(&format!("{who}_runs"), row));
        let rate =
            if runs == 0 { String::new() } else { format!(" ({})", figure::percent(events as f64 / runs as f64)) };
        format!("{events} of {runs}{rate}")
    };
    let lines = (0..fields.len()).map(|row| {
        let name = fields.column_by_name("stratum").and_then(|column| {
            let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default()).ok()?;
            Some(formatter.value(row).to_string())
        });
        let log_e = fields.column_by_name("log_e").and_then(|column| column.as_primitive_opt::<Float64Type>());
        let nats = log_e.map_or(0.0, |column| column.value(row));
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "all".to_owned());
        let nats = figure::number((nats * 1e2).round() / 1e2);
        format!("{name}: {} against {}, {nats} nats", side("canary", row), side("baseline", row))
    });
    lines.collect::<Vec<_>>().join("\n")
}
