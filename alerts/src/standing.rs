//! The alerts as they stand, from the table.

use bellwether_lake::{Lake, Result};

use crate::ledger::Ledger;

/// One alert as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its id.
    pub alert_id: String,
    /// Its rule.
    pub rule: String,
    /// Who is told.
    pub severity: String,
    /// Where it is.
    pub state: String,
    /// Firing without news.
    pub stale: bool,
    /// Since when, microseconds.
    pub at: i64,
}

/// All alerts that have a transition that stands.
///
/// # Errors
/// `Unavailable` where the table cannot be read.
pub async fn current(lake: &Lake) -> Result<Vec<Current>> {
    let ledger = Ledger::load(lake).await?;
    let stands = ledger.alerts().filter_map(|(id, alert)| {
        let last = alert.last()?;
        Some(Current {
            alert_id: id.clone(),
            rule: alert.rule.clone(),
            severity: alert.severity.clone(),
            state: last.state.clone(),
            stale: last.stale,
            at: last.at,
        })
    });
    Ok(stands.collect())
}
