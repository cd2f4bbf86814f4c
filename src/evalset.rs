//! `bellwether evalset`: versioned eval sets in a folder, and their exchange with evaluation tools.

mod candidates;
mod complete;
pub(crate) mod erase;
mod store;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bellwether_base::{Error, Result};
use bellwether_evals::leaks_of;
use bellwether_evalsets::export::MANIFEST_FILE;
use bellwether_evalsets::{
    CaseKind, EvalCase, EvalSet, Imported, Leak, ResultFormat, TARGET, Unfit, coverage, export, formats, import,
};
use bellwether_redact::Redactor;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::Config;
use crate::root::RootArgs;
use crate::screen;
use store::Store;

/// Folder of all sets, unless another one is named.
pub(crate) const FOLDER: &str = "evalsets";
/// Cases without content that `status` names.
const MISSING_SHOWN: usize = 5;
/// Cases that are not in an export, of which `export` prints the reason.
const LEFT_OUT_SHOWN: usize = 10;

/// Eval sets: versioned collections of eval cases.
#[derive(Subcommand, Debug)]
pub(crate) enum EvalsetCommand {
    /// Create a set from candidates or from a file of cases, or its next version with more cases.
    ///
    /// With --from-candidates, a run that people accepted becomes a case with its own answer, and an edited run one with the edited
    /// answer. In a file, cases are JSON lines; docs/evals.md describes them.
    ///
    /// A version is written once: cases with other contents or new ids make the next one. A case is never edited: its next version
    /// states in `provenance.supersedes` which version it replaces, and why. Personal data and secrets are redacted by `[redaction]` of
    /// --config, or by the default policy.
    #[command(after_help = "Examples:
  bellwether evalset create refunds --from-candidates --root bellwether-data --task refunds
  bellwether evalset create refunds --from accepted.jsonl
  bellwether evalset freeze refunds
  bellwether evalset export refunds --format promptfoo --output evals/refunds")]
    Create(CreateArgs),
    /// Show the cases of each task and kind, what is missing, and leaks.
    ///
    /// With --root or --config it also says how many cases are ready, and which candidates to review to fill the gaps.
    Status(StatusArgs),
    /// Show how two versions differ.
    Diff(DiffArgs),
    /// Release the newest version: exports and gates use it.
    ///
    /// A version with near-duplicates in both splits is refused: a release that was tuned on one would know the other.
    Freeze(FreezeArgs),
    /// Give a case the input that its event did not have, in the next version.
    ///
    /// The file has the input as the application got it: text, or JSON such as a list of messages. If the case states the SHA-256 of its
    /// content, the file must have it. Personal data and secrets are redacted as by `create`.
    #[command(after_help = "Examples:
  bellwether evalset status refunds
  bellwether evalset complete refunds 41f0a7c2d9e85b6038aa91c4 --input input.txt -c bellwether.toml")]
    Complete(complete::CompleteArgs),
    /// Take cases out of use, in the next version.
    Retire(RetireArgs),
    /// Write a version in the format of an evaluation tool.
    Export(ExportArgs),
    /// Print the results of an evaluation as run events of stage offline_eval.
    ///
    /// Publish the lines to the topic, or read them with `bellwether replay`. `bellwether gate --offline` then compares two releases
    /// case by case.
    #[command(after_help = "Examples:
  promptfoo eval --output results.json
  bellwether evalset import-results results.json --format promptfoo --release v18 > runs.jsonl
  bellwether replay --help")]
    ImportResults(ImportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name of the set.
    name: String,
    /// Folder of all sets.
    #[arg(long, default_value = FOLDER, value_name = "FOLDER", env = "BELLWETHER_EVALSETS")]
    sets: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Release it although cases of the hold-out set are near to others.
    #[arg(long)]
    allow_leaks: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    set: SetArgs,
    /// File of cases, one JSON object a line.
    #[arg(long, value_name = "FILE", required_unless_present = "from_candidates", conflicts_with = "from_candidates")]
    from: Option<PathBuf>,
    #[command(flatten)]
    candidates: candidates::FromCandidates,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Version [default: the newest].
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Fewest cases of a task.
    #[arg(long, default_value_t = TARGET.0, value_name = "N")]
    target: usize,
    /// File of few-shot examples, one JSON string or object with `input` a line: cases that a prompt knows are leaks.
    #[arg(long, value_name = "FILE")]
    few_shots: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    root: RootArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Earlier version [default: the one before].
    #[arg(long, value_name = "N")]
    from: Option<u32>,
    /// Later version [default: the newest].
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Ids of cases.
    #[arg(required = true)]
    cases: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Version [default: the newest that was released, otherwise the newest].
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Format.
    #[arg(long, value_parser = PossibleValuesParser::new(formats().iter().map(|format| format.name())))]
    format: String,
    /// Folder to write; it must be new, empty, or an earlier export in the same format.
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Leave out cases that lack their input, or that the format cannot hold, and list them.
    #[arg(long)]
    skip_unfit: bool,
    /// Configuration whose `[redaction]` applies [default: the default policy].
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
}

/// A tool whose results can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Results {
    Promptfoo,
    Inspect,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// File of results.
    file: PathBuf,
    /// The tool that wrote it.
    #[arg(long, value_enum)]
    format: Results,
    /// Task of the runs [default: the task of each case].
    #[arg(long)]
    task: Option<String>,
    /// Release that was evaluated.
    #[arg(long)]
    release: String,
    /// Source of the events.
    #[arg(long, default_value = "offline-evaluation")]
    source: String,
}

