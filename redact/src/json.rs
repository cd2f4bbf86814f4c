//! Redacts the values of a JSON document in its text, so that all else stays byte for byte: keys, their order, numbers, spaces.
//!
//! The document is first checked by a parser, then scanned without recursion. A string is redacted without its escapes.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::{NOT_JSON, Session};

/// Least digits of a number that is searched.
const DIGITS: usize = 9;

pub(crate) fn redact<'t>(session: &mut Session<'_>, document: &'t str) -> Cow<'t, str> {
    if serde_json::from_str::<IgnoredAny>(document).is_err() {
        session.unread();
        return Cow::Owned(format!("\"{NOT_JSON}\""));
    }
    let mut redacted = String::new();
    let (mut copied, mut at) = (0, 0);
    let mut keys = Keys::default();
    let bytes = document.as_bytes();
    while at < bytes.len() {
        let start = at;
        let replaced = match bytes[at] {
            b'"' => {
                at = end_of_string(bytes, at);
                let next = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                if next == Some(&b':') {
                    keys.name(&document[start..at]);
                    None
                } else {
                    value(session, keys.current(), &document[start..at])
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

/// The key of each open object or list; a list has that of the object around it.
#[derive(Default)]
struct Keys<'t> {
    current: Cow<'t, str>,
    outer: Vec<Cow<'t, str>>,
}

// === impl Keys ===

impl<'t> Keys<'t> {
    fn current(&self) -> &str {
        &self.current
    }

    fn name(&mut self, quoted: &'t str) {
        let plain = &quoted[1..quoted.len() - 1];
        self.current = if plain.contains('\\') {
            serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(plain), Cow::Owned)
        } else {
            Cow::Borrowed(plain)
        };
    }

    fn open(&mut self) {
        self.outer.push(self.current.clone());
    }

    fn close(&mut self) {
        self.current = self.outer.pop().unwrap_or_default();
    }
}

/// Returns the index after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Returns the redacted string, quoted, or `None` if it stays.
fn value(session: &mut Session<'_>, name: &str, quoted: &str) -> Option<String> {
    let plain = &quoted[1..quoted.len() - 1];
    let text = if plain.contains('\\') {
        match serde_json::from_str::<String>(quoted) {
            Ok(text) => Cow::Owned(text),
            // A lone surrogate, which is no character: its escapes are searched as text.
            Err(_) => Cow::Borrowed(plain),
        }
    } else {
        Cow::Borrowed(plain)
    };
    match session.text_of(name, &text) {
        redacted if *redacted == *text => None,
        redacted => Some(serde_json::to_string(&*redacted).unwrap_or_else(|_| format!("\"{NOT_JSON}\""))),
    }
}

fn number(session: &mut Session<'_>, name: &str, text: &str) -> Option<String> {
    if text.len() < DIGITS || text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E' | b'-')) {
        return None;
    }
    match session.text_of(name, text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(redacted) => serde_json::to_string(&redacted).ok(),
    }
}
