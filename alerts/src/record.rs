//! Rows of the table `alerts`.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_detect::{Minute, TransitionRecord};
use bellwether_tables::Table;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::{FAILING_AFTER, Failures};
use crate::observe::MINUTE_MICROS;
use crate::rule::{Rule, Severity};
use crate::title::title;

/// The rule of alerts about failing rules. No rule file may have this name.
pub const RULE_FAILING: &str = "rule_failing";

/// The relation of a row to earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A new transition.
    New,
    /// The alert fires as before, and only its staleness has changed. Not counted as a new alert.
    Restated,
    /// A new transition at a time that was judged before, because of a correction.
    Late,
    /// A transition that a correction moved to another time.
    Moved,
    /// A transition that a correction took back.
    Retracted,
}

/// The relation of a new row to earlier ones, and the time of a moved transition before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowChange {
    pub(crate) kind: ChangeKind,
    pub(crate) was: Option<Minute>,
}

/// The evaluation that wrote a row, and the state of the tables at that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Number of the evaluation.
    pub number: i64,
    /// Version of `metrics`.
    pub metrics_version: i64,
    /// Version of `events` after the last one that was read.
    pub events_version: i64,
    /// Windows before this minute were complete.
    pub complete_to: Minute,
    /// Time of the evaluation, microseconds since the epoch.
    pub evaluated_at: i64,
}

/// One row, without the columns about its evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertRow {
    /// The same for all transitions of one alert.
    pub alert_id: String,
    /// Name of the rule.
    pub rule: String,
    /// Severity: page, ticket or info.
    pub severity: &'static str,
    /// Team or person in charge.
    pub owner: Option<String>,
    /// Page with instructions.
    pub runbook: Option<String>,
    /// Labels of the rule and of the series.
    pub labels: BTreeMap<String, String>,
    pub tenant: Option<String>,
    pub task: Option<String>,
    /// The release under judgement.
    pub release_id: Option<String>,
    /// The release that it is compared with.
    pub baseline_release: Option<String>,
    /// End of the window that caused the transition, microseconds since the epoch.
    pub at: i64,
    /// State before.
    pub state_from: &'static str,
    /// State after.
    pub state: &'static str,
    /// True if the alert fires, but its series has had no data since.
    pub stale: bool,
    /// The reason, as one word.
    pub why: String,
    /// The relation of the row to earlier ones.
    pub change: ChangeKind,
    /// Its time before it was moved, microseconds since the epoch.
    pub was: Option<i64>,
    /// The alert in one line.
    pub title: String,
    /// Kind of detector.
    pub detector: &'static str,
    /// Kind of baseline.
    pub baseline: &'static str,
    baseline_events: Option<u64>,
    baseline_runs: Option<u64>,
    canary_events: Option<u64>,
    canary_runs: Option<u64>,
    baseline_value: Option<f64>,
    canary_value: Option<f64>,
    effect_kind: &'static str,
    effect: Option<f64>,
    effect_low: Option<f64>,
    effect_high: Option<f64>,
    /// Evidence, nats.
    pub log_e: Option<f64>,
    /// The evidence that it had to reach, nats.
    pub threshold: Option<f64>,
    /// Bound on false alarms.
    pub false_alarm: Option<f64>,
    false_alarm_unit: Option<&'static str>,
    since: Option<i64>,
    strata: Vec<Stratum>,
    notes: String,
    /// SQL that returns the numbers again.
    pub sql: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Stratum {
    stratum: String,
    baseline_events: u64,
    baseline_runs: u64,
    canary_events: u64,
    canary_runs: u64,
    log_e: f64,
}

/// A row with all its columns.
#[derive(Serialize)]
struct FullRow<'a> {
    evaluation: i64,
    metrics_version: i64,
    events_version: i64,
    complete_to: i64,
    evaluated_at: i64,
    #[serde(flatten)]
    row: &'a AlertRow,
}

/// The alert that a row is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) series: &'a [String],
    pub(crate) release: &'a str,
    pub(crate) baselines: &'a [std::sync::Arc<str>],
}

