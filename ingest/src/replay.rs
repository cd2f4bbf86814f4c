//! Recorded events from files: into the tables through the same decode path, or to Kafka at a pace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result, unique_id};
use bellwether_event::units::rfc3339_micros;
use bellwether_event::{Limits, Problem, Reason, Rejection, mended};
use bellwether_lake::{CommitLog, Lake, PartitionRange};
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
use crate::commit_pipeline::{Batch, Committer, Observer, Touched, app_id};
use crate::decode::Message;
use crate::source::file::{Record, Records, Size, identity};
use crate::source::kafka::settings::FlushSettings;

/// Name under which the tables keep how far files were read.
const JOB: &str = "replay";

/// Largest event that is sent to Kafka: whether it is one is for ingest to say.
const EVENT_BYTES: usize = 16 * 1024 * 1024;

/// Between two reports of progress.
const REPORT_MICROS: i64 = 500_000;

/// Wait for what is on its way at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events read, right or wrong; those that were read before are left out.
    pub read: u64,
    /// Events in the tables, or acknowledged by Kafka.
    pub done: u64,
    /// Events rejected (into the tables), or too large or not acknowledged (Kafka).
    pub rejected: u64,
    /// Events passed over, because an earlier replay of the same file has read them.
    pub known: u64,
    /// Bytes read, decompressed.
    pub bytes: u64,
    /// Microseconds since the start.
    pub elapsed_micros: i64,
}

/// How fast events are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the broker takes them.
    Fastest,
    /// Events a second.
    Rate(f64),
    /// With the recorded pauses, this many times shorter.
    Recorded(f64),
}

/// Where and how events are sent.
pub struct ToKafka {
    /// Settings of the client.
    pub client: ClientConfig,
    /// Topic.
    pub topic: String,
    /// How fast.
    pub pace: Pace,
    /// Shift all times by one amount, so that the newest event is now; of standard input the first.
    pub shift_to_now: bool,
}

// === into the tables ===

/// Reads files into the tables, each event once however often the file is replayed.
///
/// # Errors
/// `Config` for a file that cannot be read, `Data` for one that breaks off (what came before is in the tables), and what
/// the committer meets.
pub async fn to_tables(
    lake: &Lake,
    files: &[PathBuf],
    limits: Limits,
    flush: &FlushSettings,
    observer: Arc<dyn Observer>,
    stop: CancellationToken,
    mut report: impl FnMut(&Progress),
) -> Result<Progress> {
    let mut progress = Progress::default();
    let clock = lake.clock();
    let started = clock.now_micros();
    let mut committer = Committer::for_lake(lake, JOB, None, observer, stop.clone());
    for file in files {
        let name = identity(file)?.unwrap_or_else(|| format!("stdin@{}", unique_id().simple()));
        let topic = format!("file:{name}");
        let stands = lake.log(Table::Events).load().await?.next(&app_id(JOB, &topic, 0));
        let mut records = Records::open(file, limits.readable_bytes())?;
        let mut open = OpenFile { topic, from: stands.unwrap_or(0), expected: stands, newest_event_micros: None };
        let mut builder = BatchBuilder::new(limits);
        let mut buffer = Vec::new();
        let mut said = started;
        loop {
            let before = records.next_offset();
            let record = match records.read(&mut buffer) {
                Ok(record) => record,
                Err(error) => {
                    open.commit(&mut committer, &mut builder, before, &mut progress).await?;
                    return Err(error);
                }
            };
            let Some(record) = record else { break };
            if record.offset < open.from {
                progress.known += 1;
                continue;
            }
            progress.read += 1;
            progress.bytes += buffer.len() as u64;
            open.push(&mut builder, record, &buffer, clock.now_micros(), &mut progress);
            if builder.rows() >= flush.max_rows || builder.bytes() >= flush.max_bytes {
                open.commit(&mut committer, &mut builder, record.offset + 1, &mut progress).await?;
            }
            if stop.is_cancelled() {
                break;
            }
            let now_micros = clock.now_micros();
            if now_micros - said >= REPORT_MICROS {
                said = now_micros;
                progress.elapsed_micros = now_micros - started;
                report(&progress);
            }
        }
        open.commit(&mut committer, &mut builder, records.next_offset(), &mut progress).await?;
    }
    progress.elapsed_micros = clock.now_micros() - started;
    report(&progress);
    Ok(progress)
}

/// A file that is being read into the tables.
struct OpenFile {
    topic: String,
    from: i64,
    expected: Option<i64>,
    newest_event_micros: Option<i64>,
}

impl OpenFile {
    fn push(
        &mut self,
        builder: &mut BatchBuilder,
        record: Record,
        body: &[u8],
        now_micros: i64,
        progress: &mut Progress,
    ) {
        let offset = record.offset;
        let message = Message { topic: &self.topic, offset, payload: Some(body), ..Message::default() };
        let pushed = match record.size {
            Size::Whole => builder.push(&message, now_micros),
            Size::TooLong(size) => builder.reject(&message, &too_large(size), now_micros),
        };
        match pushed {
            Pushed::Event(micros) => self.newest_event_micros = self.newest_event_micros.max(Some(micros)),
            Pushed::Quarantined(_) => progress.rejected += 1,
        }
    }

