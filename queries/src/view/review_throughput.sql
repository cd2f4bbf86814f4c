-- Reviews by UTC day and reviewer. Each review counts once, with its last revision. Leases and retirements are no reviews.
-- column day: UTC day of the reviews
-- column reviews: reviews, undecided ones included
-- column decided: accept, reject or edit
-- column minutes: time that the reviewer stated, min; null if none was stated
-- example: SELECT day, reviewer, reviews, decided, minutes FROM review_throughput ORDER BY day DESC
WITH fact AS (
    SELECT * FROM (
        SELECT tenant, reviewer, event_time, review_decision, review_duration_micros, review_leased_until, review_retired,
            row_number() OVER (
                PARTITION BY run_id, tenant, reviewer, review_id ORDER BY revision DESC, event_time DESC, content_hash DESC
            ) AS place
        FROM events
        WHERE event_type = 'run.review'
    ) WHERE place = 1 AND review_leased_until IS NULL AND NOT coalesce(review_retired, false)
)
SELECT
    date_trunc('day', event_time) AS day, tenant, coalesce(reviewer, 'unknown') AS reviewer,
    count(*) AS reviews,
    count(*) FILTER (WHERE review_decision IN ('accept', 'reject', 'edit')) AS decided,
    CAST(sum(review_duration_micros) AS DOUBLE) / 60e6 AS minutes
FROM fact
GROUP BY 1, 2, 3
