//! Cleaning up a log: entries that a log checkpoint stands for go, and with them the files that they took out of the table.
//!
//! In this order, so that a process killed at any point leaves a whole table and the next one finds what is left to do:
//!
//! 1. The entries up to a checkpoint are read, and replayed from the checkpoint before. The result must be the new checkpoint.
//! 2. Data files that these entries took out are removed.
//! 3. The record of the entries is written (`record`).
//! 4. Older checkpoints, then the entries before the checkpoint, oldest first: no hole appears between entries.
//!
//! Nothing goes that is younger than [`MaintainSettings::keep_replaced`], or that a follower has still to read (`needed`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_tables::Table;
use futures::future::try_join_all;

use super::listing::LogListing;
use super::needed::Needed;
use super::record::{CleanedLog, delete};
use super::{Act, Amount, MaintainSettings, Maintained, Waits};
use crate::commit::checkpoint::LastCheckpoint;
use crate::commit::delta::DeltaLog;
use crate::root::Lake;

/// Entries that one step cleans up at most, unless checkpoints are further apart: bounds its time.
const MOST_ENTRIES: i64 = 1000;

/// Entries that are read at a time.
const AT_ONCE: i64 = 32;

/// Data files that are removed at a time.
const DELETED_AT_ONCE: usize = 16;

/// Property of a table by which log checkpoints leave out files that were taken out so long ago. Without it, they would list
/// each of the small files of a whole week.
const TOMBSTONES: &str = "delta.deletedFileRetentionDuration";

/// Entries that can go, and what is known of them.
struct Cleaning {
    /// The log checkpoint that stands for them.
    base: i64,
    record: CleanedLog,
    /// Data files that they took out, with the bytes that the log states.
    gone: BTreeMap<String, u64>,
}

/// The state of a table that entries are replayed on.
struct Replay {
    files: BTreeMap<String, u64>,
    apps: BTreeMap<String, i64>,
}

// === impl Lake ===

impl Lake {
    /// Cleans up a part of a table's log, and the files that were replaced in it.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a log checkpoint does not hold what the entries say, in which case
    /// nothing was removed.
    pub async fn clean_up(&self, table: Table, settings: &MaintainSettings, act: Act) -> Result<Maintained> {
        self.clean_up_after(table, Some(settings.keep_replaced), act).await
    }

    /// Cleans up like [`Lake::clean_up`], whatever the age of entries and files: a reader that has an older version open finds files
    /// gone. What followers have still to read stays.
    ///
    /// # Errors
    /// As [`Lake::clean_up`].
    pub async fn clean_up_at_once(&self, table: Table) -> Result<Maintained> {
        self.clean_up_after(table, None, Act::Do).await
    }

    /// Cleans up what is so old; with none, of any age.
    async fn clean_up_after(&self, table: Table, keep: Option<Duration>, act: Act) -> Result<Maintained> {
        let log = self.log(table);
        let Some(last) = log.last_checkpoint().await? else { return Ok(Maintained::default()) };
        let listing = LogListing::of(&log).await?;
        let record = self.cleaned_log(table).await?;
        let Some(start) = start(&listing, record.as_ref()) else { return Ok(Maintained::default()) };
        let mut done = Maintained::default();
        let cutoff = match keep {
            Some(keep) => self.witness(act == Act::Do).await?.ago(keep),
            None => Ok(i64::MAX),
        };
        let base = match cutoff {
            Ok(cutoff) => {
                let needed = self.needed(table).await?;
                let (base, waits) = choose(&log, &listing, start..last.version, cutoff, needed).await?;
                done.waits = waits;
                base
            }
            Err(waits) => {
                done.waits = listing.checkpoints(start + 1..=last.version).next().map(|_| waits);
                None
            }
        };
        let Some(base) = base else {
            // A process was killed while it removed what the record accounts for.
            if let Some(record) = record {
                done.log = self.remove_entries(&listing, record.version, act).await?;
            }
            return Ok(done);
        };
        let Some(cleaning) =
            self.replayed(&log, start, base, record.unwrap_or_else(|| CleanedLog::since(start + 1))).await?
        else {
            return Ok(done); // Another process cleans up at this moment.
        };
        done.replaced = self.remove_replaced(table, &cleaning, act).await?;
        if act == Act::Do {
            self.record_cleaned(table, &cleaning.record).await?;
            if let Some(keep) = keep {
                let minutes = keep.as_secs().div_ceil(60);
                log.set_property(TOMBSTONES, &format!("interval {minutes} minutes")).await?;
            }
        }
        done.log = self.remove_entries(&listing, base, act).await?;
        Ok(done)
    }

