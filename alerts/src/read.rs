//! Reads the tables: the rows of a log entry, and history, day by day.

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use bellwether_base::Result;
use bellwether_detect::Minute;
use bellwether_lake::{Lake, LogEntry};
use bellwether_queries::{Present, Session, SessionSettings, quoted};
use bellwether_tables::Table;
use futures::TryStreamExt;

use crate::engine::{Engine, Selection};
use crate::observe::MINUTE_MICROS;
use crate::record::AlertRow;
use crate::watch::WatchSettings;

/// Minutes of a day.
const DAY: i64 = 1440;

/// Rows that rules evaluate at once, roughly: bounds the memory while a day or many versions are read.
const PART_ROWS: usize = 32 * 1024;

/// Rows of `metrics` that a replay reads before they are judged, roughly.
const STEP_ROWS: i64 = 8 * PART_ROWS as i64;

/// The versions, windows and silence of a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplaySpan {
    /// Version of `metrics`.
    pub(crate) metrics_version: i64,
    /// Version of `events` after the last one that counts.
    pub(crate) events_next: i64,
    /// First window; none for the days of the settings.
    pub(crate) from: Option<Minute>,
    /// The end of the last window; none for all of them.
    pub(crate) to: Option<Minute>,
    /// Silence is known up to this moment; none if it is known throughout.
    pub(crate) silent_to: Option<Minute>,
}

/// When rules on whole tables are evaluated: from a minute to another, every few minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) from: Minute,
    pub(crate) to: Minute,
    pub(crate) every: i64,
}

/// Rows of a table on their way into an engine, in parts of [`PART_ROWS`].
pub(crate) struct Parts {
    table: Table,
    rows: Vec<RecordBatch>,
    count: usize,
}

impl Parts {
    pub(crate) fn of(table: Table) -> Self {
        Self { table, rows: Vec::new(), count: 0 }
    }

    pub(crate) async fn add(&mut self, engine: &mut Engine, rows: Vec<RecordBatch>) -> Result<()> {
        self.count += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        self.rows.extend(rows);
        if self.count < PART_ROWS {
            return Ok(());
        }
        self.take(engine).await
    }

    /// Gives the engine the rows that are left.
    pub(crate) async fn take(&mut self, engine: &mut Engine) -> Result<()> {
        self.count = 0;
        engine.take(self.table, std::mem::take(&mut self.rows)).await
    }
}

/// Reads the new rows of a log entry; an entry that only rewrites files has none.
pub(crate) async fn read_entry(
    lake: &Lake,
    table: Table,
    entry: &LogEntry,
    columns: &[&str],
) -> Result<Vec<RecordBatch>> {
    let mut rows = Vec::new();
    if entry.brings_rows() && !columns.is_empty() {
        for file in entry.added.iter().filter(|file| file.data_change) {
            rows.extend(lake.read(table, file, Some(columns)).await?);
        }
    }
    Ok(rows)
}

/// Rows that are read once more for some series.
pub(crate) struct Reread<'a> {
    /// Version of `metrics`, and the one after the version of `events`.
    pub(crate) versions: (i64, i64),
    /// The tasks of the series; none for all tasks.
    pub(crate) tasks: Option<&'a BTreeSet<String>>,
    /// First window.
    pub(crate) from: Minute,
    /// Windows before this are complete.
    pub(crate) to: Minute,
}

