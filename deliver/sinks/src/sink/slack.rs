//! Slack, by an incoming webhook or by a bot.
//!
//! A webhook only posts. A bot keeps one message for each incident: it is updated with every change, and the change is a reply in its
//! thread, because an update notifies no person.

mod blocks;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Clock, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::http::{Call, Http, NetworkSettings};
use crate::render::{Detail, Message};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, Receipt, Sink};

const KIND: &str = "slack";
const DEFAULT_API: &str = "https://slack.com/api";

/// A rate limit without a time ends within a minute.
const RATE_LIMIT: Duration = Duration::from_secs(60);

/// Settings of a Slack channel: either `url`, or `token` and `channel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackSettings {
    /// The address of an incoming webhook, which is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// The token of a bot (`xoxb-…`) with the scope `chat:write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The channel in which the bot posts: its id, or its name with `#`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The address of the Web API; `https://slack-gov.com/api` for GovSlack.
    #[serde(default = "default_api")]
    pub api: String,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

pub(crate) struct Slack {
    settings: SlackSettings,
    http: Http,
}

/// The message of an incident, as it is kept in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Posted {
    channel: String,
    ts: String,
}

/// An error of the Web API.
#[derive(Debug)]
struct ApiError {
    code: String,
    failure: Failure,
}

fn default_api() -> String {
    DEFAULT_API.to_owned()
}

// === impl SlackSettings ===

impl SlackSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        self.network.url_problems("api", &self.api, problems);
        match (&self.url, &self.token, &self.channel) {
            (Some(_), None, None) => {}
            (None, Some(_), Some(channel)) if !channel.trim().is_empty() => {}
            (None, Some(_), _) => problems.push("`channel` must name the channel in which the bot posts".to_owned()),
            (None, None, _) => {
                problems.push("give `url` for an incoming webhook, or `token` and `channel` for a bot".to_owned())
            }
            (Some(_), ..) => problems.push("give either `url`, or `token` and `channel`, not both".to_owned()),
        }
        problems.extend(self.url.as_ref().and_then(|secret| secret.problem("url")));
        problems.extend(self.token.as_ref().and_then(|secret| secret.problem("token")));
    }
}

/// Returns the body of a message for a webhook of Slack, in Block Kit.
pub fn slack_message(notice: &Notice) -> Value {
    blocks::message(notice)
}

// === impl Slack ===

