//! The role `evals`: samples runs for review and writes `candidates`.

use std::time::Duration;

use bellwether_base::Result;
use bellwether_evals::{EvalsSettings, Sample};
use bellwether_follow::{FollowHealth, Lag, Until};
use bellwether_tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work, once_upstream_ended};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "evals";

/// Settings of the role.
#[derive(Clone, Debug, Default)]
pub(crate) struct EvalsConfig {
    /// `bellwether run` includes the role.
    pub(crate) is_in_run: bool,
    pub(crate) sampler: EvalsSettings,
    /// Command that prints content that is stored elsewhere; empty if there is none.
    pub(crate) fetch_content: Vec<String>,
}

struct EvalsRole {
    settings: EvalsConfig,
    health: FollowHealth,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(EvalsRole { settings: config.evals.clone(), health: FollowHealth::default() })
}

// === impl EvalsRole ===

impl Role for EvalsRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_run(&self) -> bool {
        self.settings.is_in_run
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let sample =
            Sample { settings: self.settings.sampler.clone(), lake: shared.lake.clone(), health: self.health.clone() };
        let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
        Ok(Box::pin(async move {
            let Some(until) = once_upstream_ended(until, &stop).await else { return Ok(()) };
            Box::pin(bellwether_evals::run(sample, registry, until, stop)).await
        }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        let pace = self.settings.sampler.interval;
        Some(Box::new(EvalsProbe { health: self.health.clone(), pace, lag: Lag::default() }))
    }
}

/// Progress is the version of `events` that is read next.
struct EvalsProbe {
    health: FollowHealth,
    pace: Duration,
    lag: Lag,
}

impl Probe for EvalsProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = self.health.next_version();
            let behind = tables.versions_behind(Table::Events, progress, &mut self.lag).await?;
            let degraded = self.health.degraded();
            Ok(RoleReport { progress, behind, pace: self.pace, error: None, degraded })
        }
        .boxed()
    }
}
