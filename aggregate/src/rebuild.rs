//! Makes everything that is computed from `events` anew, and puts it in the place of what is there in one commit a table.
//!
//! Until then readers and a working aggregator see the old rows, whole; from then on the new ones, whole: a version of a
//! table never holds both. A rebuild that is killed has changed nothing, and the next one starts over. It is also what
//! changes the number of shards. `rolling_history` is a record, and stays.

use std::collections::{BTreeMap, HashSet};

use bellwether_lake::{
    AddedFile, Advance, Commit, CommitLog, DataFile, Error, Lake, Layout, Outcome, Result, Snapshot, Table, app_of,
    settle,
};
use futures::future::BoxFuture;
use prometheus::Registry;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::contribution::{Definitions, FileRows, Runs, Shard};
use crate::metrics::Metrics;
use crate::releases::Releases;
use crate::sql;
use crate::tail::{STEP_ROWS, Tail, weight};
use crate::tail_loop::Settings;

/// Application whose number counts a table's rewrites by maintenance.
const REWRITES: &str = "maintain/rewrites";

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Version of `events` after the last that was read.
    pub events_version: i64,
    /// Rows of `events` that were read.
    pub rows: u64,
    /// Shards from now on.
    pub shards: u32,
    /// How often everything has been rebuilt.
    pub generation: i64,
}

/// Rebuilds `metrics` and `releases` for `settings.shards` shards. `progress` is told the rows read.
///
/// # Errors
/// `Unavailable` where storage does not answer, or it was stopped: nothing has changed then.
pub async fn rebuild(
    lake: &Lake,
    settings: Settings,
    mut progress: impl FnMut(u64),
    stop: &CancellationToken,
) -> Result<Rebuilt> {
    let mut rebuilding = Rebuilding {
        definitions: Definitions::plan(&sql::session()).await?,
        tail: Tail::new(lake.clone(), None, Metrics::register(&Registry::new())?.read_back, 0),
        lake: lake.clone(),
        runs: Runs::new(&settings, Shard { number: 0, of: 1 }),
        releases: Releases::default(),
        files: BTreeMap::new(),
        rows: 0,
    };
    rebuilding.begin(&mut progress, stop).await?;
    loop {
        while rebuilding.step(&mut progress, stop).await? {}
        if let Some(rebuilt) = rebuilding.switch(settings.shards).await? {
            return Ok(rebuilt);
        }
    }
}

/// What has been made so far, written and named by nobody yet.
struct Rebuilding {
    lake: Lake,
    definitions: Definitions,
    tail: Tail,
    runs: Runs,
    releases: Releases,
    files: BTreeMap<Table, Vec<DataFile>>,
    rows: u64,
}

// === impl Rebuilding ===

impl Rebuilding {
    /// Where the beginning of the log of `events` has been cleaned up, begins with the files that are there.
    async fn begin(&mut self, progress: &mut impl FnMut(u64), stop: &CancellationToken) -> Result<()> {
        if self.lake.log(Table::Events).entry(0).await?.is_some() {
            return Ok(());
        }
        let (version, mut files) = self.lake.active_files(Table::Events).await?;
        // Names hold the time of writing, so this is about the order in which the rows came.
        files.sort_by(|a, b| a.path.rsplit('/').next().cmp(&b.path.rsplit('/').next()));
        let (mut new, mut rows) = (Vec::new(), 0);
        for file in files {
            let file = self.tail.read(&file).await?;
            rows += weight(&file)?;
            new.push(file);
            if rows >= STEP_ROWS {
                self.take(std::mem::take(&mut new), 0, version + 1, progress, stop).await?;
                rows = 0;
            }
        }
        self.take(new, 0, version + 1, progress, stop).await?;
        self.tail.next = version + 1;
        Ok(())
    }

    async fn step(&mut self, progress: &mut impl FnMut(u64), stop: &CancellationToken) -> Result<bool> {
        let (entries, new) = self.tail.gather().await?;
        let Some(last) = entries.last() else { return Ok(false) };
        let (from, to) = (self.tail.next, last.version + 1);
        self.take(new, from, to, progress, stop).await?;
        for entry in &entries {
            self.runs.note(entry)?;
        }
        self.tail.next = to;
        Ok(true)
    }

