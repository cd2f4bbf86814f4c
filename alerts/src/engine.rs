//! The engine evaluates all rules: new rows in, transitions out. It knows SQL and detectors, but neither tables nor time.
//!
//! A rule's query runs over the new rows only. Queries are sums over rows, so that their result for new rows adds to earlier
//! results, and a correction takes back what it corrects. A failed evaluation affects only the rows that it failed on:
//! `asking.rs` judges all others, `attempts.rs` decides when these are tried again. `again.rs` drops series without runs, and judges
//! series again whose windows are only in the tables.

mod active_rule;
mod again;
mod asking;
mod attempts;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_base::Result;
use bellwether_detect::{AlertState, Budget, Crowd, Minute, Season, Thresholds, Transition, TransitionRecord};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;

use crate::contract::Contracts;
use crate::observe::{MINUTE_MICROS, SEPARATOR};
use crate::record::{AlertRow, ChangeKind, RowChange, alert_id, micros};
use crate::rule::{Broken, DetectorSettings, Rule, Rules, Severity, Source};
use active_rule::{ActiveRule, SeriesRelease};
pub(crate) use again::{Selection, Wanted};
use asking::Asking;
pub(crate) use asking::ask_rows;
pub use asking::try_rule;
use attempts::Attempts;
pub use attempts::{FAILING_AFTER, Failures};
use names::Names;

/// Memory of queries over new rows.
const MEMORY_BYTES: usize = 256 << 20;

/// Most time for the query of one rule, because the others wait for it.
pub(crate) const LONGEST_QUERY: Duration = Duration::from_secs(30);

/// Allowed false alarms a month, by severity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetSettings {
    /// Pages.
    pub pages: f64,
    /// Tickets.
    pub tickets: f64,
    /// Alerts for information.
    pub infos: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { pages: 1.0, tickets: 4.0, infos: 8.0 }
    }
}

/// The state of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has had no observation yet.
    Waiting,
    /// It judges observations.
    Watching,
    /// Its last evaluation failed, for this reason. It is tried again.
    Broken(String),
}

/// The present state of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveAlert {
    /// Id.
    pub alert_id: String,
    /// Rule.
    pub rule: String,
    /// Severity.
    pub severity: Severity,
    /// State.
    pub state: AlertState,
    /// It fires, but its series has had no data since.
    pub stale: bool,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Rules that can be evaluated.
    pub rules: usize,
    /// Rules that cannot be read or fail again and again.
    pub broken: usize,
    /// Series of all rules.
    pub series: usize,
    /// Bound on the false pages of this month, by the thresholds in use.
    pub pages_spent: f64,
    /// Corrections of windows that are no longer in memory.
    pub too_late: u64,
    /// Those of them that only a rebuild can judge again: series that may fall silent together are judged together.
    pub rebuild: u64,
    /// Series that wait to be judged again from the tables.
    pub waiting: usize,
}

/// All rules, with the state of their series.
pub struct Engine {
    watched: Vec<ActiveRule>,
    broken: Vec<Broken>,
    contracts: Contracts,
    session: Session,
    /// For queries of one rule alone, so that they do not disturb the tables of the others.
    apart: Session,
    /// Time of the evaluation, microseconds since the epoch.
    now: i64,
    /// False while history is replayed.
    live: bool,
}

// === impl Engine ===

impl Engine {
    /// Starts with rules, contracts and a budget.
    ///
    /// # Errors
    /// `Bug` if the query engine does not start.
    pub fn new(rules: &Rules, contracts: &Contracts, budget: &BudgetSettings) -> Result<Self> {
        let spends = |rule: &Rule| rule.settings.detector(None).ok().flatten().and_then(|detector| detector.spending());
        let of = |severity: Severity| match severity {
            Severity::Page => budget.pages,
            Severity::Ticket => budget.tickets,
            Severity::Info => budget.infos,
        };
        let weight = |severity: Severity| -> f64 {
            rules
                .rules
                .iter()
                .filter(|rule| rule.severity == severity && spends(rule).is_some())
                .map(|rule| rule.weight)
                .sum()
        };
        let watched = rules
            .rules
            .iter()
            .map(|rule| {
                let minutes =
                    rule.settings.detector(None).ok().flatten().map_or(1, |detector| detector.update_minutes());
                let part = of(rule.severity) * rule.weight / weight(rule.severity).max(rule.weight);
                let spending = spends(rule).unwrap_or(bellwether_detect::budget::Spending::Time);
                ActiveRule {
                    rule: rule.clone(),
                    budget: Budget::new(part, spending, minutes),
                    families: BTreeMap::new(),
                    dropped: BTreeMap::new(),
                    status: Status::Waiting,
                    refused: BTreeMap::new(),
                    names: Names::default(),
                    asked: None,
                    analysis: None,
                    planned: None,
                    attempts: Attempts::default(),
                    season: Season::default(),
                    crowd: match &rule.settings {
                        DetectorSettings::Silence { .. } if !rule.series.is_empty() => Some(Crowd::new(minutes)),
                        _ => None,
                    },
                }
            })
            .collect();
        let settings = SessionSettings {
            memory_limit_bytes: MEMORY_BYTES,
            threads: Some(1),
            timeout: Some(LONGEST_QUERY),
            ..SessionSettings::default()
        };
        Ok(Self {
            watched,
            broken: rules.broken.clone(),
            contracts: contracts.clone(),
            session: Session::in_memory(settings.clone())?,
            apart: Session::in_memory(settings)?,
            now: 0,
            live: false,
        })
    }

