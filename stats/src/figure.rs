//! Numbers formatted for people. The text parses back to the value within half a unit of its last digit.
//!
//! * [`number`]: at least six significant digits, all digits of the integer part, scientific notation for very large
//!   and very small values.
//! * [`percent`]: a fraction as a percentage; never 0 % or 100 % unless it is exactly that.
//! * [`duration`]: a length of time in the customary unit.

/// Significant digits of a number.
const DIGITS: i32 = 6;

/// Numbers from here on use scientific notation: doubles above are not exact integers anyway.
const LARGE: f64 = 1e15;

/// Numbers below this use scientific notation too: a row of zeros is easy to miscount.
const SMALL: f64 = 1e-5;

/// Formats a number: `0.123457`, `999999.7`, `1.5e-9`, `NaN`, `-inf`.
///
/// It has at least six significant digits. The integer part is never rounded, so numbers above 100,000 also show one
/// decimal.
pub fn number(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    let size = value.abs();
    if size >= LARGE {
        // The shortest text that parses back to the same value.
        return format!("{value:e}");
    }
    if size < SMALL {
        let text = format!("{value:.*e}", usize::try_from(DIGITS - 1).unwrap_or(5));
        return match text.split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", without_zeros(mantissa)),
            None => text,
        };
    }
    // Between SMALL and LARGE, the exponent of the first digit is between -5 and 14.
    let first = size.log10().floor() as i32;
    let decimals = usize::try_from((DIGITS - 1 - first).max(1)).unwrap_or(1);
    without_zeros(&format!("{value:.decimals$}")).to_owned()
}

/// Strips trailing zeros from the decimals; zeros of the integer part are significant and stay.
fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Formats a fraction as a percentage: `69.2 %`, `0.04 %`, `99.97 %`.
///
/// It shows one decimal, and more if they are needed to distinguish the value from 0 % and 100 %.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() || value == 0.0 || value == 100.0 {
        return format!("{} %", value.abs());
    }
    // Distance from the nearer of 0 % and 100 %.
    let room = if value > 0.0 && value < 100.0 { value.min(100.0 - value) } else { value.abs() };
    let decimals = if room >= 0.1 { 1 } else { usize::try_from(1 - room.log10().floor() as i32).unwrap_or(1).min(15) };
    let text = format!("{value:.decimals$}");
    format!("{} %", if decimals == 1 { &text } else { without_zeros(&text) })
}

