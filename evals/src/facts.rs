//! Runs as the classification sees them, and the SQL that reads them.

mod releases;

use std::collections::HashMap;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use bellwether_sample::weight::Novelty;
use serde::Deserialize;

pub use self::releases::{LOOK_BACK, Releases};

/// Least number of runs of a task from which a median is computed.
const LEAST_RUNS: i64 = 20;

/// A run with the statements about it, as they count without reviews. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    pub tenant: String,
    pub source: String,
    pub run_id: String,
    pub attempt: i64,
    pub ended_at: i64,
    pub task: Option<String>,
    pub release_id: Option<String>,
    pub release_fingerprint: Option<String>,
    pub stage: Option<String>,
    pub outcome_status: Option<String>,
    pub outcome_reason_code: Option<String>,
    pub failure_component: Option<String>,
    pub failure_step: Option<String>,
    pub failure_error_type: Option<String>,
    pub validation_valid: Option<bool>,
    pub escalated: bool,
    pub escalation_reason_code: Option<String>,
    pub latency_total_micros: Option<i64>,
    pub cost_nanos: Option<i64>,
    pub cost_currency: Option<String>,
    pub tool_calls_failed: i64,
    pub sampling_probability: Option<f64>,
    pub field_errors: Vec<FieldError>,
    pub tool_calls: Vec<ToolCall>,
    pub policy_exceptions: Vec<PolicyException>,
    /// Verdicts of models and code, of people, and of users.
    pub judges_good: i64,
    pub judges_bad: i64,
    pub people_good: i64,
    pub people_bad: i64,
    pub feedback_bad: i64,
    /// A retrieved document was older than one seen before.
    pub stale: bool,
    /// Medians of its task in the week, from [`Medians`]; none if it has too few runs.
    pub median_latency: Option<f64>,
    pub median_cost: Option<f64>,
    /// Novelty of its release, from [`Releases`].
    #[serde(skip)]
    pub novelty: Novelty,
}

/// An invalid field of an answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FieldError {
    pub path: String,
    pub rule: Option<String>,
    pub message: Option<String>,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    pub name: String,
    pub status: String,
    pub failed: bool,
    pub error_type: Option<String>,
}

/// A policy exception.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PolicyException {
    pub policy_id: String,
    pub severity: String,
}

// === impl RunFacts ===

impl RunFacts {
    /// Returns the outcome; `unknown` if there is none.
    pub fn outcome(&self) -> &str {
        self.outcome_status.as_deref().unwrap_or("unknown")
    }
}

/// Medians of the tasks of a week. Their number is that of the tasks and currencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Medians {
    /// Latency by tenant and task, microseconds.
    latency: HashMap<(String, String), f64>,
    /// Cost by tenant, task and currency, nano-units.
    cost: HashMap<(String, String, String), f64>,
}

/// A row of the query for medians.
#[derive(Deserialize)]
struct MedianRow {
    tenant: String,
    task: String,
    #[serde(default)]
    cost_currency: Option<String>,
    /// The row is one of a currency.
    of_cost: bool,
    latencies: i64,
    #[serde(default)]
    median_latency: Option<f64>,
    costs: i64,
    #[serde(default)]
    median_cost: Option<f64>,
}

// === impl Medians ===

impl Medians {
    /// Reads the medians of a week.
    ///
    /// # Errors
    /// As the session's statements.
    pub async fn read(session: &Session, week: Week) -> Result<Self> {
        let mut medians = Self::default();
        for row in session.rows::<MedianRow>(&filled(MEDIANS, week)).await? {
            match (row.of_cost, row.cost_currency) {
                (false, _) if row.latencies >= LEAST_RUNS => {
                    medians.latency.extend(row.median_latency.map(|median| ((row.tenant, row.task), median)));
                }
                (true, Some(currency)) if row.costs >= LEAST_RUNS => {
                    medians.cost.extend(row.median_cost.map(|median| ((row.tenant, row.task, currency), median)));
                }
                _ => {}
            }
        }
        Ok(medians)
    }

    /// Gives a run the medians of its task.
    pub fn give(&self, run: &mut RunFacts) {
        let Some(task) = &run.task else { return };
        run.median_latency = self.latency.get(&(run.tenant.clone(), task.clone())).copied();
        let of_currency = |currency: &String| self.cost.get(&(run.tenant.clone(), task.clone(), currency.clone()));
        run.median_cost = run.cost_currency.as_ref().and_then(of_currency).copied();
    }
}

/// The runs of a week, as common table expressions. `{runs}` stands for the definition of the view `runs`, which reads `events`
/// without reviews.
const RUN: &str = include_str!("facts/run.sql");

const FACTS: &str = include_str!("facts/facts.sql");

const MEDIANS: &str = include_str!("facts/medians.sql");

/// Returns the query for the runs of a week.
pub fn facts_sql(week: Week) -> String {
    filled(FACTS, week)
}

fn filled(query: &str, week: Week) -> String {
    let views = bellwether_queries::views();
    let runs = views.iter().find(|view| view.name == "runs").map_or("", |view| view.sql.as_str());
    query.replace("{run}", RUN.trim_end()).replace("{week}", &span("ended_at", week)).replace("{runs}", runs)
}

/// Returns a condition for times in a week.
pub(crate) fn span(column: &str, week: Week) -> String {
    between(column, week, week.later(1))
}

/// Returns a condition for times from the start of a week to that of a later one.
pub(crate) fn between(column: &str, from: Week, to: Week) -> String {
    let time = |micros: i64| format!("arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
    format!("{column} >= {} AND {column} < {}", time(from.start()), time(to.start()))
}
