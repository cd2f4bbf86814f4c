//! Numbers and changes in words.

use bellwether_base::Week;
use bellwether_stats::figure;
use chrono::DateTime;

use crate::change::{Measure, Unit};
use crate::tasks::Change;

/// Longest text from data in a report, in characters.
const LONGEST: usize = 200;

/// Writes a share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    figure::percent(share)
}

/// Writes a number of runs, which is not whole if runs are sampled.
pub(crate) fn count(runs: f64) -> String {
    // The cast is exact enough: a float of a count is whole here.
    bellwether_base::grouped(runs.abs().round_ties_even() as u64)
}

/// Writes a value of a measure with its unit.
pub(crate) fn value(measure: &Measure, value: f64, currency: &str) -> String {
    match measure.unit {
        Unit::Share => percent(value),
        Unit::PerThousand => figure::number(value),
        Unit::Milliseconds => figure::duration(value * 1000.0),
        Unit::Money => format!("{} {currency}", money(value)).trim_end().to_owned(),
    }
}

/// Writes an amount with three significant digits, and with all digits of its integer part.
fn money(amount: f64) -> String {
    let digits = if amount == 0.0 { 0.0 } else { amount.abs().log10().floor() };
    let scale = 10_f64.powf((2.0 - digits).max(0.0));
    figure::number((amount * scale).round() / scale)
}

/// Writes how far a figure moved: in points for shares, in percent for others.
pub(crate) fn moved(change: &Change) -> String {
    let sign = if change.difference.delta < 0.0 { "−" } else { "+" };
    if change.measure.unit == Unit::Share {
        return format!("{sign}{:.1} points", 100.0 * change.difference.delta.abs());
    }
    if change.before == 0.0 {
        return "from zero".to_owned();
    }
    format!("{sign}{:.0} %", 100.0 * (change.difference.delta / change.before).abs())
}

/// Writes a change as a sentence without its full stop.
pub(crate) fn sentence(change: &Change) -> String {
    let Change { measure, currency, .. } = change;
    let mut name = measure.name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let verb = if change.difference.delta < 0.0 { "fell" } else { "rose" };
    format!(
        "{name} of {} {verb} from {} to {}",
        shown(&change.key.1),
        value(measure, change.before, currency),
        value(measure, change.now, currency)
    )
}

/// Writes a day, for example 24 November.
pub(crate) fn day(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().format("%-d %B").to_string()
}

/// Writes the first and the last day of a week, for example 28 December to 3 January 2027.
pub(crate) fn dates(week: Week) -> String {
    let sunday = DateTime::from_timestamp_micros(week.day(Week::DAYS - 1).0).unwrap_or_default();
    format!("{} to {}", day(week.start()), sunday.format("%-d %B %Y"))
}

/// Writes a time in UTC.
pub(crate) fn time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Returns a text from data on one line, without control characters and with at most 200 characters.
pub(crate) fn shown(text: &str) -> String {
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Difference, MEASURES};

    fn change(place: usize, before: f64, now: f64) -> Change {
        let difference = Difference { delta: now - before, low: 0.0, high: 0.0 };
        let key = (String::new(), "refunds".to_owned());
        Change { key, measure: &MEASURES[place], before, now, difference, currency: "EUR".to_owned() }
    }

    #[test]
    fn changes_are_sentences() {
        assert_eq!(sentence(&change(0, 0.91, 0.84)), "Task success of refunds fell from 91.0 % to 84.0 %");
        assert_eq!(moved(&change(0, 0.91, 0.84)), "−7.0 points");
        assert_eq!(
            sentence(&change(5, 0.02, 0.03)),
            "Cost per completed task of refunds rose from 0.02 EUR to 0.03 EUR"
        );
        assert_eq!(moved(&change(5, 0.02, 0.03)), "+50 %");
        assert_eq!([0.0, 0.011_111_1, 12.345, 98_765.4].map(money), ["0", "0.0111", "12.3", "98765"]);
        assert_eq!(moved(&change(5, 0.0, 0.03)), "from zero");
        assert_eq!(sentence(&change(6, 1000.0, 1500.0)), "Mean latency of refunds rose from 1 s to 1.5 s");
    }

    #[test]
    fn the_last_week_of_a_year_ends_in_the_next_one() {
        assert_eq!(dates("2026-W53".parse().expect("a week")), "28 December to 3 January 2027");
    }

    #[test]
    fn numbers_have_separators_and_texts_an_end() {
        assert_eq!(
            ["7", "1,234", "12,345,678"],
            [7.0, 1_234.4, 12_345_678.0].map(count).each_ref().map(String::as_str)
        );
        assert_eq!(shown("a\nb\u{0}c"), "a b c");
        assert_eq!(shown(&"é".repeat(10_000)).chars().count(), LONGEST);
    }
}
