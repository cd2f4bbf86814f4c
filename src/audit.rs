//! `bellwether audit`: verifies that no event was lost or duplicated, and reports it as text or JSON.

mod recompute;

use std::io::IsTerminal;
use std::process::ExitCode;

use bellwether_audit::{Audited, Check, Findings, Progress, audit};
use bellwether_base::{Clock, Result, SystemClock};
use bellwether_lake::{Lake, app_of};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::exit;
use crate::root::RootArgs;
use crate::status_line::StatusLine;

/// Audits shorter than this show no progress, microseconds.
const QUIET_MICROS: i64 = 1_000_000;

/// Shortest time between two updates of the progress line, microseconds.
const REFRESH_MICROS: i64 = 200_000;

/// Exit code if a table cannot be audited.
const NOT_AUDITABLE: u8 = 4;

/// Report format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// One line per check, for people.
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
    after_long_help = "Checks, each against one version of each table, so that ingest and aggregate may keep writing:
  tables      every table exists and was written by bellwether
  log         log entries are consecutive, and log checkpoints match them
  offsets     for each job and partition, offset ranges only grow and leave no gap
  files       every file exists and is readable, and its size, row count and bounds match the log
  duplicates  no message has two rows in `events`, in `quarantine`, or across both
  rows        offsets = events + quarantined + offsets without a message (transactions, compaction,
              blank lines)
  progress    `metrics` has not read beyond the end of `events`
  metrics     with --recompute: `metrics` equals the same SQL over the `events` it read, bit for bit
  rollups     with --recompute: `metrics_hourly` equals `metrics`, and `metrics_daily` equals
              `metrics_hourly`, both folded, bit for bit

Exit codes:
  0  every check passed
  1  a check failed; its findings say what is wrong and where
  2  the command line is invalid, or the root has no tables
  3  the tables are unreachable
  4  a table cannot be audited: it is missing, was not written by bellwether, or its log is damaged

An audit writes nothing to the tables. It needs memory for four files, and 16 bytes for each range
of consecutive offsets. --recompute needs about 500 MB, whatever the number of events, and
temporary files about as large as the columns of `events` that it reads; TMPDIR says where. It
compares the windows of which everything is still kept.

Examples:
  bellwether audit --root bellwether-data
  bellwether audit --root s3://metrics/llm --recompute
  bellwether audit --config bellwether.toml --format json | jq '.checks[] | select(.ok | not)'"
)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Also recompute the metrics from `events` and compare them bit for bit.
    #[arg(long)]
    recompute: bool,
    /// Report format.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: ReportFormat,
}

pub(crate) async fn run(args: AuditArgs) -> Result<ExitCode> {
    let root = args.root.resolve()?;
    let lake = Lake::open_as_it_is(&root.uri, &root.options).await?;
    let mut line = ProgressLine::new();
    let mut audited = Box::pin(audit(&lake, &app_of(0), |progress| line.show(progress))).await?;
    if args.recompute {
        line.line.show("recomputing the metrics");
        audited.checks.push(Box::pin(recompute::check_metrics(&lake, audited.basis.as_ref())).await?);
        line.line.show("comparing the roll-ups");
        audited.checks.push(Box::pin(recompute::check_rollups(&lake, audited.basis.as_ref())).await?);
    }
    line.line.clear();
    let text = match args.format {
        ReportFormat::Json => json_of(&lake, &audited).to_string(),
        ReportFormat::Text => {
            text_of(&lake, &audited, std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        }
    };
    crate::print(&text)?;
    Ok(ExitCode::from(code(&audited)))
}

fn code(audited: &Audited) -> u8 {
    match (audited.auditable, audited.checks.iter().all(Check::ok)) {
        (false, _) => NOT_AUDITABLE,
        (true, false) => exit::FAILED,
        (true, true) => 0,
    }
}

/// A progress line, shown if the audit takes long.
struct ProgressLine {
    line: StatusLine,
    started: i64,
    shown: i64,
}

// === impl ProgressLine ===

impl ProgressLine {
    fn new() -> Self {
        let now = SystemClock.now_micros();
        Self { line: StatusLine::new(), started: now, shown: now }
    }

    fn show(&mut self, progress: Progress) {
        let now = SystemClock.now_micros();
        if now - self.started >= QUIET_MICROS && now - self.shown >= REFRESH_MICROS {
            self.shown = now;
            self.line.show(&format!("files read: {} of {}", progress.files, progress.of));
        }
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
            None => (format!("{red}✗{plain}"), findings_count(&check.findings)),
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
        0 => format!("{green}All checks passed.{plain}"),
        exit::FAILED => format!("{red}Some checks failed.{plain}"),
        _ => format!("{red}Some checks could not be completed.{plain}"),
    };
    text.push_str(&verdict);
    text
}

fn findings_count(findings: &Findings) -> String {
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
