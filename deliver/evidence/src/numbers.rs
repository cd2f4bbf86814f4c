//! The statements of the row itself, in words: both sides, the effect with its interval, and the bound on false alarms.

use bellwether_alerts::Rules;
use bellwether_alerts::title::MeasuredValue;
use bellwether_sinks::page::{Arm, Effect, Evidence};
use bellwether_stats::figure;

use crate::record::AlertRecord;

/// Fills in the parts that the row states.
pub(crate) fn evidence(record: &AlertRecord) -> Evidence {
    let mut notes: Vec<String> =
        record.notes.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if record.state == "pending" {
        notes.push("The alert is pending: it fires if the evidence lasts.".to_owned());
    }
    if record.stale {
        notes.push("No new data has arrived since. Missing data never resolves an alert.".to_owned());
    }
    match record.change.as_str() {
        "late" => notes.push("A late correction caused this at a time that was judged before.".to_owned()),
        "moved" => notes.push("A late correction moved this to another time.".to_owned()),
        "retracted" => notes.push("A late correction took the alert back.".to_owned()),
        _ => {}
    }
    Evidence {
        since: record.since,
        baseline: baseline(record),
        canary: canary(record),
        effect: effect(record),
        false_alarm: false_alarm(record),
        notes,
        ..Evidence::default()
    }
}

fn baseline(record: &AlertRecord) -> Option<Arm> {
    let name = match (&record.baseline_release, record.baseline.as_str()) {
        (Some(release), _) => release.clone(),
        (None, "concurrent") => "other releases at the same time".to_owned(),
        (None, "historical") => "the same hours of earlier weeks".to_owned(),
        (None, "past") => "the last four weeks".to_owned(),
        (None, "anchored") => "the reference period".to_owned(),
        (None, _) => "the bound".to_owned(),
    };
    arm(name, (record.baseline_events, record.baseline_runs, record.baseline_value))
}

fn canary(record: &AlertRecord) -> Option<Arm> {
    let name = record.release_id.clone().unwrap_or_else(|| "now".to_owned());
    arm(name, (record.canary_events, record.canary_runs, record.canary_value))
}

/// Makes one side of a comparison; `None` if the row has no number about it.
fn arm(name: String, numbers: (Option<i64>, Option<i64>, Option<f64>)) -> Option<Arm> {
    let (events, runs, value) = numbers;
    let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let arm = Arm { name, events: count(events), runs: count(runs), value };
    (arm.events.is_some() || arm.runs.is_some() || arm.value.is_some()).then_some(arm)
}

fn effect(record: &AlertRecord) -> Option<Effect> {
    let value = record.effect?;
    let said = words(record, value);
    let interval = match (record.effect_low, record.effect_high) {
        (None, None) => String::new(),
        (Some(low), Some(high)) => {
            format!(", with 95 % between {} and {} at all times", size(record, low), size(record, high))
        }
        (Some(low), None) => format!(", with 95 % at least {} at all times", size(record, low)),
        (None, Some(high)) => format!(", with 95 % at most {} at all times", size(record, high)),
    };
    Some(Effect {
        kind: record.effect_kind.clone(),
        value,
        low: record.effect_low,
        high: record.effect_high,
        words: format!("{said}{interval}"),
    })
}

/// Describes an effect.
fn words(record: &AlertRecord, value: f64) -> String {
    let size = size(record, value);
    match record.effect_kind.as_str() {
        "odds_ratio" => format!("odds of a bad run {size} those of the baseline"),
        "rate_ratio" => format!("{size} as frequent as in the baseline"),
        "ratio" => format!("{size} the value of the baseline"),
        "burn_rate" => format!("error budget used {size} as fast as allowed"),
        "psi" => format!("population stability index {size}"),
        "share" => format!("share of the traffic {size}"),
        "mix" => format!("{size} of the runs moved to other values"),
        "runs" => format!("{size} runs"),
        "events" => format!("{size} events"),
        "failures" => format!("{size} failures in a row"),
        _ => size,
    }
}

