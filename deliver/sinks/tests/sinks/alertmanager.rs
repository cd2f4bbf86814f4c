//! Alertmanager: its contract, several peers, and a real one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Clock, SystemClock};
use bellwether_sinks::{Failure, Page};
use insta::assert_json_snapshot;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::common::server::{Reply, Server};
use crate::common::{acknowledged, cache, notice, page, page_of, resolved, secret, settings, sink, skipped};

const SECOND: i64 = 1_000_000;

/// An Alertmanager that runs until it is dropped.
struct Running {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

// === impl Running ===

impl Running {
    /// Starts Alertmanager with a receiver, if the program is there.
    async fn start(receiver: &str) -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("alertmanager.yml");
        let text = format!(
            "route:\n  receiver: test\n  group_by: [alertname]\n  group_wait: 0s\n  group_interval: 1s\nreceivers:\n\
             - name: test\n  webhook_configs:\n  - url: {receiver}\n"
        );
        std::fs::write(&config, text).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Alertmanager starts");
        let running = Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir };
        let ready = async || get(&format!("{}/-/ready", running.url)).await.is_ok_and(|r| r.status().is_success());
        until("Alertmanager is ready", ready).await;
        Some(running)
    }

    async fn alerts(&self) -> Vec<Value> {
        self.list("alerts").await
    }

    /// Returns the silences in force.
    async fn silences(&self) -> Vec<Value> {
        let mut silences = self.list("silences").await;
        silences.retain(|silence| silence["status"]["state"] != "expired");
        silences
    }

    async fn list(&self, of: &str) -> Vec<Value> {
        let answer = get(&format!("{}/api/v2/{of}", self.url)).await.expect("an answer");
        let text = answer.text().await.expect("text");
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn get(url: &str) -> reqwest::Result<reqwest::Response> {
    reqwest::Client::builder().no_proxy().build()?.get(url).send().await
}

/// Finds Alertmanager as Debian names it, as its project does, and where `scripts/setup services` puts it.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["prometheus-alertmanager", "alertmanager"];
    let on_path = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = on_path.chain([cache("services/usr/bin/prometheus-alertmanager")]).find(|program| program.is_file());
    if found.is_none() {
        skipped("no Alertmanager; `scripts/setup services` gets it");
    }
    found
}

/// Waits for a condition, for at most 20 seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited in vain: {what}");
}

fn text(urls: &[String]) -> String {
    format!("kind = \"alertmanager\"\nurls = {urls:?}\nallow_private = true\n")
}

#[tokio::test]
async fn an_alert_keeps_its_labels_from_its_first_page_to_its_last() {
    let server = Server::start(Vec::new()).await;
    let sink = sink(&text(&[server.url()]));
    assert_eq!(sink.resend_every(), Some(Duration::from_secs(60)));
    let mut later = page();
    later.title = "checkout: failure rate 8.0 % → 15.0 %".to_owned();
    later.evidence = Default::default();
    later.links.clear();
    later.suppressed.clear();
    for page in [page(), acknowledged(later.clone()), resolved(later)] {
        sink.send(&notice(vec![page]), None).await.unwrap();
    }
    let mut requests = server.requests();
    let asked = requests.iter().filter(|request| request.target.starts_with("/api/v2/silences?filter=")).count();
    assert_eq!(asked, 1, "the acknowledged alert may have a silence already");
    requests.retain(|request| !request.target.starts_with("/api/v2/silences"));
    for request in &requests {
        assert_eq!(request.target, "/api/v2/alerts");
        assert_eq!(request.json()[0]["labels"], requests[0].json()[0]["labels"]);
    }
    // Firing: four intervals ahead of the clock. Resolved: the real time.
    assert_eq!(requests[0].json()[0]["endsAt"], "2026-09-21T14:17:20.000Z");
    assert_eq!(requests[1].json()[0]["endsAt"], "2026-09-21T14:17:20.000Z");
    assert_eq!(requests[2].json()[0]["endsAt"], "2026-09-21T14:12:20.000Z");
    assert_json_snapshot!("alertmanager_firing", requests[0].json());
}