/// Judges the selected series again, day by day.
///
/// # Errors
/// As [`replay`]. The selection is only half judged then.
pub(crate) async fn reread(
    lake: &Lake,
    engine: &mut Engine,
    settings: &WatchSettings,
    reread: &Reread<'_>,
    selection: &mut Selection,
) -> Result<Vec<AlertRow>> {
    let session = as_of(lake, settings, reread.versions, None).await?;
    let (first, last) = (reread.from.div_euclid(DAY), reread.to.max(reread.from).div_euclid(DAY));
    let mut rows = Vec::new();
    for day in first..=last {
        let start = reread.from.max(day * DAY);
        // The windows that are not complete yet, too.
        let end = (day < last).then_some((day + 1) * DAY);
        for table in [Table::Metrics, Table::Events] {
            let columns = engine.columns(table).await;
            let Some(sql) = span_sql(table, &columns, (start, end), reread.tasks) else { continue };
            let (mut answer, mut part, mut count) = (session.execute(&sql).await?, Vec::new(), 0);
            while let Some(batch) = answer.batches.try_next().await? {
                count += batch.num_rows();
                part.push(batch);
                if count >= PART_ROWS {
                    engine.take_again(table, std::mem::take(&mut part), selection).await?;
                    count = 0;
                }
            }
            engine.take_again(table, part, selection).await?;
        }
        rows.extend(engine.evaluate_again(end, selection));
    }
    Ok(rows)
}

/// Returns the query for the rows of some windows; none if no rule reads the table.
fn span_sql(
    table: Table,
    columns: &[&str],
    (start, end): (Minute, Option<Minute>),
    tasks: Option<&BTreeSet<String>>,
) -> Option<String> {
    if columns.is_empty() {
        return None;
    }
    let time = if table == Table::Events { "ended_at" } else { "window_start" };
    let mut conditions = vec![format!("{time} >= {}", moment(start))];
    if table == Table::Events {
        // The date of an event is that of its arrival, or near it: days are pruned by it.
        let day = start.div_euclid(DAY) - 1;
        conditions.push(format!("event_date >= CAST({} AS DATE)", moment(day * DAY)));
    }
    conditions.extend(end.map(|end| format!("{time} < {}", moment(end))));
    if let Some(tasks) = tasks {
        let tasks: Vec<String> = tasks.iter().map(|task| quoted(task)).collect();
        conditions.push(format!("task IN ({})", tasks.join(", ")));
    }
    let columns: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    Some(format!("SELECT {} FROM {} WHERE {}", columns.join(", "), table.name(), conditions.join(" AND ")))
}

/// Judges the history of the tables day by day.
///
/// # Errors
/// `Unavailable` if storage does not answer; `Data` if a file is gone.
pub(crate) async fn replay(
    lake: &Lake,
    engine: &mut Engine,
    settings: &WatchSettings,
    span: ReplaySpan,
) -> Result<Vec<AlertRow>> {
    let ReplaySpan { metrics_version, events_next, from, to, silent_to } = span;
    // Silence is known only up to the moment up to which everything was read.
    let silent = |minute: Minute| silent_to.map_or(minute, |silent_to| minute.min(silent_to));
    let session = as_of(lake, settings, (metrics_version, events_next), None).await?;
    let days = rows_by_day(&session).await?;
    let Some((newest, _)) = days.last().copied() else { return Ok(Vec::new()) };
    let first = from.map_or(newest - settings.history_days, |from| from.div_euclid(DAY));
    let mut rows = Vec::new();
    for (day, count) in days.into_iter().filter(|(day, _)| *day >= first) {
        // The time between two days is judged before the later one is read, because the engine keeps the past only for so long.
        let before = to.map_or(day * DAY, |to| to.min(day * DAY));
        rows.extend(engine.evaluate(before, silent(before), None));
        let minutes = step_minutes(count);
        for start in (day * DAY..(day + 1) * DAY).step_by(usize::try_from(minutes).unwrap_or(1)) {
            let end = start + minutes;
            let start = from.map_or(start, |from| from.max(start));
            if start >= end {
                continue;
            }
            for table in [Table::Metrics, Table::Events] {
                let columns = engine.columns(table).await;
                let Some(sql) = span_sql(table, &columns, (start, Some(end)), None) else { continue };
                let (mut answer, mut parts) = (session.execute(&sql).await?, Parts::of(table));
                while let Some(batch) = answer.batches.try_next().await? {
                    parts.add(engine, vec![batch]).await?;
                }
                parts.take(engine).await?;
            }
            let end = to.map_or(end, |to| to.min(end));
            rows.extend(engine.evaluate(end, silent(end), None));
        }
    }
    if let Some(to) = to {
        rows.extend(engine.evaluate(to, silent(to), None));
    }
    Ok(rows)
}

