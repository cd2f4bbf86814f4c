//! Offsets without a message: compaction removed it, or the offset holds a transaction marker.

use serde_json::Value;

use crate::common::event::{run, runs};
use crate::common::program::{ConfigText, text};
use crate::common::{Broker, Message, Setup, bellwether, real_broker, until_or};

/// Keys of the compacted topic, which keeps the newest message of each.
const KEYS: usize = 5;

/// Settings that compact as soon as possible. A segment ends with the first message after a tenth of a second.
const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("min.compaction.lag.ms", "0"),
];

/// Publishes good and bad messages with the same few keys.
fn publish(broker: &Broker, topic: &str, prefix: &str, count: usize) {
    let messages = runs(prefix, count).into_iter().enumerate().map(|(number, event)| {
        let body = if number % 7 == 3 { "poison".to_owned() } else { event.to_string() };
        Message { key: Some(format!("key-{}", number % KEYS)), ..Message::new(body) }
    });
    broker.publish(topic, messages);
}

/// Publishes until the broker has compacted the topic up to `last`, and returns the remaining offsets.
fn compacted(broker: &Broker, topic: &str, last: i64) -> Vec<i64> {
    let mut round = 0;
    until_or(
        || {
            // The active segment is never compacted; a later message ends it.
            let marker = run(&format!("round-{round}"));
            broker.publish(topic, [Message { key: Some("round".to_owned()), ..Message::new(marker.to_string()) }]);
            round += 1;
            let held = broker.offsets(topic, 0);
            // One more message has a key of its own.
            (held.iter().filter(|offset| **offset <= last).count() <= KEYS + 1).then_some(held)
        },
        || format!("the broker compacts up to offset {last}: it holds {:?}", broker.offsets(topic, 0)),
    )
}

/// Runs an audit, which must pass, and returns its row counts.
fn counted(setup: &Setup) -> [i64; 4] {
    let answer = bellwether(&["audit", "--root", text(&setup.root()), "--recompute", "--format", "json"]).succeeds();
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let checks = answer["checks"].as_array().expect("checks");
    let rows = checks.iter().find(|check| check["name"] == "rows").expect("rows");
    ["offsets", "events", "quarantined", "passed_over"].map(|name| rows["counts"][name].as_i64().expect("a number"))
}

fn offsets(setup: &Setup) -> Vec<i64> {
    let rows = setup.sql("SELECT \"offset\" FROM events UNION ALL SELECT \"offset\" FROM quarantine ORDER BY 1");
    rows.iter().map(|row| row["offset"].as_i64().expect("a number")).collect()
}

/// Checks that the tables have every message of the broker and count every other offset as passed over. Returns the next
/// offset.
fn explained(broker: &Broker, setup: &Setup, topic: &str, before: &[i64]) -> i64 {
    let (from, rows, after) = (before[0], offsets(setup), broker.offsets(topic, 0));
    // The broker may have compacted further during the read.
    let lost: Vec<&i64> = after.iter().filter(|offset| **offset >= from && !rows.contains(offset)).collect();
    let strange: Vec<&i64> = rows.iter().filter(|offset| **offset >= from && !before.contains(offset)).collect();
    assert!(lost.is_empty() && strange.is_empty(), "not read: {lost:?}; read but never published: {strange:?}");
    let (first, end) = (rows[0], rows[rows.len() - 1] + 1);
    let messages = i64::try_from(rows.len()).expect("few");
    assert!(end - first > messages, "there are gaps: {rows:?}");
    let [taken, events, quarantined, passed_over] = counted(setup);
    assert_eq!([taken, events + quarantined, passed_over], [end - first, messages, end - first - messages]);
    assert!(events > 0 && quarantined > 0, "good and bad ones: {events}, {quarantined}");
    end
}

#[test]
fn every_gap_left_by_compaction_is_counted() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic_with("compacted", 1, &COMPACTED);
    let setup = Setup::new(&broker.address, &topic, "[ingest]\nflush_rows = 3\n");
    // A message that stays, so that one precedes the first gap.
    broker.publish(&topic, [Message { key: Some("kept".to_owned()), ..Message::new(run("kept").to_string()) }]);
    publish(broker, &topic, "early", 60);
    let held = compacted(broker, &topic, 60);
    setup.catch_up();
    let end = explained(broker, &setup, &topic, &held);

    // The message at the stored offset is compacted too, so reading resumes within a gap.
    publish(broker, &topic, "late", 60);
    let held: Vec<i64> = compacted(broker, &topic, end + 59).into_iter().filter(|offset| *offset >= end).collect();
    assert!(held[0] > end, "the stored offset {end} is in a gap: {held:?}");
    setup.catch_up();
    explained(broker, &setup, &topic, &held);
}

#[test]
fn catching_up_with_several_topics_ends_after_the_last_one() {
    let Some(broker) = real_broker() else { return };
    let (short, long) = (broker.topic("short", 1), broker.topic("long", 1));
    let setup =
        Setup::with(&ConfigText { brokers: &broker.address, topics: &[&short, &long], ..ConfigText::default() });
    broker.publish_events(&short, 1, &runs("short", 1));
    setup.catch_up();
    // The client reaches the end of partition 0 of one topic before it reads any message of the other.
    broker.publish_events(&long, 1, &runs("long", 700));
    setup.catch_up();
    let rows = |topic: &str| setup.number(&format!("SELECT count(*) FROM events WHERE topic = '{topic}'"));
    assert_eq!([rows(&short), rows(&long)], [1, 700]);
}

#[test]
fn catching_up_with_several_topics_ends_even_if_the_last_offsets_have_no_message() {
    let Some(broker) = real_broker() else { return };
    let (plain, marked) = (broker.topic("plain", 1), broker.topic("marked", 1));
    let transactions = broker.transactions(&marked);
    for (name, commit) in [("kept", true), ("dropped", false)] {
        transactions.publish(&runs(name, 40), commit);
    }
    broker.publish_events(&plain, 1, &runs("plain", 300));
    let setup =
        Setup::with(&ConfigText { brokers: &broker.address, topics: &[&plain, &marked], ..ConfigText::default() });
    setup.catch_up();
    let rows = |topic: &str| setup.number(&format!("SELECT count(*) FROM events WHERE topic = '{topic}'"));
    assert_eq!([rows(&plain), rows(&marked)], [300, 40]);
    assert_eq!(counted(&setup)[1], 340);
}
