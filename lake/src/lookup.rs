//! Reads a few rows of a file, by their positions or by the value of a column.
//!
//! A search by value fetches as little of the file as possible: the footer, then the Bloom filters of the column, and then
//! the requested columns of the row groups that a filter does not rule out.

use std::collections::HashSet;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter, RowSelection,
};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use crate::log::AddedFile;
use crate::parquet_file::{as_wanted, column_indexes, gone, unreadable, wanted_schema};
use crate::root::Lake;
use crate::stored::{Stored, from_parquet};
use bellwether_base::{Error, Result};
use bellwether_tables::Table;

/// Bytes first fetched from the end of a file, which nearly always contain the footer. A smaller file is fetched whole.
const FOOTER_BYTES: u64 = 64 * 1024;

/// Rows in a decoded batch.
const BATCH_ROWS: usize = 16 * 1024;

// === impl Lake ===

impl Lake {
    /// Reads the rows at some positions of a file, given in ascending order, as one batch with these columns.
    ///
    /// # Errors
    /// `Data` if the file is missing or unreadable, or has no such row.
    pub async fn read_rows(
        &self,
        table: Table,
        file: &AddedFile,
        columns: &[&str],
        places: Vec<u32>,
    ) -> Result<RecordBatch> {
        let bytes = self.file_bytes(table, &file.path).await?;
        wanted_schema(table, Some(columns))?;
        let of = file;
        let (file, columns) = (file.clone(), owned(columns));
        let work = move || {
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata_of(&bytes)?);
            let rows = usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
            if places.last().is_some_and(|last| *last as usize >= rows) {
                return Err(Error::data(format!(
                    "file `{}` has {rows} rows, but a later row was requested",
                    file.path
                )));
            }
            let ranges = places.iter().map(|place| *place as usize..*place as usize + 1);
            let selection = RowSelection::from_consecutive_ranges(ranges, rows);
            collect(table, &file, &columns, reader.with_row_selection(selection))
        };
        self.work().run("the Parquet reader", work).await.map_err(|error| unreadable(table, of, error))
    }

    /// Reads the rows of a file with one of these values in a text column that has a Bloom filter; returns `None` if there
    /// is no such row.
    ///
    /// # Errors
    /// As [`Lake::read_rows`].
    pub async fn find_rows(
        &self,
        table: Table,
        file: &AddedFile,
        columns: &[&str],
        key: &'static str,
        values: &Arc<HashSet<String>>,
    ) -> Result<Option<RecordBatch>> {
        wanted_schema(table, Some(columns))?;
        match self.find_rows_in(table, file, columns, key, values).await {
            Ok(found) => Ok(found),
            Err(error) => Err(self.why_unread(table, file, error).await),
        }
    }

    /// Explains a failed read: if the file is missing or truncated, another attempt cannot succeed.
    async fn why_unread(&self, table: Table, file: &AddedFile, error: Error) -> Error {
        let Ok(path) = self.file_path(table, &file.path) else { return error };
        match self.objects().head(&path).await {
            Ok(found) if i64::try_from(found.size) != Ok(file.size) => {
                let what = format!("it has {} bytes, but the log says {}", found.size, file.size);
                unreadable(table, file, Error::bug(what).with_source(error))
            }
            Err(source @ object_store::Error::NotFound { .. }) => gone(table, &file.path).with_source(source),
            _ => unreadable(table, file, error),
        }
    }

    async fn find_rows_in(
        &self,
        table: Table,
        file: &AddedFile,
        columns: &[&str],
        key: &'static str,
        values: &Arc<HashSet<String>>,
    ) -> Result<Option<RecordBatch>> {
        let path = self.file_path(table, &file.path)?;
        let size = u64::try_from(file.size).unwrap_or(0);
        let mut parts = Parts { size, parts: Vec::new() };
        let mut wanted = FOOTER_BYTES.min(size);
        let metadata = loop {
            let range = size - wanted..size;
            parts.parts = vec![(range.start, self.objects().get_range(&path, range).await.stored()?)];
            match footer(&parts.parts[0].1, size)? {
                Ok(metadata) => break Arc::new(metadata),
                Err(needed) => wanted = needed.min(size),
            }
        };
        let schema = metadata.file_metadata().schema_descr();
        let Some(leaf) = schema.columns().iter().position(|column| column.path().string() == key) else {
            return Ok(None);
        };
        self.fetch(&path, &mut parts, bloom_ranges(&metadata, leaf)).await?;
        let groups = self.groups_with(&metadata, &parts, leaf, values).await?;
        if groups.is_empty() {
            return Ok(None);
        }
        let roots = column_indexes(schema, |name| name == key || columns.contains(&name));
        let mask = ProjectionMask::roots(schema, roots);
        let chunks = groups.iter().flat_map(|group| metadata.row_group(*group).columns().iter().enumerate());
        let chunks = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf)).map(|(_, chunk)| {
            let (start, length) = chunk.byte_range();
            start..start + length
        });
        self.fetch(&path, &mut parts, chunks.collect()).await?;
        let (file, columns, values) = (file.clone(), owned(columns), Arc::clone(values));
        let work = move || {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let metadata = ArrowReaderMetadata::try_new(metadata, options).stored()?;
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata).with_row_groups(groups);
            let mask = ProjectionMask::leaves(reader.parquet_schema(), [leaf]);
            let holds = ArrowPredicateFn::new(mask, move |batch: RecordBatch| holds_any(&batch, &values));
            let found = collect(table, &file, &columns, reader.with_row_filter(RowFilter::new(vec![Box::new(holds)])))?;
            Ok((found.num_rows() > 0).then_some(found))
        };
        self.work().run("the Parquet reader", work).await
    }

    /// Returns the row groups that may hold one of the values.
    async fn groups_with(
        &self,
        metadata: &Arc<ParquetMetaData>,
        parts: &Parts,
        leaf: usize,
        values: &Arc<HashSet<String>>,
    ) -> Result<Vec<usize>> {
        let (metadata, parts, values) = (Arc::clone(metadata), parts.clone(), Arc::clone(values));
        let work = move || {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let groups = metadata.num_row_groups();
            let metadata = ArrowReaderMetadata::try_new(metadata, options).stored()?;
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata);
            let mut found = Vec::new();
            for group in 0..groups {
                let filter: Option<Sbbf> = reader.get_row_group_column_bloom_filter(group, leaf).stored()?;
                let may = |filter: &Sbbf| values.iter().any(|value| filter.check(value.as_str()));
                if filter.as_ref().is_none_or(may) {
                    found.push(group);
                }
            }
            Ok(found)
        };
        self.work().run("the Bloom filters", work).await
    }

    /// Fetches the ranges of a file that have not been fetched yet.
    async fn fetch(&self, path: &object_store::path::Path, parts: &mut Parts, ranges: Vec<Range<u64>>) -> Result<()> {
        let missing: Vec<Range<u64>> =
            ranges.into_iter().filter(|range| parts.part(range.start, range.end - range.start).is_none()).collect();
        if !missing.is_empty() {
            let fetched = self.objects().get_ranges(path, &missing).await.stored()?;
            parts.parts.extend(missing.iter().map(|range| range.start).zip(fetched));
        }
        Ok(())
    }
}

