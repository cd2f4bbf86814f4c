-- How fresh each table is, per topic and partition: newest event, newest arrival, and how long ago both were. A table computed from `events` has one row.
-- column table_name: table
-- column topic: Kafka topic; null for a computed table
-- column partition: Kafka partition; null for a computed table
-- column table_rows: rows
-- column next_offset: offset after the newest row; null for a computed table
-- column newest_event: newest event time, or newest window
-- column newest_arrival: when the newest row arrived; null for a computed table
-- column event_lag_s: now − newest_event, s
-- column arrival_lag_s: now − newest_arrival, s
-- example: SELECT * FROM freshness ORDER BY event_lag_s DESC
WITH parts AS (
    SELECT
        'events' AS table_name, topic, partition, count(*) AS table_rows, max("offset") + 1 AS next_offset,
        max(event_time) AS newest_event, max(ingested_at) AS newest_arrival
    FROM events
    GROUP BY topic, partition
    UNION ALL
    SELECT
        'quarantine' AS table_name, topic, partition, count(*) AS table_rows, max("offset") + 1 AS next_offset,
        max(kafka_timestamp) AS newest_event, max(quarantined_at) AS newest_arrival
    FROM quarantine
    GROUP BY topic, partition
    UNION ALL
    SELECT
        'metrics' AS table_name, NULL AS topic, NULL AS partition, count(*) AS table_rows, NULL AS next_offset,
        max(window_start) AS newest_event, NULL AS newest_arrival
    FROM metrics
    HAVING count(*) > 0
)
SELECT
    table_name, topic, partition, table_rows, next_offset, newest_event, newest_arrival,
    date_part('epoch', now()) - date_part('epoch', newest_event) AS event_lag_s,
    date_part('epoch', now()) - date_part('epoch', newest_arrival) AS arrival_lag_s
FROM parts
