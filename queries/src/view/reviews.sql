-- Reviews of sampled runs: the latest one of each person about each run. Of several revisions the greatest counts. A lease or a retirement is no review.
-- column reviewer: pseudonym of the person; `unknown` if the review names none
-- column decision: accept, reject or edit; unsure, skip and escalate decide nothing
-- column passed: true for accept; false for reject and edit, which both say that the run was wrong; null if nothing was decided
-- column failure_mode: how the run failed, in the reviewer's words
-- column make_eval_case: true if the reviewer asks for an eval case
-- column review_json: labels, expected and expected_ref, redacted
-- example: SELECT reviewed_at, reviewer, run_id, decision FROM reviews ORDER BY reviewed_at DESC LIMIT 10
WITH run AS (
    SELECT DISTINCT candidate_id, run_id, tenant FROM candidates
),
fact AS (
    SELECT * FROM (
        SELECT
            run_id, tenant, reviewer, review_id, event_time, revision, content_hash, review_decision, review_failure_mode,
            review_make_eval_case, review_json, review_leased_until, review_retired,
            row_number() OVER (
                PARTITION BY run_id, tenant, reviewer, review_id ORDER BY revision DESC, event_time DESC, content_hash DESC
            ) AS place
        FROM events
        WHERE event_type = 'run.review' AND run_id IN (SELECT run_id FROM run)
    ) WHERE place = 1 AND review_leased_until IS NULL AND NOT coalesce(review_retired, false)
),
-- A review without a tenant is about the run of any tenant.
voice AS (
    SELECT * FROM (
        SELECT
            r.candidate_id, r.tenant, r.run_id, f.reviewer, f.event_time, f.review_decision, f.review_failure_mode,
            f.review_make_eval_case, f.review_json,
            row_number() OVER (
                PARTITION BY r.candidate_id, coalesce(f.reviewer, f.review_id)
                ORDER BY f.event_time DESC, f.revision DESC, f.content_hash DESC
            ) AS place
        FROM run AS r
        JOIN fact AS f ON f.run_id = r.run_id AND (f.tenant = r.tenant OR f.tenant = '')
    ) WHERE place = 1
)
SELECT
    candidate_id, tenant, run_id, coalesce(reviewer, 'unknown') AS reviewer, event_time AS reviewed_at,
    review_decision AS decision,
    CASE review_decision WHEN 'accept' THEN true WHEN 'reject' THEN false WHEN 'edit' THEN false END AS passed,
    review_failure_mode AS failure_mode, coalesce(review_make_eval_case, false) AS make_eval_case, review_json
FROM voice
