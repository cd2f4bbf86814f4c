//! Compares Bellwether with other stream processors: the same topic, the same machine, the same output, which is runs,
//! successes, costs and tokens by minute, task and release, as Parquet. Bellwether also does all its other work.
//!
//! A peer emits a window when the window closes. Therefore, once it has read the topic and is idle, events with the
//! current time are published, which close every window of the topic; once it is idle again, it is stopped. The CPU
//! time of idling is subtracted. Its rows are then added up and compared with the sums computed when the events were
//! generated: without equal sums there is no result.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_bench::events::{Event, Generator, Size};
use bellwether_bench::process::{Measured, cpu_seconds};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::Bench;
use crate::kafka::{self, Progress, Publisher};
use crate::part::flow::{Setup, stop, until_aggregated, until_ingested};

const MIB: f64 = 1024.0 * 1024.0;
const MINUTE_MICROS: i64 = 60_000_000;

/// The runs of the topic ended within half an hour, long enough ago that a peer with an hour's grace closes their
/// windows when current events arrive.
const BACKLOG_BEGAN: Duration = Duration::from_secs(110 * 60);
const BACKLOG_SPAN: Duration = Duration::from_secs(30 * 60);

/// Events that close the windows: enough for every task and release on every partition.
const CLOSING_EVENTS: usize = 4000;

/// A peer that uses less than this fraction of a core for this long is idle: commits are 5 s apart.
const IDLE_SHARE: f64 = 0.15;
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Time between two polls of a peer.
const LOOK: Duration = Duration::from_millis(500);

/// Maximum time for a peer.
const PATIENCE: Duration = Duration::from_secs(480);

/// Runs, successes, costs in micro-units, input and output tokens.
type Sums = [i64; 5];

/// Sums by start of the minute (ms), task and release.
type Windows = BTreeMap<(i64, String, String), Sums>;

/// A topic and the result that every program must find in it.
struct Topic {
    name: String,
    events: u64,
    before_ms: i64,
    expected: Windows,
}

/// The resource usage of a program.
struct Needed {
    cpu_s: f64,
    wall_s: f64,
    peak_mib: f64,
}

/// A program to compare Bellwether with.
struct Peer {
    name: &'static str,
    /// Folder created by `scripts/peers fetch`.
    fetched: PathBuf,
    command: fn(&Path) -> Command,
}

/// Returns the folder in which `scripts/peers` stores a peer.
fn fetched(name: &str) -> PathBuf {
    let cache = std::env::var_os("BELLWETHER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether"),
        PathBuf::from,
    );
    cache.join("peers").join(name)
}

fn quixstreams(fetched: &Path) -> Command {
    let mut command = Command::new(fetched.join("venv/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/quixstreams/peer.py"));
    command
}

