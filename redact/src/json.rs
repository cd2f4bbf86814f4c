//! Redacts the keys and values of a JSON document in its text, so that all else stays byte for byte: their order, numbers, spaces.
//!
//! A pass over the document names the places that are worth a search. Only the strings and numbers around them are read, without
//! recursion, each with its key, which is mostly right before it. A string is unescaped before it is redacted.

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

/// A string or number, and where it begins.
enum Token<'t> {
    Key(usize, Quoted<'t>),
    Text(usize, Quoted<'t>),
    Number(usize, &'t str),
}

/// Reads the strings and numbers of a document in their order, and what opens and closes around them.
struct Reader<'t> {
    document: &'t str,
    at: usize,
    keys: Keys<'t>,
}

/// A document that is redacted in parts, in ascending order.
struct Redaction<'s, 'r, 't> {
    session: &'s mut Session<'r>,
    document: &'t str,
    /// The places that are worth a search and have not been passed. `None`: everything is searched.
    suspects: Option<std::iter::Peekable<std::vec::IntoIter<usize>>>,
    redacted: String,
    /// Number of bytes of the document that have been copied or replaced.
    copied: usize,
    /// Reads from the beginning, as far as keys have been looked for.
    outline: Reader<'t>,
}

/// Returns true for a valid document.
pub(crate) fn is_valid(document: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(document).is_ok()
}

pub(crate) fn redact<'t>(session: &mut Session<'_>, document: &'t str) -> Cow<'t, str> {
    let searches_all = session.searches_all() || document.len() > session.max_text_bytes();
    let suspects = if searches_all { None } else { Some(prefilter::suspects(document.as_bytes())) };
    session.looked(document.len());
    if suspects.as_ref().is_some_and(Vec::is_empty) {
        return Cow::Borrowed(document);
    }
    let suspects = suspects.map(|all| all.into_iter().peekable());
    let outline = Reader::new(document, 0, Key::default());
    let mut redaction = Redaction { session, document, suspects, redacted: String::new(), copied: 0, outline };
    redaction.run();
    redaction.finish()
}

// === impl Redaction ===

impl<'t> Redaction<'_, '_, 't> {
    fn run(&mut self) {
        if self.suspects.is_none() {
            self.region(Reader::new(self.document, 0, Key::default()), self.document.len());
            return;
        }
        let mut done = 0;
        while let Some(suspect) = self.next_suspect(done) {
            let Some((start, end)) = self.around(suspect, done) else {
                done = suspect + 1;
                continue;
            };
            done = end;
            let Some(colon) = colon_after(self.document, end) else {
                let key = self.key_of(start);
                self.region(Reader::new(self.document, start, key), end);
                continue;
            };
            self.region(Reader::new(self.document, start, Key::default()), end);
            // Escapes may hide what a key names.
            let key = Key::of(Quoted::of(&self.document[start..end]));
            if key.is_secret
                && let Some((start, end)) = self.value_at(colon + 1)
            {
                self.region(Reader::new(self.document, start, key), end);
                done = end;
            }
        }
    }

    /// Passes the suspects before an index, and returns the next one.
    fn next_suspect(&mut self, from: usize) -> Option<usize> {
        let suspects = self.suspects.as_mut()?;
        while suspects.next_if(|suspect| *suspect < from).is_some() {}
        suspects.peek().copied()
    }

    /// Returns the range of the string or number that a suspect is in; of the value after it, if it is a colon. `done` is an index
    /// before it and outside of all strings.
    fn around(&self, suspect: usize, done: usize) -> Option<(usize, usize)> {
        let bytes = self.document.as_bytes();
        if classes::is_in_string(bytes, done, suspect) {
            let start = start_of_string(bytes, suspect);
            return Some((start, classes::end_of_string(bytes, start).0));
        }
        if bytes[suspect] == b':' {
            return self.value_at(suspect + 1);
        }
        let before = bytes[done..suspect].iter().rev().take_while(|byte| is_of_number(**byte)).count();
        self.value_at(suspect - before)
    }

    /// Returns the range of the string, the number or the list at an index, or after spaces. The values of a list have its key.
    fn value_at(&self, mut at: usize) -> Option<(usize, usize)> {
        let bytes = self.document.as_bytes();
        at += bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let end = match *bytes.get(at)? {
            b'"' => classes::end_of_string(bytes, at).0,
            b'[' => end_of_list(bytes, at),
            byte if is_of_number(byte) => at + bytes[at..].iter().take_while(|byte| is_of_number(**byte)).count(),
            _ => return None,
        };
        Some((at, end))
    }

