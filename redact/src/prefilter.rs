//! Passes over texts that no detector would find anything in, many bytes at a time: most texts, and most strings of a document.
//!
//! [`next`] returns the first place that is worth a search. It may name a place where nothing is found, and never passes over a
//! finding: each rule here is weaker than the detectors that it stands for, and a property test compares them. A document is looked
//! at as it is written, with its escapes, so that strings without suspects are never unescaped.

use crate::addresses::IPV4_GROUPS;
use crate::checksum::nhs;
use crate::classes::{self, BLOCK, is_part};
use crate::ids;
use crate::numbers::{LEAST, SHORT_CARD, next_group};
use crate::secrets;

/// Most groups of digits of which the lengths are kept.
const GROUPS: usize = 4;

/// Length of an Italian codice fiscale.
const FISCAL: usize = 16;

/// Groups of digits that follow each other.
struct Cluster {
    start: usize,
    end: usize,
    digits: usize,
    groups: usize,
    /// Lengths of the first groups, and the bytes after them.
    lengths: [usize; GROUPS],
    after: [u8; GROUPS],
}

/// The result of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    /// The index of the first suspect, or the length.
    pub(crate) next: usize,
    /// There are digits or long words before it: words such as `is` may introduce a secret only beside them.
    pub(crate) has_values: bool,
}

/// A pass over bytes; in those of a JSON document, a backslash escapes the next byte.
struct Pass<'t> {
    bytes: &'t [u8],
    escapes: bool,
    /// Ends of the last cluster and of the last long word.
    cluster_end: usize,
    word_end: usize,
}

/// Looks for the first suspect from `from` on. A finding that ends at or before it does not exist. With `escapes`, the bytes are a JSON document, and `from` is not inside one of its strings.
pub(crate) fn next(bytes: &[u8], from: usize, escapes: bool) -> Passed {
    let mut pass = Pass { bytes, escapes, cluster_end: from, word_end: from };
    // Whether the byte before the block escapes its first one, is a hyphen, and of how many characters of keys it is the last.
    let (mut escape, mut hyphen, mut part) = (false, false, 0);
    let mut has_values = false;
    for (number, masks) in classes::blocks(bytes.get(from..).unwrap_or_default()).enumerate() {
        let start = from + number * BLOCK;
        let mut parts = masks.parts;
        let mut first = usize::MAX;
        if escapes && (escape || masks.backslashes != 0) {
            let escaped = classes::escaped(masks.backslashes, &mut escape);
            first = first.min(pass.first(start, escaped & parts, Pass::is_opaque));
            parts &= !escaped;
        }
        if masks.at != 0 {
            first = first.min(start + masks.at.trailing_zeros() as usize);
        }
        let pairs = masks.hyphens & (masks.hyphens << 1 | u64::from(hyphen));
        if pairs != 0 {
            first = first.min(pass.first(start, pairs, Pass::is_pem));
        }
        hyphen = masks.hyphens >> (BLOCK - 1) != 0;
        if masks.signs != 0 {
            first = first.min(pass.first(start, masks.signs, Pass::is_sign));
        }
        if masks.digits != 0 {
            has_values = true;
            first = first.min(pass.first(start, masks.digits & !(masks.digits << 1), Pass::is_cluster));
        }
        let leading = parts.trailing_ones() as usize;
        if part + leading >= secrets::WORD {
            has_values = true;
            if pass.is_word(start - part) {
                first = first.min(start - part);
            }
        }
        let long = classes::long_runs(parts);
        if long != 0 {
            has_values = true;
            first = first.min(pass.first(start, long & !(long << 1), Pass::is_word));
        }
        part = if leading == BLOCK { part + BLOCK } else { parts.leading_ones() as usize };
        if first < bytes.len() {
            return Passed { next: first, has_values };
        }
    }
    Passed { next: bytes.len(), has_values }
}

// === impl Pass ===

