//! The contracts refuse what their services refuse: otherwise the recording servers would check nothing.

use serde_json::{Value, json};

use crate::common::contract::{CONTRACTS, broken};

/// Returns a body with another value at a place. `null` removes the field.
fn changed(mut body: Value, place: &str, value: Value) -> Value {
    let (parent, name) = place.rsplit_once('/').expect("a pointer");
    match body.pointer_mut(parent).expect("the parent is there") {
        Value::Object(fields) if value.is_null() => drop(fields.remove(name)),
        parent => parent[name] = value,
    }
    body
}

/// Places in a request, as JSON pointers, and the values there that break the contract.
type Breaches = Vec<(&'static str, Value)>;

#[test]
fn a_contract_takes_a_good_request_and_refuses_each_breach() {
    let event = json!({
        "routing_key": "k", "event_action": "trigger", "dedup_key": "d",
        "payload": { "summary": "s", "severity": "critical", "source": "x" },
    });
    let action = json!({ "user": "Ada", "note": "n", "source": "Bellwether" });
    let alert = json!({ "message": "m", "alias": "a", "tags": ["t"], "details": { "a": "b" }, "priority": "P1" });
    let change = json!({ "routing_key": "k", "payload": { "summary": "s" } });
    let header = json!({ "type": "header", "text": { "type": "plain_text", "text": "t" } });
    let slack = json!({ "text": "t", "blocks": [header] });
    let run = json!({ "type": "TextRun", "text": "t" });
    let card =
        json!({ "type": "AdaptiveCard", "version": "1.4", "body": [{ "type": "RichTextBlock", "inlines": [run] }] });
    let attachment = json!({ "contentType": "application/vnd.microsoft.card.adaptive", "content": card });
    let teams = json!({ "type": "message", "attachments": [attachment] });
    let time = "2026-09-21T14:12:20Z";
    let matcher = json!({ "name": "alertname", "value": "x", "isRegex": false, "isEqual": true });
    let silence =
        json!({ "matchers": [matcher], "startsAt": time, "endsAt": time, "createdBy": "Ada", "comment": "c" });
    let cloud = json!({ "specversion": "1.0", "id": "1", "source": "bellwether", "type": "t", "time": time });
    let post = json!([{ "labels": { "alertname": "x" }, "startsAt": time }]);
    let breaches: [(&str, Value, Breaches); 10] = [
        (
            "pagerduty.event",
            event,
            vec![
                ("/routing_key", Value::Null),
                ("/payload", Value::Null),
                ("/payload/summary", json!("x".repeat(1025))),
                ("/payload/severity", json!("page")),
                ("/dedup_key", json!("x".repeat(256))),
                ("/client_url", json!("no address")),
                ("/links", json!([{ "text": "no address" }])),
            ],
        ),
        (
            "pagerduty.change",
            change,
            vec![
                ("/payload/summary", Value::Null),
                ("/payload/timestamp", json!("yesterday")),
                ("/event_action", json!("trigger")),
            ],
        ),
        (
            "opsgenie.create",
            alert,
            vec![
                ("/message", json!("x".repeat(131))),
                ("/alias", json!("x".repeat(513))),
                ("/priority", json!("P0")),
                ("/tags", json!(vec!["t"; 21])),
                ("/details/a", json!(1)),
            ],
        ),
        (
            "opsgenie.description",
            json!({"description": "d"}),
            vec![("/description", json!("x".repeat(15_001))), ("/note", json!("n"))],
        ),
        ("opsgenie.action", action, vec![("/user", json!("x".repeat(101))), ("/message", json!("m"))]),
        (
            "slack.message",
            slack,
            vec![
                ("/text", Value::Null),
                ("/blocks/0/text/text", json!("x".repeat(151))),
                ("/blocks/0/text/type", json!("mrkdwn")),
                ("/blocks/0/type", json!("banner")),
            ],
        ),
        (
            "teams.workflow",
            teams,
            vec![
                ("/type", json!("card")),
                ("/attachments", json!([])),
                ("/attachments/0/content/version", json!("2.0")),
                ("/attachments/0/content/body/0/type", json!("TextBlock")),
            ],
        ),
        (
            "alertmanager.post_alerts",
            post,
            vec![
                ("/0/labels", Value::Null),
                ("/0/labels/a-b", json!("x")),
                ("/0/labels/alertname", json!(1)),
                ("/0/startsAt", json!("now")),
            ],
        ),
        (
            "alertmanager.post_silence",
            silence,
            vec![
                ("/matchers", json!([])),
                ("/matchers/0/name", json!("a-b")),
                ("/endsAt", Value::Null),
                ("/comment", json!("")),
            ],
        ),
        (
            "cloudevents",
            cloud,
            vec![
                ("/id", json!("")),
                ("/source", Value::Null),
                ("/specversion", json!("0.3")),
                ("/time", json!("now")),
                ("/not_allowed", json!("x")),
            ],
        ),
    ];
    let mut names: Vec<&str> = breaches.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, CONTRACTS, "every contract is here");
    for (name, good, breaches) in breaches {
        assert_eq!(broken(name, &good), Vec::<String>::new(), "{good:#}");
        for (place, value) in breaches {
            let bad = changed(good.clone(), place, value);
            assert!(!broken(name, &bad).is_empty(), "{name}: {place} is accepted: {bad:#}");
        }
    }
}
