//! Measures a tick of the watch role: all shipped rules over thousands of series, with one new window each, and some
//! corrections.
//!
//! The cost of a tick depends on windows and series, not on traffic: a window is one row, whether it has ten runs or
//! ten thousand. The benchmark verifies that too.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, Int64Array, ListBuilder, PrimitiveBuilder, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bellwether_alerts::{BudgetSettings, Contract, Contracts, Engine, Rules};
use bellwether_base::{Error, Result};
use bellwether_bench::process::{cpu_seconds, memory};
use bellwether_stats::Sketch;
use bellwether_tables::Table;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Bench;
use crate::report::Bound;

/// First minute: a Monday.
const BEGIN: i64 = 29_459_520;

/// One in this many windows of the last minutes is corrected in a tick.
const CORRECTED: usize = 50;

/// Runs per window, in quiet and in busy traffic.
const TRAFFIC: [i64; 2] = [10, 1000];

/// Releases of each task over time, and hours that each is live: the second half of them as the release in full rollout, the
/// first half as its canary.
const RELEASES: i64 = 10;
const RELEASE_HOURS: i64 = 48;

/// One row of `metrics`.
struct Cell {
    task: usize,
    release: i64,
    canary: bool,
    minute: i64,
    sign: i64,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let tasks = bench.sizes.watched_tasks;
    for (place, traffic) in TRAFFIC.into_iter().enumerate() {
        let mut runs = Vec::new();
        let mut resident = Vec::new();
        for _ in 0..bench.sizes.runs.min(1 + place) {
            let mut watched = Watched::new(bench.seed, tasks, traffic)?;
            for hour in 0..bench.sizes.watched_hours {
                watched.tick(BEGIN + hour * 60, &[]).await?;
            }
            let from = BEGIN + bench.sizes.watched_hours * 60;
            // The first ticks allocate memory.
            for minute in 0..3 {
                watched.tick(from + minute, &[]).await?;
            }
            for minute in 3..3 + bench.sizes.watched_ticks {
                let late: Vec<(usize, i64)> =
                    (0..tasks).step_by(CORRECTED).map(|task| (task, from + minute - 2)).collect();
                let before = own_cpu_s()?;
                watched.tick(from + minute, &late).await?;
                runs.push(own_cpu_s()? - before);
            }
            resident.extend(memory(std::process::id()).map(|memory| memory.resident as f64 / 1024.0 / 1024.0));
        }
        let what = format!("{} series, all shipped rules, {traffic} runs per window", 2 * tasks);
        bench.report.section("watch").note(what, &runs, "CPU-s / tick", Some(Bound::AtMost(2.0)));
        if place == 0 {
            bench.report.section("watch").note("memory for these series", &resident, "MiB resident", None);
        }
    }
    Ok(())
}

/// Measures the watcher after nine days in which each task had ten releases, two at a time, in this process alone.
pub(crate) async fn alone(bench: &mut Bench) -> Result<()> {
    let tasks = bench.sizes.watched_tasks;
    let mut watched = Watched::new(bench.seed, tasks, TRAFFIC[0])?;
    let hours = (RELEASES - 1) * RELEASE_HOURS / 2;
    for hour in 0..hours {
        watched.release = hour / (RELEASE_HOURS / 2);
        watched.tick(BEGIN + hour * 60, &[]).await?;
        watched.engine.drop_idle(BEGIN + hour * 60);
    }
    let (from, mut ticks) = (BEGIN + hours * 60, Vec::new());
    // The first ticks allocate memory.
    for minute in 0..3 + bench.sizes.watched_ticks {
        let before = own_cpu_s()?;
        watched.tick(from + minute, &[]).await?;
        if minute >= 3 {
            ticks.push(own_cpu_s()? - before);
        }
    }
    let resident = memory(std::process::id()).map_or(f64::NAN, |memory| memory.resident as f64 / 1024.0 / 1024.0);
    let mut section = bench.report.section("watch");
    section.note("a tick", &ticks, "CPU-s / tick", None);
    section.note("memory", &[resident], "MiB resident", None);
    Ok(())
}

fn own_cpu_s() -> Result<f64> {
    cpu_seconds(std::process::id())
        .ok_or_else(|| Error::unavailable("`/proc` does not report the CPU time of this process"))
}

/// The rules, applied to generated windows.
struct Watched {
    engine: Engine,
    rng: StdRng,
    tasks: usize,
    /// The release in full rollout; the next one is its canary.
    release: i64,
    runs: i64,
    sketch: Vec<u8>,
}

