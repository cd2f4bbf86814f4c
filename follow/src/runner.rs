//! The loop itself: opens a follower, lets it step, and decides after each step how to go on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Backoff, Clock, ErrorKind, Result};
use bellwether_lake::Lease;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::health::FollowHealth;
use crate::leadership::Leadership;
use crate::metrics::FollowMetrics;

/// How often a follower looks for new versions, unless its role sets another interval.
const INTERVAL: Duration = Duration::from_millis(500);

/// A role that follows a table. Its state is a function of the tables: it may be dropped at any moment and opened again,
/// here or in another process.
#[async_trait]
pub trait Follower: Send + Sized {
    /// Everything that it opens from and that outlives it: settings, tables, metrics.
    type Setup: Sync;

    /// Opens on the newest snapshot of the tables.
    ///
    /// # Errors
    /// As [`Follower::step`].
    async fn open(setup: &Self::Setup) -> Result<Self>;

    /// Reads new log entries and commits what follows from them.
    ///
    /// # Errors
    /// `Fenced` if another process has committed, `Unavailable` if storage does not answer: the runner opens the follower
    /// again. Every other kind ends the role.
    async fn step(&mut self) -> Result<Step>;

    /// Takes in the commits of the process that works, without committing anything, to be able to take over at once.
    ///
    /// # Errors
    /// As [`Follower::step`].
    async fn stand_by(&mut self) -> Result<()> {
        Ok(())
    }

    /// Commits what was put off until later; called once, when the follower has caught up and the role ends.
    ///
    /// # Errors
    /// As [`Follower::step`].
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns a future that ends when there is something to read before the interval is over.
    fn woken(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    /// Returns the version of the followed table that is read next.
    fn next_version(&self) -> i64;
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It took something in, and there may be more.
    More,
    /// Nothing was new.
    CaughtUp,
    /// The follower's state is no longer valid, for this reason. The runner opens the follower again.
    Reopen(String),
}

/// When a role ends by itself.
#[derive(Clone, Debug)]
pub enum Until {
    /// Not before it is stopped.
    Stopped,
    /// Once it has caught up after this token was cancelled, which says that nothing more is added to the followed table.
    CaughtUp(CancellationToken),
}

// === impl Until ===

impl Until {
    /// Ends the role once it has read everything that the table has by then.
    pub fn caught_up() -> Self {
        let done = CancellationToken::new();
        done.cancel();
        Self::CaughtUp(done)
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::CaughtUp(done) if done.is_cancelled())
    }

    async fn last(&self) {
        match self {
            Self::Stopped => std::future::pending().await,
            Self::CaughtUp(done) => done.cancelled().await,
        }
    }
}

/// Runs a follower for as long as its role lasts.
pub struct Runner {
    /// Name of the role, for logs.
    pub role: &'static str,
    /// Measures every wait.
    pub clock: Arc<dyn Clock>,
    /// Metrics of the follower.
    pub metrics: FollowMetrics,
    /// Condition of the follower.
    pub health: FollowHealth,
    /// The lease that decides which of several processes works; none if this one always does.
    pub lease: Option<Lease>,
    /// Time between two looks for new versions.
    pub interval: Duration,
    /// When the role ends by itself.
    pub until: Until,
    /// Ends the role at once, whatever it is doing.
    pub stop: CancellationToken,
}

/// How a follower ended without an error.
enum Ended {
    CaughtUp,
    Stopped,
    Reopen(String),
}

// === impl Runner ===

impl Runner {
    /// Makes a runner that works without a lease until it is stopped, and looks twice a second.
    pub fn new(role: &'static str, clock: Arc<dyn Clock>, metrics: FollowMetrics) -> Self {
        Self {
            role,
            clock,
            metrics,
            health: FollowHealth::default(),
            lease: None,
            interval: INTERVAL,
            until: Until::Stopped,
            stop: CancellationToken::new(),
        }
    }

    /// Runs until stopped, or until `until` says. Being stopped is no error.
    ///
    /// # Errors
    /// The follower's error, if no waiting can help: `Config`, `Data` or `Bug`.
    pub async fn run<F: Follower>(mut self, setup: &F::Setup) -> Result<()> {
        let mut leadership = Leadership::compete(self.lease.take());
        let stop = self.stop.clone();
        let ended = tokio::select! {
            biased; // Stopping wins over working: a step may be dropped at any point.
            () = stop.cancelled() => Ok(()),
            ended = Box::pin(self.reopen::<F>(setup, &mut leadership)) => ended,
        };
        leadership.give_back().await;
        ended
    }

    /// Opens the follower again and again, until it has caught up or fails for good.
    async fn reopen<F: Follower>(&self, setup: &F::Setup, leadership: &mut Leadership) -> Result<()> {
        let role = self.role;
        let mut backoff = Backoff::new(&*self.clock);
        loop {
            match self.work::<F>(setup, leadership, &mut backoff).await {
                Ok(Ended::CaughtUp | Ended::Stopped) => return Ok(()),
                Ok(Ended::Reopen(why)) => tracing::info!(role, why, "rebuilding state from the tables"),
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    self.metrics.fenced.inc();
                    tracing::info!(role, reason = %error.chain(), "another process has committed; reading on from the tables");
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.metrics.retries.inc();
                    tracing::warn!(role, reason = %error.chain(), "storage is unavailable; trying again");
                }
                Err(error) => return Err(error),
            }
            backoff.wait(&*self.clock).await;
        }
    }

    /// Opens the follower and lets it step until it has caught up, must be opened again, or fails.
    async fn work<F: Follower>(
        &self,
        setup: &F::Setup,
        leadership: &mut Leadership,
        backoff: &mut Backoff,
    ) -> Result<Ended> {
        let mut follower = F::open(setup).await?;
        self.report(&follower);
        loop {
            let leads = leadership.is_held();
            self.metrics.on_duty.set(i64::from(leads));
            if !leads {
                follower.stand_by().await?;
                self.report(&follower);
                backoff.reset();
                tokio::select! {
                    biased; // A lease that was won before waiting.
                    () = leadership.changed() => {}
                    () = self.clock.sleep(self.interval) => {}
                }
                continue;
            }
            // Asked before the step: whatever was added by then is read.
            let is_last = self.until.is_last();
            let step = follower.step().await?;
            self.report(&follower);
            backoff.reset();
            match step {
                Step::Reopen(why) => return Ok(Ended::Reopen(why)),
                Step::CaughtUp if is_last => {
                    follower.finish().await?;
                    return Ok(Ended::CaughtUp);
                }
                Step::CaughtUp => {
                    tokio::select! {
                        biased; // Fresh rows before waiting.
                        () = follower.woken() => {}
                        () = self.until.last() => {}
                        () = self.clock.sleep(self.interval) => {}
                    }
                }
                // A follower that never waits lets nothing else notice that it is stopped.
                Step::More if self.stop.is_cancelled() => return Ok(Ended::Stopped),
                Step::More => {}
            }
        }
    }

    fn report<F: Follower>(&self, follower: &F) {
        let next = follower.next_version();
        self.metrics.next_version.set(next);
        self.health.set_next_version(next);
    }
}
