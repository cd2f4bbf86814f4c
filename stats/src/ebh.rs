//! D9: multiple testing over many series, with a bound on the false discovery rate.

use crate::invalid::{Invalid, positive, share};

/// Returns the series that alarm so that the false discovery rate is at most `alpha`, under any dependence between
/// them: the e-BH procedure (Wang, Ramdas, "False discovery rate control with e-values", JRSS B 84, 2022, definition
/// 1). Of K series ordered by evidence, the k* first alarm, k* = max{k : e_(k) ≥ K/(k α)}. `log_e` is in nats; NaN is
/// no evidence, but counts as a series.
///
/// # Errors
/// Fails if `alpha` is not between 0 and 1.
pub fn e_bh(log_e: &[f64], alpha: f64) -> Result<Vec<bool>, Invalid> {
    let threshold = e_bh_threshold(log_e, alpha)?;
    Ok(log_e.iter().map(|value| *value >= threshold).collect())
}

/// Returns the evidence at which a series alarms; ∞ if none does.
///
/// # Errors
/// Same as [`e_bh`].
#[expect(clippy::cast_precision_loss, reason = "a list in memory is shorter than 2^53")]
pub fn e_bh_threshold(log_e: &[f64], alpha: f64) -> Result<f64, Invalid> {
    let alpha = share("alpha", alpha)?;
    let mut sorted: Vec<f64> =
        log_e.iter().map(|value| if value.is_nan() { f64::NEG_INFINITY } else { *value }).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let series = sorted.len() as f64;
    let last = (0..sorted.len()).rev().find(|place| sorted[*place] >= (series / ((*place as f64 + 1.0) * alpha)).ln());
    Ok(last.map_or(f64::INFINITY, |place| sorted[place]))
}

/// Like [`e_bh`], with weights: a heavier series needs less evidence. Weights are scaled to a mean of 1, which
/// preserves the bound (Wang & Ramdas 2022, section 5.1).
///
/// # Errors
/// Fails if the numbers of weights and series differ, or a weight is not above 0.
#[expect(clippy::cast_precision_loss, reason = "a list in memory is shorter than 2^53")]
pub fn weighted_e_bh(log_e: &[f64], weights: &[f64], alpha: f64) -> Result<Vec<bool>, Invalid> {
    if log_e.len() != weights.len() {
        let found = format!("{} for {}", weights.len(), log_e.len());
        return Err(Invalid::new("number of weights", found, "equal to the number of series"));
    }
    for weight in weights {
        positive("weight", *weight)?;
    }
    let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    let weighted: Vec<f64> = log_e.iter().zip(weights).map(|(value, weight)| value + (weight / mean).ln()).collect();
    e_bh(&weighted, alpha)
}

/// Returns the log E at which hypothesis `number` (from 1) of a sequence, such as a sequence of releases, is rejected,
/// after `rejected` of the earlier ones were rejected: e-LOND (Xu, Ramdas, "Online multiple testing with e-values",
/// AISTATS 2024, eq. 6), α_t = α γ_t (R + 1), γ_t = 1/(t(t+1)).
///
/// # Errors
/// Fails if `alpha` is not between 0 and 1, or the number is 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn e_lond_threshold(number: u64, rejected: u64, alpha: f64) -> Result<f64, Invalid> {
    if number == 0 {
        return Err(Invalid::new("number of the hypothesis", number, "at least 1"));
    }
    let number = number as f64;
    // γ sums to 1 because the sum telescopes.
    Ok(number.ln() + (number + 1.0).ln() - (rejected as f64 + 1.0).ln() - share("alpha", alpha)?.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close};
    use proptest::prelude::*;

    #[test]
    fn the_definition_by_hand() {
        // K = 4, alpha = 0.1: thresholds 40, 20, 13.33, 10.
        let log_e: Vec<f64> = [15.0_f64, 1.0, 25.0, 14.0].iter().map(|e| e.ln()).collect();
        assert_eq!(e_bh(&log_e, 0.1).expect("alarms"), [true, false, true, true]);
        assert_eq!(e_bh(&[9_f64.ln()], 0.1).expect("alarms"), [false]);
        assert!(e_bh(&[], 0.1).expect("alarms").is_empty());
        assert_eq!(e_bh(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY], 0.1).expect("alarms"), [false, true, false]);
        assert!(e_bh(&[1.0], 1.0).is_err());
    }

    #[test]
    fn weights_shift_evidence_but_keep_the_bound() {
        let log_e = [12_f64.ln(), 12_f64.ln()];
        assert_eq!(weighted_e_bh(&log_e, &[5.0, 5.0], 0.1).expect("alarms"), [true, true]);
        assert_eq!(weighted_e_bh(&log_e, &[9.0, 1.0], 0.1).expect("alarms"), [true, false]);
        assert!(weighted_e_bh(&log_e, &[1.0], 0.1).is_err() && weighted_e_bh(&log_e, &[0.0, 1.0], 0.1).is_err());
    }

    #[test]
    fn e_lond_levels_sum_to_alpha() {
        close(e_lond_threshold(1, 0, 0.05).expect("a threshold"), 40_f64.ln());
        let spent: f64 = (1..100_000).map(|t| (-e_lond_threshold(t, 0, 0.05).expect("a threshold")).exp()).sum();
        assert!((spent - 0.05).abs() < 1e-6, "{spent}");
    }

    #[test]
    fn the_false_discovery_rate_holds_for_dependent_series() {
        // 180 of 200 series without a change, all sharing one shock; E = exp(δz − δ²/2) is an e-value.
        let (mut false_share, trials) = (0.0, 300);
        for seed in 0..trials {
            let mut random = Random(seed);
            let shock = random.normal();
            let log_e: Vec<f64> = (0..200)
                .map(|series| {
                    let z = 0.7 * shock + (1.0_f64 - 0.49).sqrt() * random.normal();
                    let effect = if series < 20 { 5.0 } else { 0.0 };
                    3.0 * (z + effect) - 4.5
                })
                .collect();
            let alarms = e_bh(&log_e, 0.1).expect("alarms");
            let all = alarms.iter().filter(|alarm| **alarm).count();
            let wrong = alarms[20..].iter().filter(|alarm| **alarm).count();
            false_share += wrong as f64 / all.max(1) as f64 / f64::from(u32::try_from(trials).unwrap());
        }
        assert!(false_share <= 0.1, "false discovery rate {false_share} over seeds 0 to {trials}");
    }

    proptest! {
        #[test]
        fn order_of_series_does_not_matter(log_e in prop::collection::vec(-5.0..15.0_f64, 1..40)) {
            let reversed: Vec<f64> = log_e.iter().rev().copied().collect();
            let mut alarms = e_bh(&reversed, 0.05).expect("alarms");
            alarms.reverse();
            prop_assert_eq!(e_bh(&log_e, 0.05).expect("alarms"), alarms);
        }

        #[test]
        fn more_evidence_never_takes_an_alarm_back(
            log_e in prop::collection::vec(-5.0..15.0_f64, 1..40), more in 0.0..5.0_f64, place in 0_usize..40,
        ) {
            let before = e_bh(&log_e, 0.05).expect("alarms");
            let mut grown = log_e.clone();
            grown[place % log_e.len()] += more;
            let after = e_bh(&grown, 0.05).expect("alarms");
            prop_assert!(before.iter().zip(&after).all(|(before, after)| !before || *after));
        }
    }
}
