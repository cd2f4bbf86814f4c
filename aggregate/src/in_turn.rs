//! Reads the parts of a plan one after the other.
//!
//! The query engine reads the sides of a union at the same time, in tasks of their own. Spans are made of up to three tables:
//! read in turn, one piece of one file is in memory at a time, and all work stays in the task of the caller.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

/// The partitions of a plan in turn, as one.
#[derive(Debug)]
struct InTurn {
    parts: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

/// Returns a plan that reads in turn what it would read at the same time.
pub(crate) fn in_turn(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_up(|node| {
        let Some(together) = node.downcast_ref::<CoalescePartitionsExec>() else { return Ok(Transformed::no(node)) };
        let (parts, properties) = (Arc::clone(together.input()), Arc::clone(together.properties()));
        Ok(Transformed::yes(Arc::new(InTurn { parts, properties }) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(replaced.data)
}

impl DisplayAs for InTurn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InTurn")
    }
}

impl ExecutionPlan for InTurn {
    fn name(&self) -> &str {
        "InTurn"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.parts]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts = children.pop().unwrap_or_else(|| Arc::clone(&self.parts));
        Ok(Arc::new(Self { parts, properties: Arc::clone(&self.properties) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = Arc::clone(&self.parts);
        let count = parts.output_partitioning().partition_count();
        let rows =
            futures::stream::iter(0..count).map(move |part| parts.execute(part, Arc::clone(&context))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    #[tokio::test]
    async fn a_union_is_read_in_turn_with_the_same_answer() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for (name, values) in [("a", "(1), (2)"), ("b", "(3)"), ("c", "(4), (5)")] {
            let sql = format!("CREATE TABLE {name} AS SELECT column1 AS n FROM (VALUES {values})");
            context.sql(&sql).await.expect("plans").collect().await.expect("runs");
        }
        let sql = "SELECT sum(n) AS s FROM (SELECT n FROM a UNION ALL SELECT n FROM b UNION ALL SELECT n FROM c)";
        let plan = context.sql(sql).await.expect("plans").create_physical_plan().await.expect("plans");
        let plan = in_turn(plan).expect("is replaced");
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert!(shown.contains("InTurn") && !shown.contains("CoalescePartitions"), "{shown}");
        let alive = tokio::runtime::Handle::current().metrics();
        let answer = datafusion::physical_plan::collect(plan, context.task_ctx()).await.expect("runs");
        assert_eq!(alive.num_alive_tasks(), 0);
        let text = arrow::util::pretty::pretty_format_batches(&answer).expect("prints").to_string();
        assert!(text.contains("| 15 |"), "{text}");
    }
}
