//! Compares a roll-up with its source, for audits: both are folded by the windows of the roll-up and must be equal bit for bit.
//!
//! Both sides are read piece by piece, folded and sorted in bounded memory, and compared as they come out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bellwether_base::Result;
use bellwether_lake::{AddedFile, Lake, RollUp};
use bellwether_metrics::KEY;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::fold;
use super::rows::{Rows, Wanted, failed};
use crate::kept::whole_windows_from;
use crate::recompute::{first_difference, group, saturated};

/// Memory for folding and sorting both sides; what does not fit is spilled to disk.
const MEMORY_BYTES: usize = 256 << 20;

/// A roll-up and its source, each as of one version. The source is the later one.
#[derive(Clone, Debug)]
pub struct Sides {
    /// The roll-up.
    pub rollup: RollUp,
    /// Its files.
    pub files: Vec<AddedFile>,
    /// The files of its source.
    pub source: Vec<AddedFile>,
    /// The number up to which the roll-up holds the rows of its source.
    pub rolled_to: i64,
    /// The time from which on both hold everything, microseconds since the epoch.
    pub kept_from: i64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Windows and groups of the roll-up that were compared.
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

/// Compares the windows that a roll-up and its source still hold whole.
///
/// # Errors
/// `Unavailable` if storage does not answer, or there is not enough memory; `Data` if a file is gone or unreadable.
pub async fn compare(lake: &Lake, sides: Sides) -> Result<Compared> {
    let Sides { rollup, files, source, rolled_to, kept_from } = sides;
    let since = whole_windows_from(kept_from, rollup.window_micros());
    let rows = |table, files, to| {
        let wanted = Wanted { since, ..Wanted::between(i64::MIN, to) };
        Rows::new(lake, table, files, wanted, Arc::new(|_| {}))
    };
    let context = fold::session(MEMORY_BYTES)?;
    let mut table = Side::of(&context, rollup, rows(rollup.table(), files, i64::MAX)).await?;
    let mut computed = Side::of(&context, rollup, rows(rollup.source(), source, rolled_to)).await?;
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
    async fn of(context: &SessionContext, rollup: RollUp, rows: Rows) -> Result<Self> {
        let answer = fold::run(context, rows, &fold::groups(rollup)).await?;
        Ok(Self { rows: RecordBatch::new_empty(answer.schema()), answer })
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
