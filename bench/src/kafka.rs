//! Creates topics for measurements and fills them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_bench::events::{Event, Generator, Size};
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList, util::Timeout};

/// Maximum wait for the broker.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause while the producer's queue is full.
const PAUSE: Duration = Duration::from_millis(2);

/// Time span of the runs in a filled topic, up to now.
const BACKLOG: Duration = Duration::from_secs(30 * 60);

/// Number of partitions of every topic.
pub(crate) const PARTITIONS: i32 = 4;

/// A filled topic.
#[derive(Clone, Debug)]
pub(crate) struct Filled {
    pub(crate) topic: String,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// An event that the broker acknowledged, and when it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at: Instant,
}

/// Records deliveries.
#[derive(Default)]
pub(crate) struct Deliveries {
    sent: Mutex<Vec<Sent>>,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<Instant>>;

    fn delivery(&self, result: &DeliveryResult<'_>, at: Self::DeliveryOpaque) {
        match (result, *at) {
            (Ok(message), Some(at)) => {
                let sent = Sent { partition: message.partition(), offset: message.offset(), at };
                self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            }
            (Ok(_), None) => {}
            (Err((error, _)), _) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            }
        }
    }
}

/// Publishes events.
pub(crate) struct Publisher {
    producer: BaseProducer<Deliveries>,
    topic: String,
}

fn refused(what: &str, source: KafkaError) -> Error {
    Error::unavailable(format!("the broker did not {what}")).with_source(source).with_hint("check --broker")
}

/// Creates a topic with a unique name.
///
/// # Errors
/// `Unavailable` if the broker does not create it.
pub(crate) fn topic(broker: &str) -> Result<String> {
    let name = format!("bench-{}", unique_id().simple());
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .create()
        .map_err(|source| refused("accept a client", source))?;
    let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let made = block_on(admin.create_topics([&topic], &options)).map_err(|source| refused("create topics", source))?;
    for result in made {
        result.map_err(|(topic, code)| {
            Error::unavailable(format!("the broker did not create topic `{topic}`: {code}"))
        })?;
    }
    Ok(name)
}

/// Creates a topic and fills it with events of the six tasks that ended over the last half hour, roughly in that order.
///
/// # Errors
/// `Unavailable` if the broker does not accept them.
pub(crate) fn fill(broker: &str, seed: u64, size: Size, events: usize) -> Result<Filled> {
    fill_from(broker, &mut Generator::new(seed, size), events)
}

/// Like [`fill`], with the events of a generator.
///
/// # Errors
/// `Unavailable` if the broker does not accept them.
pub(crate) fn fill_from(broker: &str, generator: &mut Generator, events: usize) -> Result<Filled> {
    let topic = topic(broker)?;
    let publisher = Publisher::new(broker, &topic)?;
    let span = i64::try_from(BACKLOG.as_micros()).unwrap_or(i64::MAX);
    let begin = SystemClock.now_micros() - span;
    let mut bytes = 0;
    for index in 0..events {
        let passed = (span as f64 * (index as f64 / events.max(1) as f64)) as i64;
        let event = generator.next(begin + passed);
        bytes += event.payload.len() as u64;
        publisher.publish(&event, false)?;
    }
    publisher.flush()?;
    Ok(Filled { topic, events: events as u64, bytes })
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(broker: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create_with_context(Deliveries::default())
            .map_err(|source| refused("accept a producer", source))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Publishes an event; a `timed` one appears in [`Publisher::sent`] once the broker acknowledges it.
    pub(crate) fn publish(&self, event: &Event, timed: bool) -> Result<()> {
        let opaque = Box::new(timed.then(Instant::now));
        let mut record = BaseRecord::with_opaque_to(&self.topic, opaque).key(&event.key).payload(&event.payload);
        while let Err((error, back)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(refused("accept events", error));
            }
            record = back;
            self.producer.poll(PAUSE);
        }
        self.poll();
        Ok(())
    }

    /// Processes delivery reports.
    pub(crate) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the broker has acknowledged everything.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(Timeout::After(PATIENCE)).map_err(|source| refused("accept the last events", source))?;
        match self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(refused("accept every event", error)),
            None => Ok(()),
        }
    }

    /// Returns the timed events that the broker has acknowledged.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.producer.context().sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Observes the progress of a consumer group without joining it.
pub(crate) struct Progress {
    client: BaseConsumer,
    topic: String,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new(broker: &str, topic: &str, group: &str) -> Result<Self> {
        let client = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("group.id", group)
            .create()
            .map_err(|source| refused("accept a consumer", source))?;
        Ok(Self { client, topic: topic.to_owned() })
    }

    /// Returns true if the group has committed all messages of the topic.
    pub(crate) fn is_at_the_end(&self) -> bool {
        self.behind().is_ok_and(|behind| behind == 0)
    }

    fn behind(&self) -> std::result::Result<i64, KafkaError> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(&self.topic, 0, PARTITIONS - 1);
        let committed = self.client.committed_offsets(partitions, PATIENCE)?;
        let mut behind = 0;
        for partition in committed.elements() {
            let (first, end) = self.client.fetch_watermarks(&self.topic, partition.partition(), PATIENCE)?;
            let next = if let Offset::Offset(next) = partition.offset() { next } else { first };
            behind += (end - next).max(0);
        }
        Ok(behind)
    }
}
