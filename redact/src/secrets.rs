//! Finds secrets: keys and tokens by their prefix or by their randomness, tokens of sessions, PEM blocks, URLs with credentials,
//! and values that follow a word such as `password`.
//!
//! Identifiers are no secrets: UUIDs and hexadecimal hashes stay unless a word before them says otherwise.

use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use crate::{Finding, Kind};

/// Prefixes of keys and tokens, with the least length of the whole.
const PREFIXES: &[(&str, usize)] = &[
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 35),
    ("ya29.", 30),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("sk-", 20),
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("rk_test_", 16),
    ("pk_live_", 16),
    ("whsec_", 20),
    ("xoxb-", 15),
    ("xoxp-", 15),
    ("xoxa-", 15),
    ("xoxr-", 15),
    ("xoxs-", 15),
    ("xapp-", 15),
    ("hf_", 30),
    ("npm_", 36),
    ("pypi-", 30),
    ("SG.", 40),
    ("dop_v1_", 40),
    ("hvs.", 24),
    ("lsv2_", 30),
    ("pplx-", 30),
    ("gsk_", 30),
    ("r8_", 30),
    ("shpat_", 30),
    ("dapi", 36),
    ("NRAK-", 27),
    ("AGE-SECRET-KEY-", 50),
];

/// Least length of a random word.
const RANDOM: usize = 20;

/// Least entropy of a random word, bits a character.
const BITS: f64 = 3.6;

/// Least length of a token of three parts.
const JWT: usize = 40;

/// Longest user, password and host of a URL that is searched, bytes.
const AUTHORITY: usize = 1024;

/// Keys of JSON values that are secrets as a whole.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
    "x-api-key",
    "access_token",
    "refresh_token",
    "auth_token",
    "id_token",
    "bearer_token",
    "private_key",
    "authorization",
    "set-cookie",
    "cookie",
];

/// A word that names a secret, and the value after it. After `is`, only a value with a digit counts: `the password is wrong` is prose.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let words = "password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|access[_-]?token|auth[_-]?token|refresh[_-]?token";
    let pattern = format!(
        r#"(?i)(?:{words})["']?[ \t]{{0,4}}(?:[:=][ \t]{{0,4}}["']?([^\s"',;<>\[\]]{{4,256}})|is[ \t]{{1,4}}["']?([^\s"',;<>\[\]]{{0,255}}[0-9][^\s"',;<>\[\]]{{0,255}}))|\bbearer[ ]([a-z0-9._~+/=-]{{8,256}})"#
    );
    Regex::new(&pattern).expect("the pattern is constant")
});

/// Finds the secrets of a text.
pub(crate) fn find(name: &str, text: &str, found: &mut Vec<Finding>) {
    let plain = name.replace('-', "_");
    if !text.is_empty()
        && !is_placeholder(text)
        && NAMES.iter().any(|known| known.replace('-', "_").eq_ignore_ascii_case(&plain))
    {
        found.push(Finding { start: 0, end: text.len(), kind: Kind::Secret });
        return;
    }
    pem(text, found);
    urls(text, found);
    for named in NAMED.captures_iter(text) {
        let value = (1..=3).find_map(|group| named.get(group));
        found.extend(value.map(|value| Finding { start: value.start(), end: value.end(), kind: Kind::Secret }));
    }
    words(text, found);
}

/// Returns true for a placeholder alone.
fn is_placeholder(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.and_then(|inside| inside.rsplit_once('_')).is_some_and(|(kind, end)| {
        Kind::named(kind).is_some()
            && end.len() <= 16
            && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'p'))
    })
}

fn pem(text: &str, found: &mut Vec<Finding>) {
    let mut from = 0;
    while let Some(begin) = memmem::find(&text.as_bytes()[from..], b"-----BEGIN ") {
        let start = from + begin;
        let rest = &text.as_bytes()[start..];
        // A block without an end is redacted up to the end of the text.
        let end = memmem::find(rest, b"-----END ").map_or(text.len(), |at| {
            let label = start + at + "-----END ".len();
            memmem::find(&text.as_bytes()[label..], b"-----").map_or(text.len(), |end| label + end + "-----".len())
        });
        found.push(Finding { start, end, kind: Kind::Pem });
        from = end;
    }
}

