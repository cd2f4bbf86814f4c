//! Computes rows of `metrics` from contributions, by the definition in the metrics crate.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bellwether_base::Result;
use bellwether_tables::Table;
use datafusion::prelude::SessionContext;

use crate::sql;

/// The planned definitions of runs and of metrics.
pub(crate) struct Definitions {
    pub(crate) runs: sql::Definition,
    pub(crate) metrics: sql::Definition,
}

/// Sums contributions from some versions of `events`, part by part, so that memory does not grow with their number.
pub(crate) struct Sums<'a> {
    definition: &'a sql::Definition,
    at_once: usize,
    versions: Range<i64>,
    /// Rows of the relation `contributions` that are not summed yet.
    rows: Vec<RecordBatch>,
    partials: Vec<RecordBatch>,
}

// === impl Definitions ===

impl Definitions {
    pub(crate) async fn plan(context: &SessionContext) -> Result<Self> {
        let relation = ("contributions", sql::contributions_schema());
        let metrics = sql::Definition::new(context, &[relation], bellwether_metrics::metrics_sql()).await?;
        Ok(Self { runs: sql::runs_definition(context).await?, metrics })
    }
}

// === impl Sums ===

impl<'a> Sums<'a> {
    /// Sums as soon as there are `at_once` contributions.
    pub(crate) fn new(definition: &'a sql::Definition, at_once: usize, versions: Range<i64>) -> Self {
        Self { definition, at_once, versions, rows: Vec::new(), partials: Vec::new() }
    }

    pub(crate) async fn add(&mut self, contributions: RecordBatch) -> Result<()> {
        if contributions.num_rows() > 0 {
            self.rows.push(contributions);
        }
        if self.rows.iter().map(RecordBatch::num_rows).sum::<usize>() >= self.at_once {
            self.sum().await?;
        }
        Ok(())
    }

    async fn sum(&mut self) -> Result<()> {
        let answer = self.definition.run([std::mem::take(&mut self.rows)]).await?;
        let rows = answer.iter().map(RecordBatch::num_rows).sum();
        let provenance = [
            ("events_from", sql::constant(self.versions.start, rows)),
            ("events_to", sql::constant(self.versions.end, rows)),
        ];
        self.partials.push(sql::rows_of(Table::Metrics, &answer, &provenance)?);
        Ok(())
    }

    /// Returns the rows of `metrics`.
    pub(crate) async fn finish(mut self) -> Result<RecordBatch> {
        if !self.rows.is_empty() {
            self.sum().await?;
        }
        Ok(concat_batches(&Table::Metrics.arrow_schema(), &self.partials)?)
    }
}
