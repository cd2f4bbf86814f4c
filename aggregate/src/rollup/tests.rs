//! Spans made of days, hours and minutes equal the minutes bit for bit, whatever happened to the tables in what order.

use std::pin::pin;
use std::task::{Context, Waker};

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bellwether_base::ErrorKind;
use bellwether_lake::rollup::rolled_to;
use bellwether_lake::{Advance, Commit, CommitLog, Layout, Outcome, Rolled, Snapshot, StorageOptions, app_of};
use bellwether_metrics::RECORDED_LATER;
use bellwether_tables::{AppId, Table, metrics};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::compare::{Sides, compare};
use super::*;
use crate::kept::{Split, since, whole_windows_from};
use crate::recompute::first_difference;
use crate::sql;
use crate::sums::Definitions;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-11-23T00:00:00Z.
const BEGIN: i64 = 1_795_392_000_000_000;
const DAYS: i64 = 3;

/// A run: its minute, group, cost, and whether it succeeded.
type Run = (i64, u8, i64, bool);

/// An event in the life of the tables.
#[derive(Clone, Debug)]
enum Happens {
    /// A shard commits new runs, and takes back earlier ones of its own that it may add again with another outcome.
    Commit { shard: usize, runs: Vec<Run>, back: Vec<(prop::sample::Index, bool)>, older: bool },
    /// The role rolls up until it has caught up, with commits of so many rows at most.
    Rolls { step_rows: i64 },
    /// The role takes one step of a roll-up.
    Steps { days: bool },
    /// Another process of the role, which has not seen the latest commits, takes steps.
    OtherSteps,
    /// The role is killed after it was polled so often.
    Killed { polls: usize },
    /// The windows from a day on are rebuilt, for so many shards, in commits of so many runs; day 0 is before all windows.
    Rebuilt { shards: usize, runs: usize, day: i64 },
    /// Minutes before a day are removed if the hours hold all of them.
    MinutesRemoved { day: i64 },
    /// The same with hours.
    HoursRemoved { day: i64 },
}

struct World {
    lake: Lake,
    _folder: tempfile::TempDir,
    definitions: Definitions,
    roller: Roller,
    other: Roller,
    /// Runs that count, by shard.
    runs: Vec<Vec<Run>>,
    /// The version of `events` that each shard reads next.
    stands: Vec<i64>,
    events: i64,
    generation: i64,
    /// All rows of minutes that were ever committed, those that were removed too.
    minutes: Vec<RecordBatch>,
}

fn run() -> impl Strategy<Value = Run> {
    // Few windows, so that many rows meet in one; some costs are so great that sums leave their columns.
    let minute = (0..DAYS, prop::sample::select(vec![0_i64, 1, 23]), prop::sample::select(vec![0_i64, 1, 59]));
    let cost = prop_oneof![8 => 0_i64..5_000, 1 => Just(9_000_000_000_000_000_000_i64)];
    (minute.prop_map(|(day, hour, minute)| (day * 24 + hour) * 60 + minute), 0_u8..3, cost, any::<bool>())
}

fn happens() -> impl Strategy<Value = Happens> {
    let back = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6);
    prop_oneof![
        6 => (0_usize..3, prop::collection::vec(run(), 0..8), back, prop::bool::weighted(0.1))
            .prop_map(|(shard, runs, back, older)| Happens::Commit { shard, runs, back, older }),
        3 => prop_oneof![Just(1_i64), Just(8), Just(1000)].prop_map(|step_rows| Happens::Rolls { step_rows }),
        3 => any::<bool>().prop_map(|days| Happens::Steps { days }),
        2 => Just(Happens::OtherSteps),
        2 => (0_usize..60).prop_map(|polls| Happens::Killed { polls }),
        1 => (1_usize..4, 1_usize..20, 0..DAYS)
            .prop_map(|(shards, runs, day)| Happens::Rebuilt { shards, runs, day }),
        1 => (1..DAYS).prop_map(|day| Happens::MinutesRemoved { day }),
        1 => (1..DAYS).prop_map(|day| Happens::HoursRemoved { day }),
    ]
}

