//! Recomputes `metrics` and `releases` from all of `events`, and replaces the rows of each table in one commit.
//!
//! Readers and a working aggregator see all of the old rows until that commit, and all of the new ones from then on: no version
//! of a table holds both. A rebuild that is killed has changed nothing, and the next one starts over. A rebuild can also change
//! the number of shards. Windows of which some events are no longer kept stay as they are, and the contributions of erased runs are added. `rolling_history` records what was known at the time, and is kept.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::rollup::kept_from;
use bellwether_lake::{
    AddedFile, Advance, Commit, CommitLog, DataFile, Lake, Layout, LogEntry, Outcome, Snapshot, app_of, settle,
};
use bellwether_tables::{AppId, Table};
use futures::future::BoxFuture;
use prometheus::Registry;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::kept::{Split, since, whole_windows_from};
use crate::metrics::Metrics;
use crate::releases::Releases;
use crate::runs::{Runs, Shard};
use crate::settings::AggregatorSettings;
use crate::sql;
use crate::sums::Definitions;
use crate::tail::{FileRows, STEP_ROWS, Tail};

/// The time by which an event may precede the end of its run, microseconds.
const MARGIN_MICROS: i64 = DAY_MICROS;
const DAY_MICROS: i64 = 24 * 3_600_000_000;

/// The outcome of a rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version of `events` after the last one that was read.
    pub events_version: i64,
    /// Rows of `events` that were read.
    pub rows: u64,
    /// Number of shards from now on.
    pub shards: u32,
    /// Number of rebuilds so far.
    pub generation: i64,
}

/// Rebuilds `metrics` and `releases` for `settings.shards` shards. Calls `progress` with the number of rows read so far.
///
/// # Errors
/// `Unavailable` if storage does not answer or the rebuild is stopped: nothing has changed then. `Data` if the tables have columns
/// of a later version: this one would leave their values out.
pub async fn rebuild(
    lake: &Lake,
    settings: AggregatorSettings,
    mut progress: impl FnMut(u64),
    stop: &CancellationToken,
) -> Result<Rebuilt> {
    for table in [Table::Metrics, Table::Releases] {
        if lake.log(table).load().await?.form().has_unknown_columns(table) {
            let what = format!("`{}` has columns that this version does not know, and would leave out", table.name());
            return Err(Error::data(what).with_hint(
                "rebuild with the version that knows them; if no program needs them any more, drop them first \
                 (`ALTER TABLE ... DROP COLUMN`)",
            ));
        }
    }
    loop {
        match Box::pin(rebuild_once(lake, settings, &mut progress, stop)).await {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                tracing::info!(reason = %error.chain(), "starting the rebuild again");
            }
            ended => return ended,
        }
    }
}

async fn rebuild_once(
    lake: &Lake,
    settings: AggregatorSettings,
    mut progress: impl FnMut(u64),
    stop: &CancellationToken,
) -> Result<Rebuilt> {
    let events = lake.log(Table::Events).load().await?;
    // Once runs were erased, the log names rows that are no longer in the table.
    let is_whole = Lake::erased_number(&events).is_none()
        && kept_from(&events) == i64::MIN
        && lake.log(Table::Events).entry(0).await?.is_some();
    if is_whole {
        let mut rebuilding = Rebuilding::begin(lake, settings, &events, &mut progress, stop).await?;
        match rebuilding.finish(settings.shards).await {
            // Maintenance has merged files, and removed those that the first entries name.
            Err(error) if error.kind() == ErrorKind::Data => {
                tracing::info!(reason = %error.chain(), "reading the newest version of `events` instead of its log");
            }
            ended => return ended,
        }
    }
    let mut rebuilding = Rebuilding::begin(lake, settings, &events, &mut progress, stop).await?;
    rebuilding.take_files(&events).await?;
    rebuilding.finish(settings.shards).await
}

/// Returns the start of the first window that can be recomputed from a version of `events`, microseconds since the epoch;
/// `i64::MIN` if no event was removed.
pub fn recomputed_from(events: &Snapshot) -> i64 {
    match whole_windows_from(kept_from(events), DAY_MICROS) {
        i64::MIN => i64::MIN,
        whole => whole.saturating_add(MARGIN_MICROS),
    }
}

fn erased_meanwhile() -> Error {
    Error::fenced("runs were erased during the rebuild")
}

/// A rebuild: the files written so far, which no log names yet.
struct Rebuilding<'a, P> {
    lake: Lake,
    definitions: Definitions,
    tail: Tail,
    runs: Runs,
    releases: Releases,
    files: BTreeMap<Table, Vec<DataFile>>,
    rows: u64,
    /// Windows that start before this, microseconds since the epoch, stay as they are.
    from_micros: i64,
    progress: P,
    stop: &'a CancellationToken,
}

