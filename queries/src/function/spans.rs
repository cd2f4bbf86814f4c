//! The table functions over metrics of chosen times: `rolling_at(as_of)` and `tasks_between(from, to)`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bellwether_metrics::{AsOf, rolling_sql, tasks_between_sql};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;

use super::info::{FunctionInfo, FunctionKind};
use crate::catalog::Catalog;

/// Names of the functions in SQL.
pub(super) const NAMES: [&str; 2] = [ROLLING, TASKS];

const ROLLING: &str = "rolling_at";
const TASKS: &str = "tasks_between";

/// Columns of `rolling` that `tasks_between` does not have: it has one row per task.
const OF_RELEASES: [&str; 4] = ["span", "as_of", "release_id", "stage"];

pub(super) fn infos() -> [FunctionInfo; 2] {
    let table = |name: &str, syntax: &str, doc: &str, arguments: &[(&str, &str)], example: &str| FunctionInfo {
        name: name.to_owned(),
        kind: FunctionKind::Table,
        own: true,
        syntax: syntax.to_owned(),
        doc: doc.to_owned(),
        arguments: arguments.iter().map(|(name, doc)| ((*name).to_owned(), (*doc).to_owned())).collect(),
        example: Some(example.to_owned()),
    };
    [
        table(
            ROLLING,
            "rolling_at(as_of)",
            "The rows of view `rolling` as of another time, computed from everything known now; `rolling_history` \
             records what was known then.",
            &[("as_of", "time at which the spans end, text or timestamp, UTC")],
            "SELECT * FROM rolling_at('2026-01-31 12:00:00')",
        ),
        table(
            TASKS,
            "tasks_between(from, to)",
            "Every metric of each task between two times, canaries and full releases together: one row per tenant and \
             task. A minute belongs to the span if it starts in it.",
            &[
                ("from", "start of the span, text or timestamp, UTC"),
                ("to", "end of the span, which is not part of it, text or timestamp, UTC"),
            ],
            "SELECT task, runs, success_rate, cost_per_completed_task FROM tasks_between('2026-01-05', '2026-01-12')",
        ),
    ]
}

/// Registers the functions over a catalog.
pub(crate) fn register(state: &mut SessionState, catalog: &Arc<Catalog>) {
    for name in NAMES {
        state.register_udtf(name, Arc::new(SpanFunction { name, catalog: Arc::clone(catalog) }));
    }
}

struct SpanFunction {
    name: &'static str,
    catalog: Arc<Catalog>,
}

/// The metrics that a call asks for, with its times in microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    RollingAt(i64),
    TasksBetween(i64, i64),
}

// === impl SpanFunction ===

impl fmt::Debug for SpanFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SpanFunction {
    fn call(&self, arguments: &[Expr]) -> Result<Call> {
        let moment = |argument: &ScalarValue| match argument
            .cast_to(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        {
            Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) => Ok(micros),
            _ => plan_err!("{} takes a time, not `{argument}`; write it as '2026-01-31 12:00:00'", self.name),
        };
        match (self.name, arguments) {
            (ROLLING, [Expr::Literal(as_of, _)]) => Ok(Call::RollingAt(moment(as_of)?)),
            (ROLLING, _) => plan_err!("rolling_at takes one time, as in rolling_at('2026-01-31 12:00:00')"),
            (_, [Expr::Literal(from, _), Expr::Literal(to, _)]) => {
                let (from, to) = (moment(from)?, moment(to)?);
                if from >= to {
                    return plan_err!("tasks_between takes the earlier time first");
                }
                Ok(Call::TasksBetween(from, to))
            }
            _ => plan_err!("tasks_between takes two times, as in tasks_between('2026-01-05', '2026-01-12')"),
        }
    }
}

impl TableFunctionImpl for SpanFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let call = self.call(args.exprs())?;
        let Some(rolling) = self.catalog.rolling_columns() else {
            return plan_err!("{} is not ready yet", self.name);
        };
        let columns = match call {
            Call::RollingAt(_) => rolling,
            Call::TasksBetween(..) => {
                let of_tasks = rolling.fields().iter().filter(|field| !OF_RELEASES.contains(&field.name().as_str()));
                Arc::new(Schema::new(of_tasks.cloned().collect::<Vec<_>>()))
            }
        };
        Ok(Arc::new(SpanTable { catalog: Arc::clone(&self.catalog), columns, call }))
    }
}

/// The metrics of a call, planned when they are scanned.
struct SpanTable {
    catalog: Arc<Catalog>,
    columns: SchemaRef,
    call: Call,
}

impl fmt::Debug for SpanTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanTable").field("call", &self.call).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SpanTable {
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
        let rolled = self.catalog.rolled();
        let sql = match self.call {
            Call::RollingAt(micros) => rolling_sql(AsOf::Micros(micros), rolled),
            Call::TasksBetween(from, to) => tasks_between_sql(from, to, rolled),
        };
        let mut plan = LogicalPlanBuilder::from(self.catalog.plan(&sql).await?);
        if let Some(projection) = projection {
            plan = plan.select(projection.iter().copied())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await
    }
}
