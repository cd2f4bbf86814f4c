//! Compares a stored table of metrics with a computation, for audits: both come folded and in the order of their groups, piece by
//! piece, and must be equal bit for bit.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bellwether_base::Result;
use bellwether_metrics::KEY;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use crate::recompute::{first_difference, group, saturated};
use crate::rollup::rows::failed;

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Windows and groups that were compared.
    pub groups: usize,
    /// Those with a saturated sum, which is not compared.
    pub saturated: usize,
    /// The first difference; none if both are equal.
    pub difference: Option<String>,
}

/// One side, folded and in the order of its groups.
struct Side {
    answer: SendableRecordBatchStream,
    rows: RecordBatch,
}

/// Compares two folded tables up to the first difference.
pub(crate) async fn compare(table: SendableRecordBatchStream, computed: SendableRecordBatchStream) -> Result<Compared> {
    let (mut table, mut computed) = (Side::of(table), Side::of(computed));
    let mut compared = Compared::default();
    while compared.difference.is_none() {
        table.fill().await?;
        computed.fill().await?;
        let (found, wanted) = (&table.rows, &computed.rows);
        let both = found.num_rows().min(wanted.num_rows());
        if both == 0 {
            let more = |what: &str, rows: &RecordBatch| {
                (rows.num_rows() > 0).then(|| format!("only {what} has a group at {}", group(rows, 0)))
            };
            compared.difference = more("the table", found).or_else(|| more("the computation", wanted));
            break;
        }
        let (found, wanted) = (found.slice(0, both), wanted.slice(0, both));
        compared.groups += both;
        compared.saturated += saturated(&found);
        compared.difference = other_group(&found, &wanted).or_else(|| first_difference(&found, &wanted));
        table.drop_first(both);
        computed.drop_first(both);
    }
    Ok(compared)
}

// === impl Side ===

impl Side {
    fn of(answer: SendableRecordBatchStream) -> Self {
        Self { rows: RecordBatch::new_empty(answer.schema()), answer }
    }

    /// Reads on if no rows are left.
    async fn fill(&mut self) -> Result<()> {
        while self.rows.num_rows() == 0 {
            let Some(more) = self.answer.try_next().await.map_err(failed)? else { break };
            self.rows = concat_batches(&more.schema(), [&more])?;
        }
        Ok(())
    }

    fn drop_first(&mut self, rows: usize) {
        self.rows = self.rows.slice(rows, self.rows.num_rows() - rows);
    }
}

/// Describes the first row at which both sides have different groups.
fn other_group(table: &RecordBatch, computed: &RecordBatch) -> Option<String> {
    let differs = |name: &&str| table.column_by_name(name) != computed.column_by_name(name);
    if !KEY.iter().any(differs) {
        return None;
    }
    let row = (0..table.num_rows()).find(|row| group(table, *row) != group(computed, *row))?;
    let (found, wanted) = (group(table, row), group(computed, row));
    Some(format!("the next group of the table is at {found}, and that of the computation at {wanted}"))
}
