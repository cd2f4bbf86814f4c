//! The query engine of a process, which its sessions share.
//!
//! It has one memory pool, one folder for data that spills to disk, one cache of table snapshots, and one registry of functions
//! and views. A server opens one [`Engine`] and, for each client, a session, which costs little more than its settings.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::catalog::{CATALOG, Catalog, SCHEMA, Scope};
use crate::explain::explain;
use crate::function::{self, FunctionInfo};
use crate::pool::SessionPool;
use crate::postgres::Postgres;
use crate::settings::EngineSettings;
use crate::tables::Tables;
use crate::{division, held};

/// Memory consumers that are named when memory runs out.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN;

/// Memory that a sort reserves for merging its spilled data.
const SORT_RESERVATION_BYTES: usize = 1 << 20;

/// The query engine of a process. A clone is another handle on the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    settings: EngineSettings,
    /// Functions, rules and runtime; without tables.
    base: Arc<SessionState>,
    functions: Vec<FunctionInfo>,
    postgres: Postgres,
    tables: Arc<Tables>,
    catalogs: Mutex<Catalogs>,
}

/// Catalogs over the current snapshot, one for each requested scope.
#[derive(Default)]
struct Catalogs {
    generation: u64,
    by_scope: BTreeMap<Scope, Arc<Catalog>>,
}

// === impl Engine ===

impl Engine {
    /// Opens an engine over the newest state of a lake: each statement sees the newest version of every table.
    ///
    /// # Errors
    /// `Unavailable` if the tables cannot be read.
    pub async fn open(lake: &Lake, settings: EngineSettings) -> Result<Self> {
        let engine = Self::new(Tables::of_lake(lake.clone()), settings)?;
        Box::pin(engine.refresh()).await?;
        Box::pin(engine.prepare()).await?;
        Ok(engine)
    }

    /// Opens an engine that keeps seeing the tables as they are now, and those in `at` as they were at a version.
    ///
    /// # Errors
    /// `Unavailable` if the tables cannot be read, or a version no longer exists.
    pub async fn frozen(lake: &Lake, settings: EngineSettings, at: &[(Table, i64)]) -> Result<Self> {
        let small_files = settings.small_files;
        let engine = Self::new(Tables::fixed(), settings)?;
        Box::pin(engine.0.tables.open_at(&engine.0.base, lake, at, small_files)).await?;
        engine.prepare().await?;
        Ok(engine)
    }

    /// Opens an engine over rows in memory: every table exists, and is empty until [`Engine::put`].
    ///
    /// # Errors
    /// `Bug` if DataFusion does not start.
    pub fn in_memory(settings: EngineSettings) -> Result<Self> {
        let engine = Self::new(Tables::fixed(), settings)?;
        engine.0.tables.put_nothing()?;
        Ok(engine)
    }

    fn new(tables: Tables, settings: EngineSettings) -> Result<Self> {
        let (base, functions) = base(&settings)?;
        let (base, tables, postgres) = (Arc::new(base), Arc::new(tables), Postgres::new(&functions));
        Ok(Self(Arc::new(Shared { settings, base, functions, postgres, tables, catalogs: Mutex::default() })))
    }

    /// Plans view `rolling` for its columns, which the functions over times need beforehand.
    async fn prepare(&self) -> Result<()> {
        let catalog = self.catalog(&Scope::default());
        catalog.prepare().await.map_err(|source| explain(source, &[]))
    }

    /// Replaces the rows of a table in memory, and its columns by those of `schema`. The rows may lack columns that no
    /// statement needs.
    pub fn put(&self, table: Table, schema: SchemaRef, rows: Vec<RecordBatch>) {
        self.0.tables.put(table, schema, rows);
    }

    /// Brings the tables to their newest versions; cheap if nothing changed. Each statement does so first.
    ///
    /// # Errors
    /// `Unavailable` if the tables cannot be read.
    pub async fn refresh(&self) -> Result<()> {
        self.0.tables.refresh(&self.0.base).await
    }

    /// Returns the versions of the stored tables that the next statement sees at least; none of tables in memory.
    pub fn versions(&self) -> BTreeMap<Table, i64> {
        self.0.tables.snapshot().versions.clone()
    }

