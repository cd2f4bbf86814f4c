//! Compaction: small files of one partition value become one.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::fold::{self, Fold, Folding};
use super::{MaintainSettings, written_micros};
use crate::commit::delta::Entry;
use crate::commit::{Advance, CommitLog, Outcome};
use crate::encoder::{EncodedRows, RowEncoder};
use crate::form::Form;
use crate::log::{AddedFile, Rewrite, rewrite_entry};
use crate::parquet_file;
use crate::root::Lake;
use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};

/// Files are rewritten together if the largest is at most about so many times as large as the smallest.
const TIER: i64 = 64;

/// The outcome of a rewrite.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compacted {
    /// Files that were replaced by one.
    pub(crate) files: usize,
    /// Their bytes.
    pub(crate) bytes: i64,
    /// Rows by which there are fewer.
    pub(crate) rows_folded: u64,
}

// === impl Lake ===

impl Lake {
    /// Rewrites small files of one partition value as one, if there are enough of them. Returns the number of replaced files.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the new file does not hold the old rows, or an old file cannot be
    /// read.
    pub async fn compact(&self, table: Table, settings: &MaintainSettings) -> Result<usize> {
        Ok(Box::pin(self.compact_some(table, settings, None)).await?.files)
    }

    /// As [`Lake::compact`]; also folds partial rows if `fold` is given.
    pub(crate) async fn compact_some(
        &self,
        table: Table,
        settings: &MaintainSettings,
        fold: Option<&dyn Fold>,
    ) -> Result<Compacted> {
        let log = self.log(table);
        let snapshot = log.load().await?;
        let (version, files) = self.active_files(table).await?;
        if version < snapshot.version {
            // Otherwise, files that an earlier rewrite has removed would be written again.
            return Err(Error::unavailable(format!("a listing of table `{}` is behind its log", table.name())));
        }
        let folding = self.folding(table, fold).await?;
        let Some(replaced) = self.worth_rewriting(table, snapshot.form(), files, (settings, folding)).await? else {
            return Ok(Compacted::default());
        };
        let small: Vec<AddedFile> = replaced.iter().map(|(file, _)| file.clone()).collect();
        let replaced = Arc::new(replaced);
        let from = Arc::clone(&replaced);
        let rows = match folding {
            None => self.work().run("the Parquet writer", move || encode(table, &from)).await?,
            Some(folding) => {
                let folded = folding.rows_of(table, &from).await?;
                self.work().run("the Parquet writer", move || fold::encode(table, &folded)).await?
            }
        };
        let written = self.store(&rows).await?;
        drop(rows);
        let [file] = written.as_slice() else {
            return Err(Error::bug(format!("files of one partition value of `{}` hold several", table.name())));
        };
        let before: i64 = small.iter().filter_map(|file| file.rows).sum();
        match folding {
            None => self.verify_rewrite(table, file.file.as_added(), replaced, settings.compare_bytes).await?,
            Some(folding) => self.verify_fold(table, file.file.as_added(), &replaced, folding).await?,
        }
        let rewrites = AppId::Rewrites.to_string();
        let number = snapshot.next(&rewrites);
        let advance = Advance { app_id: rewrites, expected: number, next: number.unwrap_or(0) + 1 };
        let rewrite = Rewrite { uuid: self.clock().unique_id(), advance: &advance, removed: &small, added: &file.file };
        let text = rewrite_entry(&rewrite, self.clock().now_micros() / 1000);
        let advances = std::slice::from_ref(&advance);
        let written = written_micros(&file.file.path);
        let entry =
            Entry { uuid: rewrite.uuid, advances, removed: &small, before_new_rows: false, written, text: &text };
        match log.append(&snapshot, &entry).await? {
            Outcome::Committed(_) => Ok(Compacted {
                files: small.len(),
                bytes: small.iter().map(|file| file.size).sum(),
                rows_folded: u64::try_from(before - file.file.rows).unwrap_or(0),
            }),
            Outcome::Fenced { .. } => {
                self.discard(table, std::slice::from_ref(&file.file)).await;
                Ok(Compacted::default())
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
        (settings, folding): (&MaintainSettings, Option<Folding<'_>>),
    ) -> Result<Option<Vec<(AddedFile, Bytes)>>> {
        if form.has_unknown_columns(table) {
            files.retain(|file| !self.is_of_more_columns(&file.path));
        }
        loop {
            let Some(small) = worth_folding(&files, settings, folding) else { return Ok(None) };
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

    /// Compares a file of folded rows with the fold of the rows that it replaces, both read back from storage.
    async fn verify_fold(
        &self,
        table: Table,
        file: AddedFile,
        replaced: &[(AddedFile, Bytes)],
        folding: Folding<'_>,
    ) -> Result<()> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let expected = folding.rows_of(table, replaced).await?;
        let again = folding.rows_of(table, &[(file.clone(), bytes.clone())]).await?;
        let written = parquet_file::batches(table, &file, bytes, None)?;
        let same = same_rows(expected.iter().cloned().map(Ok), written)?
            && same_rows(expected.into_iter().map(Ok), again.into_iter().map(Ok))?;
        match same {
            true => Ok(()),
            false => Err(not_the_rows(table)),
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
        Err(not_the_rows(table))
    }

    /// Finds out how many files, of how many bytes, compaction would replace until nothing is left to do.
    pub(super) async fn plan_compaction(&self, table: Table, settings: &MaintainSettings) -> Result<(usize, i64)> {
        let (_, mut files) = self.active_files(table).await?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(small) = worth_compacting(files.clone(), settings) {
            files.retain(|file| !small.contains(file));
            let size = small.iter().map(|file| file.size).sum();
            count += small.len();
            bytes += size;
            // Its name sorts as that of a file written now would.
            let merged = AddedFile { path: format!("~{count}"), size, ..small[0].clone() };
            files.push(merged);
        }
        Ok((count, bytes))
    }
}

pub(super) fn not_the_rows(table: Table) -> Error {
    Error::data(format!("the rewritten file of table `{}` does not hold the rows it replaces", table.name()))
        .with_hint("the new file is not used; check the disk or the object store")
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
pub(super) fn same_rows(
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

/// Chooses files to rewrite. Files whose rows can all be folded come first. The others wait, since they can be folded soon: until
/// there are four times as many as are worth a rewrite.
fn worth_folding(
    files: &[AddedFile],
    settings: &MaintainSettings,
    folding: Option<Folding<'_>>,
) -> Option<Vec<AddedFile>> {
    let Some(folding) = folding else { return worth_compacting(files.to_vec(), settings) };
    let (old, new): (Vec<AddedFile>, Vec<AddedFile>) = files.iter().cloned().partition(|file| folding.has_all_of(file));
    let patient = MaintainSettings { compact_files: settings.compact_files.saturating_mul(4), ..*settings };
    worth_compacting(old, settings)
        .or_else(|| (new.len() >= patient.compact_files).then(|| worth_compacting(new, &patient))?)
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
