-- The runs in the samples for review, with their reviews so far. One row per run that `candidates` has in the sample of its week.
-- column state: queued: needs a decision; leased: somebody has taken it, and its lease has not run out; second_review: needs another person, because it is critical or its reviewers are tied; decided; eval_case: decided, a reviewer asked for an eval case, and there is an answer for it, because the run was accepted or edited; retired: its eval case is out of use
-- column decision: decision of the majority: accept, reject or edit; reject and edit both say that the run was wrong; null if it is tied
-- column passed: true if the majority accepts the run; false if it rejects or edits it; null if it is tied or has no decision
-- column review_probability: probability that a run like it is in the sample and decided: `inclusion_probability` times the share of decided candidates of its week, tenant, task, class and severity; null if none is decided
-- column reviews: people who reviewed it, undecided ones included; of several reviews by one person the latest counts
-- column decisions: of these, people who decided
-- column reviewers: their names, in order
-- column last_reviewed: time of the latest review
-- column wanted_at: time of the latest review that decides it and asks for an eval case
-- column retired_at: time of the latest retirement of its eval case
-- column leased_by: person who has taken it; null unless it is leased
-- column leased_until: end of that lease
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
    SELECT
        run_id, tenant, coalesce(reviewer, review_id) AS person, coalesce(reviewer, 'unknown') AS reviewer, review_id, event_time,
        revision, content_hash, coalesce(review_retired, false) AS retires,
        -- No lease blocks a run for longer than a day, whatever it says.
        CASE WHEN review_leased_until IS NOT NULL THEN least(review_leased_until, event_time + INTERVAL '1 day') END AS leased_until,
        -- All statements about a run with one key are in one partition: its offsets say who was first.
        row_number() OVER (ORDER BY topic, partition, "offset") AS position
    FROM events
    WHERE event_type = 'run.review' AND run_id IN (SELECT run_id FROM newest)
),
-- Of several revisions of a statement the greatest counts. A lease that was prolonged keeps its place.
fact AS (
    SELECT * FROM (
        SELECT * EXCEPT (position), min(position) OVER (PARTITION BY run_id, tenant, person, review_id) AS position,
            row_number() OVER (
                PARTITION BY run_id, tenant, person, review_id ORDER BY revision DESC, event_time DESC, content_hash DESC
            ) AS place
        FROM said
    ) WHERE place = 1
),
reviewed AS (
    SELECT
        candidate_id,
        count(*) AS reviews,
        count(passed) AS decisions,
        count(*) FILTER (WHERE decision = 'accept') AS accepts,
        count(*) FILTER (WHERE decision = 'reject') AS rejects,
        count(*) FILTER (WHERE decision = 'edit') AS edits,
        max(reviewed_at) FILTER (WHERE make_eval_case AND passed IS NOT NULL) AS wanted_at,
        string_agg(reviewer, ', ' ORDER BY reviewer) AS reviewers,
        max(reviewed_at) AS last_reviewed
    FROM reviews
    GROUP BY candidate_id
),
-- Leases that have not run out. A review of the same person ends its leases, and of several people the first one holds the run.
lease AS (
    SELECT f.run_id, f.tenant, f.person, min(f.position) AS position, max(f.leased_until) AS leased_until
    FROM fact AS f
    LEFT JOIN reviews AS v
        ON v.run_id = f.run_id AND (v.tenant = f.tenant OR f.tenant = '') AND v.reviewer = f.reviewer AND v.reviewed_at >= f.event_time
    WHERE f.leased_until > now() AND v.candidate_id IS NULL
    GROUP BY f.run_id, f.tenant, f.person
),
held AS (
    SELECT
        c.candidate_id,
        first_value(l.person ORDER BY l.position) AS leased_by, first_value(l.leased_until ORDER BY l.position) AS leased_until
    FROM newest AS c
    JOIN lease AS l ON l.run_id = c.run_id AND (l.tenant = c.tenant OR l.tenant = '')
    GROUP BY c.candidate_id
),
gone AS (
    SELECT c.candidate_id, max(f.event_time) AS retired_at
    FROM newest AS c
    JOIN fact AS f ON f.run_id = c.run_id AND (f.tenant = c.tenant OR f.tenant = '')
    WHERE f.retires
    GROUP BY c.candidate_id
),
judged AS (
    SELECT
        c.* EXCEPT (place, change, number, events_version, written_at),
        coalesce(r.reviews, 0) AS reviews, coalesce(r.decisions, 0) AS decisions,
        coalesce(r.accepts, 0) AS accepts, coalesce(r.rejects, 0) AS rejects, coalesce(r.edits, 0) AS edits,
        r.wanted_at, r.reviewers, r.last_reviewed, h.leased_by, h.leased_until, g.retired_at
    FROM newest AS c
    LEFT JOIN reviewed AS r ON r.candidate_id = c.candidate_id
    LEFT JOIN held AS h ON h.candidate_id = c.candidate_id
    LEFT JOIN gone AS g ON g.candidate_id = c.candidate_id
),
needed AS (
    SELECT
        *,
        CASE
            WHEN retired_at >= wanted_at THEN 'retired'
            WHEN decisions = 0 THEN 'queued'
            -- A third person settles a disagreement of two.
            WHEN accepts = rejects + edits THEN 'second_review'
            WHEN severity = 'critical' AND decisions < 2 THEN 'second_review'
            -- A run that was only rejected has no right answer.
            WHEN wanted_at IS NOT NULL AND (accepts > rejects + edits OR edits > 0) THEN 'eval_case'
            ELSE 'decided'
        END AS need,
        CASE
            WHEN accepts > rejects + edits THEN 'accept'
            WHEN accepts < rejects + edits AND rejects > 0 THEN 'reject'
            WHEN accepts < rejects + edits THEN 'edit'
        END AS decision
    FROM judged
),
placed AS (
    SELECT
        * EXCEPT (leased_by, leased_until, need), need IN ('queued', 'second_review') AS waits,
        CASE WHEN need IN ('queued', 'second_review') AND leased_by IS NOT NULL THEN 'leased' ELSE need END AS state,
        CASE WHEN need IN ('queued', 'second_review') THEN leased_by END AS leased_by,
        CASE WHEN need IN ('queued', 'second_review') THEN leased_until END AS leased_until
    FROM needed
)
SELECT
    candidate_id, week, state, decision, decision = 'accept' AS passed, reviews, decisions, reviewers, last_reviewed,
    wanted_at, retired_at, leased_by, leased_until,
    tenant, source, run_id, attempt, ended_at, task, release_id, release_fingerprint, stage, outcome_status,
    kind, class, classes, severity, signature, must_take, probability, inclusion_probability,
    inclusion_probability * nullif(count(decision) OVER (PARTITION BY week, tenant, task, class, severity), 0)
        / count(*) OVER (PARTITION BY week, tenant, task, class, severity) AS review_probability,
    1 / inclusion_probability AS weight, signature_members, signature_taken,
    CASE WHEN waits THEN date_part('epoch', now()) - date_part('epoch', entered_at) END AS queue_age_s,
    row_number() OVER (
        ORDER BY
            CASE severity WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END,
            signature_members, candidate_id
    ) AS priority
FROM placed