    async fn take(
        &mut self,
        new: Vec<FileRows>,
        from: i64,
        to: i64,
        progress: &mut impl FnMut(u64),
        stop: &CancellationToken,
    ) -> Result<()> {
        if stop.is_cancelled() {
            return Err(Error::unavailable("the rebuild was stopped; nothing has changed"));
        }
        if new.is_empty() {
            return Ok(());
        }
        let (partials, _) = Box::pin(self.runs.take(&self.lake, &self.definitions, &new, from, to)).await?;
        let (seen, fresh) = self.releases.first_seen(&self.lake, &new, to - 1).await?;
        self.releases.note(fresh);
        for (table, rows) in [(Table::Metrics, partials), (Table::Releases, seen)] {
            let written = self.lake.write(table, &rows).await?;
            self.files.entry(table).or_default().extend(written.into_iter().map(|written| written.file));
        }
        self.rows += new.iter().map(|file| file.count() as u64).sum::<u64>();
        progress(self.rows);
        Ok(())
    }

    /// Puts what was made in the place of what is there. None where a working aggregator is further by now, or has
    /// committed at the same moment: then there is more to read.
    async fn switch(&mut self, shards: u32) -> Result<Option<Rebuilt>> {
        let (metrics, releases) = (self.lake.log(Table::Metrics), self.lake.log(Table::Releases));
        let (on_metrics, on_releases) = (metrics.load().await?, releases.load().await?);
        let now = Layout::of(&on_metrics).unwrap_or(Layout { generation: 0, shards: 1 });
        let apps: Vec<String> = (0..now.shards.max(shards)).map(app_of).collect();
        let ahead = |on: &Snapshot| apps.iter().filter_map(|app| on.next(app)).any(|next| next > self.tail.next);
        if ahead(&on_metrics) || ahead(&on_releases) {
            return Ok(None);
        }
        let next = Layout { generation: now.generation + 1, shards };
        let mut advances = self.advances(&on_metrics, &apps);
        advances.push(next.advance(&on_metrics));
        // Releases first, as always: no row of `metrics` names one that is not there.
        let seen = self.advances(&on_releases, &apps[..1]);
        if !self.replace(Table::Releases, &on_releases, seen, next).await? {
            return Ok(None);
        }
        if !self.replace(Table::Metrics, &on_metrics, advances, next).await? {
            return Ok(None);
        }
        Ok(Some(Rebuilt { events_version: self.tail.next, rows: self.rows, shards, generation: next.generation }))
    }

    /// Where everybody who may have committed must stand, so that nothing comes between.
    fn advances(&self, on: &Snapshot, apps: &[String]) -> Vec<Advance> {
        let at = |app: &String| Advance { app_id: app.clone(), expected: on.next(app), next: self.tail.next };
        let mut advances: Vec<Advance> = apps.iter().map(at).collect();
        let rewrites = on.next(REWRITES);
        advances.push(Advance { app_id: REWRITES.to_owned(), expected: rewrites, next: rewrites.unwrap_or(0) + 1 });
        advances
    }

    /// One commit that takes out all files of a table and puts in those that were made. False where it came too late.
    async fn replace(&self, table: Table, on: &Snapshot, advances: Vec<Advance>, layout: Layout) -> Result<bool> {
        let mut old: Vec<AddedFile> = self.lake.files_at(table, on.version).await?;
        let mut new = self.files.get(&table).cloned().unwrap_or_default();
        // After a switch that came too late for one table, the other has some of them already.
        let there: HashSet<String> = old.iter().map(|file| file.path.clone()).collect();
        let ours: HashSet<String> = new.iter().map(|file| file.path.clone()).collect();
        old.retain(|file| !ours.contains(&file.path));
        new.retain(|file| !there.contains(&file.path));
        let commit = Commit {
            uuid: self.lake.clock().unique_id(),
            advances,
            files: new,
            operation: "REBUILD",
            ranges: Vec::new(),
            facts: Map::from_iter([("generation".to_owned(), json!(layout.generation))]),
        };
        let log = self.lake.log(table);
        let unclear =
            |reason: &str| tracing::warn!(table = table.name(), reason, "the switch is unclear; asking again");
        let ask = || -> BoxFuture<'_, Result<Outcome>> { Box::pin(log.try_replace(on, &commit, &old)) };
        Ok(settle(&*self.lake.clock(), ask, unclear).await?.is_some())
    }
}