pub(crate) async fn run(command: EvalsetCommand) -> Result<ExitCode> {
    // Held until the command ends.
    let _held = match &command {
        EvalsetCommand::Create(CreateArgs { set, .. })
        | EvalsetCommand::Freeze(FreezeArgs { set, .. })
        | EvalsetCommand::Retire(RetireArgs { set, .. }) => store::lock(&set.sets, true)?,
        EvalsetCommand::Complete(args) => store::lock(&args.set.sets, true)?,
        EvalsetCommand::Status(StatusArgs { set, .. })
        | EvalsetCommand::Diff(DiffArgs { set, .. })
        | EvalsetCommand::Export(ExportArgs { set, .. }) => store::lock(&set.sets, false)?,
        EvalsetCommand::ImportResults(_) => None,
    };
    match command {
        EvalsetCommand::Create(args) => create(&args).await,
        EvalsetCommand::Status(args) => show_status(&args).await,
        EvalsetCommand::Diff(args) => diff(&args),
        EvalsetCommand::Freeze(args) => {
            let store = args.set.store();
            let set = store.version(None)?;
            let leaks = leaks_of(set.cases(), &[]);
            if let Some(first) = lines_of(&leaks).next().filter(|_| !args.allow_leaks) {
                let leaks = counted(leaks.len(), "leak", "leaks");
                return Err(Error::config(format!("{} v{} has {leaks}: {first}", set.name, set.version)).with_hint(
                    "`bellwether evalset status` lists them; take one case of each pair out with `retire`, give both the same split \
                     with `create`, or add --allow-leaks",
                ));
            }
            store.release(&set)?;
            let cases = counted(set.cases().len(), "case", "cases");
            crate::print(&format!("released {} v{}: {cases}", set.name, set.version))
        }
        EvalsetCommand::Complete(args) => complete::run(&args),
        EvalsetCommand::Retire(args) => {
            let store = args.set.store();
            let newest = store.version(None)?;
            let mut cases = newest.clone();
            let ids: std::collections::BTreeSet<&String> = args.cases.iter().collect();
            for id in ids {
                cases = cases.without(id)?;
                // Together they make one version.
                cases.version = newest.version;
            }
            cases.version += 1;
            store.write(&cases)?;
            let left = counted(cases.cases().len(), "case", "cases");
            crate::print(&format!("{} v{} has {left}", cases.name, cases.version))
        }
        EvalsetCommand::Export(args) => write_export(&args),
        EvalsetCommand::ImportResults(args) => import_results(&args),
    }
}

// === impl SetArgs ===

impl SetArgs {
    fn store(&self) -> Store {
        Store::new(&self.sets, &self.name)
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|source| Error::config(format!("cannot read `{}`", file.display())).with_source(source))
}

/// Returns the policy of redaction: that of a configuration, or the default one.
fn redactor(config: Option<&Path>) -> Result<Arc<Redactor>> {
    Ok(match config {
        Some(file) => Config::load(file)?.redactor,
        None => Arc::default(),
    })
}

/// Redacts a case. Its placeholders depend on the case alone, and differ from those that it has already.
fn redacted(case: &EvalCase, redactor: &Redactor) -> Result<EvalCase> {
    let whole = serde_json::to_vec(case).map_err(|source| Error::bug("a case is not JSON").with_source(source))?;
    let session = RefCell::new(redactor.session_of(&whole));
    case.redacted(&|text: &str| Ok(session.borrow_mut().text(text).into_owned()))
}

