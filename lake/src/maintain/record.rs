//! The record of log entries that were cleaned up: everything that an audit still needs to know of them.
//!
//! The offsets that the entries took are added up: consecutive ranges of a job and partition become one, with the number of
//! offsets that held no message. So an audit holds all rows against all offsets, however short the log is.
//!
//! A record is a file of its own for each version up to which a log was cleaned, and never changes. The newest one counts. It is
//! written before an entry is removed.

use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use crate::commit::PartitionRange;
use crate::log::{LogEntry, RemovedRows};
use crate::reading::START;
use crate::root::Lake;
use crate::stored::{Stored, from_store};

/// The offsets of one partition that one job has committed, in log entries that were cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedPartition {
    /// Job; `replay` for files.
    pub job: String,
    /// Topic, or `file:NAME`.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset to read, if a commit set it before anything was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// Committed ranges, in the order of the commits. Consecutive ranges are merged.
    pub taken: Vec<CleanedRange>,
}

/// Consecutive committed offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedRange {
    /// First offset.
    pub from: i64,
    /// Offset after the last.
    pub next: i64,
    /// Number of offsets without a message; none if a commit does not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<i64>,
    /// Commits.
    pub commits: u64,
}

/// A summary of a table's log entries up to a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedLog {
    /// Version of the log checkpoint that replaces the entries. The summary covers entries up to it.
    pub version: i64,
    /// First entry that the summary covers: 0 unless another program had cleaned up the log before.
    #[serde(default)]
    pub since: i64,
    /// Number of entries.
    pub entries: u64,
    /// Committed offsets, by job and partition.
    pub partitions: Vec<CleanedPartition>,
    /// Rows that were removed for good, added up by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedRows>,
}

// === impl CleanedLog ===

impl CleanedLog {
    /// Returns the record of no entries yet, of which the first is this one.
    pub(super) fn since(first: i64) -> Self {
        Self { version: first - 1, since: first, ..Self::default() }
    }

    /// Takes in the next entry.
    pub(super) fn take(&mut self, entry: &LogEntry) {
        self.version = entry.version;
        self.entries += 1;
        for more in &entry.removed_rows {
            let here = |known: &&mut RemovedRows| known.topic == more.topic && known.partition == more.partition;
            match self.removed.iter_mut().find(here) {
                Some(known) => {
                    known.from = known.from.min(more.from);
                    known.next = known.next.max(more.next);
                    known.rows += more.rows;
                }
                None => self.removed.push(more.clone()),
            }
        }
        for (app_id, number) in &entry.txns {
            let Ok(AppId::Partition(moved)) = app_id.parse() else { continue };
            let range =
                entry.ranges.iter().find(|range| range.topic == moved.topic && range.partition == moved.partition);
            let known = self.partitions.iter_mut().find(|known| {
                (known.partition, &*known.topic, &*known.job) == (moved.partition, &*moved.topic, &*moved.job)
            });
            let of = match known {
                Some(known) => known,
                None => {
                    let (job, topic, partition) = (moved.job, moved.topic, moved.partition);
                    self.partitions.push(CleanedPartition { job, topic, partition, start: None, taken: Vec::new() });
                    let last = self.partitions.len() - 1;
                    &mut self.partitions[last]
                }
            };
            match range {
                Some(range) => of.take(range),
                None if entry.operation == START && of.taken.is_empty() => of.start = Some(*number),
                // An entry that no writer of ours makes: the audit finds the offsets missing.
                None => {}
            }
        }
    }
}

// === impl CleanedPartition ===

impl CleanedPartition {
    fn take(&mut self, range: &PartitionRange) {
        let PartitionRange { from, next, passed_over, .. } = *range;
        match self.taken.last_mut().filter(|last| last.next == from) {
            Some(last) => {
                last.next = next;
                last.passed_over = last.passed_over.zip(passed_over).map(|(sum, more)| sum + more);
                last.commits += 1;
            }
            None => self.taken.push(CleanedRange { from, next, passed_over, commits: 1 }),
        }
    }
}

// === impl Lake ===

