//! A table's log, read entry by entry up to one version: what is in the table, and what each application did.
//!
//! The log is taken at its word, but for what it cannot be: entries that are missing or torn, a table of somebody else's,
//! a log checkpoint that does not say what the log says. What is committed after the newest version was looked up is not
//! looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;

use super::Findings;
use super::ranges::{Rule, Tracks};
use crate::commit::PartitionRange;
use crate::commit::delta::LastCheckpoint;
use crate::error::{ErrorKind, Result};
use crate::log::{AddedFile, LOG_FOLDER, LogEntry, TableMetadata, entry_path};
use crate::root::Lake;
use crate::schema::Table;

/// Log entries that are on their way at a time.
const ENTRIES_AT_ONCE: usize = 16;

/// Reader version of the protocol that the tables ask for: without deletion vectors and column mapping.
const READER_VERSION: i32 = 1;

const RESTORE: &str = "restore the table's `_delta_log` from a copy, or rebuild the table";
const NOT_OURS: &str = "check the root: another program's table stands where this one belongs";

/// A file of the table, and the commit that brought it.
#[derive(Clone, Debug)]
pub(crate) struct ActiveFile {
    pub(crate) file: AddedFile,
    /// What the commit that added it took; empty where it is not known, or the file is a rewrite.
    pub(crate) ranges: Arc<[PartitionRange]>,
    /// Version of that commit.
    pub(crate) version: i64,
}

/// A table up to one version.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) version: i64,
    /// Oldest entry that is left.
    pub(crate) first: i64,
    pub(crate) entries: i64,
    pub(crate) active: BTreeMap<String, ActiveFile>,
    pub(crate) tracks: Tracks,
    /// The files at the version that was asked for, or a later one with the same rows.
    pub(crate) kept: Option<Vec<AddedFile>>,
    /// Holes and overlaps of offsets.
    pub(crate) findings: Findings,
    /// What a log checkpoint says otherwise than the log.
    pub(crate) checkpoint_findings: Findings,
}

/// How a table was found.
pub(crate) enum Found {
    /// There is nothing of it.
    Missing,
    /// It cannot be judged: why, and what to do.
    Broken(String, &'static str),
    /// It can.
    Whole(Box<History>),
}

/// What the log folder holds.
struct Listing {
    /// First and last entry.
    entries: Option<(i64, i64)>,
    /// An entry between them that is not there.
    hole: Option<i64>,
    /// The log checkpoint that is to be used.
    checkpoint: Option<LastCheckpoint>,
}

// === impl History ===

impl History {
    /// The file names of a version, as a set.
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

