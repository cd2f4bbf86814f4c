//! Rules and alerts through the whole pipeline: which problems they report, which they do not, and each only once.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::tau2;
use crate::common::event::rfc3339;
use crate::common::program::{Ended, KEEP_HISTORY, text};
use crate::common::{Setup, bellwether};

/// 2026-01-05 00:00 UTC, a Monday.
const BEGIN_S: u64 = 1_767_571_200;

/// The compared releases: gpt-4.1, and a model tuned from it.
const TAU2: [(&str, &[&str]); 2] =
    [("tuned", &["022b3ed1", "6448b3c0", "71a5c478"]), ("untuned", &["94ad2a06", "e27af7ee", "e93263f9"])];

fn at(minute: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN_S + minute * 60)
}

/// Builds a run that ends in a given minute.
fn run(id: String, task: &str, release: &str, stage: &str, minute: u64, success: bool) -> Value {
    json!({
        "spec": "run-event/1.0", "run_id": id, "source": "tests",
        "data": {
            "task": task, "release": {"id": release}, "rollout": {"stage": stage},
            "started_at": rfc3339(at(minute)), "ended_at": rfc3339(at(minute) + Duration::from_secs(20)),
            "outcome": {"status": if success { "success" } else { "failure" }},
        },
    })
}

/// Builds four canary runs and eight baseline runs per minute; every `bad`th canary run fails.
pub(crate) fn canary(task: &str, minutes: u64, bad: u64) -> Vec<Value> {
    let mut events = Vec::new();
    for minute in 0..minutes {
        for n in 0..8 {
            let index = minute * 8 + n;
            events.push(run(format!("{task}-a{index}"), task, "v1", "full", minute, index % 12 != 0));
        }
        for n in 0..4 {
            let index = minute * 4 + n;
            events.push(run(format!("{task}-b{index}"), task, "v2", "canary", minute, index % bad != 0));
        }
    }
    events
}

fn fired(setup: &Setup) -> Vec<Value> {
    setup.sql("SELECT rule, task, release_id, at, log_e, threshold, sql FROM alerts WHERE state = 'firing' AND change = 'new' AND NOT stale ORDER BY rule, task, at")
}

#[test]
fn a_real_regression_in_telecom_is_reported_and_none_in_retail() {
    let Some(recorded) = tau2::recorded() else { return };
    let mut events = Vec::new();
    for task in ["retail", "telecom"] {
        for (release, ids) in TAU2 {
            let of = recorded.iter().filter(|run| run["domain"] == task && ids.iter().any(|id| run["release"] == *id));
            // The releases were recorded one after the other; here they run side by side.
            for (minute, recorded) in (0..).zip(of) {
                let mut event = tau2::event(recorded);
                event["source"] = json!(format!("tau2/{release}"));
                event["data"]["release"]["id"] = json!(release);
                event["data"]["started_at"] = json!(rfc3339(at(minute)));
                event["data"]["ended_at"] = json!(rfc3339(at(minute) + Duration::from_secs(30)));
                events.push(event);
            }
        }
    }
    assert_eq!(events.len(), 240, "40 runs of retail and 80 of telecom for each");
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    setup.replay_and_watch(&events);
    let alerts = fired(&setup);
    let of = |task: &str| alerts.iter().filter(|alert| alert["task"] == task).collect::<Vec<_>>();
    let found = of("telecom").into_iter().find(|alert| alert["rule"] == "success_regression");
    assert_eq!(found.expect("the regression is reported")["release_id"], "untuned", "{alerts:#?}");
    assert_eq!(of("retail"), Vec::<&Value>::new());
}

#[test]
fn an_alert_is_reported_once_and_its_sql_reproduces_its_numbers() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let mut events = canary("checkout", 240, 3);
    events.extend(canary("search", 240, 12));
    setup.replay_and_watch(&events);
    let alerts = fired(&setup);
    assert!(alerts.iter().all(|alert| alert["task"] != "search"), "{alerts:#?}");
    let alert = alerts.iter().find(|alert| alert["rule"] == "success_regression").expect("it fires");
    let again = &setup.sql(alert["sql"].as_str().expect("SQL"))[0];
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((number(&again["log_e"]) - number(&alert["log_e"])).abs() < 1e-9, "{again} {alert}");
    assert!(number(&alert["log_e"]) >= number(&alert["threshold"]));
    // Evaluating the tables again gives the same alerts and reports none twice.
    let all = || setup.sql("SELECT alert_id, at, state, stale, change, log_e FROM alerts ORDER BY alert_id, at, state");
    let before = all();
    setup.catch_up_role("watch");
    assert_eq!(all(), before);
    // Evaluated over history, the rule fires at the same time.
    let reported = replayed(&setup, "success_regression").succeeds();
    let at = alert["at"].as_str().expect("a time")[..19].replace(' ', "T");
    assert!(reported.contains(&format!("{at}Z  firing")), "{reported}");
    assert!(
        reported.contains("per month") && reported.contains("delay:") && reported.contains("at most"),
        "{reported}"
    );
}

