//! The SQL that gives an alert's numbers again.

use std::sync::Arc;

use bellwether_detect::detector::Regression;
use bellwether_detect::{Detector, Minute};

use crate::record::Subject;
use crate::rule::Source;

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A moment as SQL has it.
fn moment(minute: Minute) -> String {
    let seconds = u64::try_from(minute.saturating_mul(60)).unwrap_or(0).min(253_402_300_799);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    format!("TIMESTAMP '{}'", humantime::format_rfc3339_seconds(time))
}

/// The query of an alert's evidence from a window to another.
pub(crate) fn of(subject: Subject<'_>, detector: &Detector, from: Minute, to: Minute) -> String {
    let rule = subject.rule;
    let mut conditions: Vec<String> = rule
        .series
        .iter()
        .zip(subject.series)
        .map(|(column, value)| {
            if value.is_empty() {
                format!("coalesce({column}, '') = ''")
            } else {
                format!("{column} = {}", quoted(value))
            }
        })
        .collect();
    if rule.source == Source::Tables {
        let filter =
            if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
        return format!("SELECT * FROM (\n{}\n) AS observations{filter}", rule.sql);
    }
    conditions.push(format!("window_start >= {} AND window_start < {}", moment(from), moment(to)));
    match detector {
        Detector::Regression(settings) if !settings.shared_runs => regression(subject, settings, &conditions),
        _ => format!(
            "SELECT * FROM (\n{}\n) AS observations\nWHERE {}\nORDER BY window_start",
            rule.sql,
            conditions.join(" AND ")
        ),
    }
}

/// The blocks of a comparison, and the evidence of all of them.
fn regression(subject: Subject<'_>, settings: &Arc<Regression>, conditions: &[String]) -> String {
    let rule = subject.rule;
    let release = quoted(subject.release);
    let others: Vec<String> = subject.baselines.iter().map(|name| quoted(name)).collect();
    let baseline = if others.is_empty() {
        format!("release_id <> {release} AND stage = 'full'")
    } else {
        format!("release_id IN ({}) AND stage = 'full'", others.join(", "))
    };
    let stratum = match rule.strata.as_slice() {
        [] => "''".to_owned(),
        columns => format!("concat_ws(' ', {})", columns.join(", ")),
    };
    let events = if rule.sql.contains("AS events") { "events" } else { "runs - good" };
    let sum = |of: &str, who: &str| format!("coalesce(sum({of}) FILTER (WHERE {who}), 0)");
    let own = format!("release_id = {release}");
    format!(
        "WITH observations AS (\n{sql}\n),\n\
         arms AS (\n    SELECT window_start, {stratum} AS stratum,\n        {ea} AS events_a, {ra} AS runs_a,\n        {eb} AS events_b, {rb} AS runs_b\n    \
         FROM observations\n    WHERE {conditions}\n    GROUP BY 1, 2\n),\n\
         numbered AS (\n    SELECT *, block_number(window_start, runs_a, runs_b, {runs}, {minutes}) OVER (PARTITION BY stratum ORDER BY window_start) AS block\n    FROM arms\n    WHERE runs_a + runs_b > 0\n),\n\
         blocks AS (\n    SELECT stratum, block, sum(events_a) AS events_a, sum(runs_a) AS runs_a, sum(events_b) AS events_b, sum(runs_b) AS runs_b,\n        \
         max(block) OVER (PARTITION BY stratum) AS last_block\n    FROM numbered\n    GROUP BY stratum, block\n)\n\
         SELECT stratified_log_e(stratum, e2x2_increments(events_a, runs_a, events_b, runs_b, {margin})) AS log_e,\n    \
         sum(events_a) AS baseline_events, sum(runs_a) AS baseline_runs, sum(events_b) AS canary_events, sum(runs_b) AS canary_runs\n\
         FROM blocks\n-- A block that still fills is no evidence.\nWHERE block < last_block OR least(runs_a, runs_b) >= {runs}",
        sql = rule.sql,
        ea = sum(events, &baseline),
        ra = sum("runs", &baseline),
        eb = sum(events, &own),
        rb = sum("runs", &own),
        conditions = conditions.join(" AND "),
        runs = settings.block_runs,
        minutes = settings.block_minutes,
        margin = settings.margin,
    )
}
