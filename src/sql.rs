//! `bellwether sql`: one statement, a file of them, or a prompt.

mod output;
mod prompt;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_lake::{Error, ErrorKind, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings, split};
use clap::Args;

use crate::config::Config;
use crate::exit;

pub(crate) use output::Format;

/// Longest one statement may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether sql --root bellwether-data \"SELECT * FROM rolling WHERE span = '1h'\"
  bellwether sql --root s3://metrics/llm --format csv \"SELECT * FROM release_summary\" > releases.csv
  bellwether sql --root bellwether-data --format parquet --output runs.parquet \"SELECT * FROM runs\"
  echo 'SELECT count(*) FROM events' | bellwether sql --root bellwether-data -
  bellwether sql --root bellwether-data              a prompt: \\? helps, \\d lists tables, \\functions functions")]
pub(crate) struct SqlArgs {
    /// Statements, separated by `;`; - reads them from standard input; none opens a prompt.
    #[arg(value_name = "SQL")]
    query: Option<String>,
    /// Root of the tables: a folder or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
    /// Configuration that names the root instead.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", conflicts_with = "root")]
    config: Option<PathBuf>,
    /// Statements from a file.
    #[arg(long, short, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Format,
    /// Write the answer to a file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Longest a statement may take.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

pub(crate) async fn run(args: SqlArgs) -> Result<ExitCode> {
    let (lake, memory_limit_bytes) = open(&args).await?;
    let settings = SessionSettings {
        memory_limit_bytes,
        timeout: Some(args.timeout.unwrap_or(TIMEOUT)),
        ..SessionSettings::default()
    };
    let session = Session::open(&lake, settings).await?;
    let text = match (&args.query, &args.file) {
        (Some(query), _) if query == "-" => Some(standard_input()?),
        (Some(query), _) => Some(query.clone()),
        (None, Some(file)) => Some(
            std::fs::read_to_string(file)
                .map_err(|source| Error::config(format!("`{}` cannot be read", file.display())).with_source(source))?,
        ),
        (None, None) if !std::io::stdin().is_terminal() => Some(standard_input()?),
        (None, None) => None,
    };
    let Some(text) = text else { return prompt::run(&session, args.format).await };
    let statements = split(&text)?;
    if statements.is_empty() {
        return Err(
            Error::config("there is no statement").with_hint("write one in quotes, or leave it out for a prompt")
        );
    }
    if args.output.is_some() && statements.len() > 1 {
        return Err(Error::config(format!("{} statements cannot go into one file", statements.len()))
            .with_hint("run them one by one"));
    }
    for statement in &statements {
        let answer = match session.execute(statement).await {
            Ok(answer) => answer,
            // A statement that is wrong is an answer of no, not a wrong command line.
            Err(error) if error.kind() == ErrorKind::Config => {
                exit::report(&error);
                return Ok(ExitCode::from(exit::NO));
            }
            Err(error) => return Err(error),
        };
        if !output::write(answer, args.format, args.output.as_deref()).await? {
            break; // The reader has left, as `head` does.
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(args: &SqlArgs) -> Result<(Lake, usize)> {
    let default = SessionSettings::default().memory_limit_bytes;
    let (root, options, memory) = match (&args.root, &args.config) {
        (Some(root), _) => (root.clone(), StorageOptions::default(), default),
        (None, Some(file)) => {
            let config = Config::load(file)?;
            (config.tables.root, StorageOptions(config.tables.options), config.queries.memory_bytes)
        }
        (None, None) => {
            return Err(Error::config("nothing says where the tables are")
                .with_hint("add --root DIR, or --config FILE, or set BELLWETHER_ROOT"));
        }
    };
    // Asking must not make tables where there are none.
    if !root.contains("://") && !PathBuf::from(&root).join("events").is_dir() {
        return Err(Error::config(format!("there are no tables under `{root}`"))
            .with_hint("name the root that `bellwether run` or `bellwether demo` printed"));
    }
    Ok((Lake::open_to_read(&root, &options).await?, memory))
}

/// Writes an answer as a table for people.
pub(crate) async fn write_table(answer: bellwether_queries::Answer) -> Result<()> {
    output::write(answer, Format::Table, None).await.map(|_| ())
}

/// The first row of an answer, a column a line; columns without a value are left out.
pub(crate) fn vertical(batches: &[RecordBatch]) -> Result<String> {
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(String::new()) };
    let options = FormatOptions::default();
    let mut lines = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.is_valid(0) {
            let value = ArrayFormatter::try_new(column.as_ref(), &options)?.value(0).to_string();
            // A text of several lines stays readable below its name.
            let value = value.replace('\n', "\n                      ");
            lines.push(format!("  {:<20}{value}", field.name()));
        }
    }
    Ok(lines.join("\n"))
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::config("standard input is not readable text").with_source(source))?;
    Ok(text)
}
