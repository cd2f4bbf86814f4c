-- Evidence that a judge errs more often, against people, than in its first weeks. One row per task, judge, version of the judge, criterion, kind of error and week, from a week after its end on, so that its reviews are in. The first weeks, until 40 reviews, are the reference that later ones are compared with.
-- column kind: llm: a model; code: a rule
-- column evaluator_version: version of the judge; each has its own reference
-- column error: lenient: the judge passes runs that people fail; harsh: it fails runs that people pass
-- column week: Monday, 00:00 UTC, of the week in which the runs ended
-- column reviews: judged runs of the week that people failed (lenient) or passed (harsh)
-- column errors: of these, runs that the judge got wrong
-- column error_rate: estimated share of such runs in production that it gets wrong, by `review_probability`
-- column is_reference: true for a week of the reference
-- column reference_rate: error rate of the reference
-- column highest_rate: greatest error rate that counts as unchanged: the upper end of the reference's 95 % interval, and a quarter of the odds more
-- column evidence: ln of the e-SR statistic; above ln A, a judge whose error rate never exceeds `highest_rate` raises an alarm at most once in A weeks on average; null for the reference
-- example: SELECT task, evaluator_id, evaluator_version, error, week, error_rate, highest_rate, evidence FROM judge_drift ORDER BY week DESC LIMIT 10
-- Each relation reads the one before it once: `judge_verdicts` is large.
WITH pair AS (
    SELECT
        tenant, task, kind, evaluator_id, evaluator_version, criterion, CASE WHEN person_passed THEN 'harsh' ELSE 'lenient' END AS error,
        date_trunc('week', ended_at) AS week, CAST(passed <> person_passed AS BIGINT) AS erred, review_probability
    FROM judge_verdicts
    WHERE person_passed IS NOT NULL AND date_trunc('week', ended_at) + INTERVAL '14 days' <= now()
),
counted AS (
    SELECT
        *,
        count(*) OVER (PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error ORDER BY week)
            - count(*) OVER (PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error, week) < 40 AS is_reference,
        min(review_probability) OVER (
            PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error, week
        ) AS least_probability
    FROM pair
),
-- Probabilities near 0 make the interval that of the judge's error rate, rather than of its errors in these weeks.
compared AS (
    SELECT
        *,
        hajek_mean(CASE WHEN is_reference THEN erred END, review_probability) OVER (
            PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error
        ) AS reference_rate,
        hajek_mean_high(CASE WHEN is_reference THEN erred END, review_probability * 1e-9) OVER (
            PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error
        ) AS high
    FROM counted
),
-- A review with n times the least probability counts a n-th. That keeps the evidence valid: e^(l/n) is at most 1 − 1/n + e^l/n,
-- whose mean over the sample is that over production.
weekly AS (
    SELECT
        tenant, task, kind, evaluator_id, evaluator_version, criterion, error, week, is_reference, reference_rate,
        1.25 * high / (1 + 0.25 * high) AS highest_rate, count(*) AS reviews, sum(erred) AS errors,
        hajek_mean(erred, review_probability) AS error_rate,
        sum_increments(bernoulli_increments(
            erred, 1, 1.25 * high / (1 + 0.25 * high), least_probability / review_probability
        )) AS increments
    FROM compared
    GROUP BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error, week, is_reference, reference_rate, high
)
SELECT
    tenant, task, kind, evaluator_id, evaluator_version, criterion, error, week, reviews, errors, error_rate, is_reference,
    reference_rate, highest_rate,
    CASE WHEN NOT is_reference THEN esr(increments) OVER (
        PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, error, is_reference ORDER BY week
    ) END AS evidence
FROM weekly
