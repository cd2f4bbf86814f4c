//! The settings of a sink, as they stand in the configuration under `[deliver.sinks.NAME]`, and the sink that is made of them.

use std::sync::Arc;

use bellwether_base::{Clock, Error, Result};
use serde::{Deserialize, Serialize};

pub use crate::http::NetworkSettings;
use crate::sink::Sink;
use crate::sink::alertmanager::Alertmanager;
pub use crate::sink::alertmanager::AlertmanagerSettings;
use crate::sink::email::Email;
pub use crate::sink::email::{EmailSettings, TlsMode};
use crate::sink::inbox::Inbox;
pub use crate::sink::inbox::InboxSettings;
use crate::sink::opsgenie::Opsgenie;
pub use crate::sink::opsgenie::OpsgenieSettings;
use crate::sink::pagerduty::Pagerduty;
pub use crate::sink::pagerduty::PagerdutySettings;
use crate::sink::slack::Slack;
pub use crate::sink::slack::SlackSettings;
use crate::sink::teams::Teams;
pub use crate::sink::teams::TeamsSettings;
use crate::sink::webhook::Webhook;
pub use crate::sink::webhook::{WebhookSettings, WebhookUrl};

/// The settings of one sink. `kind` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SinkSettings {
    Alertmanager(AlertmanagerSettings),
    Pagerduty(PagerdutySettings),
    Slack(SlackSettings),
    Opsgenie(OpsgenieSettings),
    Teams(TeamsSettings),
    Webhook(WebhookSettings),
    Email(EmailSettings),
    Inbox(InboxSettings),
}

// === impl SinkSettings ===

impl SinkSettings {
    /// Returns what is wrong with the settings, each problem one sentence. Reads no file and opens no connection.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self {
            Self::Alertmanager(settings) => settings.problems(&mut problems),
            Self::Pagerduty(settings) => settings.problems(&mut problems),
            Self::Slack(settings) => settings.problems(&mut problems),
            Self::Opsgenie(settings) => settings.problems(&mut problems),
            Self::Teams(settings) => settings.problems(&mut problems),
            Self::Webhook(settings) => settings.problems(&mut problems),
            Self::Email(settings) => settings.problems(&mut problems),
            Self::Inbox(settings) => settings.problems(&mut problems),
        }
        problems
    }

    /// Creates the sink. Reads `ca_file`, but no secret: these are read with each message.
    ///
    /// # Errors
    ///
    /// `Config` if the settings are not valid, or `ca_file` cannot be read.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Sink>> {
        if let [first, ..] = &self.validate()[..] {
            return Err(Error::config(first.clone()));
        }
        Ok(match self.clone() {
            Self::Alertmanager(settings) => Arc::new(Alertmanager::new(settings, clock)?),
            Self::Pagerduty(settings) => Arc::new(Pagerduty::new(settings, clock)?),
            Self::Slack(settings) => Arc::new(Slack::new(settings, clock)?),
            Self::Opsgenie(settings) => Arc::new(Opsgenie::new(settings, clock)?),
            Self::Teams(settings) => Arc::new(Teams::new(settings, clock)?),
            Self::Webhook(settings) => Arc::new(Webhook::new(settings, clock)?),
            Self::Email(settings) => Arc::new(Email::new(settings, clock)?),
            Self::Inbox(settings) => Arc::new(Inbox::new(settings, clock)?),
        })
    }
}
