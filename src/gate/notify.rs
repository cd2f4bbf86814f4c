//! A webhook hears once that a canary is to be rolled back: with `--notify`, and with `gate.notify` of a served gate.
//!
//! * [`Notifier`] sends, and notes in the tables that it did.
//! * [`Background`] sends beside the answers of a served gate, which never wait for the webhook.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_alerts::gate::{GateAnswer, GateDecision};
use bellwether_base::{Backoff, Clock, Error, Result};
use bellwether_deliver::{DeliverSettings, within};
use bellwether_lake::Lake;
use bellwether_sinks::{Failure, Receipt, RollbackNotice, Sink};

use crate::config::Config;

/// The kind of sink that has a place for rollbacks.
const KIND: &str = "webhook";

const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long a webhook that does not answer is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    attempts: usize,
    /// Longest pause between two attempts.
    pause: Duration,
    /// Longest pause that the webhook may ask for itself.
    asked: Duration,
}

/// The webhook.
#[derive(Clone)]
pub(super) struct Notifier {
    name: String,
    sink: Arc<dyn Sink>,
    patience: Patience,
}

/// A webhook that is notified beside the answers of a served gate.
pub(super) struct Background {
    notifier: Notifier,
    lake: Lake,
    /// The rollbacks that are being sent.
    sending: Arc<Mutex<BTreeSet<String>>>,
}

// === impl Patience ===

impl Patience {
    /// That of a command: the next command tries again.
    pub(super) const COMMAND: Self =
        Self { attempts: 4, pause: Duration::from_secs(10), asked: Duration::from_secs(10) };

    /// That of a served gate: about a day. A controller that got its answer may never ask again.
    pub(super) const SERVED: Self =
        Self { attempts: 1500, pause: Duration::from_secs(60), asked: Duration::from_secs(3600) };
}

// === impl Notifier ===

impl Notifier {
    /// Finds the webhook of a configuration.
    ///
    /// # Errors
    /// `Config` if there is none of this name.
    pub(super) fn find(
        name: &str,
        config: Option<&Config>,
        clock: &Arc<dyn Clock>,
        patience: Patience,
    ) -> Result<Self> {
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
        Ok(Self { name: name.to_owned(), sink, patience })
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
        let rollback = notice(answer)?;
        let note = format!("rollback-{}-{}", for_note(&self.name), rollback.key());
        if lake.is_done(&note).await? {
            return Ok(());
        }
        let receipt = self.send(&rollback, &lake.clock()).await?;
        tracing::info!(sink = self.name, canary = rollback.canary, answer = receipt.answer, "notified of the rollback");
        lake.note_done(&note, format!("{{\"canary\":{:?}}}\n", rollback.canary)).await
    }

    async fn send(&self, rollback: &RollbackNotice, clock: &Arc<dyn Clock>) -> Result<Receipt> {
        let mut pauses = Backoff::between(FIRST_PAUSE, self.patience.pause, &**clock);
        let mut attempt = 1;
        loop {
            let sent = async { self.sink.roll_back(rollback).await.map(Option::unwrap_or_default) };
            let name = &self.name;
            match within(sent, &**clock).await {
                Ok(receipt) => return Ok(receipt),
                Err(Failure::Later { after, .. })
                    if attempt < self.patience.attempts && after.is_none_or(|after| after <= self.patience.asked) =>
                {
                    attempt += 1;
                    clock.sleep(pauses.pause().max(after.unwrap_or_default())).await;
                }
                Err(Failure::Later { reason, .. }) => {
                    return Err(Error::unavailable(format!(
                        "sink `{name}` was not notified of the rollback: {reason}"
                    ))
                    .with_hint("the decision stands; ask the gate again to notify it"));
                }
                Err(Failure::Refused { reason }) => {
                    return Err(Error::config(format!("sink `{name}` refuses the notice of the rollback: {reason}"))
                        .with_hint("the decision stands; correct the sink and ask the gate again"));
                }
            }
        }
    }
}

// === impl Background ===

impl Background {
    pub(super) fn new(notifier: Notifier, lake: &Lake) -> Self {
        Self { notifier, lake: lake.clone(), sending: Arc::default() }
    }

    /// Starts to send the verdict if it is to roll back, unless that is being done.
    pub(super) fn tell(&self, answer: &GateAnswer) {
        if answer.decision != GateDecision::RollBack {
            return;
        }
        let key = match notice(answer) {
            Ok(rollback) => rollback.key(),
            Err(error) => return report(&self.notifier.name, &error),
        };
        if !locked(&self.sending).insert(key.clone()) {
            return;
        }
        let (notifier, lake, answer) = (self.notifier.clone(), self.lake.clone(), answer.clone());
        let sending = Arc::clone(&self.sending);
        tokio::spawn(async move {
            if let Err(error) = notifier.tell(&lake, &answer).await {
                report(&notifier.name, &error);
            }
            locked(&sending).remove(&key);
        });
    }
}

fn locked(sending: &Mutex<BTreeSet<String>>) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
    sending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(sink: &str, error: &Error) {
    tracing::error!(sink, reason = %error.chain(), "a webhook was not notified of a rollback");
}

/// Returns true if a name is that of a webhook of these settings.
pub(crate) fn is_webhook(settings: &DeliverSettings, name: &str) -> bool {
    settings.sinks.get(name).and_then(|sink| sink.get("kind")).and_then(toml::Value::as_str) == Some(KIND)
}

/// Returns a name of letters, digits and hyphens that no other name has.
fn for_note(name: &str) -> String {
    let spelt = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter.to_string(),
        false => format!("-{:x}-", u32::from(letter)),
    };
    name.chars().map(spelt).collect()
}

fn notice(answer: &GateAnswer) -> Result<RollbackNotice> {
    let whole = serde_json::to_value(answer)
        .map_err(|source| Error::bug("cannot write the answer as JSON").with_source(source))?;
    Ok(RollbackNotice {
        task: answer.task.clone(),
        canary: answer.canary.clone(),
        baseline: answer.baseline.clone(),
        tenant: answer.tenant.clone(),
        summary: answer.summary.clone(),
        answer: whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_about_different_sinks_have_different_names() {
        let names = ["flags", "flags-eu", "flags_eu", "flags.eu", "flags-2d-eu"].map(for_note);
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert!(
            names.iter().flat_map(|name| name.chars()).all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
        );
    }
}
