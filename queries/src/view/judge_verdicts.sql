-- Verdicts of judges on runs, beside people's decisions. One row per run, judge, version of the judge and criterion: the latest score with `passed` of a model or of code, inside the run or sent later. Runs of offline evaluations are left out.
-- column kind: llm: a model; code: a rule
-- column evaluator_version: version of the judge; empty if none was stated
-- column criterion: name of the score
-- column passed: the verdict
-- column judged_at: time of the verdict; the end of the run if it states the score itself
-- column sampling_probability: probability with which the producer kept the run; 1 if unsampled
-- column candidate_id: the candidate, if the run is in a sample for review
-- column decision: what people decided: accept, reject or edit; null if the run has no decision
-- column person_passed: true for accept, false for reject and edit
-- column review_probability: as in current_candidates
-- example: SELECT run_id, evaluator_id, evaluator_version, passed, person_passed FROM judge_verdicts WHERE decision IS NOT NULL LIMIT 10
WITH run AS (
    SELECT
        tenant, source, run_id, attempt, ended_at, task, release_id, stage, coalesce(sampling_probability, 1.0) AS sampling_probability,
        scores, attempt = max(attempt) OVER (PARTITION BY tenant, source, run_id) AS is_last
    FROM runs
    WHERE coalesce(stage, '') <> 'offline_eval'
),
late AS (
    SELECT run_id, tenant, event_time, revision, content_hash, scores[1] AS score FROM events WHERE event_type = 'run.score'
),
stated AS (
    SELECT
        * EXCEPT (scores, is_last), ended_at AS judged_at, CAST(0 AS BIGINT) AS revision, CAST(0 AS BIGINT) AS content_hash,
        unnest(scores) AS score
    FROM run
    WHERE cardinality(scores) > 0
    UNION ALL
    -- A later score is about the last attempt of each run with its id, of its tenant if it names one.
    SELECT
        r.tenant, r.source, r.run_id, r.attempt, r.ended_at, r.task, r.release_id, r.stage, r.sampling_probability,
        l.event_time, l.revision, l.content_hash, l.score
    FROM run AS r
    JOIN late AS l ON l.run_id = r.run_id AND (l.tenant = r.tenant OR l.tenant = '')
    WHERE r.is_last
),
newest AS (
    SELECT * FROM (
        SELECT
            * EXCEPT (score, stage), score['kind'] AS kind, score['evaluator_id'] AS evaluator_id,
            coalesce(score['evaluator_version'], '') AS evaluator_version, score['name'] AS criterion, score['passed'] AS passed,
            row_number() OVER (
                PARTITION BY
                    tenant, source, run_id, attempt, score['kind'], score['evaluator_id'], coalesce(score['evaluator_version'], ''),
                    score['name']
                ORDER BY revision DESC, judged_at DESC, content_hash DESC
            ) AS place
        FROM stated
        WHERE coalesce(score['target'], 'run') = 'run' AND score['kind'] IN ('llm', 'code')
    ) WHERE place = 1 AND passed IS NOT NULL
)
SELECT
    n.tenant, n.source, n.run_id, n.attempt, n.ended_at, n.task, n.release_id, n.kind, n.evaluator_id, n.evaluator_version,
    n.criterion, n.passed, n.judged_at, n.sampling_probability,
    c.candidate_id, c.class, c.severity, c.signature, c.decision, c.passed AS person_passed, c.reviewers, c.last_reviewed,
    c.inclusion_probability, c.review_probability
FROM newest AS n
LEFT JOIN current_candidates AS c
    ON c.run_id = n.run_id AND c.tenant = n.tenant AND c.source = n.source AND c.attempt = n.attempt
