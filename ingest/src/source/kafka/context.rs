//! The state shared by the polling loop and the rebalance callback: the open batch, and access to storage.
//!
//! Both run on the polling thread. Only the task that polls end offsets takes the lock from another thread, and briefly.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_base::{Clock, Error, ErrorKind, Result};
use bellwether_lake::{CommitLog, Snapshot};
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;

use super::settings::Start;
use super::starts;
use super::topic_id::{TOPIC_IDS_TIMEOUT, topic_ids};
use crate::commit_pipeline::{app_id, topic_app_id};
use crate::health::IngestHealth;
use crate::metrics::IngestMetrics;
use crate::source::open_batch::OpenBatch;
use crate::topic_partition::TopicPartition;

/// Longest wait for storage inside a rebalance: well below the default `max.poll.interval.ms` of 5 min.
const LOAD_MICROS: i64 = 60_000_000;

/// Pause between two attempts to load the snapshot of the table.
const LOAD_PAUSE: Duration = Duration::from_millis(250);

/// Longest wait for the commit of the open batch when partitions are revoked. Their next owner reads any uncommitted messages
/// again.
const REVOKE_WAIT: Duration = Duration::from_secs(5);

/// Reason for halting a partition of a topic with another id than the recorded one.
pub(super) const RECREATED: &str = "the topic was deleted and recreated, so the recorded offsets no longer apply; to \
                                    ingest its messages, read it under another `kafka.job`";

/// Reads the offsets recorded in `events`.
pub(crate) struct Assigner {
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) job: String,
    pub(crate) runtime: Handle,
    pub(crate) start: Start,
}

/// Returns the offset from which to read a partition. A partition without a next offset has never been read, and starts at its
/// beginning. For topics that start at their end, [`starts`] has recorded an offset for each partition that existed then.
pub(crate) fn offset_from(next: Option<i64>) -> Offset {
    next.map_or(Offset::Beginning, Offset::Offset)
}

// === impl Assigner ===

