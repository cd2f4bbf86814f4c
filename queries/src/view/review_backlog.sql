-- Candidates that wait for a review, by task and severity, with their age.
-- column queued: candidates without a decision
-- column second_review: candidates that need another person
-- column queue_age_s_p50: median time since they entered the sample, s
-- column queue_age_s_max: the longest time since one of them entered the sample, s
-- column weight: runs of production that they stand for
-- example: SELECT task, severity, queued, second_review, queue_age_s_max / 86400 AS days FROM review_backlog ORDER BY days DESC
SELECT
    tenant, task, severity, count(*) FILTER (WHERE state = 'queued') AS queued,
    count(*) FILTER (WHERE state = 'second_review') AS second_review, median(queue_age_s) AS queue_age_s_p50,
    max(queue_age_s) AS queue_age_s_max, sum(weight) AS weight
FROM review_queue
GROUP BY tenant, task, severity