impl Lake {
    /// Returns the record of the entries of a table's log that were cleaned up by maintenance; none if there were none.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the record cannot be read.
    pub async fn cleaned_log(&self, table: Table) -> Result<Option<CleanedLog>> {
        loop {
            let Some((_, newest)) = self.records(table).await?.pop() else { return Ok(None) };
            let bytes = match self.objects().get(&newest).await {
                Ok(found) => found.bytes().await.stored()?,
                // A newer one has replaced it meanwhile.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(source) => return Err(from_store(source)),
            };
            return serde_json::from_slice(&bytes).map(Some).map_err(|source| {
                Error::data(format!("`{newest}` is not readable, the record of log entries of `{}`", table.name()))
                    .with_hint("restore that file from a copy; without it, an audit cannot account for old offsets")
                    .with_source(source)
            });
        }
    }

    /// Writes a record, then removes older ones.
    pub(super) async fn record_cleaned(&self, table: Table, record: &CleanedLog) -> Result<()> {
        let text = serde_json::to_vec(record)
            .map_err(|source| Error::bug("a record cannot be written as JSON").with_source(source))?;
        let path = self.records_folder(table).join(format!("{:020}.json", record.version));
        match self.objects().put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => {}
            // Another process has cleaned up to the same version: it says the same.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(source) => return Err(from_store(source)),
        }
        for (_, older) in self.records(table).await?.into_iter().filter(|(version, _)| *version < record.version) {
            delete(self, &older).await?;
        }
        Ok(())
    }

    /// Records by version, the newest last.
    async fn records(&self, table: Table) -> Result<Vec<(i64, Path)>> {
        let folder = self.records_folder(table);
        let mut records: Vec<(i64, Path)> = self
            .objects()
            .list(Some(&folder))
            .try_filter_map(|object| async move {
                let version = object.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok());
                Ok(version.map(|version| (version, object.location)))
            })
            .try_collect()
            .await
            .stored()?;
        records.sort();
        Ok(records)
    }

    fn records_folder(&self, table: Table) -> Path {
        self.own_folder().join("cleaned").join(table.name())
    }
}

/// Deletes an object; that it is gone is as well.
pub(super) async fn delete(lake: &Lake, path: &Path) -> Result<()> {
    match lake.objects().delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(from_store(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: i64, from: i64, next: i64, passed_over: Option<i64>) -> LogEntry {
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from,
            next,
            end_offset: None,
            newest_event_micros: None,
            passed_over,
        };
        LogEntry { version, txns: vec![("j/t/0".to_owned(), next)], ranges: vec![range], ..LogEntry::default() }
    }

    #[test]
    fn consecutive_ranges_become_one_and_others_stay_apart() {
        let mut record = CleanedLog::default();
        let start = LogEntry { ranges: Vec::new(), operation: START.to_owned(), ..entry(1, 5, 5, None) };
        let claim = LogEntry { version: 5, txns: vec![("j/t/0/claim".to_owned(), 1)], ..LogEntry::default() };
        for entry in [start, entry(2, 5, 9, Some(1)), entry(3, 9, 12, Some(0)), entry(4, 20, 22, Some(2)), claim] {
            record.take(&entry);
        }
        assert_eq!((record.version, record.entries), (5, 5));
        let [partition] = record.partitions.as_slice() else { panic!("{record:?}") };
        assert_eq!((&*partition.job, &*partition.topic, partition.start), ("j", "t", Some(5)));
        let range = |from, next, passed_over, commits| CleanedRange { from, next, passed_over, commits };
        assert_eq!(partition.taken, [range(5, 12, Some(1), 2), range(20, 22, Some(2), 1)]);
        record.take(&entry(6, 22, 30, None));
        assert_eq!(record.partitions[0].taken[1], range(20, 30, None, 2), "one that does not say");
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut record = CleanedLog::default();
        record.take(&entry(2, 5, 9, Some(1)));
        let text = serde_json::to_string(&record).expect("JSON");
        assert_eq!(serde_json::from_str::<CleanedLog>(&text).expect("reads"), record);
    }
}
