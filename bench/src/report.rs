//! The report of the measurements: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bellwether_base::{Clock, Error, Result, SystemClock};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// The required bound of a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One measurement: the median of its runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    part: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    runs: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<Bound>,
}

/// The results of one run of the program.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    date: String,
    machine: BTreeMap<&'static str, String>,
    quick: bool,
    measures: Vec<Measure>,
    /// Skipped parts, and why.
    skipped: BTreeMap<&'static str, String>,
}

/// The measurements of one part.
pub(crate) struct Section<'a> {
    part: &'static str,
    measures: &'a mut Vec<Measure>,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", number(least)),
            Self::AtMost(most) => format!("≤ {}", number(most)),
        }
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        let command: Vec<String> = std::env::args().skip(1).collect();
        Self {
            command: format!("bellwether-bench {}", command.join(" ")).trim_end().to_owned(),
            date: date(),
            machine: machine(),
            quick,
            measures: Vec::new(),
            skipped: BTreeMap::new(),
        }
    }

    /// Returns the section of a part.
    pub(crate) fn section(&mut self, part: &'static str) -> Section<'_> {
        Section { part, measures: &mut self.measures }
    }

    pub(crate) fn skip(&mut self, part: &'static str, why: String) {
        eprintln!("skipped {part}: {why}");
        self.skipped.insert(part, why);
    }

    /// Returns true if a part was skipped.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// Formats the table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["part", "what", "value", "unit", "runs from … to", "required"]);
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for measure in &self.measures {
            let required = measure.required.map_or_else(String::new, |bound| {
                format!("{}: {}", bound.text(), if bound.holds(measure.value) { "met" } else { "not met" })
            });
            table.add_row([
                measure.part.to_owned(),
                measure.what.clone(),
                number(measure.value),
                measure.unit.to_owned(),
                spread(&measure.runs).trim().trim_matches(['(', ')']).to_owned(),
                required,
            ]);
        }
        let mut text = format!("{table}\n\n`{}`, {}", self.command, self.date);
        for (key, value) in &self.machine {
            text.push_str(&format!(", {key} {value}"));
        }
        text.push('\n');
        for (part, why) in &self.skipped {
            text.push_str(&format!("skipped {part}: {why}\n"));
        }
        text
    }

    /// Writes the JSON for programs.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be written.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::bug("cannot encode the report as JSON").with_source(source))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(file, text + "\n"))
            .map_err(|source| Error::unavailable(format!("cannot write `{}`", file.display())).with_source(source))
    }
}

// === impl Section ===

impl Section<'_> {
    /// Adds a measurement and prints it.
    pub(crate) fn note(&mut self, what: impl Into<String>, runs: &[f64], unit: &'static str, required: Option<Bound>) {
        let part = self.part;
        let measure = Measure { part, what: what.into(), value: median(runs), unit, runs: runs.to_vec(), required };
        eprintln!("  {}: {} {unit}{}", measure.what, number(measure.value), spread(&measure.runs));
        self.measures.push(measure);
    }
}

fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn spread(runs: &[f64]) -> String {
    if runs.len() < 2 {
        return String::new();
    }
    let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(" ({} … {}, {} runs)", number(least), number(most), runs.len())
}

/// Formats a number with at least three significant digits and a thousands separator.
fn number(value: f64) -> String {
    // Small values are shown in scientific notation instead of as 0.
    if value != 0.0 && value.abs() < 0.01 {
        return bellwether_stats::figure::number(format!("{value:.2e}").parse().unwrap_or(value));
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

fn date() -> String {
    let since = Duration::from_micros(u64::try_from(SystemClock.now_micros()).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// Describes the machine.
fn machine() -> BTreeMap<&'static str, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let mut machine = BTreeMap::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    machine.insert("cores", cores.to_string());
    machine.extend(field(&read("/proc/cpuinfo"), "model name").map(|name| ("CPU", name)));
    machine.extend(field(&read("/proc/meminfo"), "MemTotal").map(|size| ("memory", size)));
    machine.insert("Linux", read("/proc/sys/kernel/osrelease").trim().to_owned());
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_thousands_separator() {
        let shown = [0.0, 0.1234, 0.000_123_4, 7.256, 42.51, 999.6, 123_456.7, -1234.0].map(number);
        assert_eq!(shown, ["0.000", "0.123", "0.000123", "7.26", "42.5", "1,000", "123,457", "-1,234"]);
    }

    #[test]
    fn the_value_is_the_median_and_bounds_are_judged_by_it() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtMost(1.9).holds(2.0));
    }
}
