//! The role `watch`: follows `metrics` and `events` by version, judges complete windows, and appends the transitions of
//! alerts to `alerts`, at most one commit an evaluation.
//!
//! * `watch/evaluation.rs` reads new rows and judges them.
//! * `watch/again.rs` judges series again from the tables, and drops those without runs.
//! * `watch/history.rs` builds state from the tables at a start.
//! * `watch/publish.rs` commits transitions, logs them and sets the gauges.
//!
//! Rules: state is a function of the tables. It is built from them, day by day, whenever the watcher opens, and a
//! transition that `alerts` holds is not appended again. The watcher opens again if another watcher has committed, if a
//! version that it has not read is gone (vacuumed), if `metrics` was rebuilt, or if runs come so late that a silence has to
//! be judged again.

mod again;
mod evaluation;
mod history;
mod publish;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{ErrorKind, Result};
use bellwether_detect::{Minute, Season};
use bellwether_follow::{FollowHealth, Follower, Runner, Step, Until};
use bellwether_lake::{CommitLog, Lake, Snapshot};
use bellwether_queries::Session;
use bellwether_tables::Table;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use self::again::AgainPace;
use crate::contract::Contracts;
use crate::engine::{BudgetSettings, Engine};
use crate::hands::Hands;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::rule::Rules;

/// Least time between two rebuilds because of runs that came too late, or of a rule that fell behind.
const REBUILD_MICROS: i64 = 60 * 1_000_000;

/// After this long without a rebuild, the next one does not wait.
const FORGIVEN_MICROS: i64 = 86_400 * 1_000_000;

/// Settings of the role.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Allowed false alarms.
    pub budget: BudgetSettings,
    /// Time between two evaluations.
    pub interval: Duration,
    /// A window is complete once every source is this far past its end.
    pub grace: Duration,
    /// Days of history that state is built from.
    pub history_days: i64,
    /// Memory of queries over whole tables.
    pub memory_bytes: usize,
    /// Records in `alerts` how far `events` was read: heartbeats wait for that.
    pub record_progress: bool,
    /// Time zone of the weekly season, unless a task's contract names another.
    pub season: Season,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            budget: BudgetSettings::default(),
            interval: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            history_days: 84,
            memory_bytes: 256 << 20,
            record_progress: false,
            season: Season::default(),
        }
    }
}

/// Everything a watcher works with.
#[derive(Clone)]
pub struct Watch {
    /// Settings.
    pub settings: WatchSettings,
    /// Rules.
    pub rules: Rules,
    /// Contracts.
    pub contracts: Contracts,
    /// Tables.
    pub lake: Lake,
    /// Condition of the role, for the process's health report.
    pub health: FollowHealth,
}

/// The setup that watchers are opened from, one after another.
pub struct WatchSetup {
    watch: Watch,
    metrics: Metrics,
    pace: Arc<RebuildPace>,
}

/// Spaces out rebuilds. Each pause is twice the one before: a rule that fails on old rows may fail on them after every
/// rebuild, and a producer whose runs come late may go on like that.
#[derive(Debug, Default)]
struct RebuildPace(Mutex<(u32, i64)>);

/// The watcher and its state.
pub struct Watcher {
    watch: Watch,
    metrics: Metrics,
    pace: Arc<RebuildPace>,
    engine: Engine,
    ledger: Ledger,
    /// The actions of people on alerts; none until they were read.
    hands: Option<Hands>,
    progress: Progress,
    /// `alerts` as of the last commit.
    alerts: Snapshot,
    /// `metrics` as of the last version that was read.
    metrics_read: Snapshot,
    /// Version of `events` to read next.
    events_next: i64,
    /// Version of `events` up to which `progress` knows how far each partition was read.
    noted_next: i64,
    /// Session over whole tables, opened when a rule first needs it.
    tables: Option<Session>,
    complete_to: Minute,
    again: AgainPace,
    too_late: u64,
    /// All rows of `metrics` were replaced since state was built.
    is_outdated: bool,
    /// When progress is recorded again, microseconds since the epoch.
    record_after: i64,
}

/// Runs the role until it is stopped, or until `until` says.
///
/// # Errors
/// `Data` or `Bug` if no waiting can help. Unavailable storage is waited for.
pub async fn run(watch: Watch, registry: Registry, until: Until, stop: CancellationToken) -> Result<()> {
    for broken in &watch.rules.broken {
        tracing::warn!(
            rule = broken.name,
            from = broken.origin,
            why = broken.why,
            "a rule cannot be used; the other rules are watched"
        );
    }
    let setup = WatchSetup { metrics: Metrics::register(&registry)?, watch, pace: Arc::default() };
    let runner = Runner {
        health: setup.watch.health.clone(),
        interval: setup.watch.settings.interval,
        until,
        stop,
        ..Runner::new("watch", setup.watch.lake.clock(), setup.metrics.follow.clone())
    };
    runner.run::<Watcher>(&setup).await
}