impl Watched {
    fn new(seed: u64, tasks: usize, runs: i64) -> Result<Self> {
        let contract = Contract { success: Some(0.9), ..Contract::default() };
        let contracts: Contracts = (0..tasks).map(|task| (format!("task-{task}"), contract.clone())).collect();
        let engine = Engine::new(&Rules::load(None, &[]), &contracts, &BudgetSettings::default())?;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sketch = Sketch::new();
        (0..runs).for_each(|_| sketch.add(rng.random_range(500_000..4_000_000), 1));
        Ok(Self { engine, rng, tasks, release: 1, runs, sketch: sketch.encode() })
    }

    async fn tick(&mut self, minute: i64, late: &[(usize, i64)]) -> Result<()> {
        let mut cells: Vec<Cell> =
            (0..self.tasks).flat_map(|task| [false, true].map(|canary| self.cell(task, canary, minute, 1))).collect();
        cells.extend(late.iter().map(|(task, minute)| self.cell(*task, true, *minute, 0)));
        let batch = self.batch(&cells).await?;
        self.engine.take(Table::Metrics, vec![batch]).await?;
        self.engine.evaluate(minute + 1, minute + 1, None);
        Ok(())
    }

    fn cell(&self, task: usize, canary: bool, minute: i64, sign: i64) -> Cell {
        Cell { task, release: self.release + i64::from(canary), canary, minute, sign }
    }

    async fn batch(&mut self, cells: &[Cell]) -> Result<RecordBatch> {
        let names = self.engine.columns(Table::Metrics).await;
        let whole = Table::Metrics.arrow_schema();
        let fields: Vec<Field> =
            names.iter().map(|name| whole.field_with_name(name).cloned()).collect::<Result<_, _>>()?;
        // A late run is one more success.
        let runs = |cell: &Cell| if cell.sign == 0 { 1 } else { self.runs };
        let failures: Vec<i64> = cells
            .iter()
            .map(|cell| if cell.sign == 0 { 0 } else { self.rng.random_range(0..=self.runs / 8) })
            .collect();
        let columns: Vec<ArrayRef> = fields
            .iter()
            .map(|field| -> ArrayRef {
                let count = |of: &dyn Fn(usize, &Cell) -> i64| {
                    cells.iter().enumerate().map(|(place, cell)| of(place, cell)).collect::<Vec<_>>()
                };
                let value = |place: usize, cell: &Cell| match field.name().as_str() {
                    "failure" => failures[place],
                    "success" => runs(cell) - failures[place],
                    "runs" | "latency_runs" | "schema_applicable" | "tool_calls" | "runs_in_sessions" => runs(cell),
                    "schema_valid" => runs(cell) - failures[place] / 4,
                    "cost_nanos_sum" | "cost_success_nanos_sum" => runs(cell) * 1_000_000,
                    "cost_nanos_squares" => runs(cell) * 1_100_000_000_000,
                    _ => 0,
                };
                match field.data_type() {
                    DataType::Timestamp(..) => Arc::new(
                        TimestampMicrosecondArray::from(count(&|_, cell| cell.minute * 60_000_000))
                            .with_timezone("UTC"),
                    ),
                    DataType::Utf8View => {
                        let text = |cell: &Cell| match (field.name().as_str(), cell.canary) {
                            ("task", _) => format!("task-{}", cell.task),
                            ("release_id", _) => format!("v{}", cell.release),
                            ("stage", true) => "canary".to_owned(),
                            ("stage", false) => "full".to_owned(),
                            ("cost_currency", _) => "USD".to_owned(),
                            _ => String::new(),
                        };
                        Arc::new(StringViewArray::from_iter_values(cells.iter().map(text)))
                    }
                    DataType::Decimal128(precision, scale) => {
                        let values =
                            count(&|place, cell| value(place, cell)).into_iter().map(i128::from).collect::<Vec<_>>();
                        let array = Decimal128Array::from(values).with_precision_and_scale(*precision, *scale);
                        Arc::new(array.unwrap_or_else(|_| Decimal128Array::from(vec![0_i128; cells.len()])))
                    }
                    DataType::Binary => Arc::new(BinaryArray::from_iter_values(
                        cells.iter().map(|cell| if cell.sign == 0 { [1].as_slice() } else { self.sketch.as_slice() }),
                    )),
                    DataType::List(element) => {
                        let mut lists =
                            ListBuilder::new(PrimitiveBuilder::<Int64Type>::new()).with_field(Arc::clone(element));
                        for cell in cells {
                            let each = if cell.sign == 0 { 0 } else { (self.runs / 32).max(1) };
                            lists.values().append_slice(&[each; 32]);
                            lists.append(true);
                        }
                        Arc::new(lists.finish())
                    }
                    _ => Arc::new(Int64Array::from(count(&|place, cell| value(place, cell)))),
                }
            })
            .collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
