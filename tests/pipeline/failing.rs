//! A rule that fails on the rows of one task: the other tasks are evaluated, and the failure is reported until it is fixed.

use std::time::{Duration, SystemTime};

use bellwether_lake::{Lake, StorageOptions};
use serde_json::{Value, json};

use crate::common::event::rfc3339;
use crate::common::program::{KEEP_HISTORY, text};
use crate::common::{Setup, bellwether, until};
use crate::evidence::page_of_raised;

/// 2026-01-05 00:00 UTC, a Monday.
const BEGIN_S: u64 = 1_767_571_200;

const RULE: &str = r#"
name = "mine"
doc = "One of ours."
severity = "page"
source = "metrics"
series = ["tenant", "task"]
value = "failures"
sql = """
SELECT window_start, tenant, task, sum(failure) AS events, sum(runs + NUMBER) AS runs
FROM metrics
GROUP BY window_start, tenant, task
"""
detector = { kind = "occurrence" }
"#;

/// Builds runs of three tasks; the name of one has no number in it.
fn events() -> Vec<Value> {
    let mut events = Vec::new();
    for (day, minute, task) in
        (0..4).flat_map(|day| (0..30).flat_map(move |minute| ["a1", "b2", "bad"].map(|task| (day, minute, task))))
    {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN_S + day * 86_400 + minute * 60);
        events.push(json!({
            "spec": "run-event/1.0", "run_id": format!("{task}-{day}-{minute}"), "source": "tests",
            "data": {
                "task": task, "release": {"id": "v1"}, "rollout": {"stage": "full"},
                "started_at": rfc3339(at), "ended_at": rfc3339(at + Duration::from_secs(20)),
                "outcome": {"status": if minute == 10 { "failure" } else { "success" }},
            },
        }));
    }
    events
}

#[test]
fn a_rule_that_fails_on_one_task_is_reported_until_it_is_fixed() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("mine.toml", &RULE.replace("NUMBER", "CAST(regexp_replace(task, '[a-z]', '', 'g') AS BIGINT)"));
    let extra = format!("{KEEP_HISTORY}[alerts]\nrules = \"{}\"\n", text(folder.path()));
    let setup = Setup::new("127.0.0.1:9", "unused", &extra);
    let config = setup.config();
    let config = text(&config);
    setup.replay(&setup.recording("events.ndjson", &events()));
    setup.catch_up_role("aggregate");
    setup.catch_up_role("watch");
    let fired = setup.sql("SELECT DISTINCT task FROM alerts WHERE rule = 'mine' AND state = 'firing' ORDER BY task");
    assert_eq!(fired, [json!({"task": "a1"}), json!({"task": "b2"})]);
    let reported =
        || setup.sql("SELECT state, severity, title FROM alerts WHERE rule = 'rule_failing' ORDER BY evaluation, at");
    let failing = reported();
    assert!(failing.iter().any(|row| row["state"] == "firing" && row["severity"] == "page"), "{failing:#?}");
    let listed = bellwether(&["rules", "list", "--config", config]).succeeds();
    let line = listed.lines().find(|line| line.contains("mine")).expect("it is listed");
    assert!(line.contains("failing since") && line.contains("in a row"), "{line}");
    assert!(listed.lines().filter(|line| line.contains("failing since")).count() == 1, "{listed}");

    // The pages of the alerts that were raised: of the failure itself, and of a rule that compares with no baseline.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let ((_, broken), (own, bare)) = runtime.block_on(async {
        let (root, options) = (setup.root(), StorageOptions::default());
        let lake = Lake::open(text(&root), &options).await.expect("opens");
        (Box::pin(page_of_raised(&lake, "rule_failing")).await, Box::pin(page_of_raised(&lake, "mine")).await)
    });
    assert!(broken.title.contains("rule fails"), "{}", broken.title);
    let evidence = &broken.evidence;
    assert!(evidence.changes.is_empty() && evidence.slices.is_empty() && evidence.examples.is_empty(), "{evidence:#?}");
    assert_eq!((&evidence.cost, &evidence.rollback, &broken.task), (&None, &None, &None));
    assert!(evidence.notes.iter().any(|note| note.contains("The check of the SQL cannot be shown:")), "{evidence:#?}");
    assert!(evidence.reproduce.as_ref().is_some_and(|sql| !sql.checked), "{evidence:#?}");
    let evidence = &bare.evidence;
    assert_eq!(
        (&bare.baseline_release, &evidence.rollback, evidence.mix),
        (&None, &None, None),
        "no release is implicated"
    );
    assert_eq!(bare.task, own.task);
    assert!(evidence.slices.is_empty() && evidence.canary.is_some(), "{evidence:#?}");

    // The health of a watching process names the rule, and the metrics count its failures.
    let running = setup.start("watch");
    let body = until("health names the rule", || {
        let (status, body) = running.get("/healthz")?;
        (status == 200 && body.contains("`mine`")).then_some(body)
    });
    assert!(body.contains("\"degraded\""), "{body}");
    assert_eq!(running.get("/readyz").map(|(status, _)| status), Some(503));
    let metrics = running.get("/metrics").map(|(_, text)| text).expect("metrics");
    assert!(metrics.contains("bellwether_watch_rule_failures_total{rule=\"mine\"}"), "{metrics}");
    running.kill();

    write("mine.toml", &RULE.replace("NUMBER", "0"));
    setup.catch_up_role("watch");
    assert_eq!(reported().last().map(|row| row["state"].clone()), Some(json!("resolved")), "{:#?}", reported());
    let fired = setup.sql("SELECT DISTINCT task FROM alerts WHERE rule = 'mine' AND state = 'firing' ORDER BY task");
    assert_eq!(fired.len(), 3, "{fired:?}");
    let listed = bellwether(&["rules", "list", "--config", config]).succeeds();
    assert!(!listed.contains("failing since"), "{listed}");
}

#[test]
fn integer_division_gives_a_warning_and_division_by_zero_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = |name: &str, value: &str| {
        let text = format!(
            "name = \"{name}\"\ndoc = \"Ours.\"\nseverity = \"ticket\"\nsource = \"tables\"\nseries = [\"task\"]\nvalue = \"share\"\n\
             sql = \"SELECT task, {value} AS value, max(weight_micros) AS weight FROM metrics GROUP BY task\"\n\
             detector = {{ kind = \"threshold\", above = 0.5 }}\n"
        );
        std::fs::write(folder.path().join(format!("{name}.toml")), text).expect("written");
    };
    rule("whole", "sum(failure) / sum(runs - runs)");
    rule("share", "CAST(sum(failure) AS DOUBLE) / sum(runs)");
    let checked = bellwether(&["rules", "check", "--rules", text(folder.path())]).succeeds();
    assert!(checked.contains("! whole: `sum(") && checked.contains("is an integer division"), "{checked}");
    assert!(!checked.contains("! share"), "{checked}");
    let shipped = checked.lines().filter(|line| line.starts_with('!') && !line.contains("! whole")).count();
    assert_eq!(shipped, 0, "{checked}");
}
