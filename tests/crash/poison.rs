//! Bad messages of every kind: each is quarantined once, with its reason, and none stops a partition.

use std::collections::BTreeSet;

use bellwether_event::Reason;
use serde_json::{Value, json};

use super::Random;
use super::kill::{frequent_commits, kill_repeatedly};
use super::ledger::{Plan, Publisher};
use super::proof::{assert_exactly_once, audit};
use crate::common::event::run;
use crate::common::{Message, Setup, broker, real_broker};

/// Kills of the worker that reads a topic with one partition of bad messages.
const KILLS: usize = 8;

/// Builds a good run and applies one change to it.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = run("spoiled");
    change(&mut event);
    event.to_string().into_bytes()
}

/// Builds a good run and replaces a piece of its text, for messages that are not JSON.
fn rewritten(from: &str, to: &str) -> Vec<u8> {
    let text = run("spoiled").to_string();
    assert!(text.contains(from), "`{from}` is in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn framed(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, run("spoiled").to_string().as_bytes(), after].concat()
}

/// One kind of bad message: its description, its body, and the expected reason.
type BadMessage = (&'static str, fn() -> Option<Vec<u8>>, Reason);

/// Bodies that are not one JSON object.
const UNREADABLE: &[BadMessage] = &[
    ("a tombstone", || None, Reason::Tombstone),
    ("an empty message", || Some(Vec::new()), Reason::Tombstone),
    ("text", || Some(b"hello".to_vec()), Reason::NotJson),
    ("one zero byte", || Some(vec![0]), Reason::NotJson),
    ("an object cut short", || Some(framed(b"", b"").split_last()?.1.to_vec()), Reason::NotJson),
    ("the first half of an object", || Some(framed(b"", b"")[..120].to_vec()), Reason::NotJson),
    ("NaN", || Some(rewritten("1200", "NaN")), Reason::NotJson),
    ("Infinity", || Some(rewritten("1200", "-Infinity")), Reason::NotJson),
    ("a comma too many", || Some(rewritten("1200", "1200,")), Reason::NotJson),
    ("a byte order mark inside", || Some(rewritten("\"run_id\"", "\u{feff}\"run_id\"")), Reason::NotJson),
    ("UTF-16", || Some(run("x").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect()), Reason::NotJson),
    ("invalid UTF-8", || Some(framed(b"\xFF\xFE", b"")), Reason::InvalidUtf8),
    ("two objects", || Some(framed(b"{}", b"")), Reason::TrailingData),
    ("an object and half of one", || Some(framed(b"", b"{\"a")), Reason::TrailingData),
    ("deep nesting", || Some(framed(&[b'['; 5000], &[b']'; 5000])), Reason::TooDeep),
    ("a key twice", || Some(rewritten("\"run_id\"", "\"run_id\":\"a\",\"run_id\"")), Reason::DuplicateKey),
    ("Confluent framing", || Some(framed(&[0, 0, 0, 0, 7], b"")), Reason::UnsupportedFraming),
    ("a list", || Some(framed(b"[", b"]")), Reason::WrongType),
    ("a number", || Some(b"42".to_vec()), Reason::WrongType),
    ("null", || Some(b"null".to_vec()), Reason::WrongType),
    ("an empty object", || Some(b"{}".to_vec()), Reason::MissingField),
];

/// JSON objects that violate the contract.
const INVALID: &[BadMessage] = &[
    ("huge", || Some(changed(|event| event["data"]["notes"] = "x".repeat(950_000).into())), Reason::TooLarge),
    ("a text for a number", || Some(changed(|event| event["data"]["attempt"] = json!("1"))), Reason::WrongType),
    ("an unknown status", || Some(rewritten("\"success\"", "\"fine\"")), Reason::UnknownValue),
    ("a negative count", || Some(changed(|event| event["data"]["attempt"] = json!(-1))), Reason::OutOfRange),
    ("a count that is too large", || Some(changed(|event| event["data"]["attempt"] = json!(1e30))), Reason::OutOfRange),
    (
        "a number that no float holds",
        || Some(rewritten("\"outcome\"", "\"attempt\":1e999,\"outcome\"")),
        Reason::OutOfRange,
    ),
    ("no name", || Some(rewritten("refund_triage", "")), Reason::TooShort),
    ("a long name", || Some(changed(|event| event["data"]["task"] = "t".repeat(129).into())), Reason::TooLong),
    ("another contract", || Some(rewritten("run-event/1.0", "run-event/9.0")), Reason::UnknownSpec),
    ("no zone", || Some(changed(|event| event["data"]["ended_at"] = json!("2026-11-23T10:00:00"))), Reason::TimeFormat),
    (
        "the future",
        || Some(changed(|event| event["data"]["ended_at"] = json!("2199-01-01T00:00:00Z"))),
        Reason::TimeInFuture,
    ),
    (
        "the past",
        || {
            Some(changed(|event| {
                event["data"]["started_at"] = json!("2001-01-01T00:00:00Z");
                event["data"]["ended_at"] = json!("2001-01-01T00:00:01Z");
            }))
        },
        Reason::TimeTooOld,
    ),
    (
        "a broken CloudEvent",
        || {
            Some(
                b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"a\",\"type\":\"run.completed\",\"data\":7}"
                    .to_vec(),
            )
        },
        Reason::WrongType,
    ),
    (
        "a CloudEvent without a subject",
        || {
            Some(
                b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"a\",\"type\":\"run.completed\",\"data\":{}}"
                    .to_vec(),
            )
        },
        Reason::MissingField,
    ),
];

/// Returns a bad body, in turn of each kind except the huge one, which would dominate the load.
pub(super) fn payload(number: usize) -> Option<Vec<u8>> {
    let (_, body, _) = UNREADABLE.iter().chain(&INVALID[1..]).nth(number % (UNREADABLE.len() + INVALID.len() - 1))?;
    body()
}

const BAD_BASE64: &str =
    r#"{"specversion":"1.0","id":"1","source":"a","type":"run.completed","subject":"r","data_base64":"?"}"#;

/// A limit on the event size below the broker's own, so that a huge message can be published.
const SMALL: &str = "[ingest]\nmax_event_bytes = 200000\n";

/// Returns messages that their headers or their CloudEvents envelope make invalid.
fn with_bad_envelopes() -> Vec<(&'static str, Message, Reason)> {
    let good = || Message::new(run("spoiled").to_string());
    let binary = [("ce_specversion", "1.0"), ("ce_id", "other"), ("ce_source", "other"), ("ce_type", "run.completed")];
    vec![
        ("data that is not base64", Message::new(BAD_BASE64), Reason::Pattern),
        ("headers that contradict", good().with_headers(&binary), Reason::HeaderMismatch),
        ("protobuf", good().with_headers(&[("content-type", "application/x-protobuf")]), Reason::UnsupportedFraming),
    ]
}

#[test]
fn bad_messages_of_every_kind_are_quarantined_with_their_reasons() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("poison", 1);
    let kinds = UNREADABLE
        .iter()
        .chain(INVALID)
        .map(|(kind, body, reason)| (*kind, Message { payload: body(), ..Message::default() }, *reason));
    let all: Vec<_> = kinds.chain(with_bad_envelopes()).collect();
    broker.publish(&topic, all.iter().map(|(_, message, _)| message.clone()));
    let setup = Setup::new(&broker.address, &topic, SMALL);
    setup.catch_up();
    let quarantined = setup.sql("SELECT \"offset\", reason FROM quarantine ORDER BY 1");
    let wrong: Vec<String> = all
        .iter()
        .zip(0..)
        .filter_map(|((kind, _, reason), offset): (_, i64)| {
            let found = quarantined.iter().find(|row| row["offset"] == offset).map(|row| &row["reason"]);
            let expected = reason.code();
            (found != Some(&json!(expected))).then(|| format!("{kind}: expected `{expected}`, found {found:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(quarantined.len(), all.len(), "one row per message");
    let seen: BTreeSet<&str> = quarantined.iter().filter_map(|row| row["reason"].as_str()).collect();
    // A list or map that is too long rejects nothing: its first entries are kept.
    let all = Reason::ALL.iter().filter(|reason| **reason != Reason::TooMany);
    let never: Vec<&str> = all.map(|reason| reason.code()).filter(|code| !seen.contains(code)).collect();
    assert!(never.is_empty(), "no message of this test was quarantined for {never:?}");
}

#[test]
fn a_partition_of_bad_messages_advances_and_is_quarantined_once_despite_kills_and_restarts() {
    let Some(broker) = real_broker() else { return };
    let mut random = Random::new("crash::poison::a_partition");
    let topic = broker.topic("only-poison", 2);
    let setup = frequent_commits(broker, &topic);
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: Some(0), burst: 4 });
    kill_repeatedly(&setup, &topic, 2, KILLS, &mut random);
    let ledger = publisher.finish();
    for _ in 0..3 {
        setup.catch_up();
    }
    audit(&setup, true);
    assert_exactly_once(&setup, &topic, &ledger);
    assert!(ledger.good().iter().all(|((partition, _), _)| *partition == 1), "partition 0 has only bad messages");
}
