//! Heartbeats on a real broker: they come back, somebody outside hears of it, and they change nothing else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::common::event::{now, runs};
use crate::common::program::{ConfigText, metric, text};
use crate::common::{Message, Setup, bellwether, broker, until};

const CONFIG: &str =
    "[heartbeat]\nsend = true\ninterval = \"1s\"\ndeadline = \"90s\"\n[alerts]\ninterval = \"500ms\"\n";

/// A server that accepts every request, and keeps them.
pub(crate) struct Listener {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

// === impl Listener ===

impl Listener {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// Listens on an address; port 0 takes any free one.
    pub(crate) fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&requests);
        // It ends with the process: nothing has to wait for it.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = Vec::new();
                let mut part = [0; 4096];
                while !is_whole(&request) {
                    match stream.read(&mut part) {
                        Ok(length) if length > 0 => request.extend_from_slice(&part[..length]),
                        _ => break,
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                drop(stream.write_all(answer));
                let text = String::from_utf8_lossy(&request).into_owned();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        });
        Self { address, requests }
    }

    /// Returns the requests that begin with a text.
    pub(crate) fn with(&self, start: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|request| request.starts_with(start)).cloned().collect()
    }
}

/// Returns true once a request has its headers, and the body that they announce.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

/// Returns the values of the label `task` in the text of `/metrics`.
fn tasks(exposition: &str) -> BTreeSet<&str> {
    let after = exposition.split("task=\"").skip(1);
    after.filter_map(|rest| rest.split('"').next()).collect()
}

/// Checks that no figure knows anything but the 20 runs.
fn only_the_runs_count(setup: &Setup, exposition: &str) {
    let numbers = [
        ("events", "SELECT count(*) FROM events", 20),
        ("quarantine", "SELECT count(*) FROM quarantine", 0),
        ("metrics", "SELECT CAST(sum(runs) AS BIGINT) FROM metrics", 20),
        ("hours", "SELECT coalesce(CAST(sum(runs) AS BIGINT), 0) FROM metrics_hourly WHERE task <> 'refund_triage'", 0),
        ("releases", "SELECT count(*) FROM releases", 2),
        ("runs", "SELECT count(*) FROM runs", 20),
        ("orphans", "SELECT count(*) FROM orphans", 0),
        ("rejected", "SELECT count(*) FROM quarantine_summary", 0),
        ("completeness", "SELECT CAST(sum(runs) AS BIGINT) FROM completeness", 20),
        ("freshness", "SELECT CAST(sum(table_rows) AS BIGINT) FROM freshness WHERE table_name = 'events'", 20),
        ("history", "SELECT count(*) FROM rolling_history WHERE task <> 'refund_triage'", 0),
        ("rules", "SELECT count(*) FROM alerts", 0),
        ("pages", "SELECT count(*) FROM deliveries", 0),
    ];
    for (what, query, expected) in numbers {
        assert_eq!(setup.number(query), expected, "{what}");
    }
    assert!(tasks(exposition).iter().all(|task| *task == "refund_triage"), "exports: {:?}", tasks(exposition));
    let config = setup.config();
    let gate = |task: &str, canary: &str| {
        let arguments = ["gate", "--task", task, "--canary", canary, "--json", "--config", text(&config)];
        let shown = bellwether(&arguments).exits_with(1);
        serde_json::from_str::<Value>(&shown).expect("JSON")
    };
    let answer = gate("refund_triage", "next");
    let comparisons = answer["comparisons"].as_array().expect("comparisons");
    let runs = |side: &str| comparisons.iter().filter_map(|comparison| comparison[side]["runs"].as_i64()).max();
    assert!(!comparisons.is_empty() && runs("canary") <= Some(10) && runs("baseline") <= Some(10), "{answer:#}");
    let unknown = gate("heartbeat", "next");
    assert!(!unknown["unknown"]["near"].to_string().contains("heartbeat"), "{unknown:#}");
}

/// Returns ten runs of a release and ten of its canary.
fn two_releases() -> Vec<Value> {
    let mut all = runs("run", 20);
    for event in &mut all[10..] {
        event["data"]["release"]["id"] = json!("next");
        event["data"]["rollout"] = json!({"stage": "canary"});
    }
    all
}

