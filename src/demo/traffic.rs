//! Publishes what the simulated apps emit: six hours of history as fast as ingest takes it, then live traffic.
//!
//! The embedded broker forgets the oldest messages of a full partition, so the producer waits for the consumer: what is
//! published and not yet committed stays below a quarter of what the broker keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellwether_lake::{Clock, Error, Result, SystemClock};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::TOPIC;
use super::apps::{Apps, Message, Trial};

/// Length of the history.
const HISTORY: Duration = Duration::from_secs(6 * 3600);

/// Messages published and not yet committed, at most: about 1.3 kB each, against 24 partitions of 5 MiB.
const IN_FLIGHT: u64 = 20_000;

/// Live events a second.
const LIVE_PER_SECOND: u64 = 30;

/// How many times quicker verdicts come once traffic is live.
const LATE_SPEED: i64 = 9;

/// Time, in live traffic, until the bad canary is at its worst.
const DECLINE: Duration = Duration::from_secs(240);

/// How far from the end of the history both canaries begin, so that there are enough runs to judge them by.
const CANARY_HEAD: Duration = Duration::from_secs(60 * 60);

/// How bad the bad canary has become by the end of the history.
const HARM: f64 = 0.7;

/// Pause while the consumer is behind or the producer's queue is full.
const PAUSE: Duration = Duration::from_millis(20);

/// What has been published, shared with whoever shows it.
pub(crate) struct Progress {
    /// Runs of history to publish.
    pub(crate) history: u64,
    published: AtomicU64,
    committed: AtomicU64,
    live: AtomicBool,
    stopped: AtomicBool,
}

// === impl Progress ===

impl Progress {
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

    /// Notes what the tables hold; the producer goes by it.
    pub(crate) fn note_committed(&self, messages: u64) {
        self.committed.fetch_max(messages, Ordering::Relaxed);
    }

    /// The history is out; traffic is live.
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

/// Starts the traffic on a thread of its own.
///
/// # Errors
/// `Unavailable` where the producer or its thread cannot be made.
pub(crate) fn start(brokers: &str, seed: u64, progress: Arc<Progress>) -> Result<JoinHandle<()>> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "20000")
        .create()
        .map_err(|source| Error::unavailable("the producer of the demo cannot be made").with_source(source))?;
    std::thread::Builder::new()
        .name("demo-traffic".to_owned())
        .spawn(move || {
            let mut traffic = Traffic { producer, apps: Apps::new(seed), progress };
            traffic.history();
            traffic.live();
            // What is still queued is worth nothing once the demo ends; a second is plenty for what is on its way.
            drop(traffic.producer.flush(Duration::from_secs(1)));
        })
        .map_err(|source| Error::unavailable("the system gives no thread").with_source(source))
}

struct Traffic {
    producer: ThreadedProducer<DefaultProducerContext>,
    apps: Apps,
    progress: Arc<Progress>,
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
                // Harmless at first, and then quickly worse.
                invoice: (left < CANARY_HEAD).then(|| HARM * (2.0 * on_trial - 0.4).clamp(0.0, 1.0)),
                support: left < CANARY_HEAD,
            };
            self.say_late(begin + passed);
            let message = self.apps.next(begin + passed, trial);
            self.publish(&message);
        }
        self.progress.live.store(true, Ordering::Relaxed);
    }

    /// What is said by now of runs that ended before.
    fn say_late(&mut self, now: i64) {
        while let Some(message) = self.apps.late(now) {
            self.publish(&message);
        }
    }

    fn live(&mut self) {
        let begun = Instant::now();
        let mut sent = 0;
        while !self.progress.is_stopped() {
            let passed = begun.elapsed();
            // The judge and the people are quicker than they were, so that half a minute of watching shows what they change.
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