/// Fetched parts of a file, each with its start.
#[derive(Clone)]
struct Parts {
    size: u64,
    parts: Vec<(u64, Bytes)>,
}

// === impl Parts ===

impl Parts {
    fn part(&self, start: u64, length: u64) -> Option<Bytes> {
        self.parts.iter().find_map(|(at, bytes)| {
            let from = usize::try_from(start.checked_sub(*at)?).ok()?;
            let to = from.checked_add(usize::try_from(length).ok()?)?;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        })
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Parts {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let rest = |(at, bytes): &(u64, Bytes)| {
            let from = usize::try_from(start.checked_sub(*at)?).ok()?;
            (from < bytes.len()).then(|| bytes.slice(from..))
        };
        let missing = || ParquetError::General(format!("byte {start} has not been fetched"));
        self.parts.iter().find_map(rest).map(Cursor::new).ok_or_else(missing)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let missing = || ParquetError::General(format!("{length} bytes from {start} have not been fetched"));
        self.part(start, length as u64).ok_or_else(missing)
    }
}

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

fn metadata_of(bytes: &Bytes) -> Result<ArrowReaderMetadata> {
    ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new().with_skip_arrow_metadata(true)).stored()
}

/// Reads the metadata from the end of a file, or returns how many bytes from the end it needs.
fn footer(end: &Bytes, size: u64) -> Result<std::result::Result<ParquetMetaData, u64>> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(end, size) {
        Ok(()) => Ok(Ok(reader.finish().stored()?)),
        Err(ParquetError::NeedMoreData(needed)) => Ok(Err(needed as u64)),
        Err(source) => Err(from_parquet(source)),
    }
}

/// Returns the byte ranges of a column's Bloom filters.
fn bloom_ranges(metadata: &ParquetMetaData, leaf: usize) -> Vec<Range<u64>> {
    let range = |group: &parquet::file::metadata::RowGroupMetaData| {
        let column = group.column(leaf);
        let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
        Some(start..start + u64::try_from(column.bloom_filter_length()?).ok()?)
    };
    metadata.row_groups().iter().filter_map(range).collect()
}

fn holds_any(batch: &RecordBatch, values: &HashSet<String>) -> std::result::Result<BooleanArray, ArrowError> {
    let column = cast(batch.column(0), &DataType::Utf8View)?;
    let texts = column.as_string_view();
    Ok((0..texts.len()).map(|row| Some(texts.is_valid(row) && values.contains(texts.value(row)))).collect())
}

/// Collects the rows of a reader as one batch with these columns.
fn collect<R: ChunkReader + 'static>(
    table: Table,
    file: &AddedFile,
    columns: &[String],
    reader: ParquetRecordBatchReaderBuilder<R>,
) -> Result<RecordBatch> {
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let schema = wanted_schema(table, Some(&columns))?;
    let roots = column_indexes(reader.parquet_schema(), |name| columns.contains(&name));
    let mask = ProjectionMask::roots(reader.parquet_schema(), roots);
    let mut batches = Vec::new();
    for batch in reader.with_projection(mask).with_batch_size(BATCH_ROWS).build().stored()? {
        let batch = batch.map_err(|source| unreadable(table, file, source.into()))?;
        batches.push(as_wanted(table, file, &schema, &batch)?);
    }
    Ok(concat_batches(&schema, &batches)?)
}
