//! An alert that one stratum raises is about that stratum, in every number and in its SQL; the events come from a file.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::common::Setup;
use crate::common::event::rfc3339;
use crate::common::program::KEEP_HISTORY;

/// 2026-01-05 00:00 UTC, a Monday.
const BEGIN_S: u64 = 1_767_571_200;

/// Runs of one release in one minute.
struct Arm<'a> {
    task: &'a str,
    release: &'a str,
    stage: &'a str,
    minute: u64,
    runs: u64,
}

impl Arm<'_> {
    /// Builds its runs; for run `n`, counted over all minutes, `why` returns the failure reason and the invalid field, if any.
    fn events(&self, why: impl Fn(u64) -> (Option<&'static str>, Option<&'static str>)) -> Vec<Value> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN_S + self.minute * 60);
        (0..self.runs)
            .map(|n| {
                let index = self.minute * self.runs + n;
                let (reason, field) = why(index);
                let outcome = match reason {
                    Some(reason) => json!({"status": "failure", "reason_code": reason}),
                    None => json!({"status": "success"}),
                };
                let mut data = json!({
                    "task": self.task, "release": {"id": self.release}, "rollout": {"stage": self.stage},
                    "started_at": rfc3339(at), "ended_at": rfc3339(at + Duration::from_secs(20)), "outcome": outcome,
                    "validation": {"applicable": true, "valid": field.is_none()},
                });
                if let Some(path) = field {
                    data["validation"]["fields"] = json!([{"path": path, "valid": false, "rule": "type"}]);
                }
                json!({
                    "spec": "run-event/1.0", "source": "tests",
                    "run_id": format!("{}-{}-{index}", self.task, self.release), "data": data,
                })
            })
            .collect()
    }
}

/// A task whose canary fails far less often in total, but in one new way; the same holds for its fields.
fn rarer_but_new(minutes: u64) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..minutes {
        let arm = |release, stage| Arm { task: "checkout", release, stage, minute, runs: 3 };
        events.extend(
            arm("v1", "full").events(|n| {
                (if n % 12 < 7 { Some("slow") } else { None }, if n % 5 < 2 { Some("/total") } else { None })
            }),
        );
        events.extend(arm("v2", "canary").events(|n| {
            let reason = match n % 18 {
                0 => Some("lost_order"),
                1..=4 => Some("slow"),
                _ => None,
            };
            (reason, if n % 16 == 3 { Some("/items/4/price") } else { None })
        }));
    }
    events
}

/// Six tasks of a release, one of which fails far more often; it has few of the canary's runs, so that the canary as a whole
/// fails less often than the baseline.
fn one_task_of_six(minutes: u64) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..minutes {
        for task in 0..6 {
            let name = ["t0", "t1", "t2", "t3", "t4", "t5"][task];
            let arm = |release, stage, runs| Arm { task: name, release, stage, minute, runs };
            let usual = if task == 0 { 2 } else { 24 };
            // The hard task, t0, has most baseline runs and few canary runs.
            events.extend(
                arm("w1", "full", if task == 0 { 6 } else { 1 })
                    .events(|n| (if n % usual == 0 { Some("usual") } else { None }, None)),
            );
            let bad = if task == 4 { 4 } else { usual };
            events.extend(
                arm("w2", "canary", if task == 0 { 1 } else { 2 })
                    .events(|n| (if n % bad == 0 { Some("usual") } else { None }, None)),
            );
        }
    }
    events
}

/// A canary with a slow tail and expensive runs.
fn slow_and_expensive(minutes: u64) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..minutes {
        let arm = |release, stage| Arm { task: "quote", release, stage, minute, runs: 4 };
        for (arm, every, cost) in [(arm("q1", "full"), 50, 10), (arm("q2", "canary"), 6, 16)] {
            let mut of = arm.events(|_| (None, None));
            for (n, event) in (0..).zip(&mut of) {
                let index = minute * 4 + n;
                let slow = if index % every == 0 { 9_000 } else { 900 };
                event["data"]["latency"] = json!({"total_ms": slow + index * 37 % 200});
                event["data"]["cost"] = json!({"amount": format!("0.{:03}", cost + index * 7 % 5), "currency": "EUR"});
            }
            events.extend(of);
        }
    }
    events
}

