-- The read progress of each Kafka partition, or replayed file, as ingest last recorded it. Ingest records it at least once a minute, even without messages: a `read_to` that does not advance means that messages are waiting, or that no worker reads the partition.
-- column job: `kafka.job` of the worker; `replay` for files
-- column topic: Kafka topic, or `file:NAME`
-- column partition: Kafka partition
-- column next_offset: offset to read next; null if nothing was read yet
-- column end_offset: offset after the last message that the broker held when it was last asked; null for files, removed partitions and topics that are no longer read
-- column unread: approximate number of messages waiting: end_offset − next_offset
-- column read_to: time at which every message that the broker held is in the tables; null if no such time is known
-- column read_lag_s: now − read_to, s
-- example: SELECT * FROM ingest_progress ORDER BY read_lag_s DESC
SELECT
    job, topic, partition, next_offset, end_offset,
    CASE WHEN end_offset IS NOT NULL THEN greatest(end_offset - coalesce(next_offset, 0), 0) END AS unread,
    read_to,
    date_part('epoch', now()) - date_part('epoch', read_to) AS read_lag_s
FROM ingest_numbers
