//! The role `watch`: evaluates rules over new rows and writes `alerts`.

use std::path::Path;
use std::time::Duration;

use bellwether_alerts::{Contracts, Rules, Watch, WatchSettings};
use bellwether_base::Result;
use bellwether_follow::{FollowHealth, Lag, Until};
use bellwether_tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work, once_upstream_ended};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "watch";

/// Settings of the role, and of commands about rules.
#[derive(Clone, Debug)]
pub(crate) struct AlertsSettings {
    /// `bellwether run` includes the role.
    pub(crate) is_in_run: bool,
    /// Folder of custom rules.
    pub(crate) rules: Option<String>,
    /// Names of rules that are turned off.
    pub(crate) disabled: Vec<String>,
    /// Settings of the watcher.
    pub(crate) watch: WatchSettings,
    /// Contracts of the tasks.
    pub(crate) contracts: Contracts,
}

impl Default for AlertsSettings {
    fn default() -> Self {
        let watch = WatchSettings::default();
        Self { is_in_run: true, rules: None, disabled: Vec::new(), watch, contracts: Contracts::new() }
    }
}

// === impl AlertsSettings ===

impl AlertsSettings {
    /// Loads the shipped rules and the custom ones.
    pub(crate) fn load_rules(&self) -> Rules {
        Rules::load(self.rules.as_deref().map(Path::new), &self.disabled)
    }
}

struct WatchRole {
    settings: AlertsSettings,
    health: FollowHealth,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(WatchRole { settings: config.alerts.clone(), health: FollowHealth::default() })
}

// === impl WatchRole ===

impl Role for WatchRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_run(&self) -> bool {
        self.settings.is_in_run
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let watch = Watch {
            settings: self.settings.watch.clone(),
            rules: self.settings.load_rules(),
            contracts: self.settings.contracts.clone(),
            lake: shared.lake.clone(),
            health: self.health.clone(),
        };
        let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
        Ok(Box::pin(async move {
            let Some(until) = once_upstream_ended(until, &stop).await else { return Ok(()) };
            Box::pin(bellwether_alerts::run(watch, registry, until, stop)).await
        }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(WatchProbe {
            health: self.health.clone(),
            interval: self.settings.watch.interval,
            lag: Lag::default(),
        }))
    }
}

/// Progress is the version of `metrics` that is read next.
struct WatchProbe {
    health: FollowHealth,
    interval: Duration,
    lag: Lag,
}

impl Probe for WatchProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = self.health.next_version();
            let behind = tables.versions_behind(Table::Metrics, progress, &mut self.lag).await?;
            let degraded = self.health.degraded();
            Ok(RoleReport { progress, behind, pace: self.interval, error: None, degraded })
        }
        .boxed()
    }
}
