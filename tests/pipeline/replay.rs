//! Replaying recorded events from files.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::common::event::runs;
use crate::common::program::text;
use crate::common::{Setup, bellwether, broker};

/// The query with the same result however the events reach the tables.
const TOTALS: &str = "SELECT task, release_id, runs, success, escalated, tool_calls, tool_calls_failed, tokens_input, \
    cost_total, latency_ms_p95 FROM release_summary";

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn replayed(file: &str, bytes: &[u8]) -> Vec<Value> {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let path = setup.file(file);
    std::fs::write(&path, bytes).expect("the recording is written");
    setup.replay(&path);
    setup.catch_up_role("aggregate");
    setup.sql(TOTALS)
}

#[test]
fn plain_and_compressed_files_give_the_same_numbers() {
    let recording = lines(&runs("recorded", 40));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(recording.as_bytes()).expect("memory takes it");
    let gzip = gzip.finish().expect("memory takes it");
    let zstd = zstd::encode_all(recording.as_bytes(), 3).expect("memory takes it");
    let plain = replayed("runs.ndjson", recording.as_bytes());
    assert_eq!(plain[0]["runs"], 40, "{plain:?}");
    assert_eq!(replayed("runs.ndjson.gz", &gzip), plain);
    assert_eq!(replayed("runs.ndjson.zst", &zstd), plain);
}

/// Builds a recording of which two events are rejected: good lines around each bad one, and an event over many lines.
fn mixed() -> String {
    let events = runs("mixed", 4);
    let pretty = serde_json::to_string_pretty(&events[2]).expect("JSON");
    let old = events[3].to_string().replace("\"ended_at\":\"2", "\"ended_at\":\"1");
    format!("\u{feff}{}\r\n{{\"spec\":\"run-event/1\",\n{}\n\n{pretty}\n{old}\n", events[0], events[1])
}

#[test]
fn check_and_replay_agree_on_the_number_of_rejected_events() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let recording = mixed();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(recording.as_bytes()).expect("memory takes it");
    let list = Value::from(runs("listed", 3)).to_string();
    let cases: [(&str, Vec<u8>, u64, u64); 4] = [
        ("mixed.ndjson", recording.clone().into_bytes(), 3, 2),
        ("mixed.ndjson.gz", gzip.finish().expect("memory takes it"), 3, 2),
        ("mixed.ndjson.zst", zstd::encode_all(recording.as_bytes(), 3).expect("memory takes it"), 3, 2),
        ("list.json", list.into_bytes(), 3, 0),
    ];
    for (name, bytes, accepted, rejected) in cases {
        let path = setup.file(name);
        std::fs::write(&path, bytes).expect("the recording is written");
        let code = i32::from(rejected > 0);
        let checked = bellwether(&["check", "event", text(&path), "--config", text(&setup.config())]);
        assert_eq!(checked.code, Some(code), "{name}: {checked:?}");
        let last = format!("{accepted} of {} events accepted, {rejected} rejected", accepted + rejected);
        assert_eq!(checked.stdout.lines().last(), Some(last.as_str()), "{name}");
        let replayed = bellwether(&["replay", text(&path), "--to", "tables", "--config", text(&setup.config())]);
        assert_eq!(replayed.code, Some(code), "{name}: {replayed:?}");
        let last = replayed.stdout.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("{accepted} accepted, {rejected} rejected")), "{name}: {last}");
    }
    assert_eq!(setup.number("SELECT count(*) FROM events"), 12);
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 6);
    bellwether(&["audit", "--root", text(&setup.root())]).succeeds();
}

#[test]
fn replaying_a_file_through_kafka_or_into_the_tables_gives_the_same_numbers() {
    let Some(broker) = broker() else { return };
    let recording = lines(&runs("recorded", 40));
    let topic = broker.topic("replay", 2);
    let setup = Setup::new(&broker.address, &topic, "");
    let path = setup.file("runs.ndjson");
    std::fs::write(&path, &recording).expect("the recording is written");
    bellwether(&["replay", text(&path), "--to", "kafka", "--config", text(&setup.config())]).succeeds();
    setup.catch_up();
    assert_eq!(setup.sql(TOTALS), replayed("runs.ndjson", recording.as_bytes()));
}
