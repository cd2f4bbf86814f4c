//! A read-only SQL session over a lake.
//!
//! Before each statement the newest version of every table is asked for, and tables that moved on are opened anew: no
//! handle lives longer than the version it was opened at, so a session that is open for weeks holds what one statement
//! needs.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_lake::{CommitLog, Lake, Reading, Stored};
use bellwether_metrics::Planned;
use bellwether_tables::Table;
use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::functions::expr_fn::now;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext, col};
use datafusion::sql::parser::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use tokio::sync::Mutex;

use crate::analysis::{self, Analysis};
use crate::catalog::{LakeSchema, TableInfo, TableKind};
use crate::division;
use crate::explain::explain;
use crate::function::{self, FunctionInfo};
use crate::guarded::Guarded;
use crate::held;
use crate::limits::{self, Gauge, Limits, ended_badly};
use crate::older::with_all_columns;
use crate::rows::RowsTable;
use crate::statement::{self, Described};
use crate::weighing;

/// Catalog and schema that tables and views are in.
const CATALOG: &str = "bellwether";
const SCHEMA: &str = "public";

/// Memory of a session where nothing else is said: what a laptop spares without noticing.
const MEMORY_LIMIT_BYTES: usize = 512 * 1024 * 1024;

/// Memory that a thread of a statement is reckoned at.
const THREAD_BYTES: usize = 64 << 20;

/// Rows of a batch: the engine's own default; smaller costs speed, larger costs memory.
const BATCH_ROWS: usize = 8192;

/// Memory consumers named when memory runs out.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN;

/// The moment that a session takes for the present: `now()` gives it, and of each table only the rows are there that were
/// there then, by the time that they carry. Shared: whoever has it moves it for the statements that come.
#[derive(Clone, Debug, Default)]
pub struct Present(Arc<AtomicI64>);

impl Present {
    /// Moves it, to microseconds since 1970 UTC.
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    fn get(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// Limits of a session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Memory that sorts, joins and aggregations may hold together; sorts and aggregations spill to disk beyond it.
    pub memory_limit_bytes: usize,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Longest a statement may take; none: without end.
    pub timeout: Option<Duration>,
    /// Rows that an answer may have; none: without end.
    pub max_rows: Option<u64>,
    /// Tells the memory that the process holds, so that what the engine does not account for is held within the limit as
    /// well. For a process that does nothing else.
    pub gauge: Option<Gauge>,
    /// Threads a statement may use; none: as many as there are cores, and one for each 64 MiB of the memory limit.
    pub threads: Option<usize>,
    /// What it takes for the present; none: what the clock says.
    pub present: Option<Present>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
            batch_rows: BATCH_ROWS,
            timeout: None,
            max_rows: None,
            gauge: None,
            threads: None,
            present: None,
        }
    }
}

