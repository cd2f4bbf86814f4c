//! Bad messages of every kind: each has its reason, none stops a partition, none is quarantined twice.

use std::collections::BTreeSet;

use bellwether_event::Reason;
use serde_json::{Value, json};

use super::kill::{kill_again_and_again, often_committing};
use super::ledger::{Plan, Publisher};
use super::proof::{audit, exactly_once};
use super::{Chance, real_broker};
use crate::common::event::run;
use crate::common::{Message, Setup, broker};

/// Kills of the worker of a topic that is half poison.
const KILLS: usize = 8;

/// A good run, changed in one place.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = run("spoiled");
    change(&mut event);
    event.to_string().into_bytes()
}

/// A good run with a piece of its text replaced: for what JSON cannot say.
fn rewritten(from: &str, to: &str) -> Vec<u8> {
    let text = run("spoiled").to_string();
    assert!(text.contains(from), "`{from}` is in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn framed(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, run("spoiled").to_string().as_bytes(), after].concat()
}

/// One way to spoil a message: what it is, the body, and the reason it must be given.
type Kind = (&'static str, fn() -> Option<Vec<u8>>, Reason);

/// What no decoder may take for an event, whatever is in it.
const UNREADABLE: &[Kind] = &[
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

/// What is JSON and not what the contract asks for.
const WRONG: &[Kind] = &[
    ("huge", || Some(changed(|event| event["data"]["notes"] = "x".repeat(950_000).into())), Reason::TooLarge),
    ("a text for a number", || Some(changed(|event| event["data"]["attempt"] = json!("1"))), Reason::WrongType),
    ("a value that is not one", || Some(rewritten("\"success\"", "\"fine\"")), Reason::UnknownValue),
    ("a negative count", || Some(changed(|event| event["data"]["attempt"] = json!(-1))), Reason::OutOfRange),
    ("a count beyond any", || Some(changed(|event| event["data"]["attempt"] = json!(1e30))), Reason::OutOfRange),
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

/// A bad body, another kind for each number; the huge one is left out: under load it would be all there is.
pub(super) fn payload(number: usize) -> Option<Vec<u8>> {
    let (_, body, _) = UNREADABLE.iter().chain(&WRONG[1..]).nth(number % (UNREADABLE.len() + WRONG.len() - 1))?;
    body()
}

const BAD_BASE64: &str =
    r#"{"specversion":"1.0","id":"1","source":"a","type":"run.completed","subject":"r","data_base64":"?"}"#;

/// A limit that a broker lets be exceeded four times, beyond which nothing is read.
const SMALL: &str = "[ingest]\nmax_event_bytes = 200000\n";

/// Spoilt by what stands beside the body.
fn by_headers() -> Vec<(&'static str, Message, Reason)> {
    let good = || Message::new(run("spoiled").to_string());
    let binary = [("ce_specversion", "1.0"), ("ce_id", "other"), ("ce_source", "other"), ("ce_type", "run.completed")];
    vec![
        ("data that is not base64", Message::new(BAD_BASE64), Reason::Pattern),
        ("headers that contradict", good().with_headers(&binary), Reason::HeaderMismatch),
        ("protobuf", good().with_headers(&[("content-type", "application/x-protobuf")]), Reason::UnsupportedFraming),
    ]
}

#[test]
fn every_reason_there_is_comes_over_kafka_and_is_told() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("poison", 1);
    let kinds = UNREADABLE
        .iter()
        .chain(WRONG)
        .map(|(what, body, reason)| (*what, Message { payload: body(), ..Message::default() }, *reason));
    let all: Vec<_> = kinds.chain(by_headers()).collect();
    broker.publish(&topic, all.iter().map(|(_, message, _)| message.clone()));
    let setup = Setup::new(&broker.address, &topic, SMALL);
    setup.catch_up();
    let told = setup.sql("SELECT \"offset\", reason FROM quarantine ORDER BY 1");
    let wrong: Vec<String> = all
        .iter()
        .zip(0..)
        .filter_map(|((what, _, reason), offset): (_, i64)| {
            let found = told.iter().find(|row| row["offset"] == offset).map(|row| &row["reason"]);
            (found != Some(&json!(reason.code()))).then(|| format!("{what}: `{}` expected, {found:?}", reason.code()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(told.len(), all.len(), "one row a message");
    let seen: BTreeSet<&str> = told.iter().filter_map(|row| row["reason"].as_str()).collect();
    // Of a list or map that is too long the first entries are kept.
    let all = Reason::ALL.iter().filter(|reason| **reason != Reason::TooMany);
    let never: Vec<&str> = all.map(|reason| reason.code()).filter(|code| !seen.contains(code)).collect();
    assert!(never.is_empty(), "no message of this test has met {never:?}");
}

#[test]
fn a_partition_of_only_poison_advances_and_is_quarantined_once_over_kills_and_restarts() {
    let Some(broker) = real_broker() else { return };
    let mut chance = Chance::new("crash::poison::a_partition");
    let topic = broker.topic("only-poison", 2);
    let setup = often_committing(broker, &topic);
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: Some(0), burst: 4 });
    kill_again_and_again(&setup, &topic, 2, KILLS, &mut chance);
    let ledger = publisher.finish();
    for _ in 0..3 {
        setup.catch_up();
    }
    audit(&setup, true);
    exactly_once(&setup, &topic, &ledger);
    assert!(ledger.good().iter().all(|((partition, _), _)| *partition == 1), "partition 0 is of poison only");
}
