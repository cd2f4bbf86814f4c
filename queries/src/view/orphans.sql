-- Statements about runs that have not arrived, or that they do not name unambiguously: one row per score, review, escalation or policy exception without a run in `events`. It changes no number until its run arrives.
-- column source: producer that sent it
-- column waits_since: time at which it arrived
-- column waited_s: now − waits_since, s
-- column score_name: name of the score
-- column passed: verdict of a score
-- column evaluator_id: evaluator that scored
-- column reason: `no_run` if no run of this id has arrived, `other_tenant` if only other tenants have one, `several_tenants` if it names no tenant and several have one
-- example: SELECT event_type, source, reason, count(*) AS statements, max(waited_s) AS longest_s FROM orphans GROUP BY event_type, source, reason
WITH said AS (
    SELECT * FROM (
        SELECT
            run_id, source, tenant, event_type, event_id, event_time, ingested_at, revision, review_id, reviewer, review_decision,
            scores[1] AS score,
            row_number() OVER (
                PARTITION BY run_id, event_type, source, tenant, event_id, content_hash
                ORDER BY ingested_at, topic, partition, "offset"
            ) AS place
        FROM events
        WHERE event_type <> 'run.completed'
    ) WHERE place = 1
),
-- Runs with an id that a statement names, by tenant and source.
run AS (
    SELECT e.run_id, e.tenant, e.source
    FROM events AS e
    JOIN (SELECT run_id FROM events WHERE event_type <> 'run.completed' GROUP BY run_id) AS d ON e.run_id = d.run_id
    WHERE e.event_type = 'run.completed'
    GROUP BY e.run_id, e.tenant, e.source
),
of_tenant AS (
    SELECT run_id, tenant FROM run GROUP BY run_id, tenant
),
-- Whether an id names one tenant, as view `runs` decides it.
of_id AS (
    SELECT run_id, min(tenant) IN ('', max(tenant)) AS clear FROM run GROUP BY run_id
),
of_source AS (
    SELECT run_id, source, min(tenant) IN ('', max(tenant)) AS clear FROM run GROUP BY run_id, source
)
SELECT
    s.run_id, s.event_type, s.source, s.tenant, s.event_id, s.event_time, s.revision, s.ingested_at AS waits_since,
    date_part('epoch', now()) - date_part('epoch', s.ingested_at) AS waited_s,
    s.review_id, s.reviewer, s.review_decision,
    s.score['name'] AS score_name, s.score['passed'] AS passed, s.score['evaluator_id'] AS evaluator_id,
    CASE WHEN i.run_id IS NULL THEN 'no_run' WHEN s.tenant <> '' THEN 'other_tenant' ELSE 'several_tenants' END AS reason
FROM said AS s
LEFT JOIN of_id AS i ON s.run_id = i.run_id
LEFT JOIN of_source AS o ON s.run_id = o.run_id AND s.source = o.source
LEFT JOIN of_tenant AS t ON s.run_id = t.run_id AND s.tenant = t.tenant
WHERE CASE WHEN s.tenant <> '' THEN t.run_id IS NULL ELSE NOT coalesce(o.clear, i.clear, false) END
