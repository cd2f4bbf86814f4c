//! `bellwether audit`: proves that the tables lose and double nothing, to a person or to a program.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_aggregate::recompute::{first_difference, folded_files, recompute_files, recompute_shards, saturated};
use bellwether_lake::audit::{Audited, Basis, Check, Findings, Progress, audit};
use bellwether_lake::{
    AddedFile, Clock, Error, ErrorKind, Lake, Layout, Result, Snapshot, StorageOptions, SystemClock, Table, app_of,
};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::exit;

/// An audit that is done within this time shows no progress.
const QUIET_MICROS: i64 = 1_000_000;

/// Between two changes of the line of progress.
const REFRESH_MICROS: i64 = 200_000;

/// Exit code where a table cannot be judged.
const NOT_AUDITABLE: u8 = 4;

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people: a line a check.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:
  bellwether audit --root bellwether-data
  bellwether audit --root s3://metrics/llm --recompute
  bellwether audit --config bellwether.toml --format json | jq '.checks[] | select(.ok | not)'",
    after_long_help = "Checks, each on one version of each table, also while ingest and aggregate write:
  tables      the tables are there, and ours
  log         log entries follow one another; log checkpoints say what they say
  offsets     per job and partition, offsets join without a hole and only grow
  files       every file of every table is there, and readable, with the size, rows and bounds that the log says
  duplicates  no message is in two rows, of `events`, of `quarantine` or of both
  rows        offsets = events + quarantined + those without a message (transactions, compaction, blank lines)
  progress    `metrics` has read no more of `events` than there is
  metrics     with --recompute: `metrics` equals the same SQL over the `events` it has read, bit for bit

Exit codes:
  0  all is so
  1  something is not so; the findings say what and where
  2  the command line is wrong, or there is no table under the root
  3  the tables cannot be reached
  4  a table cannot be judged: it is missing or not ours, or its log is torn

Nothing is written. Memory: four files, and 16 bytes for each stretch of consecutive offsets; --recompute holds all
events in memory.

Examples:
  bellwether audit --root bellwether-data
  bellwether audit --root s3://metrics/llm --recompute
  bellwether audit --config bellwether.toml --format json | jq '.checks[] | select(.ok | not)'"
)]
pub(crate) struct AuditArgs {
    /// Root of the tables: a folder or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "ROOT", env = "BELLWETHER_ROOT")]
    root: Option<String>,
    /// Configuration that names the root instead.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG", conflicts_with = "root")]
    config: Option<PathBuf>,
    /// Also compute the metrics anew from `events`, and compare them bit for bit.
    #[arg(long)]
    recompute: bool,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Form,
}

pub(crate) async fn run(args: AuditArgs) -> Result<ExitCode> {
    let lake = open(&args).await?;
    let mut line = ProgressLine::new();
    let mut audited = Box::pin(audit(&lake, &app_of(0), |progress| line.show(progress))).await?;
    if args.recompute {
        line.say("computing the metrics anew");
        audited.checks.push(Box::pin(check_metrics(&lake, audited.basis.as_ref())).await?);
    }
    line.clear();
    let text = match args.format {
        Form::Json => json_of(&lake, &audited).to_string(),
        Form::Text => {
            text_of(&lake, &audited, std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        }
    };
    crate::print(&text)?;
    Ok(ExitCode::from(code(&audited)))
}

async fn open(args: &AuditArgs) -> Result<Lake> {
    let (root, options) = match (&args.root, &args.config) {
        (Some(root), _) => (root.clone(), StorageOptions::default()),
        (None, Some(file)) => {
            let config = Config::load(file)?;
            (config.tables.root, StorageOptions(config.tables.options))
        }
        (None, None) => {
            return Err(Error::config("nothing says where the tables are")
                .with_hint("add --root DIR, or --config FILE, or set BELLWETHER_ROOT"));
        }
    };
    Lake::open_as_it_is(&root, &options).await
}

fn code(audited: &Audited) -> u8 {
    match (audited.auditable, audited.checks.iter().all(Check::ok)) {
        (false, _) => NOT_AUDITABLE,
        (true, false) => exit::NO,
        (true, true) => 0,
    }
}

/// Whether `metrics` equals the same SQL over the events it has read (L-4).
async fn check_metrics(lake: &Lake, basis: Option<&Basis>) -> Result<Check> {
    let Some(basis) = basis else {
        return Ok(Check::skipped("metrics", "the `events` that `metrics` has read cannot be told"));
    };
    let compared = async {
        let table = folded_files(lake, &basis.metrics).await?;
        let computed = match shards_of(lake, basis).await? {
            Some(shards) => recompute_shards(lake, &shards).await?,
            None => recompute_files(lake, &basis.events).await?,
        };
        Ok::<_, Error>((first_difference(&table, &computed), table.num_rows(), saturated(&table)))
    };
    let mut check = Check::new("metrics");
    match compared.await {
        Ok((difference, groups, saturated)) => {
            check.counts.push(("groups", i64::try_from(groups).unwrap_or(i64::MAX)));
            if saturated > 0 {
                check.counts.push(("saturated", i64::try_from(saturated).unwrap_or(i64::MAX)));
            }
            check.counts.push(("events_version", basis.next - 1));
            check.summary = match basis.next {
                0 => "`metrics` is empty, as nothing of `events` has been read yet".to_owned(),
                next => {
                    format!("{groups} groups equal the same SQL over `events` up to version {}, bit for bit", next - 1)
                }
            };
            if saturated > 0 {
                check.summary.push_str(&format!(
                    "; but for sums of {saturated} groups that left what their column holds, which says so in `saturated`"
                ));
            }
            if let Some(what) = difference {
                let hint = "run `bellwether rebuild`: it makes `metrics` and `releases` again from `events`";
                check.findings.add("metrics", what, hint);
            }
        }
        // Which file it is, the check `files` has said.
        Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Bug) => {
            check.skipped = Some(format!("they cannot be read: {}", error.chain()));
        }
        Err(error) => return Err(error),
    }
    Ok(check)
}