impl Pass<'_> {
    /// Returns the first of some places of a block that is suspect, or the greatest number.
    fn first(&mut self, start: usize, mut places: u64, is_suspect: impl Fn(&mut Self, usize) -> bool) -> usize {
        while places != 0 {
            let at = start + places.trailing_zeros() as usize;
            if is_suspect(self, at) {
                return at;
            }
            places &= places - 1;
        }
        usize::MAX
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Returns the byte this far before an index, or zero before the text.
    fn before(&self, at: usize, by: usize) -> u8 {
        at.checked_sub(by).map_or(0, |at| self.byte(at))
    }

    /// Returns true for an escape of a character that this pass does not read: it may be any, or join two groups of digits.
    fn is_opaque(&mut self, at: usize) -> bool {
        matches!(self.byte(at), b'u' | b'/')
    }

    fn is_pem(&mut self, at: usize) -> bool {
        self.bytes[at - 1..].starts_with(secrets::PEM_BEGIN)
    }

    /// Returns true for `:` or `=` after a word that names a secret, or in an IPv6 address.
    fn is_sign(&mut self, at: usize) -> bool {
        let blank = |byte: u8| matches!(byte, b' ' | b'\t');
        let mut end = at;
        while end + secrets::BLANKS > at && blank(self.before(end, 1)) {
            end -= 1;
        }
        end -= usize::from(matches!(self.before(end, 1), b'"' | b'\''));
        end -= usize::from(self.escapes && self.before(end, 1) == b'\\');
        secrets::names_value(&self.bytes[..end]) || self.byte(at) == b':' && self.is_in_ipv6(at)
    }

    /// Returns true if an address may go on at a colon: it has two colons that follow each other, or four with short groups between.
    fn is_in_ipv6(&self, mut at: usize) -> bool {
        if self.byte(at + 1) == b':' {
            return true;
        }
        for _ in 0..3 {
            let group = self.bytes[at + 1..].iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
            at += 1 + group;
            if !(1..=4).contains(&group) || self.byte(at) != b':' {
                return false;
            }
        }
        true
    }

    /// Returns true if the groups of digits from `at` on may be a number of a person, or a part of an id or address.
    fn is_cluster(&mut self, at: usize) -> bool {
        if at < self.cluster_end {
            return false;
        }
        let end = digits_end(self.bytes, at);
        let is_beside_letter = self.before(at, 1).is_ascii_alphabetic();
        if end - at < ids::DIGITS && !is_beside_letter && next_group(self.bytes, end).is_none() {
            self.cluster_end = end;
            return false;
        }
        let cluster = Cluster::new(self.bytes, at);
        self.cluster_end = cluster.end;
        let mut start = at;
        loop {
            let end = digits_end(self.bytes, start);
            if self.begins_iban(start) || end - start == 4 && self.is_in_pan(start, end) {
                return true;
            }
            match next_group(self.bytes, end) {
                Some(next) => start = next,
                None => break,
            }
        }
        self.is_number(&cluster)
    }

    fn is_number(&self, cluster: &Cluster) -> bool {
        let Cluster { start, end, digits, groups, .. } = *cluster;
        let (before, after) = (self.before(start, 1), self.byte(end));
        if digits < IPV4_GROUPS || digits < ids::DIGITS && groups < IPV4_GROUPS {
            return false;
        }
        if digits < ids::DIGITS {
            return true;
        }
        if digits == ids::DIGITS && groups < IPV4_GROUPS {
            // British and Corsican ids have a letter after six digits.
            return after.is_ascii_alphabetic() || after == b' ' && self.byte(end + 1).is_ascii_alphabetic();
        }
        match groups {
            // The letter of an escape, such as `\n`, is no part of a word; after two backslashes it is a letter.
            1 if self.escapes && self.before(start, 2) == b'\\' => {
                self.is_single(digits, before, after, end) || self.is_single(digits, 0, after, end)
            }
            1 => self.is_single(digits, before, after, end),
            2 if cluster.after[0] == b'.' && cluster.lengths[0] < LEAST => {
                // A decimal number, unless its second part is a Spanish id.
                after.is_ascii_alphanumeric() || cluster.lengths[1] == 8
            }
            3 | 4 if cluster.is_date() && !matches!(before, b'+' | b'(') => groups == 4 && nhs(&self.digits(cluster)),
            _ => true,
        }
    }

    /// Returns true if seven or more digits in one group may be a number by themselves, or a part of an id.
    fn is_single(&self, digits: usize, before: u8, after: u8, end: usize) -> bool {
        if digits > SHORT_CARD {
            return true;
        }
        let is_letter_after = after.is_ascii_alphabetic() || self.byte(end + 1).is_ascii_alphabetic();
        match before {
            b'X'..=b'Z' | b'x'..=b'z' => digits == LEAST && is_letter_after,
            b'A'..=b'W' | b'a'..=b'w' | b'_' => false,
            // Digits that a letter follows are a number only as a Spanish id, or before the extension of a phone number.
            _ if is_word(after) => digits == 8 || matches!(after, b'x' | b'X'),
            _ => true,
        }
    }

    fn digits(&self, cluster: &Cluster) -> Vec<u8> {
        let digits = self.bytes[cluster.start..cluster.end].iter().filter(|byte| byte.is_ascii_digit());
        digits.map(|digit| digit - b'0').collect()
    }

    /// Returns true if the digits at `at` are the third byte of a word that begins with a country.
    fn begins_iban(&self, at: usize) -> bool {
        let (first, second) = (self.before(at, 2), self.before(at, 1));
        if !second.is_ascii_alphabetic() || !first.is_ascii_alphabetic() {
            return false;
        }
        // The letter of an escape, such as `\n`, is no part of the word.
        let is_start = !is_word(self.before(at, 3)) || self.escapes && self.before(at, 4) == b'\\';
        is_start && ids::iban_length([first, second]).is_some()
    }

    fn is_in_pan(&self, start: usize, end: usize) -> bool {
        let letters = start.checked_sub(5).map(|from| &self.bytes[from..start]);
        self.byte(end).is_ascii_uppercase() && letters.is_some_and(|word| word.iter().all(u8::is_ascii_uppercase))
    }

    /// Returns true if the long word at `at` may be a secret or an Italian id.
    fn is_word(&mut self, at: usize) -> bool {
        if at < self.word_end {
            return false;
        }
        let rest = &self.bytes[at..];
        let word = &rest[..rest.iter().take_while(|byte| is_part(**byte)).count()];
        self.word_end = at + word.len();
        let padding = rest[word.len()..].iter().take(2).take_while(|byte| **byte == b'=').count();
        let digits = word.iter().any(u8::is_ascii_digit);
        if digits {
            let pieces = word.split(|byte| !byte.is_ascii_alphanumeric());
            let mut codes = pieces.filter(|piece| piece.len() == FISCAL && piece[0].is_ascii_alphabetic());
            if codes.any(|code| code[..FISCAL - 1].iter().filter(|byte| byte.is_ascii_digit()).count() <= 7) {
                return true;
            }
        }
        secrets::is_secret(b"", &rest[..word.len() + padding])
    }
}

// === impl Cluster ===

impl Cluster {
    fn new(bytes: &[u8], start: usize) -> Self {
        let end = digits_end(bytes, start);
        let mut cluster = Self { start, end, digits: 0, groups: 0, lengths: [0; GROUPS], after: [0; GROUPS] };
        let mut from = start;
        loop {
            cluster.end = digits_end(bytes, from);
            if let (Some(length), Some(after)) =
                (cluster.lengths.get_mut(cluster.groups), cluster.after.get_mut(cluster.groups))
            {
                (*length, *after) = (cluster.end - from, bytes.get(cluster.end).copied().unwrap_or(0));
            }
            cluster.digits += cluster.end - from;
            cluster.groups += 1;
            match next_group(bytes, cluster.end) {
                Some(next) => from = next,
                None => return cluster,
            }
        }
    }

    /// Returns true for a date with hyphens, and perhaps an hour after it.
    fn is_date(&self) -> bool {
        self.lengths[..3] == [4, 2, 2] && self.after[..2] == *b"--" && (self.groups == 3 || self.lengths[3] == 2)
    }
}

fn digits_end(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
