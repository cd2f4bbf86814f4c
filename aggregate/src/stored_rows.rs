//! Spans of the rolling metrics over the rows of `metrics` and its roll-ups as they are stored, within a bound on memory.
//!
//! One piece of one file is read at a time, with the columns that figures follow from, and folded at once, so that memory grows
//! with the groups of the answer. Beyond the bound the engine spills to disk; what cannot spill is refused. Files are chosen by
//! their statistics, and read through the lake, whose errors say what to do.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Lake};
use bellwether_metrics::{AsOf, FileBounds, Rolled, rolling_spans_sql};
use bellwether_tables::Table;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt};

use crate::in_turn::in_turn;

/// Rows in a batch. A row of `metrics` is a few kilobytes wide, and merging what was spilled takes several batches.
const BATCH_ROWS: usize = 512;

/// Memory that a sort sets aside for merging what it has spilled.
const SORT_RESERVATION_BYTES: usize = 1 << 20;

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
#[derive(Clone)]
struct Files {
    lake: Lake,
    table: Table,
    schema: SchemaRef,
    files: Arc<[AddedFile]>,
}

// === impl StoredRows ===

impl StoredRows {
    /// Lists the files of the tables at their newest versions, again if a roll-up moves on meanwhile.
    pub(crate) async fn open(lake: &Lake, memory_bytes: usize) -> Result<Self> {
        let pool = Arc::new(FairSpillPool::new(memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().map_err(failed)?;
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS)
            .with_sort_spill_reservation_bytes(SORT_RESERVATION_BYTES);
        let context = SessionContext::new_with_config_rt(config, runtime);
        bellwether_metrics::register(&context);
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

    /// The roll-ups that spans use.
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
                let relation = Files {
                    lake: self.lake.clone(),
                    table: *table,
                    schema: table.arrow_schema(),
                    files: counted.collect(),
                };
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
        let (table, files) = (self.table.name(), self.files.len());
        f.debug_struct("Files").field("table", &table).field("files", &files).finish_non_exhaustive()
    }
}

impl Files {
    async fn read(self, place: usize) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send> {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        self.lake.read_in_pieces(self.table, &self.files[place], Some(&columns)).await
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        // Only these columns are read.
        let narrow = Self { schema: Arc::clone(&schema), ..self.clone() };
        StreamingTable::try_new(schema, vec![Arc::new(narrow)])?.scan(state, None, filters, limit).await
    }
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let files = self.clone();
        let pieces = futures::stream::iter(0..self.files.len())
            .then(move |place| files.clone().read(place))
            .map_ok(futures::stream::iter)
            .try_flatten()
            .map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), pieces))
    }
}

/// Returns the bounds of a file by its statistics.
fn bounds(file: &AddedFile) -> FileBounds {
    let stats: serde_json::Value =
        file.stats.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let micros = |which: &str| {
        let nanos = string_to_timestamp_nanos(stats.get(which)?.get("window_start")?.as_str()?).ok()?;
        Some(nanos.div_euclid(1000))
    };
    let number = |which: &str| stats.get(which)?.get("events_to")?.as_i64();
    FileBounds {
        windows: (micros("minValues").unwrap_or(i64::MIN), micros("maxValues").unwrap_or(i64::MAX)),
        events_to: (number("minValues").unwrap_or(i64::MIN), number("maxValues").unwrap_or(i64::MAX)),
    }
}

/// Returns the error of a span as one of this program: that of reading its rows as it was.
fn failed(source: DataFusionError) -> Error {
    let known = match source.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref::<Error>().map(|error| (error.kind(), error.chain())),
        DataFusionError::ResourcesExhausted(_) => {
            Some((ErrorKind::Unavailable, "a span of `rolling_history` needs more memory than it may have".to_owned()))
        }
        _ => None,
    };
    let (kind, message) =
        known.unwrap_or((ErrorKind::Bug, "a span of `rolling_history` cannot be computed".to_owned()));
    Error::new(kind, message).with_source(source)
}
