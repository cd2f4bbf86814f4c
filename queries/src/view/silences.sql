-- The silences in force at present. Those that have ended, or are planned, are in `alert_actions`.
-- column silence_id: id, which `bellwether alerts unsilence` takes
-- column alert_id: the alert that it is about; null if it is about labels
-- column matchers: the labels that it is about, as Alertmanager writes matchers; null if it is about one alert
-- column person: who made it
-- column reason: why
-- column starts_at: its start
-- column until: its planned end
-- column remaining_s: until − now, s
-- example: SELECT silence_id, alert_id, matchers, person, reason, until FROM silences ORDER BY until
WITH ended AS (
    SELECT silence_id, min(at) AS ended_at
    FROM alert_actions
    WHERE kind = 'unsilence'
    GROUP BY silence_id
)
SELECT
    s.action_id AS silence_id, s.alert_id, s.matchers, s.rule, s.tenant, s.person, s.reason, s.starts_at, s.until,
    date_part('epoch', s.until) - date_part('epoch', now()) AS remaining_s
FROM alert_actions AS s
LEFT JOIN ended AS e ON e.silence_id = s.action_id
WHERE s.kind = 'silence' AND s.starts_at <= now() AND s.until > now()
    -- A machine with a clock that is behind ends a silence at its beginning at the earliest.
    AND (e.ended_at IS NULL OR greatest(e.ended_at, s.at) > now())
