//! Bursts of Kafka messages, and their conversion for the decoder.

use bellwether_event::Envelope;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};

use crate::decode::Message;
use crate::topic_partition::TopicPartition;

/// Consecutive messages taken without other work in between.
#[derive(Default)]
pub(super) struct Burst {
    pub(super) now_micros: i64,
    pub(super) topic_partition: Option<TopicPartition>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) gaps: u64,
    pub(super) quarantined: u64,
}

// === impl Burst ===

impl Burst {
    /// Returns the partition of a message, reusing that of the message before if it is the same.
    pub(super) fn topic_partition(&mut self, message: &BorrowedMessage<'_>) -> &TopicPartition {
        let (topic, partition) = (message.topic(), message.partition());
        let last = self.topic_partition.take().filter(|last| last.partition == partition && &*last.topic == topic);
        self.topic_partition.insert(last.unwrap_or_else(|| TopicPartition::new(topic, partition)))
    }
}

/// Borrows a Kafka message of `topic` as the decoder expects it.
pub(super) fn with_message<T>(message: &BorrowedMessage<'_>, topic: &str, read: impl FnOnce(&Message<'_>) -> T) -> T {
    let mut envelope = Envelope::default();
    let mut content_type = None;
    let mut unreadable_header = None;
    if let Some(headers) = message.headers() {
        for header in headers.iter() {
            let (name, attribute) = match header.key {
                "ce_id" => ("ce_id", &mut envelope.id),
                "ce_source" => ("ce_source", &mut envelope.source),
                "ce_type" => ("ce_type", &mut envelope.event_type),
                "ce_time" => ("ce_time", &mut envelope.time),
                "ce_subject" => ("ce_subject", &mut envelope.subject),
                other if other.eq_ignore_ascii_case("content-type") => ("content-type", &mut content_type),
                _ => continue,
            };
            match header.value.map(std::str::from_utf8) {
                Some(Ok(value)) => *attribute = Some(value),
                Some(Err(_)) => unreadable_header = Some(name),
                None => {}
            }
        }
    }
    read(&Message {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_micros: message.timestamp().to_millis().map(|millis| millis.saturating_mul(1000)),
        payload: message.payload(),
        content_type,
        envelope,
        unreadable_header,
    })
}
