//! Messages of Slack's Block Kit, within its limits.

use serde_json::{Value, json};

use crate::page::{Link, Severity, Status};
use crate::render::{Markup, Message, PageWords, Part, Piece, fit, line_of};
use crate::sink::Notice;
use crate::text;

/// Limits of Block Kit.
pub(super) const MAX_BLOCKS: usize = 50;
pub(super) const MAX_SECTION: usize = 3000;
pub(super) const MAX_HEADER: usize = 150;
/// Slack refuses blocks with more text than some 13,000 characters together.
pub(super) const MAX_TOTAL: usize = 12_000;
/// The text for notifications; longer ones are cut by Slack.
pub(super) const MAX_TEXT: usize = 3000;

/// Slack's format of text.
struct Mrkdwn;

// === impl Mrkdwn ===

impl Markup for Mrkdwn {
    fn escape(&self, before: Option<char>, character: char, out: &mut String) {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // These format text and have no escape: signs that look alike take their place.
            '*' => out.push('∗'),
            '~' => out.push('∼'),
            '`' => out.push('ˋ'),
            // Inside of a word it formats nothing, and names are full of it.
            '_' if !before.is_some_and(char::is_alphanumeric) => out.push('＿'),
            other => out.push(other),
        }
    }

    fn code(&self) -> (&'static str, &'static str) {
        ("`", "`")
    }

    fn link(&self, name: &str, url: &str) -> String {
        let url = url.replace('&', "&amp;").replace('<', "%3C").replace('>', "%3E").replace('|', "%7C");
        format!("<{url}|{}>", name.replace('|', "¦"))
    }
}

/// Returns the message of a notice: `text` for notifications, and blocks.
pub(super) fn message(notice: &Notice) -> Value {
    fit(
        |detail| {
            let message = Message::new(notice, detail);
            json!({
                "text": escaped(&format!("{} {}", mark(&message), message.heading), MAX_TEXT),
                "blocks": blocks(&message),
                "unfurl_links": false,
                "unfurl_media": false,
            })
        },
        |message| {
            let blocks = message["blocks"].as_array().map_or(0, Vec::len);
            blocks <= MAX_BLOCKS && text_length(&message["blocks"]) <= MAX_TOTAL
        },
    )
}

/// Returns the reply that says what has changed.
pub(super) fn reply(message: &Message) -> Value {
    let mut lines: Vec<String> = message
        .pages
        .iter()
        .take(10)
        .map(|page| {
            format!(
                "{} {}",
                escaped(&page.state, 300),
                if message.pages.len() > 1 { escaped(&page.title, 200) } else { String::new() }
            )
        })
        .map(|line| line.trim_end().to_owned())
        .collect();
    if message.pages.len() > 10 || message.more > 0 {
        lines.push(format!("and {} more", message.pages.len().saturating_sub(10) + message.more));
    }
    let said = text::cut(&lines.join("\n"), MAX_TEXT);
    json!({"text": format!("{} {said}", mark(message)), "unfurl_links": false, "unfurl_media": false})
}

fn blocks(message: &Message) -> Vec<Value> {
    let mut blocks = vec![header(&format!("{} {}", mark(message), message.heading))];
    let single = message.pages.len() == 1 && message.more == 0;
    for page in &message.pages {
        if !single {
            blocks.push(json!({"type": "divider"}));
            blocks.push(section(format!("*{}*", escaped(&page.title, 1000))));
        }
        blocks.push(context(escaped(&page.state, 1000)));
        blocks.extend(page.parts.iter().map(part));
        blocks.extend(links(&page.links));
    }
    if message.more > 0 {
        blocks.push(context(format!("and {} more alerts", message.more)));
    }
    if let Some(missed) = &message.missed {
        blocks.push(context(escaped(missed, 1000)));
    }
    blocks
}

/// Returns the sign of a state.
fn mark(message: &Message) -> &'static str {
    let page = message.pages.iter().any(|page: &PageWords| page.severity == Severity::Page);
    match message.status() {
        Status::Resolved => "🟢",
        Status::Acknowledged => "🔵",
        Status::Firing if page => "🔴",
        Status::Firing => "🟡",
    }
}

fn part(part: &Part) -> Value {
    let mut written = format!("*{}*", part.label);
    for line in &part.lines {
        let left = MAX_SECTION.saturating_sub(text::length(&written) + 3);
        if left < 20 {
            break;
        }
        let separator = if part.lines.len() == 1 { "  " } else { "\n• " };
        written.push_str(separator);
        written.push_str(&line_of(&Mrkdwn, line, left.min(1500)));
    }
    if let Some(code) = &part.code {
        let left = MAX_SECTION.saturating_sub(text::length(&written) + 8);
        if left > 20 {
            written.push_str(&format!("\n```{}```", escaped(code, left)));
        }
    }
    section(written)
}

fn links(links: &[Link]) -> Option<Value> {
    let mut pieces = Vec::new();
    for link in links {
        if !pieces.is_empty() {
            pieces.push(Piece::Text("  ·  ".to_owned()));
        }
        pieces.push(Piece::Link { name: link.name.clone(), url: link.url.clone() });
    }
    (!pieces.is_empty()).then(|| section(line_of(&Mrkdwn, &pieces, MAX_SECTION)))
}

fn escaped(text: &str, limit: usize) -> String {
    line_of(&Mrkdwn, &[Piece::Text(text.to_owned())], limit)
}

fn header(text: &str) -> Value {
    json!({"type": "header", "text": {"type": "plain_text", "text": text::cut(text, MAX_HEADER), "emoji": false}})
}

/// `verbatim` keeps Slack from making links and mentions of text.
fn section(text: String) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}})
}

fn context(text: String) -> Value {
    json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": true}]})
}

/// Returns the length of all text in blocks.
fn text_length(value: &Value) -> usize {
    match value {
        Value::String(value) => text::length(value),
        Value::Array(values) => values.iter().map(text_length).sum(),
        Value::Object(fields) => fields.values().map(text_length).sum(),
        _ => 0,
    }
}