#[tokio::test]
async fn names_of_labels_are_made_valid_and_stay_apart() {
    let server = Server::start(Vec::new()).await;
    let mut page = page();
    let labels = [
        ("a.b", "1"),
        ("a-b", "2"),
        ("9x", "3"),
        ("alertname", "4"),
        ("__name__", "5"),
        ("é", "6"),
        ("", "7"),
        ("z", ""),
    ];
    page.labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    sink(&text(&[server.url()])).send(&notice(vec![page]), None).await.unwrap();
    let request = server.request().json();
    let labels = request[0]["labels"].as_object().unwrap();
    let named: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    for expected in [
        "a_b=2",
        "a_b_=1",
        "label_9x=3",
        "alertname=release-regression",
        "alertname_=4",
        "label___name__=5",
        "_=6",
        "label_=7",
    ] {
        assert!(named.contains(&expected.to_owned()), "{expected} in {named:?}");
    }
    assert!(!labels.contains_key("z"));
}

#[tokio::test]
async fn all_peers_are_tried_and_one_is_enough() {
    let (bad, good) = (Server::start(vec![Reply::new(500, "disk full")]).await, Server::start(Vec::new()).await);
    let sink = sink(&text(&[bad.url(), good.url()]));
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    let expected = format!("accepted by 1 of 2 peers; 127.0.0.1:{}: Alertmanager answered 500: disk full", bad.port);
    assert_eq!(receipt.answer, expected);
    assert_eq!((bad.requests().len(), good.requests().len()), (1, 1));
}

#[tokio::test]
async fn without_a_peer_the_alert_is_sent_again_unless_all_refuse() {
    let refusal = || Reply::new(400, "\"bad label\"");
    let busy = Reply::new(503, "").header("retry-after", "9");
    let (one, two) = (Server::start(vec![refusal(), refusal()]).await, Server::start(vec![busy, refusal()]).await);
    let sink = sink(&text(&[one.url(), two.url()]));
    let failure = sink.send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Later { after: Some(after), .. } if after == Duration::from_secs(9)));
    let failure = sink.send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Refused { reason } if reason.matches("bad label").count() == 2));
}

#[tokio::test]
async fn many_alerts_are_sent_in_batches_with_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let password = secret(dir.path(), "password", "p4ss");
    let with = format!("{}username = \"bellwether\"\npassword = {password}\n", text(&[server.url()]));
    let mut large = page();
    large.labels.extend((0..20).map(|index| (format!("label_{index}"), "x".repeat(400))));
    let pages = (0..150).map(|index| Page { alert_id: format!("a{index}"), ..large.clone() }).collect();
    sink(&with).send(&notice(pages), None).await.unwrap();
    let requests = server.requests();
    let sizes: Vec<usize> = requests.iter().map(|request| request.json().as_array().unwrap().len()).collect();
    assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() == 150, "{sizes:?}");
    assert!(requests.iter().all(|request| request.body.len() <= 512 * 1024));
    assert_eq!(requests[0].header("authorization"), "Basic YmVsbHdldGhlcjpwNHNz");
}

/// Returns the page at the time of the machine: Alertmanager has no other clock.
fn present(mut page: Page) -> Page {
    let now = SystemClock.now_micros();
    page.started_at = now - 60 * SECOND;
    page.ended_at = page.ended_at.map(|_| now - SECOND);
    page
}

