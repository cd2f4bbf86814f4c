-- One row a run: of several statements of one run the greatest (revision, event_time, content_hash), exact retries dropped. An attempt counts as a run of its own.
-- column window_start: start of the one-minute window in which the run ended
-- column completed: true where the task succeeded
-- column judged: true where the outcome is known
-- column latency_ms: duration of the run, ms
-- column ttft_ms: request to first streamed chunk, ms
-- column cost: cost of the run, units of `cost_currency`
-- column weight: runs this one stands for: 1 / sampling probability
-- example: SELECT ended_at, task, release_id, outcome_status, latency_ms, cost FROM runs ORDER BY ended_at DESC LIMIT 10
WITH ranked AS (
    SELECT
        run_id, source, attempt, topic, partition, "offset",
        row_number() OVER (
            PARTITION BY run_id, source, attempt
            ORDER BY revision DESC, event_time DESC, content_hash DESC, topic, partition, "offset"
        ) AS place
    FROM events
    WHERE event_type = 'run.completed'
),
-- Few rows are superseded, so that this side of the join is small; an outer join, because a condition on run_id then
-- reaches both sides.
superseded AS (
    SELECT run_id, source, attempt, topic, partition, "offset" FROM ranked WHERE place > 1
)
SELECT
    date_bin(INTERVAL '1 minute', e.ended_at, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start,
    e.outcome_status = 'success' AS completed,
    e.outcome_status <> 'unknown' AS judged,
    CAST(e.latency_total_micros AS DOUBLE) / 1e3 AS latency_ms,
    CAST(e.latency_ttft_micros AS DOUBLE) / 1e3 AS ttft_ms,
    CAST(e.cost_nanos AS DOUBLE) / 1e9 AS cost,
    CAST(e.weight_micros AS DOUBLE) / 1e6 AS weight,
    e.* EXCEPT (
        event_type, supersedes, review_id, review_queue, reviewer, review_decision, review_failure_mode,
        review_severity, review_sets_outcome, review_make_eval_case, review_duration_micros,
        review_sampling_weight, review_rubric_version, review_json
    )
FROM events AS e
LEFT JOIN superseded AS s
    ON e.run_id = s.run_id AND e.source = s.source AND e.attempt = s.attempt
    AND e.topic = s.topic AND e.partition = s.partition AND e."offset" = s."offset"
WHERE e.event_type = 'run.completed' AND s.run_id IS NULL
