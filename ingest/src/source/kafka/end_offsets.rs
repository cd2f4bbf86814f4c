//! Polls the broker for end offsets in a task beside the polling thread, because a reply may wait behind a fetch.
//!
//! It sends one request every few seconds for all partitions of a broker. Without a reply, no read marks are written, because
//! the progress is then unknown.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwether_base::Clock;
use bellwether_lake::Reading;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::starts::{end_offsets, partitions_of};
use crate::commit_pipeline::ReadMark;
use crate::topic_partition::TopicPartition;

/// Interval between requests.
const INTERVAL: Duration = Duration::from_secs(5);

/// Interval while no partition is assigned.
const IDLE_INTERVAL: Duration = Duration::from_millis(250);

/// Timeout of a request. A shutdown may wait this long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Requests between checks for removed partitions: five minutes' worth, or half a minute's until the first check succeeds.
const TOPIC_CHECKS: [u32; 2] = [60, 6];

/// Polls end offsets over the consumer's connections while the consumer exists.
pub(crate) struct EndOffsetPoller {
    pub(super) consumer: Weak<BaseConsumer<Context>>,
    pub(super) topics: Vec<String>,
    pub(super) clock: Arc<dyn Clock>,
}

impl EndOffsetPoller {
    /// Polls until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut requests, mut topics_checked) = (0_u32, false);
        loop {
            let Some(consumer) = self.consumer.upgrade() else { return };
            let (clock, topics) = (Arc::clone(&self.clock), self.topics.clone());
            let due = requests.is_multiple_of(TOPIC_CHECKS[usize::from(!topics_checked)]);
            let work = tokio::task::spawn_blocking(move || {
                let requested = request(&consumer, clock.as_ref());
                (requested, requested && due && retire_removed(&consumer, &topics))
            });
            let Ok((requested, checked)) = work.await else { return };
            topics_checked |= checked;
            requests = requests.wrapping_add(u32::from(requested));
            tokio::select! {
                biased; // Stopping wins over waiting.
                () = stop.cancelled() => return,
                () = self.clock.sleep(if requested { INTERVAL } else { IDLE_INTERVAL }) => {}
            }
        }
    }
}

/// Requests and notes the end offsets of the assigned partitions. Returns false if none is assigned.
fn request(consumer: &BaseConsumer<Context>, clock: &dyn Clock) -> bool {
    let context = consumer.context();
    let committed: Vec<(TopicPartition, Option<i64>)> = context
        .open()
        .positions
        .iter()
        .map(|(topic_partition, position)| (topic_partition.clone(), position.committed))
        .collect();
    if committed.is_empty() {
        return false;
    }
    let partitions: Vec<TopicPartition> =
        committed.iter().map(|(topic_partition, _)| topic_partition.clone()).collect();
    let at_micros = clock.now_micros();
    match end_offsets(consumer, &partitions, TIMEOUT) {
        Ok(found) => {
            let committed_of = |topic_partition: &TopicPartition| {
                committed.iter().find(|(other, _)| other == topic_partition).and_then(|(_, committed)| *committed)
            };
            let ends: Vec<_> = found
                .into_iter()
                .map(|(topic_partition, end)| (topic_partition.clone(), committed_of(&topic_partition), end))
                .collect();
            context.open().note_end_offsets(at_micros, &ends);
        }
        Err(error) => tracing::debug!(%error, "the broker did not return end offsets"),
    }
    true
}

/// Marks partitions that no longer exist, and topics that are no longer configured, as not read; otherwise they would seem to be
/// behind. Returns false if some topics could not be checked.
fn retire_removed(consumer: &BaseConsumer<Context>, topics: &[String]) -> bool {
    let assigner = &consumer.context().assigner;
    let Ok(snapshot) = assigner.runtime.block_on(assigner.log.load()) else { return false };
    let mut all = true;
    let mut gone = Vec::new();
    let readings: Vec<Reading> = Reading::all(&snapshot).into_iter().filter(Reading::is_followed).collect();
    gone.extend(readings.iter().filter(|reading| reading.job == assigner.job && !topics.contains(&reading.topic)));
    for topic in topics {
        match partitions_of(consumer, topic, TIMEOUT) {
            // The partitions of a topic are the same for every job.
            Ok(there) => gone.extend(
                readings.iter().filter(|reading| reading.topic == *topic && !there.contains(&reading.partition)),
            ),
            Err(_) => all = false,
        }
    }
    if !gone.is_empty() {
        let marks = gone.into_iter().map(|reading| ReadMark::not_read(&reading.job, &reading.topic, reading.partition));
        consumer.context().open().retire(marks.collect());
    }
    all
}
