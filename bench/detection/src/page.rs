//! Writes the generated part of `docs/detection.md`.

use crate::picture::Mark;
use crate::suite::{Results, Target};
use crate::tally::{Figure, TableRow};

/// Start marker of the generated part.
pub const BEGIN: &str = "<!-- measured: begin; written by `make bench-detection` -->";
/// End marker of the generated part.
pub const END: &str = "<!-- measured: end -->";

/// The circumstances of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunInfo {
    pub date: String,
    pub machine: String,
    pub command: String,
    /// Number of seeds.
    pub seeds: String,
    /// Duration.
    pub took: String,
    /// Python peers that were run.
    pub peers: String,
}

/// Returns the page with its generated part replaced; none if the page lacks the markers.
pub fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

/// Formats the generated part.
pub fn part(results: &Results, info: &RunInfo) -> String {
    let mut text = String::new();
    let held = results.targets.iter().filter(|target| target.holds()).count();
    push(
        &mut text,
        format_args!(
            "Measured {} on {}, `{}`, {}, {}. {}\n\nRanges in parentheses are 95 % confidence intervals. {held} of {} targets are met.\n\n",
            info.date,
            info.machine,
            info.command,
            info.seeds,
            info.took,
            info.peers,
            results.targets.len()
        ),
    );
    push(&mut text, format_args!("### What is required\n\n"));
    push(
        &mut text,
        format_args!("| target | scenario | required | measured | seeds | |\n| --- | --- | --- | --- | --- | --- |\n"),
    );
    for target in &results.targets {
        push(&mut text, format_args!("{}\n", target_line(target)));
    }
    table(&mut text, "Releases", &results.releases);
    table(&mut text, "Change against the series' own past", &results.past);
    table(&mut text, "Many series, objectives, missing data", &results.others);
    text.trim_end().to_owned() + "\n"
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.push_str(&what.to_string());
}

fn target_line(target: &Target) -> String {
    let sign = if target.at_least { "≥" } else { "≤" };
    let found = target.found.map_or_else(|| "never".to_owned(), |found| format!("{} {}", number(found), target.unit));
    let interval = match target.interval {
        (Some(low), Some(high)) => format!(" ({}–{})", number(low), number(high)),
        (Some(low), None) => format!(" (at least {})", number(low)),
        _ => String::new(),
    };
    let verdict = if target.holds() { "met" } else { "**missed**" };
    format!(
        "| {} | {} | {sign} {} {} | {found}{interval} | {} | {verdict} |",
        target.what,
        target.scenario,
        number(target.limit),
        target.unit,
        target.seeds
    )
}

