//! Measures late outcomes: memory of the run index, time to rebuild it at start, cost of a verdict within and beyond
//! its horizon, and time for a standby to take over.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use bellwether_aggregate::{Aggregator, AggregatorSettings};
use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_bench::events::{Generator, Size};
use bellwether_bench::process::{Measured, cpu_seconds};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message, Pushed, RowBuilder};
use bellwether_lake::{Chunk, EncodedRows, Lake, RowEncoder};
use bellwether_tables::Table;
use prometheus::Registry;

use crate::Bench;
use crate::part::crates::commit;
use crate::part::flow::{Setup, until_aggregated};
use crate::report::Bound;

/// Commits for a day's runs; with maintenance, roughly the number of a day's files.
const FILES: usize = 50;

/// Days of runs beyond the horizon, and files per day.
const DAYS: usize = 30;
const FILES_A_DAY: usize = 24;

/// Verdicts per commit.
const VERDICTS: usize = 50_000;

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// Memory for ten million runs.
const INDEX_BYTES: usize = 512 << 20;

fn own_cpu_s() -> Result<f64> {
    cpu_seconds(std::process::id())
        .ok_or_else(|| Error::unavailable("`/proc` does not report the CPU time of this process"))
}

/// Runs that differ only in id and time: built once, with new times for each file.
pub(crate) struct Template {
    rows: Chunk,
    next: i64,
    /// Makes a run's id from its number.
    id: fn(i64) -> String,
}

// === impl Template ===

impl Template {
    fn new(seed: u64, rows: usize, now: i64) -> Result<Self> {
        Self::with_ids(seed, rows, now, run_id)
    }

    /// Builds the given number of runs for each file.
    pub(crate) fn with_ids(seed: u64, rows: usize, now: i64, id: fn(i64) -> String) -> Result<Self> {
        let mut generator = Generator::new(seed, Size::Small);
        let mut builder = RowBuilder::new(Limits::default());
        for offset in 0..rows as i64 {
            let event = generator.next(now);
            builder.push(&Message { topic: "bench", offset, payload: Some(&event.payload), ..Message::default() }, now);
        }
        Ok(Self { rows: builder.finish().0, next: 0, id })
    }

    /// Returns the next runs; the last one ends at `at`.
    pub(crate) fn runs(&mut self, at: i64) -> Result<EncodedRows> {
        let (from, to) = (self.next, self.next + self.rows.rows as i64);
        self.next = to;
        let schema = Table::Events.arrow_schema();
        let times = |name: &str| {
            let column = schema.index_of(name).ok().and_then(|place| self.rows.columns[place].as_ref());
            column.map(|column| column.as_primitive::<TimestampMicrosecondType>())
        };
        let shift = at - times("ended_at").and_then(arrow::compute::max).unwrap_or(at);
        let moved = |name: &str| {
            times(name)
                .map(|times| times.unary::<_, TimestampMicrosecondType>(|micros| micros + shift).with_timezone("UTC"))
        };
        let days = |times: &TimestampMicrosecondArray| -> ArrayRef {
            let day = |micros: i64| i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(0);
            Arc::new(times.unary::<_, Date32Type>(day))
        };
        let columns = schema.fields().iter().zip(&self.rows.columns);
        let columns = columns.map(|(field, column)| match field.name().as_str() {
            "run_id" => Some(Arc::new((from..to).map(|n| Some((self.id)(n))).collect::<StringViewArray>()) as ArrayRef),
            "offset" => Some(Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef),
            name @ ("event_time" | "started_at" | "ended_at") => moved(name).map(|times| Arc::new(times) as ArrayRef),
            "event_date" => moved("event_time").as_ref().map(days),
            _ => column.clone(),
        });
        let mut encoder = RowEncoder::new(Table::Events);
        encoder.push(&Chunk { rows: self.rows.rows, columns: columns.collect() })?;
        encoder.finish()
    }
}

fn run_id(n: i64) -> String {
    format!("run-{n:016x}")
}

