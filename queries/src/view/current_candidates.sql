-- The runs in the samples for review, with their reviews so far. One row per run that `candidates` has in the sample of its week.
-- column state: queued: needs a decision; second_review: needs another person, because it is critical or its reviewers are tied; decided; eval_case: decided, and a reviewer asked for an eval case
-- column decision: decision of the majority: accept, reject or edit; reject and edit both say that the run was wrong; null if it is tied
-- column reviews: people who reviewed it, undecided ones included; of several reviews by one person the latest counts
-- column decisions: of these, people who decided
-- column reviewers: their names, in order
-- column last_reviewed: time of the latest review
-- column queue_age_s: time since the run entered the sample, s; null once it is decided
-- column priority: place in the queue by severity, then rarity of the signature; smaller first
-- example: SELECT candidate_id, state, class, severity, signature, inclusion_probability FROM current_candidates ORDER BY priority LIMIT 10
WITH newest AS (
    SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY candidate_id ORDER BY number DESC) AS place,
            min(written_at) OVER (PARTITION BY candidate_id) AS entered_at
        FROM candidates
    ) WHERE place = 1 AND change = 'taken'
),
said AS (
    SELECT run_id, tenant, reviewer, event_time, review_decision, review_make_eval_case, review_id, revision, content_hash
    FROM events
    WHERE event_type = 'run.review' AND run_id IN (SELECT run_id FROM newest)
),
-- Of several revisions of a review the greatest counts, and of several reviews by one person the latest.
fact AS (
    SELECT * FROM (
        SELECT *, row_number() OVER (
            PARTITION BY run_id, tenant, reviewer, review_id ORDER BY revision DESC, event_time DESC, content_hash DESC
        ) AS place
        FROM said
    ) WHERE place = 1
),
voice AS (
    SELECT * FROM (
        SELECT * EXCEPT (place), row_number() OVER (
            PARTITION BY run_id, tenant, coalesce(reviewer, review_id) ORDER BY event_time DESC, revision DESC, content_hash DESC
        ) AS place
        FROM fact
    ) WHERE place = 1
),
reviewed AS (
    SELECT
        c.candidate_id,
        count(*) AS reviews,
        count(*) FILTER (WHERE v.review_decision IN ('accept', 'reject', 'edit')) AS decisions,
        count(*) FILTER (WHERE v.review_decision = 'accept') AS accepts,
        count(*) FILTER (WHERE v.review_decision = 'reject') AS rejects,
        count(*) FILTER (WHERE v.review_decision = 'edit') AS edits,
        bool_or(coalesce(v.review_make_eval_case, false) AND v.review_decision IN ('accept', 'reject', 'edit')) AS wanted,
        string_agg(coalesce(v.reviewer, 'unknown'), ', ' ORDER BY v.reviewer) AS reviewers,
        max(v.event_time) AS last_reviewed
    FROM newest AS c
    JOIN voice AS v ON v.run_id = c.run_id AND (v.tenant = c.tenant OR v.tenant = '')
    GROUP BY c.candidate_id
),
judged AS (
    SELECT
        c.* EXCEPT (place, change, number, events_version, written_at),
        coalesce(r.reviews, 0) AS reviews, coalesce(r.decisions, 0) AS decisions,
        coalesce(r.accepts, 0) AS accepts, coalesce(r.rejects, 0) AS rejects, coalesce(r.edits, 0) AS edits,
        coalesce(r.wanted, false) AS wanted, r.reviewers, r.last_reviewed
    FROM newest AS c
    LEFT JOIN reviewed AS r ON r.candidate_id = c.candidate_id
),
placed AS (
    SELECT
        *,
        CASE
            WHEN decisions = 0 THEN 'queued'
            -- A third person settles a disagreement of two.
            WHEN accepts = rejects + edits THEN 'second_review'
            WHEN severity = 'critical' AND decisions < 2 THEN 'second_review'
            WHEN wanted THEN 'eval_case'
            ELSE 'decided'
        END AS state
    FROM judged
)
SELECT
    candidate_id, week, state,
    CASE
        WHEN accepts > rejects + edits THEN 'accept'
        WHEN accepts < rejects + edits AND rejects > 0 THEN 'reject'
        WHEN accepts < rejects + edits THEN 'edit'
    END AS decision,
    reviews, decisions, reviewers, last_reviewed,
    tenant, source, run_id, attempt, ended_at, task, release_id, release_fingerprint, stage, outcome_status,
    kind, class, classes, severity, signature, must_take, probability, inclusion_probability,
    1 / inclusion_probability AS weight, signature_members, signature_taken,
    CASE WHEN state IN ('queued', 'second_review') THEN date_part('epoch', now()) - date_part('epoch', entered_at) END AS queue_age_s,
    row_number() OVER (
        ORDER BY
            CASE severity WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END,
            signature_members, candidate_id
    ) AS priority
FROM placed
