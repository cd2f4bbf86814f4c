//! The aggregate role: reads versions of `events` in their order and commits what they add.
//!
//! The version is the clock: `metrics` carries the version of `events` that is read next, moved in the same commit that
//! adds the rows. After any crash the role reads on from there; two roles on one shard cannot both commit.

use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_lake::{
    Advance, Commit, CommitLog, DataFile, Error, ErrorKind, Handover, Lake, Layout, Result, Snapshot, Table, app_of,
    settle,
};
use datafusion::prelude::SessionContext;
use prometheus::Registry;
use serde_json::Map;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::contribution::{Definitions, Runs, Shard};
use crate::metrics::Metrics;
use crate::releases::Releases;
use crate::rolling_history::{RollingHistory, newest_end_micros};
use crate::sql;
use crate::tail::{FIRST_PAUSE, LONGEST_PAUSE, Tail};

/// Between two writings of the rolling history: while a backlog is read, windows pass by the hundred, and what was known is
/// worth a record only where somebody could have seen it.
const HISTORY_EVERY_MICROS: i64 = 5_000_000;

/// What may be set about aggregation.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the run index.
    pub index_memory_bytes: usize,
    /// How long runs are held in the index; older ones are looked up in `events`.
    pub horizon: Duration,
    /// How often `events` is asked for new versions; commits of the same process are seen at once.
    pub poll_interval: Duration,
    /// Keep the rolling metrics as plain rows too.
    pub rolling_history: bool,
    /// Shards that the runs are laid out over, and which of them this is. Shard 0 also keeps `releases` and
    /// `rolling_history`.
    pub shards: u32,
    /// This shard.
    pub shard: u32,
    /// Runs that are read back and corrected at a time: a step may have late statements about many more, and a run takes far
    /// more room than what is said of it.
    pub corrected_at_once: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            index_memory_bytes: 256 << 20,
            horizon: Duration::from_secs(24 * 3600),
            poll_interval: Duration::from_millis(500),
            rolling_history: true,
            shards: 1,
            shard: 0,
            corrected_at_once: 50_000,
        }
    }
}

/// Whether this aggregator is the one that works, where there are several for one shard. The others follow, so that they can
/// take over at once.
#[derive(Clone, Debug)]
pub struct Duty(Option<watch::Receiver<bool>>);

impl Duty {
    /// Nobody else is there.
    pub fn always() -> Self {
        Self(None)
    }

    /// While this says so.
    pub fn while_held(held: watch::Receiver<bool>) -> Self {
        Self(Some(held))
    }

    fn is_on(&self) -> bool {
        self.0.as_ref().is_none_or(|held| *held.borrow())
    }
}

/// The role, with all it remembers.
pub struct Aggregator {
    lake: Lake,
    settings: Settings,
    app: String,
    layout: Layout,
    tail: Tail,
    metrics: Metrics,
    context: SessionContext,
    definitions: Definitions,
    runs: Runs,
    releases: Releases,
    history: RollingHistory,
    /// End of the newest window that this process has added to, until the rolling history has been asked about it.
    newest_end: Option<i64>,
    /// When it was written last, microseconds since the epoch.
    history_at: i64,
    /// `metrics` as of the last commit.
    on: Snapshot,
    /// Others have committed since `releases` and `rolling_history` were looked at.
    followed: bool,
}

/// When the role ends by itself.
#[derive(Clone, Debug)]
pub enum Until {
    /// Not before it is stopped.
    Stopped,
    /// When it has read all there is, once this is cancelled: whoever adds to `events` is done.
    CaughtUp(CancellationToken),
}

/// Runs the role until it is stopped, or until what `until` says.
///
/// # Errors
/// `Config`, `Data` and `Bug` where no waiting can help. Storage that does not answer is waited for.
pub async fn run(
    settings: Settings,
    lake: Lake,
    handover: Option<Handover>,
    registry: Registry,
    until: Until,
    stop: CancellationToken,
) -> Result<()> {
    run_on_duty(settings, lake, handover, registry, until, stop, Duty::always()).await
}

