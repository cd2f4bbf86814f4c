//! `bellwether alerts list`.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bellwether_alerts::current::{CurrentAlert, current_alerts};
use bellwether_alerts::hands::{Hands, Matchers};
use bellwether_base::{Error, Result};
use bellwether_queries::{Session, SessionSettings};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::marks::Marks;
use super::{Stop, when};
use crate::root::RootArgs;
use crate::rules::time;
use crate::screen;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Include resolved alerts.
    #[arg(long)]
    all: bool,
    /// Only alerts in this state; repeat it for several.
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "all")]
    state: Vec<State>,
    /// Only alerts about this task.
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Only alerts of this rule.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Only alerts with this label, as a silence matches it; repeat it for several.
    #[arg(long, value_name = "MATCHER")]
    label: Vec<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// A state of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Pending,
    Firing,
    Resolved,
}

/// An alert with its title and marks.
struct Listed<'a> {
    alert: &'a CurrentAlert,
    title: String,
    marks: Marks<'a>,
}

// === impl ListArgs ===

impl ListArgs {
    fn shows(&self, alert: &CurrentAlert, matchers: &Matchers) -> bool {
        let in_state = match (self.all, self.state.as_slice()) {
            (true, _) => true,
            (false, []) => ["pending", "firing"].contains(&alert.state.as_str()),
            (false, states) => states.iter().any(|state| {
                let name = match state {
                    State::Pending => "pending",
                    State::Firing => "firing",
                    State::Resolved => "resolved",
                };
                name == alert.state
            }),
        };
        in_state
            && self.rule.as_ref().is_none_or(|rule| *rule == alert.rule)
            && self.task.as_ref().is_none_or(|task| alert.labels.get("task") == Some(task))
            && matchers.match_labels(&alert.matched_labels())
    }

    fn is_filtered(&self) -> bool {
        !self.state.is_empty() || self.task.is_some() || self.rule.is_some() || !self.label.is_empty()
    }
}

pub(super) async fn run(args: ListArgs) -> Result<(), Stop> {
    let matchers =
        args.label.iter().try_fold(Matchers::default(), |all, text| Ok::<_, Error>(all.and(Matchers::parse(text)?)))?;
    let lake = args.root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let hands = Hands::load(&lake).await?;
    let mut alerts = current_alerts(&lake).await?;
    let total = alerts.len();
    alerts.retain(|alert| args.shows(alert, &matchers));
    // Firing before pending, pages before tickets, new before old.
    let rank = |state: &str| ["firing", "pending"].iter().position(|known| *known == state).unwrap_or(2);
    alerts.sort_by_key(|alert| (rank(&alert.state), alert.severity != "page", -alert.at));
    if alerts.is_empty() && !args.json {
        crate::print(match (args.is_filtered(), args.all) {
            (true, _) if total > 0 => "no alert matches; leave a filter out, or add --all to include resolved ones",
            (_, true) => "no alerts yet",
            _ => "no pending or firing alerts; add --all to include resolved ones",
        })?;
        return Ok(());
    }
    let mut titles = titles(&session).await?;
    let now = lake.clock().now_micros();
    let listed: Vec<Listed<'_>> = alerts
        .iter()
        .map(|alert| Listed {
            title: titles.remove(&key(alert)).unwrap_or_default(),
            marks: Marks::of(alert, &hands, now),
            alert,
        })
        .collect();
    if args.json {
        let all: Vec<Value> =
            listed.iter().map(|listed| in_json(listed.alert, &listed.title, &listed.marks, now)).collect();
        crate::print(&format!("{:#}", Value::Array(all)))?;
        return Ok(());
    }
    crate::print(&match screen::width() {
        Some(width) => entries(&listed, now, width),
        None => rows(&listed),
    })?;
    crate::print("show the evidence of one with `bellwether alerts show ID`")?;
    Ok(())
}

/// What identifies the row that holds an alert's present state.
type RowKey = (String, String, bool, i64);

fn key(alert: &CurrentAlert) -> RowKey {
    (alert.alert_id.clone(), alert.state.clone(), alert.stale, alert.at)
}

/// Reads the latest title of every state of every alert.
async fn titles(session: &Session) -> Result<BTreeMap<RowKey, String>> {
    let sql = "SELECT alert_id, state, title, stale, at FROM alerts WHERE change <> 'retracted' ORDER BY evaluation";
    let mut titles = BTreeMap::new();
    for batch in session.execute(sql).await?.collect().await? {
        let text = |place: usize| cast(batch.column(place), &DataType::Utf8);
        let (ids, states, named) = (text(0)?, text(1)?, text(2)?);
        let (stale, at) = (batch.column(3).as_boolean(), batch.column(4).as_primitive::<TimestampMicrosecondType>());
        for row in 0..batch.num_rows() {
            let text = |column: &arrow::array::ArrayRef| column.as_string::<i32>().value(row).to_owned();
            titles.insert((text(&ids), text(&states), stale.value(row), at.value(row)), text(&named));
        }
    }
    Ok(titles)
}

/// Reads the title of one alert.
pub(super) async fn title(session: &Session, alert: &CurrentAlert) -> Result<String> {
    Ok(titles(session).await?.remove(&key(alert)).unwrap_or_default())
}