fn contributions(runs: &[(Run, i64)]) -> RecordBatch {
    let schema = sql::contributions_schema();
    let row = |((minute, group, cost, success), sign): &(Run, i64)| {
        let mut row: Map<String, Value> = Map::new();
        for field in schema.fields() {
            let column = Table::Events.columns().iter().find(|column| column.name == field.name());
            let value = match column.map(|column| (column.kind, column.required)) {
                Some((bellwether_tables::ColumnType::Text, true)) => json!(""),
                Some((bellwether_tables::ColumnType::Boolean, true)) => json!(false),
                Some((_, true)) => json!(0),
                _ => Value::Null,
            };
            row.insert(field.name().clone(), value);
        }
        let task = format!("task-{}", group % 2);
        let stated = [
            ("run_id", json!(format!("{minute}-{group}-{cost}"))),
            ("ended_at", json!(BEGIN + minute * MINUTE + 17)),
            ("session_id", json!(format!("s{}", cost % 5))),
            ("task", json!(task)),
            ("release_id", json!("v1")),
            ("release_fingerprint", json!("f")),
            ("stage", json!("full")),
            ("outcome_status", json!(if *success { "success" } else { "failure" })),
            ("weight_micros", json!(if *group == 2 { 2_500_000 } else { 1_000_000 })),
            ("cost_nanos", json!(cost)),
            ("cost_currency", json!("USD")),
            ("latency_total_micros", json!(cost % 1_000)),
            ("tokens_input", if *success { json!(cost % 77) } else { Value::Null }),
            ("sign", json!(sign)),
        ];
        row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
        row
    };
    let rows: Vec<_> = runs.iter().map(row).collect();
    let decoder = arrow::json::ReaderBuilder::new(SchemaRef::clone(&schema)).with_batch_size(rows.len().max(1));
    let mut decoder = decoder.build_decoder().expect("a decoder");
    decoder.serialize(&rows).expect("rows");
    decoder.flush().expect("rows").unwrap_or_else(|| RecordBatch::new_empty(schema))
}

/// Rows as a version wrote them that did not record some columns yet.
fn without_later_columns(rows: &RecordBatch) -> RecordBatch {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| -> ArrayRef {
        match RECORDED_LATER.contains(&field.name().as_str()) {
            true => new_null_array(field.data_type(), column.len()),
            false => Arc::clone(column),
        }
    });
    RecordBatch::try_new(SchemaRef::clone(&schema), columns.collect()).expect("rows")
}

/// All rows in one window, so that a fold adds up a whole span.
fn in_one_window(rows: &RecordBatch) -> RecordBatch {
    let schema = rows.schema();
    let place = schema.index_of("window_start").expect("a window");
    let mut columns = rows.columns().to_vec();
    columns[place] = Arc::new(TimestampMicrosecondArray::from(vec![BEGIN; rows.num_rows()]).with_timezone("UTC"));
    RecordBatch::try_new(schema, columns).expect("rows")
}

async fn folded(rows: Vec<RecordBatch>) -> RecordBatch {
    let names = Table::Metrics.columns().iter().map(|column| column.name);
    let fold = bellwether_metrics::fold_sql(names.filter(|name| !metrics::PROVENANCE.contains(name)));
    let sql = format!("SELECT * FROM ({fold}) ORDER BY {}", bellwether_metrics::KEY.join(", "));
    let rows = rows.iter().map(in_one_window).collect();
    let schema = Table::Metrics.arrow_schema();
    let answer = sql::over(&sql::session(), "metrics", schema, rows, &sql).await.expect("folds");
    let count = answer.iter().map(RecordBatch::num_rows).sum();
    let more: Vec<_> = metrics::PROVENANCE.iter().map(|name| (*name, sql::constant(0, count))).collect();
    sql::rows_of(Table::Metrics, &answer, &more).expect("rows")
}

