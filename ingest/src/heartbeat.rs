//! Heartbeats: messages of this program itself, which show that messages pass.
//!
//! A message with the header `ce_type: bellwether.heartbeat` becomes a row of no table. Ingest passes over its offset, as over
//! one without a message, so no metric, rule, view or sample knows it, whoever sent it. The offset still comes back in the
//! logs of the tables: [`HeartbeatSender::send`] returns it.

use std::sync::Arc;

use bellwether_base::{Clock, Error, Result};
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::decode::Message;
use crate::login::keep_logged_in;
use crate::source::kafka::client_config;
use crate::source::kafka::settings::KafkaSettings;

/// The event type that marks a heartbeat.
pub const EVENT_TYPE: &str = "bellwether.heartbeat";

/// The body, for people who read the topic.
const BODY: &str =
    "{\"type\":\"bellwether.heartbeat\",\"note\":\"sent by Bellwether to itself; other readers may ignore it\"}";

/// The place of a heartbeat in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatPlace {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Sends heartbeats to the first topic that ingest reads. The client chooses the partition, so that all of them have their turn.
pub struct HeartbeatSender {
    producer: Arc<ThreadedProducer<Answers>>,
    topic: String,
}

/// Passes the broker's answer on to the sender.
struct Answers;

type Answer = std::result::Result<(i32, i64), KafkaError>;

/// True for a heartbeat.
pub(crate) fn is_heartbeat(message: &Message<'_>) -> bool {
    message.envelope.event_type == Some(EVENT_TYPE)
}

// === impl HeartbeatSender ===

impl HeartbeatSender {
    /// Creates a client. It connects by itself, again and again if need be.
    ///
    /// # Errors
    /// `Config` if the client refuses the settings, or the source of its tokens refuses the client.
    pub fn new(settings: &KafkaSettings) -> Result<Self> {
        let refuse = |source: KafkaError| {
            Error::config("cannot create the Kafka producer of heartbeats")
                .with_hint("check `[kafka]` and its properties")
                .with_source(source)
        };
        let topic = settings.topics.first().ok_or_else(|| Error::config("`kafka.topics` is empty"))?.clone();
        let mut config = client_config(settings);
        config.set("message.timeout.ms", "30000");
        let producer = Arc::new(config.create_with_context(Answers).map_err(refuse)?);
        keep_logged_in(&producer, settings.login.as_ref())?;
        Ok(Self { producer, topic })
    }

    /// Sends a heartbeat, and returns its place once the broker has it.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not take it within 30 s.
    pub async fn send(&self, clock: &dyn Clock) -> Result<HeartbeatPlace> {
        let refused = |source: KafkaError| Error::unavailable("the broker took no heartbeat").with_source(source);
        let id = clock.unique_id().to_string();
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header("ce_specversion", "1.0"))
            .insert(header("ce_type", EVENT_TYPE))
            .insert(header("ce_source", "bellwether"))
            .insert(header("ce_id", &id));
        let (answer, answered) = oneshot::channel::<Answer>();
        let record = BaseRecord::<str, str, _>::with_opaque_to(&self.topic, Box::new(answer));
        self.producer.send(record.payload(BODY).headers(headers)).map_err(|(source, _)| refused(source))?;
        let gone = || Error::unavailable("the Kafka producer of heartbeats has ended");
        let (partition, offset) = answered.await.map_err(|_| gone())?.map_err(refused)?;
        Ok(HeartbeatPlace { topic: self.topic.clone(), partition, offset })
    }
}

// === impl Answers ===

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<oneshot::Sender<Answer>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        // The role may have been stopped meanwhile.
        drop(waiting.send(answer));
    }
}
