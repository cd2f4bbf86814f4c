//! Alerts about rules. A rule that fails again and again is an alert of its own, which resolves when the rule works again. It is
//! in the table `alerts`, so that commands and people see it wherever the watcher runs.

use bellwether_follow::FollowHealth;

use crate::engine::{Engine, FAILING_AFTER, Failures};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::record::{AlertRow, RULE_FAILING, alert_id};
use crate::rule::Rule;

/// A rule works again after this long without a failure, so that one that fails every other time is one alert.
const SETTLED_MICROS: i64 = 30 * 1_000_000;

/// Returns the transitions of the rules' own alerts at a moment, microseconds since the epoch.
pub(crate) fn rows(engine: &Engine, ledger: &Ledger, now: i64) -> Vec<AlertRow> {
    let mut rows = Vec::new();
    for (rule, failures) in engine.failures() {
        let before = ledger.state(&alert_id(RULE_FAILING, std::slice::from_ref(&rule.name), ""));
        rows.extend(steps(before, failures, now).into_iter().map(|step| AlertRow::of_rule(rule, failures, now, step)));
    }
    rows.extend(gone(engine, ledger, now));
    rows
}

/// Returns the transitions from the state that `alerts` holds to the present one: from, to and why.
fn steps(before: &str, failures: &Failures, now: i64) -> Vec<(&'static str, &'static str, &'static str)> {
    let settled = failures.last_failed.is_none_or(|at| now.saturating_sub(at) >= SETTLED_MICROS);
    let works = failures.worked && settled;
    match (before, failures.in_a_row) {
        ("firing", 0) if works => vec![("firing", "resolved", "works")],
        ("pending", 0) if works => vec![("pending", "inactive", "faded")],
        ("firing" | "pending" | "inactive" | "resolved", 0) | ("firing", _) => Vec::new(),
        ("pending", 1..FAILING_AFTER) => Vec::new(),
        ("pending", _) => vec![("pending", "firing", "fails")],
        (before, failed) => {
            let from = if before == "resolved" { "resolved" } else { "inactive" };
            let mut steps = vec![(from, "pending", "fails")];
            if failed >= FAILING_AFTER {
                steps.push(("pending", "firing", "fails"));
            }
            steps
        }
    }
}

/// Resolves the alerts of failing rules that no longer exist.
fn gone(engine: &Engine, ledger: &Ledger, now: i64) -> Vec<AlertRow> {
    let mut rows = Vec::new();
    for (_, alert) in ledger.alerts().filter(|(_, alert)| alert.rule == RULE_FAILING) {
        let Some(name) = alert.labels.get("rule") else { continue };
        let watched = engine.failures().any(|(rule, _)| rule.name == *name);
        let broken = engine.broken().iter().any(|broken| broken.name == *name);
        if watched || broken {
            continue;
        }
        let step = match alert.last().map(|last| last.state.as_str()) {
            Some("firing") => ("firing", "resolved", "removed"),
            Some("pending") => ("pending", "inactive", "removed"),
            _ => continue,
        };
        rows.push(AlertRow::of_rule(&Rule::removed(name, &alert.severity), &Failures::default(), now, step));
    }
    rows
}

/// Counts failures, and reports to health which rules fail.
pub(crate) fn report(engine: &mut Engine, metrics: &Metrics, health: &FollowHealth) {
    for (rule, failed) in engine.count_failures() {
        metrics.rule_failures.with_label_values(&[&rule]).inc_by(failed);
    }
    for (rule, failures) in engine.failures() {
        let given_up = i64::try_from(failures.given_up).unwrap_or(i64::MAX);
        metrics.rule_failing.with_label_values(&[&rule.name]).set(i64::from(failures.in_a_row));
        metrics.given_up.with_label_values(&[&rule.name]).set(given_up);
    }
    health.set_degraded(in_words(engine));
}

/// Describes the rules that fail, in one sentence each; none if all work.
fn in_words(engine: &Engine) -> Option<String> {
    let failing = engine.failures().filter(|(_, failures)| failures.is_failing());
    let words: Vec<String> = failing
        .map(|(rule, failures)| {
            let why = failures.last_error.as_deref().unwrap_or("no error was recorded");
            format!("rule `{}` fails ({} evaluations in a row): {why}", rule.name, failures.in_a_row)
        })
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(in_a_row: u32, worked: bool) -> Failures {
        Failures { in_a_row, worked, ..Failures::default() }
    }

    #[test]
    fn a_rule_fires_after_some_failures_and_resolves_once_it_works() {
        assert!(steps("inactive", &failures(0, true), 0).is_empty());
        assert_eq!(steps("inactive", &failures(1, true), 0), [("inactive", "pending", "fails")]);
        assert_eq!(steps("resolved", &failures(2, false), 0), [("resolved", "pending", "fails")]);
        assert!(steps("pending", &failures(2, true), 0).is_empty());
        assert_eq!(steps("pending", &failures(FAILING_AFTER, true), 0), [("pending", "firing", "fails")]);
        let at_once = [("inactive", "pending", "fails"), ("pending", "firing", "fails")];
        assert_eq!(steps("inactive", &failures(9, false), 0), at_once);
        assert!(steps("firing", &failures(9, true), 0).is_empty());
        assert_eq!(steps("firing", &failures(0, true), 0), [("firing", "resolved", "works")]);
        let lately = Failures { last_failed: Some(0), ..failures(0, true) };
        assert!(steps("firing", &lately, SETTLED_MICROS - 1).is_empty());
        assert_eq!(steps("firing", &lately, SETTLED_MICROS), [("firing", "resolved", "works")]);
        // After a restart the state is unknown until the rule has been evaluated.
        assert!(steps("firing", &failures(0, false), 0).is_empty());
    }
}
