//! Runs all shipped rules together over fleets without a fault, to compare false pages with the budget, and over fleets
//! with a fault, to measure the delay of detection.
//!
//! `make bench-detection` runs it. The shipped rule files run in the same engine as in `bellwether run`, with their SQL
//! over rows of `metrics`, their shares of the budget and their states. Rules on `events` and on whole tables get no
//! rows here; the only such rule that pages is `lag`, a plain bound.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, Int64Array, ListBuilder, PrimitiveBuilder, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bellwether_alerts::{BudgetSettings, Contracts, Engine, Rules, Season};
use bellwether_base::{Error, Result};
use bellwether_bench_detection::chance::Key;
use bellwether_bench_detection::fleet::{Cell, DAYS, DEVIATION, EPOCH, Fault, Fleet, HOLIDAY, STALL, TASKS, ZONE};
use bellwether_stats::Sketch;
use bellwether_tables::Table;
use clap::Parser;

/// Markers of the generated part of the page.
const BEGIN: &str = "<!-- fleet: begin; written by `make bench-detection` -->";
const END: &str = "<!-- fleet: end -->";

/// Minutes in a day.
const DAY: i64 = 1440;

/// Days in a month of the budget.
const MONTH: f64 = 30.0;

/// All shipped rules over fleets of twelve tasks and six weeks.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// Fleets without a fault
    #[arg(long, default_value_t = 100)]
    pub seeds: u64,
    /// Fleets for each fault
    #[arg(long, default_value_t = 20)]
    pub faults: u64,
    /// First seed
    #[arg(long, default_value_t = 10_000)]
    pub first: u64,
    /// Page to update: its generated part is replaced
    #[arg(long)]
    pub page: Option<PathBuf>,
}

/// An alert that started to fire.
#[derive(Clone, Debug)]
struct Fired {
    rule: String,
    severity: &'static str,
    tenant: Option<String>,
    task: Option<String>,
    /// Minutes since the start of the fleet.
    at: i64,
}

/// Runs the benchmark, prints the results and writes them to the page. Returns true if the number of pages is within
/// the budget, allowing for chance.
///
/// # Errors
/// `Config` if the page cannot be written; `Bug` if the rules fail.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let seeds = arguments.first..arguments.first + arguments.seeds;
    let still = over(seeds, |seed| judged(&Fleet::new(seed, DEVIATION)))?;
    let mut text = nulls(&still, arguments);
    if arguments.faults > 0 {
        text.push_str(&with_faults(arguments)?);
    }
    println!("{text}");
    for fired in still.iter().flatten().filter(|fired| fired.severity == "page") {
        let task = fired.task.as_deref().unwrap_or_default();
        eprintln!(
            "{} of {} {task}, {} minutes after the start",
            fired.rule,
            fired.tenant.as_deref().unwrap_or_default(),
            fired.at
        );
    }
    write(arguments, &text)?;
    let months = months(still.len());
    let pages = still.iter().flatten().filter(|fired| fired.severity == "page").count();
    // Allow two standard deviations of a Poisson distribution above the budget.
    let allowed = BudgetSettings::default().pages * months;
    Ok(as_number(pages) <= allowed + 2.0 * allowed.sqrt())
}

/// Measures the delay of detection in fleets with constant and with wandering quality.
fn with_faults(arguments: &Arguments) -> Result<String> {
    let mut text =
        String::from("| fault | quality | detected by | detected | median delay |\n| --- | --- | --- | --- | --- |\n");
    for (name, rule, fault) in faults() {
        for deviation in [0.0, DEVIATION] {
            let seeds = arguments.first..arguments.first + arguments.faults;
            let found = over(seeds, |seed| {
                let mut fleet = Fleet::new(seed, deviation);
                fleet.faults.push(fault);
                judged(&fleet)
            })?;
            text.push_str(&found_line(name, rule, &fault, deviation, &found));
        }
    }
    Ok(text)
}

fn write(arguments: &Arguments, text: &str) -> Result<()> {
    let Some(file) = &arguments.page else { return Ok(()) };
    let page = fs::read_to_string(file).map_err(|source| unreadable(file, source))?;
    let cut = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = cut else {
        return Err(Error::config(format!("`{}` has no line `{BEGIN}`", file.display())));
    };
    fs::write(file, format!("{before}{BEGIN}\n\n{text}\n{END}{after}")).map_err(|source| unreadable(file, source))
}

fn unreadable(file: &std::path::Path, source: std::io::Error) -> Error {
    Error::config(format!("`{}` cannot be read or written", file.display())).with_source(source)
}

fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn months(fleets: usize) -> f64 {
    as_number(fleets) * 42.0 / MONTH
}

