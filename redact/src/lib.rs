//! Removes personal data and secrets from text and JSON, so that they are never stored.
//!
//! * [`Policy`] says which kinds are redacted; [`Redactor`] is the policy compiled.
//! * [`Session`] redacts the texts of one run: the same value gets the same placeholder, such as `[EMAIL_1]`.
//! * [`Session::text`] redacts text, and [`Session::json`] the values of a JSON document. Keys stay.
//! * [`Session::counts`] says how much was redacted, and never what.
//!
//! Rules: nothing panics. Time is linear in the length of a text, because each detector looks a bounded distance around a
//! candidate. If a text cannot be read completely, all of it is replaced. Overlapping findings are replaced together.
//!
//! The detectors are this crate's own: the existing Rust libraries for personal data are young, and none checks the check digits
//! of all ten countries.

mod checksum;
mod find;
mod json;
mod kind;
mod numbers;
mod secrets;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hmac::{Hmac, Mac};
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

pub use kind::Kind;

/// Version of the detectors. It rises when a detector changes.
pub const DETECTORS: &str = "1";

/// The text that stands for a text longer than [`Policy::max_text_bytes`].
pub const TOO_LONG: &str = "[TEXT_TOO_LONG]";

/// The text that stands for a document that is not valid JSON.
pub const NOT_JSON: &str = "[INVALID_JSON]";

/// Letters of a keyed placeholder: 64 bits.
const KEYED_LETTERS: usize = 16;

/// Greatest number of a placeholder in a text that later placeholders avoid.
const NUMBER_DIGITS: usize = 6;

/// Which texts are redacted, and how.
#[derive(Clone)]
pub struct Policy {
    /// Names of people that are redacted wherever they occur as whole words, in any case.
    pub names: Vec<String>,
    /// Kinds that are not redacted.
    pub keep: Vec<Kind>,
    /// Key of the placeholders. With a key, equal values have equal placeholders in all runs, so that they can be joined.
    pub key: Option<Vec<u8>>,
    /// Longest text that is searched, in bytes. A longer one is replaced.
    pub max_text_bytes: usize,
}

/// A name of the list that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(String);

/// A compiled policy.
pub struct Redactor {
    names: Option<Regex>,
    keep: Vec<Kind>,
    key: Option<Vec<u8>>,
    max_text_bytes: usize,
    version: String,
}

/// Redacts the texts of one run.
pub struct Session<'a> {
    redactor: &'a Redactor,
    numbers: HashMap<(Kind, String), u32>,
    last: BTreeMap<Kind, u32>,
    counts: BTreeMap<Kind, u64>,
}

/// A part of a text that is redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

// === impl Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self { names: Vec::new(), keep: Vec::new(), key: None, max_text_bytes: 1 << 20 }
    }
}

impl fmt::Debug for Policy {
    /// Shows neither names nor the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, keyed) = (self.names.len(), self.key.is_some());
        write!(formatter, "Policy {{ names: {names}, keep: {:?}, keyed: {keyed} }}", self.keep)
    }
}

// === impl PolicyError ===

impl fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

// === impl Redactor ===

impl Redactor {
    /// Compiles a policy.
    ///
    /// # Errors
    /// A name has fewer than two letters, the list of names is too long, or the key is empty.
    pub fn new(policy: &Policy) -> Result<Self, PolicyError> {
        if policy.key.as_ref().is_some_and(Vec::is_empty) {
            return Err(PolicyError("the key of the placeholders is empty".to_owned()));
        }
        let mut names = None;
        if !policy.names.is_empty() {
            if let Some(at) = policy.names.iter().position(|name| name.trim().chars().count() < 2) {
                return Err(PolicyError(format!("name {} of the list has fewer than two characters", at + 1)));
            }
            let mut sorted: Vec<&str> = policy.names.iter().map(|name| name.trim()).collect();
            sorted.sort_by_key(|name| std::cmp::Reverse(name.len()));
            let any: Vec<String> = sorted.iter().map(|name| regex::escape(name)).collect();
            let pattern = format!(r"\b(?:{})\b", any.join("|"));
            let built = RegexBuilder::new(&pattern).case_insensitive(true).size_limit(64 << 20).build();
            names = Some(built.map_err(|_| PolicyError("the list of names is too long".to_owned()))?);
        }
        let version = version(policy);
        let (keep, key) = (policy.keep.clone(), policy.key.clone());
        Ok(Self { names, keep, key, max_text_bytes: policy.max_text_bytes, version })
    }

