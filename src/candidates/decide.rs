//! Decisions about candidates, as `run.review` events.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_queries::{Session, SessionSettings};
use clap::Args;
use serde_json::{Value, json};

use super::{Candidate, find};
use crate::config::Config;
use crate::replay::publish;
use crate::root::open_to_read;

/// Longest expected answer, bytes.
const LONGEST_ANSWER: u64 = 256 << 10;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether candidates reject 3fa9c01d -c bellwether.toml --reviewer ana --failure-mode wrong_sum
  bellwether candidates edit 3fa9c01d -c bellwether.toml --expected answer.txt --eval-case

The decision goes to the topic as an event `run.review`; ingest brings it into the tables.")]
pub(crate) struct DecideArgs {
    /// Id of the candidate, or its first characters.
    id: String,
    /// Configuration file that names the tables and Kafka.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: PathBuf,
    /// Your pseudonym; it is stored.
    #[arg(long, value_name = "NAME", env = "BELLWETHER_REVIEWER")]
    reviewer: String,
    /// How the run failed, such as wrong_amount.
    #[arg(long, value_name = "MODE")]
    failure_mode: Option<String>,
    /// File with the expected answer, text or JSON; for `edit`, without it $EDITOR opens.
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Make an eval case of the run.
    #[arg(long)]
    eval_case: bool,
    /// Print the event instead of sending it.
    #[arg(long)]
    print: bool,
}

/// Publishes a decision.
///
/// # Errors
/// `Config` if there is no such candidate, or the expected answer is invalid; `Unavailable` if the broker does not accept it.
pub(super) async fn run(args: &DecideArgs, decision: &str) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let lake =
        open_to_read(&config.tables.root, &bellwether_lake::StorageOptions(config.tables.options.clone())).await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let candidate = find(&session, &args.id).await?;
    let expected = expected(args, decision)?;
    let event = event(args, &candidate, decision, expected.as_ref());
    if args.print {
        return crate::print(&event.to_string());
    }
    publish(&config, &event.to_string()).await?;
    let others =
        candidate.reviewers.as_deref().map_or_else(String::new, |names| format!(", reviewed before by {names}"));
    crate::print(&format!("sent {decision} of candidate {} (run {}){others}", candidate.candidate_id, candidate.run_id))
}

/// Reads the expected answer from its file, or from an editor.
fn expected(args: &DecideArgs, decision: &str) -> Result<Option<Value>> {
    let text = match &args.expected {
        Some(file) => read(file)?,
        None if decision == "edit" => edited()?,
        None => return Ok(None),
    };
    if text.trim().is_empty() {
        return Err(Error::config("the expected answer is empty").with_hint("nothing was sent"));
    }
    Ok(Some(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim_end().to_owned()))))
}

fn read(file: &Path) -> Result<String> {
    let unreadable = |source| Error::config(format!("cannot read `{}`", file.display())).with_source(source);
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > LONGEST_ANSWER {
        return Err(Error::config(format!("the expected answer has {bytes} bytes; {LONGEST_ANSWER} are allowed"))
            .with_hint("keep the part that an evaluation compares"));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

/// Lets the reviewer write the answer in `$EDITOR`.
fn edited() -> Result<String> {
    let hint = "give it by --expected FILE";
    if !std::io::stdin().is_terminal() {
        return Err(Error::config("an edit needs the expected answer").with_hint(hint));
    }
    let editor = std::env::var("EDITOR").unwrap_or_else(|_| "vi".to_owned());
    let file = std::env::temp_dir().join(format!("bellwether-answer-{}.txt", unique_id()));
    std::fs::write(&file, "").map_err(|source| Error::config("cannot write a temporary file").with_source(source))?;
    // An editor may have arguments, as in `code --wait`.
    let status = std::process::Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&file).status();
    let text = read(&file);
    std::fs::remove_file(&file).ok();
    match status {
        Ok(status) if status.success() => text,
        _ => Err(Error::config(format!("the editor `{editor}` failed")).with_hint(hint)),
    }
}

fn event(args: &DecideArgs, candidate: &Candidate, decision: &str, expected: Option<&Value>) -> Value {
    let id = unique_id().to_string();
    let mut data = json!({
        "review_id": id,
        "queue": "candidates",
        "reviewer": args.reviewer,
        "decision": decision,
        "severity": candidate.severity,
        "make_eval_case": args.eval_case,
        "sampling_weight": 1.0 / candidate.inclusion_probability,
    });
    if let Some(mode) = &args.failure_mode {
        data["failure_mode"] = json!(mode);
    }
    if let Some(expected) = expected {
        data["expected"] = expected.clone();
    }
    let mut event = json!({
        "spec": "run-event/1",
        "type": "run.review",
        "source": "bellwether-review",
        "id": id,
        "run_id": candidate.run_id,
        "time": crate::rules::time(SystemClock.now_micros()),
        "data": data,
    });
    if !candidate.tenant.is_empty() {
        event["tenant"] = json!(candidate.tenant);
    }
    event
}
