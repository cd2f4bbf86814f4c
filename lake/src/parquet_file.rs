//! The format of a table's Parquet files, and reading them.
//!
//! Every choice is explicit, because defaults change between versions:
//! * zstd level 1 (twice as fast as level 3, and a few per cent larger), except for files of few rows and columns of few values
//! * dictionaries for repeating texts, and integers as differences
//! * statistics for columns that readers prune by, and a Bloom filter on columns that are looked up by value
//! * row groups bounded in rows
//! * no Arrow schema in the footer, so that a file is plain Parquet

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::{ColumnPath, SchemaDescriptor};

use crate::encoder::absent as without_value;
use crate::log::AddedFile;
use crate::stored::Stored;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_tables::{Column, ColumnType, Storage, Table};

/// The fastest zstd level: 1.7 million events of 0.8 kB per CPU-second.
const ZSTD_LEVEL: i32 = 1;

/// Files of at most so many rows are not compressed. They consist mostly of the footer, and creating a compressor or
/// decompressor for each column would take longer than everything else. Maintenance compresses them when it combines them.
const FEW_ROWS: usize = 256;

/// Most rows in a row group. Bounds the memory of a reader, and lets it skip row groups.
pub(crate) const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Rows in a batch that a reader returns.
const READ_BATCH_ROWS: usize = 4 * 1024;

/// False-positive rate of Bloom filters: 1 in 100 files is opened for nothing.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// The compression of a file's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pages {
    /// Compressed with zstd.
    Compressed,
    /// Not compressed.
    Plain,
}

// === impl Pages ===

impl Pages {
    /// Returns the compression of a file with so many rows.
    pub(crate) fn of(rows: usize) -> Self {
        if rows <= FEW_ROWS { Self::Plain } else { Self::Compressed }
    }

    /// Returns the extension of such a file.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Compressed => "zstd.parquet",
            Self::Plain => "parquet",
        }
    }

    fn compression(self) -> Result<Compression> {
        Ok(match self {
            Self::Compressed => Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).stored()?),
            Self::Plain => Compression::UNCOMPRESSED,
        })
    }
}

/// Returns the Parquet properties of a table's files.
pub(crate) fn properties(table: Table, pages: Pages) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("bellwether version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(pages.compression()?)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for leaf in table.columns().iter().flat_map(|column| leaves(column, None)) {
        let path = || ColumnPath::new(leaf.path.clone());
        if leaf.storage.distinct {
            properties = properties.set_column_dictionary_enabled(path(), false);
        } else if leaf.is_packed {
            properties = properties
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
        }
        if !leaf.storage.pruned {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::None);
        }
    }
    for column in table.columns().iter().filter(|column| column.storage.bloom) {
        let path = ColumnPath::from(column.name);
        // The writer shrinks a filter that turns out too large for its values.
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path, ROW_GROUP_ROWS as u64);
    }
    Ok(properties.build())
}

/// A Parquet column that stores a column of a table, or part of it.
struct Leaf {
    storage: Storage,
    path: Vec<String>,
    /// Stored as differences, without a dictionary. Numbers that rise, stay in a narrow range or repeat then take a third of
    /// the space, and zstd a third of the time.
    is_packed: bool,
}

/// Returns the Parquet columns of a column, which may be a field of the records in a list.
fn leaves(column: &Column, list: Option<&Leaf>) -> Vec<Leaf> {
    let above = list.map_or(&[][..], |list| &list.path);
    let leaf = |below: &[&str]| Leaf {
        storage: column.storage,
        path: above
            .iter()
            .map(String::as_str)
            .chain([column.name])
            .chain(below.iter().copied())
            .map(str::to_owned)
            .collect(),
        is_packed: matches!(column.kind, ColumnType::Integer | ColumnType::Long | ColumnType::Timestamp),
    };
    match column.kind {
        ColumnType::List(fields) => {
            let list = leaf(&["list", "element"]);
            fields.iter().flat_map(|field| leaves(field, Some(&list))).collect()
        }
        ColumnType::LongList => vec![leaf(&["list", "element"])],
        ColumnType::TextMap => vec![leaf(&["key_value", "key"]), leaf(&["key_value", "value"])],
        _ => vec![leaf(&[])],
    }
}