/// Builds runs of a tenant: four of the canary and eight of the baseline per minute. Runs for which `canary_fails` returns a reason fail.
fn of_tenant(tenant: &str, task: &str, minutes: u64, canary_fails: impl Fn(u64) -> Option<&'static str>) -> Vec<Value> {
    let mut events = Vec::new();
    let mut add = |release: &str, stage: &str, index: u64, minute: u64, reason: Option<&str>| {
        let id = format!("{tenant}-{task}-{release}-{index}");
        let mut event = run(id, task, release, stage, minute, reason.is_none());
        event["tenant"] = json!(tenant);
        if let Some(reason) = reason {
            event["data"]["outcome"]["reason_code"] = json!(reason);
        }
        events.push(event);
    };
    for minute in 0..minutes {
        for index in minute * 8..minute * 8 + 8 {
            add("v1", "full", index, minute, index.is_multiple_of(12).then_some("no_answer"));
        }
        for index in minute * 4..minute * 4 + 4 {
            add("v2", "canary", index, minute, canary_fails(index));
        }
    }
    events
}

#[test]
fn the_sql_of_an_alert_about_one_task_or_failure_returns_the_evidence_of_all() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let usual = |index: u64| index.is_multiple_of(12).then_some("no_answer");
    let mut events = Vec::new();
    // Tenant `early`: one of three tasks is bad from the beginning, and a fourth has too few runs to be judged.
    events.extend(of_tenant("early", "checkout", 150, |index| index.is_multiple_of(3).then_some("wrong_amount")));
    events.extend(["orders", "search"].iter().flat_map(|task| of_tenant("early", task, 150, usual)));
    events.extend(of_tenant("early", "rare", 1, usual));
    // Tenant `later`: one of two tasks gets bad after six hours.
    let turns =
        |index: u64| if index < 4 * 360 { usual(index) } else { index.is_multiple_of(2).then_some("lost_tool") };
    events.extend(of_tenant("later", "checkout", 420, turns));
    events.extend(of_tenant("later", "search", 420, usual));
    setup.replay_and_watch(&events);
    let alerts = setup.sql(
        "SELECT rule, tenant, notes, log_e, baseline_events, baseline_runs, canary_events, canary_runs, sql FROM alerts \
         WHERE state = 'firing' AND rule IN ('release_success', 'new_failure_signature', 'success_regression')",
    );
    let mut subjects = BTreeSet::new();
    for alert in &alerts {
        let again = &setup.sql(alert["sql"].as_str().expect("SQL"))[0];
        for column in ["log_e", "baseline_events", "baseline_runs", "canary_events", "canary_runs"] {
            let number = |of: &Value| of[column].as_f64().unwrap_or_else(|| panic!("{column} of {of:#}"));
            let (stated, found) = (number(alert), number(again));
            assert!(
                (stated - found).abs() <= 1e-9 * stated.abs().max(1.0),
                "{column}: {stated} and {found}\n{alert:#}"
            );
        }
        // The evidence of the stratum alone is another number; the note says which.
        if let Some(alone) = again.get("stratum_log_e").and_then(Value::as_f64) {
            assert!(
                alert["notes"].as_str().is_some_and(|notes| notes.contains(&format!("with a log_e of {alone:.1};"))),
                "{alone} {alert:#}"
            );
            assert!((alone - again["log_e"].as_f64().expect("a number")).abs() > 0.1, "{again}");
            subjects.insert((alert["rule"].to_string(), alert["tenant"].to_string()));
        }
    }
    for wanted in [
        ("release_success", "early"),
        ("release_success", "later"),
        ("new_failure_signature", "early"),
        ("new_failure_signature", "later"),
    ] {
        let wanted = (format!("{:?}", wanted.0), format!("{:?}", wanted.1));
        assert!(subjects.contains(&wanted), "{wanted:?} in {subjects:?}\n{alerts:#?}");
    }
}

