//! Folds rows of a roll-up's source by the one definition, in bounded memory: what does not fit is spilled to disk.

use std::sync::Arc;

use bellwether_base::Result;
use bellwether_lake::{DataFile, Lake, RollUp, RowEncoder};
use bellwether_metrics::Window;
use bellwether_tables::Table;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::rows::failed;
use crate::kept::FILE_BYTES;
use crate::sql;

/// Rows in a batch. A row is some kilobytes, because it has sketches and totals by random group.
const BATCH_ROWS: usize = 2048;

/// Name of the relation in the definitions.
const RELATION: &str = "metrics";

/// Makes a session for folds that has so much memory.
pub(crate) fn session(memory_bytes: usize) -> Result<SessionContext> {
    sql::spilling_session(memory_bytes, BATCH_ROWS)
}

/// Returns the definition of a roll-up.
pub(crate) fn definition(rollup: RollUp) -> String {
    bellwether_metrics::partials_sql(window(rollup))
}

/// Returns the SQL of the whole groups of a roll-up, in the order of their keys, from rows of its table or its source.
pub(crate) fn groups(rollup: RollUp) -> String {
    let sql = bellwether_metrics::windows_sql(window(rollup));
    format!("SELECT * FROM ({sql}) ORDER BY {}", bellwether_metrics::KEY.join(", "))
}

fn window(rollup: RollUp) -> Window {
    match rollup {
        RollUp::Hours => Window::Hour,
        RollUp::Days => Window::Day,
    }
}

/// Runs SQL over rows as relation `metrics`.
pub(crate) async fn run(
    context: &SessionContext,
    rows: Arc<dyn PartitionStream>,
    sql: &str,
) -> Result<SendableRecordBatchStream> {
    // Another fold of the session may be running: its plan holds the rows, not their name.
    let planned = async {
        let table = StreamingTable::try_new(Arc::clone(rows.schema()), vec![rows])?;
        context.deregister_table(RELATION)?;
        context.register_table(RELATION, Arc::new(table))?;
        let plan = context.sql(sql).await?.create_physical_plan().await?;
        datafusion::physical_plan::execute_stream(plan, context.task_ctx())
    };
    planned.await.map_err(failed)
}

/// Writes the answer to a definition as files of a table. No log names them yet. Returns them and the number of rows.
pub(crate) async fn write(
    lake: &Lake,
    table: Table,
    mut answer: SendableRecordBatchStream,
) -> Result<(Vec<DataFile>, usize)> {
    let mut next = async || -> Result<_> {
        let batch = answer.try_next().await.map_err(|source: DataFusionError| failed(source))?;
        batch.map(|batch| sql::rows_of(table, &[batch], &[])).transpose()
    };
    let Some(first) = next().await? else { return Ok((Vec::new(), 0)) };
    let mut rows = first.num_rows();
    let Some(second) = next().await? else {
        // Few rows become a plain file.
        let written = lake.write(table, &first).await?;
        return Ok((written.into_iter().map(|written| written.file).collect(), rows));
    };
    let mut encoder = RowEncoder::new(table);
    encoder.push(&(&first).into())?;
    let (mut batch, mut files) = (Some(second), Vec::new());
    while let Some(more) = batch {
        rows += more.num_rows();
        encoder.push(&(&more).into())?;
        batch = next().await?;
        if batch.is_none() || encoder.bytes() >= FILE_BYTES {
            let encoded = encoder.finish()?;
            files.extend(lake.store(&encoded).await?.into_iter().map(|written| written.file));
        }
    }
    Ok((files, rows))
}
