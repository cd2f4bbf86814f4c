//! `bellwether alerts`: lists alerts and shows their evidence.

mod evidence;
mod when;

use std::process::ExitCode;

use bellwether_alerts::current::{CurrentAlert, current_alerts};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_queries::{Session, SessionSettings};
use clap::Subcommand;

use crate::root::RootArgs;
use crate::rules::time;
use crate::{exit, screen};

#[derive(Subcommand, Debug)]
pub(crate) enum AlertsCommand {
    /// List pending and firing alerts.
    #[command(after_help = "Examples:
  bellwether alerts list --root bellwether-data
  bellwether alerts list --root bellwether-data --all

To process alerts in a program, query the table:
  bellwether sql --root bellwether-data --format ndjson \"SELECT * FROM alerts WHERE change = 'new'\"")]
    List {
        /// Include resolved alerts.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Show one alert: its transitions, its evidence, and SQL that reproduces the numbers.
    #[command(after_help = "Examples:
  bellwether alerts show 4f80a64e --root bellwether-data")]
    Show {
        /// Id of the alert, or a unique prefix of it.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        root: RootArgs,
    },
}

pub(crate) async fn run(command: AlertsCommand) -> Result<ExitCode> {
    match command {
        AlertsCommand::List { all, root } => list(&root.open_to_read().await?, all).await,
        AlertsCommand::Show { id, root } => show(&root.open_to_read().await?, &id).await,
    }
}

async fn list(lake: &Lake, all: bool) -> Result<ExitCode> {
    let session = Session::open(lake, SessionSettings::default()).await?;
    let mut alerts = current_alerts(lake).await?;
    alerts.retain(|alert| all || ["pending", "firing"].contains(&alert.state.as_str()));
    // Firing before pending, pages before tickets, new before old.
    alerts.sort_by_key(|alert| (alert.state != "firing", alert.severity != "page", -alert.at));
    if alerts.is_empty() {
        return crate::print(if all {
            "no alerts yet"
        } else {
            "no pending or firing alerts; add --all to include resolved ones"
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
    crate::print("show the evidence of one with `bellwether alerts show ID`")
}

fn state(alert: &CurrentAlert) -> String {
    if alert.stale { format!("{}, stale", alert.state) } else { alert.state.clone() }
}

/// Formats alerts for a terminal of any width: id, severity, rule and state, then the title, wrapped.
fn entries<'a>(alerts: impl Iterator<Item = (&'a CurrentAlert, &'a String)>, now: i64, width: usize) -> String {
    let mut lines = Vec::new();
    for (alert, title) in alerts {
        let head = format!(
            "{}  {}  {}  {}, since {}",
            alert.alert_id,
            alert.severity,
            alert.rule,
            state(alert),
            when::with_age(alert.at, now)
        );
        lines.extend(screen::wrap(&head, width));
        lines.extend(screen::wrap(title, width.saturating_sub(4)).into_iter().map(|line| format!("    {line}")));
    }
    lines.join("\n")
}

/// Formats alerts as a table, one row each.
fn rows<'a>(alerts: impl Iterator<Item = (&'a CurrentAlert, &'a String)>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["id", "severity", "state", "since", "rule", "title"]);
    for (alert, title) in alerts {
        table.add_row([&alert.alert_id, &alert.severity, &state(alert), &time(alert.at), &alert.rule, title]);
    }
    table.to_string()
}

async fn show(lake: &Lake, id: &str) -> Result<ExitCode> {
    let alerts = current_alerts(lake).await?;
    let found: Vec<&CurrentAlert> = alerts.iter().filter(|alert| alert.alert_id.starts_with(id)).collect();
    let alert = match found.as_slice() {
        [alert] => *alert,
        [] => {
            exit::report(
                &Error::config(format!("no alert has the id `{id}`"))
                    .with_hint("list all ids with `bellwether alerts list --all`"),
            );
            return Ok(ExitCode::from(exit::FAILED));
        }
        many => {
            exit::report(
                &Error::config(format!("{} alert ids begin with `{id}`", many.len())).with_hint("give a longer prefix"),
            );
            return Ok(ExitCode::from(exit::FAILED));
        }
    };
    let session = Session::open(lake, SessionSettings::default()).await?;
    let (id, now, width) = (&alert.alert_id, lake.clock().now_micros(), screen::width());
    let title = text(&session, &row_of(alert, "title")).await?;
    crate::print(&format!("{id} is {}, since {}", state(alert), when::with_age(alert.at, now)))?;
    crate::print(&screen::wrap(&title, width.unwrap_or(usize::MAX)).join("\n"))?;
    let transitions = format!(
        "SELECT at, state_from, state, stale, why, change, title FROM alerts WHERE alert_id = '{id}' ORDER BY evaluation, at"
    );
    crate::print("\nTransitions")?;
    crate::print(&evidence::transitions(&session.execute(&transitions).await?.collect().await?, now, width)?)?;
    // The evidence of the firing if it has fired, of the latest transition otherwise.
    let row = format!(
        "SELECT * FROM alerts WHERE alert_id = '{id}' ORDER BY (state = 'firing' AND change <> 'retracted') DESC, evaluation DESC, at DESC LIMIT 1"
    );
    let row = session.execute(&row).await?.collect().await?;
    crate::print("\nEvidence")?;
    crate::print(&evidence::fields(&row, now, width)?)?;
    crate::print(&format!("\nTo reproduce the numbers, run this in `bellwether sql`:\n{}", evidence::sql(&row)?))
}

/// Returns the query of one column of the row that holds an alert's current state.
fn row_of(alert: &CurrentAlert, column: &str) -> String {
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
    fn a_list_fits_any_terminal_and_omits_nothing() {
        let alert = CurrentAlert {
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
