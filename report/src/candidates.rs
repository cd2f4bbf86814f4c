//! The sample of the week for review: how much of it is decided, its failure signatures, and the eval cases that came of reviews.

use std::collections::BTreeSet;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use serde::Deserialize;

use crate::failures::{MOST, WEEKS_BEFORE};
use crate::gathered::{Scope, moment};

/// Weeks whose eval cases are drawn.
const WEEKS_OF_GROWTH: usize = 8;

/// The sample of a week, what was decided about it, and the eval cases so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Candidates {
    /// By task; empty if nothing was ever sampled.
    pub(crate) tasks: Vec<Sampled>,
    /// The failure signatures with most runs.
    pub(crate) top: Vec<Signature>,
    /// Number of failure signatures in the sample.
    pub(crate) signatures: usize,
    /// Signatures of the four samples before that are not in this one.
    pub(crate) gone: Vec<Signature>,
    /// Eval cases at the end of each of the last eight weeks, this one included.
    pub(crate) growth: Vec<(Week, i64)>,
}

/// The candidates of a task.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Sampled {
    pub(crate) task: String,
    /// Runs in the sample of the week, and the runs of production that they stand for.
    pub(crate) sampled: i64,
    pub(crate) stands_for: f64,
    /// Runs of the sample about which people have decided, and critical ones that still need a decision.
    pub(crate) decided: i64,
    pub(crate) critical: i64,
    /// Runs of any week that need a decision when the report is written, and the age of the oldest, seconds.
    pub(crate) waiting: i64,
    pub(crate) oldest_s: f64,
    /// Runs in samples of weeks before.
    pub(crate) earlier: i64,
    /// Eval cases that came of reviews in the week, and up to its end.
    pub(crate) new_cases: i64,
    pub(crate) cases: i64,
}

/// A failure signature of the sample.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Signature {
    pub(crate) task: String,
    pub(crate) signature: String,
    /// Runs of the week that their producers kept, and of the four weeks before per week.
    pub(crate) runs: f64,
    pub(crate) before: f64,
    /// Runs in the sample of the week, and those about which people have decided.
    pub(crate) sampled: i64,
    pub(crate) decided: i64,
    /// The newest run with it in samples of weeks before, microseconds since the epoch.
    #[serde(default)]
    pub(crate) seen_before: Option<i64>,
    #[serde(skip)]
    pub(crate) history: History,
}

/// Whether a signature appeared in the samples of earlier weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum History {
    /// It was in the sample of the week before, or its task was in none: all of its signatures would be new.
    #[default]
    Known,
    /// It was in none of them.
    New,
    /// It was absent for this number of weeks.
    Back(i64),
}

#[derive(Deserialize)]
struct Cases {
    at: i64,
    cases: i64,
}

pub(crate) async fn read(session: &Session, week: Week, scope: &Scope) -> Result<Candidates> {
    let tasks = sampled(session, week, scope).await?;
    if tasks.is_empty() {
        return Ok(Candidates::default());
    }
    let sampled_before: BTreeSet<&str> =
        tasks.iter().filter(|task| task.earlier > 0).map(|task| task.task.as_str()).collect();
    let mut all = signatures(session, week, scope).await?;
    for signature in &mut all {
        signature.history = match signature.seen_before {
            None if sampled_before.contains(signature.task.as_str()) => History::New,
            None => History::Known,
            Some(seen) => match week.since(Week::of(seen)) {
                0 | 1 => History::Known,
                weeks => History::Back(weeks - 1),
            },
        };
    }
    let of_week = |signature: &&Signature| signature.sampled > 0;
    let mut gone: Vec<Signature> =
        all.iter().filter(|signature| signature.sampled == 0 && signature.before > 0.0).cloned().collect();
    gone.sort_by(|one, other| other.before.total_cmp(&one.before));
    gone.truncate(MOST);
    // Without a sample of the week, nothing is gone.
    if tasks.iter().all(|task| task.sampled == 0) {
        gone.clear();
    }
    Ok(Candidates {
        top: all.iter().filter(of_week).take(MOST).cloned().collect(),
        signatures: all.iter().filter(of_week).count(),
        gone,
        growth: growth(session, week, scope).await?,
        tasks,
    })
}

