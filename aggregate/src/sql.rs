//! Running the definitions over rows in memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bellwether_lake::{Error, Result, Table};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};

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
    let events = Table::Events.arrow_schema();
    let mut fields: Vec<Arc<Field>> = events.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("sign", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