/// Rows of a table with a window and an `events_to` that `has` takes.
fn taken(rows: &[RecordBatch], has: impl Fn(i64, i64) -> bool) -> Vec<RecordBatch> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    let of = |rows: &RecordBatch| {
        let windows = rows.column_by_name("window_start").expect("it").as_primitive::<TimestampMicrosecondType>();
        let ends = rows.column_by_name("events_to").expect("it").as_primitive::<Int64Type>();
        let mask: arrow::array::BooleanArray =
            windows.values().iter().zip(ends.values()).map(|(window, end)| Some(has(*window, *end))).collect();
        arrow::compute::filter_record_batch(rows, &mask).expect("rows")
    };
    rows.iter().map(of).collect()
}

// === impl World ===

impl World {
    async fn new(shards: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_str().expect("UTF-8").to_owned();
        let lake = Lake::open(&root, &StorageOptions::default()).await.expect("opens");
        Self {
            definitions: Definitions::plan(&sql::session()).await.expect("plans"),
            roller: opened(&lake, 1000).await,
            other: opened(&lake, 1000).await,
            lake,
            _folder: folder,
            runs: vec![Vec::new(); shards],
            stands: vec![0; shards],
            events: 1,
            generation: 0,
            minutes: Vec::new(),
        }
    }

    async fn partials(&self, runs: &[(Run, i64)], versions: std::ops::Range<i64>) -> RecordBatch {
        let answer = self.definitions.metrics.run([vec![contributions(runs)]]).await.expect("adds up");
        let count = answer.iter().map(RecordBatch::num_rows).sum();
        let provenance =
            [("events_from", sql::constant(versions.start, count)), ("events_to", sql::constant(versions.end, count))];
        sql::rows_of(Table::Metrics, &answer, &provenance).expect("rows")
    }

    fn layout(&self) -> Layout {
        Layout { generation: self.generation, shards: u32::try_from(self.stands.len()).expect("few") }
    }

