//! The definitions of the metrics.
//!
//! * `definition/runs.sql`: resolves several statements about a run, late ones included, into one row per run.
//! * `definition/metrics.sql`: the contribution of one run to its window and group. These two texts are the only
//!   definition: the stream, a rebuild and an audit run them.
//! * `definition/fold.sql`: folds partial rows exactly into one row per group, or into fewer partial rows.
//! * `definition/weighted.sql` and `definition/figures.sql`: rates, intervals, quantiles and costs from partial rows.
//! * `spans`: which rows of the minutes, hours and days make up a span of time.
//! * [`Planned`]: a query that is planned once and run for each second's rows.
//! * [`register`]: the SQL functions that the definitions use, each with documentation and an example.
//!
//! This crate must not know Delta, Kafka or files: its input and its output are relations.

mod function;
mod planned;
mod spans;

use std::sync::LazyLock;

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr, Statement as Sql};

pub use function::{FunctionEntry, at_bound, catalogue, register, whole_sum};
pub use planned::{Planned, Relation};
pub use spans::{FileBounds, Rolled, SPANS};

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

/// Columns of `metrics` that identify a group in any window.
pub const GROUP: [&str; 8] =
    ["tenant", "task", "release_id", "release_fingerprint", "model", "stage", "weight_micros", "cost_currency"];

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
    folded(columns, "metrics", &KEY.join(", "))
}

/// Returns SQL that folds the rows of relation `metrics` exactly into fewer partial rows: one per group and window of this
/// width. All columns are those of `metrics`; `events_from` and `events_to` are the least and the greatest. A group that adds
/// up to nothing stays, because rows elsewhere may belong to it.
pub fn partials_sql(window: Window) -> String {
    let provenance = "min(events_from) AS events_from,\n    max(events_to) AS events_to";
    fold_with(&format!("{provenance},\n    {}", sums(partial_columns())), &window.of_metrics(), &KEY.join(", "), "")
}

/// Returns SQL that folds the rows of relation `metrics` exactly into one row per group and window of this width, without
/// their provenance. The relation must hold all rows of each group: entirely retracted groups are left out.
pub fn windows_sql(window: Window) -> String {
    folded(partial_columns(), &window.of_metrics(), &KEY.join(", "))
}

fn folded<'a>(columns: impl IntoIterator<Item = &'a str>, source: &str, key: &str) -> String {
    fold_with(&sums(columns), source, key, "HAVING sum(runs) <> 0")
}

fn fold_with(sums: &str, source: &str, key: &str, having: &str) -> String {
    uncommented(include_str!("definition/fold.sql"))
        .replace("{sums}", sums)
        .replace("{source}", source)
        .replace("{key}", key)
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

/// Returns the columns of the definition of the metrics that figures follow from.
pub(crate) fn figure_columns() -> &'static [&'static str] {
    static COLUMNS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words: Vec<&str> = include_str!("definition/weighted.sql").split(|letter| !is_name(letter)).collect();
        partial_columns().filter(|name| words.contains(name)).collect()
    });
    &COLUMNS
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

/// The end of the spans of rolling metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// A moment, microseconds since the epoch.
    Micros(i64),
    /// The end of the newest window that has a run and has begun. Windows that have not begun are ignored: otherwise, one
    /// producer with a fast clock would move the last minutes of all producers into a future that only it has runs for.
    Newest,
}

/// Returns the SQL of the rolling metrics of all spans that end at a moment: one row per span, tenant, task, release and
/// stage. It reads relation `metrics` and the roll-ups in `rolled`; [`AsOf::Newest`] reads all of `metrics`, so that it is
/// better to find the moment first ([`newest_sql`]).
pub fn rolling_sql(as_of: AsOf, rolled: Rolled) -> String {
    rolling_spans_with(as_of, &SPANS, rolled, "")
}

/// Like [`rolling_sql`], for some of the spans, given by names and lengths in minutes, and with the sketch of the latencies of
/// each row as column `latency_sketch`.
pub fn rolling_spans_sql(as_of: AsOf, spans: &[(&str, i64)], rolled: Rolled) -> String {
    rolling_spans_with(as_of, spans, rolled, ", latency_sketch")
}

fn rolling_spans_with(as_of: AsOf, spans: &[(&str, i64)], rolled: Rolled, more: &str) -> String {
    let source = match as_of {
        AsOf::Micros(micros) => spans::spans_to(&moment(micros), spans, rolled),
        AsOf::Newest => spans::spans_to_found(NEWEST, spans),
    };
    let key = "span, as_of, tenant, task, release_id, stage";
    figures(&source, "span, as_of, ", key, more, "folded")
}

