//! Versions that followers have still to read. A table's log, and the files of these versions, stay until they have.

use bellwether_base::Result;
use bellwether_tables::{AppId, Table};

use crate::commit::{CommitLog, Snapshot};
use crate::layout::Layout;
use crate::root::Lake;

/// The first version that a follower reads next. It may also open the table as of the version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) version: i64,
    /// The follower.
    pub(super) name: &'static str,
}

// === impl Lake ===

impl Lake {
    /// Returns the first version of a table that some follower has still to read; none if the table has no followers with a recorded
    /// position. The watcher has none: if its next version is gone, it builds its state from the newest one.
    pub(super) async fn needed(&self, table: Table) -> Result<Option<Needed>> {
        match table {
            Table::Events => {
                let metrics = self.log(Table::Metrics).load().await?;
                Ok(Some(Needed { version: Layout::reads_next(&metrics), name: "aggregate" }))
            }
            Table::Quarantine => {
                let quarantine = self.log(Table::Quarantine).load().await?;
                // Loaded later, so that a partition which is ahead here was ahead then.
                let events = self.log(Table::Events).load().await?;
                Ok(ahead(&quarantine, &events).map(|version| Needed { version, name: "ingest" }))
            }
            _ => Ok(None),
        }
    }
}

/// Returns the first version of `quarantine` that a new owner of a partition would read, to learn which messages beyond `events` were
/// rejected. Of a partition that is not beyond `events`, it reads nothing.
fn ahead(quarantine: &Snapshot, events: &Snapshot) -> Option<i64> {
    let since = |(app_id, next): (&str, i64)| {
        let Ok(AppId::Partition(partition)) = app_id.parse() else { return None };
        let is_ahead = events.next(app_id).is_none_or(|read| next > read);
        // Tables of earlier versions lack this record: the owner then reads from the beginning.
        is_ahead.then(|| quarantine.next(&AppId::Since(partition).to_string()).map_or(0, |since| since + 1))
    };
    quarantine.apps().filter_map(since).min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn snapshot(apps: &[(&str, i64)]) -> Snapshot {
        Snapshot::new(9, apps.iter().map(|(app, next)| ((*app).to_owned(), *next)).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn entries_about_partitions_beyond_events_are_needed_and_no_others() {
        let quarantine =
            snapshot(&[("j/t/0", 7), ("j/t/0/since", 4), ("j/t/1", 5), ("j/t/1/since", 2), ("j/t/1/claim", 3)]);
        assert_eq!(ahead(&quarantine, &snapshot(&[("j/t/0", 7), ("j/t/1", 5)])), None);
        assert_eq!(ahead(&quarantine, &snapshot(&[("j/t/0", 6), ("j/t/1", 5)])), Some(5));
        assert_eq!(ahead(&quarantine, &snapshot(&[("j/t/0", 6), ("j/t/1", 4)])), Some(3));
        assert_eq!(ahead(&quarantine, &snapshot(&[("j/t/0", 7)])), Some(3), "nothing of it is in `events`");
        assert_eq!(ahead(&snapshot(&[("j/t/0", 7)]), &snapshot(&[])), Some(0), "of an earlier version");
    }
}
