-- The runs that need a review now, the most urgent first: candidates without a decision, and those that need a second one.
-- column state: queued: needs a decision; second_review: needs another person
-- column weight: runs of production that it stands for
-- column queue_age_s: time since the run entered the sample, s
-- column priority: place in the queue; smaller first
-- example: SELECT candidate_id, state, class, severity, task, run_id FROM review_queue ORDER BY priority LIMIT 10
SELECT
    candidate_id, week, state, kind, class, severity, signature, task, release_id, stage, tenant, source, run_id, attempt, ended_at,
    reviewers, weight, queue_age_s, priority
FROM current_candidates
WHERE state IN ('queued', 'second_review')
