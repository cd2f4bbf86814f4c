//! Finds secrets: keys and tokens by their prefix or by their randomness, tokens of sessions, PEM blocks, URLs with credentials,
//! and values that follow a word such as `password`.
//!
//! Identifiers are no secrets: UUIDs and hexadecimal hashes stay unless a word before them says otherwise.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr2_iter, memmem};

use crate::Kind;
use crate::classes::{self, is_part};
use crate::find::Search;
use crate::word::{CASES, Counts, changes, has_random};

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

/// Least length of a word with a known prefix, of a random one, and of a password of letters, bytes. `classes` finds such words.
pub(crate) const WORD: usize = 15;

/// Prefixes of ids that are random words.
const IDS: &[&str] = &[
    "call_",
    "toolu_",
    "chatcmpl-",
    "cmpl-",
    "resp_",
    "msg_",
    "req_",
    "run_",
    "asst_",
    "thread_",
    "step_",
    "file-",
    "file_",
    "fc_",
    "rs_",
    "gen-",
    "item_",
    "evt_",
    "batch_",
    "ftjob-",
    "fp_",
    "tooluse_",
    "trace_",
    "span_",
    "session_",
];

/// Beginning and least length of a token of three parts.
pub(crate) const JWT_BEGIN: &[u8] = b"eyJ";
const JWT: usize = 40;

/// Longest user, password and host of a URL that is searched, bytes.
const AUTHORITY: usize = 1024;

/// Longest value after a word that names a secret, bytes.
const VALUE: usize = 256;

/// Most blanks between a word, a sign and a value.
pub(crate) const BLANKS: usize = 4;

/// The beginning of a PEM block.
pub(crate) const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// Words with the same last two bytes, each with the least length of a secret after it.
type Words = ([u8; 2], &'static [(&'static str, usize)]);

/// Words that name a secret, at their end, without `_`, `-` and spaces, by their last two bytes. The value after one is a secret if it
/// has at least so many characters; those of 12 and more must also look like a key.
const WORDS: &[Words] = &[
    (*b"rd", &[("password", 4), ("wachtwoord", 4)]),
    (*b"wd", &[("passwd", 4), ("pwd", 4)]),
    (*b"se", &[("passphrase", 4), ("motdepasse", 4)]),
    (*b"rt", &[("passwort", 4), ("kennwort", 4)]),
    (*b"et", &[("secret", 4)]),
    (*b"ha", &[("senha", 4)]),
    (*b"\xb1a", &[("contraseña", 4)]),
    (*b"\x82o", &[("hasło", 4)]),
    (*b"ey", &[("apikey", 4), ("accesskey", 4), ("secretkey", 4), ("privatekey", 4), ("key", 12)]),
    (
        *b"en",
        &[("accesstoken", 4), ("authtoken", 4), ("refreshtoken", 4), ("idtoken", 4), ("bearertoken", 4), ("token", 12)],
    ),
    (*b"al", &[("credential", 12)]),
    (*b"ls", &[("credentials", 12)]),
];

/// Names of values that are secrets as a whole, beside those that end with a word above of four characters; by their last two bytes.
const NAMES: &[([u8; 2], &str)] = &[(*b"on", "authorization"), (*b"ie", "setcookie"), (*b"ie", "cookie")];

/// Longest name, and longest word before a value, that is looked at, bytes.
const NAME: usize = 40;

/// The last two bytes of the words above: for each last byte, the set of the low five bits of the bytes before it.
const ENDS: [u32; 256] = {
    let (mut ends, mut at) = ([0; 256], 0);
    while at < WORDS.len() + NAMES.len() {
        let end = if at < WORDS.len() { WORDS[at].0 } else { NAMES[at - WORDS.len()].0 };
        ends[end[1] as usize] |= 1 << (end[0] & 31);
        at += 1;
    }
    ends
};

/// Last bytes of a word that are compared at once, and the bits that make letters of them small.
const TAIL: usize = 8;
const SMALL: u64 = 0x2020_2020_2020_2020;

static PEM: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PEM_BEGIN));
static IS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b" is "));
static BEARER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"earer "));
static BASIC: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b": Basic "));

/// Records a text that is a secret because of its name. Returns true if it is.
pub(crate) fn whole(search: &mut Search<'_>) -> bool {
    if search.name.is_empty() || search.name.len() > NAME || search.text.is_empty() || is_placeholder(search.text) {
        return false;
    }
    let Some(last) = last_two(search.name.as_bytes()) else { return false };
    let (plain, length) = plain(search.name.as_bytes());
    search.looked(search.name.len());
    let plain = &plain[..length];
    let secret = match least(last, plain) {
        Some(4) => true,
        Some(least) => search.text.len() >= least && is_key(search.bytes),
        None => NAMES.iter().any(|(_, name)| name.as_bytes() == plain),
    };
    if secret {
        search.found(0, search.text.len(), Kind::Secret);
    }
    secret
}

