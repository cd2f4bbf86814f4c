//! One rule and the state of its series, in families of one series each with all its releases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_detect::crowd::{ALL, CrowdMember};
use bellwether_detect::{
    BaselinePolicy, Budget, Change, Crowd, Detector, Family, Measure, Minute, Season, TransitionRecord,
};

use bellwether_queries::{Analysis, Planned};
use bellwether_tables::Table;

use super::Status;
use super::attempts::Attempts;
use super::names::Names;
use crate::contract::Contracts;
use crate::observe::{Observation, SEPARATOR};
use crate::query;
use crate::record::{AlertRow, ChangeKind, RowChange, Subject};
use crate::rule::{Absent, Rule};

/// One rule and its state.
pub(super) struct ActiveRule {
    pub(super) rule: Rule,
    pub(super) budget: Budget,
    pub(super) families: BTreeMap<Arc<str>, Box<Entry>>,
    /// Families that were dropped because they had no windows for long, with the first judged windows of their releases.
    pub(super) dropped: BTreeMap<Arc<str>, Vec<(Arc<str>, Minute)>>,
    pub(super) status: Status,
    /// Why some series are not judged, by series.
    pub(super) refused: BTreeMap<String, String>,
    /// Names of releases and strata.
    pub(super) names: Names,
    pub(super) asked: Option<Minute>,
    /// The columns that its query reads and returns; none before it is planned, and for rules on whole tables.
    pub(super) analysis: Option<Analysis>,
    /// Its query, planned.
    pub(super) planned: Option<Planned>,
    /// Attempts to evaluate it.
    pub(super) attempts: Attempts,
    /// Time zone of the weekly season, unless a contract names another.
    pub(super) season: Season,
    /// Its series side by side, if they may fall silent together.
    pub(super) crowd: Option<Crowd>,
}

/// One family of a rule.
pub(super) struct Entry {
    /// The values of its series, joined.
    name: Arc<str>,
    pub(super) detector: Detector,
    /// Cost of one escalation in people's time, by its contract.
    escalation_cost: Option<f64>,
    pub(super) family: Family,
    /// It cannot be judged before its windows have been read from the tables.
    pub(super) waits: bool,
}

// === impl Entry ===

impl Entry {
    /// Returns the values of its series.
    pub(super) fn series(&self) -> Vec<String> {
        self.name.split(SEPARATOR).map(str::to_owned).collect()
    }
}

/// A release in a series, with the releases that it is compared with and the start of its data.
#[derive(Clone, Copy)]
pub(super) struct SeriesRelease<'a> {
    pub(super) entry: &'a Entry,
    pub(super) release: &'a str,
    pub(super) baselines: &'a [Arc<str>],
    pub(super) started: Minute,
}

/// Returns the node for all series with these first values.
fn all_of(values: &[String], length: usize) -> Vec<String> {
    values.iter().cloned().chain(std::iter::repeat_n(ALL.to_owned(), length - values.len())).collect()
}

/// Returns the values that name a node, without those that mean all.
fn named(series: &[String]) -> &[String] {
    let length = series.iter().rposition(|value| value != ALL).map_or(0, |place| place + 1);
    &series[..length]
}

/// Finds the series that are silent together. Series are judged again if they were judged by an earlier result that has changed.
fn settle(crowd: &mut Crowd, to: Minute, families: &mut BTreeMap<Arc<str>, Box<Entry>>) {
    let judged = families.values().map(|entry| entry.family.evaluated()).max().unwrap_or(Minute::MIN);
    let differs = crowd.update(to, judged, |series| {
        families.get(series.join(&SEPARATOR.to_string()).as_str()).and_then(|entry| entry.family.own_hours())
    });
    if let Some(from) = differs {
        families.values_mut().for_each(|entry| entry.family.mark_dirty(from));
    }
}

// === impl ActiveRule ===