async fn sampled(session: &Session, week: Week, scope: &Scope) -> Result<Vec<Sampled>> {
    let sql = format!(
        "SELECT
            coalesce(task, '') AS task,
            count(*) FILTER (WHERE week = '{week}') AS sampled,
            coalesce(sum(weight) FILTER (WHERE week = '{week}'), 0) AS stands_for,
            count(*) FILTER (WHERE week = '{week}' AND queue_age_s IS NULL) AS decided,
            count(*) FILTER (WHERE week = '{week}' AND queue_age_s IS NOT NULL AND severity = 'critical') AS critical,
            count(*) FILTER (WHERE queue_age_s IS NOT NULL) AS waiting,
            coalesce(max(queue_age_s), 0) AS oldest_s,
            count(*) FILTER (WHERE week < '{week}') AS earlier,
            count(*) FILTER (WHERE state = 'eval_case' AND last_reviewed >= {from} AND last_reviewed < {to}) AS new_cases,
            count(*) FILTER (WHERE state = 'eval_case' AND last_reviewed < {to}) AS cases
        FROM current_candidates
        WHERE {scope}
        GROUP BY 1
        ORDER BY 1",
        scope = scope.condition(),
        from = moment(week.start()),
        to = moment(week.end()),
    );
    session.rows(&sql).await
}

async fn signatures(session: &Session, week: Week, scope: &Scope) -> Result<Vec<Signature>> {
    let earliest = (0..WEEKS_BEFORE).fold(week, |week, _| week.before());
    let sql = format!(
        "WITH by_week AS (
            SELECT
                tenant, coalesce(task, '') AS task, signature, week, max(signature_members) AS runs, count(*) AS sampled,
                count(*) FILTER (WHERE queue_age_s IS NULL) AS decided, max(ended_at) AS seen
            FROM current_candidates
            WHERE {scope} AND kind = 'failure' AND week <= '{week}'
            GROUP BY 1, 2, 3, 4
        )
        SELECT
            task, signature,
            coalesce(sum(runs) FILTER (WHERE week = '{week}'), 0) AS runs,
            coalesce(sum(runs) FILTER (WHERE week >= '{earliest}' AND week < '{week}'), 0) / {WEEKS_BEFORE}.0 AS before,
            coalesce(sum(sampled) FILTER (WHERE week = '{week}'), 0) AS sampled,
            coalesce(sum(decided) FILTER (WHERE week = '{week}'), 0) AS decided,
            max(seen) FILTER (WHERE week < '{week}') AS seen_before
        FROM by_week
        GROUP BY task, signature
        ORDER BY runs DESC, task, signature",
        scope = scope.condition(),
    );
    session.rows(&sql).await
}

async fn growth(session: &Session, week: Week, scope: &Scope) -> Result<Vec<(Week, i64)>> {
    let sql = format!(
        "SELECT date_trunc('week', last_reviewed) AS at, count(*) AS cases FROM current_candidates
        WHERE {} AND state = 'eval_case' AND last_reviewed < {} GROUP BY 1",
        scope.condition(),
        moment(week.end())
    );
    let made: Vec<Cases> = session.rows(&sql).await?;
    let mut weeks: Vec<Week> =
        std::iter::successors(Some(week), |week| Some(week.before())).take(WEEKS_OF_GROWTH).collect();
    weeks.reverse();
    let up_to = |week: Week| made.iter().filter(|made| made.at < week.end()).map(|made| made.cases).sum();
    Ok(weeks.into_iter().map(|week| (week, up_to(week))).collect())
}

// === impl Candidates ===

impl Candidates {
    /// Returns the sum over tasks.
    pub(crate) fn all(&self) -> Sampled {
        let mut all = Sampled::default();
        for task in &self.tasks {
            all.sampled += task.sampled;
            all.stands_for += task.stands_for;
            all.decided += task.decided;
            all.critical += task.critical;
            all.waiting += task.waiting;
            all.oldest_s = all.oldest_s.max(task.oldest_s);
            all.earlier += task.earlier;
            all.new_cases += task.new_cases;
            all.cases += task.cases;
        }
        all
    }
}
