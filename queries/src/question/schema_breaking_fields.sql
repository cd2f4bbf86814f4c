-- Which fields break the schema? Invalid fields of final answers by release, the most frequent first, with an example of each.
-- param task text = any: only this task
-- param limit integer = 20: most rows
-- example: --param task=invoice_extraction
SELECT
    tenant, task, release_id, stage, pointer, rule, runs, applicable, rate, first_seen, last_seen, example_run_id, example_message
FROM field_errors
WHERE $task IS NULL OR task = $task
ORDER BY rate DESC, runs DESC, tenant, task, release_id, stage, pointer, rule
LIMIT $limit
