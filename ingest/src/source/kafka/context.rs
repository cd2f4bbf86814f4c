//! What the polling loop and the rebalance callback share: positions, the open batch, and the way to storage.
//!
//! Both run on the polling thread, so the lock is never waited for; it is there because librdkafka's contexts are shared
//! by type.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_event::Limits;
use bellwether_lake::{Clock, CommitLog, Error, ErrorKind, PartitionRange, Result, Snapshot};
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::settings::Start;
use super::topic_id::topic_ids;
use super::{Answer, touched};
use crate::batch::BatchBuilder;
use crate::commit_pipeline::{Batch, CommitReport, app_id, topic_app_id};
use crate::health::Health;
use crate::metrics::Metrics;

/// Longest wait for storage inside a rebalance: well below the default poll interval of 5 min.
const LOAD_MICROS: i64 = 60_000_000;

/// Wait for the ids of topics; without an answer the check is left out.
const ASK_TOPIC_IDS: Duration = Duration::from_secs(3);

/// Pause between two attempts to read where the tables stand.
const LOAD_PAUSE: Duration = Duration::from_millis(250);

/// Wait for the commit of what is open when partitions are taken away; what is not committed by then is read again by
/// their next owner.
const REVOKE_WAIT: Duration = Duration::from_secs(5);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where reading of a partition stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// Offset to read next; none before the first message of a partition that was never read.
    pub(crate) next: Option<i64>,
    /// Where the table stands, as far as this process knows.
    pub(crate) committed: Option<i64>,
    /// Waits for a person's decision.
    pub(crate) halted: bool,
    /// Another owner has moved it: what still arrives is passed over until it has been put where the table stands.
    pub(crate) stale: bool,
}

#[derive(Debug)]
struct OpenRange {
    from: i64,
    next: i64,
    expected: Option<i64>,
    newest_event_micros: Option<i64>,
    /// Offsets that the broker passed over: they hold no message.
    passed_over: i64,
}

/// The batch that is being filled, and those on their way.
pub(crate) struct OpenBatch {
    pub(crate) builder: BatchBuilder,
    pub(crate) positions: HashMap<Place, Position>,
    pub(crate) answers: Receiver<Answer>,
    /// Batches handed over and not answered yet.
    pub(crate) in_flight: usize,
    /// Time of the open batch's first message.
    pub(crate) since_micros: Option<i64>,
    /// An error met where none can be returned.
    pub(crate) error: Option<Error>,
    /// Partitions were assigned since the last look: none of them is paused.
    pub(crate) reassigned: bool,
    /// Partitions to put where the table stands.
    fenced: BTreeMap<Place, Option<i64>>,
    /// Ids of topics that the tables may not know yet.
    pub(crate) topic_ids: BTreeMap<String, i64>,
    ranges: BTreeMap<Place, OpenRange>,
    batches: Sender<Batch>,
    limit: usize,
}

// === impl OpenBatch ===

impl OpenBatch {
    pub(crate) fn new(limits: Limits, batches: Sender<Batch>, answers: Receiver<Answer>, limit: usize) -> Self {
        Self {
            builder: BatchBuilder::new(limits),
            positions: HashMap::new(),
            answers,
            in_flight: 0,
            since_micros: None,
            error: None,
            reassigned: false,
            fenced: BTreeMap::new(),
            topic_ids: BTreeMap::new(),
            ranges: BTreeMap::new(),
            batches,
            limit,
        }
    }

    /// Notes that the message at an offset is in the builder.
    pub(crate) fn advance(&mut self, place: &Place, offset: i64, event_micros: Option<i64>, now_micros: i64) {
        let Some(position) = self.positions.get_mut(place) else { return };
        let from = position.next.unwrap_or(offset);
        let expected = position.next;
        let passed_over = offset - from;
        position.next = Some(offset + 1);
        self.since_micros.get_or_insert(now_micros);
        match self.ranges.get_mut(place) {
            Some(range) => {
                range.next = offset + 1;
                range.passed_over += passed_over;
                range.newest_event_micros = range.newest_event_micros.max(event_micros);
            }
            None => {
                let range =
                    OpenRange { from, next: offset + 1, expected, newest_event_micros: event_micros, passed_over };
                self.ranges.insert(place.clone(), range);
            }
        }
    }

