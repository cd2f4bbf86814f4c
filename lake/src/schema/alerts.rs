//! `alerts`: every transition of every alert, with the evidence it rests on.

use super::{Column, Kind, optional, required};

/// What a row is.
pub const DOC: &str = "One transition of one alert, with the numbers it rests on and the SQL that gives them again. Append-only: \
                       what a late correction changes is a row of its own.";

/// One stratum of the evidence.
pub const STRATUM: &[Column] = &[
    required("stratum", Kind::Text, "stratum"),
    required("baseline_events", Kind::Long, "bad runs of the baseline"),
    required("baseline_runs", Kind::Long, "runs of the baseline"),
    required("canary_events", Kind::Long, "bad runs of the canary"),
    required("canary_runs", Kind::Long, "runs of the canary"),
    required("log_e", Kind::Double, "its own evidence, nats"),
];

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("evaluation", Kind::Long, "number of the evaluation that wrote the row, from 1"),
    required("metrics_version", Kind::Long, "version of `metrics` that was known"),
    required("events_version", Kind::Long, "version of `events` after the last that was known"),
    required("complete_to", Kind::Timestamp, "event time up to which windows were complete"),
    required("evaluated_at", Kind::Timestamp, "time of writing"),
    // Which alert.
    required("alert_id", Kind::Text, "hash of rule, labels and release: the same for every transition of an alert"),
    required("rule", Kind::Text, "rule; `rule_failing` where it is told that a rule fails"),
    required("severity", Kind::Text, "page, ticket, info"),
    optional("owner", Kind::Text, "who acts"),
    optional("runbook", Kind::Text, "what to do"),
    required("labels", Kind::TextMap, "labels of the rule and of the series"),
    optional("tenant", Kind::Text, "tenant, where the series has one"),
    optional("task", Kind::Text, "task, where the series has one"),
    optional("release_id", Kind::Text, "release that is judged, where one is"),
    optional("baseline_release", Kind::Text, "release it is judged against, where there is one only"),
    // The transition.
    required("at", Kind::Timestamp, "event time: end of the window that brought it"),
    required(
        "state_from",
        Kind::Text,
        "inactive, pending, firing, resolved; where it is taken back: what had been told",
    ),
    required("state", Kind::Text, "inactive, pending, firing, resolved; where it is taken back: what is so instead"),
    required("stale", Kind::Boolean, "firing without news: nothing resolves for want of data"),
    required(
        "why",
        Kind::Text,
        "evidence, held, faded, recovered, cleared, rolled_back, no_data, data_again; of a rule: fails, works, removed; corrected \
         where it is taken back",
    ),
    required(
        "change",
        Kind::Text,
        "new; restated: it fires as before, only whether there is news of it has changed; late: a correction brought it for a \
         time that had been judged; moved: a correction moved it; retracted: after a correction it would not have been",
    ),
    optional("was", Kind::Timestamp, "where it moved: `at` as it was told before"),
    required("title", Kind::Text, "the alert in one line, with numbers"),
    // The evidence.
    required("detector", Kind::Text, "kind of detector"),
    required("baseline", Kind::Text, "concurrent, historical, past, anchored, set"),
    optional("baseline_events", Kind::Long, "bad runs of the baseline"),
    optional("baseline_runs", Kind::Long, "runs of the baseline"),
    optional("canary_events", Kind::Long, "bad runs of the release or series"),
    optional("canary_runs", Kind::Long, "runs of the release or series"),
    optional("baseline_value", Kind::Double, "value of the baseline: a rate, a median, a ratio, a bound"),
    optional("canary_value", Kind::Double, "value of the release or series"),
    required(
        "effect_kind",
        Kind::Text,
        "odds_ratio, rate_ratio, ratio, mix, burn_rate, psi, share, runs, value, events, failures",
    ),
    optional("effect", Kind::Double, "the effect"),
    optional("effect_low", Kind::Double, "lower end of an interval that holds at all times with 95 %"),
    optional("effect_high", Kind::Double, "its upper end; null where there is none"),
    optional("log_e", Kind::Double, "evidence, nats"),
    optional("threshold", Kind::Double, "what it had to reach"),
    optional("false_alarm", Kind::Double, "bound of false alarms"),
    optional("false_alarm_unit", Kind::Text, "per_release: greatest probability, ever; a_month: false alarms a month"),
    optional("since", Kind::Timestamp, "when the change began, as far as the evidence tells"),
    required("strata", Kind::List(STRATUM), "evidence by stratum: the one that the numbers are of, then the guiltiest"),
    required("notes", Kind::Text, "what else has to be known, one sentence a line"),
    required("sql", Kind::Text, "the SQL that gives the numbers again"),
];
