//! The SQL of a comparison with a baseline: the evidence of all strata together, and the counts of the subject of the alert.
//!
//! The evidence always is that of the row, whatever the counts describe: the whole life of the release or the time since a change,
//! all strata or one. A row about one stratum also gets the evidence of that stratum alone, as `stratum_log_e`.

use std::sync::Arc;

use bellwether_detect::detector::{COMBINED_STRATUM, Regression};
use bellwether_detect::{Evidence, Minute, PRIMED_MINUTES};
use bellwether_queries::quoted;

use super::{AlertEvidence, arms, list, moment, within};
use crate::rule::Rule;

/// Returns the query for the blocks of a comparison, from a window on, and their evidence.
pub(super) fn query(
    alert: &AlertEvidence<'_>,
    settings: &Regression,
    mut conditions: Vec<String>,
    from: Minute,
) -> String {
    let rule = alert.subject.rule;
    let (own, other) = arms(alert);
    let events = if alert.counts_events { "events" } else { "runs - good" };
    let sum = |of: &str, who: &str| format!("greatest(coalesce(sum(CASE WHEN {who} THEN {of} END), 0), 0)");
    // Strata that share their runs may have an event without a run of their own.
    let bad = |of: String, all: String| if settings.shared_runs { of } else { format!("least({of}, {all})") };
    let (counted, source) = counted(alert.evidence, settings);
    // The runs before the release began show how strongly runs of one session are correlated, too.
    let in_sessions = alert.groups.is_some();
    let first = if in_sessions { alert.started.saturating_sub(PRIMED_MINUTES).min(from) } else { from };
    conditions.push(within(first, alert.to));
    format!(
        "WITH observations AS (\n{sql}\n),\n\
         placed AS (\n    SELECT window_start, {stratum} AS stratum, {events} AS events, runs,{groups} {own} AS own,\n        \
         {other} AS other\n    FROM observations\n    WHERE {conditions}\n),\n\
         {sessions}\
         arms AS (\n    SELECT window_start, stratum,\n        {ea} AS events_a, {ra} AS runs_a,\n        {eb} AS events_b, {rb} AS runs_b\n    \
         FROM placed\n    WHERE (own OR other){judged_from}\n    GROUP BY window_start, stratum\n),\n\
         {counted}numbered AS (\n    SELECT *, block_number(window_start, runs_a, runs_b, {runs}, {minutes}) OVER (PARTITION BY stratum ORDER BY window_start) AS block\n    \
         FROM {source}\n    WHERE runs_a + runs_b > 0\n),\n\
         blocks AS (\n    SELECT stratum, block, min(window_start) AS starts, max(window_start) AS ends, sum(events_a) AS events_a, sum(runs_a) AS runs_a,\n        \
         sum(events_b) AS events_b, sum(runs_b) AS runs_b, max(block) OVER (PARTITION BY stratum) AS last_block\n    \
         FROM numbered\n    GROUP BY stratum, block\n),\n\
         -- A block closes when both arms have enough runs, or when a window comes that is too late for it.\n\
         ended AS (\n    SELECT *, CASE WHEN least(runs_a, runs_b) >= {runs} THEN ends\n        \
         ELSE lead(starts) OVER (PARTITION BY stratum ORDER BY block) END AS closed_at\n    FROM blocks\n),\n\
         {closed}{judged}",
        sql = rule.sql,
        stratum = stratum(rule),
        ea = bad(sum("events", "other"), sum("runs", "other")),
        ra = sum("runs", "other"),
        eb = bad(sum("events", "own"), sum("runs", "own")),
        rb = sum("runs", "own"),
        conditions = conditions.join(" AND "),
        groups = alert.groups.map(|events| format!(" {events}, groups_runs,")).unwrap_or_default(),
        sessions = alert.groups.map(sessions).unwrap_or_default(),
        judged_from = if in_sessions { format!(" AND window_start >= {}", moment(from)) } else { String::new() },
        closed = closed(in_sessions),
        runs = settings.block_runs,
        minutes = settings.block_minutes,
        judged = if alert.evidence.is_detected { detected(alert, settings) } else { judged(alert, settings) },
    )
}

/// Returns the relation with the fraction of the evidence that correlated sessions leave, as the runs before each window show it.
fn sessions(events: &str) -> String {
    format!(
        "-- Runs of one session are correlated: evidence is multiplied by 1 over the design effect of the runs before.\n\
         sessions AS (\n    SELECT window_start, min(tempering) AS tempering\n    FROM (\n        \
         SELECT window_start, session_tempering(own, {events}, groups_runs) OVER (\n            \
         ORDER BY window_start GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS tempering\n        \
         FROM placed\n        WHERE own OR other\n    )\n    GROUP BY window_start\n),\n"
    )
}

