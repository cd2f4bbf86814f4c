//! The Delta log of a table. Each version is a file that can be created only once; creating it is the commit.
//!
//! `DeltaLog::append` takes the exactly-once decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use uuid::Uuid;

use super::{Advance, Commit, CommitLog, DataFile, Outcome, Snapshot};
use crate::log::{
    AddedFile, LOG_FOLDER, LogEntry, entry_path, read_entry, replace_entry, widening, with_property, write_entry,
};
use crate::maintain::written_micros;
use crate::stored::{Stored, from_store};
use bellwether_base::Clock;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_tables::{AppId, Table};

/// Number of attempts to read a version that exists according to the store but cannot be read yet: S3 answers 409 to one
/// of two racing writers, and the winner's object may appear a moment later.
const LOOKS_AT_A_CONFLICT: usize = 5;

/// Most log entries that are requested concurrently while a snapshot catches up.
const ENTRIES_AT_ONCE: usize = 32;

/// Reported in place of an application if another commit has removed a file that a commit replaces.
const FILES: &str = "the files to be replaced";

/// The log of one table.
#[derive(Clone)]
pub struct DeltaLog {
    pub(crate) table: Table,
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    pub(crate) clock: Arc<dyn Clock>,
}

/// An entry to append.
pub(crate) struct Entry<'a> {
    /// Its own id.
    pub(crate) uuid: Uuid,
    /// The numbers that it expects and moves.
    pub(crate) advances: &'a [Advance],
    /// Files that it removes. If an earlier entry has removed one of them, this entry must not land.
    pub(crate) removed: &'a [AddedFile],
    /// It must not land after an entry that brings rows which its writer has not seen.
    pub(crate) before_new_rows: bool,
    /// When the oldest of the files that it adds was written, microseconds since the epoch; none if it adds none.
    pub(crate) written: Option<i64>,
    /// Its lines.
    pub(crate) text: &'a str,
}

/// How an entry of the log affects an entry to append.
enum Step {
    /// It has no effect: read on.
    On,
    /// It is the same entry.
    Ours,
    /// It removes a file that ours removes, or brings rows that ours must not follow.
    Taken,
}

// === impl Entry ===

impl Entry<'_> {
    /// Compares this entry with one in the log.
    fn meets(&self, found: &LogEntry) -> Step {
        let is_ours = |path: &String| self.removed.iter().any(|ours| ours.path == *path);
        match () {
            () if found.uuid == Some(self.uuid) => Step::Ours,
            () if found.removed.iter().any(is_ours) => Step::Taken,
            () if self.before_new_rows && found.brings_rows() => Step::Taken,
            () => Step::On,
        }
    }
}

// === impl DeltaLog ===

impl DeltaLog {
    /// Returns the table of this log.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Returns the newest version.
    ///
    /// # Errors
    /// As [`CommitLog::load`].
    pub async fn latest_version(&self) -> Result<i64> {
        Ok(self.newest().await?.version)
    }

