//! Runs the metric definitions over rows in memory.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bellwether_base::{Error, Result};
use bellwether_metrics::{Planned, Relation};
use bellwether_tables::Table;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::runs::Shard;
use crate::statement::run_of;

/// Memory that a sort keeps for merging what it has spilled, bytes.
const SORT_RESERVATION_BYTES: usize = 1 << 20;

/// Returns the columns of `events` that aggregation reads: those of the definitions, and the responding model, which
/// distinguishes releases. The other columns, which are most of a row, are not read.
pub fn event_columns() -> &'static [&'static str] {
    static COLUMNS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| events_columns().into_iter().chain(["model_responded"]).collect());
    &COLUMNS
}

/// Makes a session with the functions of the metrics crate. It has one partition: a step is too small to gain from more.
pub(crate) fn session() -> SessionContext {
    within(RuntimeEnvBuilder::new().build_arc().unwrap_or_default(), SessionConfig::new())
}

/// Like [`session`], with a limit on the memory of its statements; beyond it, they spill to disk or fail.
///
/// # Errors
/// `Config` if the query engine cannot start.
pub(crate) fn session_within(memory_bytes: usize) -> Result<SessionContext> {
    // Granted first come, first served, as for queries: half of it for each sort and sum would mean to spill sooner.
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(memory_bytes), NonZeroUsize::MIN);
    session_over(Arc::new(pool), SessionConfig::new())
}

/// Like [`session`], for stored rows, which are a few kilobytes wide: with batches of so many rows, and a limit on memory that
/// is divided fairly among the sorts and sums of a statement, so that each can spill.
///
/// # Errors
/// As [`session_within`].
pub(crate) fn spilling_session(memory_bytes: usize, batch_rows: usize) -> Result<SessionContext> {
    let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), NonZeroUsize::MIN);
    session_over(Arc::new(pool), SessionConfig::new().with_batch_size(batch_rows))
}

fn session_over(pool: Arc<dyn MemoryPool>, config: SessionConfig) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc();
    let runtime = runtime.map_err(|source| Error::config("the query engine cannot start").with_source(source))?;
    Ok(within(runtime, config))
}

fn within(runtime: Arc<RuntimeEnv>, config: SessionConfig) -> SessionContext {
    let mut config = config.with_target_partitions(1);
    config.options_mut().execution.sort_spill_reservation_bytes = SORT_RESERVATION_BYTES;
    let context = SessionContext::new_with_config_rt(config, runtime);
    bellwether_metrics::register(&context);
    context
}

/// Plans a definition over one relation in memory, and runs it once.
pub(crate) async fn over(
    context: &SessionContext,
    relation: &str,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    sql: &str,
) -> Result<Vec<RecordBatch>> {
    Definition::new(context, &[(relation, schema)], sql).await?.run([rows]).await
}

/// A definition over relations in memory, planned once and run many times.
pub(crate) struct Definition {
    relations: Vec<Arc<Relation>>,
    planned: Planned,
}

impl Definition {
    pub(crate) async fn new(context: &SessionContext, relations: &[(&str, SchemaRef)], sql: &str) -> Result<Self> {
        let wrong = |source: DataFusionError| Error::bug("a metric definition cannot be planned").with_source(source);
        let mut registered = Vec::with_capacity(relations.len());
        for (name, schema) in relations {
            let relation = Relation::new(Arc::clone(schema));
            context.register_table(*name, relation.table().map_err(wrong)?).map_err(wrong)?;
            registered.push(relation);
        }
        let plan = async { context.sql(sql).await?.create_physical_plan().await }.await;
        for (name, _) in relations {
            context.deregister_table(*name).map_err(wrong)?;
        }
        Ok(Self { relations: registered, planned: Planned::new(plan.map_err(wrong)?, context.task_ctx()) })
    }

    /// Runs it over the rows of each relation, in the order of [`Definition::new`].
    pub(crate) async fn run(&self, rows: impl IntoIterator<Item = Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        for (relation, rows) in self.relations.iter().zip(rows) {
            relation.put(rows);
        }
        let answer = self.planned.run().await;
        for relation in &self.relations {
            relation.put(Vec::new());
        }
        answer.map_err(|source| {
            if matches!(source.find_root(), DataFusionError::ResourcesExhausted(_)) {
                return Error::unavailable("a step of aggregation needs more memory than it may use")
                    .with_hint("raise `memory.budget_bytes`, or `aggregate.memory_bytes` alone")
                    .with_source(source);
            }
            Error::bug("a metric definition failed").with_source(source)
        })
    }
}

