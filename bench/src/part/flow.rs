//! Runs the real program on a topic, and reads its progress from its tables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bellwether_base::{Error, Result, unique_id};
use bellwether_bench::process::{Measured, Usage};
use bellwether_lake::{CommitLog, DeltaLog, Lake, Layout, LogEntry, StorageOptions, app_of};
use bellwether_tables::Table;

use crate::Bench;

/// Maximum wait for progress of the program.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two polls of the tables.
const LOOK: Duration = Duration::from_millis(100);

/// A root for tables with a minimal configuration of the program.
#[derive(Debug)]
pub(crate) struct Setup {
    program: PathBuf,
    config: PathBuf,
    root: PathBuf,
}

/// Follows a table's log, entry by entry.
pub(crate) struct Follower {
    log: DeltaLog,
    next: i64,
}

/// Statements that a session has run before, of which the mean is the warm time.
const WARM: usize = 8;

/// Times of a statement.
#[derive(Debug, Default)]
pub(crate) struct Timed {
    pub(crate) cold_ms: Vec<f64>,
    pub(crate) warm_ms: Vec<f64>,
    pub(crate) cold_peak_bytes: Vec<f64>,
    pub(crate) answer: String,
}

fn failed(what: String, source: std::io::Error) -> Error {
    Error::unavailable(what).with_source(source)
}

// === impl Setup ===

impl Setup {
    /// Creates empty tables for a topic.
    pub(crate) fn new(bench: &Bench, topic: &str) -> Result<Self> {
        Self::with_config(bench, topic, "")
    }

    /// Like [`Setup::new`], with further lines of configuration.
    pub(crate) fn with_config(bench: &Bench, topic: &str, more: &str) -> Result<Self> {
        // Some parts need no broker, but the configuration must name one.
        let broker = bench.broker.as_deref().unwrap_or("127.0.0.1:9092");
        let name = unique_id().simple().to_string();
        let root = bench.scratch.join(&name);
        let config = bench.scratch.join(format!("{name}.toml"));
        let text = format!(
            "[tables]\nroot = {:?}\n[kafka]\nbrokers = [{broker:?}]\ntopics = [{topic:?}]\ngroup = \"bench-{name}\"\n\
             [serve]\naddress = \"127.0.0.1:0\"\n[ingest]\ncontent = true\n{more}",
            root.display().to_string(),
        );
        std::fs::write(&config, text).map_err(|source| failed("cannot write the configuration".into(), source))?;
        Ok(Self { program: bench.program.clone(), config, root })
    }

