//! The Kafka source: one thread that polls and decodes, and never waits for storage.
//!
//! * The thread polls, decodes each message in place, and hands finished batches to the commit task through a bounded channel.
//!   When the channel is full, it pauses its partitions and keeps polling.
//! * A partition starts at the offset recorded in `events`, which the rebalance callback reads from storage. Kafka's own offsets
//!   are committed for lag tooling only.
//! * A task beside the thread (`end_offsets`) polls end offsets, so that the tables can record up to when each partition is
//!   read. `starts` records the start offsets of topics that are not read from their beginning.
//! * A partition that cannot be read correctly, because its offset is outside the log or its topic was recreated, is halted with
//!   an error, and the others go on.

pub mod settings;

mod caught_up;
mod client_events;
pub(crate) mod context;
pub(crate) mod end_offsets;
mod message;
mod starts;
mod topic_id;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bellwether_base::{Clock, Error, Result};
use bellwether_event::Limits;
use bellwether_lake::PartitionRange;
use bellwether_redact::Redactor;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::Batch;
use crate::health::IngestHealth;
use crate::login::keep_logged_in;
use crate::metrics::IngestMetrics;
use crate::source::open_batch::{CommitReply, OpenBatch};
use crate::topic_partition::TopicPartition;
use caught_up::CaughtUp;
use context::{Assigner, Context, RECREATED, offset_from};
use end_offsets::EndOffsetPoller;
use message::{Burst, with_message};
use settings::KafkaSettings;
use topic_id::ConsumerTopicIds;

/// Longest wait of one poll. It limits the delay before a stop or a reply is noticed.
const POLL: Duration = Duration::from_millis(50);

/// Timeout of requests for metadata and end offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of requests that block polling and are repeated later.
const SHORT_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between checks whether an unreachable broker is back.
const BROKER_CHECK_MICROS: i64 = 2_000_000;

/// Most messages taken before other work is checked: a fraction of a millisecond.
const BURST_MESSAGES: u64 = 256;

/// Longest wait for the last commits on shutdown: below the default session timeout of 45 s.
const DRAIN_MICROS: i64 = 20_000_000;

/// Longest wait for the group's answer on shutdown. The first one takes 3 s by the broker's default
/// (`group.initial.rebalance.delay.ms`).
const JOIN_MICROS: i64 = 6_000_000;

/// The polling thread.
pub(crate) struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    settings: KafkaSettings,
    health: IngestHealth,
    metrics: IngestMetrics,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    stop_now: CancellationToken,
    /// The offsets to reach, if the worker stops once it has caught up.
    catching_up: Option<CaughtUp>,
    paused: bool,
    /// The client has stopped reading a partition because the broker does not hold its offset, and it is not yet known which.
    outside_log: bool,
    checked_broker_micros: i64,
}

/// The channels between the polling thread and the commit task.
pub(crate) struct CommitChannels {
    pub(crate) batches: Sender<Batch>,
    pub(crate) replies: Receiver<CommitReply>,
}

/// The dependencies and settings of the polling thread.
pub(crate) struct PollerOptions {
    pub(crate) settings: KafkaSettings,
    pub(crate) limits: Limits,
    pub(crate) redactor: Arc<Redactor>,
    /// Columns of `events` for an aggregator in the same process.
    pub(crate) handed_on: &'static [&'static str],
    pub(crate) health: IngestHealth,
    pub(crate) metrics: IngestMetrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    pub(crate) until_caught_up: bool,
}