#[tokio::test]
async fn a_real_alertmanager_fires_and_resolves() {
    let receiver = Server::of_others().await;
    let Some(alertmanager) = Running::start(&receiver.url()).await else { return };
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let urls = [alertmanager.url.clone(), format!("http://127.0.0.1:{absent}")];
    let sink = settings(&text(&urls)).build(Arc::new(SystemClock)).unwrap();
    let receipt = sink.send(&notice(vec![present(page())]), None).await.unwrap();
    assert!(receipt.answer.starts_with("accepted by 1 of 2 peers"), "{}", receipt.answer);
    // Sent again, it is still one alert.
    let taken_on = sink.send(&notice(vec![present(acknowledged(page()))]), Some(&receipt)).await.unwrap();
    let alerts = alertmanager.alerts().await;
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(alerts[0]["labels"]["alertname"], "release-regression");
    assert_eq!(alerts[0]["labels"]["release"], "r142");
    assert_eq!(alerts[0]["generatorURL"], "https://grafana.example/d/llm?var-task=checkout");
    let status = |request: &crate::common::server::Recorded| request.json()["status"].as_str().unwrap_or("").to_owned();
    until("the alert is delivered", async || receiver.requests().iter().any(|request| status(request) == "firing"))
        .await;
    sink.send(&notice(vec![present(resolved(page()))]), Some(&taken_on)).await.unwrap();
    until("the end is delivered", async || receiver.requests().iter().any(|request| status(request) == "resolved"))
        .await;
    assert!(alertmanager.alerts().await.is_empty());
}

#[tokio::test]
async fn a_later_incident_is_not_ended_by_an_earlier_one_in_the_same_message() {
    let server = Server::start(Vec::new()).await;
    let mut later = page();
    later.incident = "a1b2c3/2".to_owned();
    sink(&text(&[server.url()])).send(&notice(vec![later, resolved(page())]), None).await.unwrap();
    let alerts = server.request().json();
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts:#}");
    assert_eq!(alerts[0]["endsAt"], "2026-09-21T14:17:20.000Z");
}

#[tokio::test]
async fn a_real_alertmanager_silences_what_a_person_has_acknowledged_and_no_longer() {
    let receiver = Server::of_others().await;
    let Some(alertmanager) = Running::start(&receiver.url()).await else { return };
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let urls = [format!("http://127.0.0.1:{absent}"), alertmanager.url.clone()];
    let new = || settings(&text(&urls)).build(Arc::new(SystemClock)).unwrap();
    let other = Page { alert_id: "other".to_owned(), incident: "other/1".to_owned(), ..present(page()) };
    new().send(&notice(vec![other]), None).await.unwrap();
    let first = new().send(&notice(vec![present(page())]), None).await.unwrap();
    assert!(alertmanager.silences().await.is_empty());

    // Acknowledged, and sent again by another process that has no receipt.
    let taken_on = notice(vec![present(acknowledged(page()))]);
    let receipt = new().send(&taken_on, Some(&first)).await.unwrap();
    new().send(&taken_on, None).await.unwrap();
    let silences = alertmanager.silences().await;
    assert_eq!(silences.len(), 1, "{silences:#?}");
    assert_eq!(silences[0]["createdBy"], "Ada");
    assert_eq!(silences[0]["comment"], "looking at the refund tool [Bellwether incident a1b2c3/1789999000000000]");
    assert!(silences[0]["matchers"].as_array().is_some_and(|matchers| matchers.len() >= 5), "{silences:#?}");
    let states = async || {
        let alerts = alertmanager.alerts().await.into_iter();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let state = |alert: Value| (text(&alert["labels"]["alert_id"]), text(&alert["status"]["state"]));
        alerts.map(state).collect::<std::collections::BTreeSet<_>>()
    };
    until("only its alert is silenced", async || {
        let expected =
            [("a1b2c3", "suppressed"), ("other", "active")].map(|(id, state)| (id.to_owned(), state.to_owned()));
        states().await == expected.into()
    })
    .await;

    // An end that a person has set is kept.
    let mut ends = acknowledged(page());
    let until_then = SystemClock.now_micros() + 90 * SECOND;
    ends.acknowledgement.as_mut().unwrap().until = Some(until_then);
    new().send(&notice(vec![present(ends)]), Some(&receipt)).await.unwrap();
    let silences = alertmanager.silences().await;
    assert_eq!(silences.len(), 1, "{silences:#?}");
    let end = silences[0]["endsAt"].as_str().unwrap().to_owned();
    let expected = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_micros(until_then as u64));
    assert_eq!(end[..19], expected.to_string()[..19]);

    // Taken back: the silence ends, and so does one of an incident that is resolved.
    let receipt = new().send(&notice(vec![present(page())]), Some(&receipt)).await.unwrap();
    assert!(alertmanager.silences().await.is_empty());
    assert_eq!(receipt.reference, "");
    let receipt = new().send(&taken_on, Some(&receipt)).await.unwrap();
    assert_eq!(alertmanager.silences().await.len(), 1);
    new().send(&notice(vec![present(resolved(page()))]), Some(&receipt)).await.unwrap();
    assert!(alertmanager.silences().await.is_empty());

    // Without silences in the settings there are none.
    let without = settings(&(text(&urls) + "silences = false\n")).build(Arc::new(SystemClock)).unwrap();
    without.send(&taken_on, None).await.unwrap();
    assert!(alertmanager.silences().await.is_empty());
}

