//! Counts by hour: the past of a series, small enough to keep for months.

use std::collections::{BTreeMap, VecDeque};

use crate::observation::Measure;
use crate::weights::{Arm, ONE, WeightSums};

use crate::season::Season;

/// Bad runs and runs by hour since the epoch, without gaps between the first and the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    season: Season,
    first: i64,
    counts: VecDeque<(i32, i32)>,
    /// Weight sums by hour; runs of hours without an entry have weight 1.
    weights: BTreeMap<i64, WeightSums>,
}

/// Maximum span in hours: a larger gap means a wrong clock.
const MAX_HOURS: i64 = 24 * 366;

// === impl Hours ===

impl Hours {
    /// Creates an empty past with weeks in the time zone of `season`.
    pub fn new(season: Season) -> Self {
        Self { season, ..Self::default() }
    }

    /// Returns the time zone of its weeks.
    pub fn season(&self) -> Season {
        self.season
    }

    /// Adds to an hour, and forgets hours more than `keep` before the newest. Returns false if the hour is too old.
    pub fn add(&mut self, hour: i64, events: i64, runs: i64, keep: i64) -> bool {
        if self.counts.is_empty() {
            self.first = hour;
        }
        let keep = keep.clamp(1, MAX_HOURS);
        let last = self.first + i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if hour < last - keep {
            return false;
        }
        if hour >= last + keep {
            // All earlier hours are beyond the limit.
            self.counts.clear();
            self.first = hour;
        }
        while hour < self.first {
            self.counts.push_front((0, 0));
            self.first -= 1;
        }
        let place = usize::try_from(hour - self.first).unwrap_or(usize::MAX);
        while self.counts.len() <= place {
            self.counts.push_back((0, 0));
        }
        while i64::try_from(self.counts.len()).unwrap_or(i64::MAX) > keep {
            self.counts.pop_front();
            self.first += 1;
        }
        let place = usize::try_from(hour - self.first).unwrap_or(usize::MAX);
        let held = |value: i64| i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX });
        if let Some(slot) = self.counts.get_mut(place) {
            *slot = (slot.0.saturating_add(held(events)), slot.1.saturating_add(held(runs)));
        }
        true
    }

    /// Like [`Hours::add`], with weights.
    pub fn add_measure(&mut self, hour: i64, measure: &Measure, keep: i64) -> bool {
        let before = self.arm(hour);
        if !self.add(hour, measure.events, measure.runs, keep) {
            return false;
        }
        if measure.weights.is_some() || self.weights.contains_key(&hour) {
            let sums = self.weights.entry(hour).or_insert(before.sums);
            sums.add(&measure.weight_sums());
        }
        if self.weights.first_key_value().is_some_and(|(hour, _)| *hour < self.first) {
            self.weights = self.weights.split_off(&self.first);
        }
        true
    }

    /// Returns the counts of an hour.
    pub fn arm(&self, hour: i64) -> Arm {
        let place = usize::try_from(hour - self.first).ok();
        let (events, runs) = place.and_then(|place| self.counts.get(place)).copied().unwrap_or((0, 0));
        let (events, runs) = (i64::from(events), i64::from(runs));
        let sums = self.weights.get(&hour).copied().unwrap_or_else(|| WeightSums::uniform(events, runs, ONE));
        Arm { events, runs, sums }
    }

    /// Returns the hours [from, to) that have runs, with weight sums.
    pub fn arms(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, Arm)> + '_ {
        self.range(from, to).map(|(hour, ..)| (hour, self.arm(hour)))
    }

    /// Returns bad runs and runs of the hours [from, to) that have any.
    pub fn range(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        let skip = usize::try_from((from - self.first).max(0)).unwrap_or(usize::MAX);
        let end = usize::try_from((to - self.first).max(0)).unwrap_or(0).min(self.counts.len());
        (skip.min(end)..end).filter_map(move |place| {
            let (events, runs) = *self.counts.get(place)?;
            (events != 0 || runs != 0).then(|| (self.first + place as i64, i64::from(events), i64::from(runs)))
        })
    }

    /// Returns the hours [from, to) by the wall clock, with their runs, including hours without runs, from the first
    /// known hour on.
    pub fn runs_by_clock(&self, from: i64, to: i64) -> Vec<(i64, u64)> {
        let from = self.first().map_or(to, |first| first.max(from));
        let runs = |hour: i64| {
            let place = usize::try_from(hour - self.first).ok()?;
            self.counts.get(place).map(|counts| u64::try_from(counts.1).unwrap_or(0))
        };
        (from..to).map(|hour| (self.season.local_hour(hour), runs(hour).unwrap_or(0))).collect()
    }

    /// Returns the first known hour.
    pub fn first(&self) -> Option<i64> {
        (!self.counts.is_empty()).then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_add_up_in_any_order_and_old_ones_go() {
        let mut hours = Hours::default();
        assert!(hours.add(100, 1, 10, 50) && hours.add(98, 2, 20, 50) && hours.add(100, -1, -3, 50));
        assert_eq!(hours.range(0, 200).collect::<Vec<_>>(), [(98, 2, 20), (100, 0, 7)]);
        assert_eq!(hours.range(99, 100).count(), 0);
        assert!(hours.add(140, 1, 1, 50));
        assert!(!hours.add(80, 1, 1, 50));
        assert_eq!(hours.range(0, 200).map(|hour| hour.0).collect::<Vec<_>>(), [98, 100, 140]);
        assert!(hours.add(149, 1, 1, 50));
        assert_eq!(hours.first(), Some(100));
        assert!(hours.add(10_000, 5, 6, 50));
        assert_eq!(hours.range(0, 20_000).collect::<Vec<_>>(), [(10_000, 5, 6)]);
    }

    #[test]
    fn hours_keep_weights() {
        let mut hours = Hours::default();
        let of = |events, runs, weight| Measure::from_counts(events, runs).with_weight(weight);
        assert!(hours.add_measure(100, &of(1, 10, ONE), 50) && hours.weights.is_empty());
        assert!(hours.add_measure(100, &of(0, 4, 5 * ONE), 50));
        assert_eq!((hours.arm(100).seen_counts(), hours.arm(100).weighted_counts()), ((1, 14), (1, 30)));
        assert!(hours.add_measure(100, &of(0, -4, 5 * ONE), 50));
        assert_eq!(hours.arm(100).weight(), Some(ONE));
        assert!(hours.add_measure(200, &of(0, 1, 5 * ONE), 50));
        assert_eq!(
            hours.arms(0, 300).map(|(hour, arm)| (hour, arm.weighted_counts())).collect::<Vec<_>>(),
            [(200, (0, 5))]
        );
        assert_eq!(hours.weights.len(), 1);
    }
}