/// Of each shard the files of `events` that it has read; none where there is one shard.
async fn shards_of(lake: &Lake, basis: &Basis) -> Result<Option<Vec<Vec<AddedFile>>>> {
    let metrics = Snapshot::new(0, basis.applications.clone());
    let Some(layout) = Layout::of(&metrics).filter(|layout| layout.shards > 1) else { return Ok(None) };
    let mut shards = Vec::new();
    for (_, next) in layout.stands(&metrics) {
        shards.push(if next == 0 { Vec::new() } else { lake.files_at(Table::Events, next - 1).await? });
    }
    Ok(Some(shards))
}

/// One line on standard error that changes, where that is a terminal and the work is long.
struct ProgressLine {
    terminal: bool,
    started: i64,
    shown: i64,
}

// === impl ProgressLine ===

impl ProgressLine {
    fn new() -> Self {
        let now = SystemClock.now_micros();
        Self { terminal: std::io::stderr().is_terminal(), started: now, shown: now }
    }

    fn show(&mut self, progress: Progress) {
        let now = SystemClock.now_micros();
        if now - self.started >= QUIET_MICROS && now - self.shown >= REFRESH_MICROS {
            self.shown = now;
            self.say(&format!("files read: {} of {}", progress.files, progress.of));
        }
    }

    fn say(&self, text: &str) {
        if self.terminal {
            // Where standard error is closed there is nobody to tell.
            drop(write!(std::io::stderr(), "\r\x1b[K{text}"));
        }
    }

    fn clear(&self) {
        self.say("");
    }
}

fn text_of(lake: &Lake, audited: &Audited, colour: bool) -> String {
    let (green, red, dim, plain) =
        if colour { ("\x1b[32m", "\x1b[1;31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "", "") };
    let mut text = format!("{}\n", lake.root_display());
    for check in &audited.checks {
        let (mark, what) = match &check.skipped {
            Some(why) => (format!("{red}?{plain}"), format!("not checked: {why}")),
            None if check.ok() => (format!("{green}✓{plain}"), check.summary.clone()),
            None => (format!("{red}✗{plain}"), told_number(&check.findings)),
        };
        text.push_str(&format!("{mark} {:<11} {what}\n", check.name));
        for note in &check.notes {
            text.push_str(&format!("{dim}    note: {note}{plain}\n"));
        }
        let mut hint = "";
        for finding in &check.findings.kept {
            text.push_str(&format!("    {}: {}\n", finding.place, finding.what));
            if finding.hint != hint {
                hint = finding.hint;
                text.push_str(&format!("      hint: {hint}\n"));
            }
        }
        if check.findings.left_off > 0 {
            text.push_str(&format!("    … and {} more\n", check.findings.left_off));
        }
    }
    let verdict = match code(audited) {
        0 => format!("{green}All is so.{plain}"),
        exit::NO => format!("{red}Not all is so.{plain}"),
        _ => format!("{red}Not all of it can be judged.{plain}"),
    };
    text.push_str(&verdict);
    text
}

fn told_number(findings: &Findings) -> String {
    match findings.total() {
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    }
}

fn json_of(lake: &Lake, audited: &Audited) -> Value {
    let checks: Vec<Value> = audited
        .checks
        .iter()
        .map(|check| {
            let findings: Vec<Value> = check
                .findings
                .kept
                .iter()
                .map(|finding| json!({ "place": finding.place, "what": finding.what, "hint": finding.hint }))
                .collect();
            let counts: Map<String, Value> =
                check.counts.iter().map(|(name, number)| ((*name).to_owned(), json!(number))).collect();
            json!({
                "name": check.name,
                "ok": check.ok(),
                "skipped": check.skipped,
                "counts": counts,
                "notes": check.notes,
                "findings": findings,
                "findings_total": check.findings.total(),
            })
        })
        .collect();
    let partitions: Vec<Value> = audited
        .partitions
        .iter()
        .map(|state| {
            json!({
                "job": state.job,
                "topic": state.topic,
                "partition": state.partition,
                "from": state.from,
                "next": state.next,
                "ranges": state.commits,
                "passed_over": state.passed_over,
            })
        })
        .collect();
    let versions: Map<String, Value> =
        audited.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
    json!({
        "ok": code(audited) == 0,
        "auditable": audited.auditable,
        "root": lake.root_display(),
        "versions": versions,
        "checks": checks,
        "partitions": partitions,
    })
}
