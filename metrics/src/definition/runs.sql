-- Resolved runs: completed runs combined with later statements about them. This is the only definition: the stream, a
-- rebuild, an audit and the view `runs` run this text. The result depends on the content of the statements, never on
-- when they arrived; docs/late-outcomes.md explains the rules.
--
-- `{carried}`, `{gathered}`, `{decided}` and `{columns}` stand for further columns that a caller needs.
WITH completed AS (
    SELECT
        run_id, tenant, source, attempt, revision, event_time, content_hash, topic, partition, "offset", ingested_at
    FROM events
    WHERE event_type = 'run.completed'
),
-- Nearly every run has a single statement, and counting is much cheaper than ranking, so only the others are ranked.
repeated AS (
    SELECT run_id FROM completed GROUP BY run_id HAVING count(*) > 1
),
-- A run is identified by tenant, source, run id and attempt. Few rows are superseded, so this side of the join is
-- small. It is an outer join because a condition on run_id then reaches both sides. Two jobs may have read the same
-- message; their rows differ in the ingest time.
superseded AS (
    SELECT run_id, tenant, source, attempt, topic, partition, "offset", ingested_at FROM (
        SELECT
            c.run_id, c.tenant, c.source, c.attempt, c.topic, c.partition, c."offset", c.ingested_at,
            row_number() OVER (
                PARTITION BY c.run_id, c.tenant, c.source, c.attempt
                ORDER BY
                    c.revision DESC, c.event_time DESC, c.content_hash DESC, c.topic, c.partition, c."offset", c.ingested_at
            ) AS place
        FROM completed AS c
        JOIN repeated AS r ON c.run_id = r.run_id
    ) WHERE place > 1
),
said AS (
    SELECT
        run_id, source, tenant, event_type, event_id, event_time, revision, content_hash, topic, partition, "offset",
        review_id, reviewer, review_decision, review_sets_outcome,
        -- Only the needed fields of a score: every sort would otherwise hold its other texts.
        scores[1]['name'] AS score_name, scores[1]['evaluator_id'] AS score_evaluator_id,
        coalesce(scores[1]['target'], 'run') AS score_target, scores[1]['target_id'] AS score_target_id,
        scores[1]['identifier'] AS score_identifier, scores[1]['kind'] AS score_kind,
        scores[1]['sets_outcome'] AS score_sets_outcome, scores[1]['passed'] AS score_passed, scores[1]['label'] AS score_label,
        {carried}policy_exceptions_info, policy_exceptions_low, policy_exceptions_medium, policy_exceptions_high,
        policy_exceptions_critical
    FROM events
    WHERE event_type <> 'run.completed'
),
-- Authority: a person (3), a rule (2), a model (1). The run itself is 0 unless it names one of these.
verdict AS (
    SELECT
        *,
        CASE
            WHEN event_type = 'run.review' OR score_kind IN ('human', 'user_feedback') THEN 3
            WHEN score_kind = 'llm' THEN 1
            ELSE 2
        END AS authority,
        CASE
            WHEN event_type = 'run.review' AND review_sets_outcome THEN
                CASE review_decision WHEN 'accept' THEN 'success' WHEN 'reject' THEN 'failure' WHEN 'edit' THEN 'failure' END
            WHEN event_type = 'run.score' AND score_sets_outcome AND score_target = 'run' THEN
                CASE
                    WHEN score_passed THEN 'success'
                    WHEN NOT score_passed THEN 'failure'
                    WHEN score_label IN ('success', 'failure', 'error', 'timeout', 'abandoned') THEN score_label
                END
        END AS verdict
    FROM said
),
-- Statements that set no outcome take no part in the choice of the verdict. An undecided review takes part, unless it
-- says that it does not set the outcome: it withdraws the person's verdict.
opinion AS (
    SELECT
        *,
        CASE event_type
            WHEN 'run.review' THEN coalesce(review_sets_outcome, false)
            WHEN 'run.score' THEN verdict IS NOT NULL
            ELSE true
        END AS takes_part
    FROM verdict
),
-- Most runs with a late statement have exactly one, and a unique run id: there is nothing to choose.
contested AS (
    SELECT run_id
    FROM events
    GROUP BY run_id
    HAVING count(*) FILTER (WHERE event_type <> 'run.completed') > 1
        OR count(*) FILTER (WHERE event_type <> 'run.completed') = 1 AND count(*) > 2
),
uncontested AS (
    SELECT o.*, c.tenant AS run_tenant, c.source AS run_source, c.attempt AS run_attempt
    FROM opinion AS o
    JOIN completed AS c ON o.run_id = c.run_id AND (o.tenant = '' OR o.tenant = c.tenant)
    LEFT JOIN contested AS n ON o.run_id = n.run_id
    WHERE n.run_id IS NULL
),
-- Late statements refer to the last attempt of a run.
last_attempt AS (
    SELECT c.run_id, c.tenant, c.source, max(c.attempt) AS attempt
    FROM completed AS c
    JOIN (SELECT run_id FROM events WHERE event_type <> 'run.completed' GROUP BY run_id) AS d ON c.run_id = d.run_id
    GROUP BY c.run_id, c.tenant, c.source
),
-- The tenant meant by a statement without a tenant: no tenant if such a run exists (it sorts first), else the only
-- tenant; if there are several, none: a verdict is never assigned to a guessed tenant.
addressed AS (
    SELECT
        run_id, tenant, source, attempt,
        CASE WHEN first_of_id IN ('', last_of_id) THEN first_of_id END AS meant_of_id,
        CASE WHEN first_of_source IN ('', last_of_source) THEN first_of_source END AS meant_of_source
    FROM (
        SELECT
            *,
            min(tenant) OVER (PARTITION BY run_id) AS first_of_id,
            max(tenant) OVER (PARTITION BY run_id) AS last_of_id,
            min(tenant) OVER (PARTITION BY run_id, source) AS first_of_source,
            max(tenant) OVER (PARTITION BY run_id, source) AS last_of_source
        FROM last_attempt
    )
),
-- A statement refers to the run of its own source if there is one, else to every run with that id, but never to another
-- tenant's. The wide rows come last, because the first side of a join is held in memory.
about AS (
    SELECT o.*, a.tenant AS run_tenant, a.source AS run_source, a.attempt AS run_attempt
    FROM contested AS n
    JOIN addressed AS a ON n.run_id = a.run_id
    JOIN opinion AS o ON o.run_id = a.run_id AND (o.tenant = '' OR o.tenant = a.tenant)
    LEFT JOIN last_attempt AS own
        ON o.run_id = own.run_id AND o.source = own.source AND (o.tenant = '' OR o.tenant = own.tenant)
    WHERE CASE
        WHEN own.run_id IS NULL THEN o.tenant = a.tenant OR a.tenant = a.meant_of_id
        ELSE own.source = a.source AND own.tenant = a.tenant AND (o.tenant = a.tenant OR a.tenant = a.meant_of_source)
    END
),
-- Of several statements of one fact, the greatest counts. A fact is identified as follows: a review by its id, a score
-- by its subject and its evaluator, anything else by its event id. The choice is made among statements about one run: a
-- person who judges the runs of two tenants states two facts. A higher revision replaces a lower one even if it no
-- longer sets an outcome; otherwise a statement without an outcome withdraws nothing.
fact AS (
    SELECT * EXCEPT (place, fact_id) FROM (
        SELECT
            *,
            row_number() OVER (
                PARTITION BY
                    run_id, run_tenant, run_source, event_type, source, fact_id,
                    score_name, score_evaluator_id, score_target, score_target_id, score_identifier
                ORDER BY
                    revision DESC, takes_part DESC, event_time DESC, content_hash DESC, topic, partition, "offset"
            ) AS place
        FROM (
            -- A column, because a filter by a caller replaces literals in PARTITION BY (docs/decisions/0010).
            SELECT
                *, CASE event_type WHEN 'run.review' THEN review_id WHEN 'run.score' THEN '' ELSE event_id END AS fact_id
            FROM about
        )
    ) WHERE place = 1 AND (takes_part OR event_type <> 'run.review')
),
-- A person's statement about a run replaces earlier statements of the same person about it.
voice AS (
    SELECT * EXCEPT (place) FROM (
        SELECT
            *,
            row_number() OVER (
                PARTITION BY
                    run_id, run_tenant, run_source, event_type, reviewer, CASE WHEN reviewer IS NULL THEN source END,
                    CASE WHEN reviewer IS NULL THEN review_id END
                ORDER BY event_time DESC, revision DESC, content_hash DESC, topic, partition, "offset"
            ) AS place
        FROM fact
    ) WHERE place = 1 OR event_type <> 'run.review'
    UNION ALL
    SELECT * FROM uncontested
),
late AS (
    SELECT
        run_id, run_tenant AS tenant, run_source AS source, run_attempt AS attempt,
        {gathered}first_value(verdict ORDER BY authority DESC, event_time DESC, revision DESC, content_hash DESC)
            FILTER (WHERE verdict IS NOT NULL) AS verdict,
        first_value(authority ORDER BY authority DESC, event_time DESC, revision DESC, content_hash DESC)
            FILTER (WHERE verdict IS NOT NULL) AS authority,
        first_value(event_time ORDER BY authority DESC, event_time DESC, revision DESC, content_hash DESC)
            FILTER (WHERE verdict IS NOT NULL) AS verdict_at,
        bool_or(event_type = 'run.escalated') AS escalated,
        sum(policy_exceptions_info) AS info,
        sum(policy_exceptions_low) AS low,
        sum(policy_exceptions_medium) AS medium,
        sum(policy_exceptions_high) AS high,
        sum(policy_exceptions_critical) AS critical
    FROM voice
    GROUP BY run_id, run_tenant, run_source, run_attempt
),
-- With equal authority the later statement counts; an unknown outcome yields to any other.
decided AS (
    SELECT
        e.*,
        l.verdict, l.authority, l.verdict_at, l.escalated AS late_escalated,
        {decided}l.info, l.low, l.medium, l.high, l.critical,
        l.verdict IS NOT NULL AND (
            e.outcome_status = 'unknown'
            OR l.authority > CASE
                WHEN e.outcome_source = 'human' THEN 3
                WHEN e.outcome_source IN ('rule', 'environment', 'code', 'business') THEN 2
                WHEN e.outcome_source = 'llm' THEN 1
                ELSE 0
            END
            OR l.verdict_at >= e.event_time AND l.authority = CASE
                WHEN e.outcome_source = 'human' THEN 3
                WHEN e.outcome_source IN ('rule', 'environment', 'code', 'business') THEN 2
                WHEN e.outcome_source = 'llm' THEN 1
                ELSE 0
            END
        ) AS late_decides
    FROM events AS e
    LEFT JOIN superseded AS s
        ON e.run_id = s.run_id AND e.tenant = s.tenant AND e.source = s.source AND e.attempt = s.attempt
        AND e.topic = s.topic AND e.partition = s.partition AND e."offset" = s."offset" AND e.ingested_at = s.ingested_at
    LEFT JOIN late AS l
        ON e.run_id = l.run_id AND e.tenant = l.tenant AND e.source = l.source AND e.attempt = l.attempt
    WHERE e.event_type = 'run.completed' AND s.run_id IS NULL
),
run AS (
    SELECT
        * EXCEPT (
            outcome_status, outcome_source, escalated, policy_exceptions_info, policy_exceptions_low,
            policy_exceptions_medium, policy_exceptions_high, policy_exceptions_critical, verdict, authority,
            late_escalated, info, low, medium, high, critical, verdict_at
        ),
        CASE WHEN late_decides THEN verdict ELSE outcome_status END AS outcome_status,
        CASE
            WHEN NOT coalesce(late_decides, false) THEN outcome_source
            WHEN authority = 3 THEN 'human'
            WHEN authority = 2 THEN 'rule'
            ELSE 'llm'
        END AS outcome_source,
        escalated OR coalesce(late_escalated, false) AS escalated,
        policy_exceptions_info + coalesce(info, 0) AS policy_exceptions_info,
        policy_exceptions_low + coalesce(low, 0) AS policy_exceptions_low,
        policy_exceptions_medium + coalesce(medium, 0) AS policy_exceptions_medium,
        policy_exceptions_high + coalesce(high, 0) AS policy_exceptions_high,
        policy_exceptions_critical + coalesce(critical, 0) AS policy_exceptions_critical,
        CASE WHEN late_decides THEN verdict_at END AS verdict_at,
        -- A verdict dated before its run counts as immediate.
        CASE WHEN late_decides THEN greatest(CAST(verdict_at AS BIGINT) - CAST(ended_at AS BIGINT), 0) END
            AS label_delay_micros
    FROM decided
)
SELECT
    {columns}
FROM run
