//! Replays recorded events from files, into the tables through the usual decode path, or to Kafka at a given pace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result, unique_id};
use bellwether_event::units::rfc3339_micros;
use bellwether_event::{Limits, Problem, Reason, Rejection, replace_lone_surrogates};
use bellwether_lake::{CommitLog, Lake, PartitionRange};
use bellwether_login::Login;
use bellwether_redact::Redactor;
use bellwether_tables::Table;
use chrono::{DateTime, SecondsFormat};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::{Batch, Committer, Observer, PartitionBatch, app_id};
use crate::decode::Message;
use crate::login::keep_logged_in;
use crate::source::file::{FileEvent, FileEvents, Size, identity};
use crate::source::kafka::settings::FlushSettings;

/// Job name under which the tables record how far files have been read.
const JOB: &str = "replay";

/// Largest event sent to Kafka. Ingest decides whether to accept it.
const EVENT_BYTES: usize = 16 * 1024 * 1024;

/// Interval between progress reports.
const REPORT_MICROS: i64 = 500_000;

/// Longest wait for outstanding acknowledgements at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// The progress of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events read, valid or not, without those of an earlier replay.
    pub read: u64,
    /// Events committed to the tables, or acknowledged by Kafka.
    pub done: u64,
    /// Events rejected (tables), or too large or not acknowledged (Kafka).
    pub rejected: u64,
    /// Events skipped because an earlier replay of the same file has read them.
    pub known: u64,
    /// Decompressed bytes read.
    pub bytes: u64,
    /// Microseconds since the start.
    pub elapsed_micros: i64,
}

/// The pace of sending events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the broker accepts them.
    Fastest,
    /// Events per second.
    Rate(f64),
    /// With the recorded pauses divided by this factor.
    Recorded(f64),
}

/// A replay of files to Kafka.
pub struct ToKafka {
    pub client: ClientConfig,
    /// The source of tokens, if the client authenticates by OAUTHBEARER.
    pub login: Option<Login>,
    pub topic: String,
    pub pace: Pace,
    /// Shifts all times by the same amount, so that the newest event, or the first one of standard input, is now.
    pub shift_to_now: bool,
}

// === into the tables ===

/// A replay of files into the tables.
pub struct ToTables<'a> {
    pub lake: &'a Lake,
    pub limits: Limits,
    pub redactor: Arc<Redactor>,
    pub flush: &'a FlushSettings,
    pub observer: Arc<dyn Observer>,
    /// Stops the replay after the current event.
    pub stop: CancellationToken,
}

/// A file that is being read into the tables.
struct OpenFile<'a> {
    committer: &'a mut Committer,
    progress: &'a mut Progress,
    builder: BatchBuilder,
    topic: String,
    from: i64,
    expected: Option<i64>,
    newest_event_micros: Option<i64>,
}

// === impl ToTables ===

impl ToTables<'_> {
    /// Reads files into the tables, each event once however often a file is replayed.
    ///
    /// # Errors
    /// `Config` for an unreadable file, `Data` for a truncated one (the events before that are in the tables), and the errors of
    /// the committer.
    pub async fn run(self, files: &[PathBuf], mut report: impl FnMut(&Progress)) -> Result<Progress> {
        let Self { lake, limits, redactor, flush, observer, stop } = self;
        let mut progress = Progress::default();
        let clock = lake.clock();
        let started = clock.now_micros();
        let mut committer = Committer::for_lake(lake, JOB, None, observer, stop.clone());
        for path in files {
            let name = identity(path)?.unwrap_or_else(|| format!("stdin@{}", unique_id().simple()));
            let topic = format!("file:{name}");
            let expected = lake.log(Table::Events).load().await?.next(&app_id(JOB, &topic, 0));
            let mut events = FileEvents::open(path, limits.readable_bytes())?;
            let mut file = OpenFile {
                committer: &mut committer,
                progress: &mut progress,
                builder: BatchBuilder::new(limits).redacting(Arc::clone(&redactor)),
                topic,
                from: expected.unwrap_or(0),
                expected,
                newest_event_micros: None,
            };
            let mut buffer = Vec::new();
            let mut reported = started;
            loop {
                let before = events.next_offset();
                let event = match events.read(&mut buffer) {
                    Ok(event) => event,
                    Err(error) => {
                        file.commit(before).await?;
                        return Err(error);
                    }
                };
                let Some(event) = event else { break };
                if event.offset < file.from {
                    file.progress.known += 1;
                    continue;
                }
                file.push(event, &buffer, clock.now_micros());
                if file.builder.rows() >= flush.max_rows || file.builder.bytes() >= flush.max_bytes {
                    file.commit(event.offset + 1).await?;
                }
                if stop.is_cancelled() {
                    break;
                }
                let now_micros = clock.now_micros();
                if now_micros - reported >= REPORT_MICROS {
                    reported = now_micros;
                    file.progress.elapsed_micros = now_micros - started;
                    report(file.progress);
                }
            }
            file.commit(events.next_offset()).await?;
        }
        progress.elapsed_micros = clock.now_micros() - started;
        report(&progress);
        Ok(progress)
    }
}

