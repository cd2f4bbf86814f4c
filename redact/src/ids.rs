//! Finds national ids that contain letters, and IBANs.

use crate::checksum as check;
use crate::find::Search;
use crate::{Finding, Kind, context};

/// Longest prefix of an id that is a word of its own: `AB 12 34 56 C`, `X-1234567-L`.
const PREFIX: usize = 2;

/// Fewest digits of an id of several groups.
pub(crate) const DIGITS: usize = 6;

/// Most characters of an id without separators.
const PLAIN: usize = 16;

/// Length of an IBAN by country, in ascending order.
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
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
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
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Finds the ids that begin with a word with digits, or with a short word before it.
pub(crate) fn find(search: &mut Search<'_>, start: usize, end: usize) {
    if end - start >= 4 && search.byte(start + 2).is_ascii_digit() && search.byte(start).is_ascii_alphabetic() {
        iban(search, start);
    }
    match end - start {
        10 => pan(search, start),
        16 => fiscal(search, start),
        1..=15 => {
            patterns(search, start);
            if matches!(search.before(start), b' ' | b'-') {
                let before = search.start_of(start - 1, PREFIX, |byte| byte.is_ascii_alphabetic());
                if before < start - 1 {
                    patterns(search, before);
                }
            }
        }
        _ => {}
    }
}

/// Finds the ids of several groups that begin at `start`.
fn patterns(search: &mut Search<'_>, start: usize) {
    if is_word(search.before(start)) {
        return;
    }
    let found = match search.byte(start) {
        b'1' | b'2' => corsica(search, start).or_else(|| dni(search, start, "dddddddd-l")),
        b'0'..=b'9' => dni(search, start, "dddddddd-l"),
        b'X'..=b'Z' | b'x'..=b'z' => dni(search, start, "l-ddddddd-l").or_else(|| nino(search, start)),
        _ => nino(search, start),
    };
    if let Some(Finding { start, end, kind }) = found {
        search.found(start, end, kind);
    }
}

/// Matches a pattern at `start`: `d` is a digit, `l` a letter, a space an optional one, a hyphen an optional hyphen or space. Returns
/// the end and the characters without separators, in upper case, filled up with zeros.
fn matched(search: &mut Search<'_>, start: usize, pattern: &str) -> Option<(usize, [u8; PLAIN])> {
    let (mut at, mut plain, mut length) = (start, [0; PLAIN], 0);
    search.looked(pattern.len());
    for one in pattern.bytes() {
        let byte = search.byte(at);
        let takes = match one {
            b' ' => byte == b' ',
            b'-' => matches!(byte, b' ' | b'-'),
            b'd' if byte.is_ascii_digit() => true,
            b'l' if byte.is_ascii_alphabetic() => true,
            _ => return None,
        };
        at += usize::from(takes);
        if matches!(one, b'd' | b'l') {
            plain[length] = byte.to_ascii_uppercase();
            length += 1;
        }
    }
    (!is_word(search.byte(at))).then_some((at, plain))
}