/// Returns a number with a noun, such as `1 case` or `2 cases`.
fn counted(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

async fn create(args: &CreateArgs) -> Result<ExitCode> {
    let redactor = redactor(args.candidates.root.config())?;
    let Some(file) = &args.from else { return candidates::create(args, &redactor).await };
    let store = args.set.store();
    let old = if store.exists() { store.version(None)?.cases().to_vec() } else { Vec::new() };
    let erased = store.erased()?;
    let mut cases = bellwether_evalsets::set::parse_cases(&read(file)?, &file.display().to_string())?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    for case in &mut cases {
        if erased.contains(&case.id) && !case.erased {
            return Err(Error::config(format!("case `{}` was erased with its run", case.id))
                .with_hint("its content must not come back: take it out of the file"));
        }
        if case.provenance.run.is_none() && case.provenance.file.is_none() {
            // A case that was taken from another file before is still the same.
            let old = old.iter().find(|old| old.id == case.id && old.version == case.version);
            case.provenance.file = old.map_or_else(|| name.clone(), |old| old.provenance.file.clone());
        }
        // A text that is too long to be redacted becomes a short one.
        case.check()?;
        *case = redacted(case, &redactor)?;
        // A case that another policy redacted is still the same.
        if let Some(same) = old.iter().find(|old| old.id == case.id)
            && redacted(same, &redactor)? == *case
        {
            *case = same.clone();
        }
    }
    write_next(&args.set, cases)
}

/// Writes the first version of a set, or the next one with these cases in place of those with the same ids.
fn write_next(args: &SetArgs, cases: Vec<EvalCase>) -> Result<ExitCode> {
    let store = args.store();
    let set = if store.exists() {
        let newest = store.version(None)?;
        let mut all: BTreeMap<String, EvalCase> =
            newest.cases().iter().map(|case| (case.id.clone(), case.clone())).collect();
        // Two cases with one id in the file are refused as such, not merged.
        EvalSet::new(&args.name, 1, cases.clone())?;
        all.extend(cases.into_iter().map(|case| (case.id.clone(), case)));
        let next = newest.next(all.into_values().collect())?;
        if next.cases() == newest.cases() {
            return crate::print(&format!("{} v{} has all of these cases", newest.name, newest.version));
        }
        next
    } else {
        EvalSet::new(&args.name, 1, cases)?
    };
    store.write(&set)?;
    crate::print(&format!("{} v{} has {}", set.name, set.version, counted(set.cases().len(), "case", "cases")))?;
    for line in lines_of(&leaks_of(set.cases(), &[])) {
        crate::print(&line)?;
    }
    crate::print(&store.path(set.version).display().to_string())
}

async fn show_status(args: &StatusArgs) -> Result<ExitCode> {
    let store = args.set.store();
    let set = store.version(args.version)?;
    let tasks = coverage(set.cases(), args.target);
    let shots = args.few_shots.as_ref().map_or(Ok(Vec::new()), |file| few_shots(&read(file)?))?;
    let leaks = leaks_of(set.cases(), &shots);
    let proposed = match args.root.is_named() {
        true => Some(candidates::propose(&set, &store.taken_out(&set)?, &tasks, &args.root).await?),
        false => None,
    };
    if args.json {
        let answer = json!({ "name": set.name, "version": set.version, "released": set.frozen, "erased": set.erased(),
            "tasks": tasks, "leaks": leaks, "proposed": proposed });
        return crate::print(&format!("{answer:#}"));
    }
    let state = if set.frozen { "released" } else { "not released" };
    let cases = counted(set.cases().len(), "case", "cases");
    crate::print(&format!("{} v{}, {state}: {cases}", set.name, set.version))?;
    if set.erased() > 0 {
        let erased = counted(set.erased(), "case", "cases");
        crate::print(&format!("{erased} lost the content by an erasure; exports leave such cases out"))?;
    }
    let number = |number: usize| screen::Value { text: number.to_string(), whole: true, right: true };
    let row = |task: &bellwether_evalsets::Coverage| {
        let mut row = vec![screen::Value { text: task.task.clone(), ..screen::Value::default() }, number(task.cases)];
        row.extend(task.by_kind.map(number));
        row
    };
    let mut headers = vec!["task".to_owned(), "cases".to_owned()];
    headers.extend(CaseKind::ALL.map(|kind| kind.name().to_owned()));
    let rows: Vec<Vec<screen::Value>> = tasks.iter().map(row).collect();
    crate::print(&screen::table(&headers, &rows, screen::width().unwrap_or(usize::MAX)).text)?;
    for task in &tasks {
        let mut needs = Vec::new();
        if task.wanted > 0 {
            needs.push(format!("{} more cases (start with {} to {})", task.wanted, TARGET.0, TARGET.1));
        }
        needs.extend(task.missing.iter().map(|kind| format!("a case of kind {kind}")));
        if task.without_content > 0 {
            needs.push(format!("the content of {}", counted(task.without_content, "case", "cases")));
        }
        if !needs.is_empty() {
            crate::print(&format!("{} needs {}", screen::one_line(&task.task), needs.join(", ")))?;
        }
    }
    let missing = set.cases().iter().filter_map(|case| Some((&case.id, case.missing_content()?)));
    for (id, missing) in missing.take(MISSING_SHOWN) {
        crate::print(&format!("case {id} has no input: {}", screen::one_line(&missing)))?;
    }
    for line in lines_of(&leaks) {
        crate::print(&line)?;
    }
    for line in proposed.iter().flat_map(|proposed| proposed.lines(&set.name)) {
        crate::print(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a line for each leak.
fn lines_of(leaks: &[Leak]) -> impl Iterator<Item = String> {
    leaks.iter().map(|leak| {
        let alike = if leak.exact { "has the input of" } else { "is near to" };
        let other = if leak.few_shot { "few-shot example" } else { "case" };
        format!("leak: case {} {alike} {other} {}", leak.case, leak.other)
    })
}

/// Reads few-shot examples.
fn few_shots(text: &str) -> Result<Vec<String>> {
    let input = |(place, line): (usize, &str)| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let input = value.as_ref().and_then(|value| value.as_str().or_else(|| value["input"].as_str()));
        input.map(str::to_owned).ok_or_else(|| {
            let what = "is neither a JSON string nor an object with `input`";
            Error::config(format!("line {} of the few-shot examples {what}", place + 1))
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(input).collect()
}

fn diff(args: &DiffArgs) -> Result<ExitCode> {
    let store = args.set.store();
    let later = store.version(args.to)?;
    let earlier = args.from.unwrap_or(later.version.saturating_sub(1));
    if args.from.is_none() && earlier == 0 {
        return Err(Error::config(format!("`{}` v{} has no version before it", later.name, later.version)));
    }
    if earlier == 0 || earlier >= later.version {
        return Err(Error::config(format!("v{earlier} is not a version before v{}", later.version))
            .with_hint("--from names the earlier version and --to the later one; the first one is 1"));
    }
    let earlier = store.version(Some(earlier))?;
    let difference = earlier.difference(&later);
    if args.json {
        let answer = json!({ "from": earlier.version, "to": later.version, "difference": difference });
        return crate::print(&format!("{answer:#}"));
    }
    let mut lines = vec![format!(
        "{} v{} to v{}: {} unchanged",
        later.name,
        earlier.version,
        later.version,
        counted(difference.unchanged, "case is", "cases are")
    )];
    lines.extend(difference.added.iter().map(|id| format!("+ {id}")));
    lines.extend(difference.superseded.iter().map(|id| format!("~ {id} has a later version")));
    lines.extend(difference.removed.iter().map(|id| format!("- {id}")));
    lines.extend(difference.erased.iter().map(|id| format!("x {id} lost its content by an erasure")));
    crate::print(&lines.join("\n"))
}

fn write_export(args: &ExportArgs) -> Result<ExitCode> {
    let store = args.set.store();
    let version = args.version.or_else(|| store.newest_released());
    let set = store.version(version)?;
    let (redactor, whole) = (redactor(args.config.as_deref())?, set.to_jsonl()?);
    let session = RefCell::new(redactor.session_of(whole.as_bytes()));
    let redact = |text: &str| Ok(session.borrow_mut().text(text).into_owned());
    let unfit = if args.skip_unfit { Unfit::LeaveOut } else { Unfit::Refuse };
    let exported = export(&set, &args.format, &redact, unfit)?;
    store::write_export(&args.output, &exported)?;
    let about = formats().iter().find(|format| format.name() == args.format).map_or("", |format| format.about());
    let cases = counted(set.cases().len() - exported.left_out.len(), "case", "cases");
    let mut lines = vec![format!("wrote {cases} of {} v{}:", set.name, set.version)];
    lines.extend(exported.files.iter().map(|file| format!("  {}", args.output.join(&file.path).display())));
    lines.push(about.to_owned());
    let left_out = exported.left_out.iter().take(LEFT_OUT_SHOWN);
    lines.extend(left_out.map(|one| format!("left out: case {}: {}", one.case, screen::one_line(&one.reason))));
    if let Some(more) = exported.left_out.len().checked_sub(LEFT_OUT_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("left out: {more} more; {MANIFEST_FILE} lists them"));
    }
    crate::print(&lines.join("\n"))
}

fn import_results(args: &ImportArgs) -> Result<ExitCode> {
    let format = match args.format {
        Results::Promptfoo => ResultFormat::Promptfoo,
        Results::Inspect => ResultFormat::Inspect,
    };
    let of = Imported { source: args.source.clone(), release: args.release.clone(), task: args.task.clone() };
    let events = import(&read(&args.file)?, format, &of)?;
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    crate::print(&lines.join("\n"))
}