// === impl OpenFile ===

impl OpenFile<'_> {
    fn push(&mut self, event: FileEvent, body: &[u8], now_micros: i64) {
        self.progress.read += 1;
        self.progress.bytes += body.len() as u64;
        let message = Message { topic: &self.topic, offset: event.offset, payload: Some(body), ..Message::default() };
        let pushed = match event.size {
            Size::Whole => self.builder.push(&message, now_micros),
            Size::TooLong(size) => self.builder.reject(&message, &too_large(size), now_micros),
        };
        match pushed {
            Pushed::Event(micros) => self.newest_event_micros = self.newest_event_micros.max(Some(micros)),
            Pushed::Quarantined(_) => self.progress.rejected += 1,
        }
    }

    /// Commits the open rows, and the offsets before `next`.
    async fn commit(&mut self, next: i64) -> Result<()> {
        if next <= self.from {
            return Ok(());
        }
        let (events, quarantine) = self.builder.finish()?;
        let rows = i64::try_from(events.rows() + quarantine.rows()).unwrap_or(i64::MAX);
        let range = PartitionRange {
            topic: self.topic.clone(),
            partition: 0,
            from: self.from,
            next,
            end_offset: None,
            newest_event_micros: self.newest_event_micros.take(),
            // Blank lines, and the further lines of an event.
            passed_over: Some(next - self.from - rows),
        };
        let event_rows = events.rows() as u64;
        let partitions = vec![PartitionBatch { range, expected: self.expected }];
        let report = self
            .committer
            .commit(Batch { events, quarantine, partitions, topic_ids: BTreeMap::new(), marks: Vec::new() })
            .await?;
        if !report.fenced.is_empty() {
            return Err(Error::fenced(format!("another replay of `{}` is running", self.topic))
                .with_hint("let one of them finish; replaying the file again adds nothing"));
        }
        self.progress.done += event_rows;
        self.from = next;
        self.expected = Some(next);
        Ok(())
    }
}

/// Creates the rejection of an event that exceeds the size limit.
pub fn too_large(size: usize) -> Rejection {
    let explanation = format!("event of {size} bytes is too large: drop `content`, then `steps`");
    Rejection::from(Problem::new(Reason::TooLarge, "", explanation))
}

// === to Kafka ===

/// Counts of acknowledged and failed events.
#[derive(Default)]
struct Delivered {
    done: AtomicU64,
    failed: AtomicU64,
}

struct Context(Arc<Delivered>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.done.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                tracing::warn!(%error, "the broker did not accept an event");
                self.0.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// The fields that determine the key and the time of an event.
#[derive(Deserialize)]
struct KeyAndTime<'a> {
    #[serde(borrow, default)]
    run_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    time: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<EndedAt<'a>>,
}

#[derive(Deserialize)]
struct EndedAt<'a> {
    #[serde(borrow, default)]
    ended_at: Option<std::borrow::Cow<'a, str>>,
}

impl KeyAndTime<'_> {
    fn micros(&self) -> Option<i64> {
        let ended = self.data.as_ref().and_then(|data| data.ended_at.as_deref());
        self.time.as_deref().or(ended).and_then(rfc3339_micros)
    }
}

/// Sends files to Kafka, keyed by run, and blocks the calling thread until all events are acknowledged.
///
/// # Errors
/// `Config` for unreadable files and invalid settings; `Unavailable` if the broker does not accept the events.
pub fn to_kafka(
    files: &[PathBuf],
    target: ToKafka,
    clock: &dyn Clock,
    stop: &CancellationToken,
    mut report: impl FnMut(&Progress),
) -> Result<Progress> {
    let refuse = |source: KafkaError| Error::config("cannot create the Kafka producer").with_source(source);
    let delivered = Arc::new(Delivered::default());
    let mut client = target.client;
    client.set("enable.idempotence", "true").set("linger.ms", "20").set("compression.type", "zstd");
    let producer: Arc<ThreadedProducer<Context>> =
        Arc::new(client.create_with_context(Context(Arc::clone(&delivered))).map_err(refuse)?);
    keep_logged_in(&producer, target.login.as_ref())?;
    let started = clock.now_micros();
    let shift = if target.shift_to_now { newest(files)?.map(|newest| started - newest) } else { None };
    let mut progress = Progress::default();
    let mut pacer = Pacer { pace: target.pace, started, first: None, sent: 0 };
    let mut reported = started;
    for file in files {
        let mut records = FileEvents::open(file, EVENT_BYTES)?;
        let mut buffer = Vec::new();
        while let Some(record) = records.read(&mut buffer)? {
            progress.read += 1;
            progress.bytes += buffer.len() as u64;
            if let Size::TooLong(bytes) = record.size {
                tracing::warn!(line = record.line + 1, bytes, "skipping an event that is too large to send");
                progress.rejected += 1;
                continue;
            }
            let text = std::str::from_utf8(&buffer).map(replace_lone_surrogates).unwrap_or_default();
            let event: Option<KeyAndTime<'_>> = serde_json::from_str(&text).ok();
            pacer.wait(event.as_ref().and_then(KeyAndTime::micros), clock, stop);
            if stop.is_cancelled() {
                break;
            }
            let key = event.as_ref().and_then(|event| event.run_id.as_deref()).unwrap_or_default();
            let shift = shift.or_else(|| {
                let first = target.shift_to_now.then_some(pacer.first).flatten();
                first.map(|first| started - first)
            });
            let shifted = shift.and_then(|shift| shifted(&buffer, shift));
            send(&producer, &target.topic, key, shifted.as_deref().unwrap_or(&buffer), stop)?;
            let now_micros = clock.now_micros();
            if now_micros - reported >= REPORT_MICROS {
                reported = now_micros;
                report(&delivered.onto(progress, now_micros - started));
            }
        }
    }
    producer.flush(FLUSH).map_err(|source| {
        Error::unavailable("the broker did not acknowledge all events")
            .with_hint("check `kafka.brokers`; acknowledged events stay in the topic")
            .with_source(source)
    })?;
    let failed = delivered.failed.load(Ordering::Relaxed);
    let progress = delivered.onto(progress, clock.now_micros() - started);
    report(&progress);
    if failed > 0 {
        return Err(Error::unavailable(format!("the broker did not accept {failed} events"))
            .with_hint("see the warnings in the log; accepted events stay in the topic"));
    }
    Ok(progress)
}

