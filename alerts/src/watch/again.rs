//! Judges series again from the tables: those that a late statement corrects beyond the windows in memory, and those that
//! were dropped and have runs again. All others go on undisturbed.
//!
//! The work is bounded. Corrections of a series are collected while it waits, some tasks are judged again at a time, and
//! after that the watcher pauses for so long that this takes about two seconds of a minute, however many statements are
//! late.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_base::Result;
use bellwether_detect::Minute;

use super::Watcher;
use super::history::CONFIRMED_MICROS;
use super::publish::Origin;
use crate::engine::Wanted;
use crate::read::{Reread, reread};
use crate::record::{AlertRow, micros};

/// Least pause between two batches: corrections of one series often come together.
const PAUSE_MICROS: i64 = 60 * 1_000_000;

/// A pause lasts this many times as long as the batch before it.
const PAUSES: i64 = 29;

/// A batch should take from one to four seconds.
const SHORT_MICROS: i64 = 1_000_000;
const LONG_MICROS: i64 = 4_000_000;

/// Tasks of the first batch, and of the largest.
const FIRST_TASKS: usize = 16;
const MOST_TASKS: usize = 1024;

/// Event time between two looks for series without runs, minutes.
const DROP_EVERY: i64 = 10;

/// When to judge series again, and how many.
#[derive(Clone, Debug)]
pub(super) struct AgainPace {
    next: i64,
    tasks: usize,
    /// The task that was last judged again because of a correction.
    last: Option<String>,
    /// Time of the last look for series without runs.
    dropped_at: Minute,
}

impl Default for AgainPace {
    fn default() -> Self {
        Self { next: i64::MIN, tasks: FIRST_TASKS, last: None, dropped_at: Minute::MIN }
    }
}

// === impl AgainPace ===

impl AgainPace {
    /// Chooses the families of some tasks: first those that are not judged at all, then the others in turn. Families that
    /// want everything are read by themselves, and so are those that are not of one task.
    fn choose(&mut self, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let waits = wanted.iter().any(|wanted| wanted.waits);
        let all = |wanted: &Wanted| wanted.from == Minute::MIN;
        let whole = waits || wanted.iter().all(all);
        let mut by_task: BTreeMap<Option<String>, Vec<Wanted>> = BTreeMap::new();
        for wanted in wanted.into_iter().filter(|wanted| all(wanted) == whole && (wanted.waits || !waits)) {
            by_task.entry(wanted.task.clone()).or_default().push(wanted);
        }
        let after = by_task.range(..=self.last.clone()).count() % by_task.len().max(1);
        let mut chosen: Vec<Wanted> = Vec::new();
        let mut tasks: Vec<(Option<String>, Vec<Wanted>)> = by_task.into_iter().collect();
        tasks.rotate_left(after);
        for (task, families) in tasks.into_iter().take(self.tasks) {
            if chosen.last().is_some_and(|last| last.task.is_none() || task.is_none()) {
                break;
            }
            self.last.clone_from(&task);
            chosen.extend(families);
        }
        chosen
    }

    /// Notes a batch that began and ended at these times.
    fn note(&mut self, begun: i64, now: i64) {
        let took = now.saturating_sub(begun).max(0);
        self.next = now.saturating_add(PAUSE_MICROS.max(took.saturating_mul(PAUSES)));
        if took < SHORT_MICROS {
            self.tasks = (self.tasks * 2).min(MOST_TASKS);
        } else if took > LONG_MICROS {
            self.tasks = (self.tasks / 2).max(1);
        }
    }
}

// === impl Watcher ===

impl Watcher {
    /// Drops series without runs, from time to time.
    pub(super) fn drop_idle(&mut self) {
        if self.complete_to.saturating_sub(self.again.dropped_at) >= DROP_EVERY {
            self.again.dropped_at = self.complete_to;
            self.engine.drop_idle(self.complete_to);
        }
    }

    /// Judges some of the series again that want it, if it is time.
    pub(super) async fn judge_again(&mut self) -> Result<()> {
        let begun = self.watch.lake.clock().now_micros();
        if begun < self.again.next {
            return Ok(());
        }
        let wanted = self.engine.wanted();
        if wanted.is_empty() {
            return Ok(());
        }
        let chosen = self.again.choose(wanted);
        let rows = self.reread(&chosen).await;
        let now = self.watch.lake.clock().now_micros();
        self.again.note(begun, now);
        let rows = rows?;
        tracing::info!(families = chosen.len(), changes = rows.len(), "judged series again from the tables");
        self.publish(rows, Origin::NewRows).await
    }

    async fn reread(&mut self, chosen: &[Wanted]) -> Result<Vec<AlertRow>> {
        let to = self.complete_to.max(0);
        let oldest = (to.div_euclid(1440) - self.watch.settings.history_days) * 1440;
        let from = chosen.iter().map(|wanted| wanted.from).min().unwrap_or(to).max(oldest);
        let tasks: Option<BTreeSet<String>> = chosen.iter().map(|wanted| wanted.task.clone()).collect();
        let versions = (self.metrics_read.version, self.events_next);
        let request = Reread { versions, tasks: tasks.as_ref(), from, to };
        let mut selection = self.engine.begin_again(chosen, to);
        let lake = self.watch.lake.clone();
        let settings = self.watch.settings.clone();
        let rows = Box::pin(reread(&lake, &mut self.engine, &settings, &request, &mut selection)).await;
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                self.engine.abandon(&selection);
                return Err(error);
            }
        };
        self.metrics.judged_again.inc_by(chosen.len() as u64);
        // Of series that were judged from their beginnings, what did not come out again is taken back.
        let found: BTreeSet<(String, i64, String, bool)> =
            rows.iter().map(|row| (row.alert_id.clone(), row.at, row.state.to_owned(), row.stale)).collect();
        let until = micros(to);
        let replayed = self.engine.replayed_rules();
        let missing = self.ledger.unconfirmed(&found, until.saturating_sub(CONFIRMED_MICROS), until, &replayed);
        for (id, entry) in missing.into_iter().filter(|(id, _)| selection.alerts.contains(id)) {
            rows.extend(self.engine.retraction(&id, entry.at, &entry.state, entry.stale));
        }
        Ok(rows)
    }
}