    /// Returns the version of the policy: that of the detectors, and a hash of the settings if they differ from the default.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts the texts of one run.
    pub fn session(&self) -> Session<'_> {
        Session { redactor: self, numbers: HashMap::new(), last: BTreeMap::new(), counts: BTreeMap::new() }
    }
}

fn version(policy: &Policy) -> String {
    if policy.names.is_empty() && policy.keep.is_empty() && policy.key.is_none() {
        return DETECTORS.to_owned();
    }
    let mut hash = Sha256::new();
    for name in &policy.names {
        hash.update(name.as_bytes());
        hash.update([0]);
    }
    for kind in &policy.keep {
        hash.update(kind.name().as_bytes());
        hash.update([1]);
    }
    // A placeholder made with a key shows a hash of a value and never of the key.
    hash.update([u8::from(policy.key.is_some())]);
    let short: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{DETECTORS}-{short}")
}

// === impl Session ===

impl Session<'_> {
    /// Notes the placeholders that a text already contains, so that new ones differ from them.
    pub fn reserve(&mut self, text: &str) {
        for at in memchr::memchr_iter(b'[', text.as_bytes()) {
            let inside = &text.as_bytes()[at + 1..];
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

    /// Redacts a text.
    pub fn text<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        self.text_of("", text)
    }

    /// Redacts a text that has a name, such as the key of a JSON object. The name says which numbers are ids: `bsn`, `ssn`.
    pub fn text_of<'t>(&mut self, name: &str, text: &'t str) -> Cow<'t, str> {
        if text.len() > self.redactor.max_text_bytes {
            *self.counts.entry(Kind::Unread).or_default() += 1;
            return Cow::Borrowed(TOO_LONG);
        }
        let findings = find::all(self.redactor, name, text);
        if findings.is_empty() {
            return Cow::Borrowed(text);
        }
        self.reserve(text);
        let mut redacted = String::with_capacity(text.len());
        let mut from = 0;
        for finding in findings {
            // The ends of a finding are ends of characters; if one were not, all of the text is replaced.
            let (Some(before), Some(found)) = (text.get(from..finding.start), text.get(finding.start..finding.end))
            else {
                *self.counts.entry(Kind::Unread).or_default() += 1;
                return Cow::Borrowed(TOO_LONG);
            };
            redacted.push_str(before);
            redacted.push_str(&self.placeholder(finding.kind, found));
            from = finding.end;
        }
        redacted.push_str(text.get(from..).unwrap_or_default());
        Cow::Owned(redacted)
    }

    /// Redacts the values of a JSON document. Keys, numbers and the layout stay; a number that is redacted becomes a string.
    /// A text that is not JSON becomes the string [`NOT_JSON`].
    pub fn json<'t>(&mut self, document: &'t str) -> Cow<'t, str> {
        json::redact(self, document)
    }

    /// Returns how many values of each kind have been redacted.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(kind, count)| (kind.name(), *count))
    }

    pub(crate) fn unread(&mut self) {
        *self.counts.entry(Kind::Unread).or_default() += 1;
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

impl Redactor {
    pub(crate) fn names(&self) -> Option<&Regex> {
        self.names.as_ref()
    }

    pub(crate) fn keeps(&self, kind: Kind) -> bool {
        self.keep.contains(&kind)
    }
}
