-- Verdicts of judges and rules that people overturned: the majority of its reviewers decided otherwise.
-- column kind: llm: a model; code: a rule
-- column criterion: name of the score
-- column passed: the verdict that was overturned
-- column weight: runs of production that it stands for
-- example: SELECT task, evaluator_id, evaluator_version, passed, count(*) AS overturned FROM overturned_verdicts GROUP BY 1, 2, 3, 4
SELECT
    candidate_id, tenant, source, run_id, attempt, ended_at, task, release_id, class, severity, signature, kind, evaluator_id,
    evaluator_version, criterion, passed, judged_at, decision, reviewers, last_reviewed, 1 / review_probability AS weight
FROM judge_verdicts
WHERE passed <> person_passed
