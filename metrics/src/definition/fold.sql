-- Folds the partial rows of `metrics` into one row per group. `{key}` is the group's columns; `{sums}` is one fold per column,
-- generated from the table's columns so that none is forgotten; `{having}` drops entirely retracted groups, unless the result
-- is partial itself: then further rows may belong to the group.
SELECT
    {key},
    {sums}
FROM {source}
GROUP BY {key}
{having}