    async fn commit(
        &mut self,
        committer: &mut Committer,
        builder: &mut BatchBuilder,
        next: i64,
        progress: &mut Progress,
    ) -> Result<()> {
        if next <= self.from {
            return Ok(());
        }
        let (events, quarantine) = builder.finish()?;
        let held = i64::try_from(events.rows() + quarantine.rows()).unwrap_or(i64::MAX);
        let range = PartitionRange {
            topic: self.topic.clone(),
            partition: 0,
            from: self.from,
            next,
            end_offset: None,
            newest_event_micros: self.newest_event_micros.take(),
            // Blank lines, and those that an event goes on over.
            passed_over: Some(next - self.from - held),
        };
        let rows = events.rows() as u64;
        let touched = vec![Touched { range, expected: self.expected }];
        let report = committer
            .commit(Batch { events, quarantine, touched, topic_ids: BTreeMap::new(), marks: Vec::new() })
            .await?;
        if !report.fenced.is_empty() {
            return Err(Error::fenced(format!("another replay of `{}` is running", self.topic))
                .with_hint("let one of them finish; replaying the file again adds nothing"));
        }
        progress.done += rows;
        self.from = next;
        self.expected = Some(next);
        Ok(())
    }
}

/// What an event is told of which only the size is known.
pub fn too_large(size: usize) -> Rejection {
    let what = format!("event of {size} bytes is too large: drop `content`, then `steps`");
    Rejection::of(Problem::new(Reason::TooLarge, "", what))
}

// === to Kafka ===

/// What is acknowledged and what is not.
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

/// What of an event decides its key and its time.
#[derive(Deserialize)]
struct Glance<'a> {
    #[serde(borrow, default)]
    run_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    time: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<GlanceData<'a>>,
}

#[derive(Deserialize)]
struct GlanceData<'a> {
    #[serde(borrow, default)]
    ended_at: Option<std::borrow::Cow<'a, str>>,
}

impl Glance<'_> {
    fn micros(&self) -> Option<i64> {
        let ended = self.data.as_ref().and_then(|data| data.ended_at.as_deref());
        self.time.as_deref().or(ended).and_then(rfc3339_micros)
    }
}

/// Sends files to Kafka, keyed by run. Runs on a thread of the caller's until all is acknowledged.
///
/// # Errors
/// `Config` for files and settings that cannot work; `Unavailable` where the broker does not take the events.
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
    let producer: ThreadedProducer<Context> =
        client.create_with_context(Context(Arc::clone(&delivered))).map_err(refuse)?;
    let started = clock.now_micros();
    let shift = if target.shift_to_now { newest(files)?.map(|newest| started - newest) } else { None };
    let mut progress = Progress::default();
    let mut pacer = Pacer { pace: target.pace, started, first: None, sent: 0 };
    let mut said = started;
    for file in files {
        let mut records = Records::open(file, EVENT_BYTES)?;
        let mut buffer = Vec::new();
        while let Some(record) = records.read(&mut buffer)? {
            progress.read += 1;
            progress.bytes += buffer.len() as u64;
            if let Size::TooLong(bytes) = record.size {
                tracing::warn!(line = record.line + 1, bytes, "skipping an event that is too large to send");
                progress.rejected += 1;
                continue;
            }
            let text = std::str::from_utf8(&buffer).map(mended).unwrap_or_default();
            let glance: Option<Glance<'_>> = serde_json::from_str(&text).ok();
            pacer.wait(glance.as_ref().and_then(Glance::micros), clock, stop);
            if stop.is_cancelled() {
                break;
            }
            let key = glance.as_ref().and_then(|glance| glance.run_id.as_deref()).unwrap_or_default();
            let shift = shift.or_else(|| {
                let first = target.shift_to_now.then_some(pacer.first).flatten();
                first.map(|first| started - first)
            });
            let shifted = shift.and_then(|shift| shifted(&buffer, shift));
            send(&producer, &target.topic, key, shifted.as_deref().unwrap_or(&buffer), stop)?;
            let now_micros = clock.now_micros();
            if now_micros - said >= REPORT_MICROS {
                said = now_micros;
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

/// Holds events back to their pace.
struct Pacer {
    pace: Pace,
    started: i64,
    first: Option<i64>,
    sent: u64,
}

impl Pacer {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a pace needs no more digits")]
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

/// Newest event of all files; none where standard input is one of them, which cannot be read twice.
fn newest(files: &[PathBuf]) -> Result<Option<i64>> {
    let mut newest = None;
    for file in files {
        if identity(file)?.is_none() {
            return Ok(None);
        }
        let (mut records, mut buffer) = (Records::open(file, EVENT_BYTES)?, Vec::new());
        while records.read(&mut buffer)?.is_some() {
            let micros = serde_json::from_slice::<Glance<'_>>(&buffer).ok().and_then(|glance| glance.micros());
            newest = newest.max(micros);
        }
    }
    Ok(newest)
}

/// An event with its times shifted; none where it is not one.
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

/// Settings of a producer: those of the consumer that are about the connection.
pub fn producer_config(brokers: &str, properties: &BTreeMap<String, String>) -> ClientConfig {
    const CONNECTION: [&str; 4] = ["security.", "sasl.", "ssl.", "client."];
    let mut config = ClientConfig::new();
    for (key, value) in properties.iter().filter(|(key, _)| CONNECTION.iter().any(|part| key.starts_with(part))) {
        config.set(key, value);
    }
    config.set("bootstrap.servers", brokers);
    config
}

/// True for a file that exists or standard input; the error says which one does not.
///
/// # Errors
/// `Config` naming the file.
pub fn readable(files: &[PathBuf]) -> Result<()> {
    files.iter().try_for_each(|file: &PathBuf| identity(Path::new(file)).map(|_| ()))
}
