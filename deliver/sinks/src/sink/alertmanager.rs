//! Alertmanager, by its API v2, as Prometheus uses it.
//!
//! * Every peer of a cluster gets every alert; one that accepts it is enough, because peers tell each other.
//! * A firing alert is sent again all the time, with an end some intervals ahead: if this program stops, the alert ends by itself.
//! * A resolved alert is sent again for a while: a peer that missed its end learns of it.
//! * An alert that a person has acknowledged is silenced: `alertmanager/silence.rs`.
//! * The labels are the identity of an alert: the same from the first page of an incident to its last. Numbers are annotations.

mod silence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_base::{Clock, Result};
use futures::future::join_all;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::http::{Call, Http, NetworkSettings};
use crate::page::{Link, Page, Status};
use crate::render::{Detail, Message, Plain, heading, line_of, severity_word, valid_links};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, Receipt, Sink};
use crate::{duration, text, time};

const KIND: &str = "alertmanager";

/// Prometheus sends its alerts again as often.
const DEFAULT_RESEND: Duration = Duration::from_secs(60);

/// An alert ends after as many intervals without a repetition, as with Prometheus.
const INTERVALS_AHEAD: u32 = 4;

/// Prometheus sends the end of an alert again for as long.
const ENDED_FOR: Duration = Duration::from_secs(15 * 60);

/// Size of one request. Proxies often refuse more than 1 MB.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Labels of the page; Alertmanager shows and indexes all of them.
const MAX_LABELS: usize = 40;

const MAX_VALUE: usize = 500;
const MAX_DESCRIPTION: usize = 4000;

/// Settings of an Alertmanager, or of all peers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSettings {
    /// Addresses of all peers, such as "http://alertmanager-0:9093".
    pub urls: Vec<String>,
    /// How often a firing alert is sent again.
    #[serde(default = "default_resend", with = "duration")]
    pub resend_every: Duration,
    /// Silences the alerts that a person has acknowledged.
    #[serde(default = "default_silences")]
    pub silences: bool,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// User name for basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

pub(crate) struct Alertmanager {
    settings: AlertmanagerSettings,
    peers: Vec<Url>,
    http: Http,
    clock: Arc<dyn Clock>,
}

fn default_silences() -> bool {
    true
}

fn default_resend() -> Duration {
    DEFAULT_RESEND
}

// === impl AlertmanagerSettings ===

impl AlertmanagerSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        if self.urls.is_empty() {
            problems
                .push("`urls` must name at least one Alertmanager, such as [\"http://alertmanager:9093\"]".to_owned());
        }
        for url in &self.urls {
            self.network.url_problems("urls", url, problems);
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.resend_every) {
            problems.push("`resend_every` must be from 1s to 1h".to_owned());
        }
        if self.username.is_some() != self.password.is_some() {
            problems.push("`username` and `password` belong together".to_owned());
        }
        if self.token.is_some() && self.username.is_some() {
            problems.push("give either `token` or `username` and `password`".to_owned());
        }
        problems.extend(self.token.as_ref().and_then(|secret| secret.problem("token")));
        problems.extend(self.password.as_ref().and_then(|secret| secret.problem("password")));
    }
}

// === impl Alertmanager ===