/// Returns true if a name may be that of a secret, by its last two bytes.
pub(crate) fn may_name(name: &str) -> bool {
    last_two(name.as_bytes()).is_some()
}

/// Returns true if a word that names a secret ends with these bytes, so that the value after it may be one.
pub(crate) fn names_value(bytes: &[u8]) -> bool {
    let Some(last) = last_two(bytes) else { return false };
    if let Some(tail) = bytes.last_chunk::<TAIL>()
        && !tail.iter().any(|byte| is_separator(*byte))
        && !may_end(u64::from_be_bytes(*tail), last)
    {
        return false;
    }
    let ends_with = |word: &str| {
        let near = &bytes[bytes.len().saturating_sub(NAME)..];
        let mut letters = near.iter().rev().filter(|byte| !is_separator(**byte)).map(u8::to_ascii_lowercase);
        word.bytes().rev().all(|letter| letters.next() == Some(letter))
    };
    let mut words = WORDS.iter().filter(|(end, _)| *end == last).flat_map(|(_, words)| words.iter());
    words.any(|(word, _)| ends_with(word)) || NAMES.iter().any(|(end, name)| *end == last && ends_with(name))
}

/// Returns true if a word that names a secret may end with `tail`. The tail ends with the bytes `last` and has no separators.
fn may_end(tail: u64, last: [u8; 2]) -> bool {
    let tail = tail | SMALL;
    let ends = |word: &str| {
        let bytes = word.as_bytes();
        let (mut end, length) = (0, bytes.len().min(TAIL));
        for byte in &bytes[bytes.len() - length..] {
            end = end << 8 | u64::from(*byte);
        }
        let mask = u64::MAX >> (8 * (TAIL - length));
        (tail ^ (end | SMALL)) & mask == 0
    };
    let mut words = WORDS.iter().filter(|(end, _)| *end == last).flat_map(|(_, words)| words.iter());
    words.any(|(word, _)| ends(word)) || NAMES.iter().any(|(end, name)| *end == last && ends(name))
}

/// Returns true for a byte that separates the parts of a name: `api_key`.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'_' | b'-' | b' ')
}

/// Returns true for the word `bearer` and a space, from its first letter on.
pub(crate) fn is_bearer(bytes: &[u8]) -> bool {
    matches!(bytes, [b'b' | b'B', rest @ ..] if rest.starts_with(BEARER.needle()))
}

/// Returns a word in small letters and without `_`, `-` and spaces, and its length. It has at most [`NAME`] bytes.
fn plain(word: &[u8]) -> ([u8; NAME], usize) {
    let (mut plain, mut length) = ([0; NAME], 0);
    for byte in word.iter().filter(|byte| !is_separator(**byte)).take(NAME) {
        plain[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    (plain, length)
}

/// Returns the last two bytes of a word, in small letters, if they may be those of a word that names a secret.
fn last_two(word: &[u8]) -> Option<[u8; 2]> {
    let [.., before, last] = word else { return None };
    let (before, last) = (before.to_ascii_lowercase(), last.to_ascii_lowercase());
    (ENDS[usize::from(last)] >> (before & 31) & 1 != 0).then_some([before, last])
}

/// Returns the least length of the secret that a word names.
fn least(last: [u8; 2], plain: &[u8]) -> Option<usize> {
    let (_, words) = WORDS.iter().find(|(end, _)| *end == last)?;
    words.iter().find(|(word, _)| plain.ends_with(word.as_bytes())).map(|(_, least)| *least)
}

/// Returns true for a placeholder alone.
pub(crate) fn is_placeholder(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.and_then(|inside| inside.rsplit_once('_')).is_some_and(|(kind, end)| {
        Kind::named(kind).is_some()
            && end.len() <= 16
            && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'p'))
    })
}

/// Finds PEM blocks.
pub(crate) fn pem(search: &mut Search<'_>) {
    search.looked(search.bytes.len());
    let (bytes, mut from) = (search.bytes, 0);
    while let Some(begin) = PEM.find(&bytes[from..]) {
        let start = from + begin;
        let rest = &bytes[start..];
        // A block without an end is redacted up to the end of the text.
        let end = memmem::find(rest, b"-----END ").map_or(bytes.len(), |at| {
            let label = start + at + "-----END ".len();
            memmem::find(&bytes[label..], b"-----").map_or(bytes.len(), |end| label + end + "-----".len())
        });
        search.looked(end - start);
        search.found(start, end, Kind::Pem);
        from = end;
    }
}