fn urls(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let mut last = 0;
    for at in memmem::find_iter(bytes, b"://") {
        let scheme = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-');
        let start = at - bytes[last..at].iter().rev().take(32).take_while(scheme).count();
        last = at + 3;
        let ends =
            |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'<' | b'>' | b'\'' | b'?' | b'#');
        let length = bytes[last..].iter().take(AUTHORITY).position(ends).unwrap_or((bytes.len() - last).min(AUTHORITY));
        let authority = &bytes[last..last + length];
        let Some(sign) = authority.iter().rposition(|byte| *byte == b'@') else { continue };
        if authority[..sign].contains(&b':') && start < at {
            let mut end = last + length;
            while !text.is_char_boundary(end) {
                end += 1;
            }
            // Punctuation after a URL is not part of it.
            while end > last + sign + 1 && matches!(bytes[end - 1], b',' | b'.' | b';' | b')' | b']' | b'}') {
                end -= 1;
            }
            found.push(Finding { start, end, kind: Kind::UrlCredentials });
        }
    }
}

/// Finds secrets that are one word.
fn words(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'~');
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| part(byte)).count();
        if length < 15 {
            at += length.max(1);
            continue;
        }
        let (start, mut end) = (at, at + length);
        end += bytes[end..].iter().take(2).take_while(|byte| **byte == b'=').count();
        at = end;
        let word = &text[start..end];
        if word.starts_with("eyJ") && word.len() >= JWT && word.matches('.').count() >= 2 {
            found.push(Finding { start, end, kind: Kind::Jwt });
        } else if let Some(offset) = prefixed(word) {
            found.push(Finding { start: start + offset, end, kind: Kind::Secret });
        } else if word.split(['/', '.']).any(|piece| is_random(piece.as_bytes())) {
            found.push(Finding { start, end, kind: Kind::Secret });
        }
    }
}

/// Returns the start of a key with a known prefix.
fn prefixed(word: &str) -> Option<usize> {
    let bytes = word.as_bytes();
    (0..bytes.len()).find(|at| {
        let begins = *at == 0 || matches!(bytes[at - 1], b'/' | b'.');
        let key = &bytes[*at..];
        begins
            && PREFIXES.iter().any(|(prefix, least)| {
                // Words such as `sk-learn-something-or-other` have no digit.
                key.starts_with(prefix.as_bytes()) && key.len() >= *least && key.iter().any(u8::is_ascii_digit)
            })
    })
}

/// Returns true if a word has digits and letters of both cases, and looks drawn at random.
fn is_random(word: &[u8]) -> bool {
    let word = word.strip_suffix(b"==").unwrap_or(word);
    if word.len() < RANDOM {
        return false;
    }
    let count = |of: fn(&u8) -> bool| word.iter().filter(|byte| of(byte)).count();
    let (digits, lower, upper) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_lowercase), count(u8::is_ascii_uppercase));
    // Names in camel case have few digits, and change between classes only at the start of their words.
    let class = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase(), byte.is_ascii_lowercase());
    let changes = word.windows(2).filter(|pair| class(&pair[0]) != class(&pair[1])).count();
    digits >= 2 && lower >= 3 && upper >= 3 && changes * 5 >= word.len() * 2 && entropy(word) >= BITS
}

/// Returns the entropy of the bytes of a word, bits a byte.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes are far below 2^52")]
fn entropy(word: &[u8]) -> f64 {
    let mut counts = [0_usize; 256];
    for byte in word {
        counts[usize::from(*byte)] += 1;
    }
    let total = word.len() as f64;
    let share = |count: &usize| *count as f64 / total;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}
