//! A read-only SQL session of one client: its limits, its tenant, and the statements that it runs.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_metrics::Planned;
use bellwether_tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SQLOptions;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::analysis::{self, Analysis};
use crate::catalog::{CATALOG, Catalog, SCHEMA, Scope, TableInfo, TableKind};
use crate::engine::Engine;
use crate::explain::explain;
use crate::function::{self, FunctionInfo};
use crate::limits::{self, Canceller, Limits, ended_badly};
use crate::postgres;
use crate::prepared::Prepared;
use crate::progress::Progress;
use crate::settings::{EngineSettings, SessionSettings};
use crate::statement::{self, Described};
use crate::{division, weighing};

/// Memory for each thread of a statement, if the memory limit determines their number.
const THREAD_BYTES: usize = 64 << 20;

/// The answer to a statement, as a stream of rows.
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows. Dropping it stops the statement.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
    /// How far the statement is.
    pub progress: Progress,
}

impl Answer {
    /// Collects all rows.
    ///
    /// # Errors
    /// As the stream.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.batches.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// A read-only SQL session.
pub struct Session {
    engine: Engine,
    settings: SessionSettings,
    scope: Scope,
    runtime: Arc<RuntimeEnv>,
    canceller: Canceller,
}

// === impl Engine ===

impl Engine {
    /// Opens a session.
    ///
    /// # Errors
    /// `Config` if the tenant is empty.
    pub fn session(&self, settings: SessionSettings) -> Result<Session> {
        Session::new(self.clone(), settings)
    }
}

// === impl Session ===

impl Session {
    /// Opens an engine over the newest state of a lake, for this session alone.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub async fn open(lake: &Lake, settings: SessionSettings) -> Result<Self> {
        Box::pin(Engine::open(lake, alone(&settings))).await?.session(settings)
    }

    /// Opens an engine over a lake at certain versions, for this session alone.
    ///
    /// # Errors
    /// As [`Engine::frozen`].
    pub async fn frozen(lake: &Lake, settings: SessionSettings, at: &[(Table, i64)]) -> Result<Self> {
        Box::pin(Engine::frozen(lake, alone(&settings), at)).await?.session(settings)
    }

    /// Opens an engine over rows in memory, for this session alone.
    ///
    /// # Errors
    /// As [`Engine::in_memory`].
    pub fn in_memory(settings: SessionSettings) -> Result<Self> {
        Engine::in_memory(alone(&settings))?.session(settings)
    }

    fn new(engine: Engine, mut settings: SessionSettings) -> Result<Self> {
        let tenant = match settings.tenant.as_deref() {
            Some("") => {
                return Err(Error::config("the tenant of a session is empty")
                    .with_hint("name a tenant; rows without one belong to no tenant"));
            }
            tenant => tenant.map(Arc::from),
        };
        settings.memory_limit_bytes = settings.memory_limit_bytes.min(engine.settings().memory_limit_bytes);
        let scope = Scope { tenant, at_present: settings.present.is_some() };
        let runtime = engine.runtime(settings.memory_limit_bytes)?;
        Ok(Self { engine, settings, scope, runtime, canceller: Canceller::default() })
    }

    /// Returns the engine of the session.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Replaces the rows of a table, as [`Engine::put`].
    ///
    /// # Errors
    /// None today.
    pub fn put(&self, table: Table, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<()> {
        self.engine.put(table, schema, rows);
        Ok(())
    }

    /// Brings the tables to their newest versions, as [`Engine::refresh`].
    ///
    /// # Errors
    /// `Unavailable` if the tables cannot be read.
    pub async fn refresh(&self) -> Result<()> {
        self.engine.refresh().await
    }

    /// Stops the statements that the session runs now; their memory is returned. The session stays usable.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Returns a handle that cancels like [`Session::cancel`], from anywhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.engine.catalog(&self.scope)
    }

    /// Parses one statement.
    fn parse(&self, sql: &str) -> Result<Statement> {
        let mut statement = statement::parse(sql)?;
        if self.settings.postgres {
            postgres::rewrite(&mut statement)?;
        }
        Ok(statement)
    }