impl Alertmanager {
    pub(crate) fn new(settings: AlertmanagerSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, Arc::clone(&clock))?;
        let peers = settings.urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
        Ok(Self { settings, peers, http, clock })
    }

    /// Returns the header with the credentials, and what must not appear in errors.
    async fn credentials(&self) -> Result<(Option<String>, Redactor), Failure> {
        let mut redactor = Redactor::default();
        if let Some(token) = &self.settings.token {
            let token = token.read().await?;
            redactor.add(&token);
            return Ok((Some(format!("Bearer {}", token.expose())), redactor));
        }
        if let (Some(username), Some(password)) = (&self.settings.username, &self.settings.password) {
            let password = password.read().await?;
            redactor.add(&password);
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            redactor.add_text(&pair);
            return Ok((Some(format!("Basic {pair}")), redactor));
        }
        Ok((None, redactor))
    }

    async fn send_to(&self, peer: &Url, batches: &[Vec<u8>]) -> Result<(), Failure> {
        let url = endpoint(peer, &["alerts"]);
        for batch in batches {
            self.call(Method::POST, url.clone(), batch.clone()).await?;
        }
        Ok(())
    }

    /// Makes one request and returns the body of the answer.
    async fn call(&self, method: Method, url: Url, body: Vec<u8>) -> Result<String, Failure> {
        let (authorization, redactor) = self.credentials().await?;
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let (service, credential) = ("Alertmanager", "urls");
        let call = Call { service, method, url, headers, body, redactor: &redactor, credential };
        Ok(self.http.send(call).await?.body)
    }

    /// Returns how long an alert or silence holds without a repetition, microseconds.
    fn ahead(&self) -> i64 {
        i64::try_from((self.settings.resend_every * INTERVALS_AHEAD).as_micros()).unwrap_or(i64::MAX)
    }
}

#[async_trait]
impl Sink for Alertmanager {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn resend_every(&self) -> Option<Duration> {
        Some(self.settings.resend_every)
    }

    fn resend_ended_for(&self) -> Option<Duration> {
        Some(ENDED_FOR)
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let alerts = alerts(notice, self.clock.now_micros(), self.ahead());
        let batches = batches(&alerts);
        let answers = join_all(self.peers.iter().map(|peer| self.send_to(peer, &batches))).await;
        let failed: Vec<(&Url, Failure)> = self
            .peers
            .iter()
            .zip(answers)
            .filter_map(|(peer, answer)| answer.err().map(|failure| (peer, failure)))
            .collect();
        let receipt = summary(self.peers.len(), failed)?;
        self.keep_silences(notice, earlier, receipt).await
    }
}

/// Returns an address of the API. The path of the setting is kept: a proxy may serve several Alertmanagers.
fn endpoint(peer: &Url, path: &[&str]) -> Url {
    let mut url = peer.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v2"]).extend(path);
    }
    url
}

/// One peer that accepts the alerts is enough. If none does, they are sent again unless all refuse.
fn summary(peers: usize, failed: Vec<(&Url, Failure)>) -> Result<Receipt, Failure> {
    let place = |peer: &Url| {
        text::line(&format!("{}:{}", peer.host_str().unwrap_or(""), peer.port_or_known_default().unwrap_or(0)), 80)
    };
    let mut reasons = Vec::new();
    let mut later = None;
    for (peer, failure) in &failed {
        let (reason, after) = match failure {
            Failure::Later { reason, after } => (reason, Some(*after)),
            Failure::Refused { reason } => (reason, None),
        };
        if let Some(after) = after {
            later = Some(later.flatten().max(after));
        }
        reasons.push(format!("{}: {reason}", place(peer)));
    }
    let reason = reasons.join("; ");
    if failed.len() < peers {
        let mut answer = format!("accepted by {} of {peers} peers", peers - failed.len());
        if !reason.is_empty() {
            answer.push_str(&format!("; {reason}"));
        }
        return Ok(Receipt { reference: String::new(), answer: text::cut(&answer, 500) });
    }
    match later {
        Some(after) => Err(Failure::Later { reason, after }),
        None => Err(Failure::Refused { reason }),
    }
}

/// Returns the bodies of the requests that carry some alerts.
fn batches(alerts: &[Value]) -> Vec<Vec<u8>> {
    let mut batches: Vec<String> = Vec::new();
    for alert in alerts {
        let alert = alert.to_string();
        match batches.last_mut() {
            Some(batch) if batch.len() + alert.len() < MAX_BATCH_BYTES => batch.push_str(&format!(",{alert}")),
            _ => batches.push(format!("[{alert}")),
        }
    }
    batches.into_iter().map(|batch| (batch + "]").into_bytes()).collect()
}