/// Returns the relation of the blocks with the tempering of each, 1 for one that still fills.
fn closed(in_sessions: bool) -> &'static str {
    if in_sessions {
        "closed AS (\n    SELECT ended.*, coalesce(tempering, 1) AS tempering\n    FROM ended\n    \
         LEFT JOIN sessions ON sessions.window_start = ended.closed_at\n),\n"
    } else {
        "closed AS (\n    SELECT *, 1 AS tempering\n    FROM ended\n),\n"
    }
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

/// Returns the relations with the windows of each stratum that is judged, and the name of the last one.
fn counted(evidence: &Evidence, settings: &Regression) -> (String, &'static str) {
    let is_combined = |name: &&Arc<str>| &***name == COMBINED_STRATUM;
    let known = || evidence.strata.iter().map(|found| &found.stratum);
    // Strata beyond the largest number that is kept apart count as one.
    let stratum = match known().any(|name| is_combined(&name)) {
        true => format!(
            "CASE WHEN stratum IN {} THEN stratum ELSE {} END",
            list(known().filter(|name| !is_combined(name))),
            quoted(COMBINED_STRATUM)
        ),
        false => "stratum".to_owned(),
    };
    let sums = "sum(events_a) AS events_a, sum(runs_a) AS runs_a, sum(events_b) AS events_b, sum(runs_b) AS runs_b";
    if settings.shared_runs {
        let with_events = format!(
            "with_events AS (\n    SELECT window_start, {stratum} AS stratum, {sums}\n    \
             FROM arms\n    WHERE stratum <> ''\n    GROUP BY 1, 2\n),\n\
             -- A stratum counts from the window in which it is first seen; the stratum without a name has the runs of all.\n\
             seen AS (\n    SELECT stratum, min(window_start) AS first_seen,\n        \
             row_number() OVER (ORDER BY min(window_start), stratum = {combined}, stratum) AS place\n    \
             FROM with_events\n    GROUP BY stratum\n),\n\
             counted AS (\n    SELECT w.window_start, s.stratum, least(coalesce(e.events_a, 0), w.runs_a) AS events_a, w.runs_a,\n        \
             least(coalesce(e.events_b, 0), w.runs_b) AS events_b, w.runs_b\n    \
             FROM (SELECT * FROM arms WHERE stratum = '') AS w\n    \
             JOIN seen AS s ON w.window_start >= s.first_seen\n    \
             LEFT JOIN with_events AS e ON e.stratum = s.stratum AND e.window_start = w.window_start\n),\n",
            combined = quoted(COMBINED_STRATUM),
        );
        return (with_events, "counted");
    }
    if stratum == "stratum" {
        return (String::new(), "arms");
    }
    let counted = format!(
        "counted AS (\n    SELECT window_start, {stratum} AS stratum, {sums}\n    FROM arms\n    GROUP BY 1, 2\n),\n"
    );
    (counted, "counted")
}

/// Returns the end of the query if the evidence is that of the e-detector: of all blocks, in the order in which they closed.
fn detected(alert: &AlertEvidence<'_>, settings: &Regression) -> String {
    format!(
        "steps AS (\n    SELECT closed_at, sum_increments(e2x2_increments(events_a, runs_a, events_b, runs_b, {margin})) AS increments\n    \
         FROM closed\n    WHERE closed_at IS NOT NULL\n    GROUP BY closed_at\n),\n\
         detector AS (\n    SELECT closed_at, esr(increments) OVER (ORDER BY closed_at) AS log_e\n    FROM steps\n)\n\
         {note}-- The evidence is that of a change at an unknown time since the release began.\n\
         SELECT (SELECT greatest(log_e, 0) FROM detector ORDER BY closed_at DESC LIMIT 1) AS log_e,\n    {numbers}\n\
         FROM closed\nWHERE closed_at IS NOT NULL",
        margin = margin(alert.evidence, settings.margin),
        note = sampled_note(alert.evidence),
        numbers = numbers(alert.evidence, settings),
    )
}

