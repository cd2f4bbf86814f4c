//! Maintenance, by which a table that gets a commit a second stays as quick to open and to read as a young one:
//! log checkpoints, so that opening does not read the whole history, and compaction of small files.
//!
//! Both are checked before they count: a checkpoint is opened again and compared with the log, and a compacted file is
//! read again and compared row by row. A rewrite says `dataChange: false`, so readers that follow the log skip it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStoreExt;

use crate::commit::{Advance, CommitLog, Outcome};
use crate::encoder::{EncodedRows, RowEncoder};
use crate::error::{Error, Result};
use crate::log::{AddedFile, LOG_FOLDER, Rewrite, rewrite_entry};
use crate::parquet_file;
use crate::root::Lake;
use crate::schema::Table;

/// Application whose number counts a table's rewrites, and keeps two of them apart.
const REWRITES: &str = "maintain/rewrites";

/// When maintenance has something to do.
#[derive(Clone, Copy, Debug)]
pub struct MaintainSettings {
    /// Versions between log checkpoints. Fewer: quicker opening, more writing.
    pub checkpoint_versions: i64,
    /// Small files of one partition value that are worth a rewrite.
    pub compact_files: usize,
    /// Bytes of Parquet that one rewrite reads at most; bounds its memory (about three times as much).
    pub compact_bytes: i64,
}

impl Default for MaintainSettings {
    fn default() -> Self {
        Self { checkpoint_versions: 100, compact_files: 64, compact_bytes: 16 * 1024 * 1024 }
    }
}

/// What maintenance did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// A log checkpoint was written.
    pub checkpointed: bool,
    /// Files that were replaced.
    pub files_compacted: usize,
}

// === impl Lake ===

impl Lake {
    /// Does what is due for a table.
    ///
    /// # Errors
    /// As [`Lake::checkpoint`] and [`Lake::compact`]; the table is whole in any case.
    pub async fn maintain(&self, table: Table, settings: &MaintainSettings) -> Result<Maintained> {
        let files_compacted = self.compact(table, settings).await?;
        let log = self.log(table);
        let behind = log.load().await?.version - log.checkpoint_version().await?.unwrap_or(0);
        let checkpointed = behind >= settings.checkpoint_versions;
        if checkpointed {
            self.checkpoint(table).await?;
        }
        Ok(Maintained { checkpointed, files_compacted })
    }

    /// Rewrites the small files of a table's fullest partition value as one, if there are enough of them. Returns how
    /// many files it replaced.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the new file does not hold the old rows.
    pub async fn compact(&self, table: Table, settings: &MaintainSettings) -> Result<usize> {
        let log = self.log(table);
        let snapshot = log.load().await?;
        let (version, files) = self.active_files(table).await?;
        if version < snapshot.version {
            // Files that an earlier rewrite took out would be written again.
            return Err(Error::unavailable(format!("a listing of table `{}` is behind its log", table.name())));
        }
        let Some(small) = worth_compacting(files, settings) else { return Ok(0) };
        let mut replaced = Vec::new();
        for file in &small {
            replaced.push((file.clone(), self.file_bytes(table, &file.path).await?));
        }
        let replaced = Arc::new(replaced);
        let from = Arc::clone(&replaced);
        let rows = self.work().run("the Parquet writer", move || encode(table, &from)).await?;
        let written = self.store(&rows).await?;
        let [file] = written.as_slice() else {
            return Err(Error::bug(format!("files of one partition value of `{}` hold several", table.name())));
        };
        self.verify_rewrite(table, file.file.as_added(), replaced).await?;
        let number = snapshot.next(REWRITES);
        let advance = Advance { app_id: REWRITES.to_owned(), expected: number, next: number.unwrap_or(0) + 1 };
        let rewrite = Rewrite { uuid: self.clock().unique_id(), advance: &advance, removed: &small, added: &file.file };
        let text = rewrite_entry(&rewrite, self.clock().now_micros() / 1000);
        match log.append(&snapshot, rewrite.uuid, std::slice::from_ref(&advance), &text).await {
            Outcome::Committed(_) => Ok(small.len()),
            Outcome::Fenced { .. } => {
                self.discard(table, std::slice::from_ref(&file.file)).await;
                Ok(0)
            }
            // If it landed, the next round sees fewer files; if not, it does the work again.
            Outcome::Unknown { reason } => Err(Error::unavailable(format!(
                "nobody can tell whether the rewrite of table `{}` landed: {reason}",
                table.name()
            ))),
        }
    }

