//! The role `maintain`: keeps the tables quick to open and read, for years. Several processes may run it at once: the logs of the
//! tables keep them from repeating each other's work.

use std::time::Duration;

use bellwether_aggregate::PartialsFold;
use bellwether_base::Result;
use bellwether_follow::Until;
use bellwether_lake::{Act, Lake, MaintainSettings, Retention};
use bellwether_tables::Table;

use super::{Role, Shared, Work};
use crate::config::Config;

/// Time from the start to the first round. Soon, because a process that never lives until its first round would leave a log
/// that takes longer to open each time; not at once, because the other roles have work to do at the start.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(30);

/// Rounds between two that also clean up the logs of tables that get few commits: an hour.
const CLEAN_UP_EVERY: u64 = 120;

/// Rounds between two that also list all files, to find those without a commit: a day.
const UNNAMED_EVERY: u64 = 24 * CLEAN_UP_EVERY;

struct MaintainRole {
    settings: MaintainSettings,
    retention: Retention,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(MaintainRole { settings: config.maintain, retention: config.retention })
}

// === impl MaintainRole ===

impl Role for MaintainRole {
    fn name(&self) -> &'static str {
        "maintain"
    }

    fn is_background(&self) -> bool {
        true
    }

    fn start(&self, shared: &Shared, _: Until) -> Result<Work> {
        Ok(Box::pin(maintain(shared.lake.clone(), self.settings, self.retention)))
    }
}

async fn maintain(lake: Lake, settings: MaintainSettings, retention: Retention) -> Result<()> {
    tokio::time::sleep(FIRST_ROUND).await;
    for round in 0_u64.. {
        for table in Table::ALL {
            if let Err(error) = Box::pin(one_round(&lake, table, &settings, &retention, round)).await {
                tracing::warn!(table = table.name(), reason = %error.chain(), "maintenance failed; will retry");
            }
        }
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

async fn one_round(
    lake: &Lake,
    table: Table,
    settings: &MaintainSettings,
    retention: &Retention,
    round: u64,
) -> Result<()> {
    let mut done = lake.maintain_with(table, settings, Some(&PartialsFold)).await?;
    if round.is_multiple_of(CLEAN_UP_EVERY) {
        done.add(lake.clean_up(table, settings, Act::Do).await?);
    }
    if round.is_multiple_of(UNNAMED_EVERY) {
        done.unnamed = lake.remove_unnamed(table, settings, Act::Do).await?;
    }
    if let Some(keep) = retention.of(table).filter(|_| round % CLEAN_UP_EVERY == CLEAN_UP_EVERY / 2) {
        done.add(Box::pin(lake.retain(table, keep, false, Act::Do)).await?);
        if done.refused_days > 0 {
            let (table, days) = (table.name(), done.refused_days);
            tracing::warn!(
                table,
                days,
                "so many days of rows would be removed at once; `bellwether maintain` asks for a confirmation"
            );
        }
    }
    if done.is_some() {
        tracing::debug!(table = table.name(), ?done, "maintained");
    }
    Ok(())
}
