//! A lake: all tables under one root. It opens and creates the tables, and writes and reads their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::{DeltaTable, DeltaTableError};
use futures::future::try_join_all;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use url::Url;

use crate::commit::delta::DeltaLog;
use crate::commit::{CommitLog, DataFile};
use crate::delta::BoundedReads;
use crate::encoder::{EncodedFile, EncodedRows};
use crate::log::{AddedFile, LOG_FOLDER, creation, deleted_rows, entry_path, rows_in_statistics};
use crate::parquet_file;
use crate::store::{self, OpenRoot, StorageOptions};
use crate::stored::{Stored, from_delta, from_store};
use crate::work::Work;
use bellwether_base::{Clock, SystemClock};
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_tables::Table;

/// Number of attempts to open a table while the store's listing is behind its log.
const LOOKS_AT_A_LISTING: usize = 3;

/// A durable file, with its rows.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// The file, as a commit names it.
    pub file: DataFile,
    /// All its rows, in file order, with the columns that the encoder hands on; empty if it hands on none.
    pub rows: Vec<RecordBatch>,
}

/// All tables under one root. Cloning is cheap.
#[derive(Clone)]
pub struct Lake {
    root: Arc<OpenRoot>,
    clock: Arc<dyn Clock>,
    work: Work,
    /// Files with columns that a rewrite would lose. They are never rewritten, and not checked again.
    more_columns: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("root", &self.root.url.as_str()).finish_non_exhaustive()
    }
}

// === impl Lake ===

impl Lake {
    /// Opens a folder or an address in an object store. Creates the folder and missing tables, and adds the columns that tables
    /// of an earlier version lack.
    ///
    /// # Errors
    /// `Config` if the root cannot be created, its bucket does not exist, or its store lets two writers create the same object;
    /// `Data` if this program cannot write to a table; `Unavailable` if the store does not answer.
    pub async fn open(root: &str, options: &StorageOptions) -> Result<Self> {
        Self::open_with_clock(root, options, Arc::new(SystemClock)).await
    }

