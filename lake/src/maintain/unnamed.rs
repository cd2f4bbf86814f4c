//! Files that no commit names: their writer was killed before its commit, or fenced.
//!
//! Such a file may still be named: its writer may have been suspended for days between writing and committing. So the table
//! says first, in its log, that files written before some time and not named by then are gone ([`AppId::Unnamed`]). Every commit
//! reads all entries before its own, and one that names such a file is refused. Only then is the table read once more, and the
//! files go that it does not name.

use std::collections::BTreeSet;

use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};
use futures::TryStreamExt;
use futures::future::try_join_all;
use serde_json::Map;
use uuid::Uuid;

use super::listing::LogListing;
use super::record::delete;
use super::{Act, Amount, MaintainSettings};
use crate::commit::{Advance, Commit, CommitLog, Outcome};
use crate::log::LOG_FOLDER;
use crate::root::Lake;
use crate::stored::Stored;

/// The time after which a file that no commit names is removed on demand.
const LONGEST_COMMIT_MICROS: i64 = 600_000_000;

/// Log entries that are read at a time.
const AT_ONCE: i64 = 32;

// === impl Lake ===

impl Lake {
    /// Removes the files of a table that were written long ago and that no commit names. It lists all files, so it is for once a
    /// day.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the log is torn.
    pub async fn remove_unnamed(&self, table: Table, settings: &MaintainSettings, act: Act) -> Result<Amount> {
        let Ok(cutoff) = self.witness(act == Act::Do).await?.ago(settings.keep_unnamed) else {
            return Ok(Amount::default());
        };
        let Some(cutoff) = self.as_others_see_it(table, cutoff, settings).await? else { return Ok(Amount::default()) };
        let old = self.written_before(table, cutoff).await?;
        if old.is_empty() || self.without_named(table, old.clone()).await?.is_empty() {
            return Ok(Amount::default());
        }
        if act == Act::Do && !self.announce(table, cutoff).await? {
            return Ok(Amount::default());
        }
        // After the announcement: whatever names one of them by now is in the log.
        let unnamed = self.without_named(table, old).await?;
        let mut removed = Amount::default();
        for (path, bytes) in &unnamed {
            removed.add(*bytes);
            if act == Act::Do {
                delete(self, &self.file_path(table, path)?).await?;
            }
        }
        Ok(removed)
    }

    /// Removes some files of a table at once, of those that no commit names and that are old enough for their writer to have committed
    /// them. A writer that still means to is refused, and reads its messages again.
    ///
    /// # Errors
    /// As [`Lake::remove_unnamed`].
    pub async fn remove_unnamed_now(&self, table: Table, paths: &[String]) -> Result<Amount> {
        let cutoff = self.clock().now_micros().saturating_sub(LONGEST_COMMIT_MICROS);
        let is_old = |path: &&String| written_micros(path).is_some_and(|written| written < cutoff);
        let old: Vec<(String, u64)> = paths.iter().filter(is_old).map(|path| (path.clone(), 0)).collect();
        let Some(newest) = old.iter().filter_map(|(path, _)| written_micros(path)).max() else {
            return Ok(Amount::default());
        };
        if !self.announce(table, newest + 1).await? {
            return Ok(Amount::default());
        }
        let mut removed = Amount::default();
        for (path, bytes) in self.without_named(table, old).await? {
            removed.add(bytes);
            delete(self, &self.file_path(table, &path)?).await?;
        }
        Ok(removed)
    }

    /// Returns the cutoff, or an earlier one if the newest commits say that it is earlier for other writers: a clock that is ahead must
    /// not refuse their commits. None if nothing was committed for long enough to tell.
    async fn as_others_see_it(&self, table: Table, cutoff: i64, settings: &MaintainSettings) -> Result<Option<i64>> {
        let log = self.log(table);
        let newest = log.load().await?.version;
        let mut least = None;
        for version in (newest - 2).max(0)..=newest {
            let Some(entry) = log.entry(version).await? else { continue };
            let at = entry.timestamp_ms.saturating_mul(1000);
            least = Some(least.map_or(at, |least: i64| least.min(at)));
        }
        let keep = i64::try_from(settings.keep_unnamed.as_micros()).unwrap_or(i64::MAX);
        Ok(least.map(|least| cutoff.min(least.saturating_sub(keep))))
    }

