//! Opsgenie, by its alert API v2: create, acknowledge and close, with the incident as alias.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bellwether_base::{Clock, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::http::{Call, Http, NetworkSettings};
use crate::page::{Page, Severity, Status};
use crate::render::{Detail, Message, Plain, fit, heading, line_of, valid_links};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, PageAnswers, Receipt, Sink};
use crate::text;

const KIND: &str = "opsgenie";
const SOURCE: &str = "bellwether";
const DEFAULT_URL: &str = "https://api.opsgenie.com";

/// Limits of the API.
const MAX_MESSAGE: usize = 130;
const MAX_ALIAS: usize = 512;
const MAX_DESCRIPTION: usize = 15_000;
const MAX_ENTITY: usize = 512;
const MAX_TAGS: usize = 20;
const MAX_TAG: usize = 50;
const MAX_MISSED: usize = 2000;
/// Keys and values together.
const MAX_DETAILS: usize = 8000;

/// Settings of an Opsgenie integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsgenieSettings {
    /// The key of an API integration.
    pub api_key: Secret,
    /// `https://api.eu.opsgenie.com` for accounts in the EU.
    #[serde(default = "default_url")]
    pub url: String,
    /// Names of the teams that are notified; without any, the integration decides.
    #[serde(default)]
    pub teams: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

pub(crate) struct Opsgenie {
    settings: OpsgenieSettings,
    http: Http,
}

fn default_url() -> String {
    DEFAULT_URL.to_owned()
}

// === impl OpsgenieSettings ===

impl OpsgenieSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        self.network.url_problems("url", &self.url, problems);
        problems.extend(self.api_key.problem("api_key"));
        if self.tags.len() > MAX_TAGS || self.tags.iter().any(|tag| text::length(tag) > MAX_TAG) {
            problems.push(format!("`tags` has at most {MAX_TAGS} tags of at most {MAX_TAG} characters"));
        }
        if self.teams.len() > 50 {
            problems.push("`teams` has at most 50 teams".to_owned());
        }
    }
}

// === impl Opsgenie ===

impl Opsgenie {
    pub(crate) fn new(settings: OpsgenieSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, clock)?;
        Ok(Self { settings, http })
    }

    /// Posts a request. `action` is none to create an alert.
    async fn post(&self, page: &Page, action: Option<&str>, body: &Value) -> Result<String, Failure> {
        self.call(Method::POST, page, action, body).await
    }

    /// Sends a request about the alert of a page.
    async fn call(&self, method: Method, page: &Page, action: Option<&str>, body: &Value) -> Result<String, Failure> {
        let key = self.settings.api_key.read().await?;
        let mut redactor = Redactor::default();
        redactor.add(&key);
        let mut url = Url::parse(&self.settings.url).map_err(|error| Failure::Refused { reason: error.to_string() })?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v2", "alerts"]);
            if let Some(action) = action {
                segments.push(&text::key(&page.incident, MAX_ALIAS)).push(action);
            }
        }
        if action.is_some() {
            url.query_pairs_mut().append_pair("identifierType", "alias");
        }
        let call = Call {
            service: "Opsgenie",
            method,
            url,
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("authorization", format!("GenieKey {}", key.expose())),
            ],
            body: body.to_string().into_bytes(),
            redactor: &redactor,
            credential: "api_key",
        };
        let answer = self.http.send(call).await?;
        Ok(redactor.line(&answer.body, 200))
    }

    /// Replaces the description of an existing alert. Creating the alert again would not: Opsgenie keeps the first description.
    async fn describe(&self, page: &Page) -> Result<String, Failure> {
        let body = json!({"description": fitting(page)});
        self.call(Method::PUT, page, Some("description"), &body).await
    }

    async fn page(&self, page: &Page, known: bool, missed: Option<&str>) -> Result<String, Failure> {
        let action = match page.status {
            Status::Firing => None,
            Status::Acknowledged => Some("acknowledge"),
            Status::Resolved => Some("close"),
        };
        // Opsgenie cannot acknowledge an alert that it does not know.
        if action.is_none() || (page.status == Status::Acknowledged && !known) {
            let answer = self.post(page, None, &create(page, &self.settings, missed)).await?;
            if action.is_none() {
                return Ok(answer);
            }
        }
        let note = json!({"source": SOURCE, "note": text::cut(&heading(page), 500)});
        self.post(page, action, &note).await
    }
}

