//! `bellwether gate`: asks whether a release may go on, and says so by its exit code.

pub(crate) mod notify;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bellwether_alerts::gate::{GateAnswer, GateDecision, GateReader, GateSettings, Policy, Question};
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::Lake;
use bellwether_queries::since;
use bellwether_serve::Told;
use clap::Args;

use self::notify::{Background, Notifier, Patience};
use crate::config::Config;
use crate::root::{RootArgs, open_to_read};
use crate::status_line::StatusLine;
use crate::{exit, screen};

/// Time between two questions with `--wait`.
const POLL: Duration = Duration::from_secs(10);

/// Settings of the gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct GateConfig {
    /// The policy; none for the shipped one.
    pub(crate) policy: Option<PathBuf>,
    /// The file with the bearer token of the gate beside health and metrics.
    pub(crate) token_file: Option<PathBuf>,
    /// The webhook that hears of rollbacks.
    pub(crate) notify: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether gate --root bellwether-data --task refunds --canary 2026-11-12.3
  bellwether gate --config bellwether.toml --task refunds --canary v18 --baseline v17 --wait 30m
  bellwether gate --config bellwether.toml --task refunds --canary v18 --offline --json
  bellwether gate --config bellwether.toml --task refunds --canary v18 --notify flags
  bellwether gate --print-policy > gate.toml

Exit codes:
  0    promote
  1    hold: something is not known yet, or the task or release has no runs
  2    roll back
  3    the tables are unreachable, or a query exceeded a limit
  4    stored data is inconsistent
  64   the command line, the configuration or the policy is invalid
  70   internal error

It may be asked at any time, and as often as you like: the bounds on its errors hold nevertheless.")]
pub(crate) struct GateArgs {
    /// Task.
    #[arg(long, value_name = "TASK", required_unless_present = "print_policy")]
    task: Option<String>,
    /// Release on trial.
    #[arg(long, value_name = "RELEASE", required_unless_present = "print_policy")]
    canary: Option<String>,
    /// Release to compare with [default: the contract's baseline, or the release with most runs before].
    #[arg(long, value_name = "RELEASE")]
    baseline: Option<String>,
    /// Policy file [default: gate.policy, or the shipped policy].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Compare only the runs of a tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Leave out earlier runs: a time such as 2026-11-12T08:00:00Z, or a duration before now such as 6h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Compare runs of stage offline_eval, case by case, before any traffic.
    #[arg(long)]
    offline: bool,
    /// Ask again until the answer is not to hold, for at most this long.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Send a signed webhook, once for each canary, if the answer is to roll back: a sink of the configuration.
    #[arg(long, value_name = "SINK")]
    notify: Option<String>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    /// Print the shipped policy, and exit.
    #[arg(long)]
    print_policy: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// Runs the command. An error never has the exit code of a decision.
pub(crate) async fn run(args: GateArgs) -> Result<ExitCode> {
    match decide(args).await {
        Err(error) if error.kind() == ErrorKind::Config || error.kind() == ErrorKind::BadEvent => {
            exit::report(&error);
            Ok(ExitCode::from(exit::MISUSED))
        }
        decided => decided,
    }
}

async fn decide(args: GateArgs) -> Result<ExitCode> {
    if args.print_policy {
        crate::print(Policy::SHIPPED)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in [("task", &args.task), ("canary", &args.canary), ("baseline", &args.baseline)] {
        if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
            return Err(
                Error::config(format!("`--{name}` is empty")).with_hint("a variable of the pipeline may not be set")
            );
        }
    }
    let root = args.root.resolve()?;
    let reader = reader(root.config.as_ref(), args.policy.as_deref())?;
    let lake = open_to_read(&root.uri, &root.options).await?;
    let find = |name: &str| Notifier::find(name, root.config.as_ref(), &lake.clock(), Patience::COMMAND);
    let notifier = args.notify.as_deref().map(find).transpose()?;
    let from = args.since.as_deref().map(|text| since(text, lake.clock().now_micros())).transpose()?;
    let question = Question {
        task: args.task.unwrap_or_default(),
        canary: args.canary,
        baseline: args.baseline,
        tenant: args.tenant,
        since: from,
        offline: args.offline,
    };
    let answer = wait_for(&reader, &lake, &question, args.wait).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&answer)
            .map_err(|source| Error::bug("cannot write the answer as JSON").with_source(source))?;
        crate::print(&text)?;
    } else {
        crate::print(&shown(&answer, screen::width()))?;
    }
    // A webhook that does not answer changes no decision.
    if let Some(notifier) = notifier
        && let Err(error) = notifier.tell(&lake, &answer).await
    {
        exit::report(&error);
    }
    Ok(code(answer.decision))
}

