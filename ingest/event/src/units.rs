//! Exact units: decimal money to integer nano-units, milliseconds and RFC 3339 times to integer microseconds.

/// Largest integer that every JSON implementation keeps exactly (RFC 7493, section 2.2).
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;

/// Largest quantity that is squared in sums: microseconds of a duration (9.5 years), nano-units of a cost (300,000 units).
///
/// The sums of one minute are `decimal(38,0)`, and leave room for a thousand million runs:
/// (3 · 10^14)² · 10^9 = 9 · 10^37 < 10^38. Their unsquared sum is at most 3 · 10^14 · 10^9 = 3 · 10^23.
pub const MAX_SQUARED: i64 = 300_000_000_000_000;

/// Largest number of tokens of a run. The sum of 10^9 runs is at most 10^21 and fits `decimal(38,0)`; the weighted count of a
/// run that represents a million ([`MIN_PROBABILITY`]) is at most 10^18 and fits 64 bits.
pub const MAX_TOKENS: i64 = 1_000_000_000_000;

/// Largest value of any other count of a run: calls, turns, fields. The sum of 10^9 runs is at most 10^18 and fits 64 bits.
pub const MAX_COUNT: i64 = 1_000_000_000;

/// Largest attempt: its column has 32 bits.
pub const MAX_ATTEMPT: i64 = 2_147_483_647;

/// Smallest sampling probability; a smaller one counts as this. It limits the weight of a run to 10^6, which is 10^12
/// millionths: 64 bits hold the weights of nine million such runs in millionths, and of 9 · 10^12 in whole runs.
pub const MIN_PROBABILITY: f64 = 1e-6;

/// Largest duration accepted, milliseconds: [`MAX_SQUARED`].
pub const MAX_MILLIS: f64 = 300_000_000_000.0;

/// Most characters of a time.
pub const TIME_CHARACTERS: usize = 40;

/// First and last accepted year, as text: year 1 is Go's zero time, and years after 2199 come from wrong units.
const FIRST_YEAR: &[u8; 4] = b"1970";
const LAST_YEAR: &[u8; 4] = b"2199";

/// Returns true if a time is within the accepted years.
pub(crate) fn year_fits(time: &str) -> bool {
    time.as_bytes().first_chunk().is_some_and(|year| (FIRST_YEAR..=LAST_YEAR).contains(&year))
}

/// Most digits before the decimal point of an amount: its nano-units then fit 64 bits.
const AMOUNT_DIGITS: usize = 9;

/// Most digits after the decimal point of an amount.
const FRACTION_DIGITS: usize = 12;

/// Digits after the decimal point that nano-units keep.
const NANO_DIGITS: usize = 9;

/// Parses an amount of money such as `0.004713` into nano-units, at most [`MAX_SQUARED`]. Digits beyond the ninth round half up.
pub fn amount_nanos(text: &str) -> Option<i64> {
    decimal_nanos(text).filter(|nanos| *nanos <= MAX_SQUARED)
}

/// Parses an amount like [`amount_nanos`], without its upper bound.
pub(crate) fn decimal_nanos(text: &str) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let digits =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, AMOUNT_DIGITS) || fraction.is_some_and(|part| !digits(part, FRACTION_DIGITS)) {
        return None;
    }
    let mut nanos = whole.bytes().fold(0_i64, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    let fraction = fraction.unwrap_or_default().as_bytes();
    for index in 0..NANO_DIGITS {
        nanos = nanos * 10 + i64::from(fraction.get(index).map_or(0, |byte| byte - b'0'));
    }
    let round_up = fraction.get(NANO_DIGITS).is_some_and(|byte| *byte >= b'5');
    Some(nanos + i64::from(round_up))
}

