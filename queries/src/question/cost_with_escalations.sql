-- Is the cheap model cheaper per completed task once escalations count? Adds the cost of the people who take over to the cost of the runs, by task and model, over all time. Covers the runs that state a cost.
-- param escalation_cost number: cost of one escalation to a person, in the currency of the runs
-- param task text = any: only this task
-- example: --param escalation_cost=4.50
WITH model AS (
    SELECT
        tenant, task, model, cost_currency,
        sum(runs) AS runs, sum(escalated) AS escalated, sum(cost_runs) AS cost_runs, sum(cost_total) AS cost_total,
        sum(cost_success) AS completed
    FROM release_summary
    WHERE cost_currency IS NOT NULL AND ($task IS NULL OR task = $task)
    GROUP BY tenant, task, model, cost_currency
),
people AS (
    SELECT *, CAST(escalated AS DOUBLE) / runs AS escalation_rate FROM model
)
SELECT
    tenant, task, model, cost_currency, runs, completed, escalation_rate,
    cost_total / nullif(completed, 0) AS cost_per_completed_task,
    (cost_total + escalation_rate * cost_runs * $escalation_cost) / nullif(completed, 0) AS cost_with_escalations
FROM people
ORDER BY tenant, task, cost_with_escalations, model
