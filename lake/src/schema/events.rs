//! `events`: one accepted run event, flattened, with its Kafka coordinates.

use super::{Column, Kind, optional, required};

/// What a row is.
pub const DOC: &str = "One accepted run event, flattened, with its Kafka coordinates. Append-only; one row a message.";

/// One tool call of a run.
pub const TOOL_CALL: &[Column] = &[
    required("name", Kind::Text, "tool"),
    optional("id", Kind::Text, "call id"),
    optional("type", Kind::Text, "kind of tool"),
    optional("schema_version", Kind::Text, "version of the tool's schema"),
    required("status", Kind::Text, "ok, error, timeout, denied, invalid_arguments, ... (open)"),
    required("failed", Kind::Boolean, "true where status is neither `ok` nor `denied` by an approver"),
    optional("error_type", Kind::Text, "class of the error"),
    optional("args_valid", Kind::Boolean, "arguments matched the tool's schema"),
    optional("latency_micros", Kind::Long, "duration, µs"),
    optional("attempt", Kind::Integer, "attempt number, from 1"),
    optional("side_effect", Kind::Boolean, "the call changes something outside"),
    optional("risk", Kind::Text, "low, medium, high"),
    optional("approval_required", Kind::Boolean, "an approval was required"),
    optional("approval_decision", Kind::Text, "approved, rejected, edited, expired, none"),
    optional("approver_key", Kind::Text, "keyed hash of the approver"),
    optional("approval_wait_micros", Kind::Long, "time waited for the approval, µs"),
];

/// One document returned by a retrieval call.
pub const DOCUMENT: &[Column] = &[
    required("id", Kind::Text, "document"),
    optional("version", Kind::Text, "version of the document"),
    optional("score", Kind::Double, "retrieval score"),
    optional("cited", Kind::Boolean, "the answer cites it"),
];

/// One retrieval call of a run.
pub const RETRIEVAL: &[Column] = &[
    required("source_id", Kind::Text, "source asked"),
    optional("index_version", Kind::Text, "version of the index"),
    optional("query_sha256", Kind::Text, "hash of the query"),
    optional("requested_k", Kind::Long, "documents asked for"),
    optional("returned_k", Kind::Long, "documents returned"),
    optional("top_score", Kind::Double, "best score"),
    optional("latency_micros", Kind::Long, "duration, µs"),
    optional("status", Kind::Text, "ok, empty, error, timeout, ... (open)"),
    optional("error_type", Kind::Text, "class of the error"),
    required("documents", Kind::List(DOCUMENT), "documents returned"),
];

/// One policy exception.
pub const POLICY_EXCEPTION: &[Column] = &[
    required("policy_id", Kind::Text, "policy"),
    optional("policy_version", Kind::Text, "its version"),
    required("severity", Kind::Text, "info, low, medium, high, critical"),
    optional("category", Kind::Text, "pii, prompt_injection, ... (open)"),
    optional("action", Kind::Text, "blocked, redacted, ... (open)"),
    optional("source", Kind::Text, "input, output, tool_input, ... (open)"),
    optional("component", Kind::Text, "what raised it"),
    optional("native_result_type", Kind::Text, "the guard's own result type"),
    optional("native_result_value", Kind::Text, "the guard's own result"),
    optional("risk_score", Kind::Double, "the guard's own score"),
    optional("step", Kind::Text, "step in which it was raised"),
    required("derived", Kind::Boolean, "true where Bellwether derived it (`unapproved_action`)"),
];

/// One invalid field of the final answer.
pub const FIELD_ERROR: &[Column] = &[
    required("path", Kind::Text, "JSON pointer into the answer"),
    optional("rule", Kind::Text, "schema rule that failed"),
    optional("message", Kind::Text, "the validator's message"),
];

