//! The role `aggregate`: reads versions of `events` in order, and appends the contributions of their rows to `metrics`.
//!
//! `metrics` records the version of `events` to read next, and advances it in the commit that adds the rows. After a crash
//! the role continues from there, and of two aggregators of one shard only one can commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_follow::{Append, FollowHealth, Follower, Runner, Step, Until};
use bellwether_lake::{Advance, CommitLog, DataFile, Handover, Lake, Layout, Snapshot, app_of};
use bellwether_tables::Table;
use futures::future::BoxFuture;
use prometheus::Registry;
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::releases::Releases;
use crate::rolling_history::RollingHistory;
use crate::runs::{Runs, Shard};
use crate::settings::AggregatorSettings;
use crate::sql;
use crate::sums::Definitions;
use crate::tail::Tail;

/// Least time between two rows of a span in `rolling_history`. While a backlog is read, hundreds of windows pass, and only
/// values that people could have seen are worth recording.
const HISTORY_EVERY_MICROS: i64 = 5_000_000;

/// Pause after a write of `rolling_history`, as a multiple of the time that the write took: with many groups, the record must
/// not hold up a backlog.
const HISTORY_SHARE: i64 = 10;

/// The setup of the role.
#[derive(Clone)]
pub struct Aggregate {
    pub settings: AggregatorSettings,
    pub lake: Lake,
    /// Source of fresh rows of `events` in the same process.
    pub handover: Option<Handover>,
    /// Competes for the lease of the shard, and stands by while another process holds it. Otherwise, this process always
    /// works.
    pub lease: bool,
    /// Condition of the role, for the process's health report.
    pub health: FollowHealth,
}

/// The setup that aggregators are opened from, one after another.
pub struct AggregateSetup {
    aggregate: Aggregate,
    metrics: Metrics,
    reopened: ReopenedAt,
}

/// The version of `events` at which an aggregator was last opened again because a file was gone; -1 before that.
type ReopenedAt = Arc<AtomicI64>;

/// The aggregator and its state.
pub struct Aggregator {
    lake: Lake,
    settings: AggregatorSettings,
    app: String,
    layout: Layout,
    tail: Tail,
    metrics: Metrics,
    definitions: Definitions,
    runs: Runs,
    releases: Releases,
    history: RollingHistory,
    /// End of the newest window that this process has added to since it last wrote `rolling_history`.
    newest_end: Option<i64>,
    /// When `rolling_history` may be written again, microseconds since the epoch.
    history_after: i64,
    /// `metrics` as of the last commit.
    on: Snapshot,
    /// Another process has committed since `releases` and `history` were loaded.
    stood_by: bool,
    reopened: ReopenedAt,
}

/// Runs the role until it is stopped or, as `until` says, has caught up.
///
/// # Errors
/// `Config`, `Data` or `Bug` if no waiting can help. Unavailable storage is waited for.
pub async fn run(aggregate: Aggregate, registry: Registry, until: Until, stop: CancellationToken) -> Result<()> {
    let Aggregate { settings, lake, lease, health, .. } = &aggregate;
    let metrics = Metrics::register(&registry, settings)?;
    let runner = Runner {
        lease: lease.then(|| lake.lease(&app_of(settings.shard))),
        health: health.clone(),
        interval: settings.poll_interval,
        until,
        stop,
        ..Runner::new("aggregate", lake.clock(), metrics.follow.clone())
    };
    let reopened = Arc::new(AtomicI64::new(-1));
    runner.run::<Aggregator>(&AggregateSetup { aggregate, metrics, reopened }).await
}

// === impl Aggregate ===

impl Aggregate {
    /// Creates the setup for a lake, with default settings and without a lease.
    pub fn new(lake: Lake) -> Self {
        Self {
            settings: AggregatorSettings::default(),
            lake,
            handover: None,
            lease: false,
            health: FollowHealth::default(),
        }
    }
}

// === impl Aggregator ===

#[async_trait]
impl Follower for Aggregator {
    type Setup = AggregateSetup;

    async fn open(setup: &AggregateSetup) -> Result<Self> {
        let mut aggregator = Self::open_with(&setup.aggregate, setup.metrics.clone()).await?;
        aggregator.reopened = Arc::clone(&setup.reopened);
        Ok(aggregator)
    }

    async fn step(&mut self) -> Result<Step> {
        if self.stood_by {
            self.follow().await.map_err(|error| self.or_reopen(error))?;
            self.releases = Releases::load(&self.lake).await?;
            self.history = RollingHistory::load(&self.lake).await?;
            self.stood_by = false;
        }
        let more = self.take_next().await.map_err(|error| self.or_reopen(error))?;
        self.keep_history(false).await?;
        Ok(if more { Step::More } else { Step::CaughtUp })
    }