impl Delivered {
    fn onto(&self, progress: Progress, elapsed_micros: i64) -> Progress {
        Progress {
            done: self.done.load(Ordering::Relaxed),
            rejected: progress.rejected + self.failed.load(Ordering::Relaxed),
            elapsed_micros,
            ..progress
        }
    }
}

fn send(
    producer: &ThreadedProducer<Context>,
    topic: &str,
    key: &str,
    body: &[u8],
    stop: &CancellationToken,
) -> Result<()> {
    let mut record = BaseRecord::to(topic).key(key).payload(body);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !stop.is_cancelled() => {
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((source, _)) => {
                return Err(Error::unavailable("cannot send an event")
                    .with_hint("check that it is not larger than the topic's `max.message.bytes`")
                    .with_source(source));
            }
        }
    }
}

/// Delays events to the requested pace.
struct Pacer {
    pace: Pace,
    started: i64,
    first: Option<i64>,
    sent: u64,
}

impl Pacer {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the pace is approximate")]
    fn wait(&mut self, event_micros: Option<i64>, clock: &dyn Clock, stop: &CancellationToken) {
        if let Some(micros) = event_micros {
            self.first.get_or_insert(micros);
        }
        let due = match (self.pace, event_micros, self.first) {
            (Pace::Rate(rate), ..) => self.started + (self.sent as f64 / rate * 1e6) as i64,
            (Pace::Recorded(speed), Some(micros), Some(first)) => {
                self.started + ((micros - first) as f64 / speed) as i64
            }
            _ => self.started,
        };
        self.sent += 1;
        while !stop.is_cancelled() {
            let left = due - clock.now_micros();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
            std::thread::sleep(Duration::from_micros(left.min(100_000)));
        }
    }
}

/// Returns the time of the newest event of all files; `None` if they include standard input, which cannot be read twice.
fn newest(files: &[PathBuf]) -> Result<Option<i64>> {
    let mut newest = None;
    for file in files {
        if identity(file)?.is_none() {
            return Ok(None);
        }
        let (mut records, mut buffer) = (FileEvents::open(file, EVENT_BYTES)?, Vec::new());
        while records.read(&mut buffer)?.is_some() {
            let micros = serde_json::from_slice::<KeyAndTime<'_>>(&buffer).ok().and_then(|event| event.micros());
            newest = newest.max(micros);
        }
    }
    Ok(newest)
}

/// Shifts the times of an event; `None` if it is not JSON.
fn shifted(body: &[u8], shift: i64) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(body).ok()?;
    for pointer in ["/time", "/data/started_at", "/data/ended_at"] {
        if let Some(time) = event.pointer_mut(pointer)
            && let Some(micros) = time.as_str().and_then(rfc3339_micros)
            && let Some(moved) = DateTime::from_timestamp_micros(micros.saturating_add(shift))
        {
            *time = Value::from(moved.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
    }
    serde_json::to_vec(&event).ok()
}

/// Returns the configuration of a producer: the connection properties of the consumer.
pub fn producer_config(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    const CONNECTION: [&str; 4] = ["security.", "sasl.", "ssl.", "client."];
    let mut config = ClientConfig::new();
    for (key, value) in properties.iter().filter(|(key, _)| CONNECTION.iter().any(|part| key.starts_with(part))) {
        config.set(key, value);
    }
    config.set("bootstrap.servers", brokers);
    config
}

/// Checks that files exist and can be read.
///
/// # Errors
/// `Config`, naming the file.
pub fn readable(files: &[PathBuf]) -> Result<()> {
    files.iter().try_for_each(|file: &PathBuf| identity(Path::new(file)).map(|_| ()))
}
