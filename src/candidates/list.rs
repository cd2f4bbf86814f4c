//! `bellwether candidates list`: the queue.

use std::process::ExitCode;

use bellwether_base::Result;
use bellwether_queries::{Session, SessionSettings, quoted};
use clap::Args;
use serde_json::{Map, Value};

use super::{Candidate, WIDE};
use crate::root::RootArgs;
use crate::screen;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Include candidates that are decided.
    #[arg(long)]
    all: bool,
    /// Only candidates of this task.
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Only candidates of this class, such as escalated.
    #[arg(long, value_name = "CLASS")]
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

/// Lists candidates.
///
/// # Errors
/// `Config` if there are no tables; `Unavailable` if storage does not respond.
pub(super) async fn run(args: &ListArgs) -> Result<ExitCode> {
    let lake = args.root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let mut conditions = Vec::new();
    conditions.extend((!args.all).then(|| "state IN ('queued', 'leased', 'second_review')".to_owned()));
    conditions.extend(args.task.as_deref().map(|task| format!("task = {}", quoted(task))));
    conditions.extend(args.class.as_deref().map(|class| format!("class = {}", quoted(class))));
    let filter = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
    let limit = args.limit;
    let sql = format!("SELECT * FROM current_candidates WHERE {filter} ORDER BY priority LIMIT {limit}");
    if args.json {
        let rows: Vec<Map<String, Value>> = session.rows(&sql).await?;
        return crate::print(&format!("{:#}", Value::from_iter(rows)));
    }
    let rows: Vec<Candidate> = session.rows(&sql).await?;
    if rows.is_empty() {
        return crate::print(match (conditions.len(), args.all) {
            (0 | 1, true) | (1, false) => {
                "no candidates to review; the role `evals` samples them if `evals.sample` is on"
            }
            _ => "no candidate matches; leave a filter out, or add --all to include decided ones",
        });
    }
    let headers = ["id", "state", "class", "severity", "task", "release", "weight", "signature"].map(str::to_owned);
    let text = |text: &str| screen::Value { text: screen::one_line(text), ..screen::Value::default() };
    let whole = |text: String| screen::Value { text, whole: true, right: false };
    let cells = |candidate: &Candidate| {
        vec![
            whole(candidate.candidate_id.chars().take(8).collect()),
            text(&state(candidate)),
            text(&candidate.class),
            text(&candidate.severity),
            text(candidate.task.as_deref().unwrap_or_default()),
            text(candidate.release_id.as_deref().unwrap_or_default()),
            whole(format!("{:.1}", 1.0 / candidate.inclusion_probability)),
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
