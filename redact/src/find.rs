//! Searches one text: looks at the classes of its bytes, and runs the detectors that begin with one of them.
//!
//! A detector walks a bounded distance from its sign, by the methods of [`Search`], which count the bytes that are looked at. A test
//! holds this count to a multiple of the length, for texts made to cost much.

use crate::classes;
use crate::context::{self, Context};
use crate::{Finding, Kind, Redactor, addresses, numbers, prefilter, secrets};

/// Bytes before a number in which a word such as `phone` is looked for.
const BEFORE: usize = 32;

/// Longest name of a text that is looked at, bytes.
const NAME: usize = 256;

/// Shortest text that can contain anything but a name of the list, bytes: `a@b.cd`.
const SHORTEST: usize = 6;

/// A detector of everything, as [`all`].
pub(crate) type Find = for<'t> fn(&Redactor, &mut Search<'t>);

/// A text that is searched, and the findings in it.
pub(crate) struct Search<'t> {
    pub(crate) text: &'t str,
    pub(crate) bytes: &'t [u8],
    /// Name of the text, such as its key in a JSON object.
    pub(crate) name: &'t str,
    findings: Vec<Finding>,
    /// The kinds of value that the name suggests, computed on first use.
    named: Option<Context>,
    /// The kinds of value that the text before an index suggests, kept for the last index.
    near: (usize, Context),
    looked: usize,
}

/// Returns true if a text contains nothing but perhaps a name of the list: most texts.
pub(crate) fn is_plain(name: &str, text: &str) -> bool {
    let bytes = text.as_bytes();
    if secrets::may_name(name) || bytes.len() < SHORTEST {
        return !secrets::may_name(name);
    }
    prefilter::is_clean(bytes)
}

/// Searches a text for everything that it must not contain.
pub(crate) fn all(redactor: &Redactor, search: &mut Search<'_>) {
    if let Some(names) = &redactor.names {
        names.find(search);
    }
    if secrets::whole(search) {
        return;
    }
    let has = classes::Present::of(search.bytes);
    let long = classes::next_long_word(search.bytes, 0);
    search.looked(2 * search.bytes.len());
    if has.at {
        addresses::emails(search);
    }
    if has.digits {
        numbers::find(search);
    }
    if has.signs {
        secrets::after_signs(search);
        addresses::ipv6(search);
    }
    if has.marks {
        secrets::pem(search);
    }
    if has.digits || long.is_some() {
        secrets::after_words(search);
    }
    if let Some(start) = long {
        secrets::words(search, start);
    }
}

// === impl Search ===

impl<'t> Search<'t> {
    pub(crate) fn new(name: &'t str, text: &'t str) -> Self {
        Self { text, bytes: text.as_bytes(), name, findings: Vec::new(), named: None, near: (0, 0), looked: 0 }
    }

    /// Records a finding.
    pub(crate) fn found(&mut self, start: usize, end: usize, kind: Kind) {
        self.findings.push(Finding { start, end, kind });
    }

    /// Counts bytes that were looked at.
    pub(crate) fn looked(&mut self, bytes: usize) {
        self.looked += bytes;
    }

    pub(crate) fn bytes_looked_at(&self) -> usize {
        self.looked
    }

    /// Returns the byte at an index, or zero beyond the text.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Returns the byte before an index, or zero before the text.
    pub(crate) fn before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(0, |at| self.byte(at))
    }

    /// Returns the end of the bytes from `at` on of which `of` is true, at most `most` of them.
    pub(crate) fn end_of(&mut self, at: usize, most: usize, of: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let length = rest.iter().take(most).take_while(|byte| of(**byte)).count();
        self.looked += length + 1;
        at + length
    }

    /// Returns the start of the bytes before `at` of which `of` is true, at most `most` of them.
    pub(crate) fn start_of(&mut self, at: usize, most: usize, of: impl Fn(u8) -> bool) -> usize {
        let before = self.bytes.get(..at).unwrap_or_default();
        let length = before.iter().rev().take(most).take_while(|byte| of(**byte)).count();
        self.looked += length + 1;
        at - length
    }

    /// Returns true if words in the name of the text, or in the text shortly before `at`, say one of these.
    pub(crate) fn near(&mut self, at: usize, wanted: Context) -> bool {
        let named = match self.named {
            Some(named) => named,
            None => {
                let short = self.name.len() <= NAME;
                self.looked += if short { self.name.len() } else { 0 };
                *self.named.insert(if short { context::of(self.name.as_bytes()) } else { 0 })
            }
        };
        if named & wanted != 0 {
            return true;
        }
        if self.near.0 != at {
            let before = &self.bytes[at.saturating_sub(BEFORE)..at];
            self.looked += before.len();
            self.near = (at, context::of(before));
        }
        self.near.1 & wanted != 0
    }

    /// Returns the findings in ascending order, without those of kinds that are kept; overlapping ones are joined.
    pub(crate) fn finish(&mut self, redactor: &Redactor) -> Vec<Finding> {
        let mut found = std::mem::take(&mut self.findings);
        found.retain(|finding| !redactor.keeps(finding.kind));
        found.sort_by_key(|finding| (finding.start, finding.end));
        let mut joined: Vec<Finding> = Vec::with_capacity(found.len());
        for finding in found {
            match joined.last_mut() {
                Some(last) if finding.start < last.end => {
                    last.end = last.end.max(finding.end);
                    last.kind = last.kind.min(finding.kind);
                }
                _ => joined.push(finding),
            }
        }
        joined
    }
}
