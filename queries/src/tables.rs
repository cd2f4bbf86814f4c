//! The tables of an engine: a cache of the newest snapshots, which all sessions share.
//!
//! Before each statement, the engine looks up the newest version of every table, and opens changed tables again. No handle
//! outlives its version, so a process that runs for weeks holds only what one statement needs. Sessions that ask at the same
//! time share one look-up. It asks each log for the entry after the last known one; listing a log costs more on S3, and is needed
//! only after a pause in which entries may have been cleaned up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bellwether_base::{Error, Result};
use bellwether_lake::{CommitLog, Lake, Reading, Rolled as RollUps, Snapshot as TableVersion, Stored, files_of};
use bellwether_metrics::Rolled;
use bellwether_tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use tokio::sync::Mutex;

use crate::explain::explain;
use crate::guarded::Guarded;
use crate::ingest_numbers;
use crate::older::with_all_columns;
use crate::rows::RowsTable;
use crate::settings::SmallFiles;
use crate::small_files;

/// Time after which the logs are listed again, microseconds: far less than entries stay in a log.
const LISTED_AGAIN_MICROS: i64 = 60_000_000;

/// The source of the tables.
enum Origin {
    /// A lake, at the newest version of every table.
    Lake(Lake),
    /// A fixed state from the opening of the engine: a lake at certain versions, or rows in memory.
    Fixed,
}

/// The tables of an engine.
pub(crate) struct Tables {
    origin: Origin,
    current: RwLock<Arc<Snapshot>>,
    refreshed: Mutex<Refreshed>,
    /// Number of requested refreshes.
    asked: AtomicU64,
    /// Tables over rows in memory.
    in_memory: std::sync::Mutex<BTreeMap<Table, RowsTable>>,
    /// Columns of view `rolling`, which are the same in every session.
    rolling: OnceLock<SchemaRef>,
}

/// The tables of metrics, each roll-up before the table that it is made from.
const METRICS: [Table; 3] = [Table::MetricsDaily, Table::MetricsHourly, Table::Metrics];

/// Every table at one version, for one statement.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    tables: BTreeMap<&'static str, Arc<dyn TableProvider>>,
    /// Number of replacements of tables, so that a view planned over older ones is not kept.
    pub(crate) generation: u64,
    /// The versions of the stored tables; none of tables in memory.
    pub(crate) versions: BTreeMap<Table, i64>,
    /// True if the tables are those of a lake: their rows are the same for as long as the snapshot.
    pub(crate) stored: bool,
    /// The roll-ups that queries may use.
    pub(crate) rolled: Rolled,
}

#[derive(Default)]
struct Refreshed {
    versions: BTreeMap<Table, i64>,
    /// The newest known state of each log, and when the logs were last listed.
    known: BTreeMap<Table, TableVersion>,
    listed_at_micros: i64,
    /// Number of requested refreshes at the start of the last one, which answers all of them.
    answered: u64,
}

// === impl Refreshed ===

impl Refreshed {
    /// Returns the newest state of every log.
    async fn newest(&mut self, lake: &Lake) -> Result<Vec<(Table, TableVersion)>> {
        let now = lake.clock().now_micros();
        if !(0..LISTED_AGAIN_MICROS).contains(&now.saturating_sub(self.listed_at_micros)) {
            self.known.clear();
            self.listed_at_micros = now;
        }
        let newest = versions(lake, &self.known).await?;
        self.known = newest.iter().cloned().collect();
        Ok(newest)
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn table(&self, name: &str) -> Option<&Arc<dyn TableProvider>> {
        self.tables.get(name)
    }
}

// === impl Tables ===

impl Tables {
    /// Creates the tables of a lake at its newest state; they are empty before [`Tables::refresh`].
    pub(crate) fn of_lake(lake: Lake) -> Self {
        Self::new(Origin::Lake(lake))
    }

    /// Creates tables that do not change by themselves.
    pub(crate) fn fixed() -> Self {
        Self::new(Origin::Fixed)
    }

