//! A producer that publishes continuously, and the ledger of the messages that the broker has acknowledged.

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

/// Time between two bursts.
const TICK: Duration = Duration::from_millis(20);

/// One in this many messages of a mixed partition is bad.
const ONE_BAD_IN: usize = 23;

/// Partition and offset.
pub(super) type LedgerPosition = (i64, i64);

/// The messages that the broker acknowledged: the run id at each partition and offset, or none for a bad message.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) sent: BTreeMap<LedgerPosition, Option<String>>,
}

/// The traffic of a [`Publisher`].
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) partitions: i32,
    /// A partition that gets only bad messages.
    pub(super) only_bad: Option<i32>,
    /// Messages per burst; there are fifty bursts per second.
    pub(super) burst: usize,
}

/// A running producer.
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
                let position = (i64::from(message.partition()), message.offset());
                let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                let before = ledger.sent.insert(position, *run_id);
                assert!(before.is_none(), "the broker gave {position:?} to two messages");
            }
            Err((error, _)) => self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone()),
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Returns the positions of the good messages, each with its run.
    pub(super) fn good(&self) -> Vec<(LedgerPosition, String)> {
        self.sent.iter().filter_map(|(position, run)| Some((*position, run.clone()?))).collect()
    }

    /// Returns the positions of the bad messages.
    pub(super) fn bad(&self) -> Vec<LedgerPosition> {
        self.sent.iter().filter(|(_, run)| run.is_none()).map(|(position, _)| *position).collect()
    }
}

// === impl Publisher ===

impl Publisher {
    /// Starts to publish, until [`Publisher::finish`].
    pub(super) fn start(address: &str, topic: &str, plan: Plan) -> Self {
        let producer: BaseProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", address)
            // Without it, a restart of the broker could reorder or repeat messages, and the ledger would be wrong.
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.timeout.ms", patience().as_millis().to_string())
            .create_with_context(Deliveries::default())
            .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
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
            assert_eq!(ledger.sent.len(), number, "the broker acknowledged every message with its offset");
            ledger
        });
        Self { stop, thread }
    }

    /// Stops, waits until the broker has every message, and returns the ledger.
    pub(super) fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer thread ends well")
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