/// Formats a length of time given in microseconds: `850 µs`, `12.5 ms`, `1.21 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(micros: f64) -> String {
    if !micros.is_finite() {
        return format!("{} s", micros);
    }
    let (sign, size) = (if micros < 0.0 { "-" } else { "" }, micros.abs());
    // The unit is chosen after rounding: 59.996 s is a minute.
    let three = |value: f64| {
        let decimals = if value >= 99.95 {
            0
        } else if value >= 9.995 {
            1
        } else {
            2
        };
        format!("{value:.decimals$}")
    };
    let text = if size < 999.5 {
        format!("{} µs", without_zeros(&three(size)))
    } else if size < 999_500.0 {
        format!("{} ms", without_zeros(&three(size / 1e3)))
    } else if size < 59_950_000.0 {
        format!("{} s", without_zeros(&three(size / 1e6)))
    } else {
        let seconds = (size / 1e6).round();
        let pair = |large: f64, name: &str, small: f64, other: &str| {
            let units = (seconds / small).round();
            let per = large / small;
            match units % per {
                0.0 => format!("{:.0} {name}", units / per),
                rest => format!("{:.0} {name} {rest:.0} {other}", (units / per).floor()),
            }
        };
        if seconds < 3_600.0 {
            pair(60.0, "min", 1.0, "s")
        } else if seconds < 86_370.0 {
            pair(3_600.0, "h", 60.0, "min")
        } else {
            pair(86_400.0, "d", 3_600.0, "h")
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One unit in the last shown digit of a text.
    fn unit_of(text: &str) -> f64 {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let exponent: i32 = exponent.parse().expect("an exponent");
        format!("1e{}", exponent - i32::try_from(decimals).expect("few")).parse().expect("a number")
    }

    fn parses_back(value: f64) {
        let text = number(value);
        let parsed: f64 = text.parse().expect("a number");
        if value.is_nan() {
            assert!(parsed.is_nan(), "{text}");
        } else if value.is_infinite() || value == 0.0 {
            assert_eq!((parsed, parsed.is_sign_negative()), (value, value.is_sign_negative()), "{text}");
        } else {
            // Half a unit, plus the rounding error of the division.
            let far = (parsed - value).abs();
            assert!(
                far <= unit_of(&text) * 0.5 + (value.abs() * 4.0 * f64::EPSILON).max(f64::from_bits(4)),
                "{value:e} is shown as {text}"
            );
            assert!(far <= (value.abs() * 5e-6).max(f64::from_bits(4)), "{value:e} lost digits: {text}");
            assert!(text.len() <= 24, "{text}");
        }
    }

    #[test]
    fn numbers_show_their_significant_digits() {
        for (value, text) in [
            (0.123_456_789, "0.123457"),
            (1234.5, "1234.5"),
            (3.0, "3"),
            (0.000_012_345_678, "0.0000123457"),
            (999_999.7, "999999.7"),
            (250_000.2, "250000.2"),
            (999_999.99, "1000000"),
            (100.0, "100"),
            (-250_000.0, "-250000"),
            (1e14, "100000000000000"),
            (1e300, "1e300"),
            (-2.5e-9, "-2.5e-9"),
            (9.999_999_9e-6, "1e-5"),
            (f64::MAX, "1.7976931348623157e308"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(value), text);
            parses_back(value);
        }
    }

    proptest! {
        #[test]
        fn every_float_parses_back_from_its_text(bits in any::<u64>()) {
            parses_back(f64::from_bits(bits));
        }

        #[test]
        fn floats_of_common_sizes_parse_back(value in -1e7_f64..1e7, places in 0_i32..8) {
            let scale = 10_f64.powi(places);
            parses_back((value * scale).round() / scale);
            parses_back(f64::from(value as f32));
            parses_back(value.round());
        }

        #[test]
        fn a_fraction_is_distinguishable_from_0_and_100_percent(share in 1e-12_f64..1.0) {
            for share in [share, 1.0 - share] {
                let text = percent(share);
                let shown: f64 = text.trim_end_matches(" %").parse().expect("a number");
                prop_assert!((shown - share * 100.0).abs() <= 0.0501, "{share}: {text}");
                prop_assert!((shown > 0.0) == (share > 0.0) && (shown < 100.0) == (share < 1.0), "{share}: {text}");
            }
        }

        #[test]
        fn a_duration_is_within_a_hundredth(micros in 0.01_f64..1e15) {
            let units = [("µs", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 6e7), ("h", 3.6e9), ("d", 8.64e10)];
            let text = duration(micros);
            let words: Vec<&str> = text.split(' ').collect();
            let shown: f64 = words.chunks(2).map(|pair| {
                let of = units.iter().find(|(name, _)| *name == pair[1]).expect("a unit").1;
                pair[0].parse::<f64>().expect("a number") * of
            }).sum();
            prop_assert!((shown - micros).abs() <= (micros * 0.021).max(0.005), "{micros}: {text}");
        }
    }

    #[test]
    fn durations_are_in_the_unit_that_people_choose() {
        for (micros, text) in [
            (1_210_041.0, "1.21 s"),
            (850.0, "850 µs"),
            (12_500.0, "12.5 ms"),
            (999_999.0, "1 s"),
            (59_996_000.0, "1 min"),
            (200e6, "3 min 20 s"),
            (7_500e6, "2 h 5 min"),
            (86_399e6, "1 d"),
            (3.0 * 86_400e6 + 4.0 * 3_600e6, "3 d 4 h"),
            (0.0, "0 µs"),
            (-1_500.0, "-1.5 ms"),
        ] {
            assert_eq!(duration(micros), text);
        }
    }

    #[test]
    fn a_percentage_has_one_decimal_unless_it_needs_more() {
        for (share, text) in
            [(0.692, "69.2 %"), (0.92, "92.0 %"), (0.0004, "0.04 %"), (0.9997, "99.97 %"), (0.0, "0 %"), (1.0, "100 %")]
        {
            assert_eq!(percent(share), text);
        }
        assert_eq!(percent(2.5), "250.0 %");
    }
}
