//! Folding: partial rows of one window and group become one row when their files are rewritten.
//!
//! This crate knows no definition of a metric, so the folding itself is passed in. Only rows that the next roll-up holds already
//! are folded: which rows a roll-up holds is decided by `events_to`, and a folded row has the greatest one of its rows.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use bytes::Bytes;

use crate::encoder::{EncodedRows, RowEncoder};
use crate::log::AddedFile;
use crate::parquet_file;
use crate::rollup::Rolled;
use crate::root::Lake;

/// Folds partial rows.
#[async_trait]
pub trait Fold: Send + Sync {
    /// Folds rows of a table into one for each window and group. The result depends only on the set of rows.
    ///
    /// # Errors
    /// `Bug` if the rows cannot be folded.
    async fn fold(&self, table: Table, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>>;
}

/// The fold of a table's rows.
#[derive(Clone, Copy)]
pub(super) struct Folding<'a> {
    fold: &'a dyn Fold,
    /// Rows with `events_to` up to this are folded; the others stay as they are.
    to: i64,
}

// === impl Folding ===

impl Folding<'_> {
    /// Returns true if all rows of a file can be folded.
    pub(super) fn has_all_of(&self, file: &AddedFile) -> bool {
        file.bounds().greatest_number("events_to").is_some_and(|greatest| greatest <= self.to)
    }

    /// Returns the rows of files, folded.
    pub(super) async fn rows_of(&self, table: Table, files: &[(AddedFile, Bytes)]) -> Result<Vec<RecordBatch>> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for (file, bytes) in files {
            for batch in parquet_file::batches(table, file, bytes.clone(), None)? {
                let batch = batch?;
                let missing = || Error::bug(format!("rows of `{}` lack column `events_to`", table.name()));
                let events_to = batch.column_by_name("events_to").ok_or_else(missing)?.as_primitive::<Int64Type>();
                let is_old: BooleanArray = events_to.values().iter().map(|to| Some(*to <= self.to)).collect();
                let is_new: BooleanArray = events_to.values().iter().map(|to| Some(*to > self.to)).collect();
                old.push(filter_record_batch(&batch, &is_old)?);
                new.push(filter_record_batch(&batch, &is_new)?);
            }
        }
        let mut rows = self.fold.fold(table, old).await?;
        rows.extend(new);
        Ok(rows)
    }
}

// === impl Lake ===

impl Lake {
    /// Returns how rows of a table are folded now; none if they are not.
    pub(super) async fn folding<'a>(&self, table: Table, fold: Option<&'a dyn Fold>) -> Result<Option<Folding<'a>>> {
        let Some(fold) = fold else { return Ok(None) };
        let to = match table {
            Table::Metrics => Rolled::load(self).await?.hours,
            // Nothing is made of days: all that are there can be folded. Of an outdated roll-up, none.
            Table::MetricsHourly | Table::MetricsDaily => Rolled::load(self).await?.days,
            _ => return Ok(None),
        };
        Ok((to > 0).then_some(Folding { fold, to }))
    }
}

/// Encodes rows as one file.
pub(super) fn encode(table: Table, rows: &[RecordBatch]) -> Result<EncodedRows> {
    let mut encoder = RowEncoder::new(table);
    for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
        encoder.push(&batch.into())?;
    }
    encoder.finish()
}
