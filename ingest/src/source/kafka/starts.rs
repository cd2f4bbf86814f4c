//! Records the start offsets of topics that are read from their end (`start = "latest"`).
//!
//! The end must be decided once. If each worker looked it up on assignment, messages would be lost from a partition that is
//! added later, or that moves before its first commit. So the first worker that is assigned a partition of a topic commits the
//! end offsets of all its partitions before it reads anything. Later owners find a recorded offset; a partition without one was
//! added afterwards, and starts at its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result};
use bellwether_lake::reading::START;
use bellwether_lake::{Advance, Commit, Outcome, Snapshot};
use bellwether_tables::AppId;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Map;

use super::REQUEST_TIMEOUT;
use super::context::Assigner;
use super::topic_id::{TOPIC_IDS_TIMEOUT, topic_ids};
use crate::commit_pipeline::{app_id, topic_app_id};
use crate::topic_partition::TopicPartition;

/// Pause between two attempts to record start offsets.
const PAUSE: Duration = Duration::from_millis(250);

/// The error of a broker that does not know a topic yet.
const UNKNOWN: KafkaError = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);

/// Longest wait for the broker and storage: below the default `max.poll.interval.ms` of 5 min.
const WAIT_MICROS: i64 = 60_000_000;

/// Returns the current end offsets of partitions for a reader, which lie before the first message of an open transaction.
/// Partitions without a reply are left out.
pub(super) fn end_offsets<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for topic_partition in partitions {
        list.add_partition_offset(&topic_partition.topic, topic_partition.partition, Offset::End)?;
    }
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    // The request looks up times; `Offset::End` is the special time -1, which requests the end offset.
    let reply = consumer.offsets_for_times(list, timeout)?;
    let ends = reply.elements().into_iter().filter(|element| element.error().is_ok()).filter_map(|element| {
        let Offset::Offset(end) = element.offset() else { return None };
        Some((TopicPartition::new(element.topic(), element.partition()), end))
    });
    Ok(ends.filter(|(_, end)| *end >= 0).collect())
}

/// Returns the current partitions of a topic.
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
    // A topic has at least one partition: a broker that lists none does not know the topic yet.
    if found.is_empty() { Err(UNKNOWN) } else { Ok(found) }
}

/// Records the start offsets of new topics, with all partitions of a topic in one commit, and returns the snapshot after it.
pub(super) fn record_starts<C: ClientContext + ConsumerContext>(
    assigner: &Assigner,
    consumer: &BaseConsumer<C>,
    topics: &BTreeSet<String>,
    mut on: Snapshot,
    clock: &dyn Clock,
) -> Result<Snapshot> {
    let deadline = clock.now_micros() + WAIT_MICROS;
    for topic in topics {
        let app = AppId::TopicStart { job: assigner.job.clone(), topic: topic.clone() }.to_string();
        // A commit with an unknown outcome is retried unchanged until its outcome is known.
        let mut begun: Option<(Snapshot, Commit)> = None;
        while on.next(&app).is_none() {
            let (base, commit) = match begun.take() {
                Some(begun) => begun,
                None => match starts(assigner, consumer, topic, &on) {
                    Ok(advances) => (on.clone(), start_commit(&app, advances, clock)),
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

/// Returns the advances to the end offsets of a topic's partitions without a recorded offset.
fn starts<C: ClientContext + ConsumerContext>(
    assigner: &Assigner,
    consumer: &BaseConsumer<C>,
    topic: &str,
    on: &Snapshot,
) -> Result<Vec<Advance>, KafkaError> {
    let partitions = partitions_of(consumer, topic, REQUEST_TIMEOUT)?;
    let partitions: Vec<TopicPartition> =
        partitions.into_iter().map(|partition| TopicPartition::new(topic, partition)).collect();
    let found: BTreeMap<TopicPartition, i64> =
        end_offsets(consumer, &partitions, REQUEST_TIMEOUT)?.into_iter().collect();
    if found.len() < partitions.len() {
        return Err(UNKNOWN);
    }
    let steps =
        found.into_iter().map(|(topic_partition, end)| (app_id(&assigner.job, topic, topic_partition.partition), end));
    // Record the id too, if the broker returns it: a topic that is recreated before its first read has other end offsets.
    let id = topic_ids(consumer.client().native_ptr(), &[topic], TOPIC_IDS_TIMEOUT).remove(topic);
    let id = id.map(|id| (topic_app_id(&assigner.job, topic), id));
    let new = steps.chain(id).filter(|(app_id, _)| on.next(app_id).is_none());
    Ok(new.map(|(app_id, next)| Advance { app_id, expected: None, next }).collect())
}

fn start_commit(app: &str, mut advances: Vec<Advance>, clock: &dyn Clock) -> Commit {
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
