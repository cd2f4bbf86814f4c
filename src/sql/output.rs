//! Forms of an answer: a table for people; csv, json, ndjson and parquet for programs.
//!
//! All but the table and json are written as rows come, so that an answer of any size fits.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_lake::{Error, Result};
use bellwether_queries::Answer;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// Rows of a table that are shown at most: more than anybody reads, and bounded.
const TABLE_ROWS: usize = 1000;

/// Characters of a cell that are shown on a terminal.
const CELL_CHARACTERS: usize = 60;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet; needs --output, or a pipe.
    Parquet,
}

/// Writes an answer; false where the reader has left.
pub(crate) async fn write(answer: Answer, format: Format, file: Option<&Path>) -> Result<bool> {
    let terminal = file.is_none() && io::stdout().is_terminal();
    if format == Format::Parquet && terminal {
        return Err(Error::config("Parquet is nothing for a terminal").with_hint("add --output FILE"));
    }
    let target: Box<dyn Write + Send> =
        match file {
            Some(path) => Box::new(File::create(path).map_err(|source| {
                Error::config(format!("`{}` cannot be written", path.display())).with_source(source)
            })?),
            None => Box::new(io::stdout()),
        };
    let mut target = BufWriter::new(target);
    let done = match format {
        Format::Table => table(answer, &mut target, terminal).await,
        Format::Csv => csv(answer, &mut target).await,
        Format::Json => json(answer, &mut target).await,
        Format::Ndjson => ndjson(answer, &mut target).await,
        Format::Parquet => columns(answer, &mut target).await,
    };
    match done.and_then(|()| target.flush().map_err(Failed::from)) {
        Ok(()) => Ok(true),
        Err(Failed::Pipe) => Ok(false),
        Err(Failed::Other(error)) => Err(error),
    }
}

/// A reader that leaves early is no error.
enum Failed {
    Pipe,
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failed {
    fn from(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::Other(Error::unavailable("the answer cannot be written").with_source(source))
    }
}

impl From<arrow::error::ArrowError> for Failed {
    fn from(source: arrow::error::ArrowError) -> Self {
        match source {
            arrow::error::ArrowError::IoError(_, source) => source.into(),
            other if other.to_string().contains("Broken pipe") => Self::Pipe,
            other => Self::Other(Error::bug("the answer cannot be written in this form").with_source(other)),
        }
    }
}

impl From<parquet::errors::ParquetError> for Failed {
    fn from(source: parquet::errors::ParquetError) -> Self {
        Self::Other(Error::unavailable("the answer cannot be written as Parquet").with_source(source))
    }
}

type Written = Result<(), Failed>;

async fn csv(mut answer: Answer, target: &mut (impl Write + Send)) -> Written {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(target);
    let mut empty = true;
    while let Some(batch) = answer.batches.next().await {
        writer.write(&flat(&batch?)?)?;
        empty = false;
    }
    if empty {
        writer.write(&flat(&RecordBatch::new_empty(answer.schema))?)?;
    }
    Ok(())
}

async fn json(mut answer: Answer, target: &mut (impl Write + Send)) -> Written {
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *target);
    while let Some(batch) = answer.batches.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    drop(writer);
    writeln!(target)?;
    Ok(())
}

async fn ndjson(mut answer: Answer, target: &mut (impl Write + Send)) -> Written {
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(target);
    while let Some(batch) = answer.batches.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    Ok(())
}

async fn columns(mut answer: Answer, target: &mut (impl Write + Send)) -> Written {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::try_new(3)?)).build();
    let mut writer = ArrowWriter::try_new(target, answer.schema, Some(properties))?;
    while let Some(batch) = answer.batches.next().await {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}

/// Columns that csv cannot hold, as the text that a table shows of them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, Failed> {
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
        fields.push(arrow::datatypes::Field::new(field.name(), DataType::Utf8, true));
        columns.push(std::sync::Arc::new(texts.collect::<arrow::array::StringArray>()));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

async fn table(mut answer: Answer, target: &mut (impl Write + Send), terminal: bool) -> Written {
    let mut batches = Vec::new();
    let mut rows = 0;
    while rows <= TABLE_ROWS {
        let Some(batch) = answer.batches.next().await else { break };
        let batch = batch?;
        rows += batch.num_rows();
        batches.push(batch);
    }
    let cut = rows > TABLE_ROWS;
    let text = render(&answer.schema, &batches, terminal)?;
    writeln!(target, "{text}")?;
    let shown = rows.min(TABLE_ROWS);
    let note = if cut { ", and more: add LIMIT, or another --format" } else { "" };
    writeln!(target, "({shown} {}{note})", if shown == 1 { "row" } else { "rows" })?;
    Ok(())
}

/// A table for people: numbers to the right, nulls visible, long texts shortened on a terminal.
pub(crate) fn render(schema: &arrow::datatypes::Schema, batches: &[RecordBatch], terminal: bool) -> Result<String> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(if terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
    table.set_header(schema.fields().iter().map(|field| Cell::new(field.name())));
    let options = FormatOptions::new().with_display_error(true).with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.3f"));
    let mut left = TABLE_ROWS;
    for batch in batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows().min(left) {
            table.add_row(
                formatters
                    .iter()
                    .zip(batch.columns())
                    .map(|(formatter, column)| cell(formatter, column, row, terminal)),
            );
        }
        left = left.saturating_sub(batch.num_rows());
    }
    Ok(table.to_string())
}

fn cell(formatter: &ArrayFormatter<'_>, column: &ArrayRef, row: usize, terminal: bool) -> Cell {
    if column.is_null(row) {
        return Cell::new("∅").set_alignment(CellAlignment::Right);
    }
    let text = match column.data_type() {
        DataType::Float64 => float(column.as_primitive::<arrow::datatypes::Float64Type>().value(row)),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => {
            format!("{} bytes", formatter.value(row).to_string().len() / 2)
        }
        _ => formatter.value(row).to_string(),
    };
    let numeric = column.data_type().is_numeric();
    let long = terminal && text.chars().count() > CELL_CHARACTERS;
    let text = if long { format!("{}…", text.chars().take(CELL_CHARACTERS).collect::<String>()) } else { text };
    Cell::new(text).set_alignment(if numeric { CellAlignment::Right } else { CellAlignment::Left })
}

/// A number with as many digits as say something: six that count.
fn float(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = (5 - value.abs().log10().floor().clamp(-12.0, 5.0) as i32).max(0);
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(6));
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_the_digits_that_say_something() {
        assert_eq!(float(0.123_456_789), "0.123457");
        assert_eq!(float(1234.5), "1234.5");
        assert_eq!(float(3.0), "3");
        assert_eq!(float(0.000_012_345_678), "0.0000123457");
    }
}
