//! The present state of all alerts, from the table.

use std::collections::BTreeMap;

use bellwether_base::Result;
use bellwether_lake::Lake;

use crate::hands::matched_labels;
use crate::ledger::Ledger;

/// The present state of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentAlert {
    /// Id.
    pub alert_id: String,
    /// Rule.
    pub rule: String,
    /// Severity: page, ticket or info.
    pub severity: String,
    /// State.
    pub state: String,
    /// It fires, but its series has had no data since.
    pub stale: bool,
    /// Time of its last transition, microseconds since the epoch.
    pub at: i64,
    /// Labels of the rule and of the series.
    pub labels: BTreeMap<String, String>,
    /// When its latest firing began, microseconds since the epoch; none if it never fired.
    pub fired_at: Option<i64>,
}

// === impl CurrentAlert ===

impl CurrentAlert {
    /// Returns when the present firing began; none if the alert does not fire.
    pub fn firing_since(&self) -> Option<i64> {
        self.fired_at.filter(|_| self.state == "firing")
    }

    /// Returns the labels that a silence can match.
    pub fn matched_labels(&self) -> BTreeMap<String, String> {
        matched_labels(&self.rule, &self.severity, &self.labels)
    }
}

/// Reads the present state of all alerts.
///
/// # Errors
/// `Unavailable` if the table cannot be read.
pub async fn current_alerts(lake: &Lake) -> Result<Vec<CurrentAlert>> {
    let ledger = Ledger::load(lake).await?;
    let current = ledger.alerts().filter_map(|(id, alert)| {
        let last = alert.last()?;
        Some(CurrentAlert {
            alert_id: id.clone(),
            rule: alert.rule.clone(),
            severity: alert.severity.clone(),
            state: last.state.clone(),
            stale: last.stale,
            at: last.at,
            labels: alert.labels.clone(),
            fired_at: alert.fired().last(),
        })
    });
    Ok(current.collect())
}
