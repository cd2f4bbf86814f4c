//! Aggregates seeds: proportions, delays and rates with their 95 % confidence intervals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bellwether_stats::interval::{poisson_rate, wilson};
use serde::Serialize;

/// Confidence of every interval.
const CONFIDENCE: f64 = 0.95;

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The estimate; none if it was not reached.
    pub value: Option<f64>,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// One row of a table: a detector on a scenario, over many seeds.
#[derive(Clone, Debug, Serialize)]
pub struct TableRow {
    /// Scenario, such as `R1 -5 pp`.
    pub scenario: String,
    pub traffic: String,
    /// Detector or peer.
    pub detector: String,
    pub seeds: u64,
    /// Fraction of seeds that alarmed, 0 to 1.
    pub alarmed: Option<Figure>,
    /// Median minutes from the change to the alarm.
    pub minutes: Option<Figure>,
    /// 90th percentile of the minutes.
    pub minutes_p90: Option<f64>,
    /// Median canary runs from the change to the alarm.
    pub runs: Option<Figure>,
    /// False alarms per week.
    pub false_a_week: Option<Figure>,
    /// Another figure, with its name.
    pub other: Option<(String, Figure)>,
}

/// Calls `of` for every seed, on all cores, and returns the results in the order of the seeds.
pub fn over_seeds<T: Send>(seeds: std::ops::Range<u64>, of: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let answer = of(seed);
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((seed, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(seed, _)| *seed);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Returns a proportion with Wilson's interval.
#[expect(clippy::cast_precision_loss, reason = "seeds are few")]
pub fn share(happened: usize, of: usize) -> Figure {
    let interval = wilson(happened as f64, of as f64, CONFIDENCE);
    Figure {
        value: (of > 0).then(|| happened as f64 / of as f64),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
    }
}

/// Returns a rate of counts with Byar's interval.
#[expect(clippy::cast_precision_loss, reason = "alarms are few")]
pub fn rate(count: usize, exposure: f64) -> Figure {
    let interval = poisson_rate(count as f64, exposure, CONFIDENCE);
    Figure {
        value: Some(count as f64 / exposure),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
    }
}

/// Returns the median of delays, with missing ones as the longest, and its interval by order statistics.
#[expect(clippy::cast_precision_loss, reason = "seeds are few")]
pub fn median(delays: &[Option<f64>]) -> Figure {
    let sorted = sorted(delays);
    let n = sorted.len() as f64;
    let half = 0.98 * n.sqrt();
    let at = |place: f64| quantile_at(&sorted, place);
    Figure { value: at((n - 1.0) / 2.0), low: at((n / 2.0 - half - 1.0).max(0.0)), high: at(n / 2.0 + half) }
}

/// Returns the delay that a fraction of the seeds does not exceed.
#[expect(clippy::cast_precision_loss, reason = "seeds are few")]
pub fn quantile(delays: &[Option<f64>], share: f64) -> Option<f64> {
    let sorted = sorted(delays);
    quantile_at(&sorted, (share * sorted.len() as f64).ceil() - 1.0)
}

fn sorted(delays: &[Option<f64>]) -> Vec<f64> {
    let mut sorted: Vec<f64> = delays.iter().map(|delay| delay.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Returns the value at an index, rounded up; none if the alarm never came.
fn quantile_at(sorted: &[f64], place: f64) -> Option<f64> {
    // Indices are small and not negative.
    sorted.get(place.ceil().max(0.0) as usize).copied().filter(|value| value.is_finite())
}

// === impl Row ===

impl TableRow {
    /// Creates a row without figures.
    pub fn new(
        scenario: impl Into<String>,
        traffic: impl Into<String>,
        detector: impl Into<String>,
        seeds: usize,
    ) -> Self {
        Self {
            scenario: scenario.into(),
            traffic: traffic.into(),
            detector: detector.into(),
            seeds: u64::try_from(seeds).unwrap_or(u64::MAX),
            alarmed: None,
            minutes: None,
            minutes_p90: None,
            runs: None,
            false_a_week: None,
            other: None,
        }
    }

    /// Sets the delays of all seeds: minutes, and runs if known.
    #[must_use]
    pub fn delays(self, delays: &[Option<(f64, f64)>]) -> Self {
        let of = |part: fn((f64, f64)) -> f64| delays.iter().map(|delay| delay.map(part)).collect::<Vec<_>>();
        let (minutes, runs) = (of(|delay| delay.0), of(|delay| delay.1));
        Self {
            alarmed: Some(share(delays.iter().flatten().count(), delays.len())),
            minutes: Some(median(&minutes)),
            minutes_p90: quantile(&minutes, 0.9),
            runs: Some(median(&runs)).filter(|figure| figure.value.is_some_and(|value| value > 0.0)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_count_missing_delays() {
        let figure = median(&[Some(3.0), None, Some(1.0), Some(2.0), None]);
        assert_eq!(figure.value, Some(3.0));
        assert_eq!(figure.high, None);
        assert_eq!(median(&[None, None, Some(1.0)]).value, None);
        assert_eq!(quantile(&(1..=10).map(|n| Some(f64::from(n))).collect::<Vec<_>>(), 0.9), Some(9.0));
    }

    #[test]
    fn all_seeds_are_run_and_returned_in_order() {
        let doubled = over_seeds(10..210, |seed| 2 * seed);
        assert_eq!(doubled, (10..210).map(|seed| 2 * seed).collect::<Vec<_>>());
    }

    #[test]
    fn the_interval_of_a_median_has_its_coverage() {
        let held = (0..400_u64).filter(|trial| {
            let key = crate::chance::Key::new(*trial);
            let figure = median(&(0..60).map(|place| Some(key.at(place).uniform())).collect::<Vec<_>>());
            figure.low.is_some_and(|low| low <= 0.5) && figure.high.is_some_and(|high| high >= 0.5)
        });
        assert!(held.count() >= 372, "95 % of 400");
    }
}
