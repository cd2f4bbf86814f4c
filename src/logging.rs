//! Logs: lowercase fragments with fields, on standard error, as text or JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Filter without RUST_LOG: info from this workspace, warnings from libraries.
const DEFAULT_FILTER: &str =
    "warn,bellwether=info,bellwether_ingest=info,bellwether_aggregate=info,bellwether_lake=info";

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `quiet` turns logs off unless RUST_LOG is set, for commands that own the terminal.
pub(crate) fn start(format: LogFormat, quiet: bool) {
    let fallback = if quiet { "off" } else { DEFAULT_FILTER };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    // A closed standard error must not stop the process: the library would try to report it there, and panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // The library refuses a second start (in tests); the first one stays.
    match format {
        LogFormat::Text => {
            drop(builder.with_ansi(std::io::stderr().is_terminal()).try_init());
        }
        LogFormat::Json => drop(builder.json().flatten_event(true).try_init()),
    }
}
