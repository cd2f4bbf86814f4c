//! Finds the messages of a partition that an application has committed to a table, when the partition changes owners.
//!
//! Rows record their source but not their writer, and several jobs may read one topic. Therefore, the log is read
//! backwards, entry by entry, for the commits of the application.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};

use crate::log::{AddedFile, LogEntry};
use crate::root::Lake;
use bellwether_base::{Error, Result};
use bellwether_tables::Table;

/// A request for the offsets that an application has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsOf {
    /// The application, with the next offset as its number.
    pub app_id: String,
    /// A second application, under which it commits rows without advancing that number.
    pub aside: String,
    /// The version before the first one to search.
    pub after: i64,
    /// The last version to search.
    pub until: i64,
    pub topic: String,
    pub partition: i32,
    /// The least offset to return.
    pub from: i64,
}

// === impl OffsetsOf ===

impl OffsetsOf {
    /// Returns true if a commit that advances these applications is one of the application.
    pub fn matches<'a>(&self, mut moved: impl Iterator<Item = &'a str>) -> bool {
        moved.any(|app_id| app_id == self.app_id || app_id == self.aside)
    }

    /// Returns true if an entry leaves the application at or before the first offset, so that no earlier entry has later
    /// offsets.
    fn begins_after(&self, entry: &LogEntry) -> bool {
        entry.txns.iter().any(|(app_id, number)| *app_id == self.app_id && *number <= self.from)
    }
}

// === impl Lake ===

impl Lake {
    /// Returns the offsets of the rows that an application has committed to a table for a partition.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a file or a log entry is missing.
    pub async fn offsets_of(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        let log = self.log(table);
        let mut found = BTreeSet::new();
        for version in (asked.after + 1..=asked.until).rev() {
            let Some(entry) = log.entry(version).await? else {
                if log.number_at(version, &asked.app_id).await?.is_some_and(|next| next <= asked.from) {
                    break; // Cleaned up: the checkpoint that stands for it says that nothing beyond was committed by then.
                }
                return Err(Error::data(format!(
                    "cannot determine which messages of `{}/{}` are in table `{}`: its log entry {version} is missing",
                    asked.topic,
                    asked.partition,
                    table.name()
                ))
                .with_hint("restore the entry from a backup, or read the topic under another `kafka.job`"));
            };
            if asked.begins_after(&entry) {
                break;
            }
            if asked.matches(entry.txns.iter().map(|(app_id, _)| app_id.as_str())) {
                for file in &entry.added {
                    self.collect_offsets(table, file, asked, &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    async fn collect_offsets(
        &self,
        table: Table,
        file: &AddedFile,
        asked: &OffsetsOf,
        found: &mut BTreeSet<i64>,
    ) -> Result<()> {
        for batch in self.read(table, file, Some(&["topic", "partition", "offset"])).await? {
            let topics = batch.column(0).as_string_view();
            let partitions = batch.column(1).as_primitive::<Int32Type>().values();
            let offsets = batch.column(2).as_primitive::<Int64Type>().values();
            let here = |row: &usize| {
                partitions[*row] == asked.partition && offsets[*row] >= asked.from && topics.value(*row) == asked.topic
            };
            found.extend((0..batch.num_rows()).filter(here).map(|row| offsets[row]));
        }
        Ok(())
    }
}
