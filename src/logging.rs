//! Logs: lowercase fragments with fields, on standard error, as text or JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// What is logged where RUST_LOG says nothing: our own progress, and what goes wrong elsewhere.
const DEFAULT_FILTER: &str =
    "warn,bellwether=info,bellwether_ingest=info,bellwether_aggregate=info,bellwether_lake=info";

/// Form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; `quiet` shows only errors, for commands that own the terminal.
pub(crate) fn start(format: LogFormat, quiet: bool) {
    let fallback = if quiet { "off" } else { DEFAULT_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    // A log that nobody reads any more is no reason to stop: the library would report it on standard error, and panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // A second start (in tests) is refused by the library and changes nothing.
    match format {
        LogFormat::Text => {
            drop(builder.with_ansi(std::io::stderr().is_terminal()).try_init());
        }
        LogFormat::Json => drop(builder.json().flatten_event(true).try_init()),
    }
}
