//! The role `ingest`: Kafka into `events` and `quarantine`.

use std::sync::Arc;

use bellwether_base::Result;
use bellwether_event::Limits;
use bellwether_follow::Until;
use bellwether_ingest::worker::Ingest;
use bellwether_ingest::{IngestHealth, IngestMetrics, KafkaSettings};
use bellwether_redact::Redactor;
use bellwether_tables::{PartitionId, Table};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "ingest";

struct IngestRole {
    kafka: KafkaSettings,
    limits: Limits,
    redactor: Arc<Redactor>,
    health: IngestHealth,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    let health = IngestHealth::default();
    let (kafka, redactor) = (config.kafka.clone(), Arc::clone(&config.redactor));
    Box::new(IngestRole { kafka, limits: config.limits, redactor, health })
}

// === impl IngestRole ===

impl Role for IngestRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let ingest = Ingest {
            lake: shared.lake.clone(),
            kafka: self.kafka.clone(),
            limits: self.limits,
            redactor: Arc::clone(&self.redactor),
            handover: shared.handover.clone(),
            metrics: IngestMetrics::register(&shared.registry)?,
            health: self.health.clone(),
        };
        let (stop, stop_now) = (shared.stop.clone(), shared.stop_now.clone());
        let until_caught_up = matches!(until, Until::CaughtUp(_));
        Ok(Box::pin(async move { ingest.run(stop, stop_now, until_caught_up).await.map(|_| ()) }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(IngestProbe { job: self.kafka.job.clone(), health: self.health.clone() }))
    }
}

/// Progress is the number of messages of this job that the tables hold.
struct IngestProbe {
    job: String,
    health: IngestHealth,
}

impl Probe for IngestProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let events = tables.newest(Table::Events).await?;
            // Ids of topics and claims on partitions are not progress.
            let mine = |app: &str| app.parse::<PartitionId>().is_ok_and(|partition| partition.job == self.job);
            let progress = events.apps().filter(|(app, _)| mine(app)).map(|(_, next)| next).sum();
            let status = self.health.status();
            Ok(RoleReport { progress, behind: status.behind, error: status.trouble(), ..RoleReport::default() })
        }
        .boxed()
    }
}
