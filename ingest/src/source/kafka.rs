//! Reading Kafka: one thread that polls and decodes, and never waits for storage.
//!
//! * The thread polls, decodes each message in place and hands finished batches to the committing task through a
//!   bounded channel. Where the channel is full, it pauses its partitions and keeps polling.
//! * A partition starts where `events` stands, read from storage inside the rebalance callback; Kafka's own offsets are
//!   stored for lag tooling and never believed.
//! * `asking` asks beside it where partitions end, so that the tables can say up to when all was read; `starts` records where
//!   topics begin that are not read from their beginnings.
//! * A partition that cannot be read right (its offset is outside the log) is halted, loudly, and the others go on.

pub mod settings;

pub(crate) mod asking;
mod caught_up;
pub(crate) mod context;
mod starts;
mod topic_id;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result};
use bellwether_event::{Envelope, Limits};
use bellwether_lake::PartitionRange;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::Batch;
use crate::decode::Message;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::source::open_batch::{Answer, OpenBatch, Place};
use asking::Asking;
use caught_up::CaughtUp;
use context::{Assigner, Context, RECREATED, offset_from};
use settings::KafkaSettings;
use topic_id::ConsumerTopicIds;

/// Longest wait of one poll: bounds how late a stop or an answer is noticed.
const POLL: Duration = Duration::from_millis(50);

/// Wait for metadata and watermarks from a broker.
const ASK_BROKER: Duration = Duration::from_secs(5);

/// The same, where the question can be put again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Before a broker that was out of reach is asked again.
const LOOK_AROUND_MICROS: i64 = 2_000_000;

/// Messages taken in before anything else is looked at: a fraction of a millisecond.
const BURST_MESSAGES: u64 = 256;

/// Wait for the last commits on shutdown: below the default session timeout of 45 s.
const DRAIN_MICROS: i64 = 20_000_000;

/// Everything the polling thread works with.
pub(crate) struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    settings: KafkaSettings,
    health: Health,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    stop_now: CancellationToken,
    /// What to reach, where the worker stops when it has caught up.
    catching_up: Option<CaughtUp>,
    paused: bool,
    /// The client has stopped reading a partition whose offset the broker does not hold, and it is not clear yet which.
    outside: bool,
    looked_around_micros: i64,
}

/// How the thread and the committing task reach each other.
pub(crate) struct Wires {
    /// Batches to commit.
    pub(crate) batches: Sender<Batch>,
    /// What became of them.
    pub(crate) answers: Receiver<Answer>,
}

/// Messages that were taken in one after the other.
#[derive(Default)]
struct Burst {
    now_micros: i64,
    place: Option<Place>,
    messages: u64,
    bytes: u64,
    gaps: u64,
    quarantined: u64,
}

/// What the worker tells the thread.
pub(crate) struct Orders {
    pub(crate) settings: KafkaSettings,
    pub(crate) limits: Limits,
    /// Columns of `events` for an aggregator in the same process.
    pub(crate) handed_on: &'static [&'static str],
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    pub(crate) until_caught_up: bool,
}

/// Everything a client of this source needs set, for checks outside it too.
pub fn client_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in settings.client_properties() {
        config.set(key, value);
    }
    config
}

// === impl Poller ===

impl Poller {
    /// Connects and joins the group.
    pub(crate) fn start(orders: Orders, wires: Wires, assigner: Assigner) -> Result<Self> {
        let Orders { settings, limits, handed_on, health, metrics, clock, stop, stop_now, until_caught_up } = orders;
        let builder = BatchBuilder::new(limits).handing_on(handed_on)?;
        let open = OpenBatch::new(builder, wires.batches, wires.answers, settings.flush.channel_batches);
        let context = Context::new(open, assigner, health.clone(), metrics.clone(), Arc::clone(&clock));
        let refuse = |source: KafkaError| {
            Error::config("cannot create the Kafka consumer")
                .with_hint("check `[kafka]` and its properties")
                .with_source(source)
        };
        let mut config = client_config(&settings);
        if until_caught_up {
            // Tells the end of a partition whose last offsets hold no message (transactions, compaction).
            config.set("enable.partition.eof", "true");
        }
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(refuse)?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(refuse)?;
        let mut poller = Self {
            consumer: Arc::new(consumer),
            settings,
            health,
            metrics,
            clock,
            stop,
            stop_now,
            catching_up: None,
            paused: false,
            outside: false,
            looked_around_micros: 0,
        };
        if until_caught_up {
            let now_micros = poller.clock.now_micros();
            poller.catching_up = Some(CaughtUp::begin(&poller.consumer, &poller.settings, now_micros)?);
        }
        Ok(poller)
    }

