//! Spans of the rolling metrics over the rows of `metrics` and its roll-ups as they are stored, within a bound on memory.
//!
//! One piece of one file is read at a time, with the columns that figures follow from, and folded at once, so that memory grows
//! with the groups of the answer. Beyond the bound the engine spills to disk; what cannot spill is refused. Files are chosen by
//! their statistics, and read through the lake, whose errors say what to do.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Lake};
use bellwether_metrics::{AsOf, FileBounds, Rolled, rolling_spans_sql};
use bellwether_tables::Table;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;

use crate::in_turn::in_turn;
use crate::pieces::{StoredFiles, expected};
use crate::sql;

/// Rows in a batch. A row of `metrics` is a few kilobytes wide, and merging what was spilled takes several batches.
const BATCH_ROWS: usize = 512;

/// The tables that spans are made of, each roll-up before the table that it is made from.
const TABLES: [Table; 3] = [Table::MetricsDaily, Table::MetricsHourly, Table::Metrics];

/// The files of the tables of metrics at one version each.
pub(crate) struct StoredRows {
    lake: Lake,
    context: SessionContext,
    rolled: Rolled,
    files: Vec<(Table, Vec<(FileBounds, AddedFile)>)>,
}

/// Some files of a table as a relation.
struct Files(StoredFiles);

// === impl StoredRows ===

impl StoredRows {
    /// Lists the files of the tables at their newest versions, again if a roll-up moves on meanwhile.
    pub(crate) async fn open(lake: &Lake, memory_bytes: usize) -> Result<Self> {
        let context = sql::spilling_session(memory_bytes, BATCH_ROWS)?;
        let mut before = bellwether_lake::Rolled::load(lake).await?;
        loop {
            let mut files = Vec::new();
            for table in TABLES {
                let (_, active) = lake.active_files(table).await?;
                files.push((table, active.into_iter().map(|file| (bounds(&file), file)).collect()));
            }
            let now = bellwether_lake::Rolled::load(lake).await?;
            if now == before {
                let rolled = Rolled::up_to(now.hours, now.days);
                return Ok(Self { lake: lake.clone(), context, rolled, files });
            }
            before = now;
        }
    }

    /// Returns the roll-ups that spans use.
    pub(crate) fn rolled(&self) -> Rolled {
        self.rolled
    }

    /// Returns the rolling metrics of a span, given by its name and its length in minutes, that ends at a moment.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer or the span takes too much memory; `Data` if a file is gone or damaged.
    pub(crate) async fn rolling(&self, span: (&str, i64), to_micros: i64) -> Result<Vec<RecordBatch>> {
        let answer = async {
            for (table, files) in &self.files {
                let counts = |bounds: &FileBounds| self.rolled.may_count(table.name(), span.1, to_micros, bounds);
                let counted = files.iter().filter(|(bounds, _)| counts(bounds)).map(|(_, file)| file.clone());
                let relation = Files(StoredFiles {
                    lake: self.lake.clone(),
                    table: *table,
                    schema: table.arrow_schema(),
                    files: counted.collect(),
                });
                self.context.deregister_table(table.name())?;
                self.context.register_table(table.name(), Arc::new(relation))?;
            }
            let query = rolling_spans_sql(AsOf::Micros(to_micros), &[span], self.rolled);
            let plan = in_turn(self.context.sql(&query).await?.create_physical_plan().await?)?;
            datafusion::physical_plan::collect(plan, self.context.task_ctx()).await
        };
        answer.await.map_err(failed)
    }

    /// True for the error of a span that takes too much memory.
    pub(crate) fn is_out_of_memory(error: &Error) -> bool {
        std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<DataFusionError>())
            .is_some_and(|source| matches!(source.find_root(), DataFusionError::ResourcesExhausted(_)))
    }
}

// === impl Files ===

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, files) = (self.0.table.name(), self.0.files.len());
        f.debug_struct("Files").field("table", &table).field("files", &files).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.0.schema.project(columns)?),
            None => Arc::clone(&self.0.schema),
        };
        // Only these columns are read.
        let narrow = Self(StoredFiles { schema: Arc::clone(&schema), ..self.0.clone() });
        StreamingTable::try_new(schema, vec![Arc::new(narrow)])?.scan(state, None, filters, limit).await
    }
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.0.stream(Ok)
    }
}

/// Returns the bounds of a file that decide whether a span reads it. A bound that is not stated rules nothing out.
fn bounds(file: &AddedFile) -> FileBounds {
    let stated = file.bounds();
    FileBounds {
        windows: (stated.oldest("window_start").unwrap_or(i64::MIN), stated.newest("window_start").unwrap_or(i64::MAX)),
        events_to: (
            stated.least_number("events_to").unwrap_or(i64::MIN),
            stated.greatest_number("events_to").unwrap_or(i64::MAX),
        ),
    }
}

/// Returns the error of a span as one of this program: that of reading its rows as it was.
fn failed(source: DataFusionError) -> Error {
    let known = expected(&source, "a span of `rolling_history` needs more memory than it may have");
    let (kind, message) =
        known.unwrap_or((ErrorKind::Bug, "a span of `rolling_history` cannot be computed".to_owned()));
    Error::new(kind, message).with_source(source)
}
