-- Folds the partial rows of `metrics` into one row per window and group. `{sums}` is one fold per column, generated from the
-- table's columns so that none is forgotten; `{before}` is a list of further columns of the group; `{having}` drops entirely
-- retracted groups, unless the result is partial itself: then further rows may belong to the group.
SELECT
    {before}window_start, tenant, task, release_id, release_fingerprint, model, stage, weight_micros, cost_currency,
    {sums}
FROM {source}
GROUP BY {before}window_start, tenant, task, release_id, release_fingerprint, model, stage, weight_micros, cost_currency
{having}
