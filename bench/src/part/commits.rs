//! Measures the cost of a commit, of opening a table, and the writer's memory, on the way to ten thousand commits.
//! Maintenance runs as often as in a service with one commit a second.

use std::time::Instant;

use bellwether_base::{Clock, Error, ManualClock, Result, SystemClock, unique_id};
use bellwether_bench::events::{Generator, Size};
use bellwether_bench::process::{cpu_seconds, memory};
use bellwether_event::Limits;
use bellwether_ingest::{Message, RowBuilder};
use bellwether_lake::{
    Advance, Chunk, Commit, CommitLog, DataFile, Lake, MaintainSettings, Outcome, RowEncoder, Snapshot, StorageOptions,
    app_of,
};
use bellwether_tables::Table;

use crate::Bench;
use crate::part::flow::Setup;

/// Rows per commit, as in a quiet second.
pub(crate) const ROWS: usize = 50;

/// Commits between two rounds of maintenance: one commit per second, one round every 30 s.
const MAINTAIN_EVERY: i64 = 30;

/// Numbers of commits at which the cost is measured.
const STOPS: [i64; 7] = [100, 500, 1_000, 2_500, 5_000, 7_500, 10_000];

const MIB: f64 = 1024.0 * 1024.0;

/// Costs of the commits since the last measurement.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) commits: i64,
    pub(crate) commit_cpu_s: f64,
    commit_wall_s: f64,
    pub(crate) maintain_cpu_s: f64,
}

/// A table that grows commit by commit.
pub(crate) struct Growing {
    lake: Lake,
    on: Snapshot,
    /// `metrics`, which records how far `events` is aggregated.
    followed: Snapshot,
    rows: Chunk,
    commits: i64,
    /// The clock that dates the commits, if it is not the system's: it advances by a second with each.
    seconds: Option<ManualClock>,
}

fn commit_of(operation: &'static str, advance: Advance, files: Vec<DataFile>) -> Commit {
    let (ranges, facts) = (Vec::new(), serde_json::Map::new());
    Commit { uuid: unique_id(), advances: vec![advance], files, operation, ranges, facts }
}

fn committed(outcome: Outcome) -> Result<Snapshot> {
    match outcome {
        Outcome::Committed(snapshot) => Ok(snapshot),
        other => Err(Error::bug(format!("a commit without concurrent writers ended as {other:?}"))),
    }
}

fn own_cpu_s() -> Result<f64> {
    cpu_seconds(std::process::id())
        .ok_or_else(|| Error::unavailable("`/proc` does not report the CPU time of this process"))
}

fn rows(seed: u64) -> Result<Chunk> {
    let mut generator = Generator::new(seed, Size::Small);
    let mut builder = RowBuilder::new(Limits::default());
    let now = SystemClock.now_micros();
    for offset in 0..ROWS as i64 {
        let event = generator.next(now);
        builder.push(&Message { topic: "bench", offset, payload: Some(&event.payload), ..Message::default() }, now);
    }
    Ok(builder.finish().0)
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let setup = Setup::new(bench, "none")?;
    let mut growing = Growing::new(setup.lake().await?, bench.seed, None).await?;
    for stop in STOPS.map(|stop| stop.min(bench.sizes.commits)) {
        // Only the last tenth is measured: the cost at that length of the log, not on the way there.
        let measured_from = stop - (stop / 10).max(1);
        growing.grow(measured_from).await?;
        let costs = growing.grow(stop).await?;
        if costs.commits == 0 {
            continue;
        }
        costs.report(bench, stop);
        opening(bench, &setup, stop).await?;
    }
    setup.remove();
    Ok(())
}