#[test]
fn alerts_of_history_are_logged_in_one_line_and_shown_in_words() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    setup.replay_and_watch(&canary("checkout", 240, 3));
    let transitions = setup.number("SELECT count(*) AS n FROM alerts");
    assert!(transitions > 2, "{transitions}");
    // First with a watcher that has no alerts yet, then with one that has them.
    std::fs::remove_dir_all(setup.root().join("alerts")).expect("the table of alerts can be removed");
    for new in [true, false] {
        let ended = bellwether(&["watch", "--until-caught-up", "--config", text(&setup.config())]);
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("bellwether_alerts")).collect();
        let reported: Vec<&&str> = lines.iter().filter(|line| line.contains("state of the alerts")).collect();
        assert_eq!(reported.len(), 1, "{}", ended.stderr);
        assert!(
            !reported[0].contains("firing=0 ") && reported[0].contains("new_transitions=0") != new,
            "{}",
            reported[0]
        );
        // The silence since the last run is logged as a new alert; alerts of the past are not logged one by one.
        let one_by_one = lines.iter().filter(|line| line.contains(": alert alert="));
        assert!(one_by_one.clone().all(|line| line.contains("stale=true")), "{}", ended.stderr);
    }
    let root = setup.root();
    let listed = bellwether(&["alerts", "list", "--root", text(&root)]).succeeds();
    assert!(listed.contains("success_regression") && listed.contains("firing"), "{listed}");
    let id = setup.sql("SELECT alert_id FROM alerts WHERE rule = 'success_regression' LIMIT 1")[0]["alert_id"].clone();
    let shown = bellwether(&["alerts", "show", id.as_str().expect("an id"), "--root", text(&root)]).succeeds();
    let line = |name: &str| shown.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
    assert!(
        line("2026-01-05").contains(" UTC (") && line("2026-01-05").contains(" ago): inactive → pending"),
        "{shown}"
    );
    assert!(line("baseline_value").ends_with(" %") && line("log_e").ends_with(" nats"), "{shown}");
    assert!(line("false_alarm ").ends_with(" %"), "{shown}");
    assert!(line("since").contains(" ago)"), "{shown}");
}

#[test]
fn late_events_change_alerts_and_the_change_is_marked_as_late() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    setup.replay_and_watch(&canary("checkout", 240, 12));
    assert_eq!(fired(&setup), Vec::<Value>::new());
    // The canary's failures of the second hour arrive last.
    let late: Vec<Value> =
        (0..200).map(|n| run(format!("late-{n}"), "checkout", "v2", "canary", 60 + n % 60, false)).collect();
    setup.replay(&setup.recording("late.ndjson", &late));
    setup.catch_up_role("aggregate");
    setup.catch_up_role("watch");
    let reported = setup.sql("SELECT rule, state, at FROM alerts WHERE rule = 'success_regression' AND state = 'firing' AND NOT stale AND task = 'checkout'");
    assert_eq!(reported.len(), 1, "{reported:#?}");
    assert!(reported[0]["at"].as_str().is_some_and(|at| at.contains("01:")), "{reported:#?}");
}

/// Evaluates a rule over the recorded day.
fn replayed(setup: &Setup, rule: &str) -> Ended {
    let root = setup.root();
    let days = ["--from", "2026-01-05", "--to", "2026-01-06"];
    bellwether(&[&["rules", "replay", "--rule", rule][..], &days, &["--root", text(&root)]].concat())
}

fn rules(folder: &std::path::Path, arguments: &[&str]) -> Ended {
    let mut all = vec!["rules"];
    all.extend(arguments);
    all.extend(["--rules", text(folder)]);
    bellwether(&all)
}

const RULE: &str = r#"
name = "NAME"
doc = "One of ours."
severity = "ticket"
source = "metrics"
series = ["tenant", "task"]
value = "rate"
sql = """
SQL
"""
detector = { kind = "regression" }
"#;