    /// Sets the time zone of the weekly season, for tasks whose contract names none.
    #[must_use]
    pub fn in_season(mut self, season: Season) -> Self {
        self.watched.iter_mut().for_each(|watched| watched.season = season);
        self
    }

    /// Returns each rule with its state, and why some of its series are not judged.
    pub fn statuses(&self) -> Vec<(&Rule, &Status, &BTreeMap<String, String>)> {
        self.watched.iter().map(|watched| (&watched.rule, &watched.status, &watched.refused)).collect()
    }

    /// Sets the time of the evaluations that follow, microseconds since the epoch. With `live`, a rule that failed pauses before it
    /// is tried again.
    pub fn at(&mut self, now: i64, live: bool) {
        (self.now, self.live) = (now, live);
    }

    /// Returns the failures of each rule.
    pub fn failures(&self) -> impl Iterator<Item = (&Rule, &Failures)> {
        self.watched.iter().map(|watched| (&watched.rule, &watched.attempts.failures))
    }

    /// Returns the number of failed evaluations of each rule since the last call.
    pub(crate) fn count_failures(&mut self) -> Vec<(String, u64)> {
        self.watched.iter_mut().map(|watched| (watched.rule.name.clone(), watched.attempts.count())).collect()
    }

    /// Returns true if a rule that failed works again, but rows that it has not judged were dropped: state must be rebuilt.
    pub(crate) fn wants_rebuild(&self) -> bool {
        self.watched.iter().any(|watched| watched.attempts.wants_rebuild())
    }

