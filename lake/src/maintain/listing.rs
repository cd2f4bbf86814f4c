//! The objects in the folder of a log, by version.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bellwether_base::Result;
use futures::TryStreamExt;
use object_store::path::Path;

use crate::commit::delta::{DeltaLog, entry_version};
use crate::log::LOG_FOLDER;
use crate::stored::Stored;

/// An object and its bytes.
pub(crate) type Object = (Path, u64);

/// The content of a log's folder.
#[derive(Debug, Default)]
pub(crate) struct LogListing {
    /// Entries.
    pub(crate) entries: BTreeMap<i64, Object>,
    /// Everything else of a version: log checkpoints, or their parts, and what other engines put beside them.
    pub(crate) others: BTreeMap<i64, Vec<Object>>,
}

// === impl LogListing ===

impl LogListing {
    pub(crate) async fn of(log: &DeltaLog) -> Result<Self> {
        let folder = log.path.clone().join(LOG_FOLDER);
        let mut listing = Self::default();
        let mut objects = log.store.list(Some(&folder));
        while let Some(object) = objects.try_next().await.stored()? {
            if let Some(version) = entry_version(&object.location) {
                listing.entries.insert(version, (object.location, object.size));
            } else if let Some(version) = version_of(&object.location) {
                listing.others.entry(version).or_default().push((object.location, object.size));
            }
        }
        Ok(listing)
    }

    /// Returns the oldest entry.
    pub(crate) fn first(&self) -> Option<i64> {
        self.entries.keys().next().copied()
    }

    /// Returns the versions, among these, of log checkpoints that are in one file of the usual name.
    pub(crate) fn checkpoints(&self, versions: RangeInclusive<i64>) -> impl Iterator<Item = i64> {
        let is_whole = |(version, objects): &(&i64, &Vec<Object>)| {
            let name = format!("{version:020}.checkpoint.parquet");
            objects.iter().any(|(path, _)| path.filename() == Some(&name))
        };
        // A map has no range that ends before it begins.
        let found = (!versions.is_empty()).then(|| self.others.range(versions));
        found.into_iter().flatten().filter(is_whole).map(|(version, _)| *version)
    }
}

/// Returns the version of an object of the log, by the number that its name begins with.
fn version_of(path: &Path) -> Option<i64> {
    let (number, _) = path.filename()?.split_once('.')?;
    (number.len() == 20).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> LogListing {
        let mut listing = LogListing::default();
        for name in names {
            let path = Path::from(*name);
            match (entry_version(&path), version_of(&path)) {
                (Some(version), _) => drop(listing.entries.insert(version, (path, 1))),
                (None, Some(version)) => listing.others.entry(version).or_default().push((path, 1)),
                (None, None) => {}
            }
        }
        listing
    }

    #[test]
    fn only_checkpoints_in_one_file_stand_for_entries() {
        let listing = listing(&[
            "00000000000000000003.json",
            "00000000000000000004.json",
            "00000000000000000004.crc",
            "00000000000000000002.checkpoint.parquet",
            "00000000000000000003.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000004.checkpoint.parquet",
            "_last_checkpoint",
        ]);
        assert_eq!(listing.first(), Some(3));
        assert_eq!(listing.checkpoints(0..=9).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(listing.checkpoints(3..=3).count(), 0);
        let (after, before) = (9, 3);
        assert_eq!(listing.checkpoints(after..=before).count(), 0, "an empty range");
        assert_eq!(listing.others.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    }
}
