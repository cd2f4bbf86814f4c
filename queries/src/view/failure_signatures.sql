-- Failure signatures in the samples for review: when and in which release each was first and last seen, and how many runs it stands for. One row per tenant, task, class and signature. A sample can miss a rare failure, so seen means seen in a sample.
-- column task: task; empty if none was named
-- column first_seen: end of its first run
-- column last_seen: end of its latest run
-- column first_release: release of its first run; null if none was named
-- column last_release: release of its latest run
-- column first_week: ISO week of its first run
-- column last_week: ISO week of its latest run
-- column weeks: weeks in whose samples it is
-- column weeks_absent: weeks without it between its latest week and the one before that; 0 if there are none
-- column history: new: its latest week is its first, and its task was sampled before; back: it was absent before its latest week; known: neither
-- column candidates: its runs in the samples
-- column runs: estimated runs of production with it, of all its weeks
-- example: SELECT task, signature, history, first_release, last_seen, weeks_absent, runs FROM failure_signatures ORDER BY last_seen DESC LIMIT 10
WITH sampled AS (
    SELECT
        tenant, coalesce(task, '') AS task, class, signature, kind, candidate_id, ended_at, release_id, week,
        date_trunc('week', ended_at) AS monday, 1 / inclusion_probability AS runs
    FROM (
        SELECT *, row_number() OVER (PARTITION BY candidate_id ORDER BY number DESC) AS place FROM candidates
    ) WHERE place = 1 AND change = 'taken'
),
first_sample AS (
    SELECT tenant, task, min(week) AS week FROM sampled GROUP BY tenant, task
),
by_week AS (
    SELECT
        tenant, task, class, signature, week, monday, count(*) AS candidates, sum(runs) AS runs,
        min(ended_at) AS first_seen, max(ended_at) AS last_seen,
        first_value(release_id ORDER BY ended_at, candidate_id) AS first_release,
        last_value(release_id ORDER BY ended_at, candidate_id) AS last_release
    FROM sampled
    WHERE kind = 'failure'
    GROUP BY tenant, task, class, signature, week, monday
),
spaced AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY tenant, task, class, signature ORDER BY monday DESC) = 1 AS is_latest,
        lag(monday) OVER (PARTITION BY tenant, task, class, signature ORDER BY monday) AS monday_before
    FROM by_week
),
summed AS (
    SELECT
        tenant, task, class, signature, min(first_seen) AS first_seen, max(last_seen) AS last_seen,
        first_value(first_release ORDER BY monday) AS first_release, last_value(last_release ORDER BY monday) AS last_release,
        min(week) AS first_week, max(week) AS last_week, count(*) AS weeks,
        coalesce(max(
            CASE WHEN is_latest THEN CAST(date_part('epoch', monday) - date_part('epoch', monday_before) AS BIGINT) / 604800 - 1 END
        ), 0) AS weeks_absent,
        sum(candidates) AS candidates, sum(runs) AS runs
    FROM spaced
    GROUP BY tenant, task, class, signature
)
SELECT
    s.tenant, s.task, s.class, s.signature, s.first_seen, s.last_seen, s.first_release, s.last_release, s.first_week, s.last_week,
    s.weeks, s.weeks_absent,
    CASE
        WHEN s.weeks_absent > 0 THEN 'back'
        WHEN s.weeks = 1 AND s.first_week > f.week THEN 'new'
        ELSE 'known'
    END AS history,
    s.candidates, s.runs
FROM summed AS s
JOIN first_sample AS f ON f.tenant = s.tenant AND f.task = s.task
