//! `bellwether sql`: runs one statement, several, or a saved question; or opens a prompt.

mod chart;
mod output;
mod pager;
mod prompt;
mod questions;
mod sink;
mod waiting;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, Session, SessionSettings, split};
use clap::Args;

use crate::budget::{self, Budget};
use crate::config::parse_bytes;
use crate::root::{RootArgs, open_to_read};
use crate::{exit, memory};

pub(crate) use output::Format;
use output::Written;
use sink::Sink;
use waiting::Waiting;

/// Smallest memory limit of a statement, bytes.
pub(crate) const LEAST_MEMORY: usize = 16 << 20;

/// Limits of each statement.
#[derive(Clone, Debug)]
pub(crate) struct SqlLimits {
    /// Memory, bytes.
    pub(crate) memory_bytes: usize,
    /// Time.
    pub(crate) timeout: Duration,
    /// Rows of the result.
    pub(crate) max_rows: u64,
}

impl Default for SqlLimits {
    fn default() -> Self {
        let memory_bytes = SessionSettings::default().memory_limit_bytes;
        Self { memory_bytes, timeout: Duration::from_secs(600), max_rows: 10_000_000 }
    }
}

// === impl SqlLimits ===

impl SqlLimits {
    /// Returns the limits of a process without a configuration.
    fn of_this_machine() -> Self {
        let memory_bytes = Budget::within(budget::usable_bytes()).statement();
        Self { memory_bytes, ..Self::default() }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether sql --root bellwether-data \"SELECT * FROM rolling WHERE span = '1h'\"
  bellwether sql --root s3://metrics/llm --format csv \"SELECT * FROM release_summary\" > releases.csv
  bellwether sql --root bellwether-data --format record \"SELECT * FROM runs LIMIT 1\"
  bellwether sql --root bellwether-data --output runs.parquet \"SELECT * FROM runs\"
  echo 'SELECT count(*) FROM events' | bellwether sql --root bellwether-data -
  bellwether sql --list                              list the saved questions
  bellwether sql --root bellwether-data --name weekly_quality_review --param task=refund_triage
  bellwether sql --root bellwether-data              open a prompt: \\? prints help, \\d lists tables

Tables are fitted to the terminal: long texts are cut, then columns are left out; --format record
shows everything. A statement that exceeds its time, memory or row limit prints the rows it has so
far and exits with 3.")]
pub(crate) struct SqlArgs {
    /// Statements, separated by `;`; - reads them from standard input; without any, a prompt opens.
    #[arg(value_name = "SQL")]
    query: Option<String>,
    #[command(flatten)]
    root: RootArgs,
    /// Read the statements from a file.
    #[arg(long, short, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,
    /// Ask a saved question.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["query", "file"])]
    name: Option<String>,
    /// Value of a parameter of the question; repeat for more.
    #[arg(long, value_name = "NAME=VALUE", requires = "name", value_parser = questions::pair)]
    param: Vec<(String, String)>,
    /// Folder with questions of your own, one file NAME.sql each.
    #[arg(long, value_name = "DIR", env = "BELLWETHER_QUESTIONS")]
    questions: Option<PathBuf>,
    /// List the saved questions with their parameters.
    #[arg(long, conflicts_with_all = ["query", "file", "name"])]
    list: bool,
    /// Output format [default: by the ending of --output, or table].
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write the result to a file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time limit per statement [default: queries.timeout, or 10m].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Row limit per statement [default: queries.max_rows, or 10000000].
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Memory limit per statement, such as 2GiB [default: queries.memory_bytes, or 512MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_limit: Option<usize>,
}

pub(crate) async fn run(args: SqlArgs) -> Result<ExitCode> {
    if args.list {
        return questions::list(args.questions.as_deref());
    }
    let question = match &args.name {
        Some(name) => Some(questions::named(name, args.questions.as_deref())?),
        None => None,
    };
    quiet_panics();
    let (lake, limits) = open(&args).await?;
    let memory_limit_bytes = args.memory_limit.unwrap_or(limits.memory_bytes);
    let engine = EngineSettings { memory_limit_bytes, gauge: Some(memory::GAUGE), ..EngineSettings::default() };
    let settings = SessionSettings {
        memory_limit_bytes,
        timeout: Some(args.timeout.unwrap_or(limits.timeout)),
        max_rows: Some(args.max_rows.unwrap_or(limits.max_rows)),
        ..SessionSettings::default()
    };
    let session = Engine::open(&lake, engine).await?.session(settings)?;
    let asked =
        question.map(|question| questions::sql(&question, &args.param, lake.clock().now_micros())).transpose()?;
    let text = match (&args.query, &args.file) {
        _ if asked.is_some() => asked,
        (Some(query), _) if query == "-" => Some(standard_input()?),
        (Some(query), _) => Some(query.clone()),
        (None, Some(file)) => Some(
            std::fs::read_to_string(file)
                .map_err(|source| Error::config(format!("cannot read `{}`", file.display())).with_source(source))?,
        ),
        (None, None) if !std::io::stdin().is_terminal() => Some(standard_input()?),
        (None, None) => None,
    };
    let ending = || args.output.as_deref().and_then(Format::of_file);
    let format = args.format.or_else(ending).unwrap_or_default();
    let Some(text) = text else {
        let clock = || lake.clock().now_micros();
        return Box::pin(prompt::run(&session, format, args.questions.as_deref(), &clock)).await;
    };
    let statements = split(&text)?;
    if statements.is_empty() {
        return Err(
            Error::config("no SQL statement given").with_hint("pass one in quotes, or none at all to open a prompt")
        );
    }
    if args.output.is_some() && statements.len() > 1 {
        return Err(Error::config(format!("--output takes one statement, not {}", statements.len()))
            .with_hint("run the statements one by one"));
    }
    for statement in &statements {
        let mut sink = args.output.clone().map_or(Sink::Stdout, Sink::New);
        let done = tokio::select! {
            biased;
            done = answer(&session, statement, format, &mut sink) => done,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(exit::INTERRUPTED)),
        };
        match done {
            Ok(written) => {
                if !written?.open {
                    break; // The pipe is closed, as by `head`.
                }
            }
            // An invalid statement is a failed query, not an invalid command line.
            Err(error) if error.kind() == ErrorKind::Config => {
                exit::report(&error);
                return Ok(ExitCode::from(exit::FAILED));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one statement and writes its answer. If that takes long, a line on the terminal says how far it is.
///
/// # Errors
/// As [`Session::execute`]; inside, as [`output::write`].
async fn answer(session: &Session, statement: &str, format: Format, sink: &mut Sink) -> Result<Result<Written>> {
    let waiting = Waiting::begin();
    let work = async {
        let answer = session.execute(statement).await?;
        waiting.runs(answer.progress.clone());
        Ok(output::write(answer, format, sink, &waiting).await)
    };
    tokio::select! {
        biased;
        done = work => done,
        never = waiting.show() => match never {},
    }
}

/// Silences panics of query threads: they end a statement with an error that says so, which is enough.
fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let query_thread = std::thread::current().name().is_some_and(|name| name.starts_with("tokio-"));
        if !query_thread || std::env::var_os("RUST_BACKTRACE").is_some() {
            loud(panic);
        }
    }));
}

async fn open(args: &SqlArgs) -> Result<(Lake, SqlLimits)> {
    let root = args.root.resolve()?;
    let limits = root.config.map_or_else(SqlLimits::of_this_machine, |config| config.queries);
    Ok((open_to_read(&root.uri, &root.options).await?, limits))
}

/// Parses a memory limit, in the notation of the configuration.
fn size(text: &str) -> std::result::Result<usize, String> {
    let bytes = parse_bytes(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes >= LEAST_MEMORY).ok_or_else(|| "give a size of at least 16MiB, such as 2GiB".to_owned())
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::config("cannot read standard input as text").with_source(source))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_default_limits() {
        let mut command = SqlArgs::augment_args(clap::Command::new("sql"));
        let help = command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let SqlLimits { memory_bytes, timeout, max_rows } = SqlLimits::default();
        for part in [
            format!("queries.memory_bytes, or {}MiB]", memory_bytes >> 20),
            format!("queries.timeout, or {}]", humantime::format_duration(timeout)),
            format!("queries.max_rows, or {max_rows}]"),
        ] {
            assert!(help.contains(&part), "`{part}` is missing in\n{help}");
        }
    }
}
