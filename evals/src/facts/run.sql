-- The runs of a week. Reviews are left out: a review of a candidate must not change the sample that it was drawn in.
WITH events AS (
    SELECT * FROM events WHERE event_type <> 'run.review'
),
runs AS (
    {runs}
),
run AS (
    SELECT
        tenant, source, run_id, attempt, ended_at, task, release_id, release_fingerprint, stage, outcome_status,
        outcome_reason_code, failure_component, failure_step, failure_error_type, validation_valid, escalated,
        escalation_reason_code, latency_total_micros, cost_nanos, cost_currency, tool_calls_failed, sampling_probability,
        field_errors, CASE WHEN tool_calls_failed > 0 THEN tool_calls END AS tool_calls, policy_exceptions, scores, retrieval,
        retrieval_calls
    FROM runs
    WHERE {week} AND coalesce(stage, '') <> 'offline_eval'
)
