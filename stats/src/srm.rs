//! D12: sample-ratio mismatch. Tests whether the arms receive the traffic shares that the split was configured to give.
//!
//! The multinomial Bayes factor of Lindon, Malek, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS 2022,
//! eq. 5), under a Dirichlet prior with parameters a₀ = c·θ₀ around the configured shares θ₀:
//!
//! > log E = ln B(a₀ + x) − ln B(a₀) − Σ x_i ln θ₀_i
//!
//! It is an e-process for "the shares are θ₀", whatever the traffic, and depends on the counts alone.

use crate::invalid::{Invalid, positive};
use crate::special::{ln_gamma, stirling_error};

/// Concentration of the prior around the shares: large values find small mismatches, small values find large ones
/// sooner.
pub const CONCENTRATION: f64 = 100.0;

/// Returns log E for `counts` runs by arm against the configured `shares`, which are normalised to sum to 1.
///
/// # Errors
/// Fails if there are fewer than two arms, the numbers of shares and counts differ, or a share or the concentration is
/// not above 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn log_e(counts: &[u64], shares: &[f64], concentration: f64) -> Result<f64, Invalid> {
    if counts.len() < 2 || counts.len() != shares.len() {
        let found = format!("{} and {}", counts.len(), shares.len());
        return Err(Invalid::new("numbers of counts and shares", found, "equal and at least 2"));
    }
    let concentration = positive("concentration", concentration)?;
    for value in shares {
        positive("share", *value)?;
    }
    let total_share: f64 = shares.iter().sum();
    let total = counts.iter().map(|count| *count as f64).sum::<f64>() + concentration;
    // Stirling's formula with its large terms combined into x ln(observed share / configured share), which does not
    // cancel.
    let mut sum = ln_gamma(concentration) - (concentration - 0.5) * total.ln() - stirling_tail(total);
    for (count, value) in counts.iter().zip(shares) {
        let (count, set) = (*count as f64, value / total_share);
        let prior = concentration * set;
        let posterior = prior + count;
        let ratio = (posterior - total * set) / (total * set);
        sum += count * ratio.ln_1p() + (prior - 0.5) * posterior.ln() + stirling_tail(posterior) - ln_gamma(prior);
    }
    // ½ ln 2π once for each Γ: one per arm, less one for the total.
    let arms = counts.len() as f64 - 1.0;
    Ok(sum + arms * 0.5 * (2.0 * std::f64::consts::PI).ln())
}

/// ln Γ(x) − [(x−½) ln x − x + ½ ln 2π].
fn stirling_tail(x: f64) -> f64 {
    stirling_error(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close};

    #[test]
    fn golden_value() {
        close(log_e(&[15, 85], &[0.1, 0.9], 100.0).expect("log E"), 0.199_594_910_512);
        close(log_e(&[15, 85], &[1.0, 9.0], 100.0).expect("log E"), 0.199_594_910_512);
        close(log_e(&[0, 0], &[0.1, 0.9], 100.0).expect("log E"), 0.0);
    }

    #[test]
    fn enormous_counts_are_numbers_and_keep_their_digits() {
        let even = log_e(&[500_000_000, 500_000_000], &[0.5, 0.5], 100.0).expect("log E");
        assert!(even < -7.0 && even > -9.0, "{even}");
        let off = log_e(&[1_000_000_000, 0], &[0.5, 0.5], 100.0).expect("log E");
        assert!(off > 6e8 && off.is_finite(), "{off}");
    }

    #[test]
    fn bad_arguments_have_messages() {
        for (counts, shares, concentration) in [
            (&[1_u64][..], &[1.0][..], 1.0),
            (&[1, 2], &[0.5], 1.0),
            (&[1, 2], &[0.0, 1.0], 1.0),
            (&[1, 2], &[0.5, 0.5], 0.0),
        ] {
            let error = log_e(counts, shares, concentration).expect_err("refused").to_string();
            assert!(error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn a_correct_split_keeps_the_false_alarm_rate_with_a_look_after_every_run() {
        let (alpha, trials, runs) = (0.05_f64, 400, 2000);
        let mut alarms = 0;
        for seed in 0..trials {
            let mut random = Random(seed);
            let mut counts = [0_u64; 2];
            let mut alarmed = false;
            for _ in 0..runs {
                counts[usize::from(random.uniform() < 0.9)] += 1;
                alarmed |= log_e(&counts, &[0.1, 0.9], CONCENTRATION).expect("log E") >= -alpha.ln();
            }
            alarms += u32::from(alarmed);
        }
        assert!(alarms <= 20, "{alarms} alarms of {trials} seeds from 0, at most 20 at alpha {alpha}");
        let broken = log_e(&[200, 800], &[0.1, 0.9], CONCENTRATION).expect("log E");
        assert!(broken > 100_f64.ln(), "{broken}");
    }
}
