//! Measures what years of history cost: long spans over many groups beside DuckDB, one run among millions, and a table that
//! gets a commit a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bellwether_base::{Clock, Error, ManualClock, Result, SystemClock};
use bellwether_bench::process::Measured;
use bellwether_lake::{Lake, StorageOptions};
use bellwether_tables::Table;
use serde_json::Value;

use crate::Bench;
use crate::part::commits::{Growing, ROWS};
use crate::part::crates::commit;
use crate::part::flow::{Setup, Timed};
use crate::part::history::History;
use crate::part::late::Template;
use crate::report::Bound;

const PART: &str = "years";

const MIB: f64 = 1024.0 * 1024.0;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Rows of one file of the table in which one run is looked up, and files of a day.
const LOOKUP_ROWS: usize = 250_000;
const LOOKUP_FILES_A_DAY: i64 = 4;

/// Turns of each statement.
const TURNS: usize = 5;

/// Parts of the day at which the table with a commit a second is measured, in hours.
const HOURS: [i64; 6] = [1, 3, 6, 12, 18, 24];

/// Sums by span (or model), task, release and stage.
type Sums = BTreeMap<[String; 4], [i64; 5]>;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    Box::pin(long_spans(bench)).await?;
    Box::pin(one_run(bench)).await?;
    Box::pin(commits_a_second(bench)).await
}

/// Measures `rolling` and `release_summary` over a month, beside DuckDB on the same files.
async fn long_spans(bench: &mut Bench) -> Result<()> {
    let setup = Setup::new(bench, "none")?;
    let history =
        Box::pin(History::write(&setup, bench.seed, bench.sizes.history_days, bench.sizes.history_groups)).await?;
    let turns = if bench.sizes.runs > 1 { TURNS } else { 1 };
    let rolling = setup.timed(turns, |_| "SELECT * FROM rolling".to_owned())?;
    let summary = setup.timed(turns, |_| "SELECT * FROM release_summary".to_owned())?;
    let ours = [sums(&rolling.answer, "span")?, sums(&summary.answer, "model")?];
    let found: i64 = ours[1].values().map(|[runs, ..]| runs).sum();
    if found != history.runs {
        return Err(Error::data(format!("`release_summary` counts {found} runs instead of {}", history.runs)));
    }
    let what = format!("{} rows of `metrics` over {} days", history.rows, bench.sizes.history_days);
    let mut section = bench.report.section(PART);
    for (name, timed) in [("rolling, all spans", &rolling), ("release_summary", &summary)] {
        let Timed { warm_ms, cold_ms, cold_peak_bytes, .. } = timed;
        let peak: Vec<f64> = cold_peak_bytes.iter().map(|bytes| bytes / MIB).collect();
        section.note(format!("{name}, {what}, warm session"), warm_ms, "ms", Some(Bound::AtMost(200.0)));
        section.note(format!("{name}, {what}, cold `bellwether sql`"), cold_ms, "ms", Some(Bound::AtMost(600.0)));
        section.note(format!("{name}, {what}"), &peak, "MiB peak", Some(Bound::AtMost(512.0)));
    }
    beside_duckdb(bench, &setup, history.as_of, [&rolling, &summary], &ours)?;
    setup.remove();
    Ok(())
}

/// Reads an answer of `bellwether sql`: the sums of each row, by the key column and the group.
fn sums(answer: &str, key: &str) -> Result<Sums> {
    let mut lines = answer.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let place = |name: &str| {
        let place = names.iter().position(|column| *column == name);
        place.ok_or_else(|| Error::bug(format!("the answer has no column `{name}`: {names:?}")))
    };
    let keys = [place(key)?, place("task")?, place("release_id")?, place("stage")?];
    let values = ["runs", "success", "tool_calls", "latency_runs", "tokens_input"];
    let values = values.iter().map(|name| place(name)).collect::<Result<Vec<_>>>()?;
    let mut sums = Sums::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |place: usize| fields.get(place).copied().unwrap_or_default();
        // Weighted counts are shown as fractions; all weights here are 1.
        let number = |place: usize| field(place).parse::<f64>().unwrap_or(0.0).round() as i64;
        let sum = sums.entry(keys.map(|place| field(place).to_owned())).or_default();
        sum.iter_mut().zip(&values).for_each(|(sum, place)| *sum += number(*place));
    }
    Ok(sums)
}