impl Slack {
    pub(crate) fn new(settings: SlackSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, clock)?;
        Ok(Self { settings, http })
    }

    async fn by_webhook(&self, secret: &Secret, notice: &Notice) -> Result<Receipt, Failure> {
        let secret = secret.read().await?;
        let mut redactor = Redactor::default();
        redactor.add(&secret);
        let url = secret.address("url")?;
        self.settings.network.check_url("url", &url)?;
        let call = Call {
            service: "Slack",
            method: Method::POST,
            url,
            headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
            body: blocks::message(notice).to_string().into_bytes(),
            redactor: &redactor,
            credential: "url",
        };
        let answer = self.http.send(call).await?;
        Ok(Receipt { reference: String::new(), answer: redactor.line(&answer.body, 200) })
    }

    async fn by_bot(
        &self,
        token: &Secret,
        channel: &str,
        notice: &Notice,
        earlier: Option<&Receipt>,
    ) -> Result<Receipt, Failure> {
        let message = blocks::message(notice);
        let posted = earlier.and_then(|receipt| serde_json::from_str::<Posted>(&receipt.reference).ok());
        if let Some(posted) = posted {
            let mut update = message.clone();
            update["channel"] = posted.channel.as_str().into();
            update["ts"] = posted.ts.as_str().into();
            match self.call(token, "chat.update", &update).await {
                // An edit notifies no one, and evidence alone needs no reply, which would.
                Ok(_) if notice.evidence_only => {
                    let answer = format!("updated {}", posted.ts);
                    return Ok(Receipt { reference: json!(posted).to_string(), answer });
                }
                Ok(_) => return self.reply(token, notice, posted).await,
                // Someone has deleted the message. Evidence alone is no reason to notify people again.
                Err(error) if error.is_gone() && notice.evidence_only => {
                    let answer = format!("{} was deleted", posted.ts);
                    return Ok(Receipt { reference: json!(posted).to_string(), answer });
                }
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.failure),
            }
        }
        let mut post = message;
        post["channel"] = channel.into();
        let answer = self.call(token, "chat.postMessage", &post).await.map_err(|error| error.failure)?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let posted = Posted { channel: text("channel"), ts: text("ts") };
        let answer = format!("posted as {}", posted.ts);
        Ok(Receipt { reference: json!(posted).to_string(), answer })
    }

    /// Says in the thread of a message what has changed.
    async fn reply(&self, token: &Secret, notice: &Notice, posted: Posted) -> Result<Receipt, Failure> {
        let mut reply = blocks::reply(&Message::new(notice, Detail::FULL));
        reply["channel"] = posted.channel.as_str().into();
        reply["thread_ts"] = posted.ts.as_str().into();
        self.call(token, "chat.postMessage", &reply).await.map_err(|error| error.failure)?;
        let answer = format!("updated {} and replied", posted.ts);
        Ok(Receipt { reference: json!(posted).to_string(), answer })
    }

    /// Calls a method of the Web API, which reports errors in a successful answer.
    async fn call(&self, token: &Secret, method: &str, body: &Value) -> Result<Value, ApiError> {
        let token = token.read().await?;
        let mut redactor = Redactor::default();
        redactor.add(&token);
        let mut url = Url::parse(&self.settings.api).map_err(|error| Failure::Refused { reason: error.to_string() })?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(method);
        }
        let call = Call {
            service: "Slack",
            method: Method::POST,
            url,
            headers: vec![
                ("content-type", "application/json; charset=utf-8".to_owned()),
                ("authorization", format!("Bearer {}", token.expose())),
            ],
            body: body.to_string().into_bytes(),
            redactor: &redactor,
            credential: "token",
        };
        let answer = self.http.send(call).await?;
        let parsed: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if parsed["ok"].as_bool() == Some(true) {
            return Ok(parsed);
        }
        let code = redactor.line(parsed["error"].as_str().unwrap_or("an answer that is not from Slack's API"), 100);
        Err(ApiError { failure: failure(method, &code), code })
    }
}

#[async_trait]
impl Sink for Slack {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// A bot edits its message. A webhook could only post a second one.
    fn takes_late_evidence(&self) -> bool {
        self.settings.token.is_some()
    }

    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        match (&self.settings.url, &self.settings.token, &self.settings.channel) {
            (Some(url), ..) => self.by_webhook(url, notice).await,
            (None, Some(token), Some(channel)) => self.by_bot(token, channel, notice, earlier).await,
            _ => Err(Failure::Refused { reason: "Slack has neither `url` nor `token` and `channel`".to_owned() }),
        }
    }
}

// === impl ApiError ===

impl ApiError {
    /// True if the earlier message can no longer be changed, so that a new one has to take its place.
    fn is_gone(&self) -> bool {
        matches!(
            self.code.as_str(),
            "message_not_found" | "cant_update_message" | "edit_window_closed" | "channel_not_found"
        )
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self { code: String::new(), failure }
    }
}

/// Returns what an error code of the Web API means.
fn failure(method: &str, code: &str) -> Failure {
    let reason = format!("Slack answered `{code}` to {method}");
    match code {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => Failure::Later { reason, after: Some(RATE_LIMIT) },
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" | "team_added_to_org" => {
            Failure::Later { reason, after: None }
        }
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            Failure::Refused { reason: format!("{reason}; hint: replace the bot's `token`") }
        }
        "channel_not_found" | "not_in_channel" | "is_archived" => {
            Failure::Refused { reason: format!("{reason}; hint: check `channel`, and invite the bot to it") }
        }
        "missing_scope" | "no_permission" => {
            Failure::Refused { reason: format!("{reason}; hint: the bot needs the scope `chat:write`") }
        }
        _ => Failure::Refused { reason },
    }
}
