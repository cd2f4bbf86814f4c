//! `bellwether candidates list`: the queue.

use std::process::ExitCode;

use bellwether_base::Result;
use bellwether_evals::class::Class;
use bellwether_queries::{Session, SessionSettings, quoted};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::filter::FilterArgs;
use super::{Candidate, WIDE, history};
use crate::root::RootArgs;
use crate::screen;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Include candidates that are decided.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only candidates of this class, such as escalated.
    #[arg(long, value_name = "CLASS", value_parser = classes(), hide_possible_values = true)]
    class: Option<String>,
    /// Most candidates.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// A candidate, with the history of its failure signature if the signature was last seen in the candidate's week.
#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    candidate: Candidate,
    #[serde(default)]
    history: Option<String>,
    #[serde(default)]
    weeks_absent: Option<i64>,
}

/// Accepts the name of a class.
fn classes() -> PossibleValuesParser {
    let all = Class::FAILURES.into_iter().chain([Class::Uncertain, Class::Success]);
    PossibleValuesParser::new(all.map(Class::name))
}

/// Lists candidates.
///
/// # Errors
/// `Config` if there are no tables; `Unavailable` if storage does not respond.
pub(super) async fn run(args: &ListArgs) -> Result<ExitCode> {
    let lake = args.root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let mut conditions = args.filter.conditions();
    conditions.extend((!args.all).then(|| "state IN ('queued', 'leased', 'second_review')".to_owned()));
    conditions.extend(args.class.as_deref().map(|class| format!("class = {}", quoted(class))));
    let filter = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
    let limit = args.limit;
    // Only in its latest week is a signature new or back.
    let sql = format!(
        "WITH c AS (SELECT * FROM current_candidates WHERE {filter} ORDER BY priority LIMIT {limit}) \
         SELECT c.*, s.history, s.weeks_absent FROM c LEFT JOIN failure_signatures AS s ON s.tenant = c.tenant \
         AND s.task = coalesce(c.task, '') AND s.class = c.class AND s.signature = c.signature AND s.last_week = c.week \
         ORDER BY c.priority"
    );
    if args.json {
        let rows: Vec<Map<String, Value>> = session.rows(&sql).await?;
        return crate::print(&format!("{:#}", Value::from_iter(rows)));
    }
    let rows: Vec<Listed> = session.rows(&sql).await?;
    if rows.is_empty() {
        return crate::print(match conditions.len() == usize::from(!args.all) {
            true => "no candidates to review; the role `evals` samples them if `evals.sample` is on",
            false => "no candidate matches; leave a filter out, or add --all to include decided ones",
        });
    }
    let headers =
        ["id", "state", "class", "severity", "task", "release", "weight", "seen", "signature"].map(str::to_owned);
    let text = |text: &str| screen::Value { text: screen::one_line(text), ..screen::Value::default() };
    let whole = |text: String| screen::Value { text, whole: true, right: false };
    let cells = |listed: &Listed| {
        let candidate = &listed.candidate;
        vec![
            whole(candidate.candidate_id.chars().take(8).collect()),
            text(&state(candidate)),
            text(&candidate.class),
            text(&candidate.severity),
            text(candidate.task.as_deref().unwrap_or_default()),
            text(candidate.release_id.as_deref().unwrap_or_default()),
            whole(format!("{:.1}", 1.0 / candidate.inclusion_probability)),
            text(&history::mark(listed.history.as_deref(), listed.weeks_absent)),
            text(&candidate.signature),
        ]
    };
    let rows: Vec<Vec<screen::Value>> = rows.iter().map(cells).collect();
    crate::print(&screen::table(&headers, &rows, screen::width().unwrap_or(WIDE)).text)
}

/// Returns the state of a candidate, with the person who has it.
fn state(candidate: &Candidate) -> String {
    match &candidate.leased_by {
        Some(person) => format!("{} by {person}", candidate.state),
        None => candidate.state.clone(),
    }
}
