//! Any other service: a CloudEvent with the page as a document, signed in the manner of Standard Webhooks.
//!
//! The id of an event is the same if a message is sent twice, so that the receiver can drop the second.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_base::{Clock, Result};
use hmac::{Hmac, Mac};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use crate::document::{SCHEMA, document};
use crate::http::{Call, Http, NetworkSettings};
use crate::secret::{Redactor, Secret, SecretValue};
use crate::sink::{Failure, Notice, Receipt, RollbackNotice, Sink};
use crate::{text, time};

const KIND: &str = "webhook";
const EVENT_TYPE: &str = "bellwether.page";
const ROLLBACK_TYPE: &str = "bellwether.rollback";

/// Name and version of the document about a rollback, and the address of its schema.
const ROLLBACK_FORMAT: &str = "bellwether.rollback/1";
const ROLLBACK_SCHEMA: &str = "urn:bellwether:rollback:1";
const DEFAULT_SOURCE: &str = "bellwether";

/// Receivers often refuse more than 1 MB.
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;

/// Standard Webhooks asks for keys from 24 bytes.
const LEAST_KEY_BYTES: usize = 24;

/// Prefix of a key that is given in base64.
const ENCODED_KEY: &str = "whsec_";

/// Keys at the same time: the old, the new, and one to spare.
const MAX_KEYS: usize = 5;

/// Settings of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// The address; `{ file = "…" }` or `{ env = "…" }` if it is a secret.
    pub url: WebhookUrl,
    /// Keys that sign each message. To rotate a key, add the new one, teach it to the receiver, and remove the old one.
    #[serde(default)]
    pub keys: Vec<Secret>,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The attribute `source` of the events: which installation sends them.
    #[serde(default = "default_source")]
    pub source: String,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

/// An address that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WebhookUrl {
    Plain(String),
    Secret(Secret),
}

pub(crate) struct Webhook {
    settings: WebhookSettings,
    http: Http,
    clock: Arc<dyn Clock>,
}

fn default_source() -> String {
    DEFAULT_SOURCE.to_owned()
}

// === impl WebhookSettings ===

impl WebhookSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        match &self.url {
            WebhookUrl::Plain(url) => self.network.url_problems("url", url, problems),
            WebhookUrl::Secret(secret) => problems.extend(secret.problem("url")),
        }
        problems.extend(self.keys.iter().filter_map(|key| key.problem("keys")).take(1));
        if self.keys.len() > MAX_KEYS {
            problems.push(format!("`keys` has at most {MAX_KEYS} keys"));
        }
        problems.extend(self.token.as_ref().and_then(|secret| secret.problem("token")));
        if self.source.is_empty() || self.source.contains(|c: char| c.is_whitespace() || c.is_control()) {
            problems.push("`source` must be a URI reference, such as \"bellwether/production\"".to_owned());
        }
    }
}

// === impl Webhook ===