/// Returns an alert as a JSON object. Times are RFC 3339.
pub(super) fn in_json(alert: &CurrentAlert, title: &str, marks: &Marks<'_>, now: i64) -> Value {
    json!({
        "alert_id": alert.alert_id,
        "rule": alert.rule,
        "severity": alert.severity,
        "state": alert.state,
        "stale": alert.stale,
        "since": time(alert.at),
        "age_seconds": now.saturating_sub(alert.at) / 1_000_000,
        "firing_since": alert.firing_since().map(time),
        "title": title,
        "labels": alert.labels,
        "acknowledged": marks.ack.map(|ack| json!({
            "by": ack.person, "reason": ack.reason, "at": time(ack.at), "until": ack.until.map(time),
        })),
        "silenced": marks.silence.map(|silence| json!({
            "silence_id": silence.id, "by": silence.person, "reason": silence.reason, "until": time(silence.ends_at()),
        })),
    })
}

pub(super) fn state(alert: &CurrentAlert) -> String {
    if alert.stale { format!("{}, stale", alert.state) } else { alert.state.clone() }
}

/// Formats alerts for a terminal of any width: id, severity, rule and state, then the title and the marks, wrapped.
fn entries(listed: &[Listed<'_>], now: i64, width: usize) -> String {
    let mut lines = Vec::new();
    for Listed { alert, title, marks } in listed {
        let head = format!(
            "{}  {}  {}  {}, since {}",
            alert.alert_id,
            alert.severity,
            alert.rule,
            state(alert),
            when::with_age(alert.at, now)
        );
        lines.extend(screen::wrap(&head, width));
        for text in std::iter::once(title.clone()).chain(marks.lines(now)) {
            lines.extend(screen::wrap(&text, width.saturating_sub(4)).into_iter().map(|line| format!("    {line}")));
        }
    }
    lines.join("\n")
}

/// Formats alerts as a table, one row each.
fn rows(listed: &[Listed<'_>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
    let marked = listed.iter().any(|listed| !listed.marks.words().is_empty());
    let mut header = vec!["id", "severity", "state", "since", "rule", "title"];
    header.extend(marked.then_some("marks"));
    table.set_header(header);
    for Listed { alert, title, marks } in listed {
        let mut cells = vec![
            alert.alert_id.clone(),
            alert.severity.clone(),
            state(alert),
            time(alert.at),
            alert.rule.clone(),
            screen::one_line(title),
        ];
        cells.extend(marked.then(|| screen::one_line(&marks.words())));
        table.add_row(cells);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use bellwether_alerts::hands::{Action, ActionKind, Origin};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn alert() -> CurrentAlert {
        CurrentAlert {
            alert_id: "4f80a64ee339139e".to_owned(),
            rule: "unknown_outcome_regression".to_owned(),
            severity: "ticket".to_owned(),
            state: "firing".to_owned(),
            stale: true,
            at: 1_700_000_000_000_000,
            labels: BTreeMap::from([("task".to_owned(), "invoice_extraction".to_owned())]),
            fired_at: Some(1_700_000_000_000_000),
        }
    }

    #[test]
    fn a_list_fits_any_terminal_and_omits_nothing() {
        let alert = alert();
        let title = "invoice_extraction: share of unknown outcomes 3.4 % → 11.1 % on release extract-7.4".to_owned();
        let now = alert.at + 8_460_000_000;
        let ack = Action {
            alert_id: Some(alert.alert_id.clone()),
            firing_since: alert.fired_at,
            reason: Some("rolling back".to_owned()),
            ..Action::new("1".to_owned(), ActionKind::Ack, "ada", now - 60_000_000, Origin::Cli)
        };
        let silence = Action {
            matchers: Some("{task=~\"invoice.*\"}".to_owned()),
            starts_at: Some(alert.at),
            until: Some(now + 60_000_000),
            ..Action::new("2".to_owned(), ActionKind::Silence, "bob", alert.at, Origin::Cli)
        };
        let hands = Hands::of([ack, silence]);
        let listed = [Listed { title: title.clone(), marks: Marks::of(&alert, &hands, now), alert: &alert }];
        for width in [40, 80, 120, 200] {
            let text = entries(&listed, now, width);
            assert!(text.lines().all(|line| line.width() <= width), "{width}\n{text}");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [
                "4f80a64ee339139e",
                "firing, stale, since 2023-11-14 22:13:20 UTC (2 h 21 min ago)",
                title.as_str(),
                "acknowledged by ada (1 min ago): rolling back",
                "silenced by bob until 2023-11-15 00:35:20 UTC (in 1 min), silence 2",
            ] {
                assert!(words.contains(part), "{part} is missing in\n{text}");
            }
        }
        let row = rows(&listed);
        assert!(
            row.contains("2023-11-14T22:13:20Z") && row.contains(&title) && row.contains("acknowledged by ada"),
            "{row}"
        );
        let none = Hands::default();
        let unmarked = [Listed { title, marks: Marks::of(&alert, &none, now), alert: &alert }];
        assert!(!rows(&unmarked).contains("marks"));
    }
}
