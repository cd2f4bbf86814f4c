//! Check digits. All functions take digits from 0 to 9, or ASCII text in upper case.

/// Luhn: payment cards.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits.iter().rev().enumerate().map(|(at, digit)| doubled(u32::from(*digit), at % 2 == 1)).sum();
    sum.is_multiple_of(10)
}

fn doubled(digit: u32, double: bool) -> u32 {
    match (double, digit) {
        (false, _) => digit,
        (true, 5..) => digit * 2 - 9,
        (true, _) => digit * 2,
    }
}

/// ISO 7064 mod 97: IBAN.
pub(crate) fn iban(text: &[u8]) -> bool {
    let Some((head, rest)) = text.split_at_checked(4) else { return false };
    let rest = rest.iter().chain(head).try_fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => Some((rest * 10 + u32::from(byte - b'0')) % 97),
        b'A'..=b'Z' => Some((rest * 100 + u32::from(byte - b'A') + 10) % 97),
        _ => None,
    });
    rest == Some(1)
}

fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| u32::from(*digit) * weight).sum()
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(*digit))
}

/// United States: social security numbers and taxpayer numbers have no check digit, only forbidden ranges.
pub(crate) fn ssn(digits: &[u8]) -> bool {
    let [area @ .., g1, g2, s1, s2, s3, s4] = digits else { return false };
    let (area, group, serial) = (number(area), g1 * 10 + g2, number(&[*s1, *s2, *s3, *s4]));
    let taxpayer = area >= 900 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
    digits.len() == 9 && serial != 0 && group != 0 && (taxpayer || (area != 0 && area != 666 && area < 900))
}

/// United Kingdom: NHS number.
pub(crate) fn nhs(digits: &[u8]) -> bool {
    let check = 11 - weighted(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    digits.len() == 10 && !same(digits) && check % 11 == u32::from(digits[9])
}

/// Germany: tax identification number, ISO 7064 mod 11, 10.
pub(crate) fn steuer_id(digits: &[u8]) -> bool {
    if digits.len() != 11 || digits[0] == 0 || same(digits) {
        return false;
    }
    let product = digits[..10].iter().fold(10, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(digits[10])
}

/// France: social security number without Corsican letters, with its key.
pub(crate) fn nir(digits: &[u8]) -> bool {
    digits.len() == 15
        && matches!(digits[0], 1 | 2)
        && matches!(number(&digits[3..5]), 1..=12 | 20..=42 | 50..=99)
        && 97 - number(&digits[..13]) % 97 == number(&digits[13..])
}

/// Spain: DNI, and NIE with its first letter as a digit.
pub(crate) fn dni(digits: &[u8], letter: u8) -> bool {
    let letters = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let at = usize::try_from(number(digits) % 23).unwrap_or(0);
    digits.len() == 8 && letters[at] == letter
}

/// Italy: codice fiscale, 16 characters.
pub(crate) fn codice_fiscale(text: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    if text.len() != 16 {
        return false;
    }
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(usize::from(byte - b'0')),
        b'A'..=b'Z' => Some(usize::from(byte - b'A')),
        _ => None,
    };
    let sum = text[..15].iter().enumerate().try_fold(0_u32, |sum, (at, byte)| {
        let value = value(*byte)?;
        Some(sum + if at % 2 == 0 { ODD[value] } else { u32::try_from(value).unwrap_or(0) })
    });
    sum.is_some_and(|sum| sum % 26 + u32::from(b'A') == u32::from(text[15]))
}

/// Netherlands: BSN, the test of eleven.
pub(crate) fn bsn(digits: &[u8]) -> bool {
    if digits.len() != 9 || same(digits) {
        return false;
    }
    let sum = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum % 11 == u32::from(digits[8])
}

/// Poland: PESEL with a possible date of birth.
pub(crate) fn pesel(digits: &[u8]) -> bool {
    if digits.len() != 11 {
        return false;
    }
    let (month, day) = (number(&digits[2..4]) % 20, number(&digits[4..6]));
    let check = (10 - weighted(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10;
    (1..=12).contains(&month) && (1..=31).contains(&day) && check == u32::from(digits[10])
}

/// India: Aadhaar, Verhoeff.
pub(crate) fn aadhaar(digits: &[u8]) -> bool {
    if digits.len() != 12 || digits[0] < 2 {
        return false;
    }
    // The dihedral group of order ten: 0 to 4 are rotations, 5 to 9 are reflections.
    let product = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const STEP: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let sum = digits.iter().rev().enumerate().fold(0, |sum, (at, digit)| {
        let permuted = (0..at % 8).fold(*digit, |digit, _| STEP[usize::from(digit)]);
        product(sum, permuted)
    });
    sum == 0
}

/// Brazil: CPF.
pub(crate) fn cpf(digits: &[u8]) -> bool {
    if digits.len() != 11 || same(digits) {
        return false;
    }
    let check = |length: usize| {
        let first = u32::try_from(length).unwrap_or(0) + 1;
        let sum: u32 = digits[..length].iter().zip((2..=first).rev()).map(|(digit, w)| u32::from(*digit) * w).sum();
        sum * 10 % 11 % 10 == u32::from(digits[length])
    };
    check(9) && check(10)
}

fn same(digits: &[u8]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect()
    }

    /// Published examples of each number; each with its last digit changed must fail.
    #[test]
    fn published_numbers_pass_and_a_changed_digit_fails() {
        type Check = fn(&[u8]) -> bool;
        let cases: [(&str, Check, &str); 8] = [
            ("luhn", luhn, "4111111111111111"),
            ("nhs", nhs, "9434765919"),
            ("steuer_id", steuer_id, "86095742719"),
            ("nir", nir, "255081416802538"),
            ("bsn", bsn, "111222333"),
            ("pesel", pesel, "44051401359"),
            ("aadhaar", aadhaar, "234123412346"),
            ("cpf", cpf, "52998224725"),
        ];
        for (name, check, text) in cases {
            let mut number = digits(text);
            assert!(check(&number), "{name} {text}");
            let last = number.len() - 1;
            for _ in 0..9 {
                number[last] = (number[last] + 1) % 10;
                assert!(!check(&number), "{name} {number:?}");
            }
            assert!(!check(&number[..3]), "{name} is too short");
        }
    }

    #[test]
    fn numbers_with_letters_are_checked() {
        assert!(iban(b"GB82WEST12345698765432") && !iban(b"GB83WEST12345698765432") && !iban(b"GB"));
        assert!(codice_fiscale(b"RSSMRA85T10A562S") && !codice_fiscale(b"RSSMRA85T10A562T"));
        assert!(dni(&digits("12345678"), b'Z') && !dni(&digits("12345678"), b'A'));
        assert!(ssn(&digits("078051120")) && !ssn(&digits("666051120")) && !ssn(&digits("078001120")));
        assert!(ssn(&digits("912701234")) && !ssn(&digits("912001234")) && !ssn(&[]));
    }
}
