//! Measures cost and memory with many groups (tasks × releases × models): `aggregate` over a week and over half a day, the
//! real program catching up with and following the traffic of a large fleet, and the watcher.
//!
//! Every run is counted: afterwards `metrics` has exactly the runs of each group that the generator made.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_bench::events::{Fleet, Generator};
use bellwether_bench::process::{Measured, cpu_seconds};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message, Pushed};
use bellwether_lake::Lake;
use serde_json::Value;

use crate::Bench;
use crate::kafka;
use crate::part::crates::commit;
use crate::part::flow::{Setup, stop, until_aggregated, until_ingested};
use crate::part::freshness::{Live, warm_up};
use crate::report::Bound;

const PART: &str = "groups";

const MIB: f64 = 1024.0 * 1024.0;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Commits in which the events of a backlog arrive.
const COMMITS: usize = 30;

/// A backlog for `aggregate`: events spread evenly over a time that has passed.
struct Backlog {
    name: &'static str,
    fleet: Fleet,
    hours: i64,
    /// Events in the full measurement.
    events: usize,
    cpu_s: f64,
    peak_mib: Option<f64>,
}

const BACKLOGS: [Backlog; 2] = [
    Backlog {
        name: "60 groups over a week",
        fleet: Fleet { tasks: 5, releases: 3, models: 4 },
        hours: 7 * 24,
        events: 600_000,
        cpu_s: 8.0,
        peak_mib: Some(512.0),
    },
    Backlog {
        name: "118 groups over 12 h",
        fleet: Fleet { tasks: 59, releases: 2, models: 1 },
        hours: 12,
        events: 200_000,
        cpu_s: 3.0,
        peak_mib: None,
    },
];

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    for backlog in &BACKLOGS {
        Box::pin(backlog.measure(bench)).await?;
    }
    watch_alone(bench)?;
    if bench.broker.is_none() {
        let why = "catching up and live traffic need a Kafka broker: `make bench` starts one if Java 17 and Maven are \
                   installed; or set BELLWETHER_TEST_KAFKA=HOST:PORT";
        bench.report.skip(PART, why.to_owned());
        return Ok(());
    }
    let tasks = bench.sizes.fleet_tasks;
    let fleet = Fleet { tasks, releases: 3, models: 4 };
    Box::pin(catch_up(bench, fleet)).await?;
    Box::pin(live(bench, fleet)).await
}

// === impl Backlog ===

impl Backlog {
    async fn measure(&self, bench: &mut Bench) -> Result<()> {
        let events = (self.events / bench.sizes.backlog_part).max(1);
        let (mut cpu, mut peak) = (Vec::new(), Vec::new());
        for run in 0..bench.sizes.runs {
            let setup = Setup::new(bench, "none")?;
            let mut generator = Generator::of(self.fleet, bench.seed + run as u64);
            Box::pin(self.fill(&setup.lake().await?, &mut generator, events)).await?;
            let usage = setup.run(&["aggregate", "--until-caught-up"])?;
            counted(&setup, generator.drawn().map(|(group, runs)| (group.names(), runs)).collect())?;
            setup.remove();
            cpu.push(usage.cpu_s);
            peak.push(usage.peak_bytes as f64 / MIB);
        }
        let what = format!("`aggregate`, {events} events, {}", self.name);
        let mut section = bench.report.section(PART);
        section.note(&*what, &cpu, "CPU-s", Some(Bound::AtMost(self.cpu_s)));
        section.note(what, &peak, "MiB peak", self.peak_mib.map(Bound::AtMost));
        Ok(())
    }

    /// Writes events to the tables in their order of time, as ingest would.
    async fn fill(&self, lake: &Lake, generator: &mut Generator, events: usize) -> Result<()> {
        let now = SystemClock.now_micros();
        let span = self.hours * HOUR_MICROS;
        let mut builder = BatchBuilder::new(Limits::default());
        let (mut begun, rows) = (0, events.div_ceil(COMMITS) as i64);
        for offset in 0..events as i64 {
            let event = generator.next(now - span + (span as f64 * offset as f64 / events as f64) as i64);
            let message = Message { topic: "bench", offset, payload: Some(&event.payload), ..Message::default() };
            if let Pushed::Quarantined(reason) = builder.push(&message, now) {
                return Err(Error::bug(format!("a generated event was rejected: {reason}")));
            }
            let next = offset + 1;
            if next - begun == rows || next == events as i64 {
                let files = lake.store(&builder.finish()?.0).await?;
                commit(lake, &files, begun).await?;
                begun = next;
            }
        }
        Ok(())
    }
}

/// Checks that `metrics` has exactly these runs of each group: task, release and model.
fn counted(setup: &Setup, made: BTreeMap<[String; 3], u64>) -> Result<()> {
    let query = "SELECT task, release_id, model, sum(runs) AS runs FROM metrics GROUP BY task, release_id, model";
    let (answer, _) = setup.query(query)?;
    let mut found = BTreeMap::new();
    for line in answer.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [task, release, model, runs] = fields.as_slice() else {
            return Err(Error::bug(format!("`{query}` returned `{line}`")));
        };
        let group = [task, release, model].map(|name| (*name).to_owned());
        found.insert(group, runs.parse().unwrap_or(u64::MAX));
    }
    if let Some((group, runs)) = made.iter().find(|(group, runs)| found.get(*group) != Some(runs)) {
        let there = found.get(group);
        return Err(Error::data(format!("`metrics` counts {there:?} runs of {group:?} instead of {runs}")));
    }
    if found.len() != made.len() {
        return Err(Error::data(format!("`metrics` has {} groups instead of {}", found.len(), made.len())));
    }
    Ok(())
}