    /// Returns the engine's state for one statement, over one snapshot of the tables.
    fn state(&self) -> SessionState {
        let catalog = self.catalog();
        let mut state = catalog.state();
        if self.settings.postgres {
            // A state takes any function and schema; without them, statements that need them would not plan.
            drop(self.engine.postgres().register(&mut state, &catalog));
        }
        function::register_spans(&mut state, &catalog);
        state.config_mut().options_mut().execution.target_partitions = self.threads();
        if self.settings.memory_limit_bytes < self.engine.settings().memory_limit_bytes {
            function::bound(&mut state, self.settings.memory_limit_bytes);
        }
        // Fixes the time of `now()` and the options.
        state.mark_start_execution();
        if let Some(present) = &self.settings.present {
            state.execution_props_mut().query_execution_start_time = Some(present.get());
        }
        state
    }

    /// Returns the number of threads of a statement. Each reads its own files, and these take memory too.
    fn threads(&self) -> usize {
        self.settings.threads.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            cores.min(self.settings.memory_limit_bytes / THREAD_BYTES).max(1)
        })
    }

    /// Returns the context in which plans of this session run.
    fn task(&self, state: &SessionState) -> Arc<TaskContext> {
        Arc::new(TaskContext::from(state).with_runtime(Arc::clone(&self.runtime)))
    }

    /// Plans one statement over the newest state of the tables.
    ///
    /// # Errors
    /// `Config` if the statement is wrong or could write.
    pub async fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        let statement = self.parse(sql)?;
        self.refresh().await?;
        plan(&self.state(), statement).await.map_err(|source| self.explain(source))
    }

    /// Plans one statement for [`Session::run`], which may run it each time that [`Session::put`] has replaced the rows of
    /// tables but not their columns. Returns `None` if the statement depends on the time, as with `now()`: its plan cannot be
    /// kept.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn plan_once(&self, sql: &str) -> Result<Option<Planned>> {
        let plan = self.plan(sql).await?;
        if analysis::depends_on_time(&plan).map_err(|source| self.explain(source))? {
            return Ok(None);
        }
        let state = self.state();
        let plan = state.create_physical_plan(&plan).await.map_err(|source| self.explain(source))?;
        Ok(Some(Planned::new(plan, self.task(&state))))
    }

    /// Runs a statement that [`Session::plan_once`] planned.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn run(&self, planned: &Planned) -> Result<Vec<RecordBatch>> {
        let answer = match self.settings.timeout {
            None => planned.run().await,
            Some(timeout) => {
                tokio::time::timeout(timeout, planned.run()).await.map_err(|_| limits::too_long(timeout))?
            }
        };
        answer.map_err(|source| self.explain(source))
    }

    /// Derives from a statement's plan the columns that it returns, those that it reads, and their origin.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn analyse(&self, sql: &str) -> Result<Analysis> {
        let plan = self.plan(sql).await?;
        let optimized = self.state().optimize(&plan).map_err(|source| self.explain(source))?;
        Analysis::new(&plan, &optimized).map_err(|source| self.explain(source))
    }

    /// Returns the divisions of whole numbers by whole numbers in a statement, which drop the remainder: `1 / 2` is 0.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn whole_divisions(&self, sql: &str) -> Result<Vec<String>> {
        let plan = self.plan(sql).await?;
        division::of_whole_numbers(&plan).map_err(|source| self.explain(source))
    }

    /// Returns the tables of runs that a statement reads without the number of runs that each row stands for; with `adding`
    /// only if the statement adds rows up.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn unweighted(&self, sql: &str, adding: bool) -> Result<Vec<&'static str>> {
        let plan = self.plan(sql).await?;
        let found = || {
            if adding && !weighing::adds_up(&plan)? {
                return Ok(Vec::new());
            }
            // The optimizer drops unused columns.
            weighing::unweighted(&self.state().optimize(&plan)?)
        };
        found().map_err(|source| self.explain(source))
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// `Config` if the statement is wrong or could write; `Unavailable` if it is cancelled, takes too long or too much
    /// memory, or has too many rows. The stream reports these as well.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        self.execute_with(self.parse(sql)?, Vec::new()).await
    }

    /// Prepares a statement with parameters `$1`, `$2`, … for [`Session::execute_prepared`]. A parameter has the type that
    /// `types` declares for it, otherwise the type that its position in the statement requires.
    ///
    /// # Errors
    /// As [`Session::plan`]; `Config` if the type of a parameter is not known.
    pub async fn prepare(&self, sql: &str, types: &[Option<DataType>]) -> Result<Prepared> {
        let statement = self.parse(sql)?;
        self.refresh().await?;
        let plan = plan(&self.state(), statement.clone()).await.map_err(|source| self.explain(source))?;
        // Postgres takes a parameter for text if nothing says what it is.
        let otherwise = self.settings.postgres.then_some(DataType::Utf8);
        Prepared::new(statement, plan, types, otherwise).map_err(|source| self.explain(source))?
    }

    /// Runs a prepared statement with a value for each of its parameters, which is cast to the parameter's type.
    ///
    /// # Errors
    /// As [`Session::execute`]; `Config` if a value is missing or cannot be cast.
    pub async fn execute_prepared(&self, prepared: &Prepared, values: &[ScalarValue]) -> Result<Answer> {
        self.execute_with(prepared.statement().clone(), prepared.cast(values)?).await
    }

    async fn execute_with(&self, statement: Statement, values: Vec<ScalarValue>) -> Result<Answer> {
        let mut limits = Limits::start(&self.settings, self.engine.settings().gauge, &self.canceller);
        limits.hold(self.refresh()).await??;
        if let Some(described) = statement::described(&statement)
            && let Some(answer) = self.description(&described).await?
        {
            return Ok(answer);
        }
        let state = self.state();
        let task = self.task(&state);
        // Planning runs in a task of its own, because it folds constants without a pause at which it could be stopped.
        let start = SpawnedTask::spawn(async move {
            let mut plan = plan(&state, statement).await?;
            if !values.is_empty() {
                plan = plan.with_param_values(values)?;
            }
            let plan = limits::with_pauses(state.create_physical_plan(&plan).await?)?;
            let progress = Progress::of(&plan);
            Ok::<_, DataFusionError>((execute_stream(plan, task)?, progress))
        });
        let started = limits.hold(start.join()).await?.map_err(ended_badly)?;
        let (stream, progress) = started.map_err(|source| self.explain(source))?;
        let schema = stream.schema();
        Ok(Answer { schema, batches: limits.stream(stream), progress })
    }

    /// Describes the columns of a table or view. The engine would print its own types, with all their metadata.
    async fn description(&self, Described { name, shown }: &Described) -> Result<Option<Answer>> {
        let relations = self.describe().await?;
        let Some(info) = relations.into_iter().find(|info| info.name == *name) else { return Ok(None) };
        let catalog = shown.then_some((CATALOG, SCHEMA));
        let batch = crate::catalog::description(&info, catalog).map_err(|source| self.explain(source))?;
        let schema = batch.schema();
        let batches = futures::stream::iter([Ok(batch)]).boxed();
        Ok(Some(Answer { schema, batches, progress: Progress::default() }))
    }

    /// Returns every table and view with its columns.
    pub(crate) async fn describe(&self) -> Result<Vec<TableInfo>> {
        self.catalog().describe().await.map_err(|source| self.explain(source))
    }

    /// Returns the stored tables.
    ///
    /// # Errors
    /// `Bug` if a view cannot be planned.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        self.relations(TableKind::Table).await
    }

    /// Returns the views.
    ///
    /// # Errors
    /// `Bug` if a view cannot be planned.
    pub async fn views(&self) -> Result<Vec<TableInfo>> {
        self.relations(TableKind::View).await
    }

    async fn relations(&self, kind: TableKind) -> Result<Vec<TableInfo>> {
        Ok(self.describe().await?.into_iter().filter(|info| info.kind == kind).collect())
    }

    /// Returns every function, Bellwether's own first.
    pub fn functions(&self) -> &[FunctionInfo] {
        self.engine.functions()
    }

    fn explain(&self, source: DataFusionError) -> Error {
        let mut names = crate::catalog::names();
        names.extend(self.functions().iter().map(|function| function.name.clone()));
        explain(source, &names)
    }
}

/// Settings of an engine that serves one session.
fn alone(settings: &SessionSettings) -> EngineSettings {
    EngineSettings { memory_limit_bytes: settings.memory_limit_bytes, ..EngineSettings::default() }
}

/// Plans a parsed statement, and also checks the plan, because the text of a statement can hide a write.
async fn plan(state: &SessionState, statement: Statement) -> datafusion::error::Result<LogicalPlan> {
    let plan = state.statement_to_plan(statement).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    Ok(plan)
}

#[cfg(test)]
mod tests;
