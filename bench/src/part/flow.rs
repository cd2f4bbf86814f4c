//! The real program at work on a topic, and what its tables say of how far it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bellwether_base::{Error, Result, unique_id};
use bellwether_bench::process::{Measured, Usage};
use bellwether_lake::{CommitLog, DeltaLog, Lake, Layout, LogEntry, StorageOptions, app_of};
use bellwether_tables::Table;

use crate::Bench;

/// Longest wait for the program to get anywhere.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at the tables.
const LOOK: Duration = Duration::from_millis(100);

/// A root for tables, and the program's configuration for it: nothing but what must be said.
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

fn failed(what: String, source: std::io::Error) -> Error {
    Error::unavailable(what).with_source(source)
}

// === impl Setup ===

impl Setup {
    /// Fresh tables for a topic.
    pub(crate) fn new(bench: &Bench, topic: &str) -> Result<Self> {
        Self::with(bench, topic, "")
    }

    /// As [`Setup::new`], with further lines of configuration.
    pub(crate) fn with(bench: &Bench, topic: &str, more: &str) -> Result<Self> {
        // Some parts have no broker and need none; the configuration has to name one.
        let broker = bench.broker.as_deref().unwrap_or("127.0.0.1:9092");
        let name = unique_id().simple().to_string();
        let root = bench.scratch.join(&name);
        let config = bench.scratch.join(format!("{name}.toml"));
        let text = format!(
            "[tables]\nroot = {:?}\n[kafka]\nbrokers = [{broker:?}]\ntopics = [{topic:?}]\ngroup = \"bench-{name}\"\n\
             [serve]\naddress = \"127.0.0.1:0\"\n{more}",
            root.display().to_string(),
        );
        std::fs::write(&config, text).map_err(|source| failed("no configuration can be written".into(), source))?;
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
            failed(format!("`{}` does not start", self.program.display()), source)
                .with_hint("build it with `cargo build --release`, or name it with --program")
        })
    }

    /// Runs a role to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Usage> {
        end(self.start(arguments)?)
    }

    /// The one number of an answer of `bellwether sql`.
    pub(crate) fn number(&self, query: &str) -> Result<i64> {
        let (answer, _) = self.ask(query)?;
        let number = answer.lines().nth(1).and_then(|line| line.trim().parse().ok());
        number.ok_or_else(|| Error::bug(format!("`{query}` gave no number: {answer}")))
    }

    /// An answer of `bellwether sql` as CSV, and what it cost.
    pub(crate) fn ask(&self, query: &str) -> Result<(String, Usage)> {
        let mut command = Command::new(&self.program);
        command.arg("sql").arg("--root").arg(&self.root).args(["--format", "csv", query]);
        let run = self.spawn(&mut command)?.end();
        let (usage, answer) = run.map_err(|source| failed(format!("`{query}` fails"), source))?;
        Ok((answer, usage))
    }

    /// The tables.
    pub(crate) async fn lake(&self) -> Result<Lake> {
        Lake::open(&self.root.display().to_string(), &StorageOptions::default()).await
    }

    /// Removes the tables: a run's files would crowd out the next one's.
    pub(crate) fn remove(self) {
        // What cannot be removed goes with the temporary folder.
        drop(std::fs::remove_dir_all(&self.root));
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// Waits for a process's end.
pub(crate) fn end(process: Measured) -> Result<Usage> {
    process.end().map(|(usage, _)| usage).map_err(|source| failed("the program fails".into(), source))
}

/// Ends a service as its operator would, and waits.
pub(crate) fn stop(process: Measured) -> Result<Usage> {
    process.terminate().map_err(|source| failed("the program cannot be ended".into(), source))?;
    end(process)
}

// === impl Follower ===

impl Follower {
    pub(crate) fn new(lake: &Lake, table: Table) -> Self {
        Self { log: lake.log(table), next: 0 }
    }

    /// The next entry; none if there is none yet.
    pub(crate) async fn next(&mut self) -> Result<Option<LogEntry>> {
        let entry = self.log.entry(self.next).await?;
        self.next += i64::from(entry.is_some());
        Ok(entry)
    }
}

/// Messages of Kafka that an entry of `events` has taken in.
pub(crate) fn messages(entry: &LogEntry) -> u64 {
    entry.ranges.iter().map(|range| u64::try_from(range.next - range.from).unwrap_or(0)).sum()
}

/// The version of `events` up to which an entry of `metrics` has read.
pub(crate) fn read_up_to(entry: &LogEntry) -> Option<i64> {
    entry.txns.iter().find(|(app, _)| *app == app_of(0)).map(|(_, next)| *next)
}

/// Waits until a number of messages are in `events`; gives the entries that brought them.
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

/// Waits until `metrics` has taken in a version of `events`.
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
        return Err(Error::unavailable(format!("the program has ended too early: {}", describe())));
    }
    tokio::time::sleep(LOOK).await;
    Ok(())
}
