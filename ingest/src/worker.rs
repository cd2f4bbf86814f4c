//! The ingest role: a polling thread that decodes, and a task that commits.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bellwether_base::{Clock, Error, Result};
use bellwether_event::Limits;
use bellwether_lake::{CommitLog, Handover, Lake};
use bellwether_tables::Table;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::commit_pipeline::{Batch, CommitReport, Committer, Observer};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::source::kafka::context::Assigner;
use crate::source::kafka::settings::KafkaSettings;
use crate::source::kafka::{Orders, Poller, Wires};
use crate::source::open_batch::Answer;

/// Everything the role works with.
#[derive(Clone)]
pub struct Ingest {
    /// The tables.
    pub lake: Lake,
    /// What to read.
    pub kafka: KafkaSettings,
    /// Limits of a message.
    pub limits: Limits,
    /// Passes rows to an aggregator in the same process.
    pub handover: Option<Handover>,
    /// Counters.
    pub metrics: Metrics,
    /// What the role says of itself.
    pub health: Health,
}

/// What the role did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows committed to `events`.
    pub rows_committed: u64,
    /// Messages rejected.
    pub quarantined: u64,
    /// Partitions that were halted.
    pub halted: usize,
}

/// Tells counters and health what the committer does.
pub struct Watch {
    /// Counters.
    pub metrics: Metrics,
    /// What the role says of itself.
    pub health: Health,
    /// Dates the last commit.
    pub clock: Arc<dyn Clock>,
}

impl Observer for Watch {
    fn retrying(&self, what: &'static str, reason: &str) {
        tracing::warn!(what, reason, "storage request failed or its outcome is unknown; retrying");
        self.metrics.retries.with_label_values(&[what]).inc();
        self.health.note(|status| status.storage = Some(format!("{what}: {reason}")));
    }

    #[expect(clippy::cast_precision_loss, reason = "a histogram counts in floats")]
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
    /// Reads until `stop` is cancelled, then commits what was read and returns; `stop_now` returns at once. With
    /// `until_caught_up`, returns when all that was there at the start is in the tables.
    ///
    /// # Errors
    /// `Config` for settings that cannot work; `Unavailable` where the Kafka client gives up; `Data` and `Bug` where no
    /// waiting can help. An unreachable broker or store is waited for.
    pub async fn run(
        self,
        stop: CancellationToken,
        stop_now: CancellationToken,
        until_caught_up: bool,
    ) -> Result<Summary> {
        self.kafka.validate()?;
        let clock = self.lake.clock();
        let observer =
            Arc::new(Watch { metrics: self.metrics.clone(), health: self.health.clone(), clock: Arc::clone(&clock) });
        let handed_on = self.handover.as_ref().map_or(&[] as &[_], Handover::columns);
        let committer = Committer::for_lake(&self.lake, &*self.kafka.job, self.handover, observer, stop_now.clone());
        let (batches, waiting) = tokio::sync::mpsc::channel(self.kafka.flush.channel_batches);
        let (answer, answers) = channel();
        let assigner = Assigner {
            log: Arc::new(self.lake.log(Table::Events)) as Arc<dyn CommitLog>,
            job: self.kafka.job.clone(),
            runtime: Handle::current(),
            start: self.kafka.start,
        };
        let health = self.health.clone();
        let stop_asking = stop.child_token();
        let orders = Orders {
            settings: self.kafka,
            limits: self.limits,
            handed_on,
            health: self.health,
            metrics: self.metrics.clone(),
            clock: Arc::clone(&clock),
            stop,
            stop_now,
            until_caught_up,
        };
        let wires = Wires { batches, answers };
        let stopped = |source| Error::bug("the polling thread stopped unexpectedly").with_source(source);
        let starting = tokio::task::spawn_blocking(move || Poller::start(orders, wires, assigner));
        let poller = starting.await.map_err(stopped)??;
        let committer = committer.with_topic_ids(Arc::new(poller.topic_ids()));
        let asking = poller.asking().run(stop_asking.clone());
        let committing = commit_all(committer, waiting, answer, self.metrics, clock);
        let polling = async {
            let polled = tokio::task::spawn_blocking(move || poller.run()).await;
            stop_asking.cancel();
            polled
        };
        // All of them are waited for: the client leaves its group when the last one lets go of it.
        let (polled, (), ()) = tokio::join!(polling, committing, asking);
        polled.map_err(stopped)??;
        let status = health.status();
        Ok(Summary {
            rows_committed: status.rows_committed,
            quarantined: status.quarantined,
            halted: status.halted.len(),
        })
    }
}

/// Commits batches in their order until the poller is gone.
#[expect(clippy::cast_precision_loss, reason = "a histogram counts in floats")]
pub async fn commit_all(
    mut committer: Committer,
    mut batches: Receiver<Batch>,
    answers: Sender<Answer>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
) {
    while let Some(batch) = batches.recv().await {
        let started = clock.now_micros();
        let answer = match committer.commit(batch).await {
            Ok(report) => Answer::Done(report),
            Err(error) => Answer::Failed(error),
        };
        metrics.commit_seconds.observe((clock.now_micros() - started) as f64 / 1e6);
        let failed = matches!(answer, Answer::Failed(_));
        if answers.send(answer).is_err() || failed {
            return;
        }
    }
}
