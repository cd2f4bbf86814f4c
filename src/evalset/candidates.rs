//! Eval cases from candidates that people decided, and candidates that would fill the gaps of a set.

use std::collections::BTreeSet;
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use bellwether_evals::cases::gaps::{Waiting, proposals, queue};
use bellwether_evals::cases::{Decided, Harvest, LeftOut, Target, Wanted, decided, harvest, kind_of};
use bellwether_evalsets::{Coverage, EvalCase, EvalSet};
use bellwether_queries::{Session, SessionSettings, since};
use bellwether_redact::Redactor;
use clap::Args;
use serde::Serialize;

use super::{CreateArgs, counted, redacted};
use crate::candidates::{Part, parts};
use crate::root::RootArgs;
use crate::screen;

/// Most candidates that `status` proposes for a task.
const PROPOSED: usize = 5;

/// Candidates that a line names.
const NAMED: usize = 3;

/// Share of new cases that are held out.
const HOLDOUT: f64 = 0.2;

#[derive(Args, Debug)]
pub(super) struct FromCandidates {
    /// Make cases of decided candidates: accepted runs, and edited answers.
    #[arg(long)]
    from_candidates: bool,
    /// With --from-candidates: only candidates of this task.
    #[arg(long, requires = "from_candidates", value_name = "NAME")]
    task: Option<String>,
    /// With --from-candidates: only inputs reviewed since then; a time, or a duration such as 7d.
    #[arg(long, requires = "from_candidates", value_name = "TIME")]
    since: Option<String>,
    /// With --from-candidates: also candidates for which no reviewer asked for a case.
    #[arg(long, requires = "from_candidates")]
    all: bool,
    /// With --from-candidates: also inputs whose case was retired from the set.
    #[arg(long, requires = "from_candidates")]
    retired: bool,
    /// With --from-candidates: fetch content that is stored elsewhere, by `evals.fetch_content`.
    #[arg(long, requires = "from_candidates")]
    fetch: bool,
    /// With --from-candidates: share of new cases to hold out; near-duplicates stay together.
    #[arg(long, requires = "from_candidates", value_parser = share, default_value_t = HOLDOUT, value_name = "SHARE")]
    holdout: f64,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

/// The cases that a set lacks, and the runs or reviews that would supply them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Proposals {
    /// Cases that `create --from-candidates` would add.
    ready: usize,
    /// Decided candidates for which nobody asked for a case.
    not_asked: usize,
    /// Cases without an accepted answer, and cases that a reviewer retired.
    rejected: Vec<String>,
    retired: Vec<String>,
    /// Candidates to review.
    review: Vec<Proposed>,
}

/// A candidate whose review would fill a gap.
#[derive(Debug, Serialize)]
struct Proposed {
    kind: &'static str,
    #[serde(flatten)]
    candidate: Waiting,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "it is not a share from 0 to 1".to_owned())
}

/// Makes cases of candidates, and writes the first version of a set or the next one with them.
///
/// # Errors
/// `Config` if no argument names a root, or the set cannot be written; as the session's statements.
pub(super) async fn create(args: &CreateArgs, redactor: &Redactor) -> Result<ExitCode> {
    let of = &args.candidates;
    let lake = of.root.open_to_read().await?;
    let since = of.since.as_deref().map(|text| since(text, lake.clock().now_micros())).transpose()?;
    let wanted = Wanted { since: since.unwrap_or(i64::MIN), all: of.all, retired: of.retired, holdout: of.holdout };
    let store = args.set.store();
    let (cases, taken_out) = match store.exists() {
        true => {
            let newest = store.version(None)?;
            (newest.cases().to_vec(), store.taken_out(&newest)?)
        }
        false => (Vec::new(), Vec::new()),
    };
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let mut decided = decided(&session, of.task.as_deref()).await?;
    let unfetched = match of.fetch {
        true => fetch(&mut decided, &wanted, &of.root)?,
        false => Vec::new(),
    };
    let target = Target { name: &args.set.name, cases: &cases, taken_out: &taken_out };
    let mut found = harvest(&decided, target, &wanted, &|case| redacted(case, redactor))?;
    let made = std::mem::take(&mut found.cases);
    let mut lines = unfetched;
    lines.extend(report(&found, &args.set.name, &made));
    if decided.is_empty() {
        lines.push("people have decided no candidate yet; review some with `bellwether candidates next`".to_owned());
    }
    if made.is_empty() {
        lines.insert(0, "there are no new cases".to_owned());
    } else {
        super::write_next(&args.set, made)?;
    }
    if lines.is_empty() { Ok(ExitCode::SUCCESS) } else { crate::print(&lines.join("\n")) }
}

/// Fetches the content of candidates that should become cases, and says which could not be fetched.
///
/// # Errors
/// `Config` if no configuration says how to fetch it.
fn fetch(decided: &mut [Decided], wanted: &Wanted, root: &RootArgs) -> Result<Vec<String>> {
    let command = root.resolve()?.config.map(|config| config.evals.fetch_content).unwrap_or_default();
    if command.is_empty() {
        return Err(Error::config("no command fetches content")
            .with_hint("set `evals.fetch_content` in a configuration, and name it by --config"));
    }
    let mut failed = Vec::new();
    for run in decided.iter_mut().filter(|run| run.is_asked(wanted)) {
        let mut get = |part: &Part| match part {
            Part::Elsewhere { .. } => part
                .fetch(&command)
                .map_err(|error| failed.push(format!("run {}: {}", run.run_id, error.message())))
                .ok(),
            _ => None,
        };
        let [(_, input), (_, output)] = parts(run.content_json.as_deref(), &serde_json::Value::Null);
        // An edited answer stands for the output.
        run.fetched = (get(&input), if run.decision == "accept" { get(&output) } else { None });
    }
    Ok(failed)
}

