-- The times at which each release of a task ran, in a week and in the weeks before it with which it is compared. Superseded events
-- count too: folding the runs of so many weeks would cost more than it is worth.
SELECT
    tenant, task, release_id, min(ended_at) AS first_seen, max(ended_at) FILTER (WHERE NOT ({week})) AS last_before
FROM events
WHERE event_type = 'run.completed' AND {weeks} AND release_id IS NOT NULL AND coalesce(stage, '') <> 'offline_eval'
GROUP BY tenant, task, release_id
