-- Share of successful runs according to a judge, as it is and corrected for the judge's errors by the runs that people reviewed. One row per task, release, judge, version of the judge and criterion, over the weeks in which people reviewed runs that it had judged. Intervals of 95 %.
-- column kind: llm: a model; code: a rule
-- column evaluator_version: version of the judge; empty if none was stated
-- column criterion: name of the score; the correction takes people's decision on the whole run as the truth
-- column runs: judged runs, weighted by their producer's sampling
-- column runs_observed: judged runs
-- column reviews: of these, runs that people decided
-- column overturned: of these, runs that people decided otherwise
-- column review_coverage: share of the judged runs that are like a decided one, by week, task, class and severity; the corrected figures take the others to be like them
-- column success_naive: share of runs that the judge passes
-- column success_corrected: share of successful runs, prediction-powered: unbiased whatever the judge does; null below two reviews
-- column success_rogan_gladen: the same from the judge's sensitivity and specificity; null if people have not both passed and failed a run, or if the judge is no better than chance
-- column sensitivity: share of the runs that people pass that the judge passes, too
-- column specificity: share of the runs that people fail that the judge fails, too
-- example: SELECT task, release_id, evaluator_id, evaluator_version, success_naive, success_corrected, success_corrected_low, success_corrected_high, reviews FROM judge_success ORDER BY task, release_id
WITH verdict AS (
    SELECT
        *,
        count(decision) OVER (
            PARTITION BY tenant, task, kind, evaluator_id, evaluator_version, criterion, date_trunc('week', ended_at)
        ) AS decided
    FROM judge_verdicts
)
SELECT
    tenant, task, release_id, kind, evaluator_id, evaluator_version, criterion,
    sum(1 / sampling_probability) AS runs, count(*) AS runs_observed, count(decision) AS reviews,
    count(*) FILTER (WHERE passed <> person_passed) AS overturned,
    coalesce(sum(1 / inclusion_probability) FILTER (WHERE review_probability IS NOT NULL), 0) / sum(1 / inclusion_probability)
        AS review_coverage,
    judge_naive(passed, person_passed, sampling_probability, review_probability) AS success_naive,
    judge_corrected(passed, person_passed, sampling_probability, review_probability) AS success_corrected,
    judge_corrected_low(passed, person_passed, sampling_probability, review_probability) AS success_corrected_low,
    judge_corrected_high(passed, person_passed, sampling_probability, review_probability) AS success_corrected_high,
    judge_rogan_gladen(passed, person_passed, sampling_probability, review_probability) AS success_rogan_gladen,
    judge_rogan_gladen_low(passed, person_passed, sampling_probability, review_probability) AS success_rogan_gladen_low,
    judge_rogan_gladen_high(passed, person_passed, sampling_probability, review_probability) AS success_rogan_gladen_high,
    judge_sensitivity(passed, person_passed, sampling_probability, review_probability) AS sensitivity,
    judge_specificity(passed, person_passed, sampling_probability, review_probability) AS specificity
FROM verdict
WHERE decided > 0
GROUP BY tenant, task, release_id, kind, evaluator_id, evaluator_version, criterion