    /// Reads the entry of a version; returns `None` if it does not exist (yet).
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the entry is torn.
    pub async fn entry(&self, version: i64) -> Result<Option<LogEntry>> {
        match self.store.get(&entry_path(&self.path, version)).await {
            Ok(found) => Ok(Some(read_entry(version, &found.bytes().await.stored()?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(from_store(source)),
        }
    }

    /// Returns true if the log has been cleaned up beyond a version: it existed, but its entry does not. A follower that
    /// reads this version next would wait for ever.
    ///
    /// # Errors
    /// As [`CommitLog::load`].
    pub async fn is_cleaned_up_at(&self, version: i64) -> Result<bool> {
        if version > 0 && self.store.head(&entry_path(&self.path, version - 1)).await.is_ok() {
            return Ok(false);
        }
        Ok(self.newest().await?.version >= version && self.entry(version).await?.is_none())
    }

    /// Brings a snapshot up to date by reading all entries after it.
    ///
    /// # Errors
    /// As [`CommitLog::load`].
    pub async fn catch_up(&self, snapshot: Snapshot) -> Result<Snapshot> {
        Ok(self.read_on(snapshot, |_| Step::On).await?.0)
    }

    /// Reads the entries after a snapshot, in growing batches, until none is left or `look` returns something other than
    /// [`Step::On`]. Returns the newest snapshot and the last step.
    async fn read_on(
        &self,
        mut snapshot: Snapshot,
        mut look: impl FnMut(&LogEntry) -> Step,
    ) -> Result<(Snapshot, Step)> {
        let mut at_once = 1;
        loop {
            let first = snapshot.version + 1;
            let entries: Vec<Option<LogEntry>> = futures::stream::iter(first..first + at_once)
                .map(|version| self.entry(version))
                .buffered(ENTRIES_AT_ONCE)
                .try_collect()
                .await?;
            let last = entries.iter().rposition(Option::is_some).map(|place| first + place as i64);
            for entry in entries.into_iter().map_while(|entry| entry) {
                let step = look(&entry);
                snapshot = snapshot.with(entry);
                if !matches!(step, Step::On) {
                    return Ok((snapshot, step));
                }
            }
            match last {
                None => return Ok((snapshot, Step::On)),
                // Both may have been committed between the two requests.
                Some(last) if snapshot.version < last => {
                    if self.entry(snapshot.version + 1).await?.is_none() {
                        return Err(self.hole(snapshot.version + 1));
                    }
                }
                Some(last) if last < first + at_once - 1 => return Ok((snapshot, Step::On)),
                Some(_) => at_once = (at_once * 2).min(ENTRIES_AT_ONCE as i64),
            }
        }
    }

    fn hole(&self, version: i64) -> Error {
        let name = self.table.name();
        Error::data(format!("log entry {version} of table `{name}` is missing, but later entries exist"))
            .with_hint("restore the table's `_delta_log` from a backup; nothing was written in the meantime")
    }

    /// Returns the newest snapshot, from the log checkpoint and the entries after it.
    async fn newest(&self) -> Result<Snapshot> {
        if let Some(last) = self.last_checkpoint().await? {
            return self.catch_up(self.checkpoint(&last).await?).await;
        }
        match self.first_entry_version().await? {
            Some(0) => self.catch_up(Snapshot::new(-1, BTreeMap::new())).await,
            Some(first) => Err(Error::data(format!(
                "the log of table `{}` begins at version {first} and has no checkpoint",
                self.table.name()
            ))
            .with_hint("restore `_delta_log/_last_checkpoint` or the missing entries from a backup")),
            None => Err(Error::data(format!("there is no table `{}` under the root", self.table.name()))
                .with_hint("check [tables].root")),
        }
    }

    /// Returns true if the log still starts at or before a version, with its first entry or a log checkpoint, so that the
    /// table can be read as of that version.
    pub(crate) async fn reaches_back_to(&self, version: i64) -> Result<bool> {
        let folder = self.path.clone().join(LOG_FOLDER);
        let names: Vec<Path> =
            self.store.list(Some(&folder)).map_ok(|object| object.location).try_collect().await.stored()?;
        let reaches = |path: &Path| {
            let checkpoint = path.filename().and_then(|name| name.split_once(".checkpoint."));
            let checkpoint = checkpoint.and_then(|(number, _)| number.parse::<i64>().ok());
            entry_version(path) == Some(0) || checkpoint.is_some_and(|of| of <= version)
        };
        Ok(names.iter().any(reaches))
    }

    /// Returns true if the log ends at the version of a snapshot. A commit into a gap would be read twice or not at all.
    async fn ends_at(&self, snapshot: &Snapshot) -> Result<bool> {
        let newest = entry_path(&self.path, snapshot.version);
        let later = self.store.list_with_offset(Some(&self.path.clone().join(LOG_FOLDER)), &newest);
        let versions: Vec<Option<i64>> =
            later.map_ok(|object| entry_version(&object.location)).try_collect().await.stored()?;
        Ok(!versions.into_iter().flatten().any(|version| version > snapshot.version))
    }

    /// Returns the version of the oldest entry: not 0 if the beginning of the log has been cleaned up.
    async fn first_entry_version(&self) -> Result<Option<i64>> {
        let folder = self.path.clone().join(LOG_FOLDER);
        let versions: Vec<Option<i64>> = self
            .store
            .list(Some(&folder))
            .map_ok(|object| entry_version(&object.location))
            .try_collect()
            .await
            .stored()?;
        Ok(versions.into_iter().flatten().min())
    }

    /// Appends an entry: takes the exactly-once decision.
    ///
    /// It creates the version after the snapshot. If another entry has that version, it reads the log to its end and tries
    /// again there, unless an entry on the way advanced one of our applications or removed a file that ours removes. If it
    /// finds its own entry, by its id, an earlier attempt has landed.
    ///
    /// # Errors
    /// As [`CommitLog::try_commit`].
    pub(crate) async fn append(&self, on: &Snapshot, entry: &Entry<'_>) -> Result<Outcome> {
        let mut base = on.clone();
        let mut taken = false;
        loop {
            let apps = if taken { vec![FILES.to_owned()] } else { base.moved(entry.advances) };
            if !apps.is_empty() {
                return Ok(match self.catch_up(base).await {
                    Ok(snapshot) => Outcome::Fenced { apps, snapshot },
                    Err(error) => unclear(error)?,
                });
            }
            if let Some(gone) = self.files_are_gone(&base, entry) {
                return Err(gone);
            }
            if let Some(refusal) = base.form().refusal(self.table) {
                // A later entry may have reverted the change.
                let known = base.version;
                match self.read_on(base, |found| entry.meets(found)).await {
                    Ok((snapshot, Step::Ours)) => return Ok(Outcome::Committed(snapshot)),
                    Ok((snapshot, _)) if snapshot.version == known => return Err(refusal),
                    Ok((snapshot, step)) => {
                        taken = matches!(step, Step::Taken);
                        base = snapshot;
                        continue;
                    }
                    Err(error) => return unclear(error),
                }
            }
            match self.still_there(&base, entry).await {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    base = newer;
                    continue;
                }
                Err(error) => return unclear(error),
            }
            let version = base.version + 1;
            match self.create(version, entry.text).await {
                Ok(Some(())) => {
                    let txns = entry.advances.iter().map(|advance| (advance.app_id.clone(), advance.next));
                    return Ok(Outcome::Committed(base.after(version, txns)));
                }
                Ok(None) => match self.step_over(base, entry).await {
                    Ok((snapshot, Step::Ours)) => return Ok(Outcome::Committed(snapshot)),
                    Ok((snapshot, step)) => {
                        taken = matches!(step, Step::Taken);
                        base = snapshot;
                    }
                    Err(error) => return unclear(error),
                },
                Err(reason) => return Ok(Outcome::Unknown { reason }),
            }
        }
    }

    /// Returns why an entry cannot land: maintenance has removed the files that it names, because no commit named them for so long. The
    /// table says so before they go, so that an entry which lands without having read that is among those that name them.
    fn files_are_gone(&self, base: &Snapshot, entry: &Entry<'_>) -> Option<Error> {
        let gone_before = base.next(&AppId::Unnamed.to_string())?;
        entry.written.filter(|written| *written < gone_before)?;
        let name = self.table.name();
        let error =
            Error::fenced(format!("files of table `{name}` waited too long for their commit, and were removed"));
        Some(error.with_hint(
            "it goes on from what the table says; `maintain.keep_unnamed` says how long such files are kept",
        ))
    }

    /// Reads the entries of others from the next version on, which exists according to the store.
    async fn step_over(&self, base: Snapshot, entry: &Entry<'_>) -> Result<(Snapshot, Step)> {
        let version = base.version + 1;
        let Some(found) = self.conflicting_entry(version).await? else {
            return Err(Error::unavailable(format!("version {version} is contended")));
        };
        let step = entry.meets(&found);
        let base = base.with(found);
        match step {
            Step::On => self.read_on(base, |found| entry.meets(found)).await,
            step => Ok((base, step)),
        }
    }

    /// Returns `None` if the log still has the entry of a snapshot's version, and the newest snapshot otherwise. The store
    /// would accept a version whose entry was cleaned up a second time, and no reader would ever see it.
    async fn still_there(&self, base: &Snapshot, entry: &Entry<'_>) -> Result<Option<Snapshot>> {
        match self.store.head(&entry_path(&self.path, base.version)).await {
            Ok(_) => return Ok(None),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(from_store(source)),
        }
        let newest = self.newest().await?;
        if newest.version == base.version {
            return Ok(None); // A log checkpoint replaces the entry.
        }
        let name = self.table.name();
        if newest.version < base.version {
            let (ends, seen) = (newest.version, base.version);
            let error =
                Error::data(format!("the log of table `{name}` ends at version {ends}, but version {seen} existed"));
            return Err(error.with_hint("restore the table's `_delta_log` from a backup"));
        }
        if newest.moved(entry.advances).is_empty() && entry.removed.is_empty() {
            return Ok(Some(newest)); // Our numbers are unchanged, so our entry is not among the removed ones.
        }
        Err(Error::fenced(format!("the log of table `{name}` was cleaned up beyond version {}", base.version))
            .with_hint(
                "work continues from the table; keep entries for longer than a worker may be paused \
             (`delta.logRetentionDuration`)",
            ))
    }

    /// Adds the columns that the table lacks because it was created by an earlier version. Other processes may do so at the
    /// same moment.
    ///
    /// # Errors
    /// `Data` if this program cannot write to the table; `Unavailable` if storage does not answer.
    pub(crate) async fn widen(&self) -> Result<()> {
        let mut snapshot = self.load().await?;
        for _ in 0..LOOKS_AT_A_CONFLICT {
            let Some((metadata, added)) = snapshot.form().widened(self.table)? else { return Ok(()) };
            let text = widening(&metadata, &added, self.clock.now_micros() / 1000, self.clock.unique_id())?;
            let version = snapshot.version + 1;
            match self.create(version, &text).await {
                Ok(Some(())) => {
                    let (table, columns) = (self.table.name(), added.join(", "));
                    tracing::info!(table, version, columns, "columns added to a table of an earlier version");
                    return Ok(());
                }
                // Whoever has this version: the table shows which columns are still missing.
                Ok(None) => {}
                Err(reason) => tracing::warn!(table = self.table.name(), reason, "columns may not have been added yet"),
            }
            snapshot = self.catch_up(snapshot).await?;
        }
        Err(Error::unavailable(format!(
            "columns cannot be added to table `{}`: its log is contended",
            self.table.name()
        )))
    }

    /// Sets a property of the table, if it has none of that name. Returns true if it has one now.
    ///
    /// # Errors
    /// `Data` where the table is one that this program does not write; `Unavailable` where storage does not answer.
    pub(crate) async fn set_property(&self, name: &str, value: &str) -> Result<bool> {
        let snapshot = self.load().await?;
        if let Some(refusal) = snapshot.form().refusal(self.table) {
            return Err(refusal);
        }
        let Some(metadata) = &snapshot.form().metadata else { return Ok(false) };
        if metadata.configuration.contains_key(name) {
            return Ok(true);
        }
        let mut metadata = metadata.clone();
        metadata.configuration.insert(name.to_owned(), Some(value.to_owned()));
        let text = with_property(&metadata, name, value, self.clock.now_micros() / 1000, self.clock.unique_id())?;
        // If another was first, or the outcome is unclear, the next round looks again.
        Ok(matches!(self.create(snapshot.version + 1, &text).await, Ok(Some(()))))
    }

    /// Commits like [`CommitLog::try_commit`], and removes files of the snapshot in the same step.
    ///
    /// # Errors
    /// As [`CommitLog::try_commit`].
    pub async fn try_replace(&self, on: &Snapshot, commit: &Commit, removed: &[AddedFile]) -> Result<Outcome> {
        self.may_remove(on, removed, "unset this property while the table is being rebuilt")?;
        let text = replace_entry(commit, removed, true, self.clock.now_micros() / 1000)?;
        let written = oldest(&commit.files);
        let (uuid, advances) = (commit.uuid, &commit.advances);
        let entry = Entry { uuid, advances, removed, before_new_rows: false, written, text: &text };
        self.append(on, &entry).await
    }

    /// Commits like [`DeltaLog::try_replace`], with files that hold nothing new for readers that follow the log. With
    /// `before_new_rows`, the commit is fenced by one that has brought rows since the snapshot.
    ///
    /// # Errors
    /// As [`CommitLog::try_commit`].
    pub(crate) async fn try_rewrite(
        &self,
        on: &Snapshot,
        commit: &Commit,
        removed: &[AddedFile],
        before_new_rows: bool,
    ) -> Result<Outcome> {
        self.may_remove(on, removed, "unset this property until the erasure is complete")?;
        let text = replace_entry(commit, removed, false, self.clock.now_micros() / 1000)?;
        let written = oldest(&commit.files);
        let (uuid, advances) = (commit.uuid, &commit.advances);
        let entry = Entry { uuid, advances, removed, before_new_rows, written, text: &text };
        self.append(on, &entry).await
    }

    fn may_remove(&self, on: &Snapshot, removed: &[AddedFile], hint: &str) -> Result<()> {
        if !on.form().only_appends() || removed.is_empty() {
            return Ok(());
        }
        let name = self.table.name();
        let error = Error::config(format!("`delta.appendOnly` forbids removing files from table `{name}`"));
        Err(error.with_hint(hint))
    }

    /// Tries once to create a version; returns `None` if it exists already.
    async fn create(&self, version: i64, text: &str) -> Result<Option<()>, String> {
        let payload = PutPayload::from(text.to_owned());
        match self.store.put_opts(&entry_path(&self.path, version), payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Some(())),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(None),
            Err(source) => Err(from_store(source).chain()),
        }
    }

    /// Reads the entry of a version that exists according to the store; returns `None` if it does not appear.
    async fn conflicting_entry(&self, version: i64) -> Result<Option<LogEntry>> {
        let looks = futures::stream::iter(0..LOOKS_AT_A_CONFLICT).then(|_| self.entry(version));
        let mut looks = std::pin::pin!(looks);
        while let Some(entry) = looks.next().await {
            if let Some(entry) = entry? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Returns the version of an entry, from its file name.
pub fn entry_version(path: &Path) -> Option<i64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

/// Returns when the oldest of some files was written, by their names.
fn oldest(files: &[DataFile]) -> Option<i64> {
    files.iter().filter_map(|file| written_micros(&file.path)).min()
}

/// Makes an outcome of an error: unknown if another attempt may resolve it, otherwise the error itself.
fn unclear(error: Error) -> Result<Outcome> {
    match error.kind() {
        ErrorKind::Unavailable => Ok(Outcome::Unknown { reason: error.chain() }),
        _ => Err(error),
    }
}

#[async_trait]
impl CommitLog for DeltaLog {
    async fn load(&self) -> Result<Snapshot> {
        let mut snapshot = self.newest().await?;
        while !self.ends_at(&snapshot).await? {
            let before = snapshot.version;
            snapshot = self.catch_up(snapshot).await?;
            if snapshot.version == before {
                return Err(self.hole(before + 1));
            }
        }
        Ok(snapshot)
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        let text = write_entry(commit, self.clock.now_micros() / 1000)?;
        let written = oldest(&commit.files);
        let (uuid, advances) = (commit.uuid, &commit.advances);
        let entry = Entry { uuid, advances, removed: &[], before_new_rows: false, written, text: &text };
        self.append(on, &entry).await
    }
}
