-- Which release made quality worse? Compares each release with the full rollout that has most runs of its task, over a span up to now. A release is worse if its whole interval lies below that of the full rollout: a cautious comparison, which a gate or an alert makes sharper.
-- param task text = any: only this task
-- param span 5m|1h|24h|7d|30d|90d = 7d: length of time
-- example: --param task=refund_triage
WITH release AS (
    SELECT * FROM rolling WHERE span = $span AND ($task IS NULL OR task = $task)
),
baseline AS (
    SELECT * FROM (
        SELECT
            tenant, task, release_id, success_rate, success_rate_low, success_rate_high, schema_adherence, escalation_rate,
            cost_per_completed_task,
            row_number() OVER (PARTITION BY tenant, task ORDER BY runs DESC, release_id) AS place
        FROM release
        WHERE stage = 'full'
    ) WHERE place = 1
)
SELECT
    r.tenant, r.task, r.release_id, r.stage, b.release_id AS baseline,
    CASE
        WHEN r.success_rate_high < b.success_rate_low THEN 'worse'
        WHEN r.success_rate_low > b.success_rate_high THEN 'better'
        ELSE 'no clear difference'
    END AS verdict,
    r.success_rate - b.success_rate AS difference,
    r.judged, r.success_rate, r.success_rate_low, r.success_rate_high,
    b.success_rate AS baseline_success_rate, b.success_rate_low AS baseline_success_rate_low,
    b.success_rate_high AS baseline_success_rate_high,
    r.schema_adherence - b.schema_adherence AS schema_adherence_difference,
    r.escalation_rate - b.escalation_rate AS escalation_rate_difference,
    r.cost_per_completed_task / nullif(b.cost_per_completed_task, 0) AS cost_ratio
FROM release AS r
JOIN baseline AS b ON r.tenant = b.tenant AND r.task = b.task
WHERE r.release_id <> b.release_id OR r.stage <> 'full'
ORDER BY difference, r.tenant, r.task, r.release_id, r.stage