/// Finds URLs with credentials, and values after `password:` and the like.
pub(crate) fn after_signs(search: &mut Search<'_>) {
    let bytes = search.bytes;
    search.looked(bytes.len());
    let mut last_url = 0;
    for at in memchr2_iter(b':', b'=', bytes) {
        if bytes[at..].starts_with(b"://") {
            last_url = url(search, at, last_url);
        } else {
            let start = search.start_of(at, BLANKS, is_blank);
            let word = start - usize::from(matches!(search.before(start), b'"' | b'\''));
            named(search, word, at + 1, |_| true);
        }
    }
    for at in BASIC.find_iter(bytes) {
        let value = at + BASIC.needle().len();
        let end = search.end_of(value, VALUE, is_token);
        let named = at.checked_sub(13).is_some_and(|start| bytes[start..at].eq_ignore_ascii_case(b"authorization"));
        if named && end - value >= 8 {
            search.found(value, end, Kind::Secret);
        }
    }
}

/// Finds values after `the password is` and `Bearer`.
pub(crate) fn after_words(search: &mut Search<'_>) {
    let bytes = search.bytes;
    search.looked(2 * bytes.len());
    for at in IS.find_iter(bytes) {
        // The password is wrong: prose, unlike a value with a digit or with capitals inside.
        named(search, at, at + " is ".len(), |value| {
            value.iter().any(u8::is_ascii_digit) || value.len() >= WORD && changes(value) >= 3 || is_key(value)
        });
    }
    for at in BEARER.find_iter(bytes) {
        let start = at.saturating_sub(1);
        if !matches!(bytes[start], b'b' | b'B') || search.before(start).is_ascii_alphanumeric() {
            continue;
        }
        let value = at + BEARER.needle().len();
        let end = search.end_of(value, VALUE, is_token);
        let word = &bytes[value..end];
        if word.len() >= 20 || word.len() >= 8 && word.iter().any(u8::is_ascii_digit) {
            search.found(value, end, Kind::Secret);
        }
    }
}

/// Finds the value that begins near `from` if a word that names a secret ends at `word_end`, and the value passes.
fn named(search: &mut Search<'_>, word_end: usize, from: usize, passes: impl Fn(&[u8]) -> bool) {
    let bytes = search.bytes;
    let Some(last) = last_two(&bytes[..word_end]) else { return };
    let start = word_end.saturating_sub(NAME);
    let (word, length) = plain(&bytes[start..word_end]);
    search.looked(word_end - start);
    let Some(least) = least(last, &word[..length]) else { return };
    let mut value = search.end_of(from, BLANKS, is_blank);
    value += usize::from(matches!(search.byte(value), b'"' | b'\''));
    let ends = |byte: u8| byte.is_ascii_whitespace() || b"\"',;<>[]".contains(&byte);
    let mut end = search.end_of(value, VALUE, |byte| !ends(byte));
    while !search.text.is_char_boundary(end) {
        end += 1;
    }
    let found = &bytes[value..end];
    if found.len() >= least && passes(found) && (least == 4 || is_key(found)) {
        search.found(value, end, Kind::Secret);
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte)
}

/// Finds the URL around `://` at `at` if it has credentials. Returns where its authority begins.
fn url(search: &mut Search<'_>, at: usize, last: usize) -> usize {
    let scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-');
    let start = search.start_of(at, (at - last).min(32), scheme);
    let from = at + 3;
    let ends = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'<' | b'>' | b'\'' | b'?' | b'#');
    let mut end = search.end_of(from, AUTHORITY, |byte| !ends(byte));
    let authority = &search.bytes[from..end];
    if let Some(sign) = memchr::memrchr(b'@', authority)
        && authority[..sign].contains(&b':')
        && start < at
    {
        while !search.text.is_char_boundary(end) {
            end += 1;
        }
        // Punctuation after a URL is not part of it.
        while end > from + sign + 1 && matches!(search.before(end), b',' | b'.' | b';' | b')' | b']' | b'}') {
            end -= 1;
        }
        search.found(start, end, Kind::UrlCredentials);
    }
    from
}