/// Formats nano-units as a decimal amount such as `0.004713`.
pub fn amount_text(nanos: i64) -> String {
    let (units, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let text = format!("{units}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Converts milliseconds to whole microseconds, rounded to the nearest; `None` beyond [`MAX_MILLIS`].
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
pub fn millis_to_micros(millis: f64) -> Option<i64> {
    (0.0..=MAX_MILLIS).contains(&millis).then(|| (millis * 1000.0).round() as i64)
}

/// Parses an RFC 3339 time with a zone into microseconds since the epoch, truncating finer digits.
///
/// As in RFC 3339, section 5.6, `T` and `Z` may be in either case, and a UTC day may end with second 60, which counts as the
/// first second of the next day.
pub fn rfc3339_micros(text: &str) -> Option<i64> {
    let (head, rest) = text.as_bytes().split_first_chunk()?;
    let &[
        y1,
        y2,
        y3,
        y4,
        b'-',
        mo1,
        mo2,
        b'-',
        d1,
        d2,
        b'T' | b't', //
        h1,
        h2,
        b':',
        mi1,
        mi2,
        b':',
        s1,
        s2,
    ] = head
    else {
        return None;
    };
    let year = two_digits(y1, y2)? * 100 + two_digits(y3, y4)?;
    let (month, day) = (two_digits(mo1, mo2)?, two_digits(d1, d2)?);
    let (hour, minute, second) = (two_digits(h1, h2)?, two_digits(mi1, mi2)?, two_digits(s1, s2)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (micros, rest) = fraction_micros(rest)?;
    let offset = zone_minutes(rest)?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset;
    if second == 60 && minutes.rem_euclid(24 * 60) != 24 * 60 - 1 {
        return None;
    }
    Some((minutes * 60 + second) * 1_000_000 + micros)
}

/// Parses `.123456789Z` into 123456 and `Z`.
fn fraction_micros(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let (mut micros, mut unit, mut digits) = (0, 100_000, 0);
    for digit in rest.iter().take_while(|byte| byte.is_ascii_digit()) {
        micros += i64::from(digit - b'0') * unit;
        unit /= 10;
        digits += 1;
    }
    (digits > 0).then(|| (micros, &rest[digits..]))
}

fn zone_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?);
            let sign = if *sign == b'-' { -1 } else { 1 };
            (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
        }
        _ => None,
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Converts a date of the proleptic Gregorian calendar to days since the epoch (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", days_from_civil).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_exact_and_round_half_up_below_a_nano() {
        assert_eq!(amount_nanos("0.004713"), Some(4_713_000));
        for text in ["0.004713", "12", "0.5", "0", "299999.999999999"] {
            assert_eq!(amount_nanos(text).map(amount_text).as_deref(), Some(text));
        }
        assert_eq!(amount_nanos("300000"), Some(MAX_SQUARED));
        assert_eq!(amount_nanos("300000.000000001"), None);
        assert_eq!(decimal_nanos("999999999.999999999"), Some(999_999_999_999_999_999));
        assert_eq!(amount_nanos("0.0000000005"), Some(1));
        assert_eq!(amount_nanos("0.0000000004"), Some(0));
        for wrong in ["", ".5", "1.", "-1", "1e3", "1234567890", "1.1234567890123", " 1", "1,5"] {
            assert_eq!(amount_nanos(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_sums_of_one_minute_hold_a_thousand_million_of_the_largest_runs() {
        let (largest, runs) = (i128::from(MAX_SQUARED), 1_000_000_000);
        assert!(largest * largest * runs < 10_i128.pow(38));
        assert_eq!(millis_to_micros(MAX_MILLIS), Some(MAX_SQUARED));
        assert!(i128::from(MAX_COUNT) * runs < i128::from(i64::MAX));
        assert!(i128::from(MAX_TOKENS) * 1_000_000 < i128::from(i64::MAX));
    }

    #[test]
    fn years_outside_the_accepted_range_are_recognised_by_their_digits() {
        for (time, fits) in
            [("0001-01-01T00:00:00Z", false), ("1969-", false), ("1970-", true), ("2199-", true), ("2200-", false)]
        {
            assert_eq!(year_fits(time), fits, "{time}");
        }
        assert!(!year_fits(""));
    }

    #[test]
    fn times_need_a_zone_and_a_real_date() {
        assert_eq!(rfc3339_micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339_micros("1970-01-01t01:00:00.5+01:00"), Some(500_000));
        assert_eq!(rfc3339_micros("1969-12-31T23:59:59.999999999z"), Some(-1));
        assert_eq!(rfc3339_micros("2016-12-31T23:59:60Z"), rfc3339_micros("2017-01-01T00:00:00Z"));
        for wrong in [
            "2025-08-01T15:57:33.620589",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "now",
        ] {
            assert_eq!(rfc3339_micros(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn times_agree_with_an_independent_reading(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000, offset in -1439_i32..1439) {
            let zone = chrono::FixedOffset::east_opt(offset * 60).expect("within a day");
            let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range").with_timezone(&zone);
            let text = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
            prop_assume!(text.len() == 32);
            prop_assert_eq!(rfc3339_micros(&text), Some(micros));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
            let _ = (rfc3339_micros(&text), amount_nanos(&text));
        }
    }
}
