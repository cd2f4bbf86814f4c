//! Reads a table's log, entry by entry, up to its newest version at the start of the audit.
//!
//! The result is the files of the table and the numbers of its applications. The log is trusted, except for missing or torn
//! entries, tables of other programs, and log checkpoints that differ from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::Findings;
use super::ranges::{Rule, Tracks};
use bellwether_base::{ErrorKind, Result};
use bellwether_lake::CleanedLog;
use bellwether_lake::Lake;
use bellwether_lake::PartitionRange;
use bellwether_lake::Stored;
use bellwether_lake::inspect::Form;
use bellwether_lake::inspect::LastCheckpoint;
use bellwether_lake::inspect::entry_version;
use bellwether_lake::inspect::{LOG_FOLDER, entry_path};
use bellwether_lake::{AddedFile, LogEntry};
use bellwether_tables::{AppId, Table};

/// Most log entries that are requested concurrently.
const ENTRIES_AT_ONCE: usize = 16;

const RESTORE: &str = "restore the table's `_delta_log` from a backup, or rebuild the table";
const RESTORE_RECORD: &str = "restore that file from a copy";
const NOT_OURS: &str = "check the root: another program's table may be in this place; otherwise undo the change";

/// A file of the table, and the commit that added it.
#[derive(Clone, Debug)]
pub(crate) struct ActiveFile {
    pub(crate) file: AddedFile,
    /// Offset ranges of that commit; empty if they are not known, or if the file is a rewrite.
    pub(crate) ranges: Arc<[PartitionRange]>,
    /// Version of that commit.
    pub(crate) version: i64,
}

/// The state of a table at a version.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) version: i64,
    /// Version of the oldest entry in the log.
    pub(crate) first: i64,
    /// True if everything before the first entry is known, from the record of a clean-up.
    pub(crate) is_accounted: bool,
    pub(crate) entries: i64,
    pub(crate) active: BTreeMap<String, ActiveFile>,
    pub(crate) tracks: Tracks,
    /// The files at the requested version, or at a later one with the same rows.
    pub(crate) kept: Option<Vec<AddedFile>>,
    /// The number of the erased contributions at the version of these files: with them, `metrics` is the same.
    pub(crate) kept_erased: Option<i64>,
    /// Gaps and overlaps of offset ranges.
    pub(crate) findings: Findings,
    /// Differences between a log checkpoint and the log.
    pub(crate) checkpoint_findings: Findings,
}

/// The result of reading a table's log.
pub(crate) enum Found {
    /// The table does not exist.
    Missing,
    /// The table cannot be checked, with the reason and a hint.
    Broken(String, &'static str),
    /// The table can be checked.
    Whole(Box<History>),
}

/// The content of the log folder.
struct Listing {
    /// Versions of the first and last entry.
    entries: Option<(i64, i64)>,
    /// Version of a missing entry between them.
    hole: Option<i64>,
    /// The newest log checkpoint.
    checkpoint: Option<LastCheckpoint>,
}

// === impl History ===

impl History {
    /// Returns the names of the present files.
    fn names(&self) -> BTreeSet<String> {
        self.active.keys().cloned().collect()
    }

    fn take_in(&mut self, entry: LogEntry, rule: Rule, rows_count: bool) {
        self.tracks.follow(&entry, rule, &mut self.findings);
        self.entries += 1;
        if !rows_count {
            return;
        }
        for path in &entry.removed {
            self.active.remove(path);
        }
        let ranges: Arc<[PartitionRange]> = entry.ranges.into();
        for file in entry.added {
            let ranges = if file.data_change { Arc::clone(&ranges) } else { Arc::default() };
            self.active.insert(file.path.clone(), ActiveFile { file, ranges, version: entry.version });
        }
    }

