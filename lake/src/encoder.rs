//! Encodes rows as Parquet while they arrive.
//!
//! * [`Chunk`] holds some thousands of rows as columns, without columns that have no value.
//! * [`RowEncoder`] takes chunks and holds them encoded, so that a batch in memory is as small as its file.
//! * [`EncodedRows`] is the result: whole files in memory, one for each value of the partition column, with the columns for a
//!   reader in the same process, and the spans of Kafka offsets in them.
//!
//! Rules: a chunk has exactly the table's schema; no row is lost between a chunk and a file, and their order is kept.

mod dictionary;
mod file;
mod list;

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    UInt32Array,
};
use arrow::compute::{cast, filter_record_batch, take};
use arrow::datatypes::{DataType, Date32Type, FieldRef, Int32Type, Int64Type, Schema, SchemaRef, UInt32Type};
use bytes::Bytes;

use crate::encoder::file::FileEncoder;
pub(crate) use crate::encoder::file::absent;
use crate::log::AddedFile;
use crate::parquet_file::{self, Pages};
use bellwether_base::{Error, Result};
use bellwether_tables::Table;

/// Rows as columns. If the table's schema has views (`Utf8View`), a column, or a field of records in a list, may hold
/// contiguous texts (`Utf8`) instead, because a file needs no views. Texts with few distinct values may be a dictionary
/// (`Dictionary(UInt32, Utf8)`), which costs least to encode.
#[derive(Debug)]
pub struct Chunk {
    pub rows: usize,
    /// One for each column of the table's schema, in its order. `None` means null, or an empty list, in every row.
    pub columns: Vec<Option<ArrayRef>>,
}

/// The range of offsets of one Kafka partition among rows, [first, next), and the number of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub topic: String,
    pub partition: i32,
    /// Least offset.
    pub first: i64,
    /// One more than the greatest offset.
    pub next: i64,
    pub rows: usize,
}

/// Encodes rows, chunk by chunk.
pub struct RowEncoder {
    table: Table,
    pages: Pages,
    schema: SchemaRef,
    /// Columns to keep for a reader in the same process, with their positions in the schema.
    handed_on: Option<(SchemaRef, Vec<usize>)>,
    /// One for each value of the partition column.
    files: BTreeMap<Option<i32>, FileEncoder>,
    spans: Vec<Span>,
    rows: usize,
    bytes: usize,
}

/// Rows of a table as whole Parquet files in memory.
#[derive(Clone, Debug)]
pub struct EncodedRows {
    table: Table,
    files: Vec<EncodedFile>,
    spans: Vec<Span>,
    handed_on: Option<Vec<String>>,
}

/// One file in memory.
#[derive(Clone)]
pub(crate) struct EncodedFile {
    /// Value of the partition column as text.
    pub(crate) value: Option<String>,
    pub(crate) bytes: Bytes,
    /// Extension of its name.
    pub(crate) extension: &'static str,
    pub(crate) rows: usize,
    /// Statistics as the JSON of an `add` action.
    pub(crate) stats: String,
    /// The columns for a reader in the same process, chunk by chunk.
    pub(crate) handed_on: Vec<RecordBatch>,
}

impl fmt::Debug for EncodedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, bytes) = (self.rows, self.bytes.len());
        f.debug_struct("EncodedFile").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}

// === impl Chunk ===

impl From<&RecordBatch> for Chunk {
    fn from(batch: &RecordBatch) -> Self {
        Self { rows: batch.num_rows(), columns: batch.columns().iter().cloned().map(Some).collect() }
    }
}

impl Chunk {
    fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let columns =
            self.columns.iter().map(|column| column.as_ref().map(|column| take(column, rows, None)).transpose());
        Ok(Self { rows: rows.len(), columns: columns.collect::<Result<_, _>>()? })
    }
}

// === impl RowEncoder ===

