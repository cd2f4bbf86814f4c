-- Medians of latency by task, and of cost by task and currency, of tasks with enough runs in the week.
{run}
SELECT
    tenant, task, cost_currency, grouping(cost_currency) = 0 AS of_cost,
    count(latency_total_micros) AS latencies, median(CAST(latency_total_micros AS DOUBLE)) AS median_latency,
    count(cost_nanos) AS costs, median(CAST(cost_nanos AS DOUBLE)) AS median_cost
FROM run
WHERE task IS NOT NULL
GROUP BY GROUPING SETS ((tenant, task), (tenant, task, cost_currency))