#[test]
fn broken_rules_are_reported_and_the_others_continue() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, sql: &str| {
        std::fs::write(folder.path().join(format!("{name}.toml")), RULE.replace("NAME", name).replace("SQL", sql))
            .expect("written");
    };
    write("syntax", "SELEKT window_start FROM metrics");
    write(
        "unknown_column",
        "SELECT window_start, tenant, task, release_id, stage, failures AS events, runs FROM metrics",
    );
    write("wrong_columns", "SELECT window_start, tenant, task, release_id, stage, runs FROM metrics");
    write(
        "wrong_type",
        "SELECT window_start, tenant, task, release_id, stage, release_fingerprint AS events, runs FROM metrics",
    );
    write(
        "nothing",
        "SELECT window_start, tenant, task, release_id, stage, failure AS events, runs FROM metrics WHERE task = 'no such'",
    );
    write("good", "SELECT window_start, tenant, task, release_id, stage, failure AS events, runs FROM metrics");
    let setup =
        Setup::new("127.0.0.1:9", "unused", &format!("{KEEP_HISTORY}[alerts]\nrules = \"{}\"\n", text(folder.path())));
    setup.replay_and_watch(&canary("checkout", 240, 3));
    let reported = fired(&setup);
    for rule in ["good", "success_regression"] {
        assert!(reported.iter().any(|alert| alert["rule"] == rule), "`{rule}` continues: {reported:#?}");
    }
    let checked = rules(folder.path(), &["check", "--root", text(&setup.root())]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for part in [
        "✗ syntax",
        "✗ unknown_column",
        "did you mean `failure`?",
        "✗ wrong_columns",
        "does not return `events` or `good`",
        "✗ wrong_type",
        "✓ nothing: no observations in these tables",
        "✓ good",
        "! good: counts rows of `metrics` without their sampling weight",
        "✓ success_regression",
        "4 problems",
    ] {
        assert!(checked.stdout.contains(part), "`{part}` is missing from\n{}", checked.stdout);
    }
    let shipped = bellwether(&["rules", "check"]);
    assert_eq!(shipped.code, Some(0), "{}", shipped.stdout);
    assert!(!shipped.stdout.contains("! "), "{}", shipped.stdout);
    let replayed = replayed(&setup, "succes_regression");
    assert!(replayed.stderr.contains("did you mean `success_regression`?"), "{}", replayed.stderr);
    let listed = rules(folder.path(), &["list"]).succeeds();
    assert!(listed.contains("good") && listed.contains("silent_producer"), "{listed}");
}

#[test]
fn unit_tests_of_rules_pass_and_fail_as_they_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("success.test.toml");
    let tests = include_str!("../../alerts/tests/rules/success_regression.test.toml");
    std::fs::write(&file, tests).expect("written");
    let passed = bellwether(&["rules", "test", text(&file)]).succeeds();
    assert!(passed.contains("2 passed, 0 failed"), "{passed}");
    std::fs::write(&file, tests.replace("before = \"3h\"", "before = \"61m\"")).expect("written");
    let failed = bellwether(&["rules", "test", text(&file)]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stdout.contains("is not firing from 60 to 61 min; transitions: "), "{}", failed.stdout);
    std::fs::write(&file, tests.replace("failure = 2", "faillure = 2")).expect("written");
    let wrong = bellwether(&["rules", "test", text(&file)]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("`metrics` has no column `faillure`"), "{}", wrong.stderr);
}

#[test]
fn the_unit_tests_of_the_shipped_rules_pass() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/tests/rules");
    let files: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder exists")
        .map(|entry| text(&entry.expect("an entry").path()).to_owned())
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let reported = bellwether(&[&["rules", "test"][..], &files].concat());
    assert_eq!(reported.code, Some(0), "{}{}", reported.stdout, reported.stderr);
    assert!(reported.stdout.matches('✓').count() >= files.len(), "{}", reported.stdout);
}

#[test]
fn a_rule_on_whole_tables_fires_in_replay_as_it_does_live() {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    // From the fourth hour on, another prompt has the same name.
    let events: Vec<Value> = (0..240)
        .map(|minute| {
            let mut event = run(format!("r{minute}"), "checkout", "v1", "full", minute, true);
            event["data"]["release"]["prompt"] = json!({"name": "p", "version": if minute < 180 { "1" } else { "2" }});
            event
        })
        .collect();
    setup.replay_and_watch(&events);
    let reported = replayed(&setup, "fingerprint_surprise").succeeds();
    let fires = |line: &str| line.starts_with("2026-01-05T03:0") && line.contains("  firing");
    assert!(reported.lines().any(fires), "{reported}");
    assert!(reported.contains("fired 1 time in") && reported.contains("has no bound"), "{reported}");
    // Live, it is evaluated by the clock, with the same result.
    let live: Vec<Value> = fired(&setup).into_iter().filter(|alert| alert["rule"] == "fingerprint_surprise").collect();
    assert_eq!(live.len(), 1, "{live:#?}");
}