    /// Tells the committing task the ids of topics.
    pub(crate) fn topic_ids(&self) -> ConsumerTopicIds {
        ConsumerTopicIds(Arc::downgrade(&self.consumer))
    }

    /// Asks where partitions end.
    pub(crate) fn asking(&self) -> Asking {
        let (topics, clock) = (self.settings.topics.clone(), Arc::clone(&self.clock));
        Asking { consumer: Arc::downgrade(&self.consumer), topics, clock }
    }

    /// Polls until told to stop, caught up, or failed.
    pub(crate) fn run(mut self) -> Result<()> {
        loop {
            if self.stop_now.is_cancelled() {
                return Ok(());
            }
            self.settle_answers()?;
            if self.stop.is_cancelled() || self.has_caught_up() {
                return self.drain();
            }
            self.flush_if_due()?;
            self.look_around();
            self.read()?;
            // Errors met inside a rebalance callback surface here.
            if let Some(error) = self.consumer.context().open().error.take() {
                return Err(error);
            }
        }
    }

    fn poll_time(&self) -> Duration {
        let open = self.consumer.context().open();
        let wait = open.since_micros.map_or(POLL, |since| {
            let interval = i64::try_from(self.settings.flush.interval.as_micros()).unwrap_or(i64::MAX);
            let left = since.saturating_add(interval).saturating_sub(self.clock.now_micros());
            Duration::from_micros(u64::try_from(left).unwrap_or(0))
        });
        // Never zero: a full batch that waits for storage would spin.
        wait.clamp(Duration::from_millis(1), POLL)
    }

