//! Redacts the keys and values of a JSON document in its text, so that all else stays byte for byte: their order, numbers, spaces.
//!
//! The document is scanned without recursion. A string is redacted without its escapes.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::{NOT_JSON, Session, classes, prefilter, secrets};

/// Least digits of a number that is searched.
const DIGITS: usize = 9;

/// A string of the document, quoted.
#[derive(Clone, Copy, Debug, Default)]
struct Quoted<'t> {
    text: &'t str,
    has_escapes: bool,
}

/// A key, as it is written.
#[derive(Clone, Copy, Debug, Default)]
struct Key<'t> {
    quoted: Quoted<'t>,
    /// The key may name a secret.
    is_secret: bool,
}

/// The key of each open object or list; a list has that of the object around it.
#[derive(Default)]
struct Keys<'t> {
    current: Key<'t>,
    outer: Vec<Key<'t>>,
}

/// The places of a document that are worth a search.
struct Suspects<'t> {
    bytes: &'t [u8],
    /// The next place, or the length.
    next: usize,
    all: bool,
}

/// Returns true for a valid document.
pub(crate) fn is_valid(document: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(document).is_ok()
}

pub(crate) fn redact<'t>(session: &mut Session<'_>, document: &'t str) -> Cow<'t, str> {
    let bytes = document.as_bytes();
    let mut suspects = Suspects::of(session, bytes);
    if suspects.are_none() && bytes.len() <= session.max_text_bytes() {
        return Cow::Borrowed(document);
    }
    let mut redacted = String::new();
    let (mut copied, mut at) = (0, 0);
    let mut keys = Keys::default();
    while at < bytes.len() {
        let start = at;
        let replaced = match bytes[at] {
            b'"' => {
                let has_escapes;
                (at, has_escapes) = classes::end_of_string(bytes, at);
                let quoted = Quoted { text: &document[start..at], has_escapes };
                let is_suspect = suspects.is_before(at) || quoted.text.len() > session.max_text_bytes();
                let next = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                if next == Some(&b':') {
                    keys.current = Key::of(quoted);
                    if is_suspect { string(session, "", quoted) } else { None }
                } else if is_suspect || keys.current.is_secret {
                    string(session, &keys.current.quoted.unquoted(), quoted)
                } else {
                    None
                }
            }
            b'-' | b'0'..=b'9' => {
                let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                at += bytes[at..].iter().take_while(|byte| !ends(byte)).count();
                if suspects.is_before(at) || keys.current.is_secret {
                    number(session, keys.current, &document[start..at])
                } else {
                    None
                }
            }
            b'{' | b'[' => {
                keys.open();
                at += 1;
                None
            }
            b'}' | b']' => {
                keys.close();
                at += 1;
                None
            }
            _ => {
                at += 1;
                None
            }
        };
        suspects.pass(session, at);
        if let Some(replaced) = replaced {
            redacted.push_str(&document[copied..start]);
            redacted.push_str(&replaced);
            copied = at;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(document);
    }
    redacted.push_str(&document[copied..]);
    Cow::Owned(redacted)
}

// === impl Keys ===

impl Keys<'_> {
    fn open(&mut self) {
        self.outer.push(self.current);
    }

    fn close(&mut self) {
        self.current = self.outer.pop().unwrap_or_default();
    }
}

// === impl Key ===

impl<'t> Key<'t> {
    fn of(quoted: Quoted<'t>) -> Self {
        Self { quoted, is_secret: secrets::may_name(&quoted.unquoted()) }
    }
}

// === impl Suspects ===

impl<'t> Suspects<'t> {
    fn of(session: &mut Session<'_>, bytes: &'t [u8]) -> Self {
        let mut suspects = Self { bytes, next: 0, all: session.searches_all() };
        if !suspects.all {
            let has_values = suspects.find(session, 0) || !suspects.are_none();
            suspects.all = has_values && secrets::is_introduced(bytes);
        }
        suspects
    }

    /// Returns true if there are digits or long words before the next suspect.
    fn find(&mut self, session: &mut Session<'_>, from: usize) -> bool {
        let passed = prefilter::next(self.bytes, from, true);
        session.looked(passed.next - from);
        self.next = passed.next;
        passed.has_values
    }

    fn are_none(&self) -> bool {
        !self.all && self.next == self.bytes.len()
    }

    /// Returns true if a suspect is before an index, the end of a string or number.
    fn is_before(&self, end: usize) -> bool {
        self.all || self.next < end
    }

    /// Goes on to the next suspect if the one found last is before an index.
    fn pass(&mut self, session: &mut Session<'_>, at: usize) {
        if !self.all && self.next < at {
            self.find(session, at);
        }
    }
}

// === impl Quoted ===

impl<'t> Quoted<'t> {
    /// Returns the text of a string. A lone surrogate is no character: the escapes of such a string are searched as text.
    fn unquoted(self) -> Cow<'t, str> {
        let plain = self.text.get(1..self.text.len().saturating_sub(1)).unwrap_or_default();
        if !self.has_escapes {
            return Cow::Borrowed(plain);
        }
        serde_json::from_str::<String>(self.text).map_or(Cow::Borrowed(plain), Cow::Owned)
    }
}

/// Returns the redacted string, quoted, or `None` if it stays.
fn string(session: &mut Session<'_>, name: &str, quoted: Quoted<'_>) -> Option<String> {
    let text = quoted.unquoted();
    match session.searched(name, &text) {
        Cow::Borrowed(same) if std::ptr::eq(same, &*text) => None,
        redacted => Some(serde_json::to_string(&*redacted).unwrap_or_else(|_| format!("\"{NOT_JSON}\""))),
    }
}

fn number(session: &mut Session<'_>, key: Key<'_>, text: &str) -> Option<String> {
    if text.len() < DIGITS || text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E' | b'-')) {
        return None;
    }
    match session.searched(&key.quoted.unquoted(), text) {
        Cow::Borrowed(same) if std::ptr::eq(same, text) => None,
        redacted => serde_json::to_string(&*redacted).ok(),
    }
}
