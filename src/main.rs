//! Bellwether: production monitoring for LLM applications.
//!
//! * `cli` defines the command line, `config` reads the configuration, `exit` reports errors and maps them to exit codes.
//! * `budget` divides the memory of the process; `memory` is the counting allocator; `screen` lays out text for a terminal; `root` opens the tables for a command.
//! * `roles` holds ingest, aggregate, rollup, watch, deliver, evals, serve and maintain; `process` starts, drains and ends them at `signals`.
//! * `progress` watches the roles and records their `health`; `serve` answers health and metrics requests, `hooks` those of other services, `api` is the command that answers queries; `systemd` hears of the health, too.
//! * `sql`, `audit`, `rebuild`, `maintain`, `check`, `replay`, `alerts`, `rules`, `deliver`, `gate`, `report`, `candidates`, `evalset` and `demo` are commands.
//!
//! Rule: this crate wires the other crates together and holds no business rules.

mod alerts;
mod api;
mod audit;
mod budget;
mod candidates;
mod check;
mod cli;
mod config;
mod deliver;
mod demo;
mod editor;
mod erase;
mod evalset;
mod exit;
mod gate;
mod health;
mod hooks;
mod logging;
mod maintain;
mod memory;
mod process;
mod progress;
mod rebuild;
mod replay;
mod report;
mod roles;
mod root;
mod rules;
mod screen;
mod serve;
mod signals;
mod sql;
mod status_line;
mod systemd;

use std::io::Write;
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use clap::{CommandFactory, Parser};

use cli::{Check, Cli, Command, ConfigCommand, Reference, RoleArgs};
use config::Config;

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;

/// Turns transparent huge pages off for this process. Every batch allocates and frees buffers, and with huge pages the kernel
/// clears 2 MiB for each new one: measured, a sixth of all CPU time and a tenth of the memory. A refusal is harmless.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
}

fn main() -> ExitCode {
    without_huge_pages();
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let quiet = matches!(
        cli.command,
        Command::Demo(_)
            | Command::Rebuild(_)
            | Command::Maintain(_)
            | Command::Erase(_)
            | Command::Sql(_)
            | Command::Audit(_)
            | Command::Check(_)
            | Command::Replay(_)
            | Command::Alerts(_)
            | Command::Deliver(deliver::DeliverArgs { command: Some(_), .. })
            | Command::Serve(api::ServeArgs { command: Some(_), .. })
            | Command::Rules(_)
            | Command::Gate(_)
            | Command::Report(_)
            | Command::Evalset(_)
            | Command::Candidates(_)
    );
    logging::start(cli.log_format, quiet);
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

/// Reports an invalid command line, or prints help, and ends. For `bellwether gate` the usual exit code 2 means to roll back.
fn refuse(error: &clap::Error) -> ! {
    let names_gate = std::env::args_os().skip(1).any(|argument| argument == "gate");
    if error.use_stderr() && names_gate {
        // If standard error is closed, the exit code still reports the failure.
        drop(error.print());
        std::process::exit(i32::from(exit::MISUSED));
    }
    error.exit()
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run_roles(&args, None),
        Command::Ingest(args) => run_roles(&args, Some(roles::ingest::NAME)),
        Command::Aggregate(args) => run_roles(&args, Some(roles::aggregate::NAME)),
        Command::Rollup(args) => run_roles(&args, Some(roles::rollup::NAME)),
        Command::Watch(args) => run_roles(&args, Some(roles::watch::NAME)),
        Command::Deliver(args) => run_deliver(args),
        Command::Serve(args) => api::run(args),
        Command::Evals(args) => run_roles(&args, Some(roles::evals::NAME)),
        Command::Alerts(command) => block_on(alerts::run(command)),
        Command::Rules(command) => block_on(rules::run(command)),
        Command::Gate(args) => block_on(gate::run(args)),
        Command::Report(command) => block_on(report::run(command)),
        Command::Candidates(command) => block_on(candidates::run(command)),
        Command::Evalset(command) => block_on(evalset::run(command)),
        Command::Rebuild(args) => block_on(rebuild::run(&args)),
        Command::Maintain(args) => block_on(maintain::run(args)),
        Command::Erase(args) => block_on(erase::run(args)),
        Command::Sql(args) => block_on(sql::run(args)),
        Command::Audit(args) => block_on(audit::run(args)),
        Command::Schema => print(bellwether_event::schema()),
        Command::Check(Check::Event(args)) => check::event(&args),
        Command::Check(Check::Config { file, connect }) => block_on(check::config(&file, connect)),
        Command::Check(Check::Health(args)) => block_on(check::health::run(&args)),
        Command::Replay(args) => block_on(replay::run(&args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Config(ConfigCommand::Reference) => print(config::REFERENCE),
        Command::Reference(Reference::Cli) => print(&cli::reference_markdown(Cli::command())),
        Command::Reference(Reference::Tables) => print(&bellwether_tables::reference_markdown()),
        Command::Reference(Reference::Sql) => {
            block_on(async { print(&bellwether_queries::reference_markdown().await?) })
        }
    }
}

/// Runs one role, or without a name all roles of `bellwether run`.
fn run_roles(args: &RoleArgs, name: Option<&str>) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let roles = name.map_or_else(|| roles::all(&config), |name| roles::only(&config, name));
    block_on(process::run(&config, roles, args.until_caught_up))
}

/// Runs the role `deliver`, or a command about its routes.
fn run_deliver(args: deliver::DeliverArgs) -> Result<ExitCode> {
    let config = args.config()?;
    match args.command {
        None => {
            let roles = roles::only(&config, roles::deliver::NAME);
            block_on(process::run(&config, roles, args.until_caught_up))
        }
        Some(command) => block_on(deliver::run(command, config)),
    }
}

/// Runs a command on its own runtime.
fn block_on(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::unavailable("cannot start the async runtime").with_source(source))?;
    let result = runtime.block_on(Box::pin(command));
    // A blocking read of standard input must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Prints a text and a newline. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<ExitCode> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unavailable("cannot write to standard output").with_source(error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
