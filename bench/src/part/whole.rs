//! Measures the whole pipeline: from a topic on a real broker to committed `events` and `metrics`, by the real program
//! at its defaults: exactly once, with every file synced. The result is the CPU time of that process alone.

use bellwether_base::{Error, Result};
use bellwether_bench::events::Size;
use bellwether_bench::process::Usage;

use crate::Bench;
use crate::kafka::{self, Filled};
use crate::part::crates::plainest;
use crate::part::flow::{Setup, stop, until_aggregated, until_ingested};
use crate::report::Bound;

const REQUIRED_PER_CPU_S: f64 = 150_000.0;
/// The requirement relative to the 390,000 events / CPU-s that a simple prototype (typed serde, Arrow, Parquet, without
/// Kafka and metrics) reached on the original machine: on other machines the yardstick differs accordingly.
const REQUIRED_OF_YARDSTICK: f64 = 150_000.0 / 390_000.0;
const REQUIRED_PEAK_MIB: f64 = 512.0;
const MIB: f64 = 1024.0 * 1024.0;

/// Runs of one mode, and their costs.
#[derive(Debug, Default)]
struct Runs {
    events_per_cpu_s: Vec<f64>,
    megabytes_per_cpu_s: Vec<f64>,
    events_per_s: Vec<f64>,
    megabytes_per_s: Vec<f64>,
    peak_mib: Vec<f64>,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let sizes =
        [(Size::Small, "0.8 kB", bench.sizes.topic_events), (Size::Large, "3 kB", bench.sizes.large_topic_events)];
    for (size, name, events) in sizes.into_iter().filter(|(_, _, events)| *events > 0) {
        let filled = kafka::fill(&broker, bench.seed, size, events)?;
        let required = (size == Size::Small).then_some(Bound::AtLeast(REQUIRED_PER_CPU_S));
        let (mut service, mut ingest, mut aggregate, mut caught_up) =
            (Runs::default(), Runs::default(), Runs::default(), Runs::default());
        for _ in 0..bench.sizes.runs {
            service.note(&filled, &as_a_service(bench, &filled).await?);
            caught_up.note(&filled, &once(bench, &filled, &["run", "--until-caught-up"])?);
            let setup = Setup::new(bench, &filled.topic)?;
            ingest.note(&filled, &setup.run(&["ingest", "--until-caught-up"])?);
            aggregate.note(&filled, &setup.run(&["aggregate", "--until-caught-up"])?);
            verify(&setup, &filled)?;
            setup.remove();
        }
        if size == Size::Small {
            let [_, plain] = plainest(bench)?;
            bench.report.section("whole").note("typed serde to Parquet (yardstick)", &[plain], "events / CPU-s", None);
            for (what, runs) in [("as a service", &service), ("--until-caught-up", &caught_up)] {
                let ratios: Vec<f64> = runs.events_per_cpu_s.iter().map(|rate| rate / plain).collect();
                let required = Some(Bound::AtLeast(REQUIRED_OF_YARDSTICK));
                bench.report.section("whole").note(format!("`run` {what}, {name}"), &ratios, "× yardstick", required);
            }
        }
        service.report(bench, &format!("`run` as a service, {name}"), required);
        caught_up.report(bench, &format!("`run --until-caught-up`, {name}"), required);
        ingest.report(bench, &format!("`ingest` alone, {name}"), None);
        aggregate.report(bench, &format!("`aggregate` alone, reading Parquet, {name}"), None);
    }
    Ok(())
}

/// Catches up with a topic as a service, including its other work, and stops it as an operator would.
async fn as_a_service(bench: &Bench, filled: &Filled) -> Result<Usage> {
    let setup = Setup::new(bench, &filled.topic)?;
    let lake = setup.lake().await?;
    let worker = [setup.start(&["run"])?];
    let entries = until_ingested(&lake, filled.events, &worker).await?;
    let newest = entries.last().map_or(0, |entry| entry.version);
    until_aggregated(&lake, newest, &worker).await?;
    let [worker] = worker;
    let usage = stop(worker)?;
    verify(&setup, filled)?;
    setup.remove();
    Ok(usage)
}

fn once(bench: &Bench, filled: &Filled, arguments: &[&str]) -> Result<Usage> {
    let setup = Setup::new(bench, &filled.topic)?;
    let usage = setup.run(arguments)?;
    verify(&setup, filled)?;
    setup.remove();
    Ok(usage)
}

/// Checks that the work was done: every message is a row, and every run is counted.
fn verify(setup: &Setup, filled: &Filled) -> Result<()> {
    for query in ["SELECT count(*) FROM events", "SELECT sum(runs) FROM metrics"] {
        let found = setup.number(query)?;
        if u64::try_from(found) != Ok(filled.events) {
            let root = setup.root().display();
            return Err(Error::data(format!("`{query}` returned {found} for {} events, in `{root}`", filled.events)));
        }
    }
    Ok(())
}

// === impl Runs ===

impl Runs {
    fn note(&mut self, filled: &Filled, usage: &Usage) {
        let cpu_s = usage.cpu_s.max(0.01);
        self.events_per_cpu_s.push(filled.events as f64 / cpu_s);
        self.megabytes_per_cpu_s.push(filled.bytes as f64 / cpu_s / 1e6);
        self.events_per_s.push(filled.events as f64 / usage.wall_s);
        self.megabytes_per_s.push(filled.bytes as f64 / usage.wall_s / 1e6);
        self.peak_mib.push(usage.peak_bytes as f64 / MIB);
    }

    fn report(&self, bench: &mut Bench, what: &str, required: Option<Bound>) {
        let report = &mut bench.report;
        report.section("whole").note(what, &self.events_per_cpu_s, "events / CPU-s", required);
        report.section("whole").note(what, &self.megabytes_per_cpu_s, "MB / CPU-s", None);
        report.section("whole").note(what, &self.events_per_s, "events / s", None);
        report.section("whole").note(what, &self.megabytes_per_s, "MB / s", None);
        report.section("whole").note(what, &self.peak_mib, "MiB peak", Some(Bound::AtMost(REQUIRED_PEAK_MIB)));
    }
}
