//! The texts of one run, and their placeholders.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::find::{Search, is_plain};
use crate::secrets::is_placeholder;
use crate::{Finding, Kind, Redactor, json};

/// The text that stands for a text longer than [`crate::Policy::max_text_bytes`].
pub const TOO_LONG: &str = "[TEXT_TOO_LONG]";

/// The text that stands for a document that is not valid JSON.
pub const NOT_JSON: &str = "[INVALID_JSON]";

/// The text that stands for a text on which a detector failed.
pub const FAILED: &str = "[REDACTION_FAILED]";

/// Letters of a keyed placeholder: 64 bits.
const KEYED_LETTERS: usize = 16;

/// Greatest number of a placeholder in a text that later placeholders avoid, digits.
const NUMBER_DIGITS: usize = 6;

/// Redacts the texts of one run.
pub struct Session<'a> {
    redactor: &'a Redactor,
    /// The message of which the texts are parts; empty once its placeholders have been noted.
    message: &'a [u8],
    numbers: HashMap<(Kind, String), u32>,
    last: BTreeMap<Kind, u32>,
    counts: BTreeMap<Kind, u64>,
    looked: u64,
}

// === impl Session ===

impl<'a> Session<'a> {
    pub(crate) fn new(redactor: &'a Redactor, message: &'a [u8]) -> Self {
        let (numbers, last, counts) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { redactor, message, numbers, last, counts, looked: 0 }
    }

    /// Redacts a text.
    pub fn text<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        self.text_of("", text)
    }

    /// Redacts a text that has a name, such as the key of a JSON object. The name says which numbers are ids: `bsn`, `ssn`.
    pub fn text_of<'t>(&mut self, name: &str, text: &'t str) -> Cow<'t, str> {
        if self.redactor.find.is_none() {
            return Cow::Borrowed(text);
        }
        if text.len() <= self.redactor.max_text_bytes && !self.searches_all() && is_plain(name, text) {
            self.looked += text.len() as u64;
            return Cow::Borrowed(text);
        }
        self.searched(name, text)
    }

    /// Returns true if each text must be searched: a name of the list may be in it.
    pub(crate) fn searches_all(&self) -> bool {
        self.redactor.names.is_some()
    }

    pub(crate) fn max_text_bytes(&self) -> usize {
        self.redactor.max_text_bytes
    }

    /// Counts bytes that were looked at.
    pub(crate) fn looked(&mut self, bytes: usize) {
        self.looked += bytes as u64;
    }

    /// Redacts a text by all detectors.
    pub(crate) fn searched<'t>(&mut self, name: &str, text: &'t str) -> Cow<'t, str> {
        let redactor = self.redactor;
        let Some(find) = redactor.find else { return Cow::Borrowed(text) };
        if text.len() > redactor.max_text_bytes {
            self.unread();
            return Cow::Borrowed(TOO_LONG);
        }
        // The state of a search is dropped if it panics, so none that is broken can be seen.
        let searched = catch_unwind(AssertUnwindSafe(|| {
            let mut search = Search::new(name, text);
            find(redactor, &mut search);
            (search.finish(redactor), search.bytes_looked_at())
        }));
        let Ok((findings, looked)) = searched else {
            self.unread();
            return Cow::Borrowed(FAILED);
        };
        self.looked += looked as u64;
        if findings.is_empty() {
            return Cow::Borrowed(text);
        }
        match self.replaced(text, &findings) {
            Some(redacted) => Cow::Owned(redacted),
            None => {
                self.unread();
                Cow::Borrowed(FAILED)
            }
        }
    }

    /// Redacts the keys and values of a JSON document. The layout stays, and so do numbers; one that is redacted becomes a string.
    /// A text that is not JSON becomes the string [`NOT_JSON`].
    pub fn json<'t>(&mut self, document: &'t str) -> Cow<'t, str> {
        if !json::is_valid(document) {
            self.unread();
            return Cow::Owned(format!("\"{NOT_JSON}\""));
        }
        json::redact(self, document)
    }

    /// Redacts a document as [`Self::json`] does, if a parser has accepted it: it is not parsed again.
    pub fn parsed_json<'t>(&mut self, document: &'t str) -> Cow<'t, str> {
        if self.redactor.find.is_none() {
            return Cow::Borrowed(document);
        }
        debug_assert!(json::is_valid(document), "the document was parsed before");
        json::redact(self, document)
    }

    /// Returns how many values of each kind have been redacted.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(kind, count)| (kind.name(), *count))
    }

    /// Returns how many bytes detectors have looked at, each as often as it was looked at: the work, which no clock distorts.
    pub fn bytes_looked_at(&self) -> u64 {
        self.looked
    }

    fn unread(&mut self) {
        *self.counts.entry(Kind::Unread).or_default() += 1;
    }

    /// Returns the text with placeholders in place of the findings; none if a finding does not end with a character.
    fn replaced(&mut self, text: &str, findings: &[Finding]) -> Option<String> {
        let message = std::mem::take(&mut self.message);
        self.reserve(message);
        self.reserve(text.as_bytes());
        let mut redacted = String::with_capacity(text.len());
        let mut from = 0;
        for finding in findings {
            redacted.push_str(text.get(from..finding.start)?);
            let placeholder = self.placeholder(finding.kind, text.get(finding.start..finding.end)?);
            redacted.push_str(&placeholder);
            from = finding.end;
        }
        redacted.push_str(text.get(from..)?);
        Some(redacted)
    }

    /// Notes the placeholders that bytes contain, so that new ones differ from them.
    fn reserve(&mut self, bytes: &[u8]) {
        for at in memchr::memchr_iter(b'[', bytes) {
            let inside = &bytes[at + 1..];
            if !inside.first().is_some_and(u8::is_ascii_uppercase) {
                continue;
            }
            for kind in Kind::ALL {
                let Some(rest) = inside.strip_prefix(kind.name().as_bytes()) else { continue };
                let Some(rest) = rest.strip_prefix(b"_") else { continue };
                let digits = rest.iter().take(NUMBER_DIGITS).take_while(|byte| byte.is_ascii_digit());
                let number = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
                let last = self.last.entry(kind).or_default();
                *last = number.max(*last);
            }
        }
    }

    fn placeholder(&mut self, kind: Kind, found: &str) -> String {
        *self.counts.entry(kind).or_default() += 1;
        let plain: String = found.chars().filter(|one| kind.keeps_separators() || one.is_alphanumeric()).collect();
        if let Some(key) = &self.redactor.key {
            return format!("[{}_{}]", kind.name(), keyed(key, kind, &plain));
        }
        let last = self.last.entry(kind).or_default();
        let number = *self.numbers.entry((kind, plain)).or_insert_with(|| {
            *last += 1;
            *last
        });
        format!("[{}_{number}]", kind.name())
    }
}

