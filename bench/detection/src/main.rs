//! `make bench-detection`: measures the quality of detection and writes tables and pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_bench_detection::event::{self, USUAL};
use bellwether_bench_detection::export::{self, PeerAnswers};
use bellwether_bench_detection::gates;
use bellwether_bench_detection::page::{self, RunInfo};
use bellwether_bench_detection::picture;
use bellwether_bench_detection::suite::{self, HELD_OUT, Plan};
use bellwether_bench_detection::world::{Change, NONE, Scope, Traffic, World};
use clap::{Parser, Subcommand};

/// Measure the quality of Bellwether's detection on simulated traffic.
#[derive(Debug, Parser)]
#[command(name = "bellwether-detection")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios; the short version fails if a target is missed significantly
    Run {
        /// Only the scenarios with targets, on few seeds
        #[arg(long)]
        quick: bool,
        /// Seeds per scenario; four times as many for scenarios without a change
        #[arg(long)]
        seeds: Option<u64>,
        /// First seed; seeds from 10000 on were not used during development
        #[arg(long, default_value_t = HELD_OUT)]
        first: u64,
        /// Results of peers, written by `peers.py`
        #[arg(long, value_name = "FILE")]
        peers: Vec<PathBuf>,
        /// Page to update: its generated part is replaced
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// Folder for pictures
        #[arg(long, value_name = "FOLDER")]
        pictures: Option<PathBuf>,
        /// Write the results to this file as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Write the series for peers as JSON
    Export {
        /// File to write
        file: PathBuf,
        /// Use few seeds
        #[arg(long)]
        quick: bool,
        /// First seed
        #[arg(long, default_value_t = HELD_OUT)]
        first: u64,
    },
    /// Measure the gate: false promotions and roll-backs, and the runs that it needs, beside other methods
    Gates {
        /// Canaries of each kind
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        /// First seed
        #[arg(long, default_value_t = HELD_OUT)]
        first: u64,
        /// Page to update: its generated part is replaced
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// Print run events: a release at 50 runs a minute, with a tenth of them on a canary that is worse
    Events {
        /// Seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Minutes of traffic
        #[arg(long, default_value_t = 60)]
        minutes: i64,
        /// Percentage points by which the canary's success rate is lower
        #[arg(long, default_value_t = 5.0)]
        worse: f64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Export { file, quick, first } => {
            let plan = Plan { first, ..if quick { Plan::QUICK } else { Plan::FULL } };
            write(&file, &serde_json::to_string(&export::export(&plan)).map_err(|error| error.to_string())?)?;
        }
        Command::Events { seed, minutes, worse } => {
            let start = World::release_start(seed);
            let change = Change { scope: Scope::Canary, from: start, failure: worse / 100.0, ..NONE };
            let world = World::new(seed, Traffic::new(50.0).canary(0.1)).with(change);
            event::events(&world, start, start + minutes, USUAL).iter().for_each(|event| println!("{event}"));
        }
        Command::Gates { seeds, first, page } => measure_gates(seeds, first, page.as_deref())?,
        Command::Run { quick, seeds, first, peers, page, pictures, json } => {
            let command = format!(
                "make bench-detection{}{}",
                if quick { " QUICK=1" } else { "" },
                seeds.map(|seeds| format!(" SEEDS={seeds}")).unwrap_or_default()
            );
            let plan = if quick { Plan::QUICK } else { Plan::FULL };
            let (seeds, nulls) = seeds.map_or((plan.seeds, plan.nulls), |seeds| (seeds, 4 * seeds));
            let plan = Plan { seeds, nulls, first, ..plan };
            return measure(&plan, command, &Files { peers, page, pictures, json });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure_gates(seeds: u64, first: u64, page: Option<&Path>) -> Result<(), String> {
    let begun = now();
    let rows = gates::run(first..first + seeds, &gates::all_points(), |what| {
        eprintln!("{:>5} s  {what}", now().saturating_sub(begun).as_secs());
    });
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + begun).to_string();
    let measured = format!(
        "Measured {} on {}, `bellwether-detection gates --seeds {seeds}`, {seeds} canaries of each kind.",
        date.split('T').next().unwrap_or_default(),
        machine()
    );
    let part = gates::part(&rows, &measured);
    println!("{part}");
    let Some(file) = page else { return Ok(()) };
    let text = fs::read_to_string(file).map_err(|error| format!("`{}`: {error}", file.display()))?;
    let text =
        gates::replaced(&text, &part).ok_or_else(|| format!("`{}` has no line `{}`", file.display(), gates::BEGIN))?;
    write(file, &text)
}

/// Input and output files.
struct Files {
    peers: Vec<PathBuf>,
    page: Option<PathBuf>,
    pictures: Option<PathBuf>,
    json: Option<PathBuf>,
}

fn measure(plan: &Plan, command: String, files: &Files) -> Result<ExitCode, String> {
    let begun = now();
    let mut results = suite::run(plan, |what| {
        eprintln!("{:>5} s  {what}", now().saturating_sub(begun).as_secs());
    })
    .map_err(|problem| problem.to_string())?;
    let mut packages = Vec::new();
    for file in &files.peers {
        let text = fs::read_to_string(file).map_err(|error| format!("`{}`: {error}", file.display()))?;
        let answers: PeerAnswers =
            serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", file.display()))?;
        packages.extend(answers.packages.iter().map(|(name, version)| format!("{name} {version}")));
        export::add(&mut results, answers);
    }
    let took = now().saturating_sub(begun);
    let info = RunInfo {
        date: humantime::format_rfc3339_seconds(UNIX_EPOCH + begun).to_string().split('T').next().unwrap_or("").into(),
        machine: machine(),
        command,
        seeds: format!(
            "seeds from {} on, {} per scenario and {} for releases without a change",
            plan.first, plan.seeds, plan.nulls
        ),
        took: format!("{} s without the Python peers", took.as_secs()),
        peers: if packages.is_empty() {
            "No Python peer was run.".to_owned()
        } else {
            format!("Python peers: {}.", packages.join(", "))
        },
    };
    let part = page::part(&results, &info);
    println!("{part}");
    if let Some(file) = &files.page {
        let text = fs::read_to_string(file).map_err(|error| format!("`{}`: {error}", file.display()))?;
        let text = page::replaced(&text, &part)
            .ok_or_else(|| format!("`{}` has no line `{}`", file.display(), page::BEGIN))?;
        write(file, &text)?;
    }
    if let Some(folder) = files.pictures.as_ref().filter(|_| !plan.quick) {
        write(&folder.join("detection-evidence.svg"), &picture::evidence(&results.curves))?;
        write(&folder.join("detection-peers.svg"), &picture::trade(&page::marks(&results)))?;
        write(&folder.join("detection-mix.svg"), &picture::mix(&results.curves))?;
    }
    if let Some(file) = &files.json {
        write(file, &serde_json::to_string_pretty(&results).map_err(|error| error.to_string())?)?;
    }
    let failed: Vec<&str> =
        results.targets.iter().filter(|target| target.surely_fails()).map(|target| target.what.as_str()).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("targets missed significantly: {}", failed.join("; "));
    // The short version is a gate; the long one reports which targets are missed.
    Ok(if plan.quick { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("cannot write `{}`: {error}", file.display()))
}

/// Returns the time since the epoch.
#[expect(clippy::disallowed_methods, reason = "the date of a measurement, and how long it took")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    name.map_or_else(|| format!("{cores} cores"), |(_, name)| format!("{cores} cores of {name}"))
}
