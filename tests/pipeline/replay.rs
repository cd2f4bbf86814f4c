//! Recorded events from files.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::common::event::runs;
use crate::common::program::text;
use crate::common::{Setup, bellwether, broker};

/// What every way in must agree on.
const TOTALS: &str = "SELECT task, release_id, runs, success, escalated, tool_calls, tool_calls_failed, tokens_input, \
    cost_total, latency_ms_p95 FROM release_summary";

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn replayed(file: &str, bytes: &[u8]) -> Vec<Value> {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let path = setup.file(file);
    std::fs::write(&path, bytes).expect("the recording is written");
    bellwether(&["replay", text(&path), "--to", "tables", "--config", text(&setup.config())]).succeeds();
    bellwether(&["aggregate", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
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

#[test]
fn a_file_replayed_through_kafka_gives_the_same_numbers_as_into_the_tables() {
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
