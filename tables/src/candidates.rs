//! `candidates`: runs that were sampled for review, week by week.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "A run that entered the sample of a week, or left it. Append-only: of several rows about one run the one with \
                       the greatest `number` counts. The view `current_candidates` has the runs in the sample, with their reviews.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("number", ColumnType::Long, "number of the commit that wrote the row, from 1"),
    required("events_version", ColumnType::Long, "version of `events` up to which it had been read"),
    required("written_at", ColumnType::Timestamp, "time of writing"),
    required(
        "change",
        ColumnType::Text,
        "taken: the run is in the sample, with these values; withdrawn: it no longer is, because of later statements or runs",
    ),
    required("week", ColumnType::Text, "ISO week in which the run ended, such as `2026-W49`; from Monday, UTC")
        .bounded(),
    required("candidate_id", ColumnType::Text, "hash of tenant, source, run and attempt").bounded(),
    // The run.
    required("tenant", ColumnType::Text, "tenant; empty if none was named"),
    required("source", ColumnType::Text, "producer"),
    required("run_id", ColumnType::Text, "the run").distinct(),
    required("attempt", ColumnType::Integer, "attempt of the run, from 1"),
    required("ended_at", ColumnType::Timestamp, "completion of the run"),
    optional("task", ColumnType::Text, "task"),
    optional("release_id", ColumnType::Text, "release"),
    optional("release_fingerprint", ColumnType::Text, "fingerprint of the release"),
    optional("stage", ColumnType::Text, "internal, shadow, canary, full"),
    optional("outcome_status", ColumnType::Text, "outcome, without reviews"),
    // Its class.
    required("kind", ColumnType::Text, "failure; uncertain: the outcome is unclear; control: a success"),
    required(
        "class",
        ColumnType::Text,
        "policy_exception, unapproved_action, error_or_timeout, schema_invalid, tool_failure, escalated, judged_bad, \
         negative_feedback, verdicts_disagree, stale_source, latency_outlier, cost_outlier; uncertain; success. The first that \
         holds, in this order",
    ),
    required("classes", ColumnType::Text, "all classes that hold, separated by commas"),
    required("severity", ColumnType::Text, "low, medium, high, critical"),
    required("signature", ColumnType::Text, "failure signature; empty for uncertain runs and successes"),
    // Its draw.
    required("must_take", ColumnType::Boolean, "critical policy exception: taken whatever the budget"),
    required("draw_weight", ColumnType::Double, "weight in the draw"),
    required(
        "sampling_probability",
        ColumnType::Double,
        "probability with which its producer kept the run; 1 if unsampled",
    ),
    required("probability", ColumnType::Double, "probability with which the plan of the week takes the run"),
    required(
        "inclusion_probability",
        ColumnType::Double,
        "product of both: 1 / inclusion_probability is the number of runs that it stands for",
    ),
    required("group_members", ColumnType::Long, "runs among which it was drawn"),
    required("signature_members", ColumnType::Long, "runs of its signature in the week"),
    required("signature_taken", ColumnType::Long, "runs of its signature in the sample"),
];
