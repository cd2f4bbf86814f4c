//! Writes the SQL that returns an alert's numbers again.

mod regression;

use std::sync::Arc;

use bellwether_detect::crowd::ALL;
use bellwether_detect::detector::{Histogram, Ratio};
use bellwether_detect::{Detector, Evidence, Minute};
use bellwether_queries::quoted;

use crate::record::Subject;
use crate::rule::Source;

/// An alert and the evidence for it.
pub(crate) struct AlertEvidence<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) detector: &'a Detector,
    pub(crate) evidence: &'a Evidence,
    /// Releases that began before the judged one.
    pub(crate) older: &'a [Arc<str>],
    /// The baseline of the contract, if it names one.
    pub(crate) pinned: Option<&'a Arc<str>>,
    /// The rule's query returns sketches, not bins.
    pub(crate) sketches: bool,
    /// The rule's query counts bad runs as `events`, not the good ones.
    pub(crate) counts_events: bool,
    /// Column of the rule's query with the totals by random group of sessions of bad (or of good) runs; none without sessions.
    pub(crate) groups: Option<&'static str>,
    /// First window of the release.
    pub(crate) started: Minute,
    /// Windows from this moment to another.
    pub(crate) from: Minute,
    pub(crate) to: Minute,
}

/// Returns texts as a SQL list.
fn list<'a>(texts: impl Iterator<Item = &'a Arc<str>>) -> String {
    format!("({})", texts.map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// Returns a moment as a SQL literal.
fn moment(minute: Minute) -> String {
    let seconds = u64::try_from(minute.saturating_mul(60)).unwrap_or(0).min(253_402_300_799);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    format!("TIMESTAMP '{}'", humantime::format_rfc3339_seconds(time))
}

/// Returns the query for an alert's numbers.
pub(crate) fn evidence_sql(alert: &AlertEvidence<'_>) -> String {
    let rule = alert.subject.rule;
    let mut conditions: Vec<String> = rule
        .series
        .iter()
        .zip(alert.subject.series)
        .filter(|(_, value)| *value != ALL)
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
    let starts = alert.evidence.starts.iter();
    let of_subject = |name: &Arc<str>| alert.evidence.stratum.as_ref().is_none_or(|subject| subject == name);
    let first = starts.filter(|(name, _)| of_subject(name)).map(|(_, start)| *start).min().unwrap_or(alert.from);
    // The evidence of all strata may begin before the numbers of one, or before a change.
    let from = alert.evidence.log_e_from.unwrap_or(first);
    if let Detector::Regression(settings) = alert.detector {
        return regression::query(alert, settings, conditions, from);
    }
    conditions.push(within(from, alert.to));
    match alert.detector {
        Detector::Ratio(settings) => ratio(alert, settings, &conditions),
        Detector::Histogram(settings) if alert.sketches => histogram(alert, settings, &conditions),
        Detector::Occurrence(_) => format!(
            "SELECT sum(events) AS canary_events, sum(runs) AS canary_runs\nFROM (\n{}\n) AS observations\nWHERE {}",
            rule.sql,
            conditions.join(" AND ")
        ),
        _ => format!(
            "SELECT * FROM (\n{}\n) AS observations\nWHERE {}\nORDER BY window_start",
            rule.sql,
            conditions.join(" AND ")
        ),
    }
}

/// Returns the SQL condition for windows from one moment to another.
fn within(from: Minute, to: Minute) -> String {
    format!("window_start >= {} AND window_start < {}", moment(from), moment(to))
}

/// Returns the SQL conditions for the rows of the release and for those of its baseline: all releases in full rollout, or only
/// the older ones in windows in which the release itself is in full rollout.
fn arms(alert: &AlertEvidence<'_>) -> (String, String) {
    let release = quoted(alert.subject.release);
    let own = format!("release_id = {release}");
    let other = match alert.pinned {
        Some(pinned) => format!("release_id = {}", quoted(pinned)),
        None => {
            let rolled_out = format!(
                "max(CASE WHEN release_id = {release} AND stage = 'full' THEN 1 ELSE 0 END) OVER (PARTITION BY window_start)"
            );
            let older = match alert.older {
                [] => String::new(),
                older => format!(" OR release_id IN {}", list(older.iter())),
            };
            format!("release_id <> {release} AND stage = 'full' AND ({rolled_out} = 0{older})")
        }
    };
    (own, other)
}

/// Returns the query for the sums of a ratio in both arms.
fn ratio(alert: &AlertEvidence<'_>, settings: &Ratio, conditions: &[String]) -> String {
    let (own, other) = arms(alert);
    let sum = |of: &str, who: &str| format!("coalesce(sum(CASE WHEN {who} THEN {of} END), 0)");
    let value = |who: &str| {
        let of = |column: &str| format!("CAST({} AS DOUBLE)", sum(column, who));
        format!("{} / nullif({}, 0) * {:e}", of("y"), of("x"), settings.scale)
    };
    format!(
        "WITH observations AS (\n{sql}\n),\n\
         placed AS (\n    SELECT runs, y, x, {own} AS own,\n        {other} AS other\n    FROM observations\n    WHERE {conditions}\n)\n\
         SELECT {ea} AS baseline_events, {ra} AS baseline_runs, {eb} AS canary_events, {rb} AS canary_runs,\n    \
         {va} AS baseline_value,\n    {vb} AS canary_value\nFROM placed",
        sql = alert.subject.rule.sql,
        conditions = conditions.join(" AND "),
        ea = sum("x", "other"),
        ra = sum("runs", "other"),
        eb = sum("x", "own"),
        rb = sum("runs", "own"),
        va = value("other"),
        vb = value("own"),
    )
}

/// Returns the query for the runs of both arms whose distributions were compared, and for the quantile in the title.
fn histogram(alert: &AlertEvidence<'_>, settings: &Histogram, conditions: &[String]) -> String {
    let (own, other) = arms(alert);
    let share = if alert.evidence.of == Some("95th percentile") { 0.95 } else { 0.5 };
    let merged = |who: &str| format!("sketch_merge(CASE WHEN {who} THEN sketch END)");
    format!(
        "WITH observations AS (\n{sql}\n),\n\
         placed AS (\n    SELECT window_start, sketch, {own} AS own,\n        {other} AS other\n    FROM observations\n    WHERE {conditions}\n),\n\
         windows AS (\n    SELECT window_start, {a} AS sketch_a, {b} AS sketch_b\n    FROM placed\n    WHERE own OR other\n    GROUP BY window_start\n),\n\
         counted AS (\n    SELECT window_start, sketch_a, sketch_b, greatest(sketch_count(sketch_a), 0) AS runs_a, greatest(sketch_count(sketch_b), 0) AS runs_b\n    FROM windows\n),\n\
         numbered AS (\n    SELECT *, block_number(window_start, runs_a, runs_b, {runs}, {minutes}) OVER (ORDER BY window_start) AS block\n    FROM counted\n    WHERE runs_a + runs_b > 0\n),\n\
         blocks AS (\n    SELECT block, sum(runs_a) AS runs_a, sum(runs_b) AS runs_b, sketch_merge(sketch_a) AS sketch_a, sketch_merge(sketch_b) AS sketch_b,\n        \
         max(block) OVER () AS last_block\n    FROM numbered\n    GROUP BY block\n)\n\
         -- The detector counts in bins of 20 %, and so do the values; the last two columns are those of the sketches themselves.\n\
         SELECT 0 AS baseline_events, sum(runs_a) AS baseline_runs, 0 AS canary_events, sum(runs_b) AS canary_runs,\n    \
         histogram_quantile(sketch_merge(sketch_a), {share}) AS baseline_value, histogram_quantile(sketch_merge(sketch_b), {share}) AS canary_value,\n    \
         sketch_quantile(sketch_merge(sketch_a), {share}) AS baseline_within_1_percent, sketch_quantile(sketch_merge(sketch_b), {share}) AS canary_within_1_percent\n\
         FROM blocks\nWHERE (block < last_block OR least(runs_a, runs_b) >= {runs}) AND runs_a > 0 AND runs_b > 0",
        sql = alert.subject.rule.sql,
        conditions = conditions.join(" AND "),
        a = merged("other"),
        b = merged("own"),
        runs = settings.block_runs,
        minutes = settings.block_minutes,
    )
}