/// Measures time, CPU and memory of a program that opens the table and counts its rows.
async fn opening(bench: &mut Bench, setup: &Setup, commits: i64) -> Result<()> {
    let (mut load, mut cpu, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let lake = Lake::open(&setup.root().display().to_string(), &StorageOptions::default()).await?;
        let begun = Instant::now();
        lake.log(Table::Events).load().await?;
        load.push(begun.elapsed().as_secs_f64() * 1000.0);
        let (_, usage) = setup.query("SELECT count(*) FROM events")?;
        cpu.push(usage.cpu_s * 1000.0);
        peak.push(usage.peak_bytes as f64 / MIB);
    }
    let at = format!("after {commits} commits");
    let report = &mut bench.report;
    report.section("commits").note(format!("loading the table's snapshot, {at}"), &load, "ms", None);
    report.section("commits").note(format!("`bellwether sql`, open and count, {at}"), &cpu, "CPU-ms", None);
    report.section("commits").note(format!("`bellwether sql`, open and count, {at}"), &peak, "MiB peak", None);
    Ok(())
}

// === impl Growing ===

impl Growing {
    /// Starts with the table as it is.
    pub(crate) async fn new(lake: Lake, seed: u64, seconds: Option<ManualClock>) -> Result<Self> {
        let on = lake.log(Table::Events).load().await?;
        let followed = lake.log(Table::Metrics).load().await?;
        Ok(Self { lake, on, followed, rows: rows(seed)?, commits: 0, seconds })
    }

    /// Commits until there are `to` commits.
    pub(crate) async fn grow(&mut self, to: i64) -> Result<Costs> {
        let mut costs = Costs::default();
        while self.commits < to {
            let (before, begun) = (own_cpu_s()?, Instant::now());
            self.commit().await?;
            costs.commit_wall_s += begun.elapsed().as_secs_f64();
            let between = own_cpu_s()?;
            costs.commit_cpu_s += between - before;
            costs.commits += 1;
            if self.commits % MAINTAIN_EVERY == 0 {
                self.follow().await?;
                let between = own_cpu_s()?;
                self.lake.maintain(Table::Events, &MaintainSettings::default()).await?;
                costs.maintain_cpu_s += own_cpu_s()? - between;
            }
        }
        Ok(costs)
    }

    /// Records in `metrics` that aggregation keeps up, without rows: what it has still to read would stay in the log.
    async fn follow(&mut self) -> Result<()> {
        let log = self.lake.log(Table::Metrics);
        let app_id = app_of(0);
        let advance = Advance { expected: self.followed.next(&app_id), next: self.on.version + 1, app_id };
        let commit = commit_of("aggregate", advance, Vec::new());
        self.followed = committed(log.try_commit(&self.followed, &commit).await?)?;
        self.lake.maintain(Table::Metrics, &MaintainSettings::default()).await.map(drop)
    }

    async fn commit(&mut self) -> Result<()> {
        const APP: &str = "bench/t/0";
        let mut encoder = RowEncoder::new(Table::Events);
        encoder.push(&self.rows)?;
        let files = self.lake.store(&encoder.finish()?).await?;
        let next = (self.commits + 1) * ROWS as i64;
        let advance = Advance { app_id: APP.to_owned(), expected: self.on.next(APP), next };
        let commit = commit_of("ingest", advance, files.into_iter().map(|file| file.file).collect());
        self.on = committed(self.lake.log(Table::Events).try_commit(&self.on, &commit).await?)?;
        self.commits += 1;
        if let Some(clock) = &self.seconds {
            clock.advance(1_000_000);
        }
        Ok(())
    }
}

// === impl Costs ===

impl Costs {
    fn report(&self, bench: &mut Bench, at: i64) {
        let each = |seconds: f64| [seconds * 1000.0 / self.commits as f64];
        let at = format!("of {ROWS} rows, at {at} commits");
        let report = &mut bench.report;
        report.section("commits").note(format!("a commit {at}"), &each(self.commit_cpu_s), "CPU-ms", None);
        report.section("commits").note(format!("a commit {at}"), &each(self.commit_wall_s), "ms", None);
        report.section("commits").note(
            format!("maintenance per commit {at}"),
            &each(self.maintain_cpu_s),
            "CPU-ms",
            None,
        );
        let per_s = [self.commits as f64 / self.commit_wall_s.max(1e-6)];
        report.section("commits").note(format!("commits {at}"), &per_s, "commits / s", None);
        if let Some(memory) = memory(std::process::id()) {
            let resident = [memory.resident as f64 / MIB];
            report.section("commits").note(format!("memory of the writer {at}"), &resident, "MiB", None);
        }
    }
}
