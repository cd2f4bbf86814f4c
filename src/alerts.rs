//! `bellwether alerts`: lists alerts, shows their evidence, and records what people do about them.
//!
//! * `list`, `show`: alerts and their evidence; `evidence`, `when`: how these are written.
//! * `hands`: acknowledge, silence, judge; `until`: the times that these commands take.
//! * `find`: one alert by the beginning of its id; `marks`: what people have done about it.

mod evidence;
mod find;
mod hands;
mod list;
mod marks;
mod show;
mod until;
mod when;

pub(crate) use show::page_of;

use std::process::ExitCode;

use bellwether_base::{Error, Result};
use clap::Subcommand;

use crate::exit;
use crate::root::RootArgs;

#[derive(Subcommand, Debug)]
pub(crate) enum AlertsCommand {
    /// List pending and firing alerts.
    #[command(after_help = "Examples:
  bellwether alerts list --root bellwether-data
  bellwether alerts list --root bellwether-data --all
  bellwether alerts list --root bellwether-data --task refund_triage --state firing
  bellwether alerts list --root bellwether-data --label 'severity=\"page\"' --json

To process alerts in a program, query the table:
  bellwether sql --root bellwether-data --format ndjson \"SELECT * FROM alerts WHERE change = 'new'\"")]
    List(list::ListArgs),
    /// Show one alert: its transitions, its evidence, and SQL that reproduces the numbers.
    #[command(after_help = "Examples:
  bellwether alerts show 4f80a64e --root bellwether-data
  bellwether alerts show 4f80a64e --root bellwether-data --json
  bellwether alerts show 4f80a64e --page --config bellwether.toml")]
    Show {
        /// Id of the alert, or a unique prefix of it.
        #[arg(value_name = "ID")]
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print the page as a chat message shows it: with slices, examples, changes of the release and cost. Links come
        /// from `[links]` of the configuration.
        #[arg(long, conflicts_with = "json")]
        page: bool,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Acknowledge firing alerts: someone is at work on them.
    ///
    /// An acknowledgement ends when the alert resolves, at --until, and by `unack`. Other people see it, and roles that send
    /// messages send no further ones about the alert until then.
    #[command(after_help = "Examples:
  bellwether alerts ack 4f80a64e --root bellwether-data
  bellwether alerts ack 4f80a64e 91c2 --reason 'rolling back r2' --until 2h --root bellwether-data

Exit codes:
  0  acknowledged, or it was already
  1  no such alert, or it does not fire")]
    Ack(hands::AckArgs),
    /// Take an acknowledgement back.
    #[command(after_help = "Examples:
  bellwether alerts unack 4f80a64e --reason 'not mine after all' --root bellwether-data")]
    Unack(hands::UnackArgs),
    /// Silence one alert, or all alerts with certain labels, until a time.
    ///
    /// Alerts are evaluated and recorded as before; no messages are sent about them. Labels are matched as in Alertmanager:
    /// `=`, `!=`, `=~` and `!~`, where a regular expression matches the whole value, and an absent label is empty. Besides its own
    /// labels, each alert has `rule`, `severity` and `alertname`. All matchers must hold.
    #[command(after_help = "Examples:
  bellwether alerts silence 4f80a64e --for 2h --reason 'known; fix is in r3' --root bellwether-data
  bellwether alerts silence task=refund_triage 'rule=~\"latency_.*\"' --for 45m --reason 'load test'
  bellwether alerts silence tenant=acme --from 2026-12-24T08:00:00Z --until 2026-12-24T12:00:00Z \\
      --reason maintenance
  bellwether alerts silence task=refund_triage --for 2h --reason test --dry-run    only show matches")]
    Silence(hands::SilenceArgs),
    /// End a silence before its time.
    #[command(after_help = "Examples:
  bellwether alerts unsilence 0193f2 --root bellwether-data
  bellwether sql --root bellwether-data \"SELECT * FROM silences\"    list active silences")]
    Unsilence(hands::UnsilenceArgs),
    /// Say whether an alert was useful or noise.
    ///
    /// The latest feedback on a firing counts. `bellwether rules list` and the view `rule_precision` show the share of useful
    /// alerts of each rule.
    #[command(after_help = "Examples:
  bellwether alerts feedback 4f80a64e useful --root bellwether-data
  bellwether alerts feedback 4f80a64e noise --reason 'planned migration' --root bellwether-data")]
    Feedback(hands::FeedbackArgs),
}

/// Why a command ended early.
enum Stop {
    /// What was asked cannot be done: exit code 1.
    Refused(Error),
    /// An error by its kind.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) async fn run(command: AlertsCommand) -> Result<ExitCode> {
    let ended = match command {
        AlertsCommand::List(args) => Box::pin(list::run(args)).await,
        AlertsCommand::Show { id, page: true, root, .. } => Box::pin(show::page(&root, &id)).await,
        AlertsCommand::Show { id, json, root, .. } => Box::pin(show::run(&root, &id, json)).await,
        AlertsCommand::Ack(args) => Box::pin(hands::ack(args)).await,
        AlertsCommand::Unack(args) => Box::pin(hands::unack(args)).await,
        AlertsCommand::Silence(args) => Box::pin(hands::silence(args)).await,
        AlertsCommand::Unsilence(args) => Box::pin(hands::unsilence(args)).await,
        AlertsCommand::Feedback(args) => Box::pin(hands::feedback(args)).await,
    };
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Refused(error)) => {
            exit::report(&error);
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}