/// Finds secrets that are one word, from the first word of at least [`WORD`] characters on.
pub(crate) fn words(search: &mut Search<'_>, first: usize) {
    let mut next = Some(first);
    while let Some(start) = next {
        let end = search.end_of(start, usize::MAX, is_part);
        let padded = search.end_of(end, 2, |byte| byte == b'=');
        word(search, start, padded);
        next = classes::next_long_word(search.bytes, end);
        search.looked(next.unwrap_or(search.bytes.len()) - end);
    }
}

fn word(search: &mut Search<'_>, start: usize, end: usize) {
    let bytes = &search.bytes[start..end];
    search.looked(2 * bytes.len());
    if is_jwt(bytes) {
        search.found(start, end, Kind::Jwt);
    } else if let Some(offset) = prefixed(bytes) {
        search.found(start + offset, end, Kind::Secret);
    } else if !is_id(search.name.as_bytes(), bytes) && has_random(bytes) {
        search.found(start, end, Kind::Secret);
    }
}

/// Returns true if a word of at least [`WORD`] characters is a secret in a text of whatever name. `counts` are those of the word.
pub(crate) fn may_be_secret(word: &[u8], counts: Counts) -> bool {
    is_jwt(word)
        || counts.digits > 0 && prefixed(word).is_some()
        || counts.upper >= CASES && counts.lower >= CASES && !is_id(b"", word) && has_random(word)
}

fn is_jwt(word: &[u8]) -> bool {
    word.starts_with(JWT_BEGIN) && word.len() >= JWT && word.iter().filter(|byte| **byte == b'.').count() >= 2
}

/// Returns true for an id by its name or its prefix: it identifies a call or a response, and opens nothing.
fn is_id(name: &[u8], word: &[u8]) -> bool {
    let named = matches!(
        name,
        [.., b'_' | b'-', b'i' | b'I', b'd' | b'D'] | [.., b'I', b'd'] | [.., b'a'..=b'z', b'I', b'D'] | b"id"
    );
    named || IDS.iter().any(|prefix| begins_with(word, prefix))
}

/// The first two bytes of a set of prefixes: for each first byte, the set of the low five bits of the second bytes.
struct Firsts([u32; 256]);

/// Those of [`PREFIXES`].
static FIRST: Firsts = {
    let (mut firsts, mut at) = ([0; 256], 0);
    while at < PREFIXES.len() {
        let prefix = PREFIXES[at].0.as_bytes();
        firsts[prefix[0] as usize] |= 1 << (prefix[1] & 31);
        at += 1;
    }
    Firsts(firsts)
};

/// As `starts_with`; most prefixes differ in their first byte.
fn begins_with(word: &[u8], prefix: &str) -> bool {
    word.first() == prefix.as_bytes().first() && word.starts_with(prefix.as_bytes())
}

/// Returns the start of a key with a known prefix.
fn prefixed(word: &[u8]) -> Option<usize> {
    // Words such as `sk-learn-something-or-other` have no digit.
    let digit = word.iter().rposition(u8::is_ascii_digit)?;
    let mut begins = std::iter::once(0).chain(memchr2_iter(b'/', b'.', &word[..digit]).map(|at| at + 1));
    begins.find(|at| {
        let key = &word[*at..];
        FIRST.begin(key) && PREFIXES.iter().any(|(prefix, least)| begins_with(key, prefix) && key.len() >= *least)
    })
}

/// Returns true if a value after a word such as `key` is one: a mixture of digits and letters, or letters that are no word. Numbers
/// and hexadecimal hashes are no keys.
fn is_key(value: &[u8]) -> bool {
    if value.len() > VALUE || value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return false;
    }
    let count = |of: fn(&u8) -> bool| value.iter().filter(|byte| of(byte)).count();
    let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_alphabetic));
    if digits + letters + count(|byte| b"_-+/=".contains(byte)) < value.len() || letters < 4 {
        return false;
    }
    let vowels = count(|byte| b"aeiouAEIOU".contains(byte));
    let capitals = count(u8::is_ascii_uppercase);
    // Of letters drawn at random a fifth is vowels, of those of words two fifths. Small letters with hyphens are words.
    let strange =
        vowels * 4 <= letters || capitals == letters && value.len() >= 16 || changes(value) * 3 >= value.len();
    let hyphens = count(|byte| matches!(byte, b'-' | b'_'));
    digits >= 2 && hyphens <= 1 && changes(value) >= 4 || letters == value.len() && value.len() >= 16 && strange
}

// === impl Firsts ===

impl Firsts {
    /// Returns true if one of the prefixes may begin a word.
    fn begin(&self, word: &[u8]) -> bool {
        matches!(word, [first, second, ..] if self.0[usize::from(*first)] >> (second & 31) & 1 != 0)
    }
}
