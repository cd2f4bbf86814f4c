//! Thresholds derived from "at most X false alarms a month".
//!
//! A severity's budget is divided among its rules by their weights. A rule that compares releases spends its part on
//! hypotheses, one per release and task: the i-th that begins in a month (30 days of event time) gets α_i = b (c+1) /
//! ((i+c)(i+c+1)). These sum to at most b however many begin, because the sum telescopes. By Ville's inequality, the
//! expected number of false alarms of the month's hypotheses, over their whole lives, is at most b. A rule that
//! compares a series with its own past divides its part among the existing series: A = series × updates a month / b,
//! which is a lower bound of the mean number of updates between false alarms. A rule that does both spends half on
//! each.
//!
//! The number of a hypothesis follows from the first windows of the series, so a replay assigns the same number.

use bellwether_stats::sequential::detector_threshold;

use crate::observation::Minute;

/// The constant c: roughly this many hypotheses of a month get similar shares of the budget.
const EVEN: f64 = 10.0;

/// A month of the budget, minutes.
pub const MONTH: i64 = 30 * 24 * 60;

/// Thresholds of the evidence, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Threshold of an e-process: ln 1/α.
    pub e: f64,
    /// Its α.
    pub alpha: f64,
    /// Threshold of an e-detector: ln A.
    pub detector: f64,
    /// Expected false alarms of this series per month.
    pub alarms_per_month: f64,
}

/// How a rule spends its part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// On hypotheses, one per release.
    Releases,
    /// Continuously over time.
    Time,
    /// Half on hypotheses, half over time.
    Both,
}

/// The budget of one rule and the series that share it.
#[derive(Clone, Debug)]
pub struct Budget {
    false_alarms_per_month: f64,
    spending: Spending,
    /// Maximum number of updates of a series per month.
    updates_per_month: f64,
    /// First windows of all series, with their keys, in order.
    started: Vec<(Minute, Box<str>)>,
}

// === impl Budget ===

impl Budget {
    /// Creates the budget of a rule with series that are updated every `minutes`.
    pub fn new(false_alarms_per_month: f64, spending: Spending, minutes: i64) -> Self {
        let updates_per_month = (MONTH / minutes.max(1)) as f64;
        Self {
            false_alarms_per_month: false_alarms_per_month.max(1e-9),
            spending,
            updates_per_month,
            started: Vec::new(),
        }
    }

    /// Registers the first window of a series.
    pub fn register(&mut self, key: &str, started: Minute) {
        if let Err(place) = self.place(key, started) {
            // There are many, and a list that doubles would leave half of its room unused.
            if self.started.len() == self.started.capacity() {
                self.started.reserve_exact(self.started.len() / 8 + 1);
            }
            self.started.insert(place, (started, key.into()));
        }
    }

    fn place(&self, key: &str, started: Minute) -> Result<usize, usize> {
        self.started.binary_search_by(|(at, name)| (*at, &**name).cmp(&(started, key)))
    }

    /// Returns the number of series that began before a time.
    fn before(&self, moment: Minute) -> usize {
        self.started.partition_point(|(at, _)| *at < moment)
    }

    /// Removes a series, for example when a correction changes its first window.
    pub fn forget(&mut self, key: &str, started: Minute) {
        if let Ok(place) = self.place(key, started) {
            self.started.remove(place);
        }
    }

    /// Returns the number of series.
    pub fn series(&self) -> usize {
        self.started.len()
    }

    /// Returns the thresholds at time `now` of a series that began at `started`.
    #[expect(clippy::cast_precision_loss, reason = "numbers of series are far below 2^53")]
    pub fn thresholds(&self, key: &str, started: Minute, now: Minute) -> Thresholds {
        let half = if self.spending == Spending::Both { 0.5 } else { 1.0 };
        let part = self.false_alarms_per_month * half;
        let place = self.place(key, started).unwrap_or_else(|place| place);
        let number = (place - self.before(started.div_euclid(MONTH).saturating_mul(MONTH))) as f64 + 1.0;
        // An α above one half is no alarm, however large the budget.
        let alpha = (part * (EVEN + 1.0) / ((number + EVEN) * (number + EVEN + 1.0))).min(0.5);
        let series = self.before(now.saturating_add(1)).max(1) as f64;
        let detector = detector_threshold(series, self.updates_per_month, part).unwrap_or(f64::INFINITY);
        Thresholds {
            e: -alpha.ln(),
            alpha,
            detector: detector.max(std::f64::consts::LN_2),
            alarms_per_month: part / series,
        }
    }

    /// Returns the part of the month's budget that has been allocated: Σ α of the hypotheses that began in the month,
    /// plus the part that is spent over time.
    #[expect(clippy::cast_precision_loss, reason = "numbers of series are far below 2^53")]
    pub fn spent(&self, moment: Minute) -> f64 {
        let half = if self.spending == Spending::Both { 0.5 } else { 1.0 };
        let part = self.false_alarms_per_month * half;
        let from = moment.div_euclid(MONTH).saturating_mul(MONTH);
        let started = (self.before(from.saturating_add(MONTH)) - self.before(from)) as f64;
        let releases = part * (1.0 - (EVEN + 1.0) / (started + EVEN + 1.0));
        let time = if self.started.is_empty() { 0.0 } else { part };
        match self.spending {
            Spending::Releases => releases,
            Spending::Time => time,
            Spending::Both => releases + time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_never_spends_more_than_its_budget() {
        let mut budget = Budget::new(0.3, Spending::Releases, 1);
        let mut sum = 0.0;
        for number in 0..5000 {
            budget.register(&format!("series {number:05}"), number / 100);
        }
        for number in 0..5000 {
            sum += budget.thresholds(&format!("series {number:05}"), number / 100, MONTH).alpha;
        }
        assert!(sum < 0.3 && sum > 0.29, "{sum}");
        assert!((budget.spent(10) - sum).abs() < 1e-9);
        assert_eq!(budget.spent(MONTH + 1), 0.0);
        // The next month starts with a full budget.
        budget.register("later", MONTH + 5);
        let first = budget.thresholds("later", MONTH + 5, MONTH + 5);
        assert!((first.alpha - 0.3 / 12.0).abs() < 1e-12, "{first:?}");
        assert!((first.e + first.alpha.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_series_gets_the_same_number_in_any_order_of_registration() {
        let notes = [("b", 5), ("a", 5), ("c", 1)];
        let mut budgets = [Budget::new(1.0, Spending::Both, 5), Budget::new(1.0, Spending::Both, 5)];
        notes.iter().for_each(|(key, at)| budgets[0].register(key, *at));
        notes.iter().rev().for_each(|(key, at)| budgets[1].register(key, *at));
        for (key, at) in notes {
            assert_eq!(budgets[0].thresholds(key, at, 9), budgets[1].thresholds(key, at, 9));
        }
        assert!(budgets[0].thresholds("c", 1, 9).alpha > budgets[0].thresholds("a", 5, 9).alpha);
        // ARL: 3 series × 8640 updates a month / half of one false alarm.
        assert!((budgets[0].thresholds("c", 1, 9).detector - (3.0 * 8640.0 / 0.5_f64).ln()).abs() < 1e-12);
    }
}