    /// Returns the present files.
    pub(crate) fn files(&self) -> Vec<AddedFile> {
        self.active.values().map(|active| active.file.clone()).collect()
    }
}

/// Reads a table's log. `keep` requests the files at a version.
///
/// # Errors
/// `Unavailable` if storage does not answer.
pub(crate) async fn read(lake: &Lake, table: Table, keep: Option<i64>) -> Result<Found> {
    loop {
        let record = match lake.cleaned_log(table).await {
            Ok(record) => record,
            Err(error) if error.kind() == ErrorKind::Data => return Ok(Found::Broken(error.chain(), RESTORE_RECORD)),
            Err(error) => return Err(error),
        };
        let known = record.as_ref().map(|record| record.version);
        let found = Box::pin(read_after(lake, table, keep, record)).await?;
        // An entry may be gone because maintenance has cleaned up meanwhile.
        let is_broken = matches!(found, Found::Broken(..));
        if !is_broken || lake.cleaned_log(table).await?.map(|record| record.version) == known {
            return Ok(found);
        }
    }
}

/// Reads the entries of a table's log that a record does not account for.
async fn read_after(lake: &Lake, table: Table, keep: Option<i64>, record: Option<CleanedLog>) -> Result<Found> {
    let listing = match list(lake, table, record.as_ref()).await {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::Data => return Ok(Found::Broken(error.chain(), RESTORE)),
        Err(error) => return Err(error),
    };
    let (first, last) = match (listing.entries, &listing.checkpoint) {
        (None, None) if is_empty(lake, table).await? => return Ok(Found::Missing),
        (None, None) => {
            return Ok(Found::Broken("its log is missing, but its folder is not empty".to_owned(), RESTORE));
        }
        (None, Some(checkpoint)) => (checkpoint.version + 1, checkpoint.version),
        (Some(ends), _) => ends,
    };
    let why = match (listing.hole, listing.checkpoint.as_ref().map(|checkpoint| checkpoint.version)) {
        (Some(hole), _) => Some(format!("log entry {hole} is missing, but later ones exist")),
        (None, Some(version)) if version > last => {
            Some(format!("its log ends at entry {last}, before its own log checkpoint of version {version}"))
        }
        (None, version) if first > 0 && version.is_none_or(|version| version + 1 < first) => {
            Some(format!("its log begins at entry {first}, and no log checkpoint covers the entries before"))
        }
        _ => None,
    };
    if let Some(why) = why {
        return Ok(Found::Broken(why, RESTORE));
    }
    match Walk::begin(lake, table, keep, first, listing.checkpoint).await {
        Ok(mut walk) => {
            if let Some(record) = record {
                walk.history.is_accounted = record.since == 0;
                walk.history.tracks.begin_with(record);
            }
            walk.along(first, last).await
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        Err(error) => Ok(Found::Broken(format!("its log checkpoint cannot be read: {}", error.chain()), RESTORE)),
    }
}

/// A walk along a log, entry by entry.
struct Walk<'a> {
    lake: &'a Lake,
    table: Table,
    /// The version of the requested files.
    keep: Option<i64>,
    /// True while the table holds the rows of that version.
    keeping: bool,
    /// The log checkpoint, if the log is complete without it. It must equal the log.
    compared: Option<LastCheckpoint>,
    /// Version of the log checkpoint that the walk starts from, if the beginning of the log was cleaned up.
    base: Option<i64>,
    /// Numbers of all applications according to that checkpoint.
    unseen: BTreeMap<String, i64>,
    /// Protocol and metadata of the table, as of the last entry read.
    form: Form,
    history: History,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// Starts before the first entry or, if the beginning of the log was cleaned up, from the log checkpoint. Remaining
    /// entries up to the checkpoint then add only their offset ranges.
    async fn begin(
        lake: &'a Lake,
        table: Table,
        keep: Option<i64>,
        first: i64,
        checkpoint: Option<LastCheckpoint>,
    ) -> Result<Self> {
        let mut walk = Self {
            lake,
            table,
            keep,
            keeping: false,
            compared: None,
            base: None,
            unseen: BTreeMap::new(),
            form: Form::default(),
            history: empty(first),
        };
        let Some(checkpoint) = checkpoint else { return Ok(walk) };
        if first == 0 {
            walk.compared = Some(checkpoint);
            return Ok(walk);
        }
        let version = checkpoint.version;
        let snapshot = lake.log(table).checkpoint(&checkpoint).await?;
        for file in lake.files_at(table, version).await? {
            let active = ActiveFile { file, ranges: Arc::default(), version };
            walk.history.active.insert(active.file.path.clone(), active);
        }
        walk.form = snapshot.form().clone();
        walk.base = Some(version);
        walk.history.version = version;
        walk.unseen = snapshot.apps().map(|(app, next)| (app.to_owned(), next)).collect();
        if first > version {
            walk.history.tracks.begin(std::mem::take(&mut walk.unseen));
        }
        if keep == Some(version) {
            walk.keeping = true;
            walk.history.kept_erased = snapshot.next(&AppId::Erased.to_string());
            walk.history.kept = Some(walk.history.files());
        }
        Ok(walk)
    }

    /// Walks from the first entry to the last.
    async fn along(mut self, first: i64, last: i64) -> Result<Found> {
        let log = self.lake.log(self.table);
        let mut entries = futures::stream::iter(first..=last)
            .map(|version| {
                let log = log.clone();
                async move { (version, log.entry(version).await) }
            })
            .buffered(ENTRIES_AT_ONCE);
        while let Some((version, entry)) = entries.next().await {
            let entry = match entry {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Found::Broken(format!("log entry {version} is missing"), RESTORE)),
                Err(error) if error.kind() == ErrorKind::Data => return Ok(Found::Broken(error.chain(), RESTORE)),
                Err(error) => return Err(error),
            };
            self.step(entry);
            if let Some(checkpoint) = self.compared.take_if(|checkpoint| checkpoint.version == version) {
                compare_checkpoint(self.lake, self.table, &checkpoint, &mut self.history).await?;
            }
        }
        if let Some(asked) = self.keep.filter(|asked| self.base.is_some_and(|base| *asked < base))
            && self.history.kept.is_none()
        {
            // The version is older than the log checkpoint. If its entries were cleaned up as well, there are no files to
            // compare.
            self.history.kept = self.lake.files_at(self.table, asked).await.ok();
        }
        self.history.tracks.add_unseen(self.unseen);
        self.history.version = last.max(self.base.unwrap_or(last));
        if self.form.metadata.is_none() {
            return Ok(Found::Broken("its log has no description of the table".to_owned(), RESTORE));
        }
        Ok(match self.form.refusal(self.table) {
            Some(refusal) => Found::Broken(refusal.message().to_owned(), NOT_OURS),
            None => Found::Whole(Box::new(self.history)),
        })
    }