#[tokio::test]
async fn an_acknowledged_alert_is_silenced_with_all_its_labels() {
    let silenced = Reply::new(200, "{\"silenceID\":\"f6c8\"}");
    let server = Server::start(vec![Reply::new(200, "{}"), Reply::new(200, "[]"), silenced]).await;
    sink(&text(&[server.url()])).send(&notice(vec![acknowledged(page())]), None).await.unwrap();
    let requests = server.requests();
    let (alert, silence) = (requests[0].json(), requests[2].json());
    assert_eq!(requests[2].target, "/api/v2/silences");
    let matchers = silence["matchers"].as_array().unwrap();
    assert_eq!(matchers.len(), alert[0]["labels"].as_object().unwrap().len());
    assert!(matchers.iter().all(|matcher| matcher["value"] == alert[0]["labels"][matcher["name"].as_str().unwrap()]));
}

#[tokio::test]
async fn a_refused_silence_is_said_and_a_silence_that_must_wait_is_tried_again() {
    let server = Server::start(vec![Reply::new(200, "{}"), Reply::new(403, "no silences here")]).await;
    let sink = sink(&text(&[server.url()]));
    let taken_on = notice(vec![acknowledged(page())]);
    let receipt = sink.send(&taken_on, None).await.unwrap();
    assert!(receipt.answer.contains("the silence is refused") && receipt.answer.contains("no silences here"));
    let server = Server::start(vec![Reply::new(200, "{}"), Reply::new(503, "")]).await;
    let failure = crate::common::sink(&text(&[server.url()])).send(&taken_on, None).await.unwrap_err();
    assert!(matches!(failure, Failure::Later { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_real_alertmanager_accepts_hostile_text() {
    let receiver = Server::of_others().await;
    let Some(alertmanager) = Running::start(&receiver.url()).await else { return };
    let sink = settings(&text(std::slice::from_ref(&alertmanager.url))).build(Arc::new(SystemClock)).unwrap();
    let hostile = ["<!channel> \"quoted\"\n{}\u{0}\\", "", &"長".repeat(10_000)];
    for (index, hostile) in hostile.iter().enumerate() {
        let mut page = present(page_of(hostile, 30));
        page.ended_at = None;
        page.alert_id = format!("alert-{index}");
        sink.send(&notice(vec![page]), None).await.unwrap();
    }
    assert_eq!(alertmanager.alerts().await.len(), hostile.len());
}

#[tokio::test]
async fn the_path_of_a_proxy_is_kept() {
    let server = Server::start(Vec::new()).await;
    for path in ["/am", "/am/"] {
        sink(&text(&[format!("{}{path}", server.url())])).send(&notice(vec![page()]), None).await.unwrap();
        assert_eq!(server.request().target, "/am/api/v2/alerts");
    }
}
