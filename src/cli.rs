//! The command line: commands, arguments and their help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::logging::LogFormat;
use crate::{alerts, api, audit, candidates, deliver, erase, evalset, exit, gate, maintain, report, rules, sql};

/// Text of `--version`; `-V` prints the first word. `build.rs` sets the parts.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BELLWETHER_COMMIT"),
    "\nfeatures: ",
    env!("BELLWETHER_FEATURES"),
    "\ntarget: ",
    env!("BELLWETHER_TARGET")
);

/// Monitor LLM applications in production.
///
/// Reads run events from Kafka into exactly-once Delta tables, keeps rolling metrics, answers SQL queries and raises alerts.
#[derive(Parser, Debug)]
#[command(
    name = "bellwether",
    version,
    long_version = LONG_VERSION,
    propagate_version = true,
    after_help = "Examples:
  bellwether demo                                     try it; nothing else is needed
  bellwether config reference > bellwether.toml       write a configuration to edit
  bellwether check config bellwether.toml --connect   check it, and the brokers and tables it names
  bellwether run --config bellwether.toml
  bellwether sql --root bellwether-data \"SELECT * FROM rolling\"",
    after_long_help = exit::HELP
)]
pub(crate) struct Cli {
    /// Log format; filter with RUST_LOG.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run ingest, aggregate, rollup, watch and deliver in one process.
    ///
    /// Ingest reads run events from Kafka into the tables, aggregate computes metrics from them, rollup folds these by hour and
    /// by day, and watch evaluates the rules and writes alerts. If sinks are configured, deliver sends these by routes. If `evals.sample` is on, evals samples runs for review. If `api.serve` is on, serve answers queries. Health and Prometheus metrics are served at `serve.address`. The first SIGINT or SIGTERM drains and
    /// commits; a second one stops at once.
    #[command(after_help = "Examples:
  bellwether run --config bellwether.toml
  bellwether run --config bellwether.toml --until-caught-up    process what is published, then exit")]
    Run(RoleArgs),
    /// Run ingest alone: read run events from Kafka into the tables.
    ///
    /// Start more processes with the same `kafka.group` to share the partitions.
    #[command(after_help = "Examples:
  bellwether ingest --config bellwether.toml
  bellwether ingest --config bellwether.toml --until-caught-up")]
    Ingest(RoleArgs),
    /// Run aggregate and rollup: compute metrics from new events, and fold them by hour and by day.
    ///
    /// Needs no Kafka. If several processes are configured for one shard, one works and the others stand by.
    #[command(after_help = "Examples:
  bellwether aggregate --config bellwether.toml
  bellwether aggregate --config bellwether.toml --until-caught-up")]
    Aggregate(RoleArgs),
    /// Run rollup alone: fold new metrics by hour and by day.
    ///
    /// Aggregate includes it. Needs no Kafka. If several processes run it, one works and the others stand by.
    #[command(after_help = "Examples:
  bellwether rollup --config bellwether.toml
  bellwether rollup --config bellwether.toml --until-caught-up")]
    Rollup(RoleArgs),
    /// Run watch alone: evaluate the rules and write alerts.
    ///
    /// Needs no Kafka.
    #[command(after_help = "Examples:
  bellwether watch --config bellwether.toml
  bellwether watch --config bellwether.toml --until-caught-up")]
    Watch(RoleArgs),
    /// Run deliver alone: send alerts to people by routes; or show and test the routes.
    ///
    /// Needs no Kafka. If several processes run it, one works and the others stand by.
    Deliver(deliver::DeliverArgs),
    /// Run evals alone: sample runs for review, week by week.
    ///
    /// Needs no Kafka. If several processes run it, one works and the others stand by.
    #[command(after_help = "Examples:
  bellwether evals --config bellwether.toml
  bellwether evals --config bellwether.toml --until-caught-up
  bellwether sql --root bellwether-data \"SELECT * FROM candidates\"    list the sampled runs")]
    Evals(RoleArgs),
    /// Answer SQL over HTTP, to clients of Postgres and of Flight SQL; or make and revoke tokens.
    ///
    /// Needs no Kafka, and only reads the tables. Without tokens, it answers this machine alone.
    Serve(api::ServeArgs),
    /// List alerts, show their evidence, acknowledge and silence them.
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// List, check, test and replay alert rules.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Decide whether a release may go on: promote, hold or roll back.
    ///
    /// Compares a canary with its baseline on every metric of the policy and in every critical slice. The exit code is the
    /// decision.
    Gate(gate::GateArgs),
    #[command(subcommand)]
    Report(report::ReportCommand),
    #[command(subcommand)]
    Candidates(candidates::CandidatesCommand),
    #[command(subcommand)]
    Evalset(evalset::EvalsetCommand),
    /// Recompute `metrics`, its roll-ups and `releases` from `events`.
    ///
    /// Readers and a running aggregate role keep using the old rows until all new ones are ready; each table is then replaced
    /// in one commit. A rebuild that is stopped or killed changes nothing; start it again. `rolling_history` records past figures
    /// and is kept.
    #[command(after_help = "Examples:
  bellwether rebuild --config bellwether.toml

