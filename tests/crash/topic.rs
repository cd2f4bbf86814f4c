//! A topic that is not what it was: the partitions concerned are halted, loudly, and the others go on.

use super::real_broker;
use crate::common::event::{run, runs};
use crate::common::program::{Running, Wanted};
use crate::common::{Message, Setup, until_or};

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

#[test]
fn a_topic_deleted_and_made_anew_under_a_running_worker_halts_and_the_other_topic_goes_on() {
    let Some(broker) = real_broker() else { return };
    let (fate, other) = (broker.topic("fate", 1), broker.topic("other", 1));
    for topic in [&fate, &other] {
        broker.publish_events(topic, 1, &runs("early", 5));
    }
    let setup = Setup::with(&Wanted { brokers: &broker.address, topics: &[&fate, &other], ..Wanted::default() });
    setup.catch_up();
    broker.recreate(&fate, 1).expect("the broker is a real one");
    broker.publish_events(&fate, 1, &runs("new", 20));
    let worker = setup.start("run");
    told(&worker, &format!("{fate}/0"), "made anew");
    broker.publish_events(&other, 1, &runs("late", 5));
    until_or(|| (rows(&setup, &other, 0) == 10).then_some(()), || worker.printed());
    assert_eq!(rows(&setup, &fate, 0), 5, "nothing of the new topic is taken for the old one");
    assert_eq!(halted(&worker), Some(1.0));
    ends_well(worker);
}
