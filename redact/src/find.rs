//! Finds everything that a text must not contain: runs the detectors that the characters of a text call for.

use std::net::{Ipv4Addr, Ipv6Addr};

use memchr::memchr_iter;

use crate::{Finding, Kind, Redactor, numbers, secrets};

/// Longest local part of an e-mail address, characters.
const LOCAL: usize = 64;

/// Longest domain, characters.
const DOMAIN: usize = 253;

/// Longest IPv6 address, bytes.
const IPV6: usize = 45;

/// Bytes before a number in which a word such as `phone` is looked for.
const BEFORE: usize = 32;

/// Returns the findings in a text in ascending order, without overlaps.
pub(crate) fn all(redactor: &Redactor, name: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    if bytes.contains(&b'@') {
        emails(text, &mut found);
    }
    if bytes.iter().any(u8::is_ascii_digit) {
        numbers::find(name, text, &mut found);
        addresses(text, &mut found);
    }
    secrets::find(name, text, &mut found);
    if let Some(names) = redactor.names() {
        let all = names.find_iter(text);
        found.extend(all.map(|one| Finding { start: one.start(), end: one.end(), kind: Kind::Name }));
    }
    found.retain(|finding| !redactor.keeps(finding.kind));
    merged(found)
}

/// Joins overlapping findings.
fn merged(mut found: Vec<Finding>) -> Vec<Finding> {
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

/// Returns true if the name of a text, or the text shortly before `at`, contains one of the words.
pub(crate) fn near(name: &str, text: &str, at: usize, words: &[&str]) -> bool {
    let before = &text.as_bytes()[at.saturating_sub(BEFORE)..at];
    let contains = |bytes: &[u8]| {
        let lower = bytes.to_ascii_lowercase();
        words.iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
    };
    contains(before) || name.len() <= 256 && contains(name.as_bytes())
}

fn emails(text: &str, found: &mut Vec<Finding>) {
    for at in memchr_iter(b'@', text.as_bytes()) {
        let local = |one: &char| one.is_alphanumeric() || ".!#$%&'*+/=?^_{|}~-".contains(*one);
        let before = text[..at].chars().rev().take(LOCAL).take_while(local).map(char::len_utf8).sum::<usize>();
        let domain = |one: &char| one.is_alphanumeric() || matches!(one, '.' | '-');
        let after = text[at + 1..].chars().take(DOMAIN).take_while(domain).map(char::len_utf8).sum::<usize>();
        let host = text[at + 1..at + 1 + after].trim_end_matches(['.', '-']);
        let last = host.rsplit_once('.').map(|(_, last)| last);
        let real = last.is_some_and(|last| last.chars().count() >= 2 && last.chars().any(char::is_alphabetic));
        if before > 0 && real {
            found.push(Finding { start: at - before, end: at + 1 + host.len(), kind: Kind::Email });
        }
    }
}

/// Finds IP addresses.
fn addresses(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| part(byte)).count();
        if length == 0 {
            at += 1;
            continue;
        }
        let (start, end) = (at, at + length);
        at = end;
        let outside = |byte: Option<&u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let whole = &text[start..end];
        let word = whole.trim_end_matches(['.', ':']).trim_start_matches('.');
        if word.len() < 7 && !word.contains("::") || !outside(bytes.get(end)) {
            continue;
        }
        let from = start + whole.len() - whole.trim_start_matches('.').len();
        if !outside(start.checked_sub(1).and_then(|before| bytes.get(before))) {
            continue;
        }
        if word.len() <= IPV6 && is_address(word) {
            found.push(Finding { start: from, end: from + word.len(), kind: Kind::Ip });
        } else if let Some(port) = word.find(':')
            && is_address(&word[..port])
        {
            found.push(Finding { start: from, end: from + port, kind: Kind::Ip });
        } else if let Some(colon) = word.rfind(':')
            && is_address(&word[colon + 1..])
        {
            found.push(Finding { start: from + colon + 1, end: from + word.len(), kind: Kind::Ip });
        }
    }
}

/// Returns true for an address that identifies a machine, unlike loopback and unspecified ones.
fn is_address(word: &str) -> bool {
    if let Ok(address) = word.parse::<Ipv4Addr>() {
        return !address.is_loopback() && !address.is_unspecified();
    }
    let digits = word.bytes().any(|byte| byte.is_ascii_digit());
    let address = if digits && word.len() >= 6 { word.parse::<Ipv6Addr>() } else { return false };
    address.is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}
