-- The freshness of each table, by topic and partition: newest event, newest arrival, the age of both, and the time up to which the partition was read. A table computed from `events` has one row. Events of a producer with a fast clock count as of their arrival, and the producer is named.
-- column table_name: table
-- column topic: Kafka topic; null for a computed table
-- column partition: Kafka partition; null for a computed table
-- column table_rows: rows
-- column next_offset: offset after the newest row; null for a computed table
-- column newest_event: newest event time, at most its arrival; or newest window that has begun
-- column newest_arrival: time at which the newest row arrived; null for a computed table
-- column event_lag_s: now − newest_event, s
-- column arrival_lag_s: now − newest_arrival, s
-- column unread: approximate number of messages waiting in Kafka, as ingest last recorded; null if it recorded none
-- column read_to: time at which every message that Kafka held is in the table, see `ingest_progress`; null if no such time is known
-- column read_lag_s: now − read_to, s
-- column ahead_seconds: greatest lead of event time over arrival in the last hour, s; null if none exceeded a second
-- column ahead_source: producer with that clock
-- example: SELECT * FROM freshness ORDER BY event_lag_s DESC
WITH parts AS (
    SELECT
        -- Constants in the branches of a union confuse the engine when a query sorts by them; aggregates do not.
        max('events') AS table_name, topic, partition, count(*) AS table_rows, max("offset") + 1 AS next_offset,
        max(least(event_time, ingested_at)) AS newest_event, max(ingested_at) AS newest_arrival
    FROM events
    GROUP BY topic, partition
    UNION ALL
    SELECT
        max('quarantine') AS table_name, topic, partition, count(*) AS table_rows, max("offset") + 1 AS next_offset,
        max(least(kafka_timestamp, quarantined_at)) AS newest_event, max(quarantined_at) AS newest_arrival
    FROM quarantine
    GROUP BY topic, partition
    UNION ALL
    SELECT
        -- Nulls as such would be folded into a filter on them, which is then lost on its way to the scan.
        max('metrics') AS table_name, max(task) FILTER (WHERE window_start IS NULL) AS topic,
        CAST(max(runs) FILTER (WHERE window_start IS NULL) AS INT) AS partition,
        count(*) AS table_rows, NULL AS next_offset,
        max(window_start) FILTER (WHERE window_start <= now()) AS newest_event, NULL AS newest_arrival
    FROM metrics
    HAVING count(*) > 0
),
-- An event of the last hour's arrivals may be of a day before, and of a clock that is ahead, of the next one.
clocks AS (
    SELECT
        topic, partition, source,
        max(date_part('epoch', greatest(event_time, coalesce(ended_at, event_time)))
            - date_part('epoch', ingested_at)) AS ahead
    FROM events
    WHERE event_date >= CAST(now() - INTERVAL '1 day' AS DATE) AND ingested_at >= now() - INTERVAL '1 hour'
    GROUP BY topic, partition, source
),
ahead AS (
    SELECT topic, partition, max(ahead) AS ahead_seconds, first_value(source ORDER BY ahead DESC, source) AS ahead_source
    FROM clocks
    WHERE ahead > 1.0
    GROUP BY topic, partition
),
-- Of several jobs that read a partition, the one that is furthest counts.
progress AS (
    SELECT topic, partition, min(unread) AS unread, max(read_to) AS read_to
    FROM (
        SELECT topic, partition, read_to, greatest(end_offset - coalesce(next_offset, 0), 0) AS unread
        FROM ingest_numbers
        WHERE end_offset IS NOT NULL
    )
    GROUP BY topic, partition
)
SELECT
    p.table_name, p.topic, p.partition, p.table_rows, p.next_offset, p.newest_event, p.newest_arrival,
    date_part('epoch', now()) - date_part('epoch', p.newest_event) AS event_lag_s,
    date_part('epoch', now()) - date_part('epoch', p.newest_arrival) AS arrival_lag_s,
    r.unread, r.read_to,
    date_part('epoch', now()) - date_part('epoch', r.read_to) AS read_lag_s,
    a.ahead_seconds, a.ahead_source
FROM parts AS p
LEFT JOIN progress AS r ON p.table_name <> 'metrics' AND r.topic = p.topic AND r.partition = p.partition
LEFT JOIN ahead AS a ON p.table_name = 'events' AND a.topic = p.topic AND a.partition = p.partition
