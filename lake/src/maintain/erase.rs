//! Erasure: files are written again without some of their rows, or with other values in some of them.
//!
//! This module knows how, but not which rows: an [`Edit`] says so. All files of a table are replaced in one commit with
//! `dataChange: false`, so that readers that follow the log do not read the remaining rows again. The commit says how many rows of
//! each partition it took, so that an audit knows them from lost ones.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use futures::future::BoxFuture;
use serde_json::{Map, json};

use super::compact::{not_the_rows, same_rows};
use crate::commit::{Advance, Commit, CommitLog, DataFile, Outcome, Snapshot, settle};
use crate::encoder::RowEncoder;
use crate::log::{AddedFile, RemovedRows};
use crate::parquet_file;
use crate::root::Lake;

/// Times that a table's files are listed until the listing is as new as the log.
const LOOKS: usize = 5;

/// Decides which rows go, and which change.
pub trait Edit: Send + Sync {
    /// The columns by which [`Edit::touches`] decides; none for all.
    fn columns(&self) -> Option<&[&'static str]>;

    /// Returns true if some of these rows go or change. They have the columns that were asked for.
    ///
    /// # Errors
    /// `Bug` if the rows lack a column.
    fn touches(&self, rows: &RecordBatch) -> Result<bool>;

    /// Divides whole rows. It must give the same answer for the same rows.
    ///
    /// # Errors
    /// As [`Edit::touches`].
    fn edit(&self, rows: &RecordBatch) -> Result<Edited>;
}

/// Rows after an edit.
#[derive(Clone, Debug)]
pub struct Edited {
    /// Rows that stay, in their order, with their new values.
    pub stay: RecordBatch,
    /// Rows that go.
    pub gone: RecordBatch,
    /// Number of rows that stay with other values.
    pub changed: usize,
}

/// The files of a table after an edit. No log names the new ones yet.
#[derive(Clone, Debug, Default)]
pub struct Rewriting {
    /// Files to replace.
    pub old: Vec<AddedFile>,
    /// Files with the rows that stay.
    pub new: Vec<DataFile>,
    /// Number of rows that go.
    pub rows: u64,
    /// Number of rows that change.
    pub changed: u64,
    removed: BTreeMap<(String, i32), RemovedRows>,
}

// === impl Rewriting ===

impl Rewriting {
    /// Returns true if nothing is to be replaced.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty()
    }

    fn take(&mut self, table: Table, edited: &Edited) -> Result<()> {
        self.rows += edited.gone.num_rows() as u64;
        self.changed += edited.changed as u64;
        if !matches!(table, Table::Events | Table::Quarantine) {
            return Ok(());
        }
        count_by_partition(&edited.gone, &mut self.removed)
    }
}

/// Counts rows by the partition that they came from, and the offsets between which they are.
pub(super) fn count_by_partition(rows: &RecordBatch, found: &mut BTreeMap<(String, i32), RemovedRows>) -> Result<()> {
    let column = |name: &str| {
        rows.column_by_name(name)
            .ok_or_else(|| Error::bug(format!("rows do not say where they came from: no `{name}`")))
    };
    let topics = column("topic")?.as_string_view();
    let partitions = column("partition")?.as_primitive::<Int32Type>().values();
    let offsets = column("offset")?.as_primitive::<Int64Type>().values();
    for row in 0..rows.num_rows() {
        let (topic, partition, offset) = (topics.value(row), partitions[row], offsets[row]);
        let of = found.entry((topic.to_owned(), partition)).or_insert_with(|| RemovedRows {
            topic: topic.to_owned(),
            partition,
            from: offset,
            next: offset + 1,
            rows: 0,
        });
        (of.from, of.next, of.rows) = (of.from.min(offset), of.next.max(offset + 1), of.rows + 1);
    }
    Ok(())
}

// === impl Lake ===

impl Lake {
    /// Returns a table's newest snapshot and its files in that version.
    ///
    /// # Errors
    /// As [`Lake::active_files`].
    pub async fn snapshot_with_files(&self, table: Table) -> Result<(Snapshot, Vec<AddedFile>)> {
        let log = self.log(table);
        let mut on = log.load().await?;
        for _ in 0..LOOKS {
            let (version, files) = self.active_files(table).await?;
            if version > on.version {
                on = log.catch_up(on).await?;
            }
            if version == on.version {
                return Ok((on, files));
            }
        }
        let (version, name) = (on.version, table.name());
        // Other processes commit faster than a listing is read: the files as of the snapshot.
        let files = self.files_at(table, version).await;
        files.map(|files| (on, files)).map_err(|error| {
            Error::unavailable(format!("a listing of table `{name}` is behind its log")).with_source(error)
        })
    }