impl Webhook {
    pub(crate) fn new(settings: WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, Arc::clone(&clock))?;
        Ok(Self { settings, http, clock })
    }

    async fn url(&self, redactor: &mut Redactor) -> Result<Url, Failure> {
        match &self.settings.url {
            WebhookUrl::Plain(url) => Url::parse(url).map_err(|error| Failure::Refused { reason: error.to_string() }),
            WebhookUrl::Secret(secret) => {
                let secret = secret.read().await?;
                redactor.add(&secret);
                let url = secret.address("url")?;
                self.settings.network.check_url("url", &url)?;
                Ok(url)
            }
        }
    }

    /// Sends an event, signed.
    async fn post(&self, event: &Value, now: i64) -> Result<Receipt, Failure> {
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let body = event.to_string();
        let timestamp = now.div_euclid(1_000_000);
        let mut redactor = Redactor::default();
        let url = self.url(&mut redactor).await?;
        let mut headers = vec![
            ("content-type", "application/cloudevents+json; charset=utf-8".to_owned()),
            ("webhook-id", id.clone()),
            ("webhook-timestamp", timestamp.to_string()),
        ];
        let signed = Signed { id: &id, timestamp, body: &body };
        headers
            .extend(self.signatures(&signed, &mut redactor).await?.map(|signatures| ("webhook-signature", signatures)));
        if let Some(token) = &self.settings.token {
            let token = token.read().await?;
            redactor.add(&token);
            headers.push(("authorization", format!("Bearer {}", token.expose())));
        }
        let call = Call {
            service: "the webhook",
            method: Method::POST,
            url,
            headers,
            body: body.into_bytes(),
            redactor: &redactor,
            credential: "url",
        };
        let answer = self.http.send(call).await?;
        let said = redactor.line(&answer.body, 200);
        Ok(Receipt { reference: id, answer: format!("{} {said}", answer.status).trim_end().to_owned() })
    }

    /// Returns the header with one signature for each key, or none without keys.
    async fn signatures(&self, signed: &Signed<'_>, redactor: &mut Redactor) -> Result<Option<String>, Failure> {
        let mut signatures = Vec::new();
        for key in &self.settings.keys {
            let key = key.read().await?;
            redactor.add(&key);
            signatures.push(format!("v1,{}", signed.by(&key_bytes(&key)?)));
        }
        Ok((!signatures.is_empty()).then(|| signatures.join(" ")))
    }
}

#[async_trait]
impl Sink for Webhook {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    async fn send(&self, notice: &Notice, _earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let now = self.clock.now_micros();
        let event = event(notice, &self.settings.source, now);
        self.post(&event, now).await
    }

    async fn roll_back(&self, rollback: &RollbackNotice) -> Result<Option<Receipt>, Failure> {
        let now = self.clock.now_micros();
        let mut data = json!({"format": ROLLBACK_FORMAT});
        if let (Value::Object(data), Ok(Value::Object(fields))) = (&mut data, serde_json::to_value(rollback)) {
            data.extend(fields);
        }
        let event = json!({
            "specversion": "1.0",
            "id": rollback.key(),
            "source": self.settings.source,
            "type": ROLLBACK_TYPE,
            "subject": text::key(&rollback.canary, 200),
            "time": time::rfc3339(now),
            "datacontenttype": "application/json",
            "dataschema": ROLLBACK_SCHEMA,
            "data": data,
        });
        self.post(&event, now).await.map(Some)
    }
}

/// What a signature covers.
struct Signed<'a> {
    id: &'a str,
    timestamp: i64,
    body: &'a str,
}

// === impl Signed ===

impl Signed<'_> {
    fn by(&self, key: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
        mac.update(format!("{}.{}.", self.id, self.timestamp).as_bytes());
        mac.update(self.body.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// Returns the bytes of a key: after the prefix `whsec_` it is base64, otherwise the text itself.
fn key_bytes(key: &SecretValue) -> Result<Vec<u8>, Failure> {
    let bytes = match key.expose().strip_prefix(ENCODED_KEY) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| Failure::Refused {
            reason: format!("a signing key in `keys` begins with {ENCODED_KEY} but is not base64"),
        })?,
        None => key.expose().as_bytes().to_vec(),
    };
    if bytes.len() < LEAST_KEY_BYTES {
        let hint = "hint: create one with `openssl rand -base64 32`";
        let reason = format!("a signing key in `keys` has fewer than {LEAST_KEY_BYTES} bytes; {hint}");
        return Err(Failure::Refused { reason });
    }
    Ok(bytes)
}

/// Returns the CloudEvent of a notice.
fn event(notice: &Notice, source: &str, now: i64) -> Value {
    let data = document(notice, MAX_DOCUMENT_BYTES);
    let mut event = json!({
        "specversion": "1.0",
        "id": text::hash(&data.to_string()),
        "source": source,
        "type": EVENT_TYPE,
        "time": time::rfc3339(now),
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": data,
    });
    if let Some(page) = notice.pages.first() {
        event["subject"] = text::key(&page.incident, 200).into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the specification of Standard Webhooks.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            Signed { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: 1_614_265_330, body: "{\"test\": 2432232314}" };
        assert_eq!(signed.by(&key), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
