//! Subject, plain text and HTML of an e-mail.

use crate::page::{Severity, Status};
use crate::render::{Markup, Message, PageWords, Part, Plain, fit, line_of, status_word};
use crate::sink::Notice;

/// Clients cut messages that are larger.
pub(super) const MAX_HTML_BYTES: usize = 90 * 1024;

const STYLE: &str = "font-family:system-ui,sans-serif;font-size:14px;line-height:1.45;color:#1c1c1c;max-width:44em";

/// An e-mail in words.
pub(super) struct Body {
    pub(super) subject: String,
    pub(super) plain: String,
    pub(super) html: String,
}

struct Html;

// === impl Body ===

impl Body {
    pub(super) fn new(notice: &Notice) -> Self {
        fit(
            |detail| {
                let message = Message::new(notice, detail);
                let subject = format!("[{}] {}", status_word(message.status()), message.heading);
                Self { subject, plain: plain(&message), html: html(&message) }
            },
            |body| body.html.len() <= MAX_HTML_BYTES,
        )
    }
}

// === impl Html ===

impl Markup for Html {
    fn escape(&self, _: Option<char>, character: char, out: &mut String) {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }

    fn code(&self) -> (&'static str, &'static str) {
        ("<code>", "</code>")
    }

    fn link(&self, name: &str, url: &str) -> String {
        format!("<a href=\"{}\">{name}</a>", escaped(url))
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    text.chars().for_each(|character| Html.escape(None, character, &mut out));
    out
}

fn plain(message: &Message) -> String {
    let mut lines = vec![message.heading.clone()];
    let single = message.pages.len() == 1 && message.more == 0;
    for page in &message.pages {
        if !single {
            lines.push(String::new());
            lines.push(page.title.clone());
        }
        lines.push(page.state.clone());
        lines.push(String::new());
        for part in &page.parts {
            lines
                .extend(part.lines.iter().map(|line| format!("{}: {}", part.label, line_of(&Plain, line, usize::MAX))));
            lines.extend(part.code.clone());
        }
        lines.extend(page.links.iter().map(|link| format!("{}: {}", link.name, link.url)));
    }
    lines.extend(remaining(message));
    lines.join("\n") + "\n"
}

fn html(message: &Message) -> String {
    let mut out =
        format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body><div style=\"{STYLE}\">\n");
    out.push_str(&format!("<h2 style=\"margin:0\">{}</h2>\n", escaped(&message.heading)));
    let single = message.pages.len() == 1 && message.more == 0;
    for page in &message.pages {
        if !single {
            out.push_str(&format!("<h3>{}</h3>\n", escaped(&page.title)));
        }
        out.push_str(&format!("<p style=\"color:{};margin:4px 0\">{}</p>\n", colour(page), escaped(&page.state)));
        out.push_str("<table cellpadding=\"3\" style=\"border-collapse:collapse\">\n");
        page.parts.iter().for_each(|part| out.push_str(&row(part)));
        out.push_str("</table>\n");
        let links: Vec<String> = page.links.iter().map(|link| Html.link(&escaped(&link.name), &link.url)).collect();
        if !links.is_empty() {
            out.push_str(&format!("<p>{}</p>\n", links.join(" · ")));
        }
    }
    for line in remaining(message) {
        out.push_str(&format!("<p>{}</p>\n", escaped(&line)));
    }
    out.push_str("</div></body></html>\n");
    out
}

fn row(part: &Part) -> String {
    let lines: Vec<String> = part.lines.iter().map(|line| line_of(&Html, line, usize::MAX)).collect();
    let code =
        part.code.as_ref().map(|code| format!("<pre style=\"background:#f4f4f4;padding:6px\">{}</pre>", escaped(code)));
    let label = part.label;
    format!(
        "<tr><th align=\"left\" valign=\"top\">{label}</th><td>{}{}</td></tr>\n",
        lines.join("<br>"),
        code.unwrap_or_default()
    )
}

fn colour(page: &PageWords) -> &'static str {
    match (page.status, page.severity) {
        (Status::Resolved, _) => "#1a7f37",
        (Status::Acknowledged, _) => "#0969da",
        (Status::Firing, Severity::Page) => "#cf222e",
        (Status::Firing, _) => "#9a6700",
    }
}

fn remaining(message: &Message) -> Vec<String> {
    let more = (message.more > 0).then(|| format!("and {} more alerts", message.more));
    more.into_iter().chain(message.missed.clone()).collect()
}