impl RowEncoder {
    /// Starts without rows.
    pub fn new(table: Table) -> Self {
        Self::with_pages(table, Pages::Compressed)
    }

    fn with_pages(table: Table, pages: Pages) -> Self {
        let (schema, files, spans) = (table.arrow_schema(), BTreeMap::new(), Vec::new());
        Self { table, pages, schema, handed_on: None, files, spans, rows: 0, bytes: 0 }
    }

    /// Keeps these columns of every row in memory, for a reader in the same process. Without columns, keeps nothing.
    ///
    /// # Errors
    /// `Bug` if the table has no such column.
    pub fn handing_on(self, columns: &[&str]) -> Result<Self> {
        if columns.is_empty() {
            return Ok(Self { handed_on: None, ..self });
        }
        let places = columns.iter().map(|name| self.schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let schema = SchemaRef::new(self.schema.project(&places)?);
        Ok(Self { handed_on: Some((schema, places)), ..self })
    }

    /// Returns the number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the approximate memory in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds rows.
    ///
    /// # Errors
    /// `Bug` if they do not have the table's schema.
    pub fn push(&mut self, chunk: &Chunk) -> Result<()> {
        if chunk.rows == 0 {
            return Ok(());
        }
        self.check(chunk)?;
        self.note_spans(chunk)?;
        self.rows += chunk.rows;
        for (day, part) in self.split(chunk)? {
            let file = self.files.entry(day).or_insert_with(|| FileEncoder::new(self.table, self.pages));
            file.push(part.as_ref().unwrap_or(chunk), self.handed_on.as_ref())?;
        }
        self.bytes = self.files.values().map(FileEncoder::bytes).sum();
        Ok(())
    }

    /// Splits a chunk by the value of the partition column; a part is `None` if it is the whole chunk.
    fn split(&self, chunk: &Chunk) -> Result<Vec<(Option<i32>, Option<Chunk>)>> {
        let Some(name) = self.table.partition_column() else { return Ok(vec![(None, None)]) };
        let days = chunk.columns[self.schema.index_of(name)?]
            .as_ref()
            .and_then(|column| column.as_primitive_opt::<Date32Type>())
            .ok_or_else(|| Error::bug(format!("partition column `{name}` is not a date")))?;
        let first = days.value(0);
        if days.values().iter().all(|day| *day == first) {
            return Ok(vec![(Some(first), None)]);
        }
        let mut rows_of: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (row, day) in (0_u32..).zip(days.values()) {
            rows_of.entry(*day).or_default().push(row);
        }
        let parts = rows_of.into_iter().map(|(day, rows)| Ok((Some(day), Some(chunk.take(&UInt32Array::from(rows))?))));
        parts.collect()
    }

    /// Returns the rows so far as whole files; the encoder is empty afterwards.
    ///
    /// # Errors
    /// `Bug` if a file cannot be closed.
    pub fn finish(&mut self) -> Result<EncodedRows> {
        (self.rows, self.bytes) = (0, 0);
        let mut files = Vec::new();
        for (day, file) in std::mem::take(&mut self.files) {
            let value = day.map(date_text).transpose()?;
            files.push(file.finish(value)?);
        }
        let names = |(schema, _): &(SchemaRef, Vec<usize>)| schema.fields().iter().map(|f| f.name().clone()).collect();
        let handed_on = self.handed_on.as_ref().map(names);
        Ok(EncodedRows { table: self.table, files, spans: std::mem::take(&mut self.spans), handed_on })
    }

    fn check(&self, chunk: &Chunk) -> Result<()> {
        let fields = self.schema.fields();
        let fits = chunk.columns.len() == fields.len()
            && fields.iter().zip(&chunk.columns).all(|(field, column)| match column {
                Some(column) => {
                    alike(column.data_type(), field.data_type())
                        && column.len() == chunk.rows
                        && (field.is_nullable() || column.logical_null_count() == 0)
                }
                None => field.is_nullable() || matches!(field.data_type(), DataType::List(_)),
            });
        if fits {
            return Ok(());
        }
        Err(Error::bug(format!("rows do not have the schema of table `{}`", self.table.name())))
    }

    fn note_spans(&mut self, chunk: &Chunk) -> Result<()> {
        let Some((topics, partitions, offsets)) = coordinates(&self.schema, &chunk.columns)? else { return Ok(()) };
        let dictionary =
            topics.as_dictionary_opt::<UInt32Type>().and_then(|topics| topics.downcast_dict::<StringArray>());
        match (topics.as_string_opt::<i32>(), dictionary) {
            (Some(topics), _) => self.note_spans_of(topics, partitions, offsets),
            (None, Some(topics)) => self.note_spans_of(topics, partitions, offsets),
            (None, None) => self.note_spans_of(topics.as_string_view(), partitions, offsets),
        }
        Ok(())
    }

    /// Extends the spans by the offsets of rows. Rows of one partition are mostly adjacent.
    fn note_spans_of<'a>(
        &mut self,
        topics: impl ArrayAccessor<Item = &'a str>,
        partitions: &Int32Array,
        offsets: &Int64Array,
    ) {
        let mut at = 0;
        for (row, (partition, offset)) in partitions.values().iter().zip(offsets.values()).enumerate() {
            let topic = topics.value(row);
            let here = |span: &Span| span.partition == *partition && span.topic == topic;
            if !self.spans.get(at).is_some_and(here) {
                at = self.spans.iter().position(here).unwrap_or(self.spans.len());
                if at == self.spans.len() {
                    let (topic, partition) = (topic.to_owned(), *partition);
                    self.spans.push(Span { topic, partition, first: *offset, next: offset + 1, rows: 0 });
                }
            }
            let span = &mut self.spans[at];
            span.first = span.first.min(*offset);
            span.next = span.next.max(offset + 1);
            span.rows += 1;
        }
    }
}