/// Has DuckDB answer the same questions from the same files. A different answer is an error.
fn beside_duckdb(bench: &mut Bench, setup: &Setup, as_of: i64, own: [&Timed; 2], ours: &[Sums; 2]) -> Result<()> {
    let Some(python) = duckdb() else {
        let why = "DuckDB is not installed; `scripts/setup python` installs it";
        bench.report.skip("years", why.to_owned());
        return Ok(());
    };
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/duckdb/spans.py")).arg(setup.root());
    command.args([as_of.to_string(), own[0].warm_ms.len().to_string()]);
    let spans = ours[0].keys().map(|[span, ..]| span).collect::<std::collections::BTreeSet<_>>();
    for span in spans {
        command.arg(format!("{span}={}", minutes_of(span)?));
    }
    let failed = |source| Error::unavailable("DuckDB failed").with_source(source);
    let (_, printed) = Measured::start(&mut command).and_then(Measured::end).map_err(failed)?;
    let answer: Value = serde_json::from_str(printed.lines().next().unwrap_or_default())
        .map_err(|source| Error::bug(format!("DuckDB answered `{printed}`")).with_source(source))?;
    let names = ["rolling", "summary"];
    for (name, ours) in names.iter().zip(ours) {
        let theirs = sums_of(&answer[*name]);
        if theirs != *ours {
            let differs = ours.iter().find(|(key, sums)| theirs.get(*key) != Some(sums));
            let theirs = differs.and_then(|(key, _)| theirs.get(key));
            return Err(Error::data(format!("`{name}`: Bellwether found {differs:?}, DuckDB {theirs:?}")));
        }
    }
    let peak = answer["peak_bytes"].as_f64().unwrap_or(f64::NAN) / MIB;
    let mut section = bench.report.section(PART);
    for ((name, title), own) in names.iter().zip(["rolling, all spans", "release_summary"]).zip(own) {
        let times = answer[format!("{name}_ms")].as_array().cloned().unwrap_or_default();
        let times: Vec<f64> = times.iter().filter_map(Value::as_f64).collect();
        let (cold, warm) = times.split_at(1.min(times.len()));
        section.note(format!("{title}: DuckDB, sums only, first time"), cold, "ms", None);
        section.note(format!("{title}: DuckDB, sums only, warm"), warm, "ms", None);
        let ratios: Vec<f64> = own.warm_ms.iter().zip(warm).map(|(own, other)| own / other).collect();
        section.note(
            format!("{title}: Bellwether, warm, relative to DuckDB"),
            &ratios,
            "× time",
            Some(Bound::AtMost(1.0)),
        );
    }
    section.note("both with DuckDB", &[peak], "MiB peak", None);
    Ok(())
}

/// Returns the Python interpreter that has DuckDB, if it is installed.
fn duckdb() -> Option<PathBuf> {
    let cache = std::env::var_os("BELLWETHER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/bellwether"),
        PathBuf::from,
    );
    let python = cache.join("venv/bin/python");
    let asked = Command::new(&python).args(["-c", "import duckdb, deltalake"]).output();
    asked.is_ok_and(|asked| asked.status.success()).then_some(python)
}

/// Returns the minutes of a span such as `5m`, `24h` or `30d`.
fn minutes_of(span: &str) -> Result<i64> {
    let (number, unit) = span.split_at(span.len().saturating_sub(1));
    let each = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => return Err(Error::bug(format!("`{span}` is no span"))),
    };
    number.parse::<i64>().map(|number| number * each).map_err(|_| Error::bug(format!("`{span}` is no span")))
}

/// Reads the sums that DuckDB printed.
fn sums_of(rows: &Value) -> Sums {
    let rows = rows.as_array().cloned().unwrap_or_default();
    let read = rows.iter().map(|row| {
        let text = |place: usize| row[place].as_str().unwrap_or_default().to_owned();
        let number = |place: usize| row[place].as_i64().unwrap_or(i64::MIN);
        ([text(0), text(1), text(2), text(3)], [number(4), number(5), number(6), number(7), number(8)])
    });
    read.collect()
}

/// Returns the id of a run: unrelated to its time, as random ids are.
fn random_id(number: i64) -> String {
    // The finaliser of SplitMix64.
    let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("run_{:016x}", bits ^ (bits >> 31))
}

