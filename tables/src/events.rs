//! `events`: accepted run events, flattened, with their Kafka coordinates.

use super::{Column, ColumnType};

/// Describes a row.
pub const DOC: &str = "One accepted run event, flattened, with its Kafka coordinates. Append-only; one row a message.";

/// Describes a column that every row has. Parquet statistics of so many columns would cost more than all other work on a
/// row, so only columns marked `pruned` have them.
const fn required(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    super::required(name, kind, doc).unpruned()
}

/// Describes a column that may be null.
const fn optional(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    super::optional(name, kind, doc).unpruned()
}

/// One tool call of a run.
pub const TOOL_CALL: &[Column] = &[
    required("name", ColumnType::Text, "tool"),
    optional("id", ColumnType::Text, "call id").distinct(),
    optional("type", ColumnType::Text, "kind of tool"),
    optional("schema_version", ColumnType::Text, "version of the tool's schema"),
    required("status", ColumnType::Text, "ok, error, timeout, denied, invalid_arguments, ... (open)"),
    required("failed", ColumnType::Boolean, "true if the status is neither `ok` nor `denied` by an approver"),
    optional("error_type", ColumnType::Text, "class of the error"),
    optional("args_valid", ColumnType::Boolean, "arguments matched the tool's schema"),
    optional("latency_micros", ColumnType::Long, "duration, µs"),
    optional("attempt", ColumnType::Integer, "attempt number, from 1"),
    optional("side_effect", ColumnType::Boolean, "the call changes something outside"),
    optional("risk", ColumnType::Text, "low, medium, high"),
    optional("approval_required", ColumnType::Boolean, "an approval was required"),
    optional("approval_decision", ColumnType::Text, "approved, rejected, edited, expired, none"),
    optional("approver_key", ColumnType::Text, "keyed hash of the approver"),
    optional("approval_wait_micros", ColumnType::Long, "time waited for the approval, µs"),
];

/// One document returned by a retrieval call.
pub const DOCUMENT: &[Column] = &[
    required("id", ColumnType::Text, "document"),
    optional("version", ColumnType::Text, "version of the document"),
    optional("score", ColumnType::Double, "retrieval score"),
    optional("cited", ColumnType::Boolean, "the answer cites it"),
];

/// One retrieval call of a run.
pub const RETRIEVAL: &[Column] = &[
    required("source_id", ColumnType::Text, "source queried"),
    optional("index_version", ColumnType::Text, "version of the index"),
    optional("query_sha256", ColumnType::Text, "hash of the query").distinct(),
    optional("requested_k", ColumnType::Long, "documents requested"),
    optional("returned_k", ColumnType::Long, "documents returned"),
    optional("top_score", ColumnType::Double, "best score"),
    optional("latency_micros", ColumnType::Long, "duration, µs"),
    optional("status", ColumnType::Text, "ok, empty, error, timeout, ... (open)"),
    optional("error_type", ColumnType::Text, "class of the error"),
    required("documents", ColumnType::List(DOCUMENT), "documents returned"),
];

/// One policy exception.
pub const POLICY_EXCEPTION: &[Column] = &[
    required("policy_id", ColumnType::Text, "policy"),
    optional("policy_version", ColumnType::Text, "its version"),
    required("severity", ColumnType::Text, "info, low, medium, high, critical"),
    optional("category", ColumnType::Text, "pii, prompt_injection, ... (open)"),
    optional("action", ColumnType::Text, "blocked, redacted, ... (open)"),
    optional("source", ColumnType::Text, "input, output, tool_input, ... (open)"),
    optional("component", ColumnType::Text, "component that raised it"),
    optional("native_result_type", ColumnType::Text, "result type of the guard"),
    optional("native_result_value", ColumnType::Text, "the guard's own result, redacted"),
    optional("risk_score", ColumnType::Double, "the guard's own score"),
    optional("step", ColumnType::Text, "step in which it was raised"),
    required("derived", ColumnType::Boolean, "true if Bellwether derived it (`unapproved_action`)"),
];

/// One invalid field of the final answer.
pub const FIELD_ERROR: &[Column] = &[
    required("path", ColumnType::Text, "JSON pointer into the answer"),
    optional("rule", ColumnType::Text, "schema rule that failed"),
    optional("message", ColumnType::Text, "the validator's message, redacted"),
];

