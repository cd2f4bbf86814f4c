//! Wires the roles of a process: ingest, aggregate, watch, the hand-over between them, health, and the end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_aggregate::{Duty, Until, run_on_duty};
use bellwether_alerts::{Health as WatchHealth, Rules, Watch};
use bellwether_ingest::worker::Ingest;
use bellwether_ingest::{FlushSettings, KafkaSettings, Start as IngestStart};
use bellwether_lake::{
    CommitLog, Error, Handover, Lake, Layout, MaintainSettings, Result, Snapshot, StorageOptions, Table, app_of,
};
use futures::future::BoxFuture;
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Start};
use crate::exit;
use crate::serve::{self, Health};

/// Between two looks at how far the roles are.
const WATCH: Duration = Duration::from_millis(500);

/// From the start to the first round of maintenance: soon, or a process that is ended again and again before it comes to
/// one would leave a log that takes longer to open each time; not at once, since a start has work that is waited for.
const FIRST_MAINTAIN: Duration = Duration::from_secs(5);

/// Between two rounds of maintenance.
const MAINTAIN: Duration = Duration::from_secs(30);

/// Batches that wait for a commit while the next is decoded.
const CHANNEL_BATCHES: usize = 2;

/// Which roles a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Ingest,
    Aggregate,
    Watch,
}

impl Which {
    fn ingests(self) -> bool {
        matches!(self, Self::All | Self::Ingest)
    }

    fn aggregates(self) -> bool {
        matches!(self, Self::All | Self::Aggregate)
    }

    fn watches(self, config: &Config) -> bool {
        self == Self::Watch || (self == Self::All && config.alerts.watch)
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "ingest, aggregate, watch",
            Self::Ingest => "ingest",
            Self::Aggregate => "aggregate",
            Self::Watch => "watch",
        }
    }
}

/// Roles at work.
pub(crate) struct Running {
    pub(crate) lake: Lake,
    pub(crate) address: SocketAddr,
    progress: Arc<Progress>,
    watching: Option<WatchHealth>,
    stop: CancellationToken,
    end_of_service: CancellationToken,
    roles: JoinSet<Result<()>>,
    service: JoinHandle<()>,
    watch: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    leases: Vec<JoinHandle<()>>,
}

// === impl Running ===

impl Running {
    /// Messages of this job that the tables hold.
    pub(crate) fn committed(&self) -> u64 {
        self.progress.committed.load(Ordering::Relaxed)
    }

    /// A role has ended or was told to.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Versions of `events` that aggregate has still to read.
    pub(crate) async fn aggregate_behind(&self) -> Result<i64> {
        let newest = self.lake.log(Table::Events).latest_version().await?;
        let next = Layout::reads_next(&self.lake.log(Table::Metrics).load().await?);
        waiting(&self.lake, Table::Events, next, newest, &mut 0).await
    }

    /// Versions of `metrics` that watch has still to read.
    pub(crate) async fn watch_behind(&self) -> Result<i64> {
        let Some(watching) = &self.watching else { return Ok(0) };
        let newest = self.lake.log(Table::Metrics).latest_version().await?;
        waiting(&self.lake, Table::Metrics, watching.next_version(), newest, &mut 0).await
    }

    /// Drains, commits and ends.
    ///
    /// # Errors
    /// The first error of a role.
    pub(crate) async fn finish(self) -> Result<()> {
        self.stop.cancel();
        self.wait().await
    }

    /// Waits until all roles have ended by themselves or because they were told to.
    async fn wait(mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.roles.join_next().await {
            let ended = ended.unwrap_or_else(|source| Err(Error::bug("a role panicked").with_source(source)));
            if ended.is_err() {
                // One role without the other would look alive and do half the work.
                self.stop.cancel();
                if first.is_ok() {
                    first = ended;
                }
            }
        }
        self.stop.cancel();
        for lease in self.leases.drain(..) {
            if let Err(error) = lease.await {
                tracing::warn!(%error, "a lease task panicked; its lease will expire");
            }
        }
        self.end_of_service.cancel();
        self.watch.abort();
        self.maintenance.abort();
        if let Err(error) = self.service.await {
            tracing::warn!(%error, "the health and metrics server panicked");
        }
        first
    }
}

