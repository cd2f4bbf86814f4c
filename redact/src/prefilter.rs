//! Passes over texts in which no detector would find anything, many bytes at a time: most texts, and most strings of a document.
//!
//! A pass names the places that are worth a search, the *suspects*. A suspect may turn out to be nothing, but every finding has one
//! in its text, or in its string of a document: each rule here is weaker than the detectors that it stands for, and a property test
//! compares them. A document is looked at as it is written, with its escapes, so that strings without suspects are never unescaped.
//!
//! Most rules are about sets of bytes, kept as the bits of one number for each block. They only look back: a suspect is noticed at its
//! last byte.

mod bits;

use crate::addresses::IPV4_GROUPS;
use crate::checksum::nhs;
use crate::classes::{self, BLOCK, CHUNK, Masks, is_part};
use crate::ids;
use crate::numbers::{LEAST, SHORT_CARD, next_group};
use crate::secrets;
use crate::word::{CASES, Counts};

use self::bits::{Bits, OF_BLOCK, PLACES, Queue};

/// Most groups of digits of which the lengths are kept.
const GROUPS: usize = 4;

/// Length of an Italian codice fiscale, and its least letters.
const FISCAL: usize = 16;
const FISCAL_LETTERS: usize = 9;

/// Length of a date: `2026-11-30`.
const DATE: usize = 10;

/// Bytes before and after a character that is not ASCII, of which the digits are counted.
const NEAR: usize = 32;

/// Bytes by which a run of digits and separators is noticed late: whether a separator joins two groups is seen after it.
const LATE: usize = 2;

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

/// A block that is looked at, by its place and its classes, with those of the block before it.
struct Window<'m> {
    start: usize,
    before: &'m Masks,
    now: &'m Masks,
}

/// A pass over bytes; in those of a JSON document, a backslash escapes the next byte.
struct Pass<'t> {
    bytes: &'t [u8],
    escapes: bool,
    /// The byte before the block escapes its first one.
    escape: bool,
    /// Signs after a name, groups of digits, and long words.
    named: Queue,
    numbers: Queue,
    long: Queue,
    suspects: Vec<usize>,
}

/// Returns true if nothing is worth a search in a text.
pub(crate) fn is_clean(text: &[u8]) -> bool {
    let mut pass = Pass::new(text, false);
    pass.run();
    pass.suspects.is_empty()
}

/// Returns the places of a JSON document that are worth a search, in ascending order.
pub(crate) fn suspects(document: &[u8]) -> Vec<usize> {
    let mut pass = Pass::new(document, true);
    pass.run();
    pass.suspects.sort_unstable();
    pass.suspects
}

// === impl Pass ===

impl<'t> Pass<'t> {
    fn new(bytes: &'t [u8], escapes: bool) -> Self {
        Self {
            bytes,
            escapes,
            escape: false,
            named: Queue::new(),
            numbers: Queue::new(),
            long: Queue::new(),
            suspects: Vec::new(),
        }
    }

    /// Looks at all blocks of a document, or at those of a text up to the first suspect.
    fn run(&mut self) {
        // The first element is the block before the chunk.
        let (mut chunk, mut first, count) = ([Masks::default(); CHUNK + 1], 0, classes::count(self.bytes));
        while first < count {
            let blocks = classes::classify(self.bytes, first, &mut chunk[1..]);
            for number in 1..=blocks {
                let start = (first + number - 1) * BLOCK;
                let escaped = if self.escapes { self.escaped(&mut chunk[number]) } else { 0 };
                self.window(&Window { start, before: &chunk[number - 1], now: &chunk[number] }, escaped);
            }
            chunk[0] = chunk[blocks];
            first += blocks;
            if !self.escapes && !self.suspects.is_empty() {
                return;
            }
        }
        self.look(0);
    }

    fn window(&mut self, window: &Window<'_>, escaped: u64) {
        let Window { before, now, .. } = window;
        if escaped | now.at != 0 {
            // This pass does not decode `\u` and `\/`: such a character may be anything, or join two groups of digits.
            self.each(window, escaped, 0, |pass, at| matches!(pass.byte(at), b'u' | b'/'));
            self.each(window, now.at, 0, |_, _| true);
        }
        if now.signs != 0 {
            self.signs(window, escaped);
        }
        if now.digits | before.digits != 0 {
            self.numbers(window);
        }
        self.words(window);
        self.look(PLACES - OF_BLOCK);
    }

