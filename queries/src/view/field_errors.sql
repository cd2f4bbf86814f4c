-- Invalid fields of final answers: one row per task, release, stage, JSON pointer and rule. Counts are weighted by 1 / sampling probability.
-- column pointer: JSON pointer into the answer
-- column rule: schema rule that failed; empty if none was named
-- column errors: number of errors
-- column runs: runs with at least one such error
-- column applicable: runs of the same task, release and stage whose answer has a schema
-- column rate: runs / applicable
-- column first_seen: end of the first such run
-- column last_seen: end of the last such run
-- column example_run_id: the newest such run
-- column example_message: message of the validator
-- example: SELECT task, release_id, pointer, rule, runs, applicable, rate FROM field_errors ORDER BY rate DESC LIMIT 10
WITH errors AS (
    SELECT
        tenant, task, release_id, release_fingerprint, stage, source, run_id, attempt, ended_at, weight_micros,
        unnest(field_errors) AS error
    FROM runs
    WHERE validation_applicable
),
per_run AS (
    SELECT
        tenant, task, release_id, release_fingerprint, stage, source, run_id, attempt, ended_at, weight_micros,
        error['path'] AS pointer,
        coalesce(error['rule'], '') AS rule,
        count(*) AS errors,
        min(error['message']) AS message
    FROM errors
    GROUP BY
        tenant, task, release_id, release_fingerprint, stage, source, run_id, attempt, ended_at, weight_micros,
        pointer, rule
),
applicable AS (
    SELECT tenant, task, release_id, release_fingerprint, stage, sum(CAST(weight_micros AS DECIMAL(38, 0))) AS weight_micros
    FROM runs
    WHERE validation_applicable
    GROUP BY tenant, task, release_id, release_fingerprint, stage
),
counted AS (
    SELECT
        tenant, task, release_id, release_fingerprint, stage, pointer, rule,
        sum(CAST(errors AS DECIMAL(19, 0)) * CAST(weight_micros AS DECIMAL(19, 0))) AS error_micros,
        sum(CAST(weight_micros AS DECIMAL(38, 0))) AS run_micros,
        min(ended_at) AS first_seen,
        max(ended_at) AS last_seen,
        first_value(run_id ORDER BY ended_at DESC, run_id DESC, source DESC, attempt DESC) AS example_run_id,
        first_value(message ORDER BY ended_at DESC, run_id DESC, source DESC, attempt DESC) AS example_message
    FROM per_run
    GROUP BY tenant, task, release_id, release_fingerprint, stage, pointer, rule
)
SELECT
    c.tenant, c.task, c.release_id, c.release_fingerprint, c.stage, c.pointer, c.rule,
    whole(c.error_micros / 1e6) AS errors,
    whole(c.run_micros / 1e6) AS runs,
    whole(a.weight_micros / 1e6) AS applicable,
    CAST(c.run_micros AS DOUBLE) / CAST(a.weight_micros AS DOUBLE) AS rate,
    c.first_seen, c.last_seen, c.example_run_id, c.example_message
FROM counted AS c
JOIN applicable AS a
    ON c.tenant = a.tenant AND c.task = a.task AND c.release_id = a.release_id
    AND c.release_fingerprint = a.release_fingerprint AND c.stage = a.stage