/// United Kingdom: national insurance number.
fn nino(search: &mut Search<'_>, start: usize) -> Option<Finding> {
    let (end, plain) = matched(search, start, "ll dd dd dd l")?;
    let unused = [b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"].iter().any(|bad| plain.starts_with(&bad[..]));
    let letters = !b"DFIQUV".contains(&plain[0]) && !b"DFIOQUV".contains(&plain[1]);
    (letters && !unused && matches!(plain[8], b'A'..=b'D')).then_some(Finding { start, end, kind: Kind::NationalId })
}

/// Spain: DNI and NIE. In small letters only after a word that names it: a hash may look the same.
fn dni(search: &mut Search<'_>, start: usize, pattern: &str) -> Option<Finding> {
    let (end, mut plain) = matched(search, start, pattern)?;
    let letter = plain[8];
    if let first @ b'X'..=b'Z' = plain[0] {
        plain[0] = first - b'X' + b'0';
    }
    let digits: Vec<u8> = plain[..8].iter().map(|byte| byte.wrapping_sub(b'0')).collect();
    let valid = digits.iter().all(|digit| *digit < 10) && check::dni(&digits, letter);
    let capital = search.before(end).is_ascii_uppercase();
    (valid && (capital || search.near(start, context::SPANISH))).then_some(Finding {
        start,
        end,
        kind: Kind::NationalId,
    })
}

/// France: the number of a person born on Corsica. The department 2A counts as 19, and 2B as 18.
fn corsica(search: &mut Search<'_>, start: usize) -> Option<Finding> {
    let (end, plain) = matched(search, start, "d dd dd dl ddd ddd dd")?;
    let department: &[u8] = match &plain[5..7] {
        b"2A" => b"19",
        b"2B" => b"18",
        _ => return None,
    };
    let digits: Vec<u8> =
        [&plain[..5], department, &plain[7..15]].concat().iter().map(|byte| byte.wrapping_sub(b'0')).collect();
    check::nir(&digits).then_some(Finding { start, end, kind: Kind::NationalId })
}

/// India: the number of the income tax, in capitals. It has no published check digit; its shape is rare in other text.
fn pan(search: &mut Search<'_>, start: usize) {
    let word = &search.bytes[start..start + 10];
    let shape = word[..5].iter().all(u8::is_ascii_uppercase)
        && word[5..9].iter().all(u8::is_ascii_digit)
        && word[9].is_ascii_uppercase();
    if shape && b"ABCFGHJLPT".contains(&word[3]) && search.before(start) != b'_' && search.byte(start + 10) != b'_' {
        search.found(start, start + 10, Kind::NationalId);
    }
}

/// Italy: codice fiscale.
fn fiscal(search: &mut Search<'_>, start: usize) {
    let word = search.bytes[start..start + 16].to_ascii_uppercase();
    // A digit may be replaced by a letter if two people would have the same code.
    let digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'L'..=b'N' | b'P'..=b'V');
    let shape = word.iter().enumerate().all(|(at, byte)| match at {
        6 | 7 | 9 | 10 | 12..=14 => digit(*byte),
        8 => b"ABCDEHLMPRST".contains(byte),
        _ => byte.is_ascii_uppercase(),
    });
    if shape && check::codice_fiscale(&word) {
        search.found(start, start + 16, Kind::NationalId);
    }
}

/// Returns the length of the IBANs of a country, by its code in any case.
pub(crate) fn iban_length(country: [u8; 2]) -> Option<usize> {
    let country = country.map(|letter| letter.to_ascii_uppercase());
    let place = IBAN.binary_search_by(|(code, _)| (**code).cmp(&country)).ok()?;
    Some(IBAN[place].1)
}

fn iban(search: &mut Search<'_>, start: usize) {
    if search.before(start) == b'_' {
        return;
    }
    let Some(length) = iban_length([search.byte(start), search.byte(start + 1)]) else { return };
    let (mut plain, mut end, mut grouped) = (Vec::with_capacity(length), start, false);
    while plain.len() < length {
        match search.byte(end) {
            // In groups, each has four characters.
            byte if byte.is_ascii_alphanumeric() && grouped && plain.len().is_multiple_of(4) => {
                if !matches!(search.before(end), b' ' | b'-') {
                    return;
                }
                plain.push(byte.to_ascii_uppercase());
            }
            byte if byte.is_ascii_alphanumeric() => plain.push(byte.to_ascii_uppercase()),
            b' ' | b'-' if plain.len().is_multiple_of(4) && search.before(end).is_ascii_alphanumeric() => {
                grouped |= plain.len() == 4;
                if !grouped {
                    return;
                }
            }
            _ => break,
        }
        end += 1;
    }
    search.looked(end - start);
    if plain.len() == length && !search.byte(end).is_ascii_alphanumeric() && check::iban(&plain) {
        search.found(start, end, Kind::Iban);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
