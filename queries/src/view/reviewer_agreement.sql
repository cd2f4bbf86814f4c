-- Agreement of reviewers about whether a run was right, beyond chance. For each task with runs that two people decided: Cohen's κ of each pair, and Fleiss' κ and Krippendorff's α of all. Reject and edit are one verdict. Reviews without a name are left out.
-- column measure: cohens_kappa, fleiss_kappa or krippendorff_alpha
-- column first_reviewer: of a pair, the first by name; null for all
-- column second_reviewer: of a pair, the second by name; null for all
-- column runs: runs that two of them decided. Critical and disputed runs get a second review, so these are no sample of all runs
-- column unanimous: of these, runs with one verdict
-- column value: 1 is full agreement, 0 that of chance; null if all verdicts are the same; Fleiss' κ also if runs differ in their number of verdicts
-- column value_low: lower end of its 95 % interval; null below three runs
-- column value_high: upper end of its 95 % interval; null below three runs
-- example: SELECT task, measure, first_reviewer, second_reviewer, runs, value, value_low, value_high FROM reviewer_agreement ORDER BY task, measure
WITH verdict AS (
    SELECT
        c.tenant, c.task, c.candidate_id, r.reviewer, CASE WHEN r.passed THEN 'right' ELSE 'wrong' END AS verdict,
        count(*) OVER (PARTITION BY c.candidate_id) AS verdicts,
        bool_and(r.passed) OVER (PARTITION BY c.candidate_id) OR NOT bool_or(r.passed) OVER (PARTITION BY c.candidate_id) AS unanimous
    FROM current_candidates AS c
    JOIN reviews AS r ON r.candidate_id = c.candidate_id
    WHERE r.passed IS NOT NULL AND r.reviewer <> 'unknown'
),
pair AS (
    SELECT a.tenant, a.task, a.reviewer AS first_reviewer, b.reviewer AS second_reviewer, a.verdict AS first, b.verdict AS second
    FROM verdict AS a
    JOIN verdict AS b ON a.candidate_id = b.candidate_id AND a.reviewer < b.reviewer
),
shared AS (
    SELECT * FROM verdict WHERE verdicts > 1
)
SELECT
    tenant, task, 'cohens_kappa' AS measure, first_reviewer, second_reviewer, count(*) AS runs,
    count(*) FILTER (WHERE first = second) AS unanimous, cohens_kappa(first, second) AS value,
    cohens_kappa_low(first, second) AS value_low, cohens_kappa_high(first, second) AS value_high
FROM pair
GROUP BY tenant, task, first_reviewer, second_reviewer
UNION ALL
SELECT
    tenant, task, 'fleiss_kappa', NULL, NULL, count(DISTINCT candidate_id), count(DISTINCT CASE WHEN unanimous THEN candidate_id END),
    fleiss_kappa(candidate_id, verdict), fleiss_kappa_low(candidate_id, verdict), fleiss_kappa_high(candidate_id, verdict)
FROM shared
GROUP BY tenant, task
UNION ALL
SELECT
    tenant, task, 'krippendorff_alpha', NULL, NULL, count(DISTINCT candidate_id),
    count(DISTINCT CASE WHEN unanimous THEN candidate_id END), krippendorff_alpha(candidate_id, verdict),
    krippendorff_alpha_low(candidate_id, verdict), krippendorff_alpha_high(candidate_id, verdict)
FROM shared
GROUP BY tenant, task
