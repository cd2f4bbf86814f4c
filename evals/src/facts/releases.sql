-- When each release of a task ran, in a week and in those before it to which it is compared. All statements about runs count,
-- superseded ones included: the runs of so many weeks are not worth being folded for it.
SELECT
    tenant, task, release_id, min(ended_at) AS first_seen, max(ended_at) FILTER (WHERE NOT ({week})) AS last_before
FROM events
WHERE event_type = 'run.completed' AND {weeks} AND release_id IS NOT NULL AND coalesce(stage, '') <> 'offline_eval'
GROUP BY tenant, task, release_id
