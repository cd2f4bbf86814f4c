//! D5: rare events, such as policy exceptions: counts of events per run.
//!
//! The log-increment of k events in n runs for a rate ratio ρ over the null rate λ is that of Poisson counts,
//! l = k ln ρ − λ n (ρ − 1); [`crate::sequential::EDetector`] turns it into the e-SR of Shin, Ramdas, Rinaldo (2023).

use crate::invalid::{Invalid, positive, share, tempering};
use crate::special::gamma_critical;

/// The alternatives: rate ratios over the null rate.
pub const RATE_RATIOS: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// Tolerance: a rate may exceed its bound by this factor before it counts as worse.
pub const TOLERANCE: f64 = 1.25;

/// Returns the log-increments of `events` events in `runs` runs, for each of [`RATE_RATIOS`] over `null_rate` (events
/// per run), multiplied by `tempering`, in nats.
///
/// # Errors
/// Fails if the rate is not above 0, or the tempering is not in (0, 1].
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

/// Returns the log-likelihood ratio of `ratio` times the null rate: k ln ρ − λ n (ρ − 1), in nats.
///
/// # Errors
/// Fails if the rate or the ratio is not above 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn poisson_log_ratio(events: u64, runs: u64, null_rate: f64, ratio: f64) -> Result<f64, Invalid> {
    let (rate, ratio) = (positive("rate", null_rate)?, positive("ratio", ratio)?);
    Ok(events as f64 * ratio.ln() - rate * runs as f64 * (ratio - 1.0))
}

/// Returns an upper bound of a rate, from `events` in `runs` of the past: the quantile of level `confidence` (0.9 in
/// DETECTION) of the posterior under a flat prior, Gamma(events + 1)/runs. With 0 events and 95 % it is the rule of
/// three: 3/n.
///
/// # Errors
/// Fails if there are no runs or the confidence is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn rate_bound(events: u64, runs: u64, confidence: f64) -> Result<f64, Invalid> {
    let confidence = share("confidence", confidence)?;
    if runs == 0 {
        return Err(Invalid::new("runs", runs, "at least 1"));
    }
    Ok(gamma_critical(1.0 - confidence, events as f64 + 1.0) / runs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequential::EDetector;
    use crate::testing::{Random, close};

    #[test]
    fn increments_are_those_of_poisson_counts() {
        let found = poisson_increments(3, 1000, 0.001, 0.5).expect("increments");
        // 3 ln 10 − 1·9, halved.
        close(found[4], 0.5 * (3.0 * 10_f64.ln() - 9.0));
        assert!(poisson_increments(1, 1, 0.0, 1.0).is_err() && poisson_increments(1, 1, 1.0, 2.0).is_err());
        const HUGE: u64 = 1_000_000_000;
        for (events, runs) in [(0, 0), (0, HUGE), (HUGE, 0), (HUGE, HUGE)] {
            assert!(poisson_increments(events, runs, 1e-9, 1.0).expect("increments").iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn zero_events_in_n_runs_give_the_rule_of_three() {
        close(rate_bound(0, 1000, 0.95).expect("a bound"), -(0.05_f64.ln()) / 1000.0);
        // scipy.stats.gamma.ppf(0.9, 11) / 5000.
        close(rate_bound(10, 5000, 0.9).expect("a bound"), 15.406_641_192_401_9 / 5000.0);
        assert!(rate_bound(0, 0, 0.9).is_err() && rate_bound(0, 1, 1.0).is_err());
    }

    #[test]
    fn the_average_run_length_holds_and_a_tenfold_rate_is_found() {
        // Three events a day, hourly; A = 300 hours.
        let first_alarm = |seed: u64, rate: f64| {
            let mut random = Random(seed);
            let mut detector = EDetector::new(RATE_RATIOS.len());
            (1..=6000_u64).find(|_| {
                detector
                    .update(&poisson_increments(random.poisson(1250.0 * rate), 1250, 1e-4, 1.0).expect("increments"));
                detector.log_shiryaev_roberts() >= 300_f64.ln()
            })
        };
        let mean = (0..200).map(|seed| first_alarm(seed, 1e-4).unwrap_or(6000)).sum::<u64>() / 200;
        assert!(mean >= 300, "{mean} hours between false alarms, seeds 0 to 200");
        let mut delays: Vec<u64> = (0..51).map(|seed| first_alarm(seed, 1e-3).unwrap_or(6000)).collect();
        delays.sort_unstable();
        assert!(delays[25] <= 6, "median {} h, seeds 0 to 51", delays[25]);
    }
}
