//! The role: follows `alerts` by version, commits to `deliveries` what is to be sent and what became of it, and sends it.
//!
//! Rules: nothing is sent before the row that plans it is committed. A process that another one has overtaken commits nothing, and
//! sends nothing either: it looks before each message. State is a function of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Backoff, Error, Result};
use bellwether_evidence::{AlertRecord, Links};
use bellwether_follow::{Append, Cursor, FollowHealth, Follower, Runner, Step, Until};
use bellwether_lake::{Advance, CommitLog, Lake, LogEntry, Snapshot};
use bellwether_sinks::{Failure, Sink};
use bellwether_tables::{AppId, Table};
use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus::Registry;
use serde_json::Map;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::builds::Builds;
use crate::destination::{DestinationId, micros};
use crate::hands::Hands;
use crate::metrics::Metrics;
use crate::outbox::{self, DeliveryRow};
use crate::page::PageBuilder;
use crate::planner::{Outcome, Planner, Resend};
use crate::send::{Sent, send};
use crate::settings::DeliverSettings;

/// Most log entries of `alerts` that one step reads.
const MOST_VERSIONS: usize = 256;

/// Pauses between attempts: the first one is short enough for a hiccup, and the longest one lets the end of an outage be noticed
/// within a minute.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Everything that the role works with.
#[derive(Clone)]
pub struct Deliver {
    pub settings: DeliverSettings,
    pub lake: Lake,
    /// Sinks by name, as in the settings.
    pub sinks: BTreeMap<String, Arc<dyn Sink>>,
    pub builder: Arc<dyn PageBuilder>,
    /// Links of every page, also of one without evidence.
    pub links: Links,
    pub hands: Arc<dyn Hands>,
    /// Condition of the role, for the process's health report.
    pub health: FollowHealth,
    /// Time between two looks for new transitions.
    pub interval: Duration,
    /// Records in `deliveries` how far `alerts` was read: heartbeats wait for that.
    pub record_progress: bool,
}

/// The setup that deliverers are opened from, one after another.
pub struct DeliverSetup {
    deliver: Deliver,
    metrics: Metrics,
}

/// The deliverer and its state.
pub struct Deliverer {
    deliver: Deliver,
    metrics: Metrics,
    planner: Planner,
    alerts: Cursor,
    releases: Announcer,
    /// `deliveries` as of the last commit.
    on: Snapshot,
    /// Rows to commit, and the evaluation that was last committed.
    rows: Vec<DeliveryRow>,
    position: Option<i64>,
    under_way: JoinSet<Sent>,
    evidence: Builds,
    /// Wakes the role when a message has a result or a build has ended.
    answered: Arc<Notify>,
    destination_pauses: BTreeMap<DestinationId, Backoff>,
    sink_pauses: BTreeMap<String, Backoff>,
    /// Another process has worked since the state was built.
    has_stood_by: bool,
}

/// Runs the role until it is stopped, or until `until` says.
///
/// # Errors
/// `Data` or `Bug` if no waiting can help. Unavailable storage and failing sinks are waited for.
pub async fn run(deliver: Deliver, registry: Registry, until: Until, stop: CancellationToken) -> Result<()> {
    for warning in deliver.settings.warnings() {
        tracing::warn!(warning, "the configuration of deliveries is allowed, but hardly meant");
    }
    let setup = DeliverSetup::new(deliver, &registry)?;
    let deliver = &setup.deliver;
    let runner = Runner {
        health: deliver.health.clone(),
        interval: deliver.interval,
        lease: Some(deliver.lake.lease(&AppId::Deliver.to_string())),
        until,
        stop,
        ..Runner::new("deliver", deliver.lake.clock(), setup.metrics.follow.clone())
    };
    runner.run::<Deliverer>(&setup).await
}

// === impl DeliverSetup ===

impl DeliverSetup {
    /// Makes a setup.
    ///
    /// # Errors
    /// `Bug` if its metrics are registered already.
    pub fn new(deliver: Deliver, registry: &Registry) -> Result<Self> {
        Ok(Self { metrics: Metrics::register(registry, deliver.sinks.keys())?, deliver })
    }
}

// === impl Deliverer ===

#[async_trait]
impl Follower for Deliverer {
    type Setup = DeliverSetup;

    async fn open(setup: &DeliverSetup) -> Result<Self> {
        let deliver = setup.deliver.clone();
        let lake = &deliver.lake;
        let on = lake.log(Table::Deliveries).load().await?;
        let position = on.next(&AppId::Delivered.to_string());
        let deliveries = outbox::load(lake).await?;
        let (version, alerts) = all_alerts(lake).await?;
        let again = |sink: &dyn Sink| Resend {
            every: sink.resend_every(),
            ended_for: sink.resend_ended_for(),
            late_evidence: sink.takes_late_evidence(),
        };
        let sinks = deliver.sinks.iter().map(|(name, sink)| (name.clone(), again(&**sink)));
        let mut planner = Planner::new(deliver.settings.clone(), sinks).with_links(deliver.links.clone());
        let rows = planner.restore(&deliveries, &alerts, position, lake.clock().now_micros())?;
        let answered: Arc<Notify> = Arc::default();
        Ok(Self {
            metrics: setup.metrics.clone(),
            planner,
            alerts: Cursor::new(lake.log(Table::Alerts), version + 1),
            releases: Announcer::open(&deliver).await?,
            on,
            rows,
            position,
            under_way: JoinSet::new(),
            evidence: Builds::new(Arc::clone(&deliver.builder), lake.clock(), Arc::clone(&answered)),
            answered,
            destination_pauses: BTreeMap::new(),
            sink_pauses: BTreeMap::new(),
            has_stood_by: false,
            deliver,
        })
    }

