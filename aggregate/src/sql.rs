//! Running the definitions over rows in memory.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bellwether_lake::{Error, Result, Table};
use bellwether_metrics::{Planned, Relation};
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::contribution::Shard;
use crate::statement::run_of;

/// Columns of `events` that aggregation takes: those that the definitions read, and the model that answered, by which a
/// release is told apart. Of the others, most of a row, nothing is read.
pub fn event_columns() -> &'static [&'static str] {
    static COLUMNS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| events_columns().into_iter().chain(["model_responded"]).collect());
    &COLUMNS
}

/// A session with our functions. One partition: batches of a second are too small to gain by more.
pub(crate) fn session() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    bellwether_metrics::register(&context);
    context
}

/// Runs a definition over one relation in memory, once.
pub(crate) async fn over(
    context: &SessionContext,
    relation: &str,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    sql: &str,
) -> Result<Vec<RecordBatch>> {
    Definition::new(context, &[(relation, schema)], sql).await?.run([rows]).await
}

/// A definition over relations in memory, planned once.
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

    /// Runs it over the rows of each relation, in the order in which they were named.
    pub(crate) async fn run(&self, rows: impl IntoIterator<Item = Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        for (relation, rows) in self.relations.iter().zip(rows) {
            relation.put(rows);
        }
        let answer = self.planned.run().await;
        for relation in &self.relations {
            relation.put(Vec::new());
        }
        answer.map_err(|source| Error::bug("a metric definition does not run").with_source(source))
    }
}

/// Rows with the columns and types of a table; columns that a definition does not give come from `more`.
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
                Error::bug(format!("the definition gives no column `{}` of table `{}`", field.name(), table.name()))
            })?;
            Ok(cast(column, field.data_type())?)
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// A column that holds one number.
pub(crate) fn constant(value: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_value(value, rows))
}

/// Columns of `events` that the definitions read.
pub(crate) fn events_columns() -> Vec<&'static str> {
    bellwether_metrics::CONTRIBUTION_COLUMNS.iter().chain(bellwether_metrics::STATEMENT_COLUMNS).copied().collect()
}

/// The relation `events`, as far as the definitions read it.
fn events_schema() -> Result<SchemaRef> {
    schema_of(&events_columns())
}

fn schema_of(columns: &[&str]) -> Result<SchemaRef> {
    let whole = Table::Events.arrow_schema();
    let fields = columns.iter().map(|name| whole.field_with_name(name).cloned());
    Ok(Arc::new(Schema::new(fields.collect::<std::result::Result<Vec<Field>, _>>()?)))
}

/// Some columns of a batch, in this order.
pub(crate) fn columns_of(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let schema = batch.schema();
    let places = columns.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(batch.project(&places)?)
}

/// The rows about runs of a shard.
pub(crate) fn of_shard(batch: &RecordBatch, shard: Shard) -> Result<RecordBatch> {
    let column = batch.column_by_name("run_id").ok_or_else(|| Error::bug("rows of events lack column `run_id`"))?;
    let ids = column.as_string_view().iter();
    let mask: BooleanArray = ids.map(|run_id| Some(run_id.is_some_and(|run_id| shard.has(run_of(run_id))))).collect();
    Ok(filter_record_batch(batch, &mask)?)
}

/// The definition of runs as they count, planned.
pub(crate) async fn runs_definition(context: &SessionContext) -> Result<Definition> {
    let schema = runs_schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let definition = bellwether_metrics::runs_sql(&names.join(", "));
    Definition::new(context, &[("events", events_schema()?)], &definition).await
}

/// Runs as they count, from all that is said of them.
pub(crate) async fn runs(definition: &Definition, said: Vec<RecordBatch>) -> Result<RecordBatch> {
    let schema = runs_schema();
    if said.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let answer = definition.run([said]).await?;
    let Some(first) = answer.first() else { return Ok(RecordBatch::new_empty(schema)) };
    let whole = concat_batches(&first.schema(), &answer)?;
    let columns = schema.fields().iter().zip(whole.columns());
    let columns = columns.map(|(field, column)| Ok(cast(column, field.data_type())?)).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Completed runs that nothing more is said about: what the definition makes of them, without asking it.
pub(crate) fn runs_as_they_stand(rows: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = columns_of(rows, bellwether_metrics::CONTRIBUTION_COLUMNS)?.columns().to_vec();
    columns.push(new_null_array(&DataType::Int64, rows.num_rows()));
    Ok(RecordBatch::try_new(runs_schema(), columns)?)
}

/// Runs with a sign.
pub(crate) fn with_sign(runs: &RecordBatch, sign: i64) -> Result<RecordBatch> {
    let mut columns = runs.columns().to_vec();
    columns.push(constant(sign, runs.num_rows()));
    Ok(RecordBatch::try_new(contributions_schema(), columns)?)
}

/// Columns of runs, as far as the metrics read them.
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

/// Columns of the relation `contributions`.
pub(crate) fn contributions_schema() -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = runs_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("sign", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
