//! How far the sources are in event time, from what ingest notes in the log: which windows are complete, and up to when it is
//! news that nothing came.
//!
//! * No clock of a producer counts beyond the moment at which its events were committed: what has not happened yet is not
//!   judged, whoever says that it has.
//! * That nothing came is news only up to the moment at which all that the brokers held was in the tables. Ingest says so of
//!   every partition it reads, also where nothing comes ([`bellwether_lake::reading`]). Where it has stopped, or is behind, or
//!   a partition stands still or has no reader, that moment stays where it is.

use std::collections::BTreeMap;

use bellwether_detect::Minute;
use bellwether_lake::reading::readings;
use bellwether_lake::{DeltaLog, LogEntry, Reading, Result};

use crate::observe::MINUTE_MICROS;

/// A partition whose newest event is this much older than that of the furthest one, and which has nothing unread, is idle
/// and holds nobody back.
const IDLE_MICROS: i64 = 5 * MINUTE_MICROS;

/// A window is awaited for so long, by when partitions were read, before it is news that nothing came.
const OVERDUE_MICROS: i64 = 5 * MINUTE_MICROS;

/// A partition that is not read keeps windows from being complete for so long. Beyond that the others are judged without it,
/// as whoever is on call has been told that it is not read; what comes of it later corrects them.
const HELD_MICROS: i64 = 60 * MINUTE_MICROS;

/// Newest events of the partitions, and up to when each was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    partitions: BTreeMap<(String, i32), Partition>,
    /// What is said of partitions, by the application of each.
    followed: BTreeMap<String, Reading>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    newest: Option<i64>,
    /// The broker had more when it was last read.
    unread: bool,
}

/// A partition as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Stands {
    newest: Option<i64>,
    unread: bool,
    /// All that the broker held then is in the tables; none where nobody says so.
    read_to: Option<i64>,
}

// === impl Progress ===

impl Progress {
    /// Notes what a commit to `events` says.
    pub(crate) fn note(&mut self, entry: &LogEntry) {
        let committed_at = entry.timestamp_ms.saturating_mul(1000);
        // A commit without a time is not of ours.
        let now = if committed_at > 0 { committed_at } else { i64::MAX };
        for range in &entry.ranges {
            let newest = range.newest_event_micros.map(|micros| micros.min(now));
            let partition = self.partitions.entry((range.topic.clone(), range.partition)).or_default();
            partition.newest = partition.newest.max(newest);
            partition.unread = range.end_offset.is_some_and(|end| end > range.next);
        }
        self.note_readings(readings(entry.txns.iter().map(|(app, number)| (app.as_str(), *number))));
    }

    /// Notes what is said in the versions of `events` from one on that bring no rows, up to the next one that does: without
    /// that one's rows, what came after it says nothing of what is judged. Gives the version that was not noted.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer.
    pub(crate) async fn follow(&mut self, events: &DeltaLog, mut version: i64) -> Result<i64> {
        while let Some(entry) = events.entry(version).await?.filter(|entry| !entry.brings_rows()) {
            self.note(&entry);
            version += 1;
        }
        Ok(version)
    }

    fn note_readings(&mut self, readings: BTreeMap<String, Reading>) {
        for (app, news) in readings {
            match self.followed.get_mut(&app) {
                Some(known) => {
                    known.end = news.end.or(known.end);
                    known.read_to_micros = known.read_to_micros.max(news.read_to_micros);
                }
                None if news.end.is_some() || news.read_to_micros.is_some() => {
                    self.followed.insert(app, news);
                }
                None => {}
            }
        }
    }

    /// Notes which partitions the newest version of `events` knows. `all_read`: how far they are by it holds; otherwise more has
    /// come since what is judged, and of those that no entry told of only that they are read is known.
    pub(crate) fn note_known(&mut self, readings: Vec<Reading>, all_read: bool) {
        for reading in readings.into_iter().filter(|reading| reading.end.is_some()) {
            let app = format!("{}/{}/{}", reading.job, reading.topic, reading.partition);
            if all_read {
                self.note_readings(BTreeMap::from([(app, reading)]));
            } else if reading.is_followed() {
                self.followed.entry(app).or_insert(Reading { read_to_micros: None, ..reading });
            }
        }
    }

    /// Every partition that counts. One that several jobs read is as far as the furthest of them.
    fn stands(&self) -> BTreeMap<(&str, i32), Stands> {
        let mut all: BTreeMap<(&str, i32), Stands> = BTreeMap::new();
        for ((topic, partition), known) in &self.partitions {
            let stands = Stands { newest: known.newest, unread: known.unread, read_to: None };
            all.insert((topic, *partition), stands);
        }
        for reading in self.followed.values().filter(|reading| reading.is_followed()) {
            let nothing = Stands { newest: None, unread: false, read_to: None };
            let stands = all.entry((&reading.topic, reading.partition)).or_insert(nothing);
            stands.read_to = stands.read_to.max(Some(reading.read_to_micros.unwrap_or(i64::MIN)));
        }
        // Of what nobody reads any more nothing is awaited.
        for reading in self.followed.values().filter(|reading| !reading.is_followed()) {
            let key = (reading.topic.as_str(), reading.partition);
            if all.get(&key).is_some_and(|stands| stands.read_to.is_none()) {
                all.remove(&key);
            }
        }
        all
    }