#[async_trait]
impl Sink for Opsgenie {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let missed = Message::new(notice, Detail { pages: 0, ..Detail::FULL }).missed;
        let mut answers = PageAnswers::default();
        for page in &notice.pages {
            if notice.evidence_only {
                answers.add(self.describe(page).await)?;
                continue;
            }
            answers.add(self.page(page, earlier.is_some(), missed.as_deref()).await)?;
        }
        let reference = notice.pages.first().map(|page| text::key(&page.incident, MAX_ALIAS)).unwrap_or_default();
        answers.receipt(reference)
    }
}

/// Returns the alert of a page.
fn create(page: &Page, settings: &OpsgenieSettings, missed: Option<&str>) -> Value {
    let teams: Vec<Value> = settings.teams.iter().map(|name| json!({"type": "team", "name": name})).collect();
    let priority = match page.severity {
        Severity::Page => "P1",
        Severity::Ticket => "P3",
        Severity::Info => "P5",
    };
    let mut alert = json!({
        "message": text::cut(&heading(page), MAX_MESSAGE),
        "alias": text::key(&page.incident, MAX_ALIAS),
        "description": fitting(page),
        "priority": priority,
        "source": SOURCE,
        "tags": settings.tags,
        "details": details(page, missed),
    });
    if !teams.is_empty() {
        alert["responders"] = teams.into();
    }
    if let Some(entity) = page.release.as_ref().or(page.task.as_ref()) {
        alert["entity"] = text::line(entity, MAX_ENTITY).into();
    }
    alert
}

/// Returns as much of the description as the limit allows.
fn fitting(page: &Page) -> String {
    let description = fit(|detail| description(page, detail), |text| text::length(text) <= MAX_DESCRIPTION);
    text::cut(&description, MAX_DESCRIPTION)
}

fn description(page: &Page, detail: Detail) -> String {
    let single = Notice { pages: vec![page.clone()], ..Notice::default() };
    let mut lines = Vec::new();
    for words in Message::new(&single, detail).pages {
        lines.push(words.title);
        lines.push(words.state);
        for part in words.parts {
            lines.extend(part.lines.iter().map(|line| format!("{}: {}", part.label, line_of(&Plain, line, 2000))));
            lines.extend(part.code);
        }
        lines.extend(words.links.iter().map(|link| format!("{}: {}", link.name, link.url)));
    }
    lines.join("\n")
}

/// Returns labels and links by name, as many as the limit allows, and what was missed: the description is replaced when
/// evidence arrives late.
fn details(page: &Page, missed: Option<&str>) -> BTreeMap<String, String> {
    let missed = missed.map(|missed| ("missed".to_owned(), text::line(missed, MAX_MISSED)));
    let labels = page.labels.iter().map(|(name, value)| (text::line(name, 100), text::line(value, 300)));
    let links = valid_links(&page.links).into_iter().map(|link| (link.name, link.url));
    let alert =
        [("rule".to_owned(), text::line(&page.rule, 300)), ("alert_id".to_owned(), text::line(&page.alert_id, 100))];
    let mut left = MAX_DETAILS;
    let mut details = BTreeMap::new();
    for (name, value) in alert.into_iter().chain(missed).chain(links).chain(labels) {
        let length = text::length(&name) + text::length(&value);
        if name.is_empty() || length > left {
            continue;
        }
        left -= length;
        details.insert(name, value);
    }
    details
}