/// Reads rows of a file, in file order, with the types of its table's schema.
///
/// `columns` names the columns to read, including the partition column; `None` means all. A column that the file lacks,
/// because it has no value there or was added later, is null.
pub(crate) fn decode(
    table: Table,
    file: &AddedFile,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<Vec<RecordBatch>> {
    batches(table, file, bytes, columns)?.collect()
}

/// Reads like `decode`, but holds only one batch at a time.
pub fn batches(
    table: Table,
    file: &AddedFile,
    bytes: Bytes,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
    batches_as(table, file, bytes, &wanted_schema(table, columns)?)
}

/// Reads like [`batches`], with the columns of a schema.
pub(crate) fn batches_as(
    table: Table,
    file: &AddedFile,
    bytes: Bytes,
    wanted: &SchemaRef,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&bytes, options).stored();
    let metadata = metadata.map_err(|error| unreadable(table, file, error))?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
    let roots = column_indexes(reader.parquet_schema(), |name| wanted.field_with_name(name).is_ok());
    let mask = ProjectionMask::roots(reader.parquet_schema(), roots);
    let batches = reader.with_projection(mask).with_batch_size(READ_BATCH_ROWS).build().stored()?;
    let (file, wanted) = (file.clone(), SchemaRef::clone(wanted));
    Ok(batches.map(move |batch| {
        let batch = batch.map_err(|source| unreadable(table, &file, source.into()))?;
        as_wanted(table, &file, &wanted, &batch)
    }))
}

/// Reports a missing file.
pub(crate) fn gone(table: Table, path: &str) -> Error {
    Error::data(format!("file `{path}` of table `{}` is missing", table.name())).with_hint(
        "it was vacuumed or deleted: restore it from a backup, or run `bellwether rebuild` if its table is derived from \
         `events`; `bellwether audit` lists all missing files",
    )
}

/// Reports an unreadable file. An error of the reader about the content is damage of the file, not a bug of the program.
pub(crate) fn unreadable(table: Table, file: &AddedFile, error: Error) -> Error {
    let is_told = error.kind() == ErrorKind::Data && error.hint().is_some();
    if is_told || !matches!(error.kind(), ErrorKind::Bug | ErrorKind::Data) {
        return error;
    }
    Error::data(format!("file `{}` of table `{}` is not readable", file.path, table.name()))
        .with_hint("restore it from a backup; `bellwether audit` lists all damage")
        .with_source(error)
}

/// Returns the name of the first column of a file, or field of its records, that this program does not know.
pub(crate) fn unknown_column(table: Table, bytes: &Bytes) -> Result<Option<String>> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(bytes, options).stored()?;
    Ok(unknown_field(metadata.schema().fields(), table.arrow_schema().fields()))
}

fn unknown_field(found: &Fields, known: &Fields) -> Option<String> {
    found.iter().find_map(|field| match known.find(field.name()) {
        None => Some(field.name().clone()),
        Some((_, known)) => match (records(field.data_type()), records(known.data_type())) {
            (Some(found), Some(known)) => unknown_field(found, known),
            _ => None,
        },
    })
}

/// Returns the fields of the records in a list.
fn records(list: &DataType) -> Option<&Fields> {
    match list {
        DataType::List(element) => match element.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the indexes of the top-level columns with certain names.
pub(crate) fn column_indexes(schema: &SchemaDescriptor, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    let fields = schema.root_schema().get_fields().iter().enumerate();
    fields.filter(|(_, field)| wanted(field.name())).map(|(index, _)| index).collect()
}

/// Converts rows of a file to the columns of a schema.
pub(crate) fn as_wanted(
    table: Table,
    file: &AddedFile,
    wanted: &SchemaRef,
    batch: &RecordBatch,
) -> Result<RecordBatch> {
    let arrays = wanted.fields().iter().map(|field| column_of(table, file, field, batch));
    let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(SchemaRef::clone(wanted), arrays, &options);
    rows.map_err(|source| unreadable(table, file, source.into()))
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
    let column = match batch.column_by_name(field.name()) {
        Some(column) => as_type(column, field.data_type()),
        None => Ok(without_value(field, batch.num_rows())),
    };
    column.map_err(|source| unreadable(table, file, source.into()))
}

/// Converts a column to a type. Fields of records are matched by name: those that the file lacks are null, and those that
/// the type lacks are left out.
fn as_type(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), wanted) {
        (found, wanted) if found == wanted => Ok(Arc::clone(column)),
        (DataType::List(_), DataType::List(element)) => {
            let lists = column.as_list::<i32>();
            let values = as_type(lists.values(), element.data_type())?;
            let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let found = column.as_struct();
            let field = |field: &FieldRef| match found.column_by_name(field.name()) {
                Some(column) => as_type(column, field.data_type()),
                None => Ok(without_value(field, found.len())),
            };
            let arrays = fields.iter().map(field).collect::<Result<_, _>>()?;
            let nulls = found.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, found.len())?))
        }
        _ => cast(column, wanted),
    }
}

fn partition_value(file: &AddedFile, field: &Field, rows: usize) -> Result<ArrayRef> {
    let text = file.partition_values.get(field.name()).and_then(Option::as_deref);
    let days = text.and_then(<Date32Type as arrow::compute::kernels::cast_utils::Parser>::parse).ok_or_else(|| {
        Error::data(format!("file `{}` has no readable partition value `{}`", file.path, field.name()))
    })?;
    Ok(Arc::new(arrow::array::Date32Array::from_value(days, rows)))
}
