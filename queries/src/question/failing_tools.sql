-- Which tool fails? Failed calls by task and tool, the highest rate first. Counts are weighted by 1 / sampling probability.
-- param task text = any: only this task
-- param since time = 7d: only runs that ended at this time or later
-- example: --param since=24h
WITH tool AS (
    SELECT
        tenant, task, tool, sum(weight) AS calls, count(*) AS calls_observed,
        coalesce(sum(weight) FILTER (WHERE failed), 0) AS failed,
        max(ended_at) FILTER (WHERE failed) AS last_failed,
        first_value(error_type ORDER BY ended_at DESC, run_id DESC, call_id DESC) FILTER (WHERE failed) AS last_error_type,
        first_value(run_id ORDER BY ended_at DESC, run_id DESC, call_id DESC) FILTER (WHERE failed) AS example_run_id
    FROM tool_calls
    WHERE ended_at >= $since AND ($task IS NULL OR task = $task)
    GROUP BY tenant, task, tool
)
SELECT
    tenant, task, tool, calls, calls_observed, failed, failed / calls AS failure_rate, last_failed, last_error_type, example_run_id
FROM tool
ORDER BY failure_rate DESC, failed DESC, tenant, task, tool
