//! How far the sources are in event time, by the facts that ingest writes to the log: which windows are complete, and up to
//! when silence is known.
//!
//! * An event time counts at most as the time of the commit that brought it, because a producer's clock may be ahead: the future
//!   is not judged.
//! * Silence is known only up to the moment up to which the tables hold everything that the brokers held. Ingest records that
//!   moment for every partition that it reads, also without messages ([`bellwether_lake::reading`]). While ingest is stopped or
//!   behind, or a partition has no reader, the moment does not move.

use std::collections::BTreeMap;

use bellwether_base::Result;
use bellwether_detect::Minute;
use bellwether_lake::reading::readings;
use bellwether_lake::{CommitLog, DeltaLog, Lake, LogEntry, Reading};
use bellwether_tables::{PartitionId, Table};
use futures::{StreamExt, TryStreamExt, stream};

use crate::observe::MINUTE_MICROS;

/// Entries of `events` before the first unread one that show how far the sources are.
const ENTRIES_AT_START: i64 = 200;

/// Of these, so many are read at the same time.
const ENTRIES_AT_ONCE: usize = 16;

/// A partition is idle if its newest event is this much older than the newest of all and it has nothing unread. An idle
/// partition does not keep windows open.
const IDLE_MICROS: i64 = 5 * MINUTE_MICROS;

/// A window without data counts as silent once everything was read up to this long after it.
const OVERDUE_MICROS: i64 = 5 * MINUTE_MICROS;

/// A partition that is not read keeps windows open for at most this long. After that the others are judged without it: rule
/// `lag` has reported it by then, and its late events correct the result.
const HELD_MICROS: i64 = 60 * MINUTE_MICROS;

/// The newest event of each partition, and up to when each was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    partitions: BTreeMap<(String, i32), Partition>,
    /// How far each partition was read, by application id.
    readings: BTreeMap<PartitionId, Reading>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    newest: Option<i64>,
    /// The broker held more when the partition was last read.
    unread: bool,
}

/// The condition of a partition that counts.
#[derive(Clone, Copy, Debug)]
struct PartitionState {
    newest: Option<i64>,
    unread: bool,
    /// The tables hold everything that the broker held at this moment; none if no job recorded it.
    read_to: Option<i64>,
}

// === impl Progress ===