    /// Gives the open batch to the committing task; false where it has enough already.
    pub(crate) fn hand_over(&mut self) -> Result<bool> {
        if self.ranges.is_empty() {
            return Ok(true);
        }
        if self.in_flight >= self.limit {
            return Ok(false);
        }
        let (events, quarantine) = self.builder.finish()?;
        let ranges = std::mem::take(&mut self.ranges);
        let touched = ranges
            .into_iter()
            .map(|(place, range)| {
                let OpenRange { from, next, expected, newest_event_micros, passed_over } = range;
                let (topic, partition) = (place.topic.to_string(), place.partition);
                let range = PartitionRange {
                    topic,
                    partition,
                    from,
                    next,
                    end_offset: None,
                    newest_event_micros,
                    passed_over: Some(passed_over),
                };
                touched(range, expected)
            })
            .collect();
        self.since_micros = None;
        match self.batches.try_send(Batch { events, quarantine, touched, topic_ids: self.topic_ids.clone() }) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(true)
            }
            Err(TrySendError::Full(_)) => Err(Error::bug("more batches are on their way than the channel holds")),
            Err(TrySendError::Closed(_)) => Err(Error::unavailable("the committing task has stopped")),
        }
    }

    /// Notes what became of a batch.
    pub(crate) fn settle(&mut self, answer: Answer) -> Result<CommitReport> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let report = match answer {
            Answer::Done(report) => report,
            Answer::Failed(error) => return Err(error),
        };
        for range in &report.committed {
            let place = Place { topic: range.topic.as_str().into(), partition: range.partition };
            if let Some(position) = self.positions.get_mut(&place) {
                position.committed = Some(range.next);
            }
        }
        for fenced in &report.fenced {
            let place = Place { topic: fenced.topic.as_str().into(), partition: fenced.partition };
            if let Some(position) = self.positions.get_mut(&place) {
                position.stale = true;
                self.fenced.insert(place, fenced.next);
            }
        }
        Ok(report)
    }

    /// The partitions to put where the table stands. They are given out only when nothing that was read before is open
    /// or on its way: an older answer can then not undo the move.
    pub(crate) fn take_fenced(&mut self) -> Result<Vec<(Place, Option<i64>)>> {
        if self.fenced.is_empty() || !self.hand_over()? || self.in_flight > 0 {
            return Ok(Vec::new());
        }
        let fenced = std::mem::take(&mut self.fenced);
        let mut moved = Vec::new();
        for (place, next) in fenced {
            if let Some(position) = self.positions.get_mut(&place) {
                *position = Position { next, committed: next, halted: position.halted, stale: false };
                moved.push((place, next));
            }
        }
        Ok(moved)
    }
}

/// Reads where the tables stand.
pub(crate) struct Assigner {
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) job: String,
    pub(crate) runtime: Handle,
    pub(crate) start: Start,
}

/// Where a partition starts that was never read.
pub(crate) fn start_offset(start: Start) -> Offset {
    match start {
        Start::Earliest => Offset::Beginning,
        Start::Latest => Offset::End,
    }
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
        let snapshot = self.assigner.load(self.clock.as_ref(), &self.health)?;
        let recreated = self.recreated_topics(consumer, list, &snapshot);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("the partitions assigned cannot be taken").with_source(source)
        };
        let places: Vec<Place> = places(list);
        for place in &places {
            let next = snapshot.next(&app_id(&self.assigner.job, &place.topic, place.partition));
            let offset = next.map_or(start_offset(self.assigner.start), Offset::Offset);
            list.set_partition_offset(&place.topic, place.partition, offset).map_err(kafka)?;
            self.open()
                .positions
                .insert(place.clone(), Position { next, committed: next, halted: false, stale: false });
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list).map_err(kafka)?,
            _ => consumer.assign(list).map_err(kafka)?,
        }
        self.open().reassigned = true;
        for place in places.iter().filter(|place| recreated.contains(&*place.topic)) {
            self.halt(
                place,
                "the topic was deleted and made anew: its offsets are not those that the tables know; read it under \
                 another `kafka.job` to take in what is there"
                    .to_owned(),
            );
        }
        let mut halted = TopicPartitionList::new();
        for place in places.iter().filter(|place| recreated.contains(&*place.topic)) {
            halted.add_partition(&place.topic, place.partition);
        }
        if halted.count() > 0 {
            consumer.pause(&halted).map_err(kafka)?;
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
                "the broker does not tell all topics' ids: one made anew would be noticed by its offsets only"
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
    pub(crate) fn halt(&self, place: &Place, why: String) {
        tracing::error!(topic = %place.topic, partition = place.partition, "halted: {why}");
        if let Some(position) = self.open().positions.get_mut(place) {
            position.halted = true;
        }
        self.health.note(|status| {
            status.halted.insert(place.to_string(), why);
        });
        self.metrics.halted.inc();
    }

    /// Commits what is open of partitions that are taken away, as far as that goes quickly, and lets go of them.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let places = places(list);
        let deadline = self.clock.now_micros() + i64::try_from(REVOKE_WAIT.as_micros()).unwrap_or(0);
        let mut open = self.open();
        while !(open.hand_over()? && open.in_flight == 0) {
            let left = deadline - self.clock.now_micros();
            let Ok(left) = u64::try_from(left) else { break };
            match open.answers.recv_timeout(Duration::from_micros(left)) {
                Ok(answer) => {
                    let report = open.settle(answer)?;
                    self.metrics.fenced.inc_by(report.fenced.len() as u64);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::bug("the committing task is gone")),
            }
        }
        for place in &places {
            let position = open.positions.remove(place);
            open.fenced.remove(place);
            // Whoever gets it next finds out anew, and tells it then.
            if position.is_some_and(|position| position.halted) {
                self.metrics.halted.dec();
                self.health.note(|status| {
                    status.halted.remove(&place.to_string());
                });
            }
        }
        drop(open);
        let kafka = |source: rdkafka::error::KafkaError| {
            Error::unavailable("the partitions taken away cannot be let go").with_source(source)
        };
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list).map_err(kafka)?,
            _ => consumer.unassign().map_err(kafka)?,
        }
        tracing::info!(partitions = %names(&places), "partitions taken away");
        Ok(())
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.metrics.rebalances.inc();
        let done = match error {
            RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            RespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, list),
            other => {
                tracing::warn!(?other, "rebalance failed; letting go of all partitions");
                self.open().positions.clear();
                consumer
                    .unassign()
                    .map_err(|source| Error::unavailable("partitions cannot be let go").with_source(source))
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
