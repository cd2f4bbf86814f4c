//! Which messages of a partition an application has committed to a table: asked when the partition changes its owner.
//!
//! Rows say where they came from and not who wrote them, and several jobs may read one topic. So the log is followed back,
//! entry by entry, to the commits of the application itself.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};

use crate::log::{AddedFile, LogEntry};
use crate::root::Lake;
use bellwether_base::{Error, Result};
use bellwether_tables::Table;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsOf {
    /// The application, whose number is the next offset.
    pub app_id: String,
    /// A further application, under which it commits rows without moving that number.
    pub aside: String,
    /// Commits after this version, and up to the next one.
    pub after: i64,
    /// The last version that is looked at.
    pub until: i64,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
}

// === impl OffsetsOf ===

impl OffsetsOf {
    /// True where a commit is one of those asked for, by what it moved.
    pub fn concerns<'a>(&self, mut moved: impl Iterator<Item = &'a str>) -> bool {
        moved.any(|app_id| app_id == self.app_id || app_id == self.aside)
    }

    /// True where an entry left the application at or before the first offset: no earlier one is beyond.
    fn begins_after(&self, entry: &LogEntry) -> bool {
        entry.txns.iter().any(|(app_id, number)| *app_id == self.app_id && *number <= self.from)
    }
}

// === impl Lake ===

impl Lake {
    /// Offsets of a partition, from one on, of which an application has committed rows to a table.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where a file or a log entry is gone.
    pub async fn offsets_of(&self, table: Table, asked: &OffsetsOf) -> Result<BTreeSet<i64>> {
        let log = self.log(table);
        let mut found = BTreeSet::new();
        for version in (asked.after + 1..=asked.until).rev() {
            let Some(entry) = log.entry(version).await? else {
                return Err(Error::data(format!(
                    "nobody can tell which messages of `{}/{}` table `{}` holds: its log entry {version} is gone",
                    asked.topic,
                    asked.partition,
                    table.name()
                ))
                .with_hint("restore the entry from a copy, or read the topic under another `kafka.job`"));
            };
            if asked.begins_after(&entry) {
                break;
            }
            if asked.concerns(entry.txns.iter().map(|(app_id, _)| app_id.as_str())) {
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
