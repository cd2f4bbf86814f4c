-- Who waits longest for a verdict? Runs with an unknown outcome by task and release, the longest wait first, beside the usual wait for a late verdict.
-- param task text = any: only this task
-- param since time = 30d: only runs that ended at this time or later
-- param as_of time = 0s: time up to which the wait is counted
-- example: --param since=7d
WITH run AS (
    SELECT
        tenant, task, release_id, stage, run_id, ended_at, weight, judged, label_delay_s,
        date_part('epoch', to_timestamp($as_of)) - date_part('epoch', ended_at) AS wait_s
    FROM runs
    WHERE ended_at >= $since AND ended_at <= $as_of AND ($task IS NULL OR task = $task)
)
SELECT
    tenant, task, release_id, stage, sum(weight) FILTER (WHERE NOT judged) AS waiting, sum(weight) AS runs,
    max(wait_s) FILTER (WHERE NOT judged) AS longest_wait_s, median(wait_s) FILTER (WHERE NOT judged) AS wait_s_p50,
    median(label_delay_s) AS label_delay_s_p50,
    first_value(run_id ORDER BY ended_at, run_id) FILTER (WHERE NOT judged) AS longest_run_id
FROM run
GROUP BY tenant, task, release_id, stage
HAVING count(*) FILTER (WHERE NOT judged) > 0
ORDER BY longest_wait_s DESC, tenant, task, release_id, stage