/// Returns the size of an effect with its unit.
fn size(record: &AlertRecord, value: f64) -> String {
    match record.effect_kind.as_str() {
        "odds_ratio" | "rate_ratio" | "ratio" | "burn_rate" => format!("{} times", rounded(value)),
        "share" | "mix" => figure::percent(value),
        "runs" | "events" | "failures" => format!("{value:.0}"),
        "value" => measured(record, value),
        _ => rounded(value),
    }
}

/// Returns a value in the unit of the rule, if the rule is a shipped one.
fn measured(record: &AlertRecord, value: f64) -> String {
    let rules = Rules::shipped();
    let named = rules.rules.iter().find(|rule| rule.name == record.rule).map_or("", |rule| rule.value.as_str());
    MeasuredValue::new(named, &record.effect_kind).shown(value)
}

fn rounded(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

fn false_alarm(record: &AlertRecord) -> Option<String> {
    let bound = record.false_alarm.filter(|bound| *bound > 0.0)?;
    match record.false_alarm_unit.as_deref()? {
        "per_release" => Some(format!(
            "If the release is no worse, the probability that this alert ever fires is at most {}, however often it is evaluated.",
            figure::percent(bound)
        )),
        "a_month" => Some(format!(
            "If nothing has changed, this alert fires at most {} times a month on average.",
            figure::number((bound * 1e6).round() / 1e6)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &str, value: f64, interval: (Option<f64>, Option<f64>)) -> String {
        let record = AlertRecord {
            effect_kind: kind.to_owned(),
            effect: Some(value),
            effect_low: interval.0,
            effect_high: interval.1,
            ..AlertRecord::default()
        };
        effect(&record).expect("an effect").words
    }

    #[test]
    fn effects_and_intervals_are_said_in_words() {
        assert_eq!(
            said("odds_ratio", 2.4, (Some(1.8), Some(3.1))),
            "odds of a bad run 2.40 times those of the baseline, with 95 % between 1.80 times and 3.10 times at all times"
        );
        assert_eq!(
            said("odds_ratio", 12.34, (Some(1.8), None)),
            "odds of a bad run 12.3 times those of the baseline, with 95 % at least 1.80 times at all times"
        );
        assert_eq!(said("burn_rate", 14.4, (None, None)), "error budget used 14.4 times as fast as allowed");
        assert_eq!(said("share", 0.034, (None, None)), "share of the traffic 3.4 %");
        assert_eq!(said("runs", 0.0, (None, None)), "0 runs");
        assert_eq!(said("unheard_of", 0.5, (None, None)), "0.50");
    }

    #[test]
    fn the_bound_on_false_alarms_is_said_only_if_there_is_one() {
        let with = |bound: Option<f64>, unit: &str| {
            let unit = Some(unit.to_owned());
            false_alarm(&AlertRecord { false_alarm: bound, false_alarm_unit: unit, ..AlertRecord::default() })
        };
        assert!(with(Some(0.01), "per_release").expect("words").contains("ever fires is at most 1.0 %"));
        assert!(with(Some(0.25), "a_month").expect("words").contains("at most 0.25 times a month"));
        assert_eq!(with(None, "per_release"), None);
        assert_eq!(with(Some(0.0), "a_month"), None);
        assert_eq!(with(Some(0.1), "a fortnight"), None);
    }

    #[test]
    fn a_side_without_numbers_is_absent() {
        assert_eq!(arm("x".to_owned(), (None, None, None)), None);
        assert_eq!(baseline(&AlertRecord::default()), None);
        let record = AlertRecord { baseline_value: Some(0.5), baseline: "past".to_owned(), ..AlertRecord::default() };
        assert_eq!(baseline(&record).expect("a value").name, "the last four weeks");
    }
}
