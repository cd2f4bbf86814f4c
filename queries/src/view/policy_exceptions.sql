-- One row per policy exception, with the run it belongs to, including those that Bellwether derived.
-- column window_start: start of the one-minute window in which the run ended
-- column weight: number of exceptions this one stands for: 1 / sampling probability of the run
-- column policy_id: policy
-- column policy_version: its version
-- column severity: info, low, medium, high, critical
-- column category: pii, prompt_injection, ... (open)
-- column action: blocked, redacted, ... (open)
-- column raised_at: input, output, tool_input, ... (open)
-- column component: component that raised it
-- column risk_score: score of the guard that raised it
-- column step: step in which it was raised
-- column derived: true if Bellwether derived it (`unapproved_action`)
-- example: SELECT policy_id, severity, sum(weight) AS exceptions, max(ended_at) AS last_seen FROM policy_exceptions GROUP BY policy_id, severity
WITH exceptions AS (
    SELECT
        window_start, ended_at, tenant, task, release_id, release_fingerprint, model, stage, source, run_id, attempt,
        outcome_status, weight, unnest(policy_exceptions) AS exception
    FROM runs
)
SELECT
    window_start, ended_at, tenant, task, release_id, release_fingerprint, model, stage, source, run_id, attempt,
    outcome_status, weight,
    exception['policy_id'] AS policy_id,
    exception['policy_version'] AS policy_version,
    exception['severity'] AS severity,
    exception['category'] AS category,
    exception['action'] AS action,
    exception['source'] AS raised_at,
    exception['component'] AS component,
    exception['risk_score'] AS risk_score,
    exception['step'] AS step,
    exception['derived'] AS derived
FROM exceptions
