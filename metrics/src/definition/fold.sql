-- The partial rows of `metrics` folded to one row a window and group; groups that were taken back wholly are left out.
-- `{sums}` stands for one fold a column, made from the table's columns, so that no column can be forgotten.
SELECT
    window_start, tenant, task, release_id, release_fingerprint, model, stage, weight_micros, cost_currency,
    {sums}
FROM metrics
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
HAVING sum(runs) <> 0
