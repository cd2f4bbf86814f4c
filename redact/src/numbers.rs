//! Finds numbers: cards, phones, IBANs and national ids.
//!
//! A *cluster* is a sequence of groups of digits with one or two separators between them. Numbers are searched among whole groups, so the
//! end of a long number is never taken for a short one. A number with a weak check digit, or none, is an id only in its usual
//! grouping or after a word that names it.

use std::sync::LazyLock;

use regex::Regex;

use crate::checksum as check;
use crate::find::near;
use crate::{Finding, Kind};

/// Most groups of one number.
const GROUPS: usize = 8;

/// Most digits of one number.
const DIGITS: usize = 19;

/// Most digits of a phone number.
const PHONE: usize = 15;

/// Ids that contain letters.
static LETTERED: LazyLock<Regex> = LazyLock::new(|| {
    let nino = r"(?P<nino>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D])";
    let dni = r"(?P<dni>(?:[XYZ][ -]?[0-9]{7}|[0-9]{8})[ -]?[A-Z])";
    let fiscal = r"(?P<fiscal>[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z])";
    let pan = r"(?P<pan>[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z])";
    let nir = r"(?P<nir>[12][ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?2[AB][ ]?[0-9]{3}[ ]?[0-9]{3}[ ]?[0-9]{2})";
    Regex::new(&format!(r"(?-u:\b)(?i:{nino}|{dni}|{fiscal}|{pan}|{nir})(?-u:\b)")).expect("the pattern is constant")
});

/// Length of an IBAN by country.
const IBAN: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BR", 29),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NL", 18),
    (b"NO", 15),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"SA", 24),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VG", 24),
    (b"XK", 20),
];

/// A group of digits.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
}

/// Some groups that follow each other, as one number.
struct Number<'a> {
    text: &'a str,
    name: &'a str,
    groups: &'a [Group],
    digits: Vec<u8>,
}

/// Finds the numbers of a text.
pub(crate) fn find(name: &str, text: &str, found: &mut Vec<Finding>) {
    ibans(text, found);
    for letters in LETTERED.captures_iter(text) {
        if let Some(whole) = letters.get(0)
            && is_lettered_id(&letters)
        {
            found.push(Finding { start: whole.start(), end: whole.end(), kind: Kind::NationalId });
        }
    }
    let bytes = text.as_bytes();
    let (mut cluster, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            at += 1;
            continue;
        }
        let group = Group { start: at, end: at + length };
        if cluster.last().is_some_and(|last: &Group| !joins(&bytes[last.end..group.start])) {
            numbers(name, text, &cluster, found);
            cluster.clear();
        }
        cluster.push(group);
        at = group.end;
    }
    numbers(name, text, &cluster, found);
}

/// Returns true if these bytes join two groups of digits: ASCII signs, a no-break space, or one of the hyphens from U+2010 to the en
/// dash, U+2013.
fn joins(between: &[u8]) -> bool {
    matches!(
        between,
        [b' ' | b'-' | b'.' | b'/' | b'(' | b')']
            | b") "
            | b" ("
            | b")-"
            | b" -"
            | b"- "
            | b"\xc2\xa0"
            | [0xe2, 0x80, 0x90..=0x93]
    )
}

/// Returns true for a decimal number: two groups with a point between them.
fn is_decimal(text: &str, groups: &[Group]) -> bool {
    matches!(groups, [whole, fraction] if &text.as_bytes()[whole.end..fraction.start] == b".")
}

/// Finds the numbers of a cluster.
fn numbers(name: &str, text: &str, cluster: &[Group], found: &mut Vec<Finding>) {
    let mut from = 0;
    while from < cluster.len() {
        let most = cluster.len().min(from + GROUPS);
        // The longest number that begins here counts, and the next one begins after it.
        let longest = (from + 1..=most).rev().find_map(|to| {
            let number = Number::new(name, text, &cluster[from..to])?;
            Some((to, number.start(), number.kind()?))
        });
        if let Some((to, start, kind)) = longest {
            found.push(Finding { start, end: cluster[to - 1].end, kind });
            from = to;
        } else {
            from += 1;
        }
    }
}

// === impl Number ===

impl<'a> Number<'a> {
    fn new(name: &'a str, text: &'a str, groups: &'a [Group]) -> Option<Self> {
        let length: usize = groups.iter().map(|group| group.end - group.start).sum();
        if !(7..=DIGITS).contains(&length) {
            return None;
        }
        let bytes = groups.iter().flat_map(|group| &text.as_bytes()[group.start..group.end]);
        let digits = bytes.map(|byte| byte - b'0').collect();
        let number = Self { text, name, groups, digits };
        let (first, end) = (groups[0].start, groups[groups.len() - 1].end);
        // The digits after a decimal sign are a part of a number, and so is a decimal number as a whole.
        let before = &text.as_bytes()[..first];
        let is_fraction = matches!(before, [.., b'0'..=b'9', b'.' | b',']);
        if is_fraction || is_decimal(text, groups) {
            return None;
        }
        // Part of a word, such as a hash.
        let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let bytes = text.as_bytes();
        if word(first.checked_sub(1).and_then(|at| bytes.get(at))) || word(bytes.get(end)) {
            None
        } else {
            Some(number)
        }
    }

    /// Returns the start, with the plus sign and the parenthesis of a phone number.
    fn start(&self) -> usize {
        let mut start = self.groups[0].start;
        for sign in [b'(', b'+'] {
            if start > 0 && self.text.as_bytes()[start - 1] == sign {
                start -= 1;
            }
        }
        start
    }