    /// Waits for a message, and takes in those that wait behind it, while the batch has room: what else is to be done is
    /// then done once for all of them.
    fn read(&mut self) -> Result<()> {
        let mut burst = Burst::default();
        let mut wait = self.poll_time();
        while burst.messages < BURST_MESSAGES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if burst.now_micros == 0 {
                        burst.now_micros = self.clock.now_micros();
                    }
                    let full = self.take(&message, &mut burst);
                    if let (Some(catching_up), Some(place)) = (&mut self.catching_up, &burst.place) {
                        catching_up.note_message(place);
                    }
                    if full {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.trouble(&error)?;
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        self.note(&burst);
        Ok(())
    }

    /// Takes a message in; true when the batch is full.
    fn take(&self, message: &BorrowedMessage<'_>, burst: &mut Burst) -> bool {
        let context = self.consumer.context();
        let mut open = context.open();
        let now_micros = burst.now_micros;
        let place = burst.place(message);
        let taken = with_message(message, &place.topic, |message| open.take(place, message, now_micros));
        let full = open.is_full(&self.settings.flush);
        drop(open);
        if let Some(taken) = taken {
            burst.messages += 1;
            burst.bytes += message.payload_len() as u64;
            burst.gaps += u64::try_from(taken.gap).unwrap_or(0);
            if let Pushed::Quarantined(reason) = taken.pushed {
                burst.quarantined += 1;
                self.metrics.quarantined.with_label_values(&[reason]).inc();
            }
        }
        full
    }

    fn note(&self, burst: &Burst) {
        if burst.messages == 0 {
            return;
        }
        self.metrics.gaps.inc_by(burst.gaps);
        self.metrics.messages.inc_by(burst.messages);
        self.metrics.bytes.inc_by(burst.bytes);
        self.health.note(|status| {
            status.broker = None;
            status.messages += burst.messages;
            status.quarantined += burst.quarantined;
        });
    }

    /// Hands the open batch over when it is old or large enough; holds partitions back when storage is behind.
    fn flush_if_due(&mut self) -> Result<()> {
        let context = self.consumer.context();
        let mut open = context.open();
        self.metrics.held_bytes.set(i64::try_from(open.builder.bytes()).unwrap_or(i64::MAX));
        let (full, old) = open.due(&self.settings.flush, self.clock.now_micros());
        let waits = (full || old) && !open.hand_over()?;
        // Those that were there before are as they were, new ones are not held back.
        let reassigned = std::mem::take(&mut open.reassigned);
        drop(open);
        let hold_back = waits && full;
        if hold_back != self.paused || reassigned {
            self.hold_back(hold_back);
        }
        Ok(())
    }

    fn hold_back(&mut self, pause: bool) {
        let mut list = TopicPartitionList::new();
        for (place, position) in &self.consumer.context().open().positions {
            if !position.halted {
                list.add_partition(&place.topic, place.partition);
            }
        }
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        match done {
            Ok(()) => self.paused = pause,
            Err(error) => tracing::warn!(%error, pause, "cannot pause or resume partitions"),
        }
    }

    fn settle_answers(&self) -> Result<()> {
        let context = self.consumer.context();
        loop {
            let mut open = context.open();
            let answer = match open.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Error::bug("the commit task stopped unexpectedly")),
            };
            let report = open.settle(answer)?;
            drop(open);
            self.metrics.fenced.inc_by(report.fenced.len() as u64);
            self.store_offsets(&report.committed);
            for range in report.remade {
                let place = Place { topic: range.topic.into(), partition: range.partition };
                context.halt(&self.consumer, &place, RECREATED.to_owned());
            }
        }
        let fenced = context.open().take_fenced()?;
        fenced.iter().try_for_each(|(place, next)| self.seek(place, *next))
    }

    /// Kafka's own offsets: for lag tooling only, so a failure is no more than a note.
    fn store_offsets(&self, committed: &[PartitionRange]) {
        let mut list = TopicPartitionList::new();
        for range in committed {
            if let Err(error) = list.add_partition_offset(&range.topic, range.partition, Offset::Offset(range.next)) {
                tracing::debug!(%error, "cannot store an offset");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "cannot commit offsets to Kafka");
        }
    }

    /// Puts a partition that another owner has moved to where the table stands.
    fn seek(&self, place: &Place, next: Option<i64>) -> Result<()> {
        tracing::info!(topic = %place.topic, partition = place.partition, next, "fenced: another owner has committed");
        let offset = offset_from(next);
        self.consumer.seek(&place.topic, place.partition, offset, ASK_BROKER).map_err(|source| {
            Error::unavailable(format!("cannot rewind partition `{place}` to the offset that the table records"))
                .with_source(source)
        })
    }

    fn trouble(&mut self, error: &KafkaError) -> Result<()> {
        match error {
            KafkaError::PartitionEOF(partition) => {
                if let Some(catching_up) = &mut self.catching_up {
                    catching_up.note_end(*partition, self.consumer.context());
                }
                Ok(())
            }
            KafkaError::MessageConsumptionFatal(code) => {
                Err(Error::unavailable(format!("the Kafka client reported a fatal error: {code}"))
                    .with_hint("fix the cause that the log names, then restart"))
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.outside = !self.halt_those_outside_the_log();
                Ok(())
            }
            other => {
                tracing::warn!(error = %other, "Kafka consumer error; retrying");
                self.health.note(|status| status.broker = Some(other.to_string()));
                Ok(())
            }
        }
    }

    /// Halts each partition whose next offset the broker does not hold. The client has stopped reading one, and does not
    /// say which. Where that offset is held by now, it is read on: what it is of, the commit finds out. False where the
    /// broker did not answer for all of them.
    fn halt_those_outside_the_log(&self) -> bool {
        let context = self.consumer.context();
        let places: Vec<(Place, Option<i64>)> = context
            .open()
            .positions
            .iter()
            .filter(|(_, position)| !position.halted && !position.stale)
            .map(|(place, position)| (place.clone(), position.next))
            .collect();
        let mut all = true;
        for (place, next) in places {
            // Everything waits meanwhile: what is not told now is asked for later.
            let Ok((low, high)) = self.consumer.fetch_watermarks(&place.topic, place.partition, ASK_AGAIN) else {
                return false;
            };
            let Some(next) = next.filter(|next| !(low..=high).contains(next)) else {
                let offset = offset_from(next);
                // Refused where the client has stopped reading it.
                if self.consumer.seek(&place.topic, place.partition, offset, ASK_AGAIN).is_err() {
                    all &= self.begin_again(&place);
                }
                continue;
            };
            context.halt(
                &self.consumer,
                &place,
                format!(
                    "the next offset to read is {next}, but the broker holds {low} to {high}: messages were deleted \
                     before they were read, or the topic was recreated; to ingest the messages that are left, read \
                     the topic under another `kafka.job`"
                ),
            );
        }
        all
    }

    /// Has the client read a partition again that it has stopped reading; false where that cannot be.
    fn begin_again(&self, place: &Place) -> bool {
        tracing::info!(topic = %place.topic, partition = place.partition, "resuming a partition that the Kafka client had stopped reading");
        let done = self.consumer.context().begin_again(&self.consumer, place);
        if let Err(error) = &done {
            tracing::warn!(%error, partition = %place, "cannot resume the partition; retrying");
        }
        done.is_ok()
    }

    /// Asks a broker that was out of reach whether it is back, or what it did not answer. Lag comes with the client's
    /// statistics: asking for each partition's end would wait behind fetches, and hold up polling.
    fn look_around(&mut self) {
        let now_micros = self.clock.now_micros();
        let out_of_reach = self.health.status().broker.is_some();
        if now_micros - self.looked_around_micros < LOOK_AROUND_MICROS || !(out_of_reach || self.outside) {
            return;
        }
        self.outside = self.outside && !self.halt_those_outside_the_log();
        let topic = self.settings.topics.first().map(String::as_str);
        if out_of_reach && self.consumer.fetch_metadata(topic, ASK_AGAIN).is_ok() {
            self.health.note(|status| status.broker = None);
        }
        self.looked_around_micros = self.clock.now_micros();
    }

    /// True when all that was there at the start is in the tables, which are then told so.
    fn has_caught_up(&mut self) -> bool {
        let context = self.consumer.context();
        let Some(catching_up) = self.catching_up.as_mut().filter(|_| !self.stop.is_cancelled()) else { return false };
        let done = catching_up.is_done(context);
        if done {
            context.open().note_caught_up(catching_up.begun_micros);
        }
        done
    }

    /// Hands over what is open, waits for its commit, and leaves.
    fn drain(mut self) -> Result<()> {
        let deadline = self.clock.now_micros() + DRAIN_MICROS;
        loop {
            self.settle_answers()?;
            let mut open = self.consumer.context().open();
            let empty = open.all_settled()?;
            drop(open);
            if empty {
                break;
            }
            if self.clock.now_micros() > deadline || self.stop_now.is_cancelled() {
                tracing::warn!("stopping before all batches are committed; the next start reads them again");
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.catching_up = None;
        self.consumer.unsubscribe();
        Ok(())
    }
}

// === impl Burst ===

impl Burst {
    /// The place of a message, which mostly is that of the one before.
    fn place(&mut self, message: &BorrowedMessage<'_>) -> &Place {
        let (topic, partition) = (message.topic(), message.partition());
        let place = self.place.take().filter(|place| place.partition == partition && &*place.topic == topic);
        self.place.insert(place.unwrap_or_else(|| Place { topic: topic.into(), partition }))
    }
}

/// Borrows a Kafka message, which is of this topic, as the decoder wants it.
fn with_message<T>(message: &BorrowedMessage<'_>, topic: &str, read: impl FnOnce(&Message<'_>) -> T) -> T {
    let mut envelope = Envelope::default();
    let mut content_type = None;
    let mut unreadable_header = None;
    if let Some(headers) = message.headers() {
        for header in headers.iter() {
            let (name, place) = match header.key {
                "ce_id" => ("ce_id", &mut envelope.id),
                "ce_source" => ("ce_source", &mut envelope.source),
                "ce_type" => ("ce_type", &mut envelope.event_type),
                "ce_time" => ("ce_time", &mut envelope.time),
                "ce_subject" => ("ce_subject", &mut envelope.subject),
                other if other.eq_ignore_ascii_case("content-type") => ("content-type", &mut content_type),
                _ => continue,
            };
            match header.value.map(std::str::from_utf8) {
                Some(Ok(value)) => *place = Some(value),
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

/// True for what the client reports as an error and is none.
fn is_no_trouble(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) || matches!(error, KafkaError::PartitionEOF(_))
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // The client reports the end of a partition the way it reports trouble; polling gets it as well, as news.
        if is_no_trouble(&error) {
            return;
        }
        tracing::warn!(%error, reason, "Kafka client error");
        self.health.note(|status| status.broker = Some(format!("{error}: {reason}")));
    }

    fn stats(&self, statistics: Statistics) {
        let (mut behind, mut assigned) = (0, 0);
        let mut open = self.open();
        for (topic, partition, ends) in statistics
            .topics
            .iter()
            .flat_map(|(topic, known)| known.partitions.iter().map(move |(id, partition)| (topic, *id, partition)))
        {
            let place = Place { topic: topic.as_str().into(), partition };
            let Some(position) = open.positions.get(&place).copied() else { continue };
            assigned += 1;
            // The queue is that of all partitions: whatever was fetched of this one has been handed over where it is empty.
            open.note_fetched(&place, ends.next_offset, ends.fetchq_cnt == 0);
            // A negative offset is one that the client does not know yet.
            if ends.hi_offset < 0 {
                continue;
            }
            let lag = (ends.hi_offset - position.committed.unwrap_or_else(|| ends.lo_offset.max(0))).max(0);
            behind += lag;
            self.metrics.lag.with_label_values(&[&*place.topic, &place.partition.to_string()]).set(lag);
        }
        drop(open);
        self.health.note(|status| {
            status.behind = behind;
            status.assigned = assigned;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_no_trouble_however_it_is_reported() {
        assert!(is_no_trouble(&KafkaError::PartitionEOF(3)));
        assert!(is_no_trouble(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF)));
        assert!(is_no_trouble(&KafkaError::MessageConsumption(RDKafkaErrorCode::PartitionEOF)));
        assert!(!is_no_trouble(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)));
        assert!(!is_no_trouble(&KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)));
    }
}
