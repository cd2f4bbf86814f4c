//! Running the definitions over rows in memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bellwether_lake::{Error, Result, Table};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};

/// Columns of `events` that aggregation takes: those that the definitions use, and those that say which statement counts.
/// Of the others, most of a row, nothing is read.
pub const EVENT_COLUMNS: &[&str] = &[
    "event_type",
    "source",
    "run_id",
    "attempt",
    "revision",
    "event_time",
    "content_hash",
    "ended_at",
    "tenant",
    "task",
    "release_id",
    "release_fingerprint",
    "model",
    "model_responded",
    "stage",
    "weight_micros",
    "session_id",
    "outcome_status",
    "escalated",
    "validation_applicable",
    "validation_valid",
    "validation_first_attempt_valid",
    "fields_total",
    "fields_invalid",
    "policy_exceptions_info",
    "policy_exceptions_low",
    "policy_exceptions_medium",
    "policy_exceptions_high",
    "policy_exceptions_critical",
    "llm_calls",
    "turns",
    "tool_calls_total",
    "tool_calls_failed",
    "retrieval_calls",
    "retrieval_empty",
    "retrieval_errors",
    "tokens_input",
    "tokens_input_cache_read",
    "tokens_input_cache_write",
    "tokens_output",
    "tokens_reasoning",
    "cost_nanos",
    "cost_currency",
    "latency_total_micros",
    "latency_ttft_micros",
];

/// The schema of rows of `events` with [`EVENT_COLUMNS`] only.
pub(crate) fn events_schema() -> SchemaRef {
    let whole = Table::Events.arrow_schema();
    let field = |name: &&str| whole.field_with_name(name).expect("a column of `events`").clone();
    Arc::new(Schema::new(EVENT_COLUMNS.iter().map(field).collect::<Vec<_>>()))
}

/// A session with our functions. One partition: batches of a second are too small to gain by more.
pub(crate) fn session() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    bellwether_metrics::register(&context);
    context
}

/// Runs a definition over one relation in memory.
pub(crate) async fn over(
    context: &SessionContext,
    relation: &str,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    sql: &str,
) -> Result<Vec<RecordBatch>> {
    let wrong = |source: DataFusionError| Error::bug("a metric definition does not run").with_source(source);
    let table = MemTable::try_new(schema, vec![rows]).map_err(wrong)?;
    context.register_table(relation, Arc::new(table)).map_err(wrong)?;
    let answer = async { context.sql(sql).await?.collect().await }.await;
    context.deregister_table(relation).map_err(wrong)?;
    answer.map_err(wrong)
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

/// Rows of `events` with a sign.
pub(crate) fn with_sign(batch: &RecordBatch, sign: i64) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(constant(sign, batch.num_rows()));
    Ok(RecordBatch::try_new(contributions_schema(), columns)?)
}

/// Columns of the relation `contributions`.
pub(crate) fn contributions_schema() -> SchemaRef {
    let events = events_schema();
    let mut fields: Vec<Arc<Field>> = events.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("sign", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