impl Assigner {
    fn load(&self, clock: &dyn Clock, health: &IngestHealth) -> Result<Snapshot> {
        let deadline = clock.now_micros() + LOAD_MICROS;
        loop {
            match self.runtime.block_on(self.log.load()) {
                Ok(snapshot) => {
                    health.note(|status| status.storage = None);
                    return Ok(snapshot);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable && clock.now_micros() < deadline => {
                    health.note(|status| status.storage = Some(error.chain()));
                    std::thread::sleep(LOAD_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns a lookup of recorded offsets in the newest snapshot; `None` if storage does not reply.
    pub(crate) fn newest(&self) -> Option<impl Fn(&TopicPartition) -> Option<i64> + use<>> {
        let snapshot = self.runtime.block_on(self.log.load()).ok()?;
        let job = self.job.clone();
        Some(move |topic_partition: &TopicPartition| {
            snapshot.next(&app_id(&job, &topic_partition.topic, topic_partition.partition))
        })
    }
}

/// The consumer's context.
pub(crate) struct Context {
    pub(crate) assigner: Assigner,
    pub(crate) health: IngestHealth,
    open: Mutex<OpenBatch>,
    pub(crate) metrics: IngestMetrics,
    clock: Arc<dyn Clock>,
    /// The client has asked for partitions, and the group has not answered yet.
    joining: AtomicBool,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(
        open: OpenBatch,
        assigner: Assigner,
        health: IngestHealth,
        metrics: IngestMetrics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { assigner, health, open: Mutex::new(open), metrics, clock, joining: AtomicBool::new(true) }
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, OpenBatch> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true from the time the client asks the group for partitions until it has them, which may be none.
    pub(super) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Relaxed)
    }

    /// Starts each new partition at its recorded offset.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<()> {
        let mut snapshot = self.assigner.load(self.clock.as_ref(), &self.health)?;
        if self.assigner.start == Start::Latest {
            let topics = list.elements().iter().map(|element| element.topic().to_owned()).collect();
            snapshot = starts::record_starts(&self.assigner, consumer, &topics, snapshot, self.clock.as_ref())?;
        }
        let recreated = self.recreated_topics(consumer, list, &snapshot);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("cannot start reading the assigned partitions").with_source(source)
        };
        let partitions: Vec<TopicPartition> = partitions(list);
        for topic_partition in &partitions {
            let next = snapshot.next(&app_id(&self.assigner.job, &topic_partition.topic, topic_partition.partition));
            let offset = offset_from(next);
            list.set_partition_offset(&topic_partition.topic, topic_partition.partition, offset).map_err(kafka)?;
            self.open().assign(topic_partition, next);
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list).map_err(kafka)?,
            _ => consumer.assign(list).map_err(kafka)?,
        }
        self.open().reassigned = true;
        for topic_partition in partitions.iter().filter(|topic_partition| recreated.contains(&*topic_partition.topic)) {
            self.halt(consumer, topic_partition, RECREATED.to_owned());
        }
        tracing::info!(partitions = %join_names(&partitions), "partitions assigned");
        Ok(())
    }

    /// Returns the topics with another id than the recorded one. Ids that are not recorded yet are added to the next commit.
    fn recreated_topics(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        snapshot: &Snapshot,
    ) -> BTreeSet<String> {
        let topics: BTreeSet<String> = list.elements().iter().map(|element| element.topic().to_owned()).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ids = topic_ids(consumer.client().native_ptr(), &names, TOPIC_IDS_TIMEOUT);
        if ids.len() < names.len() {
            tracing::info!(
                "broker did not return all topic ids; a recreated topic can only be detected by its offsets"
            );
        }
        let mut recreated = BTreeSet::new();
        for (topic, id) in ids {
            match snapshot.next(&topic_app_id(&self.assigner.job, &topic)) {
                Some(known) if known != id => {
                    recreated.insert(topic);
                }
                Some(_) => {}
                None => {
                    self.open().topic_ids.insert(topic, id);
                }
            }
        }
        recreated
    }

    /// Stops reading a partition until an operator decides, and logs an error. The others go on.
    pub(crate) fn halt(&self, consumer: &BaseConsumer<Self>, topic_partition: &TopicPartition, why: String) {
        match self.open().positions.get_mut(topic_partition) {
            Some(position) if !position.halted => position.halted = true,
            _ => return,
        }
        tracing::error!(topic = %topic_partition.topic, partition = topic_partition.partition, "halted: {why}");
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic_partition.topic, topic_partition.partition);
        if let Err(error) = consumer.pause(&list) {
            // Messages that still arrive are ignored.
            tracing::debug!(%error, "cannot pause a halted partition");
        }
        self.health.note(|status| {
            status.halted.insert(topic_partition.to_string(), why);
        });
        self.metrics.halted.inc();
    }

    /// Assigns a partition to the client again, at its next offset. Without cooperative rebalancing, all partitions must be
    /// assigned again.
    pub(super) fn restart_partition(
        &self,
        consumer: &BaseConsumer<Self>,
        topic_partition: &TopicPartition,
    ) -> KafkaResult<()> {
        let all = !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let (mut list, mut halted) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut open = self.open();
        for (each, position) in open.positions.iter().filter(|(each, _)| all || *each == topic_partition) {
            let offset = offset_from(position.next);
            list.add_partition_offset(&each.topic, each.partition, offset)?;
            if position.halted {
                halted.add_partition(&each.topic, each.partition);
            }
        }
        open.reassigned = true;
        drop(open);
        if all {
            consumer.assign(&list)?;
        } else {
            consumer.incremental_unassign(&list)?;
            consumer.incremental_assign(&list)?;
        }
        consumer.pause(&halted)
    }

    /// Commits the open batch, waiting at most [`REVOKE_WAIT`].
    fn commit_open(&self) -> Result<()> {
        let deadline = self.clock.now_micros() + i64::try_from(REVOKE_WAIT.as_micros()).unwrap_or(0);
        let mut open = self.open();
        while !open.all_settled()? {
            let left = deadline - self.clock.now_micros();
            let Ok(left) = u64::try_from(left) else { break };
            match open.replies.recv_timeout(Duration::from_micros(left)) {
                Ok(reply) => {
                    let report = open.settle(reply)?;
                    self.metrics.fenced.inc_by(report.fenced.len() as u64);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::bug("the commit task stopped unexpectedly")),
            }
        }
        Ok(())
    }

    /// Removes partitions, with their open rows, metrics and health.
    fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        let mut open = self.open();
        for topic_partition in partitions {
            // The next owner detects the cause again, and reports it then.
            if open.release(topic_partition)?.is_some_and(|position| position.halted) {
                self.metrics.halted.dec();
                self.health.note(|status| {
                    status.halted.remove(&topic_partition.to_string());
                });
            }
            // The metric is absent if the client has never reported a lag.
            drop(
                self.metrics
                    .lag
                    .remove_label_values(&[&*topic_partition.topic, &topic_partition.partition.to_string()]),
            );
        }
        if open.positions.is_empty() {
            self.health.note(|status| (status.behind, status.assigned) = (0, 0));
        }
        Ok(())
    }

    /// Releases all partitions after a failure of the group. They may have other owners already, so the open rows are dropped;
    /// their messages are read again from the recorded offsets.
    fn release_all(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        let partitions: Vec<TopicPartition> = self.open().positions.keys().cloned().collect();
        let released = self.release(&partitions);
        consumer
            .unassign()
            .map_err(|source| Error::unavailable("cannot release the partitions").with_source(source))?;
        released
    }

    /// Commits the open rows of revoked partitions, and releases the partitions even if that fails: the client waits without
    /// limit for the release, even when it is closed.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let partitions = partitions(list);
        let committed = self.commit_open();
        let released = self.release(&partitions);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("cannot release the revoked partitions").with_source(source)
        };
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list).map_err(kafka)?,
            _ => consumer.unassign().map_err(kafka)?,
        }
        tracing::info!(partitions = %join_names(&partitions), "partitions revoked");
        released.and(committed)
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.metrics.rebalances.inc();
        let done = match error {
            RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            RespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, list),
            other => {
                tracing::warn!(?other, "rebalance failed; releasing all partitions");
                self.release_all(consumer)
            }
        };
        // After losing partitions, the client joins again.
        self.joining.store(error != RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, Ordering::Relaxed);
        if let Err(error) = done {
            self.open().error = Some(error);
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

fn join_names(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