    /// Returns the rules that cannot be used.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// Columns of a table that the queries of rules on its new rows need, in the table's order; empty if no rule can be
    /// asked about its rows.
    pub async fn columns(&mut self, table: Table) -> Vec<&'static str> {
        self.analyse().await;
        let analyses = || self.watched.iter().filter_map(|watched| watched.analysis.as_ref());
        let needed: BTreeSet<&str> = analyses().flat_map(|analysis| analysis.columns(table)).collect();
        let names = table.columns().iter().map(|column| column.name);
        if needed.is_empty() && analyses().any(|analysis| analysis.reads(table)) {
            // A query may count rows without reading anything in them.
            return names.take(1).collect();
        }
        names.filter(|name| needed.contains(name)).collect()
    }

    /// Analyses the queries of rules on new rows, once. A query that cannot be planned stays without: its first evaluation
    /// reports why.
    async fn analyse(&mut self) {
        for watched in self.watched.iter_mut().filter(|watched| watched.rule.source != Source::Tables) {
            if watched.analysis.is_none() {
                watched.analysis = self.session.analyse(&watched.rule.sql).await.ok();
            }
        }
    }

    /// Takes in new rows of a table. They may lack columns that are not among [`Engine::columns`].
    ///
    /// # Errors
    /// `Bug` if the rows do not fit the schema. A failing rule is no error.
    pub async fn take(&mut self, table: Table, rows: Vec<RecordBatch>) -> Result<()> {
        if !self.watched.iter().any(|watched| watched.rule.source.table() == Some(table)) {
            return Ok(());
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.analyse().await;
        self.session.put(table, table.arrow_schema(), rows.clone())?;
        let asking = Asking {
            session: &self.session,
            apart: &self.apart,
            contracts: &self.contracts,
            now: self.now,
            live: self.live,
        };
        for watched in self.watched.iter_mut().filter(|watched| watched.rule.source.table() == Some(table)) {
            asking.take(watched, table, &rows).await?;
        }
        // The engine does not keep the rows.
        self.session.put(table, table.arrow_schema(), Vec::new())
    }

    /// Tries rows again that rules failed on, if it is time.
    ///
    /// # Errors
    /// As [`Engine::take`].
    pub async fn retry(&mut self) -> Result<()> {
        let asking = Asking {
            session: &self.session,
            apart: &self.apart,
            contracts: &self.contracts,
            now: self.now,
            live: self.live,
        };
        for watched in self.watched.iter_mut().filter(|watched| watched.attempts.is_due(self.now)) {
            if let Some(table) = watched.rule.source.table() {
                asking.retry(watched, table).await?;
            }
        }
        Ok(())
    }

    /// Notes that the tables cannot be read: an evaluation of every rule on whole tables failed.
    pub(crate) fn tables_fail(&mut self, why: &str) {
        let (now, live) = (self.now, self.live);
        for watched in self.watched.iter_mut().filter(|watched| watched.rule.source == Source::Tables) {
            if !watched.attempts.pauses(now) {
                watched.failed(why.to_owned(), now, live);
            }
        }
    }

    /// Evaluates the rules on whole tables that are due.
    pub async fn ask_tables(&mut self, session: &Session, now: Minute) {
        for watched in self.watched.iter_mut().filter(|watched| watched.rule.source == Source::Tables) {
            let failed = self.live && watched.attempts.failures.in_a_row > 0;
            let due = match failed {
                true => !watched.attempts.pauses(self.now),
                false => watched.asked.is_none_or(|asked| now - asked >= watched.rule.every),
            };
            if !due {
                continue;
            }
            watched.asked = Some(now);
            match asking::ask(session, &watched.rule, now).await {
                Ok(found) => {
                    watched.replace(found, now, &self.contracts);
                    watched.worked();
                }
                Err(failed) => watched.failed(failed.why, self.now, self.live),
            }
        }
    }

    /// Judges all windows before `to`. Silence is judged before `silence_to`: it may be later, because a window without data is
    /// never complete, or earlier, if data may have come that was not read. Rules on whole tables are judged up to `now`.
    pub fn evaluate(&mut self, to: Minute, silence_to: Minute, now: Option<Minute>) -> Vec<AlertRow> {
        let mut rows = Vec::new();
        for watched in &mut self.watched {
            let until = match (&watched.rule.source, &watched.rule.settings) {
                (Source::Tables, _) => match now {
                    Some(now) => now + 1,
                    None => continue,
                },
                (_, DetectorSettings::Silence { .. }) => silence_to,
                _ => to,
            };
            // While rows wait, their windows are incomplete.
            if watched.rule.source == Source::Tables || !watched.attempts.holds() {
                watched.evaluate(until, &mut rows);
            }
        }
        rows
    }

    /// Returns rows for firing alerts that are stale at a moment: their series has had no data since.
    pub fn unheard(&self, until: Minute) -> Vec<AlertRow> {
        let mut rows = Vec::new();
        for watched in self.watched.iter().filter(|watched| !watched.attempts.holds()) {
            for entry in watched.families.values() {
                for (release, track) in entry.family.tracks() {
                    let Some(at) = track.stale_at().filter(|at| *at <= until) else { continue };
                    let thresholds = entry.family.thresholds(release, &watched.budget, at);
                    let transition = Transition {
                        at,
                        from: AlertState::Firing,
                        to: AlertState::Firing,
                        stale: true,
                        why: "no_data",
                    };
                    let record = TransitionRecord {
                        transition,
                        verdict: track.verdict(&thresholds),
                        evidence: track.evidence(&thresholds),
                    };
                    let baselines = entry.family.baselines(release);
                    let series = SeriesRelease { entry, release, baselines: &baselines, started: track.started() };
                    rows.push(watched.row(series, &record, RowChange::from(ChangeKind::New)));
                }
            }
        }
        rows
    }

    /// Returns the row that retracts a transition of an alert (microseconds since the epoch); none if the series is unknown.
    pub(crate) fn retraction(&self, id: &str, at: i64, state: &str, stale: bool) -> Option<AlertRow> {
        for watched in &self.watched {
            for entry in watched.families.values() {
                for (release, track) in entry.family.tracks() {
                    if alert_id(&watched.rule.name, &entry.series(), release) != id {
                        continue;
                    }
                    let to = AlertState::from_name(state)?;
                    let transition =
                        Transition { at: at.div_euclid(MINUTE_MICROS), from: to, to, stale, why: "corrected" };
                    let thresholds = entry.family.thresholds(release, &watched.budget, track.next());
                    let record = TransitionRecord {
                        transition,
                        verdict: track.verdict(&thresholds),
                        evidence: track.evidence(&thresholds),
                    };
                    let baselines = entry.family.baselines(release);
                    let series = SeriesRelease { entry, release, baselines: &baselines, started: track.started() };
                    let mut row = watched.row(series, &record, RowChange::from(ChangeKind::Retracted));
                    row.take_back(track.state());
                    return Some(row);
                }
            }
        }
        None
    }

    /// Returns true if the series of a firing alert has had data since a moment, microseconds since the epoch.
    pub(crate) fn is_heard_after(&self, id: &str, at: i64) -> bool {
        self.watched.iter().any(|watched| {
            watched.families.values().any(|entry| {
                entry.family.tracks().any(|(release, track)| {
                    track.stale_at().is_some_and(|stale| micros(stale) > at)
                        && alert_id(&watched.rule.name, &entry.series(), release) == id
                })
            })
        })
    }

    /// Lets an alert of a rule on whole tables go on, because its past is not in the tables.
    pub(crate) fn resume(&mut self, rule: &str, labels: &BTreeMap<String, String>, at: i64) {
        let contracts = &self.contracts;
        let found =
            self.watched.iter_mut().find(|watched| watched.rule.name == rule && watched.rule.source == Source::Tables);
        let Some(watched) = found else { return };
        let series: Vec<String> =
            watched.rule.series.iter().map(|column| labels.get(column).cloned().unwrap_or_default()).collect();
        if let Some(entry) = watched.entry(&series, contracts) {
            entry.family.resume(at.div_euclid(MINUTE_MICROS));
        }
    }

    /// Returns true if there is a rule on whole tables.
    pub fn asks_tables(&self) -> bool {
        self.watched.iter().any(|watched| watched.rule.source == Source::Tables)
    }

    /// Returns every alert that is not inactive.
    pub fn active_alerts(&self) -> Vec<ActiveAlert> {
        let mut all = Vec::new();
        for watched in &self.watched {
            for entry in watched.families.values() {
                for (release, track) in entry.family.tracks().filter(|(_, track)| track.state() != AlertState::Inactive)
                {
                    all.push(ActiveAlert {
                        alert_id: alert_id(&watched.rule.name, &entry.series(), release),
                        rule: watched.rule.name.clone(),
                        severity: watched.rule.severity,
                        state: track.state(),
                        stale: track.is_stale(),
                    });
                }
            }
        }
        all
    }

    /// Returns the names of the rules whose past is in the tables.
    pub(crate) fn replayed_rules(&self) -> BTreeSet<String> {
        let replayed = self.watched.iter().filter(|watched| watched.rule.source != Source::Tables);
        replayed.map(|watched| watched.rule.name.clone()).collect()
    }

    /// Returns the state, verdict and thresholds of one series.
    pub fn verdict(
        &self,
        rule: &str,
        series: &[String],
        release: &str,
    ) -> Option<(AlertState, bellwether_detect::Verdict, Thresholds)> {
        let watched = self.watched.iter().find(|watched| watched.rule.name == rule)?;
        let entry = watched.families.get(series.join(&SEPARATOR.to_string()).as_str())?;
        let track = entry.family.track(release)?;
        let thresholds = entry.family.thresholds(release, &watched.budget, track.next());
        Some((track.state(), track.verdict(&thresholds), thresholds))
    }

    /// Returns counts for metrics.
    pub fn totals(&self, now: Minute) -> Totals {
        let mut totals = Totals { broken: self.broken.len(), ..Totals::default() };
        for watched in &self.watched {
            match watched.attempts.failures.is_failing() {
                true => totals.broken += 1,
                false => totals.rules += 1,
            }
            for entry in watched.families.values() {
                totals.series += entry.family.tracks().count();
                totals.too_late += entry.family.too_late();
                match watched.is_judged_alone() {
                    true => totals.waiting += usize::from(entry.family.wants().is_some()),
                    false => totals.rebuild += entry.family.too_late(),
                }
            }
            if watched.rule.severity == Severity::Page
                && watched
                    .rule
                    .settings
                    .detector(None)
                    .ok()
                    .flatten()
                    .is_some_and(|detector| detector.spending().is_some())
            {
                totals.pages_spent += watched.budget.spent(now);
            }
        }
        totals
    }
}
