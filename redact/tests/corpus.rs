//! Measures recall on generated values and false positives on generated text; docs/privacy.md has the table.
//!
//! The generator has its own check digits, by another method: it tries all digits until the published definition holds.

use std::fmt::Write as _;

use bellwether_redact::{Policy, Redactor};

/// Values of each kind.
const VALUES: usize = 400;

/// A small generator of numbers: splitmix64 from a fixed seed.
struct Random(u64);

// === impl Random ===

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits") % bound
    }

    fn of(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[self.below(letters.len())]).collect()
    }

    fn digits(&mut self, length: usize) -> String {
        self.of("0123456789", length)
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const MIXED: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn card(random: &mut Random) -> String {
    let body = format!("4{}", random.digits(14));
    let sum = |text: &str| -> u32 {
        let digit = |at: usize, byte: u8| match (at % 2, u32::from(byte - b'0')) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        };
        text.bytes().rev().enumerate().map(|(at, byte)| digit(at, byte)).sum()
    };
    let whole = (0..10).map(|check| format!("{body}{check}")).find(|text| sum(text) % 10 == 0).expect("one of ten");
    let separator = random.pick(&["", " ", "-"]);
    [&whole[..4], &whole[4..8], &whole[8..12], &whole[12..]].join(separator)
}

fn iban(random: &mut Random) -> String {
    let body = random.digits(18);
    let rest = |check: u32| {
        format!("{body}1314{check:02}").bytes().fold(0, |rest, byte| (rest * 10 + u32::from(byte - b'0')) % 97)
    };
    let check = (2..=98).find(|check| rest(*check) == 1).expect("one of 97");
    let plain = format!("DE{check:02}{body}");
    if random.below(2) == 0 {
        plain
    } else {
        plain.as_bytes().chunks(4).map(|four| String::from_utf8_lossy(four)).collect::<Vec<_>>().join(" ")
    }
}

fn cpf(random: &mut Random) -> String {
    let mut number = random.digits(9);
    for first in [10, 11] {
        let sum: usize =
            number.bytes().zip((2..=first).rev()).map(|(byte, weight)| usize::from(byte - b'0') * weight).sum();
        let check = match sum % 11 {
            0 | 1 => 0,
            rest => 11 - rest,
        };
        write!(number, "{check}").expect("a string");
    }
    format!("{}.{}.{}-{}", &number[..3], &number[3..6], &number[6..9], &number[9..])
}

fn ssn(random: &mut Random) -> String {
    format!("{:03}-{:02}-{:04}", 1 + random.below(600), 1 + random.below(99), 1 + random.below(9999))
}

fn value(kind: &str, random: &mut Random) -> String {
    match kind {
        "EMAIL" => format!(
            "{}.{}@{}.{}",
            random.of(LOWER, 5),
            random.of(LOWER, 7),
            random.of(LOWER, 6),
            random.pick(&["com", "org", "co.uk"])
        ),
        "PHONE" => match random.below(3) {
            0 => format!("+{}{}", 1 + random.below(9), random.digits(10)),
            1 => format!("({}{}) {}-{}", 2 + random.below(8), random.digits(2), random.digits(3), random.digits(4)),
            _ => format!("020 {} {}", random.digits(4), random.digits(4)),
        },
        "CARD" => card(random),
        "IBAN" => iban(random),
        "NATIONAL_ID" => {
            if random.below(2) == 0 {
                cpf(random)
            } else {
                ssn(random)
            }
        }
        "IP" => {
            let rest: Vec<_> = (0..3).map(|_| random.below(255).to_string()).collect();
            // Loopback and unspecified addresses identify nobody and are kept.
            format!("{}.{}", 128 + random.below(90), rest.join("."))
        }
        "SECRET" => format!("{}{}", random.pick(&["ghp_", "hf_", ""]), random.of(MIXED, 36)),
        _ => format!("https://{}:{}@{}.com", random.of(LOWER, 5), random.of(MIXED, 8), random.of(LOWER, 6)),
    }
}

const KINDS: [&str; 8] = ["EMAIL", "PHONE", "CARD", "IBAN", "NATIONAL_ID", "IP", "SECRET", "URL_CREDENTIALS"];

/// Every generated value disappears. A random word without two digits is no secret by definition; the bound leaves room for it.
#[test]
fn generated_values_are_found() {
    let (redactor, mut random) = (Redactor::new(&Policy::default()).expect("compiles"), Random(20_261_130));
    for kind in KINDS {
        let (mut gone, mut named) = (0, 0);
        for _ in 0..VALUES {
            let value = value(kind, &mut random);
            let text = format!("Hello, please use {value}, thank you.");
            let redacted = redactor.session().text(&text).into_owned();
            gone += usize::from(!redacted.contains(&value));
            named += usize::from(redacted == format!("Hello, please use [{kind}_1], thank you."));
        }
        println!("| {kind} | {VALUES} | {gone} | {named} |");
        let least = if kind == "SECRET" { VALUES * 97 / 100 } else { VALUES };
        assert!(gone >= least, "{kind}: {gone} of {VALUES} values disappeared");
        assert!(named >= VALUES * 95 / 100, "{kind}: {named} of {VALUES} values have their own kind");
    }
}

/// Ordinary values of production: times, amounts, ids, hashes, versions.
#[test]
fn generated_ordinary_text_mostly_stays() {
    let (redactor, mut random) = (Redactor::new(&Policy::default()).expect("compiles"), Random(7));
    let mut changed = Vec::new();
    for _ in 0..2000 {
        let hex = |random: &mut Random, length| random.of("0123456789abcdef", length);
        let text = format!(
            "order W{} of 20{}-1{}-2{} for {}.{} EUR, run {}-{}, sha256 {}, v{}.{}.{}, flight HAT{}, {} ms, item {}",
            random.digits(7),
            random.digits(2),
            random.below(3),
            random.below(9),
            random.digits(4),
            random.digits(2),
            hex(&mut random, 8),
            hex(&mut random, 4),
            hex(&mut random, 64),
            random.below(9),
            random.below(30),
            random.below(30),
            random.digits(3),
            random.digits(5),
            random.digits(10),
        );
        let redacted = redactor.session().text(&text).into_owned();
        if redacted != text {
            changed.push(redacted);
        }
    }
    println!("{} of 2000 texts changed", changed.len());
    assert!(changed.len() <= 20, "{} of 2000: {:?}", changed.len(), changed.first());
}