    async fn stand_by(&mut self) -> Result<()> {
        self.stood_by = true;
        self.metrics.hide();
        self.follow().await.map_err(|error| self.or_reopen(error))
    }

    async fn finish(&mut self) -> Result<()> {
        self.keep_history(true).await
    }

    fn woken(&self) -> BoxFuture<'static, ()> {
        match self.tail.handover().cloned() {
            Some(handover) => Box::pin(async move { handover.changed().await }),
            None => Box::pin(std::future::pending()),
        }
    }

    fn next_version(&self) -> i64 {
        self.tail.next()
    }
}

impl Aggregator {
    /// Opens an aggregator that the caller drives with [`Aggregator::run_until_caught_up`]: reads how far `metrics` is, and
    /// builds the index of the runs in it.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a file is missing; `Config` if the tables have another number of
    /// shards.
    pub async fn open(
        lake: &Lake,
        settings: AggregatorSettings,
        handover: Option<Handover>,
        registry: &Registry,
    ) -> Result<Self> {
        let aggregate = Aggregate { settings, handover, ..Aggregate::new(lake.clone()) };
        let metrics = Metrics::register(registry, &aggregate.settings)?;
        Self::open_with(&aggregate, metrics).await
    }

    async fn open_with(aggregate: &Aggregate, metrics: Metrics) -> Result<Self> {
        let Aggregate { settings, lake, handover, .. } = aggregate;
        let on = lake.log(Table::Metrics).load().await?;
        let layout = Layout::of(&on).unwrap_or(Layout { generation: 0, shards: settings.shards });
        if layout.shards != settings.shards || settings.shard >= settings.shards {
            return Err(Error::config(format!(
                "`metrics` is divided into `{}` shards, but this is shard `{}` of `{}`",
                layout.shards, settings.shard, settings.shards
            ))
            .with_hint("set [aggregate].shards to the former number, or run `bellwether rebuild`, which changes it"));
        }
        let app = app_of(settings.shard);
        let next = on.next(&app).unwrap_or(0);
        let mut runs = Runs::new(settings, Shard { number: settings.shard, of: settings.shards });
        if next > 0 {
            let files = lake.files_at(Table::Events, next - 1).await?;
            Box::pin(runs.load(lake, files)).await?;
        }
        let context = sql::session_within(settings.memory_bytes)?;
        let aggregator = Self {
            releases: Releases::load(lake).await?,
            history: RollingHistory::load(lake).await?,
            newest_end: None,
            history_after: i64::MIN,
            lake: lake.clone(),
            settings: *settings,
            app,
            layout,
            tail: Tail::new(lake, handover.clone(), metrics.read_back.clone(), next),
            metrics,
            definitions: Definitions::plan(&context).await?,
            runs,
            on,
            stood_by: false,
            reopened: Arc::new(AtomicI64::new(-1)),
        };
        aggregator.set_gauges();
        Ok(aggregator)
    }

    /// A file that the index knows may be gone: its rows were rewritten and the file vacuumed, or they were removed for good. An
    /// aggregator that is opened again knows only the files of today. If one of these is gone, opening again does not help.
    fn or_reopen(&self, error: Error) -> Error {
        let next = self.tail.next();
        if error.kind() != ErrorKind::Data || self.reopened.swap(next, Ordering::Relaxed) == next {
            return error;
        }
        Error::fenced("a file that the run index knew is no longer there; the index is built again").with_source(error)
    }

    /// Reads on until there is nothing new.
    ///
    /// # Errors
    /// `Fenced` if another aggregator has committed, `Unavailable` if storage does not answer: a new aggregator must be opened
    /// then.
    pub async fn run_until_caught_up(&mut self) -> Result<()> {
        while self.take_next().await? {}
        self.keep_history(true).await
    }

    /// Follows the commits of another aggregator of this shard, without computing anything.
    async fn follow(&mut self) -> Result<()> {
        self.on = self.lake.log(Table::Metrics).catch_up(self.on.clone()).await?;
        if Layout::of(&self.on).is_some_and(|layout| layout != self.layout) {
            return Err(Error::fenced("`metrics` was rebuilt"));
        }
        let to = self.on.next(&self.app).unwrap_or(0);
        let entries = self.tail.entries_to(to).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        let files = entries.iter().flat_map(|entry| &entry.added).filter(|file| file.data_change).cloned().collect();
        Box::pin(self.runs.hold(&self.lake, files)).await?;
        for entry in &entries {
            self.history.note(entry);
            Box::pin(self.runs.forget(&self.lake, entry)).await?;
            self.runs.note(entry)?;
        }
        self.tail.advance_to(last.version + 1);
        self.set_gauges();
        Ok(())
    }