// === impl Rebuilding ===

impl<'a, P: FnMut(u64)> Rebuilding<'a, P> {
    async fn begin(
        lake: &Lake,
        settings: AggregatorSettings,
        events: &Snapshot,
        progress: P,
        stop: &'a CancellationToken,
    ) -> Result<Self> {
        let mut rebuilding = Self {
            definitions: Definitions::plan(&sql::session_within(settings.memory_bytes)?).await?,
            tail: Tail::new(lake, None, Metrics::register(&Registry::new(), &settings)?.read_back, 0),
            lake: lake.clone(),
            runs: Runs::new(&settings, Shard { number: 0, of: 1 }).summing_from(recomputed_from(events)),
            releases: Releases::default(),
            files: BTreeMap::new(),
            rows: 0,
            from_micros: recomputed_from(events),
            progress,
            stop,
        };
        // A release stays although all its runs, or the first of them, were erased.
        let erased = Lake::erased_number(events).map(|_| i64::MAX);
        let seen_before = erased.unwrap_or(rebuilding.from_micros);
        if seen_before > i64::MIN {
            let (releases, files) = Releases::seen_before(lake, seen_before).await?;
            rebuilding.releases = releases;
            rebuilding.files.insert(Table::Releases, files);
        }
        Ok(rebuilding)
    }

    /// Reads on to the newest version, and puts everything in place.
    async fn finish(&mut self, shards: u32) -> Result<Rebuilt> {
        loop {
            while self.step().await? {}
            if let Some(rebuilt) = self.switch(shards).await? {
                return Ok(rebuilt);
            }
        }
    }

    /// Takes in the files of the newest version of `events`, whenever their rows came, and the contributions of erased runs.
    async fn take_files(&mut self, events: &Snapshot) -> Result<()> {
        let (on, mut files) = self.lake.snapshot_with_files(Table::Events).await?;
        let version = on.version;
        if Lake::erased_number(&on) != Lake::erased_number(events) {
            return Err(erased_meanwhile());
        }
        for rows in self.lake.erased_rows(Lake::erased_number(events)).await? {
            let rows = since(&rows, "window_start", self.from_micros)?;
            let count = rows.num_rows();
            // As the rows of events have, so that roll-ups take them.
            let provenance =
                [("events_from", sql::constant(0, count)), ("events_to", sql::constant(version + 1, count))];
            let rows = sql::rows_of(Table::Metrics, &[rows], &provenance)?;
            let written = self.lake.write(Table::Metrics, &rows).await?;
            self.files.entry(Table::Metrics).or_default().extend(written.into_iter().map(|written| written.file));
        }
        // Names begin with the time of writing, so this is roughly the order in which the rows arrived.
        files.sort_by(|a, b| a.path.rsplit('/').next().cmp(&b.path.rsplit('/').next()));
        let (mut new, mut rows) = (Vec::new(), 0);
        for file in files {
            let file = self.tail.read(&file).await?;
            rows += file.weight()?;
            new.push(file);
            if rows >= STEP_ROWS {
                self.take(std::mem::take(&mut new), 0..version + 1).await?;
                rows = 0;
            }
        }
        self.take(new, 0..version + 1).await?;
        self.tail.advance_to(version + 1);
        Ok(())
    }

    async fn step(&mut self) -> Result<bool> {
        let (entries, new) = self.tail.gather().await?;
        let Some(last) = entries.last() else { return Ok(false) };
        if entries.iter().any(LogEntry::erases) {
            return Err(erased_meanwhile());
        }
        let to = last.version + 1;
        self.take(new, self.tail.next()..to).await?;
        for entry in &entries {
            self.runs.note(entry)?;
        }
        self.tail.advance_to(to);
        Ok(true)
    }