    async fn happen(&mut self, happens: &Happens) {
        match happens {
            Happens::Commit { shard, runs, back, older } => {
                let shard = shard % self.stands.len();
                let mut signed: Vec<(Run, i64)> = runs.iter().map(|run| (*run, 1)).collect();
                for (index, again) in back {
                    if self.runs[shard].is_empty() {
                        continue;
                    }
                    let place = index.index(self.runs[shard].len());
                    let run = self.runs[shard].swap_remove(place);
                    signed.push((run, -1));
                    if *again {
                        let corrected = (run.0, run.1, run.2, !run.3);
                        signed.push((corrected, 1));
                        self.runs[shard].push(corrected);
                    }
                }
                self.runs[shard].extend(runs);
                self.commit(shard, &signed, *older).await;
            }
            Happens::Rolls { step_rows } => {
                self.roller.tools.step_rows = *step_rows;
                self.roll().await;
            }
            Happens::Steps { days } => {
                let level = if *days { &mut self.roller.days } else { &mut self.roller.hours };
                settle(level.step(&self.roller.tools).await);
            }
            Happens::OtherSteps => {
                for _ in 0..2 {
                    settle(self.other.hours.step(&self.other.tools).await);
                    settle(self.other.days.step(&self.other.tools).await);
                }
            }
            Happens::Killed { polls } => {
                {
                    let mut step = pin!(self.roller.run_until_caught_up());
                    for _ in 0..*polls {
                        if step.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                self.roller = opened(&self.lake, 1000).await;
            }
            Happens::Rebuilt { shards, runs, day } => self.rebuild(*shards, *runs, BEGIN + day * DAY).await,
            Happens::MinutesRemoved { day } => self.remove(RollUp::Hours, BEGIN + day * DAY).await,
            Happens::HoursRemoved { day } => self.remove(RollUp::Days, BEGIN + day * DAY).await,
        }
    }

    async fn commit(&mut self, shard: usize, signed: &[(Run, i64)], older: bool) {
        self.events += 1;
        let mut rows = self.partials(signed, self.stands[shard]..self.events).await;
        if older {
            rows = without_later_columns(&rows);
        }
        self.stands[shard] = self.events;
        let log = self.lake.log(Table::Metrics);
        let on = log.load().await.expect("loads");
        let app_id = app_of(u32::try_from(shard).expect("few"));
        let advances =
            vec![Advance { expected: on.next(&app_id), app_id, next: self.events }, self.layout().advance(&on)];
        let files = self.lake.write(Table::Metrics, &rows).await.expect("writes");
        let commit = commit_of(files.into_iter().map(|written| written.file).collect(), advances);
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
        self.minutes.push(rows);
    }

    async fn roll(&mut self) {
        while let Err(error) = self.roller.run_until_caught_up().await {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.chain());
            self.roller = opened(&self.lake, self.roller.tools.step_rows).await;
        }
    }

    /// Replaces the minutes from a moment on, as a rebuild from events does that reach back to it.
    async fn rebuild(&mut self, shards: usize, at_once: usize, from: i64) {
        let log = self.lake.log(Table::Metrics);
        let on = log.load().await.expect("loads");
        let all: Vec<(Run, i64)> = self.runs.iter().flatten().map(|run| (*run, 1)).collect();
        let (mut files, steps) = (Vec::new(), i64::try_from(all.len().div_ceil(at_once)).expect("few"));
        self.events += steps;
        self.minutes = taken(&self.minutes, |window, _| window < from);
        for (place, part) in (0_i64..).zip(all.chunks(at_once)) {
            let rows = self.partials(part, 0..self.events - steps + place + 1).await;
            let rows = since(&rows, "window_start", from).expect("rows");
            files.extend(self.lake.write(Table::Metrics, &rows).await.expect("writes"));
            self.minutes.push(rows);
        }
        let old = self.lake.files_at(Table::Metrics, on.version).await.expect("lists");
        let split = Split::at(&self.lake, Table::Metrics, old, "window_start", from).await.expect("splits");
        let shards_before = self.stands.len();
        self.generation += 1;
        self.stands = vec![self.events; shards];
        self.runs =
            (0..shards).map(|shard| all.iter().skip(shard).step_by(shards).map(|(run, _)| *run).collect()).collect();
        let apps = (0..shards.max(shards_before)).map(|shard| app_of(u32::try_from(shard).expect("few")));
        let mut advances: Vec<Advance> =
            apps.map(|app_id| Advance { expected: on.next(&app_id), app_id, next: self.events }).collect();
        advances.push(self.layout().advance(&on));
        if bellwether_lake::rollup::kept_from(&on) > from {
            let app_id = AppId::KeptFrom.to_string();
            advances.push(Advance { expected: on.next(&app_id), app_id, next: from });
        }
        let files = files.into_iter().map(|written| written.file).chain(split.written).collect();
        let done = log.try_replace(&on, &commit_of(files, advances), &split.removed).await;
        assert!(matches!(done, Ok(Outcome::Committed(_))), "{done:?}");
    }

    /// Removes the rows of a source before a moment, as retention does: only if its roll-up holds all of them.
    async fn remove(&mut self, rollup: RollUp, before: i64) {
        let (daily, hourly, minutes) = self.snapshots().await;
        let rolled = Rolled::of(&daily, &hourly, &minutes);
        let (table, on, end) = match rollup {
            RollUp::Hours => (Table::Metrics, &minutes, rolled.hours),
            RollUp::Days => (Table::MetricsHourly, &hourly, rolled.days),
        };
        let files = self.lake.files_at(table, on.version).await.expect("lists");
        let mut rows = Vec::new();
        for file in &files {
            rows.extend(self.lake.read(table, file, None).await.expect("reads"));
        }
        let waits = taken(&rows, |window, events_to| window < before && events_to > end);
        if waits.iter().any(|rows| rows.num_rows() > 0) {
            return;
        }
        let app_id = AppId::KeptFrom.to_string();
        let kept = on.next(&app_id).unwrap_or(i64::MIN).max(before);
        let mut written = Vec::new();
        for rows in taken(&rows, |window, _| window >= before) {
            written.extend(self.lake.write(table, &rows).await.expect("writes"));
        }
        let advances = vec![Advance { expected: on.next(&app_id), app_id, next: kept }];
        let commit = commit_of(written.into_iter().map(|written| written.file).collect(), advances);
        let done = self.lake.log(table).try_replace(on, &commit, &files).await;
        assert!(matches!(done, Ok(Outcome::Committed(_))), "{done:?}");
    }

    async fn snapshots(&self) -> (Snapshot, Snapshot, Snapshot) {
        let load = async |table| self.lake.log(table).load().await.expect("loads");
        (load(Table::MetricsDaily).await, load(Table::MetricsHourly).await, load(Table::Metrics).await)
    }

    async fn rows_at(&self, table: Table, on: &Snapshot) -> Vec<RecordBatch> {
        let mut rows = Vec::new();
        for file in self.lake.files_at(table, on.version).await.expect("lists") {
            rows.extend(self.lake.read(table, &file, None).await.expect("reads"));
        }
        rows
    }

    /// Reads a span as `bellwether_lake::rollup` says, and compares it with the minutes.
    async fn check_span(&self, from: i64, to: i64) {
        let (daily, hourly, minutes) = self.snapshots().await;
        let Rolled { hours, days } = Rolled::of(&daily, &hourly, &minutes);
        let kept = bellwether_lake::rollup::kept_from(&minutes);
        // Minutes that were removed can only be read as whole hours, and hours as whole days.
        let kept_hours = bellwether_lake::rollup::kept_from(&hourly);
        let from = match (from < kept_hours, from < kept) {
            (true, _) => whole_windows_from(from, DAY),
            (false, true) => whole_windows_from(from, HOUR),
            _ => from,
        };
        let to = match (to < kept_hours, to < kept) {
            (true, _) => to.div_euclid(DAY) * DAY,
            (false, true) => to.div_euclid(HOUR) * HOUR,
            _ => to,
        };
        if hours == 0 && kept > i64::MIN {
            return; // A rebuild was not rolled up yet: the minutes alone are read.
        }
        if from >= to || days == 0 && kept_hours > i64::MIN {
            return;
        }
        let in_days = |window: i64| whole_windows_from(from, DAY) <= window && window < to.div_euclid(DAY) * DAY;
        let in_hours = |window: i64| whole_windows_from(from, HOUR) <= window && window < to.div_euclid(HOUR) * HOUR;
        let in_span = |window: i64| from <= window && window < to;
        let rows = self.rows_at(Table::MetricsDaily, &daily).await;
        let mut read = taken(&rows, |window, end| in_days(window) && end <= days);
        let rows = self.rows_at(Table::MetricsHourly, &hourly).await;
        read.extend(taken(&rows, |window, end| {
            end <= hours && if in_days(window) { end > days } else { in_hours(window) }
        }));
        let rows = self.rows_at(Table::Metrics, &minutes).await;
        read.extend(taken(
            &rows,
            |window, end| {
                if in_days(window) || in_hours(window) { end > hours } else { in_span(window) }
            },
        ));
        let (found, wanted) = (folded(read).await, folded(taken(&self.minutes, |window, _| in_span(window))).await);
        let difference = first_difference(&found, &wanted);
        assert_eq!(difference, None, "from {} to {}", (from - BEGIN) / MINUTE, (to - BEGIN) / MINUTE);
    }

    /// Compares as an audit does.
    async fn audit(&self) {
        let (daily, hourly, minutes) = self.snapshots().await;
        for (rollup, on, source) in [(RollUp::Hours, &hourly, &minutes), (RollUp::Days, &daily, &hourly)] {
            assert_eq!(rolled_to(on), rollup.source_end(source), "it has caught up");
            let sides = Sides {
                rollup,
                files: self.lake.files_at(rollup.table(), on.version).await.expect("lists"),
                source: self.lake.files_at(rollup.source(), source.version).await.expect("lists"),
                rolled_to: rolled_to(on),
                kept_from: bellwether_lake::rollup::kept_from(source).max(bellwether_lake::rollup::kept_from(on)),
            };
            let compared = compare(&self.lake, sides).await.expect("compares");
            assert_eq!(compared.difference, None, "{rollup:?}");
        }
    }
}

async fn opened(lake: &Lake, step_rows: i64) -> Roller {
    let settings = RollupSettings { step_rows, ..RollupSettings::default() };
    Roller::open(lake, settings, &Registry::new()).await.expect("opens")
}

/// Another process may have been first; whatever else goes wrong is a failure.
fn settle(stepped: Result<bool>) {
    if let Err(error) = stepped {
        assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.chain());
    }
}

