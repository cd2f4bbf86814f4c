//! The read progress of each partition, according to the log of `events`. It shows a follower of that table whether rows are
//! missing because nothing was sent, or because nothing was read.
//!
//! Three numbers besides a partition's offset ([`AppId::End`], [`AppId::Read`], [`AppId::TopicStart`]) state facts about the
//! broker. Any process may write them, and they fence no one. A partition without an offset in the commit of
//! [`AppId::TopicStart`] was added later, and is read from its beginning.

use std::collections::BTreeMap;

use bellwether_tables::{AppId, PartitionId};

use crate::commit::Snapshot;

/// Operation of a commit that records the start of a topic's partitions. It advances their offsets and holds no message.
pub const START: &str = "start";

/// The number of [`AppId::End`] if no worker reads the partition any more.
pub const NOT_READ: i64 = -1;

/// The read progress of one partition, for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Job; `replay` for files.
    pub job: String,
    /// Topic, or `file:NAME`.
    pub topic: String,
    pub partition: i32,
    /// Offset to read next; `None` if no message was read yet.
    pub next: Option<i64>,
    /// Offset after the last message that the broker last reported; `None` if it was never asked.
    pub end: Option<i64>,
    /// A time, in microseconds since the epoch, at which every message that the partition held is in the tables; `None` if
    /// no such time is known.
    pub read_to_micros: Option<i64>,
}

/// Collects the read progress of each partition from the numbers of applications.
pub fn readings<'a>(apps: impl IntoIterator<Item = (&'a str, i64)>) -> BTreeMap<PartitionId, Reading> {
    let mut found: BTreeMap<PartitionId, Reading> = BTreeMap::new();
    for (app_id, number) in apps {
        let Ok(app_id) = app_id.parse() else { continue };
        let (AppId::Partition(partition) | AppId::End(partition) | AppId::Read(partition)) = &app_id else { continue };
        let reading = found.entry(partition.clone()).or_insert_with(|| Reading {
            job: partition.job.clone(),
            topic: partition.topic.clone(),
            partition: partition.partition,
            next: None,
            end: None,
            read_to_micros: None,
        });
        match app_id {
            AppId::End(_) => reading.end = Some(number),
            AppId::Read(_) => reading.read_to_micros = Some(number),
            _ => reading.next = Some(number),
        }
    }
    found
}

// === impl Reading ===

impl Reading {
    /// Returns the read progress of every partition in a version of `events`.
    pub fn all(events: &Snapshot) -> Vec<Self> {
        readings(events.apps()).into_values().collect()
    }

    /// Returns true if a worker reads the partition and records its progress, or did so until it stopped.
    pub fn is_followed(&self) -> bool {
        self.end.is_some_and(|end| end >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_s_numbers_are_put_together_and_others_are_left_out() {
        let apps = [
            ("main/runs/0", 9),
            ("main/runs/0/end", 12),
            ("main/runs/0/read", 77),
            ("main/runs/0/claim", 3),
            ("main/runs#id", 5),
            ("main/runs#start", 1),
            ("main/old/1/end", NOT_READ),
            ("replay/file:a.ndjson@12/0", 4),
            ("aggregate/0", 8),
        ];
        let found = readings(apps);
        let names: Vec<String> = found.keys().map(PartitionId::to_string).collect();
        assert_eq!(names, ["main/old/1", "main/runs/0", "replay/file:a.ndjson@12/0"]);
        let runs = &found[&PartitionId::new("main", "runs", 0)];
        assert_eq!((runs.next, runs.end, runs.read_to_micros), (Some(9), Some(12), Some(77)));
        assert!(runs.is_followed());
        let old = &found[&PartitionId::new("main", "old", 1)];
        let file = &found[&PartitionId::new("replay", "file:a.ndjson@12", 0)];
        assert!(!old.is_followed() && !file.is_followed());
    }
}
