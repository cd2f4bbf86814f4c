//! Partial rows of `metrics`, computed from `events` in bounded memory: statements are divided by run and written to temporary
//! files, and one part after another is computed. All statements of a run are in one part, so that parts are independent.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_tables::{Table, metrics};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::SpillFile;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};

use super::Sources;
use crate::kept::since;
use crate::rollup::rows::failed;
use crate::runs::Shard;
use crate::sql::{self, Definition};
use crate::statement::{run_of, shard_of};

/// Compressed bytes of a part, about.
const PART_BYTES: i64 = 16 << 20;

/// Most parts: each is an open file while statements are divided.
const MOST_PARTS: i64 = 512;

/// Bytes of statements that are divided at once. Fewer would make many small pieces of each.
const DIVIDED_BYTES: usize = 32 << 20;

/// The partial rows of all parts, as a relation.
pub(super) struct Partials {
    schema: SchemaRef,
    parts: Arc<Parts>,
    /// Rows that come beside those of the parts: the contributions of erased runs.
    erased: Vec<RecordBatch>,
}

/// Statements in temporary files, and the definitions that turn them into partial rows.
struct Parts {
    manager: SpillManager,
    files: Vec<Arc<dyn SpillFile>>,
    runs: Definition,
    metrics: Definition,
    /// Windows that start before this, microseconds since the epoch, are left out.
    kept_from: i64,
}

/// Statements that are held until they are worth dividing.
#[derive(Default)]
struct Held {
    rows: Vec<RecordBatch>,
    bytes: usize,
}

// === impl Partials ===

impl Partials {
    /// Divides the statements. Temporary files are those of `runtime`, and are removed when the rows are dropped.
    pub(super) async fn of(lake: &Lake, sources: &Sources, runtime: Arc<RuntimeEnv>) -> Result<Self> {
        let context = sql::session();
        let runs = sql::runs_definition(&context).await?;
        let contributions = [("contributions", sql::contributions_schema())];
        let metrics = Definition::new(&context, &contributions, bellwether_metrics::metrics_sql()).await?;
        let metrics_of_spills = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let manager = SpillManager::new(runtime, metrics_of_spills, sql::events_schema()?);
        let files = divide(lake, sources, &manager).await?;
        let erased = lake.erased_rows(sources.erased).await?;
        let erased = erased.iter().map(|rows| of_metrics(std::slice::from_ref(rows), sources.kept_from));
        let erased = erased.collect::<Result<_>>()?;
        let parts = Parts { manager, files, runs, metrics, kept_from: sources.kept_from };
        Ok(Self { schema: Table::Metrics.arrow_schema(), parts: Arc::new(parts), erased })
    }
}

impl fmt::Debug for Partials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partials").field("parts", &self.parts.files.len()).finish_non_exhaustive()
    }
}

impl PartitionStream for Partials {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let parts = Arc::clone(&self.parts);
        let computed = futures::stream::iter(0..parts.files.len()).then(move |place| {
            let parts = Arc::clone(&parts);
            async move { parts.compute(place).await }
        });
        let rows = computed.chain(futures::stream::iter(self.erased.clone().into_iter().map(Ok)));
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

// === impl Parts ===

impl Parts {
    async fn compute(&self, place: usize) -> Result<RecordBatch> {
        let stored = self.manager.read_spill_as_stream(Arc::clone(&self.files[place]), None).map_err(failed)?;
        let statements = stored.try_collect().await.map_err(failed)?;
        let runs = sql::runs(&self.runs, statements).await?;
        of_metrics(&self.metrics.run([vec![sql::with_sign(&runs, 1)?]]).await?, self.kept_from)
    }
}

/// Returns rows as those of `metrics` from a moment on, without provenance.
fn of_metrics(rows: &[RecordBatch], kept_from: i64) -> Result<RecordBatch> {
    let count = rows.iter().map(RecordBatch::num_rows).sum();
    let provenance: Vec<_> = metrics::PROVENANCE.iter().map(|name| (*name, sql::constant(0, count))).collect();
    since(&sql::rows_of(Table::Metrics, rows, &provenance)?, "window_start", kept_from)
}

/// Returns the number of parts by the size of the sources.
fn parts_of(sources: &Sources) -> u32 {
    let (mut rows, mut bytes) = (0_i64, 0_i64);
    for file in sources.shards.iter().flatten() {
        rows = rows.saturating_add(file.rows.unwrap_or(sources.part_rows));
        bytes = bytes.saturating_add(file.size);
    }
    let parts = (rows / sources.part_rows.max(1)).max(bytes / PART_BYTES).saturating_add(1);
    u32::try_from(parts.min(MOST_PARTS)).unwrap_or(1)
}

// === impl Held ===

impl Held {
    fn push(&mut self, rows: RecordBatch) {
        self.bytes += rows.get_array_memory_size();
        self.rows.push(rows);
    }

    /// Takes the rows, divided by run: the parts that have any, with their rows.
    fn divide(&mut self, schema: &SchemaRef, parts: u32) -> Result<Vec<(usize, RecordBatch)>> {
        let rows = concat_batches(schema, &std::mem::take(self).rows)?;
        let ids = rows.column_by_name("run_id").ok_or_else(|| Error::bug("rows of events lack column `run_id`"))?;
        // Turned, because the runs of one shard have similar bits in front.
        let part = |run_id: Option<&str>| run_id.map(|run_id| shard_of(run_of(run_id).rotate_left(32), parts));
        let places: Vec<Option<u32>> = ids.as_string_view().iter().map(part).collect();
        let mut divided = Vec::new();
        for (place, part) in (0..parts).enumerate() {
            let mask: BooleanArray = places.iter().map(|place| Some(*place == Some(part))).collect();
            if mask.true_count() > 0 {
                divided.push((place, filter_record_batch(&rows, &mask)?));
            }
        }
        Ok(divided)
    }
}

/// Writes the statements of each part to a temporary file.
async fn divide(lake: &Lake, sources: &Sources, manager: &SpillManager) -> Result<Vec<Arc<dyn SpillFile>>> {
    let parts = parts_of(sources);
    let files = (0..parts).map(|_| manager.create_in_progress_file("the statements of some runs"));
    let mut files = files.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    let mut write = |held: &mut Held| {
        for (place, rows) in held.divide(manager.schema(), parts)? {
            files[place].append_batch(&rows).map_err(failed)?;
        }
        Ok::<_, Error>(())
    };
    let of = u32::try_from(sources.shards.len()).unwrap_or(1);
    let (columns, mut held) = (sql::events_columns(), Held::default());
    for (number, read) in (0..of).zip(&sources.shards) {
        for file in read {
            for rows in lake.read_in_pieces(Table::Events, file, Some(&columns)).await? {
                held.push(sql::of_shard(&rows?, Shard { number, of })?);
                if held.bytes >= DIVIDED_BYTES {
                    write(&mut held)?;
                }
            }
        }
    }
    write(&mut held)?;
    let mut written = Vec::with_capacity(files.len());
    for mut file in files {
        written.extend(file.finish().map_err(failed)?);
    }
    Ok(written)
}
