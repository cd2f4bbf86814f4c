//! The role `rollup`: `metrics` into `metrics_hourly`, and that into `metrics_daily`.

use std::time::Duration;

use bellwether_aggregate::rollup::{Rollup, RollupSettings};
use bellwether_base::Result;
use bellwether_follow::Until;
use bellwether_lake::{RollUp, Rolled};
use bellwether_tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work, aggregate};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "rollup";

struct RollupRole {
    settings: RollupSettings,
    work: bellwether_aggregate::rollup::Work,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(RollupRole { settings: config.rollup, work: bellwether_aggregate::rollup::Work::default() })
}

// === impl RollupRole ===

impl Role for RollupRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accompanies(&self) -> Option<&'static str> {
        Some(aggregate::NAME)
    }

    /// Starts the role. It works while it holds its lease; one that ends by itself takes none, as with aggregate.
    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let rollup = Rollup {
            settings: self.settings,
            lease: matches!(until, Until::Stopped),
            work: self.work.clone(),
            ..Rollup::new(shared.lake.clone())
        };
        let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
        Ok(Box::pin(bellwether_aggregate::rollup::run(rollup, registry, until, stop)))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(RollupProbe { work: self.work.clone(), pace: self.settings.interval }))
    }
}

/// Waiting work is the versions of `events` whose metrics are not in `metrics_hourly`. Rows that are being folded are progress:
/// after a rebuild, one commit takes in everything.
struct RollupProbe {
    work: bellwether_aggregate::rollup::Work,
    pace: Duration,
}

impl Probe for RollupProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            // In the order in which `Rolled` needs them.
            let daily = tables.newest(Table::MetricsDaily).await?.clone();
            let hourly = tables.newest(Table::MetricsHourly).await?.clone();
            let metrics = tables.newest(Table::Metrics).await?;
            let rolled = Rolled::of(&daily, &hourly, metrics);
            let behind = RollUp::Hours.source_end(metrics) - rolled.hours;
            let progress = rolled.hours.saturating_add(rolled.days).saturating_add(self.work.rows());
            Ok(RoleReport { progress, behind: behind.max(0), pace: self.pace, ..RoleReport::default() })
        }
        .boxed()
    }
}
