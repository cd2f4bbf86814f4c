//! Rows of a roll-up's source as a relation that is read while it is folded: one piece of one file is in memory at a time.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, Lake};
use bellwether_tables::Table;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::streaming::PartitionStream;

use crate::pieces::{StoredFiles, expected};

/// Which rows of a table are wanted, by `events_to` and `window_start`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Rows with a greater `events_to`.
    pub(crate) after: i64,
    /// Rows with an `events_to` of at most this.
    pub(crate) to: i64,
    /// Windows from this start on, microseconds since the epoch, are wanted whatever `after` says.
    pub(crate) all_since: i64,
    /// Windows that start before this, microseconds since the epoch, are not wanted.
    pub(crate) since: i64,
}

/// The wanted rows of some files of a table.
#[derive(Clone)]
pub(crate) struct Rows {
    stored: StoredFiles,
    wanted: Wanted,
    /// Takes the number of rows in each piece.
    note: Arc<dyn Fn(usize) + Send + Sync>,
}

// === impl Wanted ===

impl Wanted {
    /// Rows with an `events_to` above `after` and up to `to`, of all windows.
    pub(crate) const fn between(after: i64, to: i64) -> Self {
        Self { after, to, all_since: i64::MAX, since: i64::MIN }
    }

    fn has(&self, events_to: i64, window: i64) -> bool {
        window >= self.since && events_to <= self.to && (events_to > self.after || window >= self.all_since)
    }

    /// Returns false only if the statistics of a file rule out wanted rows.
    fn may_be_in(&self, file: &AddedFile) -> bool {
        let bounds = file.bounds();
        let (least, greatest) = bounds.numbers("events_to").unwrap_or((i64::MIN, i64::MAX));
        let newest = bounds.times("window_start").map_or(i64::MAX, |(_, newest)| newest);
        newest >= self.since && least <= self.to && (greatest > self.after || newest >= self.all_since)
    }

    fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |name: &str| rows.column_by_name(name).ok_or_else(|| Error::bug(format!("rows lack `{name}`")));
        let ends = column("events_to")?.as_primitive::<Int64Type>().values();
        let windows = column("window_start")?.as_primitive::<TimestampMicrosecondType>().values();
        let mask: BooleanArray =
            ends.iter().zip(windows).map(|(events_to, window)| Some(self.has(*events_to, *window))).collect();
        Ok(filter_record_batch(rows, &mask)?)
    }
}

// === impl Rows ===

impl Rows {
    pub(crate) fn new(
        lake: &Lake,
        table: Table,
        files: impl IntoIterator<Item = AddedFile>,
        wanted: Wanted,
        note: Arc<dyn Fn(usize) + Send + Sync>,
    ) -> Self {
        let files = files.into_iter().filter(|file| wanted.may_be_in(file)).collect();
        let stored = StoredFiles { schema: table.arrow_schema(), lake: lake.clone(), table, files };
        Self { stored, wanted, note }
    }

    /// Returns true if no file may hold a wanted row.
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.files.is_empty()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, files) = (self.stored.table.name(), self.stored.files.len());
        f.debug_struct("Rows").field("table", &table).field("files", &files).finish_non_exhaustive()
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.stored.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (wanted, note) = (self.wanted, Arc::clone(&self.note));
        self.stored.stream(move |rows| {
            let rows = wanted.of(&rows)?;
            note(rows.num_rows());
            Ok(rows)
        })
    }
}

/// Returns the error of a fold as one of this program: that of reading its rows as it was.
pub(crate) fn failed(source: DataFusionError) -> Error {
    let too_much = "a fold needs more memory or more room for spilled rows than it may have";
    match expected(&source, too_much) {
        Some((kind, message)) => Error::new(kind, message),
        None => Error::bug("rows of metrics cannot be folded").with_source(source),
    }
}
