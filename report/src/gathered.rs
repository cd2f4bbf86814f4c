//! The report as a structure, and how it is gathered.

use bellwether_alerts::gate::GateReader;
use bellwether_base::{Result, Week};
use bellwether_lake::Lake;
use bellwether_queries::{Session, quoted};
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;

use crate::alarms::{self, Alarms};
use crate::candidates::{self, Candidates};
use crate::failures::{self, Failures};
use crate::first;
use crate::releases::{self, NewRelease};
use crate::tasks::{self, Changes, TaskWeek};

/// Usual number of releases about which the gate is asked at most: each question reads all runs of two releases.
pub const MOST_VERDICTS: usize = 12;

/// Everything that a report is gathered from.
pub struct Sources<'a> {
    /// The tables.
    pub lake: &'a Lake,
    /// The session whose statements read them, for one tenant or for all.
    pub session: &'a Session,
    /// The gate that is asked about new releases.
    pub gate: &'a GateReader,
    /// Most releases about which it is asked.
    pub most_verdicts: usize,
    /// The only tasks that are reported; all if it is empty.
    pub tasks: Vec<String>,
    /// The name of the only tenant, for the heading.
    pub tenant: Option<String>,
}

/// The report of a week.
#[derive(Clone, Debug, PartialEq)]
pub struct WeeklyReport {
    pub(crate) week: Week,
    /// When it was gathered, microseconds since the epoch.
    pub(crate) made_at: i64,
    pub(crate) tenant: Option<String>,
    pub(crate) tasks: Vec<TaskWeek>,
    pub(crate) changes: Changes,
    pub(crate) releases: Vec<NewRelease>,
    pub(crate) failures: Failures,
    pub(crate) alarms: Alarms,
    pub(crate) reviews: Reviews,
    pub(crate) candidates: Candidates,
    pub(crate) first: Vec<String>,
}

/// The reviews of a week.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Reviews {
    pub(crate) reviews: i64,
    pub(crate) runs: i64,
    pub(crate) reviewers: i64,
}

/// Which tasks are reported.
pub(crate) struct Scope {
    tasks: Vec<String>,
}

// === impl Scope ===

impl Scope {
    /// Returns a condition on column `task`.
    pub(crate) fn condition(&self) -> String {
        if self.tasks.is_empty() {
            return "true".to_owned();
        }
        let tasks: Vec<String> = self.tasks.iter().map(|task| quoted(task)).collect();
        format!("task IN ({})", tasks.join(", "))
    }
}

// === impl WeeklyReport ===

impl WeeklyReport {
    /// Returns the week.
    pub fn week(&self) -> Week {
        self.week
    }

    /// Returns at most seven sentences about what deserves attention, the most urgent one first.
    pub fn first(&self) -> &[String] {
        &self.first
    }

    /// Returns true if no task had a run in the week.
    pub fn is_empty(&self) -> bool {
        self.tasks.iter().all(|task| task.now.is_none())
    }

    /// Returns true if the week was not over when the report was gathered.
    pub(crate) fn is_partial(&self) -> bool {
        self.made_at < self.week.end()
    }
}

/// Returns the week to report if none is named: the last one that is over or, if nothing ran in it, the current one.
///
/// # Errors
/// `Unavailable` if the tables cannot be read, or a limit of the session is reached.
pub async fn default_week(sources: &Sources<'_>) -> Result<Week> {
    let current = Week::of(sources.lake.clock().now_micros());
    let over = current.before();
    let scope = Scope { tasks: sources.tasks.clone() };
    Ok(if tasks::any_run(sources.session, (over.start(), over.end()), &scope).await? { over } else { current })
}

/// Gathers the report of a week. `progress` hears the name of each part before it is read.
///
/// # Errors
/// `Unavailable` if the tables cannot be read, or a limit of the session is reached.
pub async fn gather(sources: &Sources<'_>, week: Week, progress: impl Fn(&str)) -> Result<WeeklyReport> {
    let (session, scope) = (sources.session, Scope { tasks: sources.tasks.clone() });
    progress("metrics");
    let tasks = Box::pin(tasks::read(session, week, &scope)).await?;
    let changes = tasks::changes(&tasks);
    progress("releases");
    let mut releases = Box::pin(releases::read(session, week, &scope)).await?;
    progress("verdicts");
    Box::pin(releases::judge(&mut releases, sources.lake, sources.gate, sources.most_verdicts)).await;
    progress("failures");
    let failures = Box::pin(failures::read(session, week, &scope, &tasks)).await?;
    progress("alerts");
    let alarms = Box::pin(alarms::read(session, sources.lake, week, &scope)).await?;
    let reviews = Box::pin(reviews(session, week, &scope)).await?;
    progress("runs to review");
    let candidates = Box::pin(candidates::read(session, week, &scope)).await?;
    let made_at = sources.lake.clock().now_micros();
    let tenant = sources.tenant.clone();
    let first = Vec::new();
    let mut report =
        WeeklyReport { week, made_at, tenant, tasks, changes, releases, failures, alarms, reviews, candidates, first };
    report.first = first::items(&report);
    Ok(report)
}

async fn reviews(session: &Session, week: Week, scope: &Scope) -> Result<Reviews> {
    let sql = format!(
        "SELECT count(*) AS reviews, count(DISTINCT run_id) AS runs, count(DISTINCT reviewer) AS reviewers FROM events
        WHERE event_type = 'run.review' AND {} AND event_time >= {} AND event_time < {}",
        scope.condition(),
        moment(week.start()),
        moment(week.end())
    );
    let rows: Vec<Reviews> = session.rows(&sql).await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// Returns a time, microseconds since the epoch, as a SQL literal.
pub(crate) fn moment(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    format!("TIMESTAMP '{}'", time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks_stay_literals() {
        let scope = |tasks: &[&str]| Scope { tasks: tasks.iter().map(|task| (*task).to_owned()).collect() }.condition();
        assert_eq!(scope(&[]), "true");
        assert_eq!(scope(&["a", "it's'; DROP TABLE events --"]), "task IN ('a', 'it''s''; DROP TABLE events --')");
        assert_eq!(moment(1_795_543_200_000_001), "TIMESTAMP '2026-11-24T18:00:00.000001Z'");
    }
}
