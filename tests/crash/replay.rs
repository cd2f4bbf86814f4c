//! Messages that are read again change nothing.

use serde_json::{Value, json};

use super::proof::audit;
use crate::common::event::runs;
use crate::common::{Setup, real_broker};

const PARTITIONS: i32 = 3;

/// Returns all metrics by window and group.
fn figures(setup: &Setup) -> Vec<Value> {
    setup.sql("SELECT * FROM metrics_1m ORDER BY window_start, tenant, task, release_id, stage")
}

#[test]
fn the_whole_topic_read_again_changes_nothing() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("replay", PARTITIONS);
    let events = runs("run", 240);
    broker.publish_events(&topic, PARTITIONS, &events);
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let before = figures(&setup);
    assert_eq!(setup.number("SELECT CAST(sum(runs) AS BIGINT) FROM metrics_1m"), 240);

    // A new group has no offsets in Kafka; those in the tables count, and there is nothing to do.
    let group = setup.other("group.toml", |text| text.replace("group = \"", "group = \"another-"));
    setup.catch_up_as(&group);
    assert_eq!(setup.number("SELECT count(*) FROM events"), 240);
    audit(&setup, true);

    // The same events published again, from the last to the first, over other partitions.
    let again: Vec<Value> = events.iter().rev().cloned().collect();
    broker.publish_events(&topic, PARTITIONS, &again);
    setup.catch_up();
    assert_eq!(setup.number("SELECT count(*) FROM events"), 480, "every message is kept");
    assert_eq!(figures(&setup), before);
    audit(&setup, true);

    // Another job reads the topic from its start into the same tables.
    let job = setup.other("job.toml", |text| text.replace("[kafka]\n", "[kafka]\njob = \"again\"\n"));
    setup.catch_up_as(&job);
    assert_eq!(setup.number("SELECT count(*) FROM events"), 960);
    assert_eq!(figures(&setup), before);
    assert_eq!(setup.sql("SELECT count(DISTINCT run_id) AS runs FROM events"), [json!({"runs": 240})]);
}