/// Returns the configuration of a Kafka client for this source; connection checks use it too.
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
    pub(crate) fn start(options: PollerOptions, channels: CommitChannels, assigner: Assigner) -> Result<Self> {
        let PollerOptions {
            settings,
            limits,
            redactor,
            handed_on,
            health,
            metrics,
            clock,
            stop,
            stop_now,
            until_caught_up,
        } = options;
        let builder = BatchBuilder::new(limits).redacting(redactor).handing_on(handed_on)?;
        let open = OpenBatch::new(builder, channels.batches, channels.replies, settings.flush.channel_batches);
        let context = Context::new(open, assigner, health.clone(), metrics.clone(), Arc::clone(&clock));
        let refuse = |source: KafkaError| {
            Error::config("cannot create the Kafka consumer")
                .with_hint("check `[kafka]` and its properties")
                .with_source(source)
        };
        let mut config = client_config(&settings);
        if until_caught_up {
            // Detects the end of a partition even if its last offsets hold no message (transactions, compaction).
            config.set("enable.partition.eof", "true");
        }
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(config.create_with_context(context).map_err(refuse)?);
        keep_logged_in(&consumer, settings.login.as_ref())?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(refuse)?;
        let mut poller = Self {
            consumer,
            settings,
            health,
            metrics,
            clock,
            stop,
            stop_now,
            catching_up: None,
            paused: false,
            outside_log: false,
            checked_broker_micros: 0,
        };
        if until_caught_up {
            let now_micros = poller.clock.now_micros();
            poller.catching_up = Some(CaughtUp::begin(&poller.consumer, &poller.settings, now_micros)?);
        }
        Ok(poller)
    }

    /// Returns a lookup of topic ids for the commit task.
    pub(crate) fn topic_ids(&self) -> ConsumerTopicIds {
        ConsumerTopicIds(Arc::downgrade(&self.consumer))
    }

    /// Returns the task that polls end offsets.
    pub(crate) fn end_offsets(&self) -> EndOffsetPoller {
        let (topics, clock) = (self.settings.topics.clone(), Arc::clone(&self.clock));
        EndOffsetPoller { consumer: Arc::downgrade(&self.consumer), topics, clock }
    }

    /// Polls until it is stopped, has caught up, or fails.
    pub(crate) fn run(mut self) -> Result<()> {
        loop {
            if self.stop_now.is_cancelled() {
                return Ok(());
            }
            self.settle_replies()?;
            if self.stop.is_cancelled() || self.has_caught_up() {
                return self.drain();
            }
            self.flush_if_due()?;
            self.check_broker();
            self.read()?;
            // A rebalance callback leaves its error here.
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
        // Never zero: the thread would spin while a full batch waits for storage.
        wait.clamp(Duration::from_millis(1), POLL)
    }

    /// Waits for a message and takes the messages queued behind it, up to a burst, so that all other work is done once a burst.
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
                    if let (Some(catching_up), Some(topic_partition)) = (&mut self.catching_up, &burst.topic_partition)
                    {
                        catching_up.note_message(topic_partition);
                    }
                    if full {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.handle_error(&error)?;
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        self.note(&burst);
        Ok(())
    }

    /// Takes a message, and returns true if the batch is full.
    fn take(&self, message: &BorrowedMessage<'_>, burst: &mut Burst) -> bool {
        let context = self.consumer.context();
        let mut open = context.open();
        let now_micros = burst.now_micros;
        let topic_partition = burst.topic_partition(message);
        let taken =
            with_message(message, &topic_partition.topic, |message| open.take(topic_partition, message, now_micros));
        let full = open.is_full(&self.settings.flush);
        drop(open);
        if let Some(taken) = taken {
            burst.messages += 1;
            burst.bytes += message.payload_len() as u64;
            burst.gaps += u64::try_from(taken.gap).unwrap_or(0);
            if let Some(Pushed::Quarantined(reason)) = taken.pushed {
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

    /// Hands over the open batch if it is full or old, and pauses partitions while storage is behind.
    fn flush_if_due(&mut self) -> Result<()> {
        let context = self.consumer.context();
        let mut open = context.open();
        self.metrics.held_bytes.set(i64::try_from(open.builder.bytes()).unwrap_or(i64::MAX));
        let (full, old) = open.due(&self.settings.flush, self.clock.now_micros());
        let waits = (full || old) && !open.hand_over()?;
        // New partitions are not paused, and the others keep their state.
        let reassigned = std::mem::take(&mut open.reassigned);
        drop(open);
        let pause = waits && full;
        if pause != self.paused || reassigned {
            self.set_paused(pause);
        }
        Ok(())
    }

    fn set_paused(&mut self, pause: bool) {
        let mut list = TopicPartitionList::new();
        for (topic_partition, position) in &self.consumer.context().open().positions {
            if !position.halted {
                list.add_partition(&topic_partition.topic, topic_partition.partition);
            }
        }
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        match done {
            Ok(()) => self.paused = pause,
            Err(error) => tracing::warn!(%error, pause, "cannot pause or resume partitions"),
        }
    }

    fn settle_replies(&self) -> Result<()> {
        let context = self.consumer.context();
        loop {
            let mut open = context.open();
            let reply = match open.replies.try_recv() {
                Ok(reply) => reply,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Error::bug("the commit task stopped unexpectedly")),
            };
            let report = open.settle(reply)?;
            drop(open);
            self.metrics.fenced.inc_by(report.fenced.len() as u64);
            self.store_offsets(&report.committed);
            for range in report.recreated {
                let topic_partition = TopicPartition::new(&range.topic, range.partition);
                context.halt(&self.consumer, &topic_partition, RECREATED.to_owned());
            }
        }
        let fenced = context.open().take_rewinds()?;
        fenced.iter().try_for_each(|(topic_partition, next)| self.seek(topic_partition, *next))
    }

    /// Commits offsets to Kafka. Only lag tooling reads them, so failures are only logged.
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

    /// Rewinds a fenced partition to the recorded offset.
    fn seek(&self, topic_partition: &TopicPartition, next: Option<i64>) -> Result<()> {
        tracing::info!(topic = %topic_partition.topic, partition = topic_partition.partition, next, "fenced: another owner has committed");
        let offset = offset_from(next);
        self.consumer.seek(&topic_partition.topic, topic_partition.partition, offset, REQUEST_TIMEOUT).map_err(
            |source| {
                Error::unavailable(format!(
                    "cannot rewind partition `{topic_partition}` to the offset that the table records"
                ))
                .with_source(source)
            },
        )
    }

    fn handle_error(&mut self, error: &KafkaError) -> Result<()> {
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
                self.outside_log = !self.halt_partitions_outside_log();
                Ok(())
            }
            other => {
                tracing::warn!(error = %other, "Kafka consumer error; retrying");
                self.health.note(|status| status.broker = Some(other.to_string()));
                Ok(())
            }
        }
    }

    /// Halts each partition with a next offset outside the broker's log. The client has stopped reading such a partition without
    /// naming it. A partition with an offset inside the log by now is resumed; the commit checks that its topic is the same.
    /// Returns false if the broker did not reply for every partition.
    fn halt_partitions_outside_log(&self) -> bool {
        let context = self.consumer.context();
        let partitions: Vec<(TopicPartition, Option<i64>)> = context
            .open()
            .positions
            .iter()
            .filter(|(_, position)| !position.halted && !position.fenced)
            .map(|(topic_partition, position)| (topic_partition.clone(), position.next))
            .collect();
        let mut all = true;
        for (topic_partition, next) in partitions {
            // This blocks polling, so a missing reply is requested again later.
            let Ok((low, high)) = self.consumer.fetch_watermarks(
                &topic_partition.topic,
                topic_partition.partition,
                SHORT_REQUEST_TIMEOUT,
            ) else {
                return false;
            };
            let Some(next) = next.filter(|next| !(low..=high).contains(next)) else {
                let offset = offset_from(next);
                // The client refuses to seek in a partition that it has stopped reading.
                if self
                    .consumer
                    .seek(&topic_partition.topic, topic_partition.partition, offset, SHORT_REQUEST_TIMEOUT)
                    .is_err()
                {
                    all &= self.restart_partition(&topic_partition);
                }
                continue;
            };
            context.halt(
                &self.consumer,
                &topic_partition,
                format!(
                    "the next offset to read is {next}, but the broker holds {low} to {high}: messages were deleted \
                     before they were read, or the topic was recreated; to ingest the messages that are left, read \
                     the topic under another `kafka.job`"
                ),
            );
        }
        all
    }

    /// Makes the client resume a partition that it has stopped reading, and returns whether that succeeded.
    fn restart_partition(&self, topic_partition: &TopicPartition) -> bool {
        tracing::info!(topic = %topic_partition.topic, partition = topic_partition.partition, "resuming a partition that the Kafka client had stopped reading");
        let done = self.consumer.context().restart_partition(&self.consumer, topic_partition);
        if let Err(error) = &done {
            tracing::warn!(%error, partition = %topic_partition, "cannot resume the partition; retrying");
        }
        done.is_ok()
    }

    /// Checks whether an unreachable broker is back, and repeats the search for partitions outside the log. Lag comes from the
    /// client's statistics, because requests for end offsets would wait behind fetches and block polling.
    fn check_broker(&mut self) {
        let now_micros = self.clock.now_micros();
        let unreachable = self.health.status().broker.is_some();
        if now_micros - self.checked_broker_micros < BROKER_CHECK_MICROS || !(unreachable || self.outside_log) {
            return;
        }
        self.outside_log = self.outside_log && !self.halt_partitions_outside_log();
        let topic = self.settings.topics.first().map(String::as_str);
        if unreachable && self.consumer.fetch_metadata(topic, SHORT_REQUEST_TIMEOUT).is_ok() {
            self.health.note(|status| status.broker = None);
        }
        self.checked_broker_micros = self.clock.now_micros();
    }

    /// Returns true if the tables hold every message that existed at the start, and records that.
    fn has_caught_up(&mut self) -> bool {
        let context = self.consumer.context();
        let Some(catching_up) = self.catching_up.as_mut().filter(|_| !self.stop.is_cancelled()) else { return false };
        let done = catching_up.is_done(context);
        if done {
            context.open().note_caught_up(catching_up.begun_micros);
        }
        done
    }

    /// Hands over the open batch, waits for its commit, and leaves the group.
    fn drain(mut self) -> Result<()> {
        let deadline = self.clock.now_micros() + DRAIN_MICROS;
        loop {
            self.settle_replies()?;
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
        self.finish_joining();
        self.consumer.unsubscribe();
        Ok(())
    }

    /// Waits until the group has answered. A broker handles the requests of a connection in order, so it would never see that a
    /// client leaves that still waits for its partitions: to the group it would be a member, and the next worker would wait
    /// for it, up to `max.poll.interval.ms`.
    fn finish_joining(&self) {
        let deadline = self.clock.now_micros() + JOIN_MICROS;
        let is_reachable = || self.health.status().broker.is_none();
        while self.consumer.context().is_joining()
            && is_reachable()
            && !self.stop_now.is_cancelled()
            && self.clock.now_micros() < deadline
        {
            // A message is dropped: no table has it, so the next worker reads it.
            drop(self.consumer.poll(POLL));
        }
    }
}