/// The rows that answer a statement, as they come.
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows. Dropping it stops the query.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl Answer {
    /// All rows at once.
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

/// What a session reads.
enum Source {
    /// A lake, at the newest version of every table.
    Lake(Lake),
    /// What it was given when it was opened: a lake at certain versions, or rows in memory.
    Fixed,
}

/// A read-only SQL session.
pub struct Session {
    source: Source,
    settings: SessionSettings,
    context: SessionContext,
    schema: Arc<LakeSchema>,
    functions: Vec<FunctionInfo>,
    versions: Mutex<BTreeMap<Table, i64>>,
    /// Rows in memory in the place of tables.
    relations: std::sync::Mutex<BTreeMap<Table, RowsTable>>,
}

// === impl Session ===

impl Session {
    /// Opens a session over the newest state of a lake.
    ///
    /// # Errors
    /// `Unavailable` where the tables cannot be read.
    pub async fn open(lake: &Lake, settings: SessionSettings) -> Result<Self> {
        let session = Self::new(Source::Lake(lake.clone()), settings)?;
        session.refresh().await?;
        session.schema.prepare().await.map_err(|source| session.explain(source))?;
        Ok(session)
    }

    /// Opens a session that keeps seeing some tables as they were at a version, and the others as they are now.
    ///
    /// # Errors
    /// `Unavailable` where the tables cannot be read, or a version is gone.
    pub async fn frozen(lake: &Lake, settings: SessionSettings, at: &[(Table, i64)]) -> Result<Self> {
        let session = Self::new(Source::Fixed, settings)?;
        let mut tables = Vec::new();
        for table in Table::ALL {
            let version = at.iter().find(|(name, _)| *name == table).map(|(_, version)| *version);
            let (table, version, provider) = session.open_table(lake, table, version).await?;
            session.versions.lock().await.insert(table, version);
            tables.push((table, provider));
        }
        session.schema.replace(tables);
        Ok(session)
    }

    /// A session over rows in memory: every table is there, and empty until [`Session::put`].
    ///
    /// # Errors
    /// `Bug` where the engine does not start.
    pub fn in_memory(settings: SessionSettings) -> Result<Self> {
        let session = Self::new(Source::Fixed, settings)?;
        for table in Table::ALL {
            session.put(table, table.arrow_schema(), Vec::new())?;
        }
        Ok(session)
    }

    /// Replaces the rows of a table, and its columns by those of `schema`. The rows may lack columns that no statement needs.
    ///
    /// # Errors
    /// `Bug` if the engine refuses the table.
    pub fn put(&self, table: Table, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<()> {
        let mut relations = self.relations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relation) = relations.get(&table).filter(|relation| *relation.schema() == schema) {
            relation.put(rows);
            return Ok(());
        }
        let relation = RowsTable::new(schema);
        relation.put(rows);
        let provider = Arc::new(relation.clone());
        self.schema.replace(vec![(table, self.of_the_present(table, provider)?)]);
        relations.insert(table, relation);
        Ok(())
    }

    /// Plans one statement for [`Session::run`], as often as [`Session::put`] replaces the rows of tables but not their
    /// columns. Returns `None` if the statement depends on the time, as with `now()`: its plan cannot be kept.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn plan_once(&self, sql: &str) -> Result<Option<Planned>> {
        let plan = self.plan(sql).await?;
        if analysis::depends_on_time(&plan).map_err(|source| self.explain(source))? {
            return Ok(None);
        }
        let plan = self.state().create_physical_plan(&plan).await.map_err(|source| self.explain(source))?;
        Ok(Some(Planned::new(plan, self.context.task_ctx())))
    }

    /// Runs a planned statement.
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

    fn new(source: Source, settings: SessionSettings) -> Result<Self> {
        let context = context(&settings)?;
        let schema = Arc::new(LakeSchema::new());
        // Of tables as they were, and of rows in memory, nobody says how far ingest was.
        schema.put_readings(&[]).map_err(|source| explain(source, &[]))?;
        let functions = attach(&context, &schema, &settings)?;
        let (versions, relations) = (Mutex::default(), std::sync::Mutex::default());
        Ok(Self { source, settings, context, schema, functions, versions, relations })
    }

    /// Brings the session to the newest version of every table; cheap where nothing changed.
    ///
    /// # Errors
    /// `Unavailable` where the tables cannot be read.
    pub async fn refresh(&self) -> Result<()> {
        let Source::Lake(lake) = &self.source else { return Ok(()) };
        let mut versions = self.versions.lock().await;
        let newest = future::try_join_all(
            Table::ALL.map(|table| async move { Ok::<_, Error>((table, lake.log(table).load().await?)) }),
        )
        .await?;
        let moved: Vec<Table> = newest
            .iter()
            .filter(|(table, snapshot)| versions.get(table) != Some(&snapshot.version))
            .map(|(table, _)| *table)
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        let opened = future::try_join_all(moved.into_iter().map(|table| self.open_table(lake, table, None))).await?;
        let mut tables = Vec::with_capacity(opened.len());
        for (table, version, provider) in opened {
            versions.insert(table, version);
            tables.push((table, provider));
        }
        self.schema.replace(tables);
        // As of the version that was looked up, which the table may have passed by now: never more than its rows bear out.
        let events = newest.iter().find(|(table, _)| *table == Table::Events).map(|(_, snapshot)| snapshot);
        let readings = events.map(Reading::all).unwrap_or_default();
        self.schema.put_readings(&readings).map_err(|source| explain(source, &[]))
    }

    async fn open_table(
        &self,
        lake: &Lake,
        table: Table,
        version: Option<i64>,
    ) -> Result<(Table, i64, Arc<dyn TableProvider>)> {
        let delta = match version {
            Some(version) => lake.delta_table_at(table, version).await?,
            None => lake.delta_table(table).await?,
        };
        let version = delta.snapshot().stored()?.version();
        let version = i64::try_from(version)
            .map_err(|source| Error::data("a table version is out of range").with_source(source))?;
        delta.update_datafusion_session(&self.context.state()).stored()?;
        let provider = delta.table_provider().await.map_err(|source| explain(source, &[]))?;
        let provider: Arc<dyn TableProvider> = Arc::new(Guarded(provider));
        let provider = with_all_columns(table, provider).map_err(|source| explain(source, &[]))?;
        Ok((table, version, self.of_the_present(table, provider)?))
    }

    /// A table without what came after the session's present.
    fn of_the_present(&self, table: Table, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        if self.settings.present.is_none() {
            return Ok(provider);
        }
        let there = match table {
            Table::Events => col("ingested_at").lt_eq(now()),
            Table::Metrics => col("window_start").lt(now()),
            Table::Releases => col("first_seen").lt_eq(now()),
            Table::RollingHistory => col("written_at").lt_eq(now()),
            Table::Quarantine => col("quarantined_at").lt_eq(now()),
            Table::Alerts => col("evaluated_at").lt_eq(now()),
        };
        let plan = LogicalPlanBuilder::scan(table.name(), provider_as_source(provider), None)
            .and_then(|scan| scan.filter(there)?.build())
            .map_err(|source| explain(source, &[]))?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    /// The engine's state for one statement.
    fn state(&self) -> SessionState {
        let mut state = self.context.state();
        if let Some(present) = &self.settings.present {
            state.execution_props_mut().query_execution_start_time = Some(present.get());
        }
        state
    }

    /// Plans one statement over the newest state of the tables.
    ///
    /// # Errors
    /// `Config` where the statement is wrong or would not only read.
    pub async fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        let statement = statement::parse(sql)?;
        self.refresh().await?;
        plan(&self.state(), statement).await.map_err(|source| self.explain(source))
    }

    /// Reads off a statement's plan which columns it returns, which it reads, and where they come from.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn analyse(&self, sql: &str) -> Result<Analysis> {
        let plan = self.plan(sql).await?;
        let optimized = self.state().optimize(&plan).map_err(|source| self.explain(source))?;
        Analysis::new(&plan, &optimized).map_err(|source| self.explain(source))
    }

    /// Divisions of whole numbers by whole numbers in a statement, which drop the rest: `1 / 2` is 0.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn whole_divisions(&self, sql: &str) -> Result<Vec<String>> {
        let plan = self.plan(sql).await?;
        division::of_whole_numbers(&plan).map_err(|source| self.explain(source))
    }

    /// Tables of runs that a statement reads without for how many runs each row stands; `adding`: only where it adds rows up.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub async fn unweighted(&self, sql: &str, adding: bool) -> Result<Vec<&'static str>> {
        let plan = self.plan(sql).await?;
        let found = || {
            if adding && !weighing::adds_up(&plan)? {
                return Ok(Vec::new());
            }
            // What is read is known once columns that nobody needs have been left out.
            weighing::unweighted(&self.state().optimize(&plan)?)
        };
        found().map_err(|source| self.explain(source))
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// `Config` where the statement is wrong or would not only read; `Unavailable` where it takes too long, too much memory
    /// or has too many rows, which may also be told by the stream.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        let mut limits = Limits::of(&self.settings);
        let statement = statement::parse(sql)?;
        limits.hold(self.refresh()).await??;
        if let Some(described) = statement::described(&statement)
            && let Some(answer) = self.description(&described).await?
        {
            return Ok(answer);
        }
        let state = self.state();
        // In a task of its own: planning folds constants, and makes no pause in which it could be stopped.
        let start = SpawnedTask::spawn(async move {
            let plan = plan(&state, statement).await?;
            let plan = limits::with_pauses(state.create_physical_plan(&plan).await?)?;
            execute_stream(plan, state.task_ctx())
        });
        let stream = limits.hold(start.join()).await?.map_err(ended_badly)?;
        let stream = stream.map_err(|source| self.explain(source))?;
        let schema = stream.schema();
        Ok(Answer { schema, batches: limits.stream(stream) })
    }

    /// The columns of one of our tables or views, in words: the engine would print its own types, with all their metadata.
    async fn description(&self, Described { name, shown }: &Described) -> Result<Option<Answer>> {
        let relations = self.schema.describe().await.map_err(|source| self.explain(source))?;
        let Some(info) = relations.into_iter().find(|info| info.name == *name) else { return Ok(None) };
        let catalog = shown.then_some((CATALOG, SCHEMA));
        let batch = crate::catalog::description(&info, catalog).map_err(|source| self.explain(source))?;
        let schema = batch.schema();
        Ok(Some(Answer { schema, batches: futures::stream::iter([Ok(batch)]).boxed() }))
    }

    /// The stored tables.
    ///
    /// # Errors
    /// `Bug` where a view cannot be planned.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        self.relations(TableKind::Table).await
    }

    /// The views.
    ///
    /// # Errors
    /// `Bug` where a view cannot be planned.
    pub async fn views(&self) -> Result<Vec<TableInfo>> {
        self.relations(TableKind::View).await
    }

    async fn relations(&self, kind: TableKind) -> Result<Vec<TableInfo>> {
        let all = self.schema.describe().await.map_err(|source| self.explain(source))?;
        Ok(all.into_iter().filter(|info| info.kind == kind).collect())
    }

    /// Every function, our own first.
    pub fn functions(&self) -> &[FunctionInfo] {
        &self.functions
    }

    fn explain(&self, source: datafusion::error::DataFusionError) -> Error {
        use datafusion::catalog::SchemaProvider;
        let mut names = self.schema.table_names();
        names.extend(self.functions.iter().map(|function| function.name.clone()));
        explain(source, &names)
    }
}