/// Measures `run` as a service catching up with the last half hour of a fleet.
async fn catch_up(bench: &mut Bench, fleet: Fleet) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let events = bench.sizes.fleet_events;
    let mut generator = Generator::of(fleet, bench.seed);
    let filled = kafka::fill_from(&broker, &mut generator, events)?;
    let made: BTreeMap<_, _> = generator.drawn().map(|(group, runs)| (group.names(), runs)).collect();
    let (mut rates, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..bench.sizes.runs {
        let setup = Setup::new(bench, &filled.topic)?;
        let lake = setup.lake().await?;
        let worker = [setup.start(&["run"])?];
        let entries = until_ingested(&lake, filled.events, &worker).await?;
        until_aggregated(&lake, entries.last().map_or(0, |entry| entry.version), &worker).await?;
        let [worker] = worker;
        let usage = stop(worker)?;
        counted(&setup, made.clone())?;
        setup.remove();
        rates.push(events as f64 / usage.cpu_s.max(0.01));
        peaks.push(usage.peak_bytes as f64 / MIB);
    }
    let what = format!("`run` as a service catching up with {events} events of 30 min, {} groups", fleet.groups());
    let mut section = bench.report.section(PART);
    section.note(&*what, &rates, "events / CPU-s", Some(Bound::AtLeast(100_000.0)));
    section.note(what, &peaks, "MiB peak", None);
    Ok(())
}

/// Measures `run` under the live traffic of a fleet.
async fn live(bench: &mut Bench, fleet: Fleet) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let topic = kafka::topic(&broker)?;
    let setup = Setup::new(bench, &topic)?;
    let lake = setup.lake().await?;
    let workers = [setup.start(&["run"])?];
    warm_up(&broker, &topic, &lake, &workers).await?;
    let cpu = |worker: &Measured| cpu_seconds(worker.id()).unwrap_or_default();
    let before = cpu(&workers[0]);
    let live = Live { per_second: bench.sizes.live_per_second, window: Duration::from_secs(bench.sizes.fleet_live_s) };
    let (times, generator) = live.measure(Generator::of(fleet, bench.seed), &broker, &topic, &lake).await?;
    let cores = (cpu(&workers[0]) - before) / live.window.as_secs_f64();
    let [worker] = workers;
    let usage = stop(worker)?;
    // The event of the warm-up belongs to none of the fleet's groups.
    let made: u64 = generator.drawn().map(|(_, runs)| runs).sum::<u64>() + 1;
    let found = setup.number("SELECT sum(runs) FROM metrics")?;
    if u64::try_from(found) != Ok(made) {
        return Err(Error::data(format!("`metrics` counts {found} runs instead of {made}")));
    }
    setup.remove();
    let what =
        format!("`run`, live for {} s, {} events/s, {} groups", live.window.as_secs(), live.per_second, fleet.groups());
    let mut section = bench.report.section(PART);
    section.note(&*what, &[cores], "cores", Some(Bound::AtMost(0.8)));
    section.note(&*what, &[usage.peak_bytes as f64 / MIB], "MiB peak", Some(Bound::AtMost(768.0)));
    section.note(format!("{what}: sending to visibility, median"), &[times.at(0.5)], "s", None);
    section.note(format!("{what}: sending to visibility, p99"), &[times.at(0.99)], "s", Some(Bound::AtMost(3.0)));
    section.note(format!("{what}: sending to visibility, longest"), &[times.at(1.0)], "s", None);
    Ok(())
}

/// Measures the watcher with many series, most of which have ended, in a process of its own: memory that other parts have used
/// must not count.
fn watch_alone(bench: &mut Bench) -> Result<()> {
    let failed = |what: &str, source: std::io::Error| Error::unavailable(what.to_owned()).with_source(source);
    let program =
        std::env::current_exe().map_err(|source| failed("cannot determine the path of this program", source))?;
    let file = bench.scratch.join("watch-alone.json");
    let (mut ticks, mut resident, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.sizes.runs {
        let mut command = Command::new(&program);
        command.args(bench.size_flag).args(["--seed", &(bench.seed + run as u64).to_string()]);
        command.args(["--runs", "1", "--json"]).arg(&file).arg("watch-alone");
        let run = Measured::start(&mut command).and_then(Measured::end);
        let (usage, _) = run.map_err(|source| failed("the watcher's measurement failed", source))?;
        let text =
            std::fs::read_to_string(&file).map_err(|source| failed("the watcher's results are missing", source))?;
        let value = |unit: &str| -> Result<f64> {
            let report: Value = serde_json::from_str(&text).unwrap_or_default();
            let measures = report["measures"].as_array().cloned().unwrap_or_default();
            let found =
                measures.iter().find(|measure| measure["unit"] == unit).and_then(|found| found["value"].as_f64());
            found.ok_or_else(|| Error::bug(format!("the watcher's results have no value in {unit}: {text}")))
        };
        ticks.push(value("CPU-s / tick")?);
        resident.push(value("MiB resident")?);
        peaks.push(usage.peak_bytes as f64 / MIB);
    }
    let tasks = bench.sizes.watched_tasks;
    let what = format!("watching {} (task, release) of which {} live, all shipped rules", tasks * 10, tasks * 2);
    let mut section = bench.report.section(PART);
    section.note(&*what, &ticks, "CPU-s / tick", Some(Bound::AtMost(0.5)));
    section.note(&*what, &resident, "MiB resident", Some(Bound::AtMost(250.0)));
    section.note(what, &peaks, "MiB peak", Some(Bound::AtMost(250.0)));
    Ok(())
}
