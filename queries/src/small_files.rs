//! Reads the small files of a table once, for an engine whose tables do not change.
//!
//! While events arrive, each commit leaves a small file, and opening one costs more than its rows. A statement over hundreds of
//! them takes a second of processor time, and the page of an alert needs a dozen statements. So their rows are kept in memory, and
//! the table is these rows and the other files.

use std::sync::Arc;

use bellwether_base::Result;
use bellwether_lake::{AddedFile, Lake};
use bellwether_tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlanBuilder;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};

use crate::explain::explain;
use crate::rows::RowsTable;
use crate::settings::BATCH_ROWS;

/// Size of a file that counts as small, bytes.
const SMALL_BYTES: i64 = 1 << 20;

/// Fewest small files that are worth it.
const LEAST_FILES: usize = 8;

/// Files that are read at the same time.
const AT_ONCE: usize = 8;

/// Name of the table in the plan that combines both parts.
const NAME: &str = "part";

/// Splits the files of a table into those whose rows are kept, up to so many bytes in all, and the others. The first list is empty if
/// it is not worth it.
fn split(mut files: Vec<AddedFile>, most_bytes: u64) -> (Vec<AddedFile>, Vec<String>) {
    files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
    let mut sum = 0_u64;
    let fits = |file: &&AddedFile| {
        sum = sum.saturating_add(u64::try_from(file.size).unwrap_or(u64::MAX));
        file.size < SMALL_BYTES && sum <= most_bytes
    };
    let small = files.iter().take_while(fits).count();
    let small = if small < LEAST_FILES { 0 } else { small };
    let others = files.split_off(small);
    (files, others.into_iter().map(|file| file.path).collect())
}

/// Returns a table with the rows of its small files in memory, up to so many bytes of files. `open` opens the table with some of its
/// files.
///
/// # Errors
/// `Unavailable` if the files cannot be read; `Data` if one is damaged.
pub(crate) async fn kept(
    lake: &Lake,
    table: Table,
    whole: Arc<dyn TableProvider>,
    files: Vec<AddedFile>,
    most_bytes: u64,
    open: impl Fn(Vec<String>) -> BoxFuture<'static, Result<Arc<dyn TableProvider>>>,
) -> Result<Arc<dyn TableProvider>> {
    let known = table.arrow_schema();
    // Our reader knows no columns that other programs have added.
    let is_ours = whole.schema().fields().iter().all(|field| known.field_with_name(field.name()).is_ok());
    let (small, others) = split(files, most_bytes);
    if small.is_empty() || !is_ours {
        return Ok(whole);
    }
    let rows = RowsTable::new(whole.schema());
    rows.put(read(lake, table, small).await?);
    if others.is_empty() {
        return Ok(Arc::new(rows));
    }
    let others = open(others).await?;
    Ok(Arc::new(both(others, Arc::new(rows)).map_err(|source| explain(source, &[]))?))
}

/// Reads the rows of files. A batch for each file would cost every operator more than the rows.
async fn read(lake: &Lake, table: Table, files: Vec<AddedFile>) -> Result<Vec<RecordBatch>> {
    let read = |file: AddedFile| async move { lake.read(table, &file, None).await };
    let batches: Vec<Vec<RecordBatch>> = stream::iter(files).map(read).buffered(AT_ONCE).try_collect().await?;
    let joined = concat_batches(&table.arrow_schema(), batches.iter().flatten());
    let joined = joined.map_err(|source| explain(DataFusionError::from(source), &[]))?;
    let piece = |from: usize| joined.slice(from, BATCH_ROWS.min(joined.num_rows() - from));
    Ok((0..joined.num_rows()).step_by(BATCH_ROWS).map(piece).collect())
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
