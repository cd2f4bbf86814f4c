//! Simple peers on the same counts: tests and thresholds that are evaluated repeatedly. Peers that are Python packages
//! run in `peers/peers.py`; these are formulas of a line or two.

use std::collections::VecDeque;

use bellwether_stats::interval::normal_quantile;

/// A one-sided two-proportion z-test of all runs so far, repeated at every look.
#[derive(Clone, Copy, Debug)]
pub struct PeekedZ {
    critical: f64,
    counts: [(f64, f64); 2],
}

// === impl PeekedZ ===

impl PeekedZ {
    /// With a level, as if there was one look.
    pub fn new(alpha: f64) -> Self {
        Self { critical: normal_quantile(1.0 - alpha), counts: [(0.0, 0.0); 2] }
    }

    /// Adds events and runs of baseline and canary; returns true if it alarms.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn alarms(&mut self, counts: [(u64, u64); 2]) -> bool {
        for (sum, (events, runs)) in self.counts.iter_mut().zip(counts) {
            *sum = (sum.0 + events as f64, sum.1 + runs as f64);
        }
        let [(s_a, n_a), (s_b, n_b)] = self.counts;
        // The usual rule of thumb: no test below thirty runs and five events.
        if n_a < 30.0 || n_b < 30.0 || s_a + s_b < 5.0 {
            return false;
        }
        let pooled = (s_a + s_b) / (n_a + n_b);
        let error = (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b)).sqrt();
        (s_b / n_b - s_a / n_a) / error > self.critical
    }
}

/// `error rate over some minutes > threshold`, for some minutes: an alerting rule in Prometheus style.
#[derive(Clone, Debug)]
pub struct Threshold {
    threshold: f64,
    windows: usize,
    held_for: u32,
    recent: VecDeque<(u64, u64)>,
    above: u32,
}

// === impl Threshold ===

impl Threshold {
    /// Creates a rule on the last `windows` windows that must hold for `held_for` more.
    pub fn new(threshold: f64, windows: usize, held_for: u32) -> Self {
        Self { threshold, windows, held_for, recent: VecDeque::new(), above: 0 }
    }

    /// Adds a window; returns true if the rule fires.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn fires(&mut self, events: u64, runs: u64) -> bool {
        self.recent.push_back((events, runs));
        if self.recent.len() > self.windows {
            self.recent.pop_front();
        }
        let (events, runs) = self.recent.iter().fold((0, 0), |sum, window| (sum.0 + window.0, sum.1 + window.1));
        let above = runs > 0 && events as f64 / runs as f64 > self.threshold;
        self.above = if above { self.above + 1 } else { 0 };
        self.above > self.held_for
    }
}

/// Compares an hour with the same hour a week ago: a one-sided z-test, hourly.
#[derive(Clone, Debug)]
pub struct LastWeek {
    critical: f64,
    hours: Vec<(f64, f64)>,
}

// === impl LastWeek ===

impl LastWeek {
    /// With a level, as if there was one look.
    pub fn new(alpha: f64) -> Self {
        Self { critical: normal_quantile(1.0 - alpha), hours: Vec::new() }
    }

    /// Adds an hour; returns true if it fires.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn fires(&mut self, events: u64, runs: u64) -> bool {
        let now = (events as f64, runs as f64);
        let before = self.hours.len().checked_sub(168).and_then(|place| self.hours.get(place)).copied();
        self.hours.push(now);
        let Some((s_a, n_a)) = before else { return false };
        if n_a < 30.0 || now.1 < 30.0 || s_a + now.0 < 5.0 {
            return false;
        }
        let pooled = (s_a + now.0) / (n_a + now.1);
        let error = (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / now.1)).sqrt();
        (now.0 / now.1 - s_a / n_a) / error > self.critical
    }
}

/// Records the times at which a rule starts to fire.
#[derive(Clone, Debug, Default)]
pub struct Episodes {
    firing: bool,
    /// The times.
    pub starts: Vec<i64>,
}

// === impl Episodes ===

impl Episodes {
    /// Records whether the rule fires at a time.
    pub fn at(&mut self, moment: i64, fires: bool) {
        if fires && !self.firing {
            self.starts.push(moment);
        }
        self.firing = fires;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_z_test_alarms_at_its_critical_value() {
        // z = 2.08 by hand: (0.1615 − 0.1000) / √(0.1308·0.8692·(1/260 + 1/260)).
        let counts = [(26, 260), (42, 260)];
        assert!(PeekedZ::new(0.05).alarms(counts));
        assert!(!PeekedZ::new(0.01).alarms(counts));
        assert!(!PeekedZ::new(0.05).alarms([(0, 29), (29, 29)]));
    }

    #[test]
    fn a_threshold_waits_for_its_duration_and_an_episode_counts_once() {
        let mut rule = Threshold::new(0.1, 2, 1);
        let mut episodes = Episodes::default();
        for (moment, (events, runs)) in
            (0..).zip([(0, 10), (5, 10), (5, 10), (0, 10), (0, 10), (9, 10), (9, 10), (0, 0)])
        {
            episodes.at(moment, rule.fires(events, runs));
        }
        assert_eq!(episodes.starts, [2, 6]);
    }

    #[test]
    fn last_week_is_168_hours_ago() {
        let mut rule = LastWeek::new(0.01);
        assert!((0..168).all(|_| !rule.fires(10, 100)));
        assert!(!rule.fires(10, 100) && rule.fires(40, 100));
    }
}
