//! The precision of a rule: the share of its firings that people called useful.

use bellwether_stats::interval::{Interval, wilson};

use super::Verdict;

/// Feedback on the firings of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    pub useful: u64,
    pub noise: u64,
}

// === impl Precision ===

impl Precision {
    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Useful => self.useful += 1,
            Verdict::Noise => self.noise += 1,
        }
    }

    /// Returns the share of useful firings; none without feedback.
    pub fn share(self) -> Option<f64> {
        let judged = self.useful + self.noise;
        (judged > 0).then(|| self.useful as f64 / judged as f64)
    }

    /// Returns the 95 % interval of the share, as `wilson_low` and `wilson_high` in SQL.
    pub fn interval(self) -> Option<Interval> {
        wilson(self.useful as f64, (self.useful + self.noise) as f64, 0.95)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_an_interval_and_nothing_has_none() {
        let precision = Precision { useful: 45, noise: 5 };
        assert_eq!(precision.share(), Some(0.9));
        let interval = precision.interval().expect("an interval");
        assert!((interval.low - 0.786_398).abs() < 1e-6 && (interval.high - 0.956_524).abs() < 1e-6, "{interval:?}");
        assert_eq!((Precision::default().share(), Precision::default().interval()), (None, None));
    }
}
