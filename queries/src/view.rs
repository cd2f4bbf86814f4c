//! The views: one SQL file each, with the documentation of the view and its columns in its first comment.
//!
//! Comment lines of the form `-- column NAME: TEXT` document a column; the lines before them document the view.

use std::sync::LazyLock;

use bellwether_metrics::{AsOf, Rolled};

/// Minutes of view `last_day`.
pub(crate) const DAY_MINUTES: i64 = 24 * 60;

/// A view: its name, its documentation and its SQL text.
#[derive(Clone, Debug)]
pub struct View {
    /// Name in SQL.
    pub name: &'static str,
    /// Description of a row.
    pub doc: String,
    /// Documented columns, in the order of the file.
    pub columns: Vec<(String, String)>,
    /// An example to try.
    pub example: Option<String>,
    /// Its query.
    pub sql: String,
}

/// Files of the views, in the order of the reference.
const FILES: &[(&str, &str)] = &[
    ("tool_calls", include_str!("view/tool_calls.sql")),
    ("field_errors", include_str!("view/field_errors.sql")),
    ("policy_exceptions", include_str!("view/policy_exceptions.sql")),
    ("stale_sources", include_str!("view/stale_sources.sql")),
    ("orphans", include_str!("view/orphans.sql")),
    ("freshness", include_str!("view/freshness.sql")),
    ("completeness", include_str!("view/completeness.sql")),
    ("ingest_progress", include_str!("view/ingest_progress.sql")),
    ("quarantine_summary", include_str!("view/quarantine_summary.sql")),
    ("silences", include_str!("view/silences.sql")),
    ("rule_precision", include_str!("view/rule_precision.sql")),
    ("reviews", include_str!("view/reviews.sql")),
    ("current_candidates", include_str!("view/current_candidates.sql")),
    ("review_queue", include_str!("view/review_queue.sql")),
    ("review_backlog", include_str!("view/review_backlog.sql")),
    ("review_throughput", include_str!("view/review_throughput.sql")),
    ("reviewer_agreement", include_str!("view/reviewer_agreement.sql")),
    ("failure_classes", include_str!("view/failure_classes.sql")),
    ("failure_signatures", include_str!("view/failure_signatures.sql")),
    ("judge_verdicts", include_str!("view/judge_verdicts.sql")),
    ("overturned_verdicts", include_str!("view/overturned_verdicts.sql")),
    ("judge_success", include_str!("view/judge_success.sql")),
    ("judge_drift", include_str!("view/judge_drift.sql")),
];

static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
    let mut views: Vec<View> = FILES.iter().map(|(name, text)| parse(name, text)).collect();
    views.splice(0..0, [runs(), rolling(), metrics_1m(), release_summary(), last_hour(), last_day()]);
    views
});

/// Returns every view, in the order of the reference.
pub fn views() -> &'static [View] {
    &VIEWS
}

/// The one column of [`ESCALATION`] that is a boolean.
const RESOLVED: &str = "escalation_resolved";

/// Columns of an escalation that a later statement may set.
const ESCALATION: [&str; 9] = [
    "escalation_reason_code",
    "escalation_initiated_by",
    "escalation_to",
    "escalation_phase",
    "escalation_ticket_id",
    RESOLVED,
    "escalation_resolution",
    "escalation_wait_micros",
    "escalation_handle_micros",
];

