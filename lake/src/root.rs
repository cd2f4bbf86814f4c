//! A lake: one root with all tables in it; durable writing and reading of their files.

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

/// How often a table is opened again whose listing is behind its log.
const LOOKS_AT_A_LISTING: usize = 3;

/// A file that is written and durable.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// The file, as a commit names it.
    pub file: DataFile,
    /// Exactly its rows, in file order, with the columns that the encoder was told to hand on; empty where it was not.
    pub rows: Vec<RecordBatch>,
}

/// All tables under one root. Cloning is cheap.
#[derive(Clone)]
pub struct Lake {
    root: Arc<OpenRoot>,
    clock: Arc<dyn Clock>,
    work: Work,
    /// Files that a rewrite leaves as they are, since it would lose columns of theirs: not looked into again.
    more_columns: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("root", &self.root.url.as_str()).finish_non_exhaustive()
    }
}

// === impl Lake ===

impl Lake {
    /// Opens a folder or `s3://` prefix; makes the folder and the tables that are missing, and adds the columns that tables of
    /// an earlier version lack.
    ///
    /// # Errors
    /// `Config` where the root cannot be made, or its store lets two writers create one object; `Data` where a table is not
    /// one that this program can write to; `Unavailable` where it does not answer.
    pub async fn open(root: &str, options: &StorageOptions) -> Result<Self> {
        Self::open_with_clock(root, options, Arc::new(SystemClock)).await
    }

