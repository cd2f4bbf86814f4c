//! How far the sources are in event time, from what ingest notes in the log: which windows are complete.

use std::collections::BTreeMap;

use bellwether_detect::Minute;
use bellwether_lake::LogEntry;

use crate::observe::MINUTE_MICROS;

/// A partition whose newest event is this much older than that of the furthest one, and which has nothing unread, is idle
/// and holds nobody back.
const IDLE_MICROS: i64 = 5 * MINUTE_MICROS;

/// Newest events of the partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    partitions: BTreeMap<(String, i32), Partition>,
}

#[derive(Clone, Copy, Debug)]
struct Partition {
    newest: i64,
    /// The broker had more when it was last read.
    unread: bool,
}

// === impl Progress ===

impl Progress {
    /// Notes what a commit to `events` says.
    pub(crate) fn note(&mut self, entry: &LogEntry) {
        for range in &entry.ranges {
            let unread = range.end_offset.is_some_and(|end| end > range.next);
            let place = (range.topic.clone(), range.partition);
            if let Some(known) = self.partitions.get_mut(&place) {
                known.newest = known.newest.max(range.newest_event_micros.unwrap_or(i64::MIN));
                known.unread = unread;
            } else if let Some(newest) = range.newest_event_micros {
                self.partitions.insert(place, Partition { newest, unread });
            }
        }
    }

    fn newest(&self) -> Option<i64> {
        self.partitions.values().map(|partition| partition.newest).max()
    }

    /// True where a broker holds messages that have not been read.
    pub(crate) fn is_behind(&self) -> bool {
        self.partitions.values().any(|partition| partition.unread)
    }

    /// Windows before this moment are complete: every partition is past them by `grace`. With a time of day, also once
    /// nothing has come for a while: then up to the end of the newest window.
    pub(crate) fn complete_to(&self, grace_micros: i64, now_micros: Option<i64>) -> Option<Minute> {
        let newest = self.newest()?;
        let held =
            self.partitions.values().filter(|partition| partition.unread || partition.newest >= newest - IDLE_MICROS);
        let watermark = held.map(|partition| partition.newest).min()?;
        let passed = (watermark - grace_micros).div_euclid(MINUTE_MICROS);
        let over = now_micros.is_some_and(|now| now - newest > IDLE_MICROS) && !self.is_behind();
        Some(if over { newest.div_euclid(MINUTE_MICROS) + 1 } else { passed })
    }
}

#[cfg(test)]
mod tests {
    use bellwether_lake::PartitionRange;

    use super::*;

    fn entry(ranges: &[(i32, i64, bool)]) -> LogEntry {
        let ranges = ranges
            .iter()
            .map(|(partition, minute, unread)| PartitionRange {
                topic: "t".to_owned(),
                partition: *partition,
                from: 0,
                next: 5,
                end_offset: Some(if *unread { 9 } else { 5 }),
                newest_event_micros: Some(minute * MINUTE_MICROS),
                passed_over: None,
            })
            .collect();
        LogEntry { ranges, ..LogEntry::default() }
    }

    #[test]
    fn the_slowest_partition_decides_unless_it_is_idle() {
        let mut progress = Progress::default();
        assert_eq!(progress.complete_to(0, None), None);
        progress.note(&entry(&[(0, 100, false), (1, 97, false), (2, 10, false)]));
        assert_eq!(progress.complete_to(30_000_000, None), Some(96));
        // A backlog is no idleness.
        progress.note(&entry(&[(2, 11, true)]));
        assert!(progress.is_behind());
        assert_eq!(progress.complete_to(30_000_000, None), Some(10));
        progress.note(&entry(&[(2, 100, false), (1, 100, false)]));
        assert_eq!(progress.complete_to(30_000_000, None), Some(99));
        assert_eq!(progress.complete_to(30_000_000, Some(104 * MINUTE_MICROS)), Some(99));
        assert_eq!(progress.complete_to(30_000_000, Some(106 * MINUTE_MICROS)), Some(101));
    }
}