/// Returns the SQL expression of a moment, with the type of `window_start`.
fn moment(micros: i64) -> String {
    format!("arrow_cast(to_timestamp_micros({micros}), 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

/// SQL expression for the default end of rolling metrics.
const NEWEST: &str = "(SELECT max(window_start) + INTERVAL '1 minute' FROM (SELECT window_start FROM metrics \
                      WHERE window_start <= now() GROUP BY window_start HAVING sum(runs) <> 0))";

/// Returns the SQL of the moment [`AsOf::Newest`], from the windows of the last `minutes` or from all: one row with `begun`,
/// that moment in microseconds since the epoch or null, and `ahead`, whether there are windows that have not begun. It reads
/// relation `metrics`.
pub fn newest_sql(minutes: Option<i64>) -> String {
    let recent = minutes
        .map_or_else(String::new, |minutes| format!(" WHERE window_start >= now() - INTERVAL '{minutes} minutes'"));
    format!(
        "SELECT CAST(max(window_start) FILTER (WHERE window_start <= now()) + INTERVAL '1 minute' AS BIGINT) AS begun, \
         coalesce(max(window_start) > now(), FALSE) AS ahead \
         FROM (SELECT window_start FROM metrics{recent} GROUP BY window_start HAVING sum(runs) <> 0)"
    )
}

/// Returns the SQL of all-time metrics of each release: one row per tenant, task, release, fingerprint, model and stage. It
/// reads relation `metrics` and the roll-ups in `rolled`.
pub fn release_summary_sql(rolled: Rolled) -> String {
    let key = "tenant, task, release_id, release_fingerprint, model, stage";
    // The days come from a fold of their own, so that the wide one has one row per group and not per day.
    let source = format!(
        "{},\nlived AS (\n    \
             SELECT {key}, min(day) AS first_day, max(day) AS last_day FROM (\n        \
                 SELECT {key}, day FROM source GROUP BY {key}, day HAVING sum(runs) <> 0\n    \
             ) GROUP BY {key}\n\
         )",
        spans::all_days(rolled)
    );
    let joined = format!("(SELECT folded.*, first_day, last_day FROM folded JOIN lived USING ({key}))");
    figures(&source, "", key, ", first_day, last_day", &joined)
}

/// Returns the SQL of the metrics by minute: one row per window, tenant, task, release and stage. It reads relation
/// `metrics`.
pub fn metrics_1m_sql() -> String {
    figures(&spans::all_minutes(), "window_start, ", "window_start, tenant, task, release_id, stage", "", "folded")
}

/// Returns the SQL of every metric of each task over the last `minutes`, with canaries and full rollouts combined, for
/// the rules of contracts: one row per tenant and task. It reads relation `metrics` and the roll-ups in `rolled`.
pub fn task_sql(minutes: i64, rolled: Rolled) -> String {
    figures(&spans::last_minutes(minutes, rolled), "", "tenant, task", "", "folded")
}

/// Returns the SQL of every metric of each task between two moments, microseconds since the epoch, with canaries and full
/// rollouts combined: one row per tenant and task. It reads relation `metrics` and the roll-ups in `rolled`.
pub fn tasks_between_sql(from: i64, to: i64, rolled: Rolled) -> String {
    let minutes = to.saturating_sub(from) / 60_000_000;
    figures(&spans::live_between(&moment(from), &moment(to), minutes, rolled), "", "tenant, task", "", "folded")
}

/// Partial rows are folded exactly before they are weighted, and the weights are applied exactly too: the figures depend
/// neither on how the partial rows are split nor on how the windows are rolled up. `before` is a list of columns that `source`
/// has before those of the group, `key` the columns by which the figures are grouped, and `joined` relation `folded` with
/// the columns `more` beside it.
fn figures(source: &str, before: &str, key: &str, more: &str, joined: &str) -> String {
    let exact = folded(figure_columns().iter().copied(), "source", &format!("{before}{}", GROUP.join(", ")));
    let folded =
        uncommented(include_str!("definition/weighted.sql")).replace("{key}", key).replace("{source}", "exact");
    let figures = uncommented(include_str!("definition/figures.sql"))
        .replace("{key}", &format!("{key}{more}"))
        .replace("{folded}", joined);
    format!("WITH {source},\nexact AS (\n{exact}),\nfolded AS (\n{folded}\n)\n{figures}")
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
