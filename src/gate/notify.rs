//! `--notify`: a webhook hears once that a canary is to be rolled back.

use std::sync::Arc;
use std::time::Duration;

use bellwether_alerts::gate::{GateAnswer, GateDecision};
use bellwether_base::{Backoff, Clock, Error, Result};
use bellwether_deliver::within;
use bellwether_lake::Lake;
use bellwether_sinks::{Failure, Receipt, RollbackNotice, Sink};

use crate::config::Config;

/// The kind of sink that has a place for rollbacks.
const KIND: &str = "webhook";

/// Attempts of one command; the next command tries again.
const ATTEMPTS: usize = 4;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The webhook.
pub(super) struct Notifier {
    name: String,
    sink: Arc<dyn Sink>,
}

// === impl Notifier ===

impl Notifier {
    /// Finds the webhook of a configuration.
    ///
    /// # Errors
    /// `Config` if there is none of this name.
    pub(super) fn find(name: &str, config: Option<&Config>, clock: &Arc<dyn Clock>) -> Result<Self> {
        let Some(config) = config else {
            return Err(Error::config("`--notify` names a sink of the configuration, and there is none")
                .with_hint("give `--config FILE`"));
        };
        let Some(sink) = crate::deliver::sinks(&config.deliver, clock)?.remove(name) else {
            return Err(Error::config(format!("there is no sink `{name}`")).with_hint(format!(
                "add `[deliver.sinks.{name}]` with `kind = \"webhook\"`; docs/sinks.md shows how"
            )));
        };
        if sink.kind() != KIND {
            return Err(Error::config(format!("sink `{name}` is of kind `{}`, not `{KIND}`", sink.kind()))
                .with_hint("only a webhook is notified of rollbacks"));
        }
        Ok(Self { name: name.to_owned(), sink })
    }

    /// Sends the verdict if it is to roll back, unless that was sent for this canary before.
    ///
    /// # Errors
    /// `Unavailable` if the webhook or the tables do not answer; `Config` if the webhook refuses. Nothing is noted then, so that
    /// the next call sends it.
    pub(super) async fn tell(&self, lake: &Lake, answer: &GateAnswer) -> Result<()> {
        if answer.decision != GateDecision::RollBack {
            return Ok(());
        }
        let whole = serde_json::to_value(answer)
            .map_err(|source| Error::bug("cannot write the answer as JSON").with_source(source))?;
        let rollback = RollbackNotice {
            task: answer.task.clone(),
            canary: answer.canary.clone(),
            baseline: answer.baseline.clone(),
            tenant: answer.tenant.clone(),
            summary: answer.summary.clone(),
            answer: whole,
        };
        let note = format!(
            "rollback-{}-{}",
            self.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"),
            rollback.key()
        );
        if lake.is_done(&note).await? {
            return Ok(());
        }
        let receipt = self.send(&rollback, &lake.clock()).await?;
        tracing::info!(sink = self.name, canary = rollback.canary, answer = receipt.answer, "notified of the rollback");
        lake.note_done(&note, format!("{{\"canary\":{:?}}}\n", rollback.canary)).await
    }

    async fn send(&self, rollback: &RollbackNotice, clock: &Arc<dyn Clock>) -> Result<Receipt> {
        let mut pauses = Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &**clock);
        let mut attempt = 1;
        loop {
            let sent = async { self.sink.roll_back(rollback).await.map(Option::unwrap_or_default) };
            let name = &self.name;
            match within(sent, &**clock).await {
                Ok(receipt) => return Ok(receipt),
                Err(Failure::Later { .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                    clock.sleep(pauses.pause()).await;
                }
                Err(Failure::Later { reason, .. }) => {
                    return Err(Error::unavailable(format!(
                        "sink `{name}` was not notified of the rollback: {reason}"
                    ))
                    .with_hint("the decision stands; run the command again to notify it"));
                }
                Err(Failure::Refused { reason }) => {
                    return Err(Error::config(format!("sink `{name}` refuses the notice of the rollback: {reason}"))
                        .with_hint("the decision stands; correct the sink and run the command again"));
                }
            }
        }
    }
}