A pipeline may keep running meanwhile. Run a rebuild after changing `aggregate.shards`, too.")]
    Rebuild(RebuildArgs),
    /// Rewrite small files, and remove old log entries and files that are no longer needed.
    ///
    /// Does everything that is due, table by table, and reports it. Tables may be written and queried meanwhile, and several
    /// processes may do this at once.
    Maintain(maintain::MaintainArgs),
    /// Erase a run, a user, a session or a tenant from all tables, and prove it.
    Erase(erase::EraseArgs),
    /// Query the tables with SQL; without a query, open a prompt.
    Sql(sql::SqlArgs),
    /// Verify that no event was lost or duplicated.
    Audit(audit::AuditArgs),
    /// Print the JSON Schema of run events.
    Schema,
    /// Check events or a configuration.
    #[command(subcommand)]
    Check(Check),
    /// Send recorded events to Kafka, or write them directly to the tables.
    ///
    /// The last line of output counts the accepted and rejected events.
    #[command(after_help = "Examples:
  bellwether replay runs.ndjson.zst --to tables --config bellwether.toml
  bellwether replay runs.ndjson --to kafka --config bellwether.toml --rate 500
  bellwether replay runs.ndjson --to kafka --config bellwether.toml --speed 60
  cat runs.ndjson | bellwether replay - --to kafka --config bellwether.toml --shift-to-now

Exit codes:
  0  all events were accepted
  1  some events were rejected")]
    Replay(ReplayArgs),
    /// Run a demonstration with an embedded broker and three simulated apps.
    ///
    /// Publishes six hours of simulated history and then live traffic through the real pipeline. One of two canary releases
    /// gets worse; the demo shows how the metrics and alerts react.
    #[command(after_help = "Examples:
  bellwether demo                 show a live summary; press q to quit
  bellwether demo --headless      run a bounded scenario, print the tables and exit")]
    Demo(DemoArgs),
    /// Print the reference configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print generated reference pages.
    #[command(subcommand, hide = true)]
    Reference(Reference),
}