    /// Computes and writes the rows for new rows of some versions of `events`.
    async fn take(&mut self, new: Vec<FileRows>, versions: Range<i64>) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::unavailable("the rebuild was stopped; nothing has changed"));
        }
        if new.is_empty() {
            return Ok(());
        }
        let last = versions.end - 1;
        let (metrics, _) = Box::pin(self.runs.take(&self.lake, &self.definitions, &new, versions)).await?;
        self.files.entry(Table::Metrics).or_default().extend(metrics.files);
        let (seen, fresh) = self.releases.first_seen(&self.lake, &new, last).await?;
        self.releases.note(fresh);
        if !self.releases.is_complete() {
            let what = "`events` names more releases than a rebuild can hold in memory";
            return Err(Error::data(what).with_hint(
                "a release id names a version of prompt, model and configuration; a release for each run is a mistake of the \
                 application",
            ));
        }
        let written = self.lake.write(Table::Releases, &seen).await?;
        self.files.entry(Table::Releases).or_default().extend(written.into_iter().map(|written| written.file));
        self.rows += new.iter().map(|file| file.count() as u64).sum::<u64>();
        (self.progress)(self.rows);
        Ok(())
    }

    /// Replaces the rows of both tables. Returns `None` if a working aggregator is ahead by now, or has committed at the same
    /// moment: then there is more to read.
    async fn switch(&mut self, shards: u32) -> Result<Option<Rebuilt>> {
        let (metrics, releases) = (self.lake.log(Table::Metrics), self.lake.log(Table::Releases));
        let (on_metrics, on_releases) = (metrics.load().await?, releases.load().await?);
        let now = Layout::of(&on_metrics).unwrap_or(Layout { generation: 0, shards: 1 });
        let apps: Vec<String> = (0..now.shards.max(shards)).map(app_of).collect();
        let ahead = |on: &Snapshot| apps.iter().filter_map(|app| on.next(app)).any(|next| next > self.tail.next());
        if ahead(&on_metrics) || ahead(&on_releases) {
            return Ok(None);
        }
        let next = Layout { generation: now.generation + 1, shards };
        let mut advances = self.advances(&on_metrics, &apps);
        advances.push(next.advance(&on_metrics));
        if kept_from(&on_metrics) > self.from_micros {
            let app_id = AppId::KeptFrom.to_string();
            advances.push(Advance { expected: on_metrics.next(&app_id), app_id, next: self.from_micros });
        }
        // Releases come first, as always: every release that `metrics` names is in the table.
        let seen = self.advances(&on_releases, &apps[..1]);
        if !self.replace(Table::Releases, &on_releases, seen, next).await? {
            return Ok(None);
        }
        if !self.replace(Table::Metrics, &on_metrics, advances, next).await? {
            return Ok(None);
        }
        Ok(Some(Rebuilt { events_version: self.tail.next(), rows: self.rows, shards, generation: next.generation }))
    }

    /// Returns the advances of every application that may have committed, so that no other commit can intervene.
    fn advances(&self, on: &Snapshot, apps: &[String]) -> Vec<Advance> {
        let at = |app: &String| Advance { app_id: app.clone(), expected: on.next(app), next: self.tail.next() };
        let mut advances: Vec<Advance> = apps.iter().map(at).collect();
        let rewrites = AppId::Rewrites.to_string();
        let known = on.next(&rewrites);
        advances.push(Advance { app_id: rewrites, expected: known, next: known.unwrap_or(0) + 1 });
        advances
    }

    /// Replaces all files of a table in one commit. Returns false if another process committed first.
    async fn replace(&self, table: Table, on: &Snapshot, advances: Vec<Advance>, layout: Layout) -> Result<bool> {
        let mut old: Vec<AddedFile> = self.lake.files_at(table, on.version).await?;
        let mut new = self.files.get(&table).cloned().unwrap_or_default();
        // If an earlier attempt replaced one table and not the other, that one has some of the files already.
        let there: HashSet<String> = old.iter().map(|file| file.path.clone()).collect();
        let ours: HashSet<String> = new.iter().map(|file| file.path.clone()).collect();
        old.retain(|file| !ours.contains(&file.path));
        new.retain(|file| !there.contains(&file.path));
        let mut written = Vec::new();
        if table == Table::Metrics {
            let split = Split::at(&self.lake, table, old, "window_start", self.from_micros).await?;
            (old, written) = (split.removed, split.written);
            new.extend(written.clone());
        }
        let commit = Commit {
            uuid: self.lake.clock().unique_id(),
            advances,
            files: new,
            operation: "REBUILD",
            ranges: Vec::new(),
            facts: Map::from_iter([("generation".to_owned(), json!(layout.generation))]),
        };
        let log = self.lake.log(table);
        let unclear = |reason: &str| {
            tracing::warn!(table = table.name(), reason, "the outcome of a commit is unknown; trying again")
        };
        let ask = || -> BoxFuture<'_, Result<Outcome>> { Box::pin(log.try_replace(on, &commit, &old)) };
        let replaced = settle(&*self.lake.clock(), ask, unclear).await?.is_some();
        if !replaced {
            self.lake.discard(table, &written).await;
        }
        Ok(replaced)
    }
}
