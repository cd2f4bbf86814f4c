//! The role `rollup`: keeps `metrics_hourly`, made of `metrics`, and `metrics_daily`, made of `metrics_hourly`.
//!
//! * `level` is one roll-up: which rows are next, and the commit that takes them in.
//! * `rows` reads them piece by piece, and `fold` folds them by the one definition of the metrics crate.
//! * [`compare`] compares a roll-up with its source, for audits.
//!
//! The clock is `events_to`: a roll-up holds exactly the rows of its source up to a number, which it moves in the commit that
//! adds the rows (`bellwether_lake::Rolled`). Late outcomes and corrections are rows with a new `events_to`, whatever their
//! window. After any crash the role reads on from there, and of two processes only one can commit. Commits are an interval
//! apart, because a reader adds what is not rolled up yet from the source: a roll-up that lags is exact all the same.

pub mod compare;
pub(crate) mod fold;
mod level;
mod metrics;
pub(crate) mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::Result;
use bellwether_follow::{FollowHealth, Follower, Runner, Step, Until};
use bellwether_lake::{Lake, RollUp};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use level::{Level, Tools};
use metrics::{Metrics, ROLE};

/// Rows that a commit folds at most, unless they are of one version of `events`: bounds what is done again after a crash.
const STEP_ROWS: i64 = 1_000_000;

/// Factor by which this role renews its lease more rarely than others: no answer waits for it.
const LEASE_PACE: u32 = 5;

/// Settings of the role.
#[derive(Clone, Copy, Debug)]
pub struct RollupSettings {
    /// Time between two commits to `metrics_hourly`.
    pub interval: Duration,
    /// Time between two commits to `metrics_daily`.
    pub days_interval: Duration,
    /// Memory for folding; what does not fit is spilled to disk.
    pub memory_bytes: usize,
    /// Rows that a commit takes in, about.
    pub step_rows: i64,
}

impl Default for RollupSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            days_interval: Duration::from_secs(15 * 60),
            memory_bytes: 128 << 20,
            step_rows: STEP_ROWS,
        }
    }
}

/// The number of rows folded so far, a sign of life during a long commit. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Work(Arc<AtomicI64>);

/// Everything that the role works with.
#[derive(Clone)]
pub struct Rollup {
    /// Settings.
    pub settings: RollupSettings,
    /// Tables.
    pub lake: Lake,
    /// Compete for the lease of the role, and stand by while another process holds it. Without it, this process always works.
    pub lease: bool,
    /// Condition of the role, for the process's health report.
    pub health: FollowHealth,
    /// The rows that it has folded.
    pub work: Work,
}

/// The setup that followers are opened from, one after another.
pub struct RollupSetup {
    rollup: Rollup,
    metrics: Metrics,
}

/// Keeps both roll-ups.
pub struct Roller {
    tools: Tools,
    hours: Level,
    days: Level,
    days_interval_micros: i64,
    /// When `metrics_daily` was last brought up to `metrics_hourly`, microseconds since the epoch.
    days_at: i64,
}

/// Runs the role until it is stopped, or until `until` says.
///
/// # Errors
/// `Data` or `Bug` if no waiting can help. Unavailable storage is waited for.
pub async fn run(rollup: Rollup, registry: Registry, until: Until, stop: CancellationToken) -> Result<()> {
    let metrics = Metrics::register(&registry)?;
    let Rollup { settings, lake, lease, health, .. } = &rollup;
    let runner = Runner {
        lease: lease.then(|| lake.lease(ROLE).slower(LEASE_PACE)),
        health: health.clone(),
        interval: settings.interval,
        until,
        stop,
        ..Runner::new(ROLE, lake.clock(), metrics.follow.clone())
    };
    runner.run::<Roller>(&RollupSetup { rollup, metrics }).await
}

// === impl Work ===

impl Work {
    /// Returns the number of rows folded.
    pub fn rows(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self, rows: usize) {
        self.0.fetch_add(i64::try_from(rows).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

// === impl Rollup ===

impl Rollup {
    /// Works on a lake by default settings, alone.
    pub fn new(lake: Lake) -> Self {
        let (health, work) = (FollowHealth::default(), Work::default());
        Self { settings: RollupSettings::default(), lake, lease: false, health, work }
    }
}

// === impl Roller ===

#[async_trait]
impl Follower for Roller {
    type Setup = RollupSetup;

    async fn open(setup: &RollupSetup) -> Result<Self> {
        Self::open_with(&setup.rollup, setup.metrics.clone()).await
    }

    async fn step(&mut self) -> Result<Step> {
        if self.take_hours().await? {
            return Ok(Step::More);
        }
        let now = self.tools.lake.clock().now_micros();
        if now.saturating_sub(self.days_at) < self.days_interval_micros {
            return Ok(Step::CaughtUp);
        }
        if self.days.step(&self.tools).await? {
            return Ok(Step::More);
        }
        self.days_at = now;
        Ok(Step::CaughtUp)
    }

    async fn stand_by(&mut self) -> Result<()> {
        self.days.look(&self.tools.lake).await?;
        self.hours.look(&self.tools.lake).await
    }

    async fn finish(&mut self) -> Result<()> {
        while self.days.step(&self.tools).await? {}
        Ok(())
    }

    fn next_version(&self) -> i64 {
        self.hours.rolled_to()
    }
}

impl Roller {
    /// Opens a follower that the caller drives with [`Roller::run_until_caught_up`].
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub async fn open(lake: &Lake, settings: RollupSettings, registry: &Registry) -> Result<Self> {
        Self::open_with(&Rollup { settings, ..Rollup::new(lake.clone()) }, Metrics::register(registry)?).await
    }

    async fn open_with(rollup: &Rollup, metrics: Metrics) -> Result<Self> {
        let Rollup { settings, lake, .. } = rollup;
        let hours = Level::open(RollUp::Hours, lake).await?;
        let days = Level::open(RollUp::Days, lake).await?;
        metrics.show(RollUp::Hours, hours.rolled_to());
        metrics.show(RollUp::Days, days.rolled_to());
        let context = fold::session(settings.memory_bytes)?;
        Ok(Self {
            tools: Tools {
                lake: lake.clone(),
                context,
                metrics,
                work: rollup.work.clone(),
                step_rows: settings.step_rows,
            },
            hours,
            days,
            days_interval_micros: i64::try_from(settings.days_interval.as_micros()).unwrap_or(i64::MAX),
            days_at: i64::MIN,
        })
    }

    /// Takes in everything that is new.
    ///
    /// # Errors
    /// `Fenced` if another process has committed, `Unavailable` if storage does not answer: a new one must be opened then.
    pub async fn run_until_caught_up(&mut self) -> Result<()> {
        while self.take_hours().await? {}
        self.finish().await
    }

    async fn take_hours(&mut self) -> Result<bool> {
        self.hours.check_made_of_this(&self.days, &self.tools.lake).await?;
        self.hours.step(&self.tools).await
    }
}

#[cfg(test)]
mod tests;
