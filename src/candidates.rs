//! `bellwether candidates`: the runs to review, and decisions about them.
//!
//! * `plan`, `list` and `show` read; `next` is the screen on which people review; `decide` has the commands that state one thing.
//! * `filter`: selects a part of the queue. `history`: says when a failure was seen before.
//! * `case`: a candidate with everything that a reviewer reads. `content`: input and output that are stored elsewhere. `answer`:
//!   expected answers.
//! * `desk`: what a reviewer takes from the queue and sends. `statement`: decisions, leases and retirements as events.
//!
//! Rule: a statement is an event `run.review` on the Kafka topic, like one of any other tool. Nothing here writes a table, and the view
//! `current_candidates` alone says what the statements amount to.

mod answer;
mod case;
mod content;
mod decide;
mod desk;
mod filter;
mod history;
mod list;
mod next;
mod plan;
mod show;
mod statement;

use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_queries::{Session, quoted};
use clap::Subcommand;
use serde::Deserialize;

pub(crate) use content::{PLACE as CONTENT_PLACE, Part, parts};
pub(crate) use decide::{DecideArgs, RetireArgs, TakeArgs};
pub(crate) use list::ListArgs;
pub(crate) use next::NextArgs;
pub(crate) use plan::PlanArgs;
pub(crate) use show::ShowArgs;
use statement::Decision;

/// Fewest characters of an id.
const LEAST_ID: usize = 4;

/// Widest list without a terminal.
const WIDE: usize = 160;

/// Shortest and longest lease. The longest is that of the view `current_candidates`.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(86_400);

/// Runs to review: plan, list, show and take them, and decide.
#[derive(Subcommand, Debug)]
pub(crate) enum CandidatesCommand {
    /// Show which runs a weekly budget would give, by stratum, before it is spent.
    Plan(PlanArgs),
    /// List the queue: candidates that need a decision, the most urgent first.
    List(ListArgs),
    /// Show a candidate with its run: failure, answers, tool calls, scores and reviews.
    Show(ShowArgs),
    /// Review one candidate after another on a screen, with one key for each decision.
    Next(NextArgs),
    /// Take a candidate: it is reserved for you until the lease ends.
    Take(TakeArgs),
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
    /// Retire an eval case, because its answer is wrong by now or the task has changed.
    Retire(RetireArgs),
}

/// A candidate, as view `current_candidates` has it. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Candidate {
    candidate_id: String,
    week: String,
    state: String,
    class: String,
    classes: String,
    severity: String,
    task: Option<String>,
    release_id: Option<String>,
    stage: Option<String>,
    signature: String,
    signature_members: i64,
    run_id: String,
    source: String,
    tenant: String,
    attempt: i64,
    ended_at: i64,
    inclusion_probability: f64,
    priority: i64,
    decisions: i64,
    reviewers: Option<String>,
    leased_by: Option<String>,
    leased_until: Option<i64>,
}

// === impl Candidate ===

impl Candidate {
    /// Returns the SQL condition for its run.
    fn is_run(&self) -> String {
        format!(
            "run_id = {} AND tenant = {} AND source = {} AND attempt = {}",
            quoted(&self.run_id),
            quoted(&self.tenant),
            quoted(&self.source),
            self.attempt
        )
    }
}

pub(crate) async fn run(command: CandidatesCommand) -> Result<ExitCode> {
    match command {
        CandidatesCommand::Plan(args) => plan::run(&args).await,
        CandidatesCommand::List(args) => list::run(&args).await,
        CandidatesCommand::Show(args) => show::run(&args).await,
        CandidatesCommand::Next(args) => next::run(&args).await,
        CandidatesCommand::Take(args) => decide::take(&args).await,
        CandidatesCommand::Accept(args) => decide::run(&args, Decision::Accept).await,
        CandidatesCommand::Edit(args) => decide::run(&args, Decision::Edit).await,
        CandidatesCommand::Reject(args) => decide::run(&args, Decision::Reject).await,
        CandidatesCommand::Unsure(args) => decide::run(&args, Decision::Unsure).await,
        CandidatesCommand::Reopen(args) => decide::reopen(&args).await,
        CandidatesCommand::Skip(args) => decide::run(&args, Decision::Skip).await,
        CandidatesCommand::Retire(args) => decide::retire(&args).await,
    }
}

/// Reads the length of a lease.
fn minutes(text: &str) -> std::result::Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|_| "it is not a time such as 15m".to_owned())?;
    if LEASES.contains(&length) { Ok(length) } else { Err("it is not from 1m to 24h".to_owned()) }
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
