-- One row per tool call, with the run that made it.
-- column window_start: start of the one-minute window in which the run ended
-- column weight: number of calls this one stands for: 1 / sampling probability of the run
-- column tool: tool
-- column call_id: call id
-- column tool_type: kind of tool
-- column status: ok, error, timeout, denied, invalid_arguments, ... (open)
-- column failed: true if the call failed; a denied call did not fail
-- column error_type: class of the error
-- column args_valid: arguments matched the tool's schema
-- column latency_ms: duration, ms
-- column call_attempt: attempt number of the call, from 1
-- column side_effect: the call changes something outside the application
-- column risk: low, medium, high
-- column approval_required: true if an approval was required
-- column approval_decision: approved, rejected, edited, expired, none
-- column approver_key: keyed hash of the approver
-- column approval_wait_ms: time waited for the approval, ms
-- example: SELECT tool, sum(weight) AS calls, sum(weight) FILTER (WHERE failed) AS failed FROM tool_calls GROUP BY tool ORDER BY calls DESC
WITH calls AS (
    SELECT
        window_start, ended_at, tenant, task, release_id, release_fingerprint, model, stage, source, run_id, attempt,
        outcome_status, weight, unnest(tool_calls) AS call
    FROM runs
    WHERE tool_calls_total > 0
)
SELECT
    window_start, ended_at, tenant, task, release_id, release_fingerprint, model, stage, source, run_id, attempt,
    outcome_status, weight,
    call['name'] AS tool,
    call['id'] AS call_id,
    call['type'] AS tool_type,
    call['schema_version'] AS schema_version,
    call['status'] AS status,
    call['failed'] AS failed,
    call['error_type'] AS error_type,
    call['args_valid'] AS args_valid,
    CAST(call['latency_micros'] AS DOUBLE) / 1e3 AS latency_ms,
    call['attempt'] AS call_attempt,
    call['side_effect'] AS side_effect,
    call['risk'] AS risk,
    call['approval_required'] AS approval_required,
    call['approval_decision'] AS approval_decision,
    call['approver_key'] AS approver_key,
    CAST(call['approval_wait_micros'] AS DOUBLE) / 1e3 AS approval_wait_ms
FROM calls
