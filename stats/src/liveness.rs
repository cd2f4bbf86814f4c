//! D11: the meaning of little or no data. It distinguishes three states of which only the first is good news: no
//! traffic, no information, and too few runs to judge.

use crate::invalid::{Invalid, positive};
use crate::special::{ln_beta, ln_poisson_lower_tail};

/// A window is too quiet if a count this low has a probability below this.
pub const QUIET_PROBABILITY: f64 = 1e-6;

/// Consecutive quiet windows after which a producer counts as silent.
pub const QUIET_WINDOWS: usize = 2;

/// The watermark of a source: the event time up to which it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// No earlier events are expected; microseconds since the epoch.
    At(i64),
    /// The source is alive but has no data; it does not hold back others.
    Idle,
    /// Nothing is known about the source.
    Unknown,
}

/// The completeness of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Complete, with enough runs to judge.
    Enough,
    /// Complete, with runs, but too few to judge.
    Insufficient,
    /// Complete and without runs; the source is alive.
    NoTraffic,
    /// Not complete yet; its contents may be shown as provisional.
    Pending,
    /// Overdue: the source is silent or behind, so nothing may be concluded and no alert resolved.
    NoData,
}

/// The runs of a window that have arrived so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRuns {
    /// End of the window, microseconds since the epoch.
    pub end: i64,
    /// Runs in the window.
    pub runs: u64,
    /// Minimum number of runs to judge it.
    pub least_runs: u64,
}

// === impl Liveness ===

impl Liveness {
    /// Classifies a window by the watermark of its source at time `now`. The window is overdue `grace` after its end. All
    /// times are microseconds since the epoch.
    pub fn new(window: &WindowRuns, watermark: Watermark, now: i64, grace: i64) -> Self {
        let WindowRuns { end, runs, least_runs } = *window;
        let overdue = now.saturating_sub(end) > grace;
        let complete = match watermark {
            Watermark::At(moment) => moment >= end,
            // An idle source has no data for a window that has ended.
            Watermark::Idle => now >= end,
            Watermark::Unknown => false,
        };
        match (complete, overdue, runs) {
            (false, true, _) => Self::NoData,
            (false, false, _) => Self::Pending,
            (true, _, 0) => Self::NoTraffic,
            (true, _, runs) if runs < least_runs => Self::Insufficient,
            (true, _, _) => Self::Enough,
        }
    }

    /// Returns its name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::Insufficient => "insufficient",
            Self::NoTraffic => "no_traffic",
            Self::Pending => "pending",
            Self::NoData => "no_data",
        }
    }

    /// Returns true if a rule may be judged on the window.
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Enough | Self::Insufficient | Self::NoTraffic)
    }
}

/// Returns the fraction of a producer's messages that arrived, from its first and last sequence number and the number
/// of distinct ones seen. None if nothing was sent.
///
/// # Errors
/// Fails if more messages were seen than there are sequence numbers.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn completeness(first: u64, last: u64, seen: u64) -> Result<Option<f64>, Invalid> {
    let Some(gap) = last.checked_sub(first) else { return Ok(None) };
    let sent = gap.saturating_add(1);
    if seen > sent {
        return Err(Invalid::new("messages seen", seen, "at most the sequence numbers from first to last"));
    }
    Ok(Some(seen as f64 / sent as f64))
}

/// Returns ln of the probability of at most `runs` runs if `expected` are usual and the variance is `overdispersion`
/// times the mean: negative binomial, or Poisson at 1.
///
/// # Errors
/// Fails if `expected` is not above 0 or `overdispersion` is below 1.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn ln_quiet(runs: u64, expected: f64, overdispersion: f64) -> Result<f64, Invalid> {
    let expected = positive("expected runs", expected)?;
    if !(overdispersion >= 1.0 && overdispersion.is_finite()) {
        return Err(Invalid::new("overdispersion", overdispersion, "at least 1"));
    }
    if overdispersion < 1.0 + 1e-9 {
        return Ok(ln_poisson_lower_tail(runs, expected));
    }
    // Variance φμ: size μ/(φ−1), success probability 1/φ.
    let size = expected / (overdispersion - 1.0);
    Ok(ln_beta(1.0 / overdispersion, 1.0 - 1.0 / overdispersion, size, runs as f64 + 1.0))
}