/// As [`run`], but works only while on duty, and stands by otherwise.
///
/// # Errors
/// As [`run`].
pub async fn run_on_duty(
    settings: Settings,
    lake: Lake,
    handover: Option<Handover>,
    registry: Registry,
    until: Until,
    stop: CancellationToken,
    duty: Duty,
) -> Result<()> {
    let metrics = Metrics::register_shard(&registry, settings.shard, settings.shards)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let worked = async {
            let mut aggregator = Aggregator::open_with(&lake, settings, handover.clone(), metrics.clone()).await?;
            aggregator.work(&until, &stop, &mut pause, &duty).await
        };
        match worked.await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced => {
                metrics.fenced.inc();
                tracing::info!("another aggregator has committed; reading on from where it is");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                metrics.retries.inc();
                tracing::warn!(reason = %error.chain(), "storage does not answer as it should; trying again");
            }
            Err(error) => return Err(error),
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        sleep(&lake, pause, &stop).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

// === impl Until ===

impl Until {
    /// When all there is at this moment has been read.
    pub fn caught_up() -> Self {
        let now = CancellationToken::new();
        now.cancel();
        Self::CaughtUp(now)
    }

    fn no_more_comes(&self) -> bool {
        matches!(self, Self::CaughtUp(done) if done.is_cancelled())
    }

    async fn none_comes(&self) {
        match self {
            Self::Stopped => std::future::pending().await,
            Self::CaughtUp(done) => done.cancelled().await,
        }
    }
}

/// Waits for fresh rows of the same process; for ever where none can come.
async fn changed(handover: Option<&Handover>) {
    match handover {
        Some(handover) => handover.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits, or until stopped.
async fn sleep(lake: &Lake, pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased; // Stopping wins over waiting.
        () = stop.cancelled() => {}
        () = lake.clock().sleep(pause) => {}
    }
}

// === impl Aggregator ===

impl Aggregator {
    /// Reads where `metrics` stands and rebuilds the index of what is in it.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where a file is gone.
    pub async fn open(
        lake: &Lake,
        settings: Settings,
        handover: Option<Handover>,
        registry: &Registry,
    ) -> Result<Self> {
        Self::open_with(lake, settings, handover, Metrics::register(registry)?).await
    }

    async fn open_with(lake: &Lake, settings: Settings, handover: Option<Handover>, metrics: Metrics) -> Result<Self> {
        let on = lake.log(Table::Metrics).load().await?;
        let layout = Layout::of(&on).unwrap_or(Layout { generation: 0, shards: settings.shards });
        if layout.shards != settings.shards || settings.shard >= settings.shards {
            return Err(Error::config(format!(
                "`metrics` is laid out over `{}` shards, and this is shard `{}` of `{}`",
                layout.shards, settings.shard, settings.shards
            ))
            .with_hint("set [aggregate].shards to the former number, or run `bellwether rebuild`, which changes it"));
        }
        let app = app_of(settings.shard);
        let next = on.next(&app).unwrap_or(0);
        let shard = Shard { number: settings.shard, of: settings.shards };
        let mut runs = Runs::new(&settings, shard);
        if next > 0 {
            let files = lake.files_at(Table::Events, next - 1).await?;
            Box::pin(runs.rebuild(lake, files)).await?;
        }
        metrics.index_runs.set(i64::try_from(runs.index.held()).unwrap_or(i64::MAX));
        // A stand-by that opens after all has been read has nothing to follow, and is as far all the same.
        metrics.next_version.set(next);
        let context = sql::session();
        Ok(Self {
            releases: Releases::load(lake).await?,
            history: RollingHistory::load(lake).await?,
            newest_end: None,
            history_at: i64::MIN,
            lake: lake.clone(),
            settings,
            app,
            layout,
            tail: Tail::new(lake.clone(), handover, metrics.read_back.clone(), next),
            metrics,
            definitions: Definitions::plan(&context).await?,
            context,
            runs,
            on,
            followed: false,
        })
    }

    async fn work(&mut self, until: &Until, stop: &CancellationToken, pause: &mut Duration, duty: &Duty) -> Result<()> {
        loop {
            if stop.is_cancelled() {
                // What is due is written by whoever goes on: the lease has been given back, and another may be at it.
                return Ok(());
            }
            self.metrics.on_duty.set(i64::from(duty.is_on()));
            if !duty.is_on() {
                self.follow().await?;
                sleep(&self.lake, self.settings.poll_interval, stop).await;
                continue;
            }
            if self.followed {
                self.follow().await?;
                self.releases = Releases::load(&self.lake).await?;
                self.history = RollingHistory::load(&self.lake).await?;
                self.followed = false;
            }
            // Asked before reading: what is added up to then is read.
            let no_more_comes = until.no_more_comes();
            let more = self.step().await?;
            self.keep_history(!more && no_more_comes).await?;
            if more {
                *pause = FIRST_PAUSE;
                continue;
            }
            if no_more_comes {
                return Ok(());
            }
            tokio::select! {
                biased; // Fresh rows before waiting.
                () = changed(self.tail.handover()) => {}
                () = until.none_comes() => {}
                () = sleep(&self.lake, self.settings.poll_interval, stop) => {}
            }
        }
    }

    /// Reads on until there is nothing new.
    ///
    /// # Errors
    /// `Fenced` where another aggregator has committed; `Unavailable` where storage does not answer. The aggregator must
    /// then be opened anew.
    pub async fn run_until_caught_up(&mut self) -> Result<()> {
        while self.step().await? {}
        self.keep_history(true).await
    }

    /// Takes in what another aggregator of this shard has committed, without computing anything.
    async fn follow(&mut self) -> Result<()> {
        self.followed = true;
        self.on = self.lake.log(Table::Metrics).catch_up(self.on.clone()).await?;
        if Layout::of(&self.on).is_some_and(|layout| layout != self.layout) {
            return Err(Error::fenced("everything was rebuilt"));
        }
        let to = self.on.next(&self.app).unwrap_or(0);
        let entries = self.tail.passed(to).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        let files = entries.iter().flat_map(|entry| &entry.added).filter(|file| file.data_change).cloned().collect();
        Box::pin(self.runs.hold(&self.lake, files)).await?;
        for entry in &entries {
            self.history.note(entry);
            self.runs.note(entry)?;
        }
        self.tail.next = last.version + 1;
        self.tell();
        Ok(())
    }

    /// Takes in the next versions; false where there are none.
    async fn step(&mut self) -> Result<bool> {
        let (entries, new) = self.tail.gather().await?;
        let Some(last) = entries.last() else { return Ok(false) };
        let (from, to) = (self.tail.next, last.version + 1);
        for entry in &entries {
            self.history.note(entry);
        }
        if !new.is_empty() {
            let (partials, taken) = Box::pin(self.runs.take(&self.lake, &self.definitions, &new, from, to)).await?;
            self.metrics.rows.inc_by(new.iter().map(|file| file.count() as u64).sum());
            self.metrics.runs.inc_by(taken.runs);
            self.metrics.duplicates.inc_by(taken.duplicates);
            self.metrics.corrected.inc_by(taken.corrected);
            self.metrics.late.inc_by(taken.late);
            self.metrics.waiting.inc_by(taken.waiting);
            self.metrics.waited.inc_by(taken.waited);
            self.metrics.looked_up.inc_by(taken.looked_up);
            let saturated = crate::recompute::saturated(&partials);
            if saturated > 0 {
                tracing::warn!(
                    rows = saturated,
                    "sums left what their columns hold; `saturated` is true in these rows"
                );
                self.metrics.saturated.inc_by(saturated as u64);
            }
            let first = self.settings.shard == 0;
            if first {
                let (seen, fresh) = self.releases.first_seen(&self.lake, &new, last.version).await?;
                self.commit_releases(&seen, to).await?;
                self.releases.note(fresh);
            }
            self.commit_metrics(&partials, to).await?;
            self.newest_end = self.newest_end.max(newest_end_micros(&partials)?);
        }
        for entry in &entries {
            self.runs.note(entry)?;
        }
        self.tail.next = to;
        self.tell();
        Ok(true)
    }

    fn tell(&self) {
        self.metrics.next_version.set(self.tail.next);
        self.metrics.index_runs.set(i64::try_from(self.runs.index.held()).unwrap_or(i64::MAX));
        self.metrics.index_bytes.set(i64::try_from(self.runs.index.bytes()).unwrap_or(i64::MAX));
    }

    /// New releases come before the metrics that name them. After a crash between the two they are known from the table.
    async fn commit_releases(&self, rows: &RecordBatch, to: i64) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let on = self.lake.log(Table::Releases).load().await?;
        self.commit(Table::Releases, &on, rows, to.max(on.next(&self.app).unwrap_or(0))).await.map(|_| ())
    }

    async fn commit_metrics(&mut self, rows: &RecordBatch, to: i64) -> Result<()> {
        self.on = self.commit(Table::Metrics, &self.on, rows, to).await?;
        self.metrics.commits.inc();
        Ok(())
    }

    /// Writes the rolling metrics of the spans whose boundary was passed, where the last time is a while ago or nothing is
    /// read after this.
    async fn keep_history(&mut self, last: bool) -> Result<()> {
        let now = self.lake.clock().now_micros();
        if !last && now.saturating_sub(self.history_at) < HISTORY_EVERY_MICROS {
            return Ok(());
        }
        let keeps = self.settings.rolling_history && self.settings.shard == 0;
        let Some(newest_end) = self.newest_end.take().filter(|_| keeps) else { return Ok(()) };
        // The newest window still fills: what is complete ends where it begins.
        let due = self.history.due(newest_end - 60_000_000, now);
        if due.is_empty() {
            return Ok(());
        }
        self.history_at = now;
        let rows = self.history.rows(&self.lake, &self.context, &due, self.tail.next).await?;
        if rows.num_rows() > 0 {
            let on = self.lake.log(Table::RollingHistory).load().await?;
            let to = self.tail.next.max(on.next(&self.app).unwrap_or(0));
            self.commit(Table::RollingHistory, &on, &rows, to).await?;
            self.metrics.show(&rows)?;
        }
        self.history.written(&due);
        Ok(())
    }

    /// Writes rows and commits them with the shard's step.
    async fn commit(&self, table: Table, on: &Snapshot, rows: &RecordBatch, to: i64) -> Result<Snapshot> {
        let written = self.lake.write(table, rows).await?;
        let files: Vec<DataFile> = written.into_iter().map(|written| written.file).collect();
        let mut advances = vec![Advance { app_id: self.app.clone(), expected: on.next(&self.app), next: to }];
        if table == Table::Metrics {
            // Another layout means that everything was rebuilt: this index belongs to what was before.
            advances.push(self.layout.advance(on));
        }
        let commit = Commit {
            uuid: self.lake.clock().unique_id(),
            advances,
            files,
            operation: "aggregate",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        let log = self.lake.log(table);
        let unclear = |reason: &str| {
            self.metrics.retries.inc();
            tracing::warn!(table = table.name(), reason, "a commit is unclear; asking again");
        };
        if let Some(snapshot) = settle(&*self.lake.clock(), || log.try_commit(on, &commit), unclear).await? {
            return Ok(snapshot);
        }
        self.lake.discard(table, &commit.files).await;
        Err(Error::fenced(format!("another aggregator has committed to `{}`", table.name())))
    }
}
