//! Decides when a worker has caught up: the tables hold every message that existed at its start.
//!
//! Offsets alone do not suffice, because the last ones of a partition may hold no message (transactions, compaction). The client
//! reports the end of a partition by its number but without its topic. If several topics are read, a second client that reads
//! only the partition in question decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::{Context, offset_from};
use super::settings::KafkaSettings;
use super::{REQUEST_TIMEOUT, client_config};
use crate::login::log_in;
use crate::source::open_batch::Position;
use crate::topic_partition::TopicPartition;

/// Timeout of one poll of a single partition.
const PROBE: Duration = Duration::from_millis(100);

/// Polls after which the result stays unknown.
const PROBES: usize = 100;

/// The offsets to reach, and the progress towards them.
pub(super) struct CaughtUp {
    settings: KafkaSettings,
    /// Start of the worker, microseconds since the epoch.
    pub(super) begun_micros: i64,
    /// End offset of each partition at the start.
    targets: BTreeMap<TopicPartition, i64>,
    /// Partitions that may be read to their end: a partition with this number is, of an unknown topic.
    maybe_at_end: BTreeSet<TopicPartition>,
    /// Next offset of each partition when its end was reached. A later rewind of a fenced partition may undo that.
    at_end: BTreeMap<TopicPartition, Option<i64>>,
}

// === impl CaughtUp ===

impl CaughtUp {
    /// Sets the current end offsets as the target.
    pub(super) fn begin(consumer: &BaseConsumer<Context>, settings: &KafkaSettings, begun_micros: i64) -> Result<Self> {
        let (settings, targets) = (settings.clone(), end_offsets(consumer, settings)?);
        Ok(Self { settings, begun_micros, targets, maybe_at_end: BTreeSet::new(), at_end: BTreeMap::new() })
    }

    /// Notes that the end of a partition with this number was reached, of an unknown topic.
    pub(super) fn note_end(&mut self, partition: i32, context: &Context) {
        let open = context.open();
        for topic_partition in self.targets.keys().filter(|topic_partition| topic_partition.partition == partition) {
            let Some(position) = open.positions.get(topic_partition) else { continue };
            if self.settings.topics.len() == 1 {
                self.at_end.insert(topic_partition.clone(), position.next);
            } else {
                self.maybe_at_end.insert(topic_partition.clone());
            }
        }
    }

    /// Notes a message, so the partition was not at its end.
    pub(super) fn note_message(&mut self, topic_partition: &TopicPartition) {
        self.maybe_at_end.remove(topic_partition);
    }

    /// Returns true when the tables hold every message that existed at the start, regardless of newer ones: while messages
    /// arrive without pause, some are always open.
    pub(super) fn is_done(&mut self, context: &Context) -> bool {
        self.check_ends(context);
        let open = context.open();
        let reached = |topic_partition: &TopicPartition, target: i64| {
            open.positions.get(topic_partition).is_some_and(|position| {
                position.halted
                    || position.committed.is_some_and(|committed| committed >= target)
                    || (settled(position) && self.at_end.get(topic_partition).is_some_and(|end| position.next >= *end))
            })
        };
        if self.targets.iter().all(|(topic_partition, target)| reached(topic_partition, *target)) {
            return true;
        }
        // The table records the progress of partitions that other members of the group read.
        if open.positions.is_empty()
            || self.targets.keys().all(|topic_partition| open.positions.contains_key(topic_partition))
        {
            return false;
        }
        let Some(recorded) = context.assigner.newest() else { return false };
        self.targets.iter().all(|(topic_partition, target)| {
            reached(topic_partition, *target) || recorded(topic_partition).is_some_and(|next| next >= *target)
        })
    }

    /// Checks the partitions that may be at their end, if the result depends on them.
    fn check_ends(&mut self, context: &Context) {
        let unsure: Vec<(TopicPartition, Option<i64>)> = {
            let open = context.open();
            let short = |topic_partition: &TopicPartition, position: &Position| {
                !position.halted && position.committed.is_none_or(|committed| committed < self.targets[topic_partition])
            };
            self.maybe_at_end
                .iter()
                .filter_map(|topic_partition| Some((topic_partition, open.positions.get(topic_partition)?)))
                .filter(|(topic_partition, position)| settled(position) && short(topic_partition, position))
                .map(|(topic_partition, position)| (topic_partition.clone(), position.next))
                .collect()
        };
        for (topic_partition, next) in unsure {
            let Some(holds_more) = holds_more(&self.settings, &topic_partition, next) else { continue };
            self.maybe_at_end.remove(&topic_partition);
            if !holds_more {
                self.at_end.insert(topic_partition, next);
            }
        }
    }
}

/// Returns true if every message read so far is in the table, and none is in flight.
fn settled(position: &Position) -> bool {
    position.committed == position.next
}

/// Returns whether a partition holds a message at or after an offset; `None` if the broker does not reply.
fn holds_more(settings: &KafkaSettings, topic_partition: &TopicPartition, next: Option<i64>) -> Option<bool> {
    let mut config = client_config(settings);
    config.set("enable.partition.eof", "true");
    // This client assigns itself one partition, and does not join the group.
    config.remove("group.instance.id");
    let client: BaseConsumer = config.create().ok()?;
    log_in(&client, settings.login.as_ref()).ok()?;
    let from = offset_from(next);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic_partition.topic, topic_partition.partition, from).ok()?;
    client.assign(&list).ok()?;
    for _ in 0..PROBES {
        match client.poll(PROBE) {
            Some(Ok(_)) => return Some(true),
            Some(Err(KafkaError::PartitionEOF(_))) => return Some(false),
            // The worker's own client meets any other error too, and reports it.
            Some(Err(_)) | None => {}
        }
    }
    None
}

/// Returns the current end offset of every partition that is not empty.
fn end_offsets(consumer: &BaseConsumer<Context>, settings: &KafkaSettings) -> Result<BTreeMap<TopicPartition, i64>> {
    let ask = |source: KafkaError| {
        Error::unavailable("the broker did not return the end offsets of its partitions")
            .with_hint("check `kafka.brokers` and that the topics exist")
            .with_source(source)
    };
    let mut ends = BTreeMap::new();
    for topic in &settings.topics {
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(ask)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        for partition in partitions.map(|partition| partition.id()) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(ask)?;
            if high > low {
                ends.insert(TopicPartition::new(topic, partition), high);
            }
        }
    }
    Ok(ends)
}
