//! `metrics`: additive partials, from which queries compute every rate, mean and quantile.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "Additive partials of one window of one minute and one group. Signed: a correction subtracts the previous \
                       contribution. Fold the rows of a group with SUM, `sketch_merge` and `random_groups_sum`.";

/// Columns that state which versions of `events` a row covers; `metrics.sql` defines all others.
pub const PROVENANCE: &[&str] = &["events_from", "events_to"];

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("events_from", ColumnType::Long, "first version of `events` that the row covers"),
    required("events_to", ColumnType::Long, "version of `events` after the last that the row covers"),
    // The group.
    required("window_start", ColumnType::Timestamp, "start of the minute in which the runs ended"),
    required("tenant", ColumnType::Text, "tenant; empty if none was named"),
    required("task", ColumnType::Text, "task"),
    required("release_id", ColumnType::Text, "release"),
    required("release_fingerprint", ColumnType::Text, "fingerprint of the release"),
    required(
        "model",
        ColumnType::Text,
        "model requested, otherwise the model that answered; empty if neither is known",
    ),
    required("stage", ColumnType::Text, "rollout stage"),
    required(
        "weight_micros",
        ColumnType::Long,
        "runs that each run stands for, in millionths (1 / sampling probability)",
    ),
    required("cost_currency", ColumnType::Text, "currency of the costs; empty if the runs state none"),
    // Counts of runs.
    required("runs", ColumnType::Long, "runs, each attempt one"),
    required("success", ColumnType::Long, "runs that succeeded"),
    required("failure", ColumnType::Long, "runs that failed"),
    required("error", ColumnType::Long, "runs that ended in an error"),
    required("timeout", ColumnType::Long, "runs that timed out"),
    required("abandoned", ColumnType::Long, "runs that were abandoned"),
    required("unknown", ColumnType::Long, "runs whose outcome is not known"),
    required("judged_by_human", ColumnType::Long, "runs whose outcome a person decided"),
    required("judged_by_rule", ColumnType::Long, "runs whose outcome a rule, code or a business result decided"),
    required("judged_by_llm", ColumnType::Long, "runs whose outcome a model decided"),
    required(
        "late_verdicts",
        ColumnType::Long,
        "runs whose outcome a later statement decided (`run.score`, `run.review`)",
    ),
    required("escalated", ColumnType::Long, "runs handed to a person"),
    required("schema_applicable", ColumnType::Long, "runs whose answer has a schema and was checked"),
    required("schema_valid", ColumnType::Long, "of those, runs whose final answer fits"),
    required("first_pass_applicable", ColumnType::Long, "runs whose first answer was checked"),
    required("first_pass_valid", ColumnType::Long, "of those, runs whose first answer fitted"),
    required("runs_with_field_errors", ColumnType::Long, "runs with at least one invalid field"),
    required("runs_with_policy_exception", ColumnType::Long, "runs with at least one policy exception"),
    required("runs_in_sessions", ColumnType::Long, "runs that name a session"),
    // Sums of counts.
    required("fields_total", ColumnType::BigInteger, "Σ fields checked"),
    required("fields_invalid", ColumnType::BigInteger, "Σ fields invalid"),
    required("llm_calls", ColumnType::BigInteger, "Σ model calls"),
    required("turns", ColumnType::BigInteger, "Σ turns"),
    required("tool_calls", ColumnType::Long, "Σ tool calls"),
    required("tool_calls_failed", ColumnType::Long, "Σ tool calls that failed"),
    required("retrieval_calls", ColumnType::Long, "Σ retrieval calls"),
    required("retrieval_empty", ColumnType::Long, "Σ retrieval calls that returned nothing"),
    required("retrieval_errors", ColumnType::Long, "Σ retrieval calls that failed"),
    required("policy_exceptions_info", ColumnType::Long, "Σ policy exceptions of severity info"),
    required("policy_exceptions_low", ColumnType::Long, "Σ policy exceptions of severity low"),
    required("policy_exceptions_medium", ColumnType::Long, "Σ policy exceptions of severity medium"),
    required("policy_exceptions_high", ColumnType::Long, "Σ policy exceptions of severity high"),
    required("policy_exceptions_critical", ColumnType::Long, "Σ policy exceptions of severity critical"),
    // Sums of quantities.
    required("tokens_input", ColumnType::BigInteger, "Σ input tokens"),
    required("tokens_input_cache_read", ColumnType::BigInteger, "Σ input tokens read from a cache"),
    required("tokens_input_cache_write", ColumnType::BigInteger, "Σ input tokens written to a cache"),
    required("tokens_output", ColumnType::BigInteger, "Σ output tokens"),
    required("tokens_reasoning", ColumnType::BigInteger, "Σ reasoning tokens"),
    required("latency_runs", ColumnType::Long, "runs with a duration"),
    required("latency_micros_sum", ColumnType::BigInteger, "Σ duration, µs"),
    required("latency_micros_squares", ColumnType::BigInteger, "Σ duration², µs²"),
    required("ttft_runs", ColumnType::Long, "runs with a time to first token"),
    required("ttft_micros_sum", ColumnType::BigInteger, "Σ time to first token, µs"),
    required("ttft_micros_squares", ColumnType::BigInteger, "Σ (time to first token)², µs²"),
    required("label_delay_micros_sum", ColumnType::BigInteger, "Σ time from the end of a run to its late verdict, µs"),
    required("cost_runs", ColumnType::Long, "runs with a cost"),
    required("cost_nanos_sum", ColumnType::BigInteger, "Σ cost of all runs, nano-units of the currency"),
    required("cost_nanos_squares", ColumnType::BigInteger, "Σ cost², squared nano-units"),
    required(
        "cost_success_nanos_sum",
        ColumnType::BigInteger,
        "Σ cost of successful runs (Σ cost × success), nano-units",
    ),
    // Totals by random group of sessions, 32 each; see the function `random_groups`.
    required("groups_runs", ColumnType::LongList, "runs by random group of sessions"),
    required("groups_judged", ColumnType::LongList, "judged runs by random group of sessions"),
    required("groups_success", ColumnType::LongList, "successful runs by random group of sessions"),
    required("groups_escalated", ColumnType::LongList, "escalated runs by random group of sessions"),
    required("groups_cost_nanos", ColumnType::LongList, "Σ cost by random group of sessions, nano-units"),
    // Sketches.
    required("latency_sketch", ColumnType::Binary, "sketch of durations, µs"),
    required("ttft_sketch", ColumnType::Binary, "sketch of times to first token, µs"),
    required("cost_sketch", ColumnType::Binary, "sketch of costs, nano-units"),
    required("label_delay_sketch", ColumnType::Binary, "sketch of times from the end of a run to its late verdict, µs"),
    optional(
        "saturated",
        ColumnType::Boolean,
        "true if a sum exceeded the range of its column and was saturated; a correction does not revert that",
    ),
    // Runs that state a quantity; null in rows of versions that did not record this.
    optional("tokens_runs", ColumnType::Long, "runs that state tokens of any kind"),
    optional("tokens_input_runs", ColumnType::Long, "runs that state input tokens"),
    optional("tokens_input_cache_read_runs", ColumnType::Long, "runs that state input tokens read from a cache"),
    optional("tokens_input_cache_write_runs", ColumnType::Long, "runs that state input tokens written to a cache"),
    optional("tokens_output_runs", ColumnType::Long, "runs that state output tokens"),
    optional("tokens_reasoning_runs", ColumnType::Long, "runs that state reasoning tokens"),
    optional("llm_calls_runs", ColumnType::Long, "runs that state their model calls"),
    optional("turns_runs", ColumnType::Long, "runs that state their turns"),
];
