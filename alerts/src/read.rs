//! Reading the tables: what an entry of a log brings, and history, day by day.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type};
use bellwether_detect::Minute;
use bellwether_lake::{Lake, LogEntry, Result, Table};
use bellwether_queries::{Present, Session, SessionSettings};
use futures::TryStreamExt;

use crate::engine::Engine;
use crate::observe::MINUTE_MICROS;
use crate::record::Row;
use crate::watch::Settings;

/// Minutes of a day.
const DAY: i64 = 1440;

/// Rows that rules are asked about at once, about: bounds what is held while a day or many versions are read.
const PART_ROWS: usize = 32 * 1024;

/// Rows of a table on their way into an engine, some at a time.
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

    /// Gives the engine what is left.
    pub(crate) async fn take(&mut self, engine: &mut Engine) -> Result<()> {
        self.count = 0;
        engine.take(self.table, std::mem::take(&mut self.rows)).await
    }
}

/// The rows that an entry brings, or none where it only rewrites files.
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

/// Judges the history of the tables, as of a version of `metrics` and the one before a version of `events`, day by day:
/// windows from a moment, or as many days as the settings have, up to another; silence up to a moment of its own.
///
/// # Errors
/// `Unavailable` where storage does not answer; `Data` where a file is gone.
pub async fn replay(
    lake: &Lake,
    engine: &mut Engine,
    settings: &Settings,
    versions: (i64, i64),
    (from, to): (Option<Minute>, Option<Minute>),
    silent_to: Option<Minute>,
) -> Result<Vec<Row>> {
    // That nothing came is news only up to the moment up to which all was read.
    let silent = |minute: Minute| silent_to.map_or(minute, |silent_to| minute.min(silent_to));
    let session = as_of(lake, settings, versions, None).await?;
    let days = numbers(&session, "SELECT DISTINCT CAST(date_part('epoch', date_bin(INTERVAL '1 day', window_start, TIMESTAMP '1970-01-01T00:00:00Z')) / 86400 AS BIGINT) AS day FROM metrics ORDER BY day").await?;
    let Some(newest) = days.last().copied() else { return Ok(Vec::new()) };
    let first = from.map_or(newest - settings.history_days, |from| from.div_euclid(DAY));
    let mut rows = Vec::new();
    for day in days.into_iter().filter(|day| *day >= first) {
        let (start, end) = (day * DAY, (day + 1) * DAY);
        let (start, end) = (from.map_or(start, |from| from.max(start)), to.map_or(end, |to| to.min(end)));
        // What lies between two days is judged before the later one is taken in: the past is remembered for so long only.
        let before = to.map_or(day * DAY, |to| to.min(day * DAY));
        rows.extend(engine.evaluate(before, silent(before), None));
        for (table, condition) in [
            (
                Table::Metrics,
                format!("window_start >= {} AND window_start < {}", moment(start), moment((day + 1) * DAY)),
            ),
            (
                Table::Events,
                format!(
                    "event_date >= CAST({} AS DATE) AND ended_at >= {} AND ended_at < {}",
                    moment((day - 1) * DAY),
                    moment(start),
                    moment((day + 1) * DAY)
                ),
            ),
        ] {
            let columns = engine.columns(table);
            if columns.is_empty() {
                continue;
            }
            let columns: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
            let sql = format!("SELECT {} FROM {} WHERE {condition}", columns.join(", "), table.name());
            let (mut answer, mut parts) = (session.execute(&sql).await?, Parts::of(table));
            while let Some(batch) = answer.batches.try_next().await? {
                parts.add(engine, vec![batch]).await?;
            }
            parts.take(engine).await?;
        }
        rows.extend(engine.evaluate(end, silent(end), None));
    }
    if let Some(to) = to {
        rows.extend(engine.evaluate(to, silent(to), None));
    }
    Ok(rows)
}

/// A session over the tables as of a version of `metrics` and the one before a version of `events`.
async fn as_of(
    lake: &Lake,
    settings: &Settings,
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

/// Judges a rule on whole tables from a moment to another, as of a version of `metrics` and the one before a version of
/// `events`: it is asked as often as live, of the tables as they were at each of these times.
///
/// # Errors
/// As [`replay`].
pub(crate) async fn replay_tables(
    lake: &Lake,
    engine: &mut Engine,
    settings: &Settings,
    versions: (i64, i64),
    from: Minute,
    to: Minute,
    every: i64,
) -> Result<Vec<Row>> {
    let present = Present::default();
    let session = as_of(lake, settings, versions, Some(present.clone())).await?;
    Ok(ask_over_time(engine, &session, &present, from, to, every).await)
}

/// Asks and judges rules on whole tables again and again, while the session's present goes from a moment to another.
pub(crate) async fn ask_over_time(
    engine: &mut Engine,
    session: &Session,
    present: &Present,
    from: Minute,
    to: Minute,
    every: i64,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut minute = from;
    while minute <= to {
        if minute.rem_euclid(DAY) == 0 {
            let day = i32::try_from(minute / DAY).ok().and_then(Date32Type::to_naive_date_opt);
            tracing::info!(day = %day.unwrap_or_default(), "rules on whole tables are asked as of this day");
        }
        present.set(minute.saturating_mul(MINUTE_MICROS));
        Box::pin(engine.ask_tables(session, minute)).await;
        rows.extend(engine.evaluate(minute, minute, Some(minute)));
        minute += every.max(1);
    }
    rows
}

fn moment(minute: Minute) -> String {
    format!("to_timestamp_micros({})", minute.saturating_mul(MINUTE_MICROS))
}

/// One column of whole numbers.
pub(crate) async fn numbers(session: &Session, sql: &str) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    for batch in session.execute(sql).await?.collect().await? {
        let column = cast(batch.column(0), &DataType::Int64)?;
        found.extend(column.as_primitive::<Int64Type>().iter().flatten());
    }
    Ok(found)
}