#[test]
fn heartbeats_come_back_are_reported_outside_and_count_in_no_figure() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("heartbeat", 2);
    broker.publish_events(&topic, 2, &two_releases());
    // An application that sends heartbeats of its own, with a body that would be rejected.
    let forged = || Message::new("poison").with_headers(&[("ce_type", "bellwether.heartbeat"), ("ce_id", "x")]);
    broker.publish(&topic, [forged(), forged()]);
    let outside = Listener::start();
    let extra = format!(
        "{CONFIG}[deliver.sinks.manager]\nkind = \"alertmanager\"\nurls = [\"http://{0}\"]\nallow_private = true\n",
        outside.address
    );
    let extra = extra.replace(
        "send = true\n",
        &format!(
            "send = true\nalertmanager = \"manager\"\nping_url = \"http://{}/ping/0123456789abcdef\"\nallow_private = true\n",
            outside.address
        ),
    );
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        extra: &extra,
        ..ConfigText::default()
    });
    let running = setup.start("run");
    let exposition = until("two heartbeats are back and reported", || {
        let (_, text) = running.get("/metrics")?;
        let sent = metric(&text, "bellwether_heartbeat_signals_total{result=\"sent\",to=\"alertmanager\"}")?;
        (sent >= 2.0 && metric(&text, "bellwether_heartbeat_seconds_count")? >= 2.0).then_some(text)
    });
    let last = metric(&exposition, "bellwether_heartbeat_last_success_timestamp_seconds").expect("it is exported");
    assert!(last > 1.6e9, "{last}");
    assert_eq!(metric(&exposition, "bellwether_heartbeat_failures_total"), None, "{exposition}");
    let pings = outside.with("GET /ping/0123456789abcdef HTTP/1.1\r\n");
    assert!(pings.len() >= 2, "{}", pings.len());
    let alerts = outside.with("POST /api/v2/alerts HTTP/1.1\r\n");
    assert_eq!(alerts.len(), outside.with("POST").len(), "nothing else is sent");
    let identities: BTreeSet<String> = alerts.iter().map(|request| watchdog(request)["labels"].to_string()).collect();
    let expected =
        json!({"alertname": "BellwetherHeartbeat", "alert_id": "heartbeat", "job": "main", "severity": "info"});
    assert_eq!(identities, [expected.to_string()].into());
    // Without another heartbeat, it ends after their interval and the deadline.
    let ends_at = watchdog(alerts.last().expect("some"))["endsAt"].as_str().expect("a time").to_owned();
    let ahead = humantime::parse_rfc3339(&ends_at).expect("a time").duration_since(now()).expect("in the future");
    assert!(ahead.as_secs() <= 91, "{ahead:?}");
    let printed = running.printed();
    assert!(!printed.contains("0123456789abcdef"), "the address is not printed: {printed}");
    running.stop();
    only_the_runs_count(&setup, &exposition);
    // The audit accounts for their offsets, and finds the metrics equal to those of the events.
    bellwether(&["audit", "--root", text(&setup.root()), "--recompute"]).succeeds();
}

/// Returns the only alert of a request to an Alertmanager.
fn watchdog(request: &str) -> Value {
    let body = request.split_once("\r\n\r\n").expect("a body").1;
    let alerts: Vec<Value> = serde_json::from_str(body).expect("JSON");
    assert_eq!(alerts.len(), 1, "{body}");
    alerts[0].clone()
}

#[test]
fn a_heartbeat_that_stops_on_its_way_says_where_and_nobody_outside_hears_of_it() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("heartbeat", 1);
    let outside = Listener::start();
    let address = format!("send = true\nping_url = \"http://{}/ping\"\nallow_private = true\n", outside.address);
    let config = CONFIG.replace("90s", "10s").replace("send = true\n", &address);
    let setup = Setup::new(&broker.address, &topic, &config);
    let running = setup.start("ingest");
    until("a heartbeat is late because of aggregate", || {
        let failed = running.metric("bellwether_heartbeat_failures_total{stage=\"aggregate\"}")?;
        (failed >= 1.0).then_some(())
    });
    assert_eq!(running.metric("bellwether_heartbeat_seconds_count"), Some(0.0));
    assert_eq!(outside.with("GET").len(), 0);
    running.stop();
}

#[test]
fn a_wrong_dead_mans_switch_is_a_problem_of_the_configuration() {
    let setup = Setup::new(
        "127.0.0.1:9",
        "unused",
        "[heartbeat]\nalertmanager = \"none\"\nping_url = \"http://10.0.0.1/secret-key\"\n",
    );
    let config = setup.config();
    let refused = bellwether(&["check", "config", text(&config)]);
    let printed = refused.stderr.clone();
    refused.exits_with(2);
    for part in ["`none`", "heartbeat.send = true", "must begin with https://"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(!printed.contains("secret-key"), "{printed}");
}
