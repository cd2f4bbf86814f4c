//! The role `ingest`: Kafka into `events` and `quarantine`.

use std::time::Duration;

use bellwether_aggregate::Until;
use bellwether_event::Limits;
use bellwether_ingest::worker::Ingest;
use bellwether_ingest::{FlushSettings, KafkaSettings, Metrics, Start as IngestStart};
use bellwether_lake::{Result, Table};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Role, Shared, Work};
use crate::config::{Config, Start};
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "ingest";

struct IngestRole {
    kafka: KafkaSettings,
    limits: Limits,
    health: bellwether_ingest::Health,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    let health = bellwether_ingest::Health::default();
    Box::new(IngestRole { kafka: kafka_settings(config), limits: limits(config), health })
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
            handover: shared.handover.clone(),
            metrics: Metrics::register(&shared.registry)?,
            health: self.health.clone(),
        };
        let (stop, stop_now) = (shared.stop.clone(), shared.stop_now.clone());
        let until_caught_up = matches!(until, Until::CaughtUp(_));
        Ok(Box::pin(async move { ingest.run(stop, stop_now, until_caught_up).await.map(|_| ()) }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(IngestProbe { prefix: format!("{}/", self.kafka.job), health: self.health.clone() }))
    }
}

/// Progress is the number of messages of this job that the tables hold.
struct IngestProbe {
    prefix: String,
    health: bellwether_ingest::Health,
}

impl Probe for IngestProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let events = tables.newest(Table::Events).await?;
            // Ids of topics and claims on partitions are not progress.
            let is_partition = |app: &str| app.rsplit('/').next().is_some_and(|last| last.parse::<i32>().is_ok());
            let mine = events.apps().filter(|(app, _)| app.starts_with(&self.prefix) && is_partition(app));
            let progress = mine.map(|(_, next)| next).sum();
            let status = self.health.status();
            Ok(RoleReport { progress, behind: status.behind, error: status.trouble(), ..RoleReport::default() })
        }
        .boxed()
    }
}

/// Batches that wait for a commit while the next one is decoded.
const CHANNEL_BATCHES: usize = 2;

pub(crate) fn kafka_settings(config: &Config) -> KafkaSettings {
    KafkaSettings {
        brokers: config.kafka.brokers.join(","),
        topics: config.kafka.topics.clone(),
        group: config.kafka.group.clone(),
        job: config.kafka.job.clone(),
        instance_id: config.kafka.instance_id.clone(),
        properties: config.kafka.properties.clone(),
        flush: FlushSettings {
            interval: config.ingest.flush_interval,
            max_bytes: config.ingest.flush_bytes,
            max_rows: config.ingest.flush_rows,
            channel_batches: CHANNEL_BATCHES,
        },
        start: match config.kafka.start {
            Start::Earliest => IngestStart::Earliest,
            Start::Latest => IngestStart::Latest,
        },
    }
}

pub(crate) fn limits(config: &Config) -> Limits {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Limits {
        max_bytes: config.ingest.max_event_bytes,
        max_depth: config.ingest.max_event_depth,
        max_future_micros: micros(config.ingest.max_future),
        max_age_micros: micros(config.ingest.max_event_age),
    }
}