/// Returns the start of a minute in microseconds since the epoch, saturated at the ends of a timestamp.
pub(crate) fn micros(minute: Minute) -> i64 {
    minute.saturating_mul(MINUTE_MICROS)
}

/// Returns the id of an alert: a hash, so that it fits in a link.
pub fn alert_id(rule: &str, series: &[String], release: &str) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(rule).chain(series.iter().map(String::as_str)).chain([release]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

// === impl RowChange ===

impl From<ChangeKind> for RowChange {
    fn from(kind: ChangeKind) -> Self {
        Self { kind, was: None }
    }
}

// === impl AlertRow ===

impl AlertRow {
    /// Makes the row of a transition.
    pub(crate) fn new(
        subject: Subject<'_>,
        record: &TransitionRecord,
        change: RowChange,
        sql: String,
        more_notes: Vec<String>,
    ) -> Self {
        let Subject { rule, series, release, baselines } = subject;
        let value_of = |name: &str| {
            let place = rule.series.iter().position(|column| column == name)?;
            series.get(place).cloned()
        };
        let mut labels = rule.labels.clone();
        labels.extend(rule.series.iter().cloned().zip(series.iter().cloned()).filter(|(_, value)| !value.is_empty()));
        if !release.is_empty() {
            labels.insert("release_id".to_owned(), release.to_owned());
        }
        // The stratum that raised the alert is a label by the name of its column.
        if let (Some(stratum), [column]) = (record.evidence.stratum.as_ref(), rule.strata.as_slice()) {
            labels.insert(column.clone(), stratum.to_string());
        }
        let raised_by = |name: &str| match (record.evidence.stratum.as_ref(), rule.strata.as_slice()) {
            (Some(stratum), [column]) if column == name => Some(stratum.to_string()),
            _ => None,
        };
        let baseline_release = match baselines {
            [one] => Some(one.to_string()),
            _ => None,
        };
        let TransitionRecord { transition, evidence, .. } = record;
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let mut notes = evidence.notes.clone();
        notes.extend(more_notes);
        Self {
            alert_id: alert_id(&rule.name, series, release),
            rule: rule.name.clone(),
            severity: rule.severity.name(),
            owner: rule.owner.clone(),
            runbook: rule.runbook.clone(),
            labels,
            tenant: value_of("tenant").or_else(|| raised_by("tenant")),
            task: value_of("task").or_else(|| raised_by("task")),
            release_id: Some(release.to_owned())
                .filter(|release| !release.is_empty())
                .or_else(|| value_of("release_id")),
            title: title(subject, baseline_release.as_deref(), evidence),
            baseline_release,
            at: micros(transition.at),
            state_from: transition.from.name(),
            state: transition.to.name(),
            stale: transition.stale,
            why: transition.why.to_owned(),
            change: match change.kind {
                ChangeKind::New | ChangeKind::Late if transition.from == transition.to => ChangeKind::Restated,
                change => change,
            },
            was: change.was.map(micros),
            detector: evidence.detector,
            baseline: evidence.baseline.name(),
            baseline_events: evidence.baseline_counts.map(|counts| as_long(counts.0)),
            baseline_runs: evidence.baseline_counts.map(|counts| as_long(counts.1)),
            canary_events: evidence.canary_counts.map(|counts| as_long(counts.0)),
            canary_runs: evidence.canary_counts.map(|counts| as_long(counts.1)),
            baseline_value: finite(evidence.baseline_value),
            canary_value: finite(evidence.canary_value),
            effect_kind: evidence.effect_kind,
            effect: finite(evidence.effect),
            effect_low: finite(evidence.interval.map(|interval| interval.0)),
            effect_high: finite(evidence.interval.map(|interval| interval.1)),
            log_e: finite(evidence.log_e),
            threshold: finite(evidence.threshold),
            false_alarm: finite(evidence.false_alarm.map(|bound| bound.0)),
            false_alarm_unit: evidence.false_alarm.map(|bound| bound.1),
            since: evidence.since.map(micros),
            strata: evidence.strata.iter().map(stratum).collect(),
            notes: notes.join("\n"),
            sql,
        }
    }
}

impl AlertRow {
    /// Makes a row of the alert about a failing rule.
    pub(crate) fn of_rule(
        rule: &Rule,
        failures: &Failures,
        at: i64,
        steps: (&'static str, &'static str, &str),
    ) -> Self {
        let (state_from, state, why) = steps;
        let name = [rule.name.clone()];
        let labels = BTreeMap::from([("area".to_owned(), "data".to_owned()), ("rule".to_owned(), rule.name.clone())]);
        let error = failures.last_error.clone().unwrap_or_default();
        let count = f64::from(failures.in_a_row);
        let title = match state {
            "pending" | "firing" => format!("{}: rule fails ({} in a row): {error}", rule.name, failures.in_a_row),
            _ => format!("{}: rule works again", rule.name),
        };
        Self {
            alert_id: alert_id(RULE_FAILING, &name, ""),
            rule: RULE_FAILING.to_owned(),
            severity: if rule.severity == Severity::Page { "page" } else { "ticket" },
            owner: rule.owner.clone(),
            runbook: Some("docs/alerts.md#rule_failing".to_owned()),
            labels,
            tenant: None,
            task: None,
            release_id: None,
            baseline_release: None,
            at,
            state_from,
            state,
            stale: false,
            why: why.to_owned(),
            change: ChangeKind::New,
            was: None,
            title,
            detector: "rule",
            baseline: "set",
            baseline_events: None,
            baseline_runs: None,
            canary_events: Some(u64::from(failures.in_a_row)),
            canary_runs: None,
            baseline_value: Some(0.0),
            canary_value: Some(count),
            effect_kind: "failures",
            effect: Some(count),
            effect_low: None,
            effect_high: None,
            log_e: None,
            threshold: Some(f64::from(FAILING_AFTER)),
            false_alarm: None,
            false_alarm_unit: None,
            since: failures.since,
            strata: Vec::new(),
            notes: error,
            sql: rule.sql.clone(),
        }
    }

    /// Returns true if only the staleness of the alert has changed.
    pub fn restates(&self) -> bool {
        self.state_from == self.state
    }

    /// Returns when the change began by the evidence, microseconds since the epoch.
    pub fn since(&self) -> Option<i64> {
        self.since
    }

    /// Turns the row into its retraction: from its state to the present one.
    pub(crate) fn take_back(&mut self, now: bellwether_detect::AlertState) {
        self.state_from = self.state;
        self.state = now.name();
        self.why = "corrected".to_owned();
        self.change = ChangeKind::Retracted;
    }
}

/// Returns a count that fits the table's column: 63 bits.
fn as_long(count: u64) -> u64 {
    count.min(i64::MAX.unsigned_abs())
}

fn stratum(evidence: &bellwether_detect::StratumEvidence) -> Stratum {
    Stratum {
        stratum: evidence.stratum.to_string(),
        baseline_events: as_long(evidence.baseline.0),
        baseline_runs: as_long(evidence.baseline.1),
        canary_events: as_long(evidence.canary.0),
        canary_runs: as_long(evidence.canary.1),
        log_e: if evidence.log_e.is_finite() { evidence.log_e } else { 0.0 },
    }
}

/// Returns rows of one evaluation as a batch of the table.
///
/// # Errors
/// `Bug` if they do not fit the table.
pub fn batch(rows: &[AlertRow], evaluation: &Evaluation) -> Result<RecordBatch> {
    let wrong = |source| Error::bug("rows of `alerts` do not fit the table").with_source(source);
    let full: Vec<FullRow<'_>> = rows
        .iter()
        .map(|row| FullRow {
            evaluation: evaluation.number,
            metrics_version: evaluation.metrics_version,
            events_version: evaluation.events_version,
            complete_to: micros(evaluation.complete_to),
            evaluated_at: evaluation.evaluated_at,
            row,
        })
        .collect();
    let schema = Table::Alerts.arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().map_err(wrong)?;
    decoder.serialize(&full).map_err(wrong)?;
    Ok(decoder.flush().map_err(wrong)?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}
