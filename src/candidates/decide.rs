//! Decisions about candidates by command: take, accept, edit, reject, unsure, skip, reopen, retire.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, Result};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use super::desk::{Desk, DeskArgs, not_arrived};
use super::filter::FilterArgs;
use super::statement::{Decision, Review, Statement, has_decided};
use super::{answer, find, minutes};

/// Candidates of a crowded queue that one command tries to take.
const TRIES: usize = 5;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether candidates reject 3fa9c01d -c bellwether.toml --reviewer ana --failure-mode wrong_sum
  bellwether candidates edit 3fa9c01d -c bellwether.toml --expected answer.txt --eval-case

The decision goes to the topic as an event `run.review`; ingest brings it into the tables.")]
pub(crate) struct DecideArgs {
    /// Id of the candidate, or its first characters.
    id: String,
    #[command(flatten)]
    desk: DeskArgs,
    /// How the run failed, such as wrong_amount.
    #[arg(long, value_name = "MODE", value_parser = NonEmptyStringValueParser::new())]
    failure_mode: Option<String>,
    /// File with the expected answer, text or JSON, for `edit`; without it $VISUAL or $EDITOR opens.
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Make an eval case of the run.
    #[arg(long)]
    eval_case: bool,
    /// Print the event instead of sending it.
    #[arg(long)]
    print: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TakeArgs {
    /// Id of a candidate, or its first characters [default: the first one of the queue].
    #[arg(conflicts_with_all = ["task", "week"])]
    id: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    desk: DeskArgs,
    /// How long the candidate is reserved for you.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = minutes)]
    lease: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    /// Id of the candidate, or its first characters.
    id: String,
    #[command(flatten)]
    desk: DeskArgs,
    /// Print the event instead of sending it.
    #[arg(long)]
    print: bool,
}

/// Publishes a decision.
///
/// # Errors
/// `Config` if there is no such candidate, its state does not allow the decision, or the expected answer is invalid; `Unavailable`
/// if the broker does not accept it.
pub(super) async fn run(args: &DecideArgs, decision: Decision) -> Result<ExitCode> {
    let desk = Desk::open(&args.desk).await?;
    if args.expected.is_some() && decision != Decision::Edit {
        let name = decision.name();
        return Err(Error::config(format!("`{name}` takes no expected answer"))
            .with_hint("`accept` takes the answer of the run; to give another one, use `bellwether candidates edit`"));
    }
    if args.failure_mode.is_some() && decision == Decision::Accept {
        return Err(Error::config("an accepted run has no failure mode")
            .with_hint("to say that it failed, use `bellwether candidates reject` or `edit`"));
    }
    let case = Box::pin(desk.checked(&args.id, args.eval_case)).await?;
    let expected = match &args.expected {
        Some(file) => Some(answer::from_file(file)?),
        None if decision == Decision::Edit => Some(answer::edited(&case.output())?),
        None => None,
    };
    let review =
        Review { failure_mode: args.failure_mode.clone(), expected, eval_case: args.eval_case, ..Review::of(decision) };
    let statement = Statement::Review(review);
    if args.print {
        return crate::print(&desk.event(&case.candidate, statement).await?);
    }
    let candidate = &case.candidate;
    desk.send([(candidate, statement)]).await?;
    let others = candidate
        .reviewers
        .as_deref()
        .map_or_else(String::new, |names| format!(", reviewed before by {}", crate::screen::one_line(names)));
    let name = decision.name();
    crate::print(&format!("sent {name} of candidate {} (run {}){others}", candidate.candidate_id, candidate.run_id))
}

/// Takes the reviewer's own decision back.
///
/// # Errors
/// As [`run`], and `Config` if the reviewer has not decided.
pub(super) async fn reopen(args: &DecideArgs) -> Result<ExitCode> {
    let desk = Desk::open(&args.desk).await?;
    let case = Box::pin(desk.checked(&args.id, args.eval_case)).await?;
    if !has_decided(&case.said(), &desk.reviewer) {
        let (reviewer, id) = (&desk.reviewer, &case.candidate.candidate_id);
        return Err(Error::config(format!("{reviewer} has made no decision about candidate {id}"))
            .with_hint("only your own decision can be taken back; to disagree with another one, decide yourself"));
    }
    run(args, Decision::Unsure).await
}

/// Reserves a candidate for one reviewer.
///
/// # Errors
/// `Config` if there is none to take; `Unavailable` if the lease does not arrive.
pub(super) async fn take(args: &TakeArgs) -> Result<ExitCode> {
    let desk = Desk::open(&args.desk).await?.of(&args.filter);
    let wanted = match &args.id {
        Some(id) => vec![find(&desk.session, id).await?],
        None => desk.free(&std::collections::BTreeSet::new(), TRIES).await?,
    };
    let mut others = Vec::new();
    for candidate in wanted {
        let taken = desk.take(vec![candidate], args.lease).await?;
        if let Some((candidate, _)) = taken.unseen.first() {
            return Err(not_arrived(candidate));
        }
        if let Some((candidate, lease)) = taken.mine.first() {
            let (id, until) = (&candidate.candidate_id, crate::rules::time(lease.until));
            if args.json {
                let taken = json!({ "candidate_id": id, "run_id": candidate.run_id, "leased_until": until });
                return crate::print(&format!("{taken:#}"));
            }
            return crate::print(&format!(
                "you have candidate {id} until {until}\n\
                 read it: bellwether candidates show {}\n\
                 then decide: bellwether candidates accept|edit|reject|unsure|skip {}",
                &id[..8],
                &id[..8]
            ));
        }
        others.extend(taken.lost.into_iter().map(|(_, by)| crate::screen::one_line(&by)));
    }
    match (others.first(), &args.id) {
        (Some(other), Some(id)) => Err(Error::config(format!("{other} has taken candidate {id}"))
            .with_hint("take another one, or wait until the lease ends: `bellwether candidates list`")),
        (Some(_), None) => Err(Error::unavailable("others were quicker to take each candidate that was tried")
            .with_hint("run the command again")),
        (None, _) => Err(Error::config("there is no candidate for you to take")
            .with_hint("`bellwether candidates list` shows who has which; a second review is for another person")),
    }
}

/// Retires the eval case of a run.
///
/// # Errors
/// `Config` if there is no such candidate, or it is no eval case; `Unavailable` if the broker does not accept it.
pub(super) async fn retire(args: &RetireArgs) -> Result<ExitCode> {
    let desk = Desk::open(&args.desk).await?;
    let candidate = find(&desk.session, &args.id).await?;
    let id = &candidate.candidate_id;
    if candidate.state != "eval_case" {
        let state = candidate.state.replace('_', " ");
        return Err(Error::config(format!("candidate {id} is {state}; only an eval case can be retired"))
            .with_hint("`bellwether candidates list --all` shows the states"));
    }
    if args.print {
        return crate::print(&desk.event(&candidate, Statement::Retired).await?);
    }
    desk.send([(&candidate, Statement::Retired)]).await?;
    crate::print(&format!("sent the retirement of eval case {id} (run {})", candidate.run_id))
}
