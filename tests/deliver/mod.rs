//! Delivery by the program: real alerts reach a sink with their evidence, once for each transition, whatever is killed.

mod torture;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::common::program::{KEEP_HISTORY, text};
use crate::common::{Setup, bellwether};
use crate::pipeline::alerts::canary;

/// A setup with alerts about a bad canary, and a file as sink.
fn alerted() -> Setup {
    let setup = Setup::new("127.0.0.1:9", "unused", KEEP_HISTORY);
    let inbox = setup.file("pages.ndjson");
    let sink = format!("[deliver.sinks.file]\nkind = \"inbox\"\npath = \"{}\"\n", text(&inbox));
    let config = setup.other("with-sink.toml", |config| format!("{config}{sink}"));
    std::fs::rename(config, setup.config()).expect("replaces the configuration");
    setup.replay_and_watch(&canary("checkout", 240, 3));
    setup
}

fn deliver(setup: &Setup) {
    setup.catch_up_role("deliver");
}

/// Returns the pages that arrived, in order.
fn pages(setup: &Setup) -> Vec<Value> {
    let lines = std::fs::read_to_string(setup.file("pages.ndjson")).unwrap_or_default();
    let notices = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    notices.flat_map(|notice| notice["pages"].as_array().cloned().expect("pages")).collect()
}

/// Returns the last status of each incident by the pages.
fn last(pages: &[Value]) -> BTreeMap<String, String> {
    let of = |page: &Value, key: &str| page[key].as_str().expect(key).to_owned();
    pages.iter().map(|page| (of(page, "incident"), of(page, "status"))).collect()
}

#[test]
fn alerts_are_delivered_once_with_their_evidence_and_what_people_say_about_them() {
    let setup = alerted();
    deliver(&setup);
    let first = pages(&setup);
    let firing =
        setup.sql("SELECT count(DISTINCT alert_id) AS n FROM deliveries WHERE step = 'sent' AND state = 'firing'");
    assert!(firing[0]["n"].as_i64().is_some_and(|n| n > 0), "{firing:?}");
    let regression = first.iter().rfind(|page| page["rule"] == "success_regression").expect("a page");
    assert_eq!((&regression["release"], &regression["baseline_release"]), (&"v2".into(), &"v1".into()));
    // On a busy machine, evidence follows the page. It is there before the role has caught up.
    let evidence = &regression["evidence"];
    assert_eq!((&evidence["baseline"]["name"], &evidence["canary"]["name"]), (&"v1".into(), &"v2".into()));
    assert!(evidence["reproduce"]["checked"] == true, "{evidence:#}");
    assert!(evidence["rollback"]["release"] == "v1", "{evidence:#}");
    assert!(evidence["examples"].as_array().is_some_and(|runs| !runs.is_empty()), "{evidence:#}");
    // Nothing is sent twice, by a later process either.
    deliver(&setup);
    assert_eq!(pages(&setup).len(), first.len());
    let twice = setup.number(
        "SELECT count(*) FROM (SELECT key FROM deliveries WHERE step = 'sent' GROUP BY key HAVING count(*) > 1)",
    );
    assert_eq!(twice, 0);
    let unplanned = "SELECT count(*) FROM deliveries AS s WHERE s.step = 'sent' AND NOT EXISTS
        (SELECT 1 FROM deliveries AS p WHERE p.key = s.key AND p.step = 'planned' AND p.number <= s.number)";
    assert_eq!(setup.number(unplanned), 0, "every message is planned before it is sent");
    // An acknowledgement reaches the sink under the same key.
    let (config, id) = (setup.config(), regression["alert_id"].as_str().expect("an id"));
    bellwether(&["alerts", "ack", id, "--by", "kim", "--reason", "on it", "--config", text(&config)]).succeeds();
    deliver(&setup);
    let acknowledged = pages(&setup).last().cloned().expect("a page");
    assert_eq!((&acknowledged["status"], &acknowledged["incident"]), (&"acknowledged".into(), &regression["incident"]));
    let shown = bellwether(&["alerts", "show", id, "--page", "--config", text(&config)]).succeeds();
    assert!(shown.contains("on release v2 against v1") && shown.contains("Examples        worst"), "{shown}");
}

#[test]
fn a_silenced_alert_waits_until_the_silence_ends() {
    let setup = alerted();
    let config = setup.config();
    let silence = ["alerts", "silence", "task=checkout", "--for", "1h", "--by", "kim", "--reason", "known"];
    bellwether(&[&silence[..], &["--config", text(&config)]].concat()).succeeds();
    deliver(&setup);
    assert!(pages(&setup).iter().all(|page| page["task"] != "checkout"), "{:#?}", last(&pages(&setup)));
    let held = setup.sql("SELECT DISTINCT reason FROM deliveries WHERE step = 'suppressed'");
    assert!(held.iter().any(|row| row["reason"] == "silenced by kim: known"), "{held:?}");
    let id = setup.sql("SELECT silence_id FROM silences")[0]["silence_id"].as_str().expect("an id").to_owned();
    bellwether(&["alerts", "unsilence", &id, "--by", "kim", "--config", text(&config)]).succeeds();
    deliver(&setup);
    assert!(pages(&setup).iter().any(|page| page["rule"] == "success_regression"), "{:#?}", last(&pages(&setup)));
}

#[test]
fn a_deliverer_killed_at_any_moment_loses_no_page_and_keeps_its_keys() {
    let setup = alerted();
    // What arrives without a kill.
    deliver(&setup);
    let expected: BTreeSet<(String, String)> = keys(&pages(&setup));
    std::fs::remove_file(setup.file("pages.ndjson")).expect("the file is there");
    std::fs::remove_dir_all(setup.root().join("deliveries")).expect("the table is there");
    for pause in [40, 90, 160, 260, 400, 700] {
        let deliverer = setup.start("deliver");
        // There is no condition to wait for: the test is about the moment itself.
        std::thread::sleep(Duration::from_millis(pause));
        deliverer.kill();
    }
    deliver(&setup);
    let arrived = pages(&setup);
    assert_eq!(keys(&arrived), expected);
    for (incident, status) in last(&arrived) {
        let query = format!(
            "SELECT state FROM deliveries WHERE incident = '{incident}' AND step = 'sent' ORDER BY number DESC, transition DESC LIMIT 1"
        );
        assert_eq!(setup.sql(&query)[0]["state"], Value::from(status), "{incident}");
    }
}

/// Returns the alerts with the keys of their incidents. An incident is named by its alert and the time at which it was noticed.
fn keys(pages: &[Value]) -> BTreeSet<(String, String)> {
    let of = |page: &Value, key: &str| page[key].as_str().expect(key).to_owned();
    pages.iter().map(|page| (of(page, "alert_id"), of(page, "incident"))).collect()
}
