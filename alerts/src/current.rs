//! The present state of all alerts, from the table.

use bellwether_base::Result;
use bellwether_lake::Lake;

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
        })
    });
    Ok(current.collect())
}