/// One score, from `run.score` or inside a completed run.
pub const SCORE: &[Column] = &[
    required("name", ColumnType::Text, "what was scored"),
    optional("value", ColumnType::Double, "score"),
    optional("label", ColumnType::Text, "label"),
    optional("passed", ColumnType::Boolean, "verdict"),
    optional("min", ColumnType::Double, "least possible value"),
    optional("max", ColumnType::Double, "greatest possible value"),
    optional("higher_is_better", ColumnType::Boolean, "direction"),
    required("kind", ColumnType::Text, "human, llm, code, user_feedback, business"),
    required("evaluator_id", ColumnType::Text, "evaluator"),
    optional("evaluator_version", ColumnType::Text, "its version"),
    optional("evaluator_model", ColumnType::Text, "its model"),
    optional("rubric_version", ColumnType::Text, "version of the rubric"),
    optional("target", ColumnType::Text, "run, step, tool_call, session"),
    optional("target_id", ColumnType::Text, "id of the target"),
    optional("identifier", ColumnType::Text, "upsert key of the producer"),
    required("sets_outcome", ColumnType::Boolean, "the score decides the run's outcome"),
    optional("weight", ColumnType::Double, "weight"),
    optional("reference_json", ColumnType::Text, "reference item, redacted"),
    optional("explanation", ColumnType::Text, "explanation, redacted").distinct(),
    optional("cost_nanos", ColumnType::Long, "cost of the scoring, nano-units"),
    optional("cost_currency", ColumnType::Text, "its currency"),
];

