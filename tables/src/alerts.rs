//! `alerts`: every transition of every alert, with the evidence it rests on.

use super::{Column, ColumnType, optional, required};

/// What a row is.
pub const DOC: &str = "One transition of one alert, with the numbers it rests on and the SQL that gives them again. Append-only: \
                       what a late correction changes is a row of its own.";

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
    required("metrics_version", ColumnType::Long, "version of `metrics` that was known"),
    required("events_version", ColumnType::Long, "version of `events` after the last that was known"),
    required("complete_to", ColumnType::Timestamp, "event time up to which windows were complete"),
    required("evaluated_at", ColumnType::Timestamp, "time of writing"),
    // Which alert.
    required(
        "alert_id",
        ColumnType::Text,
        "hash of rule, labels and release: the same for every transition of an alert",
    ),
    required("rule", ColumnType::Text, "rule; `rule_failing` where it is told that a rule fails"),
    required("severity", ColumnType::Text, "page, ticket, info"),
    optional("owner", ColumnType::Text, "who acts"),
    optional("runbook", ColumnType::Text, "what to do"),
    required("labels", ColumnType::TextMap, "labels of the rule and of the series"),
    optional("tenant", ColumnType::Text, "tenant, where the series has one"),
    optional("task", ColumnType::Text, "task, where the series has one"),
    optional("release_id", ColumnType::Text, "release that is judged, where one is"),
    optional("baseline_release", ColumnType::Text, "release it is judged against, where there is one only"),
    // The transition.
    required("at", ColumnType::Timestamp, "event time: end of the window that brought it"),
    required(
        "state_from",
        ColumnType::Text,
        "inactive, pending, firing, resolved; where it is taken back: what had been told",
    ),
    required(
        "state",
        ColumnType::Text,
        "inactive, pending, firing, resolved; where it is taken back: what is so instead",
    ),
    required("stale", ColumnType::Boolean, "firing without news: nothing resolves for want of data"),
    required(
        "why",
        ColumnType::Text,
        "evidence, held, faded, recovered, cleared, rolled_back, no_data, data_again; of a rule: fails, works, removed; corrected \
         where it is taken back",
    ),
    required(
        "change",
        ColumnType::Text,
        "new; restated: it fires as before, only whether there is news of it has changed; late: a correction brought it for a \
         time that had been judged; moved: a correction moved it; retracted: after a correction it would not have been",
    ),
    optional("was", ColumnType::Timestamp, "where it moved: `at` as it was told before"),
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
    optional("effect_high", ColumnType::Double, "its upper end; null where there is none"),
    optional("log_e", ColumnType::Double, "evidence, nats"),
    optional("threshold", ColumnType::Double, "what it had to reach"),
    optional("false_alarm", ColumnType::Double, "bound of false alarms"),
    optional(
        "false_alarm_unit",
        ColumnType::Text,
        "per_release: greatest probability, ever; a_month: false alarms a month",
    ),
    optional("since", ColumnType::Timestamp, "when the change began, as far as the evidence tells"),
    required(
        "strata",
        ColumnType::List(STRATUM),
        "evidence by stratum: the one that the numbers are of, then the guiltiest",
    ),
    required("notes", ColumnType::Text, "what else has to be known, one sentence a line"),
    required("sql", ColumnType::Text, "the SQL that gives the numbers again"),
];
