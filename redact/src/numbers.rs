//! Finds numbers: cards, phones and national ids of digits alone. Words with digits go on to `ids` and `addresses`.
//!
//! A *cluster* is a sequence of groups of digits with one or two separators between them. Numbers are searched among whole groups, so the
//! end of a long number is never taken for a short one. A number with a weak check digit, or none, is an id only in its usual
//! grouping or after a word that names it.

use crate::checksum as check;
use crate::context::Context;
use crate::find::Search;
use crate::{Kind, addresses, classes, context, ids};

/// Most groups of one number.
const GROUPS: usize = 8;

/// Fewest and most digits of one number.
pub(crate) const LEAST: usize = 7;
const DIGITS: usize = 19;

/// Most digits of a phone number.
const PHONE: usize = 15;

/// Most letters beside a card number that are looked at, to tell an identifier from a hash.
const BESIDE: usize = 16;

/// Most digits of the extension of a phone number.
const EXTENSION: usize = 6;

/// Digits of the shortest cards. They are rare, and barcodes have as many: such a number is a card only after a word for one.
pub(crate) const SHORT_CARD: usize = 13;

/// Length of a UUID.
const UUID: usize = 36;

/// A group of digits, as a range of bytes.
#[derive(Clone, Copy, Debug)]
struct Group {
    start: usize,
    end: usize,
}

/// Some groups that follow each other, as one number.
struct Number<'g> {
    groups: &'g [Group],
    /// Its digits, and lengths of its groups; the rest is zero.
    all_digits: [u8; DIGITS],
    length: usize,
    lengths: [usize; GROUPS],
    /// Start with the plus sign and the parenthesis of a phone number.
    start: usize,
    plus: bool,
    /// The number is a part of a word, such as an identifier or a hash.
    inside: bool,
}

/// Finds the numbers of a text.
pub(crate) fn find(search: &mut Search<'_>) {
    let (mut cluster, mut at, mut word_end) = (Vec::new(), 0, 0);
    while let Some(start) = classes::next_digit(search.bytes, at) {
        search.looked(start - at);
        cluster.clear();
        let (mut next, mut digits) = (Some(start), 0);
        while let Some(start) = next {
            at = search.end_of(start, usize::MAX, |byte| byte.is_ascii_digit());
            cluster.push(Group { start, end: at });
            digits += at - start;
            next = next_group(search.bytes, at);
        }
        for group in &cluster {
            let is_beside_letter =
                search.before(group.start).is_ascii_alphabetic() || search.byte(group.end).is_ascii_alphabetic();
            // Ids with few digits are words with letters.
            if group.start >= word_end && (digits >= ids::DIGITS || is_beside_letter) {
                let alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
                let word = search.start_of(group.start, group.start - word_end, alphanumeric);
                word_end = search.end_of(group.end, usize::MAX, alphanumeric);
                ids::find(search, word, word_end);
            }
            let is_short = group.end - group.start <= 3;
            if cluster.len() >= addresses::IPV4_GROUPS && is_short && search.byte(group.end) == b'.' {
                addresses::ipv4(search, group.start);
            }
        }
        if digits >= LEAST {
            numbers(search, &cluster);
        }
    }
    search.looked(search.bytes.len() - at);
}

/// Returns the start of the group of digits that follows one that ends at `end`: ASCII signs join two groups, and so do a no-break
/// space, and one of the hyphens from U+2010 to the en dash, U+2013.
pub(crate) fn next_group(bytes: &[u8], end: usize) -> Option<usize> {
    let rest = bytes.get(end..)?;
    let between = match rest {
        [b' ' | b'-' | b'.' | b'/' | b'(' | b')', b'0'..=b'9', ..] => 1,
        [b')' | b'-', b' ', ..] | [b' ', b'(' | b'-', ..] | [b')', b'-', ..] | [0xc2, 0xa0, ..] => 2,
        [0xe2, 0x80, 0x90..=0x93, ..] => 3,
        _ => return None,
    };
    rest.get(between)?.is_ascii_digit().then_some(end + between)
}

