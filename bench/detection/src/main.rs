//! `make bench-detection`: measures the quality of detection, and writes tables and pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_bench_detection::event::{self, USUAL};
use bellwether_bench_detection::export::{self, Answers};
use bellwether_bench_detection::page::{self, Stamp};
use bellwether_bench_detection::picture;
use bellwether_bench_detection::suite::{self, HELD_OUT, Plan};
use bellwether_bench_detection::world::{Change, NONE, Traffic, Whom, World};
use clap::{Parser, Subcommand};

/// Measures the quality of Bellwether's detection on simulated traffic.
#[derive(Debug, Parser)]
#[command(name = "bellwether-detection")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the scenarios; the short version fails where a target does not hold beyond chance
    Run {
        /// Only what the targets need, on few seeds
        #[arg(long)]
        quick: bool,
        /// Seeds of each scenario; four times as many where nothing is wrong
        #[arg(long)]
        seeds: Option<u64>,
        /// First seed; those from 10000 on were not used while building
        #[arg(long, default_value_t = HELD_OUT)]
        first: u64,
        /// Answers of peers, as `peers.py` writes them
        #[arg(long, value_name = "FILE")]
        peers: Vec<PathBuf>,
        /// Page whose generated part is replaced
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// Folder that pictures are written to
        #[arg(long, value_name = "FOLDER")]
        pictures: Option<PathBuf>,
        /// Where the numbers go as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Writes the series for peers as JSON
    Export {
        /// The file
        file: PathBuf,
        /// On few seeds
        #[arg(long)]
        quick: bool,
        /// First seed
        #[arg(long, default_value_t = HELD_OUT)]
        first: u64,
    },
    /// Prints run events: a release at 50 runs a minute, a tenth of them on a canary that is worse by some points
    Events {
        /// Seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Minutes of traffic
        #[arg(long, default_value_t = 60)]
        minutes: i64,
        /// Points by which the canary's success is lower
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
            let change = Change { whom: Whom::Canary, from: start, failure: worse / 100.0, ..NONE };
            let world = World::new(seed, Traffic::of(50.0).canary(0.1)).with(change);
            event::events(&world, start, start + minutes, USUAL).iter().for_each(|event| println!("{event}"));
        }
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

/// Where everything comes from and goes to.
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
        let answers: Answers = serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", file.display()))?;
        packages.extend(answers.packages.iter().map(|(name, version)| format!("{name} {version}")));
        export::add(&mut results, answers);
    }
    let took = now().saturating_sub(begun);
    let stamp = Stamp {
        date: humantime::format_rfc3339_seconds(UNIX_EPOCH + begun).to_string().split('T').next().unwrap_or("").into(),
        machine: machine(),
        command,
        seeds: format!(
            "seeds from {} on, {} of each scenario and {} of a release without a change",
            plan.first, plan.seeds, plan.nulls
        ),
        took: format!("{} s without the peers' packages", took.as_secs()),
        peers: if packages.is_empty() {
            "No peer ran as a package.".to_owned()
        } else {
            format!("Peers that ran as packages: {}.", packages.join(", "))
        },
    };
    let part = page::part(&results, &stamp);
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
    eprintln!("does not hold beyond chance: {}", failed.join("; "));
    // The short version is a gate; the long one measures, and says what does not hold.
    Ok(if plan.quick { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("`{}` cannot be written: {error}", file.display()))
}

/// Since the epoch.
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
