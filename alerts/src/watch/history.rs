//! Builds the state of a watcher from the tables when it opens.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_base::Result;
use bellwether_detect::Minute;
use bellwether_lake::{CommitLog, Layout};
use bellwether_tables::Table;

use super::Watcher;
use super::publish::Origin;
use crate::progress::Progress;
use crate::read::{ReplaySpan, replay};
use crate::record::micros;

/// Transitions of so many days in `alerts` are compared with those that come out when history is judged again.
pub(super) const CONFIRMED_MICROS: i64 = 7 * 86_400 * 1_000_000;

// === impl Watcher ===

impl Watcher {
    /// Judges the history of the tables, day by day, and appends the transitions that `alerts` does not hold.
    pub(super) async fn build(&mut self) -> Result<()> {
        let lake = self.watch.lake.clone();
        let metrics = lake.log(Table::Metrics).load().await?;
        self.events_next = Layout::reads_next(&metrics);
        let metrics_version = metrics.version;
        self.metrics_read = metrics;
        (self.progress, self.noted_next) = Progress::at(&lake, self.events_next).await?;
        self.resume_alerts();
        self.engine.at(lake.clock().now_micros(), false);
        let to = self.complete();
        let mut rows = Vec::new();
        if metrics_version > 0 || self.events_next > 0 {
            let now = lake.clock().now_micros();
            let silent_to = to.map(|to| self.progress.silent_to(to, now));
            let span = ReplaySpan { metrics_version, events_next: self.events_next, from: None, to, silent_to };
            rows = replay(&lake, &mut self.engine, &self.watch.settings, span).await?;
        }
        let found: BTreeSet<(String, i64, String, bool)> =
            rows.iter().map(|row| (row.alert_id.clone(), row.at, row.state.to_owned(), row.stale)).collect();
        let until = micros(to.unwrap_or(Minute::MIN));
        let replayed = self.engine.replayed_rules();
        for (id, entry) in self.ledger.unconfirmed(&found, until.saturating_sub(CONFIRMED_MICROS), until, &replayed) {
            rows.extend(self.engine.retraction(&id, entry.at, &entry.state, entry.stale));
        }
        self.complete_to = to.unwrap_or(Minute::MIN);
        self.publish(rows, Origin::History).await?;
        self.too_late = self.engine.totals(0).rebuild;
        self.drop_idle();
        Ok(())
    }

    /// Lets alerts of rules on whole tables go on, because their past is not in the tables.
    fn resume_alerts(&mut self) {
        let firing: Vec<(String, BTreeMap<String, String>, i64)> = self
            .ledger
            .alerts()
            .filter(|(_, alert)| alert.last().is_some_and(|last| last.state == "firing"))
            .filter_map(|(_, alert)| Some((alert.rule.clone(), alert.labels.clone(), alert.last()?.at)))
            .collect();
        for (rule, labels, at) in firing {
            self.engine.resume(&rule, &labels, at);
        }
    }
}
