//! `bellwether alerts show`.

use std::io::IsTerminal;
use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_alerts::current::{CurrentAlert, current_alerts};
use bellwether_alerts::hands::{Action, ActionKind, Hands};
use bellwether_base::{Error, Result};
use bellwether_evidence::{AlertRecord, LinkSettings, Links, PageSource};
use bellwether_lake::Lake;
use bellwether_queries::{Session, SessionSettings};
use bellwether_sinks::Page;
use serde_json::{Value, json};

use super::find::find;
use super::list::{in_json, state, title};
use super::marks::Marks;
use super::{Stop, evidence, when};
use crate::root::{RootArgs, open_to_read};
use crate::screen;

/// Longest time for one part of a page: a person waits for it, and can end it.
const LONGEST_STATEMENT: Duration = Duration::from_secs(60);

/// Width of a page that does not go to a terminal, columns.
const PAGE_WIDTH: usize = 100;

pub(super) async fn run(root: &RootArgs, id: &str, as_json: bool) -> Result<(), Stop> {
    let lake = root.open_to_read().await?;
    let alerts = current_alerts(&lake).await?;
    let alert = find(&alerts, id)?;
    let hands = Hands::load(&lake).await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let now = lake.clock().now_micros();
    let (title, marks) = (title(&session, alert).await?, Marks::of(alert, &hands, now));
    let transitions = transitions(&session, alert).await?;
    let row = evidence_row(&session, alert).await?;
    let actions = actions(&hands, alert);
    if as_json {
        let mut whole = in_json(alert, &title, &marks, now);
        whole["transitions"] = rows_in_json(&transitions)?;
        whole["evidence"] = rows_in_json(&row)?.get_mut(0).map(Value::take).unwrap_or_default();
        whole["actions"] = json!(actions.iter().map(|action| action_in_json(action)).collect::<Vec<_>>());
        crate::print(&format!("{whole:#}"))?;
        return Ok(());
    }
    let width = screen::width();
    let wrapped = |text: &str| screen::wrap(text, width.unwrap_or(usize::MAX)).join("\n");
    crate::print(&format!("{} is {}, since {}", alert.alert_id, state(alert), when::with_age(alert.at, now)))?;
    crate::print(&wrapped(&title))?;
    for mark in marks.lines(now) {
        crate::print(&wrapped(&mark))?;
    }
    crate::print("\nTransitions")?;
    crate::print(&evidence::transitions(&transitions, now, width)?)?;
    if !actions.is_empty() {
        crate::print("\nActions")?;
        for action in actions {
            let line = format!("{}: {}", when::with_age(action.at, now), words(action));
            let lines = screen::wrap(&line, width.map_or(usize::MAX, |width| width.saturating_sub(2)));
            crate::print(&lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))?;
        }
    }
    crate::print(&evidence_text(&row, now, width)?)?;
    Ok(())
}

async fn transitions(session: &Session, alert: &CurrentAlert) -> Result<Vec<RecordBatch>> {
    let sql = format!(
        "SELECT at, state_from, state, stale, why, change, title FROM alerts WHERE alert_id = '{}' ORDER BY evaluation, at",
        alert.alert_id
    );
    session.execute(&sql).await?.collect().await
}

/// Reads the row with the evidence of the firing if the alert has fired, of the latest transition otherwise.
async fn evidence_row(session: &Session, alert: &CurrentAlert) -> Result<Vec<RecordBatch>> {
    let sql = format!(
        "SELECT * FROM alerts WHERE alert_id = '{}' ORDER BY (state = 'firing' AND change <> 'retracted') DESC, evaluation DESC, at DESC LIMIT 1",
        alert.alert_id
    );
    session.execute(&sql).await?.collect().await
}

/// Prints the page of an alert.
pub(super) async fn page(root: &RootArgs, id: &str) -> Result<(), Stop> {
    let root = root.resolve()?;
    let lake = open_to_read(&root.uri, &root.options).await?;
    let alerts = current_alerts(&lake).await?;
    let alert = find(&alerts, id)?;
    let links = root.config.map_or_else(LinkSettings::default, |config| config.links);
    let page = Box::pin(page_of(lake, alert, &links)).await?;
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    crate::print(&bellwether_sinks::terminal(&page, screen::width().unwrap_or(PAGE_WIDTH), colour))?;
    Ok(())
}

/// Makes the page of an alert with all its evidence, however long that takes.
///
/// # Errors
/// `Unavailable` if the tables do not answer.
pub(crate) async fn page_of(lake: Lake, alert: &CurrentAlert, links: &LinkSettings) -> Result<Page> {
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let rows = evidence_row(&session, alert).await?;
    let records = rows.iter().map(AlertRecord::read).collect::<Result<Vec<_>>>()?;
    let record = records.into_iter().flatten().next();
    let record = record.ok_or_else(|| Error::bug(format!("alert `{}` has no row in `alerts`", alert.alert_id)))?;
    let source = PageSource::new(lake, Links::new(links)).patient(LONGEST_STATEMENT);
    Box::pin(source.page(&record)).await
}

/// Formats the evidence in a row of `alerts`.
fn evidence_text(row: &[RecordBatch], now: i64, width: Option<usize>) -> Result<String> {
    let (fields, sql) = (evidence::fields(row, now, width)?, evidence::sql(row)?);
    Ok(format!("\nEvidence\n{fields}\n\nTo reproduce the numbers, run this in `bellwether sql`:\n{sql}"))
}

/// Returns the actions on an alert: those that name it, and silences that cover it with their ends.
fn actions<'a>(hands: &'a Hands, alert: &CurrentAlert) -> Vec<&'a Action> {
    let labels = alert.matched_labels();
    let covering = hands.silences().filter(|silence| silence.covers(&labels, &alert.alert_id));
    let covering: Vec<&str> = covering.map(|silence| silence.id.as_str()).collect();
    let about = |action: &&Action| {
        let silence = action.silence_id.as_deref().unwrap_or(&action.action_id);
        action.alert_id.as_deref() == Some(alert.alert_id.as_str()) || covering.contains(&silence)
    };
    hands.actions().filter(about).collect()
}

/// Describes an action.
fn words(action: &Action) -> String {
    let until = action.until.map_or_else(String::new, |until| format!(" until {}", when::at(until)));
    let did = match action.kind {
        ActionKind::Ack => format!("acknowledged{until}"),
        ActionKind::Unack => "took the acknowledgement back".to_owned(),
        ActionKind::Silence => match &action.matchers {
            Some(matchers) => format!("silenced {matchers}{until}"),
            None => format!("silenced this alert{until}"),
        },
        ActionKind::Unsilence => "ended a silence".to_owned(),
        ActionKind::Feedback => format!("called it {}", action.verdict.map_or("", |verdict| verdict.name())),
    };
    let reason = action.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("{} {did}{reason}", action.person)
}

fn action_in_json(action: &Action) -> Value {
    json!({
        "action_id": action.action_id,
        "kind": action.kind,
        "by": action.person,
        "reason": action.reason,
        "at": crate::rules::time(action.at),
        "until": action.until.map(crate::rules::time),
        "verdict": action.verdict,
        "matchers": action.matchers,
        "origin": action.origin,
    })
}

/// Returns rows as a JSON array.
fn rows_in_json(rows: &[RecordBatch]) -> Result<Value> {
    let wrong = |source: serde_json::Error| Error::bug("rows cannot be written as JSON").with_source(source);
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&rows.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let text = writer.into_inner();
    if text.is_empty() { Ok(Value::Array(Vec::new())) } else { serde_json::from_slice(&text).map_err(wrong) }
}
