-- How far each Kafka partition, or replayed file, has been read, as ingest last said. Ingest says it once a minute or more often, also where nothing comes: a `read_to` that stands still means that messages wait, or that no worker reads the partition.
-- column job: `kafka.job` of the worker; `replay` for files
-- column topic: Kafka topic, or `file:NAME`
-- column partition: Kafka partition
-- column next_offset: offset to be read next; null where nothing was taken yet
-- column end_offset: offset after the last message that the broker holds, as far as it has been asked; null where nobody asks it: files, partitions that are gone, and topics that are not read any more
-- column unread: messages that wait, about: end_offset − next_offset
-- column read_to: all that the broker held at this moment is in the tables; null: not yet so
-- column read_lag_s: now − read_to, s
-- example: SELECT * FROM ingest_progress ORDER BY read_lag_s DESC
SELECT
    job, topic, partition, next_offset, end_offset,
    CASE WHEN end_offset IS NOT NULL THEN greatest(end_offset - coalesce(next_offset, 0), 0) END AS unread,
    read_to,
    date_part('epoch', now()) - date_part('epoch', read_to) AS read_lag_s
FROM ingest_numbers