/// Returns the minutes of a day of so many rows that are read before they are judged: the engine holds their windows
/// meanwhile.
fn step_minutes(rows: i64) -> i64 {
    let steps = [1, 2, 3, 4, 6, 8, 12, 24];
    DAY / steps.into_iter().find(|steps| rows / steps <= STEP_ROWS).unwrap_or(24)
}

/// Returns the days that `metrics` has, since the epoch, with their rows.
async fn rows_by_day(session: &Session) -> Result<Vec<(i64, i64)>> {
    let sql = "SELECT CAST(date_part('epoch', date_bin(INTERVAL '1 day', window_start, TIMESTAMP '1970-01-01T00:00:00Z')) / 86400 AS BIGINT) AS day, count(*) AS rows FROM metrics GROUP BY day ORDER BY day";
    let mut found = Vec::new();
    for batch in session.execute(sql).await?.collect().await? {
        let columns = [0, 1].map(|place| cast(batch.column(place), &DataType::Int64));
        let [days, rows] = columns;
        let (days, rows) = (days?, rows?);
        let (days, rows) = (days.as_primitive::<Int64Type>(), rows.as_primitive::<Int64Type>());
        found.extend(days.iter().flatten().zip(rows.iter().flatten()));
    }
    Ok(found)
}

/// Opens a session over the tables as of a version of `metrics` and the one before a version of `events`.
async fn as_of(
    lake: &Lake,
    settings: &WatchSettings,
    (metrics_version, events_next): (i64, i64),
    present: Option<Present>,
) -> Result<Session> {
    let mut at = vec![(Table::Metrics, metrics_version)];
    if events_next > 0 {
        at.push((Table::Events, events_next - 1));
    }
    let settings = SessionSettings { memory_limit_bytes: settings.memory_bytes, present, ..SessionSettings::default() };
    Session::frozen(lake, settings, &at).await
}

/// Judges a rule on whole tables, as of a version of `metrics` and the one before a version of
/// `events`. The rule is evaluated as often as live, on the tables as they were at each of these times.
///
/// # Errors
/// As [`replay`].
pub(crate) async fn replay_tables(
    lake: &Lake,
    engine: &mut Engine,
    settings: &WatchSettings,
    versions: (i64, i64),
    schedule: Schedule,
) -> Result<Vec<AlertRow>> {
    let present = Present::default();
    let session = as_of(lake, settings, versions, Some(present.clone())).await?;
    Ok(ask_over_time(engine, &session, &present, schedule).await)
}

/// Evaluates rules on whole tables at each minute of a schedule, with `now()` set to it.
pub(crate) async fn ask_over_time(
    engine: &mut Engine,
    session: &Session,
    present: &Present,
    schedule: Schedule,
) -> Vec<AlertRow> {
    let mut rows = Vec::new();
    let mut minute = schedule.from;
    while minute <= schedule.to {
        if minute.rem_euclid(DAY) == 0 {
            let day = i32::try_from(minute / DAY).ok().and_then(Date32Type::to_naive_date_opt);
            tracing::info!(day = %day.unwrap_or_default(), "evaluating rules on whole tables as of this day");
        }
        present.set(minute.saturating_mul(MINUTE_MICROS));
        Box::pin(engine.ask_tables(session, minute)).await;
        rows.extend(engine.evaluate(minute, minute, Some(minute)));
        minute += schedule.every.max(1);
    }
    rows
}

/// Returns a moment as a SQL expression.
pub(crate) fn moment(minute: Minute) -> String {
    format!("to_timestamp_micros({})", minute.saturating_mul(MINUTE_MICROS))
}
