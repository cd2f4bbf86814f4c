-- Statements about runs that have not come: one row a score, review, escalation or policy exception whose run is not in `events`. It waits, and counts as soon as its run comes.
-- column source: who sent it
-- column waits_since: when it arrived
-- column waited_s: now − waits_since, s
-- column score_name: what was scored
-- column passed: verdict of a score
-- column evaluator_id: who scored
-- example: SELECT event_type, source, count(*) AS statements, max(waited_s) AS longest_s FROM orphans GROUP BY event_type, source
WITH said AS (
    SELECT * FROM (
        SELECT
            run_id, source, tenant, event_type, event_id, event_time, ingested_at, revision, review_id, reviewer, review_decision,
            scores[1] AS score,
            row_number() OVER (
                PARTITION BY run_id, event_type, source, event_id, content_hash
                ORDER BY ingested_at, topic, partition, "offset"
            ) AS place
        FROM events
        WHERE event_type <> 'run.completed'
    ) WHERE place = 1
)
SELECT
    s.run_id, s.event_type, s.source, s.tenant, s.event_id, s.event_time, s.revision, s.ingested_at AS waits_since,
    date_part('epoch', now()) - date_part('epoch', s.ingested_at) AS waited_s,
    s.review_id, s.reviewer, s.review_decision,
    s.score['name'] AS score_name, s.score['passed'] AS passed, s.score['evaluator_id'] AS evaluator_id
FROM said AS s
LEFT JOIN (
    SELECT DISTINCT run_id, tenant FROM events WHERE event_type = 'run.completed'
) AS r ON s.run_id = r.run_id AND (s.tenant = '' OR s.tenant = r.tenant)
WHERE r.run_id IS NULL