impl ActiveRule {
    pub(super) fn add(&mut self, found: Vec<Observation>, contracts: &Contracts) {
        for mut observation in found {
            self.names.share(&mut observation.cell);
            self.add_to_crowd(&observation, contracts);
            if let Some(entry) = self.entry(&observation.series, contracts) {
                entry.family.add(observation.cell);
            }
        }
        self.families.values_mut().for_each(|entry| entry.family.settle());
    }

    /// Adds an observation to the crowd, and to the nodes above its series.
    fn add_to_crowd(&mut self, observation: &Observation, contracts: &Contracts) {
        let Some(crowd) = &mut self.crowd else { return };
        crowd.add(&observation.series, observation.cell.window, observation.cell.measure.runs);
        let length = observation.series.len();
        let above: Vec<Vec<String>> =
            crowd.ancestors(&observation.series).into_iter().map(|values| all_of(values, length)).collect();
        for series in above {
            if let Some(entry) = self.entry(&series, contracts) {
                entry.family.add(observation.cell.clone());
            }
        }
    }

    /// Replaces the values of a rule on whole tables by the present ones.
    pub(super) fn replace(&mut self, found: Vec<Observation>, now: Minute, contracts: &Contracts) {
        let mut there = BTreeSet::new();
        for observation in found {
            there.insert(observation.series.join(&SEPARATOR.to_string()));
            if let Some(entry) = self.entry(&observation.series, contracts) {
                entry.family.add(bellwether_detect::Cell { window: now, ..observation.cell });
            }
        }
        if self.rule.absent == Absent::Keep {
            return;
        }
        let absent = self.families.iter_mut().filter(|(name, _)| !there.contains(&***name));
        for entry in absent.map(|(_, entry)| entry) {
            // A series that the query does not return is healthy: its value is at the bound and not beyond.
            let Detector::Threshold(settings) = &entry.detector else { continue };
            let value = settings.above.or(settings.below).unwrap_or(0.0) * bellwether_detect::detector::MICRO;
            entry.family.add(bellwether_detect::Cell {
                window: now,
                release: Arc::from(""),
                canary: false,
                stratum: Arc::from(""),
                #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
                measure: Measure::from_counts(value.round() as i64, 1),
            });
        }
    }

    pub(super) fn entry(&mut self, series: &[String], contracts: &Contracts) -> Option<&mut Entry> {
        let name = series.join(&SEPARATOR.to_string());
        if self.refused.contains_key(&name) {
            return None;
        }
        if !self.families.contains_key(name.as_str()) {
            let contract = self.rule.contract(contracts, series);
            let detector = match self.rule.settings.detector(contract) {
                Ok(Some(detector)) => detector,
                Ok(None) => {
                    self.refused.insert(name, "the contract lacks a key that the rule needs".to_owned());
                    return None;
                }
                Err(why) => {
                    tracing::warn!(rule = self.rule.name, series = name, why, "this rule cannot judge a series");
                    self.refused.insert(name, why);
                    return None;
                }
            };
            let policy =
                BaselinePolicy { pinned: contract.and_then(|contract| contract.baseline.as_deref()).map(Arc::from) };
            let zone = contract.and_then(|contract| contract.time_zone.as_deref());
            let season = zone.and_then(|zone| Season::from_name(zone).ok()).unwrap_or(self.season);
            let name: Arc<str> = Arc::from(name.as_str());
            let mut family =
                Family::new(Arc::clone(&name), detector.clone(), detector.timing(), policy).with_season(season);
            let retired = self.dropped.remove(&name);
            let waits = retired.is_some();
            if let Some(retired) = retired {
                family.come_back(retired);
            }
            let escalation_cost = contract.and_then(|contract| contract.human_cost_per_escalation);
            let entry = Entry { name: Arc::clone(&name), detector, escalation_cost, family, waits };
            self.families.insert(name, Box::new(entry));
            self.status = Status::Watching;
        }
        self.families.get_mut(name.as_str()).map(Box::as_mut)
    }

