//! One roll-up: takes in the new rows of its source, or makes everything again after a rebuild of `metrics`.

use std::sync::Arc;

use bellwether_base::{Error, Result};
use bellwether_follow::Append;
use bellwether_lake::rollup::{kept_from, rolled_generation, rolled_to};
use bellwether_lake::{AddedFile, Advance, Commit, CommitLog, DataFile, Lake, Outcome, RollUp, Snapshot, settle};
use bellwether_tables::{AppId, Table};
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use serde_json::{Map, json};

use super::metrics::Metrics;
use super::rows::{Rows, Wanted};
use super::{Work, fold};
use crate::kept::{Split, whole_windows_from};

/// One roll-up, with its table and its source as they were last seen.
pub(crate) struct Level {
    rollup: RollUp,
    on: Snapshot,
    source: Snapshot,
}

/// Name of the operation in the history of the tables.
const OPERATION: &str = "rollup";

/// The tools that both levels share.
pub(crate) struct Tools {
    pub(crate) lake: Lake,
    pub(crate) context: SessionContext,
    pub(crate) metrics: Metrics,
    pub(crate) work: Work,
    /// Rows of the source that a commit takes in at most, unless a single `events_to` has more.
    pub(crate) step_rows: i64,
}

/// The rows of a source that a commit takes in.
struct Part {
    generation: i64,
    files: Vec<AddedFile>,
}

// === impl Level ===

impl Level {
    pub(crate) async fn open(rollup: RollUp, lake: &Lake) -> Result<Self> {
        let on = lake.log(rollup.table()).load().await?;
        let source = lake.log(rollup.source()).load().await?;
        Ok(Self { rollup, on, source })
    }

    /// Returns up to which `events_to` the roll-up holds the rows of its source.
    pub(crate) fn rolled_to(&self) -> i64 {
        rolled_to(&self.on)
    }

    /// Looks up the newest versions. The roll-up comes first: what its source has by then is no less than what it holds.
    pub(crate) async fn look(&mut self, lake: &Lake) -> Result<()> {
        self.on = newest(lake, self.rollup.table(), self.on.clone()).await?;
        self.source = newest(lake, self.rollup.source(), self.source.clone()).await?;
        Ok(())
    }

    /// Takes in new rows, in one commit. Returns false if there are none.
    pub(crate) async fn step(&mut self, tools: &Tools) -> Result<bool> {
        self.look(&tools.lake).await?;
        let Some(generation) = self.rollup.source_generation(&self.source) else { return Ok(false) };
        let (from, end) = (self.rolled_to(), self.rollup.source_end(&self.source));
        match rolled_generation(&self.on) {
            Some(own) if own > generation || (own == generation && from > end) => Err(self.is_ahead()),
            Some(own) if own < generation => self.renew(tools, generation, end).await.map(|()| true),
            _ if from == end => Ok(false),
            _ => self.append(tools, generation, from, end).await.map(|()| true),
        }
    }

    /// Fails if another roll-up is made of this one, which has lost all of its rows. Rows that are made again are divided
    /// otherwise, so that some of them would count twice there.
    pub(crate) async fn check_made_of_this(&mut self, other: &Self, lake: &Lake) -> Result<()> {
        if rolled_generation(&self.on).is_some() || rolled_generation(&other.on).is_none() {
            return Ok(());
        }
        // This one was perhaps seen before another process began both.
        self.look(lake).await?;
        let generation = self.rollup.source_generation(&self.source);
        let is_lost = rolled_generation(&self.on).is_none() && generation.is_some();
        if is_lost && rolled_generation(&other.on) == generation { Err(other.is_ahead()) } else { Ok(()) }
    }

    fn is_ahead(&self) -> Error {
        let (own, source) = (self.rollup.table().name(), self.rollup.source().name());
        Error::data(format!("`{own}` holds more than its source `{source}` has ever had")).with_hint(
            "restore both tables from copies of the same time, or recompute everything with `bellwether rebuild`",
        )
    }

    /// Appends the fold of the next rows.
    async fn append(&mut self, tools: &Tools, generation: i64, from: i64, end: i64) -> Result<()> {
        let files = tools.lake.files_at(self.rollup.source(), self.source.version).await?;
        let to = cut(&files, from, end, tools.step_rows);
        let part = Part { generation, files };
        let (files, facts) = self.fold(tools, part, Wanted::between(from, to)).await?;
        let (table, advances) = (self.rollup.table(), self.advances(generation, to));
        let append = Append { table, on: &self.on, rows: None, advances, operation: OPERATION, facts };
        let on = append.commit_files(&tools.lake, &tools.metrics.follow, files).await?;
        self.landed(tools, on);
        Ok(())
    }