/// Runs roles until they have caught up or a signal comes.
///
/// # Errors
/// Where a role cannot start or go on.
pub(crate) async fn run(config: &Config, which: Which, until_caught_up: bool) -> Result<ExitCode> {
    let stop_now = CancellationToken::new();
    // Before anything else: a signal would end the process as it finds it, with no code of ours.
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = start(config, which, until_caught_up, &stop_now) => running?,
        () = signals.next() => {
            tracing::info!("stopped during start-up");
            return Ok(ExitCode::SUCCESS);
        }
    };
    tracing::info!(
        roles = which.name(), tables = running.lake.root_display(), health = %format!("http://{}/healthz", running.address),
        "bellwether started"
    );
    let stop = running.stop.clone();
    tokio::select! {
        ended = running.wait() => ended.map(|()| ExitCode::SUCCESS),
        () = signals.twice(stop) => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Signals ===

impl Signals {
    fn listen() -> Result<Self> {
        let refuse = |source: std::io::Error| Error::unavailable("cannot listen for signals").with_source(source);
        let terminate = signal(SignalKind::terminate()).map_err(refuse)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(refuse)?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first signal asks the roles to drain and commit; returns at the second.
    async fn twice(mut self, stop: CancellationToken) {
        for text in ["draining and committing; a second signal stops at once", "stopping at once"] {
            self.next().await;
            tracing::info!("{text}");
            stop.cancel();
        }
    }
}

/// Starts roles, health and metrics.
///
/// # Errors
/// Where the tables or the address cannot be had.
pub(crate) async fn start(
    config: &Config,
    which: Which,
    until_caught_up: bool,
    stop_now: &CancellationToken,
) -> Result<Running> {
    let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
    let registry = Registry::new();
    let health = Health::new(config.serve.stale_after);
    let stop = CancellationToken::new();
    let end_of_service = CancellationToken::new();
    let (address, service) =
        serve::start(config.serve.address, health.clone(), registry.clone(), end_of_service.clone()).await?;
    let handover = (which == Which::All)
        .then(|| Handover::new(config.aggregate.handover_bytes, bellwether_aggregate::event_columns()));
    let mut roles = JoinSet::new();
    let ingest_health = bellwether_ingest::Health::default();
    let ingest = Ingest {
        lake: lake.clone(),
        kafka: kafka_settings(config),
        limits: limits(config),
        handover: handover.clone(),
        metrics: bellwether_ingest::Metrics::register(&registry)?,
        health: ingest_health.clone(),
    };
    let mut leases = Vec::new();
    // Aggregate has caught up only when ingest has.
    let all_is_read = CancellationToken::new();
    let until = match until_caught_up {
        true if which == Which::All => Until::CaughtUp(all_is_read.clone()),
        true => Until::caught_up(),
        false => Until::Stopped,
    };
    let aggregate = if which.aggregates() {
        aggregators(config, &lake, handover, &registry, &until, &stop, &mut leases)
    } else {
        Vec::new()
    };
    let aggregate = all_of(aggregate);
    let watching = which.watches(config).then(WatchHealth::default);
    let watch = watching
        .clone()
        .map(|health| bellwether_alerts::run(watch_of(config, &lake, health), registry, until_caught_up, stop.clone()));
    let (stop_reading, stop_now) = (stop.clone(), stop_now.clone());
    let ingest = async move { ingest.run(stop_reading, stop_now, until_caught_up).await.map(|_| ()) };
    match which {
        Which::All if until_caught_up => {
            roles.spawn(Box::pin(async move {
                let ingest = async move {
                    ingest.await?;
                    all_is_read.cancel();
                    Ok(())
                };
                all_of(vec![Box::pin(ingest), Box::pin(aggregate)]).await?;
                match watch {
                    Some(watch) => watch.await,
                    None => Ok(()),
                }
            }));
        }
        Which::All => {
            roles.spawn(ingest);
            roles.spawn(aggregate);
            if let Some(watch) = watch {
                roles.spawn(Box::pin(watch));
            }
        }
        Which::Ingest => {
            roles.spawn(ingest);
        }
        Which::Aggregate => {
            roles.spawn(aggregate);
        }
        Which::Watch => {
            if let Some(watch) = watch {
                roles.spawn(Box::pin(watch));
            }
        }
    }
    let progress = Arc::new(Progress::default());
    let watched = Watched {
        lake: lake.clone(),
        which,
        health,
        ingest: ingest_health,
        watching: watching.clone(),
        watch_interval: config.alerts.interval,
        progress: Arc::clone(&progress),
    };
    let watch = tokio::spawn(watched.run(config.kafka.job.clone()));
    let maintenance = tokio::spawn(maintain(lake.clone()));
    Ok(Running { lake, address, progress, watching, stop, end_of_service, roles, service, watch, maintenance, leases })
}

/// The rules of a configuration.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules::load(config.alerts.rules.as_deref().map(std::path::Path::new), &config.alerts.disabled)
}

/// Settings of watching.
pub(crate) fn watch_settings(config: &Config) -> bellwether_alerts::Settings {
    bellwether_alerts::Settings {
        budget: bellwether_alerts::BudgetSettings {
            pages: config.alerts.false_pages_a_month,
            tickets: config.alerts.false_tickets_a_month,
            ..bellwether_alerts::BudgetSettings::default()
        },
        interval: config.alerts.interval,
        grace: config.alerts.grace,
        history_days: i64::try_from(config.alerts.history_days).unwrap_or(i64::MAX),
        memory_bytes: config.alerts.memory_bytes,
        season: config.alerts.season,
    }
}

fn watch_of(config: &Config, lake: &Lake, health: WatchHealth) -> Watch {
    Watch {
        settings: watch_settings(config),
        rules: rules(config),
        contracts: config.contracts.clone(),
        lake: lake.clone(),
        health,
    }
}

/// An aggregator for each shard of this process. Each works while it holds the shard's lease; what ends by itself does
/// not wait for one: the tables' logs keep it apart from others.
fn aggregators(
    config: &Config,
    lake: &Lake,
    handover: Option<Handover>,
    registry: &Registry,
    until: &Until,
    stop: &CancellationToken,
    leases: &mut Vec<JoinHandle<()>>,
) -> Vec<BoxFuture<'static, Result<()>>> {
    let mut all: Vec<BoxFuture<'static, Result<()>>> = Vec::new();
    let settings = aggregate_settings(config);
    let mine = |shard: &u32| config.aggregate.only_shards.is_empty() || config.aggregate.only_shards.contains(shard);
    for shard in (0..settings.shards).filter(mine) {
        let duty = if let Until::CaughtUp(_) = until {
            Duty::always()
        } else {
            let (sender, held) = tokio::sync::watch::channel(false);
            let lease = lake.lease(&app_of(shard));
            leases.push(tokio::spawn(lease.keep(sender, stop.clone())));
            Duty::while_held(held)
        };
        // Rows are handed over once.
        let handover = handover.clone().filter(|_| settings.shards == 1);
        let settings = bellwether_aggregate::Settings { shard, ..settings };
        let (lake, registry, until, stop) = (lake.clone(), registry.clone(), until.clone(), stop.clone());
        all.push(Box::pin(run_on_duty(settings, lake, handover, registry, until, stop, duty)));
    }
    all
}