/// A canary that is no worse than its baseline for half a day, and then worse.
fn late(minutes: u64, from: u64) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..minutes {
        let arm = |release, stage, runs| Arm { task: "search", release, stage, minute, runs };
        let usual = |n: u64| (if n.is_multiple_of(8) { Some("usual") } else { None }, None);
        events.extend(arm("s1", "full", 4).events(usual));
        // It is better at first, so that it is not worse over its whole time.
        let bad = if minute >= from { 3 } else { 40 };
        events.extend(arm("s2", "canary", 3).events(|n| (if n % bad == 0 { Some("usual") } else { None }, None)));
    }
    events
}

const COUNTS: [&str; 4] = ["baseline_events", "baseline_runs", "canary_events", "canary_runs"];

/// Returns every alert that compares releases, with its numbers.
fn reported(setup: &Setup) -> Vec<Value> {
    setup.sql(
        "SELECT rule, state, task, title, labels['signature'] AS signature, labels['pattern'] AS pattern, effect, effect_low, \
         baseline_value, canary_value, baseline_events, baseline_runs, canary_events, canary_runs, strata, notes, sql \
         FROM alerts WHERE detector IN ('regression', 'histogram', 'ratio') AND baseline = 'concurrent' AND change = 'new' AND NOT stale \
         ORDER BY rule, at, state",
    )
}

fn fired<'a>(reported: &'a [Value], rule: &str, task: &str) -> &'a Value {
    let found = reported.iter().find(|row| row["rule"] == rule && row["state"] == "firing" && row["task"] == task);
    found.unwrap_or_else(|| panic!("{rule} of {task} does not fire: {reported:#?}"))
}

/// Checks that the alert's SQL returns its numbers, and that its direction is that of its effect.
fn holds(setup: &Setup, row: &Value) {
    let again = &setup.sql(row["sql"].as_str().expect("SQL"))[0];
    for count in COUNTS {
        assert_eq!(again[count], row[count], "{count} of {row:#}\nagain: {again:#}");
    }
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("no {name}: {row:#}"));
    assert!(number("effect") > 1.0, "{row:#}");
    assert!(number("canary_value") > number("baseline_value"), "{row:#}");
}

#[test]
fn title_numbers_and_sql_of_an_alert_are_about_the_stratum_that_raised_it() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let mut events = rarer_but_new(240);
    events.extend(one_task_of_six(300));
    events.extend(late(1200, 700));
    events.extend(slow_and_expensive(300));
    setup.replay_and_watch(&events);
    let reported = reported(&setup);
    let firing: Vec<&Value> =
        reported.iter().filter(|row| row["state"] == "firing" || row["state"] == "pending").collect();
    assert!(!firing.is_empty());
    firing.iter().for_each(|row| holds(&setup, row));

    let signature = fired(&reported, "new_failure_signature", "checkout");
    assert_eq!(signature["signature"], "failure lost_order", "{signature:#}");
    assert_eq!(signature["baseline_events"], 0, "{signature:#}");
    let title = signature["title"].as_str().expect("a title");
    assert!(title.contains("of `failure lost_order` 0 % → 5."), "{title}");
    assert!(signature["effect_low"].as_f64().is_some_and(|low| low > 1.0), "{signature:#}");
    assert_eq!(signature["strata"][0]["stratum"], "failure lost_order", "{signature:#}");

    let field = fired(&reported, "new_field_error", "checkout");
    assert_eq!(field["pattern"], "/items/*/price type", "{field:#}");
    assert_eq!(field["baseline_events"], 0, "{field:#}");

    let task = fired(&reported, "release_success", "t4");
    assert!(task["title"].as_str().is_some_and(|title| title.contains("of `t4`") && title.contains("w2")), "{task:#}");
    // The rate of the failing task, not that of all: a quarter against one in 24.
    let rate = |name: &str| task[name].as_f64().expect("a rate");
    assert!((rate("canary_value") - 0.25).abs() < 0.05 && rate("baseline_value") < 0.1, "{task:#}");

    let tail = fired(&reported, "latency_regression", "quote");
    assert!(tail["title"].as_str().is_some_and(|title| title.contains("95th percentile")), "{tail:#}");
    fired(&reported, "cost_regression", "quote");

    // A fault that begins long after the release has the numbers since it began: over its whole time the canary is better.
    let late = fired(&reported, "success_regression", "search");
    assert!(late["canary_value"].as_f64().is_some_and(|rate| rate > 0.25), "{late:#}");
}
