//! Tables as the session of one tenant sees them: a security boundary.
//!
//! Only rows that name the tenant exist for the session. Rows without a tenant, null or empty, belong to no tenant, and a
//! table without a column for it is empty.
//!
//! The boundary is below the statement: the engine plans a statement over [`TenantTable`], which scans its table in a plan of
//! its own and returns only the tenant's rows. No expression of a statement is computed on a row of another tenant, so no
//! error, such as that of a failed cast, reports its values. Of the statement's conditions, only comparisons of a column with
//! a constant are pushed down: they skip files and cannot fail. [`TenantRows`] hides its plan, its statistics and the number of
//! rows that it skipped, so EXPLAIN does not show them either. The duration of a statement still depends on all rows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::prelude::ident;

/// The column that names the tenant of a row.
const TENANT: &str = "tenant";

/// Operators that compare any two values of one type.
const COMPARISONS: [Operator; 6] =
    [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq];

/// Returns a table as one tenant's session sees it.
pub(crate) fn rows_of(tenant: &Arc<str>, name: &str, table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
    let schema = table.schema();
    if schema.field_with_name(TENANT).is_err() {
        return Arc::new(EmptyTable::new(schema));
    }
    Arc::new(TenantTable { tenant: Arc::clone(tenant), name: name.to_owned(), table })
}

/// The rows of a table that name one tenant.
#[derive(Debug)]
struct TenantTable {
    tenant: Arc<str>,
    name: String,
    table: Arc<dyn TableProvider>,
}

#[async_trait]
impl TableProvider for TenantTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let handed_down = filters.iter().map(|filter| match cannot_fail(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        });
        Ok(handed_down.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = provider_as_source(Arc::clone(&self.table));
        let mut plan = LogicalPlanBuilder::scan(self.name.as_str(), source, None)?
            .filter(ident(TENANT).eq(lit(self.tenant.as_ref())))?;
        for filter in filters.iter().filter(|filter| cannot_fail(filter)) {
            plan = plan.filter(filter.clone())?;
        }
        if let Some(projection) = projection {
            plan = plan.select(projection.iter().copied())?;
        }
        let plan = plan.limit(0, limit)?.build()?;
        let rows = state.create_physical_plan(&plan).await?;
        Ok(Arc::new(TenantRows { name: self.name.clone(), rows }))
    }
}

/// Returns true for a condition that compares columns with constants: computing it on any row reports nothing.
fn cannot_fail(filter: &Expr) -> bool {
    let column = |expr: &Expr| matches!(expr, Expr::Column(_));
    let constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            cannot_fail(left) && cannot_fail(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            COMPARISONS.contains(op) && (column(left) && constant(right) || constant(left) && column(right))
        }
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => column(expr),
        Expr::Between(Between { expr, low, high, .. }) => column(expr) && constant(low) && constant(high),
        Expr::InList(InList { expr, list, .. }) => column(expr) && list.iter().all(constant),
        _ => false,
    }
}

/// The scan of a tenant's rows. It hides its plan from the plan that reads them.
#[derive(Debug)]
struct TenantRows {
    name: String,
    rows: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for TenantRows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantRows: table={}", self.name)
    }
}

impl ExecutionPlan for TenantRows {
    fn name(&self) -> &str {
        "TenantRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { name: self.name.clone(), rows: reset_plan_states(Arc::clone(&self.rows))? }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}
