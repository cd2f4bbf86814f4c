//! Words shortly before a number, or in the name of its text, that say what it is: found by one automaton, once for each number.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// The kinds of value that the words near a number suggest, as a set of the constants below.
pub(crate) type Context = u32;

pub(crate) const PHONE: Context = 1;
pub(crate) const CARD: Context = 1 << 1;
pub(crate) const VERSION: Context = 1 << 2;
/// Any number of a person that an authority has given.
pub(crate) const ID: Context = 1 << 3;
pub(crate) const SSN: Context = 1 << 4;
pub(crate) const BSN: Context = 1 << 5;
pub(crate) const NHS: Context = 1 << 6;
pub(crate) const STEUER: Context = 1 << 7;
pub(crate) const PESEL: Context = 1 << 8;
pub(crate) const CPF: Context = 1 << 9;
pub(crate) const AADHAAR: Context = 1 << 10;
pub(crate) const SPANISH: Context = 1 << 11;

/// The words, in the languages of the ten countries. A `*` at an end of a word stands for further letters.
const WORDS: &[(Context, &[&str])] = &[
    (
        PHONE,
        &[
            "*phone*",
            "telef*",
            "téléf*",
            "teléf*",
            "tel",
            "mob",
            "mobil*",
            "móvil*",
            "cell",
            "celular*",
            "cellular*",
            "handy*",
            "call",
            "fax",
            "whatsapp",
            "sms",
            "portable",
            "komórk*",
            "rufnummer*",
            "contact number",
        ],
    ),
    (
        CARD,
        &["*card*", "visa", "credit", "*karte*", "carte*", "tarjeta*", "carta", "cartão*", "*kaart*", "karta", "karty"],
    ),
    (VERSION, &["version*", "ver", "rv", "release*", "build", "firmware", "sdk", "section*", "chapter*"]),
    (
        ID,
        &[
            "national id*",
            "identity",
            "identification*",
            "id number",
            "id no",
            "personal number",
            "citizen*",
            "tax id*",
            "tax number",
            "taxpayer*",
            "national insurance",
            "social sec*",
        ],
    ),
    (SSN, &["ssn", "itin"]),
    (BSN, &["bsn", "burgerservice*", "sofi*"]),
    (NHS, &["nhs"]),
    (STEUER, &["steuer*", "idnr", "tin"]),
    (PESEL, &["pesel*"]),
    (CPF, &["cpf", "cadastro*"]),
    (AADHAAR, &["aadhaar", "aadhar", "uidai"]),
    (SPANISH, &["dni", "nie", "nif"]),
];

struct Word {
    says: Context,
    /// The word may begin, or end, inside another.
    inside: [bool; 2],
}

static AUTOMATON: LazyLock<(AhoCorasick, Vec<Word>)> = LazyLock::new(|| {
    let all = WORDS.iter().flat_map(|(says, words)| words.iter().map(|word| (*says, *word)));
    let (mut plain, mut words) = (Vec::new(), Vec::new());
    for (says, word) in all {
        plain.push(word.trim_matches('*'));
        words.push(Word { says, inside: [word.starts_with('*'), word.ends_with('*')] });
    }
    let built = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(plain);
    (built.expect("the words are constant"), words)
});

/// Returns what the words of a text say.
pub(crate) fn of(text: &[u8]) -> Context {
    let (automaton, words) = &*AUTOMATON;
    let mut says = 0;
    for found in automaton.find_overlapping_iter(text) {
        let word = &words[found.pattern().as_usize()];
        let [begins_inside, ends_inside] = word.inside;
        if (begins_inside || is_end(text, found.start())) && (ends_inside || is_end(text, found.end())) {
            says |= word.says;
        }
    }
    says
}

/// Returns true if no word goes on at an index. A word ends where a capital follows a small letter, as in `userPhone`.
fn is_end(text: &[u8], at: usize) -> bool {
    let (Some(before), Some(after)) = (at.checked_sub(1).and_then(|at| text.get(at)), text.get(at)) else {
        return true;
    };
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte >= 0x80;
    !letter(before) || !letter(after) || before.is_ascii_lowercase() && after.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_unless_a_star_says_otherwise() {
        for (text, says) in [
            ("my tel. ", PHONE),
            ("hotel ", 0),
            ("telling ", 0),
            ("Telefonnummer: ", PHONE),
            ("SMARTPHONES ", PHONE),
            ("userPhone", PHONE),
            ("user_phone", PHONE),
            ("SSN or BSN", SSN | BSN),
            ("National ID no. ", ID),
            ("tinted", 0),
        ] {
            assert_eq!(of(text.as_bytes()), says, "{text}");
        }
    }
}
