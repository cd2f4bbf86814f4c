//! Writes the SQL that returns an alert's numbers again.

use std::sync::Arc;

use bellwether_detect::crowd::ALL;
use bellwether_detect::detector::{Histogram, Ratio, Regression};
use bellwether_detect::{Detector, Evidence, Minute};

use crate::record::Subject;
use crate::rule::{Rule, Source};

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
    /// Windows from this moment to another.
    pub(crate) from: Minute,
    pub(crate) to: Minute,
}

/// Returns a text as a SQL literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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

/// Returns the SQL expression for the stratum of a row.
fn stratum(rule: &Rule) -> String {
    match rule.strata.as_slice() {
        [] => "''".to_owned(),
        columns => {
            let texts: Vec<String> = columns.iter().map(|column| format!("coalesce({column}, '')")).collect();
            format!("trim(concat_ws(' ', {}))", texts.join(", "))
        }
    }
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
    let from = match alert.evidence.detector_from {
        Some(begun) if is_detected(alert) => begun,
        _ => first,
    };
    conditions.push(format!("window_start >= {} AND window_start < {}", moment(from), moment(alert.to)));
    match alert.detector {
        Detector::Regression(settings) => regression(alert, settings, &conditions),
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
         SELECT 0 AS baseline_events, sum(runs_a) AS baseline_runs, 0 AS canary_events, sum(runs_b) AS canary_runs,\n    \
         sketch_quantile(sketch_merge(sketch_a), {share}) AS baseline_value, sketch_quantile(sketch_merge(sketch_b), {share}) AS canary_value\n\
         FROM blocks\nWHERE (block < last_block OR least(runs_a, runs_b) >= {runs}) AND runs_a > 0 AND runs_b > 0",
        sql = alert.subject.rule.sql,
        conditions = conditions.join(" AND "),
        a = merged("other"),
        b = merged("own"),
        runs = settings.block_runs,
        minutes = settings.block_minutes,
    )
}

/// Returns relation `counted`: the windows of the strata that the evidence is about.
fn counted(alert: &AlertEvidence<'_>, settings: &Regression) -> String {
    let evidence = alert.evidence;
    // Strata beyond the largest number that is kept apart count as one.
    let condition =
        |name: &Arc<str>| match evidence.starts.iter().any(|(known, _)| known == name) && &**name == "(other)" {
            true => format!(
                "stratum NOT IN {}",
                list(evidence.starts.iter().map(|(known, _)| known).filter(|known| *known != name))
            ),
            false => format!("stratum = {}", quoted(name)),
        };
    let columns = "events_a, runs_a, events_b, runs_b";
    match &evidence.stratum {
        Some(name) if settings.shared_runs => format!(
            "counted AS (\n    SELECT w.window_start, {shown} AS stratum, least(coalesce(e.events_a, 0), w.runs_a) AS events_a, w.runs_a,\n        \
             least(coalesce(e.events_b, 0), w.runs_b) AS events_b, w.runs_b\n    \
             FROM (SELECT * FROM arms WHERE stratum = '') AS w\n    \
             LEFT JOIN (\n        SELECT window_start, sum(events_a) AS events_a, sum(events_b) AS events_b\n        \
             FROM arms\n        WHERE {condition}\n        GROUP BY window_start\n    ) AS e ON e.window_start = w.window_start\n)",
            shown = quoted(name),
            condition = condition(name),
        ),
        Some(name) => {
            format!(
                "counted AS (\n    SELECT window_start, stratum, {columns}\n    FROM arms\n    WHERE {}\n)",
                condition(name)
            )
        }
        None if evidence.recent && evidence.starts.len() > 1 && !is_detected(alert) => {
            format!(
                "counted AS (\n    SELECT window_start, stratum, {columns}\n    FROM arms\n    WHERE window_start >= {}\n)",
                starts_by_stratum(evidence)
            )
        }
        None => format!("counted AS (\n    SELECT window_start, stratum, {columns}\n    FROM arms\n)"),
    }
}

/// Returns true if the evidence is that of the e-detector over all strata.
fn is_detected(alert: &AlertEvidence<'_>) -> bool {
    alert.evidence.detector_from.is_some() && alert.evidence.stratum.is_none()
}

/// Returns the SQL expression for the first window of the numbers of a stratum.
fn starts_by_stratum(evidence: &Evidence) -> String {
    let of = |(name, start): &(Arc<str>, Minute)| format!("        WHEN {} THEN {}", quoted(name), moment(*start));
    format!("CASE stratum\n{}\n    END", evidence.starts.iter().map(of).collect::<Vec<_>>().join("\n"))
}