/// Faults on a Wednesday of the fifth week, at 9:30 UTC: description, rule that detects it, and the fault.
fn faults() -> [(&'static str, &'static str, Fault); 4] {
    let from = 30 * DAY + 9 * 60 + 30;
    let fault = |task, lasts, failure| Fault { task, from, lasts, failure };
    [
        ("no more runs of a task with 90 an hour", "silent_producer", fault(1, 240, None)),
        ("no more runs of a task with 240 an hour", "silent_producer", fault(0, 240, None)),
        ("failure rate +10 points, task with 150 runs an hour", "success_drift", fault(4, 4 * DAY, Some(0.10))),
        ("failure rate +30 points, task with 240 runs an hour", "success_drift", fault(0, 2 * DAY, Some(0.30))),
    ]
}

fn found_line(name: &str, rule: &str, fault: &Fault, deviation: f64, found: &[Vec<Fired>]) -> String {
    let task = TASKS[fault.task].name;
    let within = fault.from..fault.from + fault.lasts + 60;
    let mut delays: Vec<i64> = found
        .iter()
        .filter_map(|fired| {
            let first = fired.iter().find(|fired| {
                fired.rule == rule && fired.task.as_deref() == Some(task) && within.contains(&fired.at)
            })?;
            Some(first.at - fault.from)
        })
        .collect();
    delays.sort_unstable();
    // The median over all fleets; undetected faults count as later than all others.
    let median = delays.get(found.len() / 2).map_or_else(|| "not detected".to_owned(), |delay| format!("{delay} min"));
    let quality = if deviation > 0.0 { "wanders" } else { "constant" };
    format!("| {name} | {quality} | `{rule}` | {} of {} | {median} |\n", delays.len(), found.len())
}

/// Reports alerts that fired without a fault.
fn nulls(found: &[Vec<Fired>], arguments: &Arguments) -> String {
    let months = months(found.len());
    let mut rules: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for fired in found.iter().flatten() {
        // A holiday looks like an outage; it may alarm, once.
        let rule = match fired.rule.as_str() {
            "silent_producer" if fired.at.div_euclid(DAY) == HOLIDAY => "silent_producer, on the holiday",
            rule => rule,
        };
        *rules.entry((fired.severity, rule)).or_default() += 1;
    }
    let budget = BudgetSettings::default();
    let mut text = format!(
        "`bellwether-fleet --seeds {} --faults {} --first {}`: {} fleets of {} tasks and {DAYS} days without a fault, one \
         holiday in each, {months:.0} months in total. Quality wanders with a standard deviation of {DEVIATION} on the logit scale.\n\n\
         | severity | rule | alerts | per month | budget per month |\n| --- | --- | --- | --- | --- |\n",
        arguments.seeds,
        arguments.faults,
        arguments.first,
        found.len(),
        TASKS.len(),
    );
    for (severity, allowed) in [("page", budget.pages), ("ticket", budget.tickets), ("info", budget.infos)] {
        let all: usize = rules.iter().filter(|((of, _), _)| *of == severity).map(|(_, count)| count).sum();
        let rate = as_number(all) / months;
        text.push_str(&format!("| {severity} | all rules | {all} | {rate:.2} | {allowed} |\n"));
        for ((_, rule), count) in rules.iter().filter(|((of, _), _)| *of == severity) {
            text.push_str(&format!("| {severity} | {rule} | {count} | {:.2} | |\n", as_number(*count) / months));
        }
    }
    text + "\n"
}

/// Runs `answer` for every seed, on all cores.
fn over(seeds: std::ops::Range<u64>, answer: impl Fn(u64) -> Result<Vec<Fired>> + Sync) -> Result<Vec<Vec<Fired>>> {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut answers = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return answers;
            }
            answers.push(answer(seed));
        }
    };
    let answers = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A fleet that was not judged must not look like a fleet without alerts.
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ended.into_iter().collect::<std::thread::Result<Vec<_>>>()
    });
    let answers = answers.map_err(|_| Error::bug("a fleet could not be judged: its thread panicked"))?;
    answers.into_iter().flatten().collect()
}

