//! The definitions of the metrics.
//!
//! * `definition/runs.sql`: resolves several statements about a run, late ones included, into one row per run.
//! * `definition/metrics.sql`: the contribution of one run to its window and group. These two texts are the only
//!   definition: the stream, a rebuild and an audit run them.
//! * `definition/fold.sql`: folds partial rows exactly into one row per group, or into fewer partial rows.
//! * `definition/weighted.sql` and `definition/figures.sql`: rates, intervals, quantiles and costs from partial rows.
//! * [`Planned`]: a query that is planned once and run for each second's rows.
//! * [`register`]: the SQL functions that the definitions use, each with documentation and an example.
//!
//! This crate must not know Delta, Kafka or files: its input and its output are relations.

mod function;
mod planned;

use std::sync::LazyLock;

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr, Statement as Sql};

pub use function::{FunctionEntry, at_bound, catalogue, register, whole_sum};
pub use planned::{Planned, Relation};

/// The contribution of one run, except for [`SATURATED`].
const METRICS: &str = include_str!("definition/metrics.sql");

/// Column that is true if a sum of the row exceeds its column's range and is saturated. It stays true in every row that
/// the row is folded into, because a correction cannot know how much was cut off.
pub const SATURATED: &str = "saturated";

static METRICS_SQL: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT *, at_bound({}) AS {SATURATED}\nFROM (\n{METRICS})", bounded(partial_columns()).join(", "))
});

/// Returns the SQL of one run's contribution: it reads relation `contributions` ([`CONTRIBUTION_COLUMNS`],
/// `label_delay_micros` and `sign`) and yields rows of `metrics` without their provenance.
pub fn metrics_sql() -> &'static str {
    &METRICS_SQL
}

/// Selects the columns with a bounded range: all but sketches.
fn bounded<'a>(columns: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    columns.filter(|name| !name.ends_with("_sketch") && !KEY.contains(name) && *name != SATURATED).collect()
}

/// SQL expression for the default end of rolling metrics: the end of the newest window that has a run. Windows that
/// have not begun are ignored: otherwise, one producer with a fast clock would move the last minutes of all producers
/// into a future that only it has runs for.
pub const NEWEST: &str = "(SELECT max(window_start) + INTERVAL '1 minute' FROM (SELECT window_start FROM metrics \
                          WHERE window_start <= now() GROUP BY window_start HAVING sum(runs) <> 0))";

/// Columns of `events` that a contribution consists of, in order.
pub const CONTRIBUTION_COLUMNS: &[&str] = &[
    "run_id",
    "ended_at",
    "tenant",
    "task",
    "release_id",
    "release_fingerprint",
    "model",
    "stage",
    "weight_micros",
    "session_id",
    "outcome_status",
    "outcome_source",
    "escalated",
    "validation_applicable",
    "validation_valid",
    "validation_first_attempt_valid",
    "fields_total",
    "fields_invalid",
    "llm_calls",
    "turns",
    "tool_calls_total",
    "tool_calls_failed",
    "retrieval_calls",
    "retrieval_empty",
    "retrieval_errors",
    "policy_exceptions_info",
    "policy_exceptions_low",
    "policy_exceptions_medium",
    "policy_exceptions_high",
    "policy_exceptions_critical",
    "tokens_input",
    "tokens_input_cache_read",
    "tokens_input_cache_write",
    "tokens_output",
    "tokens_reasoning",
    "latency_total_micros",
    "latency_ttft_micros",
    "cost_nanos",
    "cost_currency",
];

/// Columns of `events` that identify and rank statements, and those that late statements consist of.
pub const STATEMENT_COLUMNS: &[&str] = &[
    "event_type",
    "source",
    "event_id",
    "event_time",
    "attempt",
    "revision",
    "content_hash",
    "topic",
    "partition",
    "offset",
    "ingested_at",
    "review_id",
    "reviewer",
    "review_decision",
    "review_sets_outcome",
    "scores",
];

