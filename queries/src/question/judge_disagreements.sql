-- Where do judge and people disagree? Reviewed runs on which people overturned a verdict, by task, release and judge, the highest share first, with an example.
-- param task text = any: only this task
-- example: --param task=support_answer
WITH example AS (
    SELECT
        tenant, task, release_id, kind, evaluator_id, evaluator_version, criterion,
        first_value(run_id ORDER BY last_reviewed DESC, run_id) AS example_run_id
    FROM overturned_verdicts
    GROUP BY tenant, task, release_id, kind, evaluator_id, evaluator_version, criterion
)
SELECT
    s.tenant, s.task, s.release_id, s.evaluator_id, s.evaluator_version, s.criterion, s.reviews, s.overturned,
    CAST(s.overturned AS DOUBLE) / nullif(s.reviews, 0) AS overturned_share,
    s.success_naive, s.success_corrected, s.success_corrected_low, s.success_corrected_high, e.example_run_id
FROM judge_success AS s
LEFT JOIN example AS e
    ON s.tenant = e.tenant AND s.task = e.task AND s.release_id = e.release_id AND s.kind = e.kind
    AND s.evaluator_id = e.evaluator_id AND s.evaluator_version = e.evaluator_version AND s.criterion = e.criterion
WHERE s.reviews > 0 AND ($task IS NULL OR s.task = $task)
ORDER BY overturned_share DESC, s.tenant, s.task, s.release_id, s.evaluator_id, s.evaluator_version, s.criterion