/// Returns rows with the columns and types of a table. Columns that the definition does not return come from `more`.
pub(crate) fn rows_of(table: Table, answer: &[RecordBatch], more: &[(&str, ArrayRef)]) -> Result<RecordBatch> {
    let schema = table.arrow_schema();
    let Some(first) = answer.first() else { return Ok(RecordBatch::new_empty(schema)) };
    let whole = concat_batches(&first.schema(), answer)?;
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let given = more.iter().find(|(name, _)| name == field.name()).map(|(_, column)| column);
            let column = given.or_else(|| whole.column_by_name(field.name())).ok_or_else(|| {
                Error::bug(format!("the definition returns no column `{}` of table `{}`", field.name(), table.name()))
            })?;
            Ok(cast(column, field.data_type())?)
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Returns a column with one number in every row.
pub(crate) fn constant(value: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_value(value, rows))
}

/// Returns the columns of `events` that the definitions read.
pub(crate) fn events_columns() -> Vec<&'static str> {
    bellwether_metrics::CONTRIBUTION_COLUMNS.iter().chain(bellwether_metrics::STATEMENT_COLUMNS).copied().collect()
}

/// Returns the schema of the relation `events` in the definitions.
pub(crate) fn events_schema() -> Result<SchemaRef> {
    schema_of(&events_columns())
}

fn schema_of(columns: &[&str]) -> Result<SchemaRef> {
    let whole = Table::Events.arrow_schema();
    let fields = columns.iter().map(|name| whole.field_with_name(name).cloned());
    Ok(Arc::new(Schema::new(fields.collect::<std::result::Result<Vec<Field>, _>>()?)))
}

/// Returns some columns of a batch, in this order.
pub(crate) fn columns_of(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let schema = batch.schema();
    let places = columns.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(batch.project(&places)?)
}

/// Returns the rows about runs of a shard.
pub(crate) fn of_shard(batch: &RecordBatch, shard: Shard) -> Result<RecordBatch> {
    let column = batch.column_by_name("run_id").ok_or_else(|| Error::bug("rows of events lack column `run_id`"))?;
    let ids = column.as_string_view().iter();
    let mask: BooleanArray = ids.map(|run_id| Some(run_id.is_some_and(|run_id| shard.has(run_of(run_id))))).collect();
    Ok(filter_record_batch(batch, &mask)?)
}

/// Plans the definition of runs.
pub(crate) async fn runs_definition(context: &SessionContext) -> Result<Definition> {
    let schema = runs_schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let definition = bellwether_metrics::runs_sql(&names.join(", "));
    Definition::new(context, &[("events", events_schema()?)], &definition).await
}

/// Computes runs from all statements about them.
pub(crate) async fn runs(definition: &Definition, statements: Vec<RecordBatch>) -> Result<RecordBatch> {
    let schema = runs_schema();
    if statements.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let answer = definition.run([statements]).await?;
    let Some(first) = answer.first() else { return Ok(RecordBatch::new_empty(schema)) };
    let whole = concat_batches(&first.schema(), &answer)?;
    let columns = schema.fields().iter().zip(whole.columns());
    let columns = columns.map(|(field, column)| Ok(cast(column, field.data_type())?)).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Returns completed runs that have no other statements: the definition would return their rows unchanged.
pub(crate) fn runs_as_they_stand(rows: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = columns_of(rows, bellwether_metrics::CONTRIBUTION_COLUMNS)?.columns().to_vec();
    columns.push(new_null_array(&DataType::Int64, rows.num_rows()));
    Ok(RecordBatch::try_new(runs_schema(), columns)?)
}

/// Returns runs with a sign, as rows of the relation `contributions`.
pub(crate) fn with_sign(runs: &RecordBatch, sign: i64) -> Result<RecordBatch> {
    let mut columns = runs.columns().to_vec();
    columns.push(constant(sign, runs.num_rows()));
    Ok(RecordBatch::try_new(contributions_schema(), columns)?)
}

/// Returns the schema of runs, with the columns that the metrics read.
fn runs_schema() -> SchemaRef {
    let events = Table::Events.arrow_schema();
    let mut fields: Vec<Arc<Field>> = bellwether_metrics::CONTRIBUTION_COLUMNS
        .iter()
        .filter_map(|name| events.field_with_name(name).ok())
        .map(|field| Arc::new(field.clone().with_nullable(true)))
        .collect();
    fields.push(Arc::new(Field::new("label_delay_micros", DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

/// Returns the schema of the relation `contributions`.
pub(crate) fn contributions_schema() -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = runs_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("sign", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