    /// Returns those files that an edit touches.
    ///
    /// # Errors
    /// `Data` if a file is missing or unreadable; `Unavailable` if storage does not answer.
    pub async fn touched(&self, table: Table, files: &[AddedFile], edit: &dyn Edit) -> Result<Vec<AddedFile>> {
        let mut touched = Vec::new();
        for file in files {
            for rows in self.read_in_pieces(table, file, edit.columns()).await? {
                if edit.touches(&rows?)? {
                    touched.push(file.clone());
                    break;
                }
            }
        }
        Ok(touched)
    }

    /// Writes files again as an edit says, and compares each new file with the edited rows of the old one. No log names the new
    /// files until [`Lake::commit_rewriting`].
    ///
    /// # Errors
    /// As [`Lake::touched`]; `Data` if a file has columns that this version does not know, whose values would be lost.
    pub async fn rewrite(&self, table: Table, touched: Vec<AddedFile>, edit: &dyn Edit) -> Result<Rewriting> {
        let mut rewriting = Rewriting::default();
        for file in touched {
            match self.rewrite_file(table, &file, edit, &mut rewriting).await {
                Ok(()) => rewriting.old.push(file),
                Err(error) => {
                    self.discard(table, &rewriting.new).await;
                    return Err(error);
                }
            }
        }
        Ok(rewriting)
    }

    /// Finds out what [`Lake::rewrite`] would do, and writes nothing.
    ///
    /// # Errors
    /// As [`Lake::touched`].
    pub async fn plan_rewrite(&self, table: Table, touched: Vec<AddedFile>, edit: &dyn Edit) -> Result<Rewriting> {
        let mut rewriting = Rewriting::default();
        for file in touched {
            for rows in self.read_in_pieces(table, &file, None).await? {
                rewriting.take(table, &edit.edit(&rows?)?)?;
            }
            rewriting.old.push(file);
        }
        Ok(rewriting)
    }

    async fn rewrite_file(
        &self,
        table: Table,
        file: &AddedFile,
        edit: &dyn Edit,
        rewriting: &mut Rewriting,
    ) -> Result<()> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let unknown = parquet_file::unknown_column(table, &bytes);
        if let Some(column) = unknown.map_err(|error| parquet_file::unreadable(table, file, error))? {
            let what = format!("a file of `{}` has column `{column}`, which this version does not know", table.name());
            return Err(Error::data(what).with_hint("erase with the version that knows it; nothing has changed"));
        }
        let mut encoder = RowEncoder::new(table);
        for rows in parquet_file::batches(table, file, bytes.clone(), None)? {
            let edited = edit.edit(&rows?)?;
            rewriting.take(table, &edited)?;
            encoder.push(&(&edited.stay).into())?;
        }
        let rows = encoder.finish()?;
        let written = self.store(&rows).await?;
        rewriting.new.extend(written.iter().map(|written| written.file.clone()));
        // No row may be lost that was not meant.
        let stay = parquet_file::batches(table, file, bytes, None)?.map(|rows| Ok(edit.edit(&rows?)?.stay));
        let mut again: Vec<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> = Vec::new();
        for written in written {
            let file = written.file.as_added();
            let bytes = self.file_bytes(table, &file.path).await?;
            again.push(Box::new(parquet_file::batches(table, &file, bytes, None)?));
        }
        match same_rows(stay, again.into_iter().flatten())? {
            true => Ok(()),
            false => Err(not_the_rows(table)),
        }
    }

    /// Replaces files by those of a rewriting, in one commit with these advances. With `before_new_rows`, the commit is fenced if
    /// rows have been added since the snapshot. Returns none if it is fenced; the new files are then still there.
    ///
    /// # Errors
    /// As [`CommitLog::try_commit`].
    pub async fn commit_rewriting(
        &self,
        table: Table,
        on: &Snapshot,
        rewriting: &Rewriting,
        advances: Vec<Advance>,
        before_new_rows: bool,
    ) -> Result<Option<Snapshot>> {
        let removed: Vec<&RemovedRows> = rewriting.removed.values().collect();
        let commit = Commit {
            uuid: self.clock().unique_id(),
            advances,
            files: rewriting.new.clone(),
            operation: "DELETE",
            ranges: Vec::new(),
            facts: Map::from_iter((!removed.is_empty()).then(|| ("removed".to_owned(), json!(removed)))),
        };
        let log = self.log(table);
        let ask = || -> BoxFuture<'_, Result<Outcome>> {
            Box::pin(log.try_rewrite(on, &commit, &rewriting.old, before_new_rows))
        };
        let unclear = |reason: &str| {
            tracing::warn!(table = table.name(), reason, "the outcome of an erasure is unknown; asking again")
        };
        settle(&*self.clock(), ask, unclear).await
    }
}
