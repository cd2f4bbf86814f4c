//! `bellwether report`: the report of a week as a page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, Result, Week};
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, SessionSettings};
use bellwether_report::{MOST_VERDICTS, Sources, WeeklyReport, default_week, gather, html, markdown};
use clap::{Args, Subcommand, ValueEnum};

use crate::config::Config;
use crate::root::{RootArgs, open_to_read};
use crate::status_line::StatusLine;
use crate::{gate, memory};

/// Most time for one statement of a report.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Reports for people.
#[derive(Subcommand, Debug)]
pub(crate) enum ReportCommand {
    /// Write the report of a week as one HTML page and as Markdown.
    ///
    /// It says what got worse and better, judges new releases, and lists failures, alerts and reviews. The page loads nothing
    /// else, so that it can be sent by mail or kept.
    #[command(after_help = "Examples:
  bellwether report weekly --root bellwether-data
  bellwether report weekly --config bellwether.toml --week 2026-W47 --output reports
  bellwether report weekly --root bellwether-data --task refunds --format markdown --output -

The default week is the last one that is over, from Monday to Sunday in UTC; if nothing ran in
it, the current one.")]
    Weekly(WeeklyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct WeeklyArgs {
    /// ISO week, such as 2026-W47 [default: the last one with runs].
    #[arg(long, value_name = "WEEK")]
    week: Option<Week>,
    /// Report only this task; repeat it for several.
    #[arg(long, value_name = "TASK")]
    task: Vec<String>,
    /// Report only the runs of a tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Files to write.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: ReportFormat,
    /// Folder for the files, or - to print one format.
    #[arg(long, short, default_value = ".", value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    root: RootArgs,
}

/// Which files a report writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    #[default]
    Both,
    Html,
    Markdown,
}

// === impl ReportFormat ===

impl ReportFormat {
    /// Returns the texts of a report, each with the end of the name of its file.
    fn texts(self, report: &WeeklyReport) -> Result<Vec<(&'static str, String)>> {
        let mut texts = Vec::new();
        if self != Self::Markdown {
            texts.push(("html", html(report)?));
        }
        if self != Self::Html {
            texts.push(("md", markdown(report)?));
        }
        Ok(texts)
    }
}

pub(crate) async fn run(command: ReportCommand) -> Result<ExitCode> {
    match command {
        ReportCommand::Weekly(args) => weekly(args).await,
    }
}

async fn weekly(args: WeeklyArgs) -> Result<ExitCode> {
    let printed = args.output == Path::new("-");
    if printed && args.format == ReportFormat::Both {
        return Err(Error::config("`--output -` prints one format").with_hint("add --format html or --format markdown"));
    }
    let root = args.root.resolve()?;
    let lake = open_to_read(&root.uri, &root.options).await?;
    let report = Box::pin(gathered(&args, &lake, root.config.as_ref())).await?;
    let texts = args.format.texts(&report)?;
    if printed {
        return texts.iter().map(|(_, text)| crate::print(text)).next_back().unwrap_or(Ok(ExitCode::SUCCESS));
    }
    for path in write(&report, &texts, &args.output)? {
        crate::print(&format!("wrote {}", path.display()))?;
    }
    if report.is_empty() {
        return crate::print(&format!("No task had a run in week {}.", report.week()));
    }
    let first: Vec<String> = report.first().iter().map(|item| format!("  * {item}")).collect();
    if first.is_empty() {
        return crate::print("Nothing needs attention.");
    }
    crate::print(&format!("Look at first:\n{}", first.join("\n")))
}

async fn gathered(args: &WeeklyArgs, lake: &Lake, config: Option<&Config>) -> Result<WeeklyReport> {
    let engine = EngineSettings { gauge: Some(memory::GAUGE), ..EngineSettings::default() };
    let settings =
        SessionSettings { timeout: Some(TIMEOUT), tenant: args.tenant.clone(), ..SessionSettings::default() };
    let session = Engine::open(lake, engine).await?.session(settings)?;
    let gate = gate::reader(config, None)?;
    let (tasks, tenant) = (args.task.clone(), args.tenant.clone());
    let sources = Sources { lake, session: &session, gate: &gate, most_verdicts: MOST_VERDICTS, tasks, tenant };
    let line = StatusLine::new();
    line.show("reading: weeks");
    let week = match args.week {
        Some(week) => week,
        None => Box::pin(default_week(&sources)).await?,
    };
    let report = Box::pin(gather(&sources, week, |part| line.show(&format!("{week}: reading {part}")))).await;
    line.clear();
    report
}

/// Writes the files of a report into a folder and returns their paths. A reader never sees half a file.
pub(crate) fn write(report: &WeeklyReport, texts: &[(&str, String)], folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |path: &Path, source| {
        Error::config(format!("cannot write `{}`", path.display()))
            .with_hint("name a folder that you may write to with --output")
            .with_source(source)
    };
    std::fs::create_dir_all(folder).map_err(|source| {
        Error::config(format!("cannot create the folder `{}`", folder.display()))
            .with_hint("name another one with --output")
            .with_source(source)
    })?;
    let mut paths = Vec::new();
    for (end, text) in texts {
        let path = folder.join(format!("weekly-{}.{end}", report.week()));
        let part = path.with_extension(format!("{end}.part"));
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|source| failed(&path, source))?;
        paths.push(path);
    }
    Ok(paths)
}