/// Measures the look-up of one run by its id among many.
async fn one_run(bench: &mut Bench) -> Result<()> {
    let setup = Setup::new(bench, "none")?;
    let lake = setup.lake().await?;
    let rows = bench.sizes.lookup_rows;
    let each = rows.min(LOOKUP_ROWS);
    let files = (rows / each) as i64;
    let now = SystemClock.now_micros();
    let mut template = Template::with_ids(bench.seed, each, now, random_id)?;
    for file in 0..files {
        let at = now - (files - file) * 24 * HOUR_MICROS / LOOKUP_FILES_A_DAY;
        let written = lake.store(&template.runs(at)?).await?;
        commit(&lake, &written, file * each as i64).await?;
    }
    let all = files * each as i64;
    let chosen = |turn: usize| random_id((turn as i64 * 7_919_001 + 13) % all);
    let turns = if bench.sizes.runs > 1 { TURNS } else { 1 };
    let what = format!("one run by id among {all} rows of `events`");
    for (table, required) in [("events", Some(Bound::AtMost(100.0))), ("runs", None)] {
        let timed = setup.timed(turns, |turn| {
            format!("SELECT run_id, task, release_id, outcome_status FROM {table} WHERE run_id = '{}'", chosen(turn))
        })?;
        let found: Vec<&str> = timed.answer.lines().skip(1).collect();
        let wanted = chosen(turns - 1);
        if found.len() != 1 || !found[0].starts_with(&wanted) {
            return Err(Error::data(format!("`{table}` returned {found:?} for `{wanted}`")));
        }
        let peak: Vec<f64> = timed.cold_peak_bytes.iter().map(|bytes| bytes / MIB).collect();
        let mut section = bench.report.section(PART);
        section.note(format!("{what}, FROM {table}, warm session"), &timed.warm_ms, "ms", required);
        section.note(format!("{what}, FROM {table}, cold `bellwether sql`"), &timed.cold_ms, "ms", None);
        section.note(format!("{what}, FROM {table}"), &peak, "MiB peak", None);
    }
    setup.remove();
    Ok(())
}

/// Measures a table over a day of commits a second, dated by a clock that advances a second with each, and maintained as often
/// as in a service.
async fn commits_a_second(bench: &mut Bench) -> Result<()> {
    let setup = Setup::new(bench, "none")?;
    let clock = ManualClock::at(SystemClock.now_micros());
    let root = setup.root().display().to_string();
    let lake = Lake::open_with_clock(&root, &StorageOptions::default(), Arc::new(clock.clone())).await?;
    let mut growing = Growing::new(lake, bench.seed, Some(clock)).await?;
    for hours in HOURS {
        let to = bench.sizes.seconds * hours / 24;
        let costs = growing.grow(to).await?;
        let at = format!("at {to} commits, one a second of {ROWS} rows");
        let per_commit = |cpu_s: f64| [cpu_s * 1000.0 / costs.commits.max(1) as f64];
        let found = setup.number("SELECT count(*) FROM events")?;
        if found != to * ROWS as i64 {
            return Err(Error::data(format!("`events` has {found} rows {at}")));
        }
        let turns = if bench.sizes.runs > 1 { 3 } else { 1 };
        let sql = setup.timed(turns, |_| "SELECT task, count(*) FROM events GROUP BY task".to_owned())?;
        let size = Size::of(&setup, Table::Events).await?;
        let mut section = bench.report.section(PART);
        section.note(format!("a commit {at}"), &per_commit(costs.commit_cpu_s), "CPU-ms", None);
        section.note(format!("maintenance per commit {at}"), &per_commit(costs.maintain_cpu_s), "CPU-ms", None);
        section.note(format!("open and count by task {at}"), &sql.cold_ms, "ms", None);
        section.note(format!("count by task, warm, {at}"), &sql.warm_ms, "ms", None);
        section.note(format!("live files {at}"), &[size.live_files], "files", None);
        section.note(format!("entries and checkpoints of the log {at}"), &[size.log_files], "files", None);
        section.note(format!("folder {at}"), &[size.bytes / MIB], "MiB", None);
        section.note(format!("folder relative to its live files {at}"), &[size.bytes / size.live_bytes], "×", None);
    }
    setup.remove();
    Ok(())
}

/// Sizes of a table's folder.
struct Size {
    bytes: f64,
    log_files: f64,
    live_bytes: f64,
    live_files: f64,
}

// === impl Size ===

impl Size {
    async fn of(setup: &Setup, table: Table) -> Result<Self> {
        let (_, live) = setup.lake().await?.active_files(table).await?;
        let folder = setup.root().join(table.name());
        let unreadable = |source| Error::unavailable(format!("cannot read `{}`", folder.display())).with_source(source);
        let (mut bytes, mut log_files) = (0, 0_u32);
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let meta = entry.metadata().map_err(unreadable)?;
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    bytes += meta.len();
                    log_files += u32::from(next.ends_with("_delta_log"));
                }
            }
        }
        let live_bytes: i64 = live.iter().map(|file| file.size).sum();
        Ok(Self {
            bytes: bytes as f64,
            log_files: f64::from(log_files),
            live_bytes: live_bytes.max(1) as f64,
            live_files: live.len() as f64,
        })
    }
}