    /// The files of the version that is held now.
    pub(crate) fn files(&self) -> Vec<AddedFile> {
        self.active.values().map(|active| active.file.clone()).collect()
    }
}

/// Reads a table's log. `keep` asks for the files at a version.
///
/// # Errors
/// `Unavailable` where storage does not answer.
pub(crate) async fn read(lake: &Lake, table: Table, keep: Option<i64>) -> Result<Found> {
    let listing = match list(lake, table).await {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::Data => return Ok(Found::Broken(error.chain(), RESTORE)),
        Err(error) => return Err(error),
    };
    let (first, last) = match (listing.entries, &listing.checkpoint) {
        (None, None) if is_empty(lake, table).await? => return Ok(Found::Missing),
        (None, None) => {
            return Ok(Found::Broken("its log is gone, though its folder is not empty".to_owned(), RESTORE));
        }
        (None, Some(checkpoint)) => (checkpoint.version + 1, checkpoint.version),
        (Some(ends), _) => ends,
    };
    let why = match (listing.hole, listing.checkpoint.as_ref().map(|checkpoint| checkpoint.version)) {
        (Some(hole), _) => Some(format!("log entry {hole} is gone, though later ones are there")),
        (None, Some(version)) if version > last => {
            Some(format!("its log ends at entry {last}, before its own log checkpoint of version {version}"))
        }
        (None, version) if first > 0 && version.is_none_or(|version| version + 1 < first) => {
            Some(format!("its log begins at entry {first}, and no log checkpoint stands for those before"))
        }
        _ => None,
    };
    if let Some(why) = why {
        return Ok(Found::Broken(why, RESTORE));
    }
    match Walk::begin(lake, table, keep, first, listing.checkpoint).await {
        Ok(walk) => walk.along(first, last).await,
        Err(error) => Ok(Found::Broken(format!("its log checkpoint cannot be read: {}", error.chain()), RESTORE)),
    }
}

/// A walk along a log, entry by entry.
struct Walk<'a> {
    lake: &'a Lake,
    table: Table,
    /// The version whose files are asked for.
    keep: Option<i64>,
    /// The table still holds the rows of that version.
    keeping: bool,
    /// The log checkpoint, where the log is whole without it: it must say the same.
    compared: Option<LastCheckpoint>,
    /// Version of the log checkpoint that the walk begins with, where the log's beginning is gone.
    base: Option<i64>,
    /// Where applications stand by that checkpoint, those that entries tell of included.
    unseen: BTreeMap<String, i64>,
    metadata: Option<TableMetadata>,
    history: History,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// Begins before the first entry, or where the beginning is gone, at the log checkpoint. The entries up to it, as far
    /// as they are left, then add only what was taken when.
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
            metadata: None,
            history: empty(first),
        };
        let Some(checkpoint) = checkpoint else { return Ok(walk) };
        if first == 0 {
            walk.compared = Some(checkpoint);
            return Ok(walk);
        }
        let version = checkpoint.version;
        let (files, metadata) = lake.files_and_metadata_at(table, version).await?;
        for file in files {
            let active = ActiveFile { file, ranges: Arc::default(), version };
            walk.history.active.insert(active.file.path.clone(), active);
        }
        walk.metadata = Some(metadata);
        walk.base = Some(version);
        walk.history.version = version;
        walk.unseen = lake.log(table).checkpoint_txns(&checkpoint).await?;
        if first > version {
            walk.history.tracks.begin(std::mem::take(&mut walk.unseen));
        }
        if keep == Some(version) {
            walk.keeping = true;
            walk.history.kept = Some(walk.history.files());
        }
        Ok(walk)
    }

    /// Goes from the first entry to the last.
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
                Ok(None) => return Ok(Found::Broken(format!("log entry {version} is gone"), RESTORE)),
                Err(error) if error.kind() == ErrorKind::Data => return Ok(Found::Broken(error.chain(), RESTORE)),
                Err(error) => return Err(error),
            };
            if entry.reader_version.is_some_and(|wanted| wanted > READER_VERSION) {
                let what = format!("version {version} makes it a table of features that bellwether does not write");
                return Ok(Found::Broken(what, NOT_OURS));
            }
            self.step(entry);
            if let Some(checkpoint) = self.compared.take_if(|checkpoint| checkpoint.version == version) {
                compare_checkpoint(self.lake, self.table, &checkpoint, &mut self.history).await?;
            }
        }
        if let Some(asked) = self.keep.filter(|asked| self.base.is_some_and(|base| *asked < base))
            && self.history.kept.is_none()
        {
            // Older than the log checkpoint: where its own entries are gone too, nothing can be compared.
            let found = self.lake.files_and_metadata_at(self.table, asked).await;
            self.history.kept = found.ok().map(|(files, _)| files);
        }
        self.history.tracks.add_unseen(self.unseen);
        self.history.version = last.max(self.base.unwrap_or(last));
        Ok(match self.metadata.as_ref().map(|metadata| foreign(self.table, metadata)) {
            None => Found::Broken("its log does not say what the table is".to_owned(), RESTORE),
            Some(Some(what)) => Found::Broken(what, NOT_OURS),
            Some(None) => Found::Whole(Box::new(self.history)),
        })
    }

    fn step(&mut self, mut entry: LogEntry) {
        let version = entry.version;
        // Entries that only rewrite files go on holding the same rows.
        self.keeping = self.keep == Some(version) || self.keeping && !entry.brings_rows();
        if entry.metadata.is_some() {
            self.metadata = entry.metadata.take();
        }
        let rule = if self.table == Table::Quarantine { Rule::Growing } else { Rule::Contiguous };
        self.history.take_in(entry, rule, self.base.is_none_or(|base| version > base));
        if self.keeping && self.base.is_none_or(|base| version >= base) {
            self.history.kept = Some(self.history.files());
        }
    }
}

/// A table of which nothing is known yet.
pub(crate) fn empty(first: i64) -> History {
    History {
        version: first - 1,
        first,
        entries: 0,
        active: BTreeMap::new(),
        tracks: Tracks::default(),
        kept: None,
        findings: Findings::default(),
        checkpoint_findings: Findings::default(),
    }
}

