//! The releases that began in a week, their figures, and the verdict of the gate.

use bellwether_alerts::gate::{GateDecision, GateReader, Question};
use bellwether_base::{Result, Week};
use bellwether_lake::Lake;
use bellwether_queries::Session;
use serde::Deserialize;

use crate::gathered::{Scope, moment};

/// A release that had its first run in a task in the week.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct NewRelease {
    pub(crate) tenant: String,
    pub(crate) task: String,
    pub(crate) release_id: String,
    /// Stages in which it ran, separated by commas.
    pub(crate) stages: String,
    pub(crate) first_day: i64,
    pub(crate) runs: f64,
    pub(crate) success_rate: Option<f64>,
    #[serde(skip)]
    pub(crate) verdict: Verdict,
}

/// The verdict on a release.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Verdict {
    /// The gate answered.
    Answered { decision: &'static str, roll_back: bool, summary: String, baseline: String },
    /// The gate was not asked, because there were too many releases or the release has no users yet.
    #[default]
    NotAsked,
    /// The question failed, for this reason.
    Failed(String),
}

/// Reads the releases that began in the week, newest first.
pub(crate) async fn read(session: &Session, week: Week, scope: &Scope) -> Result<Vec<NewRelease>> {
    let sql = format!(
        "WITH began AS (
            SELECT tenant, task, release_id, min(first_day) AS first_day
            FROM release_summary WHERE {scope} GROUP BY tenant, task, release_id
        )
        SELECT
            b.tenant, b.task, b.release_id, b.first_day,
            string_agg(r.stage, ', ' ORDER BY r.stage) AS stages,
            CAST(sum(r.runs) AS DOUBLE) AS runs,
            CAST(sum(r.success) AS DOUBLE) / nullif(CAST(sum(r.judged) AS DOUBLE), 0) AS success_rate
        FROM began AS b
        JOIN (SELECT * FROM rolling_at({end}) WHERE span = '7d') AS r
            ON r.tenant = b.tenant AND r.task = b.task AND r.release_id = b.release_id
        WHERE b.first_day >= {from} AND b.first_day < {to} AND r.runs > 0
        GROUP BY b.tenant, b.task, b.release_id, b.first_day
        ORDER BY b.first_day DESC, runs DESC, b.task, b.release_id",
        scope = scope.condition(),
        end = moment(week.end()),
        from = moment(week.start()),
        to = moment(week.end()),
    );
    session.rows(&sql).await
}

/// Asks the gate about at most `most` releases that have users, canaries first.
pub(crate) async fn judge(releases: &mut [NewRelease], lake: &Lake, gate: &GateReader, most: usize) {
    let live = |release: &&mut NewRelease| ["canary", "full"].iter().any(|stage| release.stages.contains(stage));
    let mut asked: Vec<&mut NewRelease> = releases.iter_mut().filter(live).collect();
    asked.sort_by_key(|release| !release.stages.contains("canary"));
    for release in asked.into_iter().take(most) {
        let question = Question {
            task: release.task.clone(),
            canary: Some(release.release_id.clone()),
            tenant: Some(release.tenant.clone()).filter(|tenant| !tenant.is_empty()),
            ..Question::default()
        };
        release.verdict = match Box::pin(gate.ask(lake, &question)).await {
            Ok(answer) => Verdict::Answered {
                decision: answer.decision.words(),
                roll_back: answer.decision == GateDecision::RollBack,
                summary: answer.summary,
                baseline: answer.baseline,
            },
            Err(error) => Verdict::Failed(error.message().to_owned()),
        };
    }
}
