-- The figures of a group, from partials folded under `folded`: every rate with numerator, denominator and a 95 %
-- interval. `{key}` stands for the group's columns.
--
-- Counts are weighted by 1 / sampling probability and rounded to whole runs for display; rates are not rounded. `kish` is
-- the share of information that uneven weights leave (Kish, "Survey Sampling", 1965): 1 where nothing is sampled.
-- Intervals of success and escalation are Wilson's, and where there are sessions the wider of it and the one by random
-- groups of sessions, so that many runs of one session do not feign certainty; cost per completed task takes the latter where there are sessions and
-- Fieller's otherwise; rates per call are Wilson's, policy exceptions Poisson.
SELECT
    {key},
    CAST(round(runs) AS BIGINT) AS runs,
    CAST(runs_observed AS BIGINT) AS runs_observed,
    CAST(round(judged) AS BIGINT) AS judged,
    judged / runs AS coverage,
    CAST(round(unknown) AS BIGINT) AS unknown,
    unknown / runs AS unknown_share,
    CAST(round(judged_by_human) AS BIGINT) AS judged_by_human,
    CAST(round(judged_by_rule) AS BIGINT) AS judged_by_rule,
    CAST(round(judged_by_llm) AS BIGINT) AS judged_by_llm,
    CAST(round(late_verdicts) AS BIGINT) AS late_verdicts,
    sketch_quantile(label_delay_sketch, 0.5) / 1e6 AS label_delay_s_p50,
    sketch_quantile(label_delay_sketch, 0.95) / 1e6 AS label_delay_s_p95,

    CAST(round(success) AS BIGINT) AS success,
    success / nullif(judged, 0) AS success_rate,
    wider_low(success, judged, kish, sessions_success, sessions_judged) AS success_rate_low,
    wider_high(success, judged, kish, sessions_success, sessions_judged) AS success_rate_high,

    CAST(round(schema_valid) AS BIGINT) AS schema_valid,
    CAST(round(schema_applicable) AS BIGINT) AS schema_applicable,
    schema_valid / nullif(schema_applicable, 0) AS schema_adherence,
    wilson_low(schema_valid * kish, schema_applicable * kish) AS schema_adherence_low,
    wilson_high(schema_valid * kish, schema_applicable * kish) AS schema_adherence_high,
    CAST(round(first_pass_valid) AS BIGINT) AS first_pass_valid,
    CAST(round(first_pass_applicable) AS BIGINT) AS first_pass_applicable,
    first_pass_valid / nullif(first_pass_applicable, 0) AS first_pass_adherence,
    wilson_low(first_pass_valid * kish, first_pass_applicable * kish) AS first_pass_adherence_low,
    wilson_high(first_pass_valid * kish, first_pass_applicable * kish) AS first_pass_adherence_high,
    CAST(round(runs_with_field_errors) AS BIGINT) AS runs_with_field_errors,

    CAST(round(escalated) AS BIGINT) AS escalated,
    escalated / runs AS escalation_rate,
    wider_low(escalated, runs, kish, sessions_escalated, sessions_runs) AS escalation_rate_low,
    wider_high(escalated, runs, kish, sessions_escalated, sessions_runs) AS escalation_rate_high,

    CAST(round(tool_calls) AS BIGINT) AS tool_calls,
    CAST(round(tool_calls_failed) AS BIGINT) AS tool_calls_failed,
    tool_calls_failed / nullif(tool_calls, 0) AS tool_failure_rate,
    wilson_low(tool_calls_failed * kish, tool_calls * kish) AS tool_failure_rate_low,
    wilson_high(tool_calls_failed * kish, tool_calls * kish) AS tool_failure_rate_high,

    CAST(round(retrieval_calls) AS BIGINT) AS retrieval_calls,
    CAST(round(retrieval_empty) AS BIGINT) AS retrieval_empty,
    retrieval_empty / nullif(retrieval_calls, 0) AS retrieval_empty_rate,
    wilson_low(retrieval_empty * kish, retrieval_calls * kish) AS retrieval_empty_rate_low,
    wilson_high(retrieval_empty * kish, retrieval_calls * kish) AS retrieval_empty_rate_high,
    CAST(round(retrieval_errors) AS BIGINT) AS retrieval_errors,
    retrieval_errors / nullif(retrieval_calls, 0) AS retrieval_error_rate,
    wilson_low(retrieval_errors * kish, retrieval_calls * kish) AS retrieval_error_rate_low,
    wilson_high(retrieval_errors * kish, retrieval_calls * kish) AS retrieval_error_rate_high,

    CAST(round(policy_exceptions) AS BIGINT) AS policy_exceptions,
    CAST(round(policy_exceptions_high) AS BIGINT) AS policy_exceptions_high,
    CAST(round(policy_exceptions_critical) AS BIGINT) AS policy_exceptions_critical,
    1000 * policy_exceptions / runs AS policy_exceptions_per_1000,
    1000 * poisson_low(policy_exceptions * kish, runs * kish) AS policy_exceptions_per_1000_low,
    1000 * poisson_high(policy_exceptions * kish, runs * kish) AS policy_exceptions_per_1000_high,

    CAST(round(latency_runs) AS BIGINT) AS latency_runs,
    sketch_quantile(latency_sketch, 0.5) / 1e3 AS latency_ms_p50,
    sketch_quantile(latency_sketch, 0.9) / 1e3 AS latency_ms_p90,
    sketch_quantile(latency_sketch, 0.95) / 1e3 AS latency_ms_p95,
    sketch_quantile(latency_sketch, 0.99) / 1e3 AS latency_ms_p99,
    latency_sum / nullif(latency_runs, 0) / 1e3 AS latency_ms_mean,
    mean_low(latency_runs * kish, latency_sum * kish, latency_squares * kish) / 1e3 AS latency_ms_mean_low,
    mean_high(latency_runs * kish, latency_sum * kish, latency_squares * kish) / 1e3 AS latency_ms_mean_high,
    CAST(round(ttft_runs) AS BIGINT) AS ttft_runs,
    sketch_quantile(ttft_sketch, 0.5) / 1e3 AS ttft_ms_p50,
    sketch_quantile(ttft_sketch, 0.9) / 1e3 AS ttft_ms_p90,
    sketch_quantile(ttft_sketch, 0.95) / 1e3 AS ttft_ms_p95,
    sketch_quantile(ttft_sketch, 0.99) / 1e3 AS ttft_ms_p99,

    CAST(round(cost_runs) AS BIGINT) AS cost_runs,
    cost_currencies,
    CASE WHEN cost_currencies = 1 THEN cost_currency END AS cost_currency,
    CASE WHEN cost_currencies = 1 THEN cost_sum / 1e9 END AS cost_total,
    CASE WHEN cost_currencies = 1 THEN sketch_quantile(cost_sketch, 0.5) / 1e9 END AS cost_p50,
    CASE WHEN cost_currencies = 1 THEN sketch_quantile(cost_sketch, 0.95) / 1e9 END AS cost_p95,
    CASE WHEN cost_currencies = 1 THEN cost_sum / 1e9 / nullif(success, 0) END AS cost_per_completed_task,
    CASE WHEN cost_currencies <> 1 THEN NULL WHEN runs_in_sessions > 0
        THEN clustered_low(groups_cost_nanos, groups_success) / 1e9
        ELSE ratio_low(runs * kish, cost_sum * kish, success * kish, cost_squares * kish, success * kish, cost_success_sum * kish) / 1e9
    END AS cost_per_completed_task_low,
    CASE WHEN cost_currencies <> 1 THEN NULL WHEN runs_in_sessions > 0
        THEN clustered_high(groups_cost_nanos, groups_success) / 1e9
        ELSE ratio_high(runs * kish, cost_sum * kish, success * kish, cost_squares * kish, success * kish, cost_success_sum * kish) / 1e9
    END AS cost_per_completed_task_high,

    CAST(round(tokens_input) AS BIGINT) AS tokens_input,
    CAST(round(tokens_input_cache_read) AS BIGINT) AS tokens_input_cache_read,
    CAST(round(tokens_output) AS BIGINT) AS tokens_output,
    CAST(round(tokens_reasoning) AS BIGINT) AS tokens_reasoning
FROM (
    SELECT
        *,
        CASE WHEN runs_in_sessions > 0 THEN groups_runs END AS sessions_runs,
        CASE WHEN runs_in_sessions > 0 THEN groups_judged END AS sessions_judged,
        CASE WHEN runs_in_sessions > 0 THEN groups_success END AS sessions_success,
        CASE WHEN runs_in_sessions > 0 THEN groups_escalated END AS sessions_escalated
    FROM folded
)
WHERE runs_observed > 0