/// Finds the numbers of a cluster.
fn numbers(search: &mut Search<'_>, cluster: &[Group]) {
    let mut from = 0;
    while from < cluster.len() {
        // Numbers from here on by their count of groups, as far as their digits may be one number.
        let (mut digits, mut most) = (0, from);
        while most < cluster.len().min(from + GROUPS) && digits + cluster[most].end - cluster[most].start <= DIGITS {
            digits += cluster[most].end - cluster[most].start;
            most += 1;
        }
        // The longest number that begins here counts, and the next one begins after it.
        let longest = (from + 1..=most).rev().find_map(|to| {
            let number = Number::new(search, &cluster[from..to])?;
            let kind = number.kind(search)?;
            let end = cluster[to - 1].end;
            let end = if kind == Kind::Phone { extension(search, end).unwrap_or(end) } else { end };
            Some((to, number.start, end, kind))
        });
        if let Some((to, start, end, kind)) = longest {
            search.found(start, end, kind);
            from = to;
        } else {
            from += 1;
        }
    }
}

/// Returns the end of an extension after a phone number: `x123`.
fn extension(search: &mut Search<'_>, end: usize) -> Option<usize> {
    if !matches!(search.byte(end), b'x' | b'X') {
        return None;
    }
    let last = search.end_of(end + 1, EXTENSION, |byte| byte.is_ascii_digit());
    (last > end + 1 && !is_word(search.byte(last))).then_some(last)
}

