//! Redacts the keys and values of a JSON document in its text, so that all else stays byte for byte: their order, numbers, spaces.
//!
//! The document is scanned without recursion. A string is redacted without its escapes.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

use crate::{NOT_JSON, Session};

/// Least digits of a number that is searched.
const DIGITS: usize = 9;

/// Bytes of a string that are looked at one after the other.
const SHORT: usize = 16;

/// The key of each open object or list; a list has that of the object around it.
#[derive(Default)]
struct Keys<'t> {
    current: Cow<'t, str>,
    outer: Vec<Cow<'t, str>>,
}

/// Returns true for a valid document.
pub(crate) fn is_valid(document: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(document).is_ok()
}

pub(crate) fn redact<'t>(session: &mut Session<'_>, document: &'t str) -> Cow<'t, str> {
    let mut redacted = String::new();
    let (mut copied, mut at) = (0, 0);
    let mut keys = Keys::default();
    let bytes = document.as_bytes();
    while at < bytes.len() {
        let start = at;
        let replaced = match bytes[at] {
            b'"' => {
                let escaped;
                (at, escaped) = end_of_string(bytes, at);
                let text = unquoted(&document[start..at], escaped);
                let next = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                if next == Some(&b':') {
                    let replaced = string(session, "", &text);
                    keys.current = text;
                    replaced
                } else {
                    string(session, keys.current(), &text)
                }
            }
            b'-' | b'0'..=b'9' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
                    .count();
                number(session, keys.current(), &document[start..at])
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

impl<'t> Keys<'t> {
    fn current(&self) -> &str {
        &self.current
    }

    fn open(&mut self) {
        self.outer.push(self.current.clone());
    }

    fn close(&mut self) {
        self.current = self.outer.pop().unwrap_or_default();
    }
}

/// Returns the index after the string that begins at `start`, and whether it has escapes.
fn end_of_string(bytes: &[u8], start: usize) -> (usize, bool) {
    let (mut at, mut escaped) = (start + 1, false);
    // Most strings are short: a search by vectors would cost more to begin.
    for (offset, byte) in bytes[at..].iter().take(SHORT).enumerate() {
        match byte {
            b'"' => return (at + offset + 1, false),
            b'\\' => break,
            _ => {}
        }
    }
    while let Some(offset) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += offset;
        match bytes[at] {
            b'"' => return (at + 1, escaped),
            _ => (at, escaped) = (at + 2, true),
        }
    }
    (bytes.len(), escaped)
}

/// Returns the text of a string. A lone surrogate is no character: the escapes of such a string are searched as text.
fn unquoted(quoted: &str, escaped: bool) -> Cow<'_, str> {
    let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !escaped {
        return Cow::Borrowed(plain);
    }
    serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(plain), Cow::Owned)
}

/// Returns the redacted string, quoted, or `None` if it stays.
fn string(session: &mut Session<'_>, name: &str, text: &str) -> Option<String> {
    match session.text_of(name, text) {
        Cow::Borrowed(same) if std::ptr::eq(same, text) => None,
        redacted => Some(serde_json::to_string(&*redacted).unwrap_or_else(|_| format!("\"{NOT_JSON}\""))),
    }
}

fn number(session: &mut Session<'_>, name: &str, text: &str) -> Option<String> {
    if text.len() < DIGITS || text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E' | b'-')) {
        return None;
    }
    match session.text_of(name, text) {
        Cow::Borrowed(same) if std::ptr::eq(same, text) => None,
        redacted => serde_json::to_string(&*redacted).ok(),
    }
}
