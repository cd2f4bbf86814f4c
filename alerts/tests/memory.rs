//! Memory of the watcher: bytes for each release of a task that has runs, with all shipped rules, counted by the allocator.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array, ListBuilder, PrimitiveBuilder, RecordBatch,
    StringViewArray,
};
use arrow::datatypes::{DataType, Int64Type};
use bellwether_alerts::{BudgetSettings, Contract, Contracts, Engine, Rules};
use bellwether_stats::Sketch;
use bellwether_tables::Table;
use common::{BEGIN, Cell, cell, rows};

/// Required, bytes for each release with runs.
const MOST: usize = 64 << 10;

/// Releases of each task over time, two at a time, and hours that each is live: the first half as the canary of the one
/// before.
const RELEASES: i64 = 10;
const RELEASE_HOURS: i64 = 48;

/// Minutes at the end in which every window has runs.
const BUSY: i64 = 360;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with the allocated bytes counted.
struct Counted;

#[expect(unsafe_code, reason = "the trait is unsafe; every call is passed to the system's allocator unchanged")]
// SAFETY: every call goes to the system's allocator with the caller's arguments, for which the caller upholds the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: upheld by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: upheld by the caller.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Fills in what the runs of a busy service state: latencies, costs, tool calls, sessions.
fn with_details(batch: &RecordBatch) -> RecordBatch {
    let column =
        |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().values().clone();
    let (runs, failures, count) = (column("runs"), column("failure"), batch.num_rows());
    let mut sketch = Sketch::new();
    (0..10).for_each(|place| sketch.add(500_000 + 350_000 * place, 1));
    let sketch = sketch.encode();
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, old)| -> ArrayRef {
        let value = |runs: i64, failures: i64| match field.name().as_str() {
            "latency_runs" | "schema_applicable" | "tool_calls" | "runs_in_sessions" => Some(runs),
            "schema_valid" => Some(runs - failures / 4),
            "cost_nanos_sum" | "cost_success_nanos_sum" => Some(runs * 1_000_000),
            "cost_nanos_squares" => Some(runs * 1_100_000_000_000),
            _ => None,
        };
        let values: Option<Vec<i64>> = runs.iter().zip(failures.iter()).map(|(a, b)| value(*a, *b)).collect();
        match (field.data_type(), values) {
            (DataType::Decimal128(precision, scale), Some(values)) => {
                let array = Decimal128Array::from(values.into_iter().map(i128::from).collect::<Vec<_>>());
                Arc::new(array.with_precision_and_scale(*precision, *scale).expect("it fits"))
            }
            (DataType::Int64, Some(values)) => Arc::new(Int64Array::from(values)),
            (DataType::Binary, _) => Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(&sketch, count))),
            (DataType::Utf8View, _) if field.name() == "cost_currency" => {
                Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n("USD", count)))
            }
            (DataType::List(element), _) => {
                let mut lists = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new()).with_field(Arc::clone(element));
                for _ in 0..count {
                    lists.values().append_slice(&[1; 32]);
                    lists.append(true);
                }
                Arc::new(lists.finish())
            }
            _ => Arc::clone(old),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("rows")
}

/// Returns rows of two releases of each task in some minutes; some runs fail.
fn batch(tasks: &[String], releases: [&str; 2], minutes: &[i64]) -> RecordBatch {
    let mut cells = Vec::new();
    for minute in minutes {
        for (number, task) in (0_i64..).zip(tasks) {
            for (release, stage) in releases.into_iter().zip(["full", "canary"]) {
                let failures = (minute * 7 + number * 3 + i64::from(stage == "full")) % 11 / 9;
                cells.push(Cell { release, stage, ..cell(*minute, task, 10, failures) });
            }
        }
    }
    with_details(&rows(&cells))
}

/// Returns the bytes of the rules after nine days with so many tasks. Each had ten releases, two at a time.
async fn held(tasks: usize) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let tasks: Vec<String> = (0..tasks).map(|task| format!("task-{task}")).collect();
    let contract = Contract { success: Some(0.9), ..Contract::default() };
    let contracts: Contracts = tasks.iter().map(|task| (task.clone(), contract.clone())).collect();
    let mut engine = Engine::new(&Rules::load(None, &[]), &contracts, &BudgetSettings::default()).expect("starts");
    let spans: Vec<Vec<i64>> = (0..RELEASES - 1)
        .map(|release| {
            let hours = release * RELEASE_HOURS / 2..(release + 1) * RELEASE_HOURS / 2;
            match release == RELEASES - 2 {
                true => hours.clone().map(|hour| hour * 60).chain(hours.end * 60 + 1..hours.end * 60 + BUSY).collect(),
                false => hours.map(|hour| hour * 60).collect(),
            }
        })
        .collect();
    for (release, minutes) in spans.into_iter().enumerate() {
        let names = [release, release + 1].map(|release| format!("v{release}"));
        let rows = batch(&tasks, names.each_ref().map(String::as_str), &minutes);
        engine.take(Table::Metrics, vec![rows]).await.expect("takes");
        for minute in minutes {
            let to = BEGIN + minute + 1;
            engine.evaluate(to, to, None);
            engine.drop_idle(to);
        }
    }
    HELD.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn a_live_release_takes_64_kib_with_all_shipped_rules() {
    // Plans of queries, and what else is there once.
    let (few, many) = (held(2).await, held(6).await);
    let each = (many - few) / 8;
    println!("{each} bytes for each release with runs");
    assert!(each <= MOST, "{each} bytes for each release with runs");
}