/// Returns the end of the query of a comparison if its evidence is that of the e-detector: the evidence is of all blocks, in the
/// order in which they closed, and the counts are of those since the change.
fn detected(alert: &AlertEvidence<'_>, settings: &Regression) -> String {
    let evidence = alert.evidence;
    let since = match evidence.starts.as_slice() {
        [(_, start)] if evidence.recent => format!(" AND starts >= {}", moment(*start)),
        [_, _, ..] if evidence.recent => format!(" AND starts >= {}", starts_by_stratum(evidence)),
        _ => String::new(),
    };
    format!(
        "blocks AS (\n    SELECT stratum, block, min(window_start) AS starts, max(window_start) AS ends, sum(events_a) AS events_a, sum(runs_a) AS runs_a,\n        \
         sum(events_b) AS events_b, sum(runs_b) AS runs_b\n    FROM numbered\n    GROUP BY stratum, block\n),\n\
         -- A block closes when both arms have enough runs, or when a window comes that is too late for it.\n\
         closed AS (\n    SELECT *, CASE WHEN least(runs_a, runs_b) >= {runs} THEN ends\n        \
         ELSE lead(starts) OVER (PARTITION BY stratum ORDER BY block) END AS closed_at\n    FROM blocks\n),\n\
         steps AS (\n    SELECT closed_at, sum_increments(e2x2_increments(events_a, runs_a, events_b, runs_b, {margin})) AS increments\n    \
         FROM closed\n    WHERE closed_at IS NOT NULL\n    GROUP BY closed_at\n),\n\
         detector AS (\n    SELECT closed_at, esr(increments) OVER (ORDER BY closed_at) AS log_e\n    FROM steps\n)\n\
         {note}-- The evidence is that of a change at an unknown time since the release began.\n\
         SELECT (SELECT greatest(log_e, 0) FROM detector ORDER BY closed_at DESC LIMIT 1) AS log_e,\n    \
         sum(events_a) AS baseline_events, sum(runs_a) AS baseline_runs, sum(events_b) AS canary_events, sum(runs_b) AS canary_runs\n\
         FROM closed\nWHERE closed_at IS NOT NULL AND runs_a > 0 AND runs_b > 0{since}",
        runs = settings.block_runs,
        margin = margin(evidence, settings.margin),
        note = sampled_note(evidence),
    )
}

/// Returns the end of the query of a comparison if its evidence is that of the same blocks as its counts.
fn judged(alert: &AlertEvidence<'_>, settings: &Regression) -> String {
    format!(
        "blocks AS (\n    SELECT stratum, block, sum(events_a) AS events_a, sum(runs_a) AS runs_a, sum(events_b) AS events_b, sum(runs_b) AS runs_b,\n        \
         max(block) OVER (PARTITION BY stratum) AS last_block\n    FROM numbered\n    GROUP BY stratum, block\n)\n\
         {note}SELECT stratified_log_e(stratum, e2x2_increments(events_a, runs_a, events_b, runs_b, {margin})) AS log_e,\n    \
         sum(events_a) AS baseline_events, sum(runs_a) AS baseline_runs, sum(events_b) AS canary_events, sum(runs_b) AS canary_runs\n\
         FROM blocks\n-- A block that still fills is no evidence, and neither is one without runs in both arms.\n\
         WHERE (block < last_block OR least(runs_a, runs_b) >= {runs}) AND runs_a > 0 AND runs_b > 0",
        runs = settings.block_runs,
        margin = margin(alert.evidence, settings.margin),
        note = sampled_note(alert.evidence),
    )
}

fn sampled_note(evidence: &Evidence) -> &'static str {
    if evidence.sampling.is_empty() {
        ""
    } else {
        "-- Sampled runs, against the odds ratio that sampling turns the margin into.\n"
    }
}

/// Returns the margin and the tempering. For unevenly sampled runs these are the odds ratio that such samples would show.
fn margin(evidence: &Evidence, margin: f64) -> String {
    if evidence.sampling.is_empty() {
        return margin.to_string();
    }
    let by_stratum = |of: fn(&(Arc<str>, f64, f64)) -> f64, times: f64| {
        let cases: Vec<String> = evidence
            .sampling
            .iter()
            .map(|stratum| format!("WHEN {} THEN {:?}", quoted(&stratum.0), of(stratum) * times))
            .collect();
        format!("CASE stratum {} ELSE {times:?} END", cases.join(" "))
    };
    format!("{}, {}", by_stratum(|stratum| stratum.1, margin), by_stratum(|stratum| stratum.2, 1.0))
}

/// Returns the query for the blocks of a comparison and their evidence.
fn regression(alert: &AlertEvidence<'_>, settings: &Regression, conditions: &[String]) -> String {
    let rule = alert.subject.rule;
    let (own, other) = arms(alert);
    let events = if alert.counts_events { "events" } else { "runs - good" };
    let sum = |of: &str, who: &str| format!("greatest(coalesce(sum(CASE WHEN {who} THEN {of} END), 0), 0)");
    // Strata that share their runs may have an event without a run of their own.
    let bad = |of: String, all: String| if settings.shared_runs { of } else { format!("least({of}, {all})") };
    format!(
        "WITH observations AS (\n{sql}\n),\n\
         placed AS (\n    SELECT window_start, {stratum} AS stratum, {events} AS events, runs, {own} AS own,\n        \
         {other} AS other\n    FROM observations\n    WHERE {conditions}\n),\n\
         arms AS (\n    SELECT window_start, stratum,\n        {ea} AS events_a, {ra} AS runs_a,\n        {eb} AS events_b, {rb} AS runs_b\n    \
         FROM placed\n    WHERE own OR other\n    GROUP BY window_start, stratum\n),\n\
         {counted},\n\
         numbered AS (\n    SELECT *, block_number(window_start, runs_a, runs_b, {runs}, {minutes}) OVER (PARTITION BY stratum ORDER BY window_start) AS block\n    FROM counted\n    WHERE runs_a + runs_b > 0\n),\n\
         {judged}",
        sql = rule.sql,
        stratum = stratum(rule),
        ea = bad(sum("events", "other"), sum("runs", "other")),
        ra = sum("runs", "other"),
        eb = bad(sum("events", "own"), sum("runs", "own")),
        rb = sum("runs", "own"),
        conditions = conditions.join(" AND "),
        counted = counted(alert, settings),
        runs = settings.block_runs,
        minutes = settings.block_minutes,
        judged = if is_detected(alert) { detected(alert, settings) } else { judged(alert, settings) },
    )
}
