-- The runs of a week with everything that their classification needs. Reviews are left out: a review of a candidate must not
-- change the sample that it was drawn in.
WITH events AS (
    SELECT * FROM events WHERE event_type <> 'run.review'
),
runs AS (
    {runs}
),
run AS (
    SELECT
        tenant, source, run_id, attempt, ended_at, task, release_id, release_fingerprint, stage, outcome_status,
        outcome_reason_code, failure_component, failure_step, failure_error_type, validation_valid, escalated,
        escalation_reason_code, latency_total_micros, cost_nanos, cost_currency, tool_calls_failed, sampling_probability,
        field_errors, CASE WHEN tool_calls_failed > 0 THEN tool_calls END AS tool_calls, policy_exceptions, scores, retrieval,
        retrieval_calls
    FROM runs
    WHERE {week} AND coalesce(stage, '') <> 'offline_eval'
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
    WHERE event_type = 'run.score' AND run_id IN (SELECT run_id FROM run)
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
    FROM (SELECT DISTINCT run_id, tenant FROM run) AS r
    JOIN verdicts AS v ON v.run_id = r.run_id AND (v.tenant = r.tenant OR v.tenant = '')
    GROUP BY r.run_id, r.tenant
),
-- Documents older than a version that was seen before in the week. Versions are ordered by when they were first seen.
calls AS (
    SELECT tenant, source, run_id, attempt, ended_at, unnest(retrieval) AS call FROM run WHERE retrieval_calls > 0
),
returned AS (
    SELECT tenant, source, run_id, attempt, ended_at, call['source_id'] AS source_id, unnest(call['documents']) AS document
    FROM calls
),
documents AS (
    SELECT tenant, source, run_id, attempt, ended_at, source_id, document['id'] AS document_id, document['version'] AS version
    FROM returned
    WHERE document['version'] IS NOT NULL
),
versions AS (
    SELECT tenant, source_id, document_id, version, min(ended_at) AS first_seen
    FROM documents
    GROUP BY tenant, source_id, document_id, version
),
moments AS (
    SELECT tenant, source_id, document_id, first_seen,
        lead(first_seen) OVER (PARTITION BY tenant, source_id, document_id ORDER BY first_seen) AS superseded_at
    FROM (SELECT DISTINCT tenant, source_id, document_id, first_seen FROM versions)
),
stale AS (
    SELECT DISTINCT d.tenant, d.source, d.run_id, d.attempt
    FROM documents AS d
    JOIN versions AS v
        ON d.tenant = v.tenant AND d.source_id = v.source_id AND d.document_id = v.document_id AND d.version = v.version
    JOIN moments AS m
        ON v.tenant = m.tenant AND v.source_id = m.source_id AND v.document_id = m.document_id
        AND v.first_seen = m.first_seen
    WHERE d.ended_at >= m.superseded_at
),
latencies AS (
    SELECT tenant, task, median(CAST(latency_total_micros AS DOUBLE)) AS median_latency
    FROM run
    WHERE latency_total_micros IS NOT NULL
    GROUP BY tenant, task
    HAVING count(*) >= {least}
),
costs AS (
    SELECT tenant, task, cost_currency, median(CAST(cost_nanos AS DOUBLE)) AS median_cost
    FROM run
    WHERE cost_nanos IS NOT NULL
    GROUP BY tenant, task, cost_currency
    HAVING count(*) >= {least}
)
SELECT
    r.tenant, r.source, r.run_id, r.attempt, r.ended_at, r.task, r.release_id, r.release_fingerprint, r.stage, r.outcome_status,
    r.outcome_reason_code, r.failure_component, r.failure_step, r.failure_error_type, r.validation_valid, r.escalated,
    r.escalation_reason_code, r.latency_total_micros, r.cost_nanos, r.tool_calls_failed, r.sampling_probability,
    r.field_errors, r.tool_calls, r.policy_exceptions,
    coalesce(s.judges_good, 0) AS judges_good, coalesce(s.judges_bad, 0) AS judges_bad,
    coalesce(s.people_good, 0) AS people_good, coalesce(s.people_bad, 0) AS people_bad,
    coalesce(s.feedback_bad, 0) AS feedback_bad, o.run_id IS NOT NULL AS stale, l.median_latency, c.median_cost
FROM run AS r
LEFT JOIN said AS s ON s.run_id = r.run_id AND s.tenant = r.tenant
LEFT JOIN stale AS o ON o.tenant = r.tenant AND o.source = r.source AND o.run_id = r.run_id AND o.attempt = r.attempt
LEFT JOIN latencies AS l ON l.tenant = r.tenant AND l.task = r.task
LEFT JOIN costs AS c ON c.tenant = r.tenant AND c.task = r.task AND c.cost_currency = r.cost_currency
