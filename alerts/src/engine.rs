//! All rules at work: new rows in, transitions out. Knows SQL and detectors, but neither tables nor time.
//!
//! A rule's query runs over the new rows only: queries are sums over rows, so that what they return for new rows adds to
//! what was there, and a correction takes back what it corrects. An evaluation that fails affects the rows that it fails on
//! and no others: `asking.rs` judges all others, `attempts.rs` says when these are tried again.

mod asking;
mod attempts;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bellwether_base::Result;
use bellwether_detect::{AlertState, Budget, Crowd, Minute, Season, Thresholds, Transition, TransitionRecord};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;

use crate::contract::Contracts;
use crate::observe::{MINUTE_MICROS, SEPARATOR};
use crate::record::{AlertRow, ChangeKind, alert_id, micros};
use crate::rule::{Broken, DetectorSettings, Rule, Rules, Severity, Source};
use asking::Asking;
pub use asking::try_rule;
use attempts::Attempts;
pub use attempts::{FAILING_AFTER, Failures};
use watched::Watched;

/// Memory of the queries over new rows.
const MEMORY_BYTES: usize = 256 << 20;

/// Longest that a rule's query may take: the others wait for it.
pub(crate) const LONGEST_QUERY: Duration = Duration::from_secs(30);

/// Most false alarms of a month.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetSettings {
    /// Of pages.
    pub pages: f64,
    /// Of tickets.
    pub tickets: f64,
    /// Of what is for information.
    pub infos: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { pages: 1.0, tickets: 4.0, infos: 8.0 }
    }
}

/// How a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not seen an observation yet.
    Waiting,
    /// It watches.
    Watching,
    /// Its last evaluation failed: why. It is tried again.
    Broken(String),
}

/// An alert as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveAlert {
    /// Its id.
    pub alert_id: String,
    /// Its rule.
    pub rule: String,
    /// Who is told.
    pub severity: Severity,
    /// Where it is.
    pub state: AlertState,
    /// Firing without news.
    pub stale: bool,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Rules that watch.
    pub rules: usize,
    /// Rules that cannot: they could not be read, or fail again and again.
    pub broken: usize,
    /// Series.
    pub series: usize,
    /// False pages of the month that have been given out.
    pub pages_spent: f64,
    /// Corrections that came too late to be judged by folding again.
    pub too_late: u64,
}

/// All rules at work.
pub struct Engine {
    watched: Vec<Watched>,
    broken: Vec<Broken>,
    contracts: Contracts,
    session: Session,
    /// For what is asked of one rule alone.
    apart: Session,
    /// Time of the evaluation, microseconds.
    now: i64,
    /// False while history is replayed.
    live: bool,
}

// === impl Engine ===

impl Engine {
    /// Starts with rules, contracts and a budget.
    ///
    /// # Errors
    /// `Bug` where the query engine does not start.
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
                Watched {
                    rule: rule.clone(),
                    budget: Budget::new(part, spending, minutes),
                    families: BTreeMap::new(),
                    status: Status::Waiting,
                    refused: BTreeMap::new(),
                    asked: None,
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

    /// The same with weeks that go by the clock of a zone, where a task's contract does not name another.
    #[must_use]
    pub fn in_season(mut self, season: Season) -> Self {
        self.watched.iter_mut().for_each(|watched| watched.season = season);
        self
    }

    /// Rules with how they do, and why some of their series are not watched.
    pub fn statuses(&self) -> Vec<(&Rule, &Status, &BTreeMap<String, String>)> {
        self.watched.iter().map(|watched| (&watched.rule, &watched.status, &watched.refused)).collect()
    }

    /// The time of day of what comes next, microseconds; from the first such moment on, a rule that failed pauses before it
    /// is tried again.
    pub fn at(&mut self, now: i64, live: bool) {
        (self.now, self.live) = (now, live);
    }

    /// What failed of each rule.
    pub fn failures(&self) -> impl Iterator<Item = (&Rule, &Failures)> {
        self.watched.iter().map(|watched| (&watched.rule, &watched.attempts.failures))
    }

    /// Evaluations that failed since the last time this was asked, by rule.
    pub(crate) fn count_failures(&mut self) -> Vec<(String, u64)> {
        self.watched.iter_mut().map(|watched| (watched.rule.name.clone(), watched.attempts.count())).collect()
    }

    /// True where a rule that failed works again, and rows that it has not judged are held no more: state has to be rebuilt.
    pub(crate) fn wants_rebuild(&self) -> bool {
        self.watched.iter().any(|watched| watched.attempts.wants_rebuild())
    }

    /// Rules that could not be read.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// Columns of a table that the rules on its new rows name; all of those that a query could mean.
    pub fn columns(&self, table: Table) -> Vec<&'static str> {
        let mut words = BTreeSet::new();
        for watched in self.watched.iter().filter(|watched| watched.rule.source.table() == Some(table)) {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            words.extend(watched.rule.sql.split(word).map(str::to_owned));
        }
        table.columns().iter().map(|column| column.name).filter(|name| words.contains(*name)).collect()
    }

