//! The role `watch`: evaluates rules over new rows and writes `alerts`.

use std::path::Path;
use std::time::Duration;

use bellwether_aggregate::Until;
use bellwether_alerts::{BudgetSettings, Contracts, Health as WatchHealth, Rules, Settings, Watch};
use bellwether_lake::{Result, Table};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "watch";

struct WatchRole {
    is_in_run: bool,
    settings: Settings,
    rules: Rules,
    contracts: Contracts,
    health: WatchHealth,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(WatchRole {
        is_in_run: config.alerts.watch,
        settings: settings(config),
        rules: rules(config),
        contracts: config.contracts.clone(),
        health: WatchHealth::default(),
    })
}

// === impl WatchRole ===

impl Role for WatchRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_run(&self) -> bool {
        self.is_in_run
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let watch = Watch {
            settings: self.settings.clone(),
            rules: self.rules.clone(),
            contracts: self.contracts.clone(),
            lake: shared.lake.clone(),
            health: self.health.clone(),
        };
        let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
        Ok(Box::pin(async move {
            let until_caught_up = match until {
                Until::Stopped => false,
                Until::CaughtUp(upstream) => {
                    tokio::select! {
                        biased; // Stopping wins over waiting.
                        () = stop.cancelled() => return Ok(()),
                        () = upstream.cancelled() => true,
                    }
                }
            };
            Box::pin(bellwether_alerts::run(watch, registry, until_caught_up, stop)).await
        }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(WatchProbe { health: self.health.clone(), interval: self.settings.interval, empty_to: 0 }))
    }
}

/// Progress is the version of `metrics` that is read next.
struct WatchProbe {
    health: WatchHealth,
    interval: Duration,
    empty_to: i64,
}

impl Probe for WatchProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = self.health.next_version();
            let behind = tables.versions_behind(Table::Metrics, progress, &mut self.empty_to).await?;
            let degraded = self.health.failing();
            Ok(RoleReport { progress, behind, pace: self.interval, error: None, degraded })
        }
        .boxed()
    }
}

/// Loads the rules that a configuration names.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules::load(config.alerts.rules.as_deref().map(Path::new), &config.alerts.disabled)
}

pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        budget: BudgetSettings {
            pages: config.alerts.false_pages_a_month,
            tickets: config.alerts.false_tickets_a_month,
            ..BudgetSettings::default()
        },
        interval: config.alerts.interval,
        grace: config.alerts.grace,
        history_days: i64::try_from(config.alerts.history_days).unwrap_or(i64::MAX),
        memory_bytes: config.alerts.memory_bytes,
        season: config.alerts.season,
    }
}