fn commit_of(files: Vec<bellwether_lake::DataFile>, advances: Vec<Advance>) -> Commit {
    let (uuid, facts) = (bellwether_base::unique_id(), Map::new());
    Commit { uuid, advances, files, operation: "test", ranges: Vec::new(), facts }
}

fn on_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts").block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_span_of_days_hours_and_minutes_equals_the_minutes(
        shards in 1_usize..4,
        life in prop::collection::vec(happens(), 6..20),
        spans in prop::collection::vec((0_i64..DAYS * 24 * 60, 1_i64..DAYS * 24 * 60), 3),
    ) {
        on_runtime(Box::pin(async move {
            let mut world = World::new(shards).await;
            for (place, happening) in life.iter().enumerate() {
                world.happen(happening).await;
                let (from, length) = spans[place % spans.len()];
                world.check_span(BEGIN + from * MINUTE, BEGIN + (from + length) * MINUTE).await;
            }
            world.roll().await;
            world.check_span(BEGIN, BEGIN + DAYS * DAY).await;
            world.audit().await;
        }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_that_does_not_fit_in_memory_is_spilled_and_exact() {
    let mut world = World::new(1).await;
    let runs = |part: i64| (0..6000).map(move |n: i64| (((n % 72) * 60 + part % 60, 0, n % 4001, n % 3 == 0), 1));
    for part in 0..2 {
        let mut rows: Vec<(Run, i64)> = runs(part).collect();
        // Every group is another, so that each has a state of its own.
        rows.iter_mut().enumerate().for_each(|(n, run)| run.0.0 = i64::try_from(n).expect("few") % (DAYS * 24) * 60);
        world.commit(0, &rows, false).await;
    }
    let on = world.lake.log(Table::Metrics).load().await.expect("loads");
    let rows = world.rows_at(Table::Metrics, &on).await;
    // The same rows under thousands of tasks.
    let many: Vec<RecordBatch> = (0..80).flat_map(|n| rows.iter().map(move |rows| renamed(rows, n))).collect();
    let mut advances = vec![world.layout().advance(&on)];
    world.events += 1;
    advances.push(Advance { app_id: app_of(0), expected: on.next(&app_of(0)), next: world.events });
    let mut files = Vec::new();
    for rows in &many {
        files.extend(world.lake.write(Table::Metrics, rows).await.expect("writes"));
    }
    let commit = commit_of(files.into_iter().map(|written| written.file).collect(), advances);
    assert!(matches!(world.lake.log(Table::Metrics).try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    let settings = RollupSettings { memory_bytes: 12 << 20, ..RollupSettings::default() };
    world.roller = Roller::open(&world.lake, settings, &Registry::new()).await.expect("opens");
    world.roll().await;
    let spilled = world.roller.tools.context.runtime_env().disk_manager.used_disk_space();
    assert_eq!(spilled, 0, "nothing of what was spilled is left");
    world.audit().await;
    let (_, hourly, _) = world.snapshots().await;
    let hours: usize = world.rows_at(Table::MetricsHourly, &hourly).await.iter().map(RecordBatch::num_rows).sum();
    assert!(hours > 5_000, "{hours} groups need more than the memory given");
}

/// Rows under the name of another task.
fn renamed(rows: &RecordBatch, n: usize) -> RecordBatch {
    let schema = rows.schema();
    let place = schema.index_of("task").expect("a task");
    let mut columns = rows.columns().to_vec();
    let names = (0..rows.num_rows()).map(|_| Some(format!("task-of-many-{n}")));
    columns[place] = Arc::new(names.collect::<arrow::array::StringViewArray>());
    RecordBatch::try_new(schema, columns).expect("rows")
}
