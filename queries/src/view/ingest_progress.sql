-- How far each Kafka partition, or replayed file, has been read, as ingest last recorded. Ingest records it at least once a minute, even without messages: a `read_to` that does not advance means that messages are waiting, or that no worker reads the partition.
-- column job: `kafka.job` of the worker; `replay` for files
-- column topic: Kafka topic, or `file:NAME`
-- column partition: Kafka partition
-- column next_offset: offset to read next; null if nothing was read yet
-- column end_offset: offset after the last message that the broker held when it was last asked; null for files, removed partitions and topics that are no longer read
-- column unread: messages waiting, approximately: end_offset − next_offset
-- column read_to: everything that the broker held at this time is in the tables; null if that was never so
-- column read_lag_s: now − read_to, s
-- example: SELECT * FROM ingest_progress ORDER BY read_lag_s DESC
SELECT
    job, topic, partition, next_offset, end_offset,
    CASE WHEN end_offset IS NOT NULL THEN greatest(end_offset - coalesce(next_offset, 0), 0) END AS unread,
    read_to,
    date_part('epoch', now()) - date_part('epoch', read_to) AS read_lag_s
FROM ingest_numbers
