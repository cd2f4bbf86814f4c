//! A page: one alert in one state, with its evidence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The urgency of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Ticket,
    Page,
}

/// The state of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    /// Firing, and a person has acknowledged it.
    Acknowledged,
    Resolved,
}

/// One alert in one state. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The idempotency key of the incident: the same from its first page until it is resolved, different when the alert fires again.
    pub incident: String,
    pub alert_id: String,
    pub status: Status,
    pub severity: Severity,
    pub rule: String,
    /// Team or person in charge.
    pub owner: Option<String>,
    /// Labels of the rule and of the series, with `release_id` if there is one.
    pub labels: BTreeMap<String, String>,
    pub tenant: Option<String>,
    pub task: Option<String>,
    /// The release under judgement.
    pub release: Option<String>,
    /// The release that it is compared with.
    pub baseline_release: Option<String>,
    /// The alert in one line, with numbers and the release.
    pub title: String,
    /// Time at which the alert began to fire.
    pub started_at: i64,
    /// Time at which it was resolved.
    pub ended_at: Option<i64>,
    /// The person who has taken it on; none unless the status is `Acknowledged`.
    #[serde(default)]
    pub acknowledgement: Option<Acknowledgement>,
    /// True for the message of `bellwether deliver test`: the incident is not real.
    pub test: bool,
    pub evidence: Evidence,
    /// Pages to open: runbook, dashboard, trace.
    pub links: Vec<Link>,
    /// Alerts that are not sent because this one explains them.
    pub suppressed: Vec<Suppressed>,
}

/// A person has taken an alert on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub person: String,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// Its end, microseconds since the epoch; none if it holds until the alert ends.
    pub until: Option<i64>,
    pub note: Option<String>,
}

/// A page to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Such as "runbook".
    pub name: String,
    pub url: String,
}

/// An alert that is not sent because another one explains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    pub alert_id: String,
    pub title: String,
    /// The reason in one sentence.
    pub reason: String,
}

/// The evidence of an alert. Each part is absent if it does not apply or is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Estimated start of the change, microseconds since the epoch.
    pub since: Option<i64>,
    pub baseline: Option<Arm>,
    pub canary: Option<Arm>,
    pub effect: Option<Effect>,
    /// The bound on false alarms, in one sentence.
    pub false_alarm: Option<String>,
    pub coverage: Option<Coverage>,
    /// Differences of the configurations of release and baseline.
    pub changes: Vec<Change>,
    pub mix: Option<Mix>,
    /// Slices with the largest shares of the change, the largest first.
    pub slices: Vec<SliceShare>,
    /// Three to five runs.
    pub examples: Vec<ExampleRun>,
    pub cost: Option<CostImpact>,
    /// Ids of the eval candidates that were made from the alert.
    pub eval_candidates: Vec<String>,
    pub reproduce: Option<Reproduce>,
    pub rollback: Option<Rollback>,
    /// Further remarks, each one sentence.
    pub notes: Vec<String>,
}

/// The numbers of one side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Name of the side: a release, or a period such as "the same hour of earlier weeks".
    pub name: String,
    /// Bad runs.
    pub events: Option<u64>,
    pub runs: Option<u64>,
    /// The compared value: a rate, a median, a ratio.
    pub value: Option<f64>,
}

/// The size of the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// As the column `effect_kind` of `alerts`, such as `odds_ratio`.
    pub kind: String,
    pub value: f64,
    /// Ends of an interval that holds at all times with 95 %; absent if unbounded.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The effect and its interval in words.
    pub words: String,
}

/// How much of the traffic the evidence has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Windows before this time were complete, microseconds since the epoch.
    pub complete_to: i64,
    /// Fraction of the runs that state the metric, from 0 to 1.
    pub stated: Option<f64>,
}

/// One difference of two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The part that differs, such as "prompt" or "model".
    pub part: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// How much of a change of a rate comes from another mix of runs, and how much from worse rates of the same runs. In the units of
/// the rate; the two add up to the whole change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    pub mix: f64,
    pub rate: f64,
}

/// The share of one slice in the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceShare {
    /// Such as "tool", "model", "segment", "field error", "tenant".
    pub dimension: String,
    pub value: String,
    /// Share of the change, where 1 is all of it.
    pub share: f64,
    pub baseline: Option<Arm>,
    pub canary: Option<Arm>,
}

/// A run that shows the problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExampleRun {
    /// "worst", "typical" or "newest".
    pub kind: String,
    pub run_id: String,
    pub source: String,
    pub attempt: i64,
    pub ended_at: i64,
    /// Its outcome in one line.
    pub summary: String,
    pub links: Vec<Link>,
}

/// The money that the change costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostImpact {
    pub currency: String,
    /// Units of the currency.
    pub amount: f64,
    /// The estimate in one sentence.
    pub words: String,
}

/// SQL that returns the numbers again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reproduce {
    pub sql: String,
    /// The version of `metrics` that was read.
    pub metrics_version: i64,
    /// True if the SQL was run, and returned the same numbers.
    pub checked: bool,
}

/// The suggestion to go back to an earlier release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The last good release.
    pub release: String,
    /// The reason in one sentence.
    pub reason: String,
}
