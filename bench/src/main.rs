//! `make bench`: measures Bellwether. Rates are per CPU-second wherever other load on the machine could distort a time.
//!
//! Each part is a file under `part`; `report` collects the results, `kafka` fills topics on the broker.
//!
//! Rule: nothing here asserts a time. A result that misses its requirement is reported as such, no more.

mod kafka;
mod part;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use clap::Parser;

use part::Part;
use report::Report;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measure Bellwether. Without a part: all of them.
#[derive(Debug, Parser)]
#[command(name = "bellwether-bench")]
struct Arguments {
    /// Parts to measure
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Run a short version of each part
    #[arg(long)]
    quick: bool,
    /// Run a version of each part that only shows that it works; its results are meaningless
    #[arg(long, hide = true)]
    tiny: bool,
    /// Runs of each measurement; the median is reported
    #[arg(long)]
    runs: Option<usize>,
    /// Seed of the events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of a Kafka broker, HOST:PORT
    #[arg(long, env = "BELLWETHER_TEST_KAFKA")]
    broker: Option<String>,
    /// Program to measure
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder for tables, by default a temporary one; it should be on a disk, not in memory
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The context of every part.
#[derive(Debug)]
struct Bench {
    sizes: Sizes,
    seed: u64,
    broker: Option<String>,
    program: PathBuf,
    scratch: PathBuf,
    /// The flag that selects these sizes.
    size_flag: &'static [&'static str],
    report: Report,
}

/// Sizes of the measurements.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Runs of each measurement.
    runs: usize,
    /// Events for measurements of a single crate.
    crate_events: usize,
    /// Small events in a topic.
    topic_events: usize,
    /// Large events in a topic; 0 to skip them.
    large_topic_events: usize,
    /// Events in the topic that peers read as well.
    peer_events: usize,
    /// Seconds of live traffic, and of idling.
    window_s: u64,
    /// Live events per second.
    live_per_second: u64,
    /// Commits of the longest log.
    commits: i64,
    /// Watched tasks, with two releases each.
    watched_tasks: usize,
    /// Hours of history to learn baselines from.
    watched_hours: i64,
    /// Measured ticks.
    watched_ticks: i64,
    /// Tasks with a bad canary, and seconds of their traffic.
    paged_tasks: usize,
    paged_s: u64,
    /// Runs in the run index.
    late_runs: usize,
    /// The backlogs of `groups` have one in this many of their events.
    backlog_part: usize,
    /// Tasks of the large fleet, with three releases and four models each.
    fleet_tasks: usize,
    /// Events of the large fleet in a topic.
    fleet_events: usize,
    /// Seconds of live traffic of the large fleet.
    fleet_live_s: u64,
    /// Days of `metrics`, and groups in each minute.
    history_days: i64,
    history_groups: usize,
    /// Rows of `events` among which one run is looked up.
    lookup_rows: usize,
    /// Commits at one a second with maintenance.
    seconds: i64,
}

const FULL: Sizes = Sizes {
    runs: 3,
    crate_events: 400_000,
    topic_events: 2_000_000,
    large_topic_events: 500_000,
    peer_events: 500_000,
    window_s: 60,
    live_per_second: 2000,
    commits: 10_000,
    watched_tasks: 1000,
    watched_hours: 96,
    watched_ticks: 20,
    paged_tasks: 100,
    paged_s: 300,
    late_runs: 10_000_000,
    backlog_part: 1,
    fleet_tasks: 500,
    fleet_events: 1_000_000,
    fleet_live_s: 1800,
    history_days: 30,
    history_groups: 200,
    lookup_rows: 20_000_000,
    seconds: 86_400,
};
const QUICK: Sizes = Sizes {
    runs: 1,
    crate_events: 100_000,
    topic_events: 300_000,
    large_topic_events: 75_000,
    peer_events: 50_000,
    window_s: 10,
    live_per_second: 2000,
    commits: 300,
    watched_tasks: 1000,
    watched_hours: 80,
    watched_ticks: 5,
    paged_tasks: 20,
    paged_s: 180,
    late_runs: 500_000,
    backlog_part: 10,
    fleet_tasks: 500,
    fleet_events: 100_000,
    fleet_live_s: 60,
    history_days: 3,
    history_groups: 200,
    lookup_rows: 1_000_000,
    seconds: 2_000,
};
const TINY: Sizes = Sizes {
    runs: 1,
    crate_events: 400,
    topic_events: 600,
    large_topic_events: 0,
    peer_events: 600,
    window_s: 1,
    live_per_second: 100,
    commits: 12,
    watched_tasks: 10,
    watched_hours: 3,
    watched_ticks: 2,
    paged_tasks: 2,
    paged_s: 1,
    late_runs: 3_000,
    backlog_part: 1_000,
    fleet_tasks: 4,
    fleet_events: 600,
    fleet_live_s: 2,
    history_days: 1,
    history_groups: 4,
    lookup_rows: 2_000,
    seconds: 60,
};

fn main() -> ExitCode {
    // Same as the program does.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
    let arguments = Arguments::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::unavailable("cannot start the async runtime").with_source(source))
        .and_then(|runtime| runtime.block_on(Box::pin(measure(arguments))));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments) -> Result<ExitCode> {
    let (sizes, size_flag): (_, &[&str]) = match (arguments.tiny, arguments.quick) {
        (true, _) => (TINY, &["--tiny"]),
        (false, true) => (QUICK, &["--quick"]),
        (false, false) => (FULL, &[]),
    };
    let scratch = match &arguments.scratch {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .map_err(|source| Error::unavailable("cannot create a temporary folder").with_source(source))?;
    let mut bench = Bench {
        sizes: Sizes { runs: arguments.runs.unwrap_or(sizes.runs).max(1), ..sizes },
        seed: arguments.seed,
        // The mock cluster keeps 5 MiB per partition and lives in a test's process.
        broker: arguments.broker.filter(|broker| !broker.is_empty() && broker != "mock"),
        program: arguments.program.map_or_else(beside_this_one, Ok)?,
        scratch: scratch.path().to_owned(),
        size_flag,
        report: Report::new(sizes.runs < FULL.runs),
    };
    let parts = if arguments.parts.is_empty() { Part::all() } else { arguments.parts };
    for part in parts {
        part.run(&mut bench).await?;
    }
    if let Some(file) = &arguments.json {
        bench.report.write(file)?;
    }
    println!("{}", bench.report.table());
    Ok(if bench.report.has_gaps() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the path of the program built together with this one.
fn beside_this_one() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|source| Error::bug("cannot determine the path of this program").with_source(source))?;
    Ok(own.with_file_name("bellwether"))
}
