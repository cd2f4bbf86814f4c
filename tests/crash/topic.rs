//! A truncated or recreated topic: its partitions are halted with an error, and the others continue.

use super::proof::audit;
use crate::common::event::{run, runs};
use crate::common::program::{ConfigText, Running};
use crate::common::{Broker, Message, Setup, real_broker, until_or};

/// Waits until readiness reports why a partition is halted.
fn reports(worker: &Running, partition: &str, why: &str) -> String {
    let reported = || {
        let (status, body) = worker.get("/readyz")?;
        (status == 503 && body.contains(partition) && body.contains(why)).then_some(body)
    };
    until_or(reported, || {
        format!("readiness reports for `{partition}`: {why}\n{}\n{:?}", worker.printed(), worker.get("/readyz"))
    })
}

fn halted(worker: &Running) -> Option<f64> {
    worker.metric("bellwether_ingest_halted_partitions")
}

fn rows(setup: &Setup, topic: &str, partition: i32) -> i64 {
    setup.number(&format!("SELECT count(*) FROM events WHERE topic = '{topic}' AND partition = {partition}"))
}

#[test]
fn a_topic_truncated_below_the_stored_offset_halts_that_partition_and_no_other() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("truncated", 2);
    broker.publish_events(&topic, 2, &runs("early", 20));
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    // Ten more per partition; then retention deletes unread messages of partition 0: offsets 10 to 14 are lost.
    broker.publish_events(&topic, 2, &runs("middle", 20));
    broker.truncate(&topic, 0, 15);
    let worker = setup.start("run");
    let body = reports(&worker, &format!("{topic}/0"), "the next offset to read is 10, but the broker holds 15 to 20");
    assert!(!body.contains(&format!("{topic}/1")), "{body}");
    // The other partition continues, also with new messages.
    broker.publish(&topic, [Message { partition: 1, ..Message::new(run("late").to_string()) }]);
    until_or(|| (rows(&setup, &topic, 1) == 21).then_some(()), || worker.printed());
    assert_eq!(halted(&worker), Some(1.0));
    assert!(worker.printed().contains("ERROR"), "it logs an error\n{}", worker.printed());
    // A change of owner does not help: the next owner of the partition halts it too.
    let heir = setup.start("run");
    worker.stop();
    reports(&heir, &format!("{topic}/0"), "the next offset to read is 10, but the broker holds 15 to 20");
    assert_eq!(halted(&heir), Some(1.0));
    heir.stop();
    assert_eq!(rows(&setup, &topic, 0), 10, "nothing is read beyond the gap");
    // It stays halted, and catching up does not wait for it.
    setup.catch_up();
    assert_eq!(rows(&setup, &topic, 0), 10);
}

/// Two topics of two partitions; a test recreates the first.
struct TwoTopics {
    broker: &'static Broker,
    recreated: String,
    other: String,
    setup: Setup,
}

impl TwoTopics {
    /// Creates both, with five events in each partition.
    fn new() -> Option<Self> {
        let broker = real_broker()?;
        let (recreated, other) = (broker.topic("recreated", 2), broker.topic("other", 2));
        for topic in [&recreated, &other] {
            broker.publish_events(topic, 2, &runs("early", 10));
        }
        let topics = [recreated.as_str(), other.as_str()];
        let setup = Setup::with(&ConfigText { brokers: &broker.address, topics: &topics, ..ConfigText::default() });
        Some(Self { broker, recreated, other, setup })
    }

    fn recreate(&self, events: usize) {
        self.broker.recreate(&self.recreated, 2).expect("the broker is a real one");
        self.broker.publish_events(&self.recreated, 2, &runs("new", events));
    }

    /// Checks that both partitions of the recreated topic are halted and those of the other continue; stops the worker.
    fn only_the_recreated_topic_is_halted(&self, worker: Running) {
        for partition in ["0", "1"] {
            reports(&worker, &format!("{}/{partition}", self.recreated), "the topic was");
        }
        let before = rows(&self.setup, &self.other, 0);
        self.broker.publish_events(&self.other, 2, &runs("late", 10));
        for partition in [0, 1] {
            until_or(|| (rows(&self.setup, &self.other, partition) == before + 5).then_some(()), || worker.printed());
            assert_eq!(
                rows(&self.setup, &self.recreated, partition),
                5,
                "no message of the new topic is stored as one of the old topic"
            );
        }
        assert_eq!(halted(&worker), Some(2.0));
        assert!(worker.printed().contains("ERROR"), "it logs an error\n{}", worker.printed());
        worker.stop();
        audit(&self.setup, true);
    }
}

#[test]
fn a_topic_recreated_while_no_worker_runs_is_halted() {
    let Some(topics) = TwoTopics::new() else { return };
    topics.setup.catch_up();
    topics.recreate(40);
    topics.only_the_recreated_topic_is_halted(topics.setup.start("run"));
}

/// Starts a worker and recreates the topic while it runs.
fn recreate_under_a_worker(events: usize) {
    let Some(topics) = TwoTopics::new() else { return };
    topics.setup.catch_up();
    let worker = topics.setup.start("run");
    topics.broker.publish_events(&topics.other, 2, &runs("more", 10));
    until_or(|| (rows(&topics.setup, &topics.other, 0) == 10).then_some(()), || worker.printed());
    topics.recreate(events);
    topics.only_the_recreated_topic_is_halted(worker);
}

#[test]
fn a_topic_recreated_under_a_worker_with_more_messages_than_were_read_is_halted() {
    // Its offsets alone do not distinguish it from the old topic.
    recreate_under_a_worker(400);
}

#[test]
fn a_topic_recreated_under_a_worker_with_fewer_messages_than_were_read_is_halted() {
    recreate_under_a_worker(4);
}
