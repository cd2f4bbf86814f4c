//! Maintenance keeps a table that receives a commit every second as quick to open and to read as a new one. It writes log
//! checkpoints, so that opening does not read the whole history, and combines small files.
//!
//! Both are verified: a checkpoint is read back and compared with the log, and a combined file is read back and compared
//! row by row. A rewrite states `dataChange: false`, so readers that follow the log skip it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStoreExt;

use crate::commit::delta::Entry;
use crate::commit::{Advance, CommitLog, Outcome};
use crate::encoder::{EncodedRows, RowEncoder};
use crate::form::Form;
use crate::log::{AddedFile, LOG_FOLDER, Rewrite, rewrite_entry};
use crate::parquet_file;
use crate::root::Lake;
use crate::stored::Stored;
use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};

/// Files are rewritten together if the largest is at most about so many times as large as the smallest.
const TIER: i64 = 64;

/// Determines when maintenance does something.
#[derive(Clone, Copy, Debug)]
pub struct MaintainSettings {
    /// Versions between log checkpoints. Fewer make opening quicker and cost more writing.
    pub checkpoint_versions: i64,
    /// Number of small files of one partition value and similar size that are worth a rewrite. Fewer are enough if they make
    /// a file of at least half of `compact_bytes`, which is no longer small.
    pub compact_files: usize,
    /// Most bytes of Parquet that one rewrite reads. Its memory is about eight times as much (docs/performance.md).
    pub compact_bytes: i64,
    /// Largest rewritten file, in bytes, of which all columns are compared at once with the replaced ones. The columns of a
    /// larger file are compared in groups, which bounds the memory.
    pub compare_bytes: usize,
}

impl Default for MaintainSettings {
    fn default() -> Self {
        Self {
            checkpoint_versions: 100,
            compact_files: 64,
            compact_bytes: 8 * 1024 * 1024,
            compare_bytes: 2 * 1024 * 1024,
        }
    }
}

/// The result of maintaining a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// A log checkpoint was written.
    pub checkpointed: bool,
    /// Number of replaced files.
    pub files_compacted: usize,
}

// === impl Lake ===

impl Lake {
    /// Combines small files of a table and writes a log checkpoint, if either is due.
    ///
    /// # Errors
    /// As [`Lake::checkpoint`] and [`Lake::compact`]; an error leaves the table intact.
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

    /// Rewrites small files of one partition value as one, if there are enough of them. Returns the number of replaced files.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the new file does not hold the old rows, or an old file cannot be
    /// read.
    pub async fn compact(&self, table: Table, settings: &MaintainSettings) -> Result<usize> {
        let log = self.log(table);
        let snapshot = log.load().await?;
        let (version, files) = self.active_files(table).await?;
        if version < snapshot.version {
            // Otherwise, files that an earlier rewrite has removed would be written again.
            return Err(Error::unavailable(format!("a listing of table `{}` is behind its log", table.name())));
        }
        let Some(replaced) = self.worth_rewriting(table, snapshot.form(), files, settings).await? else { return Ok(0) };
        let small: Vec<AddedFile> = replaced.iter().map(|(file, _)| file.clone()).collect();
        let replaced = Arc::new(replaced);
        let from = Arc::clone(&replaced);
        let rows = self.work().run("the Parquet writer", move || encode(table, &from)).await?;
        let written = self.store(&rows).await?;
        drop(rows);
        let [file] = written.as_slice() else {
            return Err(Error::bug(format!("files of one partition value of `{}` hold several", table.name())));
        };
        self.verify_rewrite(table, file.file.as_added(), replaced, settings.compare_bytes).await?;
        let rewrites = AppId::Rewrites.to_string();
        let number = snapshot.next(&rewrites);
        let advance = Advance { app_id: rewrites, expected: number, next: number.unwrap_or(0) + 1 };
        let rewrite = Rewrite { uuid: self.clock().unique_id(), advance: &advance, removed: &small, added: &file.file };
        let text = rewrite_entry(&rewrite, self.clock().now_micros() / 1000);
        let advances = std::slice::from_ref(&advance);
        match log.append(&snapshot, &Entry { uuid: rewrite.uuid, advances, removed: &small, text: &text }).await? {
            Outcome::Committed(_) => Ok(small.len()),
            Outcome::Fenced { .. } => {
                self.discard(table, std::slice::from_ref(&file.file)).await;
                Ok(0)
            }
            // If it landed, the next round sees fewer files; if not, it does the work again.
            Outcome::Unknown { reason } => Err(Error::unavailable(format!(
                "the outcome of the rewrite of table `{}` is unknown: {reason}",
                table.name()
            ))),
        }
    }

