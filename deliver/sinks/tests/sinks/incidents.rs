//! PagerDuty and Opsgenie: one key for each incident.

use bellwether_sinks::page::Severity;
use bellwether_sinks::{Failure, Notice, Receipt, ReleaseNotice};
use insta::assert_json_snapshot;

use crate::common::server::{Reply, Server};
use crate::common::{NOW, acknowledged, notice, page, resolved, secret, sink};

fn pagerduty(server: &Server, dir: &std::path::Path) -> std::sync::Arc<dyn bellwether_sinks::Sink> {
    let key = secret(dir, "key", "e93facc04764012d7bfb002500d5d1a6");
    sink(&format!("kind = \"pagerduty\"\nrouting_key = {key}\nurl = \"{}\"\nallow_private = true", server.url()))
}

fn opsgenie(server: &Server, dir: &std::path::Path) -> std::sync::Arc<dyn bellwether_sinks::Sink> {
    let key = secret(dir, "key", "eb243592-faa2-4ba2-a551q-1afdf565c889");
    sink(&format!(
        "kind = \"opsgenie\"\napi_key = {key}\nurl = \"{}\"\nteams = [\"checkout\"]\ntags = [\"llm\"]\nallow_private = true",
        server.url()
    ))
}

#[tokio::test]
async fn pagerduty_gets_the_events_of_an_incident_under_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let accepted = "{\"status\":\"success\",\"message\":\"Event processed\",\"dedup_key\":\"a1b2c3/1789999000000000\"}";
    let server = Server::start(vec![Reply::new(202, accepted)]).await;
    let sink = pagerduty(&server, dir.path());
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    assert_eq!(receipt.answer, "Event processed");
    sink.send(&notice(vec![acknowledged(page())]), Some(&receipt)).await.unwrap();
    sink.send(&notice(vec![resolved(page())]), Some(&receipt)).await.unwrap();
    let requests = server.requests();
    let actions: Vec<String> = requests
        .iter()
        .map(|request| {
            assert_eq!(request.target, "/v2/enqueue");
            let event = request.json();
            assert_eq!(event["dedup_key"], "a1b2c3/1789999000000000");
            event["event_action"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(actions, ["trigger", "acknowledge", "resolve"]);
    assert_json_snapshot!("pagerduty_trigger", requests[0].json());
}

#[tokio::test]
async fn pagerduty_learns_of_an_incident_before_its_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    pagerduty(&server, dir.path()).send(&notice(vec![acknowledged(page())]), None).await.unwrap();
    let actions: Vec<_> = server.requests().iter().map(|request| request.json()["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "acknowledge"]);
}

#[tokio::test]
async fn pagerduty_shows_severity_and_the_words_of_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = "{\"status\":\"invalid event\",\"message\":\"Event object is invalid\",\
        \"errors\":[\"'routing_key' e93facc04764012d7bfb002500d5d1a6 is invalid\"]}";
    let server = Server::start(vec![Reply::new(202, "{}"), Reply::new(400, refusal), Reply::new(202, "{}")]).await;
    let sink = pagerduty(&server, dir.path());
    let mut ticket = page();
    ticket.severity = Severity::Ticket;
    sink.send(&notice(vec![ticket]), None).await.unwrap();
    assert_eq!(server.request().json()["payload"]["severity"], "warning");
    // A page that is refused holds up no other page of the group.
    let failure = sink.send(&notice(vec![page(), page()]), None).await.unwrap_err();
    let Failure::Refused { reason } = failure else { panic!("{failure:?}") };
    assert_eq!(reason, "PagerDuty answered 400: Event object is invalid; [\"'routing_key' [secret] is invalid\"]");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn pagerduty_shows_releases_as_changes() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(vec![Reply::new(202, "{\"status\":\"success\",\"message\":\"Change event processed\"}")]).await;
    let release = ReleaseNotice {
        release: "r142".to_owned(),
        previous: Some("r141".to_owned()),
        task: Some("checkout".to_owned()),
        started_at: NOW,
        changes: page().evidence.changes,
        links: page().links,
        tenant: None,
    };
    let receipt = pagerduty(&server, dir.path()).announce(&release).await.unwrap().unwrap();
    assert_eq!(receipt.answer, "Change event processed");
    let request = server.request();
    assert_eq!(request.target, "/v2/change/enqueue");
    assert_json_snapshot!("pagerduty_change", request.json());
}

#[tokio::test]
async fn evidence_that_follows_becomes_the_description_of_an_alert_in_opsgenie() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::new(202, "{}"), Reply::new(202, "{}")]).await;
    let sink = opsgenie(&server, dir.path());
    let missed = vec!["checkout: latency".to_owned()];
    let receipt = sink.send(&Notice { missed, ..notice(vec![page()]) }, None).await.unwrap();
    let evidence = Notice { evidence_only: true, ..notice(vec![page()]) };
    sink.send(&evidence, Some(&receipt)).await.unwrap();
    let requests = server.requests();
    let [created, described] = &requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!(
        (described.method.as_str(), described.target.as_str()),
        ("PUT", "/v2/alerts/a1b2c3%2F1789999000000000/description?identifierType=alias")
    );
    // Missed incidents are a detail of the alert: the new description replaces the old one.
    assert!(created.json()["details"]["missed"].as_str().is_some_and(|missed| missed.contains("checkout: latency")));
    assert_eq!(described.json(), serde_json::json!({"description": created.json()["description"]}));
}

#[tokio::test]
async fn opsgenie_creates_acknowledges_and_closes_by_alias() {
    let dir = tempfile::tempdir().unwrap();
    let accepted = "{\"result\":\"Request will be processed\",\"took\":0.3,\"requestId\":\"43a29c5c\"}";
    let server = Server::start(vec![Reply::new(202, accepted)]).await;
    let sink = opsgenie(&server, dir.path());
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    sink.send(&notice(vec![acknowledged(page())]), Some(&receipt)).await.unwrap();
    sink.send(&notice(vec![resolved(page())]), Some(&receipt)).await.unwrap();
    let requests = server.requests();
    let targets: Vec<&str> = requests.iter().map(|request| request.target.as_str()).collect();
    let alias = "a1b2c3%2F1789999000000000";
    assert_eq!(
        targets,
        [
            "/v2/alerts".to_owned(),
            format!("/v2/alerts/{alias}/acknowledge?identifierType=alias"),
            format!("/v2/alerts/{alias}/close?identifierType=alias"),
        ]
    );
    assert_eq!(requests[0].header("authorization"), "GenieKey eb243592-faa2-4ba2-a551q-1afdf565c889");
    assert_json_snapshot!("opsgenie_create", requests[0].json());
}

#[tokio::test]
async fn opsgenie_reports_a_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = "{\"message\":\"Key format is not valid!\",\"took\":0.001,\"requestId\":\"x\"}";
    let server =
        Server::start(vec![Reply::new(401, refusal), Reply::new(429, "{}").header("x-ratelimit-state", "THROTTLED")])
            .await;
    let sink = opsgenie(&server, dir.path());
    let failure = sink.send(&notice(vec![page()]), None).await.unwrap_err();
    let Failure::Refused { reason } = failure else { panic!("{failure:?}") };
    assert!(
        reason.starts_with("Opsgenie answered 401: Key format is not valid!; hint: ") && reason.ends_with("`api_key`")
    );
    let failure = sink.send(&notice(vec![page()]), Some(&Receipt::default())).await.unwrap_err();
    assert!(matches!(failure, Failure::Later { .. }), "{failure:?}");
}
