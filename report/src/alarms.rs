//! The alerts of a week, and the precision of rules by feedback.

use std::collections::BTreeMap;

use bellwether_alerts::current::current_alerts;
use bellwether_base::{Result, Week};
use bellwether_lake::Lake;
use bellwether_queries::Session;
use serde::Deserialize;

use crate::gathered::{Scope, moment};

/// Most alerts that are listed.
const MOST: usize = 20;

/// An alert that fired in the week.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Alarm {
    pub(crate) alert_id: String,
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) task: Option<String>,
    pub(crate) title: String,
    /// When it last began to fire in the week, microseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) times: i64,
    /// Its state when the report was written.
    #[serde(default)]
    pub(crate) state: String,
}

/// The precision of a rule, by feedback.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Precision {
    pub(crate) rule: String,
    pub(crate) useful: i64,
    pub(crate) noise: i64,
}

/// The alerts of a week.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alarms {
    /// Still firing before others, pages before tickets, new before old; at most 20.
    pub(crate) listed: Vec<Alarm>,
    /// How many alerts fired, and how many of them still fire.
    pub(crate) fired: usize,
    pub(crate) firing: usize,
    /// Rules with feedback.
    pub(crate) precision: Vec<Precision>,
}

pub(crate) async fn read(session: &Session, lake: &Lake, week: Week, scope: &Scope) -> Result<Alarms> {
    let sql = format!(
        "SELECT * FROM (
            SELECT
                alert_id, rule, severity, task,
                last_value(title ORDER BY evaluation, at) AS title,
                max(at) AS at,
                CAST(sum(CASE
                    WHEN change IN ('new', 'late') AND state = 'firing' AND state_from <> 'firing' THEN 1
                    WHEN change = 'retracted' AND state_from = 'firing' AND state <> 'firing' THEN -1
                    ELSE 0 END) AS BIGINT) AS times
            FROM alerts
            WHERE {scope} AND (state = 'firing' OR state_from = 'firing' AND change = 'retracted')
                AND at >= {from} AND at < {to}
            GROUP BY alert_id, rule, severity, task
        ) WHERE times > 0",
        scope = scope.condition(),
        from = moment(week.start()),
        to = moment(week.end()),
    );
    let mut alarms: Vec<Alarm> = session.rows(&sql).await?;
    let states: BTreeMap<String, String> =
        current_alerts(lake).await?.into_iter().map(|alert| (alert.alert_id, alert.state)).collect();
    for alarm in &mut alarms {
        alarm.state = states.get(&alarm.alert_id).cloned().unwrap_or_default();
    }
    let rank = |alarm: &Alarm| (!alarm.is_firing(), alarm.severity != "page", std::cmp::Reverse(alarm.at));
    alarms.sort_by_key(rank);
    let (fired, firing) = (alarms.len(), alarms.iter().filter(|alarm| alarm.is_firing()).count());
    alarms.truncate(MOST);
    let sql = "SELECT rule, useful, noise FROM rule_precision WHERE useful + noise > 0 ORDER BY rule";
    Ok(Alarms { listed: alarms, fired, firing, precision: session.rows(sql).await? })
}

// === impl Alarm ===

impl Alarm {
    pub(crate) fn is_firing(&self) -> bool {
        self.state == "firing"
    }
}
