//! Output formats: tables and records for people; those of [`Encoder`] for programs.
//!
//! Tables are fitted to the terminal by cutting texts and leaving out columns; records show everything. The formats for
//! programs are written as rows arrive, so that results may be larger than memory.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_base::{Error, Result};
use bellwether_queries::Answer;
use bellwether_serve::{EncodeError, Encoder, Format as ForPrograms};
use bellwether_stats::figure;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use futures::StreamExt;

use super::sink::{Clearing, Sink};
use super::waiting::Waiting;
use crate::screen::{self, Value};

/// Most rows that a table or records show.
const TABLE_ROWS: usize = 1000;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people, fitted to the terminal.
    #[default]
    Table,
    /// One column per line for people; nothing is cut.
    Record,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// Stream of Arrow's interprocess communication; needs --output or a pipe.
    Arrow,
    /// Apache Parquet; needs --output or a pipe.
    Parquet,
}

// === impl Format ===

impl Format {
    /// Returns the format of a file, by the ending of its name.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_lowercase().as_str() {
            "csv" => Self::Csv,
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "arrow" | "arrows" => Self::Arrow,
            "parquet" => Self::Parquet,
            _ => return None,
        })
    }

    /// Returns the name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Record => "record",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Returns true if a file can hold one result only: a second one behind it could not be read.
    pub(crate) fn holds_one(self) -> bool {
        matches!(self, Self::Csv | Self::Json | Self::Arrow | Self::Parquet)
    }

    /// Returns true if people can read it on a screen.
    pub(crate) fn is_text(self) -> bool {
        !matches!(self, Self::Arrow | Self::Parquet)
    }
}

/// A result that was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// False if the reader of the pipe has gone, as `head` does.
    pub(super) open: bool,
    /// Number of its rows.
    pub(super) rows: usize,
    /// The rows, if a person has seen all of them.
    pub(super) kept: Option<Kept>,
}

/// The rows of a result.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
}

/// Writes a result.
///
/// # Errors
/// As the rows; `Config` for a binary format on a terminal, or a file that cannot be created; `Unavailable` if the sink cannot be
/// written.
pub(super) async fn write(answer: Answer, format: Format, sink: &mut Sink, waiting: &Waiting) -> Result<Written> {
    let (terminal, width) = (sink.is_terminal(), sink.width());
    let binary = match format {
        Format::Parquet => Some("Parquet"),
        Format::Arrow => Some("Arrow"),
        _ => None,
    };
    if let Some(name) = binary.filter(|_| terminal) {
        return Err(Error::config(format!("refusing to write {name} to a terminal")).with_hint("add --output FILE"));
    }
    sink.open()?;
    let mut target = BufWriter::new(Clearing::new(sink, waiting));
    let done = match format {
        Format::Table => table(answer, &mut target, width).await,
        Format::Record => records(answer, &mut target, width).await,
        Format::Csv => encoded(answer, ForPrograms::Csv, &mut target, waiting).await,
        Format::Json => encoded(answer, ForPrograms::Json, &mut target, waiting).await,
        Format::Ndjson => encoded(answer, ForPrograms::Ndjson, &mut target, waiting).await,
        Format::Arrow => encoded(answer, ForPrograms::Arrow, &mut target, waiting).await,
        Format::Parquet => encoded(answer, ForPrograms::Parquet, &mut target, waiting).await,
    };
    let flushed = target.flush();
    drop(target);
    // Rows that were written before an error stay, and the pager is left first.
    let finished = sink.finish();
    let done = done.and_then(|written| {
        flushed?;
        finished?;
        Ok(written)
    });
    match done {
        Ok(written) => Ok(written),
        Err(Failed::Pipe) => Ok(Written::default()),
        Err(Failed::Other(error)) => Err(error),
    }
}

/// Why writing stopped. A closed pipe is not an error.
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
        Self::Other(Error::unavailable("cannot write the result").with_source(source))
    }
}

impl From<arrow::error::ArrowError> for Failed {
    fn from(source: arrow::error::ArrowError) -> Self {
        match source {
            arrow::error::ArrowError::IoError(_, source) => source.into(),
            other if other.to_string().contains("Broken pipe") => Self::Pipe,
            other => Self::Other(Error::bug("cannot write the result in this format").with_source(other)),
        }
    }
}

impl From<EncodeError> for Failed {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(source) => source.into(),
            EncodeError::Other(error) => Self::Other(error),
        }
    }
}

type Done = Result<Written, Failed>;

/// Writes rows as they arrive.
async fn encoded(mut answer: Answer, format: ForPrograms, target: &mut (impl Write + Send), waiting: &Waiting) -> Done {
    let mut encoder = Encoder::new(format, Arc::clone(&answer.schema), target)?;
    let mut rows = 0;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        encoder.write(&batch)?;
        rows += batch.num_rows();
        waiting.wrote(batch.num_rows());
        // Rows may come without a pause, in which neither Ctrl-C nor the line of progress would get their turn.
        tokio::task::yield_now().await;
    }
    encoder.finish()?;
    Ok(Written { open: true, rows, kept: None })
}

