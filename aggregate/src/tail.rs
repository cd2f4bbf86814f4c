//! Reading `events` on by version, and how the work is laid out over shards.

use std::time::Duration;

use arrow::compute::concat_batches;
use bellwether_lake::{AddedFile, Advance, Error, Handover, Lake, LogEntry, Result, Snapshot, Table, WrittenFile};
use prometheus::IntCounter;

use crate::contribution::FileRows;

/// Rows of `events` that one step takes at most, but for a version that alone has more.
pub(crate) const STEP_ROWS: usize = 200_000;

pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Application of `metrics` whose number says how many shards there are, and how often everything was rebuilt.
const LAYOUT: &str = "aggregate/layout";

/// More shards than anybody needs; also what the number of rebuilds is multiplied by.
pub const MOST_SHARDS: u32 = 1000;

/// The application of a shard: its number is the version of `events` that it reads next.
pub fn app_of(shard: u32) -> String {
    format!("aggregate/{shard}")
}

/// How the runs are laid out over shards. It only grows as a number, and every commit of an aggregator expects it as it
/// was: after a rebuild all of them begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How often everything was rebuilt.
    pub generation: i64,
    /// Shards.
    pub shards: u32,
}

// === impl Layout ===

impl Layout {
    /// The layout of a version of `metrics`; none where nothing has been committed yet.
    pub fn of(on: &Snapshot) -> Option<Self> {
        let Some(number) = on.next(LAYOUT) else {
            return on.next(&app_of(0)).map(|_| Self { generation: 0, shards: 1 });
        };
        let shards = u32::try_from(number.rem_euclid(i64::from(MOST_SHARDS) + 1)).unwrap_or(1);
        Some(Self { generation: number.div_euclid(i64::from(MOST_SHARDS) + 1), shards })
    }

    /// The step of a commit that is made for this layout.
    pub(crate) fn advance(self, on: &Snapshot) -> Advance {
        let next = self.generation * (i64::from(MOST_SHARDS) + 1) + i64::from(self.shards);
        Advance { app_id: LAYOUT.to_owned(), expected: on.next(LAYOUT), next }
    }

    /// Where each shard stands: the version of `events` that it reads next.
    pub fn stands(self, on: &Snapshot) -> impl Iterator<Item = (u32, i64)> {
        (0..self.shards).map(|shard| (shard, on.next(&app_of(shard)).unwrap_or(0)))
    }
}

/// `events`, read on by version.
pub(crate) struct Tail {
    lake: Lake,
    handover: Option<Handover>,
    read_back: IntCounter,
    /// Version to read next; may be ahead of what was committed where versions brought no rows.
    pub(crate) next: i64,
}

// === impl Tail ===

impl Tail {
    pub(crate) fn new(lake: Lake, handover: Option<Handover>, read_back: IntCounter, next: i64) -> Self {
        Self { lake, handover, read_back, next }
    }

    pub(crate) fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    /// The next versions, within the bound of a step, and the rows they bring.
    pub(crate) async fn gather(&self) -> Result<(Vec<LogEntry>, Vec<FileRows>)> {
        let log = self.lake.log(Table::Events);
        let (mut entries, mut new, mut rows) = (Vec::new(), Vec::new(), 0);
        while rows < STEP_ROWS {
            let version = self.next + i64::try_from(entries.len()).unwrap_or(i64::MAX);
            let Some(entry) = log.entry(version).await? else { break };
            // An entry that only rewrites files brings nothing new.
            if entry.brings_rows() {
                for file in self.rows_of(&entry).await? {
                    rows += file.rows.num_rows();
                    new.push(file);
                }
            }
            entries.push(entry);
        }
        Ok((entries, new))
    }

    /// The entries up to a version that others have taken in.
    pub(crate) async fn passed(&self, to: i64) -> Result<Vec<LogEntry>> {
        let log = self.lake.log(Table::Events);
        let mut entries = Vec::new();
        for version in self.next..to {
            let gone = || Error::unavailable(format!("version {version} of `events` is not there yet"));
            entries.push(log.entry(version).await?.ok_or_else(gone)?);
        }
        Ok(entries)
    }

    async fn rows_of(&self, entry: &LogEntry) -> Result<Vec<FileRows>> {
        let handed = entry.uuid.and_then(|uuid| self.handover.as_ref()?.take(uuid));
        if let Some(written) = handed {
            let rows = |WrittenFile { file, batch }| FileRows { file: file.as_added(), rows: batch };
            return Ok(written.into_iter().map(rows).collect());
        }
        let mut new = Vec::new();
        for file in entry.added.iter().filter(|file| file.data_change) {
            new.push(self.read(file).await?);
        }
        Ok(new)
    }

    /// Reads a file back.
    pub(crate) async fn read(&self, file: &AddedFile) -> Result<FileRows> {
        let batches = self.lake.read(Table::Events, file, None).await?;
        self.read_back.inc();
        Ok(FileRows { file: file.clone(), rows: concat_batches(&Table::Events.arrow_schema(), &batches)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_layout_is_read_back_and_only_grows() {
        let empty = Snapshot::new(0, BTreeMap::new());
        assert_eq!(Layout::of(&empty), None);
        let old = Snapshot::new(3, BTreeMap::from([(app_of(0), 7)]));
        assert_eq!(Layout::of(&old), Some(Layout { generation: 0, shards: 1 }), "written before there were shards");
        let mut last = 0;
        for (generation, shards) in [(0, 1), (0, MOST_SHARDS), (1, 4), (2, 1), (3, 1)] {
            let layout = Layout { generation, shards };
            let advance = layout.advance(&empty);
            assert!(advance.next > last);
            last = advance.next;
            let on = Snapshot::new(1, BTreeMap::from([(advance.app_id, advance.next), (app_of(0), 9)]));
            assert_eq!(Layout::of(&on), Some(layout));
            assert_eq!(layout.stands(&on).next(), Some((0, 9)));
        }
    }
}
