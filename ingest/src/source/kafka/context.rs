//! What the polling loop and the rebalance callback share: the open batch, and the way to storage.
//!
//! Both run on the polling thread. Only the one that asks where partitions end takes the lock from another, for a moment.

use std::collections::BTreeSet;
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
use super::topic_id::{ASK_TOPIC_IDS, topic_ids};
use crate::commit_pipeline::{app_id, topic_app_id};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::source::open_batch::{OpenBatch, Place};

/// Longest wait for storage inside a rebalance: well below the default poll interval of 5 min.
const LOAD_MICROS: i64 = 60_000_000;

/// Pause between two attempts to read where the tables stand.
const LOAD_PAUSE: Duration = Duration::from_millis(250);

/// Wait for the commit of what is open when partitions are taken away; what is not committed by then is read again by
/// their next owner.
const REVOKE_WAIT: Duration = Duration::from_secs(5);

/// Why a partition is halted whose topic has not the id that the tables know.
pub(super) const RECREATED: &str = "the topic was deleted and recreated, so the recorded offsets no longer apply; to \
                                    ingest its messages, read it under another `kafka.job`";

/// Reads where the tables stand.
pub(crate) struct Assigner {
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) job: String,
    pub(crate) runtime: Handle,
    pub(crate) start: Start,
}

/// Where reading of a partition begins: at the offset to read next. One without has never been read, and begins at its
/// beginning; where a topic is begun at its end, the partitions that it had then have an offset (see [`starts`]).
pub(crate) fn offset_from(next: Option<i64>) -> Offset {
    next.map_or(Offset::Beginning, Offset::Offset)
}

// === impl Assigner ===

impl Assigner {
    fn load(&self, clock: &dyn Clock, health: &Health) -> Result<Snapshot> {
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

    /// Where any partition stands now; none where storage does not answer.
    pub(crate) fn newest(&self) -> Option<impl Fn(&Place) -> Option<i64> + use<>> {
        let snapshot = self.runtime.block_on(self.log.load()).ok()?;
        let job = self.job.clone();
        Some(move |place: &Place| snapshot.next(&app_id(&job, &place.topic, place.partition)))
    }
}

/// The consumer's context.
pub(crate) struct Context {
    pub(crate) assigner: Assigner,
    pub(crate) health: Health,
    open: Mutex<OpenBatch>,
    pub(crate) metrics: Metrics,
    clock: Arc<dyn Clock>,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(
        open: OpenBatch,
        assigner: Assigner,
        health: Health,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { assigner, health, open: Mutex::new(open), metrics, clock }
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, OpenBatch> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts each new partition where the table stands.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<()> {
        let mut snapshot = self.assigner.load(self.clock.as_ref(), &self.health)?;
        if self.assigner.start == Start::Latest {
            let topics = list.elements().iter().map(|element| element.topic().to_owned()).collect();
            snapshot = starts::record(&self.assigner, consumer, &topics, snapshot, self.clock.as_ref())?;
        }
        let recreated = self.recreated_topics(consumer, list, &snapshot);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("cannot start reading the assigned partitions").with_source(source)
        };
        let places: Vec<Place> = places(list);
        for place in &places {
            let next = snapshot.next(&app_id(&self.assigner.job, &place.topic, place.partition));
            let offset = offset_from(next);
            list.set_partition_offset(&place.topic, place.partition, offset).map_err(kafka)?;
            self.open().assign(place, next);
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list).map_err(kafka)?,
            _ => consumer.assign(list).map_err(kafka)?,
        }
        self.open().reassigned = true;
        for place in places.iter().filter(|place| recreated.contains(&*place.topic)) {
            self.halt(consumer, place, RECREATED.to_owned());
        }
        tracing::info!(partitions = %names(&places), "partitions assigned");
        Ok(())
    }