    /// Returns the files that are worth a rewrite, with their content. It leaves out files with unknown columns, because the
    /// values of these would be lost.
    async fn worth_rewriting(
        &self,
        table: Table,
        form: &Form,
        mut files: Vec<AddedFile>,
        settings: &MaintainSettings,
    ) -> Result<Option<Vec<(AddedFile, Bytes)>>> {
        if form.has_unknown_columns(table) {
            files.retain(|file| !self.is_of_more_columns(&file.path));
        }
        loop {
            let Some(small) = worth_compacting(files.clone(), settings) else { return Ok(None) };
            let (mut fit, mut unfit) = (Vec::new(), Vec::new());
            for file in small {
                let bytes = self.file_bytes(table, &file.path).await?;
                let unknown = parquet_file::unknown_column(table, &bytes);
                match unknown.map_err(|error| parquet_file::unreadable(table, &file, error))? {
                    None => fit.push((file, bytes)),
                    Some(column) => {
                        let (table, path) = (table.name(), &file.path);
                        tracing::info!(table, path, column, "not rewriting a file with an unknown column");
                        unfit.push(file.path);
                    }
                }
            }
            if unfit.is_empty() {
                return Ok(Some(fit));
            }
            files.retain(|file| !unfit.contains(&file.path));
            self.note_files_of_more_columns(unfit);
        }
    }

    async fn verify_rewrite(
        &self,
        table: Table,
        file: AddedFile,
        replaced: Arc<Vec<(AddedFile, Bytes)>>,
        at_once: usize,
    ) -> Result<()> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let work = move || {
            for columns in column_groups(table, 1 + bytes.len() / at_once.max(1)) {
                let written = parquet_file::batches(table, &file, bytes.clone(), Some(&columns))?;
                if !same_rows(batches_of(table, &replaced, Some(&columns)), written)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if self.work().run("the Parquet reader", work).await? {
            return Ok(());
        }
        Err(Error::data(format!("the rewritten file of table `{}` does not hold the rows it replaces", table.name()))
            .with_hint("the new file is not used; check the disk or the object store"))
    }

    /// Writes a log checkpoint of a table's newest version, and compares it with the log: if it lost the number of an
    /// application, ingest would read offsets twice.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the checkpoint differs from the log.
    pub async fn checkpoint(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        let before = log.load().await?;
        let delta = self.delta_table(table).await?;
        self.work().whole(deltalake::checkpoints::create_checkpoint(&delta, None)).await.stored()?;
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
        log.store.delete(&pointer).await.stored()?;
        Err(Error::data(format!(
            "a checkpoint of table `{}` lost the progress of `{}`",
            table.name(),
            lost.join("`, `")
        ))
        .with_hint("the checkpoint is no longer used; the log itself is intact"))
    }
}

/// Returns the rows of files, file by file, in batches.
fn batches_of(
    table: Table,
    files: &[(AddedFile, Bytes)],
    columns: Option<&[&str]>,
) -> impl Iterator<Item = Result<RecordBatch>> {
    files.iter().flat_map(move |(file, bytes)| -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
        match parquet_file::batches(table, file, bytes.clone(), columns) {
            Ok(batches) => Box::new(batches),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    })
}

fn encode(table: Table, files: &[(AddedFile, Bytes)]) -> Result<EncodedRows> {
    let mut encoder = RowEncoder::new(table);
    for batch in batches_of(table, files, None) {
        encoder.push(&(&batch?).into())?;
    }
    encoder.finish()
}

/// Divides the columns of a table into about so many groups, to be compared one after the other. Reading holds a page of
/// every column in memory, which for a large file is ten times its size.
fn column_groups(table: Table, groups: usize) -> Vec<Vec<&'static str>> {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    names.chunks(names.len().div_ceil(groups)).map(<[&str]>::to_vec).collect()
}

