//! Finds identifiers as whole words, in text and in bytes.
//!
//! A word is bounded by characters that identifiers hardly have: white space, quotes, brackets, commas and the like. So `run-1` is
//! not in `run-10`, `run-1.2` or `my:run-1`, but it is in `"run-1"`, `run-1,` and at the end of a sentence. An identifier that may be a
//! usual word or number, such as `7`, counts only as a whole text or between quotes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Text that replaces an identifier.
const ERASED: &str = "erased";

/// Shorter identifiers may be usual words.
const WORD: usize = 4;

/// Identifiers of fewer digits may be usual numbers.
const NUMBER: usize = 6;

/// Longest identifier whose length, in front of it, takes one byte in the footer of a Parquet file.
const SHORT: usize = 127;

/// A set of identifiers. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    /// Identifiers by their last word: nearly all consist of one.
    by_last_word: HashMap<Vec<u8>, Vec<Token>>,
    /// All identifiers, by their bytes.
    whole: HashSet<Vec<u8>>,
    lengths: BTreeSet<usize>,
}

/// An identifier around its last word.
#[derive(Clone, Debug)]
struct Token {
    before: Vec<u8>,
    after: Vec<u8>,
}

// === impl Tokens ===

impl Tokens {
    /// Prepares identifiers for a search. Empty ones are left out.
    pub fn new<'a>(identifiers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tokens = Set::default();
        for identifier in identifiers.into_iter().map(str::as_bytes).filter(|identifier| !identifier.is_empty()) {
            if !tokens.whole.insert(identifier.to_vec()) {
                continue;
            }
            tokens.lengths.insert(identifier.len());
            // An identifier without a word is found nowhere in text, only where it is the whole value.
            let end = identifier.iter().rposition(|byte| is_word(*byte)).map_or(0, |last| last + 1);
            let start = identifier[..end].iter().rposition(|byte| !is_word(*byte)).map_or(0, |before| before + 1);
            let token = Token { before: identifier[..start].to_vec(), after: identifier[end..].to_vec() };
            tokens.by_last_word.entry(identifier[start..end].to_vec()).or_default().push(token);
        }
        Self(Arc::new(tokens))
    }

    /// Returns the number of identifiers.
    pub fn len(&self) -> usize {
        self.0.whole.len()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.whole.is_empty()
    }

    /// Returns the identifiers of at least so many bytes.
    #[must_use]
    pub fn longer_than(&self, bytes: usize) -> Self {
        if self.0.lengths.first().is_none_or(|shortest| *shortest >= bytes) {
            return self.clone();
        }
        let longer = self.0.whole.iter().filter(|identifier| identifier.len() >= bytes);
        Self::new(longer.filter_map(|identifier| std::str::from_utf8(identifier).ok()))
    }

    /// Returns true if a text is one of the identifiers.
    pub fn has(&self, text: &str) -> bool {
        self.0.whole.contains(text.as_bytes())
    }

    /// Returns true if bytes hold one of the identifiers as a whole word.
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        self.first(bytes, 0).is_some()
    }

    /// Returns a text with `erased` in place of each identifier; none if it holds none.
    pub fn replaced(&self, text: &str) -> Option<String> {
        let (mut from, mut replaced) = (0, String::new());
        while let Some((start, end)) = self.first(text.as_bytes(), from) {
            // Boundaries are ASCII characters or ends, so both places are boundaries of characters.
            replaced.push_str(text.get(from..start)?);
            replaced.push_str(ERASED);
            from = end;
        }
        (from > 0).then(|| replaced + text.get(from..).unwrap_or_default())
    }

    /// Returns true if the bytes of a Parquet file hold one of the identifiers: as a whole word, or after its length, as the
    /// format stores texts.
    pub fn are_in_parquet(&self, bytes: &[u8]) -> bool {
        self.are_in(bytes) || self.are_after_their_length(bytes) || self.are_in_footer(bytes)
    }

    /// Returns true if an identifier follows its length, as four bytes.
    fn are_after_their_length(&self, bytes: &[u8]) -> bool {
        (4..bytes.len()).any(|at| {
            let length = u32::from_le_bytes([bytes[at - 4], bytes[at - 3], bytes[at - 2], bytes[at - 1]]);
            usize::try_from(length).is_ok_and(|length| self.is_at(bytes, at, length))
        })
    }

    /// Returns true if an identifier follows its length, as one byte, in the footer.
    fn are_in_footer(&self, bytes: &[u8]) -> bool {
        let [.., a, b, c, d, _, _, _, _] = bytes else { return false };
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(0);
        let start = bytes.len().saturating_sub(8).saturating_sub(length);
        (start + 1..bytes.len()).any(|at| {
            let length = usize::from(bytes[at - 1]);
            length <= SHORT && self.is_at(bytes, at, length)
        })
    }

    fn is_at(&self, bytes: &[u8], at: usize, length: usize) -> bool {
        self.0.lengths.contains(&length)
            && at.checked_add(length).and_then(|end| bytes.get(at..end)).is_some_and(|text| self.0.whole.contains(text))
    }

    /// Returns the place of the first identifier from a place on.
    fn first(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        let mut at = from;
        while at < bytes.len() {
            if !is_word(bytes[at]) {
                at += 1;
                continue;
            }
            let end = bytes[at..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |length| at + length);
            if let Some(found) = self.in_word(bytes, from, (at, end)) {
                return Some(found);
            }
            at = end;
        }
        None
    }

    /// Returns the place of an identifier that ends in a word, with or without the punctuation around the word.
    fn in_word(&self, bytes: &[u8], from: usize, (start, end): (usize, usize)) -> Option<(usize, usize)> {
        let (inner_start, inner_end) = without_punctuation(bytes, start, end);
        let trimmed = [(start, end), (start, inner_end), (inner_start, end), (inner_start, inner_end)];
        trimmed.into_iter().find_map(|(start, end)| {
            let tokens = self.0.by_last_word.get(bytes.get(start..end)?)?;
            tokens.iter().find_map(|token| {
                let first = start.checked_sub(token.before.len()).filter(|first| *first >= from)?;
                let last = end.checked_add(token.after.len()).filter(|last| *last <= bytes.len())?;
                let same = bytes[first..start] == token.before && bytes[end..last] == token.after;
                let bounded = token.before.is_empty() || first == 0 || !is_word(bytes[first - 1]);
                let certain = !may_be_usual(&bytes[first..last]) || is_alone(bytes, first, last);
                (same && bounded && certain).then_some((first, last))
            })
        })
    }
}