    async fn step(&mut self) -> Result<Step> {
        if self.has_stood_by {
            return Ok(Step::Reopen("another process has delivered until now".to_owned()));
        }
        let clock = self.deliver.lake.clock();
        let has_read = match self.read().await {
            Err(error) if error.kind() == bellwether_base::ErrorKind::Data => {
                return Ok(Step::Reopen(format!("new rows of `alerts` cannot be read by version: {}", error.chain())));
            }
            read => read?,
        };
        self.collect()?;
        let silences = self.deliver.hands.now().await?;
        let planned = self.planner.plan(clock.now_micros(), &*silences);
        self.rows.extend(planned);
        self.commit().await?;
        let has_sent = self.dispatch().await?;
        self.evidence.follow(&self.planner);
        self.releases.step(&self.deliver).await?;
        self.report();
        let is_idle = self.planner.in_flight() == 0 && !self.evidence.are_under_way();
        if has_read || has_sent || is_idle {
            return Ok(if has_read || has_sent { Step::More } else { Step::CaughtUp });
        }
        // Something is under way: its result is more to take in.
        tokio::select! {
            biased; // A result before waiting.
            () = self.answered.notified() => {}
            () = clock.sleep(self.deliver.interval) => {}
        }
        Ok(Step::More)
    }

    async fn stand_by(&mut self) -> Result<()> {
        self.has_stood_by = true;
        Ok(())
    }

    fn woken(&self) -> BoxFuture<'static, ()> {
        let answered = Arc::clone(&self.answered);
        async move { answered.notified().await }.boxed()
    }

    fn next_version(&self) -> i64 {
        self.alerts.next_version()
    }
}

impl Deliverer {
    /// Reads the new rows of `alerts`. Returns true if there may be more.
    async fn read(&mut self) -> Result<bool> {
        let entries = self.alerts.entries(0, MOST_VERSIONS).await?;
        for entry in &entries {
            let rows = rows_of(&self.deliver.lake, entry).await?;
            self.planner.take(&rows)?;
            self.alerts.advance_to(entry.version + 1);
        }
        Ok(entries.len() == MOST_VERSIONS)
    }

    /// Takes in the results of messages, and pages whose evidence has been built.
    fn collect(&mut self) -> Result<()> {
        for completed in self.evidence.completed() {
            self.planner.complete(completed.evaluation, completed.page);
        }
        while let Some(ended) = self.under_way.try_join_next() {
            match ended {
                Ok(sent) => self.take_in(sent),
                // Which message it was is not known. It is planned in the table, so that it is sent again once state is built from there.
                Err(source) => return Err(Error::unavailable("sending a message panicked").with_source(source)),
            }
        }
        Ok(())
    }

