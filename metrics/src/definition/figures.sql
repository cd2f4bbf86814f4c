-- The figures of a group, from partial rows folded as `folded`: every rate with numerator, denominator and a 95 %
-- interval. `{key}` stands for the group's columns, and `{folded}` for that relation.
--
-- Counts are weighted by 1 / sampling probability and rounded to integers for display; rates are not rounded. A number
-- beyond its column's range is saturated, and `saturated` is then true. `kish` is the fraction of information that
-- uneven weights leave (Kish, "Survey Sampling", 1965): 1 without sampling.
--
-- Unknown is never zero. Cost per completed task is total cost / completed tasks over the runs that state a cost,
-- including failed and unknown ones; `cost_coverage` is the fraction of such runs. Sums of tokens cover the runs that
-- state them, and are null if none does.
--
-- Intervals of success and escalation are Wilson's or, with sessions, the wider of Wilson's and the one by random
-- groups of sessions, so that many runs of one session do not overstate the certainty. Cost per completed task uses
-- random groups with sessions and Fieller's interval otherwise. Rates per call use Wilson's interval, policy exceptions
-- the Poisson interval. `../function/scalar.rs` documents the functions.
SELECT
    {key},
    whole(runs) AS runs,
    CAST(runs_observed AS BIGINT) AS runs_observed,
    whole(runs * kish) AS runs_effective,
    whole(judged) AS judged,
    judged / runs AS coverage,
    whole(unknown) AS unknown,
    unknown / runs AS unknown_share,
    whole(judged_by_human) AS judged_by_human,
    whole(judged_by_rule) AS judged_by_rule,
    whole(judged_by_llm) AS judged_by_llm,
    whole(late_verdicts) AS late_verdicts,
    sketch_quantile(label_delay_sketch, 0.5) / 1e6 AS label_delay_s_p50,
    sketch_quantile(label_delay_sketch, 0.95) / 1e6 AS label_delay_s_p95,

    whole(success) AS success,
    success / nullif(judged, 0) AS success_rate,
    wider_low(success, judged, kish, sessions_success, sessions_judged) AS success_rate_low,
    wider_high(success, judged, kish, sessions_success, sessions_judged) AS success_rate_high,

    whole(schema_valid) AS schema_valid,
    whole(schema_applicable) AS schema_applicable,
    schema_valid / nullif(schema_applicable, 0) AS schema_adherence,
    wilson_low(schema_valid * kish, schema_applicable * kish) AS schema_adherence_low,
    wilson_high(schema_valid * kish, schema_applicable * kish) AS schema_adherence_high,
    whole(first_pass_valid) AS first_pass_valid,
    whole(first_pass_applicable) AS first_pass_applicable,
    first_pass_valid / nullif(first_pass_applicable, 0) AS first_pass_adherence,
    wilson_low(first_pass_valid * kish, first_pass_applicable * kish) AS first_pass_adherence_low,
    wilson_high(first_pass_valid * kish, first_pass_applicable * kish) AS first_pass_adherence_high,
    whole(runs_with_field_errors) AS runs_with_field_errors,

    whole(escalated) AS escalated,
    escalated / runs AS escalation_rate,
    wider_low(escalated, runs, kish, sessions_escalated, sessions_runs) AS escalation_rate_low,
    wider_high(escalated, runs, kish, sessions_escalated, sessions_runs) AS escalation_rate_high,

    whole(tool_calls) AS tool_calls,
    whole(tool_calls_failed) AS tool_calls_failed,
    tool_calls_failed / nullif(tool_calls, 0) AS tool_failure_rate,
    wilson_low(tool_calls_failed * kish, tool_calls * kish) AS tool_failure_rate_low,
    wilson_high(tool_calls_failed * kish, tool_calls * kish) AS tool_failure_rate_high,

    whole(retrieval_calls) AS retrieval_calls,
    whole(retrieval_empty) AS retrieval_empty,
    retrieval_empty / nullif(retrieval_calls, 0) AS retrieval_empty_rate,
    wilson_low(retrieval_empty * kish, retrieval_calls * kish) AS retrieval_empty_rate_low,
    wilson_high(retrieval_empty * kish, retrieval_calls * kish) AS retrieval_empty_rate_high,
    whole(retrieval_errors) AS retrieval_errors,
    retrieval_errors / nullif(retrieval_calls, 0) AS retrieval_error_rate,
    wilson_low(retrieval_errors * kish, retrieval_calls * kish) AS retrieval_error_rate_low,
    wilson_high(retrieval_errors * kish, retrieval_calls * kish) AS retrieval_error_rate_high,

    whole(policy_exceptions) AS policy_exceptions,
    whole(policy_exceptions_high) AS policy_exceptions_high,
    whole(policy_exceptions_critical) AS policy_exceptions_critical,
    1000 * policy_exceptions / runs AS policy_exceptions_per_1000,
    1000 * poisson_low(policy_exceptions * kish, runs * kish) AS policy_exceptions_per_1000_low,
    1000 * poisson_high(policy_exceptions * kish, runs * kish) AS policy_exceptions_per_1000_high,

    whole(latency_runs) AS latency_runs,
    sketch_quantile(latency_sketch, 0.5) / 1e3 AS latency_ms_p50,
    sketch_quantile(latency_sketch, 0.9) / 1e3 AS latency_ms_p90,
    sketch_quantile(latency_sketch, 0.95) / 1e3 AS latency_ms_p95,
    sketch_quantile(latency_sketch, 0.99) / 1e3 AS latency_ms_p99,
    latency_sum / nullif(latency_runs, 0) / 1e3 AS latency_ms_mean,
    mean_low(latency_runs * kish, latency_sum * kish, latency_squares * kish) / 1e3 AS latency_ms_mean_low,
    mean_high(latency_runs * kish, latency_sum * kish, latency_squares * kish) / 1e3 AS latency_ms_mean_high,
    whole(ttft_runs) AS ttft_runs,
    sketch_quantile(ttft_sketch, 0.5) / 1e3 AS ttft_ms_p50,
    sketch_quantile(ttft_sketch, 0.9) / 1e3 AS ttft_ms_p90,
    sketch_quantile(ttft_sketch, 0.95) / 1e3 AS ttft_ms_p95,
    sketch_quantile(ttft_sketch, 0.99) / 1e3 AS ttft_ms_p99,

    whole(cost_runs) AS cost_runs,
    cost_currencies,
    CASE WHEN cost_currencies = 1 THEN cost_currency END AS cost_currency,
    CASE WHEN cost_currencies = 1 THEN cost_sum / 1e9 END AS cost_total,
    CASE WHEN cost_currencies = 1 THEN sketch_quantile(cost_sketch, 0.5) / 1e9 END AS cost_p50,
    CASE WHEN cost_currencies = 1 THEN sketch_quantile(cost_sketch, 0.95) / 1e9 END AS cost_p95,
    cost_runs / runs AS cost_coverage,
    whole(cost_success) AS cost_success,
    whole(cost_success * cost_kish) AS cost_success_effective,
    CASE WHEN cost_currencies = 1 THEN cost_sum / 1e9 / nullif(cost_success, 0) END AS cost_per_completed_task,
    CASE WHEN cost_currencies <> 1 THEN NULL WHEN cost_runs_in_sessions > 0
        THEN clustered_low(groups_cost_nanos, groups_cost_success) / 1e9
        ELSE ratio_low(cost_runs * cost_kish, cost_sum * cost_kish, cost_success * cost_kish, cost_squares * cost_kish, cost_success * cost_kish, cost_success_sum * cost_kish) / 1e9
    END AS cost_per_completed_task_low,
    CASE WHEN cost_currencies <> 1 THEN NULL WHEN cost_runs_in_sessions > 0
        THEN clustered_high(groups_cost_nanos, groups_cost_success) / 1e9
        ELSE ratio_high(cost_runs * cost_kish, cost_sum * cost_kish, cost_success * cost_kish, cost_squares * cost_kish, cost_success * cost_kish, cost_success_sum * cost_kish) / 1e9
    END AS cost_per_completed_task_high,

    whole(tokens_runs) AS tokens_runs,
    tokens_runs / runs AS tokens_coverage,
    CASE WHEN tokens_input_runs = 0 THEN NULL ELSE whole(tokens_input) END AS tokens_input,
    whole(tokens_input_runs) AS tokens_input_runs,
    tokens_input / nullif(tokens_input_runs, 0) AS tokens_input_per_run,
    CASE WHEN tokens_input_cache_read_runs = 0 THEN NULL ELSE whole(tokens_input_cache_read) END
        AS tokens_input_cache_read,
    CASE WHEN tokens_output_runs = 0 THEN NULL ELSE whole(tokens_output) END AS tokens_output,
    whole(tokens_output_runs) AS tokens_output_runs,
    tokens_output / nullif(tokens_output_runs, 0) AS tokens_output_per_run,
    CASE WHEN tokens_reasoning_runs = 0 THEN NULL ELSE whole(tokens_reasoning) END AS tokens_reasoning,
    saturated OR at_bound(
        runs, tool_calls, retrieval_calls, policy_exceptions, tokens_input, tokens_input_cache_read, tokens_output,
        tokens_reasoning
    ) AS saturated
FROM (
    SELECT
        *,
        CASE WHEN runs_in_sessions > 0 THEN groups_runs END AS sessions_runs,
        CASE WHEN runs_in_sessions > 0 THEN groups_judged END AS sessions_judged,
        CASE WHEN runs_in_sessions > 0 THEN groups_success END AS sessions_success,
        CASE WHEN runs_in_sessions > 0 THEN groups_escalated END AS sessions_escalated
    FROM {folded}
)
WHERE runs_observed > 0