    fn shape(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.end - group.start).collect()
    }

    /// Returns true if single spaces join the groups: American phone numbers of the same shape have other separators.
    fn is_spaced(&self) -> bool {
        let between = |pair: &[Group]| &self.text[pair[0].end..pair[1].start] == " ";
        self.start() == self.groups[0].start && self.groups.windows(2).all(between)
    }

    fn near(&self, words: &[&str]) -> bool {
        near(self.name, self.text, self.groups[0].start, words)
    }

    fn kind(&self) -> Option<Kind> {
        let plus = self.text.as_bytes()[self.start()..self.groups[0].start].contains(&b'+');
        if !plus && self.is_card() {
            Some(Kind::Card)
        } else if !plus && self.is_national_id() {
            Some(Kind::NationalId)
        } else if self.is_phone(plus) {
            Some(Kind::Phone)
        } else {
            None
        }
    }

    fn is_card(&self) -> bool {
        let prefix = self.digits.iter().take(2).fold(0, |prefix, digit| prefix * 10 + digit);
        let issuer = matches!(prefix, 22..=27 | 30 | 34..=69);
        let shape = self.shape();
        let grouped = shape.len() == 1 || shape.iter().all(|length| (2..=6).contains(length));
        (13..=19).contains(&self.digits.len()) && issuer && grouped && check::luhn(&self.digits)
    }

    fn is_national_id(&self) -> bool {
        let (digits, shape) = (&*self.digits, self.shape());
        match digits.len() {
            9 => {
                let ssn = shape == [3, 2, 4] || self.near(&["ssn", "social sec", "itin", "taxpayer", "tax id"]);
                let bsn = self.near(&["bsn", "burgerservice", "sofi", "citizen service"]);
                ssn && check::ssn(digits) || bsn && check::bsn(digits)
            }
            10 => (shape == [3, 3, 4] && self.is_spaced() || self.near(&["nhs"])) && check::nhs(digits),
            11 => {
                let german = shape == [2, 3, 3, 3] || self.near(&["steuer", "tax id", "idnr", "tin"]);
                german && check::steuer_id(digits) || check::pesel(digits) || check::cpf(digits)
            }
            12 => (shape == [4, 4, 4] || self.near(&["aadhaar", "aadhar", "uidai"])) && check::aadhaar(digits),
            15 => check::nir(digits),
            _ => false,
        }
    }

    fn is_phone(&self, plus: bool) -> bool {
        let (length, shape) = (self.digits.len(), self.shape());
        if length > PHONE || !plus && self.is_date() {
            return false;
        }
        let american = matches!(shape[..], [3, 3, 4] | [1, 3, 3, 4]) && (self.digits[0] == 1 || self.digits[0] >= 2);
        let national = self.digits[0] == 0 && shape.len() > 1 && (9..=14).contains(&length) && shape[0] >= 2;
        let words = ["phone", "tel", "mobile", "cell", "call", "fax", "whatsapp", "sms"];
        plus && length >= 8 || american || national || length <= 13 && self.near(&words)
    }

    /// Returns true for groups that can be a date, with or without a time.
    fn is_date(&self) -> bool {
        matches!(
            self.shape()[..],
            [4, 2, 2, ..] | [2, 2, 4] | [2, 2, 4, 2, 2, ..] | [1, 2, 4] | [2, 1, 4] | [1, 1, 4] | [4, 1 | 2, 1 | 2]
        )
    }
}

fn is_lettered_id(letters: &regex::Captures<'_>) -> bool {
    let plain = |name: &str| -> Option<Vec<u8>> {
        let text = letters.name(name)?.as_str();
        Some(text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_uppercase()).collect())
    };
    let digits = |text: &[u8]| -> Vec<u8> { text.iter().map(|byte| byte.wrapping_sub(b'0')).collect() };
    if let Some(nino) = plain("nino") {
        return ![b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"].iter().any(|bad| nino.starts_with(&bad[..]));
    }
    if let Some(mut dni) = plain("dni") {
        let letter = dni.pop().unwrap_or_default();
        if let first @ b'X'..=b'Z' = dni[0] {
            dni[0] = first - b'X' + b'0';
        }
        return check::dni(&digits(&dni), letter);
    }
    if let Some(fiscal) = plain("fiscal") {
        return check::codice_fiscale(&fiscal);
    }
    if let Some(nir) = plain("nir") {
        // Corsica: the department 2A counts as 19, and 2B as 18.
        let department: &[u8] = if nir.get(6) == Some(&b'A') { b"19" } else { b"18" };
        let all = [&nir[..5], department, &nir[7..]].concat();
        return check::nir(&digits(&all));
    }
    // A number of the Indian income tax has no published check digit; its shape is rare in other text. It is matched only in
    // upper case.
    letters.name("pan").is_some_and(|pan| !pan.as_str().bytes().any(|byte| byte.is_ascii_lowercase()))
}

fn ibans(text: &str, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    for at in 0..bytes.len().saturating_sub(14) {
        let boundary = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        if !boundary || !bytes[at].is_ascii_alphabetic() || !bytes[at + 2].is_ascii_digit() {
            continue;
        }
        let country = [bytes[at].to_ascii_uppercase(), bytes[at + 1].to_ascii_uppercase()];
        let Some((_, length)) = IBAN.iter().find(|(code, _)| **code == country) else { continue };
        let (mut plain, mut end) = (Vec::with_capacity(*length), at);
        while plain.len() < *length {
            match bytes.get(end) {
                Some(byte) if byte.is_ascii_alphanumeric() => plain.push(byte.to_ascii_uppercase()),
                Some(b' ' | b'-') if end > at && bytes[end - 1].is_ascii_alphanumeric() => {}
                _ => break,
            }
            end += 1;
        }
        let ends = !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
        if plain.len() == *length && ends && check::iban(&plain) {
            found.push(Finding { start: at, end, kind: Kind::Iban });
        }
    }
}
