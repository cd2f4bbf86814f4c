//! PagerDuty, by its Events API v2: one event for each page, with the incident as its key, and change events for releases.

use std::sync::Arc;

use async_trait::async_trait;
use bellwether_base::{Clock, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::http::{Call, Http, NetworkSettings};
use crate::page::{Link, Page, Severity, Status};
use crate::render::{Detail, Message, Plain, fit, heading, line_of, valid_links};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, PageAnswers, Receipt, ReleaseNotice, Sink};
use crate::{text, time};

const KIND: &str = "pagerduty";
const DEFAULT_URL: &str = "https://events.pagerduty.com";

/// Limits of the API: the summary, the key, and the whole event, of which some is left for safety.
const MAX_SUMMARY: usize = 1024;
const MAX_KEY: usize = 255;
const MAX_EVENT_BYTES: usize = 500 * 1024;

/// Settings of a PagerDuty service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagerdutySettings {
    /// The integration key of an "Events API v2" integration.
    pub routing_key: Secret,
    /// `https://events.eu.pagerduty.com` for accounts in the EU.
    #[serde(default = "default_url")]
    pub url: String,
    /// Write a change event for each new release.
    #[serde(default = "yes")]
    pub releases: bool,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

pub(crate) struct Pagerduty {
    settings: PagerdutySettings,
    http: Http,
}

fn yes() -> bool {
    true
}

fn default_url() -> String {
    DEFAULT_URL.to_owned()
}

// === impl PagerdutySettings ===

impl PagerdutySettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        self.network.url_problems("url", &self.url, problems);
        problems.extend(self.routing_key.problem("routing_key"));
    }
}

// === impl Pagerduty ===

impl Pagerduty {
    pub(crate) fn new(settings: PagerdutySettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, clock)?;
        Ok(Self { settings, http })
    }

    async fn page(&self, page: &Page, known: bool, missed: Option<&str>) -> Result<String, Failure> {
        // PagerDuty ignores the acknowledgement of an incident that it does not know.
        if page.status == Status::Acknowledged && !known {
            self.post(&["v2", "enqueue"], event(page, "trigger", missed)).await?;
        }
        self.post(&["v2", "enqueue"], event(page, action(page.status), missed)).await
    }

    async fn post(&self, path: &[&str], mut event: Value) -> Result<String, Failure> {
        let key = self.settings.routing_key.read().await?;
        let mut redactor = Redactor::default();
        redactor.add(&key);
        event["routing_key"] = key.expose().into();
        let mut url = Url::parse(&self.settings.url).map_err(|error| Failure::Refused { reason: error.to_string() })?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let call = Call {
            service: "PagerDuty",
            method: Method::POST,
            url,
            headers: vec![("content-type", "application/json".to_owned())],
            body: event.to_string().into_bytes(),
            redactor: &redactor,
            credential: "routing_key",
        };
        let answer = self.http.send(call).await?;
        Ok(redactor.line(&crate::http::service_words(&answer.body), 200))
    }
}

#[async_trait]
impl Sink for Pagerduty {
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
            // Only a trigger carries evidence.
            let known = earlier.is_some() && !notice.evidence_only;
            answers.add(self.page(page, known, missed.as_deref()).await)?;
        }
        let reference = notice.pages.first().map(|page| text::key(&page.incident, MAX_KEY)).unwrap_or_default();
        answers.receipt(reference)
    }

    fn shows_releases(&self) -> bool {
        self.settings.releases
    }

    async fn announce(&self, release: &ReleaseNotice) -> Result<Option<Receipt>, Failure> {
        if !self.settings.releases {
            return Ok(None);
        }
        let answer = self.post(&["v2", "change", "enqueue"], change(release)).await?;
        Ok(Some(Receipt { reference: String::new(), answer }))
    }
}

fn action(status: Status) -> &'static str {
    match status {
        Status::Firing => "trigger",
        Status::Acknowledged => "acknowledge",
        Status::Resolved => "resolve",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Page => "critical",
        Severity::Ticket => "warning",
        Severity::Info => "info",
    }
}

/// Returns the event of a page, without the routing key.
fn event(page: &Page, action: &str, missed: Option<&str>) -> Value {
    let mut event = json!({"event_action": action, "dedup_key": text::key(&page.incident, MAX_KEY)});
    if action != "trigger" {
        return event;
    }
    event["client"] = "Bellwether".into();
    let page_links = valid_links(&page.links);
    if let Some(first) = page_links.first() {
        event["client_url"] = first.url.as_str().into();
    }
    event["links"] = links(&page_links);
    fit(
        |detail| {
            let mut event = event.clone();
            event["payload"] = payload(page, detail, missed);
            event
        },
        |event| event.to_string().len() <= MAX_EVENT_BYTES,
    )
}

fn payload(page: &Page, detail: Detail, missed: Option<&str>) -> Value {
    let source = page.release.as_ref().or(page.task.as_ref()).or(page.tenant.as_ref());
    let source = source.map_or_else(|| "bellwether".to_owned(), |source| text::line(source, 200));
    let mut payload = json!({
        "summary": text::cut(&heading(page), MAX_SUMMARY),
        "source": if source.is_empty() { "bellwether" } else { source.as_str() },
        "severity": severity(page.severity),
        "timestamp": time::rfc3339(page.started_at),
        "class": text::line(&page.rule, 200),
        "custom_details": details(page, detail, missed),
    });
    for (name, value) in [("component", &page.task), ("group", &page.tenant)] {
        if let Some(value) = value {
            payload[name] = text::line(value, 200).into();
        }
    }
    payload
}

/// Returns the parts of the page by their labels.
fn details(page: &Page, detail: Detail, missed: Option<&str>) -> Value {
    let single = Notice { pages: vec![page.clone()], ..Notice::default() };
    let mut details = Map::new();
    for part in Message::new(&single, detail).pages.into_iter().flat_map(|words| words.parts) {
        let mut lines: Vec<String> = part.lines.iter().map(|line| line_of(&Plain, line, 4000)).collect();
        lines.extend(part.code);
        let value = if let [only] = &lines[..] { Value::from(only.as_str()) } else { Value::from(lines) };
        details.insert(part.label.to_owned(), value);
    }
    if let Some(missed) = missed {
        details.insert("Missed".to_owned(), missed.into());
    }
    details.into()
}

fn links(links: &[Link]) -> Value {
    links.iter().map(|link| json!({"href": link.url, "text": link.name})).collect()
}

/// Returns the change event of a release, without the routing key.
fn change(release: &ReleaseNotice) -> Value {
    let name = |name: &str| text::line(name, 200);
    let mut summary = format!("Release {}", name(&release.release));
    if let Some(task) = &release.task {
        summary.push_str(&format!(" of {}", name(task)));
    }
    if let Some(previous) = &release.previous {
        summary.push_str(&format!(" after {}", name(previous)));
    }
    let mut details = Map::new();
    for change in release.changes.iter().take(50) {
        let side =
            |side: &Option<String>| side.as_deref().map_or_else(|| "none".to_owned(), |side| text::line(side, 300));
        details.insert(name(&change.part), format!("{} → {}", side(&change.before), side(&change.after)).into());
    }
    json!({
        "payload": {
            "summary": text::cut(&summary, MAX_SUMMARY),
            "timestamp": time::rfc3339(release.started_at),
            "source": release.tenant.as_deref().map_or_else(|| "bellwether".to_owned(), name),
            "custom_details": details,
        },
        "links": links(&valid_links(&release.links)),
    })
}