    fn new(origin: Origin) -> Self {
        Self {
            origin,
            current: RwLock::default(),
            refreshed: Mutex::default(),
            asked: AtomicU64::new(0),
            in_memory: std::sync::Mutex::default(),
            rolling: OnceLock::new(),
        }
    }

    /// Brings the tables to their newest versions; cheap if nothing changed.
    pub(crate) async fn refresh(&self, state: &SessionState) -> Result<()> {
        let Origin::Lake(lake) = &self.origin else { return Ok(()) };
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.answered > ticket {
            return Ok(()); // Another session has refreshed since this request.
        }
        let asked = self.asked.load(Ordering::SeqCst);
        let mut newest = refreshed.newest(lake).await?;
        loop {
            // Tables are replaced once a look-up and what was opened after it agree.
            let moved: Vec<Table> = newest
                .iter()
                .filter(|(table, snapshot)| refreshed.versions.get(table) != Some(&snapshot.version))
                .map(|(table, _)| *table)
                .collect();
            if moved.is_empty() {
                break;
            }
            let of_metrics = moved.iter().any(|table| METRICS.contains(table));
            let opened = moved.into_iter().map(|table| open(state, lake, table, None, SmallFiles::default()));
            let opened = future::try_join_all(opened).await?;
            // The tables of metrics belong together only if the roll-ups stayed where they were.
            if of_metrics && RollUps::load(lake).await? != rolled(&newest) {
                newest = refreshed.newest(lake).await?;
                continue;
            }
            let mut tables = Vec::with_capacity(opened.len() + 1);
            for (table, version, provider) in opened {
                refreshed.versions.insert(table, version);
                tables.push((table.name(), provider));
            }
            // The progress is that of the version looked up. The table may have a newer version by now, so the progress is
            // never ahead of its rows.
            let events = newest.iter().find(|(table, _)| *table == Table::Events).map(|(_, snapshot)| snapshot);
            tables.push(numbers(&events.map(Reading::all).unwrap_or_default())?);
            let RollUps { hours, days } = rolled(&newest);
            self.replace(tables, refreshed.versions.clone(), Some(Rolled::up_to(hours, days)));
            break;
        }
        refreshed.answered = asked;
        Ok(())
    }

    /// Opens every table of a lake once: some at a version, the others at their newest. The rows of small files are read into memory.
    pub(crate) async fn open_at(
        &self,
        state: &SessionState,
        lake: &Lake,
        at: &[(Table, i64)],
        small_files: SmallFiles,
    ) -> Result<()> {
        let version = |table| at.iter().find(|(name, _)| *name == table).map(|(_, version)| *version);
        let open = |table| open(state, lake, table, version(table), small_files);
        let opened = future::try_join_all(Table::ALL.map(open)).await?;
        let versions = opened.iter().map(|(table, version, _)| (*table, *version)).collect();
        let mut tables: Vec<_> = opened.into_iter().map(|(table, _, provider)| (table.name(), provider)).collect();
        // The progress of ingest at an older version is not recorded.
        tables.push(numbers(&[])?);
        // Roll-ups belong to the newest version of `metrics` only.
        self.replace(tables, versions, Some(Rolled::default()));
        Ok(())
    }

    /// Replaces the rows of a table, and its columns by those of `schema`.
    pub(crate) fn put(&self, table: Table, schema: SchemaRef, rows: Vec<RecordBatch>) {
        let mut in_memory = self.in_memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = in_memory.get(&table).filter(|known| *known.schema() == schema) {
            return known.put(rows);
        }
        let fresh = RowsTable::new(schema);
        fresh.put(rows);
        self.replace(vec![(table.name(), Arc::new(fresh.clone()))], BTreeMap::new(), None);
        in_memory.insert(table, fresh);
    }

    /// Makes every table empty and in memory.
    pub(crate) fn put_nothing(&self) -> Result<()> {
        for table in Table::ALL {
            self.put(table, table.arrow_schema(), Vec::new());
        }
        self.replace(vec![numbers(&[])?], BTreeMap::new(), None);
        Ok(())
    }

