//! Writes a long history of `metrics`: the real program aggregates the first hour, and the rows of every later hour are those of
//! the first, an hour later each.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bellwether_base::{Clock, Error, Result, SystemClock, unique_id};
use bellwether_bench::events::{Fleet, Generator};
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message, Pushed};
use bellwether_lake::{Advance, Chunk, Commit, CommitLog, DataFile, Lake, Outcome, RowEncoder, app_of};
use bellwether_tables::Table;

use crate::part::flow::Setup;

const HOUR_MICROS: i64 = 3_600_000_000;

/// Runs of each group in a minute, on average.
const RUNS: usize = 6;

/// Hours in one commit.
const HOURS_A_COMMIT: i64 = 6;

/// The history.
pub(crate) struct History {
    /// Rows of `metrics`.
    pub(crate) rows: u64,
    /// Runs.
    pub(crate) runs: i64,
    /// End of the newest minute, µs since the epoch.
    pub(crate) as_of: i64,
}

// === impl History ===

impl History {
    /// Writes the minutes of some days, with this many groups in nearly each.
    pub(crate) async fn write(setup: &Setup, seed: u64, days: i64, groups: usize) -> Result<Self> {
        let hours = days * 24;
        let as_of = SystemClock.now_micros().div_euclid(HOUR_MICROS) * HOUR_MICROS;
        let lake = setup.lake().await?;
        let runs = Box::pin(first_hour(&lake, seed, groups, as_of - hours * HOUR_MICROS)).await?;
        setup.run(&["aggregate", "--until-caught-up"])?;
        let hour = rows(&lake).await?;
        let mut rows: u64 = hour.iter().map(|batch| batch.num_rows() as u64).sum();
        let mut later = 1;
        while later < hours {
            let end = (later + HOURS_A_COMMIT).min(hours);
            rows += copy(&lake, &hour, later..end).await?;
            later = end;
        }
        roll_up(setup)?;
        Ok(Self { rows, runs: runs * hours, as_of })
    }
}

/// Writes the events of the first hour to `events`. Returns how many there are.
async fn first_hour(lake: &Lake, seed: u64, groups: usize, begin: i64) -> Result<i64> {
    let now = SystemClock.now_micros();
    let mut generator = Generator::of(Fleet { tasks: groups.div_ceil(4), releases: 2, models: 2 }, seed);
    // Ingest would reject events this old from a topic.
    let mut builder = BatchBuilder::new(Limits { max_age_micros: i64::MAX, ..Limits::default() });
    let events = (groups * 60 * RUNS) as i64;
    for offset in 0..events {
        let event = generator.next(begin + (HOUR_MICROS as f64 * offset as f64 / events as f64) as i64);
        let message = Message { topic: "bench", offset, payload: Some(&event.payload), ..Message::default() };
        if let Pushed::Quarantined(reason) = builder.push(&message, now) {
            return Err(Error::bug(format!("a generated event was rejected: {reason}")));
        }
    }
    let files = lake.store(&builder.finish()?.0).await?;
    append(lake, Table::Events, "bench/t/0", events, files.into_iter().map(|file| file.file).collect()).await?;
    Ok(events)
}

/// Reads all rows of `metrics`.
async fn rows(lake: &Lake) -> Result<Vec<RecordBatch>> {
    let (_, files) = lake.active_files(Table::Metrics).await?;
    let mut rows = Vec::new();
    for file in &files {
        rows.extend(lake.read(Table::Metrics, file, None).await?);
    }
    Ok(rows)
}

/// Commits copies of an hour's rows, moved by so many hours, and a version of `events` that they are said to cover. Returns
/// how many there are.
async fn copy(lake: &Lake, hour: &[RecordBatch], by: std::ops::Range<i64>) -> Result<u64> {
    // A version without rows: what it would hold is in `metrics`, and nothing here reads it.
    let events = lake.log(Table::Events).load().await?.version + 1;
    append(lake, Table::Events, "bench/t/0/copied", events, Vec::new()).await?;
    let mut encoder = RowEncoder::new(Table::Metrics);
    for hours in by {
        for batch in hour {
            encoder.push(&moved(batch, hours * HOUR_MICROS, events)?)?;
        }
    }
    let files: Vec<DataFile> = lake.store(&encoder.finish()?).await?.into_iter().map(|file| file.file).collect();
    let rows = files.iter().map(|file| file.rows.unsigned_abs()).sum();
    append(lake, Table::Metrics, &app_of(0), events + 1, files).await?;
    Ok(rows)
}

/// Returns rows of `metrics` moved in time, as of a version of `events`.
fn moved(batch: &RecordBatch, micros: i64, version: i64) -> Result<Chunk> {
    let constant = |value: i64| Some(Arc::new(Int64Array::from(vec![value; batch.num_rows()])) as ArrayRef);
    let schema = Table::Metrics.arrow_schema();
    let columns = schema.fields().iter().map(|field| -> Result<Option<ArrayRef>> {
        let column = batch.column_by_name(field.name());
        Ok(match (field.name().as_str(), column) {
            ("events_from", _) => constant(version),
            ("events_to", _) => constant(version + 1),
            ("window_start", Some(column)) => {
                let column = column.as_primitive_opt::<TimestampMicrosecondType>();
                let column = column.ok_or_else(|| Error::bug("`window_start` is no time"))?;
                Some(Arc::new(column.unary::<_, TimestampMicrosecondType>(|at| at + micros).with_timezone("UTC")))
            }
            (_, column) => column.cloned(),
        })
    });
    Ok(Chunk { rows: batch.num_rows(), columns: columns.collect::<Result<_>>()? })
}

/// Appends files to a table, with one step of an application.
async fn append(lake: &Lake, table: Table, app: &str, next: i64, files: Vec<DataFile>) -> Result<()> {
    let log = lake.log(table);
    let on = log.load().await?;
    let commit = Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: app.to_owned(), expected: on.next(app), next }],
        files,
        operation: "ingest",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    match log.try_commit(&on, &commit).await? {
        Outcome::Committed(_) => Ok(()),
        other => Err(Error::bug(format!("a commit without concurrent writers ended as {other:?}"))),
    }
}

/// Has the program roll the minutes up, as it does in service.
fn roll_up(setup: &Setup) -> Result<()> {
    setup.run(&["aggregate", "--until-caught-up"]).map(|_| ())
}
