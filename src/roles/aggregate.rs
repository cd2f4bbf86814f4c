//! The role `aggregate`: `events` into `metrics`, `releases` and `rolling_history`.

use bellwether_aggregate::{Duty, Settings, Until, run_on_duty};
use bellwether_lake::{Layout, Result, Table, app_of};
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
    pub(crate) settings: Settings,
    /// Shards of this process; empty means all.
    pub(crate) only_shards: Vec<u32>,
    /// Most memory of rows that are handed over from ingest, bytes.
    pub(crate) handover_bytes: usize,
}

impl Default for AggregateSettings {
    fn default() -> Self {
        Self { settings: Settings::default(), only_shards: Vec::new(), handover_bytes: 64 << 20 }
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
    /// works without a lease: the logs of the tables keep two of them from committing the same rows.
    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let (mut aggregators, mut leases): (Vec<Work>, Vec<_>) = (Vec::new(), Vec::new());
        let stop_leases = shared.stop.child_token();
        let AggregateSettings { settings, only_shards, .. } = &self.0;
        let is_mine = |shard: &u32| only_shards.is_empty() || only_shards.contains(shard);
        for shard in (0..settings.shards).filter(is_mine) {
            let duty = if let Until::CaughtUp(_) = until {
                Duty::always()
            } else {
                let (sender, held) = tokio::sync::watch::channel(false);
                leases.push(shared.lake.lease(&app_of(shard)).keep(sender, stop_leases.clone()));
                Duty::while_held(held)
            };
            // Rows can be handed over to one aggregator only.
            let handover = shared.handover.clone().filter(|_| settings.shards == 1);
            let settings = Settings { shard, ..*settings };
            let (lake, registry, stop) = (shared.lake.clone(), shared.registry.clone(), shared.stop.clone());
            let aggregator = run_on_duty(settings, lake, handover, registry, until.clone(), stop, duty);
            aggregators.push(Box::pin(aggregator));
        }
        Ok(Box::pin(async move {
            let leases: Vec<_> = leases.into_iter().map(tokio::spawn).collect();
            let ended = run_all(aggregators).await;
            stop_leases.cancel();
            for lease in leases {
                if let Err(error) = lease.await {
                    tracing::warn!(%error, "a lease task panicked; its lease will expire");
                }
            }
            ended
        }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(AggregateProbe::default()))
    }
}

/// Progress is the version of `events` that the slowest shard reads next.
#[derive(Default)]
struct AggregateProbe {
    empty_to: i64,
}

impl Probe for AggregateProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = Layout::reads_next(tables.newest(Table::Metrics).await?);
            let behind = tables.versions_behind(Table::Events, progress, &mut self.empty_to).await?;
            Ok(RoleReport { progress, behind, ..RoleReport::default() })
        }
        .boxed()
    }
}
