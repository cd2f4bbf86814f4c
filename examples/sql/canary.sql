-- Is the canary worse than the release in full rollout, and by how much? Both are compared over the same day.
SELECT task, stage, release_id, runs, success_rate, success_rate_low, success_rate_high, escalation_rate,
    latency_ms_p95, cost_per_completed_task
FROM rolling
WHERE span = '24h'
ORDER BY task, stage, release_id;

-- Is it worse beyond chance? From ln(1/0.01) = 4.6 on, the chance of a false alarm is at most 1 %, however often you look.
WITH blocks AS (
    SELECT task, date_bin(INTERVAL '5 minutes', window_start) AS block,
        sum(runs - unknown - success) FILTER (WHERE stage = 'full') AS failed_a,
        sum(runs - unknown) FILTER (WHERE stage = 'full') AS runs_a,
        sum(runs - unknown - success) FILTER (WHERE stage = 'canary') AS failed_b,
        sum(runs - unknown) FILTER (WHERE stage = 'canary') AS runs_b
    FROM metrics
    GROUP BY task, block
)
SELECT task, e2x2_log_e(failed_a, runs_a, failed_b, runs_b, 1.15) AS log_e FROM blocks GROUP BY task ORDER BY task;
