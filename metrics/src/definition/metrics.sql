-- The definition of the metrics: the contribution of one run to its window and group.
--
-- `contributions` holds resolved runs (runs.sql) with a sign: 1 for the current state, -1 for a previous state that is
-- retracted. Every count is a sum of signs and every sum is a sum of sign × value, so corrections cancel exactly and
-- partial rows fold to the same result in any order. Unknown outcomes are neither successes nor judged.
--
-- `count_of`, `sum_of` and `sketch_of` ignore a null condition or value; a plain sum is used for columns without nulls.
-- `../function/aggregate.rs` documents these functions. Rates and intervals are in figures.sql.
WITH run AS (
    SELECT
        *,
        -- The session id alone is enough: a row of `metrics` belongs to one tenant, and so do its sessions.
        random_group(coalesce(session_id, run_id)) AS random_group,
        outcome_status = 'success' AS is_success,
        outcome_status <> 'unknown' AS is_judged,
        policy_exceptions_info + policy_exceptions_low + policy_exceptions_medium + policy_exceptions_high
            + policy_exceptions_critical > 0 AS has_exception
    FROM contributions
)
SELECT
    date_bin(INTERVAL '1 minute', ended_at, TIMESTAMP '1970-01-01T00:00:00Z') AS window_start,
    tenant,
    task,
    release_id,
    release_fingerprint,
    coalesce(model, '') AS model,
    stage,
    weight_micros,
    coalesce(cost_currency, '') AS cost_currency,

    count_of(sign, TRUE) AS runs,
    count_of(sign, is_success) AS success,
    count_of(sign, outcome_status = 'failure') AS failure,
    count_of(sign, outcome_status = 'error') AS error,
    count_of(sign, outcome_status = 'timeout') AS timeout,
    count_of(sign, outcome_status = 'abandoned') AS abandoned,
    count_of(sign, NOT is_judged) AS unknown,
    count_of(sign, is_judged AND outcome_source = 'human') AS judged_by_human,
    count_of(sign, is_judged AND outcome_source IN ('rule', 'environment', 'code', 'business')) AS judged_by_rule,
    count_of(sign, is_judged AND outcome_source = 'llm') AS judged_by_llm,
    count_of(sign, label_delay_micros IS NOT NULL) AS late_verdicts,
    count_of(sign, escalated) AS escalated,
    count_of(sign, validation_applicable AND validation_valid IS NOT NULL) AS schema_applicable,
    count_of(sign, validation_applicable AND validation_valid) AS schema_valid,
    count_of(sign, validation_applicable AND validation_first_attempt_valid IS NOT NULL) AS first_pass_applicable,
    count_of(sign, validation_applicable AND validation_first_attempt_valid) AS first_pass_valid,
    count_of(sign, fields_invalid > 0) AS runs_with_field_errors,
    count_of(sign, has_exception) AS runs_with_policy_exception,
    count_of(sign, session_id IS NOT NULL) AS runs_in_sessions,

    sum_of(sign, fields_total) AS fields_total,
    sum_of(sign, fields_invalid) AS fields_invalid,
    sum_of(sign, llm_calls) AS llm_calls,
    sum_of(sign, turns) AS turns,
    sum(sign * tool_calls_total) AS tool_calls,
    sum(sign * tool_calls_failed) AS tool_calls_failed,
    sum(sign * retrieval_calls) AS retrieval_calls,
    sum(sign * retrieval_empty) AS retrieval_empty,
    sum(sign * retrieval_errors) AS retrieval_errors,
    sum(sign * policy_exceptions_info) AS policy_exceptions_info,
    sum(sign * policy_exceptions_low) AS policy_exceptions_low,
    sum(sign * policy_exceptions_medium) AS policy_exceptions_medium,
    sum(sign * policy_exceptions_high) AS policy_exceptions_high,
    sum(sign * policy_exceptions_critical) AS policy_exceptions_critical,

    sum_of(sign, tokens_input) AS tokens_input,
    sum_of(sign, tokens_input_cache_read) AS tokens_input_cache_read,
    sum_of(sign, tokens_input_cache_write) AS tokens_input_cache_write,
    sum_of(sign, tokens_output) AS tokens_output,
    sum_of(sign, tokens_reasoning) AS tokens_reasoning,
    count_of(sign, latency_total_micros IS NOT NULL) AS latency_runs,
    sum_of(sign, latency_total_micros) AS latency_micros_sum,
    sum_of_products(sign, latency_total_micros, latency_total_micros) AS latency_micros_squares,
    count_of(sign, latency_ttft_micros IS NOT NULL) AS ttft_runs,
    sum_of(sign, latency_ttft_micros) AS ttft_micros_sum,
    sum_of_products(sign, latency_ttft_micros, latency_ttft_micros) AS ttft_micros_squares,
    sum_of(sign, label_delay_micros) AS label_delay_micros_sum,
    count_of(sign, cost_nanos IS NOT NULL) AS cost_runs,
    sum_of(sign, cost_nanos) AS cost_nanos_sum,
    sum_of_products(sign, cost_nanos, cost_nanos) AS cost_nanos_squares,
    sum_of_products(sign, cost_nanos, CAST(is_success AS BIGINT)) AS cost_success_nanos_sum,

    random_groups(random_group, sign) AS groups_runs,
    random_groups(random_group, sign * CAST(is_judged AS BIGINT)) AS groups_judged,
    random_groups(random_group, sign * CAST(is_success AS BIGINT)) AS groups_success,
    random_groups(random_group, sign * CAST(escalated AS BIGINT)) AS groups_escalated,
    random_groups(random_group, sign * cost_nanos) AS groups_cost_nanos,

    sketch_of(latency_total_micros, sign) AS latency_sketch,
    sketch_of(latency_ttft_micros, sign) AS ttft_sketch,
    sketch_of(cost_nanos, sign) AS cost_sketch,
    sketch_of(label_delay_micros, sign) AS label_delay_sketch,

    -- A missing value is unknown, not zero: these columns count the runs behind each sum of tokens.
    count_of(
        sign,
        coalesce(
            tokens_input, tokens_input_cache_read, tokens_input_cache_write, tokens_output, tokens_reasoning
        ) IS NOT NULL
    ) AS tokens_runs,
    count_of(sign, tokens_input IS NOT NULL) AS tokens_input_runs,
    count_of(sign, tokens_input_cache_read IS NOT NULL) AS tokens_input_cache_read_runs,
    count_of(sign, tokens_input_cache_write IS NOT NULL) AS tokens_input_cache_write_runs,
    count_of(sign, tokens_output IS NOT NULL) AS tokens_output_runs,
    count_of(sign, tokens_reasoning IS NOT NULL) AS tokens_reasoning_runs,
    count_of(sign, llm_calls IS NOT NULL) AS llm_calls_runs,
    count_of(sign, turns IS NOT NULL) AS turns_runs
FROM run
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