    /// Takes in new rows of a table: some of its columns, as [`Engine::columns`] has them.
    ///
    /// # Errors
    /// `Bug` where the rows do not have the schema. A rule that fails is set aside instead.
    pub async fn take(&mut self, table: Table, rows: Vec<RecordBatch>) -> Result<()> {
        if !self.watched.iter().any(|watched| watched.rule.source.table() == Some(table)) {
            return Ok(());
        }
        let schema: SchemaRef = match rows.first() {
            Some(batch) => batch.schema(),
            None => return Ok(()),
        };
        self.session.put(table, Arc::clone(&schema), rows.clone())?;
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
        // What was taken in need not be kept.
        self.session.put(table, schema, Vec::new())
    }

    /// Asks again about rows that rules failed on, where their time has come.
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

    /// Notes that whole tables cannot be asked: an evaluation failed of every rule that asks them.
    pub(crate) fn tables_fail(&mut self, why: &str) {
        let (now, live) = (self.now, self.live);
        for watched in self.watched.iter_mut().filter(|watched| watched.rule.source == Source::Tables) {
            if !watched.attempts.pauses(now) {
                watched.failed(why.to_owned(), now, live);
            }
        }
    }

    /// Asks the rules on whole tables that are due.
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

    /// Judges all windows before `to`; those of silence before `silence_to`, which may be later, as for it, that nothing comes
    /// is news too, or earlier, where it is open whether something came. Rules on whole tables are judged up to `now`.
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
            // Where rows wait to be judged, their windows are not whole.
            if watched.rule.source == Source::Tables || !watched.attempts.holds() {
                watched.evaluate(until, &mut rows);
            }
        }
        rows
    }

    /// Firing alerts that have heard nothing up to a moment, with when they became stale.
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
                    let told = TransitionRecord {
                        transition,
                        verdict: track.verdict(&thresholds),
                        evidence: track.evidence(&thresholds),
                    };
                    rows.push(watched.row(
                        entry,
                        release,
                        &entry.family.baselines(release),
                        track.started(),
                        &told,
                        ChangeKind::New,
                        None,
                    ));
                }
            }
        }
        rows
    }

    /// A row that takes back what was told of an alert at a moment (microseconds); none where there is no such series.
    pub(crate) fn retraction(&self, id: &str, at: i64, state: &str, stale: bool) -> Option<AlertRow> {
        for watched in &self.watched {
            for entry in watched.families.values() {
                for (release, track) in entry.family.tracks() {
                    if alert_id(&watched.rule.name, &entry.series, release) != id {
                        continue;
                    }
                    let to = AlertState::from_name(state)?;
                    let transition =
                        Transition { at: at.div_euclid(MINUTE_MICROS), from: to, to, stale, why: "corrected" };
                    let thresholds = entry.family.thresholds(release, &watched.budget, track.next());
                    let told = TransitionRecord {
                        transition,
                        verdict: track.verdict(&thresholds),
                        evidence: track.evidence(&thresholds),
                    };
                    let baselines = entry.family.baselines(release);
                    let mut row =
                        watched.row(entry, release, &baselines, track.started(), &told, ChangeKind::Retracted, None);
                    row.take_back(track.state());
                    return Some(row);
                }
            }
        }
        None
    }

    /// True where the series of an alert fires and has been heard of since a moment, microseconds.
    pub(crate) fn is_heard_after(&self, id: &str, at: i64) -> bool {
        self.watched.iter().any(|watched| {
            watched.families.values().any(|entry| {
                entry.family.tracks().any(|(release, track)| {
                    track.stale_at().is_some_and(|stale| micros(stale) > at)
                        && alert_id(&watched.rule.name, &entry.series, release) == id
                })
            })
        })
    }

    /// Goes on with an alert of a rule on whole tables, whose past is not in the tables.
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

    /// True where some rule asks whole tables.
    pub fn asks_tables(&self) -> bool {
        self.watched.iter().any(|watched| watched.rule.source == Source::Tables)
    }

    /// Every alert that is not inactive.
    pub fn active_alerts(&self) -> Vec<ActiveAlert> {
        let mut all = Vec::new();
        for watched in &self.watched {
            for entry in watched.families.values() {
                for (release, track) in entry.family.tracks().filter(|(_, track)| track.state() != AlertState::Inactive)
                {
                    all.push(ActiveAlert {
                        alert_id: alert_id(&watched.rule.name, &entry.series, release),
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

    /// Names of the rules whose past is in the tables.
    pub(crate) fn replayed_rules(&self) -> BTreeSet<String> {
        let replayed = self.watched.iter().filter(|watched| watched.rule.source != Source::Tables);
        replayed.map(|watched| watched.rule.name.clone()).collect()
    }

    /// Verdict of one series, for tests of rules and for people.
    pub fn verdict(
        &self,
        rule: &str,
        series: &[String],
        release: &str,
    ) -> Option<(AlertState, bellwether_detect::Verdict, Thresholds)> {
        let watched = self.watched.iter().find(|watched| watched.rule.name == rule)?;
        let entry = watched.families.get(&series.join(&SEPARATOR.to_string()))?;
        let track = entry.family.track(release)?;
        let thresholds = entry.family.thresholds(release, &watched.budget, track.next());
        Some((track.state(), track.verdict(&thresholds), thresholds))
    }

    /// Counts, for metrics.
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