async fn table(answer: Answer, target: &mut (impl Write + Send), width: Option<usize>) -> Done {
    let shown = Shown::of(answer).await?;
    let (headers, values) = (shown.headers(), values(&shown.batches, shown.rows)?);
    let mut notes = vec![row_count(shown.rows)];
    if shown.cut {
        notes.push("and more: add LIMIT or choose another --format".to_owned());
    }
    let text = match width {
        None => plain_table(&headers, values),
        Some(width) => {
            let values: Vec<Vec<Value>> =
                values.into_iter().map(|row| row.into_iter().map(for_screen).collect()).collect();
            let fitted = screen::table(&headers, &values, width);
            if fitted.left_out > 0 && shown.rows == 1 {
                record(&headers, &values, Some(width))
            } else {
                if fitted.left_out > 0 {
                    let shown = headers.len() - fitted.left_out;
                    notes.push(format!(
                        "{shown} of {} columns shown: --format record, or \\x in the prompt, shows all",
                        headers.len()
                    ));
                }
                fitted.text
            }
        }
    };
    writeln!(target, "{text}\n({})", notes.join(", "))?;
    Ok(shown.written())
}

async fn records(answer: Answer, target: &mut (impl Write + Send), width: Option<usize>) -> Done {
    let shown = Shown::of(answer).await?;
    let text = record(&shown.headers(), &values(&shown.batches, shown.rows)?, width);
    let more = if shown.cut { ", and more: add LIMIT or choose another --format" } else { "" };
    writeln!(target, "{text}\n({}{more})", row_count(shown.rows))?;
    Ok(shown.written())
}

/// The first rows of a result.
struct Shown {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Number of the rows to show.
    rows: usize,
    /// True if there are more.
    cut: bool,
}

// === impl Shown ===

impl Shown {
    async fn of(mut answer: Answer) -> Result<Self, Failed> {
        let mut batches = Vec::new();
        let mut rows = 0;
        while rows <= TABLE_ROWS {
            let Some(batch) = answer.batches.next().await else { break };
            let batch = batch?;
            rows += batch.num_rows();
            batches.push(batch);
        }
        Ok(Self { schema: answer.schema, batches, rows: rows.min(TABLE_ROWS), cut: rows > TABLE_ROWS })
    }

    fn headers(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn written(self) -> Written {
        let kept = (!self.cut).then_some(Kept { schema: self.schema, batches: self.batches });
        Written { open: true, rows: self.rows, kept }
    }
}

fn row_count(rows: usize) -> String {
    format!("{rows} {}", if rows == 1 { "row" } else { "rows" })
}

/// Returns the values of the first `most` rows as text.
fn values(batches: &[RecordBatch], most: usize) -> Result<Vec<Vec<Value>>, Failed> {
    let options = FormatOptions::new().with_display_error(true).with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let mut rows = Vec::new();
    for batch in batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows().min(most - rows.len()) {
            let cells = formatters.iter().zip(batch.columns());
            rows.push(cells.map(|(formatter, column)| value(formatter, column, row)).collect());
        }
    }
    Ok(rows)
}

