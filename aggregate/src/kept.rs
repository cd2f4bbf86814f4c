//! The rows that a rebuild leaves as they are: those before a moment, because what they were made of is no longer kept.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, DataFile, Lake, RowEncoder};
use bellwether_tables::Table;

/// Bytes of rows that were encoded before they become a file.
pub(crate) const FILE_BYTES: usize = 8 << 20;

/// The files of a table after its rows from a moment on were taken out: the others stay.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// Files to remove: those that hold rows from the moment on.
    pub(crate) removed: Vec<AddedFile>,
    /// New files with the earlier rows of the removed ones. No log names them yet.
    pub(crate) written: Vec<DataFile>,
}

// === impl Split ===

impl Split {
    /// Divides the files of a table at a moment, microseconds since the epoch, of a column of times.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a file is gone or unreadable.
    pub(crate) async fn at(
        lake: &Lake,
        table: Table,
        files: Vec<AddedFile>,
        column: &'static str,
        micros: i64,
    ) -> Result<Self> {
        let mut split = Self::default();
        let mut encoder = RowEncoder::new(table);
        for file in files {
            let (least, greatest) = file.bounds().times(column).unwrap_or((i64::MIN, i64::MAX));
            if greatest < micros {
                continue;
            }
            if least < micros {
                for rows in lake.read_in_pieces(table, &file, None).await? {
                    encoder.push(&(&before(&rows?, column, micros)?).into())?;
                    if encoder.bytes() >= FILE_BYTES {
                        split.write(lake, &mut encoder).await?;
                    }
                }
            }
            split.removed.push(file);
        }
        split.write(lake, &mut encoder).await?;
        Ok(split)
    }

    async fn write(&mut self, lake: &Lake, encoder: &mut RowEncoder) -> Result<()> {
        let rows = encoder.finish()?;
        self.written.extend(lake.store(&rows).await?.into_iter().map(|written| written.file));
        Ok(())
    }
}

/// Returns the rows before a moment, by a column of times.
pub(crate) fn before(rows: &RecordBatch, column: &str, micros: i64) -> Result<RecordBatch> {
    by_time(rows, column, |time| time < micros)
}

/// Returns the rows from a moment on, by a column of times.
pub(crate) fn since(rows: &RecordBatch, column: &str, micros: i64) -> Result<RecordBatch> {
    if micros == i64::MIN {
        return Ok(rows.clone());
    }
    by_time(rows, column, |time| time >= micros)
}

fn by_time(rows: &RecordBatch, column: &str, stays: impl Fn(i64) -> bool) -> Result<RecordBatch> {
    let missing = || Error::bug(format!("rows lack column `{column}`"));
    let times = rows.column_by_name(column).ok_or_else(missing)?.as_primitive::<TimestampMicrosecondType>();
    let mask: BooleanArray = times.values().iter().map(|time| Some(stays(*time))).collect();
    Ok(filter_record_batch(rows, &mask)?)
}

/// Returns the start of the first window that is whole if everything from a moment on is kept.
pub(crate) fn whole_windows_from(kept_from_micros: i64, window_micros: i64) -> i64 {
    match kept_from_micros.rem_euclid(window_micros) {
        _ if kept_from_micros == i64::MIN => i64::MIN,
        0 => kept_from_micros,
        past => kept_from_micros.saturating_add(window_micros - past),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_windows_that_begin_when_everything_is_kept_are_whole() {
        assert_eq!(whole_windows_from(i64::MIN, 60), i64::MIN);
        assert_eq!([120, 121, 179, -59].map(|kept| whole_windows_from(kept, 60)), [120, 180, 180, 0]);
    }
}