/// Returns the alerts of a notice.
fn alerts(notice: &Notice, now: i64, ahead: i64) -> Vec<Value> {
    let mut alerts: Vec<Value> = Vec::new();
    for page in &notice.pages {
        let alert = alert(page, notice, now, ahead);
        // The end of an earlier incident would end the later one, which has the same labels and comes first.
        if alerts.iter().all(|earlier| earlier["labels"] != alert["labels"]) {
            alerts.push(alert);
        }
    }
    let missed = Message::new(notice, Detail { pages: 0, ..Detail::FULL }).missed;
    if let (Some(first), Some(missed)) = (alerts.first_mut(), missed) {
        first["annotations"]["missed"] = missed.into();
    }
    alerts
}

fn alert(page: &Page, notice: &Notice, now: i64, ahead: i64) -> Value {
    let ends_at = match page.status {
        Status::Firing | Status::Acknowledged => now.saturating_add(ahead),
        Status::Resolved => page.ended_at.unwrap_or(now),
    };
    let mut alert = json!({
        "labels": labels(page),
        "annotations": annotations(page, notice),
        // An alert must not begin after its end.
        "startsAt": time::rfc3339(page.started_at.min(ends_at)),
        "endsAt": time::rfc3339(ends_at),
    });
    if let Some(link) = dashboard(&valid_links(&page.links)) {
        alert["generatorURL"] = link.url.as_str().into();
    }
    alert
}

/// Returns the link that explains an alert best.
fn dashboard(links: &[Link]) -> Option<&Link> {
    links.iter().find(|link| link.name.eq_ignore_ascii_case("dashboard")).or_else(|| links.first())
}

/// Returns the labels. Those of a page that have the name of one of ours, or the same name as another once its characters are
/// replaced, get a suffix.
fn labels(page: &Page) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let rule = text::line(&page.rule, MAX_VALUE);
    labels.insert("alertname".to_owned(), if rule.is_empty() { "bellwether".to_owned() } else { rule });
    labels.insert("alert_id".to_owned(), text::key(&page.alert_id, 100));
    labels.insert("severity".to_owned(), severity_word(page.severity).to_owned());
    if page.test {
        labels.insert("test".to_owned(), "true".to_owned());
    }
    let own = [("tenant", &page.tenant), ("task", &page.task), ("release", &page.release), ("owner", &page.owner)];
    for (name, value) in own {
        if let Some(value) = value {
            labels.insert(name.to_owned(), text::line(value, MAX_VALUE));
        }
    }
    for (name, value) in page.labels.iter().take(MAX_LABELS) {
        let value = text::line(value, MAX_VALUE);
        let mut name = label_name(name);
        while labels.get(&name).is_some_and(|there| *there != value) {
            name.push('_');
        }
        labels.insert(name, value);
    }
    // Alertmanager takes an empty label for one that is not there.
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// Makes a name of what Prometheus allows: letters, digits and underscores, no digit first, and no two underscores first.
fn label_name(name: &str) -> String {
    let valid = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let mut valid: String = name.chars().take(100).map(valid).collect();
    if valid.is_empty() || valid.starts_with(|first: char| first.is_ascii_digit()) || valid.starts_with("__") {
        valid.insert_str(0, "label_");
    }
    valid
}

fn annotations(page: &Page, notice: &Notice) -> BTreeMap<String, String> {
    let single = Notice { pages: vec![page.clone()], route: notice.route.clone(), ..Notice::default() };
    let message = Message::new(&single, Detail { chars: 300, lines: 5, ..Detail::FULL });
    let mut description = String::new();
    for part in message.pages.iter().flat_map(|words| &words.parts) {
        for line in &part.lines {
            description.push_str(&format!("{}: {}\n", part.label, line_of(&Plain, line, 600)));
        }
    }
    let mut annotations = BTreeMap::from([
        ("summary".to_owned(), heading(page)),
        ("description".to_owned(), text::cut(description.trim_end(), MAX_DESCRIPTION)),
        ("incident".to_owned(), text::line(&page.incident, MAX_VALUE)),
    ]);
    if let Some(baseline) = &page.baseline_release {
        annotations.insert("baseline".to_owned(), text::line(baseline, MAX_VALUE));
    }
    for link in valid_links(&page.links) {
        annotations.insert(format!("{}_url", label_name(&link.name.to_lowercase())), link.url);
    }
    annotations
}