#[derive(Args, Debug)]
pub(crate) struct RoleArgs {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: PathBuf,
    /// Process everything available now, commit, and exit 0.
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
    /// Report every problem of each event.
    ///
    /// Reads and judges events as ingest and `replay --to tables` do. Each problem has a JSON pointer and advice. A warning
    /// marks a value that is cut or left out; the event itself is kept.
    #[command(after_help = "Examples:
  bellwether check event runs.ndjson more.ndjson.gz
  echo '{\"spec\":\"run-event/1.0\"}' | bellwether check event -

Exit codes:
  0  all events are accepted
  1  some events are rejected
  2  a file cannot be read or has no events")]
    Event(CheckEventArgs),
    /// Check a configuration; with --connect, also the brokers and tables it names.
    #[command(after_help = "Examples:
  bellwether check config bellwether.toml
  bellwether check config bellwether.toml --connect")]
    Config {
        /// Configuration file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also connect to the brokers, look up the topics, and open the tables.
        #[arg(long)]
        connect: bool,
    },
    /// Ask a running process whether it works.
    ///
    /// Reads the health of its roles from `serve.address`, and lists each role with its problem. By default, a role that has work and
    /// makes no progress is a problem.
    #[command(after_help = "Examples:
  bellwether check health                              ask the process at 127.0.0.1:9464
  bellwether check health --config bellwether.toml     ask the one with this configuration
  bellwether check health --address 10.0.0.7:9464 --ready

Exit codes:
  0  it works
  1  it does not
  3  it cannot be reached")]
    Health(CheckHealthArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CheckHealthArgs {
    /// Address of the health endpoints [default: the configured one, or 127.0.0.1:9464].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<SocketAddr>,
    /// Configuration file that names the address.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Fail also if a role has done no work yet, or if a part of it does not work.
    #[arg(long)]
    pub(crate) ready: bool,
    /// Fail only if a restart may help: a role is stuck, and neither Kafka nor storage is the reason.
    #[arg(long, conflicts_with = "ready")]
    pub(crate) live: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CheckEventArgs {
    /// Files with one event per line, one event over several lines, or a JSON array of events; plain, .gz or .zst; - reads standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Configuration file that sets the limits; without one, the defaults apply.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Accept events of any age, and events from the future.
    #[arg(long)]
    pub(crate) any_time: bool,
}

/// Destination of replayed events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Destination {
    /// The first topic of the configuration.
    Kafka,
    /// The tables, through the same decoder as ingest.
    Tables,
}

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Files with one event per line, one event over several lines, or a JSON array of events; plain, .gz or .zst; - reads standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Destination.
    #[arg(long, value_enum)]
    pub(crate) to: Destination,
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub(crate) config: PathBuf,
    /// Events per second [default: as fast as possible].
    #[arg(long, value_name = "N", conflicts_with_all = ["as_recorded", "speed"])]
    pub(crate) rate: Option<f64>,
    /// Keep the recorded pauses between events.
    #[arg(long, conflicts_with = "speed")]
    pub(crate) as_recorded: bool,
    /// Divide the recorded pauses by this factor.
    #[arg(long, value_name = "FACTOR")]
    pub(crate) speed: Option<f64>,
    /// Shift all times so that the newest event is now; from standard input, the first event.
    #[arg(long)]
    pub(crate) shift_to_now: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Run a bounded scenario and print its tables instead of the live summary; the default without a terminal.
    #[arg(long)]
    pub(crate) headless: bool,
    /// Folder for the tables [default: a new folder under ./bellwether-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Seed of the simulated apps.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Length of the live part of a headless demo.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Number of runs in the backfilled history.
    #[arg(long, value_name = "N", default_value_t = 24_000)]
    pub(crate) history: u64,
    /// Address of the health and metrics endpoints.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) serve: SocketAddr,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Print a commented configuration with every key and its default.
    Reference,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Reference {
    /// Print the command line reference as Markdown.
    Cli,
    /// Print the table reference as Markdown.
    Tables,
    /// Print the reference of views and functions as Markdown.
    Sql,
}

/// Returns the command line reference as Markdown, generated from the help texts.
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
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The reference and most terminals are at least this wide.
    const WIDTH: usize = 100;

    fn assert_examples_fit(command: &clap::Command) {
        for text in [command.get_after_help(), command.get_after_long_help()].into_iter().flatten() {
            for line in text.to_string().lines() {
                assert!(line.chars().count() <= WIDTH, "{}: {line}", command.get_name());
            }
        }
        command.get_subcommands().for_each(assert_examples_fit);
    }

    #[test]
    fn examples_and_tables_in_the_help_are_not_wrapped() {
        assert_examples_fit(&Cli::command());
    }

    #[test]
    fn the_reference_names_every_command() {
        let text = reference_markdown(Cli::command());
        for name in [
            "run",
            "ingest",
            "aggregate",
            "rollup",
            "watch",
            "deliver",
            "deliver test",
            "deliver routes",
            "serve",
            "serve token add",
            "serve token list",
            "serve token revoke",
            "alerts list",
            "alerts show",
            "alerts ack",
            "alerts silence",
            "alerts feedback",
            "rules list",
            "rules check",
            "rules test",
            "rules replay",
            "gate",
            "rebuild",
            "maintain",
            "sql",
            "audit",
            "schema",
            "check event",
            "check config",
            "check health",
            "replay",
            "demo",
        ] {
            assert!(text.contains(&format!("## bellwether {name}\n")), "{name}");
        }
    }
}
