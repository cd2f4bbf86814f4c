//! Where a metric is defined.
//!
//! * `definition/metrics.sql`: what one run adds to its window and group. The only definition: the stream, a rebuild and
//!   an audit run this text.
//! * `definition/fold.sql`: partial rows folded to one a group, exactly.
//! * `definition/weighted.sql` and `definition/figures.sql`: rates, intervals, quantiles and costs from partials.
//! * [`register`]: the SQL functions that these use, each with documentation and an example.
//!
//! This crate must not know Delta, Kafka or files: its input is a relation, its output is a relation.

mod function;

pub use function::{FunctionEntry, catalogue, register};

/// What one run adds: reads relation `contributions` (columns of `events` and `sign`), yields rows of `metrics` without
/// their provenance.
pub const METRICS_SQL: &str = include_str!("definition/metrics.sql");

/// The moment up to which rolling metrics are shown unless another is named: the end of the newest window.
pub const NEWEST: &str = "(SELECT max(window_start) + INTERVAL '1 minute' FROM metrics)";

/// Columns of `metrics` that make its group.
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

/// Spans of the rolling metrics: name in SQL and length in minutes.
pub const SPANS: [(&str, i64); 4] = [("5m", 5), ("1h", 60), ("24h", 24 * 60), ("7d", 7 * 24 * 60)];

/// Folds the rows of relation `metrics` to one a window and group, exactly.
pub fn fold_sql<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    let sums: Vec<String> = columns
        .into_iter()
        .filter(|name| !KEY.contains(name))
        .map(|name| match name {
            _ if name.ends_with("_sketch") => format!("sketch_merge({name}) AS {name}"),
            _ if name.starts_with("groups_") => format!("random_groups_sum({name}) AS {name}"),
            _ => format!("sum({name}) AS {name}"),
        })
        .collect();
    uncommented(include_str!("definition/fold.sql")).replace("{sums}", &sums.join(",\n    "))
}

/// The rolling metrics up to a moment, which is an SQL expression of a timestamp: one row a span, tenant, task, release
/// and stage. Reads relation `metrics`.
pub fn rolling_sql(as_of: &str) -> String {
    rolling_spans_sql(as_of, SPANS.iter().map(|(name, _)| *name))
}

/// As [`rolling_sql`], for some of the spans.
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
             SELECT span.span, moment.as_of, m.*, CAST(m.weight_micros AS DOUBLE) / 1e6 AS w\n    \
             FROM metrics AS m CROSS JOIN span CROSS JOIN moment\n    \
             WHERE m.window_start >= moment.as_of - span.length AND m.window_start < moment.as_of\n\
         )",
        spans.join(", ")
    );
    figures(&source, "span, as_of, tenant, task, release_id, stage", "", "")
}

/// All that is known of each release: one row a tenant, task, release, fingerprint and stage. Reads relation `metrics`.
pub fn release_summary_sql() -> String {
    figures(
        &all_time(),
        "tenant, task, release_id, release_fingerprint, model, stage",
        "min(window_start) AS first_window, max(window_start) AS last_window, ",
        ", first_window, last_window",
    )
}

/// The metrics by minute: one row a window, tenant, task, release and stage. Reads relation `metrics`.
pub fn metrics_1m_sql() -> String {
    figures(&all_time(), "window_start, tenant, task, release_id, stage", "", "")
}

fn all_time() -> String {
    "source AS (SELECT *, CAST(weight_micros AS DOUBLE) / 1e6 AS w FROM metrics)".to_owned()
}

fn figures(source: &str, key: &str, extra: &str, extra_names: &str) -> String {
    let folded = uncommented(include_str!("definition/weighted.sql"))
        .replace("{key}", key)
        .replace("{extra}", extra)
        .replace("{source}", "source");
    let figures = uncommented(include_str!("definition/figures.sql")).replace("{key}", &format!("{key}{extra_names}"));
    format!("WITH {source},\nfolded AS (\n{folded}\n)\n{figures}")
}

/// A definition without the comment at its head, so that it may stand inside another.
fn uncommented(sql: &str) -> String {
    sql.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n")
}
