//! When a worker that stops once it has caught up has done so: all that was there at its start is in the tables.
//!
//! Offsets alone do not tell: the last ones of a partition may hold no message (transactions, compaction). The client says
//! when it has come to the end of a partition, by the partition's number and without its topic. Where several topics are
//! read, a client that reads nothing but the one partition is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::{Context, offset_from};
use super::settings::KafkaSettings;
use super::{ASK_BROKER, client_config};
use crate::source::open_batch::{Place, Position};

/// Wait of one look for the next message of a single partition.
const LOOK: Duration = Duration::from_millis(100);

/// Looks after which nobody can tell.
const LOOKS: usize = 100;

/// What is to be reached.
pub(super) struct CaughtUp {
    settings: KafkaSettings,
    /// The start, microseconds since the epoch.
    pub(super) begun_micros: i64,
    /// The end of each partition at the start.
    targets: BTreeMap<Place, i64>,
    /// Partitions that may have been read to their end: some topic's with that number has been.
    maybe_at_end: BTreeSet<Place>,
    /// Where reading of a partition stood at its end. It may be put back: another owner has moved it.
    at_end: BTreeMap<Place, Option<i64>>,
}

// === impl CaughtUp ===

impl CaughtUp {
    /// What is there now is to be reached.
    pub(super) fn begin(consumer: &BaseConsumer<Context>, settings: &KafkaSettings, begun_micros: i64) -> Result<Self> {
        let (settings, targets) = (settings.clone(), end_offsets(consumer, settings)?);
        Ok(Self { settings, begun_micros, targets, maybe_at_end: BTreeSet::new(), at_end: BTreeMap::new() })
    }

    /// Notes that the end of a partition was read, of whichever topic.
    pub(super) fn note_end(&mut self, partition: i32, context: &Context) {
        let open = context.open();
        for place in self.targets.keys().filter(|place| place.partition == partition) {
            let Some(position) = open.positions.get(place) else { continue };
            if self.settings.topics.len() == 1 {
                self.at_end.insert(place.clone(), position.next);
            } else {
                self.maybe_at_end.insert(place.clone());
            }
        }
    }

    /// Notes that there was a message after all.
    pub(super) fn note_message(&mut self, place: &Place) {
        self.maybe_at_end.remove(place);
    }

    /// True when all that was there at the start is in the tables, whatever has come since: where messages come without
    /// pause there is always something open.
    pub(super) fn is_done(&mut self, context: &Context) -> bool {
        self.make_sure(context);
        let open = context.open();
        let reached = |place: &Place, target: i64| {
            open.positions.get(place).is_some_and(|position| {
                position.halted
                    || position.committed.is_some_and(|committed| committed >= target)
                    || (settled(position) && self.at_end.get(place).is_some_and(|end| position.next >= *end))
            })
        };
        if self.targets.iter().all(|(place, target)| reached(place, *target)) {
            return true;
        }
        // Partitions of another member of the group: the table says how far they are.
        if open.positions.is_empty() || self.targets.keys().all(|place| open.positions.contains_key(place)) {
            return false;
        }
        let Some(stands) = context.assigner.newest() else { return false };
        self.targets
            .iter()
            .all(|(place, target)| reached(place, *target) || stands(place).is_some_and(|next| next >= *target))
    }

    /// Looks whether those have been read to their end of which it matters.
    fn make_sure(&mut self, context: &Context) {
        let unsure: Vec<(Place, Option<i64>)> = {
            let open = context.open();
            let short = |place: &Place, position: &Position| {
                !position.halted && position.committed.is_none_or(|committed| committed < self.targets[place])
            };
            self.maybe_at_end
                .iter()
                .filter_map(|place| Some((place, open.positions.get(place)?)))
                .filter(|(place, position)| settled(position) && short(place, position))
                .map(|(place, position)| (place.clone(), position.next))
                .collect()
        };
        for (place, next) in unsure {
            let Some(holds_more) = holds_more(&self.settings, &place, next) else { continue };
            self.maybe_at_end.remove(&place);
            if !holds_more {
                self.at_end.insert(place, next);
            }
        }
    }
}

/// True where all that was read is in the table: what was read to the end may still be on its way.
fn settled(position: &Position) -> bool {
    position.committed == position.next
}

/// Whether a partition holds a message from an offset on; none where the broker does not tell.
fn holds_more(settings: &KafkaSettings, place: &Place, next: Option<i64>) -> Option<bool> {
    let mut config = client_config(settings);
    config.set("enable.partition.eof", "true");
    // It reads one partition by its own choice, and is no member of the group.
    config.remove("group.instance.id");
    let client: BaseConsumer = config.create().ok()?;
    let from = offset_from(next);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&place.topic, place.partition, from).ok()?;
    client.assign(&list).ok()?;
    for _ in 0..LOOKS {
        match client.poll(LOOK) {
            Some(Ok(_)) => return Some(true),
            Some(Err(KafkaError::PartitionEOF(_))) => return Some(false),
            // Any other trouble is the worker's own client's as well, which tells it.
            Some(Err(_)) | None => {}
        }
    }
    None
}

/// The end of every partition now.
fn end_offsets(consumer: &BaseConsumer<Context>, settings: &KafkaSettings) -> Result<BTreeMap<Place, i64>> {
    let ask = |source: KafkaError| {
        Error::unavailable("the broker did not return the end offsets of its partitions")
            .with_hint("check `kafka.brokers` and that the topics exist")
            .with_source(source)
    };
    let mut ends = BTreeMap::new();
    for topic in &settings.topics {
        let metadata = consumer.fetch_metadata(Some(topic), ASK_BROKER).map_err(ask)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        for partition in partitions.map(|partition| partition.id()) {
            let (low, high) = consumer.fetch_watermarks(topic, partition, ASK_BROKER).map_err(ask)?;
            if high > low {
                ends.insert(Place { topic: topic.as_str().into(), partition }, high);
            }
        }
    }
    Ok(ends)
}
