//! `bellwether alerts`: what fires, and why.

mod evidence;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_alerts::standing::{Current, current};
use bellwether_lake::{Error, Lake, Result, StorageOptions};
use bellwether_queries::{Session, SessionSettings};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::rules::{open, time};
use crate::{exit, screen};

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
  bellwether sql --root bellwether-data \"SELECT * FROM alerts WHERE state = 'firing' AND change = 'new'\"    what began to fire, as rows")]
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
    let mut titles = Vec::new();
    for alert in &alerts {
        titles.push(text(&session, &row_of(alert, "title")).await?);
    }
    let listed = alerts.iter().zip(&titles);
    crate::print(&match screen::width() {
        Some(width) => entries(listed, lake.clock().now_micros(), width),
        None => rows(listed),
    })?;
    crate::print("`bellwether alerts show ID` shows the evidence")
}

fn state(alert: &Current) -> String {
    if alert.stale { format!("{}, stale", alert.state) } else { alert.state.clone() }
}

/// Alerts for a terminal of any width: what and since when, then the title, as many lines as it takes.
fn entries<'a>(alerts: impl Iterator<Item = (&'a Current, &'a String)>, now: i64, width: usize) -> String {
    let mut lines = Vec::new();
    for (alert, title) in alerts {
        let head = format!(
            "{}  {}  {}  {}, since {}",
            alert.alert_id,
            alert.severity,
            alert.rule,
            state(alert),
            when::told(alert.at, now)
        );
        lines.extend(screen::wrap(&head, width));
        lines.extend(screen::wrap(title, width.saturating_sub(4)).into_iter().map(|line| format!("    {line}")));
    }
    lines.join("\n")
}

/// Alerts for a program, a row each.
fn rows<'a>(alerts: impl Iterator<Item = (&'a Current, &'a String)>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["id", "severity", "state", "since", "rule", "what"]);
    for (alert, title) in alerts {
        table.add_row([&alert.alert_id, &alert.severity, &state(alert), &time(alert.at), &alert.rule, title]);
    }
    table.to_string()
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
    let (id, now, width) = (&alert.alert_id, lake.clock().now_micros(), screen::width());
    let title = text(&session, &row_of(alert, "title")).await?;
    crate::print(&format!("{id} is {}, since {}", state(alert), when::told(alert.at, now)))?;
    crate::print(&screen::wrap(&title, width.unwrap_or(usize::MAX)).join("\n"))?;
    let transitions = format!(
        "SELECT at, state_from, state, stale, why, change, title FROM alerts WHERE alert_id = '{id}' ORDER BY evaluation, at"
    );
    crate::print("\nTransitions")?;
    crate::print(&evidence::transitions(&session.execute(&transitions).await?.collect().await?, now, width)?)?;
    // The evidence of the firing, where it fired; of what came last, otherwise.
    let row = format!(
        "SELECT * FROM alerts WHERE alert_id = '{id}' ORDER BY (state = 'firing' AND change <> 'retracted') DESC, evaluation DESC, at DESC LIMIT 1"
    );
    let row = session.execute(&row).await?.collect().await?;
    crate::print("\nEvidence")?;
    crate::print(&evidence::fields(&row, now, width)?)?;
    crate::print(&format!("\nThe numbers again, in `bellwether sql`:\n{}", evidence::sql(&row)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn a_list_fits_a_terminal_of_any_width_and_leaves_nothing_out() {
        let alert = Current {
            alert_id: "4f80a64ee339139e".to_owned(),
            rule: "unknown_outcome_regression".to_owned(),
            severity: "ticket".to_owned(),
            state: "firing".to_owned(),
            stale: true,
            at: 1_700_000_000_000_000,
        };
        let title = "invoice_extraction: share of unknown outcomes 3.4 % → 11.1 % on release extract-7.4".to_owned();
        let now = alert.at + 8_460_000_000;
        for width in [40, 80, 120, 200] {
            let text = entries([(&alert, &title)].into_iter(), now, width);
            assert!(text.lines().all(|line| line.width() <= width), "{width}\n{text}");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in
                ["4f80a64ee339139e", "firing, stale, since 2023-11-14 22:13:20 UTC (2 h 21 min ago)", title.as_str()]
            {
                assert!(words.contains(part), "{part} is missing in\n{text}");
            }
        }
        let row = rows([(&alert, &title)].into_iter());
        assert!(row.contains("2023-11-14T22:13:20Z") && row.contains(&title), "{row}");
    }
}
