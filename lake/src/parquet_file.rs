//! How the Parquet files of a table are written, and reading one.
//!
//! Every choice is explicit, because defaults change between versions: zstd level 1 (twice as fast as level 3 for a few
//! per cent of size) but for files of few rows and columns of few values, dictionaries where texts repeat, whole numbers as
//! differences, statistics where readers prune by them, a bloom filter on the columns that are looked up by value, row groups
//! bounded in rows, and no Arrow schema in the footer, so that a file is plain Parquet.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Date32Type, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::{ColumnPath, SchemaDescriptor};

use crate::error::{Error, Result};
use crate::log::AddedFile;
use crate::schema::{Column, Kind, Table};

/// zstd level: the fastest; measured 1.7 M events a CPU-second on 0.8 KB events.
const ZSTD_LEVEL: i32 = 1;

/// A file of so few rows is not compressed: it is mostly footer, and a compressor and a decompressor for each of its columns,
/// which are made whenever it is written or read, take longer than all else. Maintenance compresses it with others.
const FEW_ROWS: usize = 256;

/// Rows in a row group at most: bounds what a reader must hold, and lets it skip.
pub(crate) const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Rows in a batch that reading gives out.
const READ_BATCH_ROWS: usize = 4 * 1024;

/// False-positive rate of bloom filters: 1 in 100 files is opened for nothing.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// Values that hardly repeat, or only in rows that stand together: looking each up in a dictionary would only cost. A field of
/// the records in a list is named behind its list.
const PLAIN_COLUMNS: [&str; 17] = [
    "run_id",
    "event_id",
    "supersedes",
    "session_id",
    "user_key",
    "trace_id",
    "span_id",
    "review_id",
    "tool_calls.id",
    "retrieval.query_sha256",
    "scores.explanation",
    "steps_json",
    "content_json",
    "extra",
    "sha256",
    "head",
    "content_hash",
];

/// Of a table with more columns than this, only [`PRUNING_COLUMNS`] get Parquet statistics: comparing every text of every
/// row costs more than all else that is done with it.
const WIDE_COLUMNS: usize = 100;

/// Columns of wide tables by whose bounds readers leave out pages or row groups.
const PRUNING_COLUMNS: [&str; 12] = [
    "topic",
    "partition",
    "offset",
    "kafka_timestamp",
    "ingested_at",
    "event_time",
    "started_at",
    "ended_at",
    "event_type",
    "tenant",
    "task",
    "release_id",
];

/// How the pages of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pages {
    /// With zstd.
    Compressed,
    /// Not at all.
    Plain,
}

// === impl Pages ===

impl Pages {
    /// Of a file with so many rows.
    pub(crate) fn of(rows: usize) -> Self {
        if rows <= FEW_ROWS { Self::Plain } else { Self::Compressed }
    }

    /// How the name of such a file ends.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Compressed => "zstd.parquet",
            Self::Plain => "parquet",
        }
    }

    fn compression(self) -> Result<Compression> {
        Ok(match self {
            Self::Compressed => Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?),
            Self::Plain => Compression::UNCOMPRESSED,
        })
    }
}

/// How the files of a table are written.
pub(crate) fn properties(table: Table, pages: Pages) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("bellwether version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(pages.compression()?)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    let wide = table.columns().len() > WIDE_COLUMNS;
    for leaf in table.columns().iter().flat_map(|column| leaves(column, None)) {
        let path = || ColumnPath::new(leaf.path.clone());
        if PLAIN_COLUMNS.contains(&leaf.name.as_str()) {
            properties = properties.set_column_dictionary_enabled(path(), false);
        } else if leaf.is_packed {
            properties = properties
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
        }
        if wide && !PRUNING_COLUMNS.contains(&leaf.name.as_str()) {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::None);
        }
    }
    for name in table.bloom_columns() {
        let path = ColumnPath::from(*name);
        // The writer folds a filter that turns out too large for its values.
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path, ROW_GROUP_ROWS as u64);
    }
    Ok(properties.build())
}

/// A Parquet column that a column of a table becomes, or a part of it.
struct Leaf {
    /// As [`PLAIN_COLUMNS`] names it.
    name: String,
    path: Vec<String>,
    /// Numbers that mostly rise, stay within some bits, or are the same: packed as differences they are a third of the size,
    /// zstd has a third of the work, and nothing is looked up.
    is_packed: bool,
}

