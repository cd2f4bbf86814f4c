-- The runs that need a review now, the most urgent first: candidates without a decision, and those that need a second one. A run
-- that somebody has taken stays in the queue, in state leased.
-- column state: queued: needs a decision; second_review: needs another person; leased: somebody has taken it
-- column leased_by: person who has taken it
-- column leased_until: end of that lease; from then on others may take it
-- column weight: runs of production that it stands for
-- column queue_age_s: time since the run entered the sample, s
-- column priority: place in the queue; smaller first
-- example: SELECT candidate_id, state, class, severity, task, run_id FROM review_queue ORDER BY priority LIMIT 10
SELECT
    candidate_id, week, state, leased_by, leased_until, kind, class, severity, signature, task, release_id, stage, tenant, source,
    run_id, attempt, ended_at, reviewers, weight, queue_age_s, priority
FROM current_candidates
WHERE state IN ('queued', 'leased', 'second_review')