/// Runs all of them, until the first fails.
async fn all_of(roles: Vec<BoxFuture<'static, Result<()>>>) -> Result<()> {
    let mut tasks: JoinSet<Result<()>> = roles.into_iter().collect();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|source| Err(Error::bug("a role panicked").with_source(source)))?;
    }
    Ok(())
}

pub(crate) fn aggregate_settings(config: &Config) -> bellwether_aggregate::Settings {
    bellwether_aggregate::Settings {
        shards: config.aggregate.shards,
        shard: 0,
        index_memory_bytes: config.aggregate.index_memory_bytes,
        horizon: config.aggregate.horizon,
        poll_interval: config.aggregate.poll_interval,
        rolling_history: config.aggregate.rolling_history,
        ..bellwether_aggregate::Settings::default()
    }
}

/// Keeps the tables quick to open and to read. Several processes may do so at once: the log keeps them apart.
async fn maintain(lake: Lake) {
    let mut pause = FIRST_MAINTAIN;
    loop {
        tokio::time::sleep(pause).await;
        pause = MAINTAIN;
        for table in Table::ALL {
            if let Err(error) = lake.maintain(table, &MaintainSettings::default()).await {
                tracing::warn!(table = table.name(), reason = %error.chain(), "maintenance failed; will retry");
            }
        }
    }
}

/// How far the roles are.
#[derive(Debug, Default)]
struct Progress {
    committed: AtomicU64,
}

/// Looks at the tables, which are the truth, and notes how far the roles are.
struct Watched {
    lake: Lake,
    which: Which,
    health: Health,
    ingest: bellwether_ingest::Health,
    watching: Option<WatchHealth>,
    watch_interval: Duration,
    progress: Arc<Progress>,
}