    fn newest(&self) -> Option<i64> {
        self.partitions.values().filter_map(|partition| partition.newest).max()
    }

    /// The moment up to which all partitions have been read; none where nobody says so of any. The earliest there is: one of
    /// them has never been read to its end.
    pub(crate) fn read_to(&self) -> Option<i64> {
        self.stands().values().filter_map(|stands| stands.read_to).min()
    }

    /// True where a broker is known to hold messages that have not been read, by commits that do not say up to when they were.
    fn is_behind(&self) -> bool {
        self.stands().values().any(|stands| stands.unread && stands.read_to.is_none())
    }

    /// Windows before this moment would have something in them by now, if anything had been sent: they are over for
    /// [`OVERDUE_MICROS`] by all that was read. None where nobody says up to when partitions were read, or more is known to wait.
    pub(crate) fn overdue_to(&self, now_micros: i64) -> Option<Minute> {
        let read_to = self.read_to()?.min(now_micros);
        (!self.is_behind()).then_some(read_to.saturating_sub(OVERDUE_MICROS).div_euclid(MINUTE_MICROS))
    }

    /// What has not been heard of up to this moment is stale. Where nobody says up to when was read, as with files that were read
    /// in, the time of day has to do.
    pub(crate) fn stale_to(&self, now_micros: i64) -> Option<Minute> {
        let by_the_clock = now_micros.saturating_sub(OVERDUE_MICROS).div_euclid(MINUTE_MICROS);
        self.read_to().map_or(Some(by_the_clock), |_| self.overdue_to(now_micros))
    }

    /// Windows before this moment may be judged to be silent, where those before `to` are complete: of no partition it is open
    /// what it held of them.
    pub(crate) fn silent_to(&self, to: Minute, now_micros: i64) -> Minute {
        let Some(read_to) = self.read_to() else { return to };
        let certain = to.min(read_to.min(now_micros).div_euclid(MINUTE_MICROS));
        self.overdue_to(now_micros).map_or(certain, |overdue| overdue.max(certain))
    }

    /// Windows before this moment are complete: every partition is past them by `grace`. With a time of day, also once
    /// nothing has come for a while: then up to the end of the newest window.
    pub(crate) fn complete_to(&self, grace_micros: i64, now_micros: Option<i64>) -> Option<Minute> {
        let now = now_micros.unwrap_or(i64::MAX);
        let newest = self.newest()?.min(now);
        let held = self.stands().into_values().filter_map(|stands| stands.holds_at(newest)).min();
        let passed = (held.unwrap_or(newest).min(now).saturating_sub(grace_micros)).div_euclid(MINUTE_MICROS);
        // Up to when it is known that nothing else came.
        let known = match self.read_to() {
            Some(read_to) => now_micros.map(|now| now.min(read_to)),
            None => now_micros.filter(|_| !self.is_behind()),
        };
        let over = known.is_some_and(|known| known.saturating_sub(newest) > IDLE_MICROS);
        Some(if over { newest.div_euclid(MINUTE_MICROS) + 1 } else { passed })
    }
}

// === impl Stands ===