/// Returns an answer for people, fitted to a width.
pub(crate) fn shown(answer: &GateAnswer, width: Option<usize>) -> String {
    table::answer(answer, width)
}

/// Returns the exit code of a decision.
fn code(decision: GateDecision) -> ExitCode {
    ExitCode::from(match decision {
        GateDecision::Promote => 0,
        GateDecision::Hold => 1,
        GateDecision::RollBack => 2,
    })
}

/// Makes the reader: with the contracts and limits of a configuration, and a policy.
///
/// # Errors
/// `Config` with every problem of the policy.
pub(crate) fn reader(config: Option<&Config>, policy: Option<&Path>) -> Result<GateReader> {
    let file = policy.or_else(|| config.and_then(|config| config.gate.policy.as_deref()));
    let settings = config.map_or_else(GateSettings::default, |config| GateSettings {
        grace: config.alerts.watch.grace,
        memory_bytes: config.alerts.watch.memory_bytes,
        ..GateSettings::default()
    });
    let contracts = config.map(|config| config.alerts.contracts.clone()).unwrap_or_default();
    Ok(GateReader { policy: file.map_or_else(|| Ok(Policy::default()), policy_of)?, contracts, settings })
}

/// Returns the endpoints of the gate beside health and metrics.
///
/// # Errors
/// `Config` if the policy is invalid, the token cannot be read or is too short, or `gate.notify` is no webhook.
pub(crate) fn routes(config: &Config, lake: &Lake) -> Result<axum::Router> {
    let reader = reader(Some(config), None)?;
    let find = |name: &String| Notifier::find(name, Some(config), &lake.clock(), Patience::SERVED);
    let notifier = config.gate.notify.as_ref().map(find).transpose()?;
    let told = notifier.map(|notifier| {
        let background = Background::new(notifier, lake);
        Box::new(move |answer: &GateAnswer| background.tell(answer)) as Told
    });
    bellwether_serve::gate_routes(reader, lake, config.gate.token_file.clone(), config.serve.address, told)
}

fn policy_of(file: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(file).map_err(|source| {
        Error::config(format!("cannot read the policy `{}`", file.display()))
            .with_hint("write one with `bellwether gate --print-policy > gate.toml`")
            .with_source(source)
    })?;
    Policy::parse(&text).map_err(|problems| {
        Error::config(format!("the policy `{}` is invalid:\n  {}", file.display(), problems.join("\n  ")))
            .with_hint("`bellwether gate --print-policy` prints one with every key")
    })
}

/// Asks until the answer is not to hold, or the time is over. Tables that do not answer are asked again, too.
async fn wait_for(reader: &GateReader, lake: &Lake, question: &Question, wait: Option<Duration>) -> Result<GateAnswer> {
    let clock = lake.clock();
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let deadline = wait.map(|wait| clock.now_micros().saturating_add(micros(wait)));
    let (line, mut shown) = (StatusLine::new(), String::new());
    loop {
        let answered = Box::pin(reader.ask(lake, question)).await;
        let text = match &answered {
            Ok(answer) if answer.decision == GateDecision::Hold => format!("hold; {}", answer.summary),
            // The tables may answer again before the deadline.
            Err(error) if error.kind() == ErrorKind::Unavailable => error.chain(),
            _ => String::new(),
        };
        let Some(deadline) = deadline.filter(|_| !text.is_empty()) else {
            line.clear();
            return answered;
        };
        let text = screen::one_line(&text);
        line.show(&screen::cut(&text, 100));
        // A log of a pipeline gets a line whenever something changed.
        if text != shown && !line.is_shown() {
            eprintln!("{text}");
            shown = text;
        }
        let left = deadline.saturating_sub(clock.now_micros());
        if left <= 0 {
            line.clear();
            return answered;
        }
        clock.sleep(POLL.min(Duration::from_micros(u64::try_from(left).unwrap_or(0)))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_policy_is_reported_with_every_problem() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gate.toml");
        let text = Policy::SHIPPED.replace("promote_alpha = 0.05", "promote_alpha = 7");
        std::fs::write(&file, text.replacen("margin = 1.5", "margin = 0.2", 1)).expect("written");
        let error = reader(None, Some(&file)).expect_err("invalid");
        assert_eq!(error.kind(), ErrorKind::Config);
        for part in ["gate.toml", "promote_alpha is `7`", "`metrics.success.margin` is `0.2`"] {
            assert!(error.message().contains(part), "{}", error.message());
        }
        assert!(reader(None, Some(Path::new("/nowhere/gate.toml"))).is_err());
        assert_eq!(reader(None, None).expect("shipped").policy, Policy::default());
    }
}