// === impl EncodedRows ===

impl EncodedRows {
    /// Encodes one batch.
    ///
    /// # Errors
    /// `Bug` if it does not have the table's schema.
    pub fn of(table: Table, batch: &RecordBatch) -> Result<Self> {
        if batch.schema() != table.arrow_schema() {
            return Err(Error::bug(format!("a batch does not have the schema of table `{}`", table.name())));
        }
        let mut encoder = RowEncoder::with_pages(table, Pages::of(batch.num_rows()));
        encoder.push(&batch.into())?;
        encoder.finish()
    }

    /// Returns the table of the rows.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Returns the spans of Kafka offsets, if the table has such columns.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn files(&self) -> &[EncodedFile] {
        &self.files
    }

    /// Decodes the rows, with all columns, file by file and each in the order of arrival.
    ///
    /// # Errors
    /// `Data` if a file in memory cannot be decoded.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for file in &self.files {
            batches.extend(parquet_file::decode(self.table, &self.added(file), file.bytes.clone(), None)?);
        }
        Ok(batches)
    }

    /// Returns the rows that `keep` selects by topic, partition and offset. Decodes all rows and encodes these again.
    ///
    /// # Errors
    /// `Bug` if the table has no such columns; otherwise as [`EncodedRows::batches`].
    pub fn kept(&self, keep: impl Fn(&str, i32, i64) -> bool) -> Result<Self> {
        let mut encoder = RowEncoder::new(self.table);
        if let Some(columns) = &self.handed_on {
            encoder = encoder.handing_on(&columns.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        for batch in self.batches()? {
            let columns: Vec<Option<ArrayRef>> = batch.columns().iter().cloned().map(Some).collect();
            let Some((topics, partitions, offsets)) = coordinates(batch.schema_ref(), &columns)? else {
                return Err(Error::bug(format!("rows of table `{}` have no offsets", self.table.name())));
            };
            let topics = topics.as_string_view();
            let mask: BooleanArray = (0..batch.num_rows())
                .map(|row| Some(keep(topics.value(row), partitions.value(row), offsets.value(row))))
                .collect();
            encoder.push(&(&filter_record_batch(&batch, &mask)?).into())?;
        }
        encoder.finish()
    }

    fn added(&self, file: &EncodedFile) -> AddedFile {
        let values = self.table.partition_column().map(|column| (column.to_owned(), file.value.clone()));
        AddedFile {
            path: "in memory".to_owned(),
            size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
            rows: i64::try_from(file.rows).ok(),
            partition_values: values.into_iter().collect(),
            data_change: true,
            stats: None,
        }
    }
}

type Coordinates<'a> = (&'a ArrayRef, &'a Int32Array, &'a Int64Array);

