-- Which high-risk actions ran without an approval? The newest first; `weight` is the number of actions that each stands for.
-- param task text = any: only this task
-- param since time = 7d: only runs that ended at this time or later
-- param limit integer = 100: most rows
-- example: --param since=30d
SELECT ended_at, tenant, task, release_id, stage, component AS tool, severity, run_id, weight
FROM policy_exceptions
WHERE derived AND policy_id = 'unapproved_action' AND ended_at >= $since AND ($task IS NULL OR task = $task)
ORDER BY ended_at DESC, tenant, run_id, tool
LIMIT $limit