/// Returns the alerts of the shipped rules on a fleet, evaluated day by day, with the day of the stalled ingest in two
/// parts.
fn judged(fleet: &Fleet) -> Result<Vec<Fired>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time() // Queries of rules have a time limit.
        .build()
        .map_err(|source| Error::bug("cannot start the async runtime").with_source(source))?;
    let season = Season::from_name(ZONE).map_err(Error::bug)?;
    let mut engine =
        Engine::new(&Rules::load(None, &[]), &Contracts::new(), &BudgetSettings::default())?.in_season(season);
    let names = runtime.block_on(engine.columns(Table::Metrics));
    let mut rows = Vec::new();
    for day in 0..DAYS {
        rows.extend(engine.evaluate(EPOCH + day * DAY, EPOCH + day * DAY, None));
        let mut cells = fleet.day(day);
        if STALL.0.div_euclid(DAY) == day {
            // During the stall nothing is judged; afterwards everything arrives at once.
            let before: Vec<Cell> = cells.iter().filter(|cell| cell.minute < STALL.0).cloned().collect();
            cells.retain(|cell| cell.minute >= STALL.0);
            runtime.block_on(engine.take(Table::Metrics, vec![batch(&names, &before)?]))?;
            rows.extend(engine.evaluate(EPOCH + STALL.0, EPOCH + STALL.0, None));
        }
        runtime.block_on(engine.take(Table::Metrics, vec![batch(&names, &cells)?]))?;
        rows.extend(engine.evaluate(EPOCH + (day + 1) * DAY, EPOCH + (day + 1) * DAY, None));
    }
    let fired = rows.into_iter().filter(|row| row.state == "firing" && row.state_from == "pending");
    Ok(fired
        .map(|row| Fired {
            rule: row.rule,
            severity: row.severity,
            tenant: row.tenant,
            task: row.task,
            at: row.at / 60_000_000 - EPOCH,
        })
        .collect())
}

/// Builds rows of `metrics` from cells, with the columns that rules need.
fn batch(names: &[&str], cells: &[Cell]) -> Result<RecordBatch> {
    let whole = Table::Metrics.arrow_schema();
    let fields: Vec<Field> = names.iter().map(|name| whole.field_with_name(name).cloned()).collect::<Result<_, _>>()?;
    let columns = fields.iter().map(|field| column(field, cells)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn column(field: &Field, cells: &[Cell]) -> ArrayRef {
    let name = field.name().as_str();
    match field.data_type() {
        DataType::Timestamp(..) => {
            let starts: Vec<i64> = cells.iter().map(|cell| (EPOCH + cell.minute) * 60_000_000).collect();
            Arc::new(TimestampMicrosecondArray::from(starts).with_timezone("UTC"))
        }
        DataType::Utf8View => Arc::new(StringViewArray::from_iter_values(cells.iter().map(|cell| text(name, cell)))),
        DataType::Decimal128(precision, scale) => {
            let values: Vec<i128> = cells.iter().map(|cell| i128::from(value(name, cell))).collect();
            let array = Decimal128Array::from(values).with_precision_and_scale(*precision, *scale);
            Arc::new(array.unwrap_or_else(|_| Decimal128Array::from(vec![0_i128; cells.len()])))
        }
        DataType::Binary => Arc::new(BinaryArray::from_iter_values(cells.iter().map(|cell| latencies(cell).encode()))),
        DataType::List(element) => {
            let mut lists = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new()).with_field(Arc::clone(element));
            for _ in cells {
                lists.values().append_slice(&[0; 32]);
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
        _ => Arc::new(Int64Array::from(cells.iter().map(|cell| value(name, cell)).collect::<Vec<_>>())),
    }
}

fn text(name: &str, cell: &Cell) -> String {
    let task = &TASKS[cell.task];
    match name {
        "tenant" => task.tenant.to_owned(),
        "task" => task.name.to_owned(),
        "release_id" => format!("r{}", cell.release),
        "stage" => if cell.canary { "canary" } else { "full" }.to_owned(),
        "cost_currency" if task.priced => "USD".to_owned(),
        _ => String::new(),
    }
}

fn value(name: &str, cell: &Cell) -> i64 {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let [failed, schema, escalated, tools, exceptions] = cell.bad.map(whole);
    let runs = whole(cell.runs);
    let priced = i64::from(TASKS[cell.task].priced);
    match name {
        "runs" | "latency_runs" | "schema_applicable" | "tool_calls" => runs,
        "failure" => failed,
        "success" => runs - failed,
        "schema_valid" => runs - schema,
        "escalated" => escalated,
        "tool_calls_failed" => tools,
        "policy_exceptions_high" | "runs_with_policy_exception" => exceptions,
        // A tenth of a cent each; the squares are relative to that.
        "cost_nanos_sum" => priced * runs * 1_000_000,
        "cost_success_nanos_sum" => priced * (runs - failed) * 1_000_000,
        "cost_nanos_squares" => priced * runs * 1_000_000_000_000,
        _ => 0,
    }
}

/// Draws log-normal latencies for a cell's runs.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
#[expect(clippy::cast_sign_loss, reason = "latencies are not negative")]
fn latencies(cell: &Cell) -> Sketch {
    let mut sketch = Sketch::new();
    let key = Key::new(cell.key);
    (0..cell.runs).for_each(|run| sketch.add((1.5e6 * key.at(run).normal().exp()) as u64, 1));
    sketch
}