/// Returns true if `redacted` may be `text` with placeholders in place of some values, by whatever policy.
pub fn may_be_redacted(redacted: &str, text: &str) -> bool {
    let (mut kept, mut from) = (Vec::new(), 0);
    for (at, _) in redacted.match_indices('[') {
        let end = redacted[at..].find(']').map(|length| at + length + 1);
        if let Some(end) = end.filter(|end| at >= from && is_placeholder(&redacted[at..*end])) {
            kept.push(&redacted[from..at]);
            from = end;
        }
    }
    let last = &redacted[from..];
    let Some((first, middle)) = kept.split_first() else { return redacted == text };
    let Some(mut rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// Returns letters only, so that no detector of numbers finds anything in a placeholder.
fn keyed(key: &[u8], kind: Kind, value: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(kind.name().as_bytes());
    mac.update(&[0]);
    mac.update(value.as_bytes());
    let letter = |half: u8| char::from(b'a' + half);
    let bytes = mac.finalize().into_bytes();
    bytes.iter().flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]).take(KEYED_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_text_is_recognised_whatever_the_policy_was() {
        let text = "Ask Zed or ann@x.org, not Zed.";
        for redacted in [
            text,
            "Ask [NAME_1] or ann@x.org, not [NAME_1].",
            "Ask Zed or [EMAIL_ponmlkjihgfedcba], not Zed.",
            "Ask [NAME_1] or [EMAIL_1], not Zed.",
        ] {
            assert!(may_be_redacted(redacted, text), "{redacted}");
        }
        for other in
            ["Ask [NAME_1] or bob@x.org, not Zed.", "[NAME_1] or [EMAIL_1]!", "Ask [1] or ann@x.org, not Zed.", ""]
        {
            assert!(!may_be_redacted(other, text), "{other}");
        }
        assert!(!may_be_redacted("a[NAME_1]a", "a"), "both ends need their own text");
    }

    /// Fails on some texts, as a detector with a fault would.
    fn faulty(redactor: &Redactor, search: &mut Search<'_>) {
        assert!(!search.text.contains("poison"), "a fault");
        crate::find::all(redactor, search);
    }

    #[test]
    fn a_text_on_which_a_detector_fails_is_replaced_and_all_others_are_redacted() {
        let redactor = Redactor { find: Some(faulty), ..Redactor::default() };
        let mut session = redactor.session();
        let document = r#"{"a":"poison of ann@example.org","b":["bob@example.org",7]}"#;
        assert_eq!(session.json(document), r#"{"a":"[REDACTION_FAILED]","b":["[EMAIL_1]",7]}"#);
        assert_eq!(session.text("poison 5551234567"), FAILED);
        assert_eq!(session.text("bob@example.org"), "[EMAIL_1]");
        assert_eq!(session.counts().collect::<Vec<_>>(), [("EMAIL", 2), ("UNREAD", 2)]);
        let key = session.json(r#"{"poison 5551234567":1}"#).into_owned();
        assert_eq!(key, r#"{"[REDACTION_FAILED]":1}"#);
    }

    #[test]
    fn a_finding_that_splits_a_character_replaces_the_whole_text() {
        fn splits(_: &Redactor, search: &mut Search<'_>) {
            search.found(1, 2, Kind::Name);
        }
        let redactor = Redactor { find: Some(splits), ..Redactor::default() };
        assert_eq!(redactor.session().text("éé 5551234567"), FAILED);
        assert_eq!(redactor.session().text("abc 5551234567"), "a[NAME_1]c 5551234567");
    }
}
