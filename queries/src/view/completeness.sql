-- The completeness of each window of the last hour: the share of partitions that are past its end, by their newest event (at most its arrival), or because no message was waiting in them five minutes after it. Partitions without events for a day are left out.
-- column window_start: start of the one-minute window
-- column window_end: end of the window
-- column runs: runs in it so far, weighted by 1 / sampling probability
-- column partitions: partitions with an event in the last day
-- column partitions_past: partitions that are past the window's end
-- column completeness: partitions_past / partitions; null without partitions
-- column complete: true if every partition is past it
-- example: SELECT * FROM completeness WHERE NOT complete
WITH windows AS (
    SELECT window_start, window_start + INTERVAL '1 minute' AS window_end
    FROM (
        SELECT unnest(generate_series(
            date_bin(INTERVAL '1 minute', now()) - INTERVAL '59 minutes', date_bin(INTERVAL '1 minute', now()),
            INTERVAL '1 minute'
        )) AS window_start
    )
),
partitions AS (
    SELECT
        e.topic, e.partition,
        greatest(e.newest_event, coalesce(r.read_to - INTERVAL '5 minutes', e.newest_event)) AS newest_event
    FROM (
        SELECT topic, partition, max(least(event_time, ingested_at)) AS newest_event
        FROM events
        WHERE event_date >= CAST(now() - INTERVAL '1 day' AS DATE) AND event_time >= now() - INTERVAL '1 day'
        GROUP BY topic, partition
    ) AS e
    LEFT JOIN (
        SELECT topic, partition, max(read_to) AS read_to
        FROM ingest_numbers
        WHERE end_offset IS NOT NULL
        GROUP BY topic, partition
    ) AS r ON r.topic = e.topic AND r.partition = e.partition
),
counted AS (
    SELECT window_start, sum(weight) AS runs
    FROM runs
    WHERE ended_at >= now() - INTERVAL '61 minutes'
    GROUP BY window_start
)
SELECT
    w.window_start, w.window_end,
    coalesce(whole(max(c.runs)), 0) AS runs,
    count(p.topic) AS partitions,
    count(p.topic) FILTER (WHERE p.newest_event >= w.window_end) AS partitions_past,
    CAST(count(p.topic) FILTER (WHERE p.newest_event >= w.window_end) AS DOUBLE)
        / nullif(count(p.topic), 0) AS completeness,
    count(p.topic) > 0 AND count(p.topic) = count(p.topic) FILTER (WHERE p.newest_event >= w.window_end) AS complete
FROM windows AS w
LEFT JOIN partitions AS p ON true
LEFT JOIN counted AS c ON c.window_start = w.window_start
GROUP BY w.window_start, w.window_end
ORDER BY w.window_start