/// Returns view `runs`; the queries of this view and the next five are defined in crate `metrics`.
fn runs() -> View {
    let all = |write: &dyn Fn(&str) -> String| ESCALATION.map(write).join(" ");
    let carried = format!("policy_exceptions, {} ", all(&|name| format!("{name},")));
    // The run's own escalation counts, otherwise the newest of later ones. A boolean is carried as a number, because
    // `first_value` of booleans fails on a batch that the filter leaves empty.
    let newest = |name: &str| {
        let value = if name == RESOLVED { format!("CAST({name} AS INT)") } else { name.to_owned() };
        format!(
            "first_value({value} ORDER BY event_time DESC, revision DESC, content_hash DESC) \
             FILTER (WHERE event_type = 'run.escalated') AS late_{name},"
        )
    };
    // All values are gathered in the same order: first values in the reverse order would be computed as last values of this
    // one, and DataFusion's `last_value` subtracts from the length of an empty batch, which panics in debug builds.
    let gathered = format!(
        "flatten(array_reverse(array_agg(policy_exceptions ORDER BY event_time DESC, revision DESC, content_hash DESC) \
         FILTER (WHERE event_type = 'run.policy_exception'))) AS late_exceptions, {} ",
        all(&newest)
    );
    let decided = format!("l.late_exceptions, {} ", all(&|name| format!("l.late_{name},")));
    let columns = format!(
        "date_bin(INTERVAL '1 minute', ended_at, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start,
        outcome_status = 'success' AS completed,
        outcome_status <> 'unknown' AS judged,
        verdict_at,
        CAST(label_delay_micros AS DOUBLE) / 1e6 AS label_delay_s,
        CAST(latency_total_micros AS DOUBLE) / 1e3 AS latency_ms,
        CAST(latency_ttft_micros AS DOUBLE) / 1e3 AS ttft_ms,
        CAST(cost_nanos AS DOUBLE) / 1e9 AS cost,
        CAST(weight_micros AS DOUBLE) / 1e6 AS weight,
        CASE WHEN late_exceptions IS NULL THEN policy_exceptions
            ELSE array_concat(policy_exceptions, late_exceptions) END AS policy_exceptions,
        {} * EXCEPT (
            event_type, supersedes, review_id, review_queue, reviewer, review_decision, review_failure_mode,
            review_severity, review_sets_outcome, review_make_eval_case, review_duration_micros,
            review_sampling_weight, review_rubric_version, review_leased_until, review_retired, review_json, verdict_at,
            label_delay_micros, late_decides, policy_exceptions, late_exceptions, {}, {}
        )",
        all(&|name| match name {
            RESOLVED => format!("coalesce({name}, CAST(late_{name} AS BOOLEAN)) AS {name},"),
            _ => format!("coalesce({name}, late_{name}) AS {name},"),
        }),
        ESCALATION.join(", "),
        ESCALATION.map(|name| format!("late_{name}")).join(", ")
    );
    let sql = bellwether_metrics::runs_with(&carried, &gathered, &decided, &columns);
    defined("runs", include_str!("view/runs.sql"), &sql)
}

fn rolling() -> View {
    let sql = bellwether_metrics::rolling_sql(AsOf::Newest, Rolled::default());
    defined("rolling", include_str!("view/rolling.sql"), &sql)
}

fn metrics_1m() -> View {
    defined("metrics_1m", include_str!("view/metrics_1m.sql"), &bellwether_metrics::metrics_1m_sql())
}

fn release_summary() -> View {
    let sql = bellwether_metrics::release_summary_sql(Rolled::default());
    defined("release_summary", include_str!("view/release_summary.sql"), &sql)
}

fn last_hour() -> View {
    defined("last_hour", include_str!("view/last_hour.sql"), &bellwether_metrics::task_sql(60, Rolled::default()))
}

fn last_day() -> View {
    defined(
        "last_day",
        include_str!("view/last_day.sql"),
        &bellwether_metrics::task_sql(DAY_MINUTES, Rolled::default()),
    )
}

/// Makes a view from its documentation here and its query in crate `metrics`.
fn defined(name: &'static str, documentation: &str, sql: &str) -> View {
    View { sql: sql.to_owned(), ..parse(name, documentation) }
}

fn parse(name: &'static str, text: &str) -> View {
    let mut doc = Vec::new();
    let mut columns = Vec::new();
    let mut example = None;
    for line in text.lines().map_while(|line| line.strip_prefix("--")).map(str::trim) {
        if let Some((column, meaning)) = line.strip_prefix("column ").and_then(|rest| rest.split_once(": ")) {
            columns.push((column.to_owned(), meaning.to_owned()));
        } else if let Some(sql) = line.strip_prefix("example: ") {
            example = Some(sql.to_owned());
        } else {
            doc.push(line);
        }
    }
    let sql = text.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n");
    View { name, doc: doc.join(" "), columns, example, sql }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_is_documented_and_has_an_example() {
        for view in views() {
            assert!(!view.doc.is_empty(), "{} has no documentation", view.name);
            assert!(view.example.is_some(), "{} has no example", view.name);
            assert!(!view.sql.trim().is_empty(), "{} has no query", view.name);
        }
    }
}
