//! What people do about alerts, by the program and by PagerDuty's webhook, over recorded tables with firing alerts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_base::{Clock, SystemClock};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::program::{Running, text};
use crate::common::{Setup, bellwether, until_or};
use crate::earlier;

/// The secret of the webhook.
const SECRET: &str = "secret-of-the-subscription";

/// Returns tables with the alerts that the present program raises over the recorded runs.
fn setup() -> Setup {
    let setup = earlier::recorded(earlier::ROOTS[0], "127.0.0.1:9");
    std::fs::remove_dir_all(setup.root().join("alerts")).expect("the alerts are removed");
    bellwether(&["watch", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
    setup
}

/// Runs `bellwether alerts` over the tables; returns what it prints.
fn alerts(setup: &Setup, arguments: &[&str]) -> String {
    let root = setup.root();
    bellwether(&[&["alerts"], arguments, &["--root", text(&root)]].concat()).succeeds()
}

fn listed(setup: &Setup, arguments: &[&str]) -> Vec<Value> {
    let printed = alerts(setup, &[&["list", "--json"], arguments].concat());
    serde_json::from_str(&printed).expect("a JSON array")
}

/// Returns the only firing alert of a rule.
fn firing(setup: &Setup, rule: &str) -> Value {
    let mut found = listed(setup, &["--state", "firing", "--rule", rule]);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn id(alert: &Value) -> &str {
    alert["alert_id"].as_str().expect("an id")
}

#[test]
fn a_person_acknowledges_an_alert_and_takes_it_back() {
    let setup = setup();
    let alert = firing(&setup, "success_regression");
    let id = id(&alert);
    assert!(alert["acknowledged"].is_null());
    alerts(&setup, &["ack", &id[..10], "--by", "ada", "--reason", "rolling back", "--until", "2h"]);
    let marked = firing(&setup, "success_regression");
    assert_eq!(
        (&marked["acknowledged"]["by"], &marked["acknowledged"]["reason"]),
        (&json!("ada"), &json!("rolling back"))
    );
    assert!(alerts(&setup, &["list"]).contains("acknowledged by ada"));
    let shown = alerts(&setup, &["show", id]);
    assert!(shown.contains("\nActions\n") && shown.contains("ada acknowledged until"), "{shown}");
    // Another person takes it over.
    assert!(alerts(&setup, &["ack", id, "--by", "bob"]).contains("in place of ada"));
    assert!(alerts(&setup, &["ack", id, "--by", "bob"]).contains("by bob already"));
    alerts(&setup, &["unack", id, "--by", "bob"]);
    assert!(firing(&setup, "success_regression")["acknowledged"].is_null());
    let root = setup.root();
    let refused = bellwether(&["alerts", "unack", id, "--by", "bob", "--root", text(&root)]);
    assert!(refused.stderr.contains("is not acknowledged"), "{}", refused.stderr);
    refused.exits_with(1);
    assert_eq!(
        setup.number("SELECT count(*) FROM alert_actions"),
        3,
        "two acknowledgements and one that took the last back"
    );
    let json: Value = serde_json::from_str(&alerts(&setup, &["show", id, "--json"])).expect("JSON");
    assert_eq!(json["actions"].as_array().map(Vec::len), Some(3));
    assert!(json["transitions"].as_array().is_some_and(|rows| rows.len() >= 2) && json["evidence"]["sql"].is_string());
}

#[test]
fn a_silence_covers_matching_alerts_until_it_is_ended() {
    let setup = setup();
    let matcher = "rule=~\"success_.*|policy_.*\"";
    let preview =
        alerts(&setup, &["silence", "task=refund_triage", matcher, "--for", "2h", "--reason", "test", "--dry-run"]);
    assert!(preview.contains("matches 2 alerts") && preview.contains("nothing was recorded"), "{preview}");
    assert_eq!(setup.number("SELECT count(*) FROM alert_actions"), 0);
    alerts(&setup, &["silence", "task=refund_triage", matcher, "--for", "2h", "--reason", "test", "--by", "ada"]);
    let silences = setup.sql("SELECT silence_id, matchers, person, remaining_s FROM silences");
    assert_eq!(silences.len(), 1);
    assert_eq!(silences[0]["matchers"], json!("{task=\"refund_triage\",rule=~\"success_.*|policy_.*\"}"));
    let silence = silences[0]["silence_id"].as_str().expect("an id");
    let silenced: Vec<Value> = listed(&setup, &[]).into_iter().filter(|alert| !alert["silenced"].is_null()).collect();
    assert_eq!(silenced.len(), 2, "{silenced:#?}");
    assert!(silenced.iter().all(|alert| alert["silenced"]["silence_id"] == silence));
    alerts(&setup, &["unsilence", &silence[..20], "--by", "bob"]);
    assert!(listed(&setup, &[]).iter().all(|alert| alert["silenced"].is_null()));
    assert_eq!(setup.number("SELECT count(*) FROM silences"), 0);
    // One that matches nothing is a warning, and is recorded.
    let root = setup.root();
    let warned = bellwether(&[
        "alerts",
        "silence",
        "task=other",
        "--for",
        "1h",
        "--reason",
        "x",
        "--by",
        "ada",
        "--root",
        text(&root),
    ]);
    assert!(warned.stderr.contains("warning: it matches no"), "{}", warned.stderr);
    warned.succeeds();
    assert_eq!(setup.number("SELECT count(*) FROM silences"), 1);
}

#[test]
fn a_silence_of_everything_must_be_confirmed() {
    let setup = setup();
    let root = setup.root();
    let silence = |about: &[&str]| {
        let rest = ["--for", "1h", "--reason", "x", "--by", "ada", "--root", text(&root)];
        bellwether(&[&["alerts", "silence"], about, &rest].concat())
    };
    for (about, expected) in [
        (&["task=~\".*\""][..], "matches about every alert"),
        (&["rule!=none"], "matches about every alert"),
        (&["task=~\".+\"", "rule!=none"], "matches about every alert"),
        (&[], "nothing to silence was named"),
        (&["task=~\"(\""], "`(` is not a regular expression"),
    ] {
        let ended = silence(about);
        assert!(ended.stderr.contains(expected) && ended.stderr.contains("hint: "), "{about:?}: {}", ended.stderr);
        ended.exits_with(2);
    }
    assert_eq!(setup.number("SELECT count(*) FROM alert_actions"), 0);
    silence(&["--everything"]).succeeds();
    assert!(listed(&setup, &[]).iter().all(|alert| !alert["silenced"].is_null()));
}

#[test]
fn feedback_gives_the_precision_of_a_rule() {
    let setup = setup();
    let useful = firing(&setup, "success_regression");
    let noise = firing(&setup, "policy_critical");
    alerts(&setup, &["feedback", id(&useful), "noise", "--by", "ada"]);
    alerts(&setup, &["feedback", id(&useful), "useful", "--by", "ada", "--reason", "it was r2"]);
    alerts(&setup, &["feedback", id(&noise), "noise", "--by", "bob"]);
    let rows = setup.sql(
        "SELECT rule, useful, noise, precision, round(precision_low, 3) AS low, alerts_fired, alerts_without_feedback \
         FROM rule_precision WHERE rule IN ('success_regression', 'policy_critical', 'slo_burn_fast') ORDER BY rule",
    );
    assert_eq!(
        rows[0],
        json!({"rule": "policy_critical", "useful": 0, "noise": 1, "precision": 0.0, "low": 0.0, "alerts_fired": 1, "alerts_without_feedback": 0})
    );
    assert_eq!((&rows[1]["rule"], &rows[1]["alerts_without_feedback"]), (&json!("slo_burn_fast"), &json!(1)));
    assert!(rows[1]["precision"].is_null());
    assert_eq!(
        rows[2],
        json!({"rule": "success_regression", "useful": 1, "noise": 0, "precision": 1.0, "low": 0.207, "alerts_fired": 1, "alerts_without_feedback": 0})
    );
    let rules = bellwether(&["rules", "list", "--root", text(&setup.root())]).succeeds();
    assert!(rules.contains("no feedback") && rules.contains("100"), "{rules}");
}

#[test]
fn an_action_that_is_killed_and_repeated_is_recorded_once() {
    let setup = setup();
    let alert = firing(&setup, "success_regression");
    let root = setup.root();
    for round in 0..8_u64 {
        let key = format!("round-{round}");
        let command =
            ["alerts", "ack", id(&alert), "--by", "ada", "--reason", &key, "--key", &key, "--root", text(&root)];
        let killed = Running::start(&command);
        std::thread::sleep(Duration::from_millis(30 * round));
        killed.kill();
        // Two repetitions at once, as of two people with one key.
        let [one, other] = [Running::start(&command), Running::start(&command)];
        one.end().succeeds();
        other.end().succeeds();
    }
    let rows = setup.sql("SELECT action_id, count(*) AS times FROM alert_actions GROUP BY action_id");
    assert_eq!(rows.len(), 8, "{rows:#?}");
    assert!(rows.iter().all(|row| row["times"] == 1), "{rows:#?}");
    assert_eq!(firing(&setup, "success_regression")["acknowledged"]["reason"], "round-7");
    bellwether(&["audit", "--root", text(&root)]).succeeds();
}

#[test]
fn pagerduty_acknowledges_an_alert_by_its_webhook() {
    let setup = setup();
    std::fs::write(setup.file("secret"), format!("{SECRET}\n")).expect("the secret is written");
    let section = format!("[serve]\npagerduty_secret = {{ file = \"{}\" }}", text(&setup.file("secret")));
    let config = setup.other("hook.toml", |text| text.replacen("[serve]", &section, 1));
    let watch = Running::role("watch", &config);
    until_or(|| watch.get("/healthz"), || format!("the endpoints are served\n{}", watch.printed()));
    let alert = firing(&setup, "success_regression");
    let body = |kind: &str, event: &str| {
        let now = humantime::format_rfc3339_millis(now());
        let data = json!({"type": "incident", "incident_key": format!("{}-1", id(&alert))});
        let agent = json!({"summary": "Tenex Engineer", "type": "user_reference"});
        json!({"event": {"id": event, "event_type": kind, "occurred_at": now.to_string(), "agent": agent, "data": data}}).to_string()
    };
    let ack = body("incident.acknowledged", "01A");
    assert_eq!(post(&watch, &ack, "v1=00"), (403, "refused".to_owned()));
    assert!(firing(&setup, "success_regression")["acknowledged"].is_null(), "a forged request has no effect");
    assert_eq!(post(&watch, &ack, &signed(&ack)), (200, "recorded".to_owned()));
    let marked = firing(&setup, "success_regression");
    assert_eq!(marked["acknowledged"]["by"], "Tenex Engineer");
    assert_eq!(post(&watch, &ack, &signed(&ack)), (200, "known".to_owned()), "a replay");
    let back = body("incident.unacknowledged", "01B");
    assert_eq!(post(&watch, &back, &signed(&back)), (200, "recorded".to_owned()));
    assert!(firing(&setup, "success_regression")["acknowledged"].is_null());
    assert_eq!(post(&watch, &ack, &signed(&ack)), (200, "known".to_owned()), "a replay acknowledges nothing again");
    assert!(firing(&setup, "success_regression")["acknowledged"].is_null());
    let rows = setup.sql("SELECT kind, origin FROM alert_actions ORDER BY at");
    assert_eq!(rows, [json!({"kind": "ack", "origin": "pagerduty"}), json!({"kind": "unack", "origin": "pagerduty"})]);
    watch.stop();
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(SystemClock.now_micros().unsigned_abs())
}

fn signed(body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={digits}")
}

/// Posts an event; returns the status code and the status in the answer.
fn post(watch: &Running, body: &str, signature: &str) -> (u16, String) {
    let printed = watch.printed();
    let (_, rest) = printed.split_once("http://").expect("the program says where it listens");
    let address = rest.split('/').next().expect("an address");
    let mut stream = TcpStream::connect(address).expect("connects");
    let head = format!(
        "POST /hooks/pagerduty HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nx-pagerduty-signature: {signature}\r\n"
    );
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
    let json: Value = serde_json::from_str(json).expect("JSON");
    (code, json["status"].as_str().unwrap_or_default().to_owned())
}
