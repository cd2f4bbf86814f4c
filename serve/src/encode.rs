//! The forms in which programs read an answer: CSV, JSON, NDJSON, Arrow and Parquet.
//!
//! Rows are written as they arrive, so that an answer may be larger than memory.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::csv::Writer as CsvWriter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, Writer as JsonWriter};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_base::Error;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// Most memory of a row group of Parquet that is being written, bytes.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Level of compression of Parquet: higher ones take far more time for little less space.
const PARQUET_LEVEL: i32 = 3;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Comma-separated values with a header; nested values as text.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// The streaming format of Arrow's interprocess communication.
    Arrow,
    /// Apache Parquet.
    Parquet,
}

/// A failure to write rows.
#[derive(Debug)]
pub enum EncodeError {
    /// The target cannot be written.
    Io(io::Error),
    /// The rows cannot be written in this form.
    Other(Error),
}

/// Writes rows in one form.
pub struct Encoder<W: Write + Send>(Writer<W>);

enum Writer<W: Write + Send> {
    Csv { writer: Box<CsvWriter<W>>, schema: Option<SchemaRef> },
    Json(JsonWriter<W, JsonArray>),
    Ndjson(JsonWriter<W, LineDelimited>),
    Arrow(StreamWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

// === impl Format ===

impl Format {
    /// All forms.
    pub const ALL: [Self; 5] = [Self::Json, Self::Csv, Self::Ndjson, Self::Arrow, Self::Parquet];

    /// Returns the name, as in `?format=csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

// === impl EncodeError ===

impl From<io::Error> for EncodeError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<ArrowError> for EncodeError {
    fn from(source: ArrowError) -> Self {
        match source {
            ArrowError::IoError(_, source) => Self::Io(source),
            // The writer of CSV reports a closed pipe as text.
            other if other.to_string().contains("Broken pipe") => Self::Io(io::ErrorKind::BrokenPipe.into()),
            other => Self::Other(Error::config("the rows cannot be written in this format").with_source(other)),
        }
    }
}

impl From<ParquetError> for EncodeError {
    fn from(source: ParquetError) -> Self {
        Self::Other(Error::unavailable("the rows cannot be written as Parquet").with_source(source))
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(source) => Self::unavailable("the rows cannot be written").with_source(source),
            EncodeError::Other(error) => error,
        }
    }
}

// === impl Encoder ===

impl<W: Write + Send> Encoder<W> {
    /// Begins to write rows of these columns.
    ///
    /// # Errors
    /// If the target cannot be written, or the form has no place for a column's type.
    pub fn new(format: Format, schema: SchemaRef, target: W) -> Result<Self, EncodeError> {
        let json = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        Ok(Self(match format {
            Format::Csv => {
                let writer = arrow::csv::WriterBuilder::new().with_header(true).build(target);
                Writer::Csv { writer: Box::new(writer), schema: Some(schema) }
            }
            Format::Json => Writer::Json(json.build(target)),
            Format::Ndjson => Writer::Ndjson(json.build(target)),
            Format::Arrow => Writer::Arrow(StreamWriter::try_new(target, &schema)?),
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::try_new(PARQUET_LEVEL)?);
                let properties = WriterProperties::builder().set_compression(compression).build();
                Writer::Parquet(Box::new(ArrowWriter::try_new(target, schema, Some(properties))?))
            }
        }))
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        match &mut self.0 {
            Writer::Csv { writer, schema } => {
                writer.write(&flat(batch)?)?;
                *schema = None;
            }
            Writer::Json(writer) => writer.write(batch)?,
            Writer::Ndjson(writer) => writer.write(batch)?,
            Writer::Arrow(writer) => writer.write(batch)?,
            Writer::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Ends the answer. Without rows, its columns are written all the same.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn finish(self) -> Result<(), EncodeError> {
        match self.0 {
            Writer::Csv { mut writer, schema } => {
                if let Some(schema) = schema {
                    writer.write(&flat(&RecordBatch::new_empty(schema))?)?;
                }
            }
            Writer::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner().write_all(b"\n")?;
            }
            Writer::Ndjson(mut writer) => writer.finish()?,
            Writer::Arrow(mut writer) => writer.finish()?,
            Writer::Parquet(writer) => {
                writer.close()?;
            }
        }
        Ok(())
    }
}

/// Replaces nested columns, which CSV cannot hold, by their text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !column.data_type().is_nested() {
            fields.push(field.as_ref().clone());
            columns.push(ArrayRef::clone(column));
            continue;
        }
        let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())?;
        let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}