    /// Looks at the places in each queue that has more than `most` of them.
    fn look(&mut self, most: usize) {
        let look = |pass: &mut Self,
                    queue: fn(&mut Self) -> &mut Queue,
                    before: usize,
                    is_suspect: fn(&mut Self, usize) -> bool| {
            let count = std::mem::take(&mut queue(pass).count);
            for number in 0..count {
                let at = queue(pass).places[number].saturating_sub(before);
                if is_suspect(pass, at) {
                    pass.suspects.push(at);
                }
            }
        };
        if self.named.count > most {
            look(self, |pass| &mut pass.named, 0, Self::is_sign);
        }
        if self.numbers.count > most {
            look(self, |pass| &mut pass.numbers, LATE + 6, Self::is_run);
        }
        if self.long.count > most {
            look(self, |pass| &mut pass.long, secrets::WORD - 1, Self::is_word);
        }
    }

    /// Returns the letters and marks of a block that are a part of an escape, and leaves them out of its classes.
    fn escaped(&mut self, now: &mut Masks) -> u64 {
        if !self.escape && now.backslashes == 0 {
            return 0;
        }
        let escaped = classes::escaped(now.backslashes, &mut self.escape);
        let letters = escaped & (now.letters | now.marks);
        now.letters &= !escaped;
        now.marks &= !escaped;
        letters
    }

    /// Notes those of some bytes of a block that are suspects; each begins `before` bytes earlier.
    fn each(
        &mut self,
        window: &Window<'_>,
        mut places: u64,
        before: usize,
        is_suspect: impl Fn(&mut Self, usize) -> bool,
    ) {
        while places != 0 {
            let at = (window.start + places.trailing_zeros() as usize).saturating_sub(before);
            places &= places - 1;
            if is_suspect(self, at) {
                self.suspects.push(at);
            }
        }
    }

    /// Looks for `:` and `=` after a word that names a secret, or in an IPv6 address. `escaped` are the letters of escapes.
    fn signs(&mut self, window: &Window<'_>, escaped: u64) {
        let Window { before, now, .. } = window;
        let signs = Bits::of([before.signs, now.signs]);
        // A quotation mark and a backslash may be in between. Words that end in the block before are not distinguished.
        let quotes = now.quotes | now.backslashes << 1;
        let quoted = quotes << 1 & (now.ends << 2 | now.backslashes << 2 & now.ends << 3);
        let named = now.ends << 1 | quoted | now.spaces << 1 | escaped << 1 | 0b1111;
        let near = |signs: Bits| signs.later(2).or(signs.later(3)).or(signs.later(4)).or(signs.later(5));
        let second = near(signs).and(signs);
        let pairs = signs.now & signs.back(1);
        let rest = self.named.push(window.start, signs.now & named);
        self.each(window, rest, 0, Self::is_sign);
        if second.now | pairs != 0 {
            let third = near(second).and(signs);
            let addresses = pairs | signs.now & near(third).now;
            self.each(window, addresses, 0, |pass, at| pass.is_in_ipv6(at));
        }
    }