    /// Starts a role.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Measured> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(&self.config);
        command.env_remove("RUST_LOG").env_remove("BELLWETHER_CONFIG").env("NO_COLOR", "1");
        self.spawn(&mut command)
    }

    fn spawn(&self, command: &mut Command) -> Result<Measured> {
        Measured::start(command).map_err(|source| {
            failed(format!("cannot start `{}`", self.program.display()), source)
                .with_hint("build it with `cargo build --release`, or set --program")
        })
    }

    /// Runs a role to completion.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Usage> {
        end(self.start(arguments)?)
    }

    /// Returns the single number of a result of `bellwether sql`.
    pub(crate) fn number(&self, query: &str) -> Result<i64> {
        let (answer, _) = self.query(query)?;
        let number = answer.lines().nth(1).and_then(|line| line.trim().parse().ok());
        number.ok_or_else(|| Error::bug(format!("`{query}` did not return a number: {answer}")))
    }

    /// Returns the result of `bellwether sql` as CSV, and its resource usage.
    pub(crate) fn query(&self, query: &str) -> Result<(String, Usage)> {
        let mut command = Command::new(&self.program);
        command.arg("sql").arg("--root").arg(&self.root).args(["--format", "csv", query]);
        let run = self.spawn(&mut command)?.end();
        let (usage, answer) = run.map_err(|source| failed(format!("`{query}` failed"), source))?;
        Ok((answer, usage))
    }

    /// Returns the wall times of a statement of `bellwether sql`, in a new process (cold) and in one that has run it before
    /// (warm), with the answer. `next` makes the statement of each turn.
    pub(crate) fn timed(&self, turns: usize, next: impl Fn(usize) -> String) -> Result<Timed> {
        let mut timed = Timed::default();
        for turn in 0..turns {
            let (answer, usage) = self.query(&next(turn))?;
            timed.answer = answer;
            timed.cold_ms.push(usage.wall_s * 1000.0);
            timed.cold_peak_bytes.push(usage.peak_bytes as f64);
            // The first statement of this process takes the cold time; the others make the difference.
            let all: Vec<String> = (0..=WARM).map(|more| next(turn + more)).collect();
            let (_, usage) = self.query(&all.join(";\n"))?;
            timed.warm_ms.push((usage.wall_s * 1000.0 - timed.cold_ms[turn]).max(0.0) / WARM as f64);
        }
        Ok(timed)
    }

    /// Opens the tables.
    pub(crate) async fn lake(&self) -> Result<Lake> {
        Lake::open(&self.root.display().to_string(), &StorageOptions::default()).await
    }

    /// Removes the tables, so that the files of one run do not affect the next.
    pub(crate) fn remove(self) {
        // Files that cannot be removed are deleted with the temporary folder.
        drop(std::fs::remove_dir_all(&self.root));
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// Waits for a process to end.
pub(crate) fn end(process: Measured) -> Result<Usage> {
    process.end().map(|(usage, _)| usage).map_err(|source| failed("the program failed".into(), source))
}

/// Stops a service as an operator would, and waits.
pub(crate) fn stop(process: Measured) -> Result<Usage> {
    process.terminate().map_err(|source| failed("cannot stop the program".into(), source))?;
    end(process)
}

// === impl Follower ===

impl Follower {
    pub(crate) fn new(lake: &Lake, table: Table) -> Self {
        Self { log: lake.log(table), next: 0 }
    }

    /// Returns the next entry; none if there is none yet.
    pub(crate) async fn next(&mut self) -> Result<Option<LogEntry>> {
        let entry = self.log.entry(self.next).await?;
        self.next += i64::from(entry.is_some());
        Ok(entry)
    }
}

/// Returns the number of Kafka messages in an entry of `events`.
pub(crate) fn messages(entry: &LogEntry) -> u64 {
    entry.ranges.iter().map(|range| u64::try_from(range.next - range.from).unwrap_or(0)).sum()
}

/// Returns the version of `events` up to which an entry of `metrics` has read.
pub(crate) fn read_up_to(entry: &LogEntry) -> Option<i64> {
    entry.txns.iter().find(|(app, _)| *app == app_of(0)).map(|(_, next)| *next)
}

/// Waits until `wanted` messages are in `events`; returns the entries with them.
pub(crate) async fn until_ingested(lake: &Lake, wanted: u64, workers: &[Measured]) -> Result<Vec<LogEntry>> {
    let mut follower = Follower::new(lake, Table::Events);
    let (mut entries, mut there, begun) = (Vec::new(), 0, Instant::now());
    while there < wanted {
        match follower.next().await? {
            Some(entry) => {
                there += messages(&entry);
                entries.push(entry);
            }
            None => wait(&begun, workers, || format!("{there} of {wanted} messages are in `events`")).await?,
        }
    }
    Ok(entries)
}

/// Waits until `metrics` includes a version of `events`.
pub(crate) async fn until_aggregated(lake: &Lake, version: i64, workers: &[Measured]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let next = Layout::reads_next(&lake.log(Table::Metrics).load().await?);
        if next > version {
            return Ok(());
        }
        wait(&begun, workers, || format!("`metrics` reads version {next} of `events` next, {version} is wanted"))
            .await?;
    }
}

async fn wait(begun: &Instant, workers: &[Measured], describe: impl FnOnce() -> String) -> Result<()> {
    if begun.elapsed() > PATIENCE {
        return Err(Error::unavailable(format!("{} after {} s", describe(), PATIENCE.as_secs())));
    }
    if workers.iter().any(Measured::has_ended) {
        return Err(Error::unavailable(format!("the program ended too early: {}", describe())));
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}
