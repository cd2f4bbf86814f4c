//! Starts, stops and kills: nothing is lost, and nothing is counted twice.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::event::{run, runs};
use crate::common::program::metric;
use crate::common::{Broker, Message, Setup, broker, until};

const PARTITIONS: i32 = 3;

/// The metrics of all runs, which no restart may change.
const TOTALS: &str = "SELECT task, release_id, runs, success, escalated, tool_calls, tool_calls_failed, tokens_input, \
    cost_total FROM release_summary ORDER BY task, release_id";

/// Rows of `events`, and rows with distinct coordinates.
const ROWS: &str =
    "SELECT count(*) AS stored, count(DISTINCT concat(topic, '/', partition, '/', \"offset\")) AS own FROM events";

fn topic_with(broker: &Broker, events: &[Value]) -> String {
    let topic = broker.topic("life", PARTITIONS);
    broker.publish_events(&topic, PARTITIONS, events);
    topic
}

#[test]
fn a_restart_duplicates_nothing() {
    let Some(broker) = broker() else { return };
    let first = runs("run", 300);
    let topic = topic_with(broker, &first);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let before = setup.sql(TOTALS);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before[0]["runs"], 300);
    assert_eq!(before[0]["success"], 200);
    assert_eq!(before[0]["escalated"], 60);
    setup.catch_up();
    assert_eq!(setup.sql(TOTALS), before);
    assert_eq!(setup.sql(ROWS), [json!({"stored": 300, "own": 300})]);
}

#[test]
fn a_run_sent_twice_counts_once_and_a_revision_replaces_it() {
    let Some(broker) = broker() else { return };
    let first = runs("run", 60);
    let topic = topic_with(broker, &first);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let before = setup.sql(TOTALS);
    broker.publish_events(&topic, PARTITIONS, &first[..30]);
    setup.catch_up();
    assert_eq!(setup.sql(TOTALS), before, "exact repeats");
    assert_eq!(setup.number("SELECT count(*) FROM events"), 90, "every message is kept");
    let mut revised = first[1].clone();
    revised["data"]["revision"] = json!(1);
    revised["data"]["outcome"]["status"] = json!("failure");
    broker.publish(&topic, [Message::new(revised.to_string())]);
    setup.catch_up();
    let after = setup.sql(TOTALS);
    assert_eq!(after[0]["runs"], before[0]["runs"]);
    assert_eq!(after[0]["success"].as_i64(), before[0]["success"].as_i64().map(|success| success - 1));
}

#[test]
fn processes_that_were_killed_leave_every_message_in_the_tables_once() {
    let Some(broker) = broker() else { return };
    let count = 6_000;
    let topic = topic_with(broker, &runs("run", count));
    // Small commits, so that a kill can hit many moments; a short session, so that the next process soon gets the partitions
    // of the dead one; and short rebalances: the broker waits so long for a process that was killed while it joined.
    let settings = "[ingest]\nflush_interval = \"50ms\"\nflush_rows = 500\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
         \"max.poll.interval.ms\" = 20000\n";
    let setup = Setup::new(&broker.address, &topic, settings);
    for kill_at in [500, 2_500] {
        let running = setup.start("run");
        until("some rows are committed", || {
            let root = setup.root().join("events/_delta_log");
            (root.exists() && setup.number("SELECT count(*) FROM events") >= kill_at).then_some(())
        });
        running.signal("KILL");
        assert_eq!(running.end().code, None, "killed");
    }
    setup.catch_up();
    assert_eq!(setup.sql(ROWS), [json!({"stored": count, "own": count})]);
    let totals = setup.sql(TOTALS);
    assert_eq!(totals[0]["runs"], json!(count));
    assert_eq!(totals[0]["success"], json!(count / 3 * 2));
}

#[test]
fn sigterm_drains_commits_and_exits_with_0() {
    let Some(broker) = broker() else { return };
    let topic = topic_with(broker, &runs("early", 50));
    // Only the drain can commit the late events: the interval is longer than the test.
    let setup = Setup::new(&broker.address, &topic, "[ingest]\nflush_interval = \"1h\"\n");
    let running = setup.start("run");
    until("the messages are read", || {
        let (_, metrics) = running.get("/metrics")?;
        (metric(&metrics, "bellwether_ingest_messages_total")? >= 50.0).then_some(())
    });
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(setup.sql(ROWS), [json!({"stored": 50, "own": 50})]);
}

