//! Failed runs by signature, escalations by reason, and policy exceptions by policy, in the week and before.

use std::collections::BTreeSet;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use serde::Deserialize;

use crate::gathered::{Scope, moment};
use crate::tasks::TaskWeek;

/// Weeks before the week that are looked at, to tell whether a signature is new or gone.
pub(crate) const WEEKS_BEFORE: i64 = 4;

/// Most rows of one table.
pub(crate) const MOST: usize = 12;

/// Fewest runs a week before for a signature without any in the week to count as gone.
const GONE_A_WEEK: f64 = 1.25;

/// Runs that failed alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Signature {
    pub(crate) task: String,
    /// Outcome, reason, component and class of the error, as rule `new_failure_signature` writes them.
    pub(crate) signature: String,
    pub(crate) runs: f64,
    /// Runs in the weeks before, per week.
    pub(crate) before: f64,
    pub(crate) last_seen: i64,
    /// Releases in which it occurred, at most three.
    pub(crate) releases: String,
    /// No run of the weeks before failed so, and the task did run then.
    #[serde(skip)]
    pub(crate) is_new: bool,
}

/// A reason or a policy, with its number of runs in both weeks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Reason {
    pub(crate) task: String,
    pub(crate) reason: String,
    pub(crate) runs: f64,
    pub(crate) before: f64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failures {
    /// Signatures that did not occur in the weeks before, most runs first.
    pub(crate) new: Vec<Signature>,
    /// Signatures that occurred before, but not in the week.
    pub(crate) gone: Vec<Signature>,
    /// The most frequent signatures.
    pub(crate) top: Vec<Signature>,
    pub(crate) escalations: Vec<Reason>,
    pub(crate) exceptions: Vec<Reason>,
}

/// Reads failures. A failure is new only in a task that ran before the week: in a new task all of them would be.
pub(crate) async fn read(session: &Session, week: Week, scope: &Scope, tasks: &[TaskWeek]) -> Result<Failures> {
    let mut signatures = signatures(session, week, scope).await?;
    let ran_before: BTreeSet<String> = tasks
        .iter()
        .filter(|task| task.before.is_some())
        .map(|task| task.key.1.clone())
        .chain(signatures.iter().filter(|signature| signature.before > 0.0).map(|signature| signature.task.clone()))
        .collect();
    for signature in &mut signatures {
        signature.is_new = signature.before == 0.0 && ran_before.contains(&signature.task);
    }
    let some = |keep: &dyn Fn(&Signature) -> bool| -> Vec<Signature> {
        signatures.iter().filter(|signature| keep(signature)).take(MOST).cloned().collect()
    };
    let mut gone = some(&|signature| signature.runs == 0.0 && signature.before >= GONE_A_WEEK);
    gone.sort_by(|one, other| other.before.total_cmp(&one.before));
    Ok(Failures {
        new: some(&|signature| signature.is_new),
        gone,
        top: some(&|signature| signature.runs > 0.0),
        escalations: reasons(
            session,
            week,
            scope,
            "runs",
            "coalesce(escalation_reason_code, 'no reason given')",
            "escalated",
        )
        .await?,
        exceptions: reasons(
            session,
            week,
            scope,
            "policy_exceptions",
            "concat(coalesce(policy_id, 'no policy named'), ' (', coalesce(severity, 'no severity'), ')')",
            "true",
        )
        .await?,
    })
}

async fn signatures(session: &Session, week: Week, scope: &Scope) -> Result<Vec<Signature>> {
    let (from, to) = (moment(week.start()), moment(week.end()));
    let sql = format!(
        "SELECT
            task,
            concat_ws(' ', outcome_status, outcome_reason_code, failure_component, failure_error_type) AS signature,
            coalesce(sum(weight) FILTER (WHERE ended_at >= {from}), 0) AS runs,
            coalesce(sum(weight) FILTER (WHERE ended_at < {from}), 0) / {WEEKS_BEFORE} AS before,
            max(ended_at) AS last_seen,
            array_to_string(array_slice(array_sort(array_agg(DISTINCT release_id)), 1, 3), ', ') AS releases
        FROM runs
        WHERE {scope} AND stage IN ('canary', 'full') AND judged AND NOT completed
            AND ended_at >= {earliest} AND ended_at < {to}
        GROUP BY task, signature
        ORDER BY runs DESC, task, signature",
        scope = scope.condition(),
        earliest = moment(week.start() - WEEKS_BEFORE * (week.end() - week.start())),
    );
    session.rows(&sql).await
}

async fn reasons(
    session: &Session,
    week: Week,
    scope: &Scope,
    relation: &str,
    reason: &str,
    condition: &str,
) -> Result<Vec<Reason>> {
    let sql = format!(
        "SELECT
            task, {reason} AS reason,
            coalesce(sum(weight) FILTER (WHERE ended_at >= {from}), 0) AS runs,
            coalesce(sum(weight) FILTER (WHERE ended_at < {from}), 0) AS before
        FROM {relation}
        WHERE {scope} AND stage IN ('canary', 'full') AND {condition} AND ended_at >= {earliest} AND ended_at < {to}
        GROUP BY task, reason
        ORDER BY greatest(runs, before) DESC, task, reason
        LIMIT {MOST}",
        scope = scope.condition(),
        from = moment(week.start()),
        to = moment(week.end()),
        earliest = moment(week.before().start()),
    );
    session.rows(&sql).await
}
