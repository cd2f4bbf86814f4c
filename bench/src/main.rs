//! `make bench`: measures Bellwether, as rates per CPU-second wherever other work on the machine could spoil a time.
//!
//! Each part is a file under `part`; `report` collects their numbers, `kafka` fills topics on the broker.
//!
//! Rule: nothing here is asserted by time. A number that is worse than required is shown as such, and no more.

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

/// Measures Bellwether. Without a part: all of them.
#[derive(Debug, Parser)]
#[command(name = "bellwether-bench")]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// A short version of each part
    #[arg(long)]
    quick: bool,
    /// A version of each part that only shows that it works; its numbers mean nothing
    #[arg(long, hide = true)]
    tiny: bool,
    /// Runs of each measurement, of which the median counts
    #[arg(long)]
    runs: Option<usize>,
    /// Seed of the events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of a Kafka broker, HOST:PORT
    #[arg(long, env = "BELLWETHER_TEST_KAFKA")]
    broker: Option<String>,
    /// The program to measure
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder for tables; by default a temporary one. It should be on a disk, not in memory
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Where the numbers go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What every part works with.
#[derive(Debug)]
struct Bench {
    sizes: Sizes,
    seed: u64,
    broker: Option<String>,
    program: PathBuf,
    scratch: PathBuf,
    report: Report,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Runs of each measurement.
    runs: usize,
    /// Events in the benches of one room.
    room_events: usize,
    /// Small events in a topic.
    topic_events: usize,
    /// Large events in a topic; none: they are left out.
    large_topic_events: usize,
    /// Events in the topic that peers read too.
    peer_events: usize,
    /// Seconds of live traffic, and of idling.
    window_s: u64,
    /// Live events a second.
    live_per_second: u64,
    /// Commits of the longest log.
    commits: i64,
    /// Tasks that are watched, with two releases each.
    watched_tasks: usize,
    /// Hours of history that baselines are learned from.
    watched_hours: i64,
    /// Ticks that are measured.
    watched_ticks: i64,
    /// Runs in the index of runs.
    late_runs: usize,
}

const FULL: Sizes = Sizes {
    runs: 3,
    room_events: 400_000,
    topic_events: 2_000_000,
    large_topic_events: 500_000,
    peer_events: 500_000,
    window_s: 60,
    live_per_second: 2000,
    commits: 10_000,
    watched_tasks: 1000,
    watched_hours: 96,
    watched_ticks: 20,
    late_runs: 10_000_000,
};
const QUICK: Sizes = Sizes {
    runs: 1,
    room_events: 100_000,
    topic_events: 300_000,
    large_topic_events: 75_000,
    peer_events: 50_000,
    window_s: 10,
    live_per_second: 2000,
    commits: 300,
    watched_tasks: 1000,
    watched_hours: 80,
    watched_ticks: 5,
    late_runs: 500_000,
};
const TINY: Sizes = Sizes {
    runs: 1,
    room_events: 400,
    topic_events: 600,
    large_topic_events: 0,
    peer_events: 600,
    window_s: 1,
    live_per_second: 100,
    commits: 12,
    watched_tasks: 10,
    watched_hours: 3,
    watched_ticks: 2,
    late_runs: 3_000,
};

fn main() -> ExitCode {
    // As the program does.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
    let arguments = Arguments::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::unavailable("the system gives no threads").with_source(source))
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
    let sizes = match (arguments.tiny, arguments.quick) {
        (true, _) => TINY,
        (false, true) => QUICK,
        (false, false) => FULL,
    };
    let scratch = match &arguments.scratch {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .map_err(|source| Error::unavailable("a temporary folder cannot be made").with_source(source))?;
    let mut bench = Bench {
        sizes: Sizes { runs: arguments.runs.unwrap_or(sizes.runs).max(1), ..sizes },
        seed: arguments.seed,
        // The mock cluster keeps 5 MiB a partition, and lives in a test's process.
        broker: arguments.broker.filter(|broker| !broker.is_empty() && broker != "mock"),
        program: arguments.program.map_or_else(beside_this_one, Ok)?,
        scratch: scratch.path().to_owned(),
        report: Report::new(sizes.runs < FULL.runs),
    };
    let parts = if arguments.parts.is_empty() { Part::all().to_vec() } else { arguments.parts };
    for part in parts {
        part.run(&mut bench).await?;
    }
    if let Some(file) = &arguments.json {
        bench.report.write(file)?;
    }
    println!("{}", bench.report.table());
    Ok(if bench.report.has_gaps() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The program built along with this one.
fn beside_this_one() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|source| Error::bug("this program has no path").with_source(source))?;
    Ok(own.with_file_name("bellwether"))
}