    /// Replaces tables; `rolled` is how far the roll-ups go if the tables are those of a lake.
    fn replace(
        &self,
        tables: Vec<(&'static str, Arc<dyn TableProvider>)>,
        versions: BTreeMap<Table, i64>,
        rolled: Option<Rolled>,
    ) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&current);
        next.tables.extend(tables);
        next.generation += 1;
        next.versions = versions;
        next.stored = rolled.is_some();
        next.rolled = rolled.unwrap_or_default();
        *current = Arc::new(next);
    }

    /// Returns the tables as of the last refresh.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the columns of view `rolling`, once they are known.
    pub(crate) fn rolling_columns(&self) -> Option<SchemaRef> {
        self.rolling.get().cloned()
    }

    pub(crate) fn note_rolling_columns(&self, columns: SchemaRef) {
        // They never change, so the first ones are kept.
        drop(self.rolling.set(columns));
    }
}

/// Loads the newest version of every table, each roll-up before the table that it is made from: it is never ahead of that one.
async fn versions(lake: &Lake, known: &BTreeMap<Table, TableVersion>) -> Result<Vec<(Table, TableVersion)>> {
    let load = |table| async move {
        let log = lake.log(table);
        let newest = match known.get(&table) {
            Some(known) => log.catch_up(known.clone()).await?,
            None => log.load().await?,
        };
        Ok::<_, Error>((table, newest))
    };
    let in_order = async {
        let mut metrics = Vec::new();
        for table in METRICS {
            metrics.push(load(table).await?);
        }
        Ok(metrics)
    };
    let others = Table::ALL.into_iter().filter(|table| !METRICS.contains(table)).map(load);
    let (mut newest, metrics) = future::try_join(future::try_join_all(others), in_order).await?;
    newest.extend(metrics);
    Ok(newest)
}

/// Returns how far the roll-ups go.
fn rolled(newest: &[(Table, TableVersion)]) -> RollUps {
    let of = |wanted| newest.iter().find(|(table, _)| *table == wanted).map(|(_, version)| version);
    match METRICS.map(of) {
        [Some(daily), Some(hourly), Some(metrics)] => RollUps::of(daily, hourly, metrics),
        _ => RollUps::default(),
    }
}

fn numbers(readings: &[Reading]) -> Result<(&'static str, Arc<dyn TableProvider>)> {
    Ok((ingest_numbers::NAME, ingest_numbers::table(readings).map_err(|source| explain(source, &[]))?))
}

/// Opens a table at a version, or at its newest, with the rows of its small files in memory.
async fn open(
    state: &SessionState,
    lake: &Lake,
    table: Table,
    version: Option<i64>,
    small_files: SmallFiles,
) -> Result<(Table, i64, Arc<dyn TableProvider>)> {
    let delta = match version {
        Some(version) => lake.delta_table_at(table, version).await?,
        None => lake.delta_table(table).await?,
    };
    let version = i64::try_from(delta.snapshot().stored()?.version())
        .map_err(|source| Error::data("a table version is out of range").with_source(source))?;
    delta.update_datafusion_session(state).stored()?;
    let mut provider = guarded(delta.table_provider()).await?;
    if small_files.tables.contains(&table) {
        let open = |paths| guarded(delta.table_provider().with_file_paths(paths));
        // Another program may have deleted rows within files, which the engine reads and our reader does not.
        let files = files_of(&delta).map(|(_, files)| files).unwrap_or_default();
        provider = small_files::kept(lake, table, provider, files, small_files.bytes, open).await?;
    }
    let provider = with_all_columns(table, provider).map_err(|source| explain(source, &[]))?;
    Ok((table, version, provider))
}

/// Opens what is built, behind the filters that it may take.
fn guarded<B>(builder: B) -> BoxFuture<'static, Result<Arc<dyn TableProvider>>>
where
    B: IntoFuture<Output = std::result::Result<Arc<dyn TableProvider>, DataFusionError>, IntoFuture: Send + 'static>,
{
    let built = builder.into_future();
    built.map(|built| built.map_err(|source| explain(source, &[])).map(|table| Arc::new(Guarded(table)) as _)).boxed()
}
