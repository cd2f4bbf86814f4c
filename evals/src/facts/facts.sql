-- The runs of a week with everything that their classification needs, but medians.
{run},
-- Ids of all runs of the week, superseded ones included. The CTE `run` costs much more, and each use of it is computed again.
named AS (
    SELECT DISTINCT run_id, tenant FROM events WHERE event_type = 'run.completed' AND {week}
),
-- Verdicts inside runs, and later ones. A later statement about a run id counts for each run with that id of the same tenant.
own AS (
    SELECT run_id, tenant, '' AS event_id, ended_at AS said_at, CAST(0 AS BIGINT) AS revision, CAST(0 AS BIGINT) AS content_hash,
        unnest(scores) AS score
    FROM run
),
stated AS (
    SELECT run_id, tenant, said_at, revision, content_hash, score FROM own
    UNION ALL
    SELECT run_id, tenant, event_time, revision, content_hash, scores[1]
    FROM events
    WHERE event_type = 'run.score' AND run_id IN (SELECT run_id FROM named)
),
-- Of several statements of one evaluator about one thing, the greatest counts.
newest AS (
    SELECT run_id, tenant, kind, passed FROM (
        SELECT
            run_id, tenant, score['kind'] AS kind, score['passed'] AS passed,
            row_number() OVER (
                PARTITION BY
                    run_id, tenant, score['name'], score['kind'], score['evaluator_id'], score['target_id'], score['identifier']
                ORDER BY revision DESC, said_at DESC, content_hash DESC
            ) AS place
        FROM stated
        WHERE coalesce(score['target'], 'run') = 'run'
    ) WHERE place = 1 AND passed IS NOT NULL
),
verdicts AS (
    SELECT
        run_id, tenant,
        count(*) FILTER (WHERE kind IN ('llm', 'code') AND passed) AS judges_good,
        count(*) FILTER (WHERE kind IN ('llm', 'code') AND NOT passed) AS judges_bad,
        count(*) FILTER (WHERE kind = 'human' AND passed) AS people_good,
        count(*) FILTER (WHERE kind = 'human' AND NOT passed) AS people_bad,
        count(*) FILTER (WHERE kind = 'user_feedback' AND NOT passed) AS feedback_bad
    FROM newest
    GROUP BY run_id, tenant
),
said AS (
    SELECT
        r.run_id, r.tenant, sum(v.judges_good) AS judges_good, sum(v.judges_bad) AS judges_bad,
        sum(v.people_good) AS people_good, sum(v.people_bad) AS people_bad, sum(v.feedback_bad) AS feedback_bad
    FROM named AS r
    JOIN verdicts AS v ON v.run_id = r.run_id AND (v.tenant = r.tenant OR v.tenant = '')
    GROUP BY r.run_id, r.tenant
),
-- Documents of which a version was returned that is older than one seen before in the week. Versions are ordered by when they were
-- first seen.
calls AS (
    SELECT tenant, source, run_id, attempt, ended_at, unnest(retrieval) AS call FROM run WHERE retrieval_calls > 0
),
returned AS (
    SELECT tenant, source, run_id, attempt, ended_at, call['source_id'] AS source_id, unnest(call['documents']) AS document
    FROM calls
    WHERE call['source_id'] IS NOT NULL
),
documents AS (
    SELECT tenant, source, run_id, attempt, ended_at, source_id, document['id'] AS document_id, document['version'] AS version
    FROM returned
    WHERE document['id'] IS NOT NULL AND document['version'] IS NOT NULL
),
versions AS (
    SELECT
        tenant, source, run_id, attempt, ended_at, source_id, document_id,
        min(ended_at) OVER (PARTITION BY tenant, source_id, document_id, version) AS first_seen
    FROM documents
),
seen AS (
    SELECT
        tenant, source, run_id, attempt, first_seen,
        max(first_seen) OVER (PARTITION BY tenant, source_id, document_id ORDER BY ended_at) AS newest_first_seen
    FROM versions
),
stale AS (
    SELECT DISTINCT tenant, source, run_id, attempt FROM seen WHERE newest_first_seen > first_seen
)
SELECT
    r.tenant, r.source, r.run_id, r.attempt, r.ended_at, r.task, r.release_id, r.release_fingerprint, r.stage, r.outcome_status,
    r.outcome_reason_code, r.failure_component, r.failure_step, r.failure_error_type, r.validation_valid, r.escalated,
    r.escalation_reason_code, r.latency_total_micros, r.cost_nanos, r.cost_currency, r.tool_calls_failed, r.sampling_probability,
    r.field_errors, r.tool_calls, r.policy_exceptions,
    coalesce(s.judges_good, 0) AS judges_good, coalesce(s.judges_bad, 0) AS judges_bad,
    coalesce(s.people_good, 0) AS people_good, coalesce(s.people_bad, 0) AS people_bad,
    coalesce(s.feedback_bad, 0) AS feedback_bad, o.run_id IS NOT NULL AS stale
FROM run AS r
LEFT JOIN said AS s ON s.run_id = r.run_id AND s.tenant = r.tenant
LEFT JOIN stale AS o ON o.tenant = r.tenant AND o.source = r.source AND o.run_id = r.run_id AND o.attempt = r.attempt
