-- The partial rows of `metrics` folded to one row a window and group; groups that were taken back wholly are left out.
-- `{sums}` stands for one fold a column, made from the table's columns, so that no column can be forgotten; `{before}` for
-- further columns of the group.
SELECT
    {before}window_start, tenant, task, release_id, release_fingerprint, model, stage, weight_micros, cost_currency,
    {sums}
FROM {source}
GROUP BY {before}window_start, tenant, task, release_id, release_fingerprint, model, stage, weight_micros, cost_currency
HAVING sum(runs) <> 0