/// One score, from `run.score` or inside a completed run.
pub const SCORE: &[Column] = &[
    required("name", Kind::Text, "what was scored"),
    optional("value", Kind::Double, "score"),
    optional("label", Kind::Text, "label"),
    optional("passed", Kind::Boolean, "verdict"),
    optional("min", Kind::Double, "least possible value"),
    optional("max", Kind::Double, "greatest possible value"),
    optional("higher_is_better", Kind::Boolean, "direction"),
    required("kind", Kind::Text, "human, llm, code, user_feedback, business"),
    required("evaluator_id", Kind::Text, "who scored"),
    optional("evaluator_version", Kind::Text, "its version"),
    optional("evaluator_model", Kind::Text, "its model"),
    optional("rubric_version", Kind::Text, "version of the rubric"),
    optional("target", Kind::Text, "run, step, tool_call, session"),
    optional("target_id", Kind::Text, "id of the target"),
    optional("identifier", Kind::Text, "upsert key of the producer"),
    required("sets_outcome", Kind::Boolean, "the score decides the run's outcome"),
    optional("weight", Kind::Double, "weight"),
    optional("reference_json", Kind::Text, "reference item, as sent"),
    optional("explanation", Kind::Text, "explanation"),
    optional("cost_nanos", Kind::Long, "cost of the scoring, nano-units"),
    optional("cost_currency", Kind::Text, "its currency"),
];

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    // Where the row came from.
    required("topic", Kind::Text, "Kafka topic, or `file:NAME` for a replayed file"),
    required("partition", Kind::Integer, "Kafka partition; 0 for a file"),
    required("offset", Kind::Long, "Kafka offset; line number from 0 for a file"),
    optional("kafka_timestamp", Kind::Timestamp, "time the broker or producer gave the message"),
    required("ingested_at", Kind::Timestamp, "time the message was decoded"),
    // The envelope.
    required("event_date", Kind::Date, "UTC date of `event_time`; the table's partition column"),
    required("event_type", Kind::Text, "run.completed, run.score, run.review, run.escalated, run.policy_exception"),
    required("spec", Kind::Text, "contract version the producer named"),
    required("source", Kind::Text, "producer; `unknown` where none was named"),
    required("event_id", Kind::Text, "idempotency key of the event within its source"),
    required("event_time", Kind::Timestamp, "time of the statement"),
    required("run_id", Kind::Text, "the run"),
    required("tenant", Kind::Text, "tenant; empty where none was named"),
    required("revision", Kind::Long, "of several statements of one fact the highest revision counts"),
    required("content_hash", Kind::Long, "hash of the message body; breaks ties between equal revisions and times"),
    optional("supersedes", Kind::Text, "event id this one replaces, as stated"),
    // run.completed: what ran.
    optional("task", Kind::Text, "task"),
    optional("task_version", Kind::Text, "its version"),
    optional("environment", Kind::Text, "environment"),
    required("attempt", Kind::Integer, "attempt of the run, from 1"),
    optional("release_id", Kind::Text, "release"),
    optional("release_fingerprint", Kind::Text, "sha256 of the release's canonical JSON, recomputed on arrival"),
    optional("release_fingerprint_stated", Kind::Text, "fingerprint the producer stated, where it differs"),
    optional("release_json", Kind::Text, "the whole release, canonical JSON"),
    optional("model", Kind::Text, "model requested, else model that answered"),
    optional("model_provider", Kind::Text, "provider"),
    optional("model_requested", Kind::Text, "model asked for"),
    optional("model_responded", Kind::Text, "model that answered, as the provider reports"),
    optional("prompt_name", Kind::Text, "prompt"),
    optional("prompt_version", Kind::Text, "its version"),
    optional("stage", Kind::Text, "offline_eval, internal, shadow, canary, full"),
    optional("cohort", Kind::Text, "rollout cohort"),
    optional("flag_key", Kind::Text, "feature flag"),
    optional("variant", Kind::Text, "variant of the flag"),
    optional("assignment_unit", Kind::Text, "run, session, user, tenant"),
    optional("traffic_fraction", Kind::Double, "share of traffic the rollout was to get"),
    optional("started_at", Kind::Timestamp, "start of the run"),
    optional("ended_at", Kind::Timestamp, "completion of the run; decides its window"),
    // How it ended.
    optional("outcome_status", Kind::Text, "success, failure, error, timeout, abandoned, unknown"),
    optional("outcome_source", Kind::Text, "app, rule, llm, human, environment (open)"),
    optional("outcome_reason_code", Kind::Text, "reason"),
    optional("finish_reason", Kind::Text, "the model's finish reason"),
    optional("failure_component", Kind::Text, "prompt, retrieval, model, tool, ... (open)"),
    optional("failure_step", Kind::Text, "step that failed"),
    optional("failure_error_type", Kind::Text, "class of the error"),
    // Whether the answer fitted its schema.
    optional("validation_applicable", Kind::Boolean, "the answer has a schema"),
    optional("validation_valid", Kind::Boolean, "the final answer fits it"),
    optional("validation_first_attempt_valid", Kind::Boolean, "the first answer fitted it"),
    optional("validation_attempts", Kind::Long, "answers tried"),
    optional("validation_repaired", Kind::Boolean, "a repair step was needed"),
    optional("validation_schema_id", Kind::Text, "schema"),
    optional("validation_schema_version", Kind::Text, "its version"),
    optional("fields_total", Kind::Long, "fields of the answer that were checked"),
    optional("fields_invalid", Kind::Long, "fields that failed"),
    required("field_errors", Kind::List(FIELD_ERROR), "the fields that failed"),
    // What it cost and how long it took.
    optional("tokens_input", Kind::Long, "all input tokens, cached ones included"),
    optional("tokens_input_cache_read", Kind::Long, "input tokens read from a cache"),
    optional("tokens_input_cache_write", Kind::Long, "input tokens written to a cache"),
    optional("tokens_output", Kind::Long, "all output tokens, reasoning included"),
    optional("tokens_reasoning", Kind::Long, "reasoning tokens"),
    optional("cost_nanos", Kind::Long, "cost of the run, nano-units of `cost_currency`"),
    optional("cost_currency", Kind::Text, "ISO 4217 code"),
    optional("cost_source", Kind::Text, "provider, gateway, app, derived"),
    optional("cost_price_table", Kind::Text, "price table used"),
    optional("cost_price_table_version", Kind::Text, "its version"),
    optional("latency_total_micros", Kind::Long, "duration of the run, µs; from the timestamps where not stated"),
    optional("latency_ttft_micros", Kind::Long, "request to first streamed chunk, µs"),
    optional("latency_queue_micros", Kind::Long, "time queued, µs"),
    optional("latency_llm_micros", Kind::Long, "time in models, µs"),
    optional("latency_tool_micros", Kind::Long, "time in tools, µs"),
    optional("latency_retrieval_micros", Kind::Long, "time in retrieval, µs"),
    optional("latency_human_wait_micros", Kind::Long, "time waiting for people, µs"),
    optional("llm_calls", Kind::Long, "model calls"),
    optional("turns", Kind::Long, "turns of the conversation"),
    // What it did.
    required("tool_calls", Kind::List(TOOL_CALL), "tool calls"),
    required("tool_calls_total", Kind::Long, "number of tool calls"),
    required("tool_calls_failed", Kind::Long, "number of tool calls that failed"),
    required("retrieval", Kind::List(RETRIEVAL), "retrieval calls"),
    required("retrieval_calls", Kind::Long, "number of retrieval calls"),
    required("retrieval_empty", Kind::Long, "retrieval calls that returned nothing"),
    required("retrieval_errors", Kind::Long, "retrieval calls that failed"),
    required("policy_exceptions", Kind::List(POLICY_EXCEPTION), "policy exceptions, derived ones included"),
    required("policy_exceptions_info", Kind::Long, "policy exceptions of severity info"),
    required("policy_exceptions_low", Kind::Long, "policy exceptions of severity low"),
    required("policy_exceptions_medium", Kind::Long, "policy exceptions of severity medium"),
    required("policy_exceptions_high", Kind::Long, "policy exceptions of severity high"),
    required("policy_exceptions_critical", Kind::Long, "policy exceptions of severity critical"),
    required("scores", Kind::List(SCORE), "scores"),
    required("escalated", Kind::Boolean, "handed to a person"),
    optional("escalation_reason_code", Kind::Text, "why"),
    optional("escalation_initiated_by", Kind::Text, "model, policy, user, system, validator (open)"),
    optional("escalation_to", Kind::Text, "to whom"),
    optional("escalation_phase", Kind::Text, "before_answer, after_answer (open)"),
    optional("escalation_ticket_id", Kind::Text, "ticket"),
    optional("escalation_resolved", Kind::Boolean, "resolved"),
    optional("escalation_resolution", Kind::Text, "how"),
    optional("escalation_wait_micros", Kind::Long, "time waited, µs"),
    optional("escalation_handle_micros", Kind::Long, "time handled, µs"),
    // run.review.
    optional("review_id", Kind::Text, "review"),
    optional("review_queue", Kind::Text, "queue"),
    optional("reviewer", Kind::Text, "pseudonym of the reviewer"),
    optional("review_decision", Kind::Text, "accept, reject, edit, escalate, unsure, skip"),
    optional("review_failure_mode", Kind::Text, "failure mode"),
    optional("review_severity", Kind::Text, "info, low, medium, high, critical"),
    optional("review_sets_outcome", Kind::Boolean, "the review decides the run's outcome"),
    optional("review_make_eval_case", Kind::Boolean, "to become an eval case"),
    optional("review_duration_micros", Kind::Long, "time the reviewer took, µs"),
    optional("review_sampling_weight", Kind::Double, "1 / probability with which the run was sampled for review"),
    optional("review_rubric_version", Kind::Text, "version of the rubric"),
    optional("review_json", Kind::Text, "labels, expected and expected_ref, as sent"),
    // Who, where, and how it was sampled.
    optional("session_id", Kind::Text, "session; runs of one session are one cluster"),
    optional("user_key", Kind::Text, "keyed hash of the user"),
    optional("trace_id", Kind::Text, "W3C trace id"),
    optional("span_id", Kind::Text, "W3C span id"),
    optional("sampling_probability", Kind::Double, "probability with which the producer kept the run"),
    optional("sampling_reason", Kind::Text, "why it was sampled so"),
    required("weight_micros", Kind::Long, "1 / sampling probability, in millionths; 1,000,000 where unsampled"),
    optional("segments", Kind::TextMap, "free dimensions of the producer"),
    optional("steps_json", Kind::Text, "steps, as sent"),
    optional("content_json", Kind::Text, "content, as sent"),
    optional(
        "extra",
        Kind::Text,
        "fields without a column, as a JSON object: unknown ones, and values that were left out; each where it stood in the \
         event, a list as an object of its places; at most 8 KiB",
    ),
    // What came with later versions.
    optional("tokens_by_modality", Kind::TextMap, "tokens by modality, whole numbers as text"),
    optional("cost_breakdown", Kind::TextMap, "cost by part, decimal amounts in units of `cost_currency` as text"),
    optional(
        "truncated",
        Kind::TextMap,
        "values that are not kept as they were sent, by JSON pointer: `cut` at their limit, `left out` for being wrong, \
         `bounded`, `dropped` for want of room in `extra`; `stated` where the producer said so",
    ),
];