/// The Parquet columns that a column becomes, which may be a field of the records in a list.
fn leaves(column: &Column, list: Option<&Leaf>) -> Vec<Leaf> {
    let name = list.map_or(column.name.to_owned(), |list| format!("{}.{}", list.name, column.name));
    let above = list.map_or(&[][..], |list| &list.path);
    let leaf = |below: &[&str]| Leaf {
        name: name.clone(),
        path: above
            .iter()
            .map(String::as_str)
            .chain([column.name])
            .chain(below.iter().copied())
            .map(str::to_owned)
            .collect(),
        is_packed: matches!(column.kind, Kind::Integer | Kind::Long | Kind::Timestamp),
    };
    match column.kind {
        Kind::List(fields) => {
            let list = leaf(&["list", "element"]);
            fields.iter().flat_map(|field| leaves(field, Some(&list))).collect()
        }
        Kind::LongList => vec![leaf(&["list", "element"])],
        Kind::TextMap => vec![leaf(&["key_value", "key"]), leaf(&["key_value", "value"])],
        _ => vec![leaf(&[])],
    }
}

/// Reads rows of a file, in file order, with the types of its table's schema.
///
/// `columns` names the columns wanted, partition column included; none means all. A column that the file does not have,
/// because no row of it has a value or it was added later, is null.
pub(crate) fn decode(
    table: Table,
    file: &AddedFile,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<Vec<RecordBatch>> {
    batches(table, file, bytes, columns)?.collect()
}

/// As [`decode`], a piece at a time: holds no more than one.
pub(crate) fn batches(
    table: Table,
    file: &AddedFile,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let wanted = wanted_schema(table, columns)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&bytes, options)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
    let roots = column_indexes(reader.parquet_schema(), |name| wanted.field_with_name(name).is_ok());
    let mask = ProjectionMask::roots(reader.parquet_schema(), roots);
    let batches = reader.with_projection(mask).with_batch_size(READ_BATCH_ROWS).build()?;
    let file = file.clone();
    let columns: Option<Vec<String>> = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    Ok(batches.map(move |batch| {
        let columns: Option<Vec<&str>> = columns.as_ref().map(|names| names.iter().map(String::as_str).collect());
        as_wanted(table, &file, columns.as_deref(), &batch?)
    }))
}

/// Indexes of the top-level columns with certain names.
pub(crate) fn column_indexes(schema: &SchemaDescriptor, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    let fields = schema.root_schema().get_fields().iter().enumerate();
    fields.filter(|(_, field)| wanted(field.name())).map(|(index, _)| index).collect()
}

/// Rows as they were read, with the columns wanted in their order and types.
pub(crate) fn as_wanted(
    table: Table,
    file: &AddedFile,
    columns: Option<&[&str]>,
    batch: &RecordBatch,
) -> Result<RecordBatch> {
    let wanted = wanted_schema(table, columns)?;
    let arrays =
        wanted.fields().iter().map(|field| column_of(table, file, field, batch)).collect::<Result<Vec<ArrayRef>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(wanted, arrays, &options)?)
}

pub(crate) fn wanted_schema(table: Table, columns: Option<&[&str]>) -> Result<SchemaRef> {
    let whole = table.arrow_schema();
    let Some(columns) = columns else { return Ok(whole) };
    let fields = columns.iter().map(|name| whole.field_with_name(name).cloned()).collect::<Result<Vec<Field>, _>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

fn column_of(table: Table, file: &AddedFile, field: &Field, batch: &RecordBatch) -> Result<ArrayRef> {
    if Some(field.name().as_str()) == table.partition_column() {
        return partition_value(file, field, batch.num_rows());
    }
    match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => Ok(cast(column, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    }
}

fn partition_value(file: &AddedFile, field: &Field, rows: usize) -> Result<ArrayRef> {
    let text = file.partition_values.get(field.name()).and_then(Option::as_deref);
    let days = text.and_then(<Date32Type as arrow::compute::kernels::cast_utils::Parser>::parse).ok_or_else(|| {
        Error::data(format!("file `{}` has no readable partition value `{}`", file.path, field.name()))
    })?;
    Ok(Arc::new(arrow::array::Date32Array::from_value(days, rows)))
}