impl Stands {
    /// The event time at which the partition keeps windows from being complete, where the furthest partition is at `newest`;
    /// none where it does not.
    fn holds_at(self, newest: i64) -> Option<i64> {
        let recent = newest.saturating_sub(IDLE_MICROS);
        match (self.newest, self.read_to) {
            (Some(own), _) if own >= recent => Some(own),
            // Nobody says up to when it was read: it is idle, unless it is known to hold more.
            (own, None) => own.filter(|_| self.unread),
            (own, Some(read_to)) => {
                let stands = own.unwrap_or(i64::MIN).max(read_to);
                (stands < newest && stands >= newest.saturating_sub(HELD_MICROS)).then_some(stands)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwether_lake::PartitionRange;
    use bellwether_lake::reading::{NOT_READ, end_app, read_app};

    use super::*;

    const MINUTE: i64 = MINUTE_MICROS;

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

    /// A commit at a minute, with what it says of when partitions were read to their ends.
    fn marks(at: i64, job: &str, marks: &[(i32, i64, Option<i64>)]) -> LogEntry {
        let mut txns = Vec::new();
        for (partition, end, read_to) in marks {
            let app = format!("{job}/t/{partition}");
            txns.push((end_app(&app), *end));
            txns.extend(read_to.map(|minute| (read_app(&app), minute * MINUTE)));
        }
        LogEntry { timestamp_ms: at * 60_000, txns, ..LogEntry::default() }
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

    #[test]
    fn a_clock_that_runs_ahead_moves_nothing_past_the_commit_of_its_events() {
        let mut progress = Progress::default();
        let ahead = LogEntry { timestamp_ms: 100 * 60_000, ..entry(&[(0, 105, false)]) };
        progress.note(&ahead);
        assert_eq!(progress.complete_to(0, Some(100 * MINUTE)), Some(100), "and not 105");
        // One partition only has such a clock: the others do not look idle beside it.
        progress.note(&LogEntry { timestamp_ms: 101 * 60_000, ..entry(&[(0, 130, false), (1, 99, false)]) });
        assert_eq!(progress.complete_to(0, Some(101 * MINUTE)), Some(99));
        // Nor do windows end that have not begun, where the worker's own clock is ahead of this one.
        progress.note(&LogEntry { timestamp_ms: 200 * 60_000, ..entry(&[(0, 190, false), (1, 190, false)]) });
        assert_eq!(progress.complete_to(0, Some(102 * MINUTE)), Some(102));
    }

    #[test]
    fn that_nothing_came_is_news_only_up_to_when_all_was_read() {
        let mut progress = Progress::default();
        progress.note(&entry(&[(0, 100, false), (1, 100, false)]));
        let silent_to = |progress: &Progress, now: i64| progress.silent_to(99, now * MINUTE);
        assert_eq!((progress.overdue_to(500 * MINUTE), silent_to(&progress, 500)), (None, 99), "nobody says more");
        progress.note(&marks(101, "j", &[(0, 5, Some(101)), (1, 5, None)]));
        assert!(silent_to(&progress, 500) < 0, "one of them was never read to its end");
        progress.note(&marks(110, "j", &[(0, 5, Some(110)), (1, 5, Some(98))]));
        assert_eq!(silent_to(&progress, 500), 98, "ingest is behind, or stands still");
        progress.note(&marks(110, "j", &[(1, 5, Some(107))]));
        assert_eq!(silent_to(&progress, 500), 102);
        assert_eq!(silent_to(&progress, 60), 60);
        // Another job takes the topic over; what the first one says no more does not matter.
        progress.note(&marks(120, "k", &[(0, 5, Some(120)), (1, 5, Some(120))]));
        assert_eq!(silent_to(&progress, 500), 115);
        progress.note(&marks(130, "k", &[(0, 5, Some(130)), (1, NOT_READ, None)]));
        assert_eq!(silent_to(&progress, 500), 102, "the first job still has it");
        progress.note(&marks(131, "j", &[(1, NOT_READ, None)]));
        assert_eq!(silent_to(&progress, 500), 125, "it is gone");
    }

    #[test]
    fn the_newest_window_of_a_worker_that_stopped_stays_open() {
        let mut progress = Progress::default();
        progress.note(&LogEntry { timestamp_ms: 101 * 60_000, ..entry(&[(0, 100, false)]) });
        progress.note(&marks(101, "j", &[(0, 5, Some(101))]));
        assert_eq!(progress.complete_to(0, Some(900 * MINUTE)), Some(100), "window 100 may be half of what was sent");
        progress.note(&marks(107, "j", &[(0, 5, Some(107))]));
        assert_eq!(progress.complete_to(0, Some(900 * MINUTE)), Some(101), "nothing more was sent");
    }

    #[test]
    fn a_partition_that_is_not_read_holds_the_others_back_and_not_for_ever() {
        let mut progress = Progress::default();
        progress.note(&entry(&[(0, 100, false)]));
        // Partition 1 has never had an event.
        progress.note(&marks(100, "j", &[(0, 5, Some(100)), (1, 0, Some(100))]));
        assert_eq!(progress.complete_to(0, None), Some(100));
        progress.note(&entry(&[(0, 130, false)]));
        progress.note(&marks(130, "j", &[(0, 5, Some(130))]));
        assert_eq!(progress.complete_to(0, None), Some(100));
        progress.note(&marks(131, "j", &[(1, 0, Some(130))]));
        assert_eq!(progress.complete_to(0, None), Some(130));
        progress.note(&entry(&[(0, 191, false)]));
        assert_eq!(progress.complete_to(0, None), Some(191));
        assert_eq!(progress.silent_to(191, 191 * MINUTE), 130, "and silence still waits for it");
    }

    #[test]
    fn what_a_later_version_says_counts_only_where_all_of_it_is_judged() {
        let apps = [("j/t/0", 5), ("j/t/0/end", 9), ("j/t/0/read", 77)];
        let known: Vec<Reading> = readings(apps).into_values().collect();
        let mut progress = Progress::default();
        progress.note_known(known.clone(), false);
        assert_eq!(progress.read_to(), Some(i64::MIN));
        progress.note_known(known, true);
        assert_eq!(progress.read_to(), Some(77));
    }
}
