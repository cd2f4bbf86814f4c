//! The Kafka broker: a real one at the address in `BELLWETHER_TEST_KAFKA`, or librdkafka's mock cluster if that is `mock`.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::skipped;
use super::wait::patience;

/// Asks the thread that owns the mock cluster for a topic: name, partitions, and a channel for the acknowledgement.
type TopicRequest = (String, i32, Sender<()>);

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    /// `HOST:PORT`.
    pub(crate) address: String,
    mock: Option<Sender<TopicRequest>>,
}

/// One message to publish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

/// A producer that publishes in transactions.
pub(crate) struct Transactions {
    producer: BaseProducer,
    topic: String,
}

/// Collects the errors of messages that the broker did not take.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
        }
    }
}

/// Returns the broker of this test run; without one, prints that the test is skipped.
pub(crate) fn broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    let found = BROKER.get_or_init(|| match std::env::var("BELLWETHER_TEST_KAFKA").ok()?.as_str() {
        "" => None,
        "mock" => Some(mock()),
        address => Some(Broker { address: address.to_owned(), mock: None }),
    });
    if found.is_none() {
        skipped("no broker; `make test` starts one, or set BELLWETHER_TEST_KAFKA=HOST:PORT");
    }
    found.as_ref()
}

/// Returns the broker of this test run if it is a real one; otherwise prints that the test is skipped.
pub(crate) fn real_broker() -> Option<&'static Broker> {
    let broker = broker()?;
    if broker.is_mock() {
        skipped("the embedded broker drops messages, and has no topic ids, compaction or transactions; use a real one");
        return None;
    }
    Some(broker)
}

/// Starts the mock cluster on its own thread, because it cannot move between threads.
fn mock() -> Broker {
    let (requests, received) = channel::<TopicRequest>();
    let (send_address, address) = channel();
    std::thread::spawn(move || {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        send_address.send(cluster.bootstrap_servers()).expect("the test waits for the address");
        for (name, partitions, done) in received {
            cluster.create_topic(&name, partitions, 1).expect("the mock cluster creates topics");
            done.send(()).expect("the test waits for the topic");
        }
    });
    Broker { address: address.recv().expect("the mock cluster has an address"), mock: Some(requests) }
}

// === impl Message ===

impl Message {
    /// Builds a message with a body, for partition 0.
    pub(crate) fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// Sets the headers.
    pub(crate) fn with_headers(self, headers: &[(&'static str, &'static str)]) -> Self {
        Self { headers: headers.to_vec(), ..self }
    }
}

// === impl Broker ===

