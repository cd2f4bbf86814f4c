//! Publishes the events of the simulated apps: six hours of history as fast as ingest reads it, then live traffic.
//!
//! The embedded broker drops the oldest messages of a full partition, so the producer waits for the consumer: messages that
//! are published but not committed take less than a quarter of the space that the broker has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellwether_base::{Clock, Error, Result, SystemClock};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::TOPIC;
use super::apps::{Apps, Message, Trial};

/// Length of the history.
const HISTORY: Duration = Duration::from_secs(6 * 3600);

/// Most messages that are published but not committed: about 1.3 kB each, against 24 partitions of 5 MiB.
const IN_FLIGHT: u64 = 20_000;

/// Live events per second.
const LIVE_PER_SECOND: u64 = 30;

/// Factor by which verdicts arrive sooner once traffic is live.
const LATE_SPEED: i64 = 9;

/// Live time until the bad canary is at its worst.
const DECLINE: Duration = Duration::from_secs(240);

/// Time before the end of the history at which both canaries start, so that they have enough runs to be judged.
const CANARY_HEAD: Duration = Duration::from_secs(60 * 60);

/// Harm of the bad canary at the end of the history, from 0 to 1.
const HARM: f64 = 0.7;

/// Pause while the consumer is behind or the producer's queue is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Counts of published and committed messages, shared with the display.
pub(crate) struct TrafficProgress {
    /// Runs of history to publish.
    pub(crate) history: u64,
    published: AtomicU64,
    committed: AtomicU64,
    live: AtomicBool,
    stopped: AtomicBool,
}

// === impl TrafficProgress ===

impl TrafficProgress {
    pub(crate) fn new(history: u64) -> Self {
        Self {
            history,
            published: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            live: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Messages published so far.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Messages committed to the tables so far.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Records the number of committed messages, which paces the producer.
    pub(crate) fn note_committed(&self, messages: u64) {
        self.committed.fetch_max(messages, Ordering::Relaxed);
    }

    /// Returns true once the history is published and traffic is live.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// Ends the traffic.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Starts the traffic on its own thread.
///
/// # Errors
/// `Unavailable` if the producer or its thread cannot be created.
pub(crate) fn start(brokers: &str, seed: u64, progress: Arc<TrafficProgress>) -> Result<JoinHandle<()>> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "20000")
        .create()
        .map_err(|source| Error::unavailable("cannot create the demo's Kafka producer").with_source(source))?;
    std::thread::Builder::new()
        .name("demo-traffic".to_owned())
        .spawn(move || {
            let mut traffic = Traffic { producer, apps: Apps::new(seed), progress };
            traffic.history();
            traffic.live();
            // Queued messages are of no use once the demo ends; one second is enough for those in flight.
            drop(traffic.producer.flush(Duration::from_secs(1)));
        })
        .map_err(|source| Error::unavailable("cannot start a thread").with_source(source))
}

struct Traffic {
    producer: ThreadedProducer<DefaultProducerContext>,
    apps: Apps,
    progress: Arc<TrafficProgress>,
}

impl Traffic {
    fn history(&mut self) {
        let span = i64::try_from(HISTORY.as_micros()).unwrap_or(i64::MAX);
        let count = self.progress.history;
        let begin = now_micros() - span;
        for index in 0..count {
            if self.progress.is_stopped() {
                return;
            }
            let passed = (u128::from(index) * HISTORY.as_micros() / u128::from(count.max(1))) as i64;
            let left = Duration::from_micros((span - passed).unsigned_abs());
            let on_trial = CANARY_HEAD.saturating_sub(left).as_secs_f64() / CANARY_HEAD.as_secs_f64();
            let trial = Trial {
                // Harmless at first, then quickly worse.
                invoice: (left < CANARY_HEAD).then(|| HARM * (2.0 * on_trial - 0.4).clamp(0.0, 1.0)),
                support: left < CANARY_HEAD,
            };
            self.publish_late(begin + passed);
            let message = self.apps.next(begin + passed, trial);
            self.publish(&message);
        }
        self.progress.live.store(true, Ordering::Relaxed);
    }

    /// Publishes the verdicts that are due by now.
    fn publish_late(&mut self, now: i64) {
        while let Some(message) = self.apps.late(now) {
            self.publish(&message);
        }
    }

    fn live(&mut self) {
        let begun = Instant::now();
        let mut sent = 0;
        while !self.progress.is_stopped() {
            let passed = begun.elapsed();
            // Verdicts arrive sooner than in the history, so that half a minute of watching shows their effect.
            let ahead = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX).saturating_mul(LATE_SPEED);
            while let Some(message) = self.apps.late_by(now_micros(), ahead) {
                self.publish(&message);
            }
            let due = (passed.as_millis() * u128::from(LIVE_PER_SECOND) / 1000) as u64;
            while sent < due && !self.progress.is_stopped() {
                let harm = (passed.as_secs_f64() / DECLINE.as_secs_f64()).min(1.0);
                let trial = Trial { invoice: Some(HARM + (1.0 - HARM) * harm.sqrt()), support: true };
                let message = self.apps.next(now_micros(), trial);
                self.publish(&message);
                sent += 1;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn publish(&self, message: &Message) {
        while self.progress.published().saturating_sub(self.progress.committed()) > IN_FLIGHT {
            if self.progress.is_stopped() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let mut record = BaseRecord::to(TOPIC).key(&message.key).payload(&message.payload);
        while let Err((error, back)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            if !full || self.progress.is_stopped() {
                return;
            }
            record = back;
            std::thread::sleep(PAUSE);
        }
        self.progress.published.fetch_add(1, Ordering::Relaxed);
    }
}

fn now_micros() -> i64 {
    SystemClock.now_micros()
}
