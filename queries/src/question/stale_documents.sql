-- Which sources are stale? Retrieved documents in an older version than the newest seen until then, by task and release, the most frequent first.
-- param task text = any: only this task
-- example: --param task=policy_answer
SELECT
    tenant, task, release_id, stage, documents, stale, rate, cited, cited_stale, cited_rate, last_stale, example_document,
    example_run_id
FROM stale_sources
WHERE stale > 0 AND ($task IS NULL OR task = $task)
ORDER BY rate DESC, stale DESC, tenant, task, release_id, stage