/// Builds verdicts on runs, in the given order.
fn verdicts(runs: impl Iterator<Item = i64>, offset: i64, now: i64) -> Result<EncodedRows> {
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_micros(now.unsigned_abs()));
    let mut builder = BatchBuilder::new(Limits::default());
    for (offset, run) in (offset..).zip(runs) {
        let body = format!(
            r#"{{"spec":"run-event/1","type":"run.score","source":"judge","run_id":"{}","time":"{time}","data":{{"name":"ok","kind":"human","evaluator":{{"id":"night-judge"}},"passed":{},"sets_outcome":true}}}}"#,
            run_id(run),
            run % 3 != 0,
        );
        let message = Message { topic: "bench-verdicts", offset, payload: Some(body.as_bytes()), ..Message::default() };
        if let Pushed::Quarantined(reason) = builder.push(&message, now) {
            return Err(Error::bug(format!("a generated verdict was rejected: {reason}")));
        }
    }
    Ok(builder.finish()?.0)
}

/// Reads a gauge of an aggregator.
fn gauge(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    family.and_then(|family| family.get_metric().first()).map_or(0.0, |metric| metric.get_gauge().get_value())
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let setup = Setup::with_config(bench, "none", &format!("[aggregate]\nindex_memory_bytes = {INDEX_BYTES}\n"))?;
    let lake = setup.lake().await?;
    let runs = bench.sizes.late_runs;
    let next = Box::pin(within(bench, &lake, runs)).await?;
    Box::pin(take_over(bench, &setup, &lake, next)).await?;
    setup.remove();
    let setup = Setup::new(bench, "none")?;
    Box::pin(beyond(bench, &setup.lake().await?, runs)).await?;
    setup.remove();
    Ok(())
}

/// Measures runs within the horizon, and a batch of verdicts on a tenth of them.
async fn within(bench: &mut Bench, lake: &Lake, runs: usize) -> Result<i64> {
    let now = SystemClock.now_micros();
    let rows = (runs / FILES).max(1);
    let mut template = Template::new(bench.seed, rows, now)?;
    let settings =
        AggregatorSettings { index_memory_bytes: INDEX_BYTES, rolling_history: false, ..AggregatorSettings::default() };
    let registry = Registry::new();
    let mut aggregator = Box::pin(Aggregator::open(lake, settings, None, &registry)).await?;
    let (mut offset, mut cpu_s) = (0, 0.0);
    for file in 0..FILES as i64 {
        // The last twenty hours: within the horizon even if this takes long.
        let batch = template.runs(now - 20 * HOUR_MICROS + file * 20 * HOUR_MICROS / FILES as i64)?;
        let files = lake.store(&batch).await?;
        commit(lake, &files, offset).await?;
        offset += batch.rows() as i64;
        let before = own_cpu_s()?;
        Box::pin(aggregator.run_until_caught_up()).await?;
        cpu_s += own_cpu_s()? - before;
    }
    let held = gauge(&registry, "bellwether_aggregate_index_runs").max(1.0);
    let bytes = gauge(&registry, "bellwether_aggregate_index_bytes");
    let all = (rows * FILES) as f64;
    bench.report.section("late").note("runs in the index".to_owned(), &[held], "runs", None);
    bench.report.section("late").note(
        "events to metrics, with the index".to_owned(),
        &[all / cpu_s.max(0.01)],
        "events / CPU-s",
        None,
    );
    bench.report.section("late").note("memory of the index".to_owned(), &[bytes / 1048576.0], "MiB", None);
    bench.report.section("late").note(
        "memory of the index per run".to_owned(),
        &[bytes / held],
        "bytes",
        Some(Bound::AtMost(64.0)),
    );
    drop(aggregator);
    let begun = Instant::now();
    let mut aggregator = Box::pin(Aggregator::open(lake, settings, None, &Registry::new())).await?;
    let rebuilt = begun.elapsed().as_secs_f64();
    bench.report.section("late").note(
        "rebuilding the index at start".to_owned(),
        &[rebuilt],
        "s",
        Some(Bound::AtMost(10.0)),
    );
    // One in ten runs, in an order unrelated to that of the files.
    let judged = (runs / 10).max(1) as i64;
    let (mut said, mut cpu_s) = (0, 0.0);
    while said < judged {
        let count = (judged - said).min(VERDICTS as i64);
        let chosen = (said..said + count).map(|n| (n * 7_919_001 + 13) % offset);
        let batch = verdicts(chosen, offset + said, now)?;
        let files = lake.store(&batch).await?;
        commit(lake, &files, offset + said).await?;
        said += count;
    }
    let before = own_cpu_s()?;
    Box::pin(aggregator.run_until_caught_up()).await?;
    cpu_s += own_cpu_s()? - before;
    let what = format!("{judged} late verdicts on {runs} runs");
    bench.report.section("late").note(what, &[cpu_s], "CPU-s", Some(Bound::AtMost(60.0)));
    Ok(offset + judged)
}

