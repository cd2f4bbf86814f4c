//! `bellwether sql`: one statement, a file of them, or a prompt.

mod output;
mod prompt;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_lake::{Error, ErrorKind, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings, split};
use clap::Args;

use crate::config::{Config, Queries, parse_bytes};
use crate::{exit, memory};

pub(crate) use output::Format;

/// Memory with which a statement can do anything, as in the configuration.
const LEAST_MEMORY: usize = 16 << 20;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether sql --root bellwether-data \"SELECT * FROM rolling WHERE span = '1h'\"
  bellwether sql --root s3://metrics/llm --format csv \"SELECT * FROM release_summary\" > releases.csv
  bellwether sql --root bellwether-data --format record \"SELECT * FROM runs LIMIT 1\"
  bellwether sql --root bellwether-data --format parquet --output runs.parquet \"SELECT * FROM runs\"
  echo 'SELECT count(*) FROM events' | bellwether sql --root bellwether-data -
  bellwether sql --root bellwether-data              a prompt: \\? helps, \\d lists tables, \\x shows records

A table on a terminal is no wider than it: long texts are cut, then columns are left out; --format record shows all. A
statement that reaches its time, memory or rows ends with 3; the rows that were there by then are printed.")]
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
    /// Longest a statement may take [default: [queries].timeout, 10m].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Rows that an answer may have [default: [queries].max_rows, 10000000].
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Memory that a statement may hold, such as 2GiB [default: [queries].memory_bytes, 512MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_limit: Option<usize>,
}

pub(crate) async fn run(args: SqlArgs) -> Result<ExitCode> {
    quiet_panics();
    let (lake, limits) = open(&args).await?;
    let settings = SessionSettings {
        memory_limit_bytes: args.memory_limit.unwrap_or(limits.memory_bytes),
        timeout: Some(args.timeout.unwrap_or(limits.timeout)),
        max_rows: Some(args.max_rows.unwrap_or(limits.max_rows)),
        gauge: Some(memory::GAUGE),
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

/// A panic within the engine ends a statement, whose error says so; it is not told twice.
fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_a_statement = std::thread::current().name().is_some_and(|name| name.starts_with("tokio-"));
        if !of_a_statement || std::env::var_os("RUST_BACKTRACE").is_some() {
            loud(panic);
        }
    }));
}

async fn open(args: &SqlArgs) -> Result<(Lake, Queries)> {
    let (root, options, limits) = match (&args.root, &args.config) {
        (Some(root), _) => (root.clone(), StorageOptions::default(), Queries::default()),
        (None, Some(file)) => {
            let config = Config::load(file)?;
            (config.tables.root, StorageOptions(config.tables.options), config.queries)
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
    Ok((Lake::open_to_read(&root, &options).await?, limits))
}

/// A size as configuration files have it, large enough to do anything with.
fn size(text: &str) -> std::result::Result<usize, String> {
    let bytes = parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes >= LEAST_MEMORY).ok_or_else(|| "write a size of 16MiB or more, such as 2GiB".to_owned())
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::config("standard input is not readable text").with_source(source))?;
    Ok(text)
}