    fn step(&mut self, entry: LogEntry) {
        let version = entry.version;
        // Entries that only rewrite files keep the same rows, and what an erasure takes is in its contributions.
        self.keeping = self.keep == Some(version) || self.keeping && !entry.brings_rows();
        // The log checkpoint already includes the entries up to it.
        let counts = self.base.is_none_or(|base| version > base);
        if counts && Form::is_changed_by(&entry) {
            self.form = self.form.after(&entry);
        }
        let rule = if self.table == Table::Quarantine { Rule::Growing } else { Rule::Contiguous };
        self.history.take_in(entry, rule, counts);
        if self.keeping {
            let erased = AppId::Erased.to_string();
            let known = self.history.tracks.others.get(&erased).or_else(|| self.unseen.get(&erased));
            self.history.kept_erased = known.copied();
        }
        if self.keeping && self.base.is_none_or(|base| version >= base) {
            self.history.kept = Some(self.history.files());
        }
    }
}

/// Returns the state of a table before its first entry.
pub(crate) fn empty(first: i64) -> History {
    History {
        version: first - 1,
        first,
        is_accounted: first == 0,
        entries: 0,
        active: BTreeMap::new(),
        tracks: Tracks::default(),
        kept: None,
        kept_erased: None,
        findings: Findings::default(),
        checkpoint_findings: Findings::default(),
    }
}

/// Compares the log checkpoint that readers start from with the log itself.
async fn compare_checkpoint(
    lake: &Lake,
    table: Table,
    checkpoint: &LastCheckpoint,
    history: &mut History,
) -> Result<()> {
    const USELESS: &str =
        "delete `_delta_log/_last_checkpoint`: the log entries are complete, and readers then use those";
    let version = checkpoint.version;
    let place = format!("{}: log checkpoint of version {version}", table.name());
    let listed = async {
        Ok::<_, bellwether_base::Error>((
            lake.files_at(table, version).await?,
            lake.log(table).checkpoint(checkpoint).await?,
        ))
    };
    let (files, apps) = match listed.await {
        Ok(read) => read,
        Err(error) => {
            history.checkpoint_findings.add(place, format!("it cannot be read: {}", error.chain()), USELESS);
            return Ok(());
        }
    };
    let named: BTreeSet<String> = files.into_iter().map(|file| file.path).collect();
    for path in named.symmetric_difference(&history.names()) {
        let what = if named.contains(path) { "names" } else { "does not name" };
        history.checkpoint_findings.add(place.clone(), format!("it {what} file `{path}`, unlike the log"), USELESS);
    }
    let numbers = history.tracks.numbers();
    for (app, number) in &numbers {
        let found = apps.next(app);
        if found != Some(*number) {
            let what = match found {
                Some(found) => format!("it has `{app}` at {found}, but the log has it at {number}"),
                None => format!("it lacks `{app}`, which the log has at {number}"),
            };
            history.checkpoint_findings.add(place.clone(), what, USELESS);
        }
    }
    Ok(())
}

async fn list(lake: &Lake, table: Table, record: Option<&CleanedLog>) -> Result<Listing> {
    let log = lake.log(table);
    // Read before the entries are listed, so that it cannot cover entries that are not listed.
    let checkpoint = log.last_checkpoint().await?;
    let folder = lake.table_path(table).join(LOG_FOLDER);
    let names: Vec<Option<i64>> =
        log.store.list(Some(&folder)).map_ok(|object| entry_version(&object.location)).try_collect().await.stored()?;
    let is_new = |version: &i64| record.is_none_or(|record| *version > record.version);
    let versions: BTreeSet<i64> = names.into_iter().flatten().filter(is_new).collect();
    let entries = versions.first().copied().zip(versions.last().copied());
    let mut hole = None;
    if let Some((first, last)) = entries {
        for version in (first..=last).filter(|version| !versions.contains(version)) {
            // A listing may show a commit without the one just before it, so the entry is looked up by name.
            match log.store.head(&entry_path(&log.path, version)).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    hole = Some(version);
                    break;
                }
                Err(source) => return Err(source).stored(),
            }
        }
    }
    Ok(Listing { entries, hole, checkpoint })
}

async fn is_empty(lake: &Lake, table: Table) -> Result<bool> {
    let log = lake.log(table);
    let first = log.store.list(Some(&lake.table_path(table))).next().await.transpose().stored()?;
    Ok(first.is_none())
}
