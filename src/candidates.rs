//! `bellwether candidates`: the runs to review, and decisions about them.
//!
//! A decision is an event `run.review` on the Kafka topic, like one of any other tool: nothing here writes a table.

mod decide;

use std::process::ExitCode;

use bellwether_base::{Error, Result};
use bellwether_queries::{Session, SessionSettings};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::root::RootArgs;
use crate::screen;

pub(crate) use decide::DecideArgs;

/// Fewest characters of an id.
const LEAST_ID: usize = 4;

/// Widest list without a terminal.
const WIDE: usize = 160;

/// Runs to review: list and show them, and decide.
#[derive(Subcommand, Debug)]
pub(crate) enum CandidatesCommand {
    /// List the queue: candidates that need a decision, the most urgent first.
    List(ListArgs),
    /// Show a candidate with its run: failure, answers, tool calls, scores and reviews.
    Show(ShowArgs),
    /// Decide that the answer is good.
    Accept(DecideArgs),
    /// Decide that the answer is wrong, and give the right one.
    Edit(DecideArgs),
    /// Decide that the answer is wrong.
    Reject(DecideArgs),
    /// State that you cannot tell; the candidate stays in the queue.
    Unsure(DecideArgs),
    /// Leave the candidate to others; it stays in the queue.
    Skip(DecideArgs),
    /// Take back your own decision; the candidate returns to the queue.
    Reopen(DecideArgs),
}

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

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Id of the candidate, or its first characters.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

/// A candidate, as view `current_candidates` has it.
#[derive(Clone, Debug, Deserialize)]
struct Candidate {
    candidate_id: String,
    state: String,
    class: String,
    severity: String,
    task: Option<String>,
    release_id: Option<String>,
    signature: String,
    run_id: String,
    source: String,
    tenant: String,
    inclusion_probability: f64,
    reviewers: Option<String>,
}

pub(crate) async fn run(command: CandidatesCommand) -> Result<ExitCode> {
    match command {
        CandidatesCommand::List(args) => list(&args).await,
        CandidatesCommand::Show(args) => show(&args).await,
        CandidatesCommand::Accept(args) => decide::run(&args, "accept").await,
        CandidatesCommand::Edit(args) => decide::run(&args, "edit").await,
        CandidatesCommand::Reject(args) => decide::run(&args, "reject").await,
        CandidatesCommand::Unsure(args) | CandidatesCommand::Reopen(args) => decide::run(&args, "unsure").await,
        CandidatesCommand::Skip(args) => decide::run(&args, "skip").await,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

async fn list(args: &ListArgs) -> Result<ExitCode> {
    let lake = args.root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let mut conditions = Vec::new();
    conditions.extend((!args.all).then(|| "state IN ('queued', 'second_review')".to_owned()));
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
            text(&candidate.state),
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

/// Finds a candidate by its id or the first characters of it.
async fn find(session: &Session, id: &str) -> Result<Candidate> {
    if id.len() < LEAST_ID || !id.chars().all(|char| char.is_ascii_alphanumeric() || char == '-') {
        return Err(Error::config(format!("`{id}` is not the id of a candidate"))
            .with_hint("`bellwether candidates list` shows the ids"));
    }
    let sql = format!("SELECT * FROM current_candidates WHERE starts_with(candidate_id, {}) LIMIT 2", quoted(id));
    let mut found: Vec<Candidate> = session.rows(&sql).await?;
    match (found.pop(), found.pop()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Error::config(format!("several candidates begin with `{id}`")).with_hint("add more characters"))
        }
        _ => Err(Error::config(format!("no candidate `{id}`"))
            .with_hint("`bellwether candidates list --all` shows all; a run that was erased is no candidate any more")),
    }
}

/// Columns of a run that a reviewer reads, in this order.
const OF_RUN: [&str; 16] = [
    "ended_at",
    "outcome_status",
    "outcome_reason_code",
    "failure_component",
    "failure_error_type",
    "model",
    "prompt_name",
    "prompt_version",
    "latency_ms",
    "cost",
    "content_json",
    "steps_json",
    "tool_calls",
    "retrieval",
    "field_errors",
    "scores",
];

async fn show(args: &ShowArgs) -> Result<ExitCode> {
    let lake = args.root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let candidate = find(&session, &args.id).await?;
    let id = quoted(&candidate.candidate_id);
    let whole = format!("SELECT * FROM current_candidates WHERE candidate_id = {id}");
    let of_run = format!(
        "run_id = {} AND tenant = {} AND source = {}",
        quoted(&candidate.run_id),
        quoted(&candidate.tenant),
        quoted(&candidate.source)
    );
    let run = format!("SELECT {} FROM runs WHERE {of_run} ORDER BY attempt DESC LIMIT 1", OF_RUN.join(", "));
    let reviews = format!(
        "SELECT event_time, reviewer, review_decision, review_failure_mode, review_make_eval_case FROM events
        WHERE event_type = 'run.review' AND run_id = {} ORDER BY event_time",
        quoted(&candidate.run_id)
    );
    let rows = |sql: String| {
        let session = &session;
        async move { session.rows::<Map<String, Value>>(&sql).await }
    };
    let (whole, mut run, reviews) = (rows(whole).await?, rows(run).await?, rows(reviews).await?);
    if args.json {
        let all = serde_json::json!({ "candidate": whole.first(), "run": run.pop(), "reviews": reviews });
        return crate::print(&format!("{all:#}"));
    }
    let width = screen::width();
    let pairs = |row: &Map<String, Value>, names: &[&str]| {
        let shown = names.iter().filter_map(|name| Some((*name, words(name, row.get(*name)?)?)));
        screen::pairs(shown, width)
    };
    let names: Vec<&str> = whole.first().map(|row| row.keys().map(String::as_str).collect()).unwrap_or_default();
    crate::print(&format!("Candidate {} is {}", candidate.candidate_id, candidate.state.replace('_', " ")))?;
    crate::print(&whole.first().map(|row| pairs(row, &names)).unwrap_or_default())?;
    crate::print("\nRun")?;
    match run.pop() {
        Some(row) => {
            crate::print(&pairs(&row, &OF_RUN))?;
            if row.get("content_json").is_none_or(Value::is_null) {
                crate::print("  The content is not stored here: ask the producer for the run, by its id.")?;
            }
        }
        None => crate::print("  Its events are no longer kept.").map(|_| ())?,
    }
    if !reviews.is_empty() {
        crate::print("\nReviews")?;
        for review in &reviews {
            crate::print(&pairs(review, &["event_time", "reviewer", "review_decision", "review_failure_mode"]))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a value in words; none if it is empty.
fn words(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(list) if list.is_empty() => None,
        Value::Number(number) if name.ends_with("_at") || name == "event_time" || name == "last_reviewed" => {
            number.as_i64().map(crate::rules::time)
        }
        other => Some(other.to_string()),
    }
}
