//! Queries over rows in memory that are planned once and run many times. A second brings some thousands of rows, and planning
//! sixty aggregates costs as much as thousands of rows.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};

/// A relation with rows that change under the plans that read it.
#[derive(Debug)]
pub struct Relation {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

/// A planned query.
pub struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

// === impl Relation ===

impl Relation {
    /// Creates a relation without rows.
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Arc::new(Self { schema, rows: Mutex::default() })
    }

    /// Returns the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Replaces the rows. The new ones must have the schema of the relation.
    pub fn put(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Returns the relation as a table for queries.
    ///
    /// # Errors
    /// Fails if the engine does not accept it.
    pub fn table(self: &Arc<Self>) -> Result<Arc<dyn TableProvider>> {
        let partition = Arc::clone(self) as Arc<dyn PartitionStream>;
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&self.schema), vec![partition])?))
    }
}

impl PartitionStream for Relation {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

// === impl Planned ===

impl Planned {
    /// Creates a planned query from a physical plan and the context that it runs in.
    pub fn new(plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> Self {
        Self { plan, task }
    }

    /// Returns the columns of the result.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Runs the query over the present rows.
    ///
    /// # Errors
    /// Fails if the engine fails.
    pub async fn run(&self) -> Result<Vec<RecordBatch>> {
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        collect(plan, Arc::clone(&self.task)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn a_plan_answers_for_the_rows_that_are_there() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let relation = Relation::new(Arc::clone(&schema));
        let context = SessionContext::new();
        context.register_table("t", relation.table().expect("a table")).expect("registers");
        // The query reads the relation twice, sorts and groups, so that every operator with a state must be reset.
        let sql =
            "SELECT sum(a.n) AS n FROM t AS a JOIN (SELECT n FROM t GROUP BY n ORDER BY n LIMIT 10) AS b ON a.n = b.n";
        let plan = context.sql(sql).await.expect("plans").create_physical_plan().await.expect("plans");
        let planned = Planned::new(plan, context.task_ctx());
        for (rows, sum) in [(vec![1, 2, 3], Some(6)), (vec![], None), (vec![5, 5], Some(10)), (vec![7], Some(7))] {
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(rows)) as _]);
            relation.put(vec![batch.expect("rows")]);
            let answer = planned.run().await.expect("runs");
            let found: Vec<Option<i64>> =
                answer.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter()).collect();
            assert_eq!(found, [sum]);
        }
    }
}
