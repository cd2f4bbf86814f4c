-- What changed this week? Every task between two times, compared with the time before. A metric changed clearly if its two intervals do not overlap.
-- param from time = 7d: start of the time
-- param to time = 0s: its end, which is not part of it
-- param before time = 14d: start of the time before, which ends at `from`
-- param task text = any: only this task
-- example: --param from=2026-11-16 --param to=2026-11-23 --param before=2026-11-09
WITH pair AS (
    SELECT
        coalesce(a.tenant, b.tenant) AS tenant, coalesce(a.task, b.task) AS task,
        a.runs, b.runs AS runs_before,
        a.success_rate, b.success_rate AS success_rate_before,
        a.success_rate_low > b.success_rate_high AS success_up, a.success_rate_high < b.success_rate_low AS success_down,
        a.escalation_rate, b.escalation_rate AS escalation_rate_before,
        a.escalation_rate_low > b.escalation_rate_high AS escalation_up,
        a.escalation_rate_high < b.escalation_rate_low AS escalation_down,
        a.schema_adherence, b.schema_adherence AS schema_adherence_before,
        a.latency_ms_p95, b.latency_ms_p95 AS latency_ms_p95_before,
        a.cost_per_completed_task, b.cost_per_completed_task AS cost_per_completed_task_before,
        a.cost_per_completed_task_low > b.cost_per_completed_task_high AS cost_up,
        a.cost_per_completed_task_high < b.cost_per_completed_task_low AS cost_down
    FROM tasks_between($from, $to) AS a
    FULL JOIN tasks_between($before, $from) AS b ON a.tenant = b.tenant AND a.task = b.task
)
SELECT
    tenant, task,
    CASE
        WHEN runs_before IS NULL THEN 'new'
        WHEN runs IS NULL THEN 'gone'
        ELSE coalesce(nullif(concat_ws(', ',
            CASE WHEN success_up THEN 'success rose' WHEN success_down THEN 'success fell' END,
            CASE WHEN escalation_up THEN 'escalation rose' WHEN escalation_down THEN 'escalation fell' END,
            CASE WHEN cost_up THEN 'cost rose' WHEN cost_down THEN 'cost fell' END
        ), ''), 'no clear change')
    END AS change,
    runs, runs_before, success_rate, success_rate_before, escalation_rate, escalation_rate_before, schema_adherence,
    schema_adherence_before, latency_ms_p95, latency_ms_p95_before, cost_per_completed_task, cost_per_completed_task_before
FROM pair
WHERE $task IS NULL OR task = $task
ORDER BY change = 'no clear change', tenant, task