/// Returns the end of the query if the evidence is that of all blocks since the release began, in any order.
fn judged(alert: &AlertEvidence<'_>, settings: &Regression) -> String {
    let (evidence, margin) = (alert.evidence, margin(alert.evidence, settings.margin));
    let full = format!("(block < last_block OR least(runs_a, runs_b) >= {})", settings.block_runs);
    let closed = |column: &str| format!("CASE WHEN {full} THEN {column} ELSE 0 END AS {column}");
    let table = "events_a, runs_a, events_b, runs_b";
    let (parts, log_e) = if settings.shared_runs {
        // Each stratum gets its part of the wealth when it appears, and the rest stays uninvested.
        let parts = format!(
            ",\n\
             alone AS (\n    SELECT stratum, e2x2_log_e({table}, {margin}) AS log_e\n    FROM judged\n    GROUP BY stratum\n),\n\
             parts AS (\n    SELECT coalesce(log_e, 0) - ln(2.0 * place * (place + 1)) AS part\n    FROM seen\n    LEFT JOIN alone ON alone.stratum = seen.stratum\n    \
             UNION ALL\n    SELECT ln(greatest(1 - sum(1.0 / (place * (place + 1))), 1e-12) / 2)\n    FROM seen\n    \
             UNION ALL\n    SELECT e2x2_log_e({table}, {margin}) - ln(2.0)\n    FROM judged\n)"
        );
        (parts, "(SELECT log_sum_exp(part) FROM parts)".to_owned())
    } else {
        (String::new(), format!("stratified_log_e(stratum, e2x2_increments({table}, {margin}))"))
    };
    format!(
        "judged AS (\n    -- A block that still fills is no evidence.\n    SELECT stratum, starts, tempering, {ea}, {ra},\n        {eb}, {rb}\n    FROM closed\n){parts}\n\
         {note}SELECT {log_e} AS log_e,\n    {numbers}\nFROM judged",
        ea = closed("events_a"),
        ra = closed("runs_a"),
        eb = closed("events_b"),
        rb = closed("runs_b"),
        note = sampled_note(evidence),
        numbers = numbers(evidence, settings),
    )
}

/// Returns the SQL expressions for the counts of the subject. Blocks without runs in both arms compare nothing.
fn numbers(evidence: &Evidence, settings: &Regression) -> String {
    let mut subject = vec!["runs_a > 0 AND runs_b > 0".to_owned()];
    subject.extend(evidence.stratum.as_ref().map(|name| format!("stratum = {}", quoted(name))));
    if evidence.recent {
        subject.push(match evidence.starts.as_slice() {
            [(_, start)] => format!("starts >= {}", moment(*start)),
            _ => format!("starts >= {}", starts_by_stratum(evidence)),
        });
    }
    let subject = subject.join(" AND ");
    let sum = |column: &str, name: &str| format!("sum({column}) FILTER (WHERE {subject}) AS {name}");
    let mut numbers = vec![
        sum("events_a", "baseline_events"),
        sum("runs_a", "baseline_runs"),
        sum("events_b", "canary_events"),
        sum("runs_b", "canary_runs"),
    ];
    if evidence.stratum.is_some() {
        let margin = margin(evidence, settings.margin);
        numbers.push(format!(
            "e2x2_log_e(events_a, runs_a, events_b, runs_b, {margin}) FILTER (WHERE {subject}) AS stratum_log_e"
        ));
    }
    numbers.join(",\n    ")
}

/// Returns the SQL expression for the first window of the numbers of a stratum.
fn starts_by_stratum(evidence: &Evidence) -> String {
    let of = |(name, start): &(Arc<str>, Minute)| format!("        WHEN {} THEN {}", quoted(name), moment(*start));
    format!("CASE stratum\n{}\n    END", evidence.starts.iter().map(of).collect::<Vec<_>>().join("\n"))
}

fn sampled_note(evidence: &Evidence) -> &'static str {
    if evidence.sampling.is_empty() {
        ""
    } else {
        "-- Sampled runs, against the odds ratio that sampling turns the margin into.\n"
    }
}

/// Returns the margin and the tempering of a block. For unevenly sampled runs these are the odds ratio that such samples would show.
fn margin(evidence: &Evidence, margin: f64) -> String {
    if evidence.sampling.is_empty() {
        return format!("{margin}, tempering");
    }
    let by_stratum = |of: fn(&(Arc<str>, f64, f64)) -> f64, times: f64| {
        let cases: Vec<String> = evidence
            .sampling
            .iter()
            .map(|stratum| format!("WHEN {} THEN {:?}", quoted(&stratum.0), of(stratum) * times))
            .collect();
        format!("CASE stratum {} ELSE {times:?} END", cases.join(" "))
    };
    format!("{}, tempering * {}", by_stratum(|stratum| stratum.1, margin), by_stratum(|stratum| stratum.2, 1.0))
}