    /// As [`Lake::open`], with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn open_with_clock(root: &str, options: &StorageOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::at(store::open(root, options).await?, clock, Work::Pool).await
    }

    /// Opens a store of the caller's, with nothing else in it; makes the tables that are missing. Everything then runs
    /// on the calling thread, so that the order of events is the caller's: for simulation, not for service.
    ///
    /// # Errors
    /// `Unavailable` where the store does not answer.
    pub async fn on_store(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Result<Self> {
        let url = Url::parse("memory:///")
            .map_err(|source| Error::bug("an address of memory cannot be made").with_source(source))?;
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

    /// Opens a folder or `s3://` prefix as it is: makes and writes nothing. Columns that a table of an earlier version lacks
    /// are null when it is read.
    ///
    /// # Errors
    /// `Config` where there is no such folder; `Unavailable` where it cannot be looked into.
    pub async fn open_as_it_is(root: &str, options: &StorageOptions) -> Result<Self> {
        let root = Arc::new(store::open_as_it_is(root, options)?);
        Ok(Self { root, clock: Arc::new(SystemClock), work: Work::Pool, more_columns: Arc::default() })
    }

    /// As [`Lake::open_as_it_is`], for whoever only asks, perhaps without the right to write; but where a table is missing,
    /// as [`Lake::open`], which makes it.
    ///
    /// # Errors
    /// As those.
    pub async fn open_to_read(root: &str, options: &StorageOptions) -> Result<Self> {
        let lake = Self::open_as_it_is(root, options).await?;
        for table in Table::ALL {
            if !lake.has(table).await? {
                return Self::open(root, options).await;
            }
        }
        Ok(lake)
    }

    /// True where a table has been made.
    async fn has(&self, table: Table) -> Result<bool> {
        // Of an old table, the first entries may have been cleaned up.
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

    /// Address of the root.
    pub fn root(&self) -> &Url {
        &self.root.url
    }

    /// Root as people write it: a path for a folder, an address otherwise.
    pub fn root_display(&self) -> String {
        match self.root.url.to_file_path() {
            Ok(path) => path.display().to_string(),
            Err(()) => self.root.url.to_string(),
        }
    }

    /// The clock that commits are dated by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The log of a table.
    pub fn log(&self, table: Table) -> DeltaLog {
        DeltaLog {
            table,
            store: Arc::clone(&self.root.store),
            path: self.table_path(table),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Writes rows as Parquet files, one for each value of the partition column, and makes them durable. Nothing reads
    /// them until a commit names them.
    ///
    /// # Errors
    /// `Unavailable` where storage does not take them; `Bug` where the batch does not have the table's schema.
    pub async fn write(&self, table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
        let batch = batch.clone();
        let rows = self.work.run("the Parquet writer", move || EncodedRows::of(table, &batch)).await?;
        self.store(&rows).await
    }

    /// As [`Lake::write`], for rows that are encoded already.
    ///
    /// # Errors
    /// `Unavailable` where storage does not take them.
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

    /// Reads a file's rows, in file order, with the types of [`Table::arrow_schema`]; `columns` limits the columns.
    ///
    /// # Errors
    /// `Data` where the file is gone or unreadable.
    pub async fn read(&self, table: Table, file: &AddedFile, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let wanted = parquet_file::wanted_schema(table, columns)?;
        let of = file.clone();
        let work = move || parquet_file::batches_as(table, &of, bytes, &wanted)?.collect();
        self.work.run("the Parquet reader", work).await.map_err(|error| parquet_file::unreadable(table, file, error))
    }

    /// Removes files that no commit names, as after a fenced commit. Failing to is harmless: vacuum takes them later.
    pub async fn discard(&self, table: Table, files: &[DataFile]) {
        for file in files {
            if let Ok(path) = self.file_path(table, &file.path)
                && let Err(error) = self.root.store.delete(&path).await
            {
                tracing::debug!(path = %path, error = %error, "an unused file could not be removed");
            }
        }
    }

    /// The table's newest version and the files in it. A snapshot is found by listing the log, and a listing may be behind
    /// what was written; so the log is asked by name whether there is a newer version.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer, or its listings are behind; `Data` where the log is torn.
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

    /// The files that were in the table at a version.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer, or that version's log is gone; `Data` where it is torn.
    pub async fn files_at(&self, table: Table, version: i64) -> Result<Vec<AddedFile>> {
        Ok(files_of(&self.delta_table_at(table, version).await?)?.1)
    }

    /// A table's snapshot at a version, for queries.
    ///
    /// # Errors
    /// As [`Lake::files_at`].
    pub async fn delta_table_at(&self, table: Table, version: i64) -> Result<DeltaTable> {
        let mut delta = self.delta_table(table).await?;
        let wanted = u64::try_from(version)
            .map_err(|source| Error::bug(format!("version {version} is asked for")).with_source(source))?;
        match self.work.whole(delta.load_version(wanted)).await {
            Ok(()) => Ok(delta),
            Err(source) => match self.log(table).reaches_back_to(version).await {
                Ok(false) => {
                    let name = table.name();
                    let what = format!("table `{name}` cannot be read as of version {version}: its log was cleaned up");
                    Err(Error::data(what).with_source(source).with_hint(
                        "have what is derived from `events` made again (`bellwether rebuild`); keep log entries for longer \
                         (`delta.logRetentionDuration`)",
                    ))
                }
                _ => Err(self.why_closed(table, source).await),
            },
        }
    }

    /// A table's newest snapshot, for queries and maintenance.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the table's log is torn.
    pub async fn delta_table(&self, table: Table) -> Result<DeltaTable> {
        let path = self.table_path(table);
        let url = self
            .root
            .url
            .join(&format!("{}/", table.name()))
            .map_err(|source| Error::bug("a table's address cannot be made").with_source(source))?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root.store), path));
        let log_store = default_logstore(prefixed, Arc::clone(&self.root.store), &url, &StorageConfig::default());
        let mut delta = DeltaTable::new(Arc::new(BoundedReads(log_store)));
        match self.work.whole(delta.load()).await {
            Ok(()) => Ok(delta),
            Err(source) => Err(self.why_closed(table, source).await),
        }
    }

    /// Why the Delta library does not open a table. It goes by a listing, which may be behind; what is wrong with the log
    /// for good, our own reading finds too, and has better words for.
    async fn why_closed(&self, table: Table, source: DeltaTableError) -> Error {
        match self.log(table).load().await {
            Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Unavailable) => error,
            _ => from_delta(source),
        }
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }

    /// True where a file is known to have columns that this program does not know.
    pub(crate) fn is_of_more_columns(&self, path: &str) -> bool {
        self.more_columns.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    pub(crate) fn note_files_of_more_columns(&self, paths: Vec<String>) {
        self.more_columns.lock().unwrap_or_else(PoisonError::into_inner).extend(paths);
    }

    /// The whole store under the root, and the root's path in it.
    pub fn table_path(&self, table: Table) -> Path {
        self.root.base.clone().join(table.name())
    }

    /// A data file, whole.
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

    /// The root's path in its store.
    pub fn base(&self) -> Path {
        self.root.base.clone()
    }

    /// The store that everything is in.
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

    /// Adds the columns that a table lacks. It reads a log for that, and of so many calls one may fail: it is tried again.
    async fn widen(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        for _ in 1..LOOKS_AT_A_LISTING {
            match log.widen().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(table = table.name(), reason = error.chain(), "its log is read again");
                }
                done => return done,
            }
        }
        log.widen().await
    }

    /// Makes a table; another process may do so at the same moment.
    async fn create(&self, table: Table) -> Result<()> {
        if self.has(table).await? {
            return Ok(());
        }
        let path = entry_path(&self.table_path(table), 0);
        let text = creation(table, self.clock.now_micros() / 1000, self.clock.unique_id());
        match self.root.store.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            // 409 may come before the other writer's entry is there, and even where it never will be.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.root.store.head(&path).await.map(|_| ()).map_err(|source| {
                    Error::unavailable(format!("table `{}` is being made by another process", table.name()))
                        .with_source(source)
                })
            }
            Err(source) => Err(from_store(source)),
        }
    }
}

/// Version and files of a snapshot.
fn files_of(delta: &DeltaTable) -> Result<(i64, Vec<AddedFile>)> {
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