fn kafka_streams(fetched: &Path) -> Command {
    let mut command = Command::new("java");
    let class_path = format!("{}:{}", fetched.join("classes").display(), fetched.join("lib/*").display());
    // Without a limit, the JVM takes a quarter of the memory before it collects garbage.
    command.args(["-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &class_path, "Peer"]);
    command
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let peers = [
        Peer { name: "Kafka Streams 4.3.0", fetched: fetched("kafka-streams"), command: kafka_streams },
        Peer { name: "Quix Streams 3.28.1", fetched: fetched("quixstreams"), command: quixstreams },
    ];
    let broker = bench.broker.clone().unwrap_or_default();
    for peer in peers {
        if !peer.fetched.join("ready").exists() {
            let why = format!(
                "{} is not installed; `scripts/peers fetch` installs it or reports its requirements",
                peer.name
            );
            bench.report.skip("peers", why);
            continue;
        }
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..bench.sizes.runs {
            // A topic for each pair: a peer must not read the closing events of the previous one.
            let topic = topic(&broker, bench.seed, bench.sizes.peer_events)?;
            own.push(bellwether(bench, &topic).await?);
            other.push(peer.measure(bench, &topic)?);
        }
        let events = bench.sizes.peer_events as f64;
        report(bench, &format!("Bellwether, compared with {}", peer.name), events, &own);
        report(bench, peer.name, events, &other);
        let ratios: Vec<f64> = own.iter().zip(&other).map(|(own, other)| other.cpu_s / own.cpu_s).collect();
        bench.report.section("peers").note(
            format!("{} relative to Bellwether", peer.name),
            &ratios,
            "× CPU time",
            None,
        );
    }
    Ok(())
}

fn report(bench: &mut Bench, name: &str, events: f64, runs: &[Needed]) {
    let of = |number: fn(&Needed) -> f64| -> Vec<f64> { runs.iter().map(number).collect() };
    let cost: Vec<f64> = runs.iter().map(|run| run.cpu_s / events * 1e6).collect();
    bench.report.section("peers").note(name, &cost, "CPU-s / million events", None);
    bench.report.section("peers").note(name, &of(|run| run.peak_mib), "MiB at most", None);
    bench.report.section("peers").note(name, &of(|run| run.wall_s), "s until done", None);
}

/// Fills a topic, and adds up its contents from the JSON text, as an independent reader would.
fn topic(broker: &str, seed: u64, events: usize) -> Result<Topic> {
    let name = kafka::topic(broker)?;
    let publisher = Publisher::new(broker, &name)?;
    let mut generator = Generator::new(seed, Size::Small);
    let now = SystemClock.now_micros();
    let begin = now - BACKLOG_BEGAN.as_micros() as i64;
    let mut expected = Windows::new();
    for index in 0..events {
        let passed = (BACKLOG_SPAN.as_micros() as f64 * (index as f64 / events.max(1) as f64)) as i64;
        let event = generator.next(begin + passed);
        add(&mut expected, &event, begin + passed)?;
        publisher.publish(&event, false)?;
    }
    publisher.flush()?;
    Ok(Topic { name, events: events as u64, before_ms: (now - MINUTE_MICROS) / 1000, expected })
}

fn add(windows: &mut Windows, event: &Event, ended_micros: i64) -> Result<()> {
    let wrong = || Error::bug("a generated event lacks a field");
    let event: Value = serde_json::from_slice(&event.payload).map_err(|source| wrong().with_source(source))?;
    let data = &event["data"];
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    let (whole, micros) =
        data["cost"]["amount"].as_str().and_then(|amount| amount.split_once('.')).ok_or_else(wrong)?;
    let cost = format!("{whole}{micros}").parse::<i64>().map_err(|source| wrong().with_source(source))?;
    let row = [
        1,
        i64::from(data["outcome"]["status"] == "success"),
        cost,
        data["tokens"]["input"].as_i64().ok_or_else(wrong)?,
        data["tokens"]["output"].as_i64().ok_or_else(wrong)?,
    ];
    let start_ms = (ended_micros - ended_micros.rem_euclid(MINUTE_MICROS)) / 1000;
    sum(windows, (start_ms, text(&data["task"])?, text(&data["release"]["id"])?), row);
    Ok(())
}

fn sum(windows: &mut Windows, key: (i64, String, String), row: Sums) {
    let sums = windows.entry(key).or_default();
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += value;
    }
}

/// Runs Bellwether on the topic as a service, and reads the same sums from its `metrics`.
async fn bellwether(bench: &Bench, topic: &Topic) -> Result<Needed> {
    let setup = Setup::new(bench, &topic.name)?;
    let lake = setup.lake().await?;
    let worker = [setup.start(&["run"])?];
    let entries = until_ingested(&lake, topic.events, &worker).await?;
    until_aggregated(&lake, entries.last().map_or(0, |entry| entry.version), &worker).await?;
    let [worker] = worker;
    let usage = stop(worker)?;
    let query = "SELECT CAST(extract(epoch FROM window_start) * 1000 AS BIGINT), task, release_id, sum(runs), \
                 sum(success), sum(cost_nanos_sum) / 1000, sum(tokens_input), sum(tokens_output) \
                 FROM metrics GROUP BY window_start, task, release_id";
    let (answer, _) = setup.query(query)?;
    let mut found = Windows::new();
    for line in answer.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN) as i64;
        let text = |index: usize| fields.get(index).map_or_else(String::new, |field| (*field).to_owned());
        let row = [3, 4, 5, 6, 7].map(number);
        sum(&mut found, (number(0), text(1), text(2)), row);
    }
    verify("Bellwether", topic, &found)?;
    setup.remove();
    Ok(Needed { cpu_s: usage.cpu_s, wall_s: usage.wall_s, peak_mib: usage.peak_bytes as f64 / MIB })
}

/// Checks that a program found exactly the contents of the topic.
fn verify(name: &str, topic: &Topic, found: &Windows) -> Result<()> {
    let found: Windows =
        found.iter().filter(|(key, _)| key.0 < topic.before_ms).map(|(k, v)| (k.clone(), *v)).collect();
    if found == topic.expected {
        return Ok(());
    }
    let runs = |windows: &Windows| windows.values().map(|sums| sums[0]).sum::<i64>();
    let different = topic.expected.iter().find(|(key, sums)| found.get(*key) != Some(sums));
    Err(Error::data(format!(
        "{name} has wrong sums: {} windows with {} runs, expected {} with {}; the first difference is {different:?}, found {:?}",
        found.len(),
        runs(&found),
        topic.expected.len(),
        runs(&topic.expected),
        different.and_then(|(key, _)| found.get(key)),
    )))
}

// === impl Peer ===

