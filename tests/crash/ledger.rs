//! A producer that publishes without pause, and the ledger of what the broker has taken from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::poison;
use crate::common::event::run;
use crate::common::wait::patience;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(20);

/// Of so many messages in a mixed partition, one is bad.
const ONE_BAD_IN: usize = 23;

/// Partition and offset.
pub(super) type Place = (i64, i64);

/// What the broker has taken: id of the run at each place, none where the message is bad.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) sent: BTreeMap<Place, Option<String>>,
}

/// What to publish.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) partitions: i32,
    /// A partition that gets nothing but bad messages.
    pub(super) only_bad: Option<i32>,
    /// Messages a burst; there are fifty bursts a second.
    pub(super) burst: usize,
}

/// A producer at work.
pub(super) struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

#[derive(Default)]
struct Deliveries {
    ledger: Mutex<Ledger>,
    failed: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Option<String>>;

    fn delivery(&self, result: &DeliveryResult<'_>, run_id: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                let place = (i64::from(message.partition()), message.offset());
                let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let before = ledger.sent.insert(place, *run_id);
                assert!(before.is_none(), "the broker gave {place:?} to two messages");
            }
            Err((error, _)) => self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone()),
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Places of good messages, with the run of each.
    pub(super) fn good(&self) -> Vec<(Place, String)> {
        self.sent.iter().filter_map(|(place, run)| Some((*place, run.clone()?))).collect()
    }

    /// Places of bad messages.
    pub(super) fn bad(&self) -> Vec<Place> {
        self.sent.iter().filter(|(_, run)| run.is_none()).map(|(place, _)| *place).collect()
    }
}

// === impl Publisher ===

impl Publisher {
    /// Publishes until it is told to finish.
    pub(super) fn start(address: &str, topic: &str, plan: Plan) -> Self {
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", address)
            // In order and without repeats, across a broker's restart too: the ledger would otherwise not be the truth.
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.timeout.ms", patience().as_millis().to_string())
            .create_with_context(Deliveries::default())
            .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let (told, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                for _ in 0..plan.burst {
                    publish(&producer, &topic, &plan, number);
                    number += 1;
                }
                producer.poll(TICK);
            }
            producer.flush(patience()).expect("the broker takes the messages");
            let failed = producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(failed.is_empty(), "messages were not delivered: {failed:?}");
            let ledger = std::mem::take(&mut *producer.context().ledger.lock().unwrap_or_else(PoisonError::into_inner));
            assert_eq!(ledger.sent.len(), number, "the broker has said where each message is");
            ledger
        });
        Self { stop, thread }
    }

    /// Stops, waits until the broker has everything, and gives out the ledger.
    pub(super) fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer publishes to its end")
    }
}

fn publish(producer: &BaseProducer<Deliveries>, topic: &str, plan: &Plan, number: usize) {
    let partition = i32::try_from(number).unwrap_or(0) % plan.partitions;
    let bad = plan.only_bad == Some(partition) || number.is_multiple_of(ONE_BAD_IN);
    let (payload, run_id) = if bad {
        (poison::payload(number), None)
    } else {
        let id = format!("run-{number}");
        (Some(run(&id).to_string().into_bytes()), Some(id))
    };
    let mut record: BaseRecord<'_, (), [u8], _> =
        BaseRecord::with_opaque_to(topic, Box::new(run_id)).partition(partition);
    if let Some(payload) = &payload {
        record = record.payload(payload.as_slice());
    }
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        producer.poll(TICK);
        record = back;
    }
}
