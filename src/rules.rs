//! `bellwether rules`: what is watched, whether it can be, its unit tests, and what it would have fired.

use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_alerts::engine::{Status, try_rule};
use bellwether_alerts::history::replayed;
use bellwether_alerts::record::ChangeKind;
use bellwether_alerts::{Contracts, Rules, Settings, test_file};
use bellwether_lake::{Error, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::{exit, roles};

/// Where rules and tables are.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Configuration that names rules, contracts and tables.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of rules; instead of the configuration's.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Root of the tables; instead of the configuration's.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum RulesCommand {
    /// Lists the rules: shipped ones and one's own.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Checks that every rule can be used; with tables, on their rows.
    #[command(after_help = "Examples:
  bellwether rules check                                   the shipped rules
  bellwether rules check --config bellwether.toml          and one's own, on the tables there are")]
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Runs unit tests of rules.
    #[command(after_help = "Examples:
  bellwether rules test rules/*.test.toml --rules rules")]
    Test {
        /// Files of tests, as docs/alerts.md has them.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Prints what a rule would have fired over history.
    #[command(after_help = "Examples:
  bellwether rules replay --rule success_drift --from 2026-11-01 --to 2026-11-25 --config bellwether.toml")]
    Replay {
        /// The rule.
        #[arg(long, value_name = "NAME")]
        rule: String,
        /// Begin, UTC: a date, or a date with a time.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: i64,
        /// End, UTC.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        to: i64,
        #[command(flatten)]
        place: Place,
    },
}

/// Minutes since the epoch.
fn moment(text: &str) -> std::result::Result<i64, String> {
    let whole = if text.len() == 10 { format!("{text} 00:00:00") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|_| "it must be a date such as 2026-11-25, or with a time, 2026-11-25T10:30:00Z".to_owned())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "it must be after 1970".to_owned())?;
    Ok(i64::try_from(since.as_secs() / 60).unwrap_or(i64::MAX))
}

/// What a command works with.
struct Opened {
    rules: Rules,
    contracts: Contracts,
    settings: Settings,
    lake: Option<Lake>,
}

impl Place {
    async fn open(&self, tables: bool) -> Result<Opened> {
        let config = self.config.as_deref().map(Config::load).transpose()?;
        let rules = match (&self.rules, &config) {
            (Some(folder), config) => {
                let disabled = config.as_ref().map(|config| config.alerts.disabled.clone()).unwrap_or_default();
                Rules::load(Some(folder), &disabled)
            }
            (None, Some(config)) => roles::rules(config),
            (None, None) => Rules::load(None, &[]),
        };
        let lake = match (&self.root, &config) {
            _ if !tables => None,
            (Some(root), _) => Some(open(root, &StorageOptions::default()).await?),
            (None, Some(config)) => {
                Some(open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?)
            }
            (None, None) => None,
        };
        let settings = config.as_ref().map(roles::watch_settings).unwrap_or_default();
        Ok(Opened { rules, contracts: config.map(|config| config.contracts).unwrap_or_default(), settings, lake })
    }
}

/// Opens tables that are there.
pub(crate) async fn open(root: &str, options: &StorageOptions) -> Result<Lake> {
    if !root.contains("://") && !PathBuf::from(root).join("events").is_dir() {
        return Err(Error::config(format!("there are no tables under `{root}`"))
            .with_hint("name the root that `bellwether run` or `bellwether demo` printed"));
    }
    Lake::open_to_read(root, options).await
}

pub(crate) async fn run(command: RulesCommand) -> Result<ExitCode> {
    match command {
        RulesCommand::List { place } => list(&place.open(false).await?),
        RulesCommand::Check { place } => check(place.open(true).await?).await,
        RulesCommand::Test { files, place } => test(&place.open(false).await?, &files).await,
        RulesCommand::Replay { rule, from, to, place } => replay(&place.open(true).await?, &rule, from, to).await,
    }
}

fn list(opened: &Opened) -> Result<ExitCode> {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["rule", "severity", "detector", "rows of", "from", "what"]);
    for rule in &opened.rules.rules {
        table.add_row([
            rule.name.as_str(),
            rule.severity.name(),
            rule.settings_name(),
            rule.source.name(),
            rule.origin.as_str(),
            rule.doc.as_str(),
        ]);
    }
    for broken in &opened.rules.broken {
        table.add_row([
            broken.name.as_str(),
            "",
            "",
            "",
            broken.origin.as_str(),
            &format!("cannot be used: {}", broken.why),
        ]);
    }
    for name in &opened.rules.disabled {
        table.add_row([name.as_str(), "", "", "", "", "disabled"]);
    }
    crate::print(&table.to_string())
}

async fn check(opened: Opened) -> Result<ExitCode> {
    let settings = SessionSettings::default();
    let session = match &opened.lake {
        Some(lake) => Session::open(lake, settings).await?,
        None => Session::in_memory(settings)?,
    };
    let mut bad = opened.rules.broken.len();
    let mut lines: Vec<String> = opened
        .rules
        .broken
        .iter()
        .map(|broken| format!("✗ {} ({}): {}", broken.name, broken.origin, broken.why))
        .collect();
    for rule in &opened.rules.rules {
        match try_rule(&session, rule).await {
            Ok(0) if opened.lake.is_some() => lines.push(format!("✓ {}: no observations in these tables", rule.name)),
            Ok(_) if opened.lake.is_none() => lines.push(format!("✓ {}", rule.name)),
            Ok(found) => lines.push(format!("✓ {}: {found} observations", rule.name)),
            Err(why) => {
                bad += 1;
                lines.push(format!("✗ {} ({}): {why}", rule.name, rule.origin));
            }
        }
    }
    for (task, contract) in &opened.contracts {
        for rule in &opened.rules.rules {
            if let Err(why) = rule.settings.detector(Some(contract)) {
                bad += 1;
                lines.push(format!("✗ {} with the contract of `{task}`: {why}", rule.name));
            }
        }
    }
    lines.push(format!("{} rules, {bad} problems", opened.rules.rules.len() + opened.rules.broken.len()));
    crate::print(&lines.join("\n"))?;
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) })
}

async fn test(opened: &Opened, files: &[PathBuf]) -> Result<ExitCode> {
    let (mut good, mut bad) = (0, 0);
    for file in files {
        for outcome in Box::pin(test_file::run(file, &opened.rules)).await? {
            if outcome.failures.is_empty() {
                good += 1;
                crate::print(&format!("✓ {}: {}", file.display(), outcome.name))?;
            } else {
                bad += 1;
                crate::print(&format!(
                    "✗ {}: {}\n    {}",
                    file.display(),
                    outcome.name,
                    outcome.failures.join("\n    ")
                ))?;
            }
        }
    }
    crate::print(&format!("{good} passed, {bad} failed"))?;
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) })
}

async fn replay(opened: &Opened, rule: &str, from: i64, to: i64) -> Result<ExitCode> {
    let Some(lake) = &opened.lake else {
        return Err(Error::config("nothing says where the tables are").with_hint("add --root DIR, or --config FILE"));
    };
    if from >= to {
        return Err(
            Error::config("--from is not before --to").with_hint("the stretch that is replayed is from --from to --to")
        );
    }
    let found = Box::pin(replayed(lake, &opened.rules, rule, &opened.contracts, &opened.settings, from, to)).await?;
    let mut lines = Vec::new();
    for row in &found.rows {
        let late = match row.change {
            ChangeKind::New => "",
            ChangeKind::Late => " (by a correction)",
            ChangeKind::Moved => " (moved by a correction)",
            ChangeKind::Retracted => " (taken back)",
        };
        lines.push(format!("{}  {:<9} {}{late}", time(row.at), row.state, row.title));
    }
    match &found.status {
        Status::Broken(why) => return Err(Error::config(format!("rule `{rule}` fails: {why}"))),
        Status::Waiting => lines.push("no observations: the query returns no rows here".to_owned()),
        Status::Watching => {}
    }
    lines.push(format!("fired {} times in {:.1} days: {:.2} a month", found.fired, found.days, found.a_month));
    lines.push(match found.allowed {
        Some(allowed) => format!(
            "false alarms: at most {allowed:.2} a month by its part of the budget; of what fired, all that was no trouble is false"
        ),
        None => "false alarms: no promise; of what fired, all that was no trouble is false".to_owned(),
    });
    if let Some(delay) = found.delay {
        lines.push(format!("delay: {delay} min from the likeliest begin to firing, the median"));
    }
    crate::print(&lines.join("\n"))
}

/// A moment as people read it.
pub(crate) fn time(micros: i64) -> String {
    let since = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}