/// Puts a schema and our functions into a context.
pub(crate) fn attach(
    context: &SessionContext,
    schema: &Arc<LakeSchema>,
    settings: &SessionSettings,
) -> Result<Vec<FunctionInfo>> {
    let catalog = MemoryCatalogProvider::new();
    catalog
        .register_schema(SCHEMA, Arc::clone(schema) as _)
        .map_err(|source| Error::bug("the catalog takes no schema").with_source(source))?;
    context.register_catalog(CATALOG, Arc::new(catalog));
    let state = context.state_weak_ref();
    schema.bind(Box::new(move || state.upgrade().map(|state| state.read().clone())));
    Ok(function::register(context, schema, settings.memory_limit_bytes))
}

/// What a sort sets aside for merging what it has spilled.
const SORT_RESERVATION_BYTES: usize = 1 << 20;

/// Threads of a statement: each reads files of its own, and what it reads counts as memory too.
fn threads(settings: &SessionSettings) -> usize {
    settings.threads.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        cores.min(settings.memory_limit_bytes / THREAD_BYTES).max(1)
    })
}

pub(crate) fn context(settings: &SessionSettings) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_information_schema(true)
        .with_batch_size(settings.batch_rows);
    config = config.with_target_partitions(threads(settings));
    // The rules that move `get_field` towards the tables lose columns on their way through views, unions and joins: most
    // statements with `segments['region']` would not plan. They only spare reading the other fields of a struct.
    config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
    config.options_mut().execution.time_zone = Some("+00:00".to_owned());
    // Each sort sets so much aside to merge with, of what all share: the view of runs has twenty of them.
    config.options_mut().execution.sort_spill_reservation_bytes = SORT_RESERVATION_BYTES;
    // Who comes first takes what it needs. Fair shares would be a twentieth each for a view with twenty sorts and exchanges,
    // and a batch of few rows already counts with all the pages that its texts stand in.
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(settings.memory_limit_bytes), NAMED_CONSUMERS);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .build_arc()
        .map_err(|source| Error::config("the query engine cannot start").with_source(source))?;
    // Filters have reached the tables before there is a physical plan; what did not was refused (`guarded`), and this rule
    // would hand it on all the same.
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| rule.name() != FilterPushdown::new().name());
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    division::register(&context)
        .and_then(|()| held::register(&context))
        .map_err(|source| Error::bug("the query engine takes no rules for whole numbers").with_source(source))?;
    Ok(context)
}

/// Plans a statement that has been looked at already; the plan is looked at as well, for what a statement can hide.
async fn plan(state: &SessionState, statement: Statement) -> datafusion::error::Result<LogicalPlan> {
    let plan = state.statement_to_plan(statement).await?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    Ok(plan)
}

#[cfg(test)]
mod tests;