/// Returns the SQL of one row per run, with the given columns of relation `run` of the definition: those of `events`,
/// `verdict_at` and `label_delay_micros`. It reads relation `events`.
pub fn runs_sql(columns: &str) -> String {
    runs_with("", "", "", columns)
}

/// Returns the SQL of [`runs_sql`] with further columns of `events`: `carried` for late statements, `gathered` over all statements
/// about a run, and `decided` in the result. Each list ends in a comma.
pub fn runs_with(carried: &str, gathered: &str, decided: &str, columns: &str) -> String {
    uncommented(include_str!("definition/runs.sql"))
        .replace("{carried}", carried)
        .replace("{gathered}", gathered)
        .replace("{decided}", decided)
        .replace("{columns}", columns)
}

/// Columns of `metrics` that identify a group.
pub const KEY: [&str; 9] = [
    "window_start",
    "tenant",
    "task",
    "release_id",
    "release_fingerprint",
    "model",
    "stage",
    "weight_micros",
    "cost_currency",
];

/// Columns of `metrics` that its first version lacked. They are null in older rows, which means "not recorded".
pub const RECORDED_LATER: [&str; 8] = [
    "tokens_runs",
    "tokens_input_runs",
    "tokens_input_cache_read_runs",
    "tokens_input_cache_write_runs",
    "tokens_output_runs",
    "tokens_reasoning_runs",
    "llm_calls_runs",
    "turns_runs",
];

/// Spans of the rolling metrics: name in SQL and length in minutes.
pub const SPANS: [(&str, i64); 4] = [("5m", 5), ("1h", 60), ("24h", 24 * 60), ("7d", 7 * 24 * 60)];

/// Width of a window of partial rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// As in `metrics`.
    Minute,
    /// As in `metrics_hourly`.
    Hour,
    /// A UTC day, as in `metrics_daily`.
    Day,
}

// === impl Window ===

impl Window {
    /// Returns the start of the window of a timestamp, both SQL expressions.
    fn start_of(self, timestamp: &str) -> String {
        let width = match self {
            Self::Minute => return timestamp.to_owned(),
            Self::Hour => "1 hour",
            Self::Day => "1 day",
        };
        format!("date_bin(INTERVAL '{width}', {timestamp}, TIMESTAMP '1970-01-01T00:00:00Z')")
    }

    /// Returns relation `metrics` with its windows truncated to this width.
    fn of_metrics(self) -> String {
        format!("(SELECT * REPLACE ({} AS window_start) FROM metrics)", self.start_of("window_start"))
    }
}

/// Returns SQL that folds the rows of relation `metrics` exactly into one row per window and group. The relation must hold all
/// rows of each group: entirely retracted groups are left out.
pub fn fold_sql<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    folded(columns, "metrics", "")
}

/// Returns SQL that folds the rows of relation `metrics` exactly into fewer partial rows: one per group and window of this
/// width. All columns are those of `metrics`; `events_from` and `events_to` are the least and the greatest. A group that adds
/// up to nothing stays, because rows elsewhere may belong to it.
pub fn partials_sql(window: Window) -> String {
    let provenance = "min(events_from) AS events_from,\n    max(events_to) AS events_to";
    fold_with(&format!("{provenance},\n    {}", sums(partial_columns())), &window.of_metrics(), "", "")
}

/// Returns SQL that folds the rows of relation `metrics` exactly into one row per group and window of this width, without
/// their provenance. The relation must hold all rows of each group: entirely retracted groups are left out.
pub fn windows_sql(window: Window) -> String {
    folded(partial_columns(), &window.of_metrics(), "")
}

fn folded<'a>(columns: impl IntoIterator<Item = &'a str>, source: &str, before: &str) -> String {
    fold_with(&sums(columns), source, before, "HAVING sum(runs) <> 0")
}

fn fold_with(sums: &str, source: &str, before: &str, having: &str) -> String {
    uncommented(include_str!("definition/fold.sql"))
        .replace("{sums}", sums)
        .replace("{source}", source)
        .replace("{before}", before)
        .replace("{having}", having)
}