    /// Reads the entries after one checkpoint, or the log's beginning, up to another, and compares with that one. None if an
    /// entry is gone.
    async fn replayed(
        &self,
        log: &DeltaLog,
        start: i64,
        base: i64,
        mut record: CleanedLog,
    ) -> Result<Option<Cleaning>> {
        let begins = if start < 0 { Some(Replay::empty()) } else { self.state_at(log, start).await? };
        let Some(mut replay) = begins else { return Ok(None) };
        let mut gone = BTreeMap::new();
        let mut next = start + 1;
        while next <= base {
            let until = base.min(next + AT_ONCE - 1);
            for entry in try_join_all((next..=until).map(|version| log.entry(version))).await? {
                let Some(entry) = entry else { return Ok(None) };
                for path in &entry.removed {
                    if let Some(bytes) = replay.files.remove(path) {
                        gone.insert(path.clone(), bytes);
                    }
                }
                for file in &entry.added {
                    gone.remove(&file.path);
                    replay.files.insert(file.path.clone(), u64::try_from(file.size).unwrap_or(0));
                }
                record.take(&entry);
                replay.apps.extend(entry.txns);
            }
            next = until + 1;
        }
        let stands = match self.state_at(log, base).await {
            Ok(Some(stands)) => stands,
            Ok(None) => return Ok(None),
            // Deleted by another process, or never written to its end.
            Err(error) if error.kind() == ErrorKind::Data => return Err(differs(log.table(), base).with_source(error)),
            Err(error) => return Err(error),
        };
        let same_files = stands.files.keys().eq(replay.files.keys());
        if !same_files || stands.apps != replay.apps {
            return Err(differs(log.table(), base));
        }
        Ok(Some(Cleaning { base, record, gone }))
    }

    /// Returns the table as of a log checkpoint; none if another process has cleaned up the log beyond it.
    async fn state_at(&self, log: &DeltaLog, version: i64) -> Result<Option<Replay>> {
        let read: Result<Replay> = async {
            let stands = log.checkpoint(&LastCheckpoint::at(version)).await?;
            let files = self.files_at(log.table(), version).await?;
            let size = |bytes| u64::try_from(bytes).unwrap_or(0);
            Ok(Replay {
                files: files.into_iter().map(|file| (file.path, size(file.size))).collect(),
                apps: stands.apps().map(|(app, next)| (app.to_owned(), next)).collect(),
            })
        }
        .await;
        match read {
            Ok(replay) => Ok(Some(replay)),
            Err(error) if error.kind() == ErrorKind::Data && !log.reaches_back_to(version).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the files that cleaned entries took out, and that the newest version does not name again.
    async fn remove_replaced(&self, table: Table, cleaning: &Cleaning, act: Act) -> Result<Amount> {
        let (version, active) = self.active_files(table).await?;
        if version < cleaning.base {
            let name = table.name();
            return Err(Error::unavailable(format!("a listing of table `{name}` is behind its log")));
        }
        let active: BTreeSet<String> = active.into_iter().map(|file| file.path).collect();
        // Another engine may have copied a table by naming files of elsewhere.
        let ours = |path: &String| !path.contains("://") && !path.starts_with('/') && !active.contains(path);
        let gone: Vec<(&String, u64)> =
            cleaning.gone.iter().filter(|(path, _)| ours(path)).map(|(path, bytes)| (path, *bytes)).collect();
        let mut removed = Amount::default();
        gone.iter().for_each(|(_, bytes)| removed.add(*bytes));
        if act == Act::Do {
            let mut paths = Vec::with_capacity(gone.len());
            for (path, _) in gone {
                paths.push(self.file_path(table, path)?);
            }
            for some in paths.chunks(DELETED_AT_ONCE) {
                try_join_all(some.iter().map(|path| delete(self, path))).await?;
            }
        }
        Ok(removed)
    }

    /// Removes everything of the log before a version that a checkpoint stands for.
    async fn remove_entries(&self, listing: &LogListing, base: i64, act: Act) -> Result<Amount> {
        let others = listing.others.range(..base).flat_map(|(_, objects)| objects);
        let entries = listing.entries.range(..base).map(|(_, object)| object);
        let mut removed = Amount::default();
        for (path, bytes) in others.chain(entries) {
            removed.add(*bytes);
            if act == Act::Do {
                delete(self, path).await?;
            }
        }
        Ok(removed)
    }
}

// === impl Replay ===

impl Replay {
    fn empty() -> Self {
        Self { files: BTreeMap::new(), apps: BTreeMap::new() }
    }
}

/// Returns the version that entries are replayed from: of a log checkpoint, or before the first entry.
fn start(listing: &LogListing, record: Option<&CleanedLog>) -> Option<i64> {
    match (record, listing.first()?) {
        (Some(record), _) => Some(record.version),
        (None, 0) => Some(-1),
        // Another engine has cleaned up: whatever is before its checkpoint is not known.
        (None, first) => listing.checkpoints(first - 1..=i64::MAX).next(),
    }
}

/// Chooses the log checkpoint to clean up to: the newest one that is old enough and that no follower needs the entries before, within
/// the bound of a step. Also returns who an older one waits for.
async fn choose(
    log: &DeltaLog,
    listing: &LogListing,
    between: std::ops::Range<i64>,
    cutoff_micros: i64,
    needed: Option<Needed>,
) -> Result<(Option<i64>, Option<Waits>)> {
    let mut base = None;
    for version in listing.checkpoints(between.start + 1..=between.end) {
        if base.is_some() && version > between.start + MOST_ENTRIES {
            break;
        }
        let Some(entry) = log.entry(version).await? else { break };
        if entry.timestamp_ms.saturating_mul(1000) > cutoff_micros {
            break;
        }
        if let Some(Needed { version: next, name }) = needed.filter(|needed| version >= needed.version) {
            return Ok((base, Some(Waits::Follower { name, version: next })));
        }
        base = Some(version);
    }
    Ok((base, None))
}

fn differs(table: Table, version: i64) -> Error {
    let name = table.name();
    Error::data(format!("the log checkpoint of version {version} of table `{name}` does not hold what its log says"))
        .with_hint("nothing was removed; `bellwether audit` says more, and the entries themselves are whole")
}