#[test]
fn health_and_metrics_report_progress() {
    let Some(broker) = broker() else { return };
    let topic = topic_with(broker, &runs("run", 20));
    broker.publish(&topic, [Message::new("poison")]);
    let setup = Setup::new(&broker.address, &topic, "");
    let running = setup.start("run");
    until("the worker is healthy", || running.get("/healthz").filter(|(status, _)| *status == 200));
    until("the worker is ready", || running.get("/readyz").filter(|(status, _)| *status == 200));
    let text = until("the metrics count every message", || {
        let (_, text) = running.get("/metrics")?;
        (metric(&text, "bellwether_ingest_rows_committed_total")? >= 20.0).then_some(text)
    });
    assert_eq!(metric(&text, "bellwether_ingest_quarantined_total{reason=\"not_json\"}"), Some(1.0), "{text}");
    let watched = until("the rules are evaluated", || {
        let (_, text) = running.get("/metrics")?;
        (metric(&text, "bellwether_watch_evaluations_total")? >= 1.0).then_some(text)
    });
    for (name, value) in [
        ("bellwether_alerts_false_pages_budget", 1.0),
        ("bellwether_watch_rules_broken", 0.0),
        ("bellwether_alerts_pages_30d", 0.0),
    ] {
        assert_eq!(metric(&watched, name), Some(value), "{name} in\n{watched}");
    }
    let (_, health) = running.get("/healthz").expect("it answers");
    assert!(health.contains("\"watch\""), "{health}");
    for name in ["process_resident_memory_bytes", "process_threads", "bellwether_ingest_commit_seconds_count"] {
        assert!(metric(&text, name).is_some_and(|value| value > 0.0), "{name} in\n{text}");
    }
    // In whole seconds: it may still be 0.
    assert!(metric(&text, "process_cpu_seconds_total").is_some(), "process_cpu_seconds_total in\n{text}");
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn a_worker_waits_for_an_unreachable_broker_and_reports_it() {
    // Port 9 (discard) is closed on any machine that tests run on.
    let setup = Setup::new("127.0.0.1:9", "nowhere", "[serve]\naddress = \"127.0.0.1:0\"\nstale_after = \"1s\"\n");
    let running = setup.start("run");
    let (status, body) = until("health reports it", || {
        running.get("/healthz").filter(|(status, body)| *status == 503 && body.contains("Kafka is unreachable"))
    });
    assert!(body.contains("ingest"), "{status} {body}");
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "waiting is not an error\n{}", ended.stderr);
}

#[test]
fn versions_without_rows_do_not_count_as_waiting_work() {
    let Some(broker) = broker() else { return };
    let topic = topic_with(broker, &runs("run", 4));
    let setup = Setup::new(
        &broker.address,
        &topic,
        "[serve]\naddress = \"127.0.0.1:0\"\nstale_after = \"2s\"\n[ingest]\nflush_interval = \"50ms\"\n",
    );
    let running = setup.start("run");
    let counts = |name: &str| running.get("/metrics").and_then(|(_, text)| metric(&text, name));
    until("the runs are committed", || counts("bellwether_ingest_rows_committed_total").filter(|rows| *rows == 4.0));
    // Each of these advances an offset without a row in `events`.
    for _ in 0..3 {
        broker.publish(&topic, [Message::new("poison")]);
        std::thread::sleep(Duration::from_millis(300));
    }
    until("the messages are rejected", || counts("bellwether_ingest_quarantined_total").filter(|count| *count == 3.0));
    // Longer than `stale_after`. There is no condition to wait for, because nothing must happen.
    std::thread::sleep(Duration::from_secs(5));
    let (status, body) = running.get("/healthz").expect("it answers");
    assert_eq!(status, 200, "{body}");
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn two_processes_share_the_partitions_and_count_every_message_once() {
    let Some(broker) = broker() else { return };
    let topic = topic_with(broker, &runs("early", 600));
    let setup = Setup::new(&broker.address, &topic, "[ingest]\nflush_interval = \"100ms\"\n");
    let processes = [setup.start("ingest"), setup.start("ingest")];
    until("the first half is stored", || (rows(&setup)? >= 600).then_some(()));
    broker.publish_events(&topic, PARTITIONS, &runs("late", 600));
    until("the second half is stored", || (rows(&setup)? >= 1_200).then_some(()));
    for process in processes {
        process.signal("TERM");
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    broker.publish(&topic, [Message::new(run("last").to_string())]);
    setup.catch_up();
    assert_eq!(setup.sql(ROWS), [json!({"stored": 1_201, "own": 1_201})]);
    assert_eq!(setup.sql(TOTALS)[0]["runs"], 1_201);
}

/// Returns the rows of `events`; none before the tables exist.
fn rows(setup: &Setup) -> Option<i64> {
    setup.root().join("events/_delta_log").exists().then(|| setup.number("SELECT count(*) FROM events"))
}

#[test]
fn a_recreated_topic_is_halted_and_none_of_its_messages_are_stored() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("life", 1);
    broker.publish_events(&topic, 1, &runs("old", 5));
    let setup = Setup::new(&broker.address, &topic, "[serve]\naddress = \"127.0.0.1:0\"\nstale_after = \"1s\"\n");
    setup.catch_up();
    if broker.recreate(&topic, 1).is_none() {
        return;
    }
    // More messages than before, so that the offsets alone do not distinguish the new topic from the old one.
    broker.publish_events(&topic, 1, &runs("new", 20));
    let running = setup.start("run");
    let (_, body) = until("health reports it", || {
        running
            .get("/healthz")
            .filter(|(status, body)| *status == 503 && body.contains("topic was deleted and recreated"))
    });
    assert!(body.contains(&format!("{topic}/0")), "{body}");
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
    assert_eq!(setup.number("SELECT count(*) FROM events"), 5);
}