    /// Opens like [`Lake::open`], with another clock.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn open_with_clock(root: &str, options: &StorageOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::at(store::open(root, options).await?, clock, Work::Pool).await
    }

    /// Opens a lake in a store of its own, and creates missing tables. All work then runs on the calling thread, so that the
    /// caller determines the order of events. For simulations, not for a service.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer.
    pub async fn on_store(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Result<Self> {
        let url = Url::parse("memory:///")
            .map_err(|source| Error::bug("`memory:///` is not an address").with_source(source))?;
        Self::at(OpenRoot { url, store, base: Path::default() }, clock, Work::Inline).await
    }

    pub(crate) async fn at(root: OpenRoot, clock: Arc<dyn Clock>, work: Work) -> Result<Self> {
        let lake = Self { root: Arc::new(root), clock, work, more_columns: Arc::default() };
        for table in Table::ALL {
            lake.create(table).await?;
        }
        try_join_all(Table::ALL.map(|table| lake.widen(table))).await?;
        Ok(lake)
    }

    /// Opens a folder or an address in an object store without writing anything. Columns that a table of an earlier version
    /// lacks are null when it is read.
    ///
    /// # Errors
    /// `Config` if there is no such folder; `Unavailable` if it cannot be opened.
    pub async fn open_as_it_is(root: &str, options: &StorageOptions) -> Result<Self> {
        let root = Arc::new(store::open_as_it_is(root, options)?);
        Ok(Self { root, clock: Arc::new(SystemClock), work: Work::Pool, more_columns: Arc::default() })
    }

    /// Opens like [`Lake::open_as_it_is`], for readers, which may lack the permission to write. If a table is missing, opens
    /// like [`Lake::open`], which creates it.
    ///
    /// # Errors
    /// As [`Lake::open_as_it_is`] and [`Lake::open`].
    pub async fn open_to_read(root: &str, options: &StorageOptions) -> Result<Self> {
        let lake = Self::open_as_it_is(root, options).await?;
        for table in Table::ALL {
            if !lake.has(table).await? {
                return Self::open(root, options).await;
            }
        }
        Ok(lake)
    }

    /// Returns true if a table exists.
    async fn has(&self, table: Table) -> Result<bool> {
        // The first entries of an old table may have been cleaned up.
        let pointer = self.table_path(table).join(LOG_FOLDER).join("_last_checkpoint");
        for path in [entry_path(&self.table_path(table), 0), pointer] {
            match self.root.store.head(&path).await {
                Ok(_) => return Ok(true),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(from_store(source)),
            }
        }
        Ok(false)
    }

    /// Returns the address of the root.
    pub fn root(&self) -> &Url {
        &self.root.url
    }

    /// Returns the root as people write it: a path for a folder, an address otherwise.
    pub fn root_display(&self) -> String {
        match self.root.url.to_file_path() {
            Ok(path) => path.display().to_string(),
            Err(()) => self.root.url.to_string(),
        }
    }

    /// Returns the clock that dates commits.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Returns the log of a table.
    pub fn log(&self, table: Table) -> DeltaLog {
        DeltaLog {
            table,
            store: Arc::clone(&self.root.store),
            path: self.table_path(table),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Writes rows as durable Parquet files, one for each value of the partition column. No reader sees them until a commit
    /// names them.
    ///
    /// # Errors
    /// `Unavailable` if storage does not accept them; `Bug` if the batch does not have the table's schema.
    pub async fn write(&self, table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
        let batch = batch.clone();
        let rows = self.work.run("the Parquet writer", move || EncodedRows::of(table, &batch)).await?;
        self.store(&rows).await
    }

    /// Writes encoded rows like [`Lake::write`].
    ///
    /// # Errors
    /// `Unavailable` if storage does not accept them.
    pub async fn store(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        let mut written = Vec::new();
        for file in rows.files() {
            written.push(self.store_file(rows.table(), file).await?);
        }
        Ok(written)
    }

    async fn store_file(&self, table: Table, file: &EncodedFile) -> Result<WrittenFile> {
        let folder = match (table.partition_column(), &file.value) {
            (Some(column), Some(value)) => format!("{column}={value}/"),
            _ => String::new(),
        };
        let path = format!("{folder}part-{}.{}", self.clock.unique_id(), file.extension);
        let size =
            i64::try_from(file.bytes.len()).map_err(|source| Error::bug("a file is too large").with_source(source))?;
        let target = self.file_path(table, &path)?;
        self.root
            .store
            .put_opts(&target, PutPayload::from(file.bytes.clone()), PutMode::Overwrite.into())
            .await
            .stored()?;
        let values = table.partition_column().map(|column| (column.to_owned(), file.value.clone()));
        let stored = DataFile {
            path,
            size,
            rows: i64::try_from(file.rows).unwrap_or(i64::MAX),
            partition_values: values.into_iter().collect::<BTreeMap<_, _>>(),
            stats: file.stats.clone(),
            modification_time: self.clock.now_micros() / 1000,
        };
        Ok(WrittenFile { file: stored, rows: file.handed_on.clone() })
    }

    /// Reads a file's rows, in file order, with the types of [`Table::arrow_schema`]; `columns` selects some columns.
    ///
    /// # Errors
    /// `Data` if the file is missing or unreadable.
    pub async fn read(&self, table: Table, file: &AddedFile, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let wanted = parquet_file::wanted_schema(table, columns)?;
        let of = file.clone();
        let work = move || parquet_file::batches_as(table, &of, bytes, &wanted)?.collect();
        self.work.run("the Parquet reader", work).await.map_err(|error| parquet_file::unreadable(table, file, error))
    }

    /// Reads a file as [`Lake::read`] does, some thousand rows at a time: only the bytes of the file and one piece are in memory.
    ///
    /// # Errors
    /// As [`Lake::read`], for the file and for each piece.
    pub async fn read_in_pieces(
        &self,
        table: Table,
        file: &AddedFile,
        columns: Option<&[&str]>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let bytes = self.file_bytes(table, &file.path).await?;
        parquet_file::batches(table, file, bytes, columns)
    }

    /// Removes files that no commit names, such as after a fenced commit. Failures are harmless: a vacuum removes the files
    /// later.
    pub async fn discard(&self, table: Table, files: &[DataFile]) {
        for file in files {
            if let Ok(path) = self.file_path(table, &file.path)
                && let Err(error) = self.root.store.delete(&path).await
            {
                tracing::debug!(path = %path, error = %error, "cannot remove an unused file");
            }
        }
    }

    /// Returns a table's newest version and its files. The Delta library finds the version by a listing, which may be out of
    /// date, so this function checks by name that there is no newer version.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer, or its listings are out of date; `Data` if the log is torn.
    pub async fn active_files(&self, table: Table) -> Result<(i64, Vec<AddedFile>)> {
        let mut known = i64::MAX;
        for _ in 0..LOOKS_AT_A_LISTING {
            let found = files_of(&self.delta_table(table).await?)?;
            if found.0 >= known || self.log(table).entry(found.0 + 1).await?.is_none() {
                return Ok(found);
            }
            known = found.0 + 1;
        }
        Err(Error::unavailable(format!("the store's listing of table `{}` is behind its log", table.name())))
    }

    /// Returns the files in a table at a version.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the log of that version is torn or was cleaned up.
    pub async fn files_at(&self, table: Table, version: i64) -> Result<Vec<AddedFile>> {
        Ok(files_of(&self.delta_table_at(table, version).await?)?.1)
    }

    /// Opens a version of a table with the Delta library, for queries.
    ///
    /// # Errors
    /// As [`Lake::files_at`].
    pub async fn delta_table_at(&self, table: Table, version: i64) -> Result<DeltaTable> {
        let mut delta = self.unloaded(table)?;
        let wanted = u64::try_from(version)
            .map_err(|source| Error::bug(format!("version {version} was requested")).with_source(source))?;
        match self.work.whole(delta.load_version(wanted)).await {
            Ok(()) => Ok(delta),
            Err(source) => match self.log(table).reaches_back_to(version).await {
                Ok(false) => {
                    let name = table.name();
                    let what = format!("table `{name}` cannot be read as of version {version}: its log was cleaned up");
                    Err(Error::data(what).with_source(source).with_hint(
                        "rebuild the tables derived from `events` (`bellwether rebuild`); keep log entries for longer \
                         (`delta.logRetentionDuration`)",
                    ))
                }
                _ => Err(self.why_closed(table, source).await),
            },
        }
    }

    /// Opens the newest version of a table with the Delta library, for queries and maintenance.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the table's log is torn.
    pub async fn delta_table(&self, table: Table) -> Result<DeltaTable> {
        let mut delta = self.unloaded(table)?;
        match self.work.whole(delta.load()).await {
            Ok(()) => Ok(delta),
            Err(source) => Err(self.why_closed(table, source).await),
        }
    }

    /// Returns a table of the Delta library, of which no version is loaded.
    fn unloaded(&self, table: Table) -> Result<DeltaTable> {
        let path = self.table_path(table);
        let url = self
            .root
            .url
            .join(&format!("{}/", table.name()))
            .map_err(|source| Error::bug("a table has no valid address").with_source(source))?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root.store), path));
        let log_store = default_logstore(prefixed, Arc::clone(&self.root.store), &url, &StorageConfig::default());
        Ok(DeltaTable::new(Arc::new(BoundedReads(log_store))))
    }

    /// Explains why the Delta library cannot open a table. Our own reader finds all permanent damage too and describes it
    /// better; if it finds none, the library may have used a listing that is out of date.
    async fn why_closed(&self, table: Table, source: DeltaTableError) -> Error {
        match self.log(table).load().await {
            Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Unavailable) => error,
            _ => from_delta(source),
        }
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }

    /// Returns true if a file was found to have columns that this program does not know.
    pub(crate) fn is_of_more_columns(&self, path: &str) -> bool {
        self.more_columns.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    pub(crate) fn note_files_of_more_columns(&self, paths: Vec<String>) {
        self.more_columns.lock().unwrap_or_else(PoisonError::into_inner).extend(paths);
    }

    /// Returns a table's path in the store.
    pub fn table_path(&self, table: Table) -> Path {
        self.root.base.clone().join(table.name())
    }

    /// Reads the whole content of a data file.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the file is missing.
    pub async fn file_bytes(&self, table: Table, path: &str) -> Result<Bytes> {
        let found = match self.root.store.get(&self.file_path(table, path)?).await {
            Ok(found) => found,
            Err(source @ object_store::Error::NotFound { .. }) => {
                return Err(parquet_file::gone(table, path).with_source(source));
            }
            Err(source) => return Err(from_store(source)),
        };
        found.bytes().await.stored()
    }

    /// Returns the root's path in the store.
    pub fn base(&self) -> Path {
        self.root.base.clone()
    }

    /// Returns the store that holds everything.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.root.store
    }

    pub(crate) fn file_path(&self, table: Table, path: &str) -> Result<Path> {
        let mut full = self.table_path(table);
        for part in path.split('/') {
            full = full.join(part);
        }
        Ok(full)
    }

    /// Adds the columns that a table lacks. Retries, because it reads the log with many calls, any of which may fail.
    async fn widen(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        for _ in 1..LOOKS_AT_A_LISTING {
            match log.widen().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(table = table.name(), reason = error.chain(), "reading the log again");
                }
                done => return done,
            }
        }
        log.widen().await
    }

    /// Creates a table. Another process may do so at the same moment.
    async fn create(&self, table: Table) -> Result<()> {
        if self.has(table).await? {
            return Ok(());
        }
        let path = entry_path(&self.table_path(table), 0);
        let text = creation(table, self.clock.now_micros() / 1000, self.clock.unique_id());
        match self.root.store.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            // The store may answer 409 before the other writer's entry appears, or even if it never does.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.root.store.head(&path).await.map(|_| ()).map_err(|source| {
                    Error::unavailable(format!("another process is creating table `{}`", table.name()))
                        .with_source(source)
                })
            }
            Err(source) => Err(from_store(source)),
        }
    }
}

/// Returns the version and the files of an opened table.
///
/// # Errors
/// `Data` if another program has deleted single rows of a file.
pub fn files_of(delta: &DeltaTable) -> Result<(i64, Vec<AddedFile>)> {
    let snapshot = delta.snapshot().stored()?;
    let mut files = Vec::new();
    for view in snapshot.log_data().iter() {
        if view.deletion_vector_descriptor().is_some() {
            return Err(deleted_rows(&view.path()));
        }
        let stats = view.stats();
        files.push(AddedFile {
            path: view.path().into_owned(),
            size: view.size(),
            rows: stats.as_deref().and_then(rows_in_statistics),
            partition_values: view.partition_values_map().into_iter().collect(),
            data_change: true,
            stats,
        });
    }
    let version = i64::try_from(snapshot.version())
        .map_err(|source| Error::data("a table version is out of range").with_source(source))?;
    Ok((version, files))
}