/// Describes the column `redaction`.
pub(crate) const REDACTION: &str = "`policy`, the version of the redaction policy, and the number of values redacted by kind, such as \
     `EMAIL`, whole numbers as text";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    // The source of the row.
    required("topic", ColumnType::Text, "Kafka topic, or `file:NAME` for a replayed file").pruned(),
    required("partition", ColumnType::Integer, "Kafka partition; 0 for a file").pruned(),
    required("offset", ColumnType::Long, "Kafka offset; line number from 0 for a file").pruned(),
    optional("kafka_timestamp", ColumnType::Timestamp, "timestamp of the message, from the broker or the producer").pruned(),
    required("ingested_at", ColumnType::Timestamp, "time the message was decoded").pruned(),
    // The envelope.
    required("event_date", ColumnType::Date, "UTC date of `event_time`; the table's partition column"),
    required(
        "event_type",
        ColumnType::Text,
        "run.completed, run.score, run.review, run.escalated, run.policy_exception",
    ).pruned().bounded(),
    required("spec", ColumnType::Text, "contract version that the producer stated"),
    required("source", ColumnType::Text, "producer; `unknown` if none was named"),
    required("event_id", ColumnType::Text, "idempotency key of the event within its source").distinct(),
    required("event_time", ColumnType::Timestamp, "time of the statement").pruned(),
    required("run_id", ColumnType::Text, "the run").distinct().bloom(),
    required("tenant", ColumnType::Text, "tenant; empty if none was named").pruned(),
    required("revision", ColumnType::Long, "of several statements of one fact the highest revision counts"),
    required(
        "content_hash",
        ColumnType::Long,
        "hash of the message body; breaks ties between equal revisions and times",
    ).distinct(),
    optional("supersedes", ColumnType::Text, "event id this one replaces, as stated").distinct(),
    // run.completed: the run and its release.
    optional("task", ColumnType::Text, "task").pruned(),
    optional("task_version", ColumnType::Text, "its version"),
    optional("environment", ColumnType::Text, "environment"),
    required("attempt", ColumnType::Integer, "attempt of the run, from 1"),
    optional("release_id", ColumnType::Text, "release").pruned(),
    optional("release_fingerprint", ColumnType::Text, "sha256 of the release's canonical JSON, recomputed on arrival"),
    optional("release_fingerprint_stated", ColumnType::Text, "fingerprint that the producer stated, if it differs"),
    optional("release_json", ColumnType::Text, "the whole release, canonical JSON"),
    optional("model", ColumnType::Text, "model requested, otherwise the model that answered"),
    optional("model_provider", ColumnType::Text, "provider"),
    optional("model_requested", ColumnType::Text, "model requested"),
    optional("model_responded", ColumnType::Text, "model that answered, as the provider reports"),
    optional("prompt_name", ColumnType::Text, "prompt"),
    optional("prompt_version", ColumnType::Text, "its version"),
    optional("stage", ColumnType::Text, "offline_eval, internal, shadow, canary, full"),
    optional("cohort", ColumnType::Text, "rollout cohort"),
    optional("flag_key", ColumnType::Text, "feature flag"),
    optional("variant", ColumnType::Text, "variant of the flag"),
    optional("assignment_unit", ColumnType::Text, "run, session, user, tenant"),
    optional("traffic_fraction", ColumnType::Double, "intended share of traffic"),
    optional("started_at", ColumnType::Timestamp, "start of the run").pruned(),
    optional("ended_at", ColumnType::Timestamp, "completion of the run; decides its window").pruned(),
    // Its outcome.
    optional("outcome_status", ColumnType::Text, "success, failure, error, timeout, abandoned, unknown"),
    optional("outcome_source", ColumnType::Text, "app, rule, llm, human, environment (open)"),
    optional("outcome_reason_code", ColumnType::Text, "reason"),
    optional("finish_reason", ColumnType::Text, "the model's finish reason"),
    optional("failure_component", ColumnType::Text, "prompt, retrieval, model, tool, ... (open)"),
    optional("failure_step", ColumnType::Text, "step that failed"),
    optional("failure_error_type", ColumnType::Text, "class of the error"),
    // Validation of the answer.
    optional("validation_applicable", ColumnType::Boolean, "the answer has a schema"),
    optional("validation_valid", ColumnType::Boolean, "the final answer fits it"),
    optional("validation_first_attempt_valid", ColumnType::Boolean, "the first answer fitted it"),
    optional("validation_attempts", ColumnType::Long, "answers tried"),
    optional("validation_repaired", ColumnType::Boolean, "a repair step was needed"),
    optional("validation_schema_id", ColumnType::Text, "schema"),
    optional("validation_schema_version", ColumnType::Text, "its version"),
    optional("fields_total", ColumnType::Long, "fields of the answer that were checked"),
    optional("fields_invalid", ColumnType::Long, "fields that failed"),
    required("field_errors", ColumnType::List(FIELD_ERROR), "the fields that failed"),
    // Tokens, cost and latency.
    optional("tokens_input", ColumnType::Long, "all input tokens, cached ones included"),
    optional("tokens_input_cache_read", ColumnType::Long, "input tokens read from a cache"),
    optional("tokens_input_cache_write", ColumnType::Long, "input tokens written to a cache"),
    optional("tokens_output", ColumnType::Long, "all output tokens, reasoning included"),
    optional("tokens_reasoning", ColumnType::Long, "reasoning tokens"),
    optional("cost_nanos", ColumnType::Long, "cost of the run, nano-units of `cost_currency`"),
    optional("cost_currency", ColumnType::Text, "ISO 4217 code"),
    optional("cost_source", ColumnType::Text, "provider, gateway, app, derived"),
    optional("cost_price_table", ColumnType::Text, "price table used"),
    optional("cost_price_table_version", ColumnType::Text, "its version"),
    optional("latency_total_micros", ColumnType::Long, "duration of the run, µs; from the timestamps if not stated"),
    optional("latency_ttft_micros", ColumnType::Long, "request to first streamed chunk, µs"),
    optional("latency_queue_micros", ColumnType::Long, "time queued, µs"),
    optional("latency_llm_micros", ColumnType::Long, "time in models, µs"),
    optional("latency_tool_micros", ColumnType::Long, "time in tools, µs"),
    optional("latency_retrieval_micros", ColumnType::Long, "time in retrieval, µs"),
    optional("latency_human_wait_micros", ColumnType::Long, "time waiting for people, µs"),
    optional("llm_calls", ColumnType::Long, "model calls"),
    optional("turns", ColumnType::Long, "turns of the conversation"),
    // Its tool calls, retrieval calls, policy exceptions, scores and escalation.
    required("tool_calls", ColumnType::List(TOOL_CALL), "tool calls"),
    required("tool_calls_total", ColumnType::Long, "number of tool calls"),
    required("tool_calls_failed", ColumnType::Long, "number of tool calls that failed"),
    required("retrieval", ColumnType::List(RETRIEVAL), "retrieval calls"),
    required("retrieval_calls", ColumnType::Long, "number of retrieval calls"),
    required("retrieval_empty", ColumnType::Long, "retrieval calls that returned nothing"),
    required("retrieval_errors", ColumnType::Long, "retrieval calls that failed"),
    required("policy_exceptions", ColumnType::List(POLICY_EXCEPTION), "policy exceptions, derived ones included"),
    required("policy_exceptions_info", ColumnType::Long, "policy exceptions of severity info"),
    required("policy_exceptions_low", ColumnType::Long, "policy exceptions of severity low"),
    required("policy_exceptions_medium", ColumnType::Long, "policy exceptions of severity medium"),
    required("policy_exceptions_high", ColumnType::Long, "policy exceptions of severity high"),
    required("policy_exceptions_critical", ColumnType::Long, "policy exceptions of severity critical"),
    required("scores", ColumnType::List(SCORE), "scores"),
    required("escalated", ColumnType::Boolean, "handed to a person"),
    optional("escalation_reason_code", ColumnType::Text, "why"),
    optional("escalation_initiated_by", ColumnType::Text, "model, policy, user, system, validator (open)"),
    optional("escalation_to", ColumnType::Text, "to whom"),
    optional("escalation_phase", ColumnType::Text, "before_answer, after_answer (open)"),
    optional("escalation_ticket_id", ColumnType::Text, "ticket"),
    optional("escalation_resolved", ColumnType::Boolean, "resolved"),
    optional("escalation_resolution", ColumnType::Text, "how"),
    optional("escalation_wait_micros", ColumnType::Long, "time waited, µs"),
    optional("escalation_handle_micros", ColumnType::Long, "time handled, µs"),
    // run.review.
    optional("review_id", ColumnType::Text, "review").distinct(),
    optional("review_queue", ColumnType::Text, "queue"),
    optional("reviewer", ColumnType::Text, "pseudonym of the reviewer"),
    optional("review_decision", ColumnType::Text, "accept, reject, edit, escalate, unsure, skip"),
    optional("review_failure_mode", ColumnType::Text, "failure mode"),
    optional("review_severity", ColumnType::Text, "info, low, medium, high, critical"),
    optional("review_sets_outcome", ColumnType::Boolean, "the review decides the run's outcome"),
    optional("review_make_eval_case", ColumnType::Boolean, "whether the run should become an eval case"),
    optional("review_duration_micros", ColumnType::Long, "time the reviewer took, µs"),
    optional("review_sampling_weight", ColumnType::Double, "1 / probability with which the run was sampled for review"),
    optional("review_rubric_version", ColumnType::Text, "version of the rubric"),
    optional(
        "review_leased_until",
        ColumnType::Timestamp,
        "end of a lease: the reviewer takes the run until then, and has not reviewed it",
    ),
    optional("review_retired", ColumnType::Boolean, "the eval case of the run is out of use; not a review"),
    optional("review_json", ColumnType::Text, "labels, expected and expected_ref, redacted"),
    // Session, user, trace and sampling.
    optional("session_id", ColumnType::Text, "session; runs of one session are one cluster").distinct(),
    optional("user_key", ColumnType::Text, "keyed hash of the user").distinct(),
    optional("trace_id", ColumnType::Text, "W3C trace id").distinct(),
    optional("span_id", ColumnType::Text, "W3C span id").distinct(),
    optional("sampling_probability", ColumnType::Double, "probability with which the producer kept the run"),
    optional("sampling_reason", ColumnType::Text, "why it was sampled so"),
    required("weight_micros", ColumnType::Long, "1 / sampling probability, in millionths, rounded at random to two significant digits; 1,000,000 if unsampled"),
    optional("segments", ColumnType::TextMap, "free dimensions of the producer"),
    optional("steps_json", ColumnType::Text, "steps, redacted").distinct(),
    optional("content_json", ColumnType::Text, "content, redacted").distinct(),
    optional(
        "extra",
        ColumnType::Text,
        "fields without a column, and values that were left out, as a JSON object with the nesting of the event; a list \
         becomes an object keyed by index; at most 8 KiB before redaction",
    ).distinct(),
    // Added by later versions.
    optional("tokens_by_modality", ColumnType::TextMap, "tokens by modality, whole numbers as text"),
    optional(
        "cost_breakdown",
        ColumnType::TextMap,
        "cost by part, decimal amounts in units of `cost_currency` as text",
    ),
    optional(
        "truncated",
        ColumnType::TextMap,
        "values that are not kept as sent, by JSON pointer: `cut` at their limit, `left out` because they were malformed or too large, \
         `bounded`, `dropped` because `extra` was full, `off` because content is not kept, or `stated` by the producer",
    ),
    optional("redaction", ColumnType::TextMap, REDACTION),
];
