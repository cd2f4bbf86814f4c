//! A topic that is not what it was: the partitions concerned are halted, loudly, and the others go on.

use super::proof::audit;
use super::real_broker;
use crate::common::event::{run, runs};
use crate::common::program::{ConfigText, Running};
use crate::common::{Broker, Message, Setup, until_or};

/// Waits until health tells why a partition stands still.
fn told(worker: &Running, partition: &str, why: &str) -> String {
    let heard = || {
        let (status, body) = worker.get("/readyz")?;
        (status == 503 && body.contains(partition) && body.contains(why)).then_some(body)
    };
    until_or(heard, || {
        format!("health says of `{partition}`: {why}\n{}\n{:?}", worker.printed(), worker.get("/readyz"))
    })
}

fn halted(worker: &Running) -> Option<f64> {
    let (_, text) = worker.get("/metrics")?;
    text.lines().find_map(|line| line.strip_prefix("bellwether_ingest_halted_partitions ")?.trim().parse().ok())
}

fn rows(setup: &Setup, topic: &str, partition: i32) -> i64 {
    setup.number(&format!("SELECT count(*) FROM events WHERE topic = '{topic}' AND partition = {partition}"))
}

fn ends_well(worker: Running) {
    worker.signal("TERM");
    let ended = worker.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_topic_truncated_below_the_stored_offset_halts_that_partition_and_no_other() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("truncated", 2);
    broker.publish_events(&topic, 2, &runs("early", 20));
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    // Ten more a partition; then retention takes more of partition 0 than was read: offsets 10 to 14 are lost.
    broker.publish_events(&topic, 2, &runs("middle", 20));
    broker.truncate(&topic, 0, 15);
    let worker = setup.start("run");
    let body = told(&worker, &format!("{topic}/0"), "stand at offset 10, but the broker holds 15 to 20");
    assert!(!body.contains(&format!("{topic}/1")), "{body}");
    // The other partition goes on, with what comes now too.
    broker.publish(&topic, [Message { partition: 1, ..Message::new(run("late").to_string()) }]);
    until_or(|| (rows(&setup, &topic, 1) == 21).then_some(()), || worker.printed());
    assert_eq!(halted(&worker), Some(1.0));
    assert!(worker.printed().contains("ERROR"), "a person is called\n{}", worker.printed());
    // It is nobody's to mend by passing it on: whoever gets the partition next halts it too.
    let heir = setup.start("run");
    ends_well(worker);
    told(&heir, &format!("{topic}/0"), "stand at offset 10, but the broker holds 15 to 20");
    assert_eq!(halted(&heir), Some(1.0));
    ends_well(heir);
    assert_eq!(rows(&setup, &topic, 0), 10, "nothing is guessed");
    // It stays so, and catching up does not wait for it.
    setup.catch_up();
    assert_eq!(rows(&setup, &topic, 0), 10);
}

/// Two topics of two partitions; the first is to be deleted and made anew.
struct Two {
    broker: &'static Broker,
    fate: String,
    other: String,
    setup: Setup,
}

impl Two {
    /// With five events in each partition.
    fn new() -> Option<Self> {
        let broker = real_broker()?;
        let (fate, other) = (broker.topic("fate", 2), broker.topic("other", 2));
        for topic in [&fate, &other] {
            broker.publish_events(topic, 2, &runs("early", 10));
        }
        let topics = [fate.as_str(), other.as_str()];
        let setup = Setup::with(&ConfigText { brokers: &broker.address, topics: &topics, ..ConfigText::default() });
        Some(Self { broker, fate, other, setup })
    }

    fn make_anew(&self, events: usize) {
        self.broker.recreate(&self.fate, 2).expect("the broker is a real one");
        self.broker.publish_events(&self.fate, 2, &runs("new", events));
    }

    /// Both partitions stand still, each where the tables stood, and the other topic's go on.
    fn stands_still(&self, worker: Running) {
        for partition in ["0", "1"] {
            told(&worker, &format!("{}/{partition}", self.fate), "made anew");
        }
        let before = rows(&self.setup, &self.other, 0);
        self.broker.publish_events(&self.other, 2, &runs("late", 10));
        for partition in [0, 1] {
            until_or(|| (rows(&self.setup, &self.other, partition) == before + 5).then_some(()), || worker.printed());
            assert_eq!(
                rows(&self.setup, &self.fate, partition),
                5,
                "nothing of the new topic is taken for the old one"
            );
        }
        assert_eq!(halted(&worker), Some(2.0));
        assert!(worker.printed().contains("ERROR"), "a person is called\n{}", worker.printed());
        ends_well(worker);
        audit(&self.setup, true);
    }
}

#[test]
fn a_topic_made_anew_while_nobody_reads_halts_all_its_partitions_and_no_other() {
    let Some(two) = Two::new() else { return };
    two.setup.catch_up();
    two.make_anew(40);
    two.stands_still(two.setup.start("run"));
}

/// Starts a worker, and makes the topic anew under it.
fn made_anew_under_a_worker(events: usize) {
    let Some(two) = Two::new() else { return };
    two.setup.catch_up();
    let worker = two.setup.start("run");
    two.broker.publish_events(&two.other, 2, &runs("more", 10));
    until_or(|| (rows(&two.setup, &two.other, 0) == 10).then_some(()), || worker.printed());
    two.make_anew(events);
    two.stands_still(worker);
}

#[test]
fn a_topic_made_anew_under_a_worker_with_more_messages_than_were_read_halts() {
    // By its offsets alone it could not be told from the old one.
    made_anew_under_a_worker(400);
}

#[test]
fn a_topic_made_anew_under_a_worker_with_fewer_messages_than_were_read_halts() {
    made_anew_under_a_worker(4);
}