/// Returns true if each of the last [`QUIET_WINDOWS`] windows, given as runs and expected runs, is so quiet that its
/// probability is below [`QUIET_PROBABILITY`].
///
/// # Errors
/// Same as [`ln_quiet`].
pub fn is_silent(windows: &[(u64, f64)], overdispersion: f64) -> Result<bool, Invalid> {
    if windows.len() < QUIET_WINDOWS {
        return Ok(false);
    }
    for (runs, expected) in &windows[windows.len() - QUIET_WINDOWS..] {
        if ln_quiet(*runs, *expected, overdispersion)? >= QUIET_PROBABILITY.ln() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn the_states_are_distinguished() {
        let window = |end, runs, least_runs| WindowRuns { end, runs, least_runs };
        let of = |watermark, now, runs| Liveness::new(&window(MINUTE, runs, 20), watermark, now, 5 * MINUTE);
        assert_eq!(of(Watermark::At(MINUTE), 2 * MINUTE, 0), Liveness::NoTraffic);
        assert_eq!(of(Watermark::At(MINUTE), 2 * MINUTE, 19), Liveness::Insufficient);
        assert_eq!(of(Watermark::At(MINUTE), 2 * MINUTE, 20), Liveness::Enough);
        assert_eq!(of(Watermark::At(MINUTE - 1), 2 * MINUTE, 500), Liveness::Pending);
        assert_eq!(of(Watermark::At(MINUTE - 1), 7 * MINUTE, 500), Liveness::NoData);
        assert_eq!(of(Watermark::Unknown, 7 * MINUTE, 0), Liveness::NoData);
        assert_eq!(of(Watermark::Idle, 7 * MINUTE, 0), Liveness::NoTraffic);
        assert_eq!(of(Watermark::Idle, 0, 0), Liveness::Pending);
        // Replayed history and wrong clocks do not overflow.
        assert_eq!(Liveness::new(&window(i64::MAX, 0, 1), Watermark::At(i64::MIN), i64::MIN, 0), Liveness::Pending);
        assert_eq!(Liveness::new(&window(i64::MIN, 0, 1), Watermark::Unknown, i64::MAX, 0), Liveness::NoData);
    }

    #[test]
    fn completeness_is_the_fraction_of_sent_messages() {
        assert_eq!(completeness(1, 1000, 987), Ok(Some(0.987)));
        assert_eq!(completeness(5, 4, 0), Ok(None));
        assert_eq!(completeness(0, u64::MAX, 0), Ok(Some(0.0)));
        assert!(completeness(1, 10, 11).is_err());
    }

    #[test]
    fn a_silent_producer_is_found_and_a_quiet_night_is_not() {
        assert_eq!(is_silent(&[(100, 100.0), (0, 100.0), (0, 100.0)], 1.0), Ok(true));
        assert_eq!(is_silent(&[(0, 100.0), (80, 100.0)], 1.0), Ok(false));
        assert_eq!(is_silent(&[(0, 0.5), (0, 0.5)], 1.0), Ok(false));
        assert_eq!(is_silent(&[(0, 100.0)], 1.0), Ok(false));
        assert_eq!(is_silent(&[(50, 100.0), (50, 100.0)], 1.0), Ok(true));
        assert_eq!(is_silent(&[(50, 100.0), (50, 100.0)], 5.0), Ok(false));
        assert!(is_silent(&[(0, 0.0), (0, 0.0)], 1.0).is_err() && ln_quiet(0, 1.0, 0.5).is_err());
    }

    #[test]
    fn tails_match_scipy() {
        // scipy.stats.nbinom.logcdf(40, 100/4, 1/5) and poisson.logcdf(60, 100).
        close(ln_quiet(40, 100.0, 5.0).expect("ln P"), NEGATIVE_BINOMIAL);
        close(ln_quiet(60, 100.0, 1.0).expect("ln P"), POISSON);
        for runs in [0, 1, 900_000_000, 1_000_000_000] {
            for expected in [1e-9, 1.0, 1e9] {
                for overdispersion in [1.0, 1.0 + 1e-8, 3.0, 1e6] {
                    let found = ln_quiet(runs, expected, overdispersion).expect("ln P");
                    assert!(found <= 0.0, "{runs} of {expected} at {overdispersion}: {found}");
                }
            }
        }
    }

    const NEGATIVE_BINOMIAL: f64 = -7.678_427_399_010_094;
    const POISSON: f64 = -11.434_833_751_225_725;
}