    /// Looks for digits that may be a number of a person, or a part of an id or address.
    fn numbers(&mut self, window: &Window<'_>) {
        let Window { before, now, .. } = window;
        let digits = Bits::of([before.digits, now.digits]);
        let letters = Bits::of([before.letters, now.letters]);
        let joints = Bits::of([before.marks | before.spaces, now.marks | now.spaces]);
        let begins = digits.first();
        let letters_2 = letters.after(letters, 1);
        let ids = begins & letters_2.back(1);
        // A digit; a joint of one byte; the first and the second byte of a joint of two.
        let (late, joint) = (digits.later(LATE), joints.later(2).and(digits.later(3)));
        let one = joint.and(digits.later(1));
        let first = joint.and(joints.later(1)).and(digits);
        let second = joints.later(2).and(joints.later(3)).and(digits.later(4)).and(digits.later(1));
        let run = late.or(one).or(first).or(second);
        let run_2 = run.after(run, 1);
        let run_4 = run_2.after(run_2, 2);
        let run_7 = run_4.after(run_4, 3);
        let digits_2 = digits.after(digits, 1);
        let six_digits = digits_2.after(digits_2, 2).after(digits_2, 4);
        // A run of six digits and nothing else; its end is noticed one byte later.
        let six = !run.now & six_digits.back(LATE + 1) & !run.back(7);
        let numbers = run_7.first() | six;
        let wide = digits.back(1) & now.wide;
        if ids != 0 {
            let digits_beside = letters.or(digits);
            let pan = letters_2.after(letters_2, 2).back(1) & letters.back(5);
            self.each(window, ids & !digits_beside.back(3), 0, Self::begins_iban);
            self.each(window, ids & pan, 0, Self::is_in_pan);
        }
        let rest = self.numbers.push(window.start, numbers);
        self.each(window, rest, LATE + 6, Self::is_run);
        if wide != 0 {
            self.each(window, wide, 0, Self::is_joined);
        }
    }