fn table(text: &mut String, title: &str, rows: &[TableRow]) {
    push(text, format_args!("\n### {title}\n\n"));
    push(
        text,
        format_args!(
            "| scenario | traffic | detector | seeds | alarmed | median delay | 90 % within | canary runs | other |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        ),
    );
    // Group rows by scenario and traffic, in order of first appearance.
    let mut order: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let key = (row.scenario.as_str(), row.traffic.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    for key in order {
        for row in rows.iter().filter(|row| (row.scenario.as_str(), row.traffic.as_str()) == key) {
            push(text, format_args!("{}\n", line(row)));
        }
    }
}

fn line(row: &TableRow) -> String {
    let percent = |figure: &Figure| of_figure(figure, |value| format!("{} %", number(100.0 * value)), 100.0);
    let alarmed = row.alarmed.as_ref().map(percent).unwrap_or_default();
    let delay = row.minutes.as_ref().map(delay_text).unwrap_or_default();
    let p90 = match (&row.minutes, row.minutes_p90) {
        (None, _) => String::new(),
        (Some(_), Some(minutes)) => duration(minutes),
        (Some(_), None) => "never".to_owned(),
    };
    let runs = row.runs.as_ref().and_then(|figure| figure.value).map(number).unwrap_or_default();
    let other = match (&row.false_a_week, &row.other) {
        (Some(figure), _) => format!("false alarms per week: {}", of_figure(figure, number, 1.0)),
        (None, Some((name, figure))) => format!("{name}: {}", percent(figure)),
        (None, None) => String::new(),
    };
    format!(
        "| {} | {} | {} | {} | {alarmed} | {delay} | {p90} | {runs} | {other} |",
        row.scenario, row.traffic, row.detector, row.seeds
    )
}

fn of_figure(figure: &Figure, text: impl Fn(f64) -> String, factor: f64) -> String {
    let value = figure.value.map_or_else(|| "–".to_owned(), text);
    match (figure.low, figure.high) {
        (Some(low), Some(high)) => format!("{value} ({}–{})", number(factor * low), number(factor * high)),
        _ => value,
    }
}

fn delay_text(figure: &Figure) -> String {
    let Some(value) = figure.value else { return "never".to_owned() };
    match (figure.low, figure.high) {
        (Some(low), Some(high)) => format!("{} ({}–{})", duration(value), duration(low), duration(high)),
        _ => duration(value),
    }
}

/// Formats a duration in minutes, hours or days.
fn duration(minutes: f64) -> String {
    match minutes {
        minutes if minutes < 180.0 => format!("{minutes:.0} min"),
        minutes if minutes < 2880.0 => format!("{:.1} h", minutes / 60.0),
        minutes => format!("{:.1} d", minutes / 1440.0),
    }
}

/// Formats a number with two to three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 20.0 => 0,
        size if size >= 2.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Returns the detectors with both a false alarm rate and a delay at −5 points, at 27,000 runs a week.
pub fn marks(results: &Results) -> Vec<Mark> {
    let mut marks = Vec::new();
    for row in results.past.iter().filter(|row| row.scenario == "D0 no change" && row.traffic == "3/min") {
        let delay = results.row("D1 -5 pp", "3/min", &row.detector).and_then(|row| row.minutes).and_then(|it| it.value);
        if let (Some(figure), Some(minutes)) = (row.false_a_week, delay) {
            marks.push(Mark {
                name: row.detector.clone(),
                false_a_week: figure.value.unwrap_or(0.0),
                hours: minutes / 60.0,
                own: row.detector.starts_with("Bellwether"),
            });
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{median, rate, share};

    #[test]
    fn the_part_is_replaced_and_the_rest_is_kept() {
        let page = format!("# A\n\n{BEGIN}\nold\n{END}\n\nend\n");
        let new = replaced(&page, "new\n").expect("a place");
        assert_eq!(new, format!("# A\n\n{BEGIN}\n\nnew\n\n{END}\n\nend\n"));
        assert_eq!(replaced(&new, "new\n").as_deref(), Some(new.as_str()));
        assert_eq!(replaced("# A\n", "new"), None);
    }

    #[test]
    fn lines_show_the_measured_figures() {
        let row =
            TableRow::new("R1 -5 pp", "50/min", "D1", 3).delays(&[Some((80.0, 400.0)), Some((100.0, 500.0)), None]);
        assert_eq!(line(&row), "| R1 -5 pp | 50/min | D1 | 3 | 67 % (21–94) | 100 min | never | 500 |  |");
        let null = TableRow { false_a_week: Some(rate(0, 400.0)), ..TableRow::new("D0", "3/min", "D4", 100) };
        assert_eq!(line(&null), "| D0 | 3/min | D4 | 100 |  |  |  |  | false alarms per week: 0 (0–0.01) |");
        assert_eq!(delay_text(&median(&[None, None, Some(1.0)])), "never");
        assert_eq!(share(0, 400).value, Some(0.0));
        assert_eq!([90.0, 600.0, 4000.0].map(duration), ["90 min", "10.0 h", "2.8 d"]);
        assert_eq!([0.0, 0.1, 2.5, 41.7, 1234.5].map(number), ["0", "0.1", "2.5", "42", "1234"]);
    }
}