impl Peer {
    fn measure(&self, bench: &Bench, topic: &Topic) -> Result<Needed> {
        let id = unique_id().simple().to_string();
        let folder = bench.scratch.join(format!("peer-{id}"));
        std::fs::create_dir_all(&folder)
            .map_err(|source| Error::unavailable("cannot create a folder for a peer").with_source(source))?;
        let broker = bench.broker.clone().unwrap_or_default();
        let mut command = (self.command)(&self.fetched);
        let group = format!("peer-{id}");
        command.args([&broker, &topic.name, &group]).arg(&folder).current_dir(&folder);
        let progress = Progress::new(&broker, &topic.name, &group)?;
        let wrong = |source: std::io::Error| Error::unavailable(format!("{} failed", self.name)).with_source(source);
        let begun = Instant::now();
        let process = Measured::start(&mut command).map_err(wrong)?;
        let Some(idle) = until_idle(&process, &progress, &begun) else { return Err(self.gave_up(process)) };
        close_windows(&broker, &topic.name, bench.seed)?;
        let Some(done) = until_idle(&process, &progress, &begun) else { return Err(self.gave_up(process)) };
        // Waiting to be considered idle is not work: its cost is known from the last stretch, which is idle throughout.
        let cpu_s = done.cpu_s - done.rate * (idle.length_s + done.length_s);
        let wall_s = idle.wall_s;
        let peak_mib = process.peak_bytes() as f64 / MIB;
        process.terminate().map_err(wrong)?;
        // A JVM that is stopped returns a failing exit status; only its output matters.
        drop(process.end());
        verify(self.name, topic, &read(&folder.join("out"))?)?;
        drop(std::fs::remove_dir_all(&folder)); // Leftovers are deleted with the temporary folder.
        Ok(Needed { cpu_s, wall_s, peak_mib })
    }

    /// Returns the error of a process that ended too early or did not finish in time.
    fn gave_up(&self, process: Measured) -> Error {
        if !process.has_ended() {
            return Error::unavailable(format!("{} did not finish within {} s", self.name, PATIENCE.as_secs()));
        }
        let printed = process.end().map_or_else(|error| error.to_string(), |(_, printed)| printed);
        Error::unavailable(format!("{} ended by itself:\n{printed}", self.name))
    }
}

/// A period in which a process is idle.
#[derive(Clone, Copy)]
struct Idle {
    /// Start, in seconds since the start of the process.
    wall_s: f64,
    length_s: f64,
    /// CPU time at its end.
    cpu_s: f64,
    /// CPU-seconds per second while idle, the median.
    rate: f64,
}

/// Waits until a process is idle. None if it ends by itself or takes too long.
fn until_idle(process: &Measured, progress: &Progress, begun: &Instant) -> Option<Idle> {
    let (mut wall_s, mut shares) = (0.0, Vec::new());
    let mut last = (cpu_seconds(process.id())?, Instant::now());
    while begun.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
        let cpu_s = cpu_seconds(process.id()).filter(|_| !process.has_ended())?;
        let share = (cpu_s - last.0) / last.1.elapsed().as_secs_f64();
        last = (cpu_s, Instant::now());
        // A slow start looks idle too, so wait until it has read the topic.
        if share > IDLE_SHARE || !progress.is_at_the_end() {
            shares.clear();
            continue;
        }
        if shares.is_empty() {
            wall_s = begun.elapsed().as_secs_f64();
        }
        shares.push(share);
        let length_s = begun.elapsed().as_secs_f64() - wall_s;
        if length_s > IDLE_FOR.as_secs_f64() {
            shares.sort_by(f64::total_cmp);
            return Some(Idle { wall_s, length_s, cpu_s, rate: shares[shares.len() / 2] });
        }
    }
    None
}

/// Publishes current events, which close all older windows.
fn close_windows(broker: &str, topic: &str, seed: u64) -> Result<()> {
    let publisher = Publisher::new(broker, topic)?;
    let mut generator = Generator::new(seed + 1_000_000, Size::Small);
    for _ in 0..CLOSING_EVENTS {
        publisher.publish(&generator.next(SystemClock.now_micros()), false)?;
    }
    publisher.flush()
}

/// Reads all rows of the Parquet files under a folder.
fn read(folder: &Path) -> Result<Windows> {
    let mut windows = Windows::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|source| Error::data(format!("no output in `{}`", folder.display())).with_source(source))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                read_file(&path, &mut windows)?;
            }
        }
    }
    Ok(windows)
}

fn read_file(path: &Path, windows: &mut Windows) -> Result<()> {
    let wrong = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::data(format!("cannot read `{}`", path.display())).with_source(source)
    };
    let file = File::open(path).map_err(|source| wrong(source.into()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    for batch in reader.map_err(|source| wrong(source.into()))? {
        let batch = batch.map_err(|source| wrong(source.into()))?;
        let [start, runs, success, cost, input, output] =
            ["window_start", "runs", "success", "cost_micros", "tokens_input", "tokens_output"]
                .map(|name| column(&batch, name, &DataType::Int64));
        let [task, release] = ["task", "release"].map(|name| column(&batch, name, &DataType::Utf8));
        let (task, release) = (task?, release?);
        let (task, release) = (task.as_string::<i32>(), release.as_string::<i32>());
        let numbers = [start?, runs?, success?, cost?, input?, output?];
        for row in 0..batch.num_rows() {
            let [start, sums @ ..] = numbers.each_ref().map(|column| column.as_primitive::<Int64Type>().value(row));
            sum(windows, (start, task.value(row).to_owned(), release.value(row).to_owned()), sums);
        }
    }
    Ok(())
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<std::sync::Arc<dyn Array>> {
    let found =
        batch.column_by_name(name).ok_or_else(|| Error::data(format!("a peer's output has no column `{name}`")))?;
    Ok(cast(found, kind)?)
}
