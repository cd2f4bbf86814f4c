//! Reads the small files of a table once, for an engine whose tables do not change.
//!
//! While events arrive, each commit leaves a small file, and opening one costs more than its rows. A statement over hundreds of
//! them takes a second of processor time, and the page of an alert needs a dozen statements. So their rows are kept in memory, and
//! the table is these rows and the other files.

use std::sync::Arc;

use bellwether_base::Result;
use bellwether_lake::AddedFile;
use datafusion::arrow::compute::concat_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::collect;
use futures::future::BoxFuture;

use crate::explain::explain;
use crate::rows::RowsTable;

/// Size of a file that counts as small, bytes.
const SMALL_BYTES: i64 = 1 << 20;

/// Fewest small files that are worth it.
const LEAST_FILES: usize = 8;

/// Name of the table in the plan that combines both parts.
const NAME: &str = "part";

/// Splits the files of a table into those whose rows are kept, up to so many bytes in all, and the others. The first list is empty if
/// it is not worth it.
fn split(mut files: Vec<AddedFile>, most_bytes: u64) -> (Vec<String>, Vec<String>) {
    files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
    let mut sum = 0_u64;
    let fits = |file: &&AddedFile| {
        sum = sum.saturating_add(u64::try_from(file.size).unwrap_or(u64::MAX));
        file.size < SMALL_BYTES && sum <= most_bytes
    };
    let small = files.iter().take_while(fits).count();
    let small = if small < LEAST_FILES { 0 } else { small };
    let others = files.split_off(small);
    let paths = |files: Vec<AddedFile>| files.into_iter().map(|file| file.path).collect();
    (paths(files), paths(others))
}

/// Returns a table with the rows of its small files in memory, up to so many bytes of files. `open` opens the table, or some of its
/// files.
///
/// # Errors
/// `Unavailable` if the files cannot be read.
pub(crate) async fn provider(
    state: &SessionState,
    files: Vec<AddedFile>,
    most_bytes: u64,
    open: impl Fn(Option<Vec<String>>) -> BoxFuture<'static, Result<Arc<dyn TableProvider>>>,
) -> Result<Arc<dyn TableProvider>> {
    let (small, others) = split(files, most_bytes);
    if small.is_empty() {
        return open(None).await;
    }
    let small = open(Some(small)).await?;
    let rows = read(state, &*small).await.map_err(|source| explain(source, &[]))?;
    if others.is_empty() {
        return Ok(Arc::new(rows));
    }
    let others = open(Some(others)).await?;
    let both = both(others, Arc::new(rows)).map_err(|source| explain(source, &[]))?;
    Ok(Arc::new(both))
}

/// Reads all rows of a table into memory.
async fn read(state: &SessionState, table: &dyn TableProvider) -> std::result::Result<RowsTable, DataFusionError> {
    let plan = table.scan(state, None, &[], None).await?;
    let schema = plan.schema();
    let batches = collect(plan, state.task_ctx()).await?;
    // One batch for each file would cost every operator more than the rows.
    let whole = concat_batches(&schema, &batches)?;
    let most = state.config().batch_size().max(1);
    let pieces = (0..whole.num_rows()).step_by(most).map(|from| whole.slice(from, most.min(whole.num_rows() - from)));
    let rows = RowsTable::new(table.schema());
    rows.put(pieces.collect());
    Ok(rows)
}

fn both(
    others: Arc<dyn TableProvider>,
    rows: Arc<dyn TableProvider>,
) -> std::result::Result<ViewTable, DataFusionError> {
    let scan = |table| LogicalPlanBuilder::scan(NAME, provider_as_source(table), None);
    let plan = scan(others)?.union(scan(rows)?.build()?)?.build()?;
    Ok(ViewTable::new(plan, None))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(name: &str, size: i64) -> AddedFile {
        let path = name.to_owned();
        AddedFile { path, size, rows: Some(1), partition_values: BTreeMap::new(), data_change: true, stats: None }
    }

    #[test]
    fn the_smallest_files_are_kept_within_the_bound_if_there_are_enough() {
        let files = |count: usize, size: i64| (0..count).map(move |n| file(&format!("f{n:02}"), size));
        let (small, others) = split(files(10, 100).chain([file("large", SMALL_BYTES)]).collect(), u64::MAX);
        assert_eq!((small.len(), others), (10, vec!["large".to_owned()]));
        let (small, others) = split(files(20, 100).collect(), 1_250);
        assert_eq!((small.len(), others.len()), (12, 8), "twelve fit");
        let (small, others) = split(files(LEAST_FILES - 1, 100).collect(), u64::MAX);
        assert_eq!((small.len(), others.len()), (0, LEAST_FILES - 1), "too few");
        assert_eq!(split(files(20, 100).collect(), 0).0.len(), 0, "none wanted");
    }
}