/// Returns a table of any width, with numbers aligned to the right and nulls visible.
fn plain_table(headers: &[String], rows: Vec<Vec<Value>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers);
    for row in rows {
        table.add_row(row.into_iter().map(|value| {
            Cell::new(value.text).set_alignment(if value.right { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    table.to_string()
}

/// Returns rows with one column per line; nothing is cut.
fn record(headers: &[String], rows: &[Vec<Value>], width: Option<usize>) -> String {
    let mut lines = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        if rows.len() > 1 {
            lines.push(format!("row {}", place + 1));
        }
        let pairs = headers.iter().map(String::as_str).zip(row.iter().map(|value| value.text.clone()));
        lines.push(screen::pairs(pairs, width));
    }
    lines.join("\n")
}

/// Puts a value on one line, without control characters.
fn for_screen(mut value: Value) -> Value {
    value.text = screen::one_line(&value.text);
    value
}

fn value(formatter: &ArrayFormatter<'_>, column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value { text: "∅".to_owned(), whole: true, right: true };
    }
    let kind = column.data_type();
    let text = match kind {
        DataType::Float64 => figure::number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => figure::number(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => {
            format!("{} bytes", formatter.value(row).to_string().len() / 2)
        }
        _ => formatter.value(row).to_string(),
    };
    let text_like = match kind {
        DataType::Dictionary(_, value) => value.is_string(),
        other => other.is_string() || other.is_nested(),
    };
    Value { text, whole: !text_like, right: kind.is_numeric() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::compute::cast;
    use arrow::datatypes::{IntervalMonthDayNano, TimeUnit};
    use proptest::prelude::*;

    fn shown(column: ArrayRef) -> Vec<String> {
        let batch = RecordBatch::try_from_iter([("a", column)]).expect("a batch");
        let rows = values(std::slice::from_ref(&batch), batch.num_rows()).ok().expect("can be shown");
        rows.into_iter().map(|mut row| row.remove(0).text).collect()
    }

    /// The text of a value, cast back to its type, equals the value.
    fn reads_back(column: ArrayRef) {
        let texts: ArrayRef = Arc::new(StringArray::from(shown(Arc::clone(&column))));
        let back = cast(&texts, column.data_type()).expect("reads");
        assert_eq!(&back, &column, "{texts:?}");
    }

    proptest! {
        #[test]
        fn whole_numbers_decimals_and_times_read_back_unchanged(
            whole in any::<i64>(), small in any::<i32>(), large in any::<u64>(), decimal in -10_i128.pow(37)..10_i128.pow(37),
            micros in -62_135_596_800_000_000_i64..253_402_300_799_000_000, day in -700_000_i32..2_900_000, scale in 0_i8..38,
        ) {
            reads_back(Arc::new(Int64Array::from(vec![whole, 0, -1])));
            reads_back(Arc::new(Int32Array::from(vec![small])));
            reads_back(Arc::new(UInt64Array::from(vec![large])));
            let decimals = Decimal128Array::from(vec![decimal, 0, -100]).with_precision_and_scale(38, scale);
            reads_back(Arc::new(decimals.expect("fits")));
            let times = [micros, micros / 1_000 * 1_000, micros / 1_000_000 * 1_000_000];
            reads_back(Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")));
            reads_back(Arc::new(TimestampMicrosecondArray::from(times.to_vec())));
            reads_back(Arc::new(Date32Array::from(vec![day])));
            reads_back(Arc::new(Time64MicrosecondArray::from(vec![micros.rem_euclid(86_400_000_000)])));
        }

        #[test]
        fn floats_read_back_within_the_digits_shown(single in any::<f32>(), double in any::<f64>()) {
            let near = |text: &str, value: f64| {
                let parsed: f64 = text.parse().expect("a number");
                parsed == value || parsed.is_nan() && value.is_nan() || (parsed - value).abs() <= (value.abs() * 5e-6).max(1e-322)
            };
            let text = shown(Arc::new(Float64Array::from(vec![double])));
            prop_assert!(near(&text[0], double), "{double:e} is shown as {}", text[0]);
            let text = shown(Arc::new(Float32Array::from(vec![single])));
            prop_assert!(near(&text[0], f64::from(single)), "{single:e} is shown as {}", text[0]);
        }

        #[test]
        fn intervals_read_back_unchanged(months in -2000_i32..2000, days in -5000_i32..5000, nanos in -10_i64.pow(15)..10_i64.pow(15)) {
            // The interval parser applies one sign to the whole time part.
            let interval = IntervalMonthDayNano::new(months, days, nanos / 1_000_000_000 * 1_000_000_000);
            reads_back(Arc::new(IntervalMonthDayNanoArray::from(vec![interval])));
        }
    }

    #[test]
    fn numbers_times_nulls_and_bytes_are_shown_without_loss() {
        let column = Float64Array::from(vec![999_999.7, 250_000.2, 100.0, 0.1, f64::NAN, -0.0]);
        assert_eq!(shown(Arc::new(column)), ["999999.7", "250000.2", "100", "0.1", "NaN", "-0"]);
        let time =
            TimestampMicrosecondArray::from(vec![1_700_000_000_123_456, 1_700_000_000_000_000]).with_timezone("UTC");
        assert_eq!(shown(Arc::new(time)), ["2023-11-14 22:13:20.123456", "2023-11-14 22:13:20"]);
        let unit = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let time =
            cast(&(Arc::new(Int64Array::from(vec![1_700_000_000_000_000_001])) as ArrayRef), &unit).expect("a time");
        assert_eq!(shown(time), ["2023-11-14 22:13:20.000000001"]);
        assert_eq!(shown(Arc::new(StringArray::from(vec![None, Some("a")]))), ["∅", "a"]);
        assert_eq!(shown(Arc::new(BinaryArray::from(vec![b"abc".as_slice()]))), ["3 bytes"]);
    }

    #[test]
    fn records_show_one_column_per_line_and_cut_nothing() {
        let headers = ["id", "text"].map(str::to_owned);
        let value = |text: &str| Value { text: text.to_owned(), ..Value::default() };
        let rows = vec![vec![value("1"), value("a\nb")], vec![value("2"), value(&"word ".repeat(6))]];
        assert_eq!(
            record(&headers, &rows, Some(24)),
            "row 1\n  id    1\n  text  a\n        b\nrow 2\n  id    2\n  text  word word word\n        word word word"
        );
    }
}
