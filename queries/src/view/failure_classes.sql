-- How often each failure class occurs in production, estimated from the sample, and how often people find such runs wrong, estimated from reviews. One row per task, release and class that is in the sample. Horvitz–Thompson estimates of numbers and Hájek estimates of shares; intervals of 95 %.
-- column class: class that names the stratum of a run; `success` has the controls, whose wrong runs nothing but a review finds
-- column candidates: candidates of the class
-- column reviewed: of these, decided ones
-- column wrong: of these, wrong ones
-- column runs: estimated runs of the class
-- column share: estimated share of the release's runs that are of the class
-- column wrong_of_class: estimated share of the runs of the class that people find wrong; null without reviews of it
-- column wrong_share: estimated share of the release's runs that are of the class and that people find wrong; null without reviews of the release
-- column review_coverage: share of the release's runs that are like a decided one, by week, task, class and severity; wrong_share is about these runs only
-- example: SELECT task, release_id, class, runs, share, wrong_of_class, wrong_share FROM failure_classes ORDER BY wrong_share DESC LIMIT 10
WITH candidate AS (
    SELECT tenant, coalesce(task, '') AS task, coalesce(release_id, '') AS release_id, class, passed, inclusion_probability, review_probability
    FROM current_candidates
),
class AS (
    SELECT DISTINCT tenant, task, release_id, class FROM candidate
),
member AS (
    SELECT
        k.tenant, k.task, k.release_id, k.class, c.passed, c.inclusion_probability, c.review_probability,
        c.class = k.class AS belongs
    FROM class AS k
    JOIN candidate AS c ON c.tenant = k.tenant AND c.task = k.task AND c.release_id = k.release_id
),
counted AS (
    SELECT
        *, CAST(belongs AS INT) AS one, CAST(belongs AND NOT passed AS INT) AS one_wrong,
        CASE WHEN belongs THEN CAST(NOT passed AS INT) END AS wrong_of_it
    FROM member
)
SELECT
    tenant, task, release_id, class, count(*) FILTER (WHERE belongs) AS candidates,
    count(passed) FILTER (WHERE belongs) AS reviewed, count(*) FILTER (WHERE belongs AND NOT passed) AS wrong,
    ht_total(one, inclusion_probability) AS runs, ht_total_low(one, inclusion_probability) AS runs_low,
    ht_total_high(one, inclusion_probability) AS runs_high,
    hajek_mean(one, inclusion_probability) AS share, hajek_mean_low(one, inclusion_probability) AS share_low,
    hajek_mean_high(one, inclusion_probability) AS share_high,
    hajek_mean(wrong_of_it, review_probability) AS wrong_of_class,
    hajek_mean_low(wrong_of_it, review_probability) AS wrong_of_class_low,
    hajek_mean_high(wrong_of_it, review_probability) AS wrong_of_class_high,
    -- Runs of other classes count as zeros; those without a decision do not count.
    hajek_mean(one_wrong, CASE WHEN passed IS NOT NULL THEN review_probability END) AS wrong_share,
    hajek_mean_low(one_wrong, CASE WHEN passed IS NOT NULL THEN review_probability END) AS wrong_share_low,
    hajek_mean_high(one_wrong, CASE WHEN passed IS NOT NULL THEN review_probability END) AS wrong_share_high,
    coalesce(sum(1 / inclusion_probability) FILTER (WHERE review_probability IS NOT NULL), 0) / sum(1 / inclusion_probability)
        AS review_coverage
FROM counted
GROUP BY tenant, task, release_id, class
