//! Series that are judged again from the tables, and series that are dropped.
//!
//! Memory holds the windows of the last hours and the state of series that have runs. Everything else is in the tables:
//! a correction of an older window, or runs of a series that was dropped, makes its family want windows. The caller
//! selects some of these families, reads their rows once more and evaluates; all others stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bellwether_base::Result;
use bellwether_detect::Minute;
use bellwether_tables::Table;

use super::Engine;
use super::active_rule::{ActiveRule, Entry};
use super::asking;
use crate::observe::{Observation, SEPARATOR};
use crate::record::{AlertRow, alert_id};
use crate::rule::Source;

/// A release without runs for so long is dropped, and comes back with its next run. Minutes.
pub(crate) const DROP_RELEASE: i64 = 2 * 1440;

/// The same for all of a series: a task that pauses over a holiday stays.
pub(crate) const DROP_SERIES: i64 = 14 * 1440;

/// A family that wants windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Number of its rule.
    rule: usize,
    name: Arc<str>,
    /// Its task; none if its series are not of one task.
    pub(crate) task: Option<String>,
    /// First window; [`Minute::MIN`] for all.
    pub(crate) from: Minute,
    /// It is not judged at all before it has them.
    pub(crate) waits: bool,
}

/// A family that is judged again.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    from: Minute,
    /// Time up to which it had been judged.
    to: Minute,
}

/// Families that are judged again together.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    families: BTreeMap<usize, BTreeMap<Arc<str>, Chosen>>,
    /// Ids of the alerts of families that are judged from their beginnings.
    pub(crate) alerts: BTreeSet<String>,
}

// === impl ActiveRule ===

impl ActiveRule {
    /// Returns true if each of its series can be judged without the others, from rows.
    pub(super) fn is_judged_alone(&self) -> bool {
        self.rule.source != Source::Tables && self.crowd.is_none()
    }

    fn ids_of(&self, entry: &Entry) -> Vec<String> {
        let series = entry.series();
        entry.family.tracks().map(|(release, _)| alert_id(&self.rule.name, &series, release)).collect()
    }

    fn add_again(&mut self, found: Vec<Observation>, chosen: &BTreeMap<Arc<str>, Chosen>) {
        for mut observation in found {
            self.names.share(&mut observation.cell);
            let name = observation.series.join(&SEPARATOR.to_string());
            let from = chosen.get(name.as_str()).map(|chosen| chosen.from);
            if from.is_some_and(|from| observation.cell.window >= from)
                && let Some(entry) = self.families.get_mut(name.as_str())
            {
                entry.family.add(observation.cell);
            }
        }
        for name in chosen.keys() {
            if let Some(entry) = self.families.get_mut(name) {
                entry.family.settle();
            }
        }
    }

    fn drop_idle(&mut self, now: Minute) {
        let mut idle = Vec::new();
        for (name, entry) in &mut self.families {
            entry.family.drop_idle(now - DROP_RELEASE);
            if !entry.waits && !self.attempts.holds_series(name) && entry.family.is_idle(now - DROP_SERIES) {
                idle.push(Arc::clone(name));
            }
        }
        for name in idle {
            if let Some(entry) = self.families.remove(&name) {
                self.dropped.insert(name, entry.family.retire());
            }
        }
        self.names.forget_unused();
    }
}

// === impl Engine ===

impl Engine {
    /// Drops series without runs since long before `now`, unless an alert of theirs is pending or firing.
    pub fn drop_idle(&mut self, now: Minute) {
        for watched in self.watched.iter_mut().filter(|watched| watched.is_judged_alone()) {
            watched.drop_idle(now);
        }
    }

    /// Returns the families that want windows.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let mut found = Vec::new();
        for (rule, watched) in self.watched.iter().enumerate() {
            // Rows that wait for another attempt would count twice.
            if !watched.is_judged_alone() || watched.attempts.holds() || watched.attempts.has_apart() {
                continue;
            }
            let task = watched.rule.series.iter().position(|column| column == "task");
            for (name, entry) in &watched.families {
                if let Some(from) = entry.family.wants() {
                    let task = task.and_then(|place| entry.series().into_iter().nth(place));
                    found.push(Wanted { rule, name: Arc::clone(name), task, from, waits: entry.waits });
                }
            }
        }
        found
    }

    /// Goes back with the selected families to the first window that each of them wants.
    pub(crate) fn begin_again(&mut self, wanted: &[Wanted], to: Minute) -> Selection {
        let mut selection = Selection::default();
        for Wanted { rule, name, from, .. } in wanted {
            let Some(watched) = self.watched.get_mut(*rule) else { continue };
            let Some(entry) = watched.families.get_mut(name) else { continue };
            if *from == Minute::MIN {
                let ids =
                    entry.family.tracks().map(|(release, _)| alert_id(&watched.rule.name, &entry.series(), release));
                selection.alerts.extend(ids);
            }
            let Some(again_to) = entry.family.begin_again(&mut watched.budget) else { continue };
            let chosen = Chosen { from: *from, to: again_to.max(to) };
            selection.families.entry(*rule).or_default().insert(Arc::clone(name), chosen);
        }
        selection
    }

    /// Takes in rows for the selected families only.
    ///
    /// # Errors
    /// `Bug` if the rows do not fit the schema. If a rule fails on them, all of its state has to be rebuilt.
    pub(crate) async fn take_again(
        &mut self,
        table: Table,
        rows: Vec<RecordBatch>,
        selection: &Selection,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.apart.put(table, table.arrow_schema(), rows)?;
        for (rule, chosen) in &selection.families {
            let Some(watched) = self.watched.get_mut(*rule) else { continue };
            if watched.rule.source.table() != Some(table) {
                continue;
            }
            match Box::pin(asking::ask(&self.apart, &watched.rule, 0)).await {
                Ok(found) => watched.add_again(found, chosen),
                Err(failed) => {
                    watched.failed(failed.why, self.now, self.live);
                    watched.attempts.fall_behind();
                }
            }
        }
        self.apart.put(table, table.arrow_schema(), Vec::new())
    }

    /// Judges the windows of the selected families before `to`, or all up to where they had been judged, which ends the
    /// selection.
    pub(crate) fn evaluate_again(&mut self, to: Option<Minute>, selection: &mut Selection) -> Vec<AlertRow> {
        let mut rows = Vec::new();
        for (rule, chosen) in &selection.families {
            let Some(watched) = self.watched.get_mut(*rule) else { continue };
            let mut families = std::mem::take(&mut watched.families);
            for (name, chosen) in chosen {
                let Some(entry) = families.get_mut(name) else { continue };
                let part = to.map_or(chosen.to, |to| to.min(chosen.to.saturating_sub(1)));
                entry.waits &= to.is_some();
                watched.evaluate_entry(entry, part, &mut rows);
                if chosen.from == Minute::MIN {
                    selection.alerts.extend(watched.ids_of(entry));
                }
            }
            watched.families = families;
        }
        rows
    }

    /// Gives up on the selected families half-way: they wait to be judged from their beginnings.
    pub(crate) fn abandon(&mut self, selection: &Selection) {
        for (rule, chosen) in &selection.families {
            let Some(watched) = self.watched.get_mut(*rule) else { continue };
            for name in chosen.keys() {
                if let Some(entry) = watched.families.get_mut(name) {
                    entry.family.start_over();
                    entry.waits = true;
                }
            }
        }
    }
}
