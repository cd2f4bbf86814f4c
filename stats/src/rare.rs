//! D5: rare events, such as policy exceptions: counts of events over exposures of runs.
//!
//! The log-increment of k events in n runs for a rate ratio ρ over the null rate λ is that of Poisson counts,
//! l = k ln ρ − λ n (ρ − 1); [`crate::sequential::Detector`] turns it into the e-SR of Shin, Ramdas, Rinaldo (2023).

use crate::invalid::{Invalid, positive, share, tempering};
use crate::special::gamma_critical;

/// Rate ratios over the null that are looked for.
pub const RATE_RATIOS: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// A rate may be this much above its bound before it counts as worse.
pub const TOLERANCE: f64 = 1.25;

/// Log-increments of `events` events in `runs` runs, for each of [`RATE_RATIOS`] over `null_rate` (events a run), times
/// `tempering`, in nats.
///
/// # Errors
/// Where the rate is not above 0, or the tempering not in (0, 1].
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn poisson_increments(
    events: u64,
    runs: u64,
    null_rate: f64,
    tempering_factor: f64,
) -> Result<[f64; RATE_RATIOS.len()], Invalid> {
    let tempering = tempering(tempering_factor)?;
    let expected = positive("rate", null_rate)? * runs as f64;
    Ok(RATE_RATIOS.map(|ratio| tempering * (events as f64 * ratio.ln() - expected * (ratio - 1.0))))
}

/// Upper bound of a rate, from `events` in `runs` of the past: the upper end of the posterior under a flat prior,
/// Gamma(events + 1)/runs, with probability `confidence` (0.9 as DETECTION has it). At 0 events and 95 % it is the rule
/// of three: 3/n.
///
/// # Errors
/// Where there are no runs or the confidence is no share.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn rate_bound(events: u64, runs: u64, confidence: f64) -> Result<f64, Invalid> {
    let confidence = share("confidence", confidence)?;
    if runs == 0 {
        return Err(Invalid::new("runs", runs, "at least 1"));
    }
    Ok(gamma_critical(1.0 - confidence, events as f64 + 1.0) / runs as f64)
}
