//! `rolling_at(as_of)`: the rolling metrics as of another time.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bellwether_metrics::AsOf;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use super::info::{FunctionInfo, FunctionKind};
use crate::catalog::Catalog;

/// Name of the function in SQL.
const NAME: &str = "rolling_at";

pub(super) fn info() -> FunctionInfo {
    FunctionInfo {
        name: NAME.to_owned(),
        kind: FunctionKind::Table,
        own: true,
        syntax: "rolling_at(as_of)".to_owned(),
        doc: "The rows of view `rolling` as of another time, computed from everything known now; `rolling_history` \
              records what was known then."
            .to_owned(),
        arguments: vec![("as_of".to_owned(), "time at which the spans end, text or timestamp, UTC".to_owned())],
        example: Some("SELECT * FROM rolling_at('2026-01-31 12:00:00')".to_owned()),
    }
}

/// Registers the function over a catalog.
pub(crate) fn register(state: &mut SessionState, catalog: &Arc<Catalog>) {
    state.register_udtf(NAME, Arc::new(RollingAt { catalog: Arc::clone(catalog) }));
}

struct RollingAt {
    catalog: Arc<Catalog>,
}

impl fmt::Debug for RollingAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RollingAt")
    }
}

impl TableFunctionImpl for RollingAt {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(moment, _)] = args.exprs() else {
            return plan_err!("rolling_at takes one time, as in rolling_at('2026-01-31 12:00:00')");
        };
        let micros = moment.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))).ok();
        let Some(ScalarValue::TimestampMicrosecond(Some(micros), _)) = micros else {
            return plan_err!("rolling_at takes a time, not `{moment}`; write it as '2026-01-31 12:00:00'");
        };
        let Some(columns) = self.catalog.rolling_columns() else {
            return plan_err!("rolling_at is not ready yet");
        };
        Ok(Arc::new(RollingTable { catalog: Arc::clone(&self.catalog), columns, micros }))
    }
}

/// The rolling metrics as of one time, planned when they are scanned.
struct RollingTable {
    catalog: Arc<Catalog>,
    columns: SchemaRef,
    micros: i64,
}

impl fmt::Debug for RollingTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RollingTable").field("micros", &self.micros).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for RollingTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let as_of = AsOf::Micros(self.micros);
        let plan = self.catalog.plan(&bellwether_metrics::rolling_sql(as_of, self.catalog.rolled())).await?;
        let mut plan = LogicalPlanBuilder::from(plan);
        if let Some(projection) = projection {
            plan = plan.select(projection.iter().copied())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await
    }
}
