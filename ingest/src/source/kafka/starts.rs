//! Where topics begin that are to be begun at their end (`start = "latest"`).
//!
//! What the end is must be decided once: one that each worker looked up when it is given a partition would leave out what came
//! in between, of a partition that is added, or that moves before its first commit. So the first worker that is given a
//! partition of a topic commits the ends of all partitions that the topic has, before anything is read. Whoever comes later
//! finds an offset in the tables; a partition without one was added after that, and begins at its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result};
use bellwether_lake::reading::{START, start_app};
use bellwether_lake::{Advance, Commit, Outcome, Snapshot};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Map;

use super::ASK_BROKER;
use super::context::Assigner;
use super::topic_id::{ASK_TOPIC_IDS, topic_ids};
use crate::commit_pipeline::{app_id, topic_app_id};
use crate::source::open_batch::Place;

/// Pause between two attempts to record where topics begin.
const PAUSE: Duration = Duration::from_millis(250);

/// What a broker that does not know a topic yet has said.
const UNKNOWN: KafkaError = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);

/// Longest wait for a broker and storage to do so: below the poll interval of 5 min.
const WAIT_MICROS: i64 = 60_000_000;

/// Where partitions end for a reader now, as their brokers say: before the first message of a transaction that is still open.
/// A partition of which nothing is said is left out.
pub(super) fn ends<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    timeout: Duration,
) -> Result<Vec<(Place, i64)>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for place in places {
        list.add_partition_offset(&place.topic, place.partition, Offset::End)?;
    }
    if places.is_empty() {
        return Ok(Vec::new());
    }
    // The call is for times; the time -1, which is how an end is written, asks for the end.
    let answer = consumer.offsets_for_times(list, timeout)?;
    let told = answer.elements().into_iter().filter(|element| element.error().is_ok()).filter_map(|element| {
        let Offset::Offset(end) = element.offset() else { return None };
        Some((Place { topic: element.topic().into(), partition: element.partition() }, end))
    });
    Ok(told.filter(|(_, end)| *end >= 0).collect())
}

/// The partitions that a topic has now.
pub(super) fn partitions_of<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let mut found = Vec::new();
    for known in metadata.topics().iter().filter(|known| known.name() == topic) {
        if let Some(error) = known.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        found.extend(known.partitions().iter().map(|partition| partition.id()));
    }
    // A topic has one partition at least: a broker that names none does not know it yet.
    if found.is_empty() { Err(UNKNOWN) } else { Ok(found) }
}

/// Records where topics begin that the tables do not know yet, all partitions of a topic in one commit. Gives the snapshot
/// that knows them.
pub(super) fn record<C: ClientContext + ConsumerContext>(
    assigner: &Assigner,
    consumer: &BaseConsumer<C>,
    topics: &BTreeSet<String>,
    mut on: Snapshot,
    clock: &dyn Clock,
) -> Result<Snapshot> {
    let deadline = clock.now_micros() + WAIT_MICROS;
    for topic in topics {
        let app = start_app(&assigner.job, topic);
        // The same commit is asked about until it is clear what became of it.
        let mut begun: Option<(Snapshot, Commit)> = None;
        while on.next(&app).is_none() {
            let (base, commit) = match begun.take() {
                Some(begun) => begun,
                None => match starts(assigner, consumer, topic, &on) {
                    Ok(advances) => (on.clone(), beginning(&app, advances, clock)),
                    Err(source) => {
                        wait(clock, deadline, || {
                            Error::unavailable(format!("the broker did not return the end offsets of topic `{topic}`"))
                                .with_hint("check `kafka.brokers` and that the topic exists")
                                .with_source(source)
                        })?;
                        continue;
                    }
                },
            };
            match assigner.runtime.block_on(assigner.log.try_commit(&base, &commit))? {
                Outcome::Committed(snapshot) => {
                    tracing::info!(topic, "reading the topic from its current end, now recorded in the table");
                    on = snapshot;
                }
                Outcome::Fenced { snapshot, .. } => on = snapshot,
                Outcome::Unknown { reason } => {
                    wait(clock, deadline, || {
                        Error::unavailable(format!("cannot record the start offsets of topic `{topic}`: {reason}"))
                    })?;
                    begun = Some((base, commit));
                }
            }
        }
    }
    Ok(on)
}

/// The steps to the ends of a topic's partitions that the tables have no offset of.
fn starts<C: ClientContext + ConsumerContext>(
    assigner: &Assigner,
    consumer: &BaseConsumer<C>,
    topic: &str,
    on: &Snapshot,
) -> Result<Vec<Advance>, KafkaError> {
    let partitions = partitions_of(consumer, topic, ASK_BROKER)?;
    let places: Vec<Place> = partitions.into_iter().map(|partition| Place { topic: topic.into(), partition }).collect();
    let found: BTreeMap<Place, i64> = ends(consumer, &places, ASK_BROKER)?.into_iter().collect();
    if found.len() < places.len() {
        return Err(UNKNOWN);
    }
    let steps = found.into_iter().map(|(place, end)| (app_id(&assigner.job, topic, place.partition), end));
    // With its id, where the broker tells it: the ends of a topic that is made anew before anything was read are others.
    let id = topic_ids(consumer.client().native_ptr(), &[topic], ASK_TOPIC_IDS).remove(topic);
    let id = id.map(|id| (topic_app_id(&assigner.job, topic), id));
    let new = steps.chain(id).filter(|(app_id, _)| on.next(app_id).is_none());
    Ok(new.map(|(app_id, next)| Advance { app_id, expected: None, next }).collect())
}

fn beginning(app: &str, mut advances: Vec<Advance>, clock: &dyn Clock) -> Commit {
    advances.push(Advance { app_id: app.to_owned(), expected: None, next: 1 });
    let uuid = clock.unique_id();
    Commit { uuid, advances, files: Vec::new(), operation: START, ranges: Vec::new(), facts: Map::new() }
}

fn wait(clock: &dyn Clock, deadline: i64, error: impl FnOnce() -> Error) -> Result<()> {
    if clock.now_micros() >= deadline {
        return Err(error());
    }
    std::thread::sleep(PAUSE);
    Ok(())
}