    pub(super) fn evaluate(&mut self, to: Minute, rows: &mut Vec<AlertRow>) {
        let mut families = std::mem::take(&mut self.families);
        // The budget must know every series before any is judged.
        for entry in families.values_mut().filter(|entry| !entry.waits) {
            entry.family.start_series(to, &mut self.budget);
        }
        if let Some(crowd) = &mut self.crowd {
            settle(crowd, to, &mut families);
        }
        for (name, entry) in &mut families {
            if entry.waits || self.attempts.holds_series(name) {
                continue;
            }
            self.evaluate_entry(entry, to, rows);
        }
        self.families = families;
    }

    /// Judges one family.
    pub(super) fn evaluate_entry(&mut self, entry: &mut Entry, to: Minute, rows: &mut Vec<AlertRow>) {
        let member = self
            .crowd
            .as_ref()
            .and_then(|crowd| Some(CrowdMember { crowd, node: crowd.node(named(&entry.series()))? }));
        for update in entry.family.evaluate_among(to, &mut self.budget, member) {
            let (record, change) = match &update.change {
                Change::New { record, late: false } => (record, RowChange::from(ChangeKind::New)),
                Change::New { record, late: true } => (record, RowChange::from(ChangeKind::Late)),
                Change::Moved { was, record } => (record, RowChange { kind: ChangeKind::Moved, was: Some(*was) }),
                Change::Retracted { record, .. } => (record, RowChange::from(ChangeKind::Retracted)),
            };
            let (baselines, started) = (update.baselines.as_slice(), update.started);
            let series = SeriesRelease { entry, release: &update.release, baselines, started };
            let mut row = self.row(series, record, change);
            if let Change::Retracted { now, .. } = &update.change {
                row.take_back(*now);
            }
            rows.push(row);
        }
    }

    /// Returns the row of a transition of a release.
    pub(super) fn row(&self, series: SeriesRelease<'_>, record: &TransitionRecord, change: RowChange) -> AlertRow {
        let SeriesRelease { entry, release, baselines, started: begun } = series;
        let values = entry.series();
        let subject = Subject { rule: &self.rule, series: &values, release, baselines };
        let from = match entry.detector.compares_releases() {
            true if record.evidence.recent => record.evidence.since.unwrap_or(begun),
            true => begun,
            false => record.evidence.since.unwrap_or(begun).min(record.transition.at),
        };
        let evidence = query::AlertEvidence {
            subject,
            detector: &entry.detector,
            evidence: &record.evidence,
            older: &entry.family.older_releases(release),
            pinned: entry.family.pinned(),
            sketches: self.returns("sketch"),
            counts_events: self.returns("events"),
            groups: ["groups_events", "groups_good"]
                .into_iter()
                .find(|column| self.returns("groups_runs") && self.returns(column)),
            started: begun,
            from,
            to: record.transition.at,
        };
        let sql = query::evidence_sql(&evidence);
        let notes = self.worth(entry, record);
        AlertRow::new(subject, record, change, sql, notes)
    }

    fn returns(&self, column: &str) -> bool {
        self.analysis.as_ref().is_some_and(|analysis| analysis.returns(column))
    }

    /// Returns a note about the cost of an alert, if the contract states one.
    pub(super) fn worth(&self, entry: &Entry, record: &TransitionRecord) -> Vec<String> {
        let cost = entry.escalation_cost;
        let origin = self.analysis.as_ref().and_then(|analysis| analysis.origin("events"));
        let escalations = origin == Some((Table::Metrics, "escalated"));
        match (cost.filter(|_| escalations), record.evidence.canary_counts, record.evidence.baseline_value) {
            (Some(cost), Some((events, runs)), Some(usual)) => {
                let more = events as f64 - usual * runs as f64;
                vec![format!("{more:.0} more escalations than usual cost {:.2} in people's time", more * cost)]
            }
            _ => Vec::new(),
        }
    }
}