/// Says which cases were made or are out of date, and which candidates gave none.
fn report(found: &Harvest, set: &str, made: &[EvalCase]) -> Vec<String> {
    let mut lines = Vec::new();
    for case in made {
        if let Some(superseded) = &case.provenance.supersedes {
            lines.push(format!("case {} has a new version: {}", case.id, screen::one_line(&superseded.reason)));
        }
        match (case.missing_content(), &case.content_ref) {
            (None, _) => {}
            (Some(_), Some(place)) => {
                lines.push(format!(
                    "case {} has no input; add --fetch to get it from {}",
                    case.id,
                    screen::one_line(place)
                ));
            }
            (Some(missing), None) => {
                lines.push(format!("case {} has no input: {}", case.id, screen::one_line(&missing)))
            }
        }
    }
    if found.known > 0 {
        lines.push(format!("{} in the set already", counted(found.known, "candidate is", "candidates are")));
    }
    for (why, candidates) in &found.left_out {
        let named: Vec<&str> = candidates.iter().take(NAMED).map(|id| short(id)).collect();
        let more = if candidates.len() > named.len() { ", …" } else { "" };
        let some = counted(candidates.len(), "candidate", "candidates");
        lines.push(format!("left out: {some} ({}{more}): {}", named.join(", "), explained(why)));
    }
    lines.extend(stale(&found.rejected, &found.retired, set));
    lines
}

/// Says which cases of a set should be taken out.
fn stale(rejected: &[String], retired: &[String], set: &str) -> Vec<String> {
    let of = |ids: &[String], one: &str, several: &str, what: &str| {
        let some = counted(ids.len(), one, several);
        (!ids.is_empty()).then(|| format!("{some} {what}: `bellwether evalset retire {set} {}`", ids.join(" ")))
    };
    let without = "no accepted answer any more; edit a candidate, or take out";
    let rejected = of(rejected, "case has", "cases have", without);
    let retired = of(retired, "case was", "cases were", "retired by reviewers; to take out");
    rejected.into_iter().chain(retired).collect()
}

/// Says why candidates gave no case, and what to do.
fn explained(why: &LeftOut) -> String {
    let text = match why {
        LeftOut::NotAsked => "nobody asked for a case; add --all to take them",
        LeftOut::Rejected => "rejected, without the right answer; `bellwether candidates edit` gives it",
        LeftOut::NoInput => {
            "the input is neither stored nor referred to; set `ingest.content = true` for new runs, or ask the producer"
        }
        LeftOut::NoAnswer => "the event has no answer; `bellwether candidates edit` gives one",
        LeftOut::TakenOut => "the case of this input was retired; add --retired to take it again",
        LeftOut::BothSplits => "near cases of both splits: it would leak one into the other",
        LeftOut::Invalid(message) => return screen::one_line(message),
    };
    text.to_owned()
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Returns what would fill the gaps of a set.
///
/// # Errors
/// As the session's statements.
pub(super) async fn propose(
    set: &EvalSet,
    taken_out: &[EvalCase],
    tasks: &[Coverage],
    root: &RootArgs,
) -> Result<Proposals> {
    let lake = root.open_to_read().await?;
    let session = Session::open(&lake, SessionSettings::default()).await?;
    let of_set: BTreeSet<&str> = tasks.iter().map(|task| task.task.as_str()).collect();
    let mut decided = decided(&session, None).await?;
    decided.retain(|one| of_set.contains(one.task.as_str()));
    let wanted = Wanted { since: i64::MIN, all: false, retired: false, holdout: HOLDOUT };
    let target = Target { name: &set.name, cases: set.cases(), taken_out };
    let redactor = super::redactor(root.config())?;
    let found = harvest(&decided, target, &wanted, &|case| redacted(case, &redactor))?;
    let queue = queue(&session, &of_set).await?;
    let mut review = Vec::new();
    for task in tasks {
        let most = PROPOSED.min(task.wanted.max(task.missing.len()));
        for one in proposals(&queue, &task.task, &task.missing, most) {
            review.push(Proposed { kind: kind_of(&one.class).name(), candidate: one.clone() });
        }
    }
    Ok(Proposals {
        ready: found.cases.len(),
        not_asked: found.left_out.get(&LeftOut::NotAsked).map_or(0, Vec::len),
        rejected: found.rejected,
        retired: found.retired,
        review,
    })
}

// === impl Proposals ===

impl Proposals {
    /// Returns the lines that `status` prints.
    pub(super) fn lines(&self, set: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let create = format!("bellwether evalset create {set} --from-candidates");
        if self.ready > 0 {
            lines.push(format!("{} ready: `{create}`", counted(self.ready, "case is", "cases are")));
        }
        if self.not_asked > 0 {
            let some = counted(self.not_asked, "decided candidate has", "decided candidates have");
            lines.push(format!("{some} no request for a case; to take all: `{create} --all`"));
        }
        lines.extend(stale(&self.rejected, &self.retired, set));
        for Proposed { kind, candidate } in &self.review {
            let about = if candidate.signature.is_empty() { &candidate.class } else { &candidate.signature };
            let (id, task) = (short(&candidate.candidate_id), screen::one_line(&candidate.task));
            lines.push(format!("{task} could get a {kind} case: review {id} ({})", screen::one_line(about)));
        }
        lines
    }
}
