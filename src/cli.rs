//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::logging::LogFormat;
use crate::{alerts, audit, exit, rules, sql};

/// Production monitoring for LLM applications: run events from Kafka into exactly-once tables, rolling metrics, SQL, alerts.
#[derive(Parser, Debug)]
#[command(
    name = "bellwether",
    version,
    propagate_version = true,
    after_help = "Examples:
  bellwether demo                                   see it work, nothing else needed
  bellwether config reference > bellwether.toml     a configuration to start from
  bellwether check config bellwether.toml --connect
  bellwether run --config bellwether.toml
  bellwether sql --root bellwether-data \"SELECT * FROM rolling\"",
    after_long_help = exit::HELP
)]
pub(crate) struct Cli {
    /// Form of the logs; RUST_LOG says which.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Runs all roles in one process: ingest, aggregate and watch.
    #[command(after_help = "Examples:
  bellwether run --config bellwether.toml
  bellwether run --config bellwether.toml --until-caught-up    process what is there, then exit 0")]
    Run(RoleArgs),
    /// Runs ingest alone: Kafka into the tables.
    Ingest(RoleArgs),
    /// Runs aggregate alone: events into metrics.
    Aggregate(RoleArgs),
    /// Runs watch alone: rules over the tables, and alerts.
    Watch(RoleArgs),
    /// Alerts: what fires, and why.
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// Rules: what is watched, whether it can be, and what it would have fired.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Makes everything that is computed from events anew, and puts it in place in one step.
    #[command(after_help = "Examples:
  bellwether rebuild --config bellwether.toml     also beside a working pipeline, and after [aggregate].shards was changed

Readers and a working aggregator go on with the old until the new is there, whole. One that is stopped or killed has
changed nothing; start it again. `rolling_history` is a record of what was known, and stays.")]
    Rebuild(RebuildArgs),
    /// Asks the tables in SQL; without a query, opens a prompt.
    Sql(sql::SqlArgs),
    /// Proves that the tables lose and double nothing.
    Audit(audit::AuditArgs),
    /// Prints the JSON Schema of run events.
    Schema,
    /// Checks events or a configuration.
    #[command(subcommand)]
    Check(Check),
    /// Sends recorded events to Kafka or straight into the tables.
    #[command(after_help = "Examples:
  bellwether replay runs.ndjson.zst --to tables --config bellwether.toml
  bellwether replay runs.ndjson --to kafka --config bellwether.toml --rate 500
  cat runs.ndjson | bellwether replay - --to kafka --config bellwether.toml --speed 60 --shift-to-now

The last line says how many events were accepted and rejected. Exit code 0: all were accepted; 1: some were rejected.")]
    Replay(ReplayArgs),
    /// Shows it all with an embedded broker and three simulated apps.
    #[command(after_help = "Examples:
  bellwether demo                 live summary; q leaves
  bellwether demo --headless      a bounded scenario that prints its tables and exits")]
    Demo(DemoArgs),
    /// About the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints generated reference pages.
    #[command(subcommand, hide = true)]
    Reference(Reference),
}

#[derive(Args, Debug)]
pub(crate) struct RoleArgs {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: PathBuf,
    /// Process what is there now, commit, and exit 0.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RebuildArgs {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Check {
    /// Says every problem of each event, with its JSON pointer and what to do.
    #[command(after_help = "Examples:
  bellwether check event runs.ndjson more.ndjson.gz
  echo '{\"spec\":\"run-event/1.0\"}' | bellwether check event -

Events are read and judged as `replay --to tables` and ingest do. A warning is of a value that is cut or left out: the event
is kept. Exit code 0: all events are accepted; 1: some are rejected; 2: a file cannot be read or holds no event.")]
    Event(CheckEventArgs),
    /// Checks a configuration; with --connect also what it points to.
    Config {
        /// Configuration file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also ask the brokers and the tables' root.
        #[arg(long)]
        connect: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CheckEventArgs {
    /// Files with one event a line, one event over many lines, or a list of events; plain, .gz or .zst; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Configuration file with the limits to check by; the defaults where none is given.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Do not check how old or how new events are.
    #[arg(long)]
    pub(crate) any_time: bool,
}

/// Where replayed events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Destination {
    /// The first topic of the configuration.
    Kafka,
    /// The tables, through the same decode path as ingest.
    Tables,
}

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Files with one event a line, one event over many lines, or a list of events; plain, .gz or .zst; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where to.
    #[arg(long, value_enum)]
    pub(crate) to: Destination,
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: PathBuf,
    /// Events a second; as fast as possible where no pace is given.
    #[arg(long, value_name = "N", conflicts_with_all = ["as_recorded", "speed"])]
    pub(crate) rate: Option<f64>,
    /// Keep the recorded pauses.
    #[arg(long, conflicts_with = "speed")]
    pub(crate) as_recorded: bool,
    /// Recorded pauses, this many times shorter.
    #[arg(long, value_name = "X")]
    pub(crate) speed: Option<f64>,
    /// Shift all times so that the newest event is now.
    #[arg(long)]
    pub(crate) shift_to_now: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Print a bounded scenario instead of the live summary; so it is without a terminal.
    #[arg(long)]
    pub(crate) headless: bool,
    /// Where the tables go; a new folder below ./bellwether-data where nothing is said.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Seed of the simulated apps.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Live part of a headless demo.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Runs of backfilled history.
    #[arg(long, value_name = "N", default_value_t = 24_000)]
    pub(crate) history: u64,
    /// Address of health and metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) serve: SocketAddr,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Prints the commented configuration with all defaults.
    Reference,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Reference {
    /// Markdown of the command line.
    Cli,
    /// Markdown of the tables.
    Tables,
    /// Markdown of the views and functions.
    Sql,
}

/// Markdown of the command line, from its own help.
pub(crate) fn reference_markdown(mut root: clap::Command) -> String {
    fn write(command: &mut clap::Command, path: &str, text: &mut String) {
        let help = command.clone().term_width(100).render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("## {path}\n\n```text\n{}\n```\n\n", lines.join("\n").trim_end()));
        for sub in command.get_subcommands_mut() {
            if sub.get_name() != "help" && !sub.is_hide_set() {
                let below = format!("{path} {}", sub.get_name());
                write(sub, &below, text);
            }
        }
    }
    root.build();
    let mut text = "# Command line\n\nGenerated by `bellwether reference cli`.\n\n".to_owned();
    write(&mut root, "bellwether", &mut text);
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_names_every_command() {
        let text = reference_markdown(Cli::command());
        for name in [
            "run",
            "ingest",
            "aggregate",
            "watch",
            "alerts list",
            "alerts show",
            "rules list",
            "rules check",
            "rules test",
            "rules replay",
            "rebuild",
            "sql",
            "audit",
            "schema",
            "check event",
            "check config",
            "replay",
            "demo",
        ] {
            assert!(text.contains(&format!("## bellwether {name}\n")), "{name}");
        }
    }
}