    async fn verify_rewrite(
        &self,
        table: Table,
        file: AddedFile,
        replaced: Arc<Vec<(AddedFile, Bytes)>>,
    ) -> Result<()> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let work = move || same_rows(batches_of(table, &replaced), parquet_file::batches(table, &file, bytes, None)?);
        if self.work().run("the Parquet reader", work).await? {
            return Ok(());
        }
        Err(Error::data(format!("the rewritten file of table `{}` does not hold the rows it replaces", table.name()))
            .with_hint("it has not been put to use; check the disk or the object store"))
    }

    /// Writes a log checkpoint of a table's newest version, opens it again and compares: a checkpoint that lost an
    /// application's number would make ingestion read offsets twice.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the checkpoint does not hold what the log says.
    pub async fn checkpoint(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        let before = log.load().await?;
        let delta = self.delta_table(table).await?;
        self.work().whole(deltalake::checkpoints::create_checkpoint(&delta, None)).await?;
        let after = log.load().await?;
        let lost: Vec<&str> = before
            .apps()
            .filter(|(app, next)| after.next(app).is_none_or(|found| found < *next))
            .map(|(app, _)| app)
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let pointer = self.table_path(table).join(LOG_FOLDER).join("_last_checkpoint");
        log.store.delete(&pointer).await?;
        Err(Error::data(format!(
            "a checkpoint of table `{}` lost the progress of `{}`",
            table.name(),
            lost.join("`, `")
        ))
        .with_hint("it has been taken out of use again; the log itself is whole"))
    }
}

/// The rows of files, one file after the other and a piece at a time.
fn batches_of(table: Table, files: &[(AddedFile, Bytes)]) -> impl Iterator<Item = Result<RecordBatch>> {
    files.iter().flat_map(move |(file, bytes)| -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
        match parquet_file::batches(table, file, bytes.clone(), None) {
            Ok(batches) => Box::new(batches),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    })
}

fn encode(table: Table, files: &[(AddedFile, Bytes)]) -> Result<EncodedRows> {
    let mut encoder = RowEncoder::new(table);
    for batch in batches_of(table, files) {
        encoder.push(&(&batch?).into())?;
    }
    encoder.finish()
}

/// True where both have the same rows in the same order, however they are cut into pieces.
fn same_rows(
    mut left: impl Iterator<Item = Result<RecordBatch>>,
    mut right: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<bool> {
    let (mut one, mut other): (Option<RecordBatch>, Option<RecordBatch>) = (None, None);
    loop {
        one = filled(one, &mut left)?;
        other = filled(other, &mut right)?;
        let (Some(a), Some(b)) = (&one, &other) else { return Ok(one.is_none() && other.is_none()) };
        let rows = a.num_rows().min(b.num_rows());
        if a.slice(0, rows) != b.slice(0, rows) {
            return Ok(false);
        }
        let rest = |batch: &RecordBatch| batch.slice(rows, batch.num_rows() - rows);
        (one, other) = (Some(rest(a)), Some(rest(b)));
    }
}

/// What is left of a piece, or the next one that has rows.
fn filled(
    left: Option<RecordBatch>,
    more: &mut impl Iterator<Item = Result<RecordBatch>>,
) -> Result<Option<RecordBatch>> {
    let mut piece = left;
    while piece.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
        match more.next() {
            Some(next) => piece = Some(next?),
            None => return Ok(None),
        }
    }
    Ok(piece)
}

/// The small files of the partition value that has most of them, oldest first, within the bound of bytes.
fn worth_compacting(files: Vec<AddedFile>, settings: &MaintainSettings) -> Option<Vec<AddedFile>> {
    let mut small: BTreeMap<BTreeMap<String, Option<String>>, Vec<AddedFile>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| file.size < settings.compact_bytes / 2) {
        small.entry(file.partition_values.clone()).or_default().push(file);
    }
    let mut fullest = small.into_values().max_by_key(Vec::len)?;
    // Names hold the time of writing, so this is the order in which the rows came.
    fullest.sort_by(|a, b| a.path.cmp(&b.path));
    let mut bytes = 0;
    let fit = fullest
        .iter()
        .take_while(|file| {
            bytes += file.size;
            bytes <= settings.compact_bytes
        })
        .count();
    fullest.truncate(fit);
    (fullest.len() >= settings.compact_files.max(2)).then_some(fullest)
}