    /// Topics whose id is not the one that the tables know; ids that they do not know yet go along with the next commit.
    fn recreated_topics(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        snapshot: &Snapshot,
    ) -> BTreeSet<String> {
        let topics: BTreeSet<String> = list.elements().iter().map(|element| element.topic().to_owned()).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ids = topic_ids(consumer.client().native_ptr(), &names, ASK_TOPIC_IDS);
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

    /// Lets a partition stand still until a person decides, and says so loudly; the others go on.
    pub(crate) fn halt(&self, consumer: &BaseConsumer<Self>, place: &Place, why: String) {
        match self.open().positions.get_mut(place) {
            Some(position) if !position.halted => position.halted = true,
            _ => return,
        }
        tracing::error!(topic = %place.topic, partition = place.partition, "halted: {why}");
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.topic, place.partition);
        if let Err(error) = consumer.pause(&list) {
            // What still arrives is passed over.
            tracing::debug!(%error, "cannot pause a halted partition");
        }
        self.health.note(|status| {
            status.halted.insert(place.to_string(), why);
        });
        self.metrics.halted.inc();
    }

    /// Gives the client a partition anew, at the offset that is to be read next. A client whose group hands out everything
    /// at once is given all of them.
    pub(super) fn begin_again(&self, consumer: &BaseConsumer<Self>, place: &Place) -> KafkaResult<()> {
        let whole = !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let (mut list, mut halted) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut open = self.open();
        for (each, position) in open.positions.iter().filter(|(each, _)| whole || *each == place) {
            let offset = offset_from(position.next);
            list.add_partition_offset(&each.topic, each.partition, offset)?;
            if position.halted {
                halted.add_partition(&each.topic, each.partition);
            }
        }
        open.reassigned = true;
        drop(open);
        if whole {
            consumer.assign(&list)?;
        } else {
            consumer.incremental_unassign(&list)?;
            consumer.incremental_assign(&list)?;
        }
        consumer.pause(&halted)
    }

    /// Commits what is open, as far as that goes quickly.
    fn commit_open(&self) -> Result<()> {
        let deadline = self.clock.now_micros() + i64::try_from(REVOKE_WAIT.as_micros()).unwrap_or(0);
        let mut open = self.open();
        while !open.all_settled()? {
            let left = deadline - self.clock.now_micros();
            let Ok(left) = u64::try_from(left) else { break };
            match open.answers.recv_timeout(Duration::from_micros(left)) {
                Ok(answer) => {
                    let report = open.settle(answer)?;
                    self.metrics.fenced.inc_by(report.fenced.len() as u64);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::bug("the commit task stopped unexpectedly")),
            }
        }
        Ok(())
    }

    /// Forgets partitions, with what is open of them and what is told of them.
    fn let_go(&self, places: &[Place]) -> Result<()> {
        let mut open = self.open();
        for place in places {
            // Whoever gets it next finds out anew, and tells it then.
            if open.let_go(place)?.is_some_and(|position| position.halted) {
                self.metrics.halted.dec();
                self.health.note(|status| {
                    status.halted.remove(&place.to_string());
                });
            }
            // There is no such number where the client has never told how far behind it is.
            drop(self.metrics.lag.remove_label_values(&[&*place.topic, &place.partition.to_string()]));
        }
        if open.positions.is_empty() {
            self.health.note(|status| (status.behind, status.assigned) = (0, 0));
        }
        Ok(())
    }

    /// Lets go of all partitions, where the group has failed. They may be somebody else's already: what is open is dropped,
    /// and read again from where the tables stand.
    fn lose_all(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        let places: Vec<Place> = self.open().positions.keys().cloned().collect();
        let let_go = self.let_go(&places);
        consumer
            .unassign()
            .map_err(|source| Error::unavailable("cannot release the partitions").with_source(source))?;
        let_go
    }

    /// Commits what is open of partitions that are taken away, and lets go of them whatever became of that: a client
    /// that is not told so would wait for it without end, also when it is closed.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let places = places(list);
        let committed = self.commit_open();
        let gone = self.let_go(&places);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("cannot release the revoked partitions").with_source(source)
        };
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list).map_err(kafka)?,
            _ => consumer.unassign().map_err(kafka)?,
        }
        tracing::info!(partitions = %names(&places), "partitions revoked");
        gone.and(committed)
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
                self.lose_all(consumer)
            }
        };
        if let Err(error) = done {
            self.open().error = Some(error);
        }
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    list.elements()
        .iter()
        .map(|element| Place { topic: element.topic().into(), partition: element.partition() })
        .collect()
}

fn names(places: &[Place]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
