//! The role `aggregate`: `events` into `metrics`, `releases` and `rolling_history`.

use bellwether_aggregate::{Aggregate, AggregatorSettings};
use bellwether_base::Result;
use bellwether_follow::{Lag, Until};
use bellwether_lake::Layout;
use bellwether_tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work, run_all};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "aggregate";

/// Settings of the role.
#[derive(Clone, Debug)]
pub(crate) struct AggregateSettings {
    /// Settings of each aggregator.
    pub(crate) settings: AggregatorSettings,
    /// Shards of this process; empty means all.
    pub(crate) only_shards: Vec<u32>,
    /// Most memory of rows that are handed over from ingest, bytes.
    pub(crate) handover_bytes: usize,
}

impl Default for AggregateSettings {
    fn default() -> Self {
        Self { settings: AggregatorSettings::default(), only_shards: Vec::new(), handover_bytes: 64 << 20 }
    }
}

struct AggregateRole(AggregateSettings);

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(AggregateRole(config.aggregate.clone()))
}

// === impl AggregateRole ===

impl Role for AggregateRole {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Starts an aggregator for each shard of this process. Each works while it holds the shard's lease. One that ends by itself
    /// takes no lease: the logs of the tables keep two of them from committing the same rows.
    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let AggregateSettings { settings, only_shards, .. } = &self.0;
        let is_mine = |shard: &u32| only_shards.is_empty() || only_shards.contains(shard);
        let start = |shard: u32| -> Work {
            let aggregate = Aggregate {
                settings: AggregatorSettings { shard, ..*settings },
                // Rows can be handed over to one aggregator only.
                handover: shared.handover.clone().filter(|_| settings.shards == 1),
                lease: matches!(until, Until::Stopped),
                ..Aggregate::new(shared.lake.clone())
            };
            let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
            Box::pin(bellwether_aggregate::run(aggregate, registry, until.clone(), stop))
        };
        let aggregators: Vec<Work> = (0..settings.shards).filter(is_mine).map(start).collect();
        Ok(Box::pin(run_all(aggregators)))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(AggregateProbe::default()))
    }
}

/// Progress is the version of `events` that the slowest shard reads next.
#[derive(Default)]
struct AggregateProbe {
    lag: Lag,
}

impl Probe for AggregateProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = Layout::reads_next(tables.newest(Table::Metrics).await?);
            let behind = tables.versions_behind(Table::Events, progress, &mut self.lag).await?;
            Ok(RoleReport { progress, behind, ..RoleReport::default() })
        }
        .boxed()
    }
}
