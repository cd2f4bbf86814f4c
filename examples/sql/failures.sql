-- Which failures are most common, and which run is an example of each?
SELECT task, release_id, outcome_status, outcome_reason_code, failure_component, count(*) AS runs, max(run_id) AS example
FROM runs
WHERE judged AND NOT completed
GROUP BY task, release_id, outcome_status, outcome_reason_code, failure_component
ORDER BY runs DESC
LIMIT 20;

-- Which tools fail?
SELECT tool, error_type, sum(weight) AS calls, sum(weight) FILTER (WHERE failed) AS failed
FROM tool_calls
GROUP BY tool, error_type
ORDER BY calls DESC;

-- Which fields of structured answers break?
SELECT task, release_id, pointer, rule, runs, applicable, rate, example_run_id FROM field_errors ORDER BY rate DESC LIMIT 20;
