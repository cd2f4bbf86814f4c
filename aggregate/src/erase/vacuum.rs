//! Removes replaced files, and the log entries that name them, at once.
//!
//! Files of `events` stay until aggregate has read the commit that replaced them: it would open the version before when it starts. An
//! aggregator that runs records that it has. If none does, this module records it, which is true as long as no rows are unread.

use std::time::Duration;

use bellwether_base::Result;
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Layout, Outcome, Waits, app_of};
use bellwether_tables::Table;
use serde_json::Map;

use super::waiting::brings_rows;

/// Pause between two attempts.
const LOOK: Duration = Duration::from_millis(500);

/// How long an aggregator has to record by itself that it has read the erasure.
const GRACE_MICROS: i64 = 3_000_000;

/// A table of which something could not be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The table.
    pub table: Table,
    /// Why.
    pub waits: Waits,
}

/// Writes log checkpoints of some tables, and removes all older entries and the files that they replaced, whatever their age.
/// Waits for followers for as long as `patience` says. Returns what is still waited for.
///
/// # Errors
/// As [`Lake::checkpoint`] and [`Lake::clean_up_at_once`].
pub async fn vacuum(lake: &Lake, tables: &[Table], patience: Duration) -> Result<Vec<Waiting>> {
    let clock = lake.clock();
    let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
    let mut waiting = Vec::new();
    for table in tables.iter().copied() {
        let start = clock.now_micros();
        let target = lake.log(table).load().await?.version;
        lake.checkpoint(table).await?;
        loop {
            let passed = clock.now_micros() - start;
            if table == Table::Events {
                follow(lake, passed >= GRACE_MICROS.min(patience)).await?;
            }
            let waits = clean_up(lake, table).await?;
            // The table may go on meanwhile: only what was there counts.
            let cleaned = lake.cleaned_log(table).await?.is_some_and(|cleaned| cleaned.version >= target);
            let Some(waits) = waits.filter(|_| !cleaned) else { break };
            if passed >= patience {
                waiting.push(Waiting { table, waits });
                break;
            }
            clock.sleep(LOOK).await;
        }
    }
    Ok(waiting)
}

async fn clean_up(lake: &Lake, table: Table) -> Result<Option<Waits>> {
    loop {
        let done = Box::pin(lake.clean_up_at_once(table)).await?;
        if !done.is_some() {
            return Ok(done.waits);
        }
    }
}

/// Records that `metrics` needs nothing before the newest version of `events`, if that adds no unread rows. Another process may do
/// so at the same moment: a later attempt looks again.
async fn follow(lake: &Lake, at_once: bool) -> Result<()> {
    let log = lake.log(Table::Metrics);
    let on = log.load().await?;
    let newest = lake.log(Table::Events).load().await?.version;
    let Some(layout) = Layout::of(&on) else { return Ok(()) };
    let behind: Vec<(u32, i64)> = layout.positions(&on).filter(|(_, next)| *next <= newest).collect();
    let Some(from) = behind.iter().map(|(_, next)| *next).min() else { return Ok(()) };
    if !at_once || brings_rows(lake, from, newest).await? {
        return Ok(());
    }
    let advance = |(shard, _): (u32, i64)| {
        let app_id = app_of(shard);
        Advance { expected: on.next(&app_id), app_id, next: newest + 1 }
    };
    let mut advances: Vec<Advance> = behind.into_iter().map(advance).collect();
    advances.push(layout.advance(&on));
    let commit = Commit {
        uuid: lake.clock().unique_id(),
        advances,
        files: Vec::new(),
        operation: "aggregate",
        ranges: Vec::new(),
        facts: Map::new(),
    };
    if let Outcome::Unknown { reason } = log.try_commit(&on, &commit).await? {
        tracing::warn!(reason, "whether `metrics` has moved on is unclear; looking again");
    }
    Ok(())
}