    /// Returns the key of the value at an index: before it, or that of the list which has it.
    fn key_of(&mut self, start: usize) -> Key<'t> {
        let bytes = self.document.as_bytes();
        let trimmed = |end: usize| bytes[..end].trim_ascii_end().len();
        let colon = trimmed(start);
        if colon > 0 && bytes[colon - 1] == b':' {
            let end = trimmed(colon - 1);
            let from = start_of_string(bytes, end.saturating_sub(1));
            return Key::of(Quoted::of(&self.document[from..end]));
        }
        while self.outline.next(start).is_some() {}
        self.outline.keys.current
    }

    /// Redacts what a reader reads up to an index.
    fn region(&mut self, mut reader: Reader<'t>, end: usize) {
        while let Some(token) = reader.next(end) {
            let key = reader.keys.current;
            let is_searched =
                self.is_suspect(reader.at) || matches!(token, Token::Text(..) | Token::Number(..)) && key.is_secret;
            let (start, replaced) = match token {
                Token::Key(start, quoted) if is_searched || self.is_long(quoted) => {
                    (start, string(self.session, "", quoted))
                }
                Token::Text(start, quoted) if is_searched || self.is_long(quoted) => {
                    (start, string(self.session, &key.quoted.unquoted(), quoted))
                }
                Token::Number(start, text) if is_searched => (start, number(self.session, key, text)),
                Token::Key(start, _) | Token::Text(start, _) | Token::Number(start, _) => (start, None),
            };
            if let Some(replaced) = replaced {
                self.redacted.push_str(&self.document[self.copied..start]);
                self.redacted.push_str(&replaced);
                self.copied = reader.at;
            }
        }
    }

    /// Returns true for a string that is too long to be searched.
    fn is_long(&self, quoted: Quoted<'_>) -> bool {
        quoted.text.len() > self.session.max_text_bytes()
    }

    /// Returns true if a suspect is before the end of a string or number; passes all before it.
    fn is_suspect(&mut self, end: usize) -> bool {
        let Some(suspects) = &mut self.suspects else { return true };
        let mut found = false;
        while suspects.next_if(|suspect| *suspect < end).is_some() {
            found = true;
        }
        found
    }

    fn finish(mut self) -> Cow<'t, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.document);
        }
        self.redacted.push_str(&self.document[self.copied..]);
        Cow::Owned(self.redacted)
    }
}

/// Returns the index of the quotation mark that begins the string which has the byte at `at`, its end included.
fn start_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(quote) = memchr::memrchr(b'"', &bytes[..at]) {
        let backslashes = bytes[..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            return quote;
        }
        at = quote;
    }
    0
}

/// Returns the index after the list that begins at `at`.
fn end_of_list(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        at = if *byte == b'"' { classes::end_of_string(bytes, at).0 } else { at + 1 };
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => break,
            b']' => depth -= 1,
            _ => {}
        }
    }
    at
}

/// Returns the index of the colon that is next, if one is: the string before it is a key.
fn colon_after(document: &str, at: usize) -> Option<usize> {
    let rest = document.as_bytes()[at..].trim_ascii_start();
    (rest.first() == Some(&b':')).then_some(document.len() - rest.len())
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

// === impl Reader ===

impl<'t> Reader<'t> {
    /// Starts at a value that has this key.
    fn new(document: &'t str, at: usize, key: Key<'t>) -> Self {
        Self { document, at, keys: Keys { current: key, outer: Vec::new() } }
    }

    /// Returns the next string or number that begins before an index; a key is the current one from now on.
    fn next(&mut self, end: usize) -> Option<Token<'t>> {
        let bytes = self.document.as_bytes();
        loop {
            let start = self.at;
            match *bytes[..end].get(start)? {
                b'"' => {
                    let (end, has_escapes) = classes::end_of_string(bytes, start);
                    self.at = end;
                    let quoted = Quoted { text: &self.document[start..end], has_escapes };
                    if colon_after(self.document, end).is_none() {
                        return Some(Token::Text(start, quoted));
                    }
                    self.keys.current = Key::of(quoted);
                    return Some(Token::Key(start, quoted));
                }
                b'-' | b'0'..=b'9' => {
                    self.at += bytes[start..].iter().take_while(|byte| is_of_number(**byte)).count();
                    return Some(Token::Number(start, &self.document[start..self.at]));
                }
                b'{' | b'[' => self.keys.open(),
                b'}' | b']' => self.keys.close(),
                _ => {}
            }
            self.at += 1;
        }
    }
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

// === impl Quoted ===

impl<'t> Quoted<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, has_escapes: text.contains('\\') }
    }

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
