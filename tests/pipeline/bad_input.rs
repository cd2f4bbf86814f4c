//! Every kind of bad message through a real topic: it is quarantined with its coordinates, reason and pointer, the offset
//! advances, and the messages around it are stored unchanged.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::event::{now, rfc3339, run};
use crate::common::{Message, Setup, broker};

/// A user's text that must appear only in accepted events.
const SECRET: &str = "jane.doe@example.com";

/// A limit on the event size below the broker's own, so that a huge message can be published.
const SMALL: &str = "[ingest]\nmax_event_bytes = 200000\ncontent = true\n";

/// A bad message and its expected row in quarantine; a pointer of `None` is not compared.
struct BadMessage {
    what: &'static str,
    message: Message,
    reason: &'static str,
    pointer: Option<&'static str>,
}

fn bad(what: &'static str, payload: impl Into<Vec<u8>>, reason: &'static str, pointer: &'static str) -> BadMessage {
    BadMessage { what, message: Message::new(payload), reason, pointer: Some(pointer) }
}

/// Builds a good run and applies one change to it.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut event = run("spoiled");
    event["data"]["segments"] = json!({"user": SECRET});
    change(&mut event);
    event.to_string()
}

fn nested(depth: usize) -> String {
    changed(|event| {
        event["data"]["notes"] = (0..depth).fold(json!(1), |inner, _| json!([inner]));
    })
}

fn not_json() -> Vec<BadMessage> {
    let good = changed(|_| {});
    let invalid_utf8 = good.clone().into_bytes().into_iter().map(|byte| if byte == b'@' { 0xFF } else { byte });
    vec![
        bad("text", format!("hello, {SECRET}"), "not_json", ""),
        bad("an object cut short", good[..good.len() - 2].to_owned(), "not_json", ""),
        bad("NaN", good.replace("1200", "NaN"), "not_json", "/data/tokens/input"),
        bad("two objects", format!("{good}{good}"), "trailing_data", ""),
        bad("invalid UTF-8", invalid_utf8.collect::<Vec<u8>>(), "invalid_utf8", ""),
        bad("deep nesting", nested(40), "too_deep", ""),
        bad("oversize", changed(|event| event["data"]["notes"] = "x".repeat(930_000).into()), "too_large", ""),
        BadMessage {
            what: "a key twice",
            message: Message::new(good.replacen("\"run_id\"", "\"run_id\":\"a\",\"run_id\"", 1)),
            reason: "duplicate_key",
            pointer: None,
        },
        BadMessage { what: "a tombstone", message: Message::default(), reason: "tombstone", pointer: Some("") },
        bad("an empty message", "", "tombstone", ""),
    ]
}

fn wrong_fields() -> Vec<BadMessage> {
    let at = |offset_days: i64| {
        let days = Duration::from_secs(offset_days.unsigned_abs() * 86_400);
        rfc3339(if offset_days < 0 { now() - days } else { now() + days })
    };
    vec![
        bad(
            "a text for a number",
            changed(|event| event["data"]["attempt"] = json!("one")),
            "wrong_type",
            "/data/attempt",
        ),
        bad(
            "a list for an object",
            changed(|event| event["data"]["outcome"] = json!([])),
            "wrong_type",
            "/data/outcome",
        ),
        bad(
            "an unknown stage",
            changed(|event| event["data"]["rollout"] = json!({"stage": "production"})),
            "unknown_value",
            "/data/rollout/stage",
        ),
        bad(
            "an attempt before the first",
            changed(|event| event["data"]["attempt"] = json!(0)),
            "out_of_range",
            "/data/attempt",
        ),
        bad("a long name", changed(|event| event["data"]["task"] = "t".repeat(129).into()), "too_long", "/data/task"),
        bad(
            "no outcome",
            changed(|event| {
                event["data"].as_object_mut().expect("data is an object").remove("outcome");
            }),
            "missing_field",
            "/data/outcome",
        ),
        bad("another contract", changed(|event| event["spec"] = json!("run-event/9.0")), "unknown_spec", "/spec"),
        bad(
            "no zone",
            changed(|event| event["data"]["ended_at"] = json!("2026-11-23T10:00:00")),
            "time_format",
            "/data/ended_at",
        ),
        bad(
            "a day that is not",
            changed(|event| event["data"]["ended_at"] = json!("2026-02-30T10:00:00Z")),
            "time_format",
            "/data/ended_at",
        ),
        BadMessage {
            what: "the far future",
            message: Message::new(changed(|event| event["data"]["ended_at"] = at(400).into())),
            reason: "time_in_future",
            pointer: None,
        },
        BadMessage {
            what: "the distant past",
            message: Message::new(changed(|event| {
                event["data"]["started_at"] = at(-400).into();
                event["data"]["ended_at"] = at(-400).into();
            })),
            reason: "time_too_old",
            pointer: None,
        },
    ]
}