    /// Returns the memory that statements of all sessions hold, in bytes, as far as the pool accounts for it.
    pub fn used_bytes(&self) -> usize {
        self.0.base.runtime_env().memory_pool.reserved()
    }

    /// Returns every function, Bellwether's own first.
    pub(crate) fn functions(&self) -> &[FunctionInfo] {
        &self.0.functions
    }

    /// Returns what Postgres clients expect to find.
    pub(crate) fn postgres(&self) -> &Postgres {
        &self.0.postgres
    }

    pub(crate) fn settings(&self) -> &EngineSettings {
        &self.0.settings
    }

    /// Returns the tables and views of the current snapshot, as a scope sees them.
    pub(crate) fn catalog(&self, scope: &Scope) -> Arc<Catalog> {
        let snapshot = self.0.tables.snapshot();
        let mut catalogs = self.0.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if catalogs.generation != snapshot.generation {
            *catalogs = Catalogs { generation: snapshot.generation, by_scope: BTreeMap::new() };
        }
        let fresh = || Catalog::new(&self.0.base, &self.0.tables, snapshot, scope);
        Arc::clone(catalogs.by_scope.entry(scope.clone()).or_insert_with(fresh))
    }

    /// Returns the runtime of a session: the engine's, with the session's own memory limit.
    pub(crate) fn runtime(&self, memory_limit_bytes: usize) -> Result<Arc<RuntimeEnv>> {
        let engine = self.0.base.runtime_env();
        let pool = SessionPool::new(Arc::clone(&engine.memory_pool), memory_limit_bytes);
        RuntimeEnvBuilder::from_runtime_env(engine)
            .with_memory_pool(Arc::new(pool))
            .build_arc()
            .map_err(|source| Error::bug("cannot start a session of the query engine").with_source(source))
    }
}

/// Creates the state that sessions start from: configuration, functions and rules, but no tables.
fn base(settings: &EngineSettings) -> Result<(SessionState, Vec<FunctionInfo>)> {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_information_schema(true)
        .with_batch_size(settings.batch_rows);
    // The rules that move `get_field` towards the tables lose columns on their way through views, unions and joins: most
    // statements with `segments['region']` would not plan. They only spare reading the other fields of a struct.
    config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
    config.options_mut().execution.time_zone = Some("+00:00".to_owned());
    // A union of `metrics` and its roll-ups has columns with the comments of several tables, which the logical and the physical
    // plan combine differently, and the check compares comments too.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    // Each sort reserves this much of the shared pool for merging, and the view of runs has twenty sorts.
    config.options_mut().execution.sort_spill_reservation_bytes = SORT_RESERVATION_BYTES;
    // Memory is granted first come, first served. A fair share would be a twentieth for each of the twenty sorts and exchanges
    // of a view, and even a batch of few rows counts with all pages of its texts.
    let pool: Arc<dyn MemoryPool> =
        Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(settings.memory_limit_bytes), NAMED_CONSUMERS));
    let mut runtime = RuntimeEnvBuilder::new().with_memory_pool(pool);
    if let Some(bytes) = settings.spill_limit_bytes {
        runtime = runtime.with_disk_manager_builder(DiskManagerBuilder::default().with_max_temp_directory_size(bytes));
    }
    let runtime =
        runtime.build_arc().map_err(|source| Error::config("the query engine cannot start").with_source(source))?;
    // Filters reach the tables before there is a physical plan. `guarded` refuses some of them, but this rule would push them
    // down all the same.
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
    let functions = function::register(&context, settings.memory_limit_bytes);
    Ok((context.state(), functions))
}

/// Creates a context for tests of functions; returns it with the functions that it lists.
#[cfg(test)]
pub(crate) fn context_of_functions(threads: usize) -> (SessionContext, Vec<FunctionInfo>) {
    let engine = Engine::in_memory(EngineSettings::default()).expect("starts");
    let mut state = engine.catalog(&Scope::default()).state();
    state.config_mut().options_mut().execution.target_partitions = threads;
    (SessionContext::new_with_state(state), engine.functions().to_vec())
}
