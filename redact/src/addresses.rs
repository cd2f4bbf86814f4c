//! Finds e-mail addresses and IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use memchr::memchr_iter;

use crate::find::Search;
use crate::{Kind, context};

/// Longest local part of an e-mail address, characters.
const LOCAL: usize = 64;

/// Longest domain, characters.
const DOMAIN: usize = 253;

/// Groups of digits of an IPv4 address.
pub(crate) const IPV4_GROUPS: usize = 4;

/// Colons of an IPv6 address, unless two of them stand for the groups that are left out; one fewer before an IPv4 address.
const IPV6_COLONS: usize = 7;

/// Longest IPv6 address, bytes.
const IPV6: usize = 45;

/// Finds e-mail addresses around each `@`.
pub(crate) fn emails(search: &mut Search<'_>) {
    search.looked(search.bytes.len());
    let text = search.text;
    for at in memchr_iter(b'@', search.bytes) {
        let (Some(before), Some(after)) = (text.get(..at), text.get(at + 1..)) else { continue };
        let local = |one: &char| one.is_alphanumeric() || ".!#$%&'*+/=?^_{|}~-".contains(*one);
        let before = before.chars().rev().take(LOCAL).take_while(local).map(char::len_utf8).sum::<usize>();
        let domain = |one: &char| one.is_alphanumeric() || matches!(one, '.' | '-');
        let length = after.chars().take(DOMAIN).take_while(domain).map(char::len_utf8).sum::<usize>();
        search.looked(before + length);
        let host = after.get(..length).unwrap_or_default().trim_end_matches(['.', '-']);
        let last = host.rsplit_once('.').map(|(_, last)| last);
        let real = last.is_some_and(|last| last.chars().count() >= 2 && last.chars().any(char::is_alphabetic));
        if before > 0 && real {
            search.found(at - before, at + 1 + host.len(), Kind::Email);
        }
    }
}

/// Finds an IPv4 address whose first number begins at `start`.
pub(crate) fn ipv4(search: &mut Search<'_>, start: usize) {
    let before = search.before(start);
    let inside = before == b'.' && start > 1 && search.before(start - 1).is_ascii_digit();
    // `Chrome/13.0.832.0` is a version.
    let product = before == b'/' && search.before(start - 1).is_ascii_alphabetic();
    if inside || product || is_word(before) {
        return;
    }
    let mut end = start;
    for part in 0..IPV4_GROUPS {
        if part > 0 {
            if search.byte(end) != b'.' {
                return;
            }
            end += 1;
        }
        let from = end;
        end = search.end_of(from, 4, |byte| byte.is_ascii_digit());
        if !(1..=3).contains(&(end - from)) {
            return;
        }
    }
    // A fifth number makes it a version.
    let more = search.byte(end) == b'.' && search.byte(end + 1).is_ascii_digit();
    if more || is_word(search.byte(end)) {
        return;
    }
    let address = search.text.get(start..end).and_then(|text| text.parse::<Ipv4Addr>().ok());
    if address.is_some_and(|address| !address.is_loopback() && !address.is_unspecified())
        && !search.near(start, context::VERSION)
    {
        search.found(start, end, Kind::Ip);
    }
}

/// Finds IPv6 addresses around each `:`.
pub(crate) fn ipv6(search: &mut Search<'_>) {
    search.looked(search.bytes.len());
    let part = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut done = 0;
    for at in memchr_iter(b':', search.bytes) {
        if at < done || !part(search.before(at)) && !part(search.byte(at + 1)) {
            continue;
        }
        let start = search.start_of(at, (at - done).min(IPV6), part);
        let end = search.end_of(at, IPV6 + 1, part);
        done = end;
        if is_word(search.before(start)) || is_word(search.byte(end)) {
            continue;
        }
        let Some(whole) = search.text.get(start..end) else { continue };
        let start = start + whole.len() - whole.trim_start_matches('.').len();
        let word = whole.trim_start_matches('.').trim_end_matches(['.', ':']);
        if is_ipv6(word) {
            search.found(start, start + word.len(), Kind::Ip);
        }
    }
}

/// Returns true for an address that identifies a machine, unlike loopback and unspecified ones.
fn is_ipv6(word: &str) -> bool {
    let digits = word.bytes().any(|byte| byte.is_ascii_digit());
    let colons = word.bytes().filter(|byte| *byte == b':').count();
    if !digits || !(6..=IPV6).contains(&word.len()) || colons + 1 < IPV6_COLONS && !word.contains("::") {
        return false;
    }
    word.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