    /// Looks for long words that may be a secret or an Italian id, for `password is`, `bearer`, and the beginning of a PEM block.
    fn words(&mut self, window: &Window<'_>) {
        let Window { before, now, .. } = window;
        let marks = Bits::of([before.marks, now.marks]);
        let spaces = Bits::of([before.spaces, now.spaces]);
        let letters = Bits::of([before.letters, now.letters]);
        let r_or_s = Bits::of([before.r_or_s, now.r_or_s]);
        let parts = Bits::of([before.parts(), now.parts()]);
        let parts_2 = parts.after(parts, 1);
        let parts_4 = parts_2.after(parts_2, 2);
        let parts_8 = parts_4.after(parts_4, 4);
        let long = parts_8.after(parts_8, secrets::WORD - 8).first();
        let rest = self.long.push(window.start, long);
        self.each(window, rest, secrets::WORD - 1, Self::is_word);
        let bearer = r_or_s.back(3) & letters.back(6) & !letters.back(7);
        let words = spaces.now & r_or_s.back(1) & (spaces.back(3) | bearer);
        if words != 0 {
            self.each(window, words, 6, Self::is_introduced);
        }
        if now.marks | before.marks != 0 {
            let marks_2 = marks.after(marks, 1);
            let pem = marks_2.after(marks_2, 2).back(1) & marks.back(5) & now.letters;
            self.each(window, pem, 5, |pass, at| pass.bytes[at..].starts_with(secrets::PEM_BEGIN));
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Returns the byte this far before an index, or zero before the text.
    fn before(&self, at: usize, by: usize) -> u8 {
        at.checked_sub(by).map_or(0, |at| self.byte(at))
    }

    /// Returns true if `is` or `bearer` ends six bytes after `at`, and a secret may follow.
    fn is_introduced(&mut self, at: usize) -> bool {
        let before = &self.bytes[..(at + 3).min(self.bytes.len())];
        let rest = &self.bytes[at..];
        rest.get(3..).is_some_and(|word| word.starts_with(b" is ")) && secrets::names_value(before)
            || secrets::is_bearer(rest)
    }

    /// Returns true if the digits before a character that is not ASCII may be a part of a number of several groups.
    fn is_joined(&mut self, at: usize) -> bool {
        let is_number = |byte: &&u8| byte.is_ascii_digit() || is_joint(**byte) || !byte.is_ascii();
        let digits = |byte: &&u8| byte.is_ascii_digit();
        let before = self.bytes[..at].iter().rev().take(NEAR).take_while(is_number).filter(digits).count();
        let after = self.bytes[at..].iter().take(NEAR).take_while(is_number).filter(digits).count();
        before + after >= ids::DIGITS && next_group(self.bytes, at).is_some()
    }

    /// Returns true for `:` or `=` after a word that names a secret.
    fn is_sign(&mut self, at: usize) -> bool {
        let mut end = at;
        for _ in 0..secrets::BLANKS {
            end -= match (self.before(end, 2), self.before(end, 1)) {
                (_, b' ' | b'\t') => 1,
                (b'\\', b't') if self.escapes => 2,
                _ => break,
            };
        }
        end -= usize::from(matches!(self.before(end, 1), b'"' | b'\''));
        end -= usize::from(self.escapes && self.before(end, 1) == b'\\');
        secrets::names_value(&self.bytes[..end])
    }

    /// Returns true if an IPv6 address may end or continue at a colon: after another colon, or after three earlier colons with short
    /// groups in between.
    fn is_in_ipv6(&self, mut at: usize) -> bool {
        if self.byte(at) != b':' || self.before(at, 1) == b':' {
            return self.byte(at) == b':';
        }
        for _ in 0..3 {
            let group = self.bytes[..at].iter().rev().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
            if !(1..=4).contains(&group) || self.before(at, group + 1) != b':' {
                return false;
            }
            at -= group + 1;
        }
        true
    }

    /// Returns true if one of the numbers in a run of digits and joints may be that of a person.
    fn is_run(&mut self, mut at: usize) -> bool {
        loop {
            let end = if self.is_date(at) {
                at + DATE
            } else {
                let cluster = Cluster::new(self.bytes, at);
                if self.is_number(&cluster) {
                    return true;
                }
                cluster.end
            };
            // A joint in the sets of bytes does not always join two groups.
            let joints = self.bytes[end..].iter().take(2).take_while(|byte| is_joint(**byte)).count();
            if joints == 0 || !self.byte(end + joints).is_ascii_digit() {
                return false;
            }
            at = end + joints;
        }
    }

    /// Returns true for a date with hyphens that is a cluster by itself, and has no plus sign before it.
    fn is_date(&self, at: usize) -> bool {
        let Some(date) = self.bytes[at..].first_chunk::<DATE>() else { return false };
        let is_shaped = date[4] == b'-' && date[7] == b'-' && {
            let digits = [date[0], date[1], date[2], date[3], date[5], date[6], date[8], date[9]];
            digits.iter().all(u8::is_ascii_digit)
        };
        is_shaped
            && self.before(at, 1) != b'+'
            && !self.byte(at + DATE).is_ascii_digit()
            && next_group(self.bytes, at + DATE).is_none()
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

    /// Returns true if the two letters before some digits are those of a country, and the word is as long as a whole IBAN or as the
    /// first group of one.
    fn begins_iban(&mut self, at: usize) -> bool {
        let Some(length) = ids::iban_length([self.before(at, 2), self.before(at, 1)]) else { return false };
        let word = self.bytes[at..].iter().take(length).take_while(|byte| byte.is_ascii_alphanumeric()).count() + 2;
        word == 4 || word == length
    }

    /// Returns true if five capitals are before the digits at `at`, which are four, and one is after them.
    fn is_in_pan(&mut self, at: usize) -> bool {
        let end = digits_end(self.bytes, at);
        let letters = at.checked_sub(5).map(|from| &self.bytes[from..at]);
        end - at == 4
            && self.byte(end).is_ascii_uppercase()
            && letters.is_some_and(|word| word.iter().all(u8::is_ascii_uppercase))
    }

    /// Returns true if the long word at `at` may be a secret or an Italian id.
    fn is_word(&mut self, at: usize) -> bool {
        let rest = &self.bytes[at..];
        let counts = Counts::of(rest);
        let length = counts.length;
        if counts.digits == 0 && counts.upper < CASES && !rest.starts_with(secrets::JWT_BEGIN) {
            return false;
        }
        if counts.digits > 0 && counts.upper + counts.lower >= FISCAL_LETTERS {
            let pieces = rest[..length].split(|byte| !byte.is_ascii_alphanumeric());
            let mut codes = pieces.filter(|piece| piece.len() == FISCAL && piece[0].is_ascii_alphabetic());
            if codes.any(|code| code[..FISCAL - 1].iter().filter(|byte| byte.is_ascii_digit()).count() <= 7) {
                return true;
            }
        }
        let padding = rest[length..].iter().take(2).take_while(|byte| **byte == b'=').count();
        secrets::may_be_secret(&rest[..length + padding], counts)
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

/// Returns true for the characters that count as joints in the sets of bytes. Not all of them join two groups.
fn is_joint(byte: u8) -> bool {
    classes::is_space(byte) || is_part(byte) && !byte.is_ascii_alphanumeric()
}