    fn take_in(&mut self, sent: Sent) {
        let clock = self.deliver.lake.clock();
        let now = clock.now_micros();
        let Sent { delivery, incomplete, result } = sent;
        let (sink, route) = (delivery.sink().to_owned(), delivery.destination.route.clone());
        let count = |result: &str| self.metrics.messages.with_label_values(&[sink.as_str(), result]).inc();
        let (mut destination_after, mut sink_after) = (now, now);
        match &result {
            Ok(receipt) => {
                count("sent");
                self.sink_pauses.remove(&sink);
                self.destination_pauses.remove(&delivery.destination);
                if let Some(noticed_at) = delivery.noticed_at {
                    let seconds = now.saturating_sub(noticed_at).max(0) as f64 / 1e6;
                    self.metrics.seconds.with_label_values(&[sink.as_str()]).observe(seconds);
                    let (pages, without_evidence) = (delivery.drafts.len(), incomplete.len());
                    tracing::info!(route, sink, pages, without_evidence, seconds, answer = receipt.answer, "delivered");
                } else if delivery.is_evidence() {
                    tracing::info!(
                        route,
                        sink,
                        answer = receipt.answer,
                        "delivered the evidence of an earlier message"
                    );
                }
            }
            Err(Failure::Later { reason, after }) => {
                count("failed");
                let new = || Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &*clock);
                let own = self.destination_pauses.entry(delivery.destination.clone()).or_insert_with(new).pause();
                let shared = self.sink_pauses.entry(sink.clone()).or_insert_with(new).pause();
                let after = after.unwrap_or_default();
                destination_after = now.saturating_add(micros(own.max(after)));
                sink_after = now.saturating_add(micros(shared.max(after)));
                tracing::warn!(route, sink, reason, "a message was not delivered; trying again");
            }
            Err(Failure::Refused { reason }) => {
                count("refused");
                self.sink_pauses.remove(&sink);
                if delivery.is_news() {
                    tracing::error!(
                        route,
                        sink,
                        reason,
                        "a sink refuses a message; the next transition is tried again"
                    );
                } else {
                    tracing::warn!(route, sink, reason, "a sink refuses a repeated message");
                }
            }
        }
        let outcome = Outcome { result, incomplete, destination_after, sink_after };
        let rows = self.planner.settle(delivery, outcome, now);
        self.rows.extend(rows);
    }

    /// Commits the rows, and how far `alerts` was read.
    async fn commit(&mut self) -> Result<()> {
        let evaluation = self.planner.evaluation().or(Some(0));
        let progress = self.progress();
        if self.rows.is_empty() && evaluation == self.position && progress.is_none() {
            return Ok(());
        }
        let (app_id, read_id) = (AppId::Deliver.to_string(), AppId::Delivered.to_string());
        let number = self.on.next(&app_id).unwrap_or(0) + 1;
        let alerts_version = self.alerts.next_version() - 1;
        for row in &mut self.rows {
            (row.number, row.alerts_version) = (number, alerts_version);
        }
        let batch = outbox::batch(&self.rows)?;
        let append = Append {
            table: Table::Deliveries,
            on: &self.on,
            rows: (!self.rows.is_empty()).then_some(&batch),
            advances: [
                Advance { expected: self.on.next(&app_id), app_id, next: number },
                Advance { expected: self.on.next(&read_id), app_id: read_id, next: evaluation.unwrap_or(0) },
            ]
            .into_iter()
            .chain(progress)
            .collect(),
            operation: "deliver",
            facts: Map::from_iter([("alerts_version".to_owned(), alerts_version.into())]),
        };
        self.on = append.commit(&self.deliver.lake, &self.metrics.follow).await?;
        self.rows.clear();
        self.position = evaluation;
        Ok(())
    }

    /// Returns the version of `alerts` to read next, if it is to be recorded and is not yet.
    fn progress(&self) -> Option<Advance> {
        let app_id = AppId::DeliverAlerts.to_string();
        let (expected, next) = (self.on.next(&app_id), self.alerts.next_version());
        (self.deliver.record_progress && expected.is_none_or(|recorded| recorded < next)).then_some(Advance {
            app_id,
            expected,
            next,
        })
    }

    /// Starts to send what is due. Returns true if there was anything.
    async fn dispatch(&mut self) -> Result<bool> {
        let clock = self.deliver.lake.clock();
        let due = self.planner.due(clock.now_micros());
        if due.is_empty() {
            return Ok(false);
        }
        let app_id = AppId::Deliver.to_string();
        let newest = self.deliver.lake.log(Table::Deliveries).catch_up(self.on.clone()).await?;
        if newest.next(&app_id) != self.on.next(&app_id) {
            return Err(Error::fenced("another process has committed to `deliveries`"));
        }
        for delivery in due {
            let sink = self.deliver.sinks.get(delivery.sink()).cloned();
            let builds =
                delivery.drafts.iter().map(|draft| (!draft.is_built).then(|| self.evidence.for_message(draft)));
            let builds = builds.collect();
            let (clock, answered) = (Arc::clone(&clock), Arc::clone(&self.answered));
            self.under_way.spawn(async move {
                let sent = send(delivery, sink, builds, clock).await;
                answered.notify_one();
                sent
            });
        }
        Ok(true)
    }

    fn report(&self) {
        let now = self.deliver.lake.clock().now_micros();
        let age = self.planner.oldest().map_or(0, |oldest| now.saturating_sub(oldest).max(0));
        self.metrics.oldest.set(age as f64 / 1e6);
        let failing: Vec<String> =
            self.planner.failing().map(|(sink, reason)| format!("sink `{sink}` fails: {reason}")).collect();
        self.deliver.health.set_degraded((!failing.is_empty()).then(|| failing.join("; ")));
    }
}

/// Reads all rows of `alerts`, in the order in which they were written, and the version of the table.
async fn all_alerts(lake: &Lake) -> Result<(i64, Vec<AlertRecord>)> {
    let (version, files) = lake.active_files(Table::Alerts).await?;
    let mut rows: Vec<AlertRecord> = Vec::new();
    for file in &files {
        for batch in lake.read(Table::Alerts, file, None).await? {
            rows.extend(AlertRecord::read(&batch)?);
        }
    }
    // Files are in no order, but the rows of one evaluation are.
    rows.sort_by_key(|row| row.evaluation);
    Ok((version, rows))
}

/// Reads the new rows of a log entry; an entry that only rewrites files has none.
async fn rows_of(lake: &Lake, entry: &LogEntry) -> Result<Vec<AlertRecord>> {
    let mut rows = Vec::new();
    if entry.brings_rows() {
        for file in entry.added.iter().filter(|file| file.data_change) {
            for batch in lake.read(Table::Alerts, file, None).await? {
                rows.extend(AlertRecord::read(&batch)?);
            }
        }
    }
    Ok(rows)
}
