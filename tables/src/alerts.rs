//! `alerts`: every transition of every alert, with its evidence.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "One transition of one alert, with its evidence and the SQL that returns the same numbers. Append-only: \
                       a change by a late correction is a row of its own.";

/// One stratum of the evidence.
pub const STRATUM: &[Column] = &[
    required("stratum", ColumnType::Text, "stratum"),
    required("baseline_events", ColumnType::Long, "bad runs of the baseline"),
    required("baseline_runs", ColumnType::Long, "runs of the baseline"),
    required("canary_events", ColumnType::Long, "bad runs of the canary"),
    required("canary_runs", ColumnType::Long, "runs of the canary"),
    required("log_e", ColumnType::Double, "its own evidence, nats"),
];

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("evaluation", ColumnType::Long, "number of the evaluation that wrote the row, from 1"),
    required("metrics_version", ColumnType::Long, "version of `metrics` that the evaluation read"),
    required("events_version", ColumnType::Long, "version of `events` after the last one that was read"),
    required("complete_to", ColumnType::Timestamp, "event time up to which windows were complete"),
    required("evaluated_at", ColumnType::Timestamp, "time of writing"),
    // The alert.
    required(
        "alert_id",
        ColumnType::Text,
        "hash of rule, labels and release: the same for every transition of an alert",
    ),
    required("rule", ColumnType::Text, "rule; `rule_failing` for alerts about failing rules"),
    required("severity", ColumnType::Text, "page, ticket, info"),
    optional("owner", ColumnType::Text, "who acts"),
    optional("runbook", ColumnType::Text, "what to do"),
    required("labels", ColumnType::TextMap, "labels of the rule and of the series"),
    optional("tenant", ColumnType::Text, "tenant, if the series has one"),
    optional("task", ColumnType::Text, "task, if the series has one"),
    optional("release_id", ColumnType::Text, "release under judgement, if there is one"),
    optional("baseline_release", ColumnType::Text, "release that it is compared with, if there is exactly one"),
    // The transition.
    required("at", ColumnType::Timestamp, "event time: end of the window that caused the transition"),
    required(
        "state_from",
        ColumnType::Text,
        "inactive, pending, firing, resolved; in a retraction: the retracted state",
    ),
    required(
        "state",
        ColumnType::Text,
        "inactive, pending, firing, resolved; in a retraction: the state that holds instead",
    ),
    required("stale", ColumnType::Boolean, "firing without new data: missing data never resolves an alert"),
    required(
        "why",
        ColumnType::Text,
        "evidence, held, faded, recovered, cleared, rolled_back, no_data, data_again; for a rule: fails, works, removed; in a \
         retraction: corrected",
    ),
    required(
        "change",
        ColumnType::Text,
        "new; restated: the alert fires as before, and only `stale` has changed; late: a correction caused it at a time that \
         was judged before; moved: a correction moved it; retracted: a correction removed it",
    ),
    optional("was", ColumnType::Timestamp, "previous value of `at`, if a correction moved the transition"),
    required("title", ColumnType::Text, "the alert in one line, with numbers"),
    // The evidence.
    required("detector", ColumnType::Text, "kind of detector"),
    required("baseline", ColumnType::Text, "concurrent, historical, past, anchored, set"),
    optional("baseline_events", ColumnType::Long, "bad runs of the baseline"),
    optional("baseline_runs", ColumnType::Long, "runs of the baseline"),
    optional("canary_events", ColumnType::Long, "bad runs of the release or series"),
    optional("canary_runs", ColumnType::Long, "runs of the release or series"),
    optional("baseline_value", ColumnType::Double, "value of the baseline: a rate, a median, a ratio, a bound"),
    optional("canary_value", ColumnType::Double, "value of the release or series"),
    required(
        "effect_kind",
        ColumnType::Text,
        "odds_ratio, rate_ratio, ratio, mix, burn_rate, psi, share, runs, value, events, failures",
    ),
    optional("effect", ColumnType::Double, "the effect"),
    optional("effect_low", ColumnType::Double, "lower end of an interval that holds at all times with 95 %"),
    optional("effect_high", ColumnType::Double, "its upper end; null if unbounded"),
    optional("log_e", ColumnType::Double, "evidence, nats"),
    optional("threshold", ColumnType::Double, "the evidence required to fire"),
    optional("false_alarm", ColumnType::Double, "bound of false alarms"),
    optional(
        "false_alarm_unit",
        ColumnType::Text,
        "per_release: greatest probability, ever; a_month: false alarms a month",
    ),
    optional("since", ColumnType::Timestamp, "estimated start of the change"),
    required(
        "strata",
        ColumnType::List(STRATUM),
        "evidence by stratum: first the one that the numbers describe, then those with the most evidence",
    ),
    required("notes", ColumnType::Text, "further remarks, one sentence a line"),
    required("sql", ColumnType::Text, "SQL that returns the same numbers"),
];
