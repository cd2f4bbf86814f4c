//! `bellwether rules`: lists rules, checks them, runs their unit tests, and replays them over history.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bellwether_alerts::engine::{Status, try_rule};
use bellwether_alerts::hands::{Hands, Precision};
use bellwether_alerts::history::{ReplayRequest, replayed};
use bellwether_alerts::record::{ChangeKind, RULE_FAILING};
use bellwether_alerts::rule::Source;
use bellwether_alerts::{Contracts, Rule, Rules, WatchSettings, test_file};
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{Lake, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use bellwether_stats::figure::{number, percent};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::exit;
use crate::roles::watch::AlertsSettings;
use crate::root::{open_to_read, unnamed};

#[derive(Args, Debug)]
pub(crate) struct RulesArgs {
    /// Configuration file that names rules, contracts and tables.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of rules; overrides the configuration.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Root of the tables; overrides the configuration.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum RulesCommand {
    /// List shipped and custom rules, with their state.
    #[command(after_help = "Examples:
  bellwether rules list
  bellwether rules list --config bellwether.toml")]
    List {
        #[command(flatten)]
        args: RulesArgs,
    },
    /// Check that every rule is valid; with tables, also run each query on them.
    #[command(after_help = "Examples:
  bellwether rules check                             check the shipped rules
  bellwether rules check --config bellwether.toml    check custom rules too, on the tables")]
    Check {
        #[command(flatten)]
        args: RulesArgs,
    },
    /// Run unit tests of rules.
    #[command(after_help = "Examples:
  bellwether rules test rules/*.test.toml --rules rules")]
    Test {
        /// Test files; docs/alerts.md describes the format.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        args: RulesArgs,
    },
    /// Show which alerts a rule would have raised over a period of history.
    ///
    /// Prints each transition, then how often the rule fired, its budget of false alarms, and its median delay.
    #[command(after_help = "Examples:
  bellwether rules replay --rule success_drift --from 2026-11-01 --to 2026-11-25 -c bellwether.toml")]
    Replay {
        /// Name of the rule.
        #[arg(long, value_name = "NAME")]
        rule: String,
        /// Start of the period, UTC: a date, or a date and time.
        #[arg(long, value_name = "TIME", value_parser = parse_minute)]
        from: i64,
        /// End of the period, UTC.
        #[arg(long, value_name = "TIME", value_parser = parse_minute)]
        to: i64,
        #[command(flatten)]
        args: RulesArgs,
    },
}

/// Parses a date, or a date and time, as minutes since 1970.
fn parse_minute(text: &str) -> std::result::Result<i64, String> {
    let whole = if text.len() == 10 { format!("{text} 00:00:00") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|_| "give a date such as 2026-11-25, or a date and time such as 2026-11-25T10:30:00Z".to_owned())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "give a date after 1970".to_owned())?;
    Ok(i64::try_from(since.as_secs() / 60).unwrap_or(i64::MAX))
}

/// Rules, and everything needed to run them.
struct Workbench {
    rules: Rules,
    contracts: Contracts,
    settings: WatchSettings,
    lake: Option<Lake>,
}

impl RulesArgs {
    /// Loads rules and contracts, and opens the tables if `tables` is set and a root is given.
    async fn open(&self, tables: bool) -> Result<Workbench> {
        let config = self.config.as_deref().map(Config::load).transpose()?;
        let rules = match (&self.rules, &config) {
            (Some(folder), config) => {
                let disabled = config.as_ref().map(|config| config.alerts.disabled.clone()).unwrap_or_default();
                Rules::load(Some(folder), &disabled)
            }
            (None, Some(config)) => config.alerts.load_rules(),
            (None, None) => Rules::load(None, &[]),
        };
        let lake = match (&self.root, &config) {
            _ if !tables => None,
            (Some(root), _) => Some(open_to_read(root, &StorageOptions::default()).await?),
            (None, Some(config)) => {
                Some(open_to_read(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?)
            }
            (None, None) => None,
        };
        let AlertsSettings { watch: settings, contracts, .. } = config.map(|config| config.alerts).unwrap_or_default();
        Ok(Workbench { rules, contracts, settings, lake })
    }
}

pub(crate) async fn run(command: RulesCommand) -> Result<ExitCode> {
    match command {
        RulesCommand::List { args } => Box::pin(list(&args)).await,
        RulesCommand::Check { args } => check(args.open(true).await?).await,
        RulesCommand::Test { files, args } => test(&args.open(false).await?, &files).await,
        RulesCommand::Replay { rule, from, to, args } => replay(&args.open(true).await?, &rule, from, to).await,
    }
}

/// The latest row of `alerts` about failing evaluations of a rule.
#[derive(Default)]
struct Failing {
    state: String,
    failures: i64,
    since: Option<i64>,
    error: String,
}

/// Reads the latest failure of each rule from `alerts`.
async fn failing(lake: &Lake) -> Result<BTreeMap<String, Failing>> {
    let session = Session::open(lake, SessionSettings::default()).await?;
    let sql = format!(
        "SELECT labels['rule'], state, canary_events, since, notes FROM alerts WHERE rule = '{RULE_FAILING}' ORDER BY evaluation, at, \
         CASE state WHEN 'pending' THEN 0 ELSE 1 END"
    );
    let mut failing = BTreeMap::new();
    for batch in session.execute(&sql).await?.collect().await? {
        let text = |place: usize| cast(batch.column(place), &DataType::Utf8);
        let (rules, state, notes) = (text(0)?, text(1)?, text(4)?);
        let failures = batch.column(2).as_primitive::<Int64Type>();
        let since = cast(batch.column(3), &DataType::Int64)?;
        for row in 0..batch.num_rows() {
            let since = since.as_primitive::<Int64Type>();
            failing.insert(
                rules.as_string::<i32>().value(row).to_owned(),
                Failing {
                    state: state.as_string::<i32>().value(row).to_owned(),
                    failures: if failures.is_valid(row) { failures.value(row) } else { 0 },
                    since: since.is_valid(row).then(|| since.value(row)),
                    error: notes.as_string::<i32>().value(row).to_owned(),
                },
            );
        }
    }
    Ok(failing)
}

async fn list(args: &RulesArgs) -> Result<ExitCode> {
    // Rules can be listed before there are tables; their state then is unknown.
    let opened = match args.open(true).await {
        Err(error) if error.kind() == ErrorKind::Config => args.open(false).await?,
        opened => opened?,
    };
    let failing = match &opened.lake {
        Some(lake) => Some(Box::pin(failing(lake)).await?),
        None => None,
    };
    let precision = match &opened.lake {
        Some(lake) => Some(Hands::load(lake).await?.precision()),
        None => None,
    };
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["rule", "severity", "detector", "rows of", "from", "state", "useful", "description"]);
    for rule in &opened.rules.rules {
        table.add_row([
            rule.name.as_str(),
            rule.severity.name(),
            rule.settings_name(),
            rule.source.name(),
            rule.origin.as_str(),
            &state(failing.as_ref(), &rule.name),
            &useful(precision.as_ref(), &rule.name),
            rule.doc.as_str(),
        ]);
    }
    for broken in &opened.rules.broken {
        let why = format!("invalid: {}", broken.why);
        table.add_row([broken.name.as_str(), "", "", "", broken.origin.as_str(), "broken", "", &why]);
    }
    for name in &opened.rules.disabled {
        table.add_row([name.as_str(), "", "", "", "", "disabled", "", ""]);
    }
    crate::print(&table.to_string())
}

/// Describes the feedback on a rule: the share of useful firings with its 95 % interval.
fn useful(precision: Option<&BTreeMap<String, Precision>>, rule: &str) -> String {
    let Some(precision) = precision else { return String::new() };
    let Some(found) = precision.get(rule) else { return "no feedback".to_owned() };
    let (Some(share), Some(interval)) = (found.share(), found.interval()) else { return "no feedback".to_owned() };
    let judged = found.useful + found.noise;
    format!("{} of {judged} ({} to {})", percent(share), percent(interval.low), percent(interval.high))
}

/// Describes the state of a rule: whether its evaluations fail, since when, how often in a row, and why.
fn state(failing: Option<&BTreeMap<String, Failing>>, rule: &str) -> String {
    let Some(failing) = failing else { return "unknown: no tables given".to_owned() };
    let since = |row: &Failing| row.since.map_or_else(String::new, |since| format!(" since {}", time(since)));
    match failing.get(rule) {
        Some(row) if row.state == "firing" => {
            format!("failing{}, at least {} times in a row: {}", since(row), row.failures, row.error)
        }
        Some(row) if row.state == "pending" => format!("failing{}, retrying: {}", since(row), row.error),
        Some(row) if !row.error.is_empty() => format!("works; last error: {}", row.error),
        _ => "works".to_owned(),
    }
}

async fn check(opened: Workbench) -> Result<ExitCode> {
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
        // A rate is rarely a whole number, so integer division is worth a warning; it may be intended.
        let warnings: Vec<String> = session.whole_divisions(&rule.sql).await.unwrap_or_default();
        let unweighted = unweighted(&session, rule).await;
        match try_rule(&session, rule).await {
            Ok(0) if opened.lake.is_some() => lines.push(format!("✓ {}: no observations in these tables", rule.name)),
            Ok(_) if opened.lake.is_none() => lines.push(format!("✓ {}", rule.name)),
            Ok(found) => lines.push(format!("✓ {}: {found} observations", rule.name)),
            Err(why) => {
                bad += 1;
                lines.push(format!("✗ {} ({}): {why}", rule.name, rule.origin));
            }
        }
        lines.extend(unweighted.into_iter().map(|table| {
            format!(
                "! {}: counts rows of `{table}` without their sampling weight; hint: {}",
                rule.name, "select weight_micros and group by it, or read a view, which is weighted (docs/alerts.md)"
            )
        }));
        lines.extend(warnings.into_iter().map(|division| {
            format!(
                "! {}: `{division}` is an integer division, so 1 / 2 is 0; hint: write CAST(... AS DOUBLE) / ...",
                rule.name
            )
        }));
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
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Returns the tables of sampled runs that a rule counts without their weights. A rule on whole tables is judged by its
/// aggregates only; for the others the detector aggregates, so that every row counts.
async fn unweighted(session: &Session, rule: &Rule) -> Vec<&'static str> {
    let adding = matches!(rule.source, Source::Tables);
    session.unweighted(&rule.sql, adding).await.unwrap_or_default()
}

async fn test(opened: &Workbench, files: &[PathBuf]) -> Result<ExitCode> {
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
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

async fn replay(opened: &Workbench, rule: &str, from: i64, to: i64) -> Result<ExitCode> {
    let Some(lake) = &opened.lake else {
        return Err(unnamed());
    };
    if from >= to {
        return Err(
            Error::config("--from is not before --to").with_hint("the replay covers the time from --from to --to")
        );
    }
    let request = ReplayRequest {
        rules: &opened.rules,
        name: rule,
        contracts: &opened.contracts,
        settings: &opened.settings,
        from,
        to,
    };
    let found = Box::pin(replayed(lake, request)).await?;
    let mut lines = Vec::new();
    for row in &found.rows {
        let late = match row.change {
            ChangeKind::New => "",
            ChangeKind::Restated => " (restated)",
            ChangeKind::Late => " (late, by a correction)",
            ChangeKind::Moved => " (moved by a correction)",
            ChangeKind::Retracted => " (retracted)",
        };
        lines.push(format!("{}  {:<9} {}{late}", time(row.at), row.state, row.title));
    }
    match &found.status {
        Status::Broken(why) => return Err(Error::config(format!("rule `{rule}` failed: {why}"))),
        Status::Waiting => lines.push("no observations: the query returned no rows".to_owned()),
        Status::Watching => {}
    }
    let times = if found.fired == 1 { "time" } else { "times" };
    lines.push(format!(
        "fired {} {times} in {:.1} days ({} per month)",
        found.fired,
        found.days,
        number(found.a_month)
    ));
    lines.push(match found.allowed {
        Some(allowed) => format!(
            "false alarms: at most {} per month by this rule's share of the budget; compare with the firings above that had no real cause",
            number(allowed)
        ),
        None => "false alarms: this rule has no bound".to_owned(),
    });
    if let Some(delay) = found.delay {
        lines.push(format!("delay: {delay} min (median, from the estimated start of the change to firing)"));
    }
    crate::print(&lines.join("\n"))
}

/// Formats a time, microseconds since 1970, as RFC 3339.
pub(crate) fn time(micros: i64) -> String {
    let since = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}