    /// Makes everything again from a rebuilt source, and replaces the rows in one commit. Windows that the source no longer
    /// holds whole stay; of these, only rows that are new in the source are added.
    async fn renew(&mut self, tools: &Tools, generation: i64, end: i64) -> Result<()> {
        let (table, lake) = (self.rollup.table(), &tools.lake);
        let whole_from = whole_windows_from(kept_from(&self.source), self.rollup.window_micros());
        tracing::info!(table = table.name(), generation, "`metrics` was rebuilt; making the roll-up again");
        let old = lake.files_at(table, self.on.version).await?;
        let split = Split::at(lake, table, old, "window_start", whole_from).await?;
        let files = lake.files_at(self.rollup.source(), self.source.version).await?;
        let wanted = Wanted { all_since: whole_from, ..Wanted::between(self.rolled_to(), end) };
        let (folded, facts) = self.fold(tools, Part { generation, files }, wanted).await?;
        let mut advances = self.advances(generation, end);
        if kept_from(&self.on) > whole_from {
            let app_id = AppId::KeptFrom.to_string();
            advances.push(Advance { expected: self.on.next(&app_id), app_id, next: whole_from });
        }
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances,
            files: [split.written, folded].concat(),
            operation: OPERATION,
            ranges: Vec::new(),
            facts,
        };
        let log = lake.log(table);
        let ask = || -> BoxFuture<'_, Result<Outcome>> { Box::pin(log.try_replace(&self.on, &commit, &split.removed)) };
        let unclear = |reason: &str| {
            tools.metrics.follow.retries.inc();
            tracing::warn!(table = table.name(), reason, "the outcome of a commit is unclear; asking again");
        };
        let landed = settle(&*lake.clock(), ask, unclear).await?;
        tools.metrics.renewed.inc();
        let Some(on) = landed else {
            lake.discard(table, &commit.files).await;
            return Err(Error::fenced(format!("another process has committed to `{}`", table.name())));
        };
        self.landed(tools, on);
        Ok(())
    }

    async fn fold(
        &self,
        tools: &Tools,
        part: Part,
        wanted: Wanted,
    ) -> Result<(Vec<DataFile>, Map<String, serde_json::Value>)> {
        let (read, work) = (tools.metrics.rows_read.clone(), tools.work.clone());
        let note = Arc::new(move |rows| {
            read.inc_by(rows as u64);
            work.note(rows);
        });
        let rows = Rows::new(&tools.lake, self.rollup.source(), part.files, wanted, note);
        if rows.is_empty() {
            return Ok((Vec::new(), facts(part.generation, 0)));
        }
        let answer = fold::run(&tools.context, Arc::new(rows), &fold::definition(self.rollup)).await?;
        let (files, written) = fold::write(&tools.lake, self.rollup.table(), answer).await?;
        tools.metrics.rows_written.inc_by(written as u64);
        Ok((files, facts(part.generation, written)))
    }

    /// Returns the advances to a number, by which of two writers only one can commit.
    fn advances(&self, generation: i64, to: i64) -> Vec<Advance> {
        let advance = |id: AppId, next: i64| {
            let app_id = id.to_string();
            Advance { expected: self.on.next(&app_id), app_id, next }
        };
        vec![advance(AppId::RolledTo, to), advance(AppId::RolledGeneration, generation)]
    }

    /// Notes the table just after a commit.
    fn landed(&mut self, tools: &Tools, on: Snapshot) {
        self.on = on;
        tools.metrics.commits.inc();
        tools.metrics.show(self.rollup, self.rolled_to());
    }
}

fn facts(generation: i64, rows: usize) -> Map<String, serde_json::Value> {
    Map::from_iter([("generation".to_owned(), json!(generation)), ("rows".to_owned(), json!(rows))])
}

/// Returns the newest snapshot of a table, given an earlier one.
async fn newest(lake: &Lake, table: Table, known: Snapshot) -> Result<Snapshot> {
    let (log, version) = (lake.log(table), known.version);
    let newest = log.catch_up(known).await?;
    // If the log was cleaned up beyond the known version, the next entry no longer exists.
    match newest.version == version && log.is_cleaned_up_at(version + 1).await? {
        true => log.load().await,
        false => Ok(newest),
    }
}

/// Chooses the number up to which the next commit takes in rows: so that they are about `most`, by the statistics of the
/// files. Any number is exact, because what a commit takes in is decided row by row.
fn cut(files: &[AddedFile], from: i64, end: i64, most: i64) -> i64 {
    let mut parts: Vec<(i64, i64, i64)> = Vec::new();
    for file in files {
        let (least, greatest) = file.bounds().numbers("events_to").unwrap_or((i64::MIN, i64::MAX));
        if greatest > from && least <= end {
            parts.push((greatest.min(end), least.max(from + 1), file.rows.unwrap_or(most)));
        }
    }
    let mut cuts: Vec<i64> = parts.iter().map(|(greatest, ..)| *greatest).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let rows = |to: i64| parts.iter().filter(|(_, least, _)| *least <= to).map(|(.., rows)| *rows).sum::<i64>();
    let Some(first) = cuts.first().copied() else { return end };
    let fit = cuts.partition_point(|to| rows(*to) <= most);
    match fit {
        0 => first,
        fit if fit == cuts.len() => end,
        fit => cuts[fit - 1],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(least: i64, greatest: i64, rows: i64) -> AddedFile {
        let stats = json!({"minValues": {"events_to": least}, "maxValues": {"events_to": greatest}});
        AddedFile {
            path: format!("{least}-{greatest}"),
            size: 1,
            rows: Some(rows),
            partition_values: BTreeMap::new(),
            data_change: true,
            stats: Some(stats.to_string()),
        }
    }

    #[test]
    fn a_commit_takes_in_as_many_files_as_fit_and_at_least_one() {
        let files = [file(1, 4, 50), file(5, 5, 50), file(6, 6, 50), file(9, 9, 500), file(12, 12, 10)];
        assert_eq!(cut(&files, 0, 20, 1000), 20, "everything fits: versions without rows are passed over");
        assert_eq!(cut(&files, 0, 20, 150), 6);
        assert_eq!(cut(&files, 0, 20, 99), 4);
        assert_eq!(cut(&files, 0, 20, 10), 4, "one file alone is too large");
        assert_eq!(cut(&files, 6, 20, 100), 9);
        assert_eq!(cut(&files, 6, 8, 100), 8, "none of the rows may be taken in yet");
        assert_eq!(cut(&files, 0, 3, 1000), 3, "of a file, the rows up to the end");
        assert_eq!(cut(&[], 3, 7, 10), 7);
        let mut unknown = file(0, 0, 10);
        unknown.stats = None;
        assert_eq!(cut(&[unknown, file(1, 4, 50)], 0, 20, 100), 20);
    }
}