/// Returns true if a column of type `one` may be in a chunk for a column of the type `schema`.
fn alike(one: &DataType, schema: &DataType) -> bool {
    let fields = |one: &FieldRef, schema: &FieldRef| {
        one.name() == schema.name()
            && one.is_nullable() == schema.is_nullable()
            && alike(one.data_type(), schema.data_type())
    };
    match (one, schema) {
        (DataType::Utf8, DataType::Utf8View) => true,
        (DataType::Dictionary(key, value), DataType::Utf8View) => {
            **key == DataType::UInt32 && **value == DataType::Utf8
        }
        (DataType::List(one), DataType::List(schema)) => fields(one, schema),
        (DataType::Struct(one), DataType::Struct(schema)) => {
            one.len() == schema.len() && one.iter().zip(schema).all(|(one, schema)| fields(one, schema))
        }
        _ => one == schema,
    }
}

/// Replaces a dictionary column by a column with the text of each row, in the wanted type; returns any other column as it is.
fn unpacked(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    match column.as_dictionary_opt::<UInt32Type>() {
        Some(dictionary) => Ok(take(&cast(dictionary.values(), wanted)?, dictionary.keys(), None)?),
        None => Ok(ArrayRef::clone(column)),
    }
}

/// Returns the columns topic, partition and offset, or `None` if the table lacks them.
fn coordinates<'a>(schema: &Schema, columns: &'a [Option<ArrayRef>]) -> Result<Option<Coordinates<'a>>> {
    let column = |name: &str| schema.index_of(name).ok().and_then(|place| columns[place].as_ref());
    let (Some(topic), Some(partition), Some(offset)) = (column("topic"), column("partition"), column("offset")) else {
        return Ok(None);
    };
    let wrong = || Error::bug("Kafka coordinates do not have their types");
    Ok(Some((
        Some(topic).filter(|topic| alike(topic.data_type(), &DataType::Utf8View)).ok_or_else(wrong)?,
        partition.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?,
        offset.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?,
    )))
}

/// Returns the columns of a chunk for a reader in the same process. Columns without a value are kept by position and reused,
/// because most chunks have the same length, and a third of the columns has no value in most files.
fn handed_on(
    chunk: &Chunk,
    (schema, places): &(SchemaRef, Vec<usize>),
    without_value: &mut BTreeMap<usize, ArrayRef>,
) -> Result<RecordBatch> {
    let column = |(place, field): (&usize, &FieldRef)| match &chunk.columns[*place] {
        Some(column) => Ok(cast(&unpacked(column, field.data_type())?, field.data_type())?),
        None => {
            let kept = without_value.entry(*place).or_insert_with(|| absent(field, chunk.rows));
            if kept.len() < chunk.rows {
                *kept = absent(field, chunk.rows);
            }
            Ok(kept.slice(0, chunk.rows))
        }
    };
    let columns = places.iter().zip(schema.fields()).map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(SchemaRef::clone(schema), columns)?)
}

fn date_text(day: i32) -> Result<String> {
    let date = Date32Type::to_naive_date_opt(day)
        .ok_or_else(|| Error::bug(format!("day `{day}` of a partition column is not a date")))?;
    Ok(date.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
