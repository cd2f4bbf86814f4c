//! `bellwether rules`: what is watched, whether it can be, its unit tests, and what it would have fired.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bellwether_alerts::engine::{Status, try_rule};
use bellwether_alerts::history::replayed;
use bellwether_alerts::record::{ChangeKind, RULE_FAILING};
use bellwether_alerts::rule::Source;
use bellwether_alerts::{Contracts, Rule, Rules, Settings, test_file};
use bellwether_lake::{Error, ErrorKind, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use bellwether_stats::figure::number;
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
        RulesCommand::List { place } => Box::pin(list(&place)).await,
        RulesCommand::Check { place } => check(place.open(true).await?).await,
        RulesCommand::Test { files, place } => test(&place.open(false).await?, &files).await,
        RulesCommand::Replay { rule, from, to, place } => replay(&place.open(true).await?, &rule, from, to).await,
    }
}

/// How the evaluations of a rule go, as the process that watches has told it in `alerts`.
#[derive(Default)]
struct Told {
    state: String,
    failures: i64,
    since: Option<i64>,
    error: String,
}

/// What was told of rules that fail, the newest of each.
async fn told(lake: &Lake) -> Result<BTreeMap<String, Told>> {
    let session = Session::open(lake, SessionSettings::default()).await?;
    let sql = format!(
        "SELECT title, state, canary_events, since, notes FROM alerts WHERE rule = '{RULE_FAILING}' ORDER BY evaluation, at, \
         CASE state WHEN 'pending' THEN 0 ELSE 1 END"
    );
    let mut told = BTreeMap::new();
    for batch in session.execute(&sql).await?.collect().await? {
        let text = |place: usize| cast(batch.column(place), &DataType::Utf8);
        let (title, state, notes) = (text(0)?, text(1)?, text(4)?);
        let failures = batch.column(2).as_primitive::<Int64Type>();
        let since = cast(batch.column(3), &DataType::Int64)?;
        for row in 0..batch.num_rows() {
            // A title begins with the rule's name.
            let title = title.as_string::<i32>().value(row);
            let name = title.split_once(':').map_or(title, |(name, _)| name).to_owned();
            let since = since.as_primitive::<Int64Type>();
            told.insert(
                name,
                Told {
                    state: state.as_string::<i32>().value(row).to_owned(),
                    failures: if failures.is_valid(row) { failures.value(row) } else { 0 },
                    since: since.is_valid(row).then(|| since.value(row)),
                    error: notes.as_string::<i32>().value(row).to_owned(),
                },
            );
        }
    }
    Ok(told)
}

async fn list(place: &Place) -> Result<ExitCode> {
    // Rules can be listed before there are tables; how they do is told where there are.
    let opened = match place.open(true).await {
        Err(error) if error.kind() == ErrorKind::Config => place.open(false).await?,
        opened => opened?,
    };
    let told = match &opened.lake {
        Some(lake) => Some(Box::pin(told(lake)).await?),
        None => None,
    };
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["rule", "severity", "detector", "rows of", "from", "state", "what"]);
    for rule in &opened.rules.rules {
        table.add_row([
            rule.name.as_str(),
            rule.severity.name(),
            rule.settings_name(),
            rule.source.name(),
            rule.origin.as_str(),
            &state(told.as_ref(), &rule.name),
            rule.doc.as_str(),
        ]);
    }
    for broken in &opened.rules.broken {
        let why = format!("cannot be used: {}", broken.why);
        table.add_row([broken.name.as_str(), "", "", "", broken.origin.as_str(), "broken", &why]);
    }
    for name in &opened.rules.disabled {
        table.add_row([name.as_str(), "", "", "", "", "disabled", ""]);
    }
    crate::print(&table.to_string())
}

/// The state of a rule: how often it failed in a row when that was told, why, and since when.
fn state(told: Option<&BTreeMap<String, Told>>, rule: &str) -> String {
    let Some(told) = told else { return "not known: no tables named".to_owned() };
    let since = |told: &Told| told.since.map_or_else(String::new, |since| format!(" since {}", time(since)));
    match told.get(rule) {
        Some(told) if told.state == "firing" => {
            format!("fails{}, {} failures in a row or more: {}", since(told), told.failures, told.error)
        }
        Some(told) if told.state == "pending" => format!("failed{}, tried again: {}", since(told), told.error),
        Some(told) if !told.error.is_empty() => format!("works; last error: {}", told.error),
        _ => "works".to_owned(),
    }
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
        // A share is almost never a whole number: what drops its rest is told, and may be meant.
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
                "! {}: counts rows of `{table}` without for how many runs each stands; hint: {}",
                rule.name,
                "select weight_micros and group by it, or read a view, whose figures are weighted (docs/alerts.md)"
            )
        }));
        lines.extend(warnings.into_iter().map(|division| {
            format!(
                "! {}: `{division}` divides whole numbers, so that 1 / 2 is 0; hint: write CAST(... AS DOUBLE) / ...",
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
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) })
}

/// Tables whose sampled runs a rule counts as if each stood for itself. Of a rule on whole tables only what is added up
/// matters; of others, the detector adds up.
async fn unweighted(session: &Session, rule: &Rule) -> Vec<&'static str> {
    let adding = matches!(rule.source, Source::Tables);
    session.unweighted(&rule.sql, adding).await.unwrap_or_default()
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
            ChangeKind::Restated => " (as before)",
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
    lines.push(format!("fired {} times in {:.1} days: {} a month", found.fired, found.days, number(found.a_month)));
    lines.push(match found.allowed {
        Some(allowed) => format!(
            "false alarms: at most {} a month by its part of the budget; of what fired, all that was no trouble is false",
            number(allowed)
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