/// Returns true if both have the same rows in the same order, whatever their batches.
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

/// Returns the rest of a batch, or the next batch that has rows; `None` at the end.
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

/// Selects the files for a rewrite: of one partition value and similar size, oldest first, within the bound of bytes, and
/// enough of them, or of bytes. Of several such sets it returns the one with the most files.
///
/// If every rewrite included large files as well, a row would be rewritten again and again until its file has full size.
/// In tiers it is rewritten once for each power of [`TIER`] (size-tiered compaction, as in LSM trees).
fn worth_compacting(files: Vec<AddedFile>, settings: &MaintainSettings) -> Option<Vec<AddedFile>> {
    let full = settings.compact_bytes / 2;
    let tier = |file: &AddedFile| (full / file.size.max(1)).max(1).ilog(TIER);
    let by_kind =
        |a: &AddedFile, b: &AddedFile| a.partition_values.cmp(&b.partition_values).then_with(|| tier(a).cmp(&tier(b)));
    let mut small: Vec<AddedFile> = files.into_iter().filter(|file| file.size < full).collect();
    // Names begin with the time of writing, so this is the order in which the rows arrived.
    small.sort_by(|a, b| by_kind(a, b).then_with(|| a.path.cmp(&b.path)));
    let worth = small.chunk_by(|a, b| by_kind(a, b).is_eq()).filter_map(|alike| {
        let (mut fit, mut bytes) = (0, 0);
        while let Some(file) = alike.get(fit).filter(|file| bytes + file.size <= settings.compact_bytes) {
            bytes += file.size;
            fit += 1;
        }
        let enough = fit >= settings.compact_files || bytes >= full;
        (enough && fit > 1).then(|| &alike[..fit])
    });
    worth.max_by_key(|files| files.len()).map(<[AddedFile]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MIB: i64 = 1 << 20;

    fn file(path: String, size: i64) -> AddedFile {
        AddedFile { path, size, rows: Some(size), partition_values: BTreeMap::new(), data_change: true, stats: None }
    }

    /// Returns the bytes that all rewrites write, and the remaining files, after so many commits of a file of this size.
    fn after(commits: usize, size: i64) -> (i64, Vec<AddedFile>) {
        let (mut files, mut written) = (Vec::new(), 0);
        for n in 0..commits {
            files.push(file(format!("{n:09}"), size));
            while let Some(small) = worth_compacting(files.clone(), &MaintainSettings::default()) {
                files.retain(|file| !small.contains(file));
                let merged = small.iter().map(|file| file.size).sum();
                written += merged;
                files.push(file(format!("{n:09}-{written}"), merged));
            }
        }
        (written, files)
    }

    #[test]
    fn a_row_is_rewritten_once_for_each_tier() {
        for size in [1_000, 30_000, 200_000] {
            let commits = 20_000;
            let (written, files) = after(commits, size);
            let all = size * i64::try_from(commits).expect("few");
            assert!(written <= 3 * all, "{size}: {} times", written / all);
            assert!(files.len() <= 2 * 64 + usize::try_from(all / (4 * MIB)).expect("few"), "{size}: {}", files.len());
            assert_eq!(files.iter().map(|file| file.size).sum::<i64>(), all);
        }
    }

    #[test]
    fn few_small_files_and_large_ones_are_left_alone() {
        let settings = MaintainSettings::default();
        let some = |sizes: &[i64]| {
            let files = sizes.iter().enumerate().map(|(n, size)| file(format!("{n:09}"), *size)).collect();
            worth_compacting(files, &settings).map(|files| files.len())
        };
        assert_eq!(some(&[]), None);
        assert_eq!(some(&[10_000; 63]), None);
        assert_eq!(some(&[10_000; 64]), Some(64));
        assert_eq!(some(&[5 * MIB; 100]), None);
        assert_eq!(some(&[2 * MIB, MIB]), None);
        assert_eq!(some(&[2 * MIB, MIB, MIB]), Some(3), "make a file that is not small");
        assert_eq!(some(&[3 * MIB; 4]), Some(2), "within the bound of bytes");
    }
}