/// Returns the folds of columns of `metrics`, and of [`SATURATED`].
fn sums<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.into_iter().filter(|name| !KEY.contains(name) && *name != SATURATED).collect();
    let sum = |name: &str| match name {
        _ if name.ends_with("_sketch") => format!("sketch_merge({name})"),
        _ if name.starts_with("groups_") => format!("random_groups_sum({name})"),
        // If a group has a row from before the column was recorded, the result is unknown; a sum of the other rows
        // would be too small.
        _ if RECORDED_LATER.contains(&name) => format!("CASE WHEN count({name}) = count(*) THEN whole_sum({name}) END"),
        _ => format!("whole_sum({name})"),
    };
    let mut sums: Vec<String> = columns.iter().map(|name| format!("{} AS {name}", sum(name))).collect();
    let ends: Vec<String> = bounded(columns.iter().copied()).into_iter().map(sum).collect();
    sums.push(format!("coalesce(bool_or({SATURATED}), FALSE) OR at_bound({}) AS {SATURATED}", ends.join(", ")));
    sums.join(",\n    ")
}

static PARTIAL_COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut columns = returned_columns(METRICS);
    columns.retain(|name| !KEY.contains(&name.as_str()));
    columns
});

/// Returns the columns of the definition of the metrics, without those of the group.
fn partial_columns() -> impl Iterator<Item = &'static str> {
    PARTIAL_COLUMNS.iter().map(String::as_str)
}

/// Returns the names of the columns that a definition returns, from its syntax tree.
fn returned_columns(sql: &str) -> Vec<String> {
    let statements = DFParser::parse_sql(sql).expect("a definition is one SQL query");
    let Some(Statement::Statement(statement)) = statements.into_iter().next() else { return Vec::new() };
    let Sql::Query(query) = *statement else { return Vec::new() };
    let SetExpr::Select(select) = *query.body else { return Vec::new() };
    let name = |item: SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value),
        _ => None,
    };
    select.projection.into_iter().filter_map(name).collect()
}

/// Returns the SQL of the rolling metrics up to `as_of`, an SQL expression of a timestamp: one row per span, tenant,
/// task, release and stage. It reads relation `metrics`.
pub fn rolling_sql(as_of: &str) -> String {
    rolling_spans_sql(as_of, SPANS.iter().map(|(name, _)| *name))
}

/// Returns the SQL of [`rolling_sql`] for some of the spans.
pub fn rolling_spans_sql<'a>(as_of: &str, spans: impl IntoIterator<Item = &'a str>) -> String {
    let spans: Vec<String> = spans
        .into_iter()
        .filter_map(|name| SPANS.iter().find(|(known, _)| *known == name))
        .map(|(name, minutes)| format!("('{name}', INTERVAL '{minutes} minutes')"))
        .collect();
    let source = format!(
        "span AS (SELECT column1 AS span, column2 AS length FROM (VALUES {})),\n\
         moment AS (SELECT {as_of} AS as_of),\n\
         source AS (\n    \
             SELECT span.span, moment.as_of, m.*\n    \
             FROM metrics AS m CROSS JOIN span CROSS JOIN moment\n    \
             WHERE m.window_start >= moment.as_of - span.length AND m.window_start < moment.as_of\n\
         )",
        spans.join(", ")
    );
    figures(&source, "span, as_of, ", "span, as_of, tenant, task, release_id, stage", "", "")
}

/// Returns the SQL of all-time metrics of each release: one row per tenant, task, release, fingerprint and stage. It
/// reads relation `metrics`.
pub fn release_summary_sql() -> String {
    figures(
        ALL_TIME,
        "",
        "tenant, task, release_id, release_fingerprint, model, stage",
        "min(window_start) AS first_window, max(window_start) AS last_window, ",
        ", first_window, last_window",
    )
}

/// Returns the SQL of the metrics by minute: one row per window, tenant, task, release and stage. It reads relation
/// `metrics`.
pub fn metrics_1m_sql() -> String {
    figures(ALL_TIME, "", "window_start, tenant, task, release_id, stage", "", "")
}

