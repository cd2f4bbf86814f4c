//! The title of an alert: one line for people, with values in the units that they would choose.

use bellwether_detect::Evidence;
use bellwether_stats::figure;

use crate::record::Subject;

/// Returns the title of an alert, such as "checkout: failure rate 8.1 % → 14.2 % on release r142 against r141 (1204 against
/// 10880 runs)".
pub(crate) fn title(subject: Subject<'_>, baseline: Option<&str>, evidence: &Evidence) -> String {
    let Subject { rule, series, release, .. } = subject;
    let named: Vec<&str> = series.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
    let measured = MeasuredValue::new(&rule.value, evidence.effect_kind);
    let mut text =
        if named.is_empty() { measured.name.to_owned() } else { format!("{}: {}", named.join(" "), measured.name) };
    if let Some(of) = evidence.of {
        text.push_str(&format!(", {of}"));
    }
    if let Some(stratum) = &evidence.stratum {
        text.push_str(&format!(" of `{}`", if stratum.is_empty() { "(none)" } else { stratum }));
    }
    let shown = |value: f64| measured.shown(value);
    match (evidence.effect_kind, evidence.baseline_value, evidence.canary_value) {
        ("burn_rate", Some(budget), Some(now)) => {
            text.push_str(&format!(" {}, allowed {}", shown(now), shown(budget)));
            if let Some(rate) = evidence.effect {
                text.push_str(&format!(" ({rate:.1} times the budget)"));
            }
        }
        ("events", _, Some(now)) => text.push_str(&format!(" {now:.0}")),
        (_, Some(before), Some(now)) => text.push_str(&format!(" {} → {}", shown(before), shown(now))),
        (_, _, Some(now)) => text.push_str(&format!(" {}", shown(now))),
        _ => {}
    }
    if !release.is_empty() {
        text.push_str(&format!(" on release {release}"));
        if let Some(baseline) = baseline {
            text.push_str(&format!(" against {baseline}"));
        }
    }
    if evidence.effect_kind != "burn_rate"
        && let (Some((_, before)), Some((_, now))) = (evidence.baseline_counts, evidence.canary_counts)
    {
        match evidence.seen_runs {
            Some((Some(seen_before), seen)) => {
                text.push_str(&format!(" ({now} against {before} runs, sampled: {seen} and {seen_before})"));
            }
            _ => text.push_str(&format!(" ({now} against {before} runs)")),
        }
    }
    if evidence.also > 0 {
        text.push_str(&format!("; and {} more", evidence.also));
    }
    text
}

/// The value that a rule measures, and the unit in which it is shown.
#[derive(Clone, Copy, Debug)]
pub struct MeasuredValue<'a> {
    /// Name, without a unit.
    pub name: &'a str,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Share,
    /// Time, with its unit in microseconds.
    Time(f64),
    Number,
}

// === impl MeasuredValue ===

impl<'a> MeasuredValue<'a> {
    /// Takes the `value` of a rule and the kind of its effect. A value with a unit of time, such as "median latency, µs", is shown
    /// in the unit that people would choose.
    pub fn new(value: &'a str, effect_kind: &str) -> Self {
        let share = matches!(effect_kind, "odds_ratio" | "share" | "burn_rate");
        let time = [(", µs", 1.0), (", ms", 1e3), (", s", 1e6)];
        let timed = time.iter().find_map(|(unit, micros)| Some((value.strip_suffix(unit)?, *micros)));
        match timed {
            _ if share => Self { name: value, unit: Unit::Share },
            Some((name, micros)) => Self { name, unit: Unit::Time(micros) },
            None => Self { name: value, unit: Unit::Number },
        }
    }

    /// Returns a value with its unit.
    pub fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::Share => figure::percent(value),
            Unit::Time(micros) => figure::duration(value * micros),
            Unit::Number => short(value),
        }
    }
}

/// Returns a number for a line of text: with three significant digits, and all digits of its whole part.
fn short(value: f64) -> String {
    let size = value.abs();
    if size.is_infinite() {
        return if value > 0.0 { "∞".to_owned() } else { "-∞".to_owned() };
    }
    if size < 0.1 {
        return figure::number(format!("{value:.2e}").parse().unwrap_or(value));
    }
    let decimals = if size >= 1e4 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_in_the_unit_that_people_use() {
        let shown = |value: &str, kind: &str, number: f64| MeasuredValue::new(value, kind).shown(number);
        assert_eq!(shown("median latency, µs", "ratio", 1_210_041.0), "1.21 s");
        assert_eq!(shown("median latency, ms", "value", 85.0), "85 ms");
        assert_eq!(shown("wait, s", "value", 7_500.0), "2 h 5 min");
        assert_eq!(MeasuredValue::new("median latency, µs", "ratio").name, "median latency");
        assert_eq!(shown("failure rate", "odds_ratio", 0.583), "58.3 %");
        assert_eq!(shown("failure rate", "share", 0.0004), "0.04 %");
        assert_eq!(shown("cost per completed task", "ratio", 0.05), "0.05");
        assert_eq!(shown("cost per completed task", "ratio", 0.000_012_3), "0.0000123");
        assert_eq!(shown("runs", "runs", 12_345.6), "12346");
    }
}
