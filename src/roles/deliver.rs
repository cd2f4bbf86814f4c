//! The role `deliver`: follows `alerts` and sends pages by routes.

mod connect;

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_deliver::{Deliver, DeliverSettings};
use bellwether_evidence::{LinkSettings, Links};
use bellwether_follow::{FollowHealth, Lag, Until};
use bellwether_tables::Table;
use futures::FutureExt;
use futures::future::BoxFuture;

use self::connect::{Evidence, People};
use super::{Role, Shared, Work, once_upstream_ended};
use crate::config::Config;
use crate::health::RoleReport;
use crate::progress::{Probe, TableViews};

pub(crate) const NAME: &str = "deliver";

/// Time between two looks for new transitions. Half a second keeps a page within two seconds of its transition.
const INTERVAL: Duration = Duration::from_millis(500);

struct DeliverRole {
    settings: DeliverSettings,
    links: LinkSettings,
    record_progress: bool,
    health: FollowHealth,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    let (settings, links) = (config.deliver.clone(), config.links.clone());
    Box::new(DeliverRole { settings, links, record_progress: config.heartbeat.send, health: FollowHealth::default() })
}

// === impl DeliverRole ===

impl Role for DeliverRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_run(&self) -> bool {
        self.settings.delivers()
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        if !self.settings.delivers() {
            return Err(Error::config("there is nowhere to deliver to")
                .with_hint("add a sink under `deliver.sinks`; docs/delivery.md shows how"));
        }
        let links = Links::new(&self.links);
        let deliver = Deliver {
            sinks: crate::deliver::sinks(&self.settings, &shared.lake.clock())?,
            settings: self.settings.clone(),
            lake: shared.lake.clone(),
            builder: Arc::new(Evidence::new(shared.lake.clone(), links.clone())),
            links,
            hands: Arc::new(People::new(shared.lake.clone())),
            health: self.health.clone(),
            interval: INTERVAL,
            record_progress: self.record_progress,
        };
        let (registry, stop) = (shared.registry.clone(), shared.stop.clone());
        Ok(Box::pin(async move {
            let Some(until) = once_upstream_ended(until, &stop).await else { return Ok(()) };
            Box::pin(bellwether_deliver::run(deliver, registry, until, stop)).await
        }))
    }

    fn probe(&self) -> Option<Box<dyn Probe>> {
        Some(Box::new(DeliverProbe { health: self.health.clone(), lag: Lag::default() }))
    }
}

/// Progress is the version of `alerts` that is read next.
struct DeliverProbe {
    health: FollowHealth,
    lag: Lag,
}

impl Probe for DeliverProbe {
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>> {
        async move {
            let progress = self.health.next_version();
            let behind = tables.versions_behind(Table::Alerts, progress, &mut self.lag).await?;
            let degraded = self.health.degraded();
            Ok(RoleReport { progress, behind, pace: INTERVAL, error: None, degraded })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome, StorageOptions};
    use bellwether_tables::ColumnType;
    use serde_json::{Map, Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Environment;
    use crate::process::Process;
    use crate::roles;

    /// Appends an alert that fires to the tables of a root.
    async fn fire(root: &str) {
        let lake = Lake::open(root, &StorageOptions::default()).await.expect("opens");
        let usual = |kind: ColumnType| match kind {
            ColumnType::Text => json!("x"),
            ColumnType::Boolean => json!(false),
            ColumnType::List(_) => json!([]),
            ColumnType::TextMap => json!({ "area": "quality" }),
            _ => json!(1),
        };
        let columns = Table::Alerts.columns().iter().filter(|column| column.required);
        let mut row: Map<String, Value> = columns.map(|column| (column.name.to_owned(), usual(column.kind))).collect();
        let stated = [("state", "firing"), ("change", "new"), ("severity", "page"), ("alert_id", "a1")];
        row.extend(stated.map(|(name, value)| (name.to_owned(), json!(value))));
        let reader = arrow::json::ReaderBuilder::new(Table::Alerts.arrow_schema());
        let mut decoder = reader.build_decoder().expect("a decoder");
        decoder.serialize(&[row]).expect("a row");
        let batch = decoder.flush().expect("a row").expect("some");
        let files = lake.write(Table::Alerts, &batch).await.expect("writes");
        let log = lake.log(Table::Alerts);
        let on = log.load().await.expect("loads");
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances: vec![Advance { app_id: "watch/0".to_owned(), expected: None, next: 1 }],
            files: files.into_iter().map(|written| written.file).collect(),
            operation: "test",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    }

    #[tokio::test]
    async fn the_role_delivers_through_the_sinks_of_the_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, inbox) = (folder.path().join("tables"), folder.path().join("pages.ndjson"));
        let sink = format!("deliver.sinks.file = {{ kind = \"inbox\", path = \"{}\" }}\n", inbox.display());
        let mut config = Config::parse("test.toml", &sink, &Environment).expect("valid");
        config.tables.root = root.display().to_string();
        config.serve.address = SocketAddr::from(([127, 0, 0, 1], 0));
        fire(&config.tables.root).await;
        for _ in 0..2 {
            let roles = roles::only(&config, NAME);
            let process = Process::start(&config, roles, true, &CancellationToken::new()).await.expect("starts");
            let ended = tokio::time::timeout(Duration::from_secs(60), process.ended()).await;
            ended.expect("ends by itself").expect("delivers");
            let text = std::fs::read_to_string(&inbox).expect("written");
            assert_eq!(text.lines().count(), 1, "once: {text}");
            assert!(text.contains("\"a1\""), "{text}");
        }
    }

    #[tokio::test]
    async fn without_a_sink_the_command_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.tables.root = folder.path().display().to_string();
        config.serve.address = SocketAddr::from(([127, 0, 0, 1], 0));
        let roles = roles::only(&config, NAME);
        let started = Process::start(&config, roles, true, &CancellationToken::new()).await;
        let error = started.err().expect("nothing to do");
        assert!(error.hint().is_some_and(|hint| hint.contains("deliver.sinks")), "{}", error.chain());
    }
}
