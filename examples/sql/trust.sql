-- Can the numbers be trusted now? How fresh each table is, and which messages wait.
SELECT * FROM freshness ORDER BY event_lag_s DESC;

-- What was rejected, and what would mend it?
SELECT reason, messages, share, example_pointer, example_message FROM quarantine_summary ORDER BY messages DESC;

-- Verdicts about runs that have not arrived.
SELECT event_type, source, reason, count(*) AS statements, max(waited_s) AS longest_s FROM orphans
GROUP BY event_type, source, reason;