// === impl RebuildPace ===

impl RebuildPace {
    /// Returns true if state may be rebuilt at a moment, microseconds, and counts the rebuild.
    fn allows(&self, now: i64) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, at) = *counted;
        let count = if now.saturating_sub(at) >= FORGIVEN_MICROS { 0 } else { count };
        let allows = count == 0 || now.saturating_sub(at) >= REBUILD_MICROS << count.min(10);
        if allows {
            *counted = (count.saturating_add(1), now);
        }
        allows
    }
}

// === impl Watcher ===

#[async_trait]
impl Follower for Watcher {
    type Setup = WatchSetup;

    async fn open(setup: &WatchSetup) -> Result<Self> {
        match Self::open_on_newest(setup).await {
            // A file may be vacuumed between being listed and being read. The newest version has everything that counts.
            Err(error) if error.kind() == ErrorKind::Data => {
                setup.metrics.rebuilds.inc();
                tracing::warn!(reason = %error.chain(), "a table changed while state was built from it; building again");
                Self::open_on_newest(setup).await
            }
            opened => opened,
        }
    }

    async fn step(&mut self) -> Result<Step> {
        let why = match self.turn().await {
            Ok(more) => match self.rebuild_reason(more) {
                Some(why) => why,
                None if more => return Ok(Step::More),
                None => return Ok(Step::CaughtUp),
            },
            Err(error) if error.kind() == ErrorKind::Data => error.chain(),
            Err(error) => return Err(error),
        };
        self.metrics.rebuilds.inc();
        Ok(Step::Reopen(why))
    }

    fn next_version(&self) -> i64 {
        self.metrics_read.version + 1
    }
}

impl Watcher {
    /// Opens a watcher that the caller drives with [`Watcher::turn`].
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a file is gone.
    pub async fn open(watch: &Watch, registry: &Registry) -> Result<Self> {
        let setup = WatchSetup { watch: watch.clone(), metrics: Metrics::register(registry)?, pace: Arc::default() };
        Self::open_on_newest(&setup).await
    }

    async fn open_on_newest(setup: &WatchSetup) -> Result<Self> {
        let watch = &setup.watch;
        let lake = &watch.lake;
        let alerts = lake.log(Table::Alerts).load().await?;
        let ledger = Ledger::load(lake).await?;
        let engine = Engine::new(&watch.rules, &watch.contracts, &watch.settings.budget)?;
        let mut watcher = Self {
            engine: engine.in_season(watch.settings.season),
            watch: watch.clone(),
            metrics: setup.metrics.clone(),
            pace: Arc::clone(&setup.pace),
            ledger,
            hands: None,
            progress: Progress::default(),
            alerts,
            metrics_read: Snapshot::default(),
            events_next: 0,
            noted_next: 0,
            tables: None,
            complete_to: Minute::MIN,
            again: AgainPace::default(),
            too_late: 0,
            is_outdated: false,
            record_after: i64::MIN,
        };
        Box::pin(watcher.build()).await?;
        Ok(watcher)
    }

    /// Returns why state must be built from the tables again after a turn; none if it holds.
    fn rebuild_reason(&self, more: bool) -> Option<String> {
        if self.is_outdated {
            return Some("`metrics` was rebuilt".to_owned());
        }
        if more {
            return None;
        }
        let now = self.watch.lake.clock().now_micros();
        if self.engine.wants_rebuild() && self.pace.allows(now) {
            return Some("a rule that failed works again; rows that it has not judged are in the tables".to_owned());
        }
        let late = self.engine.totals(0).rebuild.saturating_sub(self.too_late);
        (late > 0 && self.pace.allows(now)).then(|| format!("{late} runs came so late that silence is judged again"))
    }

    /// Returns the moment up to which windows are complete. By the time of day, it moves on once nothing has come for a while.
    fn complete(&self) -> Option<Minute> {
        let grace = i64::try_from(self.watch.settings.grace.as_micros()).unwrap_or(i64::MAX);
        self.progress.complete_to(grace, Some(self.watch.lake.clock().now_micros()))
    }

    /// Returns true if all rows of `metrics` were replaced since state was built: the watcher must be opened again.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Returns the rules at work.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