    /// Files that were written before a time, by their names; files of other writers are not among them.
    async fn written_before(&self, table: Table, cutoff_micros: i64) -> Result<Vec<(String, u64)>> {
        let folder = self.table_path(table);
        let mut objects = self.objects().list(Some(&folder));
        let mut old = Vec::new();
        while let Some(object) = objects.try_next().await.stored()? {
            let Some(parts) = object.location.prefix_match(&folder) else { continue };
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let path = parts.join("/");
            let is_data = parts.first().is_some_and(|first| first != LOG_FOLDER) && path.ends_with(".parquet");
            if is_data && written_micros(&path).is_some_and(|written| written < cutoff_micros) {
                old.push((path, object.size));
            }
        }
        Ok(old)
    }

    /// Returns those files that neither the newest version nor any entry that is left names. A file that an entry takes out is removed
    /// together with that entry.
    async fn without_named(&self, table: Table, files: Vec<(String, u64)>) -> Result<Vec<(String, u64)>> {
        let log = self.log(table);
        let newest = log.load().await?.version;
        let (version, active) = self.active_files(table).await?;
        if version < newest {
            let name = table.name();
            return Err(Error::unavailable(format!("a listing of table `{name}` is behind its log")));
        }
        let mut named: BTreeSet<String> = active.into_iter().map(|file| file.path).collect();
        let first = LogListing::of(&log).await?.first().unwrap_or(0);
        let mut next = first;
        while next <= version {
            let until = version.min(next + AT_ONCE - 1);
            for entry in try_join_all((next..=until).map(|version| log.entry(version))).await?.into_iter().flatten() {
                named.extend(entry.removed);
                named.extend(entry.added.into_iter().map(|file| file.path));
            }
            next = until + 1;
        }
        Ok(files.into_iter().filter(|(path, _)| !named.contains(path)).collect())
    }

    /// Says in the log that files written before a time are gone, unless they are named. Returns false if that is not certain.
    async fn announce(&self, table: Table, cutoff_micros: i64) -> Result<bool> {
        let log = self.log(table);
        let on = log.load().await?;
        let app_id = AppId::Unnamed.to_string();
        let known = on.next(&app_id);
        if known.is_some_and(|known| known >= cutoff_micros) {
            return Ok(true);
        }
        let commit = Commit {
            uuid: self.clock().unique_id(),
            advances: vec![Advance { app_id, expected: known, next: cutoff_micros }],
            files: Vec::new(),
            operation: "VACUUM",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        Ok(matches!(log.try_commit(&on, &commit).await?, Outcome::Committed(_)))
    }
}

/// Returns when a file was written, microseconds since the epoch, by its name (`part-UUID.…`). None for a file of another writer.
pub(crate) fn written_micros(path: &str) -> Option<i64> {
    let name = path.rsplit('/').next()?.strip_prefix("part-")?;
    let id = Uuid::parse_str(name.split('.').next()?).ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_when_it_was_written() {
        let path = "event_date=2026-11-23/part-01932c07-a000-7000-8000-000000000000.zst.parquet";
        assert_eq!(written_micros(path), Some(0x0193_2c07_a000 * 1000));
        // Names of other engines: a random id, and a number before it.
        assert_eq!(written_micros("part-00000-0a1b2c3d-1111-4222-8333-444455556666-c000.snappy.parquet"), None);
        assert_eq!(written_micros("part-0a1b2c3d-1111-4222-8333-444455556666.parquet"), None);
        assert_eq!(written_micros("x"), None);
    }
}
