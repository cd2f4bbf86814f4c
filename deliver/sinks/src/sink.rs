//! The interface of a sink. One file below this one is one sink.

pub(crate) mod alertmanager;
pub(crate) mod email;
pub(crate) mod inbox;
pub(crate) mod opsgenie;
pub(crate) mod pagerduty;
pub(crate) mod slack;
pub(crate) mod teams;
pub(crate) mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::page::{Change, Link, Page};

/// One message: a page, or several that a route groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Name of the route.
    pub route: String,
    /// The labels by which the route groups pages, in order; empty if it does not group.
    pub group: Vec<(String, String)>,
    /// At least one. Those that fire come first.
    pub pages: Vec<Page>,
    /// Incidents that began and ended while the sink could not be reached. They are one line, not pages.
    pub missed: Vec<String>,
    /// Nothing has changed since the last message, except that the pages now have their evidence.
    #[serde(default)]
    pub evidence_only: bool,
}

/// What a sink remembers of a message that it sent, such as the id of a chat message that is updated later. Kept in `deliveries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The sink's own reference; empty if it has none.
    pub reference: String,
    /// What the service answered, in one line, without secrets.
    pub answer: String,
}

/// A message that did not arrive, or of which it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Try again, not before this time has passed: an outage, a time-out, a rate limit.
    Later { reason: String, after: Option<Duration> },
    /// The service refuses the message, and would refuse it again.
    Refused { reason: String },
}

/// A release that went into production, for services that show changes beside incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseNotice {
    pub release: String,
    /// The release before it.
    pub previous: Option<String>,
    pub task: Option<String>,
    pub tenant: Option<String>,
    /// Time of its first run, microseconds since the epoch.
    pub started_at: i64,
    /// Differences of the configurations of the two releases.
    pub changes: Vec<Change>,
    pub links: Vec<Link>,
}

/// The verdict that a canary is to be rolled back, for services that turn flags off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollbackNotice {
    pub task: String,
    /// The release to turn off.
    pub canary: String,
    /// The release to go back to.
    pub baseline: String,
    pub tenant: Option<String>,
    /// The reason in one sentence.
    pub summary: String,
    /// The whole answer of the gate, as `bellwether gate --json` prints it.
    pub answer: serde_json::Value,
}

/// A service that carries pages to people.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The kind of sink, as in the configuration, such as `slack`.
    fn kind(&self) -> &'static str;

    /// How often a firing incident is sent again although nothing has changed, for services that would otherwise resolve it.
    fn resend_every(&self) -> Option<Duration> {
        None
    }

    /// For how long a resolved incident is sent again, for services that may have missed its end.
    fn resend_ended_for(&self) -> Option<Duration> {
        None
    }

    /// Returns true if a page that was sent without its evidence may be sent again with it. Return false if the service would show it
    /// as one more alert.
    fn takes_late_evidence(&self) -> bool {
        false
    }

    /// Sends a message. `earlier` is the receipt of the last one about the same group, or, ungrouped, incident.
    ///
    /// A message may be sent twice, so that the service must recognise it by [`Page::incident`].
    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<Receipt, Failure>;

    /// Returns true if the service has a place for releases.
    fn shows_releases(&self) -> bool {
        false
    }

    /// Tells the service of a new release. Returns nothing if the service has no place for releases.
    async fn announce(&self, _release: &ReleaseNotice) -> Result<Option<Receipt>, Failure> {
        Ok(None)
    }

    /// Tells the service that a canary is to be rolled back. Returns nothing if the service has no place for it.
    async fn roll_back(&self, _rollback: &RollbackNotice) -> Result<Option<Receipt>, Failure> {
        Ok(None)
    }
}

// === impl RollbackNotice ===

impl RollbackNotice {
    /// Returns a key that is the same for every verdict on a canary.
    pub fn key(&self) -> String {
        let parts = [self.tenant.as_deref().unwrap_or_default(), &self.task, &self.canary];
        crate::text::hash(&serde_json::json!(["rollback", parts]).to_string())
    }
}

/// The answers of a service that takes every page by itself.
#[derive(Debug, Default)]
pub(crate) struct PageAnswers {
    last: String,
    refused: Option<String>,
}

// === impl PageAnswers ===

impl PageAnswers {
    /// Adds an answer. A page that is refused holds up no other.
    ///
    /// # Errors
    ///
    /// A failure that ends later: the remaining pages would meet it too.
    pub(crate) fn add(&mut self, answer: Result<String, Failure>) -> Result<(), Failure> {
        match answer {
            Ok(answer) => self.last = answer,
            Err(Failure::Refused { reason }) => self.refused = self.refused.take().or(Some(reason)),
            Err(later) => return Err(later),
        }
        Ok(())
    }

    /// Returns the receipt of all pages.
    ///
    /// # Errors
    ///
    /// The first refusal.
    pub(crate) fn receipt(self, reference: String) -> Result<Receipt, Failure> {
        match self.refused {
            Some(reason) => Err(Failure::Refused { reason }),
            None => Ok(Receipt { reference, answer: self.last }),
        }
    }
}
