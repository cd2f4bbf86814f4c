-- What does a completed task cost, and how many runs state a cost at all?
SELECT task, release_id, cost_currency, cost_total, cost_coverage, cost_per_completed_task,
    cost_per_completed_task_low, cost_per_completed_task_high
FROM release_summary
ORDER BY task, release_id;

-- The most expensive hours.
SELECT date_trunc('hour', window_start) AS hour, task, sum(cost_total) AS cost, sum(runs) AS runs
FROM metrics_1m
GROUP BY hour, task
ORDER BY cost DESC NULLS LAST
LIMIT 10;