/// Returns the SQL of every metric of each task over the last `minutes`, with canaries and full rollouts combined, for
/// the rules of contracts: one row per tenant and task. It reads relation `metrics`.
pub fn task_sql(minutes: i64) -> String {
    let source = format!(
        "source AS (SELECT * FROM metrics WHERE window_start >= now() - INTERVAL '{minutes} minutes' \
         AND stage IN ('canary', 'full'))"
    );
    figures(&source, "", "tenant, task", "", "")
}

const ALL_TIME: &str = "source AS (SELECT * FROM metrics)";

/// Returns the SQL of the figures by `key`, from the rows of `source`, a list of common table expressions. `before` lists
/// columns of `source` that the exact fold keeps, `extra` aggregates beside the weighted ones, and `extra_names` their names.
///
/// Partial rows are folded exactly before they are weighted. Weighting rounds, so otherwise the results would depend on
/// how the partial rows are split; and groups that were entirely retracted would leave their windows behind.
fn figures(source: &str, before: &str, key: &str, extra: &str, extra_names: &str) -> String {
    let exact = folded(partial_columns(), "source", before);
    let source = format!(
        "{source},\nexact AS (\n{exact}),\n\
         weighing AS (SELECT *, CAST(weight_micros AS DOUBLE) / 1e6 AS w FROM exact)"
    );
    let folded = uncommented(include_str!("definition/weighted.sql"))
        .replace("{key}", key)
        .replace("{extra}", extra)
        .replace("{source}", "weighing");
    let figures = uncommented(include_str!("definition/figures.sql")).replace("{key}", &format!("{key}{extra_names}"));
    format!("WITH {source},\nfolded AS (\n{folded}\n)\n{figures}")
}

/// Strips the comment at the head of a definition, so that it can be embedded in another query.
fn uncommented(sql: &str) -> String {
    sql.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_column_that_an_old_row_did_not_record_is_unknown_for_its_group() {
        let context = datafusion::prelude::SessionContext::new();
        register(&context);
        let rows = "CREATE VIEW metrics AS SELECT TIMESTAMP '2026-01-01T00:00:00' AS window_start, '' AS tenant, column1 AS task, \
                    '' AS release_id, '' AS release_fingerprint, '' AS model, '' AS stage, 1000000 AS weight_micros, \
                    '' AS cost_currency, column2 AS runs, column3 AS tokens_runs, FALSE AS saturated \
                    FROM (VALUES ('new', 1, 1), ('new', 2, 0), ('old', 1, NULL), ('old', 2, 2))";
        context.sql(rows).await.expect("plans").collect().await.expect("runs");
        let folded = fold_sql(["runs", "tokens_runs", "saturated"]);
        let sql = format!("SELECT task, runs, tokens_runs FROM ({folded}) ORDER BY task");
        let answer = context.sql(&sql).await.expect("plans").collect().await.expect("runs");
        let text = arrow::util::pretty::pretty_format_batches(&answer).expect("prints").to_string();
        let cells: Vec<Vec<&str>> = text
            .lines()
            .skip(3)
            .map(|line| line.split('|').map(str::trim).collect())
            .filter(|row: &Vec<_>| row.len() > 1)
            .collect();
        assert_eq!(cells, [["", "new", "3", "1", ""], ["", "old", "3", "", ""]], "{text}");
    }

    #[test]
    fn the_columns_of_the_definition_are_read_off_it() {
        let columns: Vec<&str> = partial_columns().collect();
        for name in ["runs", "tool_calls", "label_delay_micros_sum", "groups_cost_nanos", "label_delay_sketch"] {
            assert!(columns.contains(&name), "{name} of {columns:?}");
        }
        assert!(!columns.contains(&"is_success") && !columns.contains(&"window_start"), "{columns:?}");
        assert_eq!(returned_columns(METRICS)[..KEY.len()], KEY);
    }
}
