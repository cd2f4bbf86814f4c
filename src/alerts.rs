//! `bellwether alerts`: what fires, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_alerts::standing::{Current, current};
use bellwether_lake::{Error, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::rules::{open, time};
use crate::{exit, sql};

/// Where the tables are.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Root of the tables: a folder or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
    /// Configuration that names the root instead.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", conflicts_with = "root")]
    config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum AlertsCommand {
    /// Lists what is pending or fires.
    #[command(after_help = "Examples:
  bellwether alerts list --root bellwether-data
  bellwether sql --root bellwether-data \"SELECT * FROM alerts WHERE state = 'firing'\"    the same as rows")]
    List {
        /// Also what has been resolved.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Shows one alert: its transitions, the whole row of evidence, and the SQL that gives the numbers again.
    Show {
        /// Its id, or the begin of it.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

impl Place {
    async fn open(&self) -> Result<Lake> {
        match (&self.root, &self.config) {
            (Some(root), _) => open(root, &StorageOptions::default()).await,
            (None, Some(file)) => {
                let config = Config::load(file)?;
                open(&config.tables.root, &StorageOptions(config.tables.options)).await
            }
            (None, None) => Err(Error::config("nothing says where the tables are")
                .with_hint("add --root DIR, or --config FILE, or set BELLWETHER_ROOT")),
        }
    }
}

pub(crate) async fn run(command: AlertsCommand) -> Result<ExitCode> {
    match command {
        AlertsCommand::List { all, place } => list(&place.open().await?, all).await,
        AlertsCommand::Show { id, place } => show(&place.open().await?, &id).await,
    }
}

async fn list(lake: &Lake, all: bool) -> Result<ExitCode> {
    let session = Session::open(lake, SessionSettings::default()).await?;
    let mut alerts = current(lake).await?;
    alerts.retain(|alert| all || ["pending", "firing"].contains(&alert.state.as_str()));
    // What pages comes first, then what is newest.
    alerts.sort_by_key(|alert| (alert.state != "firing", alert.severity != "page", -alert.at));
    if alerts.is_empty() {
        return crate::print(if all {
            "no alert has been told yet"
        } else {
            "nothing is pending or fires; --all shows what is over"
        });
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["id", "severity", "state", "since", "rule", "what"]);
    for alert in &alerts {
        let title = text(&session, &row_of(alert, "title")).await?;
        let state = if alert.stale { format!("{}, stale", alert.state) } else { alert.state.clone() };
        table.add_row([
            alert.alert_id.clone(),
            alert.severity.clone(),
            state,
            time(alert.at),
            alert.rule.clone(),
            title,
        ]);
    }
    crate::print(&table.to_string())?;
    crate::print("`bellwether alerts show ID` shows the evidence")
}

async fn show(lake: &Lake, id: &str) -> Result<ExitCode> {
    let alerts = current(lake).await?;
    let found: Vec<&Current> = alerts.iter().filter(|alert| alert.alert_id.starts_with(id)).collect();
    let alert = match found.as_slice() {
        [alert] => *alert,
        [] => {
            exit::report(
                &Error::config(format!("there is no alert `{id}`"))
                    .with_hint("`bellwether alerts list --all` lists them"),
            );
            return Ok(ExitCode::from(exit::NO));
        }
        many => {
            exit::report(&Error::config(format!("`{id}` begins {} ids", many.len())).with_hint("write more of it"));
            return Ok(ExitCode::from(exit::NO));
        }
    };
    let session = Session::open(lake, SessionSettings::default()).await?;
    let id = &alert.alert_id;
    crate::print(&format!("{} is {}\n", id, if alert.stale { "firing, stale" } else { alert.state.as_str() }))?;
    let transitions = format!(
        "SELECT at, state_from, state, stale, why, change, metrics_version, title FROM alerts WHERE alert_id = '{id}' ORDER BY evaluation, at"
    );
    sql::write_table(session.execute(&transitions).await?).await?;
    // The evidence of the firing, where it fired; of what came last, otherwise.
    let evidence = session.execute(&format!("SELECT * FROM alerts WHERE alert_id = '{id}' ORDER BY (state = 'firing' AND change <> 'retracted') DESC, evaluation DESC, at DESC LIMIT 1")).await?;
    crate::print("\nEvidence")?;
    crate::print(&sql::vertical(&evidence.collect().await?)?)?;
    let again = format!(
        "SELECT sql FROM alerts WHERE alert_id = '{id}' ORDER BY (state = 'firing' AND change <> 'retracted') DESC, evaluation DESC, at DESC LIMIT 1"
    );
    crate::print(&format!("\nThe numbers again, in `bellwether sql`:\n{}", text(&session, &again).await?))
}

/// The query of one column of the row that stands for an alert.
fn row_of(alert: &Current, column: &str) -> String {
    format!(
        "SELECT {column} FROM alerts WHERE alert_id = '{}' AND change <> 'retracted' AND state = '{}' AND stale = {} AND at = to_timestamp_micros({}) ORDER BY evaluation DESC LIMIT 1",
        alert.alert_id, alert.state, alert.stale, alert.at
    )
}

async fn text(session: &Session, query: &str) -> Result<String> {
    let batches = session.execute(query).await?.collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(String::new()) };
    let options = arrow::util::display::FormatOptions::default();
    let formatter = arrow::util::display::ArrayFormatter::try_new(batch.column(0).as_ref(), &options)?;
    Ok(formatter.value(0).to_string())
}
