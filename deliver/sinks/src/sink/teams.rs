//! Microsoft Teams, by a workflow that starts "when a Teams webhook request is received": one Adaptive Card for each message.
//!
//! Text from events stands in text runs only, which know no Markdown.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Clock, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::{Call, Http, NetworkSettings};
use crate::page::{Severity, Status};
use crate::render::{Message, PageWords, Part, Piece, fit};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, Receipt, Sink};

const KIND: &str = "teams";

/// Teams refuses messages above 28 KB. It counts more than the request, so that some is left.
const MAX_BYTES: usize = 24 * 1024;

/// Teams drops actions beyond six.
const MAX_ACTIONS: usize = 5;

/// Settings of a Teams channel or chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamsSettings {
    /// The address of the workflow, which is a secret.
    pub url: Secret,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

pub(crate) struct Teams {
    settings: TeamsSettings,
    http: Http,
}

// === impl TeamsSettings ===

impl TeamsSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        problems.extend(self.url.problem("url"));
    }
}

// === impl Teams ===

impl Teams {
    pub(crate) fn new(settings: TeamsSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let http = Http::new(&settings.network, clock)?;
        Ok(Self { settings, http })
    }
}

#[async_trait]
impl Sink for Teams {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn send(&self, notice: &Notice, _earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let secret = self.settings.url.read().await?;
        let mut redactor = Redactor::default();
        redactor.add(&secret);
        let url = secret.address("url")?;
        self.settings.network.check_url("url", &url)?;
        let call = Call {
            service: "Teams",
            method: Method::POST,
            url,
            headers: vec![("content-type", "application/json".to_owned())],
            body: message(notice).to_string().into_bytes(),
            redactor: &redactor,
            credential: "url",
        };
        let answer = self.http.send(call).await?;
        let said = redactor.line(&answer.body, 200);
        // A connector accepts a request and reports in its answer that Teams has not.
        if said.contains("returned HTTP error 429") {
            return Err(Failure::Later {
                reason: format!("Teams answered: {said}"),
                after: Some(Duration::from_secs(60)),
            });
        }
        if said.contains("delivery failed") {
            return Err(Failure::Refused { reason: format!("Teams answered: {said}") });
        }
        Ok(Receipt { reference: String::new(), answer: if said.is_empty() { answer.status.to_string() } else { said } })
    }
}

/// Returns the request of a notice.
fn message(notice: &Notice) -> Value {
    fit(
        |detail| {
            json!({
                "type": "message",
                "attachments": [{
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "contentUrl": null,
                    "content": card(&Message::new(notice, detail)),
                }],
            })
        },
        |message| message.to_string().len() <= MAX_BYTES,
    )
}

fn card(message: &Message) -> Value {
    let colour = match (message.status(), message.pages.iter().any(|page| page.severity == Severity::Page)) {
        (Status::Resolved, _) => "Good",
        (Status::Acknowledged, _) => "Accent",
        (Status::Firing, true) => "Attention",
        (Status::Firing, false) => "Warning",
    };
    let title = json!({"type": "TextRun", "text": safe(&message.heading), "weight": "Bolder", "size": "Medium", "color": colour});
    let mut body = vec![block(vec![title])];
    let single = message.pages.len() == 1 && message.more == 0;
    for page in &message.pages {
        body.extend(page_blocks(page, single));
    }
    if message.more > 0 {
        body.push(block(vec![run(&format!("and {} more alerts", message.more))]));
    }
    if let Some(missed) = &message.missed {
        body.push(block(vec![subtle(missed)]));
    }
    let actions: Vec<Value> = message
        .pages
        .iter()
        .flat_map(|page| &page.links)
        .take(MAX_ACTIONS)
        .map(|link| json!({"type": "Action.OpenUrl", "title": safe(&link.name), "url": link.url}))
        .collect();
    json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": safe(&message.heading),
        "body": body,
        "actions": actions,
        "msteams": {"width": "Full"},
    })
}

fn page_blocks(page: &PageWords, single: bool) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !single {
        blocks.push(block(vec![json!({"type": "TextRun", "text": safe(&page.title), "weight": "Bolder"})]));
    }
    blocks.push(block(vec![subtle(&page.state)]));
    blocks.extend(page.parts.iter().flat_map(part));
    blocks
}

fn part(part: &Part) -> Vec<Value> {
    let mut blocks = Vec::new();
    for (index, line) in part.lines.iter().enumerate() {
        let mut runs = Vec::new();
        if index == 0 {
            runs.push(json!({"type": "TextRun", "text": format!("{}  ", part.label), "weight": "Bolder"}));
        } else {
            runs.push(run("• "));
        }
        runs.extend(line.iter().map(piece));
        blocks.push(block(runs));
    }
    if let Some(code) = &part.code {
        blocks.push(block(vec![
            json!({"type": "TextRun", "text": safe(code), "fontType": "Monospace", "isSubtle": true}),
        ]));
    }
    blocks
}

fn piece(piece: &Piece) -> Value {
    match piece {
        Piece::Text(text) => run(text),
        Piece::Code(text) => json!({"type": "TextRun", "text": safe(text), "fontType": "Monospace"}),
        Piece::Link { name, url } => {
            json!({"type": "TextRun", "text": safe(name), "selectAction": {"type": "Action.OpenUrl", "url": url}})
        }
    }
}

fn block(inlines: Vec<Value>) -> Value {
    json!({"type": "RichTextBlock", "spacing": "Small", "inlines": inlines})
}

fn run(text: &str) -> Value {
    json!({"type": "TextRun", "text": safe(text)})
}

fn subtle(text: &str) -> Value {
    json!({"type": "TextRun", "text": safe(text), "isSubtle": true})
}

/// Breaks up the braces and dollar signs of date functions and templates, and mentions.
fn safe(text: &str) -> String {
    text.replace("{{", "{ {").replace("${", "$ {").replace("<at>", "< at>")
}