impl Progress {
    /// Returns how far the sources are by the entries of `events` before a version, and by those after it without rows; and the
    /// version after the last entry noted.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub(crate) async fn at(lake: &Lake, events_next: i64) -> Result<(Self, i64)> {
        let (mut progress, log) = (Self::default(), lake.log(Table::Events));
        let versions = (events_next - ENTRIES_AT_START).max(0)..events_next;
        let mut entries = stream::iter(versions).map(|version| log.entry(version)).buffered(ENTRIES_AT_ONCE);
        while let Some(entry) = entries.try_next().await? {
            // An entry that was cleaned up shows nothing any more.
            if let Some(entry) = entry {
                progress.note(&entry);
            }
        }
        drop(entries);
        let noted_next = progress.follow(&log, events_next).await?;
        let newest = log.load().await?;
        progress.note_known(Reading::all(&newest), newest.version < noted_next);
        Ok((progress, noted_next))
    }

    /// Notes the facts in a log entry of `events`.
    pub(crate) fn note(&mut self, entry: &LogEntry) {
        let committed_at = entry.timestamp_ms.saturating_mul(1000);
        // An entry without a time is from another program.
        let now = if committed_at > 0 { committed_at } else { i64::MAX };
        for range in &entry.ranges {
            let newest = range.newest_event_micros.map(|micros| micros.min(now));
            let partition = self.partitions.entry((range.topic.clone(), range.partition)).or_default();
            partition.newest = partition.newest.max(newest);
            partition.unread = range.end_offset.is_some_and(|end| end > range.next);
        }
        self.note_readings(readings(entry.txns.iter().map(|(app, number)| (app.as_str(), *number))));
    }

    /// Notes the facts in the entries of `events` from a version on, up to the next one with rows: later facts apply only once
    /// these rows are judged. Returns the version after the last entry noted.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub(crate) async fn follow(&mut self, events: &DeltaLog, mut version: i64) -> Result<i64> {
        while let Some(entry) = events.entry(version).await?.filter(|entry| !entry.brings_rows()) {
            self.note(&entry);
            version += 1;
        }
        Ok(version)
    }

    fn note_readings(&mut self, readings: BTreeMap<PartitionId, Reading>) {
        for (app, newer) in readings {
            match self.readings.get_mut(&app) {
                Some(known) => {
                    known.end = newer.end.or(known.end);
                    known.read_to_micros = known.read_to_micros.max(newer.read_to_micros);
                }
                None if newer.end.is_some() || newer.read_to_micros.is_some() => {
                    self.readings.insert(app, newer);
                }
                None => {}
            }
        }
    }

    /// Notes the partitions of the newest version of `events`. With `all_read`, their readings apply. Otherwise there are rows
    /// that are not judged yet, and of partitions in no entry so far it is known only that they are read.
    pub(crate) fn note_known(&mut self, readings: Vec<Reading>, all_read: bool) {
        for reading in readings.into_iter().filter(|reading| reading.end.is_some()) {
            let app = PartitionId::new(&reading.job, &reading.topic, reading.partition);
            if all_read {
                self.note_readings(BTreeMap::from([(app, reading)]));
            } else if reading.is_followed() {
                self.readings.entry(app).or_insert(Reading { read_to_micros: None, ..reading });
            }
        }
    }

    /// Returns the state of every partition that counts. If several jobs read one, the furthest counts.
    fn partition_states(&self) -> BTreeMap<(&str, i32), PartitionState> {
        let mut all: BTreeMap<(&str, i32), PartitionState> = BTreeMap::new();
        for ((topic, partition), known) in &self.partitions {
            let state = PartitionState { newest: known.newest, unread: known.unread, read_to: None };
            all.insert((topic, *partition), state);
        }
        for reading in self.readings.values().filter(|reading| reading.is_followed()) {
            let empty = PartitionState { newest: None, unread: false, read_to: None };
            let state = all.entry((&reading.topic, reading.partition)).or_insert(empty);
            state.read_to = state.read_to.max(Some(reading.read_to_micros.unwrap_or(i64::MIN)));
        }
        // A partition that no job reads any more does not keep windows open.
        for reading in self.readings.values().filter(|reading| !reading.is_followed()) {
            let key = (reading.topic.as_str(), reading.partition);
            if all.get(&key).is_some_and(|state| state.read_to.is_none()) {
                all.remove(&key);
            }
        }
        all
    }

    fn newest(&self) -> Option<i64> {
        self.partitions.values().filter_map(|partition| partition.newest).max()
    }

    /// Returns the moment up to which all partitions have been read; none if no job recorded it for any. It is the earliest
    /// possible if one of them has never been read to its end.
    pub(crate) fn read_to(&self) -> Option<i64> {
        self.partition_states().values().filter_map(|state| state.read_to).min()
    }

    /// Returns true if a broker held unread messages at the last commit of a partition without recorded readings.
    fn is_behind(&self) -> bool {
        self.partition_states().values().any(|state| state.unread && state.read_to.is_none())
    }

    /// Returns the moment before which windows without data are silent: everything was read up to [`OVERDUE_MICROS`] after them.
    /// None if no job recorded up to when partitions were read, or unread messages are known.
    pub(crate) fn overdue_to(&self, now_micros: i64) -> Option<Minute> {
        let read_to = self.read_to()?.min(now_micros);
        (!self.is_behind()).then_some(read_to.saturating_sub(OVERDUE_MICROS).div_euclid(MINUTE_MICROS))
    }

    /// Returns the moment before which a series without data is stale. If no job recorded up to when partitions were read, as
    /// after reading files, the time of day counts.
    pub(crate) fn stale_to(&self, now_micros: i64) -> Option<Minute> {
        let by_the_clock = now_micros.saturating_sub(OVERDUE_MICROS).div_euclid(MINUTE_MICROS);
        self.read_to().map_or(Some(by_the_clock), |_| self.overdue_to(now_micros))
    }

    /// Returns the moment before which windows may be judged silent, if those before `to` are complete: everything that the
    /// partitions held of them was read.
    pub(crate) fn silent_to(&self, to: Minute, now_micros: i64) -> Minute {
        let Some(read_to) = self.read_to() else { return to };
        let certain = to.min(read_to.min(now_micros).div_euclid(MINUTE_MICROS));
        self.overdue_to(now_micros).map_or(certain, |overdue| overdue.max(certain))
    }

    /// Returns the moment before which windows are complete: every partition is past them by `grace`. With a time of day, the
    /// newest window too is complete once nothing has come for a while.
    pub(crate) fn complete_to(&self, grace_micros: i64, now_micros: Option<i64>) -> Option<Minute> {
        let now = now_micros.unwrap_or(i64::MAX);
        let newest = self.newest()?.min(now);
        let held = self.partition_states().into_values().filter_map(|state| state.holds_at(newest)).min();
        let passed = (held.unwrap_or(newest).min(now).saturating_sub(grace_micros)).div_euclid(MINUTE_MICROS);
        // The moment up to which it is known that nothing else came.
        let known = match self.read_to() {
            Some(read_to) => now_micros.map(|now| now.min(read_to)),
            None => now_micros.filter(|_| !self.is_behind()),
        };
        let over = known.is_some_and(|known| known.saturating_sub(newest) > IDLE_MICROS);
        Some(if over { newest.div_euclid(MINUTE_MICROS) + 1 } else { passed })
    }
}