/// Returns true if the bytes are a part of a UUID.
fn is_in_uuid(search: &mut Search<'_>, start: usize, end: usize) -> bool {
    let hyphen = |byte| byte == b'-';
    if !hyphen(search.before(start)) && !hyphen(search.byte(end)) && end - start != UUID {
        return false;
    }
    let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let (from, to) = (search.start_of(start, UUID, part), search.end_of(end, UUID, part));
    let word = &search.bytes[from..to];
    word.len() == UUID && [8, 13, 18, 23].iter().all(|at| word[*at] == b'-')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

// === impl Number ===

impl<'g> Number<'g> {
    fn new(search: &mut Search<'_>, groups: &'g [Group]) -> Option<Self> {
        let (first, end) = (groups.first()?.start, groups.last()?.end);
        let length: usize = groups.iter().map(|group| group.end - group.start).sum();
        if !(LEAST..=DIGITS).contains(&length) {
            return None;
        }
        let bytes = search.bytes;
        // The digits after a decimal sign are a part of a number, and so is a decimal number as a whole.
        let is_fraction = matches!(bytes[..first], [.., b'0'..=b'9', b'.' | b',']);
        let is_decimal = matches!(groups, [whole, fraction] if &bytes[whole.end..fraction.start] == b".");
        if is_fraction || is_decimal {
            return None;
        }
        if is_in_uuid(search, first, end) {
            return None;
        }
        search.looked(length);
        let (mut all_digits, mut lengths) = ([0; DIGITS], [0; GROUPS]);
        let digits = groups.iter().flat_map(|group| &bytes[group.start..group.end]);
        digits.zip(&mut all_digits).for_each(|(byte, digit)| *digit = byte - b'0');
        groups.iter().zip(&mut lengths).for_each(|(group, length)| *length = group.end - group.start);
        let mut start = first;
        for sign in [b'(', b'+'] {
            start -= usize::from(search.before(start) == sign);
        }
        let inside = is_word(search.before(first)) || is_word(search.byte(end)) && extension(search, end).is_none();
        Some(Self { groups, all_digits, length, lengths, start, plus: bytes[start..first].contains(&b'+'), inside })
    }

    fn digits(&self) -> &[u8] {
        &self.all_digits[..self.length]
    }

    /// Returns the lengths of the groups.
    fn shape(&self) -> &[usize] {
        &self.lengths[..self.groups.len()]
    }

    /// Returns true if single spaces join the groups: American phone numbers of the same shape have other separators.
    fn is_spaced(&self, search: &Search<'_>) -> bool {
        let between = |pair: &[Group]| &search.bytes[pair[0].end..pair[1].start] == b" ";
        self.start == self.groups[0].start && self.groups.windows(2).all(between)
    }

    fn near(&self, search: &mut Search<'_>, says: Context) -> bool {
        search.near(self.groups[0].start, says)
    }

    fn kind(&self, search: &mut Search<'_>) -> Option<Kind> {
        if self.inside {
            let card = self.length != SHORT_CARD && self.is_card() && self.is_in_identifier(search);
            return card.then_some(Kind::Card);
        }
        if !self.plus && self.is_card() && (self.length != SHORT_CARD || self.near(search, context::CARD)) {
            Some(Kind::Card)
        } else if !self.plus && self.is_national_id(search) {
            Some(Kind::NationalId)
        } else if self.is_phone(search) {
            Some(Kind::Phone)
        } else {
            None
        }
    }

    /// Returns true for the prefix and length of an issuer, and the check digit.
    fn is_card(&self) -> bool {
        let prefix =
            |length: usize| self.digits().iter().take(length).fold(0_u32, |all, digit| all * 10 + u32::from(*digit));
        let (two, three, four) = (prefix(2), prefix(3), prefix(4));
        let issued = match self.length {
            13 => two / 10 == 4,
            14 => matches!(two, 36 | 38 | 39) || matches!(three, 300..=305),
            15 => matches!(two, 34 | 37),
            16 => two / 10 == 4 || matches!(two, 50..=69) || matches!(four, 2200..=2204 | 2221..=2720 | 3528..=3589),
            17..=19 => two / 10 == 4 || matches!(two, 50 | 56..=58 | 60..=69),
            _ => false,
        };
        let shape = self.shape();
        let grouped = shape.len() == 1 || shape.iter().all(|length| (1..=6).contains(length)) && shape[0] >= 3;
        issued && grouped && check::luhn(self.digits())
    }

    /// Returns true if the word around a number is an identifier such as `card_4111111111111111`, and no hash: its letters beside the
    /// digits are not all hexadecimal.
    fn is_in_identifier(&self, search: &mut Search<'_>) -> bool {
        let [group] = self.groups else { return false };
        let letter = |byte: u8| byte.is_ascii_alphanumeric();
        let left = search.start_of(group.start, BESIDE, letter);
        let right = search.end_of(group.end, BESIDE, letter);
        let beside = [&search.bytes[left..group.start], &search.bytes[group.end..right]].concat();
        beside.is_empty() || beside.iter().any(|byte| !byte.is_ascii_hexdigit())
    }

    fn is_national_id(&self, search: &mut Search<'_>) -> bool {
        let (digits, shape) = (self.digits(), self.shape());
        let mut near = |says: Context| self.near(search, says | context::ID);
        match digits.len() {
            9 => {
                let american = check::ssn(digits) && (shape == [3, 2, 4] || near(context::SSN));
                american || check::bsn(digits) && near(context::BSN)
            }
            10 => {
                check::nhs(digits) && (shape == [3, 3, 4] && self.is_spaced(search) || self.near(search, context::NHS))
            }
            11 => {
                check::steuer_id(digits) && (shape == [2, 3, 3, 3] || near(context::STEUER))
                    || check::pesel(digits) && near(context::PESEL)
                    || check::cpf(digits) && (matches!(shape, [3, 3, 3, 2] | [9, 2]) || near(context::CPF))
            }
            12 => check::aadhaar(digits) && (shape == [4, 4, 4] || near(context::AADHAAR)),
            15 => check::nir(digits),
            _ => false,
        }
    }

    fn is_phone(&self, search: &mut Search<'_>) -> bool {
        let (digits, shape) = (self.digits(), self.shape());
        let length = digits.len();
        if length > PHONE || !self.plus && self.is_date() {
            return false;
        }
        // The end of a longer number, such as an ISBN, is no phone.
        let is_end = search.before(self.start) == b'-' && search.before(self.start - 1).is_ascii_digit();
        let national = digits[0] == 0 && shape.len() > 1 && (9..=14).contains(&length) && shape[0] >= 2;
        let in_parentheses = search.byte(self.start) == b'(';
        let known = match *shape {
            [3, 3, 4] => digits[0] >= 1,
            [1, 3, 3, 4] => digits[0] == 1,
            [3, 3, 3, 4] => digits[..3] == [0, 0, 1],
            // Brazil.
            [2, 4 | 5, 4] => in_parentheses,
            // India.
            [5, 5] => digits[0] >= 6,
            _ => false,
        };
        self.plus && length >= 8 || (known || national) && !is_end || length <= 13 && self.near(search, context::PHONE)
    }

    /// Returns true for groups that can be a date, with or without a time.
    fn is_date(&self) -> bool {
        matches!(
            self.shape(),
            [4, 2, 2, ..] | [2, 2, 4] | [2, 2, 4, 2, 2, ..] | [1, 2, 4] | [2, 1, 4] | [1, 1, 4] | [4, 1 | 2, 1 | 2]
        )
    }
}
