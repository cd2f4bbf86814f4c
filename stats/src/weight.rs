//! Exact weights: a run that was sampled stands for several, and counts are kept in millionths of a run as whole numbers.
//!
//! Whole numbers add up to the same in any order and any grouping, and what is taken back is gone without a rest; rounding a
//! share of the rows before they are added would make a quantile depend on how rows were cut. What leaves 128 bits stays at
//! the end of them.

/// One, in millionths.
pub const ONE: i128 = 1_000_000;

/// What a count of millionths comes to if each counts `weight_micros` millionths. Exact for whole counts, which are all that
/// tables hold; what has been weighted before is rounded to a millionth.
pub fn weighted(micros: i128, weight_micros: i64) -> i128 {
    let weight = i128::from(weight_micros);
    // Each part has the sign of the whole: a count and its correction come to the same.
    let (count, rest) = (micros / ONE, micros % ONE * weight);
    match (count.checked_mul(weight), rounded(rest)) {
        (Some(all), part) => all.saturating_add(part),
        (None, _) => {
            if (micros < 0) == (weight < 0) {
                i128::MAX
            } else {
                i128::MIN
            }
        }
    }
}

/// A count of millionths in whole units, rounded; the nearest that fits.
pub fn whole(micros: i128) -> i64 {
    i64::try_from(rounded(micros)).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
}

/// Divided by a million and rounded, halves away from zero.
fn rounded(micros: i128) -> i128 {
    let half = if micros < 0 { -ONE / 2 } else { ONE / 2 };
    micros.saturating_add(half) / ONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_fit_stays_at_the_end() {
        assert_eq!(weighted(i128::MAX, i64::MAX), i128::MAX);
        assert_eq!(weighted(i128::MIN, i64::MAX), i128::MIN);
        assert_eq!((whole(i128::MAX), whole(i128::MIN)), (i64::MAX, i64::MIN));
        assert_eq!((whole(1_500_000), whole(-1_500_000), whole(1_499_999)), (2, -2, 1));
    }

    proptest! {
        #[test]
        fn whole_counts_are_weighted_exactly_and_any_cut_of_them_adds_up(
            counts in prop::collection::vec(any::<i32>(), 0..20),
            weight in 1..=1_000_000_000_000_000_i64,
        ) {
            let pieces: i128 = counts.iter().map(|count| weighted(i128::from(*count) * ONE, weight)).sum();
            let all: i128 = counts.iter().map(|count| i128::from(*count)).sum();
            prop_assert_eq!(pieces, all * i128::from(weight));
            prop_assert_eq!(weighted(all * ONE, weight), pieces);
            prop_assert_eq!(weighted(pieces, 1_000_000), pieces, "a weight of one changes nothing");
        }
    }
}