fn wrong_framing() -> Vec<BadMessage> {
    let good = changed(|_| {});
    let framed: Vec<u8> = [0, 0, 0, 0, 7].into_iter().chain(good.bytes()).collect();
    vec![
        bad("Confluent framing", framed, "unsupported_framing", ""),
        BadMessage {
            what: "protobuf",
            message: Message::new([0x12, 0x03, 0x61, 0x62, 0x63])
                .with_headers(&[("content-type", "application/x-protobuf")]),
            reason: "unsupported_framing",
            pointer: Some(""),
        },
        BadMessage {
            what: "headers that contradict",
            message: Message::new(good).with_headers(&[
                ("ce_specversion", "1.0"),
                ("ce_id", "another-id"),
                ("ce_source", "another-app"),
                ("ce_type", "run.completed"),
                ("content-type", "application/json"),
            ]),
            reason: "header_mismatch",
            pointer: None,
        },
    ]
}

#[test]
fn bad_messages_are_quarantined_and_good_ones_come_through() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("bad-input", 1);
    let all: Vec<BadMessage> = not_json().into_iter().chain(wrong_fields()).chain(wrong_framing()).collect();
    // A good run before each bad message and after the last, so that a shifted row would show.
    let mut messages = Vec::new();
    for (index, bad) in all.iter().enumerate() {
        messages.push(Message::new(run(&format!("good-{index}")).to_string()));
        messages.push(bad.message.clone());
    }
    messages.push(Message::new(run(&format!("good-{}", all.len())).to_string()));
    broker.publish(&topic, messages);
    let setup = Setup::new(&broker.address, &topic, SMALL);
    setup.catch_up();

    let rejected = setup.sql("SELECT * FROM quarantine ORDER BY \"offset\"");
    let mut wrong = Vec::new();
    for (index, bad) in all.iter().enumerate() {
        let offset = index * 2 + 1;
        let Some(row) = rejected.iter().find(|row| row["offset"] == json!(offset)) else {
            wrong.push(format!("{}: is not in quarantine", bad.what));
            continue;
        };
        let right = row["reason"] == bad.reason
            && bad.pointer.is_none_or(|pointer| row["pointer"] == pointer)
            && row["topic"] == topic.as_str()
            && row["partition"] == json!(0)
            && row["size_bytes"] == json!(bad.message.payload.as_ref().map_or(0, Vec::len))
            && row["message"].as_str().is_some_and(|message| !message.is_empty());
        if !right {
            wrong.push(format!("{}: expected `{}` at {:?}, got {row:#}", bad.what, bad.reason, bad.pointer));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rejected.len(), all.len());
    let details = Value::from(rejected).to_string();
    assert!(!details.contains(SECRET), "`quarantine` has a user's text");

    let accepted = setup.sql("SELECT \"offset\", run_id FROM events ORDER BY \"offset\"");
    let expected: Vec<Value> =
        (0..=all.len()).map(|index| json!({"offset": index * 2, "run_id": format!("good-{index}")})).collect();
    assert_eq!(accepted, expected);

    // The worker has advanced past all of them: it only reads the next message.
    broker.publish(&topic, [Message::new(run("after").to_string())]);
    setup.catch_up();
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), i64::try_from(all.len()).expect("a few"));
    assert_eq!(setup.number("SELECT count(*) FROM events"), i64::try_from(all.len() + 2).expect("a few"));
    assert_eq!(setup.number("SELECT sum(messages) FROM quarantine_summary"), i64::try_from(all.len()).expect("a few"));
}