    /// Aggregates the next versions, as many as fit into a step. Returns false if there are none.
    async fn take_next(&mut self) -> Result<bool> {
        let (entries, new) = self.tail.gather().await?;
        let Some(last) = entries.last() else { return Ok(false) };
        let (from, to) = (self.tail.next(), last.version + 1);
        let mut takes_rows = false;
        for entry in &entries {
            Box::pin(self.runs.forget(&self.lake, entry)).await?;
            self.history.note(entry);
            takes_rows |= entry.takes_rows();
        }
        if takes_rows {
            self.releases = Releases::load(&self.lake).await?;
        }
        let removes_files = takes_rows && self.on.next(&self.app).is_some();
        if new.is_empty() && (removes_files || self.settings.record_progress) {
            // After this, no reader of earlier versions needs removed files, and heartbeats are past this role.
            self.on = self.commit_metrics(Vec::new(), to).await?;
        }
        if !new.is_empty() {
            let (written, counts) = Box::pin(self.runs.take(&self.lake, &self.definitions, &new, from..to)).await?;
            self.metrics.count(&new, &counts, written.saturated);
            if self.settings.shard == 0 {
                let (seen, fresh) = self.releases.first_seen(&self.lake, &new, last.version).await?;
                self.commit_releases(&seen, to).await?;
                self.releases.note(fresh);
            }
            self.on = self.commit_metrics(written.files, to).await?;
            self.metrics.commits.inc();
            self.newest_end = self.newest_end.max(written.newest_end);
        }
        for entry in &entries {
            self.runs.note(entry)?;
        }
        self.tail.advance_to(to);
        self.set_gauges();
        Ok(true)
    }

    fn set_gauges(&self) {
        self.metrics.index_runs.set(i64::try_from(self.runs.index.held()).unwrap_or(i64::MAX));
        self.metrics.index_bytes.set(i64::try_from(self.runs.index.bytes()).unwrap_or(i64::MAX));
    }

    /// Commits new releases, before the metrics that name them. After a crash between the two, they are known from the table.
    async fn commit_releases(&self, rows: &RecordBatch, to: i64) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let on = self.lake.log(Table::Releases).load().await?;
        self.commit(Table::Releases, &on, rows, to.max(on.next(&self.app).unwrap_or(0))).await.map(|_| ())
    }

    /// Writes the rolling metrics of the spans that are due, unless they were written recently; always if this is the `last`
    /// time.
    async fn keep_history(&mut self, last: bool) -> Result<()> {
        let now = self.lake.clock().now_micros();
        if !last && now < self.history_after {
            return Ok(());
        }
        let keeps = self.settings.rolling_history && self.settings.shard == 0;
        let Some(newest_end) = self.newest_end.take().filter(|_| keeps) else { return Ok(()) };
        // The newest window still fills: windows are complete up to its start.
        let due = self.history.due(newest_end - 60_000_000, now);
        if due.is_empty() {
            return Ok(());
        }
        let memory_bytes = self.settings.rolling_history_memory_bytes;
        let new = self.history.rows(&self.lake, &due, self.tail.next(), memory_bytes).await?;
        if new.rows.num_rows() > 0 {
            let on = self.lake.log(Table::RollingHistory).load().await?;
            let to = self.tail.next().max(on.next(&self.app).unwrap_or(0));
            self.commit(Table::RollingHistory, &on, &new.rows, to).await?;
            self.metrics.show(&new.rows, &new.latency_sketches)?;
        }
        self.history.written(&new.written);
        let end = self.lake.clock().now_micros();
        self.history_after = end + HISTORY_EVERY_MICROS.max((end - now).saturating_mul(HISTORY_SHARE));
        Ok(())
    }

    /// Appends rows to a table together with the shard's advance to a version of `events`.
    async fn commit(&self, table: Table, on: &Snapshot, rows: &RecordBatch, to: i64) -> Result<Snapshot> {
        let advances = vec![Advance { app_id: self.app.clone(), expected: on.next(&self.app), next: to }];
        let append = Append { table, on, rows: Some(rows), advances, operation: "aggregate", facts: Map::new() };
        append.commit(&self.lake, &self.metrics.follow).await
    }

    /// Appends files to `metrics` together with the shard's advance to a version of `events`.
    async fn commit_metrics(&self, files: Vec<DataFile>, to: i64) -> Result<Snapshot> {
        let on = &self.on;
        let advance = Advance { app_id: self.app.clone(), expected: on.next(&self.app), next: to };
        // Another layout means that everything was rebuilt: this index belongs to the rows before.
        let advances = vec![advance, self.layout.advance(on)];
        let (table, facts) = (Table::Metrics, Map::new());
        let append = Append { table, on, rows: None, advances, operation: "aggregate", facts };
        append.commit_files(&self.lake, &self.metrics.follow, files).await
    }
}