/// What was seen at the last look.
#[derive(Default)]
struct Known {
    events: Option<Snapshot>,
    metrics: Option<Snapshot>,
    empty_events: i64,
    empty_metrics: i64,
}

impl Watched {
    async fn run(self, job: String) {
        let prefix = format!("{job}/");
        let mut known = Known::default();
        loop {
            match self.look(&mut known, &prefix).await {
                Ok(()) => {}
                Err(error) => self.health.trouble("storage", &error),
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    async fn look(&self, known: &mut Known, prefix: &str) -> Result<()> {
        let events = newest(&self.lake, Table::Events, &mut known.events).await?;
        self.health.note("storage", events.version, 0);
        if self.which.ingests() {
            // Ids of topics and claims on partitions are not progress.
            let is_partition = |app: &str| app.rsplit('/').next().is_some_and(|last| last.parse::<i32>().is_ok());
            let mine = events.apps().filter(|(app, _)| app.starts_with(prefix) && is_partition(app));
            let next: i64 = mine.map(|(_, next)| next).sum();
            self.progress.committed.store(u64::try_from(next).unwrap_or(0), Ordering::Relaxed);
            let status = self.ingest.status();
            // Trouble that lasts makes the role stale: only a look without any counts as a move.
            match status.trouble() {
                Some(why) => self.health.trouble("ingest", &Error::unavailable(why)),
                None => self.health.note("ingest", next, status.behind),
            }
        }
        if self.which.aggregates() {
            let next = Layout::reads_next(&newest(&self.lake, Table::Metrics, &mut known.metrics).await?);
            let behind = waiting(&self.lake, Table::Events, next, events.version, &mut known.empty_events).await?;
            self.health.note("aggregate", next, behind);
        }
        if let Some(watching) = &self.watching {
            let next = watching.next_version();
            let there = newest(&self.lake, Table::Metrics, &mut known.metrics).await?.version;
            let behind = waiting(&self.lake, Table::Metrics, next, there, &mut known.empty_metrics).await?;
            self.health.note_paced("watch", next, behind, self.watch_interval);
            self.health.lack("watch", watching.failing());
        }
        Ok(())
    }
}

/// A table's snapshot, brought up to date.
async fn newest(lake: &Lake, table: Table, known: &mut Option<Snapshot>) -> Result<Snapshot> {
    let log = lake.log(table);
    let snapshot = match known.take() {
        Some(snapshot) => log.catch_up(snapshot).await?,
        None => log.load().await?,
    };
    *known = Some(snapshot.clone());
    Ok(snapshot)
}

/// How many versions of a table its reader has still to read. It passes over those without rows, as a rewrite or the claim
/// on a partition, and commits nothing for them: where there are no others, nothing waits. `empty` remembers the version up
/// to which that is known.
async fn waiting(lake: &Lake, table: Table, next: i64, newest: i64, empty: &mut i64) -> Result<i64> {
    let log = lake.log(table);
    for version in next.max(*empty)..=newest {
        if log.entry(version).await?.is_some_and(|entry| entry.brings_rows()) {
            return Ok(newest + 1 - version);
        }
        *empty = version + 1;
    }
    Ok(0)
}

pub(crate) fn kafka_settings(config: &Config) -> KafkaSettings {
    KafkaSettings {
        brokers: config.kafka.brokers.join(","),
        topics: config.kafka.topics.clone(),
        group: config.kafka.group.clone(),
        job: config.kafka.job.clone(),
        instance_id: config.kafka.instance_id.clone(),
        properties: config.kafka.properties.clone(),
        flush: FlushSettings {
            interval: config.ingest.flush_interval,
            max_bytes: config.ingest.flush_bytes,
            max_rows: config.ingest.flush_rows,
            channel_batches: CHANNEL_BATCHES,
        },
        start: match config.kafka.start {
            Start::Earliest => IngestStart::Earliest,
            Start::Latest => IngestStart::Latest,
        },
    }
}

pub(crate) fn limits(config: &Config) -> bellwether_event::Limits {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    bellwether_event::Limits {
        max_bytes: config.ingest.max_event_bytes,
        max_depth: config.ingest.max_event_depth,
        max_future_micros: micros(config.ingest.max_future),
        max_age_micros: micros(config.ingest.max_event_age),
    }
}