/// Returns runs with a fault outside identity, time and outcome, each with the expected list of dropped values.
fn kept() -> Vec<(String, Value)> {
    let text = "x".repeat(2000);
    let changes: Vec<(&str, Value, Value)> = vec![
        ("/data/tokens/input", json!(-1), json!({"/data/tokens/input": "left out"})),
        ("/data/cost/amount", json!("0,5"), json!({"/data/cost": "left out"})),
        ("/data/cost", json!([]), json!({"/data/cost": "left out"})),
        ("/data/session_id", Value::Null, Value::Null),
        ("/data/started_at", json!("0001-01-01T00:00:00Z"), json!({"/data/started_at": "left out"})),
        ("/data/sampling", json!({"probability": 1e-9}), json!({"/data/sampling/probability": "bounded"})),
        (
            "/data/failure_point",
            json!({"component": "model", "error_type": text}),
            json!({"/data/failure_point/error_type": "cut"}),
        ),
        (
            "/data/policy_exceptions",
            vec![json!({"policy_id": "p", "severity": "low"}); 65].into(),
            json!({"/data/policy_exceptions": "cut"}),
        ),
        ("/data/content", json!({"input": "x".repeat(300_000)}), json!({"/data/content/input": "left out"})),
    ];
    let event = |number: usize, pointer: &str, value: Value| {
        let mut event = run(&format!("kept-{number}"));
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        event.pointer_mut(parent).expect("there")[name] = value;
        event.to_string()
    };
    let cases = changes.into_iter().enumerate();
    cases.map(|(number, (pointer, value, listed))| (event(number, pointer, value), listed)).collect()
}

#[test]
fn faults_in_descriptive_fields_do_not_reject_a_run() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("kept", 1);
    let (events, listed): (Vec<String>, Vec<Value>) = kept().into_iter().unzip();
    broker.publish(&topic, events.iter().map(|event| Message::new(event.clone())));
    let setup = Setup::new(&broker.address, &topic, SMALL);
    setup.catch_up();
    assert_eq!(setup.sql("SELECT * FROM quarantine"), [] as [Value; 0]);
    let found = setup.sql("SELECT truncated FROM events ORDER BY \"offset\"");
    let found: Vec<Value> = found.into_iter().map(|row| row["truncated"].clone()).collect();
    assert_eq!(found, listed);
    let counted =
        setup.sql("SELECT policy_exceptions_low, latency_total_micros, weight_micros FROM events ORDER BY \"offset\"");
    assert_eq!(counted[7]["policy_exceptions_low"], 65);
    assert_eq!(counted[5]["weight_micros"], 1_000_000_000_000_i64);
    // No accepted event breaks a query.
    assert_eq!(setup.number("SELECT count(*) FROM runs"), i64::try_from(listed.len()).expect("a few"));
    setup.sql("SELECT * FROM rolling");
    setup.sql("SELECT * FROM release_summary");
}

#[test]
fn a_topic_of_only_bad_messages_is_read_to_its_end() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("only-bad", 2);
    let poison = |partition| Message { partition, ..Message::new("poison") };
    broker.publish(&topic, (0..200).map(|index| poison(index % 2)));
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    setup.catch_up();
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 200);
    assert_eq!(setup.number("SELECT count(*) FROM events"), 0);
}
