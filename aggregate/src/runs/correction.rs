//! Corrections: subtracts the contributions of runs by their earlier statements, and adds those by all present statements.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::row::{RowConverter, SortField};
use bellwether_base::Result;

use super::{Counts, take_rows};
use crate::sql;
use crate::statement::{StatementKind, Statements};
use crate::sums::Sums;
use crate::waiting::waiting;

/// Adds the difference between the contributions of some runs by their statements before and now.
pub(super) async fn correct(
    definition: &sql::Definition,
    before: Vec<RecordBatch>,
    now: Vec<RecordBatch>,
    sums: &mut Sums<'_>,
    counts: &mut Counts,
) -> Result<()> {
    let (waited_before, wait_now) = (waiting(&before)?, waiting(&now)?);
    counts.waited += waited_before.difference(&wait_now).count() as u64;
    counts.waiting += wait_now.difference(&waited_before).count() as u64;
    let old = runs_before(definition, before).await?;
    let new = sql::runs(definition, now).await?;
    counts.runs += (new.num_rows() - old.num_rows().min(new.num_rows())) as u64;
    let (old, new) = without_common_rows(&old, &new)?;
    counts.corrected += old.num_rows() as u64;
    sums.add(sql::with_sign(&old, -1)?).await?;
    sums.add(sql::with_sign(&new, 1)?).await
}

/// Returns the runs by their earlier statements. Most have only the statement that they are completed, and its row is the run.
async fn runs_before(definition: &sql::Definition, before: Vec<RecordBatch>) -> Result<RecordBatch> {
    let mut statements_of: HashMap<u64, u32> = HashMap::new();
    for batch in &before {
        let statements = Statements::of(batch)?;
        for n in 0..statements.rows() {
            *statements_of.entry(statements.run(n)).or_default() += 1;
        }
    }
    let (mut alone, mut others) = (Vec::new(), Vec::new());
    for batch in &before {
        let statements = Statements::of(batch)?;
        let is_alone = |n: usize| {
            statements_of.get(&statements.run(n)) == Some(&1) && statements.kind(n) == StatementKind::Completed
        };
        let (one, other): (Vec<u32>, Vec<u32>) =
            (0_u32..).take(statements.rows()).partition(|n| usize::try_from(*n).is_ok_and(is_alone));
        alone.push(sql::runs_as_they_stand(&take_rows(batch, one)?)?);
        if !other.is_empty() {
            others.push(take_rows(batch, other)?);
        }
    }
    alone.push(sql::runs(definition, others).await?);
    let schema = alone[0].schema();
    Ok(concat_batches(&schema, &alone)?)
}

/// Returns the rows of each batch that the other lacks: rows in both would be subtracted and added again.
pub(crate) fn without_common_rows(old: &RecordBatch, new: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
    let fields = new.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let (old_rows, new_rows) = (converter.convert_columns(old.columns())?, converter.convert_columns(new.columns())?);
    let mut left: HashMap<&[u8], Vec<u32>> = HashMap::new();
    for (n, row) in (0_u32..).zip(old_rows.iter()) {
        left.entry(row.data()).or_default().push(n);
    }
    let mut added = Vec::new();
    for (n, row) in (0_u32..).zip(new_rows.iter()) {
        match left.get_mut(row.data()).and_then(Vec::pop) {
            Some(_) => {}
            None => added.push(n),
        }
    }
    let mut taken: Vec<u32> = left.into_values().flatten().collect();
    taken.sort_unstable();
    Ok((take_rows(old, taken)?, take_rows(new, added)?))
}
