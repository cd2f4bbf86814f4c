//! Exact weights: a sampled run represents several runs, and counts are kept as integers, in millionths of a run.
//!
//! Integers add up to the same total in any order and grouping, and a retraction cancels exactly. If each row were
//! rounded before the addition, a quantile would depend on how the rows are grouped. Sums that exceed 128 bits
//! saturate.

/// One run, in millionths.
pub const ONE: i128 = 1_000_000;

/// Returns a count in millionths, multiplied by a weight in millionths. The result is exact for integer counts, which
/// are all that tables hold; counts that are already weighted are rounded to a millionth.
pub fn weighted(micros: i128, weight_micros: i64) -> i128 {
    let weight = i128::from(weight_micros);
    // Each part has the sign of the whole, so a count and its retraction give the same magnitude.
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

/// Rounds a count in millionths to whole units and saturates at the range of `i64`.
pub fn whole(micros: i128) -> i64 {
    i64::try_from(rounded(micros)).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
}

/// Divides by a million, rounding halves away from zero.
fn rounded(micros: i128) -> i128 {
    let half = if micros < 0 { -ONE / 2 } else { ONE / 2 };
    micros.saturating_add(half) / ONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_saturate_at_the_end_of_the_range() {
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
