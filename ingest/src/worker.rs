//! The ingest role: a polling thread that decodes messages, and a task that commits batches.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bellwether_base::{Clock, Error, Result};
use bellwether_event::Limits;
use bellwether_lake::{CommitLog, Handover, Lake};
use bellwether_redact::Redactor;
use bellwether_tables::Table;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::commit_pipeline::{Batch, CommitReport, Committer, Observer};
use crate::health::IngestHealth;
use crate::metrics::IngestMetrics;
use crate::source::kafka::context::Assigner;
use crate::source::kafka::settings::KafkaSettings;
use crate::source::kafka::{CommitChannels, Poller, PollerOptions};
use crate::source::open_batch::CommitReply;

/// The ingest role and its dependencies.
#[derive(Clone)]
pub struct Ingest {
    pub lake: Lake,
    pub kafka: KafkaSettings,
    pub limits: Limits,
    pub redactor: Arc<Redactor>,
    /// Passes rows to an aggregator in the same process.
    pub handover: Option<Handover>,
    pub metrics: IngestMetrics,
    pub health: IngestHealth,
}

/// The totals of a run of the role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows committed to `events`.
    pub rows_committed: u64,
    /// Messages rejected.
    pub quarantined: u64,
    /// Partitions that were halted.
    pub halted: usize,
}

/// Updates metrics and health as the committer progresses.
pub struct CommitObserver {
    pub metrics: IngestMetrics,
    pub health: IngestHealth,
    /// Gives the time of the last commit.
    pub clock: Arc<dyn Clock>,
}

impl Observer for CommitObserver {
    fn retrying(&self, step: &'static str, reason: &str) {
        tracing::warn!(what = step, reason, "storage request failed or its outcome is unknown; retrying");
        self.metrics.retries.with_label_values(&[step]).inc();
        self.health.note(|status| status.storage = Some(format!("{step}: {reason}")));
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms take floats")]
    fn committed(&self, report: &CommitReport) {
        let rows = u64::try_from(report.event_rows).unwrap_or(0);
        self.metrics.rows_committed.inc_by(rows);
        self.metrics.commit_rows.observe(report.event_rows as f64);
        let now_micros = self.clock.now_micros();
        self.health.note(|status| {
            status.storage = None;
            status.committed_micros = Some(now_micros);
            status.rows_committed += rows;
        });
    }
}

// === impl Ingest ===

impl Ingest {
    /// Reads until `stop` is cancelled, then commits the open batch and returns; `stop_now` returns at once. With
    /// `until_caught_up`, returns when every message that the topics held at the start is in the tables.
    ///
    /// # Errors
    /// `Config` for invalid settings; `Unavailable` if the Kafka client reports a fatal error; `Data` and `Bug` if retrying
    /// cannot help. The role waits for an unreachable broker or store.
    pub async fn run(
        self,
        stop: CancellationToken,
        stop_now: CancellationToken,
        until_caught_up: bool,
    ) -> Result<Summary> {
        self.kafka.validate()?;
        let clock = self.lake.clock();
        let observer = Arc::new(CommitObserver {
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            clock: Arc::clone(&clock),
        });
        let handed_on = self.handover.as_ref().map_or(&[] as &[_], Handover::columns);
        let committer = Committer::for_lake(&self.lake, &*self.kafka.job, self.handover, observer, stop_now.clone());
        let (batches, waiting) = tokio::sync::mpsc::channel(self.kafka.flush.channel_batches);
        let (reply_sender, replies) = channel();
        let assigner = Assigner {
            log: Arc::new(self.lake.log(Table::Events)) as Arc<dyn CommitLog>,
            job: self.kafka.job.clone(),
            runtime: Handle::current(),
            start: self.kafka.start,
        };
        let health = self.health.clone();
        let stop_end_offsets = stop.child_token();
        let options = PollerOptions {
            settings: self.kafka,
            limits: self.limits,
            redactor: self.redactor,
            handed_on,
            health: self.health,
            metrics: self.metrics.clone(),
            clock: Arc::clone(&clock),
            stop,
            stop_now,
            until_caught_up,
        };
        let channels = CommitChannels { batches, replies };
        let stopped = |source| Error::bug("the polling thread stopped unexpectedly").with_source(source);
        let starting = tokio::task::spawn_blocking(move || Poller::start(options, channels, assigner));
        let poller = starting.await.map_err(stopped)??;
        let committer = committer.with_topic_ids(Arc::new(poller.topic_ids()));
        let end_offsets = poller.end_offsets().run(stop_end_offsets.clone());
        let committing = commit_all(committer, waiting, reply_sender, self.metrics, clock);
        let polling = async {
            let polled = tokio::task::spawn_blocking(move || poller.run()).await;
            stop_end_offsets.cancel();
            polled
        };
        // Wait for all of them: the client leaves its group when the last reference to it is dropped.
        let (polled, (), ()) = tokio::join!(polling, committing, end_offsets);
        polled.map_err(stopped)??;
        let status = health.status();
        Ok(Summary {
            rows_committed: status.rows_committed,
            quarantined: status.quarantined,
            halted: status.halted.len(),
        })
    }
}

/// Commits batches in order until the poller is gone.
#[expect(clippy::cast_precision_loss, reason = "histograms take floats")]
pub async fn commit_all(
    mut committer: Committer,
    mut batches: Receiver<Batch>,
    replies: Sender<CommitReply>,
    metrics: IngestMetrics,
    clock: Arc<dyn Clock>,
) {
    while let Some(batch) = batches.recv().await {
        let started = clock.now_micros();
        let reply = match committer.commit(batch).await {
            Ok(report) => CommitReply::Done(report),
            Err(error) => CommitReply::Failed(error),
        };
        metrics.commit_seconds.observe((clock.now_micros() - started) as f64 / 1e6);
        let failed = matches!(reply, CommitReply::Failed(_));
        if replies.send(reply).is_err() || failed {
            return;
        }
    }
}
