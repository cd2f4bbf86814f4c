-- The precision of each rule: the share of its firings that people called useful, by `bellwether alerts feedback`. Of several verdicts on one firing the latest counts. A rule that has not fired and has no feedback has no row.
-- column useful: firings that were useful
-- column noise: firings that were noise
-- column precision: useful / (useful + noise); null without feedback
-- column precision_low: lower end of its 95 % interval
-- column precision_high: upper end of its 95 % interval
-- column alerts_fired: alerts that have fired, without those that a correction retracted
-- column alerts_without_feedback: of these, alerts without any feedback
-- example: SELECT rule, useful, noise, precision, precision_low, alerts_without_feedback FROM rule_precision ORDER BY precision
WITH verdicts AS (
    SELECT rule, alert_id, firing_since, first_value(verdict ORDER BY at DESC, action_id DESC) AS verdict
    FROM alert_actions
    WHERE kind = 'feedback' AND rule IS NOT NULL
    GROUP BY rule, alert_id, firing_since
),
judged AS (
    SELECT
        rule,
        count(*) FILTER (WHERE verdict = 'useful') AS useful,
        count(*) FILTER (WHERE verdict = 'noise') AS noise
    FROM verdicts
    GROUP BY rule
),
-- Each firing counts once; a retraction takes one back, and a move changes only its time.
firings AS (
    SELECT
        rule, alert_id,
        sum(CASE
            WHEN change IN ('new', 'late') AND state = 'firing' AND state_from <> 'firing' THEN 1
            WHEN change = 'retracted' AND state_from = 'firing' AND state <> 'firing' THEN -1
            ELSE 0 END) AS times
    FROM alerts
    GROUP BY rule, alert_id
),
fired AS (
    SELECT f.rule, count(*) AS alerts_fired, count(*) FILTER (WHERE v.alert_id IS NULL) AS alerts_without_feedback
    FROM firings AS f
    LEFT JOIN (SELECT DISTINCT alert_id FROM verdicts) AS v ON v.alert_id = f.alert_id
    WHERE f.times > 0
    GROUP BY f.rule
),
both_sides AS (
    SELECT
        coalesce(j.rule, f.rule) AS rule, coalesce(j.useful, 0) AS useful, coalesce(j.noise, 0) AS noise,
        coalesce(f.alerts_fired, 0) AS alerts_fired, coalesce(f.alerts_without_feedback, 0) AS alerts_without_feedback
    FROM judged AS j
    FULL JOIN fired AS f ON f.rule = j.rule
)
SELECT
    rule, useful, noise,
    CAST(useful AS DOUBLE) / nullif(CAST(useful + noise AS DOUBLE), 0) AS precision,
    wilson_low(useful, useful + noise) AS precision_low,
    wilson_high(useful, useful + noise) AS precision_high,
    alerts_fired, alerts_without_feedback
FROM both_sides
