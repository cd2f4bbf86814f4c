//! Thresholds from "at most X false alarms a month".
//!
//! A severity's budget is divided among its rules by their weights. A rule that compares releases spends its part on
//! hypotheses, one a release and task: the i-th that begins in a month (of 30 days, by event time) gets
//! α_i = b (c+1) / ((i+c)(i+c+1)), which sums to b however many begin, because it telescopes; by Ville's inequality the
//! expected number of false alarms of the month's hypotheses, over their whole lives, is at most b. A rule that watches
//! one's own past divides its part among the series that are there: A = series × updates a month / b, which is at least
//! the mean number of updates between false alarms. A rule that does both spends half on each.
//!
//! Which number a hypothesis has follows from the windows in which the series began, so that a replay gives it the same.

use bellwether_stats::sequential::detector_threshold;

use crate::observation::Minute;

/// Hypotheses of a month up to which they share about evenly.
const EVEN: f64 = 10.0;

/// A month of the budget, minutes.
pub const MONTH: i64 = 30 * 24 * 60;

/// What evidence has to reach, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Of an e-process: ln 1/α.
    pub e: f64,
    /// Its α.
    pub alpha: f64,
    /// Of an e-detector: ln A.
    pub detector: f64,
    /// False alarms of this series a month.
    pub alarms_a_month: f64,
}

/// How a rule spends its part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// On hypotheses.
    Releases,
    /// On time.
    Time,
    /// Half on each.
    Both,
}

/// The part of one rule, and what it is spent on.
#[derive(Clone, Debug)]
pub struct Budget {
    false_alarms_a_month: f64,
    spending: Spending,
    /// Updates of a series a month, at most.
    updates_a_month: f64,
    /// Beginnings of all series, with their keys, in order.
    begun: Vec<(Minute, String)>,
}

// === impl Budget ===

impl Budget {
    /// A rule may give so many false alarms a month, and its series are updated every `minutes`.
    pub fn new(false_alarms_a_month: f64, spending: Spending, minutes: i64) -> Self {
        let updates_a_month = (MONTH / minutes.max(1)) as f64;
        Self { false_alarms_a_month: false_alarms_a_month.max(1e-9), spending, updates_a_month, begun: Vec::new() }
    }

    /// Notes when a series began.
    pub fn note(&mut self, key: &str, begun: Minute) {
        if let Err(place) = self.place(key, begun) {
            self.begun.insert(place, (begun, key.to_owned()));
        }
    }

    fn place(&self, key: &str, begun: Minute) -> Result<usize, usize> {
        self.begun.binary_search_by(|(at, name)| (*at, name.as_str()).cmp(&(begun, key)))
    }

    /// Series that began before a moment.
    fn before(&self, moment: Minute) -> usize {
        self.begun.partition_point(|(at, _)| *at < moment)
    }

    /// Takes back a note, as of a series whose beginning was corrected.
    pub fn forget(&mut self, key: &str, begun: Minute) {
        if let Ok(place) = self.place(key, begun) {
            self.begun.remove(place);
        }
    }

    /// Series that have begun.
    pub fn series(&self) -> usize {
        self.begun.len()
    }

    /// The thresholds, at a moment, of a series that began at another.
    #[expect(clippy::cast_precision_loss, reason = "numbers of series are far below 2^53")]
    pub fn thresholds(&self, key: &str, begun: Minute, now: Minute) -> Thresholds {
        let half = if self.spending == Spending::Both { 0.5 } else { 1.0 };
        let part = self.false_alarms_a_month * half;
        let place = self.place(key, begun).unwrap_or_else(|place| place);
        let number = (place - self.before(begun.div_euclid(MONTH).saturating_mul(MONTH))) as f64 + 1.0;
        // A chance of one in two is no alarm, however large the budget.
        let alpha = (part * (EVEN + 1.0) / ((number + EVEN) * (number + EVEN + 1.0))).min(0.5);
        let series = self.before(now.saturating_add(1)).max(1) as f64;
        let detector = detector_threshold(series, self.updates_a_month, part).unwrap_or(f64::INFINITY);
        Thresholds {
            e: -alpha.ln(),
            alpha,
            detector: detector.max(std::f64::consts::LN_2),
            alarms_a_month: part / series,
        }
    }

    /// False alarms that are allowed in the month of a moment, as far as they have been given out: Σ α of the hypotheses
    /// that began in it, and the part that goes by time.
    #[expect(clippy::cast_precision_loss, reason = "numbers of series are far below 2^53")]
    pub fn spent(&self, moment: Minute) -> f64 {
        let half = if self.spending == Spending::Both { 0.5 } else { 1.0 };
        let part = self.false_alarms_a_month * half;
        let from = moment.div_euclid(MONTH).saturating_mul(MONTH);
        let begun = (self.before(from.saturating_add(MONTH)) - self.before(from)) as f64;
        let releases = part * (1.0 - (EVEN + 1.0) / (begun + EVEN + 1.0));
        let time = if self.begun.is_empty() { 0.0 } else { part };
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
            budget.note(&format!("series {number:05}"), number / 100);
        }
        for number in 0..5000 {
            sum += budget.thresholds(&format!("series {number:05}"), number / 100, MONTH).alpha;
        }
        assert!(sum < 0.3 && sum > 0.29, "{sum}");
        assert!((budget.spent(10) - sum).abs() < 1e-9);
        assert_eq!(budget.spent(MONTH + 1), 0.0);
        // The next month begins anew.
        budget.note("later", MONTH + 5);
        let first = budget.thresholds("later", MONTH + 5, MONTH + 5);
        assert!((first.alpha - 0.3 / 12.0).abs() < 1e-12, "{first:?}");
        assert!((first.e + first.alpha.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_series_has_its_number_whatever_the_order_of_notes() {
        let notes = [("b", 5), ("a", 5), ("c", 1)];
        let mut budgets = [Budget::new(1.0, Spending::Both, 5), Budget::new(1.0, Spending::Both, 5)];
        notes.iter().for_each(|(key, at)| budgets[0].note(key, *at));
        notes.iter().rev().for_each(|(key, at)| budgets[1].note(key, *at));
        for (key, at) in notes {
            assert_eq!(budgets[0].thresholds(key, at, 9), budgets[1].thresholds(key, at, 9));
        }
        assert!(budgets[0].thresholds("c", 1, 9).alpha > budgets[0].thresholds("a", 5, 9).alpha);
        // ARL: 3 series × 8640 updates a month / half of one false alarm.
        assert!((budgets[0].thresholds("c", 1, 9).detector - (3.0 * 8640.0 / 0.5_f64).ln()).abs() < 1e-12);
    }
}
