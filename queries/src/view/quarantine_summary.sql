-- Rejected messages by reason and topic, with the newest of each as an example.
-- column messages: rejected messages
-- column share: share of all rejected messages of the topic
-- column first_seen: when the first was rejected
-- column last_seen: when the last was rejected
-- column example_pointer: newest message: JSON pointer to the problem
-- column example_message: newest message: the problem and what to do
-- column example_partition: newest message: Kafka partition
-- column example_offset: newest message: Kafka offset
-- example: SELECT * FROM quarantine_summary ORDER BY messages DESC
SELECT
    reason, topic,
    count(*) AS messages,
    CAST(count(*) AS DOUBLE) / CAST(sum(count(*)) OVER (PARTITION BY topic) AS DOUBLE) AS share,
    min(quarantined_at) AS first_seen,
    max(quarantined_at) AS last_seen,
    first_value(pointer ORDER BY quarantined_at DESC, partition DESC, "offset" DESC) AS example_pointer,
    first_value(message ORDER BY quarantined_at DESC, partition DESC, "offset" DESC) AS example_message,
    first_value(partition ORDER BY quarantined_at DESC, partition DESC, "offset" DESC) AS example_partition,
    first_value("offset" ORDER BY quarantined_at DESC, partition DESC, "offset" DESC) AS example_offset
FROM quarantine
GROUP BY reason, topic
