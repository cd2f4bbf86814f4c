//! Appends transitions to `alerts`, logs them, and sets the gauges.

use std::collections::BTreeMap;

use bellwether_base::Result;
use bellwether_detect::AlertState;
use bellwether_follow::{Append, land};
use bellwether_lake::{Advance, Commit, CommitLog};
use bellwether_tables::{AppId, Table};
use serde_json::Map;

use super::Watcher;
use crate::hands::{Hands, Precision};
use crate::record::{AlertRow, Evaluation, RULE_FAILING, batch, micros};

/// Least time between two records of progress.
const RECORD_MICROS: i64 = 20_000_000;

/// The source of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Everything in the tables, judged when the watcher opened.
    History,
    /// Rows that were read since.
    NewRows,
}

// === impl Watcher ===

impl Watcher {
    /// Appends the transitions that `alerts` does not hold, in one commit.
    pub(super) async fn publish(&mut self, rows: Vec<AlertRow>, origin: Origin) -> Result<()> {
        let new = self.ledger.add(rows);
        self.log(&new, origin);
        self.read_feedback().await;
        self.set_gauges();
        if new.is_empty() {
            return Ok(());
        }
        let lake = &self.watch.lake;
        self.ledger.evaluations += 1;
        let evaluation = Evaluation {
            number: self.ledger.evaluations,
            metrics_version: self.metrics_read.version,
            events_version: self.events_next,
            // Before the first event no time is complete.
            complete_to: self.complete_to.max(0),
            evaluated_at: lake.clock().now_micros(),
        };
        let rows = batch(&new, &evaluation)?;
        let app_id = AppId::Watch.to_string();
        let append = Append {
            table: Table::Alerts,
            on: &self.alerts,
            rows: Some(&rows),
            advances: vec![Advance { expected: self.alerts.next(&app_id), app_id, next: evaluation.number }],
            operation: "watch",
            facts: Map::from_iter([("metrics_version".to_owned(), evaluation.metrics_version.into())]),
        };
        self.alerts = append.commit(lake, &self.metrics.follow).await?;
        Ok(())
    }

    /// Records the version of `events` to read next, at most every few seconds.
    pub(super) async fn record_progress(&mut self, now: i64) -> Result<()> {
        if !self.watch.settings.record_progress || now < self.record_after {
            return Ok(());
        }
        let (lake, app_id) = (&self.watch.lake, AppId::WatchEvents.to_string());
        let log = lake.log(Table::Alerts);
        let expected = self.alerts.next(&app_id);
        if expected.is_some_and(|recorded| recorded >= self.events_next) {
            return Ok(());
        }
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances: vec![Advance { app_id, expected, next: self.events_next }],
            files: Vec::new(),
            operation: "watch",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        // If another watcher was faster, it has recorded about the same.
        let landed = land(&log, &self.alerts, &commit, &*lake.clock(), &self.metrics.follow).await?;
        let newest = match landed {
            Some(newest) => newest,
            None => log.load().await?,
        };
        // If another watcher has appended transitions, the old snapshot fences the next ones of this watcher.
        let evaluations = AppId::Watch.to_string();
        if newest.next(&evaluations) == self.alerts.next(&evaluations) {
            self.alerts = newest;
        }
        self.record_after = now.saturating_add(RECORD_MICROS);
        Ok(())
    }

    /// Logs each new transition. Those of history, which may be weeks of them, are counted in one line.
    fn log(&self, new: &[AlertRow], origin: Origin) {
        for row in new {
            // An alert that becomes stale or is heard of again is no other alert.
            if !row.restates() {
                self.metrics.transitions.with_label_values(&[row.severity, row.state]).inc();
            }
            if origin == Origin::NewRows {
                tracing::info!(
                    alert = row.alert_id, rule = row.rule, severity = row.severity, from = row.state_from, to = row.state, why = row.why,
                    change = ?row.change, stale = row.stale, title = row.title, "alert"
                );
            }
        }
        if origin == Origin::History {
            let count = |state: &str| {
                self.ledger.alerts().filter(|(_, alert)| alert.last().is_some_and(|last| last.state == state)).count()
            };
            tracing::info!(
                firing = count("firing"),
                pending = count("pending"),
                resolved = count("resolved"),
                new_transitions = new.len(),
                "state of the alerts; list them with `bellwether alerts list`"
            );
        }
    }

    /// Reads what people said since. A failure is harmless: it concerns two gauges only, and the next turn reads again.
    async fn read_feedback(&mut self) {
        let lake = &self.watch.lake;
        let read = match &mut self.hands {
            Some(hands) => hands.refresh(lake).await,
            none => match Hands::load(lake).await {
                Ok(hands) => {
                    *none = Some(hands);
                    Ok(true)
                }
                Err(error) => Err(error),
            },
        };
        match (read, &self.hands) {
            (Ok(true), Some(hands)) => self.set_precision(&hands.precision()),
            (Ok(_), _) => {}
            (Err(error), _) => tracing::warn!(reason = %error.chain(), "feedback on alerts cannot be read"),
        }
    }

    /// Sets the gauges of rules that are loaded, so that feedback on a rule of a former configuration makes no series.
    fn set_precision(&self, precision: &BTreeMap<String, Precision>) {
        self.metrics.feedback.reset();
        self.metrics.precision.reset();
        let is_known =
            |rule: &str| rule == RULE_FAILING || self.watch.rules.rules.iter().any(|known| known.name == rule);
        for (rule, found) in precision.iter().filter(|(rule, _)| is_known(rule)) {
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.feedback.with_label_values(&[rule.as_str(), "useful"]).set(count(found.useful));
            self.metrics.feedback.with_label_values(&[rule.as_str(), "noise"]).set(count(found.noise));
            if let Some(share) = found.share() {
                self.metrics.precision.with_label_values(&[rule.as_str()]).set(share);
            }
        }
    }

    fn set_gauges(&self) {
        // Before the first event there is no time to count from.
        let complete_to = self.complete_to.max(0);
        let totals = self.engine.totals(complete_to);
        let (pages, retracted) = self.ledger.pages(micros(complete_to));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let active = self.engine.active_alerts();
        for severity in ["page", "ticket", "info"] {
            let firing =
                active.iter().filter(|alert| alert.severity.name() == severity && alert.state == AlertState::Firing);
            let rules = self.ledger.alerts().filter(|(_, alert)| {
                alert.rule == RULE_FAILING
                    && alert.severity == severity
                    && alert.last().is_some_and(|last| last.state == "firing")
            });
            self.metrics.firing.with_label_values(&[severity]).set(number(firing.count() + rules.count()));
        }
        let stale = self.ledger.alerts().filter(|(_, alert)| alert.last().is_some_and(|last| last.stale)).count();
        self.metrics.stale.set(number(stale));
        self.metrics.rules.set(number(totals.rules));
        self.metrics.broken.set(number(totals.broken));
        self.metrics.series.set(number(totals.series));
        self.metrics.complete_to.set(complete_to.saturating_mul(60));
        self.metrics.too_late.set(i64::try_from(totals.too_late).unwrap_or(i64::MAX));
        self.metrics.waiting.set(number(totals.waiting));
        self.metrics.pages_budget.set(self.watch.settings.budget.pages);
        self.metrics.pages_spent.set(totals.pages_spent);
        self.metrics.pages.set(number(pages));
        self.metrics.pages_retracted.set(number(retracted));
    }
}
