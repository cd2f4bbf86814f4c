//! The rows that `metrics` would lose by an erasure, so that they can be kept without the runs.
//!
//! It is the difference of two answers of the one definition: the runs of the affected ids by all statements, and by those that stay.
//! The second is rarely empty only because sources may share ids, and then a statement may be about several runs: whatever rule
//! chooses the erased rows, the sum of both parts is exact.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, Fold, Lake};
use bellwether_tables::Table;

use super::subject::{COLUMNS, Found};
use crate::fold::PartialsFold;
use crate::runs::without_common_rows;
use crate::sql;

/// Run ids of which the statements are read at a time.
const IDS_AT_ONCE: usize = 20_000;

/// Computes the rows of `metrics` that an erasure takes with it.
pub(super) async fn lost(lake: &Lake, files: &[AddedFile], found: &Found) -> Result<Vec<RecordBatch>> {
    let context = sql::session();
    let definition = sql::runs_definition(&context).await?;
    let events = sql::events_columns();
    let mut columns = events.clone();
    columns.extend(COLUMNS.into_iter().filter(|name| !events.contains(name)));
    let ids: Vec<&str> = found.counted_ids().collect();
    let mut partials = Vec::new();
    for some in ids.chunks(IDS_AT_ONCE) {
        let some: Arc<HashSet<String>> = Arc::new(some.iter().map(|id| (*id).to_owned()).collect());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for file in files {
            let Some(rows) = lake.find_rows(Table::Events, file, &columns, "run_id", &some).await? else { continue };
            let stay = filter_record_batch(&rows, &not(&found.mask(&rows)?)?)?;
            before.push(sql::columns_of(&rows, &events)?);
            after.push(sql::columns_of(&stay, &events)?);
        }
        let (before, after) = (sql::runs(&definition, before).await?, sql::runs(&definition, after).await?);
        let (gone, new) = without_common_rows(&before, &after)?;
        let rows = vec![sql::with_sign(&gone, 1)?, sql::with_sign(&new, -1)?];
        let (schema, text) = (sql::contributions_schema(), bellwether_metrics::metrics_sql());
        let answer = sql::over(&context, "contributions", schema, rows, text).await?;
        let count = answer.iter().map(RecordBatch::num_rows).sum();
        let provenance = [("events_from", sql::constant(0, count)), ("events_to", sql::constant(0, count))];
        partials.push(sql::rows_of(Table::Metrics, &answer, &provenance)?);
    }
    Ok(partials)
}

/// Folds earlier contributions and further ones, without those of an erased tenant.
pub(super) async fn with(
    mut before: Vec<RecordBatch>,
    lost: Vec<RecordBatch>,
    tenant: Option<&str>,
) -> Result<Vec<RecordBatch>> {
    before.extend(lost);
    before.retain(|rows| rows.num_rows() > 0);
    if let Some(tenant) = tenant {
        for rows in &mut before {
            *rows = filter_record_batch(rows, &not(&of_tenant(rows, tenant)?)?)?;
        }
    }
    if before.iter().all(|rows| rows.num_rows() == 0) {
        return Ok(Vec::new());
    }
    PartialsFold.fold(Table::Metrics, before).await
}

/// Returns true if some contribution is of a tenant.
pub(super) fn name(rows: &[RecordBatch], tenant: &str) -> bool {
    rows.iter().any(|rows| of_tenant(rows, tenant).is_ok_and(|mask| mask.true_count() > 0))
}

/// Returns which rows are of a tenant.
pub(super) fn of_tenant(rows: &RecordBatch, tenant: &str) -> Result<BooleanArray> {
    let column = rows.column_by_name("tenant").and_then(|column| column.as_string_view_opt());
    let column = column.ok_or_else(|| Error::bug("rows lack column `tenant`"))?;
    Ok(column.iter().map(|value| Some(value == Some(tenant))).collect())
}
