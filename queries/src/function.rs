//! Functions of a session: those of the metrics room, of detection, `rolling_at`, and the engine's own, with their
//! documentation.
//!
//! * `arguments` holds types, documentation and values of the arguments of detection; `scalar`, `aggregate`, `window` and
//!   `table` give each kind of function one shape, `identity` what those have in common.
//! * `bounded` holds functions of the engine within a session's memory, `json` adds those of JSON texts.
//! * `evidence` and `measure` are the scalar functions themselves; `attribution` explains changes.

mod aggregate;
mod arguments;
mod attribution;
mod bounded;
mod evidence;
mod identity;
mod json;
mod map_key;
mod measure;
mod scalar;
mod table;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::{Session as EngineSession, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{Documentation, Expr, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use crate::catalog::LakeSchema;

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// One value from the values of one row.
    Scalar,
    /// One value from many rows.
    Aggregate,
    /// One value from the rows around a row.
    Window,
    /// Rows, in FROM.
    Table,
}

impl FunctionKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Aggregate => "aggregate",
            Self::Window => "window",
            Self::Table => "table",
        }
    }
}

/// A function and what is known of it.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// Name in SQL.
    pub name: String,
    /// How it is called.
    pub kind: FunctionKind,
    /// True for Bellwether's own; false for the engine's.
    pub own: bool,
    /// Call with its arguments.
    pub syntax: String,
    /// What it gives.
    pub doc: String,
    /// Arguments and what they mean.
    pub arguments: Vec<(String, String)>,
    /// A statement to try.
    pub example: Option<String>,
}

/// Registers our own functions and lists all of them.
pub(crate) fn register(
    context: &SessionContext,
    schema: &Arc<LakeSchema>,
    memory_limit_bytes: usize,
) -> Vec<FunctionInfo> {
    let before: BTreeSet<(FunctionKind, String)> =
        list(context).into_iter().map(|info| (info.kind, info.name)).collect();
    bellwether_metrics::register(context);
    register_detection(context);
    json::register(context);
    map_key::register(context);
    bounded::register(context, memory_limit_bytes);
    context.register_udtf(ROLLING_AT, Arc::new(RollingAt { schema: Arc::clone(schema) }));
    let mut functions = list(context);
    for function in &mut functions {
        function.own = !before.contains(&(function.kind, function.name.clone()));
        json::document(function);
    }
    // The engine knows no documentation of table functions.
    let tables: Vec<FunctionInfo> = table::ALL.iter().map(table::Table::info).chain([rolling_at_info()]).collect();
    functions.retain(|function| {
        function.kind != FunctionKind::Table || tables.iter().all(|table| table.name != function.name)
    });
    functions.extend(tables);
    functions.sort_by(|left, right| (!left.own, &left.name, left.kind).cmp(&(!right.own, &right.name, right.kind)));
    functions
}

/// Registers the functions of detection.
fn register_detection(context: &SessionContext) {
    let scalars = [evidence::all(), measure::all(), attribution::scalars()];
    scalars.into_iter().flatten().for_each(|function| context.register_udf(function));
    aggregate::all().into_iter().for_each(|function| context.register_udaf(function));
    let windows = [window::all(), attribution::windows()];
    windows.into_iter().flatten().for_each(|function| context.register_udwf(function));
    table::ALL.iter().for_each(|table| context.register_udtf(table.name, table.function()));
}

fn list(context: &SessionContext) -> Vec<FunctionInfo> {
    let state = context.state();
    let mut functions = Vec::new();
    // An alias is registered under its own name; it is listed once, by the function's own name.
    for (name, function) in state.scalar_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Scalar, function.documentation()));
        }
    }
    for (name, function) in state.aggregate_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Aggregate, function.documentation()));
        }
    }
    for (name, function) in state.window_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Window, function.documentation()));
        }
    }
    for name in state.table_functions().keys() {
        functions.push(info(name, FunctionKind::Table, None));
    }
    functions
}

fn info(name: &str, kind: FunctionKind, documentation: Option<&Documentation>) -> FunctionInfo {
    FunctionInfo {
        name: name.to_owned(),
        kind,
        own: false,
        syntax: documentation.map_or_else(|| format!("{name}(...)"), |text| text.syntax_example.clone()),
        doc: documentation.map(|text| text.description.trim().to_owned()).unwrap_or_default(),
        arguments: documentation.and_then(|text| text.arguments.clone()).unwrap_or_default(),
        example: documentation.and_then(|text| text.sql_example.clone()),
    }
}

/// Name of the table function.
const ROLLING_AT: &str = "rolling_at";

fn rolling_at_info() -> FunctionInfo {
    FunctionInfo {
        name: ROLLING_AT.to_owned(),
        kind: FunctionKind::Table,
        own: true,
        syntax: "rolling_at(as_of)".to_owned(),
        doc: "The rows of view `rolling` as of another moment, computed from all that is known now; `rolling_history` \
              holds what was known then."
            .to_owned(),
        arguments: vec![("as_of".to_owned(), "moment at which the spans end, text or timestamp, UTC".to_owned())],
        example: Some("SELECT * FROM rolling_at('2026-01-31 12:00:00')".to_owned()),
    }
}

/// `rolling_at(as_of)`: the rolling metrics as of a moment.
struct RollingAt {
    schema: Arc<LakeSchema>,
}

impl fmt::Debug for RollingAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RollingAt")
    }
}

impl TableFunctionImpl for RollingAt {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(moment, _)] = args.exprs() else {
            return plan_err!("rolling_at takes one moment, as in rolling_at('2026-01-31 12:00:00')");
        };
        let micros = moment.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))).ok();
        let Some(ScalarValue::TimestampMicrosecond(Some(micros), _)) = micros else {
            return plan_err!("rolling_at takes a moment, not `{moment}`; write it as '2026-01-31 12:00:00'");
        };
        let Some(columns) = self.schema.rolling_schema() else {
            return plan_err!("rolling_at is not ready yet");
        };
        Ok(Arc::new(RollingTable { schema: Arc::clone(&self.schema), columns, micros }))
    }
}

/// The rolling metrics as of one moment, planned when they are scanned.
struct RollingTable {
    schema: Arc<LakeSchema>,
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
        state: &dyn EngineSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let moment = format!("to_timestamp_micros({})", self.micros);
        let plan = self.schema.plan(&bellwether_metrics::rolling_sql(&moment)).await?;
        let mut plan = LogicalPlanBuilder::from(plan);
        if let Some(projection) = projection {
            plan = plan.select(projection.iter().copied())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await.map_err(|source: DataFusionError| source)
    }
}
