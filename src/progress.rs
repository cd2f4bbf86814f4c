//! Watches how far the roles are, by the tables, and records it as their health.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_base::Result;
use bellwether_follow::Lag;
use bellwether_lake::{CommitLog, Lake, Snapshot};
use bellwether_tables::Table;
use futures::future::BoxFuture;

use crate::health::{Health, RoleReport, STORAGE};

/// Time between two rounds of probes. Each asks the logs of two tables, which costs requests on S3.
const ROUND: Duration = Duration::from_secs(2);

/// Looks at one role.
pub(crate) trait Probe: Send {
    /// Returns how far the role is.
    ///
    /// # Errors
    /// `Unavailable` if storage does not respond.
    fn look<'a>(&'a mut self, tables: &'a mut TableViews) -> BoxFuture<'a, Result<RoleReport>>;
}

/// The newest snapshots of the tables. Probes share them, so that each table is looked up once per round.
pub(crate) struct TableViews {
    lake: Lake,
    views: BTreeMap<Table, View>,
    round: u64,
}

struct View {
    snapshot: Snapshot,
    round: u64,
}

// === impl TableViews ===

impl TableViews {
    pub(crate) fn new(lake: Lake) -> Self {
        Self { lake, views: BTreeMap::new(), round: 0 }
    }

    /// Starts a round: each table is looked up again.
    fn start_round(&mut self) {
        self.round += 1;
    }

    /// Returns the newest snapshot of a table.
    ///
    /// # Errors
    /// `Unavailable` if storage does not respond.
    pub(crate) async fn newest(&mut self, table: Table) -> Result<&Snapshot> {
        let log = self.lake.log(table);
        let snapshot = match self.views.remove(&table) {
            Some(view) if view.round == self.round => view.snapshot,
            Some(view) => log.catch_up(view.snapshot).await?,
            None => log.load().await?,
        };
        Ok(&self.views.entry(table).insert_entry(View { snapshot, round: self.round }).into_mut().snapshot)
    }

    /// Returns how many versions of a table a role has yet to read, if it reads `next` next.
    ///
    /// # Errors
    /// `Unavailable` if storage does not respond.
    pub(crate) async fn versions_behind(&mut self, table: Table, next: i64, lag: &mut Lag) -> Result<i64> {
        let newest = self.newest(table).await?.version;
        lag.versions(&self.lake.log(table), next, newest).await
    }
}

/// The probes of a process.
pub(crate) struct Probes {
    tables: TableViews,
    probes: Vec<(&'static str, Box<dyn Probe>)>,
}

// === impl Probes ===

impl Probes {
    pub(crate) fn new(lake: Lake, probes: Vec<(&'static str, Box<dyn Probe>)>) -> Self {
        Self { tables: TableViews::new(lake), probes }
    }

    /// Records the health of all roles until it is dropped.
    pub(crate) async fn run(mut self, health: Health) {
        loop {
            if let Err(error) = self.record(&health).await {
                health.record_error(STORAGE, &error);
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    async fn record(&mut self, health: &Health) -> Result<()> {
        self.tables.start_round();
        let progress = self.tables.newest(Table::Events).await?.version;
        health.record(STORAGE, RoleReport { progress, ..RoleReport::default() });
        for (name, probe) in &mut self.probes {
            health.record(name, probe.look(&mut self.tables).await?);
        }
        Ok(())
    }

    /// Returns the waiting work of a role, zero if it does not run here.
    ///
    /// # Errors
    /// `Unavailable` if storage does not respond.
    pub(crate) async fn behind(&mut self, name: &str) -> Result<i64> {
        self.tables.start_round();
        match self.probes.iter_mut().find(|(probed, _)| *probed == name) {
            Some((_, probe)) => Ok(probe.look(&mut self.tables).await?.behind),
            None => Ok(0),
        }
    }
}
