//! Counts by hour: the past of a series, small enough to keep for months.

use std::collections::VecDeque;

/// Bad runs and runs by hour since the epoch, without gaps between the first and the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    first: i64,
    counts: VecDeque<(i32, i32)>,
}

/// Hours that one list may span: what lies further apart is a clock gone wrong.
const MOST: i64 = 24 * 366;

// === impl Hours ===

impl Hours {
    /// Adds to an hour, and forgets those more than `keep` hours before the newest. False where the hour is too old.
    pub fn add(&mut self, hour: i64, events: i64, runs: i64, keep: i64) -> bool {
        if self.counts.is_empty() {
            self.first = hour;
        }
        let keep = keep.clamp(1, MOST);
        let last = self.first + i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if hour < last - keep {
            return false;
        }
        if hour >= last + keep {
            // Nothing of before is within what is kept.
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

    /// Bad runs and runs of the hours [from, to) that have any.
    pub fn range(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        let skip = usize::try_from((from - self.first).max(0)).unwrap_or(usize::MAX);
        let end = usize::try_from((to - self.first).max(0)).unwrap_or(0).min(self.counts.len());
        (skip.min(end)..end).filter_map(move |place| {
            let (events, runs) = *self.counts.get(place)?;
            (events != 0 || runs != 0).then(|| (self.first + place as i64, i64::from(events), i64::from(runs)))
        })
    }

    /// The first hour that is known.
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
}