/// Measures verdicts on runs of thirty days beyond the horizon.
async fn beyond(bench: &mut Bench, lake: &Lake, runs: usize) -> Result<()> {
    let now = SystemClock.now_micros();
    let files = DAYS * FILES_A_DAY;
    let rows = (runs / 4 / files).max(1);
    let mut template = Template::new(bench.seed, rows, now)?;
    // No older than the contract accepts.
    let begin = now - DAYS as i64 * DAY_MICROS + 2 * HOUR_MICROS;
    let mut offset = 0;
    for file in 0..files as i64 {
        let batch = template.runs(begin + file * HOUR_MICROS * 24 / FILES_A_DAY as i64)?;
        let written = lake.store(&batch).await?;
        commit(lake, &written, offset).await?;
        offset += batch.rows() as i64;
    }
    let settings = AggregatorSettings {
        horizon: Duration::from_secs(3600),
        rolling_history: false,
        ..AggregatorSettings::default()
    };
    let registry = Registry::new();
    let mut aggregator = Box::pin(Aggregator::open(lake, settings, None, &registry)).await?;
    Box::pin(aggregator.run_until_caught_up()).await?;
    let held = gauge(&registry, "bellwether_aggregate_index_runs");
    bench.report.section("late").note(
        format!("runs held of {offset}, with a horizon of one hour"),
        &[held],
        "runs",
        None,
    );
    let judged = (offset / 100).clamp(1, 20_000);
    let batch = verdicts((0..judged).map(|n| (n * 7_919_001 + 13) % offset), offset, now)?;
    let written = lake.store(&batch).await?;
    commit(lake, &written, offset).await?;
    let before = own_cpu_s()?;
    Box::pin(aggregator.run_until_caught_up()).await?;
    let cpu_s = (own_cpu_s()? - before).max(0.01);
    let what = format!("verdicts beyond the horizon, {DAYS} days in {files} files");
    bench.report.section("late").note(what, &[judged as f64 / cpu_s], "runs / CPU-s", Some(Bound::AtLeast(2000.0)));
    Ok(())
}

/// Measures the takeover between two aggregators after the active one is killed.
async fn take_over(bench: &mut Bench, setup: &Setup, lake: &Lake, mut next: i64) -> Result<()> {
    let now = SystemClock.now_micros();
    let mut template = Template::new(bench.seed + 1, 100, now)?;
    template.next = next;
    let mut say = async || -> Result<i64> {
        let batch = template.runs(SystemClock.now_micros())?;
        let files = lake.store(&batch).await?;
        commit(lake, &files, next).await?;
        next += batch.rows() as i64;
        lake.log(Table::Events).latest_version().await
    };
    let first = setup.start(&["aggregate"])?;
    let version = say().await?;
    until_aggregated(lake, version, std::slice::from_ref(&first)).await?;
    let second = setup.start(&["aggregate"])?;
    // Wait until it has built its index and is on standby: at least as long as the first one took.
    let version = say().await?;
    until_aggregated(lake, version, std::slice::from_ref(&first)).await?;
    tokio::time::sleep(Duration::from_secs(bench.sizes.window_s.min(30))).await;
    kill(&first)?;
    let killed = Instant::now();
    let version = say().await?;
    until_aggregated(lake, version, std::slice::from_ref(&second)).await?;
    let seconds = killed.elapsed().as_secs_f64();
    bench.report.section("late").note(
        "takeover by a standby after kill -9".to_owned(),
        &[seconds],
        "s",
        Some(Bound::AtMost(5.0)),
    );
    crate::part::flow::stop(second)?;
    // It was killed, which is not a failure.
    drop(first.end());
    Ok(())
}

fn kill(process: &Measured) -> Result<()> {
    let killed = Command::new("kill").args(["-9", &process.id().to_string()]).status();
    match killed {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::unavailable("cannot kill the program")),
    }
}