/// Holds the log checkpoint that readers begin with against the log itself.
async fn compare_checkpoint(
    lake: &Lake,
    table: Table,
    checkpoint: &LastCheckpoint,
    history: &mut History,
) -> Result<()> {
    const USELESS: &str = "delete `_delta_log/_last_checkpoint`: the log before it is whole, and readers then use that";
    let version = checkpoint.version;
    let place = format!("{}: log checkpoint of version {version}", table.name());
    let listed = async {
        let (files, _) = lake.files_and_metadata_at(table, version).await?;
        Ok::<_, crate::Error>((files, lake.log(table).checkpoint_txns(checkpoint).await?))
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
    let stands = history.tracks.numbers();
    for (app, number) in &stands {
        let found = apps.get(app);
        if found != Some(number) {
            let found = found.map_or("not at all".to_owned(), |found| format!("at {found}"));
            let what = format!("it has `{app}` {found}, the log at {number}");
            history.checkpoint_findings.add(place.clone(), what, USELESS);
        }
    }
    Ok(())
}

async fn list(lake: &Lake, table: Table) -> Result<Listing> {
    let log = lake.log(table);
    // Before the entries: it then stands for no more of them than are listed.
    let checkpoint = log.last_checkpoint().await?;
    let folder = lake.table_path(table).join(LOG_FOLDER);
    let names: Vec<Option<i64>> =
        log.store.list(Some(&folder)).map_ok(|object| entry_version(&object.location)).try_collect().await?;
    let versions: BTreeSet<i64> = names.into_iter().flatten().collect();
    let entries = versions.first().copied().zip(versions.last().copied());
    let mut hole = None;
    if let Some((first, last)) = entries {
        for version in (first..=last).filter(|version| !versions.contains(version)) {
            // A listing may show a commit and not the one just before it: only asking tells.
            match log.store.head(&entry_path(&log.path, version)).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    hole = Some(version);
                    break;
                }
                Err(source) => return Err(source.into()),
            }
        }
    }
    Ok(Listing { entries, hole, checkpoint })
}

fn entry_version(path: &Path) -> Option<i64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

async fn is_empty(lake: &Lake, table: Table) -> Result<bool> {
    let log = lake.log(table);
    let first = log.store.list(Some(&lake.table_path(table))).next().await.transpose()?;
    Ok(first.is_none())
}

/// Why a table is not the one that its name says; none where it is.
fn foreign(table: Table, metadata: &TableMetadata) -> Option<String> {
    let Ok(schema) = serde_json::from_str::<Value>(&metadata.schema_string) else {
        return Some("its schema is not readable".to_owned());
    };
    let empty = Vec::new();
    let kind = |field: &Value| match &field["type"] {
        Value::String(name) => name.clone(),
        nested => nested["type"].as_str().unwrap_or_default().to_owned(),
    };
    let has: BTreeMap<&str, String> = schema["fields"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .filter_map(|field| Some((field["name"].as_str()?, kind(field))))
        .collect();
    let wanted = table.delta_schema();
    for (column, field) in table.columns().iter().zip(wanted["fields"].as_array().unwrap_or(&empty)) {
        match has.get(column.name) {
            // An older version of the table may lack a column that was added since.
            None if !column.required => {}
            None => return Some(format!("it is not a table of bellwether: it has no column `{}`", column.name)),
            Some(found) if *found != kind(field) => {
                let (name, wanted) = (column.name, kind(field));
                return Some(format!("it is not a table of bellwether: column `{name}` is {found}, not {wanted}"));
            }
            Some(_) => {}
        }
    }
    let partitioned: Vec<&str> = metadata.partition_columns.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = table.partition_column().into_iter().collect();
    (partitioned != wanted).then(|| "it is not a table of bellwether: it is partitioned otherwise".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(table: Table) -> TableMetadata {
        TableMetadata {
            schema_string: table.delta_schema().to_string(),
            partition_columns: table.partition_column().into_iter().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn each_table_is_known_by_its_columns_and_no_other_is_taken_for_it() {
        for table in Table::ALL {
            for other in Table::ALL {
                assert_eq!(foreign(table, &metadata(other)).is_none(), table == other, "{table:?} {other:?}");
            }
        }
        let torn = TableMetadata { schema_string: "{".to_owned(), ..TableMetadata::default() };
        assert!(foreign(Table::Events, &torn).is_some());
    }

    #[test]
    fn an_older_table_without_an_optional_column_is_ours_and_one_with_another_type_is_not() {
        let whole = metadata(Table::Quarantine);
        let mut schema: Value = serde_json::from_str(&whole.schema_string).expect("JSON");
        schema["fields"].as_array_mut().expect("fields").retain(|field| field["name"] != "kafka_timestamp");
        let older = TableMetadata { schema_string: schema.to_string(), ..whole.clone() };
        assert_eq!(foreign(Table::Quarantine, &older), None);
        let other = TableMetadata { schema_string: whole.schema_string.replace("\"long\"", "\"string\""), ..whole };
        assert!(foreign(Table::Quarantine, &other).is_some_and(|why| why.contains("`offset`")), "{other:?}");
    }
}