/// Returns true for bytes of identifiers.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'@') || byte >= 0x80
}

/// Returns true for identifiers that may be in a text and mean something else.
fn may_be_usual(identifier: &[u8]) -> bool {
    identifier.len() < WORD || identifier.len() < NUMBER && identifier.iter().all(u8::is_ascii_digit)
}

/// Returns true if a part of a text is all of it, or is between quotes, which may be escaped.
fn is_alone(bytes: &[u8], first: usize, last: usize) -> bool {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'`' | b'\\');
    let before = first.checked_sub(1).and_then(|before| bytes.get(before));
    before.is_none_or(is_quote) && bytes.get(last).is_none_or(is_quote)
}

/// Returns a word without the punctuation around it.
fn without_punctuation(bytes: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    let is_mark = |byte: u8| matches!(byte, b'.' | b':' | b'-');
    while start < end && is_mark(bytes[start]) {
        start += 1;
    }
    while start < end && is_mark(bytes[end - 1]) {
        end -= 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_found_as_a_whole_word_only() {
        let tokens = Tokens::new(["run-1", "a/b 7", "xyz.", "größe"]);
        for text in ["run-1", "\"run-1\"", "run `run-1` failed.", "of run-1.", "id=run-1,", "(run-1)", "a: run-1: b"] {
            assert!(tokens.are_in(text.as_bytes()), "{text}");
        }
        for text in ["run-10", "my-run-1", "run-1.2", "s:run-1", "run-1-2", "run", "", "größer", "7", "b 7", "xa/b 7"]
        {
            assert!(!tokens.are_in(text.as_bytes()), "{text}");
        }
        for text in ["a/b 7", "'a/b 7'", "see a/b 7.", "xyz.", "xyz.,", "die größe"] {
            assert!(tokens.are_in(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_usual_word_or_number_counts_only_alone() {
        let tokens = Tokens::new(["7", "of", "12345", "acme"]);
        for text in ["7", "\"7\"", r#"{\"user\":\"12345\"}"#, "`of`", "of acme.", "12345"] {
            assert!(tokens.are_in(text.as_bytes()), "{text}");
        }
        for text in ["7 of 10 runs", "one of them", "version 12345", r#"{"version":7}"#] {
            assert!(!tokens.are_in(text.as_bytes()), "{text}");
        }
        assert_eq!(tokens.replaced("7 of 10 runs of `7`").as_deref(), Some("7 of 10 runs of `erased`"));
    }

    #[test]
    fn each_identifier_in_a_text_is_replaced() {
        let tokens = Tokens::new(["run-1", "a/b 7"]);
        let replaced = tokens.replaced("run-1, run-10, `a/b 7` and run-1.");
        assert_eq!(replaced.as_deref(), Some("erased, run-10, `erased` and erased."));
        assert_eq!(tokens.replaced("run-10"), None);
        assert_eq!(tokens.replaced("größe run-1 ö").as_deref(), Some("größe erased ö"));
    }

    #[test]
    fn texts_in_a_parquet_file_are_found_whatever_follows_them() {
        let tokens = Tokens::new(["run-1"]);
        let plain = b"..\x05\0\0\0run-1a\0\0\0";
        assert!(tokens.are_in_parquet(plain) && !tokens.are_in(plain));
        assert!(!tokens.are_in_parquet(b"..\x06\0\0\0run-1aPAR1"));
        let mut footer = b"PAR1\x18\x05run-1a".to_vec();
        footer.extend(8_u32.to_le_bytes());
        footer.extend(b"PAR1");
        assert!(tokens.are_in_parquet(&footer));
        assert!(Tokens::new([""]).is_empty());
    }
}
