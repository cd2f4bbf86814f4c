//! A message in words, once for all sinks: its parts in order of importance, free of control characters and within limits.
//!
//! * [`page`](self::page): the parts of a page.
//! * [`markup`](self::markup): a line in the format of a service, escaped and cut.
//! * [`fit`](self::fit()): the most detailed form of a message that a limit allows.
//! * [`terminal`](self::terminal): a page for the terminal.
//!
//! A sink only formats what is here. Text from events is a [`Piece::Text`] or [`Piece::Code`], so that no sink can mistake it for
//! markup.

mod fit;
mod markup;
mod page;
mod terminal;

pub(crate) use fit::{Detail, fit};
pub(crate) use markup::{Markup, Plain, line_of};
pub use terminal::terminal;

use url::Url;

use crate::page::{Link, Page, Severity, Status};
use crate::sink::Notice;
use crate::text;

/// Longest title. It is the one part that no form of a message leaves out.
pub(crate) const MAX_TITLE: usize = 300;

/// Longest address of a link; longer ones are left out.
const MAX_URL: usize = 2000;

/// Buttons or links that a message offers.
const MAX_LINKS: usize = 5;

/// A fragment of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// An id or a value that a person may copy.
    Code(String),
    /// A page to open; its address is a valid http or https URL.
    Link {
        name: String,
        url: String,
    },
}

/// A line of a part.
pub(crate) type Line = Vec<Piece>;

/// One part of a page, such as its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) label: &'static str,
    pub(crate) lines: Vec<Line>,
    /// SQL, which keeps its line feeds.
    pub(crate) code: Option<String>,
}

/// A page in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageWords {
    pub(crate) title: String,
    pub(crate) status: Status,
    pub(crate) severity: Severity,
    pub(crate) test: bool,
    /// State, urgency, owner and time in one line.
    pub(crate) state: String,
    pub(crate) parts: Vec<Part>,
    pub(crate) links: Vec<Link>,
}

/// A notice in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The title of the page, or how many there are.
    pub(crate) heading: String,
    pub(crate) pages: Vec<PageWords>,
    /// Pages that are left out.
    pub(crate) more: usize,
    /// Incidents that began and ended in an outage of the sink, in one line.
    pub(crate) missed: Option<String>,
}

// === impl Message ===

impl Message {
    /// Puts a notice into words, in some detail.
    pub(crate) fn new(notice: &Notice, detail: Detail) -> Self {
        let single = notice.pages.len() == 1;
        // Of several pages, each says only the most important.
        let detail = if single { detail } else { Detail { parts: detail.parts.min(3), ..detail } };
        let pages: Vec<PageWords> =
            notice.pages.iter().take(detail.pages).map(|page| page::words(page, detail)).collect();
        let heading = match &notice.pages[..] {
            [page] => heading(page),
            pages => {
                let fire = pages.iter().filter(|page| page.status != Status::Resolved).count();
                let state = if fire == 0 {
                    format!("{} alerts resolved", pages.len())
                } else {
                    format!("{fire} of {} alerts firing", pages.len())
                };
                let group: Vec<String> = notice
                    .group
                    .iter()
                    .map(|(_, value)| text::line(value, 60))
                    .filter(|value| !value.is_empty())
                    .collect();
                let test = if pages.iter().any(|page| page.test) { "TEST: " } else { "" };
                let of = if group.is_empty() { String::new() } else { format!(": {}", group.join(", ")) };
                text::cut(&format!("{test}{state}{of}"), MAX_TITLE)
            }
        };
        let more = notice.pages.len() - pages.len();
        Self { heading, pages, more, missed: missed(&notice.missed, detail) }
    }

    /// Returns the most advanced state: firing before acknowledged before resolved.
    pub(crate) fn status(&self) -> Status {
        let all = |status: Status| self.pages.iter().all(|page| page.status == status);
        if all(Status::Resolved) {
            Status::Resolved
        } else if self.pages.iter().all(|page| page.status != Status::Firing) {
            Status::Acknowledged
        } else {
            Status::Firing
        }
    }
}

/// Returns the state in one word.
pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Firing => "Firing",
        Status::Acknowledged => "Acknowledged",
        Status::Resolved => "Resolved",
    }
}

/// Returns the urgency in one word.
pub(crate) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Ticket => "ticket",
        Severity::Page => "page",
    }
}

/// Returns the title of a page, marked if it is a test.
pub(crate) fn heading(page: &Page) -> String {
    let title = text::line(&page.title, MAX_TITLE);
    let title = if title.is_empty() { text::line(&page.rule, MAX_TITLE) } else { title };
    let title = if title.is_empty() { "alert".to_owned() } else { title };
    if page.test { text::cut(&format!("TEST: {title}"), MAX_TITLE) } else { title }
}

/// Returns the links that can be opened.
pub(crate) fn valid_links(links: &[Link]) -> Vec<Link> {
    let valid = |link: &Link| {
        let url =
            Url::parse(&link.url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
        let url = strict(url.as_str());
        let name = text::line(&link.name, 60);
        let name = if name.is_empty() { "link".to_owned() } else { name };
        (url.len() <= MAX_URL).then_some(Link { name, url })
    };
    links.iter().filter_map(valid).take(MAX_LINKS).collect()
}

/// Encodes what browsers allow in an address, but RFC 3986 does not.
fn strict(url: &str) -> String {
    let path = url.find("://").and_then(|scheme| url[scheme + 3..].find(['/', '?', '#']).map(|path| scheme + 3 + path));
    let (authority, rest) = url.split_at(path.unwrap_or(url.len()));
    let mut strict = authority.to_owned();
    for (index, character) in rest.char_indices() {
        let hexadecimal = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
        let encode = match character {
            '%' => !(hexadecimal(index + 1) && hexadecimal(index + 2)),
            '"' | '<' | '>' | '[' | '\\' | ']' | '^' | '`' | '{' | '|' | '}' | ' ' => true,
            // Only the first one begins the fragment.
            '#' => rest[..index].contains('#'),
            other => !other.is_ascii(),
        };
        if encode {
            let mut buffer = [0; 4];
            character.encode_utf8(&mut buffer).bytes().for_each(|byte| strict.push_str(&format!("%{byte:02X}")));
        } else {
            strict.push(character);
        }
    }
    strict
}

/// Says in one line what happened while the sink could not be reached.
fn missed(missed: &[String], detail: Detail) -> Option<String> {
    let first = match missed {
        [] => return None,
        [only] => {
            return Some(format!(
                "While this service could not be reached, one alert came and went: {}",
                text::line(only, 200)
            ));
        }
        [first, ..] => text::line(first, 100),
    };
    let line =
        format!("While this service could not be reached, {} alerts came and went, such as: {first}", missed.len());
    Some(text::cut(&line, detail.chars.max(120)))
}
