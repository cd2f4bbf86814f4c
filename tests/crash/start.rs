//! `kafka.start = "latest"`: every message published after the first start is read, also from partitions added later and
//! after a change of owner.

use std::time::{Duration, Instant};

use super::members::leave;
use super::proof::audit;
use crate::common::event::runs;
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Broker, Message, Setup, bellwether, real_broker, until_or};

/// Maximum time until an added partition is read.
const READ_LIMIT: Duration = Duration::from_secs(30);

fn latest(broker: &Broker, topic: &str, flush_interval: &str) -> Setup {
    let extra = format!(
        "[ingest]\nflush_interval = \"{flush_interval}\"\n\
         [kafka.properties]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 500\n"
    );
    let kafka = "start = \"latest\"\n";
    Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[topic],
        kafka,
        extra: &extra,
        ..ConfigText::default()
    })
}

/// Returns each partition with its next offset, as the tables have them.
fn progress(setup: &Setup) -> Vec<(i64, i64)> {
    let rows = setup.sql("SELECT partition, next_offset FROM ingest_progress ORDER BY partition");
    rows.iter().filter_map(|row| Some((row["partition"].as_i64()?, row["next_offset"].as_i64()?))).collect()
}

fn publish(broker: &Broker, topic: &str, partition: i32, prefix: &str, count: usize) {
    let message = |event: serde_json::Value| Message { partition, ..Message::new(event.to_string()) };
    broker.publish(topic, runs(prefix, count).into_iter().map(message));
}

fn rows(setup: &Setup) -> i64 {
    setup.number("SELECT count(*) FROM events")
}

#[test]
fn added_partitions_are_read_from_their_beginnings_within_half_a_minute() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("added", 1);
    publish(broker, &topic, 0, "old", 5);
    let setup = latest(broker, &topic, "150ms");
    let worker = setup.start("run");
    until_or(|| worker.get("/healthz"), || worker.printed());
    until_or(|| (progress(&setup) == [(0, 5)]).then_some(()), || worker.printed());
    let added = Instant::now();
    broker.add_partitions(&topic, 3);
    for partition in 0..3 {
        publish(broker, &topic, partition, &format!("new-{partition}"), 50);
    }
    until_or(|| (rows(&setup) == 150).then_some(()), || format!("{:?}\n{}", progress(&setup), worker.printed()));
    let took = added.elapsed();
    assert!(took < READ_LIMIT, "an added partition was read after {took:?}");
    assert_eq!(progress(&setup), [(0, 55), (1, 50), (2, 50)]);
    leave(worker);
    assert_eq!(setup.number("SELECT count(*) FROM events WHERE run_id LIKE 'old-%'"), 0);
    let output = bellwether(&["audit", "--root", text(&setup.root()), "--recompute"]).succeeds();
    assert!(output.contains(&format!("started topic `{topic}` at its end: partition 0 at 5")), "{output}");
}

#[test]
fn a_worker_that_dies_before_its_first_commit_loses_nothing() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("first", 2);
    publish(broker, &topic, 0, "old", 7);
    // It commits only after an hour.
    let setup = latest(broker, &topic, "1h");
    let first = setup.start("ingest");
    until_or(|| first.get("/healthz"), || first.printed());
    until_or(|| (progress(&setup) == [(0, 7), (1, 0)]).then_some(()), || first.printed());
    publish(broker, &topic, 0, "new-0", 100);
    publish(broker, &topic, 1, "new-1", 100);
    let read = || first.metric("bellwether_ingest_messages_total").filter(|read| *read >= 200.0);
    until_or(read, || first.printed());
    first.kill();
    assert_eq!(rows(&setup), 0);
    let quick = setup.other("quick.toml", |text| text.replace("1h", "150ms"));
    let second = Running::role("ingest", &quick);
    until_or(|| (rows(&setup) == 200).then_some(()), || second.printed());
    leave(second);
    audit(&setup, false);
}

#[test]
fn only_the_new_owner_of_a_partition_exports_its_lag() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("gauges", 4);
    let setup = latest(broker, &topic, "150ms");
    let gauges = |worker: &Running| {
        let (_, text) = worker.get("/metrics")?;
        let mine = |line: &&str| line.starts_with("bellwether_ingest_lag_messages{") && line.contains(&topic);
        Some(text.lines().filter(mine).count())
    };
    let first = setup.start("ingest");
    until_or(|| (gauges(&first)? == 4).then_some(()), || first.printed());
    let second = setup.start("ingest");
    let shared = || (gauges(&first)? == 2 && gauges(&second)? == 2).then_some(());
    until_or(shared, || format!("{:?} {:?}\n{}", gauges(&first), gauges(&second), second.printed()));
    // Each message from now on is read by one of them; messages from before the first start are not read.
    for partition in 0..4 {
        publish(broker, &topic, partition, &format!("new-{partition}"), 25);
    }
    until_or(|| (rows(&setup) == 100).then_some(()), || second.printed());
    [first, second].into_iter().for_each(leave);
    audit(&setup, false);
}