impl Broker {
    /// Describes a broker that the test started itself.
    pub(crate) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), mock: None }
    }

    /// Returns a mock cluster of a test's own, whatever broker the other tests use.
    pub(crate) fn embedded() -> Self {
        mock()
    }

    /// True for the mock cluster, which speaks an older protocol than some clients do.
    pub(crate) fn is_mock(&self) -> bool {
        self.mock.is_some()
    }

    /// Creates a topic with a unique name and returns the name.
    pub(crate) fn topic(&self, purpose: &str, partitions: i32) -> String {
        let name = format!("{purpose}-{}", bellwether_base::unique_id().simple());
        self.topic_named(&name, partitions);
        name
    }

    /// Creates a topic with a given name, unless the broker has it.
    pub(crate) fn topic_named(&self, name: &str, partitions: i32) {
        match &self.mock {
            Some(requests) => {
                let (done, created) = channel();
                requests.send((name.to_owned(), partitions, done)).expect("the mock cluster runs");
                created.recv().expect("the mock cluster creates the topic");
            }
            None => self.create(name, partitions, &[]),
        }
    }

    /// Creates a topic with topic settings; real brokers only.
    pub(crate) fn topic_with(&self, purpose: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = format!("{purpose}-{}", bellwether_base::unique_id().simple());
        self.create(&name, partitions, settings);
        name
    }

    /// Deletes a topic and creates one of the same name. Returns none for the mock cluster, whose topics have no ids.
    pub(crate) fn recreate(&self, name: &str, partitions: i32) -> Option<()> {
        if self.is_mock() {
            skipped("the embedded broker has no topic ids; this test needs a real one");
            return None;
        }
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a client for administration");
        let deleted = block_on(admin.delete_topics(&[name], &AdminOptions::new())).expect("the broker answers");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        // The broker answers before it has deleted the topic.
        super::until("the topic can be created again", || {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            let made = block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("the broker answers");
            made.iter().all(Result::is_ok).then_some(())
        });
        Some(())
    }

    /// Deletes a partition's messages below an offset, as retention does; real brokers only.
    pub(crate) fn truncate(&self, topic: &str, partition: i32, before: i64) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a client for administration");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let deleted = block_on(admin.delete_records(&list, &AdminOptions::new())).expect("the broker answers");
        deleted.elements().iter().for_each(|element| element.error().expect("the broker deletes the messages"));
    }

    /// Adds partitions to a topic until it has `count`; real brokers only.
    pub(crate) fn add_partitions(&self, topic: &str, count: usize) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a client for administration");
        let more = NewPartitions::new(topic, count);
        let made = block_on(admin.create_partitions([&more], &AdminOptions::new())).expect("the broker answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Returns the number of members of a consumer group, those that still join included; real brokers only.
    pub(crate) fn members(&self, group: &str) -> usize {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a client");
        let found = client.fetch_group_list(Some(group), patience()).expect("the broker answers");
        found.groups().iter().map(|group| group.members().len()).sum()
    }

    fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a client for administration");
        let options = AdminOptions::new().operation_timeout(Some(patience())).request_timeout(Some(patience()));
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
        for result in made {
            if !matches!(result, Err((_, RDKafkaErrorCode::TopicAlreadyExists))) {
                result.expect("the broker creates the topic; check BELLWETHER_TEST_KAFKA");
            }
        }
    }

    /// Publishes messages in order and waits until the broker has them.
    pub(crate) fn publish(&self, topic: &str, messages: impl IntoIterator<Item = Message>) {
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", patience().as_millis().to_string())
            .create_with_context(Deliveries::default())
            .expect("a producer");
        for message in messages {
            let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_bytes()) })
            });
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(message.partition).headers(headers);
            if let Some(payload) = &message.payload {
                record = record.payload(payload.as_slice());
            }
            if let Some(key) = &message.key {
                record = record.key(key.as_bytes());
            }
            producer.send(record).map_err(|(error, _)| error).expect("the message fits the queue");
            producer.poll(Duration::ZERO);
        }
        producer.flush(patience()).expect("the broker takes the messages");
        let failed = producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failed.is_empty(), "messages were not delivered: {failed:?}");
    }

    /// Returns the offsets of a partition's messages in order, as read by an independent consumer.
    pub(crate) fn offsets(&self, topic: &str, partition: i32) -> Vec<i64> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", "tests-looking")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a client for reading");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        client.assign(&list).expect("the partition exists");
        let mut found = Vec::new();
        loop {
            match client.poll(patience()) {
                Some(Ok(message)) => found.push(message.offset()),
                Some(Err(KafkaError::PartitionEOF(_))) => return found,
                other => panic!("cannot read the partition to its end: {other:?}"),
            }
        }
    }

    /// Creates a producer of transactions for partition 0 of a topic; real brokers only.
    pub(crate) fn transactions(&self, topic: &str) -> Transactions {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("transactional.id", topic)
            .create()
            .expect("a producer");
        producer.init_transactions(patience()).expect("the broker supports transactions");
        Transactions { producer, topic: topic.to_owned() }
    }

    /// Publishes events to the partitions in turn.
    pub(crate) fn publish_events(&self, topic: &str, partitions: i32, events: &[serde_json::Value]) {
        let in_turn = (0..partitions).cycle();
        let messages = events
            .iter()
            .zip(in_turn)
            .map(|(event, partition)| Message { partition, ..Message::new(event.to_string()) });
        self.publish(topic, messages);
    }
}

// === impl Transactions ===

impl Transactions {
    /// Publishes events in a transaction, which is then committed or aborted.
    pub(crate) fn publish(&self, events: &[serde_json::Value], commit: bool) {
        self.producer.begin_transaction().expect("the transaction begins");
        for event in events {
            let body = event.to_string();
            let record = BaseRecord::<(), str>::to(&self.topic).partition(0).payload(&body);
            self.producer.send(record).map_err(|(error, _)| error).expect("the message fits the queue");
        }
        self.producer.flush(patience()).expect("the broker takes the messages");
        let ended = match commit {
            true => self.producer.commit_transaction(patience()),
            false => self.producer.abort_transaction(patience()),
        };
        ended.expect("the transaction ends");
    }
}
