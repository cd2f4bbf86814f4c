//! The role `maintain`: keeps the tables quick to open and read. Several processes may run it at once: the logs of the tables
//! keep them from repeating each other's work.

use std::time::Duration;

use bellwether_base::Result;
use bellwether_follow::Until;
use bellwether_lake::{Lake, MaintainSettings};
use bellwether_tables::Table;

use super::{Role, Shared, Work};
use crate::config::Config;

/// Time from the start to the first round. Soon, because a process that never lives until its first round would leave a log
/// that takes longer to open each time; not at once, because the other roles have work to do at the start.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(30);

struct MaintainRole;

pub(super) fn new(_: &Config) -> Box<dyn Role> {
    Box::new(MaintainRole)
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
        Ok(Box::pin(maintain(shared.lake.clone())))
    }
}

async fn maintain(lake: Lake) -> Result<()> {
    let mut pause = FIRST_ROUND;
    loop {
        tokio::time::sleep(pause).await;
        pause = ROUND;
        for table in Table::ALL {
            if let Err(error) = lake.maintain(table, &MaintainSettings::default()).await {
                tracing::warn!(table = table.name(), reason = %error.chain(), "maintenance failed; will retry");
            }
        }
    }
}