// === impl PartitionState ===

impl PartitionState {
    /// Returns the event time at which the partition keeps windows open, if the furthest partition is at `newest`; none if it
    /// does not.
    fn holds_at(self, newest: i64) -> Option<i64> {
        let recent = newest.saturating_sub(IDLE_MICROS);
        match (self.newest, self.read_to) {
            (Some(own), _) if own >= recent => Some(own),
            // Without a recorded reading it is idle, unless it is known to hold more.
            (own, None) => own.filter(|_| self.unread),
            (own, Some(read_to)) => {
                let reached = own.unwrap_or(i64::MIN).max(read_to);
                (reached < newest && reached >= newest.saturating_sub(HELD_MICROS)).then_some(reached)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwether_lake::PartitionRange;
    use bellwether_lake::reading::NOT_READ;
    use bellwether_tables::AppId;

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

    /// Returns a commit at a minute, with the moments up to which partitions were read.
    fn marks(at: i64, job: &str, marks: &[(i32, i64, Option<i64>)]) -> LogEntry {
        let mut txns = Vec::new();
        for (partition, end, read_to) in marks {
            let partition = PartitionId::new(job, "t", *partition);
            txns.push((AppId::End(partition.clone()).to_string(), *end));
            let read = AppId::Read(partition).to_string();
            txns.extend(read_to.map(|minute| (read, minute * MINUTE)));
        }
        LogEntry { timestamp_ms: at * 60_000, txns, ..LogEntry::default() }
    }

    #[test]
    fn the_slowest_partition_decides_unless_it_is_idle() {
        let mut progress = Progress::default();
        assert_eq!(progress.complete_to(0, None), None);
        progress.note(&entry(&[(0, 100, false), (1, 97, false), (2, 10, false)]));
        assert_eq!(progress.complete_to(30_000_000, None), Some(96));
        // A partition with a backlog is not idle.
        progress.note(&entry(&[(2, 11, true)]));
        assert!(progress.is_behind());
        assert_eq!(progress.complete_to(30_000_000, None), Some(10));
        progress.note(&entry(&[(2, 100, false), (1, 100, false)]));
        assert_eq!(progress.complete_to(30_000_000, None), Some(99));
        assert_eq!(progress.complete_to(30_000_000, Some(104 * MINUTE_MICROS)), Some(99));
        assert_eq!(progress.complete_to(30_000_000, Some(106 * MINUTE_MICROS)), Some(101));
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_move_windows_past_the_commit_of_its_events() {
        let mut progress = Progress::default();
        let ahead = LogEntry { timestamp_ms: 100 * 60_000, ..entry(&[(0, 105, false)]) };
        progress.note(&ahead);
        assert_eq!(progress.complete_to(0, Some(100 * MINUTE)), Some(100), "and not 105");
        // If only one partition has such a clock, the others do not look idle beside it.
        progress.note(&LogEntry { timestamp_ms: 101 * 60_000, ..entry(&[(0, 130, false), (1, 99, false)]) });
        assert_eq!(progress.complete_to(0, Some(101 * MINUTE)), Some(99));
        // Windows that have not begun do not end either, even if the worker's clock is ahead of this one.
        progress.note(&LogEntry { timestamp_ms: 200 * 60_000, ..entry(&[(0, 190, false), (1, 190, false)]) });
        assert_eq!(progress.complete_to(0, Some(102 * MINUTE)), Some(102));
    }

    #[test]
    fn silence_is_known_only_up_to_the_moment_up_to_which_everything_was_read() {
        let mut progress = Progress::default();
        progress.note(&entry(&[(0, 100, false), (1, 100, false)]));
        let silent_to = |progress: &Progress, now: i64| progress.silent_to(99, now * MINUTE);
        assert_eq!((progress.overdue_to(500 * MINUTE), silent_to(&progress, 500)), (None, 99), "no job recorded more");
        progress.note(&marks(101, "j", &[(0, 5, Some(101)), (1, 5, None)]));
        assert!(silent_to(&progress, 500) < 0, "one of them was never read to its end");
        progress.note(&marks(110, "j", &[(0, 5, Some(110)), (1, 5, Some(98))]));
        assert_eq!(silent_to(&progress, 500), 98, "ingest is behind or stopped");
        progress.note(&marks(110, "j", &[(1, 5, Some(107))]));
        assert_eq!(silent_to(&progress, 500), 102);
        assert_eq!(silent_to(&progress, 60), 60);
        // Another job takes the topic over; the readings of the first no longer matter.
        progress.note(&marks(120, "k", &[(0, 5, Some(120)), (1, 5, Some(120))]));
        assert_eq!(silent_to(&progress, 500), 115);
        progress.note(&marks(130, "k", &[(0, 5, Some(130)), (1, NOT_READ, None)]));
        assert_eq!(silent_to(&progress, 500), 102, "the first job still has it");
        progress.note(&marks(131, "j", &[(1, NOT_READ, None)]));
        assert_eq!(silent_to(&progress, 500), 125, "it no longer counts");
    }

    #[test]
    fn the_newest_window_of_a_worker_that_stopped_stays_open() {
        let mut progress = Progress::default();
        progress.note(&LogEntry { timestamp_ms: 101 * 60_000, ..entry(&[(0, 100, false)]) });
        progress.note(&marks(101, "j", &[(0, 5, Some(101))]));
        assert_eq!(progress.complete_to(0, Some(900 * MINUTE)), Some(100), "window 100 may be half read");
        progress.note(&marks(107, "j", &[(0, 5, Some(107))]));
        assert_eq!(progress.complete_to(0, Some(900 * MINUTE)), Some(101), "window 100 is read");
    }

    #[test]
    fn a_partition_that_is_not_read_keeps_windows_open_for_a_while() {
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
        assert_eq!(progress.silent_to(191, 191 * MINUTE), 130, "silence still waits for it");
    }

    #[test]
    fn readings_of_a_later_version_count_only_once_all_of_it_is_judged() {
        let apps = [("j/t/0", 5), ("j/t/0/end", 9), ("j/t/0/read", 77)];
        let known: Vec<Reading> = readings(apps).into_values().collect();
        let mut progress = Progress::default();
        progress.note_known(known.clone(), false);
        assert_eq!(progress.read_to(), Some(i64::MIN));
        progress.note_known(known, true);
        assert_eq!(progress.read_to(), Some(77));
    }
}
